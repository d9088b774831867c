"""Adam with factored second moments: only those of rows and columns are stored."""

from typing import Literal

import jax.numpy as jnp
import optax

from imgcls_jax.optimizers import OPTIMIZERS, Parts
from imgcls_jax.registry import BelowOne, Count, NotNegative, Positive, Share


@OPTIMIZERS.register(decay="times_schedule", high=0.1)
def adafactor(parts: Parts, *, decay_rate: Positive = 0.8, b2_cap: Share = 0.999,
              momentum: BelowOne | None = 0.9,
              mu_dtype: Literal["bfloat16", "float32"] | None = "bfloat16",
              clipping: Positive | None = None, min_size: Count = 32, eps: NotNegative = 1e-30
              ) -> optax.GradientTransformation:
    """Adafactor as big_vision has it (arXiv 2106.04560, section 3.5; its parent arXiv 1804.04235).

    The second moment is the product of those of rows and columns if the two largest axes have
    min_size or more; its decay at step t is min(b2_cap, 1 - t ^ -decay_rate). clipping: the
    largest root mean square of a tensor's update. momentum: of the update, kept in mu_dtype (None:
    the parameters' dtype). There is no relative step size and no scaling by the parameters. timm's
    AdafactorBigVision is the same with min_size=16.
    """
    def second(count, exponent):
        return jnp.minimum(b2_cap, 1.0 - (jnp.asarray(count, float) + 1.0) ** -exponent)

    direction = [optax.scale_by_factored_rms(True, decay_rate, 0, min_size, eps, second)]
    direction += [optax.clip_by_block_rms(clipping)] if clipping else []
    direction += [optax.ema(momentum, debias=False, accumulator_dtype=mu_dtype)] if momentum else []
    return optax.chain(parts.inside, *direction, parts.rate, parts.apart)
