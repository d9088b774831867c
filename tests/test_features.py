"""What is frozen gets no gradient, keeps its statistics and costs no backward pass."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax import assembly, config, features, tree
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.models import MODELS, resnet
from imgcls_jax.training import programs

FROZEN = r"(stem|stage[12]).*"


@pytest.fixture
def short(monkeypatch):
    """One block in each of the three stages."""
    network = resnet.ResNet
    monkeypatch.setattr(resnet, "ResNet", lambda classes, blocks, **options: network(
        classes, (1, 1, 1), **options))


def built(*overrides):
    return assembly.build(config.load("digits", [("model.norm_group", "None"), ("batch_size", "8"),
                                              ("precision", "f32"),
                                              ("schedule.warmup", "None"), *overrides]).config)


def batch(run):
    rng = np.random.default_rng(0)
    return {"image": rng.integers(0, 256, (8, 8, 8, 1), np.uint8),
            "label": rng.integers(0, 10, 8).astype(np.int32), "mask": np.ones(8, np.float32)}


def test_frozen_parameters_and_their_statistics_stay_and_the_others_move(short):
    run = built(("freeze", f"({FROZEN!r},)"))
    before = run.init()
    after, _ = jax.jit(run.step)(before, batch(run))
    for name in ("params", "model_state"):
        old, new = (tree.flatten(getattr(state, name)) for state in (before, after))
        for path in old:
            frozen = path.removeprefix("batch_stats/").startswith(("stem", "stage1", "stage2"))
            moved = not np.array_equal(old[path], new[path])
            assert moved == (not frozen), path


@pytest.mark.nightly
def test_a_norm_with_a_trained_part_goes_on_with_the_batch():
    run = built(("freeze", r"('stem_norm/scale',)"))
    before = run.init()
    after, _ = jax.jit(run.step)(before, batch(run))
    key = "batch_stats/stem_norm/mean"
    assert not np.array_equal(tree.flatten(before.model_state)[key],
                              tree.flatten(after.model_state)[key])


@pytest.mark.nightly
def test_gradients_of_the_rest_are_those_of_running_statistics():
    """Against the model in evaluation, where every BatchNorm is frozen and all else is not."""
    module = MODELS.get("resnet20")(10, width=8)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    variables = module.init(jax.random.key(0), x)
    frozen = tree.map_with_path(lambda path, _: "norm" in path, variables["params"])
    apply = features.apply_frozen(module, frozen)

    def loss(params, function, **options):
        out = function({**variables, "params": params}, x, **options)
        return (jax.nn.log_softmax(out[0] if options["train"] else out)**2).sum()

    ours = jax.grad(loss)(variables["params"], apply, train=True, mutable=["batch_stats"])
    plain = tree.flatten(jax.grad(loss)(variables["params"], module.apply, train=False))
    for path, value in tree.flatten(ours).items():
        wanted = jnp.zeros_like(value) if "norm" in path else plain[path]
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.nightly
@pytest.mark.parametrize("pattern, share", [(r"(stem|stage).*", 0.45), (FROZEN, 0.75)])
def test_a_frozen_prefix_is_not_differentiated(pattern, share):
    def flops(*overrides):
        compiled = programs.lower_step(built(*overrides)).compile()
        return compiled.cost_analysis()["flops"]

    assert flops(("freeze", f"({pattern!r},)")) < share * flops()


class Divided(nn.Module):
    """A body with BatchNorm and, before the head, a dropout; what follows the head is kept."""

    inside: float = 0.0
    beside: bool = False

    @nn.compact
    def __call__(self, x, train):
        x = BatchNorm(name="norm")(nn.Dense(6, name="body")(x.reshape(len(x), -1)), train)
        x = nn.Dropout(self.inside, deterministic=not train, name="inside")(jnp.tanh(x)) + 1.0
        kept = nn.Dropout(0.5, deterministic=not train, name="dropout")(x)
        out = 2.0 * nn.Dense(3, name="head")(kept)
        return out + x[:, :3] if self.beside else out


def divided(**options):
    module, images = Divided(**options), jnp.arange(16.0).reshape(4, 2, 2, 1) / 8
    variables = module.init(jax.random.key(0), images, train=False)
    frozen = tree.map_with_path(lambda path, _: not path.startswith("head"), variables["params"])
    apply = features.apply_frozen(module, frozen)
    one = jax.ShapeDtypeStruct((1, 2, 2, 1), jnp.float32)
    return apply, variables, images, features.divide(apply, "head", variables, one)


def test_body_and_head_are_the_network_with_its_dropout_and_statistics():
    apply, variables, images, (body, head, same) = divided()
    assert same
    row = body(variables, images)
    np.testing.assert_allclose(head(variables, row, train=False),
                               apply(variables, images, train=False), rtol=1e-6)
    options = dict(train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(3)})
    whole, parts = apply(variables, images, **options), head(variables, row, **options)
    jax.tree.map(np.testing.assert_array_equal, whole[1], parts[1])
    np.testing.assert_allclose(whole[0], parts[0], rtol=1e-6)
    dropped = head(variables, jnp.ones_like(row), train=False) != head(
        variables, jnp.ones_like(row), **options)[0]
    assert dropped.any()


def test_a_body_that_draws_and_a_network_that_is_more_than_its_head_are_told():
    assert not divided(inside=0.5)[-1][2]
    with pytest.raises(features.Entangled, match="more than follows"):
        divided(beside=True)
