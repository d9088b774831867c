"""What is set once a process, and what a record says of the machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import imgcls_jax
from imgcls_jax.errors import ConfigError
from imgcls_jax.parallel import processes, waits


@pytest.fixture
def settings(monkeypatch):
    """The settings of JAX that a call made."""
    made = {}
    monkeypatch.setattr(jax.config, "update", made.__setitem__)
    for name in ("IMGCLS_CACHE", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    return made


def test_the_cache_is_where_the_flag_then_the_environment_says(settings, monkeypatch):
    assert processes.enable_cache() == str(Path.home() / ".cache" / "imgcls_jax" / "xla")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/jax")
    assert processes.enable_cache() == "/jax"
    monkeypatch.setenv("IMGCLS_CACHE", "/ours")
    assert processes.enable_cache() == "/ours" and processes.enable_cache("/flag") == "/flag"
    assert settings["jax_compilation_cache_dir"] == "/flag"
    assert processes.enable_cache("off") is None and settings["jax_compilation_cache_dir"] is None


@pytest.mark.parametrize("precision, dtype", [("auto", "float32"), ("f32", "float32"),
                                              ("bf16", "bfloat16"), ("f64", "float64")])
def test_precision_is_a_dtype_and_f64_alone_turns_64_bits_on(settings, precision, dtype):
    assert processes.compute_dtype(precision) == dtype
    assert settings == ({"jax_enable_x64": True} if precision == "f64" else {})


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="fp16") as caught:
        processes.compute_dtype("fp16")
    assert "bf16" in caught.value.fix


@pytest.mark.parametrize("given", [dict(coordinator="a:1"), dict(processes=2),
                                   dict(coordinator="a:1", processes=2)])
def test_plain_processes_need_all_three_flags(settings, given):
    with pytest.raises(ConfigError, match="process_id"):
        processes.start(**given)


@pytest.mark.parametrize("variables, parallel", [
    ({}, False), ({"SLURM_STEP_NUM_TASKS": "1"}, False), ({"SLURM_STEP_NUM_TASKS": "4"}, True),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, True), ({"TPU_WORKER_HOSTNAMES": "a"}, False),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, True)])
def test_launchers_are_known_by_what_they_set(settings, monkeypatch, variables, parallel):
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: joined.append(given))
    processes.start()
    assert joined == ([{"heartbeat_timeout_seconds": waits.HEARTBEAT}] if parallel else [])


def test_a_package_inside_a_checkout_of_something_else_has_no_commit(tmp_path):
    package = Path(imgcls_jax.__file__).parent
    for name in ("__init__.py", "environment.py", "errors.py"):
        (tmp_path / "site" / "imgcls_jax").mkdir(parents=True, exist_ok=True)
        shutil.copy(package / name, tmp_path / "site" / "imgcls_jax")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    code = ("from imgcls_jax import environment; "
            "print(environment.__file__, environment.commit())")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
                          capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "site" / "imgcls_jax" / "environment.py"), "None"]
