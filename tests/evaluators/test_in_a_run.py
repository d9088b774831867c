"""Every evaluator and metric in a run: named in a config, written by train, found by eval."""

import json

import numpy as np
import pytest

from imgcls_jax import config
from imgcls_jax.__main__ import main
from imgcls_jax.evaluators import EVALUATORS
from imgcls_jax.metrics import METRICS

EVALS = '''

_digits = get_config


def get_config(variant="vit"):
    c = _digits(variant)
    c.model = dict(name="vit_mini", patch_size=2, width=16, depth=1, heads=2, stem=())
    c.batch_size, c.total = 64, dict(steps=80)
    c.schedule = dict(name="cosine", base=5e-3)
    c.evals = {
        "metrics": dict(name="classification", metrics=(
            dict(name="topk"), dict(name="topk_interval", k=(3,)), dict(name="accuracy"),
            dict(name="f1", average=("macro", "micro")), dict(name="balanced_accuracy"),
            dict(name="agreement"), dict(name="confusion"), dict(name="calibration"),
            dict(name="roc_auc"), dict(name="bootstrap", resamples=5,
                                       of=dict(name="average_precision")))),
        "few": dict(name="few_shot", shots=(1, 10), l2=(1.0, 1024.0)),
        "knn": dict(name="knn", train="train[:500]"),
        "probe": dict(name="linear_probe", train="train[:300]", l2=(0.01, 1.0)),
        "retrieval": dict(name="retrieval"),
        "views": dict(name="test_time_augmentation", flip=False, shift=1),
        "pairs": dict(name="verification", count=1000),
        "speed": dict(name="throughput", repeats=2),
        "scaled": dict(name="temperature", fit="train[1000:]"),
    }
    return c
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    file = folder / "evals.py"
    file.write_text((config.folder() / "digits.py").read_text() + EVALS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGCLS_CACHE", str(folder / "cache"))
        assert main(["train", f"--config={file}", f"--workdir={folder / 'w'}", "--quiet"]) == 0
        yield folder / "w", json.loads((folder / "w" / "results.json").read_text())["eval"]


def arrays(workdir) -> dict:
    found = {}
    for path in (workdir / "evaluations").glob("*.npz"):
        with np.load(path) as file:
            found[path.stem] = dict(file)
    return found


def test_train_writes_the_numbers_and_the_arrays(run):
    workdir, found = run
    assert found["metrics"]["top1"] == found["metrics"]["accuracy"] == found["metrics"]["f1_micro"]
    assert found["metrics"]["top1"] > 0.2  # it has learned
    assert {"few", "knn", "probe", "retrieval", "views", "pairs", "speed", "scaled"} < set(found)
    assert found["few"]["10shot_l2_1024"] > found["few"]["1shot_l2_1024"] > 0.1
    for name in ("knn", "probe"):
        assert found[name]["top5"] > found[name]["top1"] > 0.2, name
    assert found["views"]["top5"] > found["views"]["top1"] > 0
    assert found["pairs"]["auc"] > 0.5 and found["speed"]["images_per_second"] > 0
    assert found["scaled"]["temperature"] > 0
    written = arrays(workdir)
    assert set(written) == {"metrics", "pairs", "scaled"}
    confusion = written["metrics"]["confusion"]
    assert confusion.sum() == 360
    assert np.trace(confusion) / 360 == pytest.approx(found["metrics"]["accuracy"])
    assert {"f1_per_class", "accuracy_per_class", "roc_auc_per_class", "reliability_count",
            "average_precision_per_class"} < set(written["metrics"])


def test_eval_finds_the_same(run, capsys):
    workdir, before = run
    written = arrays(workdir)
    for path in (workdir / "evaluations").iterdir():
        path.unlink()
    capsys.readouterr()
    assert main(["eval", f"--workdir={workdir}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["eval"]
    for name in set(before) - {"speed"}:
        assert found[name] == pytest.approx(before[name], abs=1e-6), name
    again = arrays(workdir)
    for name, values in written.items():
        for key, value in values.items():
            np.testing.assert_allclose(again[name][key], value, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("kind, registry", [("metrics", METRICS), ("evaluators", EVALUATORS)])
def test_list_prints_them(kind, registry, capsys):
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == registry.names()
    assert all(len(line.split()) > 3 for line in lines)
