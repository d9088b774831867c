"""imgcls data show: the picture holds the examples and what training would see of them."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from imgcls_jax import config
from imgcls_jax.cli import _command as command
from imgcls_jax.cli import data
from imgcls_jax.data.curation import show
from imgcls_jax.datasets import DATASETS
from imgcls_jax.types import Shards, Source


@pytest.fixture
def drawn(monkeypatch):
    """What `show` hands to the drawing."""
    found = {}

    def draw(*arguments):
        found["title"], found["below"], found["originals"] = arguments[:3]
        found["augmented"], found["names"], found["classes"] = arguments[3:]
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(show, "_draw", draw)
    return found


def loaded(**changes) -> dict:
    """The digits with 16 rows of 8 x 8 pixels."""
    return {**config.load("digits").config, **changes}


def test_the_picture_is_written_and_has_a_cell_for_each(tmp_path):
    out = tmp_path / "show.png"
    assert command.main(["data", "show", "--config=digits", f"--out={out}", "--rows=3",
                         "--columns=2"]) == 0
    with Image.open(out) as picture:
        pixels, (width, height) = np.asarray(picture), picture.size
        assert picture.format == "PNG"
    side = 112  # 14 times the 8 pixels of a digit
    assert width > 3 * side and height > 3 * side
    split = DATASETS.get("digits")().open("train")
    chosen = np.sort(np.random.default_rng(0).choice(split.size, 3, replace=False))
    for row, index in enumerate(chosen):  # the original stands in the first column, enlarged
        digit = split.read(int(index))["image"].numpy()[..., 0].repeat(14, 0).repeat(14, 1)
        assert any((pixels[y:y + side, 20:20 + side, 0] == digit).all()
                   for y in range(50, height - side)), row


def test_the_augmented_are_what_the_pipeline_gives_in_as_many_epochs(drawn):
    choice = loaded(transforms=({"name": "pad_crop", "padding": 2, "mode": "zero"},))
    data.picture(choice, rows=5, columns=3, seed=4)
    assert len(drawn["augmented"]) == 3 and len(drawn["originals"]) == 5
    originals = np.stack([image for image, _ in drawn["originals"]])
    shifted = 0
    for images, targets in drawn["augmented"]:
        assert images.shape == (5, 8, 8, 1) and images.dtype == np.uint8
        np.testing.assert_array_equal(targets.argmax(1), [k for _, k in drawn["originals"]])
        for image, original in zip(images, originals, strict=True):
            padded = np.pad(original[..., 0], 2)
            places = [(y, x) for y in range(5) for x in range(5)
                      if (padded[y:y + 8, x:x + 8] == image[..., 0]).all()]
            assert places  # a crop of its own row
            shifted += (2, 2) not in places
    assert shifted > 5
    split = DATASETS.get("digits")().open("train")
    for name, (image, label) in zip(drawn["names"], drawn["originals"], strict=True):
        index = next(i for i in range(split.size) if split.where(i) == name)
        row = split.read(index)
        np.testing.assert_array_equal(image, row["image"])
        assert label == int(row["label"])


@pytest.mark.nightly
def test_device_transforms_are_shown_as_the_step_applies_them(drawn):
    """Mixup: levels and labels are mixed by one weight with the row before."""
    choice = loaded(transforms=(), device_transforms=({"name": "mixup", "alpha": 1.0},))
    data.picture(choice, rows=6, columns=4, seed=2)
    originals = np.stack([image for image, _ in drawn["originals"]]).astype(float)
    labels = np.eye(10)[[label for _, label in drawn["originals"]]]
    weights = set()
    for step, (images, targets) in enumerate(drawn["augmented"]):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(2), step), 1)
        key, _ = jax.random.split(jax.random.fold_in(key, 0))
        weight = float(jax.random.beta(key, 1.0, 1.0))
        weight = max(weight, 1 - weight)
        np.testing.assert_allclose(targets, weight * labels + (1 - weight) * np.roll(labels, 1, 0),
                                   atol=1e-5)
        mixed = weight * originals + (1 - weight) * np.roll(originals, 1, 0)
        np.testing.assert_allclose(images, mixed, atol=0.51)
        weights.add(round(weight, 3))
    assert len(weights) == 4 and "mixup" in drawn["below"]


def test_nothing_on_the_device_leaves_levels_and_labels_alone(drawn):
    data.picture(loaded(transforms=()), rows=4, columns=1)
    (images, targets), = drawn["augmented"]
    np.testing.assert_array_equal(images, [image for image, _ in drawn["originals"]])
    assert set(targets.sum(1)) == {1}


def test_record_files_are_shown_by_the_same_examples(drawn, tmp_path, monkeypatch):
    import tensorflow as tf

    path, rng = str(tmp_path / "records"), np.random.default_rng(0)
    images = []
    with tf.io.TFRecordWriter(path) as out:
        for _ in range(9):
            png = io.BytesIO()
            images.append(rng.integers(0, 256, (8, 8, 1), np.uint8))
            Image.fromarray(images[-1][..., 0]).save(png, "PNG")
            out.write(png.getvalue())
    split = Shards(((path, 0, 9),), lambda file: tf.data.TFRecordDataset(file),
                   lambda record: {"image": record, "label": tf.constant(1, tf.int64)})
    DATASETS.names()
    monkeypatch.setitem(DATASETS._found, "planted", lambda: Source(
        "planted", ("a", "b"), {"train": 9}, lambda name: split, channels=1, image_size=(8, 8)))
    data.picture(loaded(data={"name": "planted"}, transforms=()), rows=4, columns=2, seed=1)
    assert len(drawn["names"]) == 4
    for name, (image, _) in zip(drawn["names"], drawn["originals"], strict=True):
        number = int(name.rpartition(" ")[2])
        np.testing.assert_array_equal(image, images[number])
    for images_of_epoch, _ in drawn["augmented"]:
        np.testing.assert_array_equal(images_of_epoch, [image for image, _ in drawn["originals"]])


def test_a_part_of_a_split_and_more_rows_than_examples(drawn):
    data.picture(loaded(), split="test[:3]", rows=8, columns=1)
    assert len(drawn["originals"]) == 3 and "test[:3], 3 of 3" in drawn["title"]


def test_long_and_foreign_names_are_cut_to_what_the_font_can_draw():
    from PIL import ImageFont

    font = ImageFont.load_default(14)
    assert show._cut("café\n", font, 200) == r"cafe\n"
    cut = show._cut("a very long name of a class " * 9, font, 120)
    assert cut.endswith("...") and font.getlength(cut) <= 120
    assert show._cut("猫", font, 200) == r"\u732b"


def test_faults_are_told(tmp_path, capsys):
    assert command.main(["data", "show", "--config=digits",
                         f"--out={tmp_path / 'no' / 'x.png'}"]) == 6
    assert command.main(["data", "show", "digits", "--split=val"]) == 2
    assert "use one of" in capsys.readouterr().err
