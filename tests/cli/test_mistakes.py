"""What people get wrong, and what they are told: at most five lines, the exit code, the mending.

Each runs the command itself; nothing that was there before may be lost.
"""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls_jax import config
from imgcls_jax.__main__ import main
from imgcls_jax.assembly import build, inputs
from imgcls_jax.datasets import DATASETS
from imgcls_jax.losses import LOSSES
from imgcls_jax.training import programs
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import Lookup
from tests.commands import environment, error_lines, imgcls

TINY = ("--config.model.name=vit_mini", "--config.model.width=16", "--config.model.depth=0",
        "--config.model.stem=()", "--config.batch_size=16",
        "--config.total.steps=4", "--config.log.every.steps=1",
        "--config.checkpoint.every.steps=2", "--config.schedule.warmup.steps=1", "--quiet")


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    """Most of these compile the same step: once is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGCLS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def told(capsys):
    """told(code, *words) runs a command that must fail with `code`; returns what it says."""
    def run(code, *words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        lines = error_lines(capsys.readouterr().err)
        assert 2 <= len(lines) <= 5 and lines[-1].startswith("fix:"), lines
        return "\n".join(lines)

    return run


# ---- config, exit 2 -------------------------------------------------------------------------


@pytest.mark.parametrize("words, says", [
    (["--config=digit"], "'digits'"),
    (["--config=digits:vti"], "'vit'"),
    (["--config=digits", "--config.modle.name=x"], "did you mean 'model'"),
    (["--config=digits", "--config.model.name=resnet5"], "'resnet50'"),
    (["--config=digits", "--config.model.widht=3"], "did you mean 'width'"),
    (["--config=digits", "--config.loss.name=softmx"], "'softmax'"),
    (["--config=digits", "--config.mesh.fspd=2"], "'fsdp'"),
    (["--config=digits", "--config.batch_size=many"], "is not a int"),
    (["--config=digits", "--config.model.width=wide"], "is not a int"),
    (["--config=digits", "--config.batch_size=60"], "use 56 or 64"),
    (["--config=digits", "--config.precision=f16"], "bf16"),
    (["--config=digits", "--config.schedule.warmup.steps=100000"], "warmup.steps=67"),
    (["--config=digits", "--config.schedule.cooldown.epochs=60"], "shorten either"),
    (["--config=digits", "--config.schedule.name=step", "--config.schedule.base=0.1",
      "--config.schedule.boundaries=({'epochs': 90},)"], "before the end"),
    (["--config=digits", "--config.optimizer.momentun=0.5"], "did you mean 'momentum'"),
    (["--config=digits", "--config.optimizer.name=adanw"], "'adamw'"),
    (["--config=digits", "--config.optimizer.lr=0.1"], "set config.schedule.base"),
    (["--config=digits", "--config.optimizer.weight_decay=0.1"], "set config.weight_decay.value"),
    (["--config=digits", "--config.lr=0.1"], "set config.schedule.base"),
    (["--config=digits", "--config.epochs=3"], "set config.total.epochs"),
    (["--config=digits", "--config.schedule.warmup_epochs=3"], "set config.schedule.warmup.epochs"),
    (["--config=digits", "--config.data.train=training"], "where: config.data.train"),
    (["--config=digits", "--config.data.eval=validation"], "where: config.data.eval"),
    (["--config=digits", "--config.optimizer.rates=(('haed/.*', 10.0),)"], "matches no parameter"),
    (["--config=digits", "--config.freeze=('haed/.*',)"], "matches no parameter"),
    (["--config=digits", "--config.optimizer.name=schedule_free", "--config.ema.decay=0.9"],
     "config.ema=None"),
    (["--config=digits", "--config.checkpoint.best=tset/top1"], "'test/'"),
    (["--config=digits", "--config.data.train=training"], "use one of ['test', 'train']"),
    (["--config=digits", "--config.task=multilabel"], "'asymmetric'"),
    (["--config=digits", "--config.task=multilable"], "'multilabel'"),
    (["--config=digits", "--config.task=binary", "--config.loss.name=sigmoid"], "digits has 10"),
    (["--config=digits", "--config.loss.name=focal"], "'softmax_focal'"),
    (["--config=digits", "--config.loss.class_weights=(1.0, 2.0)"], "2 class_weights for 10"),
    (["--config=digits", "--config.loss.class_weights=balanced"], "'auto'"),
    (["--config=digits", "--config.loss.smoothing=1.5"], "0 to 1"),
    (["--config=digits", "--config.total.steps=-3"], "above 0"),
    (["--config=digits", "--config.schedule.base=-0.1"], "use at least 0"),
    (["--config=digits", "--config.schedule.base=1e999"], "base=inf is out of range"),
    (["--config=digits", "--config.schedule.base=1e6"], "the learning rate rises to 1e+06"),
    (["--config=digits", "--config.optimizer.momentum=1.5"], "at least 0 and below 1"),
    (["--config=digits", "--config.optimizer.momentum=-0.9"], "at least 0 and below 1"),
    (["--config=digits:vit", "--config.optimizer.b2=1.0"], "at least 0 and below 1"),
    (["--config=digits", "--config.freeze=('.*',)"], "parameters are frozen, so nothing"),
    (["--config=digits", "--config.weight_decay.value=-1e-4"], "use at least 0"),
    (["--config=digits", "--config.clip.norm=0.0"], "use above 0"),
    (["--config=digits", "--config.ema.decay=1.0"], "at least 0 and below 1"),
    (["--config=digits:vit", "--config.model.dropout=1.5"], "at least 0 and below 1"),
    (["--config=digits:vit", "--config.model.width=0"], "use at least 1"),
    (["--config=digits:vit", "--config.model.norm_group=0"], "use at least 1"),
    (["--config=finetune:size=0"], "where: config.transforms[0].size"),
    (["--config=finetune:size=-224"], "use at least 1"),
    (["--config=finetune", "--config.transforms[0].scale=(0.5, 1.5)"], "at least 0 and at most 1"),
    (["--config=digits", "--config.transforms[0].padding=-1"], "use at least 0"),
    (["--config=digits", "--config.transforms=({'name': 'flip', 'p': 2.0},)"], "at most 1"),
    (["--config=digits", "--config.data.only=('3',)"], "has one class, '3'"),
    (["--config=digits", "--config.optimizer.rates=(('head/.*', -1.0),)"], "factor of at least 0"),
    (["--config=digits", "--config.evals.test.name=knn", "--config.evals.test.k=0"], "at least 1"),
    (["--config=digits", "--config.data.name=synthetic", "--config.data.size=0"], "at least 1"),
    (["--config=imagenet/vit:vit_s16", "--config.transforms[0].size=230"], "224 or 240"),
    (["--config=digits", "--config.model.norm_group=48"], "norm_group"),
    (["--config=digits", "--fake_device=8"], "--help"),
])
def test_a_wrong_config_is_told_with_the_nearest_right_one(told, words, says):
    assert says in told(2, "check", *words)


@pytest.mark.parametrize("words, says", [
    (["--config.batch_size=8192"], "a batch of 8,192 has each of the 1,437 training examples 5.7 "),
    (["--config.schedule.base=20.0"], "the learning rate is 20, more than the 10 that sgd"),
    (["--config.schedule.base=0.0"], "the learning rate is 0, so nothing is learned")])
def test_what_is_only_odd_is_said_with_its_number(words, says):
    with pytest.warns(UserWarning, match=says):
        build(config.load("digits", config.split_argv(words_of(words))[1]).config)


def words_of(words):
    return [*TINY[:-1], *words]


def test_a_head_for_many_more_classes_than_there_are_is_said(tmp_path, recwarn):
    photos(tmp_path / "data")
    rows = [f"train/{name}/{i}.jpg,{k},train" for k, name in enumerate(("cat", "dog"))
            for i in range(12)]
    (tmp_path / "data" / "rows.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    chosen = {"name": "manifest", "path": str(tmp_path / "data" / "rows.csv"), "train": "train"}
    for classes, said in ((1000, True), (3, False)):
        recwarn.clear()
        fed = inputs.fed({**chosen, "classes": classes}, 0)
        next(fed.train("train", [], batch_size=4, start_step=0, rows=slice(0, 4)))
        found = [str(one.message) for one in recwarn.list]
        assert (f"only 2 of the {classes:,} classes of manifest have examples in 'train'"
                in found) == said


def test_an_unknown_verb(told):
    assert "'train'" in told(2, "tarin", "--config=digits")


# ---- data, exit 3 ---------------------------------------------------------------------------


def photos(root: Path, classes=("cat", "dog"), count=12) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return root


def folder_words(root, workdir):
    return ("train", f"--config=finetune:model=vit_mini,data={root}/,size=8", *TINY,
            f"--workdir={workdir}")


def test_missing_data(told, tmp_path):
    assert "nowhere" in told(3, *folder_words(tmp_path / "nowhere", tmp_path / "w"))


def test_a_folder_without_split_level_and_without_classes(told, tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    assert "train" in told(3, *folder_words(tmp_path / "data", tmp_path / "w"))


def test_an_empty_class(told, tmp_path):
    root = photos(tmp_path / "data")
    (root / "train" / "emu").mkdir()
    assert "emu" in told(3, *folder_words(root, tmp_path / "w"))


@pytest.mark.parametrize("damage", ["corrupt", *(pytest.param(
    damage, marks=pytest.mark.nightly) for damage in ("truncated", "empty"))])
def test_a_damaged_image_is_named(told, tmp_path, damage):
    root = photos(tmp_path / "data")
    path = root / "train" / "dog" / "7.jpg"
    data = path.read_bytes()
    path.write_bytes({"corrupt": b"\xff\xd8\xff\xe0" + b"no image" * 50,
                      "truncated": data[:len(data) // 2], "empty": b""}[damage])
    assert str(path) in told(3, *folder_words(root, tmp_path / "w"))


@pytest.mark.nightly
@pytest.mark.parametrize("data", ["truncated", "empty", "GIF89a no image", "<html>gone</html>"])
def test_a_damaged_image_is_all_that_a_terminal_shows(tmp_path, data):
    """TensorFlow's own words, on the file descriptor and not in Python, count as well.

    Only of a JPEG cut off within its header libjpeg itself prints a line at each try.
    """
    root = photos(tmp_path / "data")
    path = root / "train" / "dog" / "7.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[:len(whole) // 2]}.get(data, data.encode()))
    code, out, err = imgcls(tmp_path / "cache", *folder_words(root, tmp_path / "w"))
    assert code == 3 and str(path) in err and out == ""
    assert len(err.splitlines()) <= 5, err


@pytest.mark.nightly
def test_a_label_out_of_range_is_named(told, tmp_path, monkeypatch):
    digits = DATASETS.get("digits")
    source = digits()
    whole = source.open("train")

    def read(index):
        import tensorflow as tf

        row = whole.read(index)
        return {**row, "label": tf.where(index == 77, 10, row["label"])}

    monkeypatch.setitem(DATASETS._found, "digits", lambda *, fold: dataclasses.replace(
        source, open=lambda split: Lookup(whole.size, read, whole.where)))
    said = told(3, "train", "--config=digits", *TINY, "--config.total.steps=100",
                f"--workdir={tmp_path / 'w'}")
    assert "10" in said and whole.where(77) in said


@pytest.mark.parametrize("wrong", [-1, 10])
def test_a_wrong_label_that_can_be_known_is_named_before_training(told, tmp_path, monkeypatch,
                                                                  wrong):
    source = DATASETS.get("digits")()
    whole = source.open("train")
    labels = np.array(whole.labels())
    labels[[1077, 1099]] = wrong
    monkeypatch.setitem(DATASETS._found, "digits", lambda *, fold: dataclasses.replace(
        source, open=lambda split: Lookup(whole.size, whole.read, whole.where, lambda: labels)))
    said = told(3, *again(tmp_path / "w"))
    assert f"label {wrong}" in said and whole.where(1077) in said and "2 of" in said


def tagged(folder: Path, rows=(), text="{}|b") -> Path:
    """A manifest of 24 images with labels a, b or both."""
    photos(folder, ("x",), 24)
    lines = [f"train/x/{i}.jpg,{text.format('a') if i % 3 else 'a'},train" for i in range(24)]
    lines += [f"val/x/{i}.jpg,b,val" for i in range(8)] + list(rows)
    path = folder / "rows.csv"
    path.write_text("\n".join(["path,labels,split", *lines]) + "\n")
    return path


def tagged_words(path, workdir, *more):
    return ("train", f"--config=finetune:model=vit_mini,data={path},size=8", *TINY,
            "--config.loss.name=sigmoid", "--config.task=multilabel",
            "--config.checkpoint.best=None", f"--workdir={workdir}", *more)


def test_a_class_that_is_not_listed_is_named_with_its_line(told, tmp_path):
    path = tagged(tmp_path / "data", ["val/x/9.jpg,a|c,val"])
    said = told(3, *tagged_words(path, tmp_path / "w", "--config.data.classes=('a', 'b')"))
    assert "'c'" in said and "line 34" in said


def test_data_of_several_labels_wants_its_task(told, tmp_path):
    words = tagged_words(tagged(tmp_path / "data"), tmp_path / "w")
    said = told(2, *words, "--config.task=multiclass", "--config.loss.name=softmax")
    assert "config.task" in said and "multilabel" in said


@pytest.mark.nightly
@pytest.mark.parametrize("bad", [2.0, float("nan"), None])
def test_labels_of_several_classes_that_are_no_shares_are_named(told, tmp_path, monkeypatch, bad):
    source = DATASETS.get("digits")()
    whole = source.open("train")

    def read(index):
        import tensorflow as tf

        row = whole.read(index)
        label = tf.one_hot(row["label"], 10) * (
            1.0 if bad is None else tf.where(index == 77, bad, 1.0))
        return {**row, "label": label[:9] if bad is None else label}

    monkeypatch.setitem(DATASETS._found, "digits", lambda *, fold: dataclasses.replace(
        source, kind="multilabel", open=lambda split: Lookup(whole.size, read, whole.where)))
    said = told(3, *again(tmp_path / "w"), "--config.total.steps=100", "--config.task=multilabel",
                "--config.loss.name=sigmoid", "--config.checkpoint.best=None")
    assert "labels must be 10 numbers of 0 to 1" in said
    assert bad is None or whole.where(77) in said


@pytest.mark.parametrize("weights, says", [
    ("runs/nowhere", "neither a workdir nor a file"), ("./nowhere.pth", "neither a workdir nor"),
    ("resnet18/imagenet1k_v9", "'imagenet1k_v1'"),
    ("resnet18/imagenet1k_v1", "imgcls weights get")])
def test_weights_that_are_not_there_are_told_before_anything_is_built(told, monkeypatch, tmp_path,
                                                                      weights, says):
    monkeypatch.setenv("IMGCLS_WEIGHTS", str(tmp_path))
    code = 2 if says.startswith("'") else 4
    assert says in told(code, "check", f"--config=finetune:model=resnet18,weights={weights}")


def test_a_loss_that_is_one_number_is_refused(told, tmp_path, monkeypatch):
    def mean(logits, targets):
        return ((logits - targets) ** 2).mean()

    LOSSES.names()
    monkeypatch.setitem(LOSSES._found, "mean", mean)
    monkeypatch.setitem(LOSSES._facts, "mean", {"tasks": ("multiclass",)})
    said = told(2, "check", "--config=digits", "--config.loss.name=mean")
    assert "one loss per example" in said


@pytest.mark.daily(1)
@pytest.mark.parametrize("kind", ["float32", "size"])
def test_a_transform_that_gives_what_it_has_not_declared(told, tmp_path, monkeypatch, kind):
    def wrong():
        def transform(example, seed):
            import tensorflow as tf

            image = example["image"]
            return {**example, "image": tf.cast(image, tf.float32) if kind == "float32" else
                    image[:4]}
        return transform

    monkeypatch.setitem(TRANSFORMS._found, "wrong", wrong)
    said = told(2, *again(tmp_path / "w"), "--config.transforms=({'name': 'wrong'},)")
    assert ("float32[16,8,8,1]" if kind == "float32" else "uint8[16,4,8,1]") in said
    assert "not uint8[16,8,8,1]" in said


# ---- the workdir, exits 2, 4 and 6 ----------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "w"
    assert main(["train", "--config=digits", *TINY, f"--workdir={workdir}"]) == 0
    return workdir


def again(workdir, *more):
    return ("train", "--config=digits", *TINY, f"--workdir={workdir}", *more)


def test_a_workdir_that_cannot_be_written(told, tmp_path):
    # Under /proc nothing can be made, by root neither; a folder of mode 555 would not stop root.
    assert "workdir" in told(6, *again("/proc/imgcls"))
    (tmp_path / "file").write_text("mine")
    assert "workdir" in told(6, *again(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.nightly
def test_a_full_disk(told, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "w")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    said = told(6, *again(tmp_path / "w", "--config.total.steps=6"))
    assert "1,000 are free" in said and "step 4 is saved" in said
    assert (tmp_path / "w" / "checkpoints" / "4").is_dir()


@pytest.mark.nightly
def test_an_unwritable_disk_found_by_a_real_command(tmp_path):
    """No file may grow over 20 kB: the process ends with 6 and says what is missing."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
    code = limit + "import sys, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " \
        "from imgcls_jax.__main__ import main; sys.exit(main(sys.argv[1:]))"
    words = again(tmp_path / "w", "--config.model.width=64", "--config.model.depth=1")
    done = subprocess.run([sys.executable, "-c", code, *words],
                          env=environment("off") | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
                          capture_output=True, text=True)
    assert done.returncode == 6, done.stderr
    assert "File too large" in done.stderr and len(done.stderr.splitlines()) <= 5, done.stderr


def test_a_changed_config_is_refused_and_nothing_is_touched(told, trained):
    said = told(2, *again(trained, "--config.batch_size=32"))
    assert "batch_size: 16 -> 32" in said
    assert (trained / "checkpoints" / "4").is_dir()


def test_two_jobs_in_one_workdir(told, trained):
    from imgcls_jax.training.workdir import Lock

    lock = Lock(trained)
    try:
        assert "another job is running here" in told(2, *again(trained))
    finally:
        lock.release()
    assert main(list(again(trained))) == 0


def test_no_good_checkpoint(told, trained, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(trained, workdir)
    for path in (workdir / "checkpoints").glob("*/config/metadata"):
        path.unlink()
    assert "config/metadata is missing" in told(4, *again(workdir))
    assert len(list((workdir / "checkpoints").glob("*/weights"))) == 2, "nothing is lost"


def test_evaluating_what_is_no_workdir(told, tmp_path):
    assert "no checkpoint" in told(4, "eval", f"--workdir={tmp_path}")


# ---- a loss that is not finite, exit 5 ------------------------------------------------------


def test_a_non_finite_loss_stops_there_and_is_never_saved(told, tmp_path, monkeypatch):
    compile_step = programs.compile_step

    def with_nan_at_step_3(run):
        step = run.step

        def broken(state, batch):
            import jax
            import jax.numpy as jnp

            poison = jnp.where(state.step == 2, jnp.nan, 1.0)
            params = jax.tree.map(lambda leaf: leaf * poison, state.params)
            after, sums = step(state.replace(params=params), batch)
            return after, sums

        return compile_step(dataclasses.replace(run, step=broken))

    monkeypatch.setattr(programs, "compile_step", with_nan_at_step_3)
    workdir = tmp_path / "w"
    said = told(5, *again(workdir, "--config.checkpoint.every.steps=1"))
    assert "step 3 is not finite" in said and "step 2 is saved" in said
    assert sorted(p.name for p in (workdir / "checkpoints").glob("[0-9]*")) == ["1", "2"]
