"""The operations of the automatic augmentations by name, and how the drawn ones are run.

A policy draws numbers, as a pure function of its seed: which operations, and a row of numbers for
each. `chain` then runs only these operations.
"""

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.transforms import _blur, _color, _geometry

# (image, argument) -> image; operations without an argument get one too.
COLOR = {
    "identity": lambda image, level: image,
    "autocontrast": lambda image, level: _color.autocontrast(image),
    "equalize": lambda image, level: _color.equalize(image),
    "invert": lambda image, level: _color.invert(image),
    "grayscale": lambda image, level: _color.grayscale(image),
    "posterize": lambda image, bits: _color.posterize(image, bits),
    "solarize": lambda image, threshold: _color.solarize(image, threshold),
    "solarize_add": lambda image, addition: _color.solarize_add(image, addition),
    "color": lambda image, factor: _color.color(image, factor),
    "contrast": lambda image, factor: _color.contrast(image, factor),
    "brightness": lambda image, factor: _color.brightness(image, factor),
    "sharpness": lambda image, factor: _color.sharpness(image, factor),
    "hue": lambda image, turn: _color.hue(image, turn),
    "blur": lambda image, sigma: _blur.by_boxes(image, sigma, largest=2.0),
}
# (image, argument, interpolation, fill) -> image; a translation is in pixels.
GEOMETRIC = {
    "rotate": lambda image, *how: _geometry.rotate(image, *how),
    "shear_x": lambda image, *how: _geometry.shear_x(image, *how),
    "shear_y": lambda image, *how: _geometry.shear_y(image, *how),
    "translate_x": lambda image, *how: _geometry.translate_x(image, *how),
    "translate_y": lambda image, *how: _geometry.translate_y(image, *how),
}


def chain(image, operations, which, rows):
    """Operation which[0] with rows[0], then which[1] with rows[1], ...; only those run.

    operations: (u8[H,W,C], row) -> u8[H,W,C], without any other tensor. which: i32[L]; the number
    of operations stands for none. rows: f64[L,...].
    """
    tf = tensorflow()
    functions = (*operations, lambda image, level: image)
    made, places = image, zip(tf.unstack(which), tf.unstack(rows), strict=True)
    if tf.executing_eagerly():  # where Case would deadlock on a single core
        for number, row in places:
            made = functions[number.numpy()](made, row)
        return made
    # Functions, traced once for all places, that tf.raw_ops.Case calls: tf.switch_case would trace
    # each place again and merge the branches into the graph, whose executor visits all their nodes.
    shape = tf.TensorSpec((None, None, image.shape[-1]), tf.uint8)
    spec = tf.TensorSpec(rows.shape[1:], rows.dtype)
    branches = [tf.function(function, autograph=False).get_concrete_function(shape, spec)
                for function in functions]
    for number, row in places:
        made, = tf.raw_ops.Case(branch_index=number, input=[made, row], Tout=[tf.uint8],
                                branches=branches, output_shapes=[shape.shape])
    return tf.ensure_shape(made, image.shape)


def uniform_index(uniform, count: int):
    """f32 in [0, 1) -> i32 below count."""
    tf = tensorflow()
    return tf.cast(uniform * count, tf.int32)


def sign(uniform):
    """f32 in [0, 1) -> f64, -1 or 1."""
    tf = tensorflow()
    return tf.where(uniform < 0.5, tf.constant(-1, tf.float64), tf.constant(1, tf.float64))
