"""What is measured of a segmenter."""

import numpy as np

from cnn_zoo import mask_plots, metrics, plots
from cnn_zoo.data import check_batch, pipeline, plain_errors
from cnn_zoo.data.arrays import check_labels
from cnn_zoo.outputs import class_names, most_probable
from cnn_zoo.palette import Palette
from cnn_zoo.run_report import intervals
from cnn_zoo.run_report.classifier import some
from cnn_zoo.run_report.reporting import name_of
from cnn_zoo.train import MaskEvaluation
from cnn_zoo.tta import augmented

BATCH = 8
EXAMPLES = 4  # images that are shown as the worst, and as the best


def look(model, split, validation, classes, ignore) -> tuple[dict, dict, dict]:
    """Facts, figures and examples, as `RunReport` keeps them."""
    classes, predicted = class_names(model, classes), augmented(model)
    check_batch(split.images, model.input_shape[1:])
    check_labels(split.labels, len(classes), ignore)
    confusion, counts = np.zeros((len(classes), len(classes)), "int64"), []
    with plain_errors():
        for images, masks in pipeline(split, BATCH):
            for truth, mask in zip(masks.numpy(), most_probable(predicted(images.numpy()))):
                of_one = metrics.confusion_matrix(truth, mask, len(classes), ignore=ignore)
                confusion += of_one
                counts.append([of_one.diagonal(), of_one.sum(1), of_one.sum(0)])
    counts = np.array(counts)
    found = MaskEvaluation(confusion, classes, len(split))
    table = found.scores()
    anew = [intervals.mean_iou(counts, weights) for weights in intervals.drawings(len(split), split.groups)]
    per_class = {
        name: {**{key: table[key][name] for key in ("iou", "dice", "precision", "recall", "pixels")},
               "iou_95": intervals.percentiles([iou[i] for iou, _ in anew])}
        for i, name in enumerate(classes)
    }  # fmt: skip
    each = np.array([intervals.mean_iou(counts[i : i + 1], [1])[1] for i in range(len(split))])
    notes = []
    if absent := [name for name in classes if table["pixels"][name] == 0]:
        notes.append(f"No pixel of the split is of the class {some(absent)}: recall of it is not defined.")
    if not anew:
        notes.append(f"The split has one {'group' if split.groups is not None else 'image'}: no interval can be given.")
    elif split.groups is not None:
        notes.append("Intervals are from drawing whole groups anew.")
    order = np.argsort(np.where(np.isnan(each), np.inf, each), kind="stable")[: int((~np.isnan(each)).sum())]
    facts = {
        "scores": {
            "mean_iou": {"value": table["mean_iou"], "interval_95": intervals.percentiles([mean for _, mean in anew])},
            **{key: {"value": table[key]} for key in ("mean_dice", "mean_recall", "pixel_accuracy", "frequency_weighted_iou")},
        },
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "per_image": [
            {"image": name_of(split, i), "mean_iou": None if np.isnan(each[i]) else float(each[i])} for i in range(len(split))
        ],
        "notes": notes,
    }  # fmt: skip
    figures, palette = {"confusion": plots.confusion_matrix(confusion, classes)}, Palette.of(classes)
    if table["mean_iou"] is not None:
        figures["iou"] = mask_plots.iou_bars(table["iou"], palette=palette)
    shown = {"worst": order[:EXAMPLES], "best": order[EXAMPLES:][::-1][:EXAMPLES]}
    for what, rows in shown.items():
        if len(rows) > 0:
            few = split.take(rows)
            images, masks = np.asarray(few.images[:]), np.asarray(few.labels[:])
            titles = [name_of(split, i) for i in rows]
            said = most_probable(predicted(images))
            figures[what] = mask_plots.side_by_side(images, said, masks, palette, ignore=ignore, titles=titles)
    return facts, figures, {}
