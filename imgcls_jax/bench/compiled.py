"""What the compiler makes of a training step, without running it."""

import dataclasses
import time

from imgcls_jax.bench import topology
from imgcls_jax.types import Run


def measure(run: Run, *, images: str = "uint8", onehot: bool = False) -> dict:
    """Facts of the step of a Run, compiled for the devices of its mesh, such as topology.devices.

    images: dtype of the images that the step is fed; floats are normalised images. onehot: whether
    the labels are f32[B,K] instead of i32[B].
    """
    from imgcls_jax import environment
    from imgcls_jax.training.programs import lower_step

    run = fed(run, images, onehot)
    lowered = lower_step(run)
    began = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - began
    return {"model": run.spec.name, "dtype": run.dtype, **topology.figures(run, program),
            "compile_seconds": seconds, "versions": environment.versions(),
            "commit": environment.commit()}


def fed(run: Run, images: str, onehot: bool) -> Run:
    """The Run with images of that dtype and, with `onehot`, labels f32[B,K]."""
    import jax
    import jax.numpy as jnp

    batch = dict(run.abstract_batch)
    batch["image"] = batch["image"].update(dtype=jnp.dtype(images))
    if onehot:
        where = batch["label"].sharding
        batch["label"] = jax.ShapeDtypeStruct((run.batch_size, len(run.source.classes)),
                                              jnp.float32, sharding=where)
    return dataclasses.replace(run, abstract_batch=batch)
