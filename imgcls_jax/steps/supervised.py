"""The step of ordinary supervised training."""

from imgcls_jax.steps import STEPS, Parts, _update


@STEPS.register(features=True)
def supervised(parts: Parts, *, accumulate: int = 1, auxiliary: float = 0.3,
               reduce: _update.Reduce = None):
    """One optimizer update on the mean loss of the batch: (state, batch) -> (state, Sums).

    accumulate: the batch is processed in this many microbatches, each of every accumulate-th
    example; gradients and model state are means over them. auxiliary: weight of the loss of each
    auxiliary head that the model has sown into "aux_logits" (0.3 in arXiv 1409.4842, section 5);
    the loss in Sums includes it. reduce: each shard of the batch computes the gradients of its own
    examples, in all its microbatches, and these are summed over the shards once, in this dtype;
    None leaves it to the compiler where, how often and in which dtype. If loss or gradient is not
    finite, the state is returned unchanged and Sums["nonfinite"] is 1.
    """
    loss = _update.mean_loss(parts, auxiliary)
    return _update.step(parts, _update.gradients(parts, loss, accumulate, reduce))
