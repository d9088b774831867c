"""From published weights to labels for own photos: convert, fine-tune, predict."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from imgcls_jax import predict, tree
from imgcls_jax.__main__ import main
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import names

KINDS = ("checks", "columns", "rows")
WIDTH, SIZE = 8, 32


def photo(kind, rng) -> Image.Image:
    """Stripes of a random period and color, with noise."""
    y, x = np.mgrid[:40, :48]
    period, phase = rng.integers(4, 8), rng.integers(0, 8)
    rows, columns = ((axis + phase) // period % 2 for axis in (y, x))
    pattern = {"rows": rows, "columns": columns, "checks": rows ^ columns}[kind]
    low, high = rng.integers(0, 80, 3), rng.integers(170, 255, 3)
    pixels = np.where(pattern[..., None], high, low) + rng.normal(0, 12, (40, 48, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 12)):
        for kind in KINDS:
            folder = tmp_path / "photos" / split / kind
            folder.mkdir(parents=True)
            for i in range(count):
                photo(kind, rng).save(folder / f"{i}.jpg", quality=90)
    return tmp_path / "photos"


@pytest.fixture
def published(tmp_path, random_variables, two_blocks):
    """A file of a narrow and short resnet18 under torchvision's names, for 20 classes."""
    module = MODELS.get("resnet18")(20, width=WIDTH)
    variables = tree.flatten(random_variables(
        module, jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32)))
    path = tmp_path / "resnet18.safetensors"
    save_file(names.to_tensors(variables, MODELS.facts("resnet18")["layouts"]["torchvision"]), path)
    return path, variables


def test_published_weights_become_a_classifier_of_ones_own_photos(photos, published, tmp_path,
                                                                  capsys):
    file, weights = published
    converted, workdir = tmp_path / "converted", tmp_path / "w"
    assert main(["convert", "--model=resnet18", f"--weights={file}", f"--size={SIZE}",
                 f"--workdir={converted}", f"--config.model.width={WIDTH}"]) == 0
    assert "20 classes" in capsys.readouterr().out

    chosen = f"finetune:model=resnet18,data={photos},weights={converted},size={SIZE}"
    assert main(["train", f"--config={chosen}", f"--config.model.width={WIDTH}",
                 f"--workdir={workdir}", "--config.batch_size=16", "--config.total.steps=40",
                 "--config.evals.val.every.steps=40", "--config.schedule.warmup.steps=5",
                 "--quiet"]) == 0
    said = (workdir / "train.log").read_text()
    count = len(weights)
    assert (f"starts from {converted}: {count - 2} of {count} arrays; new: params/head/bias, "
            "params/head/kernel\n") in said
    results = json.loads((workdir / "results.json").read_text())
    assert results["step"] == 40 and results["eval"]["val"]["top1"] > 0.9

    capsys.readouterr()
    assert main(["predict", f"--workdir={workdir}", str(photos / "val"), "--format=jsonl",
                 "--top=1"]) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    hits = [row["topk"][0]["label"] == row["file"].split("/")[-2] for row in rows]
    assert len(hits) == 36 and np.mean(hits) == pytest.approx(results["eval"]["val"]["top1"])

    # It began from the weights, but for the head: after 40 small steps they are still near.
    trained = tree.flatten(predict.load(workdir).variables)
    kernel = "params/stage1_block0/conv1/kernel"
    correlation = np.corrcoef(trained[kernel].ravel(), weights[kernel].ravel())[0, 1]
    assert correlation > 0.5
    assert trained["params/head/kernel"].shape == (2 * WIDTH, len(KINDS))


@pytest.mark.nightly
def test_a_head_on_features_is_in_an_ordinary_workdir(photos, published, tmp_path, capsys):
    converted, workdir = tmp_path / "converted", tmp_path / "w"
    narrow = f"--config.model.width={WIDTH}"
    assert main(["convert", "--model=resnet18", f"--weights={published[0]}", f"--size={SIZE}",
                 f"--workdir={converted}", narrow]) == 0
    line = ["train", narrow, f"--workdir={workdir}", "--quiet", "--config=finetune:model=resnet18,"
            f"data={photos},weights={converted},size={SIZE},probe=true,views=2"]
    assert main([*line, "--config.total.steps=100"]) == 0
    said = (workdir / "train.log").read_text()
    assert "features of train, 2 views of 144 images: 288 computed, 0 taken" in said
    assert f"starts from {converted}" in said
    assert main([*line, "--config.total.steps=200"]) == 0
    said = (workdir / "train.log").read_text()
    assert "going on from step 100" in said and "0 computed, 288 taken from the cache" in said

    found = json.loads((workdir / "results.json").read_text())["eval"]["val"]
    capsys.readouterr()
    assert main(["eval", f"--workdir={workdir}", "--json"]) == 0  # by the whole network
    again = json.loads(capsys.readouterr().out)["eval"]["val"]
    assert again == pytest.approx(found, rel=1e-4) and again["top1"] > 0.5
    assert main(["export", f"--workdir={workdir}", "--format=safetensors", "--layout=torchvision",
                 f"--out={tmp_path / 'w.safetensors'}"]) == 0
    model, whole = predict.load(workdir), tree.flatten(predict.load(converted).variables)
    for path, leaf in tree.flatten(model.variables).items():
        if "head" not in path:
            np.testing.assert_array_equal(leaf, whole[path], err_msg=path)
