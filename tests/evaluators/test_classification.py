"""Evaluation counts every example once, whatever the batch, the padding and the mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax import tasks
from imgcls_jax.evaluators import Parts
from imgcls_jax.evaluators.classification import classification
from imgcls_jax.losses.softmax import softmax
from imgcls_jax.metrics.topk import topk
from imgcls_jax.parallel import transfer
from imgcls_jax.parallel.mesh import make_mesh
from imgcls_jax.types import Metric

CLASSES, BATCH = 12, 16
TASK = tasks.make("multiclass", tuple(map(str, range(CLASSES))), softmax,
                  {"topk": topk("multiclass", k=(1, 5))})
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(1, 256, (1000, 2, 2, 1), np.uint8)
LABELS = RNG.integers(0, CLASSES, 1000).astype(np.int32)
# Small whole numbers: their sums are exact in f32 on any device, and there are ties.
KERNEL = RNG.integers(-1, 2, (4, CLASSES)).astype(np.float32)


def predict(variables, images):
    """A row of zeros, as padding is, gives NaN: what is masked must not count by a product."""
    x = jnp.asarray(images, jnp.float32).reshape(len(images), -1)
    return x @ variables["kernel"] / 256 + jnp.where(x.any(-1, keepdims=True), 0.0, jnp.nan)


def padded_batches(count, mesh):
    for first in range(0, count, BATCH):
        rows = slice(first, min(first + BATCH, count))
        missing = BATCH - (rows.stop - first)

        def pad(x, missing=missing):
            return np.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1))

        host = {"image": pad(IMAGES[rows]), "label": pad(LABELS[rows]),
                "mask": pad(np.ones(rows.stop - first, np.float32)),
                "id": pad(np.arange(first, rows.stop))}
        yield transfer.to_device(host, BATCH, mesh)


def parts(batches, task=TASK):
    return Parts(predict=predict, embed=None, batches=batches, task=task)


def reference(count):
    logits = IMAGES[:count].reshape(count, -1).astype(np.float64) @ KERNEL / 256
    labels = LABELS[:count]
    order = np.argsort(-logits, axis=-1, kind="stable")
    top = {k: int((order[:, :k] == labels[:, None]).any(-1).sum()) for k in (1, 5)}
    shifted = logits - logits.max(-1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(count), labels]
    return top, losses.mean()


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_counts_and_loss_equal_numpys_for_any_size(devices):
    mesh = make_mesh(jax.devices()[:devices])
    count = {}
    evaluate = classification(parts(lambda: padded_batches(count["now"], mesh)))
    for number in (1, 7, 8, 63, 64, 65, 1000):
        count["now"] = number
        found = evaluate({"kernel": KERNEL})
        top, loss = reference(number)
        assert {k: round(found[f"top{k}"] * number) for k in (1, 5)} == top
        assert found["top1"] == top[1] / number and found["top5"] == top[5] / number
        np.testing.assert_allclose(found["loss"], loss, rtol=1e-6)


def test_a_second_run_sees_the_new_variables():
    mesh = make_mesh(jax.devices()[:1])
    evaluate = classification(parts(lambda: padded_batches(65, mesh)))
    first, zero = evaluate({"kernel": KERNEL}), evaluate({"kernel": KERNEL * 0})
    assert zero["loss"] == pytest.approx(np.log(CLASSES)) != first["loss"]
    assert zero["top1"] == np.mean(LABELS[:65] == 0)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_metric_of_rows_gets_every_example_once_and_in_order(devices):
    mesh = make_mesh(jax.devices()[:devices])
    kept = Metric(None, lambda rows: {"labels": rows["label"], "mean": float(rows["own"].mean())},
                  lambda logits, targets: {"label": targets.argmax(-1),
                                           "own": (logits * targets).sum(-1)})
    task = dataclasses.replace(TASK, metrics={**TASK.metrics, "kept": kept})
    found = classification(parts(lambda: padded_batches(61, mesh), task))({"kernel": KERNEL})
    np.testing.assert_array_equal(found["labels"], LABELS[:61])
    logits = IMAGES[:61].reshape(61, -1).astype(np.float64) @ KERNEL / 256
    assert found["mean"] == pytest.approx(logits[np.arange(61), LABELS[:61]].mean(), rel=1e-6)
    assert found["top1"] == reference(61)[0][1] / 61
