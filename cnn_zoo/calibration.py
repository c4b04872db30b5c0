"""Are the probabilities of a classifier right? How far they are off, and temperature scaling, which sets them right.

A classifier is calibrated if of all images to which it gives its class with probability 0.8, eight in ten are of that class.
"""

import math
from dataclasses import dataclass

import keras
import numpy as np

from cnn_zoo.errors import InputError
from cnn_zoo.outputs import check_classifier, output_kind
from cnn_zoo.train.evaluate import evaluate

BINS = 15  # as in the tables of Guo et al. 2017
TINY = float(np.finfo("float32").tiny)  # what probability 0 is taken for before its logarithm


@dataclass(frozen=True)
class Reliability:
    """How often a classifier is right, by how sure it is. Bin m of M holds confidences in ((m - 1) / M, m / M].

    Attributes:
        counts: `(bins,)` images.
        confidence: `(bins,)` their mean largest probability; NaN in an empty bin.
        accuracy: `(bins,)` the fraction of them that is classified rightly; NaN in an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error, 0..1: the mean over all images of |accuracy - confidence| of their bin.

        Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
        """
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((self.counts * gaps).sum() / self.counts.sum())


def reliability(probabilities, labels, bins: int = BINS) -> Reliability:
    """Bins of equal width over the largest probability of each image.

    Args:
        probabilities: `(n, classes)`.
        labels: `(n,)`, the true classes.
        bins: How many.

    Raises:
        InputError: No images, or as many labels as there are not.

    Source: Guo et al. 2017, section 2.
    """
    probabilities, labels = _checked(probabilities, labels)
    if isinstance(bins, bool) or not hasattr(bins, "__index__") or bins < 1:
        raise InputError(f"bins must be a whole number of at least 1, not {bins!r}")
    confidence, right = probabilities.max(-1).astype("float64"), probabilities.argmax(-1) == labels
    place = bin_of(confidence, bins)
    counts = np.bincount(place, minlength=bins)

    def mean(values):
        return np.divide(np.bincount(place, values, bins), counts, where=counts > 0, out=np.full(bins, np.nan))

    return Reliability(counts, mean(confidence), mean(right))


def bin_of(confidence, bins: int = BINS) -> np.ndarray:
    """The bin, from 0, of each confidence."""
    return np.clip(np.ceil(np.asarray(confidence, "float64") * bins).astype(int) - 1, 0, bins - 1)


def ece_by_chance(probabilities, bins: int = BINS, times: int = 200, seed: int = 0) -> float:
    """The mean ECE of a perfectly calibrated classifier that gives these probabilities; it is above 0, the more so the fewer images there are.

    Args:
        probabilities: `(n, classes)`.
        bins: As of `reliability`.
        times: How often it is drawn, with the largest probability of each image, whether that image is classified rightly.
        seed: Of the drawing.

    Source: Vaicenavicius et al. 2019, "Evaluating Model Calibration in Classification", section 4 (consistency resampling).
    """
    confidence, rng = np.asarray(probabilities).max(-1).astype("float64"), np.random.default_rng(seed)
    place = bin_of(confidence, bins)
    errors = [
        np.abs(np.bincount(place, confidence - (rng.random(len(place)) < confidence), bins)).sum() for _ in range(times)
    ]
    return float(np.mean(errors) / len(place))


def brier(probabilities, labels) -> float:
    """Brier score, 0 (best) to 2: the mean over images of the squared distance from the probabilities to the truth, 1 and zeros.

    Args:
        probabilities: `(n, classes)`.
        labels: `(n,)`, the true classes.

    Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", equation 2.
    """
    probabilities, labels = _checked(probabilities, labels)
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(-1).mean())


def nll(probabilities, labels) -> float:
    """Negative log-likelihood, in nats: the mean over images of -log of the probability of the true class.

    Args:
        probabilities: `(n, classes)`.
        labels: `(n,)`, the true classes.
    """
    probabilities, labels = _checked(probabilities, labels)
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], TINY)).mean())


def temperature(logits, labels) -> float:
    """The temperature T > 0 for which softmax(logits / T) has the least negative log-likelihood.

    Above 1 the classifier was too sure of itself, below 1 not sure enough. Logarithms of probabilities are logits as good as any.

    Args:
        logits: `(n, classes)`.
        labels: `(n,)`, the true classes.

    Raises:
        InputError: There is no least one: every image is classified rightly, so that it falls for ever as T goes to 0; or the logits say
            nothing of the classes.

    Source: Guo et al. 2017, section 4.2.
    """
    from scipy.optimize import brentq
    from scipy.special import softmax

    logits, labels = _checked(logits, labels)
    # Of 1 / T the likelihood is convex, so its slope has one zero: where the mean logit that is expected is that of the true class.
    logits = logits.astype("float64") - logits.max(-1, keepdims=True)
    true = logits[np.arange(len(labels)), labels]

    def slope(inverse):
        return ((softmax(inverse * logits, -1) * logits).sum(-1) - true).mean()

    if (true == 0).all():
        raise InputError(
            f"all {len(labels):,} images are classified rightly, and so the lower the temperature the better, without end: "
            "fit it on images some of which are not"
        )
    if slope(0) >= 0:
        raise InputError("the outputs say no more of the classes than chance: no temperature can mend that")
    high = 1.0
    while slope(high) <= 0:
        high *= 2
    return float(1 / brentq(slope, 0, high, xtol=1e-12, rtol=1e-10))


def calibrate(model: keras.Model, split) -> float:
    """The temperature that sets right the probabilities of a classifier, fitted on images that it was not trained on.

    Args:
        model: Gives `(batch, classes)` by softmax or as logits; or `(batch, 1)`, the second of two classes, by sigmoid or as a logit.
        split: Images and labels, for example `data.validation`.

    Returns:
        T > 0; `with_temperature(model, T)` is the calibrated model. The predicted classes stay the same.

    Raises:
        InputError: Images that do not fit the model, no classifier, several sigmoid outputs, or images on which no temperature is best.
    """
    _check_softmax(model)
    found = evaluate(two_outputs(model), split)
    return temperature(np.log(np.maximum(found.probabilities, TINY)), found.labels)


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """The model with its logits divided by a temperature, in a layer named `temperature` before the softmax (or the only sigmoid).

    It shares the weights of `model`, and is saved and exported as any other. Of a model that ends in a softmax the logits are the logarithms of
    its probabilities: they differ from those before the softmax by a constant for each image, which changes no probability.

    Args:
        model: As for `calibrate`.
        temperature: Above 0.

    Raises:
        InputError: No classifier, several sigmoid outputs, or a temperature that is no number above 0.
    """
    _check_softmax(model)
    if not (isinstance(temperature, int | float) and 0 < temperature < math.inf):
        raise InputError(f"a temperature is a number above 0, not {temperature!r}")
    x = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(_logits(model))
    one = model.output_shape[-1] == 1
    last = keras.layers.Activation("sigmoid" if one else "softmax", dtype="float32", name="calibrated")
    return keras.Model(model.inputs[0], last(x), name=model.name)


def two_outputs(model: keras.Model) -> keras.Model:
    """A classifier with one output, the probability or the logit of the second of two classes, as one with two logits; any other as it is."""
    if model.output_shape[-1] != 1:
        return model
    logit = _logits(model)
    return keras.Model(
        model.inputs[0], keras.ops.concatenate([keras.ops.zeros_like(logit), logit], -1), name=model.name
    )


def _logits(model):
    """The model's output as a tensor of logits, of float32."""
    kind, output = output_kind(model), keras.ops.cast(model.outputs[0], "float32")
    if kind == "logits":
        return output
    if kind == "softmax":
        return keras.ops.log(keras.ops.maximum(output, TINY))
    return keras.ops.log(keras.ops.maximum(output, TINY)) - keras.ops.log(keras.ops.maximum(1 - output, TINY))


def _check_softmax(model):
    check_classifier(model)
    if output_kind(model) == "sigmoid" and model.output_shape[-1] > 1:
        raise InputError(
            f"the model has {model.output_shape[-1]} sigmoid outputs, each of which is a probability of its own; "
            "a temperature is for classes that exclude each other: build the model with activation='softmax'"
        )


def _checked(probabilities, labels):
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise InputError(
            f"(n, classes) outputs and (n,) labels are expected, at least one, not {probabilities.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise InputError(f"labels are integers 0..{probabilities.shape[1] - 1}, not {labels.min()} to {labels.max()}")
    return probabilities, labels
