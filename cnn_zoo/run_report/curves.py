"""ROC and precision-recall curves of a classifier, one class against the rest, and the areas below them, by scikit-learn."""

import numpy as np

MOST = 10_000_000  # images times classes up to which all are put into one micro-averaged curve
POINTS = 1000  # of a curve, at most


def roc(probabilities, labels) -> dict:
    """ROC curves.

    Args:
        probabilities: `(n, classes)`.
        labels: `(n,)`, the true classes.

    Returns:
        `classes`: one `(false positive rate, true positive rate, area)` a class, or None where the class, or what is not it, has no image;
        `micro`: the same of all classes' decisions together, or None; `macro`: the mean of the areas that there are, or None.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    def curve(truth, scores):
        x, y, _ = roc_curve(truth, scores)
        return *_thin(x, y), float(roc_auc_score(truth, scores))

    return _all(curve, probabilities, labels)


def precision_recall(probabilities, labels) -> dict:
    """Precision-recall curves; the same as `roc`, with `(recall, precision, average precision)`."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    def curve(truth, scores):
        precision, recall, _ = precision_recall_curve(truth, scores)
        return *_thin(recall, precision), float(average_precision_score(truth, scores))

    return _all(curve, probabilities, labels)


def _all(curve, probabilities, labels):
    classes = []
    for i in range(probabilities.shape[1]):
        truth = labels == i
        classes.append(curve(truth, probabilities[:, i]) if 0 < truth.sum() < len(truth) else None)
    areas = [found[2] for found in classes if found is not None]
    together = None
    if probabilities.size <= MOST and probabilities.shape[1] > 1:
        together = curve((labels[:, None] == np.arange(probabilities.shape[1])).ravel(), probabilities.ravel())
    return {"classes": classes, "micro": together, "macro": float(np.mean(areas)) if areas else None}


def _thin(x, y):
    few = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    return x[few], y[few]
