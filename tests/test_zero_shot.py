"""An image encoder and embeddings of texts as a classifier."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import imgcls_jax
from experiments.parity import compare, rule
from imgcls_jax.__main__ import main
from imgcls_jax.errors import CheckpointError
from imgcls_jax.pretrained import texts
from tests.commands import error_lines

WIDTH = 384


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image encoder in transformers' layout, and two images."""
    path = tmp_path_factory.mktemp("zero")
    np.savez(path / "tower.npz", **rule.state_dict(compare.load("hf_dinov3-vits16")))
    rng = np.random.default_rng(0)
    for name, size in (("a", (300, 200)), ("b", (90, 90))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).resize((256, 256)).save(
            path / f"{name}.png")
    return path


def test_the_class_is_that_of_the_nearest_text(folder, capsys):
    """Texts that are the images' own embeddings, off by a little, are found again."""
    model = imgcls_jax.load(folder / "tower.npz", model="dinov3_s16",
                            texts=written(folder, x=np.ones(WIDTH)))
    images = [folder / "a.png", folder / "b.png"]
    found = model.features(images)  # not yet of length 1
    rng = np.random.default_rng(1)
    near = found + rng.normal(size=found.shape) * found.std() * 0.1
    vectors = {"a photo of a": near[0] * 7, "of b": np.stack((near[1], near[1] * 3))}
    file = written(folder, **vectors, logit_scale=np.float32(np.log(20)))
    assert main(["predict", f"--weights={folder / 'tower.npz'}", "--model=dinov3_s16",
                 f"--text_embeddings={file}", "--format=json", *map(str, images)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["topk"][0]["label"] for row in rows] == ["a photo of a", "of b"]
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    expected = jax.nn.softmax(20 * unit(found) @ unit(near).T)
    np.testing.assert_allclose([[hit["prob"] for hit in sorted(
        row["topk"], key=lambda hit: hit["id"])] for row in rows], expected, rtol=1e-3)


def written(folder, **arrays):
    np.savez(folder / "texts.npz", **arrays)
    return folder / "texts.npz"


@pytest.mark.parametrize("arrays, words", [
    ({"a": np.ones(3), "b": np.ones(4)}, "2 classes have embeddings of [3, 4] numbers"),
    ({"a": np.ones((2, 2, 2))}, "embeddings of [0] numbers"),
    ({"a": np.ones(3), "b": np.zeros(3)}, "the embedding of 'b' is zero or not finite"),
    ({"a": np.array([1, np.nan])}, "the embedding of 'a' is zero or not finite"),
    ({"logit_scale": np.float32(1)}, "0 classes")])
def test_texts_without_a_direction_are_refused(tmp_path, arrays, words):
    with pytest.raises(CheckpointError) as error:
        texts.read(written(tmp_path, **arrays))
    assert words in error.value.what


def test_several_texts_of_a_class_are_averaged_by_direction(tmp_path):
    names, found, scale = texts.read(written(tmp_path, a=np.array([[9, 0], [0, 0.1]]),
                                             b=np.array([0, -2])))
    np.testing.assert_allclose(found, np.array([[0.5, 0.5], [0, -1]]).T * [2**0.5, 1], rtol=1e-6)
    assert names == ("a", "b") and np.isclose(np.exp(scale), 100)


def test_texts_of_another_encoder_are_refused(folder, capsys):
    file = written(folder, a=np.ones(512))
    assert main(["predict", f"--weights={folder / 'tower.npz'}", "--model=dinov3_s16",
                 f"--text_embeddings={file}", str(folder / "a.png")]) == 4
    assert "the texts have 512 numbers each, an image of dinov3_s16 has 384" in (
        capsys.readouterr().err)
    assert main(["predict", "--workdir=w", f"--text_embeddings={file}", "x.png"]) == 2
    assert "--text_embeddings goes with --weights" in error_lines(capsys.readouterr().err)[0]
