"""Loss and metrics over a whole split."""

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax.evaluators import EVALUATORS


@EVALUATORS.register()
def classification(predict, batches, task):
    """(variables) -> {"loss": nats per example, and what the task's metrics give}.

    Every example counts once: rows of padding have a mask of 0. What may be compiled ahead is
    `evaluate.program`, and is then given to `evaluate`.
    """
    @jax.jit
    def count(variables, batch):
        logits, mask = predict(variables, batch["image"]), batch["mask"]
        targets = task.targets(batch["label"])
        # where, not a product: 0 times the NaN of a padded row would be NaN.
        losses = jnp.where(mask > 0, task.loss(logits, targets), 0.0)
        sums = {"loss": losses.sum(), "seen": mask.sum()}
        for metric in task.metrics.values():
            sums |= metric.update(logits, targets, mask)
        return sums

    def evaluate(variables, count=count) -> dict[str, float]:
        total, pending = {}, []

        def add():  # on the host in f64: an f32 sum over a large split loses digits
            for name, value in pending.pop(0).items():
                total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)

        for batch in batches():
            pending.append(count(variables, batch))
            if len(pending) > 2:  # the device may be two batches behind, not a whole split
                add()
        while pending:
            add()
        result = {"loss": float(total["loss"] / total["seen"])}
        for metric in task.metrics.values():
            result |= metric.finish(total)
        return result

    evaluate.program = count
    return evaluate
