"""The rule by which parity cases draw every tensor and image: from names, shapes and a seed alone.

numpy only. A recorder draws a reference model's tensors by it and writes a few logits; a test draws
the same tensors and compares ours. So a case holds no weights. Only uniform numbers are drawn:
their stream is the same in every version of numpy.
"""

import re
import zlib

import numpy as np

TOKENS = ("cls_token", "class_token", "dist_token", "pos_embed", "pos_embedding", "cls",
          "distillation_token", "position_embeddings")
CONSTANTS = ("relative_position_index", "relative_coords_table")  # in files, and of the net's shape
MEAN_UNIT, VAR_UNIT = 16, 8  # codes of BatchNorm statistics: sixteenths of sd, eighths of log2


def _uniform(seed: int, name: str, shape, low: float, high: float) -> np.ndarray:
    number = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    draw = np.random.Generator(np.random.Philox(number)).random(shape, np.float64)
    return (low + (high - low) * draw).astype(np.float32)


def tensor(name: str, shape: tuple[int, ...], *, normalised: bool = True, seed: int = 0):
    """f32 values of a parameter under its torch name, or the one with slashes that it has in an
    npz file, where kernels lie the other way round; none is at a value that hides a mistake.

    Matrices and kernels keep the size of a signal (fan-in); scales lie around 1, biases around 0,
    layer scales in 0.1 to 0.5. normalised: the net has normalisation layers; without any, kernels
    make up for the halving by ReLU.
    """
    leaf = re.split(r"[./]", name)[-1]
    if "layer_scale" in name or ("/" not in name and leaf in ("gamma", "gamma_1", "gamma_2")):
        return _uniform(seed, name, shape, 0.1, 0.5)
    bias = leaf.endswith("bias") or leaf == "beta"
    if len(shape) < 2 or bias:  # an npz file may keep heads apart, [heads, D]
        around, half = (0.0, 0.2) if bias else (1.0, 0.5)
        return _uniform(seed, name, shape, around - half, around + half)
    if leaf in TOKENS:
        return _uniform(seed, name, shape, -0.5, 0.5)
    gain = 1.0 if normalised else 2.0
    inputs = shape[1:]
    if "/" in name:
        inputs = shape[:1] if re.search("/(query|key|value)/", name) else shape[:-1]
    bound = (3 * gain / np.prod(inputs)) ** 0.5
    return _uniform(seed, name, shape, -bound, bound)


def keras_tensor(name: str, shape: tuple[int, ...], *, normalised: bool = True, seed: int = 0):
    """As `tensor`, of a parameter "layer/leaf" of Keras with Keras' axes."""
    layer, _, leaf = name.rpartition("/")
    name = f"{layer}.{'bias' if leaf in ('beta', 'bias') else 'weight'}"
    order = tuple(range(len(shape)))
    if len(shape) == 2:
        order = 1, 0
    elif len(shape) == 4:  # depthwise: [H,W,C,1], in torch [C,1,H,W]
        order = (2, 3, 0, 1) if shape[-1] == 1 else (3, 2, 0, 1)
    value = tensor(name, tuple(shape[i] for i in order), normalised=normalised, seed=seed)
    return np.ascontiguousarray(value.transpose(np.argsort(order)))


def images(size: int, channels: int = 3, batch: int = 2, seed: int = 0) -> np.ndarray:
    """f32[B,size,size,channels] of about unit variance: noise over coarse blocks."""
    name = f"images {size} {channels}"
    fine = _uniform(seed, f"{name} fine", (batch, size, size, channels), -1.2, 1.2)
    coarse = _uniform(seed, f"{name} coarse", (batch, 8, 8, channels), -1.2, 1.2)
    index = np.arange(size) * 8 // size
    return fine + coarse[:, index][:, :, index]


def encode(mean: np.ndarray, var: np.ndarray, name: str, seed: int = 0):
    """Statistics as measured -> (i8, i8) codes of them, the variance off by up to a third."""
    off = _uniform(seed, f"{name} off", var.shape, -3.0, 3.0)
    log = np.clip(np.rint(np.log2(np.maximum(var, 1e-4)) * VAR_UNIT + off), -127, 127)
    sd = np.exp2(log / VAR_UNIT / 2)
    shift = _uniform(seed, f"{name} shift", mean.shape, -0.3, 0.3)
    return (np.clip(np.rint((mean / sd + shift) * MEAN_UNIT), -127, 127).astype(np.int8),
            log.astype(np.int8))


def decode(mean_code: np.ndarray, var_code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes -> (running_mean, running_var) f32, the very numbers the reference was run with."""
    var = np.exp2(var_code.astype(np.float64) / VAR_UNIT)
    return ((mean_code / MEAN_UNIT * np.sqrt(var)).astype(np.float32), var.astype(np.float32))


def state_dict(case) -> dict[str, np.ndarray]:
    """All tensors of a recorded case (an npz with `source`, `names`, `shapes`, and codes), under
    the names of its source."""
    found, keras = {}, str(case["source"]).startswith("keras:")
    normalised = bool(case["normalised"])
    for name, shape in zip(case["names"].tolist(), case["shapes"].tolist(), strict=True):
        shape = tuple(int(n) for n in shape.split(",") if n)
        prefix, _, leaf = name.rpartition("/" if keras else ".")
        if leaf in ("moving_mean", "moving_variance"):
            statistics = decode(case[f"mean:{prefix}"], case[f"var:{prefix}"])
            found[name] = statistics[leaf == "moving_variance"]
        elif keras and prefix.startswith("normalization"):  # as built: of no effect
            found[name] = np.full(shape, leaf == "variance", np.float32)
        elif keras:
            found[name] = keras_tensor(name, shape, normalised=normalised)
        elif leaf == "running_mean":
            mean, var = decode(case[f"mean:{prefix}"], case[f"var:{prefix}"])
            found[name], found[f"{prefix}.running_var"] = mean, var
        elif leaf in CONSTANTS:  # nothing of ours reads them
            found[name] = np.zeros(shape, np.float32)
        elif leaf == "num_batches_tracked":
            found[name] = np.array(7, np.int64)
        elif leaf != "running_var":
            found[name] = tensor(name, shape, normalised=normalised)
    return found


def labels(batch: int, classes: int = 1000) -> np.ndarray:
    """i64[batch] labels of the images."""
    return (np.arange(batch) * 379 + 5) % classes


PROJECTIONS = 8


def summary(name: str, value: np.ndarray) -> np.ndarray:
    """f64[1 + PROJECTIONS] of a tensor: its norm, and its products with vectors of random signs.

    A square of such a product of a difference is the square of its norm in the mean over signs, so
    eight of them tell its norm to about a quarter, where the tensors themselves are not kept.
    """
    flat = np.asarray(value, np.float64).ravel()
    numbers = np.random.Philox(np.random.SeedSequence([1, zlib.crc32(name.encode())]))
    found = [np.linalg.norm(flat)]
    for _ in range(PROJECTIONS):
        words = np.asarray(numbers.random_raw(-(-flat.size // 64)), "<u8")
        bits = np.unpackbits(words.view(np.uint8), count=flat.size)
        found.append(2 * flat[bits == 1].sum() - flat.sum())
    return np.array(found)


def difference(ours: np.ndarray, theirs: np.ndarray, floor: float) -> float:
    """Estimated |a - b| / max(|b|, floor) of two tensors from their summaries."""
    apart = np.sqrt(np.mean((ours[1:] - theirs[1:]) ** 2))
    return float(max(apart, abs(ours[0] - theirs[0])) / max(theirs[0], floor))
