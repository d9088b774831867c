"""XLA's accounts of a compiled program, on programs whose cost is known."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from imgcls_jax import hlo, sharding


def compiled(function, out, *arguments):
    mesh = sharding.make_mesh()
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32,
                                      sharding=NamedSharding(mesh, PartitionSpec(*spec)))
                 for shape, spec in arguments]
    out = NamedSharding(mesh, PartitionSpec(*out))
    return jax.jit(function, out_shardings=out).lower(*arguments).compile()


def test_a_product_summed_over_devices_is_one_all_reduce_of_its_result():
    program = compiled(lambda a, b: a @ b, (), ((16, 64), (None, "data")), ((64, 32), ("data",)))
    found = hlo.summary(program)
    assert found["collectives"] == {"all-reduce": {"count": 1, "bytes": 16 * 32 * 4}}
    products = 2 * 16 * 32 * 64 / 8
    assert products <= found["flops"] <= products + 16 * 32  # and the sums of the all-reduce
    assert found["peak_bytes"] >= (16 * 8 + 8 * 32 + 16 * 32) * 4
    assert found["bytes_accessed"] >= (16 * 8 + 8 * 32 + 16 * 32) * 4


def test_what_is_local_has_no_collective():
    program = compiled(lambda a: a * 2, ("data",), ((16, 4), ("data",)))
    assert hlo.summary(program)["collectives"] == {}


def test_whole_values_from_parts_are_an_all_gather():
    program = compiled(lambda a: a * 2, (), ((16, 4), ("data",)))
    assert hlo.summary(program)["collectives"] == {"all-gather": {"count": 1, "bytes": 16 * 4 * 4}}


def test_asynchronous_collectives_count_once_by_their_result():
    text = """
  %s = (f32[2,4]{1,0}, f32[16,4]{1,0}) all-gather-start(f32[2,4]{1,0} %p), dimensions={0}
  %d = f32[16,4]{1,0} all-gather-done((f32[2,4]{1,0}, f32[16,4]{1,0}) %s)
  %r = (bf16[8]{0}, f32[]) all-reduce(%a, %b), to_apply=%sum
  ROOT %t = (f32[16,4]{1,0}) tuple(%d)
"""
    assert hlo.collectives(text) == {"all-gather": {"count": 1, "bytes": 256},
                                     "all-reduce": {"count": 1, "bytes": 16 + 4}}
