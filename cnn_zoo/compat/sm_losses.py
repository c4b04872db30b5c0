"""`losses` of segmentation_models 1.0.1: the same names, settings, sums and values, on every backend of Keras.

They are here for code and numbers that exist already, so the quirks are kept: class weights multiply without being normalised (with weights
above 1 a Dice or Jaccard loss goes below 0), a class that is absent counts as perfectly found, predictions are probabilities, and
cross-entropies are means over pixels *and* channels. New code finds losses without these in `cnn_zoo.losses`.
"""

import keras
from keras import ops

from cnn_zoo.compat.sm_metrics import SMOOTH, KerasObject, channel_axis, f_beta, iou, read, register, weights_of

__all__ = [
    "SMOOTH",
    "Loss",
    "JaccardLoss",
    "DiceLoss",
    "BinaryCELoss",
    "CategoricalCELoss",
    "CategoricalFocalLoss",
    "BinaryFocalLoss",
    "jaccard_loss",
    "dice_loss",
    "binary_focal_loss",
    "categorical_focal_loss",
    "binary_crossentropy",
    "categorical_crossentropy",
    "bce_dice_loss",
    "bce_jaccard_loss",
    "cce_dice_loss",
    "cce_jaccard_loss",
    "binary_focal_dice_loss",
    "binary_focal_jaccard_loss",
    "categorical_focal_dice_loss",
    "categorical_focal_jaccard_loss",
]


class Loss(KerasObject):
    """Base of the losses. `loss_a + loss_b` and `2 * loss_a` are losses, too."""

    def __add__(self, other):
        if not isinstance(other, Loss):
            raise ValueError("Loss should be inherited from `Loss` class")
        return SumOfLosses(self, other)

    __radd__ = __add__

    def __mul__(self, value):
        if not isinstance(value, int | float):
            raise ValueError(f"a loss can be multiplied by a number, not by {value!r}")
        return MultipliedLoss(self, value)

    __rmul__ = __mul__


@register
class MultipliedLoss(Loss):
    """A loss times a number."""

    def __init__(self, loss, multiplier):
        name = f"({loss.__name__})" if "+" in loss.__name__ else loss.__name__
        super().__init__(name=f"{multiplier}{name}")
        self.loss, self.multiplier = loss, multiplier

    def __call__(self, gt, pr):
        return self.multiplier * self.loss(gt, pr)

    def get_config(self):
        return {"loss": keras.saving.serialize_keras_object(self.loss), "multiplier": self.multiplier}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["loss"]), config["multiplier"])


@register
class SumOfLosses(Loss):
    """Two losses added."""

    def __init__(self, l1, l2):
        super().__init__(name=f"{l1.__name__}_plus_{l2.__name__}")
        self.l1, self.l2 = l1, l2

    def __call__(self, gt, pr):
        return self.l1(gt, pr) + self.l2(gt, pr)

    def get_config(self):
        return {key: keras.saving.serialize_keras_object(getattr(self, key)) for key in ("l1", "l2")}

    @classmethod
    def from_config(cls, config):
        return cls(*(keras.saving.deserialize_keras_object(config[key]) for key in ("l1", "l2")))


@register
class JaccardLoss(Loss):
    """1 - intersection over union.

    Args:
        class_weights: One number or an array, one weight a class; multiplies the scores and is not normalised.
        class_indexes: Class or classes to look at, or None for all.
        per_image: Score each image and average, instead of scoring the batch as one image.
        smooth: Added to numerator and denominator.
    """

    def __init__(self, class_weights=None, class_indexes=None, per_image=False, smooth=SMOOTH):
        super().__init__(name="jaccard_loss")
        self.class_weights = class_weights if class_weights is not None else 1
        self.class_indexes = class_indexes
        self.per_image = per_image
        self.smooth = smooth

    def __call__(self, gt, pr):
        return 1 - iou(gt, pr, self.class_weights, self.class_indexes, self.smooth, self.per_image, None)


@register
class DiceLoss(Loss):
    """1 - F-score, with `beta` 1 the Dice loss.

    Args:
        beta: Weight of recall against precision.
        class_weights, class_indexes, per_image, smooth: As of `JaccardLoss`.
    """

    def __init__(self, beta=1, class_weights=None, class_indexes=None, per_image=False, smooth=SMOOTH):
        super().__init__(name="dice_loss")
        self.beta = beta
        self.class_weights = class_weights if class_weights is not None else 1
        self.class_indexes = class_indexes
        self.per_image = per_image
        self.smooth = smooth

    def __call__(self, gt, pr):
        return 1 - f_beta(gt, pr, self.beta, self.class_weights, self.class_indexes, self.smooth, self.per_image, None)


def clipped(pr):
    """Probabilities of which a logarithm can be taken."""
    return ops.clip(pr, keras.config.epsilon(), 1 - keras.config.epsilon())


@register
class BinaryCELoss(Loss):
    """Cross-entropy of each channel against its complement, averaged over pixels and channels."""

    def __init__(self):
        super().__init__(name="binary_crossentropy")

    def __call__(self, gt, pr):
        gt, pr = read(gt, pr)
        # Keras' function adds epsilon inside the logarithms after clipping; without it the values differ at 0 and 1.
        pr, epsilon = clipped(pr), keras.config.epsilon()
        return -ops.mean(gt * ops.log(pr + epsilon) + (1 - gt) * ops.log(1 - pr + epsilon))


@register
class CategoricalCELoss(Loss):
    """Cross-entropy of probabilities, scaled to sum 1 over the channels looked at, averaged over pixels and channels.

    Args:
        class_weights, class_indexes: As of `JaccardLoss`.
    """

    def __init__(self, class_weights=None, class_indexes=None):
        super().__init__(name="categorical_crossentropy")
        self.class_weights = class_weights if class_weights is not None else 1
        self.class_indexes = class_indexes

    def __call__(self, gt, pr):
        gt, pr = read(gt, pr, self.class_indexes)
        pr = clipped(pr / ops.sum(pr, axis=channel_axis(), keepdims=True))
        return -ops.mean(gt * ops.log(pr) * weights_of(self.class_weights, pr))


@register
class CategoricalFocalLoss(Loss):
    """Cross-entropy in which a pixel counts `alpha * (1 - p)^gamma`, averaged over pixels and channels.

    Args:
        alpha: Factor of the whole loss.
        gamma: Exponent; the larger, the less a pixel counts that is predicted well.
        class_indexes: As of `JaccardLoss`.
    """

    def __init__(self, alpha=0.25, gamma=2.0, class_indexes=None):
        super().__init__(name="focal_loss")
        self.alpha, self.gamma, self.class_indexes = alpha, gamma, class_indexes

    def __call__(self, gt, pr):
        gt, pr = read(gt, pr, self.class_indexes)
        pr = clipped(pr)
        return ops.mean(-gt * (self.alpha * ops.power(1 - pr, self.gamma) * ops.log(pr)))


@register
class BinaryFocalLoss(Loss):
    """Focal loss of each channel against its complement.

    Args:
        alpha: Weight of foreground; background has 1 - alpha.
        gamma: As of `CategoricalFocalLoss`.
    """

    def __init__(self, alpha=0.25, gamma=2.0):
        super().__init__(name="binary_focal_loss")
        self.alpha, self.gamma = alpha, gamma

    def __call__(self, gt, pr):
        gt, pr = read(gt, pr)
        pr = clipped(pr)
        foreground = -gt * (self.alpha * ops.power(1 - pr, self.gamma) * ops.log(pr))
        background = -(1 - gt) * ((1 - self.alpha) * ops.power(pr, self.gamma) * ops.log(1 - pr))
        return ops.mean(foreground + background)


jaccard_loss = JaccardLoss()
dice_loss = DiceLoss()

binary_focal_loss = BinaryFocalLoss()
categorical_focal_loss = CategoricalFocalLoss()

binary_crossentropy = BinaryCELoss()
categorical_crossentropy = CategoricalCELoss()

bce_dice_loss = binary_crossentropy + dice_loss
bce_jaccard_loss = binary_crossentropy + jaccard_loss

cce_dice_loss = categorical_crossentropy + dice_loss
cce_jaccard_loss = categorical_crossentropy + jaccard_loss

binary_focal_dice_loss = binary_focal_loss + dice_loss
binary_focal_jaccard_loss = binary_focal_loss + jaccard_loss

categorical_focal_dice_loss = categorical_focal_loss + dice_loss
categorical_focal_jaccard_loss = categorical_focal_loss + jaccard_loss
