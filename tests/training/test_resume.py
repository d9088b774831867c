"""Killed, told to stop, and run again: the result is that of a run nobody touched, bit for bit."""

import dataclasses
import random
import signal
import time

import numpy as np
import pytest

from imgcls_jax import config, tree
from imgcls_jax.assembly import build
from imgcls_jax.checkpoint.saving import Checkpoints
from imgcls_jax.errors import ConfigError
from imgcls_jax.training import resume
from imgcls_jax.training.log import read_rows
from tests.commands import imgcls, start
from tests.workdirs import save_workdir

# A convolutional stem with BatchNorm, a Transformer block, dropout, mixup, an average: all of
# what a state holds and a step draws, in a program that compiles in seconds.
SMALL = ("train", "--config=digits", "--config.model.name=vit_mini", "--config.model.width=16",
         "--config.model.depth=1", "--config.model.heads=2", "--config.model.stem=(8,)",
         "--config.model.norm_group=16", "--config.model.dropout=0.1", "--config.batch_size=32",
         "--config.log.every.steps=1", "--config.ema.decay=0.9",
         "--config.schedule.warmup.steps=5",
         "--config.device_transforms=({'name': 'mixup', 'alpha': 0.2},)", "--quiet")


def words(workdir, steps, every):
    return (*SMALL, f"--workdir={workdir}", f"--config.total.steps={steps}",
            f"--config.checkpoint.every.steps={every}", f"--config.evals.test.every.steps={steps}")


def final_state(workdir):
    run = build(config.from_json((workdir / "config.json").read_text()))
    checkpoints = Checkpoints(workdir / "checkpoints", keep=2)
    state, saved, step = checkpoints.restore(run.abstract_state)
    checkpoints.close()
    return {path: np.asarray(leaf) for path, leaf in tree.flatten(state).items()}, saved, step


def assert_same_run(one, other):
    a, saved_a, step_a = final_state(one)
    b, saved_b, step_b = final_state(other)
    assert step_a == step_b and a.keys() == b.keys()
    for path in a:
        assert a[path].tobytes() == b[path].tobytes(), path
    assert saved_a["history"] == saved_b["history"]
    rows = [[(row["step"], row["ids"]) for _, row in read_rows(w / "metrics.jsonl") if "ids" in row]
            for w in (one, other)]
    assert rows[0] == rows[1], "examples of the committed steps"


def step_of(workdir) -> int:
    path = workdir / "metrics.jsonl"
    rows = read_rows(path) if path.exists() else []
    return rows[-1][1]["step"] if rows else 0


def wait_for_step(process, workdir, step, timeout=240):
    """Until the run has logged `step`; false if it ended before."""
    end = time.monotonic() + timeout
    while process.poll() is None:
        if step_of(workdir) >= step:
            return True
        assert time.monotonic() < end, "the run makes no steps"
        time.sleep(0.01)
    return False


TINY = (("model.name", "vit_mini"), ("model.width", "4"), ("model.depth", "0"),
        ("model.stem", "()"), ("schedule.warmup", "None"))


def tiny(*overrides):
    return build(config.load("digits", (*TINY, *overrides)).config)


def started(run, workdir):
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    try:
        return resume.restore(run, checkpoints, workdir)
    finally:
        checkpoints.close()


@pytest.fixture(scope="module")
def tiny_workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tiny")
    save_workdir(tiny(), workdir)
    return workdir


@pytest.mark.parametrize("key, value, said", [
    ("model.width", "8", "model.width: 4 -> 8"), ("ema", "{'decay': 0.9}", "ema"),
    ("optimizer.name", "lion", "optimizer.name: 'sgd' -> 'lion' and"),
    ("data.only", "('1', '2')", "data.only")])
def test_a_change_that_gives_other_arrays_is_named_by_its_key(tiny_workdir, key, value, said):
    """And not by the arrays that differ, a head or a moving average."""
    with pytest.raises(ConfigError, match="the config differs from the one") as error:
        started(tiny((key, value)), tiny_workdir)
    assert said in str(error.value) and "params" not in str(error.value)


def test_other_classes_are_named_before_the_head_that_has_their_number(tiny_workdir):
    run = tiny()
    ten = run.source.classes
    for classes, said, fix in (
            (("a", *ten), "1 added, ['a']", f'--config.data.only="{ten}"'),
            (ten[:8], "2 missing, ['8', '9']", "restore the missing ones"),
            (("a", *ten[1:]), "1 added, ['a'], 1 missing, ['0']", "restore the missing ones"),
            (ten[::-1], "their order differs", "labels.json")):
        other = dataclasses.replace(run, source=dataclasses.replace(run.source, classes=classes))
        with pytest.raises(ConfigError, match="the classes of the data are not those") as error:
            started(other, tiny_workdir)
        assert error.value.what.endswith(f"trained with: {said}") and fix in error.value.fix


def test_classes_that_were_added_may_be_left_out(tiny_workdir):
    (line,) = started(tiny(("data.only", str(tiny().source.classes))), tiny_workdir).changes
    assert line.startswith("changed: config.data.only")


def test_each_change_of_the_config_is_a_line(tiny_workdir):
    assert started(tiny(), tiny_workdir).changes == []
    run = tiny(("total.epochs", "60"), ("checkpoint.keep", "9"), ("log.every.epochs", "7"))
    assert [line.partition(";")[0] for line in started(run, tiny_workdir).changes] == [
        "changed: config.checkpoint.keep: 2 -> 9", "changed: config.log.every.epochs: 1 -> 7",
        "changed: config.total.epochs: 30 -> 60"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """The workdir of 60 steps that nobody touched."""
    workdir = tmp_path_factory.mktemp("whole") / "w"
    code, _, err = imgcls(cache, *words(workdir, 60, 5))
    assert code == 0, err
    return workdir


def kill_and_resume(cache, whole, cut, *, steps, every, kills, seed):
    draw, done = random.Random(seed), 0
    for i in range(kills):
        process = start(cache, *words(cut, steps, every))
        target = max(1, int((i + draw.random()) / kills * steps))
        if wait_for_step(process, cut, target):
            time.sleep(draw.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            done += 1
        process.communicate()
    code, _, err = imgcls(cache, *words(cut, steps, every))
    assert code == 0, err
    assert done >= kills * 0.9, "the runs ended before they were killed"
    assert_same_run(whole, cut)


@pytest.mark.nightly
def test_twenty_kills(cache, tmp_path):
    whole = tmp_path / "whole"
    code, _, err = imgcls(cache, *words(whole, 600, 5))
    assert code == 0, err
    kill_and_resume(cache, whole, tmp_path / "cut", steps=600, every=5, kills=20, seed=1)


def stop(cache, cut, kind):
    """Ends a run by a signal that it obeys."""
    process = start(cache, *words(cut, 60, 5))
    assert wait_for_step(process, cut, 7)
    process.send_signal(kind)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and "run the same line again" in err
    assert (cut / "checkpoints" / str(step_of(cut))).is_dir(), "saved at the step it stopped at"


@pytest.mark.nightly
def test_a_run_that_is_terminated_then_killed_ends_as_an_uninterrupted_one(cache, whole, tmp_path):
    cut = tmp_path / "cut"
    stop(cache, cut, signal.SIGTERM)
    process = start(cache, *words(cut, 60, 5))
    assert wait_for_step(process, cut, 33), "it ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, _, err = imgcls(cache, *words(cut, 60, 5))
    assert code == 0, err
    assert_same_run(whole, cut)


@pytest.mark.nightly
def test_ctrl_c_saves_exits_75_and_goes_on(cache, whole, tmp_path):
    stop(cache, tmp_path / "cut", signal.SIGINT)
    assert imgcls(cache, *words(tmp_path / "cut", 60, 5))[0] == 0
    assert_same_run(whole, tmp_path / "cut")


def start_two(cache, port, workdir, *more):
    return [start(cache, *more, f"--workdir={workdir}", f"--coordinator=127.0.0.1:{port}",
                  "--processes=2", f"--process_id={i}", devices=2) for i in range(2)]


@pytest.mark.nightly
@pytest.mark.parametrize("kind", [
    signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)])
def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(cache, free_port, tmp_path, kind):
    cut = tmp_path / "cut"
    processes = start_two(cache, free_port, cut, *words(cut, 5000, 10000))
    try:
        assert wait_for_step(processes[0], cut, 5)
        processes[1].send_signal(kind)
        ends = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [75, 75], ends
    said = {next(line for line in err.splitlines() if "saved at step" in line) for _, err in ends}
    assert len(said) == 1, said
    assert (cut / "checkpoints" / str(step_of(cut))).is_dir()
