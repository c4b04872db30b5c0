"""The 1,000 classes of ImageNet's challenge (ILSVRC 2012), in the order of every published classifier: sorted by WordNet identifier.

Source: Russakovsky et al. 2015, "ImageNet large scale visual recognition challenge". Two names that the challenge uses twice are told apart
in brackets.
"""

from importlib import resources
from typing import NamedTuple

import numpy as np

from cnn_zoo.errors import InputError

_LINES = (resources.files("cnn_zoo") / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
WNIDS = tuple(line.partition(" ")[0] for line in _LINES)
CLASSES = tuple(line.partition(" ")[2] for line in _LINES)


class Guess(NamedTuple):
    """One class that a classifier proposes: its index and name, and the net's score (a probability after softmax)."""

    index: int
    name: str
    score: float


def decode(predictions, top: int = 5, classes=None) -> list[list[Guess]]:
    """The classes with the highest scores, best first.

    Args:
        predictions: What a classifier gave, shape `(images, classes)`, or `(classes,)` for one image; probabilities or logits.
        top: How many for each image, at least 1; all of them where there are fewer classes.
        classes: Names in the order of the outputs. Default: ImageNet's 1,000.

    Returns:
        For each image a list of `Guess(index, name, score)`.

    Raises:
        InputError: The predictions have another shape or another number of classes, or are not numbers.
    """
    names = CLASSES if classes is None else tuple(classes)
    scores = np.atleast_2d(np.asarray(predictions))
    if scores.ndim != 2 or scores.shape[1] != len(names) or scores.dtype.kind not in "fiu":
        raise InputError(
            f"decode wants predictions of shape (images, {len(names)}), not {np.shape(predictions)} of {scores.dtype}"
            + ("; give the names of your own classes with classes=" if classes is None else "")
        )
    if np.isnan(scores).any():
        raise InputError("the predictions contain NaN: the net diverged in training, or its input was not an image")
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise InputError(f"top is a whole number of at least 1, not {top!r}")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [[Guess(int(i), names[i], float(row[i])) for i in order] for row, order in zip(scores, best, strict=True)]
