"""Every evaluator and metric in a run: named in a config, written by train, found by eval."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.datasets import load_digits

from imgcls_jax import config
from imgcls_jax.__main__ import main
from imgcls_jax.assembly import build
from imgcls_jax.datasets import DATASETS
from imgcls_jax.evaluators import EVALUATORS
from imgcls_jax.metrics import METRICS
from imgcls_jax.types import Lookup, Source

EVALS = '''

_digits = get_config


def get_config(variant="vit"):
    c = _digits(variant)
    c.model = dict(name="vit_mini", patch_size=2, width=16, depth=1, heads=2, stem=())
    c.batch_size, c.total = 64, dict(steps=80)
    c.schedule = dict(name="cosine", base=5e-3)
    c.evals = {
        "metrics": dict(name="classification", metrics=(
            dict(name="topk"), dict(name="topk_interval", k=(3,)), dict(name="accuracy"),
            dict(name="f1", average=("macro", "micro")), dict(name="balanced_accuracy"),
            dict(name="agreement"), dict(name="confusion"), dict(name="calibration"),
            dict(name="roc_auc"), dict(name="bootstrap", resamples=5,
                                       of=dict(name="average_precision")))),
        "names": dict(name="per_class"),
        "few": dict(name="few_shot", shots=(1, 10), l2=(1.0, 1024.0)),
        "knn": dict(name="knn", train="train[:500]"),
        "probe": dict(name="linear_probe", train="train[:300]", l2=(0.01, 1.0)),
        "retrieval": dict(name="retrieval"),
        "views": dict(name="test_time_augmentation", flip=False, shift=1),
        "pairs": dict(name="verification", count=1000),
        "speed": dict(name="throughput", repeats=2),
        "scaled": dict(name="temperature", fit="train[1000:]"),
    }
    return c
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    file = folder / "evals.py"
    file.write_text((config.folder() / "digits.py").read_text() + EVALS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGCLS_CACHE", str(folder / "cache"))
        assert main(["train", f"--config={file}", f"--workdir={folder / 'w'}", "--quiet"]) == 0
        yield folder / "w", json.loads((folder / "w" / "results.json").read_text())["eval"]


def arrays(workdir) -> dict:
    found = {}
    for path in (workdir / "evaluations").glob("*.npz"):
        with np.load(path) as file:
            found[path.stem] = dict(file)
    return found


@pytest.mark.nightly
def test_train_writes_the_numbers_and_the_arrays(run):
    workdir, found = run
    assert found["metrics"]["top1"] == found["metrics"]["accuracy"] == found["metrics"]["f1_micro"]
    assert found["metrics"]["top1"] > 0.2  # it has learned
    assert {"few", "knn", "probe", "retrieval", "views", "pairs", "speed", "scaled"} < set(found)
    assert found["few"]["10shot_l2_1024"] > found["few"]["1shot_l2_1024"] > 0.1
    for name in ("knn", "probe"):
        assert found[name]["top5"] > found[name]["top1"] > 0.2, name
    assert found["views"]["top5"] > found["views"]["top1"] > 0
    assert max(found["names"][f"recall/{digit}"] for digit in range(10)) > 0.2
    assert found["pairs"]["auc"] > 0.5 and found["speed"]["images_per_second"] > 0
    assert found["scaled"]["temperature"] > 0
    written = arrays(workdir)
    assert set(written) == {"metrics", "pairs", "scaled"}
    confusion = written["metrics"]["confusion"]
    assert confusion.sum() == 360
    assert np.trace(confusion) / 360 == pytest.approx(found["metrics"]["accuracy"])
    assert {"f1_per_class", "accuracy_per_class", "roc_auc_per_class", "reliability_count",
            "average_precision_per_class"} < set(written["metrics"])


@pytest.mark.nightly
def test_eval_finds_the_same(run, capsys):
    workdir, before = run
    written = arrays(workdir)
    for path in (workdir / "evaluations").iterdir():
        path.unlink()
    capsys.readouterr()
    assert main(["eval", f"--workdir={workdir}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["eval"]
    for name in set(before) - {"speed"}:
        assert found[name] == pytest.approx(before[name], abs=1e-6), name
    again = arrays(workdir)
    for name, values in written.items():
        for key, value in values.items():
            np.testing.assert_allclose(again[name][key], value, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("kind, registry", [("metrics", METRICS), ("evaluators", EVALUATORS)])
def test_list_prints_them(kind, registry, capsys):
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == registry.names()
    assert all(len(line.split()) > 3 for line in lines)


def bits() -> Source:
    """Digits, as multilabel: which bits of the digit are set."""
    digits = DATASETS.get("digits")()
    kept = np.array([[digit >> bit & 1 for bit in range(4)] for digit in range(10)], np.float32)

    def open_split(name: str) -> Lookup:
        import tensorflow as tf

        whole = digits.open(name)

        def read(index):
            row = whole.read(index)
            return {**row, "label": tf.gather(kept, row["label"])}

        return Lookup(whole.size, read, whole.where, lambda: kept[whole.labels()])

    return dataclasses.replace(digits, classes=("1", "2", "4", "8"), kind="multilabel",
                               open=open_split)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_other_tasks_are_measured_as_scikit_learn_does(kind, monkeypatch):
    DATASETS.names()
    monkeypatch.setitem(DATASETS._found, "bits", bits)
    monkeypatch.setitem(DATASETS._facts, "bits", {})
    names = ("decisions", "accuracy", "f1", "confusion", "calibration", "roc_auc",
             "average_precision")
    data = ({"name": "digits", "only": ("3", "8")} if kind == "binary" else {"name": "bits"})
    given = config.plain(config.load("digits:vit").config)
    run = build({**given, "data": {**data, "eval": "test", "mean": 0.3, "std": 0.4}, "task": kind,
                 "loss": {"name": "sigmoid"}, "batch_size": 64, "model": {
                     "name": "vit_mini", "patch_size": 2, "width": 16, "depth": 1, "heads": 2,
                     "stem": ()}, "evals": {"all": {
                         "name": "classification",
                         "metrics": tuple({"name": name} for name in names)}}})
    variables = run.init().eval_variables()
    rng = np.random.default_rng(0)  # a head that says something
    variables = jax.tree.map(lambda x: x + rng.normal(0, 0.3, x.shape).astype(x.dtype), variables)
    scores = run.evaluations["all"].run(variables)

    images, labels = load_digits(return_X_y=True)
    labels, images = labels[::5], np.round(images[::5] * (255 / 16)).reshape(-1, 8, 8, 1) / 255
    if kind == "binary":
        chosen = np.isin(labels, (3, 8))
        images, targets = images[chosen], (labels[chosen] == 8)[:, None] * 1
    else:
        targets = labels[:, None] >> np.arange(4) & 1
    logits = np.asarray(run.module.apply(variables, ((images - 0.3) / 0.4).astype(np.float32),
                                         train=False))
    guess, end = (logits > 0) * 1, "" if kind == "binary" else "_macro"
    share = "accuracy" if kind == "binary" else "label_accuracy"
    assert scores[share] == pytest.approx((guess == targets).mean())
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(targets, guess))
    mean = "binary" if kind == "binary" else "macro"
    assert scores[f"f1{end}"] == pytest.approx(sk.f1_score(targets, guess, average=mean))
    for name, measure in (("roc_auc", sk.roc_auc_score),
                          ("average_precision", sk.average_precision_score)):
        assert scores[f"{name}{end}"] == pytest.approx(measure(targets, logits), abs=1e-4)
    assert 0 < scores["roc_auc" + end] < 1
    nll = np.logaddexp(0, np.where(targets, -logits, logits)).mean()
    assert scores["nll"] == pytest.approx(nll, rel=1e-4)
