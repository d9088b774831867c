"""A recorded case of a reference model -> its error against ours; see experiments/parity."""

import functools
import json
from pathlib import Path

import jax
import numpy as np

from experiments.parity import rule
from imgcls_jax import tree
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import adapt, names
from imgcls_jax.types import ModelSpec

CASES = Path(__file__).parent / "cases"
PUBLISHER = {"tv": "torchvision", "timm": "timm", "keras": "keras"}
EVERY = 16  # as recorded
SMALL = 12_000_000  # parameters: larger ones are nightly
# Of a net that timm's cases test, by a layout that the case of B0 tests: nightly too.
AGAIN = ("keras_efficientnetb1", "keras_efficientnetb2")


def cases() -> dict[str, int]:
    """Recorded cases -> parameters."""
    found = {}
    for path in sorted(CASES.glob("*.npz")):
        with np.load(path) as case:
            found[path.stem] = int(case["params"])
    return found


@functools.cache
def load(case: str):
    with np.load(CASES / f"{case}.npz") as file:
        return dict(file)


def ours(case: str) -> tuple[str, dict]:
    """(name, arguments) of our model."""
    name, arguments = json.loads(str(load(case)["ours"]))
    return name, arguments


def sizes(case: str) -> list[int]:
    return [int(key.split(":")[1]) for key in load(case) if key.startswith("logits:")]


def model(case: str, size: int, dtype: str):
    """(module, variables of the case by the layout of its publisher), nothing missing or extra."""
    name, arguments = ours(case)
    module = MODELS.get(name)(1000, dtype=dtype, **arguments)
    spec = ModelSpec(name=name, **MODELS.facts(name))
    wide = np.float64 if dtype == "float64" else np.float32
    images = jax.ShapeDtypeStruct((2, size, size, 3), wide)
    wanted = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), images)
    wanted = {kind: values for kind, values in wanted.items() if kind in ("params", "batch_stats")}
    flat = tree.flatten(wanted)
    layout = spec.layouts[PUBLISHER[case.partition("_")[0]]]
    found, difference = names.to_variables(rule.state_dict(load(case)), flat, layout)
    assert not difference.only_wanted and not difference.only_found, str(difference)
    found = {path: adapt.fit(path, value, flat[path].shape) for path, value in found.items()}
    return module, tree.unflatten({p: v.astype(wide) for p, v in found.items()}, wanted)


def compare(case: str, size: int, dtype: str = "float32") -> dict[str, float]:
    """error: of our logits against the reference's in f64; allowed: what it may be in f32."""
    recorded = load(case)
    with jax.enable_x64(dtype == "float64"):
        module, variables = model(case, size, dtype)
        images = rule.images(size).astype(dtype)
        logits = jax.jit(functools.partial(module.apply, train=False))(variables, images)
        logits = np.asarray(logits, np.float64)[:, ::EVERY]
    expected = recorded[f"logits:{size}"]
    return {"error": float(np.abs(logits - expected).max()),
            "relative": float(np.linalg.norm(logits - expected) / np.linalg.norm(expected)),
            "across": float(recorded[f"across:{size}"]),
            "reference_error": float(recorded[f"error:{size}"]),
            "allowed": max(1e-3 * float(recorded[f"across:{size}"]),
                           10 * float(recorded[f"error:{size}"]))}
