"""TPU slices that are not there: their devices, to compile for with libtpu alone, and figures."""

import importlib.util
import os
import re

import jax

from imgcls_jax.bench import hlo
from imgcls_jax.errors import ConfigError, EnvironmentFailure
from imgcls_jax.types import Run

# Clock in Hz that the peak of the data sheet implies: peak / (matrix units * 128 * 128 * 2); a v5e
# has 4 of them. Only for chips where the compiler's cycles were compared with published runs.
CLOCK = {"TPU v5 lite": 1.503e9, "TPU v3": 0.94e9}
EXAMPLES = "v5e:1x1, v5e:4x4, v6e:4x4, v5p:2x2x1, v4:2x2x1"
# Without them libtpu asks the network which machine this is, and only one process may load it.
_ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
                "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


def devices(name: str) -> list:
    """"v5e:4x4" -> the devices of that slice, which can be compiled for and nothing else.

    Call it before anything asks JAX for a device: JAX would look for a TPU. Sets JAX to the CPU
    backend. Raises ConfigError for a name that libtpu does not know, EnvironmentFailure where
    libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise EnvironmentFailure(f"compiling for {name} needs libtpu, which is not installed",
                                 where="--topology",
                                 fix='pip install "imgcls_jax[tpu]"')
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", name)
    if not match:
        raise ConfigError(f"{name!r} is not a topology", where="--topology",
                          fix=f"give GENERATION:SHAPE, such as {EXAMPLES}")
    # Importing jax where libtpu is installed has set some of them, to values that fail here.
    os.environ.update(_ENVIRONMENT)
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    # By default a host has 2x2 chips, which is more than a slice of one chip has.
    shape = tuple(map(int, match[2].split("x")))
    one = {"chips_per_host_bounds": (1, 1, 1)} if max(shape) == 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name,
                                                 **one).devices)
    except Exception as error:  # jaxlib's own kind, which has no public name
        raise ConfigError(f"libtpu does not know the topology {name!r}: "
                          f"{str(error).splitlines()[0]}", where="--topology",
                          fix=f"give another, such as {EXAMPLES}") from error


def figures(run: Run, program) -> dict:
    """What the TPU compiler says of the step of a Run, compiled to `program`: figures of one chip.

    Cycles are the compiler's estimate, a serial sum without communication; images per second are
    batch / (cycles / clock) of one chip, None where its clock is not known. optimal_seconds is
    the compiler's other estimate, of the time that memory traffic takes; it counts -1 second for
    each ConcatBitcast, which is corrected here.
    """
    summary, estimated = hlo.summary(program), hlo.cycles(program.as_text())
    kind, count = run.mesh.devices.flat[0].device_kind, run.mesh.devices.size
    images, cycles = run.batch_size / count, estimated["cycles"]
    clock = CLOCK.get(kind)
    optimal = (program.cost_analysis() or {}).get("optimal_seconds", 0.0)
    return {
        "device": kind, "devices": count, "images_per_device": images,
        "flops_per_image": summary["flops"] / images,
        "bytes_per_image": summary["bytes_accessed"] / images,
        "cycles_per_image": cycles / images, "cycles": cycles,
        "cycles_of_copies": estimated["copies"],
        "images_per_second_per_device": images * clock / cycles if clock and cycles else None,
        "optimal_seconds": optimal + estimated["custom_calls"].get("ConcatBitcast", 0),
        "peak_bytes": summary["peak_bytes"], "collectives": summary["collectives"],
        "unpriced": estimated["unpriced"], "custom_calls": estimated["custom_calls"],
        "costliest": estimated["costliest"]}
