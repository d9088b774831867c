"""The one door to TensorFlow: imported when first used, and kept off the accelerators."""

import contextlib
import functools
import os
import sys


@functools.cache
def tensorflow():
    """TensorFlow, imported when first needed and kept off the accelerators, which are JAX's."""
    # JAX sets it to "1" on import, so "1" is not a user's choice. What TensorFlow logs about a
    # damaged image, with tracebacks, is also raised as an exception, which data/faults.py explains.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # Serves convolutions, which no input has, and tells of itself on every start.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with _without_keras():
        import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    tf.__path__[:] = filter(None, tf.__path__)  # the place of the Keras that was not found
    return tf


@contextlib.contextmanager
def _without_keras():
    """TensorFlow imports Keras, a fourth of its time, unless asked for an older one, tf_keras.

    Where that is not installed nothing is imported; tf.keras is Keras all the same, when first
    used.
    """
    name = "TF_USE_LEGACY_KERAS"
    if name in os.environ or "tensorflow" in sys.modules:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
