"""Tensors of a published layout <-> the leaves of our variables.

A layout, written next to the model, says how the publisher's files name our modules; which leaf of
a module a tensor is, and the order of its axes, is the same for all models of a format (torch, npz,
keras).
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from imgcls_jax import tree
from imgcls_jax.pretrained import keras_h5
from imgcls_jax.types import Layout

LEAVES = {
    "torch": {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
              "var": "running_var"},
    "npz": {"kernel": "kernel", "scale": "scale", "bias": "bias", "mean": "mean", "var": "var"},
    "keras": {"kernel": "kernel", "scale": "gamma", "bias": "bias", "mean": "moving_mean",
              "var": "moving_variance"},
}
SEPARATOR = {"torch": ".", "npz": "/", "keras": "/"}
COUNTER = "num_batches_tracked"  # torch's count of batches in each BatchNorm; nothing reads it
FILLERS = {"torch": (rf".*\.{COUNTER}|{COUNTER}",), "npz": (), "keras": ()}


def theirs(path: str, layout: Layout) -> tuple[str, ...]:
    """The names of the tensors that make up our leaf at "params/block0/attention/qkv/kernel".

    A rename whose pattern is the whole path (without the collection) gives whole names; one whose
    pattern is the path of the module gives modules, to which the leaf's name is added. The first
    that matches counts. Several names are parts of our last axis, in order; "" is one of zeros that
    the files leave out. "kv[1/2]" is the second half of the first axis of "kv". Without a name: ().
    """
    module, _, leaf = path.partition("/")[2].rpartition("/")
    whole = f"{module}/{leaf}" if module else leaf
    name = LEAVES[layout.format].get(leaf, leaf)
    if layout.format == "keras" and leaf == "bias" and "norm" in module.rpartition("/")[2]:
        name = "beta"
    suffix = SEPARATOR[layout.format] + name
    for pattern, replacement in layout.renames:
        for text, end in ((whole, ""), (module, suffix)):
            match = re.fullmatch(pattern, text) if text else None
            if match:
                parts = replacement(match) if callable(replacement) else replacement
                parts = (parts,) if isinstance(parts, str) else parts
                return tuple(part and (part if callable(replacement) else match.expand(part)) + end
                             for part in parts)
    return ()


def whole(name: str) -> tuple[str, int, int]:
    """"kv[1/2].weight" -> ("kv.weight", 1, 2): the tensor, and which of how many parts of it."""
    part = re.search(r"\[(\d)/(\d)\]", name)
    return (name.replace(part[0], ""), int(part[1]), int(part[2])) if part else (name, 0, 1)


def _part(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    tensor, number, count = whole(name)
    value = np.asarray(tensors[tensor])
    return value if count == 1 else np.split(value, count)[number]


def to_variables(tensors: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray],
                 layout: Layout) -> tuple[dict[str, np.ndarray], tree.Difference]:
    """(leaves by path, what does not fit) from a file's tensors, for the paths of `wanted`.

    wanted: our leaves or their shapes by path, as from tree.flatten({"params": ..., ...}). Leaves
    of another shape are also returned, in the file's size: adapt.py may resize them.
    """
    tensors = here(tensors, layout)
    found, missing, used = {}, [], set()
    for path, leaf in wanted.items():
        names = theirs(path, layout)
        if not names or not all(whole(name)[0] in tensors for name in names if name):
            missing.append(f"{path} ({' + '.join(names) or 'no name in this layout'})")
            continue
        used.update((whole(name)[0] for name in names), _constants(path, layout))
        parts = [_ours(_part(tensors, name), path, tuple(leaf.shape), len(names), layout)
                 if name else np.zeros((*leaf.shape[:-1], leaf.shape[-1] // len(names)), np.float32)
                 for name in names]
        found[path] = parts[0] if len(parts) == 1 else np.concatenate(parts, -1)
    ignored = "|".join((*FILLERS[layout.format], *layout.unused))
    extra = [name for name in tensors if name not in used
             and not (ignored and re.fullmatch(ignored, name))]
    differ = [f"{path} ({' + '.join(theirs(path, layout))}): the model has "
              f"{list(wanted[path].shape)}, the file {list(value.shape)}"
              for path, value in found.items() if value.shape != tuple(wanted[path].shape)]
    return found, tree.Difference(tuple(missing), tuple(extra), tuple(differ))


def to_tensors(leaves: Mapping[str, np.ndarray], layout: Layout, *, channels: int = 3
               ) -> dict[str, np.ndarray]:
    """The inverse of `to_variables`: our leaves by path -> a file's tensors by name.

    Raises KeyError for a leaf that the layout has no name for. torch's batch counters, which we do
    not keep, are written as 0.
    """
    tensors: dict[str, np.ndarray] = {}
    halves: dict[str, dict[int, np.ndarray]] = {}
    for path, value in leaves.items():
        names = theirs(path, layout)
        if not names:
            raise KeyError(path)
        for name, part in zip(names, np.split(np.asarray(value), len(names), -1), strict=True):
            if not name and part.any():
                raise KeyError(f"{path}, which is not zero")
            if name:
                tensor, number, count = whole(name)
                made = _theirs(part, path, tensor, layout, channels)
                if count > 1:
                    halves.setdefault(tensor, {})[number] = made
                    made = np.concatenate([halves[tensor][i] for i in sorted(halves[tensor])])
                tensors[tensor] = made
        if layout.format == "torch" and path.endswith("/mean"):
            counter = names[0].rpartition(".")[0] + f".{COUNTER}"
            tensors[counter] = np.zeros((), np.int64)
        tensors |= {name: value() for name, value in _constants(path, layout).items()}
    return tensors


def _constants(path: str, layout: Layout) -> dict[str, Callable[[], np.ndarray]]:
    """What their files hold next to our leaf, by name."""
    found = {}
    for pattern, name, value in layout.constants:
        if match := re.fullmatch(pattern, path.partition("/")[2]):
            found[name(match) if callable(name) else match.expand(name)] = value
    return found


def here(tensors: Mapping[str, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """The tensors of another, such as older, file of the publisher, by the layout's names."""
    def name(there):
        for pattern, replacement in layout.older:
            if match := re.fullmatch(pattern, there):
                return match.expand(replacement)
        return there

    found = {}
    for there, value in tensors.items():
        called = name(there)
        if "{}" in called:
            found |= {called.format(i): part for i, part in enumerate(value)}
        else:
            found[called] = value
    tensors = found
    return keras_h5.in_order(tensors, layout.order) if layout.order else tensors


def _is(pattern: str, path: str) -> bool:
    """Whether a pattern of the layout ("" for none) matches our leaf."""
    return bool(pattern) and re.fullmatch(pattern, path.partition("/")[2]) is not None


def _ours(value: np.ndarray, path: str, shape: tuple[int, ...], parts: int, layout: Layout):
    """Converts the publisher's axes to ours; reshapes if only the grouping of axes differs."""
    if _is(layout.bgr, path):
        value = value[:, :, ::-1]
    if layout.flattened and _is(layout.flattened[0], path):
        cells = layout.flattened[1] ** 2
        if len(value) % cells == 0:  # else it is for images of another size
            value = value.reshape(cells, -1, value.shape[-1]).swapaxes(0, 1).reshape(value.shape)
    if layout.format == "torch" and path.endswith("/kernel"):
        if value.ndim == 4 and len(shape) == 2 and not _is(layout.patches, path):
            value = value.reshape(len(value), -1)  # a dense layer written as a convolution
        value = value.transpose((2, 3, 1, 0) if value.ndim == 4 else range(value.ndim)[::-1])
    if _is(layout.patches, path):
        return value.reshape(-1, value.shape[-1])
    part = (*shape[:-1], shape[-1] // parts) if shape else shape
    # Axes of size 1, and in npz files separate axes for heads; never a transpose.
    grouping = value.size == np.prod(part) if layout.format == "npz" else (
        [n for n in value.shape if n > 1] == [n for n in part if n > 1])
    return value.reshape(part) if grouping else value


def _theirs(value: np.ndarray, path: str, name: str, layout: Layout, channels: int):
    if _is(layout.patches, path):  # [p*p*C, D] -> [p, p, C, D]
        side = round((value.shape[0] / channels) ** 0.5)
        value = value.reshape(side, side, channels, -1)
    if layout.format == "torch" and path.endswith("/kernel"):
        value = value.transpose((3, 2, 0, 1) if value.ndim == 4 else range(value.ndim)[::-1])
    if _is(layout.bgr, path):
        value = value[:, :, ::-1]
    if layout.flattened and _is(layout.flattened[0], path):
        cells = layout.flattened[1] ** 2
        value = value.reshape(-1, cells, value.shape[-1]).swapaxes(0, 1).reshape(value.shape)
    shape = next((shape for pattern, shape in layout.shapes if re.fullmatch(pattern, name)),
                 value.shape)
    return np.ascontiguousarray(value).reshape(shape)
