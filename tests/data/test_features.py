"""Features that are kept: those of the same pixels by the same network, or computed again."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.data import feed
from imgcls_jax.data.features import DIGEST, Features, Frozen, Kept
from imgcls_jax.datasets import DATASETS, digits
from imgcls_jax.parallel.mesh import make_mesh
from imgcls_jax.transforms import TRANSFORMS
from tests.datasets import test_records
from tests.datasets.sources import png

ROW = jax.ShapeDtypeStruct((3,), jnp.bfloat16)
IMAGES = np.arange(4 * 5, dtype=np.uint8).reshape(4, 5)


def times_two(images):
    return np.asarray(jnp.asarray(images[:, :3] * 2, jnp.bfloat16))


@pytest.fixture
def said():
    return []


def kept(path, said, key=b"k" * DIGEST):
    return Kept(path / "x.features", key, ROW, said.append)


def filled(path, said):
    store = kept(path, said)
    places, new = store.places(IMAGES, 4, times_two)
    assert new == 4 and np.array_equal(store.take(places), times_two(IMAGES))
    return store


def count(path, said, **options):
    """How many of the four are computed now; all must be right after it."""
    store = kept(path, said, **options)
    places, new = store.places(IMAGES, 4, times_two)
    assert np.array_equal(store.take(places), times_two(IMAGES))
    again = kept(path, [], **options)
    assert again.places(IMAGES, 4, None)[1] == 0
    return new


def test_what_is_whole_is_taken_and_only_what_is_new_computed(tmp_path, said):
    filled(tmp_path, said)
    assert count(tmp_path, said) == 0
    store = kept(tmp_path, said)
    more = np.concatenate([IMAGES[::-1], IMAGES[:2] + 100, IMAGES[:1] + 100])  # one of them twice
    places, new = store.places(more, 7, times_two)
    assert new == 2 and np.array_equal(store.take(places), times_two(more)) and not said


@pytest.mark.parametrize("left, new", [(-1, 1), (0, 4), (3, 4), (DIGEST, 4), (DIGEST + 1, 4)])
def test_what_an_interrupted_write_left_is_completed(tmp_path, said, left, new):
    filled(tmp_path, said)
    path = tmp_path / "x.features"
    path.write_bytes(path.read_bytes()[:left])
    assert count(tmp_path, said) == new


def test_a_damaged_record_is_computed_again_with_a_word(tmp_path, said):
    filled(tmp_path, said)
    path = tmp_path / "x.features"
    size = (path.stat().st_size - DIGEST) // 4
    whole = path.read_bytes()
    for place in range(DIGEST, DIGEST + size):  # every byte of the first record
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        assert count(tmp_path, said) == 1
    assert len(said) == size and "1 of 4 features" in said[0] and "damaged" in said[0]


def test_features_of_another_key_are_not_taken(tmp_path, said):
    filled(tmp_path, said)
    assert count(tmp_path, said, key=b"l" * DIGEST) == 4
    assert "of other weights or another program" in said[0]


def linear(variables, images):
    x = images.reshape(len(images), -1).astype(variables["w"].dtype)
    return x @ variables["w"]


def other_code(variables, images):
    return linear(variables, images) + variables["w"].dtype.type(1)


def with_a_constant(factor):
    table = np.full((64,), factor, np.float32)
    return lambda variables, images: linear(
        variables, images.reshape(len(images), -1) * table.astype(np.uint8))


W = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


def computed(folder, compute=linear, w=W, split="train[:100]", seed=0, views=None, transforms=()):
    """How many features were computed, and the features of an epoch in order."""
    mesh, lines = make_mesh(jax.devices()[:2], data=2), []
    known = Frozen(compute, mesh, folder)
    known.begin({"w": jax.device_put(w, jax.NamedSharding(mesh, jax.P()))}, lines.append)
    data = feed.Feed(digits.digits(), seed, feed.DataOptions())
    found = Features(data, split, transforms, known, (8, 8, 1), views=views, on_error="fail",
                     where="config.transforms")
    batches = list(found.evaluate(50, slice(0, 50)))
    images = list(data.evaluate(split, transforms, batch_size=50, rows=slice(0, 50)))
    for batch, image in zip(batches, images, strict=True):
        real = image["mask"] > 0
        np.testing.assert_array_equal(batch["label"][real], image["label"][real])
        np.testing.assert_array_equal(batch["mask"], image["mask"])
        if views is None:  # sums of 64 products of about 250: rounding of f32 is below 0.01
            np.testing.assert_allclose(batch["image"][real], np.asarray(compute(
                {"w": w}, image["image"]))[real], rtol=1e-5, atol=1e-2, equal_nan=True)
    return int(lines[-1].split(" computed")[0].split()[-1].replace(",", ""))


def test_any_change_of_data_weights_or_program_is_computed_again(tmp_path):
    assert computed(tmp_path) == 100
    assert computed(tmp_path) == 0
    assert computed(tmp_path, split="train[:120]") == 20
    assert computed(tmp_path, split="train[:120]") == 0
    changed = W.copy()
    changed[63, 2] += 1e-6
    for change in (dict(w=changed), dict(compute=other_code), dict(w=W.astype(np.float16)),
                   dict(compute=with_a_constant(1)), dict(compute=with_a_constant(2)), {}):
        assert computed(tmp_path, **change) == 100, change


# ---- the order of training ------------------------------------------------------------------


def times(variables, images):
    return images.reshape(len(images), -1)[:, :16] * variables["w"]


def source_of(kind, place):
    if kind == "digits":
        return digits.digits(), (8, 8, 1)
    if kind == "records":
        return test_records.source("prepared", place), (4, 6, 3)
    for i in range(21):
        path = place / "photos" / "train" / f"class{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i)[:40 if i in (4, 5) else None])  # two cannot be read
    return DATASETS.get("folder")(dir=str(place / "photos")), (4, 6, 3)


@pytest.mark.parametrize("kind, changes", [
    pytest.param("digits", dict(repeats=2), marks=pytest.mark.nightly),
    pytest.param("digits", dict(per_class=3), marks=pytest.mark.nightly), ("records", {}),
    ("folder", dict(on_error="skip", max_bad_fraction=1.0))])
def test_batches_are_those_of_the_images_in_their_order(kind, changes, tmp_path):
    """In the first epochs, each of which has a view of its own."""
    options = feed.DataOptions(**changes)
    found, shape = source_of(kind, tmp_path)
    data = feed.Feed(feed.select(found, options, 5), 5, options)
    transforms = (TRANSFORMS.get("flip")(), TRANSFORMS.get("center_crop")(size=4))
    mesh = make_mesh(jax.devices()[:1], data=1)
    known = Frozen(times, mesh, tmp_path / "features")
    weights = np.arange(1, 17, dtype=np.float32)
    known.begin({"w": jax.device_put(weights, jax.NamedSharding(mesh, jax.P()))}, lambda line: None)
    held = Features(data, "train", transforms, known, (4, 4, shape[2]), views=3,
                    on_error=options.on_error, where="config.transforms")
    epoch = data.examples
    for start in (0, 2):
        pairs = zip(held.train(6, start, slice(0, 6)),
                    data.train("train", transforms, batch_size=6, start_step=start,
                               rows=slice(0, 6)), range(start, 2 * epoch // 6), strict=False)
        for features, images, step in itertools.islice(pairs, 40):
            for key in ("id", "label", "mask"):
                np.testing.assert_array_equal(features[key], images[key])
            np.testing.assert_array_equal(features["image"], np.asarray(
                times({"w": weights}, images["image"])), err_msg=f"step {step}")
