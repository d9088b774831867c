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
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "PYTHONPATH": str(ROOT)}


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


def error_lines(err: str) -> list[str]:
    """The lines of our own error message in a standard error, from "error:" on."""
    found = re.search(r"^error: .*", err, re.DOTALL | re.MULTILINE)
    return found[0].strip().splitlines() if found else []
