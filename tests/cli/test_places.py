"""Where data, workdirs and outputs lie: in any folder a command is given, killed or moved."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls_jax import config
from imgcls_jax.__main__ import main
from imgcls_jax.assembly import build
from imgcls_jax.cli._data import keep_outside
from imgcls_jax.errors import ConfigError
from tests.commands import error_lines
from tests.workdirs import save_workdir

SMALL = ("--config.model.name=vit_mini", "--config.model.width=16", "--config.model.depth=0",
         "--config.model.heads=2", "--config.model.stem=()", "--config.batch_size=8",
         "--config.schedule.warmup.steps=1", "--config.evals.val.every.steps=4",
         "--config.checkpoint.every.steps=4", "--config.transforms[0].size=8", "--quiet")


def words(data, workdir, steps=4):
    return ["train", f"--config=finetune:model=vit_mini,data={data},size=8", *SMALL,
            f"--config.total.steps={steps}", f"--workdir={workdir}"]


def draw(folder: Path, classes=("cat", "dog"), each=8):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
                folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of `photos`, and of the workdir `w` that was trained on them by relative paths."""
    folder = tmp_path_factory.mktemp("home")
    draw(folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(words("photos", "w")) == 0
    return folder


def test_a_run_of_relative_paths_is_evaluated_and_resumed_from_any_folder(
        trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "else").mkdir()
    home = tmp_path / "home"
    shutil.copytree(trained, home)
    monkeypatch.chdir(tmp_path / "else")
    assert main(["eval", f"--workdir={home / 'w'}"]) == 0
    photos = str(trained / "photos")
    record = json.loads((home / "w" / "record.json").read_text())["config"]
    assert record["data"]["dir"] == "photos", "as it was given"
    assert json.loads((home / "w" / "config.json").read_text())["data"]["dir"] == photos
    assert main(["train", f"--config={home / 'w' / 'config.json'}", "--config.checkpoint.keep=3",
                 f"--workdir={home / 'w'}", "--quiet"]) == 0
    assert "changed: config.checkpoint.keep: 2 -> 3\n" in (home / "w" / "train.log").read_text()
    # The same folder in other words is no change; another is one, and told.
    monkeypatch.setenv("HOME", str(trained))
    log = home / "w" / "train.log"
    before = len(log.read_text())
    assert main(words("~/photos", home / "w", 8)) == 0
    told = [line[20:] for line in log.read_text()[before:].splitlines() if "changed: " in line]
    assert told == ["changed: config.total.steps: 4 -> 8; the learning rate now follows a schedule "
                    "of this length"]
    before = len(log.read_text())
    assert main([*words(home / "photos", home / "w", 8), "--config.log.every.steps=5"]) == 0
    told = [line[20:] for line in log.read_text()[before:].splitlines() if "changed: " in line]
    assert told == [f"changed: config.data.dir: {photos!r} -> {str(home / 'photos')!r}",
                    "changed: config.log.every.steps: 20 -> 5"]


def test_a_workdir_of_an_earlier_version_goes_on_where_its_relative_paths_lead(
        trained, tmp_path, monkeypatch):
    """Its checkpoints hold what was typed."""
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "home"))
    shutil.rmtree("w")
    loaded = config.load(words("photos", "w")[1].partition("=")[2],
                         [tuple(word.removeprefix("--config.").split("=", 1)) for word in words(
                             "photos", "w") if word.startswith("--config.")])
    run = build(loaded.config)
    assert run.config["data"]["dir"] == "photos"
    save_workdir(run, Path("w"))
    assert main(words("photos", "w")) == 0
    assert "changed: " not in Path("w/train.log").read_text()
    assert json.loads(Path("w/config.json").read_text())["data"]["dir"] == str(
        tmp_path / "home" / "photos")


def test_moved_data_are_named_by_an_override(trained, tmp_path, capsys):
    """As a workdir says that a version has written which kept paths as they were typed."""
    home = tmp_path / "home"
    shutil.copytree(trained, home)
    assert main(["eval", f"--workdir={home / 'w'}", "--config.data.dir=moved"]) == 3
    assert "config.data.dir" in error_lines(capsys.readouterr().err)[-1]
    assert main(["eval", f"--workdir={home / 'w'}", f"--config.data.dir={home / 'photos'}"]) == 0


def test_every_path_of_a_config_is_made_absolute_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "w").mkdir()
    given = {"data": {"name": "tfrecord", "files": {"train": "a-*", "val": "gs://b/a-*"},
                      "classes": 3, "cache": "memory", "root": "", "train": "train"},
             "evals": {"plain": None, "own": {"name": "classification", "data": {
                 "name": "manifest", "path": "~/rows.csv", "classes": "names.txt"}}},
             "init": {"weights": "w"}, "step": {"name": "distill", "teacher": "resnet50/v2"},
             "total": {"steps": 1}}
    found = config.located(given)
    assert found == {**given,
                     "data": {**given["data"], "files": {"train": f"{tmp_path}/a-*",
                                                         "val": "gs://b/a-*"}},
                     "evals": {"plain": None, "own": {"name": "classification", "data": {
                         "name": "manifest", "path": "/home/me/rows.csv",
                         "classes": f"{tmp_path}/names.txt"}}},
                     "init": {"weights": f"{tmp_path}/w"}}
    assert config.located(found) == found


# ---- not among the images ---------------------------------------------------------------------


@pytest.mark.parametrize("line", [
    words("photos", "photos/w"), words("photos", "photos"), words("photos", "photos/cat/w"),
    ["data", "show", "photos", "--out=photos/a.png"],
    ["data", "prepare", "photos", "--out=photos/records"],
    ["baseline", "--data=photos", "--workdir=photos/w"],
    ["lr", "--config=finetune:model=resnet18,data=photos", "--out=photos/curve.png"]],
    ids=lambda line: " ".join([*line[:2], line[-1]]))
def test_nothing_is_written_where_images_are_read(line, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "photos", "photos")
    before = sorted(Path("photos").rglob("*"))
    assert main(line) == 2
    lines = error_lines(capsys.readouterr().err)
    assert "is within the folder of images" in lines[0] and str(tmp_path / "photos") in lines[-1]
    assert sorted(Path("photos").rglob("*")) == before


def test_a_workdir_that_is_not_named_is_not_made_among_images(trained, tmp_path, monkeypatch,
                                                              capsys):
    monkeypatch.chdir(shutil.copytree(trained / "photos", tmp_path / "photos"))
    assert main(words(".", "")[:-1]) == 2
    assert "is within the folder of images" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["cat", "dog"]


@pytest.mark.parametrize("link", ["cat", "train", "train/cat", "photos/cat"])
def test_where_the_link_of_a_class_leads_is_among_the_images(tmp_path, link):
    root, there = tmp_path / "photos", tmp_path / "elsewhere"
    draw(root / Path(link).parent, each=1)
    draw(there, each=1)
    shutil.rmtree(root / link, ignore_errors=True)
    (root / link).symlink_to(there, target_is_directory=True)
    (root / "broken").symlink_to(tmp_path / "nowhere")
    (root / "itself").symlink_to("itself")
    chosen = {"data": {"name": "folder", "dir": str(root)}, "evals": {}}
    for inside in ("elsewhere/runs/a", "elsewhere", f"photos/{link}/runs"):
        with pytest.raises(ConfigError, match="is within the folder of images") as error:
            keep_outside(chosen, tmp_path / inside, "--workdir")
        assert "links" in error.value.fix
    keep_outside(chosen, tmp_path / "runs", "--workdir")


def test_next_to_the_folders_of_splits_is_not_among_the_images(tmp_path):
    for split in ("Train", "val"):
        draw(tmp_path / split, each=1)
    chosen = {"data": {"name": "folder", "dir": str(tmp_path)}, "evals": {}}
    keep_outside(chosen, tmp_path / "runs" / "a", "--workdir")
    keep_outside(chosen, tmp_path.with_name("other"), "--workdir")
    (tmp_path.parent / "scratch").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path.parent / "scratch")
    keep_outside(chosen, tmp_path / "linked" / "a", "--workdir")
    for inside in ("Train/a", "val/cat/a", ""):
        with pytest.raises(ConfigError):
            keep_outside(chosen, tmp_path / inside, "--workdir")
    shutil.rmtree(tmp_path / "val" / "cat")
    shutil.rmtree(tmp_path / "val" / "dog")
    shutil.rmtree(tmp_path / "Train")
    (tmp_path / "cat").mkdir()  # now `val` is a class
    with pytest.raises(ConfigError):
        keep_outside(chosen, tmp_path / "runs", "--workdir")
