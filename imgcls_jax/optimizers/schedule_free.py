"""An average of the iterates instead of a schedule."""

from typing import Literal

import jax
import optax
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

from imgcls_jax.optimizers import OPTIMIZERS, Parts
from imgcls_jax.registry import BelowOne, NotNegative


def evaluated(opt_state, params):
    """The average x, from the optimizer's state and the trained parameters y."""
    def is_masked(leaf):
        return isinstance(leaf, optax.MaskedNode)

    states = jax.tree.leaves(opt_state, is_leaf=lambda one: isinstance(one, ScheduleFreeState))
    state = next(one for one in states if isinstance(one, ScheduleFreeState))
    # Frozen parameters have no z.
    return jax.tree.map(
        lambda z, y: y if is_masked(z) else schedule_free_eval_params(state._replace(z=z), y),
        state.z, params, is_leaf=is_masked)


@OPTIMIZERS.register(decay="times_lr", high=10, evaluated=evaluated)
def schedule_free(parts: Parts, *, base: Literal["adamw", "sgd"] = "adamw", b1: BelowOne = 0.9,
                  b2: BelowOne = 0.999, eps: NotNegative = 1e-8,
                  power: float = 2.0) -> optax.GradientTransformation:
    """Schedule-free AdamW or SGD (arXiv 2405.15682, algorithm 1), to be used with a warm-up and a
    constant schedule.

    b1: share of the average in the point where gradients are taken, in place of momentum. b2, eps:
    of AdamW. power: the weight of an iterate in the average is the largest learning rate so far to
    this power. The average is evaluated, in place of an exponential moving average of the weights;
    BatchNorm's statistics stay those of training.
    """
    direction = (optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
                 if base == "adamw" else optax.identity())
    # optax counts the steps of the average from 1, those of the learning rate from 0.
    return optax.contrib.schedule_free(
        optax.chain(parts.inside, direction, parts.rate, parts.apart),
        lambda count: parts.learning_rate(count - 1), b1, power)
