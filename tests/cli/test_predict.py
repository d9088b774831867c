"""A workdir of each task, trained and asked: what is printed of an image."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

import imgcls_jax
from imgcls_jax.__main__ import main
from imgcls_jax.cli import predict
from imgcls_jax.data.decoding import pillow
from tests.commands import error_lines

TINY = ("--config.model.name=vit_mini", "--config.model.width=16", "--config.model.depth=0",
        "--config.model.stem=()", "--config.model.patch_size=8",
        "--config.batch_size=16", "--config.total.steps=20", "--config.schedule.warmup=None",
        "--config.schedule.base=0.03", "--config.optimizer.name=adamw",
        "--config.transforms[0].name=resize", "--config.transforms[0].size=8",
        "--config.log.every.steps=20", "--config.evals.val.every.steps=10",
        "--config.checkpoint.every.steps=10", "--quiet")
LABELS = ("red", "red|dark", "dark|green", "green")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images, red or green, bright or dark, by number."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(48):
        level = 60 if i % 4 in (1, 2) else 250
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels[..., 0 if i % 4 < 2 else 1] = level
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def trained(images, workdir, column, labels, task):
    path = images / f"{column}_{len(set(labels))}.csv"
    rows = [f"{i}.png,{labels[i % 4]},{'val' if i >= 40 else 'train'}" for i in range(48)]
    path.write_text("\n".join([f"path,{column},split", *rows]) + "\n")
    assert main(["train", f"--config=finetune:model=vit_mini,data={path},size=8,task={task}", *TINY,
                 f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="module")
def multilabel(images, tmp_path_factory):
    return trained(images, tmp_path_factory.mktemp("multilabel") / "w", "labels", LABELS,
                   "multilabel")


@pytest.fixture(scope="module")
def binary(images, tmp_path_factory):
    return trained(images, tmp_path_factory.mktemp("binary") / "w", "label",
                   ("bad", "bad", "good", "good"), "binary")


@pytest.mark.parametrize("kind, best", [("binary", "val/accuracy"),
                                        ("multilabel", "val/average_precision_macro")])
def test_the_best_checkpoint_is_chosen_by_a_metric_of_the_task(kind, best, request):
    found = json.loads((request.getfixturevalue(kind) / "results.json").read_text())
    assert 0.5 < found["best"][best] <= 1


def printed(capsys, *words, code=0):
    capsys.readouterr()
    assert main(["predict", *map(str, words)]) == code
    return capsys.readouterr().out


def test_of_several_labels_all_above_the_threshold_are_given(multilabel, images, capsys):
    files = [images / f"{i}.png" for i in range(4)]
    rows = json.loads(printed(capsys, f"--workdir={multilabel}", "--format=json", *files))
    found = [{hit["label"] for hit in row["topk"]} for row in rows]
    assert found == [set(labels.split("|")) for labels in LABELS]
    assert all(hit["prob"] >= 0.5 for row in rows for hit in row["topk"])
    rows = json.loads(printed(capsys, f"--workdir={multilabel}", "--format=json", "--threshold=0",
                              "--top=2", *files))
    assert all(len(row["topk"]) == 2 for row in rows)
    assert "no label" in printed(capsys, f"--workdir={multilabel}", "--threshold=1", files[0])


def test_a_table_of_several_labels_has_them_in_one_cell(multilabel, images, capsys):
    out = printed(capsys, f"--workdir={multilabel}", "--format=csv", images / "0.png",
                  images / "1.png", images / "nowhere.png", code=3)
    header, one, two, none = csv.reader(io.StringIO(out))
    assert header == ["file", "error", "labels", "probs"] and one[2] == "red"
    assert set(two[2].split("|")) == {"red", "dark"} and len(two[3].split("|")) == 2
    assert none[2:] == ["", ""] and none[1]


def test_every_row_of_a_table_has_as_many_cells_and_missing_files_a_code(binary, images, tmp_path,
                                                                        capsys):
    bad, gone = tmp_path / "bad.png", tmp_path / "gone.png"
    bad.write_bytes(b"no image")
    words = (f"--workdir={binary}", "--format=csv", images / "0.png")
    for files, code in (((bad,), 0), ((bad, "--strict"), 3), ((gone,), 3)):
        rows = list(csv.reader(io.StringIO(printed(capsys, *words, *files, code=code))))
        assert rows[0] == ["file", "error", "label1", "prob1"]
        assert [len(row) for row in rows] == [4, 4, 4] and rows[1][2] == "bad"
        assert ("no such file" if files == (gone,) else "not an image") in rows[2][1]
    assert "cannot be read" in printed(capsys, f"--workdir={binary}", bad, code=3)


def test_of_a_folder_all_formats_are_taken_and_nothing_hidden(tmp_path):
    names = ["a.JPG", "b.ppm", "c.pgm", "d.jfif", "e.tiff", "f.webp", "deeper/g.png"]
    others = [".hidden.jpg", ".thumbs/h.jpg", "@eaDir/i.jpg", "__MACOSX/._a.JPG", "notes.txt"]
    if "AVIF" in pillow.FORMATS:
        names.append("j.avif")
    for name in [*names, *others, "deeper/.h/k.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in predict.find([str(tmp_path)])]
    assert sorted(found) == sorted(names)
    assert list(predict.find([str(tmp_path / ".hidden.jpg")])) == [tmp_path / ".hidden.jpg"]


def test_of_two_classes_one_is_given_with_its_probability(binary, images, capsys):
    files = [images / "0.png", images / "3.png"]
    rows = json.loads(printed(capsys, f"--workdir={binary}", "--format=json", *files))
    assert [[hit["label"] for hit in row["topk"]] for row in rows] == [["bad"], ["good"]]
    assert all(row["topk"][0]["prob"] > 0.5 for row in rows)
    rows = json.loads(printed(capsys, f"--workdir={binary}", "--format=json", "--threshold=0",
                              *files))
    assert [row["topk"][0]["label"] for row in rows] == ["good", "good"]


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_the_model_gives_the_probabilities_of_its_task(kind, images, request):
    model = imgcls_jax.load(request.getfixturevalue(kind))
    files = [images / f"{i}.png" for i in range(4)]
    x = np.stack([np.asarray(Image.open(file)) for file in files]) / 255
    x = (x - np.array(model.preprocessing["mean"])) / np.array(model.preprocessing["std"])
    logits = model.logits(x.astype(np.float32))
    yes = 1 / (1 + np.exp(-logits))
    expected = np.concatenate([1 - yes, yes], -1) if kind == "binary" else yes
    np.testing.assert_allclose(model(files), expected, atol=1e-5)
    results = json.loads((request.getfixturevalue(kind) / "results.json").read_text())
    share = "accuracy" if kind == "binary" else "label_accuracy"
    assert results["eval"]["val"][share] == 1.0


def test_the_classes_of_other_data_are_compared_with_the_checkpoint(binary, multilabel, images,
                                                                     capsys):
    capsys.readouterr()
    words = ["eval", f"--workdir={binary}", f"--config.data.path={images / 'three.csv'}"]
    rows = [f"{i}.png,{'abc'[i % 3]},{'val' if i >= 40 else 'train'}" for i in range(48)]
    (images / "three.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    assert main(words) == 2
    assert "3 classes" in error_lines(capsys.readouterr().err)[0]
    words[1] = f"--workdir={multilabel}"
    assert main([*words, "--config.data.val_fraction=0.3"]) == 2
    assert "not those the model was trained with" in error_lines(capsys.readouterr().err)[0]


def test_choices_of_classes():
    row = np.array([0.1, 0.9, 0.6, 0.5], np.float32)
    assert predict.chooser("multiclass", None, 0.5)(row).tolist() == [1, 2, 3, 0]
    assert predict.chooser("multiclass", 2, 0.5)(row).tolist() == [1, 2]
    assert predict.chooser("multilabel", None, 0.5)(row).tolist() == [1, 2, 3]
    assert predict.chooser("multilabel", 1, 0.5)(row).tolist() == [1]
    assert predict.chooser("binary", None, 0.8)(row[:2]) == [1]
    assert predict.chooser("binary", None, 0.95)(row[:2]) == [0]


def test_thresholds_of_an_evaluation_are_taken(multilabel, images, capsys, monkeypatch):
    """One that no probability reaches, and one that all do."""
    assert main(["eval", f"--workdir={multilabel}", "--config.evals.tuned={'name': 'thresholds'}",
                 "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["eval"]["tuned"]) == {"f1_macro", "f1_macro_tuned"}
    path = multilabel / "evaluations" / "tuned.npz"
    with np.load(path) as file:
        assert ((file["thresholds"] > 0) & (file["thresholds"] < 1)).all()
        assert file["step"] == said["step"]
    words = (f"--workdir={multilabel}", images / "0.png", "--format=jsonl")
    np.savez(path, thresholds=np.array([0.0, 1.0, 1.0]))
    said = json.loads(printed(capsys, *words, "--threshold=tuned"))["topk"]
    assert [hit["id"] for hit in said] == [0]
    np.savez(path, thresholds=np.array([0.0, 1.0, 1.0]), step=7)  # since then training went on
    assert main(["predict", *map(str, words), "--threshold=tuned"]) == 2
    assert "were found at step 7" in capsys.readouterr().err
    assert main(["predict", *map(str, words), "--threshold=other"]) == 2
    assert "'other'" in capsys.readouterr().err
    assert main(["predict", *map(str, words), "--threshold=1.5"]) == 2


LITE = "--weights=efficientnet_lite0/imagenet1k"


@pytest.mark.parametrize("words, code, said", [
    ([], 2, "neither --workdir nor --weights is given"),
    ([LITE, "--workdir=w"], 2, "--workdir and --weights are both given"),
    ([LITE, "--step=best"], 2, "--step goes with --workdir"),
    ([LITE, "--threshold=0.5"], 2, "--threshold goes with --workdir"),
    (["--workdir=w", "--model=resnet18"], 2, "--model goes with --weights"),
    ([LITE[:-2]], 2, "no weights 'imagenet' are known for efficientnet_lite0"),
    (["--weights=a.pth"], 4, "there is no such file of weights")])
def test_what_weights_do_not_go_with_is_refused(words, code, said, capsys):
    assert main(["predict", *words, "a.jpg"]) == code
    assert error_lines(capsys.readouterr().err)[0] == f"error: {said}"


def test_a_workdir_that_is_given_as_weights_is_told(binary, capsys):
    assert main(["predict", f"--weights={binary}", "a.jpg"]) == 2
    assert f"fix:   --workdir={binary}" in capsys.readouterr().err
