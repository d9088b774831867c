"""A recorded case of a reference -> the error of ours, in evaluation and in one training step."""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from experiments.parity import rule
from imgcls_jax import tasks, tree
from imgcls_jax.losses.softmax import softmax
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import adapt, names
from imgcls_jax.pretrained import load as pretrained
from imgcls_jax.steps import Parts
from imgcls_jax.steps.supervised import supervised
from imgcls_jax.types import Layout, ModelSpec, TrainState

TESTS = Path(__file__).parents[2] / "tests" / "pretrained"
CASES = TESTS / "cases"  # of record.py
TRAINING = TESTS / "gradients"  # of gradients.py
PUBLISHER = {"tv": "torchvision", "timm": "timm", "hf": "transformers", "npz": "npz",
             "keras": "keras", "bv": "big_vision"}
EVERY = 16  # as recorded
SMALL = 20_000_000  # parameters: larger ones are nightly


class Facts(NamedTuple):
    """What is known of a case without reading its tensors."""
    params: int
    model: str  # ours
    arguments: dict  # of our model
    sizes: list[int]
    resized: bool  # recorded with a table of positions for another size than the published one


@functools.cache
def cases() -> dict[str, Facts]:
    """Every recorded case, the least first."""
    found = {}
    for path in sorted(CASES.glob("*.npz")):
        with np.load(path) as case:
            sizes = [int(key.split(":")[1]) for key in case.files if key.startswith("logits:")]
            resized = "img_size" in str(case.get("options", ""))
            found[path.stem] = Facts(int(case["params"]), *json.loads(str(case["ours"])), sizes,
                                     resized)
    return dict(sorted(found.items(), key=lambda item: item[1].params))


def least() -> set[str]:
    """The least case of each file of models, and of each publisher."""
    found, seen = set(), set()
    for case, facts in cases().items():
        kinds = {MODELS.get(facts.model).__module__, case.partition("_")[0]}
        if not kinds <= seen:
            found.add(case)
            seen |= kinds
    return found


@functools.cache
def load(case: str):
    with np.load(CASES / f"{case}.npz") as file:
        return dict(file)


def ours(case: str) -> tuple[str, dict]:
    """(name, arguments) of our model."""
    return cases()[case].model, cases()[case].arguments


def spec(case: str) -> ModelSpec:
    name, _ = ours(case)
    return ModelSpec(name=name, **MODELS.facts(name))


def layout(case: str) -> Layout:
    """That of the publisher; DINOv2's own has timm's names too."""
    known = spec(case).layouts
    return known.get(PUBLISHER[case.partition("_")[0]]) or known["facebook"]


def model(case: str, size: int, dtype: str):
    """(module, variables of the case by the layout of its publisher), nothing missing or extra."""
    name, arguments = ours(case)
    arguments = dict(arguments)
    module = MODELS.get(name)(arguments.pop("num_classes", 1000), dtype=dtype, **arguments)
    wide = np.float64 if dtype == "float64" else np.float32
    images = jax.ShapeDtypeStruct((2, size, size, 3), wide)
    wanted = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), images)
    wanted = {kind: values for kind, values in wanted.items() if kind in ("params", "batch_stats")}
    flat = tree.flatten(wanted)
    tensors = rule.state_dict(load(case))
    publisher, theirs = pretrained.recognise(tensors, flat, spec(case), CASES)
    expected = PUBLISHER[case.partition("_")[0]]
    assert theirs is layout(case) or publisher == f"{expected}_class", publisher
    found, difference = names.to_variables(tensors, flat, theirs)
    assert not difference.only_wanted and not difference.only_found, str(difference)
    del tensors  # a thousand million parameters are 8 GB: each leaf goes as its successor comes
    leaves = {path: adapt.fit(path, found.pop(path), leaf.shape).astype(wide, copy=False)
              for path, leaf in flat.items()}
    return module, tree.unflatten(leaves, wanted)


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


def _no_dropout(call, arguments, keywords, context):
    if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
        return arguments[0]
    return call(*arguments, **keywords)


def _training_step(case: str, size: int, batch: int):
    """(loss, gradients and new statistics by path) of ours."""
    module, variables = model(case, size, "float64")
    state = {kind: values for kind, values in variables.items() if kind != "params"}
    task = tasks.make("multiclass", tuple(map(str, range(1000))), softmax, {})
    optimizer = optax.sgd(1.0)
    parts = Parts(apply=module.apply, task=task, optimizer=optimizer, ema=None, seed=0,
                  prepare=lambda key, images, targets: (images, targets))
    before = TrainState(np.int32(0), variables["params"], state,
                        optimizer.init(variables["params"]), None)
    images = {"image": rule.images(size, batch=batch).astype(np.float64),
              "label": rule.labels(batch).astype(np.int32)}
    with nn.intercept_methods(_no_dropout):
        after, sums = jax.jit(supervised(parts))(before, images)
    gradients = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), before.params,
                             after.params)
    return float(sums["loss"]) / batch, tree.flatten({"params": gradients, **after.model_state})


def compare_training(case: str) -> dict[str, float]:
    """Difference from the reference by "loss", "gradient:<tensor>" and "statistic:<tensor>"."""
    with np.load(TRAINING / f"{case}.npz") as file:
        recorded = dict(file)
    with jax.enable_x64(True):
        loss, leaves = _training_step(case, int(recorded["size"]), int(recorded["batch"]))
    theirs = layout(case)
    shapes = dict(zip(load(case)["names"].tolist(), load(case)["shapes"].tolist(), strict=True))
    # The gradient of a bias before BatchNorm is 0, and what is left of it rounding: beside nothing.
    whole = np.sqrt(sum(v[0] ** 2 for k, v in recorded.items() if k.startswith("gradient:")))
    found = {"loss": abs(loss / float(recorded["loss"]) - 1)}
    for tensor, value in names.to_tensors(leaves, theirs).items():
        leaf = tensor.rpartition(".")[2]
        if leaf in (names.COUNTER, *rule.CONSTANTS):
            continue
        assert ",".join(map(str, value.shape)) == shapes[tensor], tensor
        key = f"{'statistic' if leaf.startswith('running_') else 'gradient'}:{tensor}"
        found[key] = rule.difference(rule.summary(tensor, value), recorded[key],
                                     floor=1e-9 * whole)
    assert len(found) == len(recorded) - 2, sorted(set(recorded) - set(found))
    return found
