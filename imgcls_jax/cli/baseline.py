"""Trains a linear classifier on gradient histograms, as a baseline: imgcls baseline --data=DIR

imgcls baseline --config=digits                        the config's splits and eval transforms
imgcls baseline --data=photos/ --size=96 --color       a folder, a file or the name of a dataset
imgcls baseline --data=shapes --config.data.examples=2000 --C=1

The features are HOG (Dalal and Triggs 2005; needs the extra "baseline"), the classifier is a linear
support vector machine, whose C is found by cross-validation on the training split. Multilabel data
has one machine per class. Prints top-1 and top-5 with 95 % intervals, and of multilabel data the
mean average precision.
"""

import json
from pathlib import Path

from absl import flags

from imgcls_jax import config
from imgcls_jax.cli import _data, _flags
from imgcls_jax.errors import ConfigError, EnvironmentFailure

FLAGS = _flags.verb()
_flags.define_config(FLAGS)
flags.DEFINE_string("data", None, "A folder, archive, manifest, or the name of a dataset, which "
                    "replaces the config's data.", flag_values=FLAGS)
flags.DEFINE_integer("size", None, "Resize images to this many pixels, after the config's eval "
                     "transforms; by default 64 for --data whose images differ in size.",
                     lower_bound=4, flag_values=FLAGS)
flags.DEFINE_bool("color", False, "Use gradients of the strongest color channel, not of gray.",
                  flag_values=FLAGS)
flags.DEFINE_float("C", None, "Inverse strength of regularisation, without cross-validation.",
                   lower_bound=1e-9, flag_values=FLAGS)
flags.DEFINE_string("workdir", None, "Folder to write results.json to.", flag_values=FLAGS)
flags.DEFINE_bool("json", False, "Print JSON.", flag_values=FLAGS)

SIZE = 64  # pixels


def main(words, overrides):
    if words:
        raise ConfigError(f"unexpected argument {words[0]!r}", where="command line",
                          fix="flags are written --flag=value")
    chosen = _chosen(overrides)
    if FLAGS.workdir:
        _data.keep_outside(chosen, Path(FLAGS.workdir), "--workdir")
    results = measure(chosen, size=FLAGS.size, color=FLAGS.color, strength=FLAGS.C)
    if FLAGS.workdir:
        out = Path(FLAGS.workdir).expanduser() / "results.json"
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(results, indent=1) + "\n")
        except OSError as error:
            raise EnvironmentFailure(f"the results cannot be written: {error.strerror}",
                                     where=str(out), fix="choose another --workdir") from error
    print(json.dumps(results) if FLAGS.json else render(results))


def _chosen(overrides) -> dict:
    """The config that the command line means, with its data replaced by that of --data."""
    if not FLAGS.data:
        return _flags.load_config(FLAGS, [], overrides).config
    loaded = config.load(FLAGS.config or "finetune").config
    named = {"train": "train", **_data.named(FLAGS.data)}
    transforms = loaded["eval_transforms"] if FLAGS.config else ()
    return config.override({**loaded, "data": named, "eval_transforms": transforms}, overrides)


def measure(loaded: dict, *, size: int | None = None, color: bool = False,
            strength: float | None = None) -> dict:
    """As of bench.baseline.measure, of a config's data and eval transforms; size: in pixels."""
    from imgcls_jax.assembly.inputs import chain, fed
    from imgcls_jax.bench import baseline
    from imgcls_jax.data.decoding.tensorflow import tensorflow
    from imgcls_jax.transforms import TRANSFORMS

    tensorflow()  # before tensorflow-datasets imports it without our settings
    data = fed(loaded["data"], loaded["seed"])
    if not loaded["eval_transforms"] and data.source.image_size is None:
        size = size or SIZE
    choices = loaded["eval_transforms"] + ((dict(name="resize", size=size),) if size else ())
    return baseline.measure(
        data, chain(choices, TRANSFORMS, "config.eval_transforms"),
        _held_out(data.source, loaded["data"].get("eval")), color=color, strength=strength)


def _held_out(source, named: str | None) -> str:
    """The split to evaluate on: the one that is named, else what the dataset has."""
    found = [name for name in ("validation", "val", "test") if name in source.sizes]
    if named is None and not found:
        raise ConfigError(f"{source.name} has no split to evaluate on", where="config.data.eval",
                          fix=f"give --config.data.eval, one of {sorted(source.sizes)} or a part")
    return named or found[0]


def render(results: dict) -> str:
    (split, values), = results["eval"].items()
    lines = [f"{results['data']}: {results['examples']:,} examples of {results['train']}, "
             f"{results['features']:,} features, C={results['C']:g}"]
    for name in ("top1", "top5"):
        if name in values:
            low, high = (100 * bound for bound in values[f"{name}_interval"])
            lines.append(f"{split} {name} {100 * values[name]:.2f} %, 95 % interval {low:.2f} to "
                         f"{high:.2f}, {values['examples']:,} examples")
    if "map" in values:
        lines.append(f"{split} mean average precision {100 * values['map']:.2f} %, "
                     f"{values['examples']:,} examples")
    seconds = results["seconds"]
    lines.append(f"{seconds['features']} s for features, {seconds['classifier']} s for the "
                 "classifier")
    return "\n".join(lines)
