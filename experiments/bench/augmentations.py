"""What does each augmentation cost, in milliseconds of one core per image of 224 pixels?

python -m experiments.bench.augmentations [--only=TEXT]

Every operation by itself, and whole transforms. CPU time of the process, pinned to one core, of a
tf.data map with one thread, less that of a map that only hands out the image; the least of the
rounds. The start of a pipeline is left out.
"""

import argparse
import os
import time

import numpy as np

from experiments.bench import record
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.transforms import TRANSFORMS, _operations

SIDE, WARM = 224, 60
ARGUMENTS = {"rotate": 13.0, "shear_x": 0.2, "shear_y": 0.2, "translate_x": 20.3,
             "translate_y": 20.3, "posterize": 3, "solarize": 99, "solarize_add": 33, "hue": 0.2}
TRANSFORM_ARGUMENTS = (
    dict(name="randaugment"), dict(name="randaugment_timm"),
    dict(name="randaugment_timm", interpolation="bicubic"), dict(name="randaugment_torchvision"),
    dict(name="auto_augment"), dict(name="auto_augment_timm"), dict(name="trivial_augment_wide"),
    dict(name="augmix"), dict(name="augmix_timm"), dict(name="three_augment"),
    dict(name="color_jitter", brightness=0.4, contrast=0.4, saturation=0.4),
    dict(name="color_jitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    dict(name="gaussian_blur", p=1.0), dict(name="gaussian_blur", p=1.0, kernel_size=23),
    dict(name="random_erasing", p=1.0), dict(name="random_erasing", p=1.0, mode="pixel"),
    dict(name="cutout", size=56), dict(name="lighting"), dict(name="flip", axis="vertical"))


def images() -> np.ndarray:
    """u8[8,224,224,3], waves and noise."""
    y, x = np.mgrid[:SIDE, :SIDE][..., None]
    waves = 128 + 60 * (np.sin(x / 20) + np.cos(y / 31))
    noise = np.random.default_rng(0).normal(0, 12, (8, SIDE, SIDE, 3))
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def milliseconds(tf, run, count: int, rounds: int) -> float:
    """Of run(image, seed), where no size is known when it is traced."""
    stored = tf.constant(images())
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False

    def spent(function) -> float:
        @tf.autograph.experimental.do_not_convert
        def example(number):
            image = stored[number % 8][:SIDE + 0 * number]
            return tf.reduce_max(function(image, tf.stack([number, 7])))

        data = tf.data.Dataset.range(WARM + count, output_type=tf.int32).map(example)
        rows = iter(data.with_options(options))
        for _ in range(WARM):
            next(rows)
        start = time.process_time()
        for _ in range(count):
            next(rows)
        return (time.process_time() - start) / count * 1e3

    return (min(spent(run) for _ in range(rounds))
            - min(spent(lambda image, _: image) for _ in range(rounds)))


def cases(tf) -> dict:
    found = {}

    def argument(kind, seed):  # a tensor, so that nothing is computed when the graph is made
        return tf.cast(seed[1], tf.float64) / 7 * ARGUMENTS.get(kind, 1.3)

    for kind, operation in _operations.COLOR.items():
        found[kind] = lambda image, seed, kind=kind, run=operation: run(image, argument(kind, seed))
    for kind, operation in _operations.GEOMETRIC.items():
        for how in ("nearest", "bilinear", "bicubic"):
            found[f"{kind}, {how}"] = lambda image, seed, kind=kind, run=operation, how=how: run(
                image, argument(kind, seed), how, (124, 116, 104))
    for choice in TRANSFORM_ARGUMENTS:
        name = ", ".join(str(v) if k == "name" else f"{k}={v}" for k, v in choice.items())
        transform = TRANSFORMS.bind(choice, name)()
        found[f"transform {name}"] = lambda image, seed, run=transform: run(
            {"image": image, "channels": 3}, seed)["image"]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    tf = tensorflow()
    rows = []
    for case, run in cases(tf).items():
        if asked.only in case:
            cost = milliseconds(tf, run, asked.count, asked.rounds)
            rows.append({"case": case, "ms": round(cost, 3)})
            print(rows[-1], flush=True)
    record.save("augmentations", "Augmentations of 224 x 224 on one core", rows,
                other={"tensorflow": tf.__version__})


if __name__ == "__main__":
    main()
