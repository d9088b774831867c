"""Models: `(num_classes, *, ...) -> nn.Module`, whose
`apply(variables, f[B,H,W,C], train=bool)` gives f32[B,K]. A function per variant."""

from imgcls_jax.registry import Registry

MODELS = Registry("model", __name__, needs=("image_size", "params", "head", "paper"))
