"""Transforms of levels, normalisation, the others: in a step, in this order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax import config
from imgcls_jax.assembly import build
from imgcls_jax.assembly.inputs import preparation
from imgcls_jax.assembly.network import normaliser
from imgcls_jax.bench import hlo
from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.errors import ConfigError

BATCH = 16
LEVELS = (dict(name="pad_crop", padding=1),
          dict(name="randaugment", operations=1, magnitude=3))
FLOATS = dict(name="random_erasing", p=0.5), dict(name="mixup", alpha=0.5)
KEY = jax.random.key(1)


def run(*transforms, accumulate=1, devices=1):
    overrides = [("device_transforms", str(transforms)), ("batch_size", str(BATCH)),
                 ("step.accumulate", str(accumulate)), ("model.depth", "1"), ("model.width", "32"),
                 ("model.stem", "()")]
    return build(config.load("digits:vit", overrides).config, devices=jax.devices()[:devices])


def batch(built):
    rng = np.random.default_rng(0)
    return {"image": rng.integers(0, 256, built.abstract_batch["image"].shape, np.uint8),
            "label": rng.integers(0, 10, BATCH).astype(np.int32),
            "mask": np.ones(BATCH, np.float32)}


@pytest.mark.nightly
def test_levels_come_first_then_normalisation_then_the_rest_each_with_a_key_of_its_own():
    parts = [DEVICE_TRANSFORMS.bind(choice, "")() for choice in (*LEVELS, *FLOATS)]
    normalise = normaliser((0.5,), (0.25,), "float32")
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 8, 8, 1), np.uint8)
    targets = jnp.eye(BATCH)

    def by_hand(key, images, targets):
        for i, part in enumerate(parts):
            images = normalise(images) if i == len(LEVELS) else images
            images, targets = part(jax.random.fold_in(key, i), images, targets)
        return images, targets

    made, expected = (jax.jit(prepare)(KEY, images, targets)
                      for prepare in (preparation(parts, normalise), by_hand))
    for ours, theirs in zip(made, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert made[0].dtype == jnp.float32


@pytest.mark.nightly
def test_the_step_takes_the_gradient_on_the_prepared_batch_split_after_it_was_mixed():
    augmented, plain = run(*LEVELS, *FLOATS, accumulate=2), run(accumulate=2)
    state, given = augmented.init(), batch(augmented)
    parts = [DEVICE_TRANSFORMS.bind(choice, "")() for choice in (*LEVELS, *FLOATS)]
    normalise = normaliser(*(augmented.preprocessing[k] for k in ("mean", "std")), "float32")
    key = jax.random.fold_in(jax.random.fold_in(
        jax.random.key(augmented.config["seed"]), 0), 1)
    images, targets = jax.jit(preparation(parts, normalise))(
        key, given["image"], augmented.task.targets(given["label"]))
    new, sums = jax.jit(augmented.step)(state, given)
    expected, expected_sums = jax.jit(plain.step)(
        state, {"image": images, "label": targets, "mask": given["mask"]})
    np.testing.assert_allclose(sums["gradient_norm"], expected_sums["gradient_norm"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                 new.params, expected.params)


def test_a_transform_of_levels_behind_one_of_floats_is_refused():
    with pytest.raises(ConfigError) as raised:
        run(FLOATS[1], LEVELS[0])
    assert raised.value.where == "config.device_transforms[1]"


def test_levels_of_floats_are_refused_when_the_step_is_traced():
    built = run(LEVELS[0])
    floats = {**built.abstract_batch, "image": jax.ShapeDtypeStruct(
        built.abstract_batch["image"].shape, jnp.float32)}
    with pytest.raises(ConfigError, match="levels"):
        jax.eval_shape(built.step, built.abstract_state, floats)


def test_the_model_is_of_the_size_that_a_crop_leaves():
    with pytest.raises(ConfigError) as raised:  # evaluation would be of another size
        build(config.load("digits:vit", [("device_transforms", str((
            dict(name="random_crop", size=4),)))]).config)
    assert raised.value.where == "config.eval_transforms"


@pytest.mark.nightly
def test_no_image_is_gathered_in_a_whole_step():
    built = run(*LEVELS, *FLOATS, devices=8)
    text = jax.jit(built.step).lower(built.abstract_state, built.abstract_batch).compile().as_text()
    assert set(hlo.collectives(text)) <= {"collective-permute", "all-reduce"}
