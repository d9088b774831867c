"""A folder that changes between two starts of the same line of training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls_jax.__main__ import main
from imgcls_jax.checkpoint.reading import read_config
from imgcls_jax.training import loop
from imgcls_jax.training.workdir import read_json


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(
                tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def train(photos, steps: int, *more: str) -> int:
    resize = "--config.{}=({{'name': 'resize', 'size': 8}},)"
    return main(["train", "--config=digits", "--config.data.name=folder", "--quiet",
                 f"--config.data.dir={photos}", "--config.data.channels=1",
                 "--config.data.eval=val",
                 "--config.model.name=vit_mini", "--config.model.width=8", "--config.model.depth=1",
                 "--config.model.heads=1", "--config.schedule.warmup=None",
                 "--config.batch_size=8", f"--config.total.steps={steps}",
                 resize.format("transforms"), resize.format("eval_transforms"),
                 "--config.evals={'val': {'name': 'classification'}}",
                 f"--workdir={photos.parent / 'w'}", *more])


def test_a_changed_folder_is_told_and_refused_unless_asked_for(photos, capsys):
    workdir = photos.parent / "w"
    assert train(photos, 2) == 0
    before = read_json(workdir / "splits.json")
    lost = before["val"][0]
    shutil.copy(photos / "ant" / "3.png", photos / "ant" / "new.png")
    (photos / lost).unlink()

    assert train(photos, 2) == 0  # it has ended, and trains no more
    assert "warning: the data has changed" in capsys.readouterr().err
    assert train(photos, 4) == 2
    told = capsys.readouterr().err
    assert "1 example added (ant/new.png)" in told and f"removed ({lost})" in told
    assert "--config.data.on_change=accept" in told
    assert read_json(workdir / "splits.json") == before  # a refused start changes nothing
    assert read_json(workdir / "results.json")["step"] == 2

    # An evaluation says so, too, and goes on.
    assert main(["eval", f"--workdir={workdir}"]) == 0
    assert f"val: 1 example removed ({lost})" in capsys.readouterr().err

    known = f"--config.data.known={workdir / 'splits.json'}"
    assert train(photos, 4, "--config.data.on_change=accept", known) == 0
    assert "warning: the data has changed" in capsys.readouterr().err
    after = read_json(workdir / "splits.json")
    assert {path: split for split in after for path in after[split]
            if path not in (lost, "ant/new.png")} == {
        path: split for split in before for path in before[split] if path != lost}
    # From here on this is the data of the run, wherever it lies.
    assert set(read_config(workdir / "checkpoints")[0]["examples"]) == {"train", "val"}
    moved = photos.rename(Path(f"{photos}-moved"))
    assert train(moved, 6, known) == 0
    assert json.loads((workdir / "results.json").read_text())["step"] == 6
    gone = workdir.rename(photos.parent / "w-moved")  # `known` is in it
    assert main(["eval", f"--workdir={gone}"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_where_images_were_is_kept_until_the_next_checkpoint(photos, monkeypatch):
    """A run that is killed before it has one goes on from the earlier: its splits still count."""
    assert train(photos, 2) == 0
    workdir = photos.parent / "w"
    before = read_json(workdir / "splits.json")
    shutil.copy(photos / "ant" / "3.png", photos / "ant" / "new.png")
    monkeypatch.setattr(loop._Loop, "run_steps", killed)
    assert train(photos, 4, "--config.data.on_change=accept") == 130
    assert read_json(workdir / "splits.json") == before
    assert len(list((workdir / "examples").glob("train-*.npz"))) == 2
    monkeypatch.undo()
    assert train(photos, 4, "--config.data.on_change=accept") == 0
    assert sum(map(len, read_json(workdir / "splits.json").values())) == 25


def killed(*arguments):
    raise KeyboardInterrupt
