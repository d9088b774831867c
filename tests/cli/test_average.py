"""imgcls average: the mean of what was saved, statistics of the averaged network."""

import dataclasses
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from imgcls_jax import config, environment, tree
from imgcls_jax.assembly import build
from imgcls_jax.checkpoint import reading
from imgcls_jax.checkpoint.saving import Checkpoints
from imgcls_jax.cli import _command as command
from tests import commands
from tests.commands import error_lines

SMALL = (("data.name", "synthetic"), ("data.train", "train"), ("data.eval", "validation"),
         ("data.size", "8"), ("data.examples", "64"), ("model.name", "vit_mini"),
         ("model.stem", "(4,)"), ("model.depth", "0"), ("model.width", "4"), ("batch_size", "16"),
         ("transforms", "()"),
         ("data.mean", "0.5"), ("data.std", "0.25"))


def run_of(*overrides):
    return build(config.load("digits", (*SMALL, *overrides)).config)


def save(run, folder, steps, seed=0, low=0.5):
    """A checkpoint of random weights at each step; step -> variables, f64."""
    rng, made = np.random.default_rng(seed), {}
    folder.mkdir(exist_ok=True)
    keeper = Checkpoints(folder / "checkpoints", keep=9)
    for step in steps:
        state = run.init()
        values = jax.tree.map(lambda leaf: (low + rng.random(leaf.shape)).astype(leaf.dtype),
                              {"params": state.params, "model_state": state.model_state})
        if state.ema is not None:
            values["ema"] = jax.tree.map(lambda leaf: leaf + 1, dict(values))
        state = state.replace(**values)
        keeper.save(step, state, {
            "config": run.config, "classes": run.source.classes, "model": run.spec.name,
            "preprocessing": run.preprocessing, "versions": environment.versions(), "history": [],
            "stopped": None})
        made[step] = jax.tree.map(np.float64, state.eval_variables())
    keeper.wait()
    keeper.close()
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(folder of a run with three checkpoints, that of another with one, their variables)"""
    folder, run = tmp_path_factory.mktemp("runs"), run_of()
    return folder / "a", folder / "b", save(run, folder / "a", (1, 2, 3)), save(
        run, folder / "b", (3,), seed=1)


def mean(*variables):
    return jax.tree.map(lambda *leaves: np.mean(leaves, 0), *variables)


def read(folder):
    weights, item, step = reading.restore_weights(folder / "checkpoints")
    return {"params": weights["params"], **weights["model_state"]}, weights["ema"], item, step


def close(found, expected):
    assert not tree.diff(found, jax.tree.map(lambda leaf: leaf.astype(np.float32), expected))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, expected)


def test_the_newest_of_one_run(runs, tmp_path, capsys):
    a, _, made, _ = runs
    assert command.main(["average", str(a), "--last=2", "--batch_norm=0",
                         f"--workdir={tmp_path}"]) == 0
    found, ema, item, step = read(tmp_path)
    close(found, mean(made[2], made[3]))
    assert ema is None and step == 3
    assert item["classes"] == list(map(str, range(10))) and "a/2" in item["stopped"]
    assert "2 checkpoints" in capsys.readouterr().out


def test_weights_that_are_not_finite_are_never_averaged(runs, tmp_path, capsys):
    _, b, _, _ = runs
    save(run_of(), tmp_path / "broken", (3,), low=np.nan)
    assert command.main(["average", str(b), str(tmp_path / "broken"), "--batch_norm=0",
                         f"--workdir={tmp_path / 'w'}"]) == 4
    assert f"{tmp_path / 'broken'}, step 3" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_one_step_of_several_runs(runs, tmp_path):
    a, b, made, other = runs
    assert command.main(["average", str(a), str(b), "--step=3", "--batch_norm=0",
                         f"--workdir={tmp_path}"]) == 0
    close(read(tmp_path)[0], mean(made[3], other[3]))


def test_statistics_are_those_of_the_averaged_network_over_the_data(runs, tmp_path):
    """Of the BatchNorm in the stem: numpy's of its convolution, over all batches."""
    a, _, made, _ = runs
    assert command.main(["average", str(a), "--last=3", "--batch_norm=64",
                         f"--workdir={tmp_path}"]) == 0
    found = read(tmp_path)[0]
    expected = mean(*made.values())
    close(found["params"], expected["params"])
    run = run_of()
    means, variances = [], []
    for _, batch in zip(range(4), run.batches(0), strict=False):
        images = (batch["image"].astype(np.float32) / 255 - 0.5) / 0.25
        stem = jax.lax.conv_general_dilated(
            images, expected["params"]["stem_conv0"]["kernel"].astype(np.float32), (1, 1),
            [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC"))
        stem = np.float64(stem).reshape(-1, stem.shape[-1])
        means.append(stem.mean(0))
        variances.append(stem.var(0, ddof=1))
    stats = found["batch_stats"]["stem_norm0"]
    np.testing.assert_allclose(stats["mean"], np.mean(means, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["var"], np.mean(variances, 0), rtol=1e-4)


@pytest.mark.nightly
def test_of_a_run_with_a_moving_average_it_is_that_which_counts(tmp_path):
    run = run_of(("ema", "{'decay': 0.9}"))
    made = save(run, tmp_path / "a", (1, 2))
    assert command.main(["average", str(tmp_path / "a"), "--last=2", "--batch_norm=0",
                         f"--workdir={tmp_path / 'w'}"]) == 0
    found, ema, _, _ = read(tmp_path / "w")
    close(found, mean(*made.values()))
    jax.tree.map(np.testing.assert_array_equal, {"params": ema["params"], **ema["model_state"]},
                 found)
    assert command.main(["eval", f"--workdir={tmp_path / 'w'}"]) == 0


def test_a_killed_line_is_begun_again(runs, tmp_path):
    """What a kill among the arrays leaves: the folder that becomes the workdir when complete."""
    a, _, made, _ = runs
    line = ["average", str(a), "--last=3", "--batch_norm=0", f"--workdir={tmp_path / 'w'}"]
    partial = tmp_path / "w.partial"
    (partial / "checkpoints" / "3" / "weights").mkdir(parents=True)
    (partial / "checkpoints" / ".saving").write_text("3")
    (partial / "lock").write_text("host, process 1\n")
    (partial / "unfinished.json").write_text("{}")
    assert command.main(line) == 0
    close(read(tmp_path / "w")[0], mean(*made.values()))
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    assert {path.name for path in (tmp_path / "w").iterdir()} == {
        "checkpoints", "config.json", "labels.json", "lock"}
    assert command.main(line) == 2, "complete: not to be replaced"


def test_what_is_not_ours_is_not_begun_again(runs, tmp_path, capsys):
    for place in ("w.partial", "w"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "thesis.tex").write_text("mine")
        assert command.main(["average", str(runs[0]), "--batch_norm=0",
                             f"--workdir={tmp_path / 'w'}"]) == 2
        lines = error_lines(capsys.readouterr().err)
        assert "is not empty" in lines[0] and lines[1] == f"where: {tmp_path / place}"
        assert [path.name for path in (tmp_path / place).iterdir()] == ["thesis.tex"]


KILLED = """
import os, signal, sys
from imgcls_jax.__main__ import main
from imgcls_jax.checkpoint import digests
digests.sign = lambda _: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


@pytest.mark.nightly
def test_a_kill_within_the_save_leaves_what_the_same_line_begins_again(runs, tmp_path):
    line = ["average", str(runs[0]), "--last=3", "--batch_norm=0", f"--workdir={tmp_path / 'w'}"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *line],
                            env=commands.environment(tmp_path / "c"))
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "w").exists()
    assert command.main(line) == 0
    close(read(tmp_path / "w")[0], mean(*runs[2].values()))


@pytest.mark.parametrize("words, said", [
    (["--last=4"], "has 3 checkpoints, but --last=4"),
    (["--step=7"], "there is no checkpoint '7'"),
])
def test_what_is_not_there_is_refused(runs, tmp_path, capsys, words, said):
    a = runs[0]
    assert command.main(["average", str(a), *words, f"--workdir={tmp_path / 'w'}"]) == 4
    assert said in error_lines(capsys.readouterr().err)[0] and not (tmp_path / "w").exists()


def test_another_model_or_other_classes_are_refused(runs, tmp_path, capsys):
    a = runs[0]
    save(run_of(("model.width", "8")), tmp_path / "wide", (1,))
    other = run_of()
    other = dataclasses.replace(other, source=dataclasses.replace(
        other.source, classes=tuple("abcdefghij")))
    save(other, tmp_path / "other", (1,))
    for folder, said in (("wide", "another model"), ("other", "classes are not those")):
        assert command.main(["average", str(a), str(tmp_path / folder),
                             f"--workdir={tmp_path / 'w'}"]) == 4
        assert said in capsys.readouterr().err
    assert command.main(["average", f"--workdir={tmp_path / 'w'}"]) == 2
    assert command.main(["average", str(a), f"--workdir={tmp_path / 'wide'}"]) == 2
