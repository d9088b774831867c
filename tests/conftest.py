"""JAX as the tests need it, set before it is imported; which tests run; random variables."""

import collections
import gc
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
import zlib
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest

DEVICES = "--xla_force_host_platform_device_count=8"
# A program of a default test runs once or twice: what makes it fast takes longer than it saves.
# Without MLIR for each fusion, and in one module for LLVM, it compiles in 0.6 of the time. XLA ends
# the process at a flag that it does not know, and JAX 0.11 and newer know the first one no more.
QUICK = ("--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
         if jax.__version_info__ < (0, 11) else "")

gc.set_threshold(100_000, 50, 100)  # tracing makes millions of objects that stay
ROOT = Path(__file__).parent
PARTS = 8  # of the rotating nightly tests
# Where fast tests are, by the beginning of their path: they compile no network, start no process.
FAST = ("contracts/test_directions", "data/decoding/", "losses/", "metrics/", "schedules/", "test_")
EXPLICIT_RANKS = {"losses", "metrics", "optimizers", "schedules"}
CACHE = pytest.StashKey[str]()


# ---- which tests run: README.md beside this file ------------------------------------------------


def pytest_addoption(parser):
    group = parser.getgroup("imgcls_jax")
    group.addoption("--part", default=None, metavar="N", help=(
        f"part of the rotating nightly tests that runs, 0 to {PARTS - 1} or all; by default it "
        "follows from the commit"))
    group.addoption("--time-limit", type=float, default=None, metavar="MINUTES", help=(
        "start no test later than this; those that are left are skipped, and said to be"))
    group.addoption("--minutes", action="store_true", help="print the minutes of each folder")


def chosen_part(config) -> int | None:
    """The part of this commit, or what --part says; None for all of them."""
    wanted = config.getoption("part")
    if wanted is not None:
        if wanted != "all" and wanted not in map(str, range(PARTS)):
            raise pytest.UsageError(f"--part={wanted}: use 0 to {PARTS - 1}, or all")
        return None if wanted == "all" else int(wanted)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return int(head.stdout.strip() or "0", 16) % PARTS  # 0 outside of a clone


def pytest_report_header(config):
    if config.getoption("markexpr") in ("not nightly", "fast"):
        return None
    part = chosen_part(config)
    return ("rotating nightly tests: all" if part is None else
            f"rotating nightly tests: part {part}, of parts 0 to {PARTS - 1}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Marks fast tests, and leaves out the rotating ones of other parts."""
    part, left_out, seen = chosen_part(config), [], collections.Counter()
    for item in items:
        daily = item.get_closest_marker("daily")
        if daily:
            name = item.nodeid.partition("[")[0]
            seen[name] += item.get_closest_marker("nightly") is None
            if seen[name] > daily.args[0]:
                item.add_marker(pytest.mark.nightly)
        nightly = item.get_closest_marker("nightly")
        if nightly is None:
            if item.path.relative_to(ROOT).as_posix().startswith(FAST):
                item.add_marker(pytest.mark.fast)
        elif nightly.kwargs.get("alone") and part is not None:
            left_out.append(item)
        elif nightly.kwargs.get("rotating") and part is not None:
            if zlib.crc32(item.nodeid.encode()) % PARTS != part:
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    end = os.environ.get("IMGCLS_TESTS_END")
    if end and time.time() > float(end):
        pytest.skip(f"not started: the limit of {item.config.getoption('time_limit'):g} minutes "
                    "has passed")


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("minutes"):
        return
    seconds: dict[str, float] = {}
    for report in itertools.chain(*terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            folder = str(Path(report.nodeid.partition("::")[0]).parent)
            seconds[folder] = seconds.get(folder, 0) + report.duration
    terminalreporter.section("minutes by folder, of one core")
    for folder, total in sorted(seconds.items(), key=lambda item: -item[1]):
        terminalreporter.line(f"{total / 60:6.1f}  {folder}")


# ---- a session ----------------------------------------------------------------------------------


def pytest_configure(config):
    """How programs are compiled; the workers of a session and its processes share them.

    Default tests compile quickly. Nightly tests compile as in use: they are many more numbers at
    the edge of a tolerance. It is one way for a whole session, because tests share what a module's
    fixture has computed.
    """
    quick = config.getoption("markexpr") in ("not nightly", "fast")
    jax.config.update("jax_disable_most_optimizations", quick)
    if not hasattr(config, "workerinput"):  # workers inherit the environment
        os.environ["XLA_FLAGS"] = " ".join(  # XLA reads it when JAX first asks for devices
            [os.environ.get("XLA_FLAGS", ""), DEVICES, QUICK if quick else ""])
        os.environ["IMGCLS_CACHE"] = config.stash[CACHE] = tempfile.mkdtemp(prefix="imgcls_tests_")
        limit = config.getoption("time_limit")
        if limit is not None:
            os.environ["IMGCLS_TESTS_END"] = str(time.time() + 60 * limit)
    jax.config.update("jax_compilation_cache_dir", os.environ["IMGCLS_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def pytest_unconfigure(config):
    if CACHE in config.stash:
        shutil.rmtree(config.stash[CACHE], ignore_errors=True)


@pytest.fixture(autouse=True)
def single_precision_again():
    """A run in f64 turns 64-bit JAX on for the whole process."""
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def explicit_ranks(request):
    """Where [B] + [B,1] would silently be [B,B]; not in layers, which add [C] to [B,H,W,C]."""
    explicit = request.path.relative_to(ROOT).parts[0] in EXPLICIT_RANKS
    with jax.numpy_rank_promotion("raise" if explicit else "allow"):
        yield


@pytest.fixture
def optimized():
    """Programs are compiled as in use, where it matters to a default test."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def random_variables():
    """(module, images) -> variables without a compiled init; none is at a value, such as a scale
    of one, that could hide an error. Kernels have about unit gain."""
    def draw(module, images):
        rng = np.random.default_rng(1)

        def leaf(shape):
            values = rng.uniform(0.5, 1.5, shape.shape)
            if shape.ndim > 1:
                values *= rng.choice([-1, 1], shape.shape) / np.sqrt(np.prod(shape.shape[:-1]))
            return values.astype(shape.dtype)

        return jax.tree.map(leaf, jax.eval_shape(module.init, jax.random.key(0), images))

    return draw


@pytest.fixture
def two_blocks(monkeypatch):
    """Residual networks of two blocks and transformers of as many: the others compile for long."""
    from imgcls_jax.models import resnet, vit

    residual, transformer = resnet.ResNet, vit.ViT
    monkeypatch.setattr(resnet, "ResNet", lambda classes, blocks, **options: residual(
        classes, (1, 1), **options))
    monkeypatch.setattr(vit, "ViT", lambda classes, patch, width, depth, heads, **options:
                        transformer(classes, patch, width, 2, heads, **options))


@pytest.fixture
def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]
