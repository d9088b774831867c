"""The worked configs, trained for a moment on few files in the layouts of their data."""

import numpy as np
import pytest

from imgcls_jax import config
from imgcls_jax.assembly import build
from imgcls_jax.training.loop import train
from tests.datasets import made
from tests.datasets import test_worked as layouts


def radiographs(root):
    made.write(root, layouts.radiographs("images/"))
    return dict(train=4, test=2)


def signs(root):
    training, test, truth = layouts.signs()
    made.write(root, {f"GTSRB/Final_Training/Images/{name}": data
                      for name, data in training.items()})
    made.write(root, {f"GTSRB/Final_Test/Images/{name}": data for name, data in test.items()})
    made.write(root, {"GTSRB/GT-final_test.csv": truth})
    return dict(train=18, test=3)


def faces(root):
    made.write(root, layouts.faces())
    return dict(train=4, test=4, pairs=8, pairs_dev_test=4)


def products(root):
    made.write(root, layouts.products(80))
    return {}


def leaves(root):
    for i in range(24):
        made.write(root, {f"Apple___{('scab', 'healthy')[i % 2]}/{i}.JPG": made.jpeg(i)})
    return {}


SMALL = [("model", "{'name': 'resnet20', 'width': 4}"), ("total.steps", "2"), ("batch_size", "8")]
CASES = {
    "chest_xray": (radiographs, "data_dir", [
        ("data.train", "train"), ("data.eval", "test"), ("loss.class_weights", "None"),
        ("schedule", "{'name': 'constant', 'base': 0.001}")], "val/mean"),
    "traffic_signs": (signs, "data_dir", [("schedule.warmup", "None")], "test/balanced_accuracy"),
    "face_verification": (faces, "data_dir", [("schedule.warmup", "None"),
                                              ("evals.pairs.folds", "2")], "pairs/auc"),
    "product_tags": (products, "data_dir", [
        ("data.columns", "('gender', 'baseColour')"), ("total.steps", "8")],
        "val/average_precision_macro"),
    "plant_disease": (leaves, "dir", [("schedule.warmup", "None")], "val/balanced_accuracy")}


@pytest.mark.filterwarnings("ignore")  # of classes that so few examples lack
@pytest.mark.nightly
@pytest.mark.parametrize("name", CASES)
def test_a_worked_config_trains_and_is_measured(name, tmp_path, monkeypatch):
    make, place, changes, metric = CASES[name]
    sizes = make(tmp_path / "data")
    if sizes:
        made.sizes(monkeypatch, **sizes)
    loaded = config.load(f"worked/{name}:{place}={tmp_path / 'data'},size=16",
                         [*SMALL, *changes, ("checkpoint.best", "None"),
                          ("checkpoint.every.steps", "2")])
    results = train(build(loaded.config), tmp_path / "w", quiet=True)
    evaluation, key = metric.split("/")
    if key == "mean":  # radiographs: so few that a finding may be all of one kind
        assert {"loss", "roc_auc_macro", "f1_macro"} <= set(results["eval"][evaluation])
    else:
        assert 0 <= results["eval"][evaluation][key] <= 1
    assert np.isfinite(results["eval"][evaluation].get("loss", 0.0))
