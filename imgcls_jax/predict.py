"""A trained model as a function: u8 images or files -> logits and probabilities.

The preprocessing is the one the checkpoint was evaluated with; no config is needed.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from imgcls_jax import features, tasks, tree, untrusted
from imgcls_jax.assembly import network, trained
from imgcls_jax.assembly.trained import Trained
from imgcls_jax.checkpoint import reading
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.data.decoding import pillow
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import CheckpointError, ConfigError, DataError
from imgcls_jax.pretrained import catalogue
from imgcls_jax.pretrained import load as load_weights
from imgcls_jax.pretrained import texts as text_embeddings
from imgcls_jax.registry import near
from imgcls_jax.types import Lookup


class Model(Trained):
    """What `load` gives: a trained model as a function of images."""

    @functools.cached_property
    def _apply(self):
        return jax.jit(functools.partial(self.module.apply, train=False))

    @functools.cached_property
    def _normalise(self):
        p = self.preprocessing
        return network.normaliser(p["mean"], p["std"], str(self.module.dtype))

    @functools.cached_property
    def _apply_levels(self):
        probabilities = tasks.probabilities(self.kind)
        return jax.jit(lambda variables, x: probabilities(
            self.module.apply(variables, self._normalise(x), train=False)))

    def features(self, images) -> np.ndarray:
        """Images as of `logits` -> f32[B,D]: what the head receives."""
        return np.asarray(self._featurise(self.variables, self._seen(images))[""])

    def intermediates(self, images, pattern: str) -> dict[str, np.ndarray]:
        """Outputs of the submodules whose whole path matches the regex `pattern`, by path.

        images: as of `logits`. Paths are those of the parameters: "stage1_block0", ".*/attention".
        ConfigError if none matches.
        """
        found = jax.jit(functools.partial(features.intermediates, self.module, pattern=pattern))(
            self.variables, self._seen(images))
        if not found:
            paths = {path.rsplit("/", 1)[0] for path in tree.flatten(self.variables["params"])}
            raise ConfigError(f"no submodule is called {pattern!r}", where="intermediates",
                              fix=near(pattern, paths))
        return {path: np.asarray(value) for path, value in found.items()}

    @functools.cached_property
    def _featurise(self):
        return jax.jit(functools.partial(features.head_input, self.module, self.spec.head))

    def logits(self, images) -> np.ndarray:
        """f32[B,H,W,C], normalised already -> f32[B,K], or f32[B,1] of a binary task.

        Images as of a call, which are not floats, go through the preprocessing of evaluation first.
        """
        return np.asarray(self._apply(self.variables, self._seen(images)))

    def __call__(self, images, *, batch_size: int = 64) -> np.ndarray:
        """Images -> probabilities f32[N,K], as the task has them.

        images: one, or several in any iterable or u8[N,H,W,C], of paths, encoded bytes, Pillow's
        images, and u8[H,W] or u8[H,W,C] with C of 1 to 4. Each goes through the preprocessing of
        evaluation. DataError names an image that cannot be decoded, or is none.
        """
        found = self._over(images, functools.partial(self._apply_levels, self.variables),
                           batch_size)
        return np.zeros((0, len(self.labels)), np.float32) if found is None else found

    def _seen(self, images):
        """What the network sees: floats as they are, other images preprocessed."""
        if getattr(images, "ndim", 0) == 4 and jnp.issubdtype(images.dtype, jnp.floating):
            return images
        found = self._over(images, self._normalise)
        if found is None:
            raise DataError("there are no images", where="images", fix="give at least one")
        return found

    def _over(self, images, compute, batch_size: int = 64) -> np.ndarray | None:
        """compute(u8[B,H,W,C] as evaluation gives them to the network) of all images, in order."""
        channels = self.preprocessing["channels"]
        items = _items(images, channels)
        kinds = np.array([item.shape[-1] if isinstance(item, np.ndarray) else 0 for item in items])
        order, found = np.argsort(kinds, kind="stable"), []
        for kind in np.unique(kinds):  # a pipeline is of files, or of arrays of one depth
            chosen = order[kinds[order] == kind]
            size = min(batch_size, len(chosen))
            batches = eval_batches(_lookup(items, chosen), trained.preprocess(self.preprocessing),
                                   batch_size=size, rows=slice(0, size), classes=1,
                                   channels=channels)
            found += [np.asarray(compute(batch["image"]))[batch["mask"] > 0] for batch in batches]
        return np.concatenate(found)[np.argsort(order)] if found else None


def _items(images, channels: int) -> list:
    """What a user gives as images, as a list of paths, bytes and u8[H,W,C]."""
    one = isinstance(images, str | bytes | Path | Image.Image)
    if one or getattr(images, "ndim", 0) in (2, 3):
        images = [images]
    return [_item(image, f"image {i}", channels) for i, image in enumerate(images)]


def _item(image, where: str, channels: int) -> str | bytes | Path | np.ndarray:
    if isinstance(image, str | bytes | Path):
        return image
    if isinstance(image, Image.Image):
        return pillow.pixels(image, channels)
    levels = np.asarray(image)
    if levels.dtype != np.uint8:
        raise DataError(f"an array of {levels.dtype} is no image with levels from 0 to 255",
                        where=where, fix="give u8; of floats in [0, 1], (255 * x).round(); what is "
                                         "normalised already goes to model.logits")
    levels = levels[..., None] if levels.ndim == 2 else levels
    if levels.ndim != 3 or not 1 <= levels.shape[-1] <= 4 or not levels.size:
        raise DataError(f"an array of shape {levels.shape} is no image", where=where,
                        fix="give [H,W], or [H,W,C] with 1 to 4 channels")
    return levels


def _lookup(items: Sequence, chosen: np.ndarray) -> Lookup:
    """Some of the items, all encoded or all arrays, as a split whose labels are all 0."""
    arrays = isinstance(items[chosen[0]], np.ndarray)

    def fetch(index):
        item = items[chosen[index]]
        if not isinstance(item, str | Path):
            return item
        try:
            return untrusted.read(item, untrusted.IMAGE)
        except OSError as error:
            raise DataError(error.strerror or str(error), where=str(item)) from error

    def read(index):
        tf = tensorflow()
        image = tf.numpy_function(fetch, [index], tf.uint8 if arrays else tf.string)
        image.set_shape((None, None, items[chosen[0]].shape[-1]) if arrays else ())
        return {"image": image, "label": tf.constant(0, tf.int32)}

    def where(index):
        item = items[chosen[index]]
        return str(item) if isinstance(item, str | Path) else f"image {chosen[index]}"

    return Lookup(len(chosen), read, where)


def load(source: str | Path, *, step: int | str = "latest", model: str | None = None,
         texts: str | Path | None = None) -> Model:
    """The model of a workdir, at a step, "latest" or "best"; of its moving average, if it has one.

    Or weights without a workdir, with the preprocessing that they were measured with: published
    ones that are on this machine (`imgcls weights get`), as "efficientnet_lite0/imagenet1k", or a
    file, for which `model` names the model if it is not a published one. 1,000 classes have the
    names of ImageNet's; with `texts`, a file of embeddings, the classes are those that it names
    (see `of_texts`). Raises CheckpointError if there is no good checkpoint, or no such file, or it
    does not fit; ConfigError, with the tags that there are, for a model without one.
    """
    place, name = Path(source), str(source).partition("/")[0]
    if texts:
        return of_texts(source, texts, model)
    if model or place.is_file() or (name in catalogue.models() and not place.exists()):
        return of_weights(source, model)
    weights, saved, found = reading.restore_weights(place / "checkpoints", step)
    return Model(**{**vars(trained.of_checkpoint(weights, saved)), "step": found})


def of_weights(weights: str | Path, model: str | None = None) -> Model:
    """The model of weights without a workdir: see assembly.trained.of_weights."""
    return Model(**vars(trained.of_weights(weights, model)))


def of_texts(weights: str | Path, texts: str | Path, model: str | None = None) -> Model:
    """An image encoder and embeddings of texts as a classifier of what the texts are about.

    weights, model: as of `load`. texts: a file as of pretrained.texts. Where nothing is published
    of the weights, images are squashed to the encoder's size, bicubic, as for SigLIP. Raises as
    `load`, and CheckpointError where the texts are not of the encoder's width.
    """
    labels, embeddings, scale = text_embeddings.read(texts)
    found = trained.of_weights(weights, model, outputs=0)
    size, channels = found.preprocessing["image_size"], found.preprocessing["channels"]
    width = jax.eval_shape(found.module.apply, found.variables, jax.ShapeDtypeStruct(
        (1, *size, channels), jnp.float32)).shape[-1]
    if width != len(embeddings):
        raise CheckpointError(f"the texts have {len(embeddings)} numbers each, an image of "
                              f"{found.spec.name} has {width}", where=str(texts),
                              fix="give embeddings by the text encoder of these weights")
    steps = found.preprocessing["transforms"]
    if not load_weights.locate(weights, found.spec.name)[1]:
        steps = ({"name": "resize", "size": size[0], "interpolation": "bicubic",
                  "library": "pillow"},)
    variables = {"params": {"encoder": found.variables["params"],
                            "head": {"texts": embeddings, "logit_scale": scale}}}
    module = features.ZeroShot(found.module, len(labels), found.module.dtype)
    return Model(**{**vars(found), "module": module, "variables": variables, "labels": labels,
                    "spec": dataclasses.replace(found.spec, head="head"),
                    "preprocessing": {**found.preprocessing, "transforms": steps}})


def of_file(file: str | Path, config: Mapping) -> Model:
    """The model of a config's `model` with the weights of a file: see assembly.trained.of_file."""
    return Model(**vars(trained.of_file(file, config)))
