"""Evaluators of features beside scikit-learn and plain numpy, on one device and on eight."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.neighbors import KNeighborsClassifier

from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.evaluators.few_shot import few_shot
from imgcls_jax.evaluators.knn import knn
from imgcls_jax.evaluators.linear_probe import linear_probe
from imgcls_jax.evaluators.retrieval import retrieval
from imgcls_jax.evaluators.verification import best_threshold, verification
from tests.evaluators.splits import CLASSES, SPLITS, VARIABLES, features, made, parts

(IMAGES, LABELS), (TRAIN, TRAIN_LABELS) = SPLITS[None], SPLITS["train"]
X, Y = features(TRAIN).astype(np.float64), TRAIN_LABELS
QUERIES = features(IMAGES).astype(np.float64)
devices = pytest.mark.parametrize("devices", [8, pytest.param(1, marks=pytest.mark.nightly)])


@devices
def test_few_shot_is_the_least_squares_of_exactly_k_examples_a_class(devices):
    found = few_shot(parts(devices), shots=(1, 4), l2=(2.0, 1024.0), seeds=2)(VARIABLES)
    for count in (1, 4):
        for l2 in (2.0, 1024.0):
            values = []
            for seed in range(2):
                rng = np.random.default_rng(seed)
                rows = np.concatenate([rng.permutation(np.where(Y == c)[0])[:count]
                                       for c in range(CLASSES)])
                x, mean, std = X[rows], X[rows].mean(0), X[rows].std(0) + 1e-5
                x = np.concatenate([(x - mean) / std, np.full((len(x), 1), 100.0)], 1)
                y = np.where(np.eye(CLASSES)[Y[rows]] > 0, 1.0, -1.0)
                # The penalty as rows of its own.
                weights = np.linalg.lstsq(
                    np.concatenate([x, np.sqrt(l2) * np.eye(x.shape[1])]),
                    np.concatenate([y, np.zeros((x.shape[1], CLASSES))]), rcond=None)[0]
                q = np.concatenate([(QUERIES - mean) / std, np.full((len(QUERIES), 1), 100.0)], 1)
                values.append(((q @ weights).argmax(1) == LABELS).mean())
            name = f"{count}shot_l2_{l2:g}"
            assert found[name] == pytest.approx(np.mean(values))
            assert found[f"{name}_std"] == pytest.approx(np.std(values))
    assert 0.3 < found["4shot_l2_2"] < 1


def test_few_shot_refuses_a_class_with_too_few_examples():
    few = {None: SPLITS[None], "train": (TRAIN[:30], TRAIN_LABELS[:30])}
    with pytest.raises(DataError, match="25 shots"):
        few_shot(parts(1, few))(VARIABLES)


@devices
@pytest.mark.parametrize("k", [1, 7, 500])
def test_knn_equals_scikit_learns(k, devices):
    found = knn(parts(devices), k=k)(VARIABLES)
    options = dict(n_neighbors=min(k, len(Y)), metric="cosine", algorithm="brute")
    for name, weights in (("", lambda d: np.exp((1 - d) / 0.07)), ("majority_", "uniform")):
        chances = KNeighborsClassifier(weights=weights, **options).fit(X, Y).predict_proba(QUERIES)
        order = np.argsort(-chances.round(6), axis=1, kind="stable")
        for n in (1, 2):
            expected = (order[:, :n] == LABELS[:, None]).any(1).mean()
            assert found[f"{name}top{n}"] == pytest.approx(expected), (name, n)
    assert found["top1"] > 0.5 or k == 500


@devices
def test_the_linear_probe_equals_scikit_learns_for_the_l2_that_is_best_held_out(devices):
    grid = (1e-3, 1e-1, 10.0, 1e3)
    found = linear_probe(parts(devices), l2=grid)(VARIABLES)
    mean, std = X.mean(0), X.std(0) + 1e-5
    x, q = (X - mean) / std, (QUERIES - mean) / std
    order = np.random.default_rng(0).permutation(len(x))
    out, kept = order[:round(0.2 * len(x))], order[round(0.2 * len(x)):]

    def fit(rows, l2):
        return LogisticRegression(C=1 / (l2 * len(rows)), max_iter=1000).fit(x[rows], Y[rows])

    scores = {l2: fit(kept, l2).score(x[out], Y[out]) for l2 in grid}
    assert len(set(scores.values())) > 1
    best = max(l2 for l2 in grid if scores[l2] == max(scores.values()))
    assert found["l2"] == best
    assert found["top1"] == pytest.approx(fit(order, best).score(q, LABELS))


@devices
def test_retrieval_equals_plain_loops(devices):
    images, labels = made(40, 3, 4)
    labels[0] = 4  # alone in its class
    found = retrieval(parts(devices, {None: (images, labels)}), k=(1, 3, 99))(VARIABLES)
    x = features(images).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    recalls, precisions = {1: [], 3: [], 99: []}, []
    for i in range(1, 40):
        others = np.delete(np.arange(40), i)
        hits = (labels[others] == labels[i])[np.argsort(-(x[others] @ x[i]), kind="stable")]
        for k, values in recalls.items():
            values.append(hits[:k].any())
        asked = hits.sum()
        precisions.append(sum(hits[:n].mean() for n in range(1, asked + 1) if hits[n - 1]) / asked)
    assert found == pytest.approx({**{f"recall{k}": np.mean(v) for k, v in recalls.items()},
                                   "map_at_r": np.mean(precisions), "left_out": 1.0})
    assert 0.4 < found["map_at_r"] < found["recall1"] < 1


def plain_folds(cosine, same, folds):
    """Every threshold is tried on the other folds."""
    found = []
    for fold in np.array_split(np.arange(len(same)), folds):
        rest = np.setdiff1d(np.arange(len(same)), fold)
        values = np.unique(cosine[rest])
        middle = [-np.inf, *(values[1:] + values[:-1]) / 2, np.inf][::-1]
        right = [((cosine[rest] > t) == same[rest]).mean() for t in middle]
        found.append(((cosine[fold] > middle[int(np.argmax(right))]) == same[fold]).mean())
    return np.mean(found)


def checked(found, cosine, same, folds=10):
    assert found["auc"] == pytest.approx(roc_auc_score(same, cosine))
    assert found["accuracy"] == pytest.approx(plain_folds(cosine, same, folds))
    false, true, _ = roc_curve(same, cosine, drop_intermediate=False)
    np.testing.assert_allclose(found["true_accepts"], true)
    assert found["tar_at_0.01"] == max(t for f, t in zip(false, true, strict=True) if f <= 0.01)
    place = np.argmax(false >= 1 - true)
    assert false[place - 1] <= found["eer"] <= false[place]


def unit(images):
    x = features(images).astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@devices
def test_verification_of_adjacent_examples_and_of_a_list_of_pairs(tmp_path, devices):
    images, labels = made(400, 4, 2)
    x, at = unit(images), parts(devices, {None: (images, labels)})
    found = verification(at, pairs="adjacent")(VARIABLES)
    checked(found, (x[::2] * x[1::2]).sum(1), labels[::2] == labels[1::2])

    rng = np.random.default_rng(0)
    i, j, same = rng.integers(0, 400, 90), rng.integers(0, 400, 90), rng.integers(0, 2, 90)
    np.savetxt(tmp_path / "pairs.txt", np.stack([i, j, same], 1), "%d")
    found = verification(at, pairs=str(tmp_path / "pairs.txt"), folds=3)(VARIABLES)
    checked(found, (x[i] * x[j]).sum(1), same == 1, folds=3)

    (tmp_path / "pairs.txt").write_text("0 400 1\n1 2 0\n")
    with pytest.raises(DataError, match="below 400"):
        verification(at, pairs=str(tmp_path / "pairs.txt"))(VARIABLES)
    with pytest.raises(DataError, match="list of pairs cannot be read"):
        verification(at, pairs=str(tmp_path / "none.txt"))(VARIABLES)


def test_drawn_pairs_are_of_one_class_by_half_and_never_an_example_with_itself():
    from imgcls_jax.evaluators.verification import _pairs

    rng = np.random.default_rng(0)
    for seed in range(20):
        labels = rng.integers(0, 6, 30) ** 2
        labels[0] = 50  # alone: in pairs of two classes only
        first, second, same = _pairs("drawn", labels, 500, seed)
        assert same.sum() == 250 and len(same) == 500
        assert (first != second).all() and not (first == 0)[same].any()
        np.testing.assert_array_equal(labels[first] == labels[second], same)
        assert len(np.unique(np.stack([first, second], 1)[~same], axis=0)) > 150
        again = _pairs("drawn", labels, 500, seed)
        np.testing.assert_array_equal(again[0], first)
    with pytest.raises(DataError, match="no pairs"):
        _pairs("drawn", np.arange(9), 10, 0)


def test_the_best_threshold_never_parts_equal_scores():
    scores = np.array([0.5, 0.5, 0.5, 0.2, 0.9])
    assert best_threshold(scores, np.array([1, 1, 0, 0, 1], bool)) == 0.35
    assert best_threshold(scores, np.array([0, 0, 0, 0, 0], bool)) == np.inf
    assert best_threshold(scores, np.ones(5, bool)) == -np.inf


@pytest.mark.parametrize("make", [few_shot, knn, linear_probe, retrieval, verification])
def test_other_tasks_are_refused(make):
    import dataclasses

    from tests.evaluators.splits import TASK

    with pytest.raises(ConfigError, match="multilabel"):
        make(parts(1, task=dataclasses.replace(TASK, kind="multilabel")))


def test_average_precision_of_the_first_r_is_at_most_that_of_all():
    """map_at_r against scikit-learn's, which goes on behind R."""
    images, labels = made(60, 6, 3)
    found = retrieval(parts(1, {None: (images, labels)}))(VARIABLES)["map_at_r"]
    cosine = unit(images) @ unit(images).T
    whole = []
    for i in range(60):
        others = np.delete(np.arange(60), i)
        whole.append(average_precision_score(labels[others] == labels[i], cosine[i, others]))
    assert found < np.mean(whole) < found + 0.3
