"""Weights of a workdir or published file -> the variables of a model, or why they do not fit."""

import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from imgcls_jax import tree
from imgcls_jax.checkpoint import reading
from imgcls_jax.errors import CheckpointError, ConfigError
from imgcls_jax.pretrained import adapt, catalogue, fetch, files, keras_h5, names
from imgcls_jax.types import Layout, ModelSpec, Weights

GOOGLE = ("npz", "efficientnet_pytorch")  # layouts of weights that Google trained and measured


@dataclasses.dataclass(frozen=True)
class Found:
    """Leaves by our paths; what the source lacks for the model, and what else it holds.

    arguments: those of the model that follow from the source. grid: rows and columns of the patches
    that its table of positions is for; None: a square, as far as is known.
    """

    leaves: Mapping[str, np.ndarray]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    source: str
    arguments: Mapping[str, object] = dataclasses.field(default_factory=dict)
    grid: adapt.Grid | None = None


def locate(weights: str | Path, model: str) -> tuple[Path, Weights | None]:
    """(workdir or file, what is published about it) that `weights` means for a model.

    weights: a workdir, a file, or the name of published weights, such as "resnet50/imagenet1k_v2"
    or "imagenet1k_v2". A published file is recognised by its name, and must have the published
    hash. Raises CheckpointError if it has another, does not exist or has not been downloaded or
    installed; ConfigError for an unknown name.
    """
    place, known = Path(weights), catalogue.weights(model)
    if place.is_file():
        named = next((w for w in known.values() if fetch.place(w).name == place.name), None)
        if named:
            fetch.check(place, named)
        return place, named
    if (place / "checkpoints").is_dir():
        return place, None
    name = str(weights)
    if "/" in name and name.partition("/")[0] not in catalogue.models():
        raise CheckpointError(f"{name!r} is neither a workdir nor a file of weights",
                              where="weights", fix=f"give a workdir, a file ({files.FORMATS}) or a "
                                                   "name of `imgcls weights list`")
    _, tag, found = catalogue.find(name if "/" in name else f"{model}/{name}", "weights")
    place = fetch.place(found)
    if not place.is_file():
        if fetch.package(found):
            raise CheckpointError(f"the weights {model}/{tag} are not installed", where="weights",
                                  fix=fetch.how(found))
        raise CheckpointError(f"the weights {model}/{tag} are not downloaded", where=str(place),
                              fix=f"imgcls weights get {model}/{tag}, or put {found.file} there")
    fetch.check(place, found)
    return place, found


def told(weights: str | Path, spec: ModelSpec) -> dict[str, dict]:
    """{"model": arguments, "data": arguments} that follow from the tensors in a file.

    What is published about it is not used here. Raises as `locate` and `files.read`.
    """
    place, _ = locate(weights, spec.name)
    tells = any(layout.tells for layout in spec.layouts.values())
    return _told(files.read(place) if tells and place.is_file() else {}, spec)


def _told(tensors: Mapping, spec: ModelSpec) -> dict[str, dict]:
    found = {"model": {}, "data": {}}
    for layout in spec.layouts.values():
        for i, (pattern, part, arguments) in enumerate(layout.tells):
            if any(re.fullmatch(pattern, name) for name in tensors):
                found[part] |= arguments
            elif not i:
                break
    return found


def normalisation(weights: str | Path, spec: ModelSpec) -> tuple[tuple, tuple] | None:
    """(mean, std) that the weights were trained with, if known: published, saved in the workdir or
    held by the file; for another Keras file, those of Keras' own weights of the model."""
    place, published = locate(weights, spec.name)
    if published:
        return published.mean, published.std
    if place.is_file():
        if keras_h5.is_hdf5(place):
            kin = (w for w in catalogue.weights(spec.name).values() if w.layout == "keras")
            return (keras_h5.normalisation(files.read(place))
                    or next(((w.mean, w.std) for w in kin), None))
        data = told(place, spec)["data"]
        return (data["mean"], data["std"]) if data else None
    saved = reading.read_config(place / "checkpoints")[0]["preprocessing"]
    return tuple(saved["mean"]), tuple(saved["std"])


def transforms(weights: Weights) -> tuple[dict, ...]:
    """The eval transforms that the published accuracy was measured with, as in a config."""
    how, first = {"interpolation": weights.interpolation, "library": "pillow"}, ()
    if weights.layout in GOOGLE:  # decoded and resized by TensorFlow with its defaults
        how |= {"library": "tensorflow", "antialias": False}
        first = ({"name": "decode", "dct": "fast"},)
    squash = weights.crop_mode == "squash"
    resize = {"name": "resize" if squash else "resize_small", "size": weights.resize, **how}
    if squash and weights.resize == weights.image_size:
        return (*first, resize)
    return (*first, resize, {"name": "center_crop", "size": weights.image_size})


def model_of(weights: str | Path, model: str | None = None) -> str:
    """The model that weights are for: `model`, or that of a published name or file.

    Raises ConfigError where neither says it, CheckpointError for a file that does not exist.
    """
    place = Path(weights)
    if model:
        return model
    if not place.exists():
        if place.suffix:  # names of published weights have no dot
            raise CheckpointError("there is no such file of weights", where=str(weights),
                                  fix=f"give a file: {files.FORMATS}")
        return catalogue.find(str(weights), "weights")[0]
    for known in catalogue.models():
        if any(fetch.place(one).name == place.name for one in catalogue.weights(known).values()):
            return known
    raise ConfigError(f"the model of the weights {str(weights)!r} is not known", where="weights",
                      fix="name it, with --model or model= (imgcls list models), or give a name "
                          "of `imgcls weights list`")


def settings(weights: str | Path, spec: ModelSpec, *, size: int | None = None,
             resize: int | None = None, interpolation: str | None = None) -> dict:
    """What weights were measured with, as parts of a config: arguments of `model`, the
    `eval_transforms`, and mean and std, where they are known, in `data`.

    size, resize: pixels of the crop, and of the short side before it; they and interpolation
    replace the published ones. Where nothing is published: the model's size, 8/7 of it, bilinear.
    Raises as `locate` and `files.read`.
    """
    _, published = locate(weights, spec.name)
    if published and not (size or resize or interpolation):
        steps = transforms(published)
    else:
        pixels = size or (published.image_size if published else spec.image_size)
        steps = ({"name": "resize_small", "size": resize or pixels * 8 // 7,
                  "interpolation": interpolation or "bilinear", "library": "pillow"},
                 {"name": "center_crop", "size": pixels})
    given = normalisation(weights, spec)
    return {"model": told(weights, spec)["model"], "eval_transforms": steps,
            "data": {"mean": given[0], "std": given[1]} if given else {}}


def read(weights: str | Path, spec: ModelSpec, wanted: Mapping) -> Found:
    """The leaves of a model that a workdir or a file (see `locate`) holds.

    wanted: its leaves, or their shapes, by path. Raises as `locate`, and CheckpointError for a
    file that is damaged or from another model.
    """
    place, _ = locate(weights, spec.name)
    if place.is_file():
        return _of_file(place, spec, wanted)
    saved, _, _ = reading.restore_weights(place / "checkpoints")
    saved = saved.get("ema") or saved
    leaves = tree.flatten({"params": saved["params"], **saved["model_state"]})
    return Found(leaves, tuple(p for p in wanted if p not in leaves),
                 tuple(p for p in leaves if p not in wanted), str(weights))


def _of_file(path: Path, spec: ModelSpec, wanted: Mapping) -> Found:
    tensors = files.read(path)
    publisher, layout = recognise(tensors, wanted, spec, path)
    leaves, difference = names.to_variables(tensors, wanted, layout)
    return Found(leaves, difference.only_wanted, difference.only_found,
                 f"{path} ({publisher} layout)", _told(tensors, spec)["model"])


def into(fresh: Mapping, found: Found, spec: ModelSpec, *, reset: Sequence[str] = (),
         grid: adapt.Grid | None = None) -> dict:
    """The variables `fresh`, replaced by what was found.

    Leaves whose path begins with one of `reset` keep their values. A table of positions and a stem
    are adapted to another size, with a warning. grid: rows and columns of the model's patches, if
    it has positions. Raises CheckpointError that lists all that is missing, not wanted, or of
    another shape.
    """
    wanted = tree.flatten(fresh)
    kept = {p for p in wanted if reset and p.split("/", 1)[1].startswith(tuple(reset))}
    values, differ = {}, []
    for path, leaf in wanted.items():
        if path in kept:
            values[path] = leaf
        elif path in found.leaves:
            value = found.leaves[path]
            fitted = adapt.fit(path, value, leaf.shape, grid, found.grid)
            if fitted is None:
                differ.append(f"{path}: the model has {list(leaf.shape)}, the weights "
                              f"{list(value.shape)}")
                continue
            if fitted is not value:
                warnings.warn(f"{path}: {list(value.shape)} adapted to {list(leaf.shape)}",
                              stacklevel=2)
            values[path] = np.asarray(fitted).astype(leaf.dtype)
    missing = [line for line in found.missing if line.split(" (")[0] not in kept]
    extra = [line for line in found.extra if line not in kept]
    difference = tree.Difference(tuple(missing), tuple(extra), tuple(differ))
    if difference:
        head = all(f"/{spec.head}/" in line for line in (*missing, *differ)) and not extra
        told = ", ".join(f"config.model.{k}={v}" for k, v in found.arguments.items())
        raise CheckpointError(
            f"the weights do not fit {spec.name}:\n{difference}", where=found.source,
            fix=f"start with a new head: reset=({spec.head!r},)" if head else
            "use weights of this model, or list in reset what to initialise again"
            + (f"; this file needs {told}" if told else ""))
    return tree.unflatten(values, fresh)


def recognise(tensors: Mapping[str, np.ndarray], wanted: Mapping, spec: ModelSpec,
              path: Path) -> tuple[str, Layout]:
    """(publisher, layout) of the model with the most names that are in the file."""
    def hits(layout):
        there = names.here(tensors, layout)
        return sum(names.whole(name)[0] in there for p in wanted
                   for name in names.theirs(p, layout))

    scored = {publisher: hits(layout) for publisher, layout in spec.layouts.items()}
    best = max(scored, key=scored.get, default=None)
    if not best or not scored[best]:
        some = ", ".join(sorted(tensors)[:3])
        raise CheckpointError(f"none of the {len(tensors)} tensors belongs to {spec.name}: {some}",
                              where=str(path),
                              fix="use a file of this model; its layouts are "
                                  f"{', '.join(spec.layouts) or 'none'}")
    return best, spec.layouts[best]
