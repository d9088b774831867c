"""Records parity cases from keras.applications of Keras 3.15 on TensorFlow, on a CPU.

python -m experiments.parity.record_keras VGG16=vgg16 ResNet50=keras_resnet50 [--sizes=160]
python -m experiments.parity.record_keras --files

Each writes tests/pretrained/cases/keras_<name>.npz, which holds what record.py's cases hold, under
the names "layer/leaf" in the order of the model's layers. Images are those of rule.py as our model
takes them: of a model with caffe's weights in RGB, while Keras gets BGR; EfficientNets get them
before their own scaling of 0 to 255. --files puts small files as this version of Keras saves them
into tests/pretrained/files/keras.npz, for the tests of our reader; those of other versions stay.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np

from experiments.parity import rule

CASES = Path(__file__).parents[2] / "tests" / "pretrained" / "cases"
FILES = CASES.with_name("files") / "keras.npz"
EVERY = 16  # of 1,000 logits
BGR = ("VGG16", "VGG19", "ResNet50", "ResNet101", "ResNet152")
SCALED = "stem_conv_pad"  # what stands behind those layers


def tensors(model) -> dict[str, keras.Variable]:
    """Variables as "layer/leaf"."""
    return {f"{layer.name}/{v.name.removeprefix('depthwise_')}": v
            for layer in model.layers for v in layer.weights}


def build(name: str, size: int, dtype: str):
    keras.config.set_dtype_policy(dtype)
    keras.config.set_floatx(dtype)
    keras.backend.clear_session()  # layers without a name are numbered anew
    return getattr(keras.applications, name)(
        weights=None, classifier_activation=None,
        **({"input_shape": (size, size, 3)} if size else {}))


def run(model, x) -> np.ndarray:
    """Logits. The factor 1/255 of an EfficientNet is rounded to f32 by Keras whatever its dtype is,
    which would show in f64: it is left out."""
    if any(layer.name == SCALED for layer in model.layers):
        model = keras.Model(model.get_layer(SCALED).input, model.output)
    return keras.ops.convert_to_numpy(model(x, training=False))


def draw(model, normalised: bool):
    """Every parameter by the rule; the layer that normalises EfficientNets' images stays as it is
    built, with mean 0 and variance 1."""
    for name, variable in tensors(model).items():
        layer, _, leaf = name.rpartition("/")
        if not leaf.startswith("moving_") and not layer.startswith("normalization"):
            variable.assign(rule.keras_tensor(name, tuple(variable.shape), normalised=normalised))


def images(name: str, size: int, batch: int = 2) -> np.ndarray:
    x = rule.images(size, batch=batch)
    return np.ascontiguousarray(x[..., ::-1]) if name in BGR else x


def calibrate(model, x) -> dict[str, np.ndarray]:
    """Sets the statistics of each BatchNorm to codes of what it sees, in forward order."""
    codes: dict[str, np.ndarray] = {}
    plain = keras.layers.BatchNormalization.call

    def call(layer, inputs, *arguments, **options):
        seen = keras.ops.convert_to_numpy(inputs).astype(np.float64)
        mean, var = seen.mean((0, 1, 2)), seen.var((0, 1, 2))
        found = rule.encode(mean, var, layer.name)
        codes[f"mean:{layer.name}"], codes[f"var:{layer.name}"] = found
        for variable, value in zip((layer.moving_mean, layer.moving_variance),
                                   rule.decode(*found), strict=True):
            variable.assign(value)
        return plain(layer, inputs, *arguments, **options)

    keras.layers.BatchNormalization.call = call
    try:
        run(model, x)
    finally:
        keras.layers.BatchNormalization.call = plain
    return codes


def record(name: str, ours: str, sizes: list[int]) -> Path:
    model = build(name, 0, "float32")
    native = model.input_shape[1]
    normalised = any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    draw(model, normalised)
    found = tensors(model)
    case = {"source": f"keras:{name}", "ours": json.dumps([ours, {}]), "normalised": normalised,
            "params": sum(int(np.prod(v.shape)) for v in model.trainable_weights),
            "total": model.count_params(), "names": np.array(list(found)),
            "shapes": np.array([",".join(map(str, v.shape)) for v in found.values()])}
    case |= calibrate(model, images(name, native, 4))
    values = model.get_weights()
    for size in dict.fromkeys([native, *sizes]):
        single = build(name, size, "float32")
        single.set_weights(values)
        x = images(name, size)
        single = run(single, x)
        model = build(name, size, "float64")
        model.set_weights(values)
        double = run(model, x.astype(np.float64))
        assert double.dtype == np.float64
        across = double.std(0).mean()
        case[f"logits:{size}"] = double[:, ::EVERY]
        case[f"error:{size}"] = np.abs(single - double)[:, ::EVERY].max()
        case[f"across:{size}"] = across
        print(f"keras:{name} {case['params']:,} of {case['total']:,} parameters, {size} px: logits "
              f"of sd {double.std():.3g}, {across:.3g} across inputs, f32 error "
              f"{case[f'error:{size}']:.2g}", flush=True)
        if not np.isfinite(double).all() or across < 1e-4:
            raise SystemExit("degenerate: the logits hardly depend on the images")
    path = CASES / f"keras_{name.lower()}.npz"
    np.savez_compressed(path, **case)
    return path


def write_files():
    """A net with a layer of each kind that the models have, in the two formats."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Normalization(name="normalization")(x)
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="stem_conv")(x)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, name="block1a_dwconv")(x)
    x = keras.layers.Conv2D(5, 1, name="block1a_se_reduce")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="predictions")(x))
    for name, variable in tensors(model).items():
        if variable.dtype == "float32":
            variable.assign(rule.keras_tensor(name, tuple(variable.shape)))
    found = {name: np.asarray(value) for name, value in tensors(model).items()}
    if FILES.exists():
        with np.load(FILES) as earlier:
            found |= {name: value for name, value in earlier.items() if name.startswith("file:")}
    with tempfile.TemporaryDirectory() as folder:
        model.save_weights(f"{folder}/new.weights.h5")
        model.save(f"{folder}/old.h5")
        for kind in ("new.weights.h5", "old.h5"):
            data = np.fromfile(f"{folder}/{kind}", np.uint8)
            found[f"file:{keras.__version__}:{kind}"] = data
    np.savez_compressed(FILES, **found)



def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--sizes", default="", help="other sizes than the native one")
    parser.add_argument("--files", action="store_true", help="write files for the reader's tests")
    arguments = parser.parse_args()
    if arguments.files:
        write_files()
    for word in arguments.names:
        name, _, ours = word.partition("=")
        print(record(name, ours, [int(size) for size in arguments.sizes.split(",") if size]))


if __name__ == "__main__":
    main()
