"""How good is a model: of a classifier accuracy with its interval, of a segmenter IoU, of both a report by class and the confusion matrix."""

from dataclasses import dataclass

import keras
import numpy as np

from cnn_zoo import metrics
from cnn_zoo.data import Split, check_batch, pipeline, plain_errors
from cnn_zoo.data.arrays import check_labels
from cnn_zoo.errors import InputError
from cnn_zoo.outputs import class_names, is_segmenter, most_probable, output_kind
from cnn_zoo.tta import augmented


@dataclass(frozen=True)
class Evaluation:
    """Scores of a classifier on labelled images.

    Attributes:
        accuracy: Fraction classified rightly.
        interval: Wilson's 95 % interval of the accuracy.
        loss: Mean cross-entropy, in nats.
        probabilities: `(n, classes)`.
        labels: `(n,)`, the true ones.
        confusion: `(classes, classes)` counts; row: true class, column: predicted class.
        classes: Class names.
    """

    accuracy: float
    interval: tuple[float, float]
    loss: float
    probabilities: np.ndarray
    labels: np.ndarray
    confusion: np.ndarray
    classes: tuple[str, ...]

    def per_class(self) -> dict[str, dict]:
        """Class -> precision, recall, f1, support; a quotient with nothing below is 0."""
        from sklearn.metrics import precision_recall_fscore_support

        columns = precision_recall_fscore_support(
            self.labels, self.probabilities.argmax(-1), labels=range(len(self.classes)), zero_division=0
        )
        return {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(self.classes, *columns)
        }

    def report(self) -> str:
        """The scores as a table for people."""
        wide = max(5, *(len(name) for name in self.classes))
        lines = [f"{'class':{wide}}  precision  recall      f1  images"]
        for name, row in self.per_class().items():
            lines.append(
                f"{name:{wide}}  {row['precision']:9.3f}  {row['recall']:6.3f}  {row['f1']:6.3f}  {row['support']:6}"
            )
        low, high = self.interval
        wrong = len(self.labels) - int(np.trace(self.confusion))
        lines.append(
            f"accuracy {self.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}), {wrong} of {len(self.labels):,} wrong; loss {self.loss:.4f}"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            "accuracy": self.accuracy,
            "accuracy_interval_95": list(self.interval),
            "loss": self.loss,
            "images": len(self.labels),
            "per_class": self.per_class(),
            "confusion": self.confusion.tolist(),
        }


@dataclass(frozen=True)
class MaskEvaluation:
    """Scores of a segmenter, from one confusion matrix over all pixels of all images.

    Attributes:
        confusion: `(classes, classes)` counts of pixels; row: true class, column: predicted class. Ignored pixels are not in it.
        classes: Class names.
        images: Number of images.
    """

    confusion: np.ndarray
    classes: tuple[str, ...]
    images: int

    @property
    def mean_iou(self) -> float:
        """Mean over the classes of intersection / union; a class that is nowhere is left out."""
        return self.scores()["mean_iou"]

    def scores(self) -> dict:
        """All scores, as `cnn_zoo.metrics.scores` gives them."""
        return metrics.scores(self.confusion, class_names=self.classes)

    def report(self) -> str:
        """The scores as a table for people."""
        found, wide = self.scores(), max(5, *(len(name) for name in self.classes))
        lines = [f"{'class':{wide}}     IoU    Dice  precision  recall        pixels"]
        for name in self.classes:
            iou, dice, precision, recall = (
                "-" if found[key][name] is None else f"{found[key][name]:.3f}"
                for key in ("iou", "dice", "precision", "recall")
            )
            lines.append(
                f"{name:{wide}}  {iou:>6}  {dice:>6}  {precision:>9}  {recall:>6}  {found['pixels'][name]:>12,}"
            )
        lines.append(
            f"mean IoU {found['mean_iou']:.4f}, mean recall {found['mean_recall']:.4f}, pixel accuracy {found['pixel_accuracy']:.4f} "
            f"on {self.images:,} images"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {**self.scores(), "images": self.images, "confusion": self.confusion.tolist()}


def evaluate(
    model: keras.Model, split: Split, *, classes=None, ignore=(), tta=(), batch_size: int | None = None
) -> Evaluation | MaskEvaluation:
    """Test a classifier on labelled images, or a segmenter on images with masks.

    Args:
        model: Gives `(batch, classes)` or `(batch, height, width, classes)`, probabilities or logits.
        split: Images and labels or masks, for example `data.test`.
        classes: Class names; default "0", "1", ...
        ignore: Id, or ids, in masks that are not counted, such as `data.ignore`.
        tta: With masks: test-time augmentation, as for `predict_mask`.
        batch_size: Images at once; default 256, with masks 8.

    Raises:
        InputError: Images or labels that do not fit the model, no images, or as many names as there are not classes.
    """
    from scipy.stats import binomtest

    if split is None or len(split) == 0:
        raise InputError("there are no images to evaluate on")
    if is_segmenter(model) != split.has_masks:
        have, gives = ("masks", "a class an image") if split.has_masks else ("labels", "a class a pixel")
        raise InputError(f"the images have {have} and the model gives {gives}")
    if split.has_masks:
        ignored = tuple(int(i) for i in np.atleast_1d(np.asarray(ignore, int)))
        return _evaluate_masks(model, split, classes, ignored, tta, batch_size or 8)
    if tta:
        raise InputError("tta is for models that give masks")
    classes = class_names(model, classes)
    count = len(classes)
    check_batch(split.images, model.input_shape[1:])
    check_labels(split.labels, count)
    with plain_errors():
        outputs = model.predict(pipeline(split, batch_size or 256).map(lambda images, labels: images), verbose=0)
    probabilities = (
        keras.ops.convert_to_numpy(keras.ops.softmax(outputs)) if output_kind(model) == "logits" else outputs
    )
    predicted = probabilities.argmax(-1)
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (split.labels, predicted), 1)
    right = int(np.trace(confusion))
    interval = binomtest(right, len(split)).proportion_ci(0.95, method="wilson")
    true = probabilities[np.arange(len(split)), split.labels]
    return Evaluation(
        accuracy=right / len(split),
        interval=(float(interval.low), float(interval.high)),
        loss=float(-np.log(np.maximum(true, np.finfo("float32").tiny)).mean()),
        probabilities=probabilities,
        labels=split.labels,
        confusion=confusion,
        classes=classes,
    )


def _evaluate_masks(model, split, classes, ignore, tta, batch_size):
    names, predicted = class_names(model, classes), augmented(model, tta)
    check_batch(split.images, model.input_shape[1:])
    check_labels(split.labels, len(names), ignore)
    confusion = np.zeros((len(names), len(names)), "int64")
    # A batch at a time: the probabilities of a whole data set fill the memory.
    with plain_errors():
        for images, masks in pipeline(split, batch_size):
            found = most_probable(predicted(images.numpy()))
            confusion += metrics.confusion_matrix(masks.numpy(), found, len(names), ignore=ignore)
    return MaskEvaluation(confusion, names, len(split))
