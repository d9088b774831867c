"""The step of ordinary supervised training."""

from imgcls_jax.steps import STEPS, Parts, _update


@STEPS.register()
def supervised(parts: Parts, *, accumulate: int = 1, auxiliary: float = 0.3,
               reduce: _update.Reduce = None):
    """(state, batch) -> (state, Sums): one optimizer update on the mean loss of the batch.

    accumulate: the batch is worked off in this many microbatches, of every accumulate-th example
    each; gradients and model state are means over them. auxiliary: weight of the loss of each
    auxiliary head that the model has sown into "aux_logits" (0.3 in arXiv 1409.4842, section 5);
    the loss in Sums is the whole of it. reduce: each shard of the batch computes the gradients of
    its own examples, all its microbatches, and they are summed over the shards once, in this
    dtype; None leaves to the compiler where, how often and in what they are. If loss or gradient is
    not finite, the state is returned as it came and Sums["nonfinite"] is 1.
    """
    loss = _update.mean_loss(parts, auxiliary)
    return _update.step(parts, _update.gradients(parts, loss, accumulate, reduce))
