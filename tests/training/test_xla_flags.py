"""Chosen flags go with the program, by platform, and give way to the user's."""

import jax
import jax.numpy as jnp
import pytest

from imgcls_jax import assembly
from imgcls_jax.assembly import measured
from imgcls_jax.training import programs, xla_flags

FLAG = xla_flags.Flag(value=512, gain=1.05, measured="a test")


@pytest.fixture
def chosen(monkeypatch):
    monkeypatch.setitem(xla_flags.CHOSEN, "cpu", {"xla_cpu_prefer_vector_width": FLAG})


def test_each_platform_has_its_own(chosen):
    assert xla_flags.options("cpu") == {"xla_cpu_prefer_vector_width": 512}
    assert xla_flags.options("another") is None


def test_what_the_user_set_is_theirs(chosen, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1 --xla_cpu_prefer_vector_width=128")
    assert xla_flags.options("cpu") is None


def test_every_chosen_flag_has_a_gain_and_is_known_to_xla():
    for platform, flags in xla_flags.CHOSEN.items():
        assert all(flag.gain > 1 and flag.measured for flag in flags.values())
        assert all(name.startswith(f"xla_{platform}_") for name in flags)
        options = {name: flag.value for name, flag in flags.items()}
        jax.jit(lambda x: x + 1, compiler_options=options or None).lower(jnp.ones(2)).compile()


def test_the_training_step_is_compiled_with_them(monkeypatch):
    config = measured.plain("vit_mini", 8, 16, "f32")
    run = assembly.build({**config, "model": {"name": "vit_mini", "depth": 1, "stem": ()}})
    monkeypatch.setitem(xla_flags.CHOSEN, "cpu", {"xla_no_such_flag": FLAG})
    with pytest.raises(Exception, match="xla_no_such_flag"):
        programs.lower_step(run).compile()
