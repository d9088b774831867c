"""Loss and metrics over a whole split."""

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax.evaluators import EVALUATORS, Parts, _gather


@EVALUATORS.register(features=True)
def classification(parts: Parts):
    """Loss and metrics over a whole split.

    (variables) -> {"loss": nats per example, and the task's metrics}. Every example counts once:
    rows of padding have a mask of 0. `evaluate.program` may be compiled ahead and passed to
    `evaluate`.
    """
    task = parts.task
    sums = [metric for metric in task.metrics.values() if metric.update]
    others = {name: metric for name, metric in task.metrics.items() if metric.rows}

    @jax.jit
    def count(variables, batch):
        logits, mask = parts.predict(variables, batch["image"]), batch["mask"]
        targets = task.targets(batch["label"])
        # `where`, not a product: 0 times the NaN of a padded row would be NaN.
        losses = jnp.where(mask > 0, task.loss(logits, targets), 0.0)
        total = {"loss": losses.sum(), "loss_of": mask.sum()}
        for metric in sums:
            total |= metric.update(logits, targets, mask)
        return total, {name: metric.rows(logits, targets) for name, metric in others.items()}

    def evaluate(variables, count=count) -> dict:
        total, rows, pending = {}, [], []

        def add():  # on the host in f64: an f32 sum over a large split loses digits
            (found, kept), mask = pending.pop(0)
            for name, value in found.items():
                total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)
            if others:
                rows.append(_gather.to_host(kept, mask))

        for batch in parts.batches():
            pending.append((count(variables, batch), batch["mask"]))
            if len(pending) > 2:  # the device may be at most two batches behind
                add()
        while pending:
            add()
        result = {"loss": float(total["loss"] / total["loss_of"])}
        for metric in sums:
            result |= metric.finish(total)
        for name, metric in others.items():
            result |= metric.finish(jax.tree.map(lambda *leaves: np.concatenate(leaves),
                                                 *(part[name] for part in rows)))
        return result

    evaluate.program = count
    return evaluate
