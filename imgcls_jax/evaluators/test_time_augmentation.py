"""Classification by the mean over several views of each image."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import EVALUATORS, Parts
from imgcls_jax.evaluators.classification import classification


@EVALUATORS.register()
def test_time_augmentation(parts: Parts, *, flip: bool = True, shift: int = 0, crop: int = 0,
                           mean: Literal["probabilities", "logits"] = "probabilities"):
    """Classification by the mean over several views of each image.

    (variables) -> the results of `classification`. shift: in addition to the image, copies moved by
    this many pixels along each diagonal, the border repeated. crop: instead of the image, crops of
    this size at its four corners and center; with flip, these are the ten crops of Krizhevsky et
    al. 2012. flip: each view also mirrored.
    """
    if shift < 0 or crop < 0 or (shift and crop):
        raise ConfigError(f"shift={shift}, crop={crop} are not valid",
                          where="config.evals", fix="use one of them, 1 pixel or more")

    def views(images):
        """u8[B,H,W,C] -> u8[V,B,h,w,C]."""
        height, width = images.shape[1:3]
        if crop > min(height, width):
            raise ConfigError(f"crop={crop} is larger than {height} x {width} pixels",
                              where="config.evals", fix="lower it, or evaluate larger images")
        found = [images]
        if shift:
            wide = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
            found += [wide[:, top:top + height, left:left + width]
                      for top in (0, 2 * shift) for left in (0, 2 * shift)]
        elif crop:
            bottom, right = height - crop, width - crop
            corners = [(top, left) for top in (0, bottom) for left in (0, right)]
            found = [images[:, top:top + crop, left:left + crop]
                     for top, left in (*corners, (bottom // 2, right // 2))]
        return jnp.stack([*found, *([view[:, :, ::-1] for view in found] if flip else [])])

    def predict(variables, images):
        # A loop, not a larger batch: memory stays that of one view.
        logits = jax.lax.map(lambda view: parts.predict(variables, view), views(images))
        if mean == "logits":
            return logits.mean(0)
        # The logits of the mean probabilities, without rounding to 0 and 1.
        if parts.task.kind == "multiclass":
            return (jax.nn.logsumexp(jax.nn.log_softmax(logits, -1), 0)
                    - jnp.log(len(logits)).astype(logits.dtype))
        return (jax.nn.logsumexp(jax.nn.log_sigmoid(logits), 0)
                - jax.nn.logsumexp(jax.nn.log_sigmoid(-logits), 0))

    return classification(dataclasses.replace(parts, predict=predict))
