"""What counts as an image from Python, and that no pixel is taken for a normalised one."""

import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.predict import Model, load
from imgcls_jax.types import ModelSpec

MEAN, STD = (0.5, 0.25, 0.125), (0.25, 0.5, 1.0)
LEVELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


class Mean(nn.Module):
    """The mean of each channel, and a head."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(5, name="head")(x.mean((1, 2)))


@pytest.fixture(scope="module")
def model():
    variables = Mean().init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    spec = ModelSpec(name="mean", image_size=8, params=20, head="head", paper="")
    return Model(Mean(), variables, spec, tuple("abcde"), {
        "transforms": ({"name": "resize", "size": 8},), "mean": MEAN, "std": STD, "channels": 3,
        "image_size": (8, 8)})


def normalised(levels):
    return ((levels / 255 - MEAN) / STD).astype(np.float32)


def encoded(levels, form="PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(levels).save(out, form)
    return out.getvalue()


FORMS = {
    "array": lambda: LEVELS,
    "jax": lambda: jnp.asarray(LEVELS),
    "arrays": lambda: list(LEVELS),
    "generator": lambda: (levels for levels in LEVELS),
    "bytes": lambda: [encoded(levels) for levels in LEVELS],
    "pillow": lambda: [Image.fromarray(levels) for levels in LEVELS],
    "mixed": lambda: [LEVELS[0], encoded(LEVELS[1]), Image.fromarray(LEVELS[2]),
                      np.dstack((LEVELS[3], np.full((8, 8), 255, np.uint8)))],
}


@pytest.mark.parametrize("form", FORMS)
def test_levels_are_normalised_in_every_form(model, form):
    expected = normalised(LEVELS).mean((1, 2))
    np.testing.assert_allclose(model.features(FORMS[form]()), expected, rtol=1e-5, atol=1e-6)


def test_levels_are_normalised_for_every_answer(model):
    logits = model.logits(LEVELS)
    np.testing.assert_allclose(logits, model.logits(normalised(LEVELS)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model(LEVELS, batch_size=3), jax.nn.softmax(logits), rtol=1e-5)
    seen = model.intermediates(LEVELS, "head")["head"]
    np.testing.assert_allclose(seen, logits, rtol=1e-5, atol=1e-5)


def test_files_and_single_images(model, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(LEVELS[0]))
    expected = model(LEVELS[:1])
    for one in (tmp_path / "a.png", str(tmp_path / "a.png"), encoded(LEVELS[0]),
                Image.fromarray(LEVELS[0])):
        np.testing.assert_allclose(model(one), expected, rtol=1e-5)
    gray = LEVELS[0, :, :, 0]
    several = model([gray, gray[..., None], Image.fromarray(gray), encoded(gray)])
    np.testing.assert_allclose(several, np.tile(model(np.dstack([gray] * 3)), (4, 1)), rtol=1e-5)
    assert model([]).shape == (0, 5)


def test_transparent_pixels_lie_on_white_on_every_way_in(model):
    clear = np.dstack((LEVELS[0], np.zeros((8, 8), np.uint8)))
    found = model([clear, Image.fromarray(clear), encoded(clear), np.full((8, 8, 3), 255, "u1")])
    np.testing.assert_allclose(found, found[3:].repeat(4, 0), rtol=1e-5)


@pytest.mark.parametrize("image, what", [
    (LEVELS[0] / 255, "float64"), (LEVELS[0].astype(np.float32), "float32"),
    (LEVELS[0].astype(np.int64), "int64"), (np.zeros((8, 8, 5), np.uint8), "8, 8, 5"),
    (LEVELS, "4, 8, 8, 3"), (np.zeros((0, 8, 3), np.uint8), "0, 8, 3"), (None, "object")])
def test_what_is_no_image_is_refused_by_its_place(model, image, what):
    for call in (model, model.features, model.logits):
        with pytest.raises(DataError, match=what) as error:
            call([LEVELS[0], image])
        assert error.value.where == "image 1" and error.value.fix


def test_floats_are_refused_where_levels_are_wanted_and_taken_where_they_are_normalised(model):
    with pytest.raises(DataError, match="float32"):
        model(normalised(LEVELS))
    np.testing.assert_allclose(model.features(normalised(LEVELS)),
                               normalised(LEVELS).mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_a_file_that_cannot_be_decoded_is_named(model, tmp_path):
    (tmp_path / "bad.png").write_bytes(encoded(LEVELS[0])[:60])
    with pytest.raises(DataError) as error:
        model.features([LEVELS[0], tmp_path / "bad.png"])
    assert error.value.where == str(tmp_path / "bad.png")


def test_a_model_says_what_it_is_in_a_line(model):
    assert repr(model) == "<Model mean: 20 parameters, multiclass, 5 classes, images of 8 x 8>"


@pytest.mark.parametrize("name, says", [
    ("resnet50", "resnet50/imagenet1k_v1, resnet50/imagenet1k_v2"),
    ("resnet50/imagenet1k_v3", "'imagenet1k_v2'")])
def test_a_name_without_its_tag_is_answered_with_the_tags(name, says):
    with pytest.raises(ConfigError) as error:
        load(name)
    assert says in error.value.fix
