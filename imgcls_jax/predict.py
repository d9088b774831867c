"""A trained model as a function: u8 images or files -> logits and probabilities.

The preprocessing is the one the checkpoint was evaluated with; no config is needed.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imgcls_jax import build, checkpoint, pipeline, runtime
from imgcls_jax import config as configs
from imgcls_jax.types import Lookup, ModelSpec


@dataclasses.dataclass(frozen=True)
class Model:
    """What `load` gives.

    module, variables: the linen module and what its `apply` takes. labels: class names.
    preprocessing: eval transforms, mean, std, channels, image size.
    """

    module: Any
    variables: Mapping
    spec: ModelSpec
    labels: tuple[str, ...]
    preprocessing: Mapping

    @functools.cached_property
    def _apply(self):
        return jax.jit(functools.partial(self.module.apply, train=False))

    @functools.cached_property
    def _apply_bytes(self):
        p = self.preprocessing
        normalise = build.normaliser(p["mean"], p["std"], str(self.module.dtype))
        return jax.jit(lambda variables, x: self.module.apply(variables, normalise(x),
                                                              train=False))

    def logits(self, images) -> np.ndarray:
        """f32[B,H,W,C], normalised already -> f32[B,K]."""
        return np.asarray(self._apply(self.variables, images))

    def __call__(self, images, *, batch_size: int = 64) -> np.ndarray:
        """Paths, encoded bytes or u8[H,W,C] arrays -> softmax probabilities f32[N,K].

        Each goes through the preprocessing of evaluation. DataError names a file that cannot be
        decoded.
        """
        items = [images] if isinstance(images, str | bytes | Path) else list(images)
        if not items:
            return np.zeros((0, len(self.labels)), np.float32)
        out = []
        for batch in self._batches(items, batch_size):
            logits = np.asarray(self._apply_bytes(self.variables, batch["image"]))
            out.append(jax.nn.softmax(logits, -1)[batch["mask"] > 0])
        return np.concatenate(out)

    def _batches(self, items: list, batch_size: int):
        transforms = build.chain(self.preprocessing["transforms"], build.TRANSFORMS, "transforms")
        size = min(batch_size, len(items))
        return pipeline.eval_batches(_lookup(items), transforms, batch_size=size,
                                     rows=slice(0, size), classes=1,
                                     channels=self.preprocessing["channels"])


def _lookup(items: Sequence) -> Lookup:
    """Items as a split whose labels are all 0."""
    def fetch(index):
        item = items[int(index)]
        return Path(item).read_bytes() if isinstance(item, str | Path) else item

    def read(index):
        tf = pipeline.tensorflow()
        arrays = isinstance(items[0], np.ndarray)
        image = tf.numpy_function(fetch, [index], tf.uint8 if arrays else tf.string)
        image.set_shape((None, None, items[0].shape[-1]) if arrays else ())
        return {"image": image, "label": tf.constant(0, tf.int32)}

    def where(index):
        item = items[index]
        return str(item) if isinstance(item, str | Path) else f"image {index}"

    return Lookup(len(items), read, where)


def load(workdir: str | Path, *, step: int | str = "latest") -> Model:
    """The model of a workdir, at a step, "latest" or "best"; of its moving average, if it has one.

    Raises CheckpointError if there is no good checkpoint.
    """
    weights, saved, _ = checkpoint.restore_weights(Path(workdir) / "checkpoints", step)
    config = configs.plain(saved["config"])
    preprocessing = configs.plain(saved["preprocessing"])
    dtype = runtime.compute_dtype(config["precision"])
    labels = tuple(saved["classes"])
    module, spec = build.model(config["model"], len(labels), dtype)
    values = weights.get("ema") or weights
    return Model(module, {"params": values["params"], **values["model_state"]}, spec, labels,
                 preprocessing)
