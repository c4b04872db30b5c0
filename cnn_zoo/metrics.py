"""Metrics for segmentation, from one confusion matrix over the whole data set, in `keras.ops`: on TensorFlow, JAX and PyTorch.

A mean over batches of an IoU is not the IoU of the data set, and a class that is absent from a batch makes it look better or worse. So every
metric here counts pixels, from the first batch to the last, in integers (float32 loses count at 2^24 pixels, 64 images of 512 x 512), and
divides at the end.

- **Truth** is ids `(batch, height, width)` or `(batch, height, width, 1)`, or one-hot `(batch, height, width, classes)`, whose pixels of zeros
  are not counted.
- **Prediction** of a float type is a score a class, probability or logit, whose largest wins (the first of equals); with one channel,
  foreground is above 1/2, or above 0 with `from_logits`. Prediction of an integer type is ids.
- **A class that is nowhere** in truth and prediction has no IoU: `absent` says what becomes of 0/0. A class that is not in the truth but was
  predicted has IoU 0, and lowers the mean.
- **Ids without a class** make the result NaN, and `matrix()` raises; with NumPy arrays they raise at once.

`scores(matrix)` gives all numbers at once from a confusion matrix; `confusion_matrix` counts one in NumPy.
"""

import keras
import numpy as np
from keras import ops

from cnn_zoo.errors import InputError

register = keras.saving.register_keras_serializable("cnn_zoo")

WORD = 2**30  # counts are kept as two words, for backends that have no 64-bit integers


def confusion_matrix(y_true, y_pred, classes: int, *, ignore=None) -> np.ndarray:
    """Count pixels by true and predicted class.

    Args:
        y_true: Ids, of any shape.
        y_pred: Ids, of the same shape.
        classes: Number of classes.
        ignore: True ids, one or several, that are not counted.

    Returns:
        `(classes, classes)` int64; rows are true classes, columns predicted ones. Matrices of several images add up.

    Raises:
        InputError: Shapes differ, or ids have no class.
    """
    truth, predicted = np.asarray(y_true), np.asarray(y_pred)
    if truth.shape != predicted.shape:
        raise InputError(f"truth {truth.shape} and prediction {predicted.shape} differ in shape")
    counted = ~np.isin(truth, _ids(ignore))
    truth, predicted = truth[counted], predicted[counted]
    for values, which in ((truth, "truth"), (predicted, "prediction")):
        _check_ids(values, classes, which)
    flat = truth.astype("int64") * classes + predicted.astype("int64")
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes).astype("int64")


def scores(matrix, *, class_names=None, class_ids=None, absent="skip", beta=1.0) -> dict:
    """All scores of a confusion matrix.

    Args:
        matrix: `(classes, classes)` counts, rows being true classes and columns predicted ones; or `(labels, 2, 2)` for labels that do not
            exclude each other, one matrix a label, as scikit-learn's `multilabel_confusion_matrix`.
        class_names: One name a class; None for "0", "1", ...
        class_ids: Classes that the means are over; None for all. All classes stay in the counts.
        absent: What 0/0 is: "skip" leaves the class out of the mean, "zero" and "one" count it as that.
        beta: Weight of recall against precision in `dice`; 1 for the Dice score, which is F1.

    Returns:
        `pixel_accuracy`; `mean_iou`, `mean_dice`, `mean_precision`, `mean_recall` (also called class average accuracy);
        `frequency_weighted_iou` (classes weighted by their true pixels); `iou`, `dice`, `precision`, `recall` and `pixels` (true ones), each a
        dictionary by class name. What is 0/0 is None. All but `pixels` are from 0 to 1.

    Raises:
        InputError: Not a confusion matrix, or names and ids that do not fit it.
    """
    matrix = np.asarray(matrix)
    if not (matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] or matrix.ndim == 3 and matrix.shape[1:] == (2, 2)):
        raise InputError(
            f"a confusion matrix is (classes, classes), or (labels, 2, 2) for several labels, not {matrix.shape}"
        )
    if (matrix < 0).any():
        raise InputError("a confusion matrix holds counts, and this one has negative ones")
    names = [str(i) for i in range(len(matrix))] if class_names is None else list(class_names)
    if len(names) != len(matrix) or len(set(names)) != len(names):
        raise InputError(f"{len(matrix)} classes need as many names, each once; given {names}")
    means = _class_ids(class_ids, len(matrix))
    _check_absent(absent)

    tp, fp, fn, right, total = _counts(matrix)
    rates = {}
    for name, (a, b) in _rates(tp, fp, fn, beta).items():
        rates[name] = np.divide(a, b, where=b > 0, out=np.full(len(matrix), np.nan))

    def mean(values):
        values = values[means]
        if absent != "skip":
            values = np.nan_to_num(values, nan=float(absent == "one"))
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else None

    support = (tp + fn)[means]
    weighted = float(np.nansum(rates["iou"][means] * support) / support.sum()) if support.sum() else None
    return {
        "pixel_accuracy": float(right / total) if total else None,
        **{f"mean_{name}": mean(values) for name, values in rates.items()},
        "frequency_weighted_iou": weighted,
        **{
            name: {key: None if np.isnan(v) else float(v) for key, v in zip(names, values)}
            for name, values in rates.items()
        },
        "pixels": {key: int(n) for key, n in zip(names, tp + fn)},
    }


def _counts(matrix):
    """True positives, false positives, false negatives a class, right pixels and all pixels."""
    if len(matrix.shape) == 3:
        tp, fp, fn = matrix[:, 1, 1], matrix[:, 0, 1], matrix[:, 1, 0]
        return tp, fp, fn, (tp + matrix[:, 0, 0]).sum(), matrix.sum()
    tp = matrix.diagonal()
    return tp, matrix.sum(0) - tp, matrix.sum(1) - tp, tp.sum(), matrix.sum()


def _rates(tp, fp, fn, beta):
    """What is divided by what; of arrays and of tensors."""
    hits = (1 + beta**2) * tp
    return {
        "iou": (tp, tp + fp + fn),
        "dice": (hits, hits + beta**2 * fn + fp),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
    }


def boundary_f1(y_true, y_pred, classes: int, *, tolerance=2.0, ignore=None) -> np.ndarray:
    """Boundary F1 score of each class in one image: how well contours agree, whatever the areas are.

    A boundary pixel of a class has one of its 4 neighbours in another class; the border of the image and of ignored areas is no boundary.
    Precision is the share of predicted boundary pixels that have a true one within `tolerance`, recall the other way round.

    Args:
        y_true: `(height, width)` ids.
        y_pred: `(height, width)` ids.
        classes: Number of classes.
        tolerance: Distance in pixels, at least 0. The paper's is 0.75 % of the image's diagonal.
        ignore: True ids that are not counted.

    Returns:
        `(classes,)` float64; NaN for a class that has no boundary in truth and prediction, 0 for one that has it in only one of them.

    Raises:
        InputError: Not two masks of one size, or ids have no class.

    Source: Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?", section 3.
    """
    from scipy import ndimage

    truth, predicted = np.asarray(y_true), np.asarray(y_pred)
    if truth.ndim != 2 or truth.shape != predicted.shape:
        raise InputError(f"masks must be two of one (height, width), not {truth.shape} and {predicted.shape}")
    valid = ~np.isin(truth, _ids(ignore))
    _check_ids(truth[valid], classes, "truth")
    _check_ids(predicted[valid], classes, "prediction")

    def boundary(inside):
        outside = np.pad(valid & ~inside, 1)
        beside = outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
        return inside & valid & beside

    def share(found, wanted):
        if not found.any() or not wanted.any():
            return 0.0
        return (ndimage.distance_transform_edt(~wanted)[found] <= tolerance).mean()

    result = np.full(classes, np.nan)
    for i in range(classes):
        true, guess = boundary(truth == i), boundary(predicted == i)
        if true.any() or guess.any():
            precision, recall = share(guess, true), share(true, guess)
            result[i] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return result


class _SegmentationMetric(keras.metrics.Metric):
    """Reads truth and prediction for the metrics below.

    Args:
        classes: Number of classes, at least 2: background is one.
        from_logits: For predictions with one channel or `multi_label`: foreground is above 0, not above 1/2.
        multi_label: Classes do not exclude each other; truth and prediction are `(batch, height, width, classes)`.
        ignore: True ids, one or several, that are not counted; a class among them is left out of means. With `multi_label`, values (such as
            255) of entries that are not counted.
        class_ids: Classes that means are over; None for all. One id gives the score of that class.
        absent: What a class counts that is nowhere, 0/0: "skip" leaves it out of the mean, "zero" and "one" count it as that.
        name: Of the metric.
        dtype: Of the result. Counts are integers.

    `update_state` takes `sample_weight`, `(batch,)` or `(batch, height, width)`, and counts where it is not 0.

    Raises:
        InputError: Arguments or shapes that do not fit, or NumPy arrays with ids that have no class.
    """

    title = None

    def __init__(
        self,
        classes,
        *,
        from_logits=False,
        multi_label=False,
        ignore=None,
        class_ids=None,
        absent="skip",
        name=None,
        dtype="float32",
    ):
        super().__init__(name=name or self.title, dtype=dtype)
        self.classes = int(classes)
        self.from_logits, self.multi_label = bool(from_logits), bool(multi_label)
        self.ignore = _ids(ignore)
        if self.classes < 1 or (self.classes == 1 and not self.multi_label):
            raise InputError(f"classes must be at least 2, background being one of them; given {classes}")
        self.class_ids = None if class_ids is None else tuple(_class_ids(class_ids, self.classes))
        _check_absent(absent)
        self.absent = absent

    def _averaged(self):
        """`(classes,)`: 1 for the classes that means are over."""
        chosen = range(self.classes) if self.class_ids is None else self.class_ids
        kept = [i in chosen and (self.multi_label or i not in self.ignore) for i in range(self.classes)]
        return np.array(kept, "float32")

    def _mean(self, numerator, denominator):
        """Mean over classes of ratios; NaN if there is none."""
        defined = ops.cast(denominator > 0, self.dtype)
        ratio = numerator / ops.where(denominator > 0, denominator, 1)
        if self.absent == "one":
            ratio = ratio + (1 - defined)
        weight = ops.convert_to_tensor(self._averaged(), self.dtype)
        if self.absent == "skip":
            weight = weight * defined
        return ops.sum(ratio * weight) / ops.sum(weight)  # 0/0 is NaN

    def _check_shapes(self, truth, prediction, whole):
        channels = self.classes if self.multi_label else (1, self.classes)[len(prediction) == 4 and prediction[3] != 1]
        if len(prediction) == 3 and whole and not self.multi_label:
            pass
        elif (
            len(prediction) != 4
            or prediction[3] != channels
            or (channels == 1 and not whole and not self.multi_label and self.classes != 2)
        ):
            raise InputError(
                f"predictions of {self.classes} classes must be scores (batch, height, width, {self.classes})"
                + (", or of one channel for 2 classes, or integer ids (batch, height, width)" * (not self.multi_label))
                + f"; given {'integers' if whole else 'floats'} {prediction}"
            )
        fits = len(truth) == 4 and truth[3] == self.classes
        if not fits and (self.multi_label or len(truth) not in (3, 4) or (len(truth) == 4 and truth[3] != 1)):
            raise InputError(
                f"masks must be {'' if self.multi_label else 'ids (batch, height, width) or (batch, height, width, 1), or '}"
                f"(batch, height, width, {self.classes}) with one value a class; given {truth}"
            )
        if any(a != b for a, b in zip(truth[:3], prediction[:3]) if a is not None and b is not None):
            raise InputError(f"masks {truth} and predictions {prediction} differ in number or size")

    def _read(self, y_true, y_pred, sample_weight):
        """True and predicted ids as int32, where to count, and where ids have no class; `(batch, height, width, 1 or labels)`."""
        given = y_true
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        kind = keras.backend.standardize_dtype(y_pred.dtype)
        whole = "int" in kind or kind == "bool"
        self._check_shapes(tuple(y_true.shape), tuple(y_pred.shape), whole)
        if len(y_true.shape) == 3:
            y_true = y_true[..., None]
        if len(y_pred.shape) == 3:
            y_pred = y_pred[..., None]
        truth_kind = keras.backend.standardize_dtype(y_true.dtype)
        if truth_kind == "bool":
            y_true = ops.cast(y_true, "int32")
        elif "float" in truth_kind:
            y_true = ops.cast(y_true, "float32")
        threshold = 0 if self.from_logits else 0.5
        if self.multi_label or (y_true.shape[-1] == 1):
            labels = 2 if self.multi_label else self.classes
            truth = ops.cast(y_true, "int32")
            counted = ops.logical_not(_among(truth, self.ignore))
            wrong = ops.logical_or(truth < 0, truth >= labels)
            wrong = ops.logical_or(wrong, ops.not_equal(ops.cast(truth, y_true.dtype), y_true))
            if isinstance(given, np.ndarray):
                _check_ids(given[~np.isin(given, self.ignore)], labels, "truth")
        else:
            truth = ops.argmax(y_true, axis=-1, keepdims=True)
            truth = ops.cast(truth, "int32")
            counted = ops.any(ops.not_equal(y_true, 0), axis=-1, keepdims=True)
            counted = ops.logical_and(counted, ops.logical_not(_among(truth, self.ignore)))
            wrong = ops.zeros_like(counted)
        if self.multi_label:
            predicted = y_pred if whole else y_pred > threshold
        elif y_pred.shape[-1] == 1:
            predicted = y_pred if whole else y_pred > threshold
        else:
            predicted = ops.argmax(y_pred, axis=-1, keepdims=True)
        predicted = ops.cast(predicted, "int32")
        top = 2 if self.multi_label else self.classes
        wrong = ops.logical_or(wrong, ops.logical_or(predicted < 0, predicted >= top))
        if sample_weight is not None:
            selected = ops.not_equal(ops.convert_to_tensor(sample_weight), 0)
            shape = tuple(selected.shape)
            if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
                selected = ops.reshape(selected, (-1, 1, 1, 1))
            elif len(shape) == 3:
                selected = selected[..., None]
            elif len(shape) != 4 or shape[3] not in (1, counted.shape[3]):
                raise InputError(f"sample_weight must be (batch,) or (batch, height, width), not {shape}")
            counted = ops.logical_and(counted, selected)
        return truth, predicted, counted, ops.logical_and(wrong, counted)

    def get_config(self):
        keys = ("classes", "from_logits", "multi_label", "ignore", "class_ids", "absent", "name", "dtype")
        return {key: getattr(self, key) for key in keys}


class _ConfusionMetric(_SegmentationMetric):
    """A metric of the confusion matrix over all batches. A batch has fewer than 2^30 pixels; there may be 2^60 of them in all."""

    def __init__(self, classes, **settings):
        super().__init__(classes, **settings)
        self._shape = (self.classes, 2, 2) if self.multi_label else (self.classes, self.classes)
        # The last count is of ids without a class. Integers of the backend's own size ("int"): on GPUs, TensorFlow keeps int32 on the host.
        self.state = self.add_variable((2, int(np.prod(self._shape)) + 1), "zeros", dtype="int", name="state")

    def update_state(self, y_true, y_pred, sample_weight=None):
        truth, predicted, counted, wrong = self._read(y_true, y_pred, sample_weight)
        bins = int(np.prod(self._shape))
        if self.multi_label:
            index = 4 * ops.arange(self.classes, dtype="int32") + 2 * truth + predicted
        else:
            index = self.classes * truth + predicted
        index = ops.where(wrong, bins, ops.where(counted, index, bins + 1))
        index = ops.reshape(index, (-1,))
        counts = ops.segment_sum(ops.ones_like(index), index, num_segments=bins + 2)[:-1]
        low = self.state[0] + ops.cast(counts, self.state.dtype)
        carry = low // WORD
        self.state.assign(ops.stack([low - carry * WORD, self.state[1] + carry]))

    def matrix(self) -> np.ndarray:
        """The counts so far, exact: `(classes, classes)` int64, rows being true classes; `(classes, 2, 2)` if `multi_label`.

        Raises:
            InputError: Ids were met that have no class.
        """
        low, high = ops.convert_to_numpy(self.state).astype("int64")
        counts = low + high * WORD
        if counts[-1]:
            raise InputError(
                f"{counts[-1]:,} pixels have ids that are none of the {self.classes} classes (0 to {self.classes - 1}); "
                "map them to ids, or leave them out with ignore"
            )
        return counts[:-1].reshape(self._shape)

    def scores(self, class_names=None, beta=1.0) -> dict:
        """All scores so far, exact, as `scores` gives them."""
        chosen = np.flatnonzero(self._averaged())
        return scores(self.matrix(), class_names=class_names, class_ids=chosen, absent=self.absent, beta=beta)

    def _floats(self):
        """Of the counts so far as floats, good for ratios: tp, fp, fn a class, right pixels, all pixels."""
        words = ops.cast(self.state, self.dtype)
        counts = words[0] + words[1] * WORD
        matrix = ops.reshape(counts[:-1], self._shape)
        matrix = ops.where(counts[-1] > 0, float("nan"), matrix)
        if self.multi_label:
            tp, fp, fn = matrix[:, 1, 1], matrix[:, 0, 1], matrix[:, 1, 0]
            return tp, fp, fn, ops.sum(tp + matrix[:, 0, 0]), ops.sum(matrix)
        tp = ops.diagonal(matrix)
        return tp, ops.sum(matrix, axis=0) - tp, ops.sum(matrix, axis=1) - tp, ops.sum(tp), ops.sum(matrix)

    def _rate(self, name, beta=1.0):
        tp, fp, fn, _, _ = self._floats()
        return self._mean(*_rates(tp, fp, fn, beta)[name])

    def _accuracy(self):
        *_, right, total = self._floats()
        return right / total

    def _frequency_weighted_iou(self):
        tp, fp, fn, _, _ = self._floats()
        support = (tp + fn) * ops.convert_to_tensor(self._averaged(), self.dtype)
        union = tp + fp + fn
        return ops.sum(support * tp / ops.where(union > 0, union, 1)) / ops.sum(support)


@register
class MeanIoU(_ConfusionMetric):
    """Mean over classes of intersection over union, over the data set.

    Args:
        classes: Number of classes, background included.
        **settings: As of `SegmentationScores`; `class_ids=[3]` gives the IoU of class 3.
    """

    title = "mean_iou"

    def result(self):
        return self._rate("iou")


@register
class MeanDice(_ConfusionMetric):
    """Mean over classes of the Dice score (F1), or of F-beta, over the data set.

    Args:
        classes: Number of classes, background included.
        beta: Weight of recall against precision.
        **settings: As of `SegmentationScores`.
    """

    title = "mean_dice"

    def __init__(self, classes, beta=1.0, **settings):
        super().__init__(classes, **settings)
        if beta < 0:
            raise InputError(f"beta must be at least 0, not {beta}")
        self.beta = float(beta)

    def result(self):
        return self._rate("dice", self.beta)

    def get_config(self):
        return {**super().get_config(), "beta": self.beta}


@register
class MeanPrecision(_ConfusionMetric):
    """Mean over classes of the share of predicted pixels that are right, over the data set.

    Args:
        classes: Number of classes, background included.
        **settings: As of `SegmentationScores`.
    """

    title = "mean_precision"

    def result(self):
        return self._rate("precision")


@register
class MeanRecall(_ConfusionMetric):
    """Mean over classes of the share of true pixels that were found (class average accuracy), over the data set.

    Args:
        classes: Number of classes, background included.
        **settings: As of `SegmentationScores`.
    """

    title = "mean_recall"

    def result(self):
        return self._rate("recall")


@register
class PixelAccuracy(_ConfusionMetric):
    """Share of counted pixels whose class is right (global accuracy).

    Args:
        classes: Number of classes, background included.
        **settings: As of `SegmentationScores`.
    """

    title = "pixel_accuracy"

    def result(self):
        return self._accuracy()


@register
class FrequencyWeightedIoU(_ConfusionMetric):
    """Mean over classes of intersection over union, each weighted by its true pixels, over the data set.

    Args:
        classes: Number of classes, background included.
        **settings: As of `SegmentationScores`.
    """

    title = "frequency_weighted_iou"

    def result(self):
        return self._frequency_weighted_iou()


@register
class SegmentationScores(_ConfusionMetric):
    """All scores from one confusion matrix: the cheapest way to watch several of them.

    Its result is a dictionary: `pixel_accuracy`, `mean_iou`, `mean_dice`, `mean_precision`, `mean_recall`, `frequency_weighted_iou` and
    `iou_<class>` of each class; `fit` logs each under its name, after `val_` for validation. A class that is nowhere has NaN.

    Args:
        classes: Number of classes, at least 2: background is one.
        class_names: One name a class; None for 0, 1, ...
        **settings: `from_logits`, `multi_label`, `ignore`, `class_ids`, `absent`, `name`, `dtype`:
            from_logits: for predictions with one channel or `multi_label`: foreground is above 0, not above 1/2.
            multi_label: classes do not exclude each other; truth and prediction are `(batch, height, width, classes)`.
            ignore: true ids, one or several, that are not counted; a class among them is left out of means. With `multi_label`, values (such
            as 255) of entries that are not counted.
            class_ids: classes that means are over; None for all.
            absent: what a class counts that is nowhere, 0/0: "skip" leaves it out of the mean, "zero" and "one" count it as that.

    Raises:
        InputError: Arguments or shapes that do not fit, or NumPy arrays with ids that have no class.
    """

    title = "segmentation_scores"

    def __init__(self, classes, class_names=None, **settings):
        super().__init__(classes, **settings)
        self.class_names = None if class_names is None else tuple(str(name) for name in class_names)
        if self.class_names and (len(self.class_names) != self.classes or len(set(self.class_names)) != self.classes):
            raise InputError(f"{self.classes} classes need as many names, each once; given {self.class_names}")

    def result(self):
        tp, fp, fn, _, _ = self._floats()
        means = {f"mean_{name}": self._mean(*pair) for name, pair in _rates(tp, fp, fn, 1.0).items()}
        names = self.class_names or range(self.classes)
        iou = tp / (tp + fp + fn)
        return {
            "pixel_accuracy": self._accuracy(),
            **means,
            "frequency_weighted_iou": self._frequency_weighted_iou(),
            **{f"iou_{name}": iou[i] for i, name in enumerate(names)},
        }

    def scores(self, class_names=None, beta=1.0) -> dict:
        """All scores so far, exact, as `scores` gives them."""
        return super().scores(class_names or self.class_names, beta)

    def get_config(self):
        return {**super().get_config(), "class_names": self.class_names}


@register
class BoundaryF1(_SegmentationMetric):
    """Mean boundary F1 score: of each image and class as `boundary_f1`, mean over the images that have the class, mean over classes.

    Args:
        classes: Number of classes, background included.
        tolerance: Distance in pixels, at least 0.
        **settings: As of `SegmentationScores`, but not `multi_label`.

    Source: Csurka et al. 2013, section 3.
    """

    title = "boundary_f1"

    def __init__(self, classes, tolerance=2.0, **settings):
        super().__init__(classes, **settings)
        if self.multi_label:
            raise InputError("the boundary F1 score is for classes that exclude each other")
        if tolerance < 0:
            raise InputError(f"tolerance must be at least 0 pixels, not {tolerance}")
        self.tolerance = float(tolerance)
        radius = int(self.tolerance)
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        disc = (y**2 + x**2 <= self.tolerance**2).astype("float32")
        self._disc = np.repeat(disc[:, :, None, None], self.classes, axis=2)
        self.total = self.add_variable((self.classes,), "zeros", dtype=self.dtype, name="total")
        self.images = self.add_variable((self.classes,), "zeros", dtype=self.dtype, name="images")

    def update_state(self, y_true, y_pred, sample_weight=None):
        truth, predicted, counted, wrong = self._read(y_true, y_pred, sample_weight)
        true = self._boundary(truth, counted)
        guess = self._boundary(predicted, counted)

        disc = ops.convert_to_tensor(self._disc)

        def share(found, wanted):
            near = ops.depthwise_conv(wanted, disc, padding="same", data_format="channels_last")
            hits = ops.sum(found * ops.cast(near > 0.5, found.dtype), axis=(1, 2))
            count = ops.sum(found, axis=(1, 2))
            return hits / ops.maximum(count, 1), count

        precision, found = share(guess, true)
        recall, wanted = share(true, guess)
        both = precision + recall
        f1 = ops.where(both > 0, 2 * precision * recall / ops.where(both > 0, both, 1), 0)
        f1 = ops.where(ops.any(wrong), float("nan"), f1)
        here = ops.cast(found + wanted > 0, self.dtype)
        self.total.assign(self.total + ops.cast(ops.sum(f1 * here, axis=0), self.dtype))
        self.images.assign(self.images + ops.sum(here, axis=0))

    def _boundary(self, labels, counted):
        """`(batch, height, width, classes)`: 1 on the boundary pixels of each class."""
        inside = ops.equal(labels, ops.arange(self.classes, dtype="int32"))
        outside = ops.cast(ops.logical_and(counted, ops.logical_not(inside)), "float32")
        inside = ops.cast(ops.logical_and(counted, inside), "float32")
        outside = ops.pad(outside, ((0, 0), (1, 1), (1, 1), (0, 0)))
        beside = ops.maximum(
            ops.maximum(outside[:, :-2, 1:-1], outside[:, 2:, 1:-1]),
            ops.maximum(outside[:, 1:-1, :-2], outside[:, 1:-1, 2:]),
        )
        return inside * beside

    def result(self):
        return self._mean(ops.convert_to_tensor(self.total), ops.convert_to_tensor(self.images))

    def get_config(self):
        config = super().get_config()
        del config["multi_label"]
        return {**config, "tolerance": self.tolerance}


def _ids(ignore) -> tuple[int, ...]:
    """None, one id or several as a tuple."""
    return () if ignore is None else tuple(int(i) for i in np.ravel(np.asarray(ignore)))


def _among(values, wanted):
    """Where `values` is one of a few numbers."""
    found = ops.zeros_like(values, dtype="bool")
    for number in wanted:
        found = ops.logical_or(found, ops.equal(values, number))
    return found


def _class_ids(class_ids, classes):
    if class_ids is None:
        return np.arange(classes)
    class_ids = np.ravel(np.asarray(class_ids, "int64"))
    if class_ids.min(initial=0) < 0 or class_ids.max(initial=0) >= classes:
        raise InputError(f"class_ids are from 0 to {classes - 1}, not {class_ids.tolist()}")
    return class_ids


def _check_absent(absent):
    if absent not in ("skip", "zero", "one"):
        raise InputError(f"absent is 'skip', 'zero' or 'one', not {absent!r}")


def _check_ids(values, classes, which):
    values = np.unique(values).astype("float64")
    bad = values[(values < 0) | (values >= classes) | (values != np.round(values))]
    if bad.size:
        shown = ", ".join(f"{value:g}" for value in bad[:5]) + (", ..." if bad.size > 5 else "")
        raise InputError(
            f"the {which} has ids {shown}, and the {classes} classes are 0 to {classes - 1}; map them, or leave them out with ignore"
        )
