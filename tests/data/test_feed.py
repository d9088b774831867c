"""What config.data and config.evals may say of any dataset; phases of training."""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from imgcls_jax import config, datasets
from imgcls_jax.assembly import build
from imgcls_jax.checkpoint.saving import Checkpoints
from imgcls_jax.data import feed, resident
from imgcls_jax.datasets import DATASETS, _paths
from imgcls_jax.errors import ConfigError, DataError, Preempted
from imgcls_jax.training import loop, resume
from imgcls_jax.training.log import read_rows

SMALL = ("model.name=vit_mini", "model.width=8", "model.depth=1", "model.heads=2",
         "model.patch_size=4", "model.stem=()", "batch_size=32", "log.every.steps=1",
         "schedule.warmup.steps=2", "total.steps=12", "checkpoint.every.steps=4",
         "evals.test.every.steps=12")


def built(*overrides, spec="digits"):
    loaded = config.load(spec, [tuple(text.split("=", 1)) for text in (*SMALL, *overrides)])
    return build(loaded.config)


def feed_of(run):
    return feed.Feed(run.source, 0, feed.DataOptions())


def host_batches(run, count, start=0):
    return list(itertools.islice(run.batches(start), count))


def test_data_on_the_device_gives_the_batches_of_the_host():
    plain, kept = built("transforms=()"), built("transforms=()", "data.on_device=True")
    for start in (0, 40):  # past the first epoch of 1,438
        for host, sent in zip(host_batches(plain, 4, start), host_batches(kept, 4, start),
                              strict=True):
            assert set(sent) == {"id", "mask"}
            on_device = kept.put(sent)
            np.testing.assert_array_equal(sent["id"], host["id"])
            for name in ("image", "label", "mask"):
                np.testing.assert_array_equal(on_device[name], host[name])
                assert on_device[name].sharding == kept.abstract_batch[name].sharding
    variables = plain.init().eval_variables()
    assert (kept.evaluations["test"].run(variables)
            == plain.evaluations["test"].run(variables))


def test_a_batch_is_gathered_on_the_device_without_communication():
    run = built("transforms=()", "data.on_device=True")
    (sent,) = host_batches(run, 1)
    run.put(sent)
    kept = resident.Resident(feed_of(run), "train", (), run.mesh)
    text = kept._gather.lower(kept._arrays, sent["id"].astype(np.int32),
                              sent["mask"]).compile().as_text()
    assert "all-gather" not in text and "all-reduce" not in text


def test_a_random_host_transform_is_refused_for_data_on_the_device():
    run = built("data.on_device=True")
    with pytest.raises(ConfigError, match="random"):
        run.put(host_batches(run, 1)[0])


def test_some_classes_are_numbered_anew_in_the_order_given():
    run = built("data.only=('7', '2')", "transforms=()")
    whole = built("transforms=()")
    assert run.source.classes == ("7", "2")
    labels = {name: datasets.labels(whole.source, name, "") for name in ("train", "test")}
    assert run.source.sizes == {name: int(np.isin(found, (7, 2)).sum())
                                for name, found in labels.items()}
    split = run.source.open("test")
    images, other = whole.source.open("test"), np.flatnonzero(np.isin(labels["test"], (7, 2)))
    for i, index in enumerate(other[:9]):
        row = split.read(i)
        assert row["label"] == {7: 0, 2: 1}[labels["test"][index]]
        np.testing.assert_array_equal(row["image"], images.read(index)["image"])
        assert split.where(i) == images.where(index)
    with pytest.raises(ConfigError, match="'x' is not a class"):
        built("data.only=('x',)")


def test_a_number_of_examples_per_class():
    run, other = built("data.per_class=5"), built("data.per_class=5", "seed=1")
    labels = datasets.labels(run.source, "train", "")
    assert np.bincount(labels).tolist() == [5] * 10 and run.source.sizes["test"] == 360
    assert run.steps_per_epoch == 50 / 32
    opened = [built_run.source.open("train") for built_run in (run, other)]
    assert [one.where(i) for one in opened[:1] for i in range(50)] != [
        opened[1].where(i) for i in range(50)]


def test_sampling_sets_how_long_an_epoch_is():
    skewed = ("data.name=synthetic", "data.eval=validation", "data.size=8", "transforms=()")
    run = built(*skewed, "data.sampling={'name': 'repeat_factor', 'threshold': 0.4}",
                "data.mean=0.5", "data.std=0.25", "data.channels=1")
    assert run.steps_per_epoch == 2 * 1024 / 32  # ten classes of a tenth: sqrt(0.4 / 0.1) each
    with pytest.raises(ConfigError, match="not known before"):
        source = DATASETS.get("synthetic")()
        datasets.labels(dataclasses.replace(source, open=lambda name: (
            dataclasses.replace(source.open(name), labels=None))), "train", "here")
    with pytest.raises(ConfigError, match="repeats=0"):
        built("data.repeats=0")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 8), ("other", 6)):
        for label in ("ant", "bee"):
            place = tmp_path / ("photos" if split != "other" else "more/val") / (
                split if split != "other" else "") / label
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(place / f"{i}.png")
    (tmp_path / "more/train").symlink_to(tmp_path / "photos/train")
    return tmp_path


FOLDER = ("data.name=folder", "data.eval=val", "data.mean=0.5", "data.std=0.25",
          "transforms=({'name': 'resize', 'size': 8},)",
          "eval_transforms=({'name': 'resize', 'size': 8},)")


def test_what_cannot_be_read_is_skipped_on_the_device_as_on_the_host(photos):
    bad = [str(photos / "photos" / name) for name in (
        "train/ant/3.png", "train/ant/30.png", "train/bee/9.png", "val/bee/7.png")]
    for path in bad:
        Path(path).write_bytes(b"<html>")
    given = (*FOLDER, f"data.dir={photos}/photos", "data.max_bad_fraction=0.1", "data.channels=3",
             "data.on_error=skip", "evals.test.on_error=skip")
    host, kept = built(*given), built(*given, "data.on_device=True")
    for one, sent in zip(host_batches(host, 4), host_batches(kept, 4), strict=True):
        other = kept.put(sent)
        for name in ("image", "label", "mask"):
            np.testing.assert_array_equal(other[name], one[name])
    variables = host.init().eval_variables()
    scores = [run.evaluations["test"].run(variables) for run in (host, kept)]
    assert scores[0] == scores[1]
    listed = [sorted((row["where"], row["id"], row["label"], row["reason"])
                     for row in run.bad_samples) for run in (host, kept)]
    assert listed[0] == listed[1] and [where for where, *_ in listed[1]] == sorted(bad)
    strict = built(*given, "data.on_device=True", "evals.test.on_error=fail")
    with pytest.raises(DataError, match="not an image"):
        strict.evaluations["test"].run(variables)


@pytest.mark.nightly
def test_bad_images_are_left_out_and_listed(photos, tmp_path):
    bad = photos / "photos/train/ant/3.png"
    bad.write_bytes(b"<html>")
    given = (*FOLDER, f"data.dir={photos}/photos", "data.max_bad_fraction=0.1", "data.channels=3")
    with pytest.raises(DataError, match="not an image") as error:
        loop.train(built(*given), tmp_path / "strict", quiet=True)
    assert error.value.where == str(bad)
    for _ in range(2):  # the second ends at once: nothing is listed twice
        loop.train(built(*given, "data.on_error=skip"), tmp_path / "w", quiet=True)
    rows = [json.loads(line) for line in open(tmp_path / "w/bad_samples.jsonl")]
    assert [(row["where"], row["split"], row["label"]) for row in rows] == [(str(bad), "train", 0)]
    counts = [row.get("bad_samples", 0) for _, row in read_rows(tmp_path / "w/metrics.jsonl")
              if "train/loss" in row]
    assert counts == sorted(counts) and counts[-1] == 1
    assert "1 bad examples left out" in (tmp_path / "w/train.log").read_text()


@pytest.mark.daily(1)
@pytest.mark.parametrize("place", ["folder", "memory"])
def test_a_cache_reads_every_file_once(photos, tmp_path, place, monkeypatch):
    # Blind to changes: only one who reads a file again notices that it is another.
    monkeypatch.setattr(_paths, "version", lambda file, place=None: os.fsdecode(file))
    given = (*FOLDER, f"data.dir={photos}/photos", "data.channels=3",
             f"data.cache={'memory' if place == 'memory' else tmp_path / 'cache'}")
    run = built(*given)
    plain = host_batches(built(*(text for text in given if not text.startswith("data.cache"))), 9)
    batches = run.batches(0)
    cached = [next(batches) for _ in range(6)]  # two passes over 80 images
    for file in (photos / "photos/train").rglob("*.png"):
        other = photos / "other.png"
        other.write_bytes(bytes(file.stat().st_size))
        other.replace(file)  # at once: the pipeline reads ahead in threads
    cached += [next(batches) for _ in range(3)]
    for one, other in zip(plain, cached, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    if place == "folder":  # it serves another run
        np.testing.assert_array_equal(host_batches(built(*given), 1)[0]["image"], plain[0]["image"])


def test_threads_share_one_opened_split_and_what_was_found_of_it(monkeypatch):
    fed, opened = feed_of(built()), []

    def slow(source, name, real=datasets.split):
        time.sleep(0.02)
        opened.append(name)
        return real(source, name)

    monkeypatch.setattr(feed.datasets, "split", slow)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: (fed.split("train"), fed.order("train"),
                                         fed.faults("train")), range(16)))
    assert opened == ["train"] and len({tuple(map(id, row)) for row in found}) == 1


@pytest.mark.daily(1)
@pytest.mark.parametrize("change", ["cut", "gone", "another size"])
def test_a_file_that_changes_under_a_run_is_let_go_or_named(photos, change):
    place = photos / "photos/train/bee/7.png"
    given = (*FOLDER, f"data.dir={photos}/photos", "data.max_bad_fraction=0.1", "data.channels=3",
             "transforms=({'name': 'center_crop', 'size': 8},)")
    runs = [built(*given, f"data.on_error={policy}") for policy in ("fail", "skip")]
    iterators = [run.batches(0) for run in runs]
    before = [next(iterator) for iterator in iterators]
    if change == "gone":
        place.unlink()
    elif change == "cut":
        place.write_bytes(place.read_bytes()[:60])
    else:
        Image.new("RGB", (5, 9)).save(place)
    with pytest.raises(DataError) as error:
        for _ in range(12):
            next(iterators[0])
    assert error.value.where == str(place)
    ids = [next(iterators[1])["id"] for _ in range(12)]
    assert [row["where"] for row in runs[1].bad_samples] == [str(place)]
    np.testing.assert_array_equal(before[0]["id"], before[1]["id"])
    np.testing.assert_array_equal(np.concatenate(ids), np.concatenate(
        [batch["id"] for batch in host_batches(runs[1], 12, 1)]))


@pytest.mark.nightly
def test_the_wait_for_a_slow_input_is_told_and_what_to_do(tmp_path):
    run, slept = built("log.every.steps=6"), 0.15

    def slow(start):
        for batch in run.batches(start):
            time.sleep(slept)
            yield batch

    loop.train(dataclasses.replace(run, batches=slow), tmp_path, quiet=True)
    rows = [row for _, row in read_rows(tmp_path / "metrics.jsonl") if "data_wait" in row]
    waited = rows[-1]["data_wait"] * 6 * 32 / rows[-1]["images_per_second"]
    assert abs(waited - 6 * slept) < 0.1 * 6 * slept
    assert "imgcls bench input" in (tmp_path / "train.log").read_text()


def test_an_evaluation_may_have_data_and_transforms_of_its_own(photos):
    given = (*FOLDER, f"data.dir={photos}/photos", "data.channels=3")
    run = built(*given, "evals.more={'name': 'classification', 'data': {'name': 'folder', 'eval': "
                f"'val', 'dir': '{photos}/more'}}}}",
                "evals.large={'name': 'classification', 'transforms': ({'name': 'resize', 'size': "
                "8, 'interpolation': 'nearest'},)}")
    variables = jax.tree.map(lambda leaf: leaf + 0.1 * np.sin(np.arange(leaf.size)).reshape(
        leaf.shape).astype(leaf.dtype), run.init().eval_variables())  # the head begins at zero
    values = {name: one.run(variables)["loss"] for name, one in run.evaluations.items()}
    assert len(set(values.values())) == 3
    with pytest.raises(ConfigError, match="other classes") as error:
        built(*given, "evals.digits={'name': 'classification', 'data': {'name': 'digits'}}")
    assert error.value.where == "config.evals.digits.data"


def test_data_of_some_of_the_classes_is_answered_among_them(monkeypatch):
    def some(*, channels: int = 1):
        source = datasets.only(DATASETS.get("digits")(), ("3", "7"))

        def opened(name):
            split = source.open(name)

            def read(index):
                row = split.read(index)
                return {**row, "label": 3 + 4 * row["label"]}

            return dataclasses.replace(split, read=read)

        return dataclasses.replace(source, classes=tuple("0123456789"), subset=(3, 7), open=opened)

    DATASETS.names()
    monkeypatch.setitem(DATASETS._found, "some", some)
    run = built("evals.some={'name': 'classification', 'data': {'name': 'some', 'eval': 'test'}}")
    variables = run.init().eval_variables()
    found = run.evaluations["some"].run(variables)
    # The head begins at zero: all classes are alike, and only two are asked for.
    np.testing.assert_allclose(found["loss"], np.log(2), rtol=1e-5)
    np.testing.assert_allclose(run.evaluations["test"].run(variables)["loss"], np.log(10),
                               rtol=1e-5)


PHASES = ("transforms=({'name': 'resize', 'size': {'phases': (4, 8, 12)}},)",
          "eval_transforms=({'name': 'resize', 'size': 12},)", "model.name=resnet18",
          "model.width={'phases': (4, 4, 4)}", "model.norm_group=32",
          "device_transforms=({'name': 'mixup', 'alpha': {'phases': (0.1, 0.2, 0.4)}},)")
NETWORK = tuple(text for text in SMALL if not text.startswith("model"))


def network(*overrides):
    loaded = config.load("digits", [tuple(text.split("=", 1)) for text in (
        *NETWORK, *PHASES, *overrides)])
    return build(loaded.config)


def final(directory, run):
    checkpoints = Checkpoints(directory / "checkpoints", keep=2)
    state, *_ = checkpoints.restore(run.abstract_state)
    checkpoints.close()
    return state


@pytest.mark.nightly
@pytest.mark.usefixtures("two_blocks")
def test_phases_change_the_images_on_the_way_and_resume_anywhere(tmp_path, monkeypatch):
    run = network()
    assert [(first, phase.abstract_batch["image"].shape[1]) for first, phase in run.phases] == [
        (0, 4), (4, 8), (8, 12)]
    assert [part[:2] for part in resume.phases(run, 5)] == [(5, 8), (8, 12)]
    assert run.preprocessing["image_size"] == (12, 12)
    loop.train(run, tmp_path / "whole", quiet=True)
    log = (tmp_path / "whole/train.log").read_text()
    assert log.count("compiled in") == 3 and "step 8: the next phase, images of 12 x 12" in log
    for end in (3, 8, None):  # told to stop within and between phases
        monkeypatch.setattr(Checkpoints, "reached_preemption",
                            lambda self, step, end=end: step == end)
        with pytest.raises(Preempted) if end else contextlib.nullcontext():
            loop.train(network(), tmp_path / "parts", quiet=True)
    for one, other in zip(*(jax.tree.leaves(final(tmp_path / name, run))
                            for name in ("whole", "parts")), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.nightly
def test_phases_of_the_host_alone_are_one_program(tmp_path):
    run = built("transforms=({'name': 'pad_crop', 'padding': {'phases': (0, 1, 2)}},)")
    loop.train(run, tmp_path, quiet=True)
    log = (tmp_path / "train.log").read_text()
    assert log.count("compiled in") == 1 and log.count("the next phase") == 2


@pytest.mark.usefixtures("two_blocks")
def test_phases_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="2 phases and"):
        network("loss.smoothing={'phases': (0.1, 0.2)}")
    with pytest.raises(ConfigError, match="not the same in every phase"):
        network("model.width={'phases': (4, 4, 8)}")
