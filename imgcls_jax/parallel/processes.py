"""What is set once per process: distributed start, compilation cache, precision."""

import os
import sys
import threading
from pathlib import Path

import jax
from jax._src import distributed  # the coordination service has no public name

from imgcls_jax.errors import ConfigError, EnvironmentFailure
from imgcls_jax.parallel import waits

PATIENCE = 10  # seconds of waiting for other processes before a word
LIMIT = 300  # seconds of it in all, as JAX has it


def start(*, coordinator: str | None = None, processes: int | None = None,
          process_id: int | None = None, cache: str | None = None):
    """Connects to the other processes, if there are any, and enables the compilation cache.

    Plain processes give a coordinator (host:port), the number of processes and their own id; under
    Slurm, Open MPI and on TPU pods these are found. Must run before anything asks JAX for a device.
    """
    enable_cache(cache)
    if coordinator or (processes or 1) > 1:
        if not coordinator or processes is None or process_id is None:
            raise ConfigError("one of --coordinator, --processes and --process_id is missing",
                              where="command line",
                              fix="--coordinator=HOST:PORT --processes=N --process_id=0..N-1")
        _initialize(coordinator_address=coordinator, num_processes=processes,
                    process_id=process_id)
    elif _launched_in_parallel():
        _initialize()


def _launched_in_parallel() -> bool:
    tasks = [os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")]
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return any(n.isdigit() and int(n) > 1 for n in tasks) or "," in hosts


def _initialize(**arguments):
    # Only the CPU backend reads this; the other choice, mpi, needs a separate library.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    told = threading.Timer(PATIENCE, print, [
        f"waiting for the other processes, at most {LIMIT} s"], {"file": sys.stderr, "flush": True})
    told.daemon = True
    told.start()
    try:
        jax.distributed.initialize(**arguments,
                                   heartbeat_timeout_seconds=waits.HEARTBEAT)
    except (RuntimeError, ValueError) as error:
        raise EnvironmentFailure(f"the processes did not find each other: {error}",
                                 where="jax.distributed.initialize",
                                fix="check that all run and can reach the coordinator") from error
    finally:
        told.cancel()
    if distributed.global_state.client is not None:
        waits.start(distributed.global_state.client, distributed.global_state.process_id)


def enable_cache(place: str | None = None) -> str | None:
    """Keeps compiled programs in `place`, else $IMGCLS_CACHE, else ~/.cache/imgcls_jax/xla.

    "off" keeps none. $JAX_COMPILATION_CACHE_DIR, if set, takes precedence over the default.
    """
    place = place or os.environ.get("IMGCLS_CACHE") or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    place = place or str(Path.home() / ".cache" / "imgcls_jax" / "xla")
    if place == "off":
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    jax.config.update("jax_compilation_cache_dir", place)
    # JAX's default keeps only programs that took over a second, but many small ones add up.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return place


def compute_dtype(precision: str) -> str:
    """`config.precision` -> the dtype models compute in. "f64" also enables 64-bit JAX."""
    if precision == "auto":
        return "float32" if jax.default_backend() == "cpu" else "bfloat16"
    names = {"f32": "float32", "bf16": "bfloat16", "f64": "float64"}
    if precision not in names:
        raise ConfigError(f"precision={precision!r} is unknown", where="config.precision",
                          fix=f"use one of {['auto', *names]}")
    if precision == "f64":
        jax.config.update("jax_enable_x64", True)
    return names[precision]
