"""TPU slices that are not there: their devices, to compile for with libtpu alone."""

import importlib.util
import os
import re

import jax

from imgcls_jax.errors import ConfigError, EnvironmentFailure

# Clock in Hz as the peak of the data sheet implies: peak / (matrix units * 128 * 128 * 2); v5e has
# 4 of them. Only where the compiler's cycles were compared with published runs.
CLOCK = {"TPU v5 lite": 1.503e9, "TPU v3": 0.94e9}
EXAMPLES = "v5e:1x1, v5e:4x4, v6e:4x4, v5p:2x2x1, v4:2x2x1"
# Else libtpu asks the network who it is, and lets one process at a time in.
_ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
                "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


def devices(name: str) -> list:
    """"v5e:4x4" -> the devices of that slice, which can be compiled for and nothing else.

    Turns JAX to the CPU backend. ConfigError for a name that libtpu does not know,
    EnvironmentFailure where libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise EnvironmentFailure(f"compiling for {name} needs libtpu", where="--topology",
                                 fix='pip install "imgcls_jax[tpu]"')
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", name)
    if not match:
        raise ConfigError(f"{name!r} is no topology", where="--topology",
                          fix=f"GENERATION:SHAPE, such as {EXAMPLES}")
    os.environ.update(_ENVIRONMENT)  # importing jax beside libtpu has set some of them, to errors
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    # Of a host's chips the default is 2x2, which is more than a slice of one has.
    shape = tuple(map(int, match[2].split("x")))
    one = {"chips_per_host_bounds": (1, 1, 1)} if max(shape) == 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name,
                                                 **one).devices)
    except Exception as error:  # jaxlib's own kind, of no public name
        raise ConfigError(f"libtpu knows no topology {name}: {str(error).splitlines()[0]}",
                          where="--topology", fix=f"such as {EXAMPLES}") from error
