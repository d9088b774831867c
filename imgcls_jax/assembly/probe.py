"""config.probe: where the head alone is trained, what it is given is computed once and kept."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from imgcls_jax import features, optim, tree
from imgcls_jax.assembly.network import Net, tracing
from imgcls_jax.data.features import Features, Frozen
from imgcls_jax.data.feed import Feed
from imgcls_jax.errors import ConfigError
from imgcls_jax.optimizers import OPTIMIZERS
from imgcls_jax.registry import Whole, bind
from imgcls_jax.steps import STEPS
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import TrainState, Tree

LATER = " or set config.probe.views=0, which computes the features in every step"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """config.probe: the features that a head is trained on, where all else is frozen, are kept.

    views: of each training example, as many as have features; epoch e takes the view that the
    transforms make in epoch e % views. What is frozen is in evaluation mode. 0: none are kept.
    config.probe=None is views=1 where that gives the same head as without.
    """

    views: Whole = 1


class Probe(NamedTuple):
    """A run on features. apply: (variables, features, **options) -> as module.apply. kept: (feed,
    split, transforms, size of the images, on_error, where, views) -> Features; views=None: as it is
    evaluated. row: size -> f[1,...], abstract. begin: as of types.Run."""

    apply: Callable
    kept: Callable[..., Features]
    row: Callable[[tuple[int, int]], jax.ShapeDtypeStruct]
    begin: Callable
    views: int

    def batch(self, images: Mapping, size: tuple[int, int]) -> dict:
        """The abstract batch of features in the place of one of images."""
        image, row = images["image"], self.row(size)
        return {**images, "image": jax.ShapeDtypeStruct(
            (image.shape[0], *row.shape[1:]), row.dtype, sharding=image.sharding)}


def make(c: Mapping, net: Net, mesh, normalise: Callable, folder: Path | None,
         note: Callable[[str], None]) -> Probe | None:
    """None where every step computes the whole network. folder: where features may be kept; None:
    nowhere. note: is told which it is, and why, where config.freeze leaves the head alone."""
    asked = c["probe"] is not None
    views = bind(ProbeOptions, c["probe"] or {}, "config.probe")().views
    head = f"{net.spec.head}/"
    frozen = optim.frozen(c["freeze"], net.shapes["params"]) if c["freeze"] else jax.tree.map(
        lambda leaf: False, net.shapes["params"])
    others = [path for path, hit in tree.flatten(frozen).items()
              if not hit and not path.startswith(head)]
    if not views or folder is None or (others and not asked):
        return None
    if others:
        raise ConfigError("config.probe is for a run that trains the head alone, but "
                          f"{len(others)} other parameters, such as {others[0]}, are not frozen",
                          where="config.freeze", fix=f"set config.freeze=('(?!{head}).*',),{LATER}")
    reason = _reason(c, asked)
    apply = features.apply_frozen(net.module, frozen)
    if reason is None:
        try:
            with tracing("config.model"):
                images = jax.ShapeDtypeStruct(net.sample, net.dtype)
                body, rest, same = features.divide(apply, net.spec.head, net.shapes, images)
        except features.Entangled as error:
            reason = str(error), "take another model,"
        else:
            if not same and not asked:
                reason = ("what is frozen is not the same in training and in evaluation: dropout, "
                          "drop path or an auxiliary head"), ""
    if reason is not None:
        if asked:
            raise ConfigError(f"features cannot be kept: {reason[0]}", where="config.probe",
                              fix=reason[1] + LATER)
        note(f"the head alone is trained, but on features that every step computes: {reason[0]}")
        return None
    seen = f", {views} views of each training image" if views > 1 else ""
    note(f"the head alone is trained, on features that are computed once and kept in {folder}{seen}"
         + ("" if same else "; the dropout and drop path of what is frozen are off"))

    def compute(variables: Tree, pixels):
        return body(variables, normalise(pixels))

    known = Frozen(compute, mesh, folder)
    made: dict[tuple, Features] = {}

    def kept(feed: Feed, split: str, transforms: tuple, size: tuple[int, int], on_error: str,
             where: str, views: int | None = None) -> Features:
        key = id(feed), split, transforms, on_error, views
        if key not in made:
            made[key] = Features(feed, split, transforms, known, (*size, net.sample[-1]),
                                 views=views, on_error=on_error, where=where)
        return made[key]

    def row(size: tuple[int, int]):
        return jax.eval_shape(compute, net.shapes, jax.ShapeDtypeStruct(
            (1, *size, net.sample[-1]), "uint8"))

    def begin(state: TrainState, say: Callable[[str], None]):
        # Without the weights of the head, which are others in every session.
        known.begin(tree.map_with_path(
            lambda path, leaf: jnp.zeros_like(leaf, device=leaf.sharding)
            if path.startswith(f"params/{head}") else leaf, state.variables()), say)

    return Probe(rest, kept, functools.cache(row), begin, views)


def _reason(c: Mapping, asked: bool) -> tuple[str, str] | None:
    """(why the features cannot be kept, how to change that), from the config alone."""
    if c["device_transforms"]:
        return ("config.device_transforms changes images in every step",
                "set config.device_transforms=(),")
    if not STEPS.facts(c["step"]["name"]).get("features"):
        return (f"the step {c['step']['name']} needs images or the whole network",
                "set config.step.name=supervised,")
    if c["ema"] is not None or OPTIMIZERS.facts(c["optimizer"]["name"]).get("evaluated"):
        return ("an average of the weights, which is evaluated, is kept of the whole network",
                "set config.ema=None and an optimizer that keeps no average,")
    if c["data"].get("on_device"):
        return "config.data.on_device keeps the images", "set config.data.on_device=False,"
    if jax.process_count() > 1:
        return "there are several processes", "train in one process,"
    drawn = [i for i, one in enumerate(c["transforms"])
             if TRANSFORMS.facts(one["name"]).get("random", True)]
    if drawn and not asked:
        return (f"config.transforms[{drawn[0]}], {c['transforms'][drawn[0]]['name']}, may change "
                "an image in another way in every epoch; config.probe.views=8 keeps eight of each",
                "")
    return None
