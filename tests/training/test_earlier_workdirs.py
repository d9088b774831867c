"""A workdir that version 0.1.0 wrote, before the package was laid out in wings: still good."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

import imgcls_jax
from imgcls_jax.__main__ import main
from imgcls_jax.config import flatten
from imgcls_jax.training.workdir import read_json

# Made by `imgcls train --config=digits` of commit f52625c (resnet20 of width 2, 6 steps), and the
# probabilities of ten images by `imgcls_jax.load` of it.
ARCHIVE = Path(__file__).with_name("workdir_0.1.0.tar.gz")
OPTIONS = ["model.width=2", "model.norm_group=None", "schedule.warmup=None",
           "checkpoint.best=test/top1", "checkpoint.every.steps=3", "evals.test.every.steps=3"]


@pytest.fixture
def earlier(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "workdir", np.load(tmp_path / "expected.npz")


def test_its_model_answers_as_it_did(earlier):
    workdir, expected = earlier
    found = imgcls_jax.load(workdir)(list(expected["images"]))
    np.testing.assert_allclose(found, expected["probabilities"], atol=1e-5)


def test_it_is_evaluated_to_the_same_numbers(earlier, capsys):
    workdir, _ = earlier
    assert main(["eval", f"--workdir={workdir}"]) == 0
    assert "step 6, test: loss 2.3290, top1 0.1389, top5 0.5194" in capsys.readouterr().out


@pytest.mark.nightly
def test_training_goes_on_from_it(earlier):
    workdir, _ = earlier
    before = flatten(read_json(workdir / "config.json"))
    line = ["train", "--config=digits", f"--workdir={workdir}", "--config.total.steps=8", "--quiet",
            *[f"--config.{option}" for option in OPTIONS]]
    assert main(line) == 0
    results, after = read_json(workdir / "results.json"), read_json(workdir / "config.json")
    assert results["step"] == 8 and results["best"]["step"] == 6
    # What f52625c itself went on to, from the same checkpoint.
    assert results["eval"]["test"]["loss"] == pytest.approx(2.335473, rel=1e-4)
    changed = {key for key, value in flatten(after).items() if before.get(key) != value}
    assert changed == {"total.steps", "data.parts"} and after["data"]["parts"] == "listed"
