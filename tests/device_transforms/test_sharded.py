"""Every device transform on a batch that is split over eight devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.bench import hlo
from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.parallel.mesh import SHARDS, make_mesh

BATCH, SIDE, CLASSES = 16, 12, 5
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
ARGUMENTS = {
    "mixup": [dict(alpha=0.8), dict(alpha=0.2, p=0.5, mode="elem", larger=False)],
    "cutmix": [dict(alpha=1.0), dict(alpha=1.0, p=0.5, mode="elem")],
    "mixup_or_cutmix": [dict(mixup_alpha=0.8, cutmix_alpha=1.0, mode=m) for m in ("batch", "elem")],
    "random_erasing": [dict(mode="const"), dict(mode="rand", count=2), dict(mode="pixel", p=1.0)],
    "flip": [dict()],
    "pad_crop": [dict(padding=2), dict(padding=2, mode="reflect")],
    "random_crop": [dict(size=(9, 10))],
    "randaugment": [dict()],
    "trivial_augment_wide": [dict()]}
DEFAULT = {"mixup", "flip"}  # the first case of each
CASES = [pytest.param(name, arguments, id=f"{name} {arguments}", marks=() if name in DEFAULT
                      and not number else pytest.mark.nightly)
         for name, all in ARGUMENTS.items() for number, arguments in enumerate(all)]
MIXES = {"mixup", "cutmix", "mixup_or_cutmix"}


def batch(levels: bool):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)
    targets = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, BATCH)]
    return (images if levels else np.float32(images / 64 - 2)), targets


def on(devices, transform, given):
    """(compiled program, what it makes of the batch by two keys)."""
    mesh = make_mesh(jax.devices()[:devices], fsdp=4 if devices == 8 else 1)
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(SHARDS))
    images, targets = (jax.device_put(np.asarray(x), split) for x in given)
    first, second = jax.random.key(11), jax.random.key(12)
    program = jax.jit(transform, out_shardings=(split, split)).lower(
        first, images, targets).compile(FAST)
    return program, program(first, images, targets), program(second, images, targets)


def test_every_transform_is_tested_here():
    assert set(ARGUMENTS) == set(DEVICE_TRANSFORMS.names())


@pytest.mark.parametrize("name, arguments", CASES)
def test_eight_devices_give_what_one_gives_and_no_image_goes_further_than_next_door(
        name, arguments):
    transform = DEVICE_TRANSFORMS.get(name)(**arguments)
    given = batch(getattr(transform, "levels", False))
    _, (expected, expected_targets), _ = on(1, transform, given)
    program, (images, targets), (others, _) = on(8, transform, given)
    assert (np.asarray(images) != others).any()
    # The sums of a mixture may be contracted in one program and not in the other.
    tolerance = 1e-6 if name in MIXES else 0
    np.testing.assert_allclose(images, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(targets, expected_targets, rtol=tolerance, atol=tolerance)
    assert images.dtype == given[0].dtype and targets.dtype == given[1].dtype
    if images.dtype == jnp.float32:
        short = given[0].astype(jnp.bfloat16)
        assert jax.eval_shape(transform, jax.random.key(0), short, targets)[0].dtype == short.dtype
    np.testing.assert_allclose(np.sum(targets, 1), 1, rtol=1e-6)

    found = hlo.collectives(program.as_text())
    row = (given[0][:1].nbytes + CLASSES * 4) if name in MIXES else 0
    assert set(found) <= {"collective-permute"}, found
    assert sum(kind["bytes"] for kind in found.values()) == row
    # Nor does a device draw or compute for the others: none has an array of all pixels.
    shapes = re.findall(r"\w+\[(\d+(?:,\d+)*)\]", program.as_text())
    sizes = {np.prod([int(n) for n in shape.split(",")]) for shape in shapes}
    assert not sizes & {images.size, given[0].size, BATCH * SIDE * SIDE}
