"""Wilson's confidence interval for top-k accuracy."""

from imgcls_jax.metrics import METRICS
from imgcls_jax.metrics._decisions import check_share
from imgcls_jax.metrics._intervals import wilson
from imgcls_jax.metrics.topk import topk
from imgcls_jax.registry import Count
from imgcls_jax.types import Metric


@METRICS.register(tasks=("multiclass",))
def topk_interval(kind: str, *, k: tuple[Count, ...] | None = None,
                  confidence: float = 0.95) -> Metric:
    """Top-k accuracy with Wilson's interval.

    The results of `topk`, and for each an interval such as `top1_low` to `top1_high`.
    """
    check_share("confidence", confidence)
    inner = topk(kind, k=k)

    def finish(sums):
        found = inner.finish(sums)
        for name in list(found):
            ends = wilson(float(sums[name]), float(sums["seen"]), confidence)
            found |= dict(zip((f"{name}_low", f"{name}_high"), ends, strict=True))
        return found

    return Metric(inner.update, finish)
