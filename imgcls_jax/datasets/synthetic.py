"""Generated images, without files: to test a set-up and to measure speed."""

import math

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import DATASETS
from imgcls_jax.registry import Count
from imgcls_jax.types import Lookup, Source


@DATASETS.register()
def synthetic(*, examples: Count = 1024, held_out: Count = 256, size: Count = 32, classes: int = 10,
              channels: int = 3, seed: int = 0) -> Source:
    """u8[size,size,channels]: half a random 4 x 4 pattern of the class, half noise of the example.

    examples, held_out: sizes of `train` and `validation`; the classes alternate. Easily learned;
    everything is a function of the seed and the example's number.
    """
    sizes = {"train": examples, "validation": held_out}

    def open_split(name: str) -> Lookup:
        first = 0 if name == "train" else examples

        def read(index):
            tf = tensorflow()
            number = tf.cast(index + first, tf.int32)
            label = number % classes
            pattern = _random_bytes((4, 4, channels), (seed, label))
            cells = tf.range(size) * 4 // size
            pattern = tf.gather(tf.gather(pattern, cells, axis=0), cells, axis=1)
            noise = _random_bytes((size, size, channels), (seed, classes + number))
            return {"image": pattern // 2 + noise // 2, "label": label}

        return Lookup(sizes[name], read, lambda index: f"synthetic example {index + first}",
                      lambda: (np.arange(sizes[name], dtype=np.int32) + first) % classes)

    return Source(name="synthetic", classes=tuple(map(str, range(classes))), sizes=sizes,
                  open=open_split, channels=channels, image_size=(size, size))


def _random_bytes(shape, seed):
    """u8[shape], four bytes from every random word."""
    tf = tensorflow()
    count = math.prod(shape)
    words = tf.random.stateless_uniform((-(-count // 4),), tf.stack(seed), None, None, tf.int32)
    return tf.reshape(tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:count], shape)
