"""AugMix's weighted mean of chains of operations (arXiv 1912.02781)."""

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.transforms import _operations

DEPTH = 3  # the most operations of a chain if their number is drawn


def draw_weights(seed, width: int, alpha: float):
    """(f32[width] that sum to 1, Dirichlet(alpha); f32[] in [0, 1], Beta(alpha, alpha))."""
    tf = tensorflow()
    gammas = tf.random.stateless_gamma((width + 2,), seed, alpha)
    chains, share = gammas[:width], gammas[width:]
    return chains / tf.reduce_sum(chains), share[0] / tf.reduce_sum(share)


def draw_depths(uniform, depth: int):
    """i32[width]: `depth`, or, if that is below 1, 1 to 3 for each. uniform: f32[width]."""
    tf = tensorflow()
    if depth > 0:
        return tf.fill(tf.shape(uniform), depth)
    return 1 + _operations.uniform_index(uniform, DEPTH)


def only(which, depths, none: int):
    """which: i32[width,D]; keeps the first depths[i] of chain i, the others become `none`."""
    tf = tensorflow()
    return tf.where(tf.range(tf.shape(which)[1]) < depths[:, None], which, none)


def mean(image, operations, weights, which, rows):
    """f32[H,W,C]: the sum over chains of weights[i] times the output of chain i."""
    tf = tensorflow()
    anything = tf.TensorShape((None, None, image.shape[-1]))

    def step(number, total):
        made = _operations.chain(image, operations, which[number], rows[number])
        return number + 1, total + weights[number] * tf.cast(made, tf.float32)

    _, total = tf.while_loop(
        lambda number, mixed: number < tf.shape(which)[0], step,
        (0, tf.zeros(tf.shape(image), tf.float32)),
        shape_invariants=(tf.TensorShape(()), anything))
    return total
