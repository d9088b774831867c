"""Every layout of every model: each of our leaves has names of its own there, and comes back."""

import re

import numpy as np
import pytest

from experiments.parity import compare
from imgcls_jax import tree
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import names
from tests import abstract


def cases():
    """Every (model, publisher); beyond the least model of a file they are nightly."""
    seen = set()
    for model in sorted(MODELS.names(), key=lambda name: MODELS.facts(name)["params"]):
        for publisher in MODELS.facts(model).get("layouts", ()):
            kind = MODELS.get(model).__module__, publisher
            nightly = pytest.mark.nightly(rotating=True) if kind in seen else ()
            yield pytest.param(model, publisher, marks=nightly)
            seen.add(kind)


def shapes(model: str, **arguments) -> dict[str, tuple[int, ...]]:
    _, wanted = abstract.init(model, **arguments)
    return {path: leaf.shape for path, leaf in tree.flatten(wanted).items()}


@pytest.mark.daily(1)
@pytest.mark.parametrize("case", ["tv_swin_t", "tv_swin_v2_t", "timm_swinv2_tiny_window8_256",
                                  "tv_maxvit_t"])
def test_an_export_has_every_tensor_of_the_publishers_files(case):
    """Also those that no training changes, without which torch refuses a file."""
    recorded = compare.load(case)
    layout = compare.layout(case)
    leaves = {path: np.zeros(shape, np.float32)
              for path, shape in shapes(compare.ours(case)[0]).items()}
    found = {name: ",".join(map(str, value.shape))
             for name, value in names.to_tensors(leaves, layout).items()}
    assert found == dict(zip(recorded["names"].tolist(), recorded["shapes"].tolist(), strict=True))


def small(path: str, shape: tuple[int, ...], layout) -> tuple[int, ...]:
    """The shape with few channels, of other numbers in and out, but for what a layout states."""
    theirs = names.theirs(path, layout)
    stated = any(re.fullmatch(pattern, theirs[0]) for pattern, _ in layout.shapes)
    # In npz heads have an axis of their own, and some tables of positions lack the first one.
    if stated and (layout.format == "npz" or path.endswith("/positions")):
        return shape
    kernels = (layout.patches, layout.flattened[0] if layout.flattened else "")
    stated |= any(re.fullmatch(kernel, path.partition("/")[2]) for kernel in kernels if kernel)
    inner = shape[:-1] if stated else [n if n < 12 else 5 for n in shape[:-1]]
    return (*inner, 6 * len(theirs))


@pytest.mark.daily(12)
@pytest.mark.parametrize("model, publisher", list(cases()))
def test_every_leaf_has_its_names_and_comes_back_bit_for_bit(model, publisher):
    layout = MODELS.facts(model)["layouts"][publisher]
    told = {key: value for _, part, values in layout.tells if part == "model"
            for key, value in values.items()}
    found = shapes(model, **told)
    every = [name for path in found for name in names.theirs(path, layout) if name]
    assert len(set(every)) == len(every) >= len(found)
    rng = np.random.default_rng(0)
    leaves = {path: rng.normal(size=small(path, shape, layout)).astype(np.float32)
              for path, shape in found.items()}
    for path, value in leaves.items():
        theirs = names.theirs(path, layout)
        for name, part in zip(theirs, np.split(value, len(theirs), -1), strict=True):
            part *= bool(name)  # parts without a name are zero
    back, difference = names.to_variables(names.to_tensors(leaves, layout), leaves, layout)
    assert not difference
    for path, value in leaves.items():
        np.testing.assert_array_equal(back[path], value, strict=True)
