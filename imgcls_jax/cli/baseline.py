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
import time
from pathlib import Path

import numpy as np
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

SIZE, BATCH = 64, 256
CANDIDATES = (0.01, 0.1, 1.0, 10.0)  # of C
FOLDS = 3


def main(words, overrides):
    if words:
        raise ConfigError(f"unexpected argument {words[0]!r}", where="command line",
                          fix="flags are written --flag=value")
    results = measure(_chosen(overrides), size=FLAGS.size, color=FLAGS.color, strength=FLAGS.C)
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
    """Features, fit and evaluation of a config's data. strength: C; None: by cross-validation."""
    hog = _hog()
    from imgcls_jax import datasets
    from imgcls_jax.assembly.inputs import chain, fed
    from imgcls_jax.data.decoding.tensorflow import tensorflow
    from imgcls_jax.transforms import TRANSFORMS

    tensorflow()  # before tensorflow-datasets imports it without our settings
    data = fed(loaded["data"], loaded["seed"])
    source = data.source
    if not loaded["eval_transforms"] and source.image_size is None:
        size = size or SIZE
    choices = loaded["eval_transforms"] + ((dict(name="resize", size=size),) if size else ())
    transforms = chain(choices, TRANSFORMS, "config.eval_transforms")
    train, held_out = data.options.train, _held_out(source, loaded["data"].get("eval"))

    datasets.size(source, held_out)  # ConfigError now, not after the features of training
    began = time.perf_counter()
    sets = []
    for split in (train, held_out):
        features, labels = [], []
        for batch in data.evaluate(split, transforms, batch_size=BATCH, rows=slice(0, BATCH)):
            real = batch["mask"] > 0
            features += [hog(image, color) for image in batch["image"][real]]
            labels.append(batch["label"][real])
        sets.append((np.stack(features), np.concatenate(labels)))
    extracted = time.perf_counter()
    scores, chosen = _fitted(*sets[0], sets[1][0], source, strength)
    finished = time.perf_counter()
    return {"model": f"HOG ({'color' if color else 'gray'}), linear SVM", "data": source.name,
            "train": train, "features": sets[0][0].shape[1], "C": chosen,
            "examples": len(sets[0][0]),
            "eval": {held_out: _scored(scores, sets[1][1], source)},
            "seconds": {"features": round(extracted - began, 2),
                        "classifier": round(finished - extracted, 2)}}


def _hog():
    """(image u8[H,W,C], color) -> f32[features]: nine directions in 8 x 8 cells or those that fit,
    of at least two pixels, in blocks of 2 x 2."""
    try:
        from skimage.feature import hog
    except ModuleNotFoundError as error:
        raise EnvironmentFailure("scikit-image, which makes the features, is not installed",
                                 where="imgcls baseline",
                                 fix='pip install "imgcls_jax[baseline]"') from error

    def features(image, color):
        color = color and image.shape[-1] > 1
        if not color:
            image = image.astype(np.float32) @ (
                (0.299, 0.587, 0.114) if image.shape[-1] == 3 else (1.0,))
        cell = max(min(image.shape[:2]) // 8, 2)
        return hog(image, orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(2, 2),
                   channel_axis=-1 if color else None).astype(np.float32)

    return features


def _held_out(source, named: str | None) -> str:
    """The split to evaluate on: the one that is named, else what the dataset has."""
    found = [name for name in ("validation", "val", "test") if name in source.sizes]
    if named is None and not found:
        raise ConfigError(f"{source.name} has no split to evaluate on", where="config.data.eval",
                          fix=f"give --config.data.eval, one of {sorted(source.sizes)} or a part")
    return named or found[0]


def _fitted(features, labels, unseen, source, strength: float | None):
    """(scores f[N,K] of unseen features, C)."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC

    several = source.kind == "multilabel"
    machine = LinearSVC(C=strength or 1.0, dual="auto", random_state=0)
    model, key, scoring = machine, "C", "accuracy"
    if several:
        model, key, scoring = OneVsRestClassifier(machine), "estimator__C", _precision
    if strength is None:
        model = GridSearchCV(model, {key: CANDIDATES}, cv=FOLDS, scoring=scoring)
    try:
        model.fit(features, labels)
    except ValueError as error:  # such as one class alone, or fewer examples of one than folds
        raise ConfigError(f"the classifier cannot be fitted: {str(error).splitlines()[0]}",
                          where="config.data.train", fix="train on more examples") from error
    scores = model.decision_function(unseen)
    if not several:
        if scores.ndim == 1:
            scores = np.stack([-scores, scores], 1)
        known = np.full((len(scores), len(source.classes)), -np.inf)  # a class without examples
        known[:, model.classes_] = scores
        scores = known
    return scores, strength or float(model.best_params_[key])


def _precision(model, features, labels) -> float:
    return mean_precision(model.decision_function(features), labels)


def mean_precision(scores, labels) -> float:
    """Mean over classes that occur of the average precision; scores, labels: [N,K]."""
    from sklearn.metrics import average_precision_score

    occur = labels.any(0)
    return float(average_precision_score(labels[:, occur], scores[:, occur])) if occur.any() else 0.


def _scored(scores, labels, source) -> dict:
    from imgcls_jax.cli.reproduce import wilson

    if source.kind == "multilabel":
        return {"map": mean_precision(scores, labels), "examples": len(labels)}
    ranks = (scores > np.take_along_axis(scores, labels[:, None], 1)).sum(1)
    found = {"examples": len(labels)}
    for k in (1, 5):
        if k < len(source.classes):
            share = float((ranks < k).mean())
            found[f"top{k}"] = share
            found[f"top{k}_interval"] = [bound / 100 for bound in wilson(share, len(labels))]
    return found


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
