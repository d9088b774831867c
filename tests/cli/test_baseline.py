"""imgcls baseline: what it says of data whose answer is known, and what it refuses."""

import builtins
import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from imgcls_jax.bench import baseline as histograms
from imgcls_jax.cli import _command as command
from imgcls_jax.cli import baseline
from imgcls_jax.datasets import DATASETS
from imgcls_jax.types import Lookup, Source

pytest.importorskip("skimage")


def results(capsys, *words) -> dict:
    assert command.main(["baseline", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_digits_are_learned_and_the_interval_is_wilsons(capsys, tmp_path):
    found = results(capsys, "--config=digits", f"--workdir={tmp_path / 'w'}")
    values = found["eval"]["test"]
    assert found["examples"] == 1437 and values["examples"] == 360
    assert found["features"] == 9 * 4 * 9  # 4 x 4 cells of two pixels, 3 x 3 blocks of four
    assert 0.94 < values["top1"] < 0.995 <= values["top5"]
    from scipy.stats import binomtest

    expected = binomtest(round(360 * values["top1"]), 360).proportion_ci(method="wilson")
    np.testing.assert_allclose(values["top1_interval"], expected, atol=1e-4)
    assert json.loads((tmp_path / "w" / "results.json").read_text()) == found


@pytest.mark.nightly
def test_the_drawn_scenes_are_found_better_than_by_chance_and_worse_than_by_a_network(capsys):
    found = results(capsys, "--data=shapes", "--config.data.examples=1000",
                    "--config.data.held_out=500", "--C=0.1", "--size=32")
    assert 0.15 < found["eval"]["validation"]["top1"] < 0.6 and found["C"] == 0.1


def test_multilabel_data_has_one_machine_a_class(monkeypatch):
    """Bars that lie and bars that stand, neither, either or both."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (160, 2)).astype(np.float32)
    images = rng.integers(0, 30, (160, 32, 32, 1), np.uint8)
    images[labels[:, 0] > 0, 4:12] += 200
    images[labels[:, 1] > 0, :, 20:26] += 25

    def open_split(name):
        import tensorflow as tf

        first = 0 if name == "train" else 100
        return Lookup(100 if name == "train" else 60,
                      lambda i: {"image": tf.gather(images, i + first),
                                 "label": tf.gather(labels, i + first)}, str)

    DATASETS.names()
    monkeypatch.setitem(DATASETS._found, "bars", lambda: Source(
        "bars", ("lying", "standing"), {"train": 100, "val": 60}, open_split, channels=1,
        kind="multilabel", image_size=(32, 32)))
    found = baseline.measure({"data": {"name": "bars"}, "eval_transforms": (), "seed": 0})
    assert found["eval"]["val"]["map"] > 0.9 and found["C"] in histograms.CANDIDATES


def test_mean_precision_is_over_the_classes_that_occur():
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=(50, 3)), rng.integers(0, 2, (50, 3))
    labels[:, 1] = 0
    expected = np.mean([average_precision_score(labels[:, k], scores[:, k]) for k in (0, 2)])
    assert histograms.mean_precision(scores, labels) == pytest.approx(expected)


def test_without_scikit_image_the_extra_is_named(monkeypatch, capsys):
    imported = builtins.__import__

    def without(name, *arguments):
        if name.startswith("skimage"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    assert command.main(["baseline", "--config=digits"]) == 6
    assert "imgcls_jax[baseline]" in capsys.readouterr().err


def test_a_split_that_is_not_there_is_told(capsys):
    assert command.main(["baseline", "--data=shapes", "--config.data.eval=test"]) == 2
    assert "no split 'test'" in capsys.readouterr().err
