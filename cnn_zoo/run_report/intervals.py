"""How far scores would be off with other test images: 95 % intervals by the bootstrap (Efron 1979).

Images are drawn anew with replacement, or whole groups (patients, slides) where there are any, since the images of one group resemble each
other. A drawing is a weight an image: how often it was drawn.
"""

import numpy as np

from cnn_zoo.calibration import BINS, bin_of

TIMES = 1000  # drawings
MOST = 1_000_000  # images times classes up to which the areas are drawn anew, in half a minute


def drawings(count: int, groups=None, times: int = TIMES, seed: int = 0):
    """Weights `(count,)` of the images, one drawing after the other; none where there is but one image or group to draw from."""
    place = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(place.max()) + 1
    rng = np.random.default_rng(seed)
    for _ in range(times if units > 1 else 0):
        yield rng.multinomial(units, np.full(units, 1 / units))[place]


def percentiles(values) -> list[float] | None:
    """The middle 95 % of the scores of all drawings, without those that are NaN; None where no score is left."""
    values = np.asarray(values, "float64")
    values = values[~np.isnan(values)]
    return [float(value) for value in np.percentile(values, (2.5, 97.5))] if len(values) else None


def reflected(values, found: float) -> list[float] | None:
    """As `percentiles`, mirrored at the score itself and cut at 0: for what drawing anew makes larger on average, as it does the ECE.

    The ECE of a model that is calibrated almost perfectly is too large itself, and then so is this: see `cnn_zoo.calibration.ece_by_chance`.

    Source: Davison and Hinkley 1997, "Bootstrap Methods and their Application", equation 5.6 (the basic bootstrap).
    """
    low, high = percentiles(values) or (None, None)
    return None if low is None else [max(0.0, 2 * found - high), max(0.0, 2 * found - low)]


class Classified:
    """Scores of a classifier as functions of the weights of its images.

    Args:
        probabilities: `(n, classes)`.
        labels: `(n,)`, the true classes.
    """

    def __init__(self, probabilities, labels):
        self.classes, self.labels = probabilities.shape[1], labels
        self.predicted, confidence = probabilities.argmax(-1), probabilities.max(-1).astype("float64")
        self.right = self.predicted == labels
        self.bins, self.gaps = bin_of(confidence), confidence - self.right
        self.sorted = None
        if probabilities.size <= MOST:
            self.sorted = [self._sorted(probabilities[:, i], labels == i) for i in range(self.classes)]

    def accuracy(self, weights) -> float:
        return float((weights * self.right).sum() / weights.sum())

    def macro_f1(self, weights) -> float:
        """Mean F1 of the classes that are drawn or predicted."""
        true, said, both = (
            np.bincount(of, values, self.classes)
            for of, values in (
                (self.labels, weights),
                (self.predicted, weights),
                (self.labels, weights * self.right),
            )
        )
        here = true + said > 0
        return float((2 * both[here] / (true + said)[here]).mean())

    def ece(self, weights) -> float:
        return float(np.abs(np.bincount(self.bins, weights * self.gaps, BINS)).sum() / weights.sum())

    def macro_auc(self, weights) -> float:
        """Mean area under the ROC curves, one class against the rest, of the classes for which both are drawn; NaN for none."""
        areas = [_area(weights, *rows) for rows in self.sorted]
        areas = [area for area in areas if area is not None]
        return float(np.mean(areas)) if areas else np.nan

    @staticmethod
    def _sorted(scores, positive):
        """The positive images, the others by rising score, and of how many of these each positive one is above, and not below."""
        positives, others = np.flatnonzero(positive), np.flatnonzero(~positive)
        others = others[np.argsort(scores[others], kind="stable")]
        sides = (np.searchsorted(scores[others], scores[positives], side) for side in ("left", "right"))
        return positives, others, *sides


def _area(weights, positives, others, above, not_below):
    """The share of pairs of a positive image and another in which the positive one has the higher score; ties count half."""
    counts, positives = np.concatenate([[0], np.cumsum(weights[others])]), weights[positives]
    pairs = positives.sum() * counts[-1]
    return None if not pairs else float((positives * (counts[above] + counts[not_below])).sum() / (2 * pairs))


def mean_iou(counts, weights) -> tuple[np.ndarray, float]:
    """IoU of each class, `(classes,)`, NaN where it is nowhere, and their mean.

    Args:
        counts: `(n, 3, classes)` pixels of each image: right, true, predicted.
        weights: `(n,)`.
    """
    right, true, predicted = np.tensordot(weights, counts, 1)
    union = true + predicted - right
    iou = np.divide(right, union, where=union > 0, out=np.full(len(union), np.nan))
    return iou, float(np.nanmean(iou)) if (union > 0).any() else np.nan
