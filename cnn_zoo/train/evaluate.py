"""How good is a classifier: accuracy with its interval, per-class report, confusion matrix."""

from dataclasses import dataclass

import keras
import numpy as np

from cnn_zoo.classifier import check_classifier, class_names, output_kind
from cnn_zoo.data import Split, check_batch, pipeline
from cnn_zoo.data.arrays import check_labels
from cnn_zoo.errors import InputError


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


def evaluate(model: keras.Model, split: Split, *, classes=None, batch_size: int = 256) -> Evaluation:
    """Test a classifier on labelled images.

    Args:
        model: Gives `(batch, classes)`, probabilities or logits.
        split: Images and labels, for example `data.test`.
        classes: Class names; default "0", "1", ...
        batch_size: Images at once.

    Raises:
        InputError: Images or labels that do not fit the model, no images, or as many names as there are not classes.
    """
    from scipy.stats import binomtest

    if split is None or len(split) == 0:
        raise InputError("there are no images to evaluate on")
    check_classifier(model)
    classes = class_names(model, classes)
    count = len(classes)
    check_batch(split.images, model.input_shape[1:])
    check_labels(split.labels, count)
    outputs = model.predict(pipeline(split, batch_size).map(lambda images, labels: images), verbose=0)
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
