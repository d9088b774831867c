"""The drawn scenes: functions of their number, one shape and texture each, skewed as asked."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from imgcls_jax import assembly, config, datasets, tree
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.datasets import DATASETS
from imgcls_jax.datasets import shapes as drawing
from imgcls_jax.errors import ConfigError

RECORDED = Path(__file__).with_name("shapes.npz")


def read(source, split, **arguments):
    size = source.sizes[split]
    (batch,) = eval_batches(datasets.split(source, split), [], batch_size=size,
                                     rows=slice(0, size), channels=3, classes=len(source.classes))
    return batch


def test_the_scenes_are_those_that_were_recorded():
    """Within two levels: a sine differs in its last bit from one processor to the next."""
    recorded = np.load(RECORDED)
    source = DATASETS.get("shapes")(examples=20, held_out=4, size=32)
    for split in ("train", "validation"):
        found = read(source, split)["image"][:4].astype(int)
        assert np.abs(found - recorded[split]).max() <= 2


def test_an_example_depends_on_no_other_and_on_no_size_of_the_split():
    few = read(DATASETS.get("shapes")(examples=20, held_out=20, size=24), "train")
    many = read(DATASETS.get("shapes")(examples=60, held_out=20, size=24), "train")
    np.testing.assert_array_equal(few["image"], many["image"][:20])
    np.testing.assert_array_equal(many["label"], np.arange(60) % 20)
    other = read(DATASETS.get("shapes")(examples=20, held_out=20, size=24, seed=1), "train")
    assert not any((a == b).all() for a, b in zip(few["image"], other["image"], strict=True))


def test_no_scene_of_training_is_held_out():
    source = DATASETS.get("shapes")(examples=200, held_out=200, size=16)
    scenes = [image.tobytes() for split in source.sizes for image in read(source, split)["image"]]
    assert len(set(scenes)) == 400


def test_labels_are_known_before_an_image_is_drawn(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("drawn")

    source = DATASETS.get("shapes")(examples=300, held_out=40, size=16, imbalance=10,
                                    classes=(3, 7, 19))
    assert source.classes == tuple(drawing.CLASSES[k] for k in (3, 7, 19))
    labels = {split: read(source, split)["label"] for split in source.sizes}
    monkeypatch.setattr(drawing, "draw", refuse)
    for split, expected in labels.items():
        np.testing.assert_array_equal(datasets.labels(source, split, ""), expected)


def test_the_halves_share_shapes_and_textures_but_no_class():
    assert len(set(drawing.CLASSES)) == 20
    words = [[set(part) for part in zip(*(name.split() for name in half), strict=True)]
             for half in (drawing.CLASSES[:10], drawing.CLASSES[10:])]
    assert words[0] == words[1] == [set(drawing.TEXTURES), set(drawing.SHAPES)]


def test_imbalance_skews_training_alone_and_keeps_the_first_class():
    """n_k = n_0 * 100 ** (-k / 9), the largest class as it was."""
    balanced = DATASETS.get("shapes")(examples=500, held_out=50, size=16,
                                      classes=tuple(range(10)))
    skewed = DATASETS.get("shapes")(examples=500, held_out=50, size=16, classes=tuple(range(10)),
                                    imbalance=100)
    counts = np.bincount(datasets.labels(skewed, "train", ""))
    assert list(counts) == [50, 30, 18, 11, 6, 4, 2, 1, 1, 1]
    assert skewed.sizes["train"] == 124
    np.testing.assert_array_equal(np.bincount(datasets.labels(skewed, "validation", "")), [5] * 10)
    kept = {image.tobytes() for image in read(skewed, "train")["image"]}
    assert kept < {image.tobytes() for image in read(balanced, "train")["image"]}


def test_color_does_not_tell_the_class():
    """A linear classifier on histograms of color is near chance, a twentieth."""
    source = DATASETS.get("shapes")(examples=700, held_out=300, size=32)
    features = {}
    for split in source.sizes:
        batch = read(source, split)
        levels = (batch["image"] // 64).astype(int) @ (16, 4, 1)
        rows = levels.reshape(len(levels), -1)
        features[split] = np.stack([np.bincount(row, minlength=64) for row in rows]), batch["label"]
    scaler = StandardScaler().fit(features["train"][0])
    linear = LogisticRegression(C=0.01, max_iter=500).fit(
        scaler.transform(features["train"][0]), features["train"][1])
    assert linear.score(scaler.transform(features["validation"][0]),
                        features["validation"][1]) < 0.15


@pytest.mark.parametrize("arguments, key", [
    ({"classes": (1, 1)}, "classes"), ({"classes": (20,)}, "classes"), ({"classes": ()}, "classes"),
    ({"examples": 19}, "examples"), ({"imbalance": 0.5}, "imbalance"), ({"size": 8}, "size"),
    ({"held_out": 0}, "held_out")])
def test_arguments_that_mean_nothing_are_refused(arguments, key):
    with pytest.raises(ConfigError, match=rf"config\.data\.{key}"):
        DATASETS.get("shapes")(**arguments)


def test_the_number_of_examples_is_no_duration():
    run = assembly.build(config.load("shapes", [("data.examples", "640")]).config)
    assert run.steps_per_epoch == 640 / run.batch_size


def test_a_probe_freezes_all_but_the_head():
    (pattern,) = config.load("shapes:probe,weights=w").config["freeze"]
    run = assembly.build(config.load("shapes").config)
    frozen = tree.flatten(tree.match(pattern, run.abstract_state.params))
    assert {path for path, hit in frozen.items() if not hit} == {"head/kernel", "head/bias"}


@pytest.mark.parametrize("variant", ["probe", "scratch,weights=w", "halves"])
def test_a_variant_that_lacks_its_weights_or_has_no_use_for_them_is_refused(variant):
    with pytest.raises(ConfigError, match="is not a variant of this config"):
        config.load(f"shapes:{variant}")
