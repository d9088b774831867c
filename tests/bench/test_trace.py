"""What a trace says a step spends its time on."""

from types import SimpleNamespace

import pytest

from imgcls_jax.bench import trace


def plane(name, **lines):
    return SimpleNamespace(name=name, lines=[
        SimpleNamespace(name=line.replace("_", " "), events=[
            SimpleNamespace(name="kernel", duration_ns=duration,
                            stats=[("hlo_op", operation)] if operation else [])
            for operation, duration in events]) for line, events in lines.items()])


HOST = plane("/host:CPU", python=[(None, 900)], thread_1=[("fusion.1", 40), (None, 7)])


def test_on_a_cpu_the_hosts_operations_count():
    assert trace.events([HOST]) == [("fusion.1", 40)]


def test_on_a_gpu_the_kernels_of_its_streams_count_alone():
    device = plane("/device:GPU:0", Stream_13=[("fusion.1", 5), (None, 1)],
                   Stream_14=[("gemm.2", 3)], XLA_Ops=[("fusion.1", 5)])
    assert trace.events([HOST, device]) == [("fusion.1", 5), ("gemm.2", 3)]


def test_time_is_summed_by_place_over_blocks_and_steps():
    sources = {"dot.1": ("fusion", "jvp(ViT)/block0/mlp/dot"),
               "dot.2": ("fusion", "jvp(ViT)/block11/mlp/dot"),
               "while.3": ("while", "jvp(ViT)/scan"), "copy.4": ("copy", "")}
    runs = [("dot.1", 2e6), ("dot.2", 3e6), ("while.3", 50e6), ("copy.4", 1e6)] * 2
    found = trace.costliest([*runs, ("copy.5", 4e6)], sources, steps=2, top=5)
    assert found["runs_per_step"] == 3.5
    assert found["milliseconds_per_step"] == pytest.approx(8)
    assert found["costliest"] == [
        {"place": "jvp(ViT)/block*/mlp/dot", "operations": ["dot.1", "dot.2"],
         "milliseconds": pytest.approx(5), "share": pytest.approx(10 / 16)},
        {"place": "copy", "operations": ["copy.4", "copy.5"],
         "milliseconds": pytest.approx(3), "share": pytest.approx(6 / 16)}]
