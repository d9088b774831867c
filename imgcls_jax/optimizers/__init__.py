"""Optimizers: `(parts, *, ...) -> optax.GradientTransformation` from gradients to what is added to
the parameters: its own rule between `parts`, which is optimizers.Parts.

Facts: `decay`, the mode of config.weight_decay it was published with; `evaluated`, if the
parameters to evaluate are others than those trained: (optimizer state, params) -> params.
"""

import dataclasses
from collections.abc import Callable

import optax

from imgcls_jax.registry import Registry

OPTIMIZERS = Registry("optimizer", __name__, needs=("decay",))


@dataclasses.dataclass(frozen=True)
class Parts:
    """Weight decay and learning rate, for an optimizer to chain where its definition has them.

    All three belong into every chain; those that the config does not ask for are the identity.

    inside: adds the decay that is part of the rule (mode "coupled"), such as L2 of the gradient;
      stateless.
    rate: times minus the learning rate, that of each parameter.
    apart: adds the decay that the rule does not see (the other modes) to the finished update.
    decayed: tree of parameters -> tree of whether there is decay of them, in any mode.
    learning_rate: step -> the learning rate, as a number.
    """

    inside: optax.GradientTransformation
    rate: optax.GradientTransformationExtraArgs
    apart: optax.GradientTransformationExtraArgs
    decayed: Callable
    learning_rate: Callable
