"""`metrics` of segmentation_models 1.0.1: the same names, settings and values, on every backend of Keras.

They are here for code and numbers that exist already, so the quirks are kept: class weights multiply without being normalised, a class that
is absent scores 1 through `smooth`, and a score is averaged over batches instead of taken over the data set. New code finds metrics without
these in `cnn_zoo.metrics`.

One difference: truth may be of any type; the old package refused bool and integers.
"""

import keras
import numpy as np
from keras import ops

__all__ = [
    "SMOOTH",
    "Metric",
    "IOUScore",
    "FScore",
    "Precision",
    "Recall",
    "iou_score",
    "f1_score",
    "f2_score",
    "precision",
    "recall",
]

SMOOTH = 1e-5

register = keras.saving.register_keras_serializable("segmentation_models")


def plain(value):
    """A setting as JSON can hold it."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


class KerasObject:
    """What losses and metrics share: a name that Keras sees, and settings that a saved model keeps."""

    def __init__(self, name=None):
        self._name = name

    @property
    def __name__(self):
        return type(self).__name__ if self._name is None else self._name

    @property
    def name(self):
        return self.__name__

    @name.setter
    def name(self, name):
        self._name = name

    def get_config(self):
        return {key: plain(value) for key, value in vars(self).items() if key != "_name"}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Metric(KerasObject):
    """Base of the metrics: callable with truth and prediction, both `(batch, height, width, classes)`."""

    def get_config(self):
        return {**super().get_config(), "name": self._name}


def read(gt, pr, class_indexes=None):
    """Truth and prediction as tensors of one float type, with only the channels asked for."""
    pr = ops.convert_to_tensor(pr)
    dtype = keras.backend.result_type(pr.dtype, "float32")
    gt, pr = ops.cast(ops.convert_to_tensor(gt), dtype), ops.cast(pr, dtype)
    if class_indexes is None:
        return gt, pr
    indexes = [class_indexes] if isinstance(class_indexes, int) else class_indexes
    return tuple(ops.take(x, np.asarray(indexes, "int32"), axis=channel_axis()) for x in (gt, pr))


def channel_axis():
    return 3 if keras.config.image_data_format() == "channels_last" else 1


def weights_of(class_weights, like):
    return ops.convert_to_tensor(np.asarray(class_weights, "float64"), like.dtype)


def counts(gt, pr, class_indexes, threshold, per_image):
    """True positives, false positives and false negatives: `(classes,)`, or `(batch, classes)` per image."""
    gt, pr = read(gt, pr, class_indexes)
    if threshold is not None:
        pr = ops.cast(ops.greater(pr, threshold), pr.dtype)
    axes = [axis for axis in range(4) if axis != channel_axis() and not (per_image and axis == 0)]
    true = ops.sum(gt * pr, axis=axes)
    return true, ops.sum(pr, axis=axes) - true, ops.sum(gt, axis=axes) - true


def average(score, per_image, class_weights):
    if per_image:
        score = ops.mean(score, axis=0)
    return ops.mean(score * weights_of(class_weights, score))


def iou(gt, pr, class_weights, class_indexes, smooth, per_image, threshold):
    tp, fp, fn = counts(gt, pr, class_indexes, threshold, per_image)
    return average((tp + smooth) / (tp + fp + fn + smooth), per_image, class_weights)


def f_beta(gt, pr, beta, class_weights, class_indexes, smooth, per_image, threshold):
    tp, fp, fn = counts(gt, pr, class_indexes, threshold, per_image)
    hits = (1 + beta**2) * tp
    return average((hits + smooth) / (hits + beta**2 * fn + fp + smooth), per_image, class_weights)


class _Score(Metric):
    """The settings that all metrics have.

    Args:
        class_weights: One number or an array, one weight a class; multiplies the scores and is not normalised.
        class_indexes: Class or classes to look at, or None for all.
        threshold: Predictions above it count as 1 and others as 0; None takes them as they are.
        per_image: Score each image and average, instead of scoring the batch as one image.
        smooth: Added to numerator and denominator.
        name: Instead of the metric's own.
    """

    title = None

    def __init__(
        self, class_weights=None, class_indexes=None, threshold=None, per_image=False, smooth=SMOOTH, name=None
    ):
        super().__init__(name=name or self.title)
        self.class_weights = class_weights if class_weights is not None else 1
        self.class_indexes = class_indexes
        self.threshold = threshold
        self.per_image = per_image
        self.smooth = smooth


@register
class IOUScore(_Score):
    """Intersection over union, also called the Jaccard index."""

    title = "iou_score"

    def __call__(self, gt, pr):
        return iou(gt, pr, self.class_weights, self.class_indexes, self.smooth, self.per_image, self.threshold)


@register
class FScore(_Score):
    """F-score of precision and recall, with `beta` 1 the Dice coefficient.

    Args:
        beta: Weight of recall against precision.
        class_weights, class_indexes, threshold, per_image, smooth, name: As of the other metrics; the name is `f{beta}-score`.
    """

    def __init__(
        self, beta=1, class_weights=None, class_indexes=None, threshold=None, per_image=False, smooth=SMOOTH, name=None
    ):
        super().__init__(class_weights, class_indexes, threshold, per_image, smooth, name or f"f{beta}-score")
        self.beta = beta

    def __call__(self, gt, pr):
        return f_beta(
            gt, pr, self.beta, self.class_weights, self.class_indexes, self.smooth, self.per_image, self.threshold
        )


@register
class Precision(_Score):
    """Share of what was predicted that is true."""

    title = "precision"

    def __call__(self, gt, pr):
        tp, fp, _ = counts(gt, pr, self.class_indexes, self.threshold, self.per_image)
        return average((tp + self.smooth) / (tp + fp + self.smooth), self.per_image, self.class_weights)


@register
class Recall(_Score):
    """Share of what is true that was predicted."""

    title = "recall"

    def __call__(self, gt, pr):
        tp, _, fn = counts(gt, pr, self.class_indexes, self.threshold, self.per_image)
        return average((tp + self.smooth) / (tp + fn + self.smooth), self.per_image, self.class_weights)


iou_score = IOUScore()
f1_score = FScore(beta=1)
f2_score = FScore(beta=2)
precision = Precision()
recall = Recall()
