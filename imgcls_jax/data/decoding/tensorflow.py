"""The only place that imports TensorFlow: when first used, and kept off the accelerators."""

import contextlib
import functools
import os
import sys
import threading

_importing = threading.Lock()  # training imports it in a thread, and may need it in another


def tensorflow():
    """TensorFlow, imported when first needed and kept off the accelerators, which are JAX's."""
    with _importing:
        return _tensorflow()


@functools.cache
def _tensorflow():
    # JAX sets it to "1" on import, so "1" is not a user's choice. What TensorFlow logs about a
    # damaged image, with tracebacks, is also raised as an exception, which data/faults.py explains.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # oneDNN serves convolutions, which no input has, and logs a message on every start.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with _without_keras():
        import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    tf.__path__[:] = filter(None, tf.__path__)  # drops the path of the Keras not found
    return tf


@contextlib.contextmanager
def _without_keras():
    """Keeps TensorFlow from importing Keras, a quarter of its import time.

    TensorFlow is asked for the older tf_keras, and imports nothing where that is not installed;
    tf.keras still is Keras when first used.
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
