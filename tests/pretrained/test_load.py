"""From a file to a workdir, predictions and the file again; and what does not fit."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from imgcls_jax import predict, tree
from imgcls_jax.__main__ import main
from imgcls_jax.errors import CheckpointError
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import adapt, load, names
from imgcls_jax.types import ModelSpec, Weights

WIDTH = 8


def spec(name="resnet18"):
    return ModelSpec(name=name, **MODELS.facts(name))


def shapes(classes=1000, width=WIDTH, channels=3, name="resnet18"):
    module = MODELS.get(name)(classes, width=width)
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)


def state_dict(classes=1000, width=WIDTH):
    """A narrow resnet18 under torchvision's names, which torchvision/models/resnet.py gives."""
    rng = np.random.default_rng(0)
    tensors = {"conv1.weight": (width, 3, 7, 7), "fc.weight": (classes, 8 * width),
               "fc.bias": (classes,)}
    norms = {"bn1": width}
    for stage in range(4):
        out = width * 2**stage
        for block in range(2):
            prefix = f"layer{stage + 1}.{block}"
            inner = out // 2 if stage and not block else out
            tensors |= {f"{prefix}.conv1.weight": (out, inner, 3, 3),
                        f"{prefix}.conv2.weight": (out, out, 3, 3)}
            norms |= {f"{prefix}.bn1": out, f"{prefix}.bn2": out}
            if inner != out:
                tensors[f"{prefix}.downsample.0.weight"] = (out, inner, 1, 1)
                norms[f"{prefix}.downsample.1"] = out
    found = {name: rng.normal(size=shape, scale=0.1) for name, shape in tensors.items()}
    for name, features in norms.items():
        found |= {f"{name}.{leaf}": rng.uniform(0.5, 1.5, features)
                  for leaf in ("weight", "bias", "running_mean", "running_var")}
    found = {name: value.astype(np.float32) for name, value in found.items()}
    return found | {f"{name}.num_batches_tracked": np.zeros((), np.int64) for name in norms}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(state_dict(), path)
    return path


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, file):
    path = tmp_path_factory.mktemp("converted") / "w"
    assert main(["convert", "--model=resnet18", f"--weights={file}", f"--workdir={path}",
                 f"--config.model.width={WIDTH}", "--size=64"]) == 0
    return path


def test_what_was_converted_is_exported_bit_for_bit(workdir, file, tmp_path):
    for layout in ("torchvision", "timm"):
        out = tmp_path / f"{layout}.safetensors"
        assert main(["export", f"--workdir={workdir}", f"--layout={layout}", f"--out={out}"]) == 0
        found, wanted = load_file(out), load_file(file)
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, strict=True)


def test_an_unknown_layout_is_told(workdir, tmp_path, capsys):
    assert main(["export", f"--workdir={workdir}", "--layout=keras",
                 f"--out={tmp_path / 'x'}"]) == 2
    assert "torchvision" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_images_and_folders_are_labelled_and_a_bad_file_stops_no_other(workdir, tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "more").mkdir()
    paths = [tmp_path / "a.jpg", tmp_path / "more" / "b.png"]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (80, 100, 3), np.uint8)).save(path)
    bad = tmp_path / "more" / "cut.jpg"
    bad.write_bytes(paths[0].read_bytes()[:200])
    words = ["predict", f"--workdir={workdir}", str(paths[0]), str(tmp_path / "more"),
             "--format=jsonl", "--top=3"]
    assert main(words) == 0 and main([*words, "--strict"]) == 3
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()[:3]]
    assert [row["ok"] for row in rows] == [True, True, False]
    assert [row["file"] for row in rows] == [str(paths[0]), str(paths[1]), str(bad)]
    model = predict.load(workdir)
    probabilities = model([str(paths[0])])[0]
    order = probabilities.argsort()[::-1][:3]
    assert [hit["id"] for hit in rows[0]["topk"]] == order.tolist()
    assert [hit["label"] for hit in rows[0]["topk"]] == [model.labels[i] for i in order]
    assert model.labels[0] == "tench", "labels of ImageNet, in words"
    assert json.loads((workdir / "labels.json").read_text())[0] == "n01440764", "as its data has it"


def test_features_are_what_the_head_receives_and_intermediates_have_paths(workdir):
    model = predict.load(workdir)
    x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    features, head = model.features(x), model.variables["params"]["head"]
    assert features.shape == (2, 8 * WIDTH)
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], model.logits(x),
                               rtol=1e-4, atol=1e-5)
    maps = model.intermediates(x, r"stage\d_block1")
    assert {k: v.shape for k, v in maps.items()} == {
        f"stage{i + 1}_block1": (2, 16 >> i, 16 >> i, WIDTH << i) for i in range(4)}
    np.testing.assert_allclose(maps["stage4_block1"].mean((1, 2)), features, rtol=1e-5)


# ---- what does not fit ----------------------------------------------------------------------


def told(tensors, tmp_path, wanted=None, reset=()):
    save_file(tensors, tmp_path / "w.safetensors")
    wanted = wanted or shapes()
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), wanted)
    found = load.read(tmp_path / "w.safetensors", spec(), tree.flatten(fresh))
    with pytest.raises(CheckpointError) as error:
        load.into(fresh, found, spec(), reset=reset)
    return str(error.value)


def test_a_missing_tensor_is_named_in_both_tongues(tmp_path):
    tensors = state_dict()
    del tensors["layer2.0.conv1.weight"]
    said = told(tensors, tmp_path)
    assert "1 missing: params/stage2_block0/conv1/kernel (layer2.0.conv1.weight)" in said


def test_an_extra_tensor_is_named(tmp_path):
    said = told(state_dict() | {"fc2.weight": np.zeros(3, np.float32)}, tmp_path)
    assert "1 not wanted: fc2.weight" in said and "weights of this model" in said


def test_a_tensor_of_another_shape_is_named_with_both(tmp_path):
    said = told(state_dict(), tmp_path, shapes(width=2 * WIDTH))
    assert "101 of another shape" in said, "all but the bias of the head"
    assert "stage1_block0/norm1/mean: the model has [16], the weights [8]" in said


def test_another_class_count_alone_says_that_the_head_may_start_anew(tmp_path):
    said = told(state_dict(), tmp_path, shapes(classes=10))
    assert "start with a new head: reset=('head',)" in said and "2 of another shape" in said


def test_a_file_of_another_model_is_told_and_not_listed_whole(tmp_path):
    save_file({"encoder.x": np.zeros(2, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="none of the 1 tensors belongs to resnet18"):
        load.read(tmp_path / "w.safetensors", spec(), tree.flatten(shapes()))


def test_a_wrong_architecture_ends_the_command_with_4(file, tmp_path, capsys):
    assert main(["convert", "--model=resnet34", f"--weights={file}",
                 f"--workdir={tmp_path / 'w'}"]) == 4
    error = capsys.readouterr().err
    assert "80 missing: " in error and "(layer1.2.bn1.running_mean)" in error
    assert len(error.splitlines()) <= 5


# ---- what is fitted -------------------------------------------------------------------------


def test_a_reset_head_is_fresh_and_all_else_the_files(tmp_path):
    save_file(state_dict(), tmp_path / "w.safetensors")
    fresh = jax.tree.map(lambda leaf: np.full(leaf.shape, 5, leaf.dtype), shapes(classes=10))
    found = load.read(tmp_path / "w.safetensors", spec(), tree.flatten(fresh))
    made = tree.flatten(load.into(fresh, found, spec(), reset=("head",)))
    assert (made["params/head/kernel"] == 5).all() and (made["params/head/bias"] == 5).all()
    back = names.to_tensors(made, spec().layouts["torchvision"])
    for name, value in state_dict().items():
        if not name.startswith("fc."):
            np.testing.assert_array_equal(back[name], value)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_a_fitted_stem_takes_the_colors_in_turn_and_one_channel_their_sum(channels):
    kernel = np.random.default_rng(0).normal(size=(7, 7, 3, 4)).astype(np.float32)
    fitted = adapt.fit("params/stem_conv/kernel", kernel, (7, 7, channels, 4))
    assert fitted.shape == (7, 7, channels, 4)
    colors = np.array([kernel[:, :, i % 3] for i in range(channels)]) * 3 / channels
    expected = kernel.sum(2) if channels == 1 else colors.sum(0)
    np.testing.assert_allclose(fitted.sum(2), expected, rtol=1e-4, atol=1e-5)
    patches = adapt.fit("params/patches/kernel", kernel.reshape(-1, 4), (49 * channels, 4))
    np.testing.assert_array_equal(patches.reshape(fitted.shape), fitted)


def test_a_table_of_positions_keeps_its_token_and_a_smooth_grid():
    y, x = np.mgrid[:14, :14] / 13
    grid = np.stack((y, x), -1).reshape(1, 196, 2)
    table = np.concatenate((np.full((1, 1, 2), 9.0), grid), 1).astype(np.float32)
    fitted = adapt.positions(table, 1 + 24 * 24)
    np.testing.assert_array_equal(fitted[:, 0], 9)
    inner = fitted[0, 1:].reshape(24, 24, 2)[3:-3, 3:-3]
    centers = ((np.arange(24) + 0.5) * 14 / 24 - 0.5)[3:-3] / 13
    np.testing.assert_allclose(inner[..., 0], np.broadcast_to(centers[:, None], inner.shape[:2]),
                               atol=1e-5)


@pytest.mark.nightly
def test_a_vit_for_gray_larger_images_of_other_classes_keeps_all_but_three_leaves(
        tmp_path, random_variables):
    layout, apply = MODELS.facts("vit_ti16")["layouts"]["timm"], MODELS.get("vit_ti16")(0).apply
    color, gray = (jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
                   for size, channels in ((32, 3), (48, 1)))
    saved = random_variables(MODELS.get("vit_ti16")(1000), color)
    save_file(names.to_tensors(tree.flatten(saved), layout), tmp_path / "w.safetensors")
    fresh = random_variables(MODELS.get("vit_ti16")(5), gray)
    wanted = tree.flatten(fresh)
    found = load.read(tmp_path / "w.safetensors", spec("vit_ti16"), wanted)
    made = load.into(fresh, found, spec("vit_ti16"), reset=("head",))

    before, after = tree.flatten(saved), tree.flatten(made)
    changed = {path for path in after if after[path].shape != before[path].shape or
               not np.array_equal(after[path], before[path])}
    assert changed == {"params/head/kernel", "params/head/bias", "params/positions",
                       "params/patches/kernel"}
    np.testing.assert_array_equal(after["params/head/kernel"], wanted["params/head/kernel"])
    np.testing.assert_array_equal(after["params/positions"][:, 0], before["params/positions"][:, 0])
    # With the table of the old size, a gray image has the features that it had in three colors.
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 1)).astype(np.float32)
    made["params"]["positions"] = saved["params"]["positions"]
    without_head = [{"params": {k: v for k, v in tree_["params"].items() if k != "head"}}
                    for tree_ in (saved, made)]
    np.testing.assert_allclose(apply(without_head[1], image),
                               apply(without_head[0], np.repeat(image, 3, -1)), atol=1e-4)


GRIDS = [((14, 14), (7, 28)), ((14, 14), (28, 7)), ((14, 14), (3, 5)), ((7, 28), (14, 14)),
         ((16, 16), (8, 32)), ((8, 8), (4, 16)), ((8, 32), (16, 16)), ((12, 20), (10, 24))]


@pytest.mark.parametrize("old, new", GRIDS)
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_a_table_of_any_rectangle_is_resized_as_pillow_resizes_an_image(old, new, extra):
    """Pillow's bicubic on f32 is that of torch with antialiasing, which timm uses."""
    table = np.random.default_rng(0).normal(size=(1, extra + np.prod(old), 2)).astype(np.float32)
    fitted = adapt.fit("params/positions", table, (1, extra + np.prod(new), 2), new,
                       None if old[0] == old[1] else old)
    np.testing.assert_array_equal(fitted[:, :extra], table[:, :extra])
    channels = np.moveaxis(table[0, extra:].reshape(*old, 2), -1, 0)
    expected = np.stack([Image.fromarray(channel).resize(new[::-1], Image.Resampling.BICUBIC)
                         for channel in channels], -1)
    np.testing.assert_allclose(fitted[0, extra:].reshape(*new, 2), expected, atol=1e-5)


@pytest.mark.parametrize("tokens, grid, found", [
    (1 + 200, None, None), (30, None, None),  # no square
    (1 + 200, (10, 20), (7, 27)), (1 + 200, (10, 20), (14, 15)),  # 197 is not 1 + 7 * 27
    (2 + 200, (10, 20), None)])  # with two tokens beside the patches, 195 are no square
def test_positions_of_an_unknown_grid_are_refused(tokens, grid, found):
    with pytest.raises(CheckpointError, match="197 positions") as error:
        adapt.positions(np.zeros((1, 197, 4), np.float32), tokens, grid, found)
    assert "config.init.grid" in error.value.fix


def test_a_vit_file_of_an_older_torchvision_has_its_old_names_understood():
    layout = MODELS.facts("vit_b16")["layouts"]["torchvision"]
    module = MODELS.get("vit_b16")(10)
    wanted = tree.flatten(jax.eval_shape(module.init, jax.random.key(0),
                                         jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)))
    wanted = {path: leaf for path, leaf in wanted.items() if "/block0/" in path}
    leaves = {path: np.full(leaf.shape, i, np.float32) for i, (path, leaf) in
              enumerate(wanted.items())}
    tensors = names.to_tensors(leaves, layout)
    old = {name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
           for name, value in tensors.items()}
    assert old.keys() != tensors.keys()
    found, difference = names.to_variables(old, wanted, layout)
    assert not difference
    for path, value in leaves.items():
        np.testing.assert_array_equal(found[path], value)


@pytest.mark.parametrize("resize, crop_mode, expected", [
    (256, "center", [("resize_small", 256), ("center_crop", 224)]),
    (256, "squash", [("resize", 256), ("center_crop", 224)]),
    (224, "squash", [("resize", 224)])])
def test_the_preprocessing_of_weights_follows_from_their_crop(resize, crop_mode, expected):
    weights = Weights(file="", layout="timm", image_size=224, resize=resize, crop_mode=crop_mode,
                      interpolation="bicubic", top1=None, top5=None, licence="")
    assert [(way["name"], way["size"]) for way in load.transforms(weights)] == expected


@pytest.mark.parametrize("name, weights, published", [
    ("alexnet-owt-7be5be79.pth", "alexnet/imagenet1k_v1", "begins with 7be5be79"),
    ("vgg16_weights_tf_dim_ordering_tf_kernels.h5", "vgg16/keras_imagenet",
     "64373286793e3c8b2b4e3219cbf3544b")])  # an md5
def test_a_file_with_the_name_of_published_weights_must_be_them(
        tmp_path, monkeypatch, name, weights, published):
    monkeypatch.setenv("IMGCLS_WEIGHTS", str(tmp_path))
    model, _, tag = weights.partition("/")
    file = tmp_path / name
    file.write_bytes(b"other numbers")
    for place in (file, weights, tag):
        with pytest.raises(CheckpointError, match=f"not the published one: its .* {published}"):
            load.locate(place, model)
    assert main(["convert", f"--model={model}", f"--weights={file}",
                 f"--workdir={tmp_path / 'w'}"]) == CheckpointError.code
    assert main(["reproduce", weights, f"--data={tmp_path}"]) == CheckpointError.code
    assert not (tmp_path / "w").exists()
    own = file.rename(tmp_path / f"own_{name}")  # a file of another name is one's own
    assert load.locate(own, model) == (own, None)
