"""Runs `imgcls` as its user does: in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment(cache: Path, devices: int = 1) -> dict:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "IMGCLS_CACHE": str(cache), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags,
            "PYTHONPATH": str(ROOT)}


def start(cache: Path, *words, devices: int = 1) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "imgcls_jax", *map(str, words)],
                            env=environment(cache, devices), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def imgcls(cache: Path, *words, devices: int = 1, timeout: float = 300):
    """(exit code, standard output, standard error) of one command."""
    process = start(cache, *words, devices=devices)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, out, err


def two_processes(cache: Path, program: str, *words, timeout: float = 300) -> None:
    """Runs a Python program in two processes of two devices each: its words are then 0 or 1, words.

    Both must end with 0; AssertionError shows the standard error of each.
    """
    processes = [subprocess.Popen([sys.executable, "-c", program, str(i), *map(str, words)],
                                  env=environment(cache, devices=2), stderr=subprocess.PIPE,
                                  text=True) for i in range(2)]
    try:
        said = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said


def error_lines(err: str) -> list[str]:
    """The lines of our own error message in a standard error, from "error:" on."""
    found = re.search(r"^error: .*", err, re.DOTALL | re.MULTILINE)
    return found[0].strip().splitlines() if found else []
