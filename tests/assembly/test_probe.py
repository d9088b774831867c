"""A head that is trained on features that were kept is the head of the whole network."""

import shutil

import jax
import numpy as np
import pytest

from imgcls_jax import assembly, config, tree
from imgcls_jax.assembly import probe
from imgcls_jax.errors import ConfigError
from imgcls_jax.training import loop
from imgcls_jax.training.log import read_rows

HEAD = "('(?!head/).*',)"
SMALL = ("freeze=" + HEAD, "model.name=vit_mini", "model.width=8", "model.depth=1",
         "model.heads=2", "model.patch_size=4", "model.stem=()", "batch_size=32",
         "log.every.steps=1", "schedule.warmup=None", "total.steps=9", "checkpoint.every.steps=3",
         "checkpoint.keep=9", "checkpoint.best=None", "evals.test.every.steps=3",
         "data.train=train[:96]", "data.eval=test[:40]")
RANDOM = "transforms=({'name': 'flip'}, {'name': 'cutout', 'size': 4, 'fill': 9})"


def chosen(*overrides):
    return config.load("digits", [tuple(text.split("=", 1)) for text in (*SMALL, *overrides)]
                       ).config


def build(folder, *overrides):
    return assembly.build(chosen(*overrides), features=folder, devices=jax.devices()[:2])


def trained(folder, *overrides, kept: bool):
    """(the last parameters, the rows of metrics.jsonl, the lines of the log)."""
    run = build(folder / "features" if kept else None, *overrides)
    assert (run.begin is not None) == kept
    loop.train(run, folder, quiet=True)
    weights, _, _ = loop.Checkpoints(folder / "checkpoints", keep=9).restore(
        run.abstract_state, lambda saved: None)
    rows = [{key: value for key, value in row.items() if key not in (
        "images_per_second", "data_wait", "time", "seconds")} for _, row in read_rows(
            folder / "metrics.jsonl")]
    return tree.flatten(weights.params), rows, (folder / "train.log").read_text()


def test_the_head_is_that_of_the_whole_network_in_f64_after_a_resume_too(tmp_path):
    """Three epochs, each with views of its own, on two devices."""
    f64 = RANDOM, "precision=f64"
    plain, rows, _ = trained(tmp_path / "plain", *f64, kept=False)
    views = "probe={'views': 3}"
    head, found, log = trained(tmp_path / "kept", *f64, views, kept=True)
    assert "3 views of 96 images: 2" in log
    for path, leaf in plain.items():
        np.testing.assert_allclose(head[path], leaf, rtol=1e-9, atol=1e-12, err_msg=path)
    for one, other in zip(rows, found, strict=True):
        assert one.keys() == other.keys() and one.get("ids") == other.get("ids")
        for key in one.keys() - {"ids"}:
            np.testing.assert_allclose(other[key], one[key], rtol=1e-9, atol=1e-12, err_msg=key)
    for step in (6, 9):
        shutil.rmtree(tmp_path / "kept" / "checkpoints" / f"{step}")
    again, _, log = trained(tmp_path / "kept", *f64, views, kept=True)
    assert "going on from step 3" in log and "0 computed, 288 taken" in log
    for path, leaf in head.items():
        assert np.array_equal(again[path], leaf), path


@pytest.mark.parametrize("changes, reason", [
    ((RANDOM,), "config.transforms[0], flip, may change"),
    (("device_transforms=({'name': 'mixup', 'alpha': 0.2},)",), "changes images in every step"),
    (("ema={'decay': 0.9}",), "an average of the weights"),
    (("optimizer={'name': 'schedule_free'}",), "an average of the weights"),
    (("step={'name': 'batch_norm'}",), "the step batch_norm"),
    (("data.on_device=True",), "keeps the images"),
    (("model.drop_path=0.5", "model.depth=2"), "not the same in training and in evaluation")])
def test_what_needs_the_whole_network_gets_it_and_the_log_says_why(tmp_path, changes, reason):
    run = build(tmp_path, "transforms=()", *changes)
    assert run.begin is None and run.abstract_batch["image"].shape == (32, 8, 8, 1)
    assert reason in "".join(run.notes) and "on features that every step computes" in run.notes[0]
    if reason.startswith(("config.transforms", "not the same")):  # asked for, that is meant
        assert build(tmp_path, "transforms=()", *changes, "probe={}").begin
    else:
        with pytest.raises(ConfigError, match=f"features cannot be kept.*{reason}") as error:
            build(tmp_path, "transforms=()", *changes, "probe={}")
        assert "config.probe.views=0" in error.value.fix


def test_features_are_kept_where_only_the_head_is_trained_and_there_is_a_folder(tmp_path):
    assert build(tmp_path, "transforms=()").abstract_batch["image"].shape == (32, 8)
    assert build(None, "transforms=()", "probe={}").begin is None
    assert build(tmp_path, "transforms=()", "probe={'views': 0}").begin is None
    assert not build(tmp_path, "transforms=()", "freeze=('block.*',)").notes
    with pytest.raises(ConfigError, match="other parameters, such as"):
        build(tmp_path, "transforms=()", "freeze=()", "probe={}")
    with pytest.raises(ConfigError, match="features of one phase"):
        build(tmp_path, "probe={}", "loss.smoothing={'phases': (0.0, 0.1)}")


def test_several_processes_compute_the_whole_network(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert "several processes" in probe._reason(chosen("transforms=()"), asked=True)[0]


def test_an_evaluator_that_changes_images_gets_images(tmp_path):
    run = build(tmp_path, "transforms=()", "evals.flipped={'name': 'test_time_augmentation'}")
    shapes = {name: [leaf.shape[1:] for leaf in jax.tree.leaves(
        evaluation.lower(run.abstract_state.variables()).in_avals)][-3:]
        for name, evaluation in run.evaluations.items()}
    assert (8,) in shapes["test"] and (8, 8, 1) in shapes["flipped"]
