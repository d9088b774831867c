"""Eight virtual CPU devices for every test, set before jax is imported; random variables."""

import os
import socket

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "")
                           + " --xla_force_host_platform_device_count=8")

import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def single_precision_again():
    """A run in f64 turns 64-bit JAX on for the whole process."""
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def random_variables():
    """(module, images) -> variables without a compiled init; none is at a value, such as a scale
    of one, that could hide an error. Kernels have about unit gain."""
    def draw(module, images):
        rng = np.random.default_rng(1)

        def leaf(shape):
            values = rng.uniform(0.5, 1.5, shape.shape)
            if shape.ndim > 1:
                values *= rng.choice([-1, 1], shape.shape) / np.sqrt(np.prod(shape.shape[:-1]))
            return values.astype(shape.dtype)

        return jax.tree.map(leaf, jax.eval_shape(module.init, jax.random.key(0), images))

    return draw


@pytest.fixture
def two_blocks(monkeypatch):
    """Residual networks of two blocks and transformers of as many: the others compile for long."""
    from imgcls_jax.models import resnet, vit

    residual, transformer = resnet.ResNet, vit.ViT
    monkeypatch.setattr(resnet, "ResNet", lambda classes, blocks, **options: residual(
        classes, (1, 1), **options))
    monkeypatch.setattr(vit, "ViT", lambda classes, patch, width, depth, heads, **options:
                        transformer(classes, patch, width, 2, heads, **options))


@pytest.fixture
def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]
