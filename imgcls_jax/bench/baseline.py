"""A baseline without a network: gradient histograms and a linear support vector machine."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from imgcls_jax import datasets
from imgcls_jax.data.feed import Feed
from imgcls_jax.errors import ConfigError, EnvironmentFailure
from imgcls_jax.metrics._intervals import wilson

BATCH = 256
CANDIDATES = (0.01, 0.1, 1.0, 10.0)  # of C
FOLDS = 3


def measure(data: Feed, transforms: Sequence[Callable], held_out: str, *, color: bool = False,
            strength: float | None = None) -> dict:
    """Features, fit on the training split of `data` and evaluation on the split `held_out`.

    color: gradients of the strongest channel, not of gray. strength: C, the inverse strength of
    regularisation; None: by cross-validation. Raises EnvironmentFailure without scikit-image,
    ConfigError where the classifier cannot be fitted.
    """
    hog = _hog()
    source, train = data.source, data.options.train
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
    if source.kind == "multilabel":
        return {"map": mean_precision(scores, labels), "examples": len(labels)}
    ranks = (scores > np.take_along_axis(scores, labels[:, None], 1)).sum(1)
    found = {"examples": len(labels)}
    for k in (1, 5):
        if k == 1 or len(source.classes) >= 10:  # as the metric topk
            share = float((ranks < k).mean())
            found[f"top{k}"] = share
            found[f"top{k}_interval"] = list(wilson(share * len(labels), len(labels), 0.95))
    return found
