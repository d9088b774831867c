"""The SAM step against softmax regression written out in numpy."""

import functools

import jax
import numpy as np
import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.steps.sam import sam
from tests.steps import test_supervised
from tests.steps.test_supervised import BATCH, RATE, Net, close, pixels


def make(module, **options):
    return test_supervised.make(module, step=functools.partial(sam, **options))


def gradient(head):
    x, targets = pixels(), np.eye(5)[BATCH["label"]]
    logits = x @ head["kernel"] + head["bias"]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return {"kernel": x.T @ (probabilities - targets) / 12,
            "bias": (probabilities - targets).mean(0)}


@pytest.mark.daily(1)
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_gradient_is_that_at_the_worst_place_near_by(adaptive, accumulate):
    step, state = make(Net(), rho=0.3, adaptive=adaptive, accumulate=accumulate)
    new, sums = step(state, BATCH)
    head = jax.tree.map(np.float64, state.params["head"])
    grads = gradient(head)
    size = {k: np.abs(v) if adaptive else np.ones_like(v) for k, v in head.items()}
    norm = np.sqrt(sum(((size[k] * grads[k])**2).sum() for k in head))
    worst = {k: head[k] + 0.3 * size[k]**2 * grads[k] / norm for k in head}
    sharp = gradient(worst)
    close(new.params["head"], {k: head[k] - RATE * sharp[k] for k in head})
    close(sums["gradient_norm"], np.sqrt(sum((g**2).sum() for g in sharp.values())))
    plain = test_supervised.make(Net())[0](state, BATCH)[1]
    close({k: sums[k] for k in ("loss", "top1", "seen")},
          {k: plain[k] for k in ("loss", "top1", "seen")})


def test_of_radius_0_it_is_the_supervised_step():
    step, state = make(Net(norm=True, dropout=0.5), rho=0.0)
    close(step(state, BATCH), test_supervised.make(Net(norm=True, dropout=0.5))[0](state, BATCH))


def test_running_statistics_move_once_and_by_the_first_pass():
    step, state = make(Net(norm=True), rho=0.5)
    plain = test_supervised.make(Net(norm=True))[0]
    close(step(state, BATCH)[0].model_state, plain(state, BATCH)[0].model_state)


def test_without_a_gradient_nothing_moves_and_all_is_finite():
    step, state = make(Net(), rho=0.5)
    state = state.replace(params=jax.tree.map(np.zeros_like, state.params))
    batch = BATCH | {"image": np.zeros_like(BATCH["image"])}
    label = np.tile(np.arange(5), 3)[:10].astype(np.int32)  # every class as often as it is expected
    batch = {"image": batch["image"][:10], "label": label, "mask": batch["mask"][:10]}
    new, sums = step(state, batch)
    assert sums["nonfinite"] == 0
    np.testing.assert_allclose(new.params["head"]["bias"], 0, atol=1e-7)


def test_a_negative_radius_is_refused():
    with pytest.raises(ConfigError, match="rho=-1"):
        make(Net(), rho=-1.0)
