"""What is measured of a classifier."""

import numpy as np
from scipy.special import softmax

from cnn_zoo import calibration, plots
from cnn_zoo.errors import InputError
from cnn_zoo.html import thumbnail
from cnn_zoo.outputs import output_kind
from cnn_zoo.run_report import curves, intervals
from cnn_zoo.run_report.reporting import name_of
from cnn_zoo.train import evaluate

EXAMPLES = 24  # images that are shown as the worst, and as the best
PAIRS, OF_PAIR = 15, 6  # most confused classes: pairs, and images of each
SHOWN = 5  # names in a sentence


def look(model, split, validation, classes, ignore) -> tuple[dict, dict, dict]:
    """Facts, figures and examples, as `RunReport` keeps them."""
    sigmoid = output_kind(model) == "sigmoid" and model.output_shape[-1] > 1
    model = calibration.two_outputs(model)
    found = evaluate(model, split, classes=classes)
    probabilities, labels, confusion = found.probabilities, found.labels, found.confusion
    roc, precision_recall = (
        curves.roc(probabilities, labels),
        curves.precision_recall(probabilities, labels),
    )
    scores, notes = _scores(found, split, roc, precision_recall)
    calibrated, scaled = _calibration(model, validation, probabilities, labels, sigmoid)
    absent = [name for name, images in zip(classes, confusion.sum(1)) if not images]
    if absent:
        notes.append(
            f"No image of the split is of the class {some(absent)}: recall, ROC and precision-recall curve of it are not defined."
        )
    if roc["macro"] is None:
        notes.append("All images of the split are of one class: no ROC curve and no area under one is defined.")
    per_class = found.per_class()
    for i, name in enumerate(classes):
        row = per_class[name]
        row["recall"] = row["recall"] if row["support"] else None
        row["precision"] = row["precision"] if confusion[:, i].sum() else None
        row["f1"] = row["f1"] if row["support"] or confusion[:, i].sum() else None
        for key, areas in (("auc", roc), ("average_precision", precision_recall)):
            row[key] = None if areas["classes"][i] is None else areas["classes"][i][2]
    pairs = _confused(confusion, classes)
    facts = {
        "scores": scores,
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "most_confused": pairs,
        "calibration": calibrated,
        "notes": notes,
    }
    figures = {}
    if len(classes) > 1:
        figures["confusion"] = plots.confusion_matrix(confusion, classes)
    for name, areas in (("roc", roc), ("precision_recall", precision_recall)):
        drawn = {classes[i]: curve for i, curve in enumerate(areas["classes"]) if curve is not None}
        if drawn:
            both = {"micro average": areas["micro"]} if areas["micro"] is not None and len(classes) > 2 else {}
            figures[name] = getattr(plots, name)(drawn, both)
    diagrams = {"as it is": calibration.reliability(probabilities, labels)}
    if scaled is not None:
        diagrams[f"temperature {calibrated['temperature']:.3f}"] = calibration.reliability(scaled, labels)
    figures["reliability"] = plots.reliability(diagrams)
    return facts, figures, _examples(found, split, classes, pairs)


def some(names) -> str:
    """A few names for a sentence."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(repr(str(name)) for name in names[:SHOWN]) + more


def _scores(found, split, roc, precision_recall):
    """Score -> value and 95 % interval, and what is to be said of them."""
    drawn = intervals.Classified(found.probabilities, found.labels)
    even = np.ones(len(found.labels))
    rows = {key: [] for key in ("accuracy", "macro_f1", "macro_auc", "ece")}
    for weights in intervals.drawings(len(found.labels), split.groups):
        rows["accuracy"].append(drawn.accuracy(weights))
        rows["macro_f1"].append(drawn.macro_f1(weights))
        rows["ece"].append(drawn.ece(weights))
        if drawn.sorted is not None and roc["macro"] is not None:
            rows["macro_auc"].append(drawn.macro_auc(weights))
    ece = drawn.ece(even)
    scores = {
        "accuracy": {"value": found.accuracy, "interval_95": list(found.interval), "interval": "Wilson"},
        "macro_f1": {"value": drawn.macro_f1(even), "interval_95": intervals.percentiles(rows["macro_f1"])},
        "macro_auc": {"value": roc["macro"], "interval_95": intervals.percentiles(rows["macro_auc"])},
        "micro_auc": {"value": roc["micro"] and roc["micro"][2]},
        "macro_average_precision": {"value": precision_recall["macro"]},
        "micro_average_precision": {"value": precision_recall["micro"] and precision_recall["micro"][2]},
        "ece": {"value": ece, "interval_95": intervals.reflected(rows["ece"], ece)},
        "brier": {"value": calibration.brier(found.probabilities, found.labels)},
        "nll": {"value": found.loss},
    }
    notes = []
    if split.groups is not None:
        drawn_anew = intervals.percentiles(rows["accuracy"])
        scores["accuracy"] = {"value": found.accuracy, "interval_95": drawn_anew, "interval": "bootstrap by group"}
        scores["accuracy"]["wilson_95"] = list(found.interval)
        notes.append(
            "Intervals are from drawing whole groups anew; Wilson's would take images of one group for independent."
        )
    if not rows["macro_f1"]:
        what = "one group" if split.groups is not None else "one image"
        notes.append(
            f"The split has {what}: nothing can be drawn anew, so only Wilson's interval of the accuracy is given."
        )
    elif drawn.sorted is None:
        notes.append("The area under the ROC curve has no interval here: images times classes are above a million.")
    return scores, notes


def _calibration(model, validation, probabilities, labels, sigmoid):
    """Facts of the calibration, and the probabilities at the temperature that was found, or None."""

    def measured(p):
        return {
            "ece": calibration.reliability(p, labels).ece, "brier": calibration.brier(p, labels), "nll": calibration.nll(p, labels),
        }  # fmt: skip

    facts = {
        "bins": calibration.BINS,
        "source": "expected calibration error in bins of equal width and temperature scaling: Guo et al. 2017, "
        "On Calibration of Modern Neural Networks",
        "before": measured(probabilities),
        "by_chance": calibration.ece_by_chance(probabilities),
        "after": None,
        "temperature": None,
        "why_none": None,
    }
    if sigmoid:
        facts["why_none"] = (
            "the outputs are sigmoids, each a probability of its own, and a temperature is for classes that exclude each other"
        )
    elif validation is None or not len(validation):
        facts["why_none"] = "there is no validation split, other than the images of this report, to fit one on"
    if facts["why_none"] is not None:
        return facts, None
    try:
        facts["temperature"] = calibration.calibrate(model, validation)
    except InputError as error:
        facts["why_none"] = f"on the validation split {error}"
        return facts, None
    logits = np.log(np.maximum(probabilities.astype("float64"), calibration.TINY))
    scaled = softmax(logits / facts["temperature"], -1)
    facts["after"] = measured(scaled)
    facts["fitted_on"] = len(validation)
    return facts, scaled


def _confused(confusion, classes):
    """The pairs of true and predicted class with the most images, as plain values."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    return [
        {
            "true": classes[i], "predicted": classes[j], "images": int(wrong[i, j]), "share": float(wrong[i, j] / confusion[i].sum()),
            "ids": [int(i), int(j)],
        }
        for i, j in (divmod(int(k), len(classes)) for k in order) if wrong[i, j]
    ]  # fmt: skip


def _examples(found, split, classes, pairs):
    p, labels = found.probabilities, found.labels
    predicted, true = p.argmax(-1), p[np.arange(len(labels)), labels]
    worst = np.argsort(true, kind="stable")[:EXAMPLES]
    each = -(
        -EXAMPLES // len(classes)
    )  # of the best not more than so many a class: the easiest class would fill the row
    best, taken = [], np.zeros(len(classes), int)
    for i in np.argsort(-true, kind="stable"):
        if predicted[i] == labels[i] and taken[labels[i]] < each and len(best) < EXAMPLES:
            best.append(i)
            taken[labels[i]] += 1
    wanted = {"worst": worst, "best": best}
    for place, pair in enumerate(pairs):
        i, j = pair["ids"]
        those = np.flatnonzero((labels == i) & (predicted == j))
        wanted[f"confused {place}"] = those[np.argsort(-p[those, j], kind="stable")][:OF_PAIR]
    rows = np.unique(np.concatenate([np.asarray(of, int) for of in wanted.values()]))
    small = {int(i): thumbnail(np.asarray(split.images[int(i)])) for i in rows}

    def caption(i):
        said = f"{classes[labels[i]]}, P = {true[i]:.3f}"
        if predicted[i] != labels[i]:
            said += f"; said {classes[predicted[i]]}, P = {p[i, predicted[i]]:.3f}"
        return f"{said} ({name_of(split, i)})"

    return {what: [(small[int(i)], caption(int(i))) for i in of] for what, of in wanted.items()}
