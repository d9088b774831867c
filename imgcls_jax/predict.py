"""A trained model as a function: u8 images or files -> logits and probabilities.

The preprocessing is the one the checkpoint was evaluated with; no config is needed.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from imgcls_jax import features, tasks, tree
from imgcls_jax.assembly import network, trained
from imgcls_jax.assembly.trained import Trained
from imgcls_jax.checkpoint import reading
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.pretrained import catalogue
from imgcls_jax.registry import near
from imgcls_jax.types import Lookup


class Model(Trained):
    """What `load` gives: a trained model as a function of images."""

    @functools.cached_property
    def _apply(self):
        return jax.jit(functools.partial(self.module.apply, train=False))

    @functools.cached_property
    def _apply_bytes(self):
        p = self.preprocessing
        normalise = network.normaliser(p["mean"], p["std"], str(self.module.dtype))
        probabilities = tasks.probabilities(self.kind)
        return jax.jit(lambda variables, x: probabilities(
            self.module.apply(variables, normalise(x), train=False)))

    def features(self, images) -> np.ndarray:
        """f32[B,H,W,C], normalised already -> f32[B,D]: what the head receives."""
        return np.asarray(self._featurise(self.variables, images)[""])

    def intermediates(self, images, pattern: str) -> dict[str, np.ndarray]:
        """Outputs of the submodules whose whole path matches the regex `pattern`, by path.

        images: as of `logits`. Paths are those of the parameters: "stage1_block0", ".*/attention".
        ConfigError if none matches.
        """
        found = jax.jit(functools.partial(features.intermediates, self.module, pattern=pattern))(
            self.variables, images)
        if not found:
            paths = {path.rsplit("/", 1)[0] for path in tree.flatten(self.variables["params"])}
            raise ConfigError(f"no submodule is called {pattern!r}", where="intermediates",
                              fix=near(pattern, paths))
        return {path: np.asarray(value) for path, value in found.items()}

    @functools.cached_property
    def _featurise(self):
        return jax.jit(functools.partial(features.head_input, self.module, self.spec.head))

    def logits(self, images) -> np.ndarray:
        """f32[B,H,W,C], normalised already -> f32[B,K], or f32[B,1] of a binary task."""
        return np.asarray(self._apply(self.variables, images))

    def __call__(self, images, *, batch_size: int = 64) -> np.ndarray:
        """Paths, encoded bytes or u8[H,W,C] arrays -> probabilities f32[N,K], as the task has them.

        Each goes through the preprocessing of evaluation. DataError names a file that cannot be
        decoded.
        """
        items = [images] if isinstance(images, str | bytes | Path) else list(images)
        if not items:
            return np.zeros((0, len(self.labels)), np.float32)
        out = []
        for batch in self._batches(items, batch_size):
            found = np.asarray(self._apply_bytes(self.variables, batch["image"]))
            out.append(found[batch["mask"] > 0])
        return np.concatenate(out)

    def _batches(self, items: list, batch_size: int):
        transforms = trained.preprocess(self.preprocessing)
        size = min(batch_size, len(items))
        return eval_batches(_lookup(items), transforms, batch_size=size,
                                     rows=slice(0, size), classes=1,
                                     channels=self.preprocessing["channels"])


def _lookup(items: Sequence) -> Lookup:
    """Items as a split whose labels are all 0."""
    def fetch(index):
        item = items[int(index)]
        return Path(item).read_bytes() if isinstance(item, str | Path) else item

    def read(index):
        tf = tensorflow()
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

    Or that of published weights that have been downloaded, as "resnet50/imagenet1k_v2", with their
    preprocessing. Raises CheckpointError if there is no good checkpoint, or no such file.
    """
    name, _, tag = str(workdir).partition("/")
    if tag in catalogue.weights(name) and not Path(workdir).exists():
        return Model(**vars(trained.of_published(str(workdir), catalogue.weights(name)[tag])))
    weights, saved, _ = reading.restore_weights(Path(workdir) / "checkpoints", step)
    return Model(**vars(trained.of_checkpoint(weights, saved)))


def of_file(file: str | Path, config: Mapping) -> Model:
    """The model of a config's `model` with the weights of a file: see assembly.trained.of_file."""
    return Model(**vars(trained.of_file(file, config)))
