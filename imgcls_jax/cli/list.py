"""Lists what a config can name, with arguments: imgcls list [models|losses|...|configs [NAME]]

imgcls list                     the kinds of things: models, datasets, losses, configs and so on
imgcls list optimizers          the names of a kind, with a line about each
imgcls list optimizers adamw    what one of them does, its arguments and their defaults
imgcls list models 'resnet*'    those whose name fits the pattern
imgcls list configs finetune    what a config is for, and its variants

In a config it is optimizer = dict(name="adamw", b1=0.95), on the command line
--config.optimizer.name=adamw --config.optimizer.b1=0.95.
"""

import ast
import fnmatch
import json

from absl import flags

from imgcls_jax import config
from imgcls_jax.cli import _flags
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import near, options
from imgcls_jax.samplers import SAMPLERS

FLAGS = _flags.verb()
flags.DEFINE_bool("json", False, "Print JSON.",
                  flag_values=FLAGS)


def _kinds() -> dict:
    from imgcls_jax.datasets import DATASETS
    from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
    from imgcls_jax.evaluators import EVALUATORS
    from imgcls_jax.exporters import EXPORTERS
    from imgcls_jax.losses import LOSSES
    from imgcls_jax.metrics import METRICS
    from imgcls_jax.models import MODELS
    from imgcls_jax.optimizers import OPTIMIZERS
    from imgcls_jax.schedules import SCHEDULES
    from imgcls_jax.steps import STEPS
    from imgcls_jax.transforms import TRANSFORMS

    registries = (MODELS, DATASETS, TRANSFORMS, DEVICE_TRANSFORMS, LOSSES, METRICS, EVALUATORS,
                  STEPS, EXPORTERS, OPTIMIZERS, SCHEDULES, SAMPLERS)
    return {registry.plural: registry for registry in registries}


def main(words, overrides):
    kinds = _kinds()
    if not words:
        print("\n".join(f"imgcls list {kind}" for kind in [*kinds, "configs"]))
        return
    kind, *wanted = words[0].replace("-", "_"), *words[1:]
    if kind not in (*kinds, "configs"):
        raise ConfigError(f"there is no kind called {words[0]!r}", where="command line",
                          fix=near(kind, [*kinds, "configs"]))
    if len(wanted) > 1:
        raise ConfigError(f"unexpected argument {wanted[1]!r}", where="command line",
                          fix=f"imgcls list {kind} takes one name, or a pattern in quotes")
    pattern = wanted[0] if wanted else "*"
    names = config.shipped() if kind == "configs" else kinds[kind].names()
    if not set("*?[") & set(pattern):
        print(_config(pattern) if kind == "configs" else _whole(kind, kinds[kind], pattern))
        return
    names = fnmatch.filter(names, pattern)
    if not names:
        raise ConfigError(f"no name of {kind} fits {pattern!r}", where="command line",
                          fix=f"imgcls list {kind} prints all of them")
    rows = [{"name": name, "about": _first_line(name)} if kind == "configs" else
            {"name": name, **_about(kinds[kind].get(name), kinds[kind].facts(name))}
            for name in names]
    if FLAGS.json:
        print(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        facts = (f"{row['params']:>13,} parameters  {row['image_size']:>4} px  "
                 if "params" in row else "")
        print(f"{row['name']:24} {facts}{row['about']}")


def _about(function, facts: dict) -> dict:
    return {"about": (function.__doc__ or "").strip().split("\n")[0],
            "options": options(function), **facts}


def _whole(kind: str, registry, name: str) -> str:
    """The description of one thing, its options, and the options that all of its kind have."""
    import inspect

    from imgcls_jax import optim
    from imgcls_jax.assembly.evaluation import EvaluationOptions
    from imgcls_jax.data.feed import DataOptions

    shared = {"optimizers": optim.OptimizerOptions, "schedules": optim.ScheduleOptions,
              "datasets": DataOptions, "evaluators": EvaluationOptions}.get(kind)
    function = registry.get(name, "command line")
    blocks = [f"{name}({', '.join(options(function))})", inspect.getdoc(function) or ""]
    facts = {key: value for key, value in registry.facts(name).items()
             if isinstance(value, str | int | float | tuple)
             and all(isinstance(part, str | int | float) for part in (
                 value if isinstance(value, tuple) else ()))}
    if facts:
        blocks.append("\n".join(f"{key}: {value}" for key, value in facts.items()))
    if shared:
        blocks += [f"All {kind} also take: {', '.join(options(shared))}", inspect.getdoc(shared)]
    return "\n\n".join(block for block in blocks if block)


def _first_line(name: str) -> str:
    return (ast.get_docstring(_parsed(name)) or "").split("\n")[0]


def _parsed(name: str) -> ast.Module:
    return ast.parse((config.folder() / f"{name}.py").read_text())


def _config(name: str) -> str:
    """The description of a shipped config and its variants, read without running it."""
    name = name.removesuffix(".py")
    if name not in config.shipped():
        raise ConfigError(f"there is no config {name!r}", where="command line",
                          fix=f"{near(name, config.shipped())} (imgcls list configs)")
    tree = _parsed(name)
    blocks = [ast.get_docstring(tree) or ""]
    for node in ast.walk(tree):
        if (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CLAIMS"
                and isinstance(node.value, ast.Dict)):
            variants = [ast.literal_eval(key) for key in node.value.keys]
            blocks.append("\n".join(["Variants:", *(f"  {name}:{one}" for one in variants)]))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "parse_variant":
            blocks.append("\n".join([f"Keys of the variant, as {name}:KEY=VALUE,KEY=VALUE, and "
                                     "their defaults:",
                                     *(f"  {ast.unparse(key)}" for key in node.keywords)]))
    return "\n\n".join(blocks)
