"""Which rounds count, what they say, and how near a step is to what its device can do."""

import pytest

from imgcls_jax import assembly
from imgcls_jax.assembly import measured
from imgcls_jax.bench import hlo, peaks, step
from imgcls_jax.bench import rounds as _rounds
from imgcls_jax.training import programs


def rounds(ours, theirs, probes, tolerance=0.05):
    return _rounds.Rounds({"ours": ours, "theirs": theirs}, probes, tolerance)


def test_a_disturbed_probe_voids_the_rounds_it_touches():
    within = rounds([1] * 4, [1] * 4, [1, 1, 1, 1.2, 1, 1, 1, 1, 1])
    assert within.void == [False, True, False, False]
    between = rounds([1] * 4, [1] * 4, [1, 1, 1.2, 1, 1, 1, 1, 1, 1])
    assert between.void == [True, True, False, False]


def test_a_probe_that_is_too_fast_voids_too():
    assert rounds([1] * 3, [1] * 3, [1, 1, 1, 1, 1, 1, 0.9]).void == [False, False, True]


def test_void_rounds_do_not_count_on_either_side():
    done = rounds([1, 1, 9, 1], [2, 2, 2, 4], [1, 1, 1, 1, 1, 1.2, 1, 1, 1])
    assert done.void == [False, False, True, False] and done.trusted
    assert done.counted("ours") == [1, 1, 1] and done.counted("theirs") == [2, 2, 4]
    assert done.ratio("ours", "theirs") == {"of_medians": 2, "min": 2, "max": 4}
    assert done.summary()["void"] == 1 and "warning" not in done.summary()


def test_with_too_few_undisturbed_rounds_all_count_and_it_is_said():
    done = rounds([1, 2, 3], [1, 1, 1], [1, 1, 1, 2, 1, 1, 1])
    assert done.counted("ours") == [1, 2, 3]
    assert not done.summary()["trusted"] and "only 2 undisturbed" in done.summary()["warning"]


def sides(log):
    return {name: lambda name=name: log.append(name) or 1.0 for name in ("ours", "theirs")}


def test_sides_take_turns_with_a_probe_between_any_two():
    log = []
    done = _rounds.alternate(sides(log), lambda: log.append("probe") or 1.0, rounds=2,
                             tolerance=0.05)
    assert log == ["probe", *["ours", "probe", "theirs", "probe"] * 2]
    assert len(done.probes) == 5 and done.seconds == {"ours": [1, 1], "theirs": [1, 1]}


def test_disturbed_rounds_are_made_up_for():
    probes = iter([1, 1, 1, 1, 2, *[1] * 20])  # the last probe of the second round is off
    done = _rounds.alternate(sides([]), lambda: next(probes), rounds=4, tolerance=0.05)
    assert done.void == [False, True, True, False, False, False]


def test_there_is_an_end_to_making_up():
    probes = iter(1.5 ** n for n in range(100))
    done = _rounds.alternate(sides([]), lambda: next(probes), rounds=4, tolerance=0.05)
    assert len(done.void) == _rounds.MOST * 4 and not done.trusted


def test_the_roofline_is_the_larger_share_of_the_two_peaks():
    h100 = "NVIDIA H100 80GB HBM3"
    found = peaks.shares(h100, "bfloat16", flops=989e12 / 4, moved=3350e9, seconds=2.0)
    assert found == pytest.approx({"share_of_peak": 1 / 8, "share_of_bandwidth": 1 / 2,
                                   "share_of_roofline": 1 / 2})


@pytest.mark.nightly
def test_flops_before_compiling_are_those_of_all_devices():
    """A GPU's compiled text cannot tell them; here XLA counts the compiled program as well."""
    config = measured.plain("vit_mini", 64, 16, "f32")
    config["model"] |= {"depth": 1, "stem": ()}
    run = assembly.build(config)
    compiled = hlo.summary(programs.lower_step(run).compile())["flops"] * run.mesh.devices.size
    assert run.mesh.devices.size == 8
    alone = assembly.build(config, devices=step.cpu())
    assert step.flops(alone) == pytest.approx(compiled, rel=0.1)


def test_what_is_unknown_has_no_share():
    assert set(peaks.shares("cpu", "float32", flops=1, moved=1, seconds=1).values()) == {None}
    f32 = peaks.shares("NVIDIA H100 PCIe", "float32", flops=1, moved=1, seconds=1)
    assert f32["share_of_peak"] is None and f32["share_of_bandwidth"] == pytest.approx(1 / 2e12)
    assert f32["share_of_roofline"] is None


@pytest.mark.parametrize("device, peak", [
    ("NVIDIA H100 PCIe", (756e12, 2000e9)), ("NVIDIA H200", (989e12, 4800e9)),
    ("NVIDIA GH200 480GB", (989e12, None)), ("NVIDIA L40S", (362e12, 864e9)),
    ("NVIDIA A100-SXM4-80GB", (312e12, 2039e9)), ("NVIDIA A10G", (70e12, 600e9)),
    ("TPU v5 lite", (197e12, 819e9)), ("TPU v5", (459e12, 2765e9)), ("cpu", (None, None))])
def test_one_device_is_not_taken_for_another(device, peak):
    assert peaks.of(device) == peak
