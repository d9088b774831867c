"""The loop: what it leaves in the workdir, when it stops, and what may change on the way."""

import errno
import fcntl
import json

import jax
import pytest

from imgcls_jax import tree
from imgcls_jax.__main__ import main
from imgcls_jax.checkpoint import reading, saving
from imgcls_jax.training import loop
from imgcls_jax.training.log import read_rows
from imgcls_jax.training.workdir import open_workdir
from tests.commands import error_lines

# Patches, positions, a norm and a head: of the loop a network of no blocks says as much.
WORDS = ("train", "--config=digits", "--config.model.name=vit_mini", "--config.model.width=16",
         "--config.model.depth=0", "--config.model.stem=()",
         "--config.batch_size=32", "--config.schedule.warmup.steps=1",
         "--config.log.every.steps=2", "--config.evals.test.every.steps=4",
         "--config.checkpoint.every.steps=4", "--quiet")


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGCLS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def train(workdir, *words) -> dict:
    assert main([*WORDS, f"--workdir={workdir}", *words]) == 0
    return json.loads((workdir / "results.json").read_text())


def rows(workdir):
    return [row for _, row in read_rows(workdir / "metrics.jsonl")]


EIGHT = ("--config.total.steps=8", "--config.checkpoint.best=test/top1")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "w"
    return workdir, train(workdir, *EIGHT)


def cut(workdir, step):
    """The same run, but for a preemption at a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving.Checkpoints, "reached_preemption", lambda self, at: at == step)
        assert main([*WORDS, *EIGHT, f"--workdir={workdir}"]) == 75


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """(workdir, results, steps that the guarded loop began at) of a run cut off at step 4. While
    it goes on, nothing may cross to the device unasked."""
    workdir = tmp_path_factory.mktemp("resumed") / "w"
    cut(workdir, 4)
    run_steps, entered = loop._Loop.run_steps, []

    def guarded(self, state, start, compiling):
        entered.append(start)
        with jax.transfer_guard_host_to_device("disallow"):
            return run_steps(self, state, start, compiling)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Loop, "run_steps", guarded)
        return workdir, train(workdir, *EIGHT), entered


def test_the_results_are_those_of_the_last_step(run):
    workdir, results = run
    last = rows(workdir)[-1]
    assert results["step"] == last["step"] == 8
    assert results["eval"]["test"]["top1"] == last["test/top1"]
    scores = {row["step"]: row["test/top1"] for row in rows(workdir) if "test/top1" in row}
    assert results["best"]["test/top1"] == max(scores.values()) and set(scores) == {4, 8}


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_weights_bit_for_bit(run, resumed):
    assert resumed[1]["eval"] == run[1]["eval"]
    once, again = (tree.flatten(reading.restore_weights(folder / "checkpoints", 8)[0])
                   for folder in (run[0], resumed[0]))
    assert {path: leaf.tobytes() for path, leaf in once.items()} == {
        path: leaf.tobytes() for path, leaf in again.items()}


def test_the_record_holds_what_a_reader_needs(run):
    record = json.loads((run[0] / "record.json").read_text())
    assert record["claim"]["top1"] == 99.0 and record["config_name"] == "digits"
    assert record["seed"] == 0 and record["config"]["total"] == {"steps": 8}
    assert record["versions"]["jax"] and record["images_per_second"] > 0
    assert [row["step"] for row in record["curve"] if "train/loss" in row] == [2, 4, 6, 8]


def test_the_small_files_of_a_workdir(run):
    workdir, _ = run
    assert json.loads((workdir / "labels.json").read_text()) == list("0123456789")
    assert json.loads((workdir / "config.json").read_text())["batch_size"] == 32
    assert "devices" in json.loads((workdir / "env.json").read_text())
    assert list((workdir / "tb").iterdir())
    assert "step 8/8" in (workdir / "train.log").read_text()


def test_eval_finds_what_training_measured(run, capsys):
    workdir, results = run
    capsys.readouterr()
    assert main(["eval", f"--workdir={workdir}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 8
    assert found["eval"]["test"] == pytest.approx(results["eval"]["test"], abs=1e-6)


def test_a_loaded_model_predicts_what_evaluation_counted(run):
    import numpy as np
    from sklearn.datasets import load_digits

    import imgcls_jax

    model = imgcls_jax.load(run[0])
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[::5, ..., None]
    probabilities = model(list(images))
    assert probabilities.shape == (360, 10)
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    hits = (probabilities.argmax(-1) == digits.target[::5]).mean()
    assert hits == pytest.approx(run[1]["eval"]["test"]["top1"])


@pytest.mark.nightly
def test_a_longer_run_goes_on_and_no_step_is_told_twice(tmp_path):
    workdir = tmp_path / "w"
    train(workdir, "--config.total.steps=4")
    results = train(workdir, "--config.total.steps=8")
    assert results["step"] == 8
    assert [row["step"] for row in rows(workdir) if "train/loss" in row] == [2, 4, 6, 8]


def test_it_stops_early_and_stays_stopped(tmp_path):
    workdir = tmp_path / "w"
    words = ("--config.total.steps=8", "--config.stop.metric=test/loss", "--config.stop.mode=max",
             "--config.evals.test.every.steps=2")
    results = train(workdir, *words, "--config.stop.patience.steps=2")  # a loss only falls
    assert results["step"] == 4 and "has not risen since step 2" in results["stopped"]
    assert reading.choose(workdir / "checkpoints") == 4
    assert train(workdir, *words, "--config.stop.patience.steps=2") == results
    more = train(workdir, *words, "--config.stop.patience.steps=4")
    assert more["step"] == 6, "asked for more patience, it goes on"


def assert_made_up_for(run, workdir, results):
    assert {**results, "workdir": ""} == {**run[1], "workdir": ""}
    assert [row["step"] for row in rows(workdir) if "test/top1" in row] == [4, 8]


def test_an_evaluation_that_a_preemption_cut_off_is_made_up_for(run, resumed):
    assert_made_up_for(run, *resumed[:2])


@pytest.mark.nightly
def test_so_is_that_of_the_last_step(run, tmp_path):
    cut(tmp_path / "w", 8)
    assert_made_up_for(run, tmp_path / "w", train(tmp_path / "w", *EIGHT))


def test_a_job_whose_workdir_another_takes_stops_and_writes_nothing_more(tmp_path, capsys):
    workdir, others = tmp_path / "w", []

    def taken(checkpoints, step):
        if step == 5:
            (workdir / "lock").unlink()
            others.append(open_workdir(workdir, main=True))
            others.append((workdir / "metrics.jsonl").read_bytes())
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving.Checkpoints, "reached_preemption", taken)
        assert main([*WORDS, *EIGHT, f"--workdir={workdir}"]) == 2
    lines = error_lines(capsys.readouterr().err)
    assert len(lines) == 3 and "another job has taken this workdir" in lines[0]
    others[0].check()
    others[0].release()
    assert (workdir / "metrics.jsonl").read_bytes() == others[1]
    assert reading.choose(workdir / "checkpoints") == 4 and not (workdir / "results.json").exists()


def test_without_locks_a_killed_jobs_workdir_is_gone_on_with_when_asked(run, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    (run[0] / "lock").write_text("another machine, process 7, since yesterday\n")
    assert main([*WORDS, *EIGHT, f"--workdir={run[0]}"]) == 2
    lines = error_lines(capsys.readouterr().err)
    assert len(lines) == 3 and "another machine, process 7" in lines[0] and (
        "--take_over" in lines[2])
    assert train(run[0], *EIGHT, "--take_over") == run[1]
    assert not (run[0] / "lock").exists()


def test_a_metric_that_no_evaluation_gives_is_told_with_the_nearest(tmp_path, capsys):
    assert main([*WORDS, "--config.total.steps=8", "--config.checkpoint.best=test/topp1",
                 f"--workdir={tmp_path / 'w'}"]) == 2
    assert "did you mean 'test/top1'" in capsys.readouterr().err


def test_running_a_finished_run_again_keeps_its_record(run):
    workdir, _ = run
    before = (workdir / "record.json").read_bytes()
    train(workdir, *EIGHT)
    assert (workdir / "record.json").read_bytes() == before


@pytest.mark.nightly
def test_the_average_is_what_is_evaluated(tmp_path):
    plain = train(tmp_path / "a", "--config.total.steps=4")
    frozen = train(tmp_path / "b", "--config.total.steps=4", "--config.ema.decay=0.999999")
    start = train(tmp_path / "c", "--config.total.steps=4", "--config.schedule.base=0.0")
    assert frozen["eval"]["test"]["loss"] == pytest.approx(start["eval"]["test"]["loss"], rel=1e-5)
    assert plain["eval"]["test"]["loss"] != pytest.approx(start["eval"]["test"]["loss"], rel=1e-3)


def test_nothing_crosses_to_the_device_unasked_in_the_loop(resumed):
    """Batches are put there ahead of the step: a hidden transfer would make each step wait. One
    would have ended the guarded run."""
    assert resumed[2] == [4] and resumed[1]["step"] == 8
