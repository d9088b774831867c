"""Schedules: `(steps, *, ...) -> shape`, the learning rate divided by its peak, for `steps` steps.

A shape is a function of the steps since the warm-up, f[] -> f[]; or, if it depends on the loss
and so has a state, an optax.GradientTransformationExtraArgs that scales by it and takes `value=`,
with a field `scale` in its state.
"""

from imgcls_jax.registry import Registry

SCHEDULES = Registry("schedule", __name__)
