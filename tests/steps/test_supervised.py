"""The supervised step against a softmax regression and a BatchNorm written out in numpy."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgcls_jax import optim, tasks
from imgcls_jax.errors import ConfigError
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.losses.softmax import softmax
from imgcls_jax.metrics.topk import topk
from imgcls_jax.steps import Parts
from imgcls_jax.steps.supervised import supervised
from imgcls_jax.types import TrainState

RNG = np.random.default_rng(0)
BATCH = {"image": RNG.integers(0, 256, (12, 2, 2, 1), np.uint8),
         "label": RNG.integers(0, 5, 12).astype(np.int32), "mask": np.ones(12, np.float32)}
TASK = tasks.make("multiclass", tuple(map(str, range(5))), softmax,
                  {"topk": topk("multiclass", k=(1, 2))})
RATE = 0.5
BLACK = BATCH | {"image": np.zeros_like(BATCH["image"])}


class Net(nn.Module):
    """Logits of the pixels, with BatchNorm or dropout before them."""

    norm: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        if self.norm:
            x = BatchNorm(name="norm")(x, train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(5, name="head")(x)


def plain(key, images, targets):
    return images, targets


@functools.cache  # of the parts that are given: several tests look at one program
def make(module, accumulate=1, *, augment=plain, ema=None, optimizer=None, seed=3, step=None,
         teacher=None):
    """(compiled step, first state)."""
    optimizer = optimizer or optax.sgd(RATE)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2, 2, 1)))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: rng.uniform(0, 1, leaf.shape).astype(np.float32), shapes)
    params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    average = {"params": params, "model_state": rest} if ema else None
    state = TrainState(jnp.zeros((), jnp.int32), params, rest, optimizer.init(params), average)
    parts = Parts(apply=module.apply, task=TASK, optimizer=optimizer, ema=ema, seed=seed,
                  teacher=teacher, prepare=lambda key, images, targets: augment(
                      key, images.astype(jnp.float32) / 255, targets))
    step = step or functools.partial(supervised, accumulate=accumulate)
    return jax.jit(step(parts)), state


def pixels(batch=BATCH):
    return batch["image"].reshape(len(batch["image"]), -1) / 255


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), a, b)


def test_one_step_is_gradient_descent_on_the_mean_loss():
    step, state = make(Net())
    new, sums = step(state, BATCH)
    x, targets = pixels(), np.eye(5)[BATCH["label"]]
    head = jax.tree.map(np.float64, state.params["head"])
    logits = x @ head["kernel"] + head["bias"]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kernel = x.T @ (probabilities - targets) / 12
    bias = (probabilities - targets).mean(0)
    close(new.params["head"], {"kernel": head["kernel"] - RATE * kernel,
                               "bias": head["bias"] - RATE * bias})
    assert new.step == 1
    close(sums, {"loss": -np.log(probabilities)[targets > 0].sum(), "nonfinite": 0, "steps": 1,
                 "gradient_norm": np.sqrt((kernel**2).sum() + (bias**2).sum()),
                 "top1": (logits.argmax(-1) == BATCH["label"]).sum(), "seen": 12,
                 "top2": (np.argsort(-logits)[:, :2] == BATCH["label"][:, None]).sum()})


@pytest.mark.parametrize("accumulate", [3, 12])
def test_without_batch_norm_microbatches_change_nothing(accumulate):
    whole, state = make(Net())
    close(whole(state, BATCH), make(Net(), accumulate)[0](state, BATCH))


def test_a_microbatch_is_every_kth_example_and_running_statistics_move_once():
    step, state = make(Net(norm=True), 3)
    new, _ = step(state, BATCH)
    x, old = pixels(), state.model_state["batch_stats"]["norm"]
    means = np.mean([x[i::3].mean(0) for i in range(3)], 0)
    variances = np.mean([x[i::3].var(0, ddof=1) for i in range(3)], 0)
    close(new.model_state["batch_stats"]["norm"], {
        "mean": 0.9 * old["mean"] + 0.1 * means, "var": 0.9 * old["var"] + 0.1 * variances})


def test_each_microbatch_is_normalised_by_itself():
    step, state = make(Net(norm=True), 3)
    loss = step(state, BATCH)[1]["loss"]
    one, single = make(Net(norm=True))
    parts = [one(single, {k: v[i::3] for k, v in BATCH.items()})[1]["loss"] for i in range(3)]
    np.testing.assert_allclose(loss, sum(parts), rtol=1e-6)


@pytest.mark.parametrize("bad, optimizer, accumulate", [
    (np.nan, optax.sgd(RATE, 0.9), 1), (np.inf, optax.adamw(RATE), 3)], ids=["sgd", "adamw"])
def test_a_batch_that_is_not_finite_changes_nothing_and_raises_the_flag(bad, optimizer, accumulate):
    def poison(key, images, targets):  # one pixel of one example, unless all is black
        return images.at[7, 0, 0, 0].multiply(jnp.where(images.sum() > 0, bad, 1.0)), targets

    average = optim.ema(decay=0.9)
    step, state = make(Net(norm=True), accumulate, augment=poison, ema=average,
                       optimizer=optimizer)
    state, sums = step(state, BLACK)
    assert sums["nonfinite"] == 0 and state.step == 1
    new, sums = step(state, BATCH)
    assert sums["nonfinite"] == 1 and equal(new, state)


def test_a_broken_gradient_of_a_finite_loss_changes_nothing():
    class Root(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            scale = self.param("scale", nn.initializers.zeros, (5,))
            return jnp.sqrt(0 * scale) + jnp.zeros((len(x), 5))

    step, state = make(Root())
    new, sums = step(state, BATCH)
    assert np.isfinite(sums["loss"]) and sums["nonfinite"] == 1 and equal(new, state)


def test_the_same_state_and_batch_give_the_same_step_bit_for_bit():
    step, state = make(Net(norm=True, dropout=0.5), 2)
    assert equal(step(state, BATCH), step(state, BATCH))


def test_dropout_differs_between_steps_microbatches_and_seeds():
    class Masked(nn.Module):
        """Its loss is a function of the dropout mask alone."""

        @nn.compact
        def __call__(self, x, train=False):
            scale = self.param("scale", nn.initializers.ones, ())
            weights = 2.0 ** -jnp.arange(64)
            kept = nn.Dropout(0.5, deterministic=not train)(jnp.ones(64)) @ weights
            return scale * kept * jnp.eye(5)[0] + jnp.zeros((len(x), 5))

    (step, state), (seeded, _), (split, _) = (
        make(Masked()), make(Masked(), seed=4), make(Masked(), 2))
    later = state.replace(step=jnp.int32(1))
    losses = [float(f(s, BATCH)[1]["loss"]) for f, s in (
        (step, state), (step, later), (seeded, state), (split, state))]
    assert len(set(losses)) == 4


def test_mixing_sees_the_whole_batch_and_a_key_of_its_own_each_step():
    seen = []

    def spy(key, images, targets):
        jax.debug.callback(lambda key, images: seen.append((key.tobytes(), images.shape)),
                           jax.random.key_data(key), images)
        return images, targets

    step, state = make(Net(), 3, augment=spy)
    for _ in range(2):
        state, _ = step(state, BATCH)
    jax.effects_barrier()
    assert [shape for _, shape in seen] == [(12, 2, 2, 1)] * 2 and seen[0][0] != seen[1][0]


def test_the_average_follows_parameters_and_statistics_and_evaluation_uses_it():
    step, state = make(Net(norm=True), ema=optim.ema(decay=0.75))
    start, new = state, step(state, BATCH)[0]
    mean = functools.partial(jax.tree.map, lambda a, b: 0.75 * a + 0.25 * b)
    close(new.ema, {"params": mean(start.params, new.params),
                    "model_state": mean(start.model_state, new.model_state)})
    assert equal(new.eval_variables(), {"params": new.ema["params"], **new.ema["model_state"]})
    assert equal(new.variables(), {"params": new.params, **new.model_state})


def test_less_than_one_microbatch_is_refused():
    with pytest.raises(ConfigError, match="accumulate=0"):
        make(Net(), 0)


class WithAuxiliary(nn.Module):
    """Two linear heads on the pixels, of which one is sown in training."""

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        if train or self.is_initializing():
            self.sow("aux_logits", "logits", nn.Dense(5, name="aux")(x))
        return nn.Dense(5, name="head")(x)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_an_auxiliary_head_adds_its_weighted_loss_and_enters_no_state(accumulate):
    step, state = make(WithAuxiliary(), accumulate)
    state = state.replace(model_state={})  # init sows as well; build leaves that out
    new, sums = step(state, BATCH)
    x, targets, total = pixels(), np.eye(5)[BATCH["label"]], 0.0
    for name, weight in (("head", 1.0), ("aux", 0.3)):
        kernel, bias = (np.float64(state.params[name][leaf]) for leaf in ("kernel", "bias"))
        probabilities = np.asarray(jax.nn.softmax(x @ kernel + bias))
        total += weight * -np.log(probabilities[np.arange(12), BATCH["label"]]).mean()
        gradient = weight * x.T @ (probabilities - targets) / 12
        np.testing.assert_allclose(new.params[name]["kernel"], kernel - RATE * gradient, rtol=1e-4)
    np.testing.assert_allclose(sums["loss"] / 12, total, rtol=1e-5)
    assert new.model_state == {}
