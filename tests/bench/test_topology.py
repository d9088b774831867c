"""Compiling for TPU slices that are not there."""

import importlib.util
import json
import sys

import pytest

from imgcls_jax.__main__ import main
from imgcls_jax.bench import topology
from imgcls_jax.errors import ConfigError, EnvironmentFailure
from tests.commands import error_lines, imgcls

LIBTPU = importlib.util.find_spec("libtpu")
needs_libtpu = pytest.mark.skipif(not LIBTPU, reason="needs the extra tpu")


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFailure, match="needs libtpu") as error:
        topology.devices("v5e:4x4")
    assert "imgcls_jax[tpu]" in error.value.fix


@pytest.mark.parametrize("name", ["v5e", "v5e:4", "4x4", "v5e:4x4x", ""])
def test_a_name_of_another_form_shows_some(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: sys)
    with pytest.raises(ConfigError, match="is not a topology") as error:
        topology.devices(name)
    assert "v5e:1x1" in error.value.fix


@pytest.mark.skipif(bool(LIBTPU), reason="libtpu is there")
@pytest.mark.parametrize("words", [("check", "--config=digits"), ("bench", "compile")])
def test_the_commands_say_so_in_three_lines(words, capsys):
    assert main([*words, "--topology=v5e:2x2"]) == 6
    err = capsys.readouterr().err
    assert len(error_lines(err)) == 3, err


def test_a_topology_and_other_devices_exclude_each_other(tmp_path):
    code, _, err = imgcls(tmp_path, "check", "--config=digits", "--topology=v5e:2x2",
                          "--fake_devices=8")
    assert code == 2 and "--fake_devices" in err


@needs_libtpu
@pytest.mark.nightly
def test_a_step_is_compiled_for_a_slice(tmp_path):
    code, out, err = imgcls(tmp_path, "bench", "compile", "--config=digits", "--topology=v5e:2x2",
                            "--batch_per_device=64", "--json", timeout=1200)
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["device"], facts["devices"], facts["dtype"]) == ("TPU v5 lite", 4, "bfloat16")
    assert facts["cycles"] > 0 and facts["images_per_device"] == 64
    assert set(facts["collectives"]) == {"all-reduce"}
