"""The step as it is compiled for a TPU, beside the same step written out plainly, in bf16 and f32.

The forms that a TPU gets are run here on a CPU.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imgcls_jax import assembly, tree
from imgcls_jax.assembly import measured
from imgcls_jax.layers import attention, conv, patches
from imgcls_jax.models import resnet
from imgcls_jax.parallel import transfer

SIZE, BATCH = 32, 8
MODELS = {"resnet50": dict(norm_group=8),
          # A head of zeros would pass no gradient on to the blocks.
          "vit_s16": dict(pool="gap", gelu="tanh", remat="keys_values", zero_head=False)}


def for_a_tpu(patch):
    patch.setattr(lax, "platform_dependent", lambda *arguments, default, **own: own.get(
        "tpu", default)(*arguments))
    patch.setattr(attention, "_in_order", lambda x, order: x)  # memory alone


def plainly(patch):
    def written(queries, keys, values, bias, scale):
        assert bias is None and scale is None
        scores = jnp.einsum("bqhd,bnhd->bhqn", queries, keys) * queries.shape[-1] ** -0.5
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(values.dtype)
        return jnp.einsum("bhqn,bnhd->bqhd", weights, values)

    def norm(module, name, zero=False):
        layer = NORM(module, name, zero)
        return lambda x, train, pool=None: (
            layer(x, train) if pool is None else pool(jax.nn.relu(layer(x, train))))

    NORM = resnet._norm
    patch.setattr(conv, "WIDENS", np.inf)
    patch.setattr(resnet, "_norm", norm)
    patch.setattr(resnet, "relu", jax.nn.relu)
    patch.setattr(attention, "attend", written)
    patch.setattr(patches.Patches, "_convolved", patches.Patches._multiplied)


def first_step(model, precision, forms, **options):
    """(loss, change of all leaves) of one step of SGD."""
    config = measured.plain(model, BATCH, SIZE, precision)
    config = config | {"model": dict(name=model, **{**MODELS[model], **options})}
    run = assembly.build(config, devices=jax.devices()[:1])
    rng = np.random.default_rng(0)
    batch = transfer.to_device(
        {"image": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
         "label": rng.integers(0, 1000, BATCH).astype(np.int32),
         "mask": np.ones(BATCH, np.float32)}, BATCH, run.mesh)
    state = run.init()
    with pytest.MonkeyPatch.context() as patch:
        forms(patch)
        new, sums = jax.jit(run.step)(state, batch)
    change = jax.tree.map(lambda a, b: np.asarray(a - b, np.float64),
                          (new.params, new.model_state), (state.params, state.model_state))
    leaves = [leaf.ravel() for _, leaf in sorted(tree.flatten(change).items())]
    return float(sums["loss"]) / BATCH, np.concatenate(leaves)


@pytest.mark.nightly
@pytest.mark.usefixtures("two_blocks")
@pytest.mark.parametrize("model", MODELS)
def test_loss_and_gradients_are_those_of_the_plain_step_to_rounding(model):
    written = dict(remat=False)
    exact_loss, exact = first_step(model, "f32", plainly, **written)
    loss, change = first_step(model, "f32", for_a_tpu)
    np.testing.assert_allclose(loss, exact_loss, rtol=1e-5)
    print("f32", np.linalg.norm(change - exact) / np.linalg.norm(exact))
    assert np.linalg.norm(change - exact) < 1e-5 * np.linalg.norm(exact)

    loss, change = first_step(model, "bf16", for_a_tpu)
    usual_loss, usual = first_step(model, "bf16", plainly, **written)
    error, usual_error = (np.linalg.norm(a - exact) for a in (change, usual))
    print("bf16", error / usual_error, loss, usual_loss, exact_loss)
    # Both are rounded to bf16 throughout, at different places.
    assert error < 1.1 * usual_error, (error, usual_error)
    assert abs(loss - exact_loss) < max(2 * abs(usual_loss - exact_loss), 2**-8 * exact_loss)
