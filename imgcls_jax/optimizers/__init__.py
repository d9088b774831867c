"""Optimizers: `(parts, *, ...) -> optax.GradientTransformation`, from gradients to the updates that
are added to the parameters: the optimizer's rule chained with `parts`, which is optimizers.Parts.

Facts: `decay`, the mode of config.weight_decay it was published with; `high`, a learning rate above
which a warning is given; `evaluated`, if other parameters are evaluated than those trained:
(optimizer state, params) -> params.
"""

import dataclasses
from collections.abc import Callable

import optax

from imgcls_jax.registry import Registry

OPTIMIZERS = Registry("optimizer", __name__, needs=("decay",))


@dataclasses.dataclass(frozen=True)
class Parts:
    """Weight decay and learning rate, for an optimizer to chain where its definition has them.

    The first three belong in every chain; those that the config does not ask for are the identity.

    inside: adds the decay that is part of the rule (mode "coupled"), such as L2 in the gradient;
      stateless.
    rate: multiplies by minus the learning rate of each parameter.
    apart: adds the decay that the rule does not see (the other modes) to the finished update.
    decayed: tree of parameters -> tree of whether each has weight decay, in any mode.
    learning_rate: step -> the learning rate, as a number.
    """

    inside: optax.GradientTransformation
    rate: optax.GradientTransformationExtraArgs
    apart: optax.GradientTransformationExtraArgs
    decayed: Callable
    learning_rate: Callable
