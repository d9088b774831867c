"""What a model does in training, for the tests of families."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def drop_path_rates(module, x) -> list[float]:
    """Rates of the layers that drop a whole branch of an example, in order of use, in training."""
    rates = []

    def note(call, arguments, keywords, context):
        layer = context.module
        if isinstance(layer, nn.Dropout) and layer.broadcast_dims and (
                context.method_name == "__call__"):
            assert set(layer.broadcast_dims) == set(range(1, arguments[0].ndim))
            rates.append(layer.rate if not layer.deterministic else 0.0)
        return call(*arguments, **keywords)

    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    with nn.intercept_methods(note):
        jax.eval_shape(lambda: module.init(keys, x, train=True))
    return rates


def loss_and_gradients(module, v, x):
    """In training, with dropout drawn from one key; compiled."""
    @jax.jit
    @jax.value_and_grad
    def run(params):
        y, _ = module.apply({**v, "params": params}, x, train=True,
                            mutable=["batch_stats", "aux_logits"],
                            rngs={"dropout": jax.random.key(3)})
        return -jax.nn.log_softmax(y)[:, 1].mean()

    return run(v["params"])


def assert_all_train(module, v, x):
    """Every parameter has a gradient that is finite and not zero."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(loss_and_gradients(module, v, x)[1]):
        assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path


def assert_remat_changes_nothing(build, v, x):
    """build: (remat) -> module with dropout. Names, loss and gradients are the same, and the
    gradient is computed anew."""
    def shapes(module):
        return jax.eval_shape(module.init, jax.random.key(0), x)

    plain, remat = build(False), build(True)
    assert shapes(plain) == shapes(remat)
    text = str(jax.make_jaxpr(lambda v: remat.apply(v, x))(v))
    assert "remat" in text or "checkpoint" in text
    for a, b in zip(*(jax.tree.leaves(loss_and_gradients(m, v, x)) for m in (plain, remat)),
                    strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * float(jnp.abs(a).max()))
