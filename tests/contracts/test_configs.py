"""What holds for every shipped config and every variant it claims; no data is touched."""

import functools
import importlib.util
import inspect
import json
from pathlib import Path

import jax
import pytest

from imgcls_jax import assembly, config, tree
from imgcls_jax.data.feed import DataOptions
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import ConfigError
from tests import absent

RESOLVED = json.loads(Path(__file__).with_name("configs.json").read_text())
# A config without claims is loaded as its docstring shows it.
FREE = {"finetune": ("model=resnet50,data=./photos,size=224", "model=vit_mini",
                     "model=vit_s16,data=./photos", "weights=runs/w",
                     "data=./photos,probe=true,views=4"),
        "shapes": ("finetune,weights=runs/w", "probe,weights=runs/w,per_class=20",
                   "all,imbalance=100")}


def claims(name):
    spec = importlib.util.spec_from_file_location("shipped", config.folder() / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, "CLAIMS", {})


def specs():
    """Every config with every variant; beyond its plain name they are nightly."""
    variants = [f"{name}:{variant}" for name in config.shipped()
                for variant in [*list(claims(name))[1:], *FREE.get(name, ())]]
    return [*config.shipped(), *(pytest.param(spec, marks=pytest.mark.nightly)
                                 for spec in variants)]


@functools.cache
def built(spec):
    """(what config.load gives, Run)"""
    loaded = config.load(spec)
    return loaded, assembly.build(loaded.config, claim=loaded.claim)


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    absent.pretend(monkeypatch)


@pytest.mark.parametrize("spec", specs())
def test_a_config_builds_and_has_the_claimed_parameters(spec):
    loaded, run = built(spec)
    assert set(loaded.config) == set(config.KEYS)
    assert config.from_json(config.to_json(loaded.config)) == loaded.config
    claim = loaded.claim or {}
    if "params" in claim:
        assert tree.count(run.abstract_state.params) == claim["params"]
    if "image_size" in claim:
        assert run.preprocessing["image_size"] == (claim["image_size"],) * 2


def test_a_resolved_config_is_what_it_was():
    """A recipe stands for a result: it changes by intent alone, and then configs.json does too."""
    assert {spec: config.digest(config.load(spec).config) for spec in RESOLVED} == RESOLVED


def test_what_a_config_leaves_out_has_its_default():
    whole = config.load("digits").config
    assert config.complete({k: v for k, v in whole.items() if k not in config.DEFAULTS}
                           | {"log": whole["log"]}) == whole


@pytest.mark.parametrize("name", [pytest.param(name, marks=(
    pytest.mark.nightly if "/" in name else ())) for name in config.shipped()])
def test_the_step_of_a_config_gives_back_a_state_of_the_same_shapes(name):
    _, run = built(name)
    state, _ = jax.eval_shape(run.step, run.abstract_state, run.abstract_batch)
    assert not tree.diff(run.abstract_state, state)


@pytest.mark.parametrize("name", config.shipped())
def test_the_first_claim_is_that_of_the_plain_name(name):
    variants = list(claims(name))
    if variants:
        assert config.load(name).config == config.load(f"{name}:{variants[0]}").config
        assert config.load(name).claim == claims(name)[variants[0]]


@pytest.mark.parametrize("name", config.shipped())
def test_a_docstring_opens_with_the_claim_and_shows_the_command(name):
    doc = config.load(name).doc
    assert f"imgcls train --config={name}" in doc and len(doc.splitlines()[0]) > 20
    for claim in claims(name).values():
        assert {"top1", "source"} <= set(claim)


def test_a_dtype_of_the_models_own_is_refused():
    chosen = config.load("digits", [("model.dtype", "bfloat16")]).config
    with pytest.raises(ConfigError, match=r"config\.precision"):
        assembly.build(chosen)


@pytest.mark.parametrize("name", DATASETS.names())
def test_no_argument_of_a_dataset_is_one_that_all_share(name):
    """config.data holds both, and what all share would never reach the dataset."""
    assert not set(inspect.signature(DATASETS.get(name)).parameters) & set(
        inspect.signature(DataOptions).parameters)
