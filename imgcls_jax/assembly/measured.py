"""Configs to measure: of a model alone, and fitted to a TPU slice that is not there."""

from collections.abc import Mapping

from imgcls_jax import config as configs


def plain(model: str, batch: int, size: int, precision: str) -> dict:
    """SGD with momentum on synthetic images of `size` x `size` pixels, `batch` of them a step.

    A plain dict, so that ml_collections is not needed.
    """
    return configs.complete({
        "data": {"name": "synthetic", "size": size, "classes": 1000}, "transforms": (),
        "eval_transforms": (), "model": {"name": model}, "task": "multiclass",
        "loss": {"name": "softmax"}, "step": {"name": "supervised"}, "batch_size": batch,
        "total": {"steps": 1000}, "optimizer": {"name": "sgd", "momentum": 0.9},
        "schedule": {"name": "constant", "base": 0.1, "per": 256},
        "weight_decay": {"value": 1e-4, "mode": "coupled"}, "precision": precision, "evals": {},
        "checkpoint": {"every": {"steps": 1000}}})


def for_slice(config: Mapping, devices: int, batch_per_device: int | None = None) -> dict:
    """The config for a TPU slice of so many devices.

    batch_per_device: images per step on each of them; None keeps config.batch_size. precision
    "auto" becomes bf16: it would ask the devices of this machine, not those of the slice.
    """
    changed = dict(config)
    if batch_per_device:
        changed["batch_size"] = batch_per_device * devices
    if changed["precision"] == "auto":
        changed["precision"] = "bf16"
    return changed
