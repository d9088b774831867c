"""Files with real weights, of the packages that the extra `test` installs: they name photos."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage

import imgcls_jax
from experiments.parity import published
from imgcls_jax.__main__ import main
from imgcls_jax.datasets import DATASETS
from imgcls_jax.pretrained import classes

PHOTOS = Path(skimage.__file__).parent / "data"
SHOW = {  # the photos in the wheel that show something that is an ImageNet class
    "camera.png": {"tripod"},
    "chelsea.png": {"tabby", "tiger cat", "Egyptian cat"},
    "clock_motion.png": {"wall clock", "analog clock"},
    "coffee.png": {"espresso"},
    "motorcycle_left.png": {"moped", "motor scooter"},
    "rocket.jpg": {"missile", "projectile", "space shuttle"}}


@pytest.mark.daily(1)
@pytest.mark.parametrize("model", published.SIZES)
def test_everyday_photos_are_named(model, capsys):
    files = [str(PHOTOS / name) for name in SHOW]
    assert main(["predict", f"--weights={model}/imagenet1k", "--format=jsonl", "--batch=2",
                 *files]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == files
    for row, right in zip(rows, SHOW.values(), strict=True):
        assert right & {hit["label"] for hit in row["topk"]}, row


@pytest.mark.daily(1)
@pytest.mark.parametrize("model, size", published.SIZES.items())
def test_logits_of_photos_are_those_of_torch_with_the_same_file(model, size):
    found = imgcls_jax.load(f"{model}/imagenet1k").logits(published.photos(size))
    with np.load(published.OUT) as recorded:
        error = np.abs(found[:, ::published.EVERY] - recorded[f"logits:{model}"]).max()
        assert error < 1e-4 * recorded[f"sd:{model}"]


def test_a_file_of_the_package_is_known_by_its_name_and_another_by_what_is_said_of_it(tmp_path):
    file = published.file("efficientnet_lite0")
    known = imgcls_jax.load(file)
    assert known.spec.name == "efficientnet_lite0" and known.labels[281] == "tabby"
    assert known.preprocessing["transforms"] == (  # tensorflow/tpu: preprocessing.py, main.py
        {"name": "decode", "dct": "fast"},
        {"name": "resize_small", "size": 256, "interpolation": "bilinear", "library": "tensorflow",
         "antialias": False},
        {"name": "center_crop", "size": 224})
    own = tmp_path / "own.pth"
    own.symlink_to(file)
    with pytest.raises(imgcls_jax.errors.ConfigError, match=r"model of the weights .* not known"):
        imgcls_jax.load(own)
    found = imgcls_jax.load(own, model="efficientnet_lite0")
    assert found.preprocessing["mean"] == (127 / 255,) * 3  # of the model
    assert [step["size"] for step in found.preprocessing["transforms"]] == [256, 224]


def test_the_names_of_imagenet_are_in_the_order_of_its_wordnet_ids():
    names = classes.imagenet()
    assert tuple(names) == DATASETS.get("imagenet2012")().classes
    assert len(set(names.values())) == 1000 and all(name == name.strip() for name in names.values())
    listed = list(names.values())
    assert [listed[i] for i in (0, 134, 281, 517, 967, 999)] == [
        "tench", "crane (bird)", "tabby", "crane", "espresso", "toilet tissue"]


def test_only_all_the_ids_of_imagenet_are_given_names():
    ids = tuple(classes.imagenet())
    assert classes.named(ids)[281] == classes.numbered(1000)[281] == "tabby"
    assert classes.named(ids[:10]) == ids[:10] and classes.numbered(2) == ("0", "1")
