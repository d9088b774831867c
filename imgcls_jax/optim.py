"""Optimizer, schedule, decay, factors by layer, clipping, freezing -> one optax transformation.

A learning rate is a peak, `base`, times a shape in [0, 1], the schedule, times a factor of each
parameter. Pure functions of optimizers, schedules and options; `assembly/learning.py` makes these
from a config.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from imgcls_jax import tree
from imgcls_jax.errors import ConfigError
from imgcls_jax.optimizers import Parts
from imgcls_jax.registry import BelowOne, Count, NotNegative, Positive

Factors = Mapping[str, float]  # by path of the parameter
ABSURD = 1000.0  # a learning rate that nobody means; LARS has some of 30


class Built(NamedTuple):
    """update takes `value=`, the loss of the batch. rate: (step, optimizer state or None) ->
    learning rate. average: what keeps TrainState.ema, as `ema` returns it, or None."""

    transformation: optax.GradientTransformationExtraArgs
    rate: Callable[..., Any]
    average: Callable | None


# ---- the learning rate over time ------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """The arguments that all schedules share.

    base: the peak learning rate, for a batch of `per` examples (linear scaling, arXiv 1706.02677),
    or as it is with per=None. warmup: a duration, a straight line from `warmup_start` times the
    peak; None: none. warmup_prefix: the schedule begins after the warm-up; False: it begins with
    the warm-up, which covers its first steps, as timm has it by default. cooldown: a duration at
    the end in which the rate is multiplied by a straight line to 0 (big_vision). hold: a duration
    for which the rate stays, an epoch where a reference sets it once in each.
    """

    base: NotNegative
    per: Count | None = None
    warmup: int | None = None
    warmup_start: NotNegative = 0.0
    warmup_prefix: bool = True
    cooldown: int | None = None
    hold: int | None = None


def learning_rate(schedule: Callable, given: ScheduleOptions, total_steps: int, batch_size: int):
    """(peak, shape by step, what scales by the loss or None): their product is the rate.

    schedule: (steps) -> shape, as of `schedules`.
    """
    warmup, cooldown, hold = (steps or 0 for steps in (given.warmup, given.cooldown, given.hold))
    if warmup >= total_steps:
        raise ConfigError(f"the warm-up ({warmup} steps) is not shorter than the run "
                          f"({total_steps} steps)",
                          where="config.schedule.warmup",
                          fix="train for longer, or " + (
                              f"--config.schedule.warmup.steps={max(total_steps // 10, 1)}, or "
                              if total_steps > 1 else "") + "--config.schedule.warmup=None")
    if warmup + cooldown > total_steps:
        raise ConfigError(f"the warm-up ({warmup} steps) and the cooldown ({cooldown} steps) are "
                          f"longer than the run ({total_steps} steps)",
                          where="config.schedule.cooldown",
                          fix="train for longer, or shorten either")
    if hold > total_steps:
        raise ConfigError(f"the learning rate is held for longer ({hold} steps) than the run "
                          f"({total_steps} steps)", where="config.schedule.hold",
                          fix="train for longer, or hold for less")
    begin = warmup if given.warmup_prefix else 0
    shape, by_loss = schedule(total_steps - begin), None
    if isinstance(shape, optax.GradientTransformation):
        shape, by_loss = optax.constant_schedule(1.0), shape

    def whole(count):
        count = jnp.asarray(count, float)  # f64 where that is on
        if hold:
            count = jnp.floor(count / hold) * hold
        value = shape(jnp.maximum(count - begin, 0.0))
        if warmup:
            start = given.warmup_start
            value = jnp.where(count < warmup, start + (1.0 - start) * count / warmup, value)
        if cooldown:
            value *= jnp.clip((total_steps - count) / cooldown, 0.0, 1.0)
        return value

    peak = given.base * (batch_size / given.per if given.per else 1.0)
    scaled = f" (base={given.base:g} for {given.per} examples)" if given.per else ""
    if peak > ABSURD:
        raise ConfigError(f"the learning rate rises to {peak:g}{scaled}",
                          where="config.schedule.base", fix="use one below 1, such as 0.1 for sgd "
                                                            "or 0.001 for adamw")
    return peak, whole, by_loss


# ---- factors of each parameter --------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """The arguments that all optimizers share.

    layer_decay: a factor on the learning rate for every layer between a parameter and the head, as
    in BEiT (arXiv 2106.08254) and MAE. rates: (regex of the whole path, factor on the learning
    rate), the first that matches counts.
    """

    layer_decay: Positive | None = None
    rates: tuple = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightDecay:
    """config.weight_decay: on the parameters whose whole path matches the regex `on`.

    mode: "coupled" is within the optimizer: L2 added to the gradient, in front of the trust ratio
    for LAMB and LARS. "times_lr" is apart from it, times the learning rate (AdamW, arXiv
    1711.05101); "times_schedule" times the schedule alone, without the peak (big_vision). None: as
    the optimizer was published. factors: (regex, factor on the value), the first that matches
    counts.
    """

    value: NotNegative
    on: str = ".*"
    mode: Literal["coupled", "times_lr", "times_schedule"] | None = None
    factors: tuple = ()


def _matching(pattern: str, params, where: str):
    try:
        mask = tree.match(pattern, params)
    except (re.error, TypeError) as error:
        raise ConfigError(f"{pattern!r} is not a regular expression: {error}", where=where,
                          fix="write it as Python's re does, as in '.*kernel'") from error
    if not any(jax.tree.leaves(mask)):
        raise ConfigError(f"{pattern!r} matches no parameter", where=where,
                          fix=f"paths are as {', '.join(list(tree.flatten(params))[:3])}; "
                              "the whole path must match")
    return mask


def _factors(pairs: tuple, params, where: str) -> dict[str, float]:
    """(regex, factor) pairs -> the factor of each parameter: of the first match, else 1."""
    factors: dict[str, float] = {}
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], int | float)
                and pair[1] >= 0):
            raise ConfigError(f"{pair!r} is not a pair of a pattern and a factor of at least 0",
                              where=where, fix="write pairs, as in (('head/.*', 10.0),)")
        for path, hit in tree.flatten(_matching(pair[0], params, where)).items():
            if hit:
                factors.setdefault(path, pair[1])
    return {path: factors.get(path, 1.0) for path in tree.flatten(params)}


def depths(params) -> tuple[dict[str, int], int]:
    """(the depth of each parameter, that of the head), from the names of its modules.

    What comes before the blocks has 0, the i-th block i, what comes after the last and the head
    one more than it, as in BEiT's optim_factory.py. What leads from one stage to the next has the
    depth of the block after it. Raises ConfigError for a model without blocks.
    """
    blocks, tops = {}, {path: path.split("/")[0] for path in tree.flatten(params)}
    for top in set(tops.values()):
        found = re.match(r"(?:stage|block)(\d+)(?:_(?:block|conv|layer)(\d+))?$", top)
        if found:
            blocks[top] = int(found[1]), int(found[2] or 0)
    if not blocks:
        raise ConfigError("the parameters of this model are not in blocks, so layers have no depth",
                          where="config.optimizer.layer_decay",
                          fix="give factors by name in config.optimizer.rates")
    order = {block: depth for depth, block in enumerate(sorted(set(blocks.values())), 1)}
    last = len(order) + 1

    def depth(top: str) -> int:
        if top in blocks:
            return order[blocks[top]]
        if re.match(BEFORE_BLOCKS, top):
            return 0
        between = re.match(r"(stage|transition)(\d+)", top)
        if between:
            stage = int(between[2]) + (between[1] == "transition")
            return min(d for block, d in order.items() if block[0] == stage)
        return last

    return {path: depth(top) for path, top in tops.items()}, last


BEFORE_BLOCKS = "stem|patches|positions|.*token"


# ---- transformations ------------------------------------------------------------------------


def _with_path(function: Callable) -> optax.GradientTransformation:
    """The stateless one of (path, update, parameter) -> update; parameters of a mask alone."""
    def update(updates, state, params=None):
        named = jax.tree_util.tree_map_with_path
        return named(lambda path, *leaves: function(tree.name(path), *leaves), updates,
                     updates if params is None else params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _add_decayed(values: Factors) -> optax.GradientTransformation:
    return _with_path(lambda path, u, p: u + values[path] * p if values[path] else u)


def _times(factors: Factors) -> optax.GradientTransformation:
    return _with_path(lambda path, u, p: u * factors[path] if factors[path] != 1.0 else u)


def _added(term: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Adds what `term` makes of zeros."""
    def update(updates, state, params=None, **others):
        added, state = term.update(jax.tree.map(jnp.zeros_like, updates), state, params, **others)
        return jax.tree.map(jnp.add, updates, added), state

    return optax.GradientTransformationExtraArgs(term.init, update)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """config.clip: by global norm, by value, both in units of the mean gradient, or adaptively.

    adaptive: the largest norm of the gradient of an output unit over that of its weights, these
    taken as `eps` at least (arXiv 2102.06171, eq. 3). skip: the regex of the whole path of those
    that are not clipped so, such as "head/.*". They are clipped adaptively, by norm, by value.
    """

    norm: Positive | None = None
    value: Positive | None = None
    adaptive: Positive | None = None
    eps: NotNegative = 1e-3
    skip: str | None = None

    def __post_init__(self):
        if self.norm is self.value is self.adaptive is None:
            raise ConfigError("config.clip sets neither norm, value nor adaptive",
                              where="config.clip", fix="set one of them, or clip=None")


def clipped(given: Clip, params) -> optax.GradientTransformation:
    """What clips the gradients of `params`."""
    parts = []
    if given.adaptive is not None:
        adaptive = optax.adaptive_grad_clip(given.adaptive, given.eps)
        if given.skip is not None:
            skipped = tree.flatten(_matching(given.skip, params, "config.clip.skip"))
            adaptive = optax.masked(adaptive, lambda updates: tree.map_with_path(
                lambda path, _: not skipped[path], updates))
        parts.append(adaptive)
    parts += [optax.clip_by_global_norm(given.norm)] if given.norm is not None else []
    parts += [optax.clip(given.value)] if given.value is not None else []
    return optax.chain(*parts)


def ema(*, decay: BelowOne, warmup: bool = False) -> Callable:
    """config.ema: an exponential moving average of parameters and model state.

    Returns (average, new values, steps done, optimizer state) -> average. warmup: decay is at most
    (1 + t) / (10 + t), so that the first steps do not stay in it (as TensorFlow's).
    """
    def update(average, new, steps_done, opt_state=None):
        rate = jnp.minimum(decay, (1.0 + steps_done) / (10.0 + steps_done)) if warmup else decay
        return optax.incremental_update(new, average, 1.0 - rate)

    return update


# ---- all of it ------------------------------------------------------------------------------


def frozen(patterns: tuple[str, ...], params):
    """config.freeze -> the tree of which parameters stay as they are."""
    masks = [_matching(pattern, params, "config.freeze") for pattern in patterns]
    found = jax.tree.map(lambda *hits: any(hits), *masks)
    if all(jax.tree.leaves(found)):
        raise ConfigError(f"all {len(jax.tree.leaves(found))} parameters are frozen, so nothing "
                          "would be trained", where="config.freeze",
                          fix="leave some out, such as the head: freeze=('(?!head/).*',)")
    return found


def combine(optimizer: Callable, published_decay: str, options: OptimizerOptions, params, *,
            rate: tuple, decay: WeightDecay | None, clip: Clip | None, freeze: tuple[str, ...],
            average: Callable | None) -> Built:
    """All of it as one transformation.

    optimizer: (optimizers.Parts) -> transformation. published_decay: the mode of weight decay that
    it was published with. params: their shapes. rate: as `learning_rate` returns it. average: as
    `ema` returns it.
    """
    peak, shape, by_loss = rate
    by_step = [optax.scale_by_schedule(shape), *([by_loss] if by_loss else [])]
    scaled = optax.chain(optax.scale(-peak), _times(_rates(options, params)), *by_step)
    values, mode = _decays(decay, params, published_decay)
    decayed = _add_decayed(values)
    apart = {"coupled": optax.identity(), "times_lr": _added(optax.chain(decayed, scaled)),
             "times_schedule": _added(optax.chain(decayed, optax.scale(-1.0), *by_step))}
    transformation = optimizer(Parts(
        inside=decayed if mode == "coupled" else optax.identity(), rate=scaled, apart=apart[mode],
        decayed=lambda updates: tree.map_with_path(lambda path, _: values[path] != 0.0, updates),
        learning_rate=lambda count: peak * shape(count)))
    if clip is not None:
        transformation = optax.chain(clipped(clip, params), transformation)
    if freeze:
        labels = jax.tree.map(lambda hit: "frozen" if hit else "trained", frozen(freeze, params))
        transformation = optax.partition(
            {"trained": transformation, "frozen": optax.set_to_zero()}, labels)

    def current(count, opt_state=None):
        scale = _scale(opt_state) if by_loss and opt_state is not None else 1.0
        return peak * shape(count) * scale

    return Built(optax.with_extra_args_support(transformation), current, average)


def evaluated_average(evaluated: Callable) -> Callable:
    """The average of an optimizer that keeps one itself: (optimizer state, params) -> params."""
    def update(average, new, steps_done, opt_state):
        return {**new, "params": evaluated(opt_state, new["params"])}

    return update


def _scale(opt_state):
    """That of a schedule by the loss; where decay and gradient have one each, they are equal."""
    def has_one(state):
        return "scale" in getattr(state, "_fields", ())

    states = jax.tree.leaves(opt_state, is_leaf=has_one)
    return next(state.scale for state in states if has_one(state))


def _rates(given: OptimizerOptions, params) -> Factors:
    factors = _factors(given.rates, params, "config.optimizer.rates")
    if given.layer_decay is None:
        return factors
    depth, last = depths(params)
    return {path: factor * given.layer_decay ** (last - depth[path])
            for path, factor in factors.items()}


def _decays(given: WeightDecay | None, params, published: str) -> tuple[Factors, str]:
    """(the value of each parameter, mode)."""
    if given is None:
        return dict.fromkeys(tree.flatten(params), 0.0), "coupled"
    reached = tree.flatten(_matching(given.on, params, "config.weight_decay.on"))
    factors = _factors(given.factors, params, "config.weight_decay.factors")
    return ({path: given.value * factors[path] * hit for path, hit in reached.items()},
            given.mode or published)
