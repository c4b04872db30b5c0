"""Random changes to batches of images, inside `tf.data`, as functions of a seed."""

import difflib

from cnn_zoo.errors import InputError


def digits(images, seed):
    """Small turns, shifts, scalings and shears, and no flips: a 6 is not a 9.

    Rotation within 10 degrees, shift within 7 % of the side (2 pixels of 28), scale 0.9..1.1, shear within 0.1, all uniform and all in one
    bilinear warp; what comes in from outside is 0.

    Args:
        images: `(batch, height, width, channels)`, values 0..255.
        seed: Two integers; the same seed gives the same changes.

    Returns:
        float32 images of the same shape.
    """
    import tensorflow as tf

    shape = tf.shape(images)
    count, height, width = shape[0], tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32)
    draw = tf.unstack(tf.random.stateless_uniform((6, count), seed, -1.0, 1.0))
    angle, shear = draw[0] * 10 * 3.14159265 / 180, draw[1] * 0.1
    stretch_x, stretch_y = 1 + 0.1 * draw[2], 1 + 0.1 * draw[3]
    shift_x, shift_y = 0.07 * width * draw[4], 0.07 * height * draw[5]
    # Output pixel to input pixel: scale, then shear, then turn, about the centre of the image.
    cos, sin = tf.cos(angle), tf.sin(angle)
    a, b = stretch_x * cos, (shear * cos - sin) * stretch_y
    c, d = stretch_x * sin, (shear * sin + cos) * stretch_y
    x, y = (width - 1) / 2, (height - 1) / 2
    zero = tf.zeros_like(a)
    matrices = tf.stack([a, b, x - a * x - b * y + shift_x, c, d, y - c * x - d * y + shift_y, zero, zero], axis=1)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=matrices,
        output_shape=shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(moved, images.shape)  # the operation forgets height and width


AUGMENTATIONS = {"digits": digits}


def augmentation(augment):
    """The function for a preset's name; a function, or None, stays what it is.

    Raises:
        InputError: There is no preset of that name.
    """
    if augment is None or callable(augment):
        return augment
    if augment not in AUGMENTATIONS:
        close = difflib.get_close_matches(str(augment).lower(), AUGMENTATIONS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"there is no augmentation {augment!r}{hint} (there are: {', '.join(AUGMENTATIONS)}; or give a function)"
        )
    return AUGMENTATIONS[augment]
