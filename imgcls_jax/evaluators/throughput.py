"""How fast the model predicts."""

import time

import jax
import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import EVALUATORS, Parts
from imgcls_jax.registry import Count, Whole


@EVALUATORS.register()
def throughput(parts: Parts, *, repeats: Count = 20, warmup: Whole = 3):
    """Images per second of prediction.

    (variables) -> `images_per_second` in batches of this shape on this mesh, and `seconds` per
    batch: medians over `repeats`, after `warmup` runs that do not count. The batch already is on
    the devices; compiling, reading and copying are not included.
    """
    if repeats < 1 or warmup < 1:
        raise ConfigError(f"repeats={repeats} or warmup={warmup} is too small",
                          where="config.evals", fix="use 1 or more")
    predict = jax.jit(parts.predict)

    def evaluate(variables) -> dict:
        images = next(iter(parts.batches()))["image"]
        taken = []
        for _ in range(warmup + repeats):
            began = time.perf_counter()
            jax.block_until_ready(predict(variables, images))
            taken.append(time.perf_counter() - began)
        seconds = float(np.median(taken[warmup:]))
        return {"images_per_second": len(images) / seconds, "seconds": seconds}

    return evaluate
