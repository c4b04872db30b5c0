"""Probabilities of a segmenter, also averaged over changed copies of the images (test-time augmentation)."""

from collections.abc import Callable

import keras
import numpy as np

from cnn_zoo.data.images import resize
from cnn_zoo.errors import InputError
from cnn_zoo.outputs import check_segmenter, output_kind

SCALES = (0.75, 1.0, 1.25)


def augmented(model: keras.Model, tta=(), *, scales=SCALES) -> Callable:
    """A function from a batch of images to probabilities, averaged over changed copies of the images.

    Each copy is changed, predicted, and its probabilities are changed back: exactly for flips and quarter turns; by bilinear resizing for scales.

    Args:
        model: A segmenter. Logits become probabilities.
        tta: Any of `"mirror"` (left to right), `"flip"` (left to right, top to bottom, and both: for images without up and down), `"rotate"`
            (quarter turns; with "flip" the eight symmetries of the square) and `"scale"`; one name or several.
        scales: For `"scale"`.

    Returns:
        `(b, height, width, channels)`, values 0..255, to `(b, height, width, classes)` float32.

    Raises:
        InputError: Another name; or turns or scales that a model of fixed size cannot take.
    """
    check_segmenter(model)
    names = (tta,) if isinstance(tta, str) else tuple(tta or ())
    if wrong := [name for name in names if name not in ("mirror", "flip", "rotate", "scale")]:
        raise InputError(f"tta is any of 'mirror', 'flip', 'rotate' and 'scale', not {wrong[0]!r}")
    height, width = model.inputs[0].shape[1:3]
    if "rotate" in names and height != width:
        raise InputError(f"a model for images of {height}x{width} takes no quarter turns: leave out 'rotate'")
    if "scale" in names and (height or width):
        raise InputError(f"a model for images of {height}x{width} takes no other scales: leave out 'scale'")
    if "scale" in names and (not len(scales) or not all(s > 0 for s in scales)):
        raise InputError(f"scales are numbers above 0, not {scales!r}")
    factors = [float(s) for s in scales] if "scale" in names else [1.0]
    # Turned by two quarters and mirrored is upside down: turns and one mirror image make all symmetries.
    turns = (0, 1, 2, 3) if "rotate" in names else (0, 2) if "flip" in names else (0,)
    steps = (1, -1) if "flip" in names or "mirror" in names else (1,)
    kind = output_kind(model)

    def predicted(images):
        images = np.asarray(images)
        size, total = images.shape[1:3], 0.0
        for factor in factors:
            scaled = resize(images, [max(1, round(side * factor)) for side in size]) if factor != 1 else images
            for turn in turns:
                for step in steps:
                    changed = np.rot90(scaled[:, :, ::step], turn, (1, 2))
                    y = _probabilities(model.predict_on_batch(np.ascontiguousarray(changed)), kind)
                    y = np.rot90(y, -turn, (1, 2))[:, :, ::step]
                    if factor != 1:
                        check_size(scaled.shape[1:3], y.shape[1:3])
                        y = resize(y, size)
                    total = total + y
        return np.ascontiguousarray(total / (len(factors) * len(turns) * len(steps)), "float32")

    return predicted


def _probabilities(y, kind):
    y = np.asarray(keras.ops.convert_to_numpy(y)).astype("float32")
    if kind != "logits":
        return y
    if y.shape[-1] == 1:
        return np.exp(-np.logaddexp(0, -y))
    y = np.exp(y - y.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


def check_size(size, given) -> None:
    """Raise InputError unless a mask has the height and width of its image."""
    if tuple(size) != tuple(given):
        raise InputError(
            f"the model gives masks of {given[0]}x{given[1]} for images of {size[0]}x{size[1]}: a net without padding goes through "
            "predict_tiled; otherwise end the model with a resizing to the size of its input"
        )


def does_not_take(size, error) -> InputError:
    """The error for an image size that a model fails on; each backend has its own for shapes that do not go together."""
    return InputError(
        f"the model fails on images of {size[0]}x{size[1]} ({str(error).strip().splitlines()[-1][:200]}): if it wants multiples of 32, "
        "predict_tiled takes images of any size in tiles of such a size"
    )
