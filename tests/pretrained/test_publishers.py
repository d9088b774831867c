"""Files in the formats of transformers and of Google -> workdirs, and back out bit for bit."""

import json

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file, save_file

from experiments.parity import compare, rule
from imgcls_jax import predict
from imgcls_jax.__main__ import main
from imgcls_jax.errors import CheckpointError
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import load
from imgcls_jax.types import ModelSpec
from tests.pretrained.test_layouts import shapes


def tensors(case):
    """What the publisher's own code wrote into a file, or read from it."""
    return rule.state_dict(compare.load(case))


def spec(name):
    return ModelSpec(name=name, **MODELS.facts(name))


def wanted(name, **arguments):
    return {path: np.empty(shape, np.float32)
            for path, shape in shapes(name, **arguments).items()}


@pytest.mark.daily(1)
@pytest.mark.parametrize("case, layout, said", [
    ("hf_vit-tiny-patch16-224", "transformers", "vit_ti16, 5,717,416 parameters"),
    ("hf_deit-tiny-class-patch16-224", "transformers_class",
     "deit_ti16_distilled, distillation_head=False, 5,717,800 parameters")])
def test_a_file_of_transformers_is_converted_and_exported_bit_for_bit(case, layout, said, tmp_path,
                                                                      capsys):
    file, out, workdir = tmp_path / "model.safetensors", tmp_path / "out", tmp_path / "w"
    written = tensors(case)
    save_file(written, file)
    model = compare.ours(case)[0]
    assert main(["convert", f"--model={model}", f"--weights={file}", f"--workdir={workdir}"]) == 0
    assert said in capsys.readouterr().out
    assert main(["export", f"--workdir={workdir}", f"--layout={layout}", f"--out={out}"]) == 0
    found = load_file(out)
    assert set(found) == set(written)
    for name, value in written.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


@pytest.mark.daily(1)
@pytest.mark.parametrize("channels, parameters", [(3, 5_754_472), (1, 5_754_472 - 2 * 256 * 192)])
def test_an_npz_of_google_brings_its_activation_its_representation_and_its_range(
        channels, parameters, tmp_path, capsys):
    file, workdir = tmp_path / "Ti_16.npz", tmp_path / "w"
    np.savez(file, **tensors("npz_Ti_16-pre_logits"))
    assert main(["convert", "--model=vit_ti16", f"--weights={file}", f"--workdir={workdir}",
                 f"--channels={channels}"]) == 0
    said = capsys.readouterr().out
    assert f"vit_ti16, gelu=tanh, representation=True, {parameters:,} parameters" in said
    config = json.loads((workdir / "config.json").read_text())
    assert config["model"] == {"name": "vit_ti16", "gelu": "tanh", "representation": True}
    assert config["data"]["mean"] == config["data"]["std"] == [0.5]
    assert predict.load(workdir).preprocessing["mean"] == (channels * (0.5,))
    assert load.normalisation(file, spec("vit_ti16")) == ((0.5,), (0.5,))
    assert main(["export", f"--workdir={workdir}", "--layout=npz",
                 f"--out={tmp_path / 'out'}"]) == 2, "it is no layout of safetensors files"


def test_a_file_without_a_workdir_is_loaded_with_all_that_it_tells(tmp_path):
    np.savez(tmp_path / "w.npz", **tensors("npz_Ti_16-pre_logits"))
    model = predict.load(tmp_path / "w.npz", model="vit_ti16")
    assert model.module.gelu == "tanh" and model.preprocessing["mean"] == (0.5,) * 3
    assert model.labels[999] == "toilet tissue"


@pytest.mark.daily(2)
@pytest.mark.parametrize("case, prefix, head", [
    ("hf_vit-tiny-patch16-224", "vit.", 2), ("hf_deit-tiny-distilled-patch16-224", "deit.", 4),
    ("hf_resnet-18", "resnet.", 2), ("hf_convnext-tiny-224", "convnext.", 2),
    ("hf_regnet-y-004", "regnet.", 2), ("hf_convnextv2-atto-1k-224", "convnextv2.", 2)])
def test_a_backbone_without_a_head_lacks_the_head_alone(case, prefix, head, tmp_path):
    """AutoModel.save_pretrained leaves the prefix out; a ViT's and DeiT's pooler is not ours."""
    backbone = {name.removeprefix(prefix): value for name, value in tensors(case).items()
                if name.startswith(prefix)}
    if "vit" in case or "deit" in case:
        backbone["pooler.dense.weight"] = np.zeros((192, 192), np.float32)
    save_file(backbone, tmp_path / "model.safetensors")
    name = compare.ours(case)[0]
    found = load.read(tmp_path / "model.safetensors", spec(name), wanted(name))
    assert not found.extra and found.source.endswith("(transformers layout)")
    assert len(found.missing) == head and all("/head" in line for line in found.missing)


def test_a_teacher_and_a_class_file_are_told_apart(tmp_path):
    for case, layout in (("hf_deit-tiny-class-patch16-224", "transformers_class"),
                         ("hf_deit-tiny-distilled-patch16-224", "transformers")):
        name, arguments = compare.ours(case)
        found, _ = load.recognise(tensors(case), wanted(name, **arguments), spec(name), tmp_path)
        assert found == layout


def test_what_the_file_tells_of_the_model_is_in_the_remedy(tmp_path):
    np.savez(tmp_path / "w.npz", **tensors("npz_Ti_16-pre_logits"))
    found = load.read(tmp_path / "w.npz", spec("vit_ti16"), wanted("vit_ti16"))
    with pytest.raises(CheckpointError, match="2 not wanted: pre_logits/") as error:
        load.into(unflatten_dict(wanted("vit_ti16"), sep="/"), found, spec("vit_ti16"))
    assert "config.model.gelu=tanh, config.model.representation=True" in error.value.fix


def test_a_vit_of_another_width_is_refused_and_nothing_of_it_fitted(tmp_path, recwarn):
    np.savez(tmp_path / "S_16.npz", **tensors("npz_Ti_16"))
    found = load.read(tmp_path / "S_16.npz", spec("vit_s16"), wanted("vit_s16"))
    with pytest.raises(CheckpointError, match=r"attention/out/bias: the model has \[384\], the "
                                              r"weights \[192\]"):
        load.into(unflatten_dict(wanted("vit_s16"), sep="/"), found, spec("vit_s16"))
    assert not recwarn.list, "a head of 192 = 8 * 8 * 3 inputs is no stem of patches"
