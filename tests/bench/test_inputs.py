"""imgcls bench input: its photos, its cases, and what a ratio is of."""

import io
import itertools
import sys

import numpy as np
import pytest
from PIL import Image

from imgcls_jax.bench import inputs
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import ConfigError, EnvironmentFailure
from imgcls_jax.transforms import TRANSFORMS


@pytest.fixture
def by_pillow(monkeypatch):
    """Raw decoding without simplejpeg: it takes a millisecond an image."""
    monkeypatch.setattr(inputs, "raw", lambda files: lambda: 1e-3)
    monkeypatch.setattr(inputs, "rest", itertools.count(0.0, 0.5).__next__)


def test_photos_are_jpegs_of_their_size_and_one_in_four_is_upright():
    files = [inputs.encoded(inputs.photo(i, *inputs.turned(i, 500, 375)))
             for i in range(8)]
    opened = [Image.open(io.BytesIO(data)) for data in files]
    assert [image.size for image in opened] == 2 * ([(500, 375)] * 3 + [(375, 500)])
    assert 70_000 < np.mean([len(data) for data in files]) < 120_000
    assert len(set(files)) == 8


@pytest.mark.nightly
def test_the_ratio_is_raw_decodings_time_over_that_of_the_input(by_pillow, tmp_path):
    names = ["train", "train from records", "train with randaugment", "eval as Pillow"]
    sides, files = inputs.of_photos(tmp_path, 8, 4, names)
    found = inputs.measure(sides, files, rounds=2)
    assert list(found["cases"]) == names and found["files"] == 8
    for case in found["cases"].values():  # half a second between two looks at the clock, 8 images
        assert case["milliseconds_per_image"]["median"] == pytest.approx(500 / 8)
        assert case["ratio_to_raw"]["median"] == pytest.approx(8 / 500)


def test_a_datasets_own_input_is_measured_on_its_own_jpegs(by_pillow, tmp_path):
    for split, label in itertools.product(("train", "val"), "ab"):
        place = tmp_path / split / label
        place.mkdir(parents=True)
        for i in range(4):
            (place / f"{i}.jpg").write_bytes(inputs.encoded(
                inputs.photo(i, 60, 45)))
    source = DATASETS.get("folder")(dir=str(tmp_path))
    transforms = {"train": [TRANSFORMS.get("random_resized_crop")(size=32)],
                  "eval": [TRANSFORMS.get("resize")(size=32)]}
    sides, files = inputs.of_data(source, {"train": "train", "eval": "val"}, transforms, 6, 4)
    assert set(sides) == {"train", "eval"} and len(files) == 6
    assert all(data.startswith(b"\xff\xd8") for data in files)
    inputs.measure(sides, files, rounds=1)
    digits, splits = DATASETS.get("digits")(), {"train": "train", "eval": "test"}
    with pytest.raises(ConfigError, match="no JPEGs"):
        inputs.of_data(digits, splits, {"train": [], "eval": []}, 6, 4)


def test_what_is_missing_is_told(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="no case is called fast"):
        inputs.of_photos(tmp_path, 4, 4, ["fast"])
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(EnvironmentFailure, match="simplejpeg") as error:
        inputs.raw([b""])
    assert "[bench]" in error.value.fix
