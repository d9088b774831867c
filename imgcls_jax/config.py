"""From a name and overrides to one checked config: plain dicts, tuples and scalars, JSON-able.

A choice is dict(name=..., **arguments); a duration dict(epochs=90), dict(steps=1000) or
dict(examples=...). Overrides are merged here rather than by ml_collections, because a locked
ConfigDict refuses what a signature allows: an argument that the file does not write, a new
`.name`, another unit of a duration.
"""

import ast
import contextlib
import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from imgcls_jax import durations, untrusted
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import near

KEYS: dict[str, tuple[type, ...]] = {  # a complete config: name -> the types its value may have
    "seed": (int,), "data": (dict,), "transforms": (tuple,), "eval_transforms": (tuple,),
    "device_transforms": (tuple,), "model": (dict,), "init": (dict, type(None)), "task": (str,),
    "loss": (dict,), "step": (dict,), "batch_size": (int,), "total": (dict,), "optimizer": (dict,),
    "schedule": (dict,), "weight_decay": (dict, type(None)), "clip": (dict, type(None)),
    "freeze": (tuple,), "probe": (dict, type(None)), "ema": (dict, type(None)),
    "precision": (str,), "mesh": (dict,), "evals": (dict,), "checkpoint": (dict,),
    "stop": (dict, type(None)), "log": (dict,),
}
DEFAULTS = {  # what a config file may leave out
    "seed": 0, "device_transforms": (), "init": None, "clip": None, "freeze": (), "probe": None,
    "ema": None, "precision": "auto", "mesh": {"data": -1, "fsdp": 1, "model": 1}, "stop": None,
    "log": {"every": {"steps": 50}},
}
ELSEWHERE = {  # what other codebases call it or keep elsewhere -> the key here
    "lr": "schedule.base", "learning_rate": "schedule.base", "base_lr": "schedule.base",
    "rate": "schedule.base", "warmup": "schedule.warmup.epochs",
    "warmup_epochs": "schedule.warmup.epochs", "warmup_steps": "schedule.warmup.steps",
    "weight_decay": "weight_decay.value", "wd": "weight_decay.value",
    "epochs": "total.epochs", "num_epochs": "total.epochs", "steps": "total.steps",
    "num_steps": "total.steps", "batch": "batch_size", "label_smoothing": "loss.smoothing",
    "dropout": "model.dropout", "momentum": "optimizer.momentum", "dataset": "data",
    "augmentations": "transforms", "dtype": "precision", "pretrained": "init.weights",
    "weights": "init.weights", "accumulate": "step.accumulate", "split": "data.train",
}
PATHS = ("dir", "data_dir", "path", "root", "files", "classes", "cache", "known")  # in data
SAFE_TO_CHANGE = ("total", "evals", "checkpoint", "stop", "log", "mesh", "data.dir",
                  "data.data_dir", "data.path", "data.root", "data.files", "data.classes",
                  "data.split_folders", "data.cache", "data.known", "data.on_change",
                  "data.on_error", "data.max_bad", "data.max_bad_fraction")
"""Keys that may differ when a workdir is resumed: what was trained so far stays valid, and data
may have moved."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A config and where it came from. `claim`: its variant's entry in CLAIMS, or None."""

    config: dict
    name: str
    claim: dict | None
    doc: str


# ---- files ----------------------------------------------------------------------------------


def folder() -> Path:
    """Where the shipped configs are: next to the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped() -> list[str]:
    """Names of the shipped configs, as in "imagenet/resnet"."""
    return sorted(p.relative_to(folder()).with_suffix("").as_posix()
                  for p in folder().rglob("*.py") if not p.name.startswith("_"))


def load(spec: str, overrides: Iterable[tuple[str, str]] = ()) -> Loaded:
    """`NAME`, `FILE.py`, either with `:variant`, or `FILE.json`, and overrides -> the config.

    A .py file is Python and is run; a .json file is data only. Raises ConfigError.
    """
    target, _, variant = spec.partition(":")
    path = Path(target)
    if not path.is_file():
        path = folder() / (target if target.endswith(".py") else f"{target}.py")
    if not path.is_file():
        raise ConfigError(f"there is no config {target!r}", where=f"--config={spec}",
                          fix=near(target, shipped()) + " or give a file")
    claim, doc = None, ""
    if path.suffix == ".json":
        values = _read_json(path)
        if isinstance(values.get("data"), dict) and "parts" not in values["data"]:
            warnings.warn(f"{path} says no data.parts, so it is taken as a config of before "
                          "there was this key: parts of splits are 'listed'", stacklevel=2)
        values = saved(values)
    elif path.suffix != ".py":
        raise ConfigError(f"{path} is neither Python nor JSON by its name",
                          where=f"--config={spec}", fix="give a .py file with get_config(), or a "
                                                        "config.json as a run writes it")
    else:
        module = _execute(path)
        values = _get_config(module, variant, spec, path)
        claims = getattr(module, "CLAIMS", {})
        claim = claims.get(variant or next(iter(claims), None))
        doc = module.__doc__ or ""
    return Loaded(current(override(complete(plain(values)), overrides)), spec, claim, doc)


def _read_json(path: Path) -> dict:
    try:
        values = plain(untrusted.from_json(untrusted.read(path)))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not JSON: {error}", where=f"--config={path}",
                          fix="give a config.json as a run writes it") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not hold a config", where=f"--config={path}",
                          fix="give a config.json as a run writes it")
    return values


def _execute(path: Path):
    loader = importlib.machinery.SourceFileLoader(f"imgcls_config_{path.stem}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except Exception as error:
        raise _failing("the config file", path, error) from error
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path} has no get_config()", where=f"--config={path}",
                          fix="a config is a Python file with get_config() -> ConfigDict")
    return module


def _failing(what: str, path: Path, error: Exception) -> ConfigError:
    """Names the last line of the file that the error passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if frame.filename == str(path)] or [None]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1]
    return ConfigError(f"{what} fails: {type(error).__name__}: {error}",
                       where=f"{path}, line {line}" if line else str(path), fix="fix the file")


def data_at(text: str) -> dict | None:
    """The choice of a dataset that a path means; None where `text` is the name of a dataset."""
    path = Path(text).expanduser()
    if not ("/" in text or text.startswith(".") or path.exists()):
        return None
    if (path / "dataset.json").is_file():
        splits = _read_json(path / "dataset.json").get("splits", ())
        held_out = [name for name in ("val", "validation", "test") if name in splits
                    ] if isinstance(splits, dict) else []
        return dict(name="prepared", dir=text, train="train", eval=(held_out or ["val"])[0])
    if path.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl"):
        return dict(name="manifest", path=text, train="train", eval="val")
    return dict(name="folder", dir=text, train="train", eval="val")


def installed(module: str) -> bool:
    """Whether a module is there, such as one with the weights that a config starts from."""
    return importlib.util.find_spec(module) is not None


def _get_config(module, variant: str, spec: str, path: Path) -> dict:
    try:
        made = module.get_config(variant) if variant else module.get_config()
    except ConfigError:
        raise
    except Exception as error:
        if not variant or not isinstance(error, KeyError | TypeError):  # the error is in the file
            raise _failing("get_config()", path, error) from error
        known = sorted(getattr(module, "CLAIMS", {}))
        raise ConfigError(f"variant {variant!r} is not a variant of this config ({error})",
                          where=f"--config={spec}",
                          fix=f"its variants are {known}" if known else "leave the variant out"
                          ) from error
    made = made.to_dict() if hasattr(made, "to_dict") else made
    if not isinstance(made, dict):
        raise ConfigError(f"get_config() returns {made!r:.80}, which is no config", where=str(path),
                          fix="return a ConfigDict or a dict")
    return made


def parse_variant(text: str, **defaults) -> dict[str, Any]:
    """`value` or `key=value,key=value` -> the defaults with these values, cast to their types.

    A value without a key is that of the first default.
    """
    values = dict(defaults)
    for part in filter(None, (text or "").split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = next(iter(defaults)), key
        if key not in defaults:
            raise ConfigError(f"the variant has no key {key!r}", where=f"variant {text!r}",
                              fix=near(key, defaults))
        values[key] = _value(defaults[key], value, f"variant {text!r}, {key}")
    return values


# ---- plain data -----------------------------------------------------------------------------


def plain(value, where: str = "get_config()", depth: int = untrusted.DEPTH):
    """ConfigDicts to dicts and lists to tuples, all the way down, which may not be far."""
    if depth < 0:
        raise ConfigError(f"a value has over {untrusted.DEPTH} levels", where=where,
                          fix="write it flatter; a dict must not hold itself")
    if isinstance(value, Mapping):
        return {str(k): plain(v, where, depth - 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(plain(v, where, depth - 1) for v in value)
    if isinstance(value, str | int | float | bool | None):
        return value
    raise ConfigError(f"{value!r} is not allowed in a config", where=where,
                      fix="use dicts, tuples, strings, numbers, booleans and None")


def to_json(config, indent: int | None = 1) -> str:
    """JSON that people read, too: letters of any script as they are, escapes for what a terminal
    does not show or would obey."""
    text = json.dumps(config, indent=indent, ensure_ascii=False)
    for odd in {c for c in set(text) if not (c.isprintable() or c == "\n")}:
        text = text.replace(odd, json.dumps(odd)[1:-1])
    return text


def from_json(text: str):
    return plain(untrusted.from_json(text))


def located(config: Mapping) -> dict:
    """The config with absolute paths for those that are relative or begin with ~: of data, and of
    the weights and the teacher that are there. So it means the same in any folder."""
    def place(value):
        if isinstance(value, Mapping):  # of each split
            return {key: place(each) for key, each in value.items()}
        if not isinstance(value, str) or value in ("", "memory") or "://" in value:
            return value
        return os.path.abspath(os.path.expanduser(value))

    def data(choice: Mapping) -> dict:
        return {key: place(value) if key in PATHS else value for key, value in choice.items()}

    def there(choice, key: str):  # else it is the name of published weights
        named = choice.get(key) if isinstance(choice, Mapping) else None
        return ({**choice, key: place(named)} if isinstance(named, str) and os.path.exists(named)
                else choice)

    new = {**over_data(config, data),
           "init": there(config.get("init"), "weights"),
           "step": there(config.get("step"), "teacher")}
    return {key: new.get(key, value) for key, value in config.items()}


def over_data(config: Mapping, change: Callable[[Mapping], dict]) -> dict[str, Any]:
    """`data` and `evals` with each choice of data changed. Nothing else is known of the config yet:
    what is not of the right type stays as it is, for `check` to name."""
    def within(choice):
        if isinstance(choice, Mapping) and isinstance(choice.get("data"), Mapping):
            return {**choice, "data": change(choice["data"])}
        return choice

    evals = config.get("evals")
    if isinstance(evals, Mapping):
        evals = {name: within(choice) for name, choice in evals.items()}
    return {"data": within(config).get("data"), "evals": evals}


def digest(config) -> str:
    """12 hex digits that identify the config's values."""
    config = {key: value for key, value in config.items()  # as before there was this key
              if key != "probe" or value is not None}
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def flatten(config, prefix: str = "") -> dict[str, Any]:
    """Leaves by path, as an override names them: {"transforms[0].size": 224, ...}."""
    if isinstance(config, Mapping) and config:
        return {k: v for key, value in config.items()
                for k, v in flatten(value, f"{prefix}.{key}" if prefix else key).items()}
    if isinstance(config, tuple) and any(isinstance(v, Mapping) for v in config):
        return {k: v for i, value in enumerate(config)
                for k, v in flatten(value, f"{prefix}[{i}]").items()}
    return {prefix: config}


def diff(old, new) -> list[str]:
    """One line per leaf that differs."""
    a, b = flatten(old), flatten(new)
    return [f"{key}: {a.get(key, '(absent)')!r} -> {b.get(key, '(absent)')!r}"
            for key in sorted({*a, *b}) if a.get(key, KEYS) != b.get(key, KEYS)]


def complete(config: Mapping) -> dict:
    """The config with DEFAULTS for the keys that it leaves out, in alphabetical order."""
    return dict(sorted({**DEFAULTS, **config}.items()))


def current(config: Mapping) -> dict:
    """The config with the rule by which this version takes parts of splits written into its data:
    by that a saved config is told from one of before there was this rule."""
    return {**config, "data": {"parts": "mixed", **config["data"]}}


def saved(values) -> dict:
    """A config that a run has saved, as plain data. What it says nothing of, because it is from an
    earlier version, is set to what that version did."""
    config = {"probe": None, **plain(values)}
    data = config.get("data")
    return as_before(config) if isinstance(data, dict) and "parts" not in data else config


def as_before(config: Mapping) -> dict:
    """The config with splits, parts of them and automatic class weights as they were before
    `data.parts` was known."""
    def older(data: Mapping) -> dict:
        return {**data, "parts": "listed"} | (
            {"draw": "count"} if data.get("name") == "folder" else {})

    loss = config.get("loss")
    if isinstance(loss, Mapping) and loss.get("class_weights") == "auto" and config.get(
            "task") == "multiclass":
        loss = {**loss, "class_weights": {"weights": "balanced", "mean": "examples"}}
    new = {**over_data(config, older), "loss": loss}
    return {key: new.get(key, value) for key, value in config.items()}


@contextlib.contextmanager
def pointing():
    """A ConfigError of a key that is not there names the one here that means the same."""
    try:
        yield
    except ConfigError as error:
        there = ELSEWHERE.get(error.where.rpartition(".")[2])
        absent = "takes no argument" in error.what or "has no key" in error.what
        if there is None or not absent or error.where == f"config.{there}":
            raise
        raise ConfigError(error.what, where=error.where, fix=f"set config.{there}") from error


def check(config: Mapping):
    """Raises ConfigError unless the top-level keys are exactly KEYS, each of its type."""
    for key, value in config.items():
        if key not in KEYS:
            raise ConfigError(f"config has no key {key!r}", where=f"config.{key}",
                              fix=near(key, KEYS))
        kinds = KEYS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("None" if k is type(None) else k.__name__ for k in kinds)
            raise ConfigError(f"{key}={value!r} is a {type(value).__name__}",
                              where=f"config.{key}", fix=f"give a value of type {wanted}")
    for key in KEYS:
        if key not in config:
            raise ConfigError(f"config lacks the key {key!r}", where=f"config.{key}",
                              fix=f"set c.{key} in the config file")
    for key, value in flatten(config).items():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, int) and not -2**63 <= one < 2**63:  # what JAX and files can hold
                raise ConfigError(f"{key} has the number {one}, beyond 64 bits"[:120],
                                  where=f"config.{key}", fix="use one below 2**63, which is "
                                  f"{2**63}")
    for key, least in (("batch_size", 1), ("seed", 0)):
        if config[key] < least:
            raise ConfigError(f"{key}={config[key]} is too small", where=f"config.{key}",
                              fix=f"use {least} or more")
    if config["seed"] >= 2**32:  # jax.random keeps the lower 32 bits: 2**32 would be the seed 0
        raise ConfigError(f"seed={config['seed']} is too large", where="config.seed",
                          fix="use one below 2**32, which is 4294967296")


# ---- overrides ------------------------------------------------------------------------------


def split_argv(argv: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """argv -> (the rest, overrides): takes out `--config.KEY=VALUE` and `--config.KEY VALUE`."""
    rest, overrides, words = [], [], iter(argv)
    for word in words:
        found = re.match(r"--?config\.([^=]+)(=(.*))?$", word, re.DOTALL)
        if not found:
            rest.append(word)
            continue
        text = found[3] if found[2] else next(words, None)
        if text is None:
            raise ConfigError(f"{word} has no value", where="command line",
                              fix=f"write {word}=VALUE")
        overrides.append((found[1], text))
    return rest, overrides


def override(config: dict, overrides: Iterable[tuple[str, str]]) -> dict:
    """The config with (path, text) overrides merged in, checked."""
    # `.name` first: it drops the arguments of the thing it replaces, not those given with it.
    with pointing():
        for key, text in sorted(overrides, key=lambda o: not o[0].endswith(".name")):
            config = _override(config, _tokens(key), text, f"config.{key}")
        check(config)
    return config


def _tokens(key: str) -> list[str | int]:
    if not re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\[\d{1,9}\])*", key) or (
            len(key) > 1000 or key.count(".") > untrusted.DEPTH):
        raise ConfigError(f"{key!r:.80} does not name a value", where=f"config.{key:.80}",
                          fix="write it as model.width or transforms[0].size")
    parts = re.findall(r"([^.\[\]]+)|\[(\d+)\]", key)
    return [name or int(index) for name, index in parts]


def _literal(text: str, where: str):
    try:
        return plain(ast.literal_eval(text), where)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: deeply nested
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _value(old, text: str, where: str):
    """The text as a value that may replace `old`: numbers stay numbers, strings strings, unless
    the text is None, True or False as Python writes them."""
    if isinstance(old, str):
        return {"None": None, "True": True, "False": False}.get(text, text)
    new = _literal(text, where)
    if durations.phased(new, ""):
        return new
    number = isinstance(old, int | float) and not isinstance(old, bool)
    wrong = ((isinstance(old, bool) and not isinstance(new, bool | None))
             or (number and not isinstance(new, int | float | None))
             or (isinstance(old, Mapping) and not isinstance(new, Mapping | None))
             or (isinstance(old, tuple) and not isinstance(new, tuple | None)))
    if wrong:
        kind = type(old).__name__
        hint = "; a tuple of one entry ends with a comma: ({...},)" if kind == "tuple" else ""
        raise ConfigError(f"{text!r:.80} is not a {kind}", where=where,
                          fix=f"the value now is {old!r}: give another {kind}{hint}")
    return new


def _override(value, tokens: list, text: str, where: str):
    """A copy of `value` with the leaf at `tokens` replaced."""
    token, rest = tokens[0], tokens[1:]
    if isinstance(token, int):
        if not isinstance(value, tuple) or token >= len(value):
            size = len(value) if isinstance(value, tuple) else "none, it is not a list"
            raise ConfigError(f"there is no entry [{token}] (entries: {size})", where=where,
                              fix="count from 0")
        new = _override(value[token], rest, text, where) if rest else _value(
            value[token], text, where)
        return (*value[:token], new, *value[token + 1:])
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{value!r} has no key {token!r}", where=where,
                          fix="set the value itself, or index a list as in transforms[0].size")
    value = dict(value or {})
    if token in durations.UNITS and durations.is_duration(value):
        value = {token: next(iter(value.values()))}
    if token == "name" and not rest and "name" in value:
        return {"name": text} if text != value["name"] else value
    old = value.get(token)
    value[token] = _override(old, rest, text, where) if rest else _value(old, text, where)
    return value
