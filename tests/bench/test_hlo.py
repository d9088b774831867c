"""XLA's accounts of a compiled program, on programs whose cost is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from imgcls_jax.bench import hlo
from imgcls_jax.parallel.mesh import make_mesh


def compiled(function, out, *arguments):
    mesh = make_mesh()
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32,
                                      sharding=NamedSharding(mesh, PartitionSpec(*spec)))
                 for shape, spec in arguments]
    out = NamedSharding(mesh, PartitionSpec(*out))
    return jax.jit(function, out_shardings=out).lower(*arguments).compile()


def test_a_product_summed_over_devices_is_one_all_reduce_of_its_result():
    program = compiled(lambda a, b: a @ b, (), ((16, 64), (None, "data")), ((64, 32), ("data",)))
    found = hlo.summary(program)
    assert found["collectives"] == {
        "all-reduce": {"count": 1, "bytes": 16 * 32 * 4, "dtypes": {"f32": 16 * 32 * 4}}}
    products = 2 * 16 * 32 * 64 / 8
    assert products <= found["flops"] <= products + 16 * 32  # and the sums of the all-reduce
    assert found["peak_bytes"] >= (16 * 8 + 8 * 32 + 16 * 32) * 4
    assert found["bytes_accessed"] >= (16 * 8 + 8 * 32 + 16 * 32) * 4


def test_what_is_local_has_no_collective():
    program = compiled(lambda a: a * 2, ("data",), ((16, 4), ("data",)))
    assert hlo.summary(program)["collectives"] == {}


def test_whole_values_from_parts_are_an_all_gather():
    program = compiled(lambda a: a * 2, (), ((16, 4), ("data",)))
    assert hlo.summary(program)["collectives"] == {
        "all-gather": {"count": 1, "bytes": 16 * 4 * 4, "dtypes": {"f32": 16 * 4 * 4}}}


def test_asynchronous_collectives_count_once_by_their_result():
    text = """
ENTRY %main (p: f32[2,4]) -> f32[16,4] {
  %s = (f32[2,4]{1,0}, f32[16,4]{1,0}) all-gather-start(f32[2,4]{1,0} %p), dimensions={0}
  %d = f32[16,4]{1,0} all-gather-done((f32[2,4]{1,0}, f32[16,4]{1,0}) %s)
  %r = (bf16[8]{0}, f32[]) all-reduce(%a, %b), to_apply=%sum
  ROOT %t = (f32[16,4]{1,0}) tuple(%d)
}
"""
    assert hlo.collectives(text) == {
        "all-gather": {"count": 1, "bytes": 256, "dtypes": {"f32": 256}},
        "all-reduce": {"count": 1, "bytes": 16 + 4, "dtypes": {"bf16": 16, "f32": 4}}}


def scanned(turns):
    def f(a, b):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ b), None), a, None, turns)[0]

    return compiled(f, ("data",), ((16, 32), ("data",)), ((32, 32), ()))


def test_a_loop_counts_as_often_as_it_turns():
    product = 2 * 2 * 32 * 32  # on one of eight devices
    once, five = hlo.summary(scanned(1)), hlo.summary(scanned(5))
    assert five["flops"] - once["flops"] == pytest.approx(4 * product, rel=0.05)
    assert five["bytes_accessed"] > 4 * (32 * 32 + 2 * 2 * 32) * 4


def test_collectives_in_a_loop_count_as_often_as_it_turns():
    def f(a, b):
        return jax.lax.fori_loop(0, 7, lambda _, c: jnp.sin((c * a) @ b), jnp.ones((16, 64)))

    found = hlo.summary(compiled(f, (), ((16, 64), (None, "data")), ((64, 64), ("data",))))
    assert found["collectives"]["all-reduce"]["count"] == 7


@pytest.mark.parametrize("stride, padding, dilation, groups", [
    (1, 0, 1, 1), (2, 1, 1, 1), (1, 3, 2, 4), (2, 3, 1, 8)])
def test_products_of_a_convolution_and_its_gradients_are_those_that_xla_counts(
        stride, padding, dilation, groups):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(padding, padding)] * 2, rhs_dilation=(dilation,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups)

    x = jnp.ones((2, 13, 13, 8))
    kernel = jnp.ones((3, 3, 8 // groups, 16))
    program = jax.jit(jax.grad(lambda x, k: (convolve(x, k) ** 2).sum(), (0, 1))).lower(
        x, kernel).compile()
    counted = hlo.products(program.as_text())
    elementwise = 10 * convolve(x, kernel).size + x.size + kernel.size
    assert counted <= program.cost_analysis()["flops"] <= counted + elementwise


# Of a compiled step for a TPU, cut to what is read.
TPU = """
%condition (arg.1: (s32[], f32[8])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(3)
  %arg.1 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %get-tuple-element.1 = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%get-tuple-element.1, %constant.1), direction=LT
}

%body (arg.2: (s32[], f32[8])) -> (s32[], f32[8]) {
  %arg.2 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %get-tuple-element.3 = f32[8]{0:T(128)S(1)} get-tuple-element(%arg.2), index=1
  %fusion.1 = f32[8]{0:T(128)S(1)} fusion(%get-tuple-element.3), kind=kLoop, calls=%inner, \
metadata={op_name="jit(step)/while/body/jvp(Net)/dense/add" stack_frame_id=1}, \
backend_config={"window_config":{"estimated_cycles":"100"}}
  ROOT %tuple.1 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) tuple(%get-tuple-element.2, %fusion.1)
}

ENTRY %main (p.1: f32[8]) -> f32[8] {
  %p.1 = f32[8]{0:T(128)} parameter(0)
  %custom-call.1 = f32[8]{0:T(128)S(1)} custom-call(), custom_call_target="AllocateBuffer"
  %copy.1 = f32[8]{0:T(128)S(1)} copy(%p.1), metadata={op_name="jit(step)/move"}, \
backend_config={"window_config":{"estimated_cycles":"40"}}
  %while.1 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) while(%tuple.2), condition=%condition, \
body=%body, metadata={op_name="jit(step)/while"}
  %select-and-scatter.1 = f32[8]{0:T(128)} select-and-scatter(%a, %b, %c), window={size=2}
  ROOT %get-tuple-element.4 = f32[8]{0:T(128)S(1)} get-tuple-element(%while.1), index=1
}
"""


def test_cycles_are_summed_over_turns_and_told_by_source():
    assert hlo.cycles(TPU) == {
        "cycles": 340, "copies": 40, "custom_calls": {"AllocateBuffer": 1},
        "unpriced": {"custom-call": 1, "select-and-scatter": 1},
        "costliest": [{"source": "jvp(Net)/dense/add", "cycles": 300, "share": 0.8824},
                      {"source": "move", "cycles": 40, "share": 0.1176}]}


# Of a compiled step for a GPU, cut to what is read.
GPU = """
%fused (a.1: bf16[8,4]) -> bf16[8,4] {
  %a.1 = bf16[8,4]{1,0} parameter(0)
  ROOT %tanh.1 = bf16[8,4]{1,0} tanh(%a.1)
}

%condition (arg.1: (s32[], bf16[8,4])) -> pred[] {
  %constant.1 = s32[] constant(3)
  %arg.1 = (s32[], bf16[8,4]{1,0}) parameter(0)
  %get-tuple-element.1 = s32[] get-tuple-element(%arg.1), index=0
  ROOT %lt.1 = pred[] compare(%get-tuple-element.1, %constant.1), direction=LT
}

%body (arg.2: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %arg.2 = (s32[], bf16[8,4]{1,0}) parameter(0)
  %get-tuple-element.3 = bf16[8,4]{1,0} get-tuple-element(%arg.2), index=1
  %fusion.1 = bf16[8,4]{1,0} fusion(%get-tuple-element.3), kind=kLoop, calls=%fused
  ROOT %tuple.1 = (s32[], bf16[8,4]{1,0}) tuple(%get-tuple-element.2, %fusion.1)
}

%command_buffer (p.2: bf16[8,4]) -> bf16[8,4] {
  %p.2 = bf16[8,4]{1,0} parameter(0)
  %fusion.2 = bf16[8,4]{1,0} fusion(%p.2), kind=kLoop, calls=%fused
  %cublas = (bf16[8,4]{1,0}, s8[64]{0}) custom-call(%fusion.2, %p.2), \
custom_call_target="__cublas$gemm", metadata={op_name="jit(step)/jvp(Net)/dense/dot_general"}
  ROOT %get-tuple-element.5 = bf16[8,4]{1,0} get-tuple-element(%cublas), index=0
}

ENTRY %main (p.1: bf16[8,4]) -> bf16[8,4] {
  %p.1 = bf16[8,4]{1,0} parameter(0)
  %call.1 = bf16[8,4]{1,0} call(%p.1), to_apply=%command_buffer
  %all-reduce-start.1 = bf16[8,4]{1,0} all-reduce-start(%call.1), to_apply=%sum
  %all-reduce-done.1 = bf16[8,4]{1,0} all-reduce-done(%all-reduce-start.1)
  %bitcast.1 = bf16[8,4]{1,0} bitcast(%all-reduce-done.1)
  %while.1 = (s32[], bf16[8,4]{1,0}) while(%tuple.2), condition=%condition, body=%body
  ROOT %get-tuple-element.4 = bf16[8,4]{1,0} get-tuple-element(%while.1), index=1
}
"""


def test_kernels_are_what_is_launched():
    assert hlo.kernels(GPU) == {"per_step": 6, "kinds": {
        "fusion": 1 + 3, "__cublas$gemm": 1, "all-reduce": 1}}


def test_sources_tell_what_an_operation_was_made_from():
    found = hlo.sources(GPU)
    assert found["cublas"] == ("custom-call", "jvp(Net)/dense/dot_general")
    assert found["while.1"] == ("while", "") and "tanh.1" not in found


def test_bytes_moved_are_those_of_operands_and_results():
    array = 8 * 4 * 2
    fusion, product = 2 * array, 3 * array + 64
    assert hlo.moved(GPU) == 4 * fusion + product + 2 * 2 * array  # and the pair of the all-reduce
