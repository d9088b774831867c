"""Files of big_vision and vision_transformer in the forms that they have had over the years."""

import functools

import jax
import ml_dtypes
import numpy as np
import pytest

from experiments.parity import compare, rule
from imgcls_jax import tree
from imgcls_jax.__main__ import main
from imgcls_jax.errors import CheckpointError
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import files, load
from imgcls_jax.types import ModelSpec
from tests import abstract

BLOCK = "Transformer/encoderblock_"
SPEC = ModelSpec(name="vit_ti16", **MODELS.facts("vit_ti16"))


@functools.cache
def tensors(case: str) -> dict[str, np.ndarray]:
    """As big_vision's own module has them."""
    return rule.state_dict(compare.load(case))


def stacked(plain):
    """With the blocks of a scan: a leading axis for the depth."""
    found = {name: value for name, value in plain.items() if not name.startswith(BLOCK)}
    for name in plain:
        if name.startswith(f"{BLOCK}0/"):
            inner = name.removeprefix(f"{BLOCK}0/")
            found[f"Transformer/encoderblock/{inner}"] = np.stack(
                [plain[f"{BLOCK}{i}/{inner}"] for i in range(12)])
    return found


def under(prefix, **others):
    return lambda plain: {**{f"{prefix}{name}": value for name, value in plain.items()}, **others}


def moved(where):
    return lambda plain: {f"{where}{name}" if name == "pos_embedding" else name: value
                          for name, value in plain.items()}


OTHER = np.zeros(3, np.float32)
FORMS = {
    "the parameters alone": dict,
    "a whole checkpoint": under("params/", **{"opt/0/mu/head/bias": OTHER, "step": OTHER[0]}),
    "one of before optax": under("opt/target/", **{"opt/state/step": OTHER[0]}),
    "beside a text tower": under("params/img/", **{"params/txt/head/bias": OTHER,
                                                   "params/t": OTHER[0], "params/b": OTHER[0]}),
    "positions in the encoder": moved("Transformer/"),
    "as vision_transformer": moved("Transformer/posembed_input/"),
    "scanned": stacked,
    "scanned, a whole checkpoint": lambda plain: under("params/")(stacked(plain)),
}


def read(path, pool):
    arguments = load.told(path, SPEC)["model"]
    assert arguments == {"gelu": "tanh", "pool": pool, "positions": "learned"}
    _, wanted = abstract.init("vit_ti16", **arguments)
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), wanted)
    return tree.flatten(load.into(fresh, load.read(path, SPEC, tree.flatten(wanted)), SPEC))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pool", ["map", pytest.param("token", marks=pytest.mark.nightly)])
@pytest.mark.filterwarnings("ignore:.*adapted")
def test_every_form_gives_the_same_variables(tmp_path, form, pool):
    plain = tensors(f"bv_vit_ti16_{pool}")
    np.savez(tmp_path / "plain.npz", **plain)
    np.savez(tmp_path / "form.npz", **FORMS[form](plain))
    expected, found = read(tmp_path / "plain.npz", pool), read(tmp_path / "form.npz", pool)
    assert expected.keys() == found.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)
    assert np.any(found["params/block11/attention/qkv/kernel"])


def test_a_token_without_a_position_gets_one_of_zeros(tmp_path):
    np.savez(tmp_path / "w.npz", **tensors("bv_vit_ti16_token"))
    with pytest.warns(UserWarning, match=r"positions: \[1, 196, 192\] adapted to \[1, 197, 192\]"):
        found = read(tmp_path / "w.npz", "token")["params/positions"]
    assert not found[:, 0].any()
    np.testing.assert_array_equal(found[:, 1:], tensors("bv_vit_ti16_token")["pos_embedding"])


def test_bfloat16_which_numpy_stores_as_two_bytes_is_read(tmp_path):
    values = np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3)
    np.savez(tmp_path / "w.npz", w=values)
    assert np.load(tmp_path / "w.npz")["w"].dtype == "V2"
    np.testing.assert_array_equal(files.read(tmp_path / "w.npz")["w"], values, strict=True)
    np.savez(tmp_path / "odd.npz", w=np.zeros(3, "V3"))
    with pytest.raises(CheckpointError, match="numbers of the type"):
        files.read(tmp_path / "odd.npz")


@pytest.mark.parametrize("case, layout", [("bv_vit_ti16_map", "big_vision"),
                                          ("npz_Ti_16", "npz")])
def test_what_is_exported_has_the_names_and_shapes_of_the_publisher(tmp_path, case, layout):
    np.savez(tmp_path / "w.npz", **tensors(case))
    work, out = tmp_path / "w", tmp_path / "out.npz"
    assert main(["convert", "--model=vit_ti16", f"--weights={tmp_path / 'w.npz'}",
                 f"--workdir={work}"]) == 0
    assert main(["export", f"--workdir={work}", "--format=npz", f"--layout={layout}",
                 f"--out={out}"]) == 0
    with np.load(out) as written:
        assert set(written.files) == set(tensors(case))
        for name, value in tensors(case).items():
            np.testing.assert_array_equal(written[name], value, strict=True)


def test_a_layout_of_another_format_is_refused(tmp_path, capsys):
    np.savez(tmp_path / "w.npz", **tensors("npz_Ti_16"))
    assert main(["convert", "--model=vit_ti16", f"--weights={tmp_path / 'w.npz'}",
                 f"--workdir={tmp_path / 'w'}"]) == 0
    assert main(["export", f"--workdir={tmp_path / 'w'}", "--format=npz", "--layout=timm",
                 f"--out={tmp_path / 'x'}"]) == 2
    told = capsys.readouterr().err
    assert "vit_ti16 has no layout 'timm' in this format" in told and "big_vision" in told
    assert not (tmp_path / "x").exists()
