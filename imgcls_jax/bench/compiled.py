"""imgcls bench compile: what the TPU compiler makes of a config's step, without a TPU."""

import dataclasses
import json
import time

from imgcls_jax.bench import slices
from imgcls_jax.cli import _flags
from imgcls_jax.cli.bench import FLAGS, chosen


def main(overrides):
    _flags.start(FLAGS)
    # First of all: what asks JAX for a device would make it look for a TPU that is not there.
    devices = slices.devices(FLAGS.topology)
    facts = measure(slices.fit(chosen(overrides), devices, FLAGS.batch_per_device), devices,
                    images=FLAGS.images, onehot=FLAGS.labels == "onehot")
    print(json.dumps(facts, indent=1) if FLAGS.json else render(facts))


def measure(chosen: dict, devices: list, *, images: str = "uint8", onehot: bool = False) -> dict:
    """Facts of the step of a config, compiled for the devices of a TPU slice.

    images: dtype of the images it is fed. onehot: whether the labels are f32[B,K].
    """
    from imgcls_jax import environment
    from imgcls_jax.assembly import build
    from imgcls_jax.parallel import processes
    from imgcls_jax.training.programs import lower_step

    run = fed(build(chosen, devices=devices), images, onehot)
    lowered = lower_step(run)
    began = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - began
    return {"model": run.spec.name, "dtype": processes.compute_dtype(chosen["precision"]),
            **slices.figures(run, program), "compile_seconds": seconds,
            "versions": environment.versions(), "commit": environment.commit()}


def fed(run, images: str, onehot: bool):
    """The Run with images of that dtype and labels of that form."""
    import jax
    import jax.numpy as jnp

    batch = dict(run.abstract_batch)
    batch["image"] = batch["image"].update(dtype=jnp.dtype(images))
    if onehot:
        where = batch["label"].sharding
        batch["label"] = jax.ShapeDtypeStruct((run.batch_size, len(run.source.classes)),
                                              jnp.float32, sharding=where)
    return dataclasses.replace(run, abstract_batch=batch)


def render(facts: dict) -> str:
    made = ", ".join(f"{k} {facts['versions'][k]}" for k in ("jax", "libtpu")
                     if k in facts["versions"])
    return "\n".join((
        f"{facts['model']}, {facts['images_per_device']:g} images on each of {facts['devices']} "
        f"{facts['device']}, {facts['dtype']}",
        *slices.lines(facts), f"compiled in {facts['compile_seconds']:.0f} s, {made}"))
