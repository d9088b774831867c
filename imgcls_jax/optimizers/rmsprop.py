"""RMSProp with momentum."""

from typing import Literal

import optax

from imgcls_jax.optimizers import OPTIMIZERS, Parts
from imgcls_jax.registry import BelowOne, NotNegative


@OPTIMIZERS.register(decay="coupled", high=1)
def rmsprop(parts: Parts, *, decay: BelowOne = 0.9, momentum: BelowOne = 0.9,
            eps: NotNegative = 1e-3, form: Literal["tensorflow", "torch"] = "tensorflow",
            lr_in_momentum: bool | None = None) -> optax.GradientTransformation:
    """RMSProp with momentum; the defaults are EfficientNet's (arXiv 1905.11946, section 5.2).

    form: "tensorflow" begins the mean square at 1, has eps inside the root and the learning rate
    inside the momentum, as TensorFlow 1 and timm's RMSpropTF; "torch" begins it at 0 and has both
    outside, as torch.optim.RMSprop. lr_in_momentum: only where the rate is; None: as in `form`.
    """
    theirs = form == "tensorflow"
    direction = optax.scale_by_rms(decay, eps, initial_scale=float(theirs), eps_in_sqrt=theirs)
    buffer = optax.trace(momentum) if momentum else optax.identity()
    if theirs if lr_in_momentum is None else lr_in_momentum:
        return optax.chain(parts.inside, direction, parts.rate, buffer, parts.apart)
    return optax.chain(parts.inside, direction, buffer, parts.rate, parts.apart)
