"""Distillation: learning from a teacher's logits in addition to the labels."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Positive, Share
from imgcls_jax.steps import STEPS, Parts, _update


@STEPS.register()
def distill(parts: Parts, *, teacher: str, kind: Literal["soft", "hard"] = "soft",
            alpha: Share = 0.5, temperature: Positive = 1.0, accumulate: int = 1,
            auxiliary: float = 0.3, reduce: _update.Reduce = None):
    """One optimizer update on (1 - alpha) loss of the labels + alpha loss of the teacher's logits.

    teacher: a workdir, or the name of published weights, such as "resnet50/imagenet1k_v2", with the
    same classes; it sees the same augmented batch, in evaluation mode, with its own mean and std.
    soft: temperature^2 KL(teacher || student), both at the temperature (arXiv 1503.02531, section
    2; arXiv 2012.12877, eq. 2). hard: cross-entropy with the teacher's prediction (there, eq. 3,
    alpha 0.5). In a model with a distillation head, sown as "distillation", that head learns from
    the teacher and the head "class" from the labels. In binary and multilabel tasks every output
    is a distribution over yes and no; the losses are summed over outputs. accumulate, auxiliary
    (other heads, by the labels), reduce, and values that are not finite: as in `supervised`.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha={alpha} is out of range",
                          where="config.step.alpha", fix="use 0 to 1")
    if not temperature > 0:
        raise ConfigError(f"temperature={temperature} is not above 0",
                          where="config.step.temperature", fix="use a number above 0")
    if kind == "hard" and temperature != 1:
        raise ConfigError("kind='hard' has no temperature", where="config.step.temperature",
                          fix="leave it out, or use kind='soft'")
    exclusive = parts.task.kind == "multiclass"

    def imitation(logits, taught):
        if kind == "hard":
            return hard(logits, taught, exclusive)
        return soft(logits, taught, exclusive, temperature)

    def loss(params, state, images, targets, key):
        logits, new, sown = _update.forward(parts, params, state.model_state, images, key)
        heads = dict(sown)
        by_labels, by_teacher = logits, logits
        if "distillation" in heads:
            by_labels, by_teacher = (jax.tree.leaves(heads.pop(name))[0]
                                     for name in ("class", "distillation"))
        taught = parts.teacher(state.constants, images)
        value = ((1 - alpha) * parts.task.loss(by_labels, targets)
                 + alpha * imitation(by_teacher, taught)).mean()
        for others in jax.tree.leaves(heads):
            value += auxiliary * parts.task.loss(others, targets).mean()
        return value, (logits, new)

    return _update.step(parts, _update.gradients(parts, loss, accumulate, reduce))


def soft(logits, taught, exclusive: bool, temperature: float):
    """temperature^2 KL(teacher || student) in nats: f32[B,K], f32[B,K] -> f32[B]."""
    logits, taught = logits / temperature, taught / temperature
    if exclusive:
        student, teacher = jax.nn.log_softmax(logits), jax.nn.log_softmax(taught)
        return temperature**2 * optax.losses.kl_divergence_with_log_targets(student, teacher)
    student, teacher = (jnp.stack((jax.nn.log_sigmoid(x), jax.nn.log_sigmoid(-x)), -1)
                        for x in (logits, taught))
    return temperature**2 * optax.losses.kl_divergence_with_log_targets(student, teacher).sum(-1)


def hard(logits, taught, exclusive: bool):
    """Cross-entropy in nats with the teacher's prediction: f32[B,K], f32[B,K] -> f32[B]."""
    if exclusive:
        return optax.softmax_cross_entropy_with_integer_labels(logits, taught.argmax(-1))
    return optax.sigmoid_binary_cross_entropy(logits, taught > 0).sum(-1)
