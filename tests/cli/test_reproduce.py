"""Published weights measured on a folder, against counts from single predictions."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from scipy.stats import binomtest

from imgcls_jax import predict, tree
from imgcls_jax.__main__ import main
from imgcls_jax.cli import reproduce
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import catalogue, fetch, names

NAME = "resnet18/imagenet1k_v1"


@pytest.fixture
def at_hand(tmp_path, monkeypatch, random_variables):
    """Weights under the published name, in a folder of their own."""
    monkeypatch.setenv("IMGCLS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(fetch, "check", lambda *_: None)  # these weights are random, not published
    module = MODELS.get("resnet18")(1000)
    variables = random_variables(module, jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
    tensors = names.to_tensors(tree.flatten(variables),
                               MODELS.facts("resnet18")["layouts"]["torchvision"])
    path = fetch.place(catalogue.find(NAME)[2])
    path.parent.mkdir()
    save_file(tensors, path)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(1000):
        folder = tmp_path / "data" / "val" / f"n{number:08d}"
        folder.mkdir(parents=True)
        for copy in range(1 + (number < 30)):
            paths.append((folder / f"{copy}.png", number))
            Image.fromarray(rng.integers(0, 256, (40, 44, 3), np.uint8)).save(paths[-1][0])
    return paths


@pytest.mark.nightly
def test_a_folder_is_measured_to_the_image(at_hand, photos, tmp_path):
    words = ["--config.eval_transforms[0].size=36", "--config.eval_transforms[1].size=32"]
    out = tmp_path / "record.json"
    assert main(["reproduce", NAME, f"--data={tmp_path / 'data'}", f"--out={out}", *words]) == 0
    record = json.loads(out.read_text())
    model = predict.of_file(NAME, record["config"])
    probabilities = model([str(path) for path, _ in photos])
    rank = (-probabilities).argsort(-1)
    labels = np.array([label for _, label in photos])[:, None]
    for key, k in (("top1", 1), ("top5", 5)):
        hits = (rank[:, :k] == labels).any(-1).sum()
        assert record["measured"][key] == pytest.approx(100 * hits / 1030, abs=1e-9)
    assert record["measured"]["images"] == 1030
    assert record["published"] == {"top1": 69.758, "top5": 89.078}
    assert record["verdict"] == "not reproduced"
    assert record["config"]["eval_transforms"][0]["library"] == "pillow"


def test_weights_that_are_not_at_hand_say_how_to_get_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IMGCLS_WEIGHTS", str(tmp_path / "none"))
    assert main(["reproduce", NAME, f"--data={tmp_path}"]) == 4
    said = capsys.readouterr().err
    assert f"imgcls weights get {NAME}" in said and "resnet18-f37072fd.pth" in said


@pytest.mark.parametrize("top1, images, expected", [
    (76.10, 50_000, "reproduced"), (76.35, 50_000, "consistent"), (75.0, 50_000, "not reproduced"),
    (70.0, 100, "consistent")])
def test_the_verdict_weighs_difference_and_number_of_images(top1, images, expected):
    interval = binomtest(round(top1 * images / 100), images).proportion_ci(method="wilson")
    measured = {"top1": top1, "interval": {"top1": (100 * interval.low, 100 * interval.high)}}
    assert reproduce.verdict(76.13, measured) == expected
