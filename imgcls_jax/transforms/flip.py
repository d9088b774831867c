"""Random horizontal flip."""

from imgcls_jax.transforms import TRANSFORMS, _decode


@TRANSFORMS.register()
def flip(*, p: float = 0.5):
    """u8[H,W,C] -> u8[H,W,C], mirrored left to right with probability p."""
    def transform(example, seed):
        import tensorflow as tf

        image = _decode.pixels(example)
        mirror = tf.random.stateless_uniform((), seed) < p
        return {**example, "image": tf.cond(mirror, lambda: tf.reverse(image, [1]), lambda: image)}

    return transform
