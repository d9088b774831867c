"""Splits of tiny images around a mean for each class, as padded batches on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax.evaluators import Parts
from imgcls_jax.losses.softmax import softmax
from imgcls_jax.metrics.topk import topk
from imgcls_jax.parallel import transfer
from imgcls_jax.parallel.mesh import make_mesh
from imgcls_jax.types import Task

CLASSES, BATCH, WIDTH = 5, 16, 12
MEANS = np.random.default_rng(5).uniform(90, 165, (CLASSES, WIDTH))
KERNEL = ((MEANS - 128) / 16).T.astype(np.float32)


def made(count: int, seed: int, classes: int = CLASSES):
    """(images u8[N,2,2,3], labels i32[N]); the classes overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    images = MEANS[labels] + rng.normal(0, 25, (count, WIDTH))
    return images.round().clip(0, 255).astype(np.uint8).reshape(count, 2, 2, 3), labels


SPLITS = {None: made(61, 1), "train": made(203, 2)}


def features(images) -> np.ndarray:
    """Exact in f32: sixteenths."""
    return (images.reshape(len(images), -1).astype(np.float32) - 128) / 16


def embed(variables, images):
    return (images.reshape(len(images), -1).astype(jnp.float32) - 128) / 16 * variables["scale"]


def predict(variables, images):
    return embed(variables, images) @ KERNEL


VARIABLES = {"scale": np.float32(1)}
TASK = Task("multiclass", tuple("abcde"), CLASSES, lambda label: jax.nn.one_hot(label, CLASSES),
            softmax, jax.nn.softmax, {"topk": topk("multiclass", k=(1, 2))})


def parts(devices: int = 8, splits=None, **changes) -> Parts:
    mesh, splits = make_mesh(jax.devices()[:devices]), splits or SPLITS

    def batches(split=None):
        images, labels = splits[split]
        for first in range(0, len(images), BATCH):
            rows = slice(first, first + BATCH)
            missing = BATCH - len(labels[rows])

            def pad(x, missing=missing):
                return np.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1))

            host = {"image": pad(images[rows]), "label": pad(labels[rows]),
                    "mask": pad(np.ones(len(labels[rows]), np.float32)),
                    "id": pad(np.arange(first, first + len(labels[rows])))}
            yield transfer.to_device(host, BATCH, mesh)

    return Parts(**{"predict": predict, "embed": embed, "batches": batches, "task": TASK,
                    **changes})
