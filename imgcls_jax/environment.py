"""What a result was made with: versions, commit, devices."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax

PACKAGES = ("imgcls_jax", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "numpy",
            "tensorflow-cpu", "tensorflow", "tensorflow-datasets", "clu", "ml-collections")


def versions() -> dict[str, str]:
    """Installed versions of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Commit of the checkout this package runs from, "+" at its end where files were changed."""
    def git(*words):
        return subprocess.run(["git", "-C", str(Path(__file__).parent), *words], check=True,
                              capture_output=True, text=True, timeout=10).stdout.strip()
    try:
        # An installed package may lie inside a checkout of something else.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def environment() -> dict:
    """What a result was made with: versions, commit, devices, processes."""
    devices = jax.devices()
    return {"versions": versions(), "commit": commit(), "platform": platform.platform(),
            "device": devices[0].device_kind, "devices": len(devices),
            "backend": jax.default_backend(), "processes": jax.process_count(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
            else os.cpu_count()}
