"""Checks whether this machine is ready: Python, packages, devices, write access, disk."""

import importlib.util
import json
import os
import shutil
import sys
import tempfile

from absl import flags

from imgcls_jax import environment
from imgcls_jax.cli import _flags
from imgcls_jax.errors import EnvironmentFailure
from imgcls_jax.parallel import processes

FLAGS = _flags.verb()
flags.DEFINE_bool("json", False, "Print JSON.",
                  flag_values=FLAGS)


def main(words, overrides):
    rows = [_python(), _devices(), *_packages(), _writable(os.getcwd(), "this folder"),
            _cache(), _disk()]
    if FLAGS.json:
        print(json.dumps([dict(zip(("what", "ok", "found", "fix"), row, strict=True))
                          for row in rows], indent=1))
    else:
        for what, good, found, fix in rows:
            print(f"{'ok  ' if good else 'FAIL'} {what:22} {found}" + ("" if good else f"\n"
                  f"     fix: {fix}"))
    return 0 if all(row[1] for row in rows) else EnvironmentFailure.code


def _python():
    return "python", sys.version_info >= (3, 11), sys.version.split()[0], "use 3.11 or later"


def _devices():
    try:
        import jax
        devices = jax.devices()
        return ("devices", True, f"{len(devices)} x {devices[0].device_kind} "
                f"({jax.default_backend()}), {environment.environment()['cpus']} CPU cores", "")
    except RuntimeError as error:
        return "devices", False, str(error).splitlines()[0], "see the JAX installation guide"


def _packages():
    """The packages that training needs; models and `bench step` need only the first three."""
    found = environment.versions()
    for name, module in (("jax", "jax"), ("flax", "flax"), ("orbax-checkpoint", "orbax"),
                         ("tensorflow", "tensorflow"), ("clu", "clu"),
                         ("tensorflow-datasets", "tensorflow_datasets"),
                         ("ml-collections", "ml_collections")):
        there = importlib.util.find_spec(module) is not None
        version = found.get(name) or found.get(f"{name}-cpu") or ""
        yield name, there, version if there else "not installed", f"pip install {name}"


def _writable(path, name):
    try:
        with tempfile.TemporaryFile(dir=path):
            return f"write to {name}", True, path, ""
    except OSError as error:
        return f"write to {name}", False, f"{path}: {error.strerror}", "work in another folder"


def _cache():
    place = processes.enable_cache()
    if place is None:
        return "compilation cache", True, "off", ""
    try:
        os.makedirs(place, exist_ok=True)
    except OSError as error:
        return ("compilation cache", False, f"{place}: {error.strerror}",
                "set $IMGCLS_CACHE to a folder you may write to, or to off")
    _, good, found, _ = _writable(place, "")
    return "compilation cache", good, found, "set $IMGCLS_CACHE to a folder you may write to"


def _disk():
    free = shutil.disk_usage(os.getcwd()).free / 2**30
    return "free disk", free > 1, f"{free:.1f} GiB", "free some space, or work on another disk"
