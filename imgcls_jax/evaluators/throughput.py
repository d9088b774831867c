"""How fast the model predicts."""

import time

import jax
import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import EVALUATORS, Parts


@EVALUATORS.register()
def throughput(parts: Parts, *, repeats: int = 20, warmup: int = 3):
    """Images per second of prediction.

    (variables) -> `images_per_second` in batches of this shape on this mesh, and `seconds` of one:
    medians of repeats behind some that do not count. The batch is on the devices before; compiling,
    reading and copying are left out.
    """
    if repeats < 1 or warmup < 1:
        raise ConfigError(f"repeats={repeats}, warmup={warmup}", where="config.evals",
                          fix="use 1 or more")
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
