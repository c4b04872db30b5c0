"""Losses for segmentation, in `keras.ops`: on TensorFlow, JAX and PyTorch, for any model whose output is `(batch, height, width, classes)`.

What all of them share:

- **Truth** is ids `(batch, height, width)` or `(batch, height, width, 1)`, or one value a class `(batch, height, width, classes)`: one-hot, soft,
  or, with `multi_label=True`, any number of labels a pixel. A one-hot pixel that is 0 in all classes is not counted.
- **Prediction** is probabilities, unless `from_logits=True`; values alone cannot tell. Several classes exclude each other (softmax) unless
  `multi_label=True` (sigmoid). One channel is foreground against background (sigmoid).
- **Weights are averaged over, never summed**: doubling `class_weight` or `sample_weight` changes nothing, and a loss is never negative.
- **A wrong mask is never trained on in silence.** Ids without a class (0/255 masks), ids between two classes (masks resized with blending),
  one-hot values outside 0..1 and, without `from_logits`, predictions outside 0..1 make the loss NaN with a zero gradient, in a compiled step
  too; with NumPy arrays they raise an error that names them.
- **Computed in float32**, whatever the precision of the model.

`CrossEntropy() + 0.5 * Dice()` is a loss as well. U-Net's weight map is data, not a loss: `boundary_weights(mask)`, given as `sample_weight`.
"""

import math

import keras
import numpy as np
from keras import ops

from cnn_zoo.errors import InputError

register = keras.saving.register_keras_serializable("cnn_zoo")

EPSILON = 1e-7  # the smallest probability of which a logarithm is taken
TOLERANCE = 1e-2  # bfloat16 has no more than two decimals near 1


class _Addable:
    """`loss_a + loss_b` and `0.5 * loss`, with any Keras loss."""

    def __add__(self, other):
        if isinstance(other, int | float) and other == 0:  # where the built-in sum() starts
            return self
        return NotImplemented if not isinstance(other, keras.losses.Loss) else _sum(self, other)

    def __radd__(self, other):
        if isinstance(other, int | float) and other == 0:
            return self
        return NotImplemented if not isinstance(other, keras.losses.Loss) else _sum(other, self)

    def __mul__(self, factor):
        if isinstance(factor, keras.losses.Loss) or not np.isscalar(factor):
            return NotImplemented
        parts = _parts(self)
        return WeightedSum([loss for loss, _ in parts], [weight * factor for _, weight in parts])

    __rmul__ = __mul__


def _parts(loss):
    return list(zip(loss.losses, loss.weights)) if isinstance(loss, WeightedSum) else [(loss, 1.0)]


def _sum(*losses):
    parts = [part for loss in losses for part in _parts(loss)]
    return WeightedSum([loss for loss, _ in parts], [weight for _, weight in parts])


@register
class WeightedSum(_Addable, keras.losses.Loss):
    """A weighted sum of losses; `loss_a + 0.5 * loss_b` makes one.

    Args:
        losses: Keras losses; all see the same truth, prediction and sample weights.
        weights: One number a loss, at least 0; None for 1 each.
        name: Of the loss.

    Raises:
        InputError: Weights are negative, not finite, or not as many as there are losses.
    """

    def __init__(self, losses, weights=None, name=None):
        super().__init__(name=name)
        self.losses = [keras.losses.get(loss) for loss in losses]
        self.weights = [1.0] * len(self.losses) if weights is None else [float(weight) for weight in weights]
        if len(self.weights) != len(self.losses) or not self.losses:
            raise InputError(f"{len(self.losses)} losses need as many weights, and at least one; given {self.weights}")
        if not all(math.isfinite(weight) and weight >= 0 for weight in self.weights):
            raise InputError(f"weights of losses are finite and at least 0, not {self.weights}")

    def __call__(self, y_true, y_pred, sample_weight=None):
        return sum(weight * loss(y_true, y_pred, sample_weight) for loss, weight in zip(self.losses, self.weights))

    def get_config(self):
        losses = [keras.losses.serialize(loss) for loss in self.losses]
        return {"losses": losses, "weights": self.weights, "name": self.name}


class SegmentationLoss(_Addable, keras.losses.Loss):
    """What the losses below share.

    Args:
        from_logits: The predictions are logits: the model ends without softmax or sigmoid.
        multi_label: Classes do not exclude each other: a sigmoid a class.
        ignore: An id, or several, whose pixels are not counted. The channel of an ignored id, if there is one, is left out of means over
            classes. With `multi_label` and truth of one value a class, a value (such as 255) whose entries are not counted.
        class_weight: One number a class, at least 0. Losses of pixels (cross-entropy, focal) weight each pixel by its class and divide by the
            sum of these weights; losses of classes (Dice, Jaccard, Tversky, Lovasz) take the weighted mean over classes. With one channel:
            (background, foreground), for losses of pixels only.
        per_image: False: the pixels of a batch count as those of one image. True: the mean of the losses of the images that have something
            to count.
        name: Of the loss.
        dtype: In which it is computed.

    Call with truth, prediction and optional `sample_weight`: `(batch,)`, or a weight a pixel `(batch, height, width)` or
    `(batch, height, width, 1)`. Weights of images weight the mean over images, or all pixels of the image when not `per_image`. The answer is
    one number; 0 if there is nothing to count.

    Raises:
        InputError: Shapes that do not fit each other, or NumPy arrays with values that have no meaning.
    """

    def __init__(
        self,
        *,
        from_logits=False,
        multi_label=False,
        ignore=None,
        class_weight=None,
        per_image=False,
        name=None,
        dtype="float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.from_logits, self.multi_label, self.per_image = bool(from_logits), bool(multi_label), bool(per_image)
        self.ignore = ids(ignore)
        self.class_weight = None if class_weight is None else tuple(float(w) for w in np.ravel(class_weight))
        if self.class_weight is not None and not (
            all(math.isfinite(w) and w >= 0 for w in self.class_weight) and any(self.class_weight)
        ):
            raise InputError(f"class_weight is finite, at least 0 and somewhere above 0, not {self.class_weight}")

    def __call__(self, y_true, y_pred, sample_weight=None):
        if isinstance(y_true, np.ndarray):
            self._check_values(y_true, np.shape(y_pred))
        if isinstance(y_pred, np.ndarray) and not self.from_logits and y_pred.size:
            low, high = float(np.min(y_pred)), float(np.max(y_pred))
            if low < -TOLERANCE or high > 1 + TOLERANCE:
                raise InputError(
                    f"predictions are from {low:.4g} to {high:.4g}, and probabilities are from 0 to 1; "
                    "for a model that gives logits say from_logits=True"
                )
        # Keras' own __call__ casts, and divides by the number of replicas where there are several. It would multiply the mean by
        # sample_weight; here weights belong inside the mean, so they travel with the truth.
        return super().__call__((y_true,) if sample_weight is None else (y_true, sample_weight), y_pred)

    def call(self, y_true, y_pred):
        y_true, sample_weight = (*y_true, None)[:2] if isinstance(y_true, tuple) else (y_true, None)
        classes = self._check_shapes(tuple(y_true.shape), tuple(y_pred.shape))
        target, weight, wrong = self._read(y_true, classes)
        if not self.from_logits:
            wrong = ops.logical_or(wrong, ops.any(ops.logical_or(y_pred < -TOLERANCE, y_pred > 1 + TOLERANCE)))
        images = ops.sum(ops.zeros_like(y_pred), axis=(1, 2, 3)) + 1
        if sample_weight is not None:
            sample_weight = self._check_sample_weight(sample_weight, tuple(weight.shape))
            if len(sample_weight.shape) == 1 and self.per_image:
                images = sample_weight
            elif len(sample_weight.shape) == 1:
                weight = weight * sample_weight[:, None, None, None]
            else:
                weight = weight * sample_weight
        total, count = self._sums(target, weight, y_pred, classes)
        images = images if self.per_image else ops.ones_like(total)
        counted = images * ops.cast(count > 0, total.dtype)
        loss = _ratio(ops.sum(counted * _ratio(total, count)), ops.sum(counted))
        # Of shape (1,), since Keras divides everything but scalars by the number of replicas.
        return ops.reshape(ops.where(wrong, float("nan"), loss), (1,))

    def _exclusive(self, classes):
        return classes > 1 and not self.multi_label

    def _check_shapes(self, truth, prediction):
        if len(prediction) != 4 or prediction[-1] is None:
            raise InputError(f"predictions must be (batch, height, width, classes), not {prediction}")
        classes = prediction[-1]
        if len(truth) not in (3, 4) or (len(truth) == 4 and truth[3] not in (1, classes)):
            raise InputError(
                f"masks must be ids (batch, height, width) or (batch, height, width, 1), or one-hot (batch, height, width, {classes}) as the "
                f"predictions {prediction}; given {truth}"
            )
        if any(a != b for a, b in zip(truth[:3], prediction[:3]) if a is not None and b is not None):
            raise InputError(
                f"masks {truth} and predictions {prediction} differ in number or size; "
                "resize or crop the masks to what the model gives (ids without blending)"
            )
        return classes

    def _check_sample_weight(self, sample_weight, shape):
        given = tuple(sample_weight.shape)
        if len(given) == 2 and given[1] == 1:
            return sample_weight[:, 0]
        if len(given) == 3:
            sample_weight = sample_weight[..., None]
        elif len(given) != 1 and not (len(given) == 4 and given[3] in (1, shape[3])):
            raise InputError(f"sample_weight must be (batch,) or (batch, height, width), not {given}")
        if any(a != b for a, b in zip(given[:3], shape[:3]) if a is not None and b is not None):
            raise InputError(f"sample_weight {given} and masks {shape[:3]} differ in number or size")
        return sample_weight

    def _read(self, truth, classes):
        """Targets `(batch, height, width, classes)`, weights `(batch, height, width, 1 or classes)`, and whether a value has no meaning."""
        if len(truth.shape) == 3:
            truth = truth[..., None]
        ignored = _among(truth, self.ignore)
        if classes == 1 or (self.multi_label and truth.shape[-1] > 1):
            wrong = ops.logical_or(truth < 0, truth > 1)
            target = truth
        elif truth.shape[-1] == 1:
            nearest = ops.round(truth)
            wrong = ops.logical_or(ops.logical_or(truth < 0, truth > classes - 1), ops.not_equal(truth, nearest))
            target = ops.cast(ops.equal(nearest, ops.arange(classes, dtype=truth.dtype)), truth.dtype)
        else:
            total = ops.sum(truth, axis=-1, keepdims=True)
            outside = ops.any(ops.logical_or(truth < 0, truth > 1), axis=-1, keepdims=True)
            wrong = ops.logical_or(outside, ops.logical_and(total > 0, ops.abs(total - 1) > TOLERANCE))
            kept = ops.sum(truth * ops.cast(self._kept(classes), truth.dtype), axis=-1, keepdims=True)
            return truth, ops.cast(kept >= 0.5, truth.dtype), ops.any(wrong)
        wrong = ops.any(ops.logical_and(wrong, ops.logical_not(ignored)))
        weight = ops.cast(ops.logical_not(ignored), truth.dtype)
        return ops.where(ignored, ops.zeros_like(target), target), weight, wrong

    def _kept(self, classes):
        """`(classes,)`: 0 for ignored ids, else 1. With one channel or label values, what is ignored is no channel."""
        return np.array(
            [0.0 if self._exclusive(classes) and i in self.ignore else 1.0 for i in range(classes)], "float32"
        )

    def _check_values(self, truth, prediction):
        if len(prediction) != 4 or truth.ndim not in (3, 4):
            return  # the check of shapes says it better
        classes = prediction[-1]
        values = np.unique(truth).astype("float64")
        one_hot = truth.ndim == 4 and truth.shape[3] == classes > 1
        if one_hot and not self.multi_label:
            sums = truth.astype("float64").sum(-1)
            good = (np.abs(sums - 1) <= TOLERANCE) | (truth == 0).all(-1)
            bad, meant = values[(values < 0) | (values > 1)], "one-hot values from 0 to 1"
            if not bad.size and not good.all():
                raise InputError(
                    f"one-hot pixels sum to 1 (or 0, not counted), here up to {sums.max():.4g}; for several labels a pixel say multi_label=True"
                )
        elif one_hot or classes == 1:
            bad, meant = values[(values < 0) | (values > 1)], "values from 0 to 1"
            bad = bad[~np.isin(bad, self.ignore)]
        else:
            bad = values[(values < 0) | (values > classes - 1) | (values != np.round(values))]
            bad, meant = bad[~np.isin(bad, self.ignore)], f"whole ids from 0 to {classes - 1}"
        if bad.size:
            shown = ", ".join(f"{value:g}" for value in bad[:5]) + (", ..." if bad.size > 5 else "")
            raise InputError(
                f"the predictions have {classes} channel(s), so masks hold {meant}, and these hold {shown}; "
                "map them to ids, or leave pixels out with ignore"
            )

    def _class_weight(self, expected, dtype):
        if self.class_weight is None:
            return ops.ones(expected, dtype)
        if len(self.class_weight) != expected:
            raise InputError(f"{len(self.class_weight)} class weights were given, and {expected} are needed")
        return ops.convert_to_tensor(np.array(self.class_weight), dtype)

    def _probabilities(self, y_pred, classes):
        if not self.from_logits:
            return y_pred
        return ops.softmax(y_pred) if self._exclusive(classes) else ops.sigmoid(y_pred)

    def _sums(self, target, weight, y_pred, classes):
        """Weighted sum of losses and sum of weights, `(batch,)` per image or `(1,)`."""
        raise NotImplementedError

    def get_config(self):
        keys = ("from_logits", "multi_label", "ignore", "class_weight", "per_image", "name", "dtype")
        return {key: getattr(self, key) for key in keys}


def ids(ignore) -> tuple[int, ...]:
    """None, one id or several as a tuple."""
    return () if ignore is None else tuple(int(i) for i in np.ravel(np.asarray(ignore)))


def _among(values, wanted):
    """Where `values` is one of a few numbers."""
    found = ops.zeros_like(values, dtype="bool")
    for number in wanted:
        found = ops.logical_or(found, ops.equal(values, number))
    return found


def _ratio(a, b):
    """`a / b`, and 0 with a zero gradient where b is 0."""
    return ops.where(b > 0, a, ops.zeros_like(a)) / ops.where(b > 0, b, ops.ones_like(b))


class _PixelLoss(SegmentationLoss):
    """A loss of each pixel; the mean over pixels is weighted by class and sample weights."""

    def _error(self, p, log_p):
        """The loss of a pixel whose true class has probability p."""
        raise NotImplementedError

    def _sums(self, target, weight, y_pred, classes):
        exclusive = self._exclusive(classes)
        weights = self._class_weight(2 if classes == 1 else classes, target.dtype)
        log = (lambda p: ops.log(ops.clip(p, EPSILON, 1.0))) if not self.from_logits else None
        p = self._probabilities(y_pred, classes)
        if exclusive:
            log_p = ops.log_softmax(y_pred) if self.from_logits else log(p)
            sides = [(target * weights, p, log_p)]
        else:
            # 1 - sigmoid(x) is sigmoid(-x), without cancellation.
            q = ops.sigmoid(-y_pred) if self.from_logits else 1 - p
            log_p, log_q = (ops.log_sigmoid(y_pred), ops.log_sigmoid(-y_pred)) if self.from_logits else (log(p), log(q))
            background, foreground = (weights[0], weights[1]) if classes == 1 else (weights, weights)
            sides = [(target * foreground, p, log_p), ((1 - target) * background, q, log_q)]
        sides = [(weight * w, p, log_p) for w, p, log_p in sides]
        total = sum(ops.sum(w * self._error(p, log_p), axis=(1, 2, 3)) for w, p, log_p in sides)
        count = sum(ops.sum(w, axis=(1, 2, 3)) for w, _, _ in sides)
        if self.per_image:
            return total, count
        return ops.sum(total, keepdims=True), ops.sum(count, keepdims=True)


@register
class CrossEntropy(_PixelLoss):
    """Cross-entropy, in nats: the mean over pixels of `-log p`, p being the probability of the pixel's class.

    Args:
        **settings: As of `SegmentationLoss`.
    """

    def _error(self, p, log_p):
        return -log_p


@register
class Focal(_PixelLoss):
    """Focal loss: the mean over pixels of `-(1 - p)^gamma log p`.

    The paper's alpha is `class_weight=(1 - alpha, alpha)` for one channel; it divides by the number of positive boxes, here by the weights.

    Args:
        gamma: At least 0; 0 is cross-entropy.
        **settings: As of `SegmentationLoss`.

    Source: Lin et al. 2017, "Focal loss for dense object detection", equation 5.
    """

    def __init__(self, gamma=2.0, **settings):
        super().__init__(**settings)
        if gamma < 0:
            raise InputError(f"gamma must be at least 0, not {gamma}")
        self.gamma = float(gamma)

    def _error(self, p, log_p):
        if self.gamma == 0:
            return -log_p
        return -ops.power(ops.maximum(1 - p, EPSILON), self.gamma) * log_p  # the slope at 0 is infinite for gamma < 1

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma}


class _ClassLoss(SegmentationLoss):
    """A loss of each class over all pixels of the batch, or of each image; the mean over classes is weighted by class weights.

    Args:
        absent: What a class counts that no true pixel has: "skip" leaves it out of the mean (with nothing but absent classes the loss and its
            gradient are 0: add a cross-entropy), "count" takes it like the others (loss 1 for whatever was predicted of it, or less with
            `smooth`).
        **settings: As of `SegmentationLoss`.
    """

    def __init__(self, *, absent="skip", **settings):
        super().__init__(**settings)
        if absent not in ("skip", "count"):
            raise InputError(f"absent is 'skip' or 'count', not {absent!r}")
        self.absent = absent

    def _losses(self, target, weight, y_pred, classes):
        """`(groups, classes)`; a group is an image or the batch."""
        raise NotImplementedError

    def _over_pixels(self, x):
        return ops.sum(x, axis=(1, 2)) if self.per_image else ops.sum(ops.sum(x, axis=(1, 2)), axis=0, keepdims=True)

    def _sums(self, target, weight, y_pred, classes):
        if classes == 1 and self.class_weight is not None:
            raise InputError(
                "with one channel this is the loss of one class, the foreground, and class weights have nothing to weight"
            )
        weight = weight + ops.zeros_like(target)
        seen = self._over_pixels(weight * target if self.absent == "skip" else weight)
        counted = ops.cast(seen > 0, target.dtype) * ops.cast(self._kept(classes), target.dtype)
        counted = counted * self._class_weight(classes, target.dtype)
        losses = self._losses(target, weight, y_pred, classes)
        return ops.sum(losses * counted, axis=1), ops.sum(counted, axis=1)

    def get_config(self):
        return {**super().get_config(), "absent": self.absent}


class _Overlap(_ClassLoss):
    """`1 - (hits tp + smooth) / (hits tp + alpha fp + beta fn + smooth)` of soft counts."""

    hits = 1.0

    def __init__(self, alpha, beta, smooth=0.0, **settings):
        super().__init__(**settings)
        if min(alpha, beta, smooth) < 0 or alpha + beta == 0:
            raise InputError(f"alpha, beta and smooth must be at least 0, not {alpha}, {beta}, {smooth}")
        self.alpha, self.beta, self.smooth = float(alpha), float(beta), float(smooth)

    def _losses(self, target, weight, y_pred, classes):
        p = self._probabilities(y_pred, classes)
        tp = self._over_pixels(weight * target * p)
        fp = self._over_pixels(weight * (1 - target) * p)
        fn = self._over_pixels(weight * target * (1 - p))
        # The errors over the whole, not 1 minus the hits: no cancellation, exactly 0 when all is right.
        errors = self.alpha * fp + self.beta * fn
        return _ratio(errors, self.hits * tp + errors + self.smooth)

    def get_config(self):
        return {**super().get_config(), "smooth": self.smooth}


@register
class Dice(_Overlap):
    """1 - Dice: `1 - (2 tp + smooth) / (2 tp + fp + fn + smooth)` of each class, with soft counts.

    With predictions of 0 and 1 and `smooth=0` it is exactly 1 - the Dice score. (Milletari et al. square in the denominator; this does not.)

    Args:
        smooth: At least 0. Above 0, small objects and absent classes count less.
        absent: What a class counts that no true pixel has: "skip" or "count", as `Tversky` says.
        **settings: As of `SegmentationLoss`.

    Source: Milletari et al. 2016, "V-Net", section 3.
    """

    hits = 2.0

    def __init__(self, smooth=0.0, **settings):
        super().__init__(1.0, 1.0, smooth, **settings)


@register
class Jaccard(_Overlap):
    """1 - intersection over union: `1 - (tp + smooth) / (tp + fp + fn + smooth)` of each class, with soft counts.

    Args:
        smooth, absent, **settings: As of `Dice`.

    Source: Rahman and Wang 2016, "Optimizing intersection-over-union in deep neural networks for image segmentation", section 3.
    """

    def __init__(self, smooth=0.0, **settings):
        super().__init__(1.0, 1.0, smooth, **settings)


@register
class Tversky(_Overlap):
    """1 - Tversky index: `1 - (tp + smooth) / (tp + alpha fp + beta fn + smooth)` of each class, with soft counts.

    Args:
        alpha: Weight of false positives.
        beta: Weight of false negatives; above `alpha`, missing a pixel costs more than inventing one. Both 1/2 is Dice, both 1 is Jaccard.
        smooth: At least 0.
        absent: What a class counts that no true pixel has: "skip" leaves it out of the mean (with nothing but absent classes the loss and its
            gradient are 0: add a cross-entropy), "count" takes it like the others (loss 1 for whatever was predicted of it, or less with
            `smooth`).
        **settings: As of `SegmentationLoss`.

    Source: Salehi et al. 2017, "Tversky loss function for image segmentation using 3D fully convolutional deep networks", equation 3 and
    section 4, whose best constants are the defaults.
    """

    def __init__(self, alpha=0.3, beta=0.7, smooth=0.0, **settings):
        super().__init__(alpha, beta, smooth, **settings)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}


@register
class FocalTversky(Tversky):
    """The Tversky loss of each class to the power `1 / gamma`: with gamma above 1, classes that are nearly right still count.

    Args:
        alpha, beta, smooth, absent: As of `Tversky`.
        gamma: Above 0.
        **settings: As of `SegmentationLoss`.

    Source: Abraham and Khan 2019, "A novel focal Tversky loss function with improved attention U-Net for lesion segmentation", equation 4, whose
    constants are the defaults (their alpha is the weight of false negatives).
    """

    def __init__(self, alpha=0.3, beta=0.7, gamma=4 / 3, smooth=0.0, **settings):
        super().__init__(alpha, beta, smooth, **settings)
        if gamma <= 0:
            raise InputError(f"gamma must be above 0, not {gamma}")
        self.gamma = float(gamma)

    def _losses(self, target, weight, y_pred, classes):
        losses = super()._losses(target, weight, y_pred, classes)
        # A straight line below a millionth: the power's own slope at 0 is infinite.
        low, power = 1e-6, 1 / self.gamma
        curve = ops.power(ops.maximum(losses, low), power)
        return ops.where(losses > low, curve, losses * low ** (power - 1))

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma}


@register
class Lovasz(_ClassLoss):
    """Lovasz loss: the convex closure of 1 - intersection over union, over the pixels' errors sorted by size.

    Args:
        hinge: False: errors are `|truth - probability|` (Lovasz-Softmax; for sigmoids its counterpart). True: errors are hinges
            `1 - logit * (+1 or -1)` (the binary Lovasz hinge), for one channel or `multi_label`.
        absent: What a class counts that no true pixel has: "skip" leaves it out (the paper's "present"), "count" takes its largest error.
        **settings: As of `SegmentationLoss`.

    Source: Berman et al. 2018, "The Lovasz-Softmax loss", sections 2 and 3. Weights of pixels make weighted counts of the Jaccard index.
    """

    def __init__(self, hinge=False, **settings):
        super().__init__(**settings)
        self.hinge = bool(hinge)

    def _losses(self, target, weight, y_pred, classes):
        truth = ops.cast(target >= 0.5, target.dtype)
        if self.hinge:
            if self._exclusive(classes):
                raise InputError("the Lovasz hinge is for one channel, or for multi_label=True; leave hinge=False here")
            logits = y_pred
            if not self.from_logits:
                p = ops.clip(y_pred, EPSILON, 1 - EPSILON)
                logits = ops.log(p) - ops.log(1 - p)
            errors = 1 - logits * (2 * truth - 1)
        else:
            errors = ops.abs(target - self._probabilities(y_pred, classes))
        errors, truth, weight = (self._flat(x, classes) for x in (errors, truth, weight))
        order = ops.argsort(-ops.stop_gradient(errors), axis=-1)
        errors, truth, weight = (ops.take_along_axis(x, order, axis=-1) for x in (errors, truth, weight))
        true = ops.sum(weight * truth, axis=-1, keepdims=True)
        intersection = true - ops.cumsum(weight * truth, axis=-1)
        union = true + ops.cumsum(weight * (1 - truth), axis=-1)
        jaccard = _ratio(union - intersection, union)  # loss of the set of the first k pixels being wrong
        steps = ops.concatenate([jaccard[..., :1], jaccard[..., 1:] - jaccard[..., :-1]], axis=-1)
        return ops.sum(ops.maximum(errors, 0) * ops.stop_gradient(steps), axis=-1)

    def _flat(self, x, classes):
        """`(groups, classes, pixels)`."""
        batch, height, width, _ = ops.shape(x)
        if self.per_image:
            return ops.reshape(ops.transpose(x, (0, 3, 1, 2)), (batch, classes, height * width))
        return ops.reshape(ops.transpose(x, (3, 0, 1, 2)), (1, classes, batch * height * width))

    def get_config(self):
        return {**super().get_config(), "hinge": self.hinge}


def boundary_weights(mask, *, w0=10.0, sigma=5.0, class_weight=None, instances=False, ignore=None) -> np.ndarray:
    """U-Net's weight map, which makes a network learn the thin background between objects that touch or nearly touch.

    `w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2))` on background pixels, d1 and d2 being the distances to the two nearest objects; w_c on objects,
    where the paper's figure 3d has no more either. Give it as `sample_weight`, `(batch, height, width)`: losses divide by the sum of weights.

    Args:
        mask: `(height, width)` or `(height, width, 1)` ids, 0 being background. Not a batch: distances do not cross images.
        w0: Height of the second term.
        sigma: Its width, in pixels.
        class_weight: w_c: one number a class (with `instances`: background and foreground); None for 1.
        instances: False: each connected region of a class is an object (8 neighbours). True: each id is an object.
        ignore: Ids that are not objects and get weight 0.

    Returns:
        `(height, width)` float32, at least 0.

    Raises:
        InputError: A mask that is not of whole numbers at least 0, or weights that do not fit.

    Source: Ronneberger et al. 2015, "U-Net", equation 2.
    """
    from scipy import ndimage

    mask = np.asarray(mask)
    if mask.ndim == 3 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.ndim != 2:
        raise InputError(f"a mask must be (height, width) or (height, width, 1), not {mask.shape}; give one at a time")
    ignored = np.isin(mask, ids(ignore))
    values = np.where(ignored, 0, mask)
    if mask.dtype.kind not in "biuf" or (values != np.round(values)).any() or (values < 0).any():
        raise InputError("a mask holds whole ids, 0 for background; leave others out with ignore")
    if w0 < 0 or sigma <= 0:
        raise InputError(f"w0 must be at least 0 and sigma above 0, not {w0} and {sigma}")
    values = values.astype("int64")
    weights = np.ones(mask.shape, "float64")
    if class_weight is not None:
        classes = np.minimum(values, 1) if instances else values
        class_weight = np.asarray(class_weight, "float64")
        if classes.max(initial=0) >= len(class_weight) or (class_weight < 0).any():
            raise InputError(
                f"class {classes.max()} needs a class weight, all at least 0; given {class_weight.tolist()}"
            )
        weights = class_weight[classes]

    objects = []  # (place, which pixels of it)
    for value in np.unique(values[values > 0]):
        labels = (values == value).astype("int32") if instances else ndimage.label(values == value, np.ones((3, 3)))[0]
        objects += [(box, labels[box] == i) for i, box in enumerate(ndimage.find_objects(labels), 1) if box is not None]
    # Beyond this distance the term is below 1e-7, and an object need not be looked at.
    reach = math.ceil(sigma * math.sqrt(2 * math.log(max(w0, 1e-7) / 1e-7))) + 1
    nearest = np.full((2, *mask.shape), np.inf)
    for box, inside in objects:
        near = tuple(slice(max(s.start - reach, 0), min(s.stop + reach, n)) for s, n in zip(box, mask.shape))
        outside = np.ones(tuple(s.stop - s.start for s in near), bool)
        outside[tuple(slice(s.start - n.start, s.stop - n.start) for s, n in zip(box, near))] = ~inside
        distance = ndimage.distance_transform_edt(outside)
        first, second = nearest[(0, *near)], nearest[(1, *near)]
        second[...] = np.minimum(second, np.maximum(first, distance))
        first[...] = np.minimum(first, distance)
    term = w0 * np.exp(-np.square(nearest.sum(0)) / (2 * sigma**2))
    return np.where(ignored, 0, weights + np.where(values == 0, term, 0)).astype("float32")


LOSSES = {
    "cross_entropy": CrossEntropy,
    "focal": Focal,
    "dice": Dice,
    "jaccard": Jaccard,
    "tversky": Tversky,
    "focal_tversky": FocalTversky,
    "lovasz": Lovasz,
}


def named(text: str, **settings) -> keras.losses.Loss:
    """The loss that a text names: "focal", or a sum such as "cross_entropy + 0.5 dice".

    Args:
        text: Keys of `LOSSES`, each with an optional factor before it, joined by "+".
        **settings: Of all of them, as for `SegmentationLoss`.

    Raises:
        InputError: The text names no loss.
    """
    parts = []
    for term in str(text).split("+"):
        *factor, name = term.split() or [""]
        try:
            weight = float(factor[0]) if factor else 1.0
        except ValueError:
            weight = math.nan
        if name not in LOSSES or len(factor) > 1 or not (math.isfinite(weight) and weight >= 0):
            raise InputError(
                f'{text!r} names no loss at {term.strip()!r}: write one of {", ".join(LOSSES)}, or a sum such as "cross_entropy + 0.5 dice"'
            )
        parts.append((LOSSES[name](**settings), weight))
    return parts[0][0] if parts[0][1:] == (1.0,) and len(parts) == 1 else WeightedSum(*zip(*parts))
