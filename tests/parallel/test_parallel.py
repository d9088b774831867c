"""The mesh, the rule by which a state lies on it, and host rows -> global batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from imgcls_jax import tree
from imgcls_jax.errors import ConfigError
from imgcls_jax.models import MODELS
from imgcls_jax.parallel import transfer
from imgcls_jax.parallel.mesh import check_batch, make_mesh
from imgcls_jax.parallel.rules import state_shardings
from imgcls_jax.types import TrainState


@pytest.mark.parametrize("sizes, shape", [
    (dict(), (8, 1, 1)), (dict(fsdp=4), (2, 4, 1)), (dict(data=1, fsdp=-1, model=2), (1, 4, 2)),
    (dict(data=4, fsdp=2), (4, 2, 1))])
def test_minus_one_is_what_is_left(sizes, shape):
    mesh = make_mesh(**sizes)
    assert mesh.axis_names == ("data", "fsdp", "model") and mesh.devices.shape == shape


@pytest.mark.parametrize("sizes, words", [
    (dict(data=3), ("8 devices", "'data': 3")), (dict(fsdp=3), ("8 devices", "'fsdp': 3")),
    (dict(data=-1, fsdp=-1), ("at most once",)), (dict(data=0), ("1 or more",)),
    (dict(fsdp=-2), ("1 or more",)),
    (dict(rules=((".*", ("dtaa",)),)), ("'dtaa'", "data", "fsdp", "model"))])
def test_a_mesh_that_does_not_fit_is_refused(sizes, words):
    with pytest.raises(ConfigError) as caught:
        make_mesh(**sizes)
    assert all(word in str(caught.value) for word in words), caught.value
    assert caught.value.where.startswith("config.mesh")


@pytest.mark.parametrize("batch_size, accumulate, offered", [
    (60, 1, "56 or 64"), (5, 1, "use 8"), (24, 2, "16 or 32"), (100, 4, "96 or 128")])
def test_the_two_nearest_batch_sizes_are_offered(batch_size, accumulate, offered):
    with pytest.raises(ConfigError) as caught:
        check_batch(batch_size, make_mesh(fsdp=4), accumulate)
    assert offered in caught.value.fix and f"batch_size={batch_size}" in caught.value.what
    for number in map(int, offered.removeprefix("use ").split(" or ")):
        check_batch(number, make_mesh(fsdp=4), accumulate)


def specs(shapes, rules=(), **sizes):
    state = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()}
    found = state_shardings(state, make_mesh(**sizes), rules)
    return {path: tuple(where.spec) for path, where in found.items()}


def test_the_largest_dimension_that_divides_lies_on_fsdp():
    shapes = {"largest": (3, 3, 64, 128), "divides": (126, 64), "none": (99, 99), "small": (4, 4),
              "scalar": ()}
    assert specs(shapes, fsdp=4) == {
        "largest": (None, None, None, "fsdp"), "divides": (None, "fsdp"), "none": (None, None),
        "small": (None, None), "scalar": ()}


def test_without_fsdp_all_is_whole_on_every_device():
    assert specs({"kernel": (512, 512)}, data=8) == {"kernel": (None, None)}


def test_the_first_rule_that_matches_a_whole_path_wins():
    rules = ((".*/kernel", ("model", None)), (".*", (None, "fsdp")))
    found = specs({"a/kernel": (64, 128), "kernel": (64, 128), "a/bias": (8192,)}, rules,
                  data=1, fsdp=4, model=2)
    assert found == {"a/kernel": ("model", None), "kernel": (None, "fsdp"), "a/bias": ("fsdp",)}


@pytest.mark.parametrize("name", ["resnet18", "vit_s16"])
def test_with_four_fsdp_devices_each_holds_at_most_three_tenths_of_the_state(name):
    size = MODELS.facts(name)["image_size"]
    shapes = jax.eval_shape(MODELS.get(name)(1000).init, jax.random.key(0),
                            jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    params = shapes.pop("params")
    opt_state = jax.eval_shape(optax.scale_by_adam().init, params)
    state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, shapes, opt_state)
    where = state_shardings(state, make_mesh(fsdp=4))
    parts = jax.tree.map(lambda leaf, w: jax.ShapeDtypeStruct(w.shard_shape(leaf.shape),
                                                              leaf.dtype), state, where)
    for whole, part in ((state, parts), (state.params, parts.params),
                        (state.opt_state, parts.opt_state)):
        assert tree.size_bytes(part) <= 0.30 * tree.size_bytes(whole)


def test_placed_values_are_the_hosts_and_moments_lie_where_their_parameters_do():
    mesh = make_mesh(fsdp=4)
    values = {"params": np.arange(64 * 128.0).reshape(64, 128), "step": np.int32(3)}
    where = state_shardings(values, mesh)
    placed = transfer.place(values, where)
    assert placed["params"].sharding.spec == PartitionSpec(None, "fsdp")
    assert placed["params"].addressable_shards[0].data.shape == (64, 32)
    jax.tree.map(np.testing.assert_array_equal, placed, values)


@pytest.mark.parametrize("sizes", [dict(), dict(fsdp=4), dict(model=2, fsdp=2)])
def test_a_batch_lies_in_order_over_data_and_fsdp_and_leaves_its_ids_behind(sizes):
    mesh = make_mesh(**sizes)
    assert transfer.rows(16, mesh) == slice(0, 16)
    batch = {"image": np.arange(16 * 3, dtype=np.uint8).reshape(16, 3),
             "mask": np.ones(16, np.float32), "id": np.arange(16)}
    placed = transfer.to_device(batch, 16, mesh)
    assert set(placed) == {"image", "mask"} and placed["image"].dtype == jnp.uint8
    np.testing.assert_array_equal(placed["image"], batch["image"])
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    firsts = {shard.index[0].start or 0 for shard in placed["image"].addressable_shards}
    assert firsts == set(range(0, 16, 16 // shards))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_prefetch_gives_every_batch_once_in_order_and_runs_ahead(count):
    put = []
    pairs = transfer.prefetch(iter(range(count)), lambda batch: put.append(batch) or -batch)
    seen = []
    for host, device in pairs:
        assert device == -host
        seen.append(host)
        assert len(put) == (min(count, host + 3) if host else 1)
    assert seen == list(range(count))
