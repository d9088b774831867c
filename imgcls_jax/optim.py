"""Optimizer, schedule, decay, factors by layer, clipping, freezing -> one optax transformation.

A learning rate is a peak, `base`, times a shape in [0, 1], the schedule, times a factor of each
parameter. What holds for every optimizer or schedule stands in the config beside its own
arguments: see `_optimizer` and `_schedule`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from imgcls_jax import tree
from imgcls_jax.errors import ConfigError
from imgcls_jax.optimizers import OPTIMIZERS, Parts
from imgcls_jax.registry import bind
from imgcls_jax.schedules import SCHEDULES

Factors = Mapping[str, float]  # by path of the parameter


class Built(NamedTuple):
    """update takes `value=`, the loss of the batch. rate: (step, optimizer state or None) ->
    learning rate. average: what keeps TrainState.ema, as `ema` returns it, or None."""

    transformation: optax.GradientTransformationExtraArgs
    rate: Callable[..., Any]
    average: Callable | None


# ---- the learning rate over time ------------------------------------------------------------


def every_schedule(*, base: float, per: int | None = None, warmup: int | None = None,
                   warmup_start: float = 0.0, warmup_prefix: bool = True,
                   cooldown: int | None = None, hold: int | None = None):
    """The arguments that all schedules share. base: the peak learning rate, of a batch of `per`
    examples (linear scaling, arXiv 1706.02677), or as it is with per=None. warmup: a duration, a
    straight line from `warmup_start` times the peak; None: none. warmup_prefix: the schedule begins
    behind the warm-up; False: with it, and is covered by it, as timm has it by default. cooldown: a
    duration at the end in which all of it is multiplied by a straight line to 0 (big_vision).
    hold: a duration for which the rate stays, an epoch where a reference sets it once in each.
    """
    return dict(locals())


def learning_rate(choice: Mapping, total_steps: int, batch_size: int):
    """config.schedule with durations in steps -> (peak, shape by step, what scales by the loss or
    None): their product is the rate."""
    shared, own = _split(choice, SHARED_BY_SCHEDULES)
    own = SCHEDULES.bind(own, "config.schedule")
    given = bind(every_schedule, shared, "config.schedule")()
    warmup, cooldown, hold = (given[name] or 0 for name in ("warmup", "cooldown", "hold"))
    if warmup >= total_steps:
        raise ConfigError(f"a warm-up of {warmup} steps in a run of {total_steps}",
                          where="config.schedule.warmup",
                          fix=f"train for longer, or --config.schedule.warmup.steps="
                              f"{max(total_steps // 10, 1)}, or --config.schedule.warmup=None")
    if warmup + cooldown > total_steps:
        raise ConfigError(f"a warm-up of {warmup} steps and a cooldown of {cooldown} in a run of "
                          f"{total_steps}", where="config.schedule.cooldown",
                          fix="train for longer, or shorten either")
    if hold > total_steps:
        raise ConfigError(f"a rate that stays for {hold} steps in a run of {total_steps}",
                          where="config.schedule.hold", fix="train for longer, or hold for less")
    begin = warmup if given["warmup_prefix"] else 0
    shape, by_loss = own(total_steps - begin), None
    if isinstance(shape, optax.GradientTransformation):
        shape, by_loss = optax.constant_schedule(1.0), shape

    def whole(count):
        count = jnp.asarray(count, float)  # f64 where that is on
        if hold:
            count = jnp.floor(count / hold) * hold
        value = shape(jnp.maximum(count - begin, 0.0))
        if warmup:
            start = given["warmup_start"]
            value = jnp.where(count < warmup, start + (1.0 - start) * count / warmup, value)
        if cooldown:
            value *= jnp.clip((total_steps - count) / cooldown, 0.0, 1.0)
        return value

    peak = given["base"] * (batch_size / given["per"] if given["per"] else 1.0)
    return peak, whole, by_loss


def _split(choice: Mapping, names) -> tuple[dict, dict]:
    """(the arguments of these names, the others)."""
    if not isinstance(choice, Mapping):
        return {}, choice  # for Registry.bind to refuse
    return ({k: v for k, v in choice.items() if k in names},
            {k: v for k, v in choice.items() if k not in names})


# ---- factors of each parameter --------------------------------------------------------------


def every_optimizer(*, layer_decay: float | None = None, rates: tuple = ()):
    """The arguments that all optimizers share. layer_decay: a factor on the learning rate for every
    layer between a parameter and the head, as in BEiT (arXiv 2106.08254) and MAE. rates: (regex of
    the whole path, factor on the learning rate), the first that matches counts.
    """
    return dict(locals())


def _decay(*, value: float, on: str = ".*",
           mode: Literal["coupled", "times_lr", "times_schedule"] | None = None,
           factors: tuple = ()):
    """config.weight_decay: on the parameters whose whole path matches the regex `on`.

    mode: "coupled" is within the optimizer: L2 added to the gradient, in front of the trust ratio
    for LAMB and LARS. "times_lr" is apart from it, times the learning rate (AdamW, arXiv
    1711.05101); "times_schedule" times the schedule alone, without the peak (big_vision). None: as
    the optimizer was published. factors: (regex, factor on the value), the first that matches
    counts.
    """
    return dict(locals())


SHARED_BY_SCHEDULES = tuple(every_schedule(base=1.0))
SHARED_BY_OPTIMIZERS = tuple(every_optimizer())


def _matching(pattern: str, params, where: str):
    try:
        mask = tree.match(pattern, params)
    except (re.error, TypeError) as error:
        raise ConfigError(f"{pattern!r} is no regular expression: {error}", where=where,
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
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], int | float)):
            raise ConfigError(f"{pair!r} is no pattern with a factor", where=where,
                              fix="write pairs, as in (('head/.*', 10.0),)")
        for path, hit in tree.flatten(_matching(pair[0], params, where)).items():
            if hit:
                factors.setdefault(path, pair[1])
    return {path: factors.get(path, 1.0) for path in tree.flatten(params)}


def depths(params) -> tuple[dict[str, int], int]:
    """(the depth of each parameter, that of the head), from the names of its modules.

    What comes before the blocks has 0, the i-th block i, what comes after the last and the head
    one more than it, as in BEiT's optim_factory.py. What leads from one stage to the next is of the
    block behind it. Raises ConfigError for a model without blocks.
    """
    blocks, tops = {}, {path: path.split("/")[0] for path in tree.flatten(params)}
    for top in set(tops.values()):
        found = re.match(r"(?:stage|block)(\d+)(?:_(?:block|conv|layer)(\d+))?$", top)
        if found:
            blocks[top] = int(found[1]), int(found[2] or 0)
    if not blocks:
        raise ConfigError("the parameters of this model are in no blocks, so have no depth",
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


def _beside(term: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Adds what `term` makes of zeros."""
    def update(updates, state, params=None, **others):
        added, state = term.update(jax.tree.map(jnp.zeros_like, updates), state, params, **others)
        return jax.tree.map(jnp.add, updates, added), state

    return optax.GradientTransformationExtraArgs(term.init, update)


def _clip(*, norm: float | None = None, value: float | None = None, adaptive: float | None = None,
          eps: float = 1e-3, skip: str | None = None):
    """config.clip: by global norm, by value, both in units of the mean gradient, or adaptively.

    adaptive: the largest norm of the gradient of an output unit over that of its weights, these
    taken as `eps` at least (arXiv 2102.06171, eq. 3). skip: the regex of the whole path of those
    that are not clipped so, such as "head/.*". They are clipped adaptively, by norm, by value.
    """
    return dict(locals())


def _clipped(choice: Mapping, params) -> optax.GradientTransformation:
    given = bind(_clip, choice, "config.clip")()
    parts = []
    if given["adaptive"] is not None:
        adaptive = optax.adaptive_grad_clip(given["adaptive"], given["eps"])
        if given["skip"] is not None:
            skipped = tree.flatten(_matching(given["skip"], params, "config.clip.skip"))
            adaptive = optax.masked(adaptive, lambda updates: tree.map_with_path(
                lambda path, _: not skipped[path], updates))
        parts.append(adaptive)
    parts += [optax.clip_by_global_norm(given["norm"])] if given["norm"] is not None else []
    parts += [optax.clip(given["value"])] if given["value"] is not None else []
    if not parts:
        raise ConfigError("clip names no bound", where="config.clip",
                          fix="set config.clip.norm, .value or .adaptive, or clip=None")
    return optax.chain(*parts)


def ema(*, decay: float, warmup: bool = False) -> Callable:
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
    return jax.tree.map(lambda *hits: any(hits), *masks)


def build(config: Mapping, params, total_steps: int) -> Built:
    """Everything of a config with durations in steps. params: their shapes."""
    peak, shape, by_loss = learning_rate(config["schedule"], total_steps, config["batch_size"])
    shared, own = _split(config["optimizer"], SHARED_BY_OPTIMIZERS)
    make = OPTIMIZERS.bind(own, "config.optimizer")
    facts = OPTIMIZERS.facts(own["name"])
    by_step = [optax.scale_by_schedule(shape), *([by_loss] if by_loss else [])]
    rate = optax.chain(optax.scale(-peak), _times(_rates(shared, params)), *by_step)
    values, mode = _decays(config["weight_decay"], params, facts["decay"])
    decay = _add_decayed(values)
    apart = {"coupled": optax.identity(), "times_lr": _beside(optax.chain(decay, rate)),
             "times_schedule": _beside(optax.chain(decay, optax.scale(-1.0), *by_step))}
    transformation = make(Parts(
        inside=decay if mode == "coupled" else optax.identity(), rate=rate, apart=apart[mode],
        decayed=lambda updates: tree.map_with_path(lambda path, _: values[path] != 0.0, updates),
        learning_rate=lambda count: peak * shape(count)))
    if config["clip"] is not None:
        transformation = optax.chain(_clipped(config["clip"], params), transformation)
    if config["freeze"]:
        labels = jax.tree.map(lambda hit: "frozen" if hit else "trained",
                              frozen(config["freeze"], params))
        transformation = optax.partition(
            {"trained": transformation, "frozen": optax.set_to_zero()}, labels)

    def current(count, opt_state=None):
        scale = _scale(opt_state) if by_loss and opt_state is not None else 1.0
        return peak * shape(count) * scale

    return Built(optax.with_extra_args_support(transformation), current,
                 _average(config["ema"], facts.get("evaluated"), own["name"]))


def _average(choice: Mapping | None, evaluated: Callable | None, optimizer: str) -> Callable | None:
    """What keeps the values to evaluate, where they are others than those trained."""
    if evaluated is None:
        return bind(ema, choice, "config.ema")() if choice is not None else None
    if choice is not None:
        raise ConfigError(f"{optimizer} keeps an average of its own", where="config.ema",
                          fix="set config.ema=None")

    def update(average, new, steps_done, opt_state):
        return {**new, "params": evaluated(opt_state, new["params"])}

    return update


def _scale(opt_state):
    """That of a schedule by the loss; where decay and gradient have one each, they are equal."""
    def has_one(state):
        return "scale" in getattr(state, "_fields", ())

    states = jax.tree.leaves(opt_state, is_leaf=has_one)
    return next(state.scale for state in states if has_one(state))


def _rates(shared: Mapping, params) -> Factors:
    given = bind(every_optimizer, shared, "config.optimizer")()
    factors = _factors(given["rates"], params, "config.optimizer.rates")
    if given["layer_decay"] is None:
        return factors
    depth, last = depths(params)
    return {path: factor * given["layer_decay"] ** (last - depth[path])
            for path, factor in factors.items()}


def _decays(choice: Mapping | None, params, published: str) -> tuple[Factors, str]:
    """config.weight_decay -> (the value of each parameter, mode)."""
    if choice is None:
        return dict.fromkeys(tree.flatten(params), 0.0), "coupled"
    given = bind(_decay, choice, "config.weight_decay")()
    reached = tree.flatten(_matching(given["on"], params, "config.weight_decay.on"))
    factors = _factors(given["factors"], params, "config.weight_decay.factors")
    return ({path: given["value"] * factors[path] * hit for path, hit in reached.items()},
            given["mode"] or published)
