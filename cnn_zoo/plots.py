"""The pictures: curves, prediction grid, confusion matrix, ROC and precision-recall curves, reliability diagram.

Each function returns a figure, which a notebook shows where it is the last line of a cell, and with `save=` also writes a PNG.
"""

import io

import numpy as np
from matplotlib.figure import Figure

from cnn_zoo.errors import InputError
from cnn_zoo.files import replacing

TRAINING, VALIDATION, RIGHT, WRONG = "#1f77b4", "#d95f02", "#222222", "#c1121f"


class Picture(Figure):
    """A Matplotlib figure that notebooks show without pyplot."""

    def _repr_png_(self):
        data = io.BytesIO()
        self.savefig(data, format="png", bbox_inches="tight")
        return data.getvalue()


def curves(history, save=None) -> Picture:
    """Loss and accuracy (of masks: mean IoU) by epoch, training against validation, the best validation score marked.

    Args:
        history: A `Run`, its `.history`, or the `.history` of a Keras `History`: name -> a value an epoch.
        save: PNG file to write.

    Raises:
        InputError: No epochs, or a history without loss or accuracy.
    """
    history = getattr(history, "history", history)
    score = "mean_iou" if "mean_iou" in history else "accuracy"
    missing = [key for key in ("loss", score) if not len(history.get(key, ()))]
    if missing:
        raise InputError(f"there is no epoch to draw yet, or it has no {' and no '.join(missing)}")
    epochs = np.arange(1, len(history["loss"]) + 1)
    figure = Picture(figsize=(9, 3.6), layout="constrained")
    for axes, key, title in zip(
        figure.subplots(1, 2), ("loss", score), ("Loss", "Mean IoU" if score == "mean_iou" else "Accuracy")
    ):
        marker = "o" if len(epochs) < 30 else None
        axes.plot(epochs, history[key], color=TRAINING, marker=marker, markersize=3.5, label="training")
        if f"val_{key}" in history:
            axes.plot(
                epochs, history[f"val_{key}"], color=VALIDATION, marker=marker, markersize=3.5, label="validation"
            )
        if key == score and f"val_{score}" in history:
            best = int(np.argmax(history[f"val_{score}"]))
            value = history[f"val_{score}"][best]
            axes.axvline(best + 1, color=VALIDATION, linewidth=0.8, linestyle=":")
            axes.plot(
                best + 1, value, "*", color=VALIDATION, markersize=12, label=f"best: {value:.4f}, epoch {best + 1}"
            )
        axes.set(title=title, xlabel="epoch", xlim=(0.5, len(epochs) + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return finish(figure, save)


def prediction_grid(images, probabilities, labels=None, classes=None, *, count: int = 25, save=None) -> Picture:
    """Images titled as in the lecture, `7, P = 0.99`; where the true class is known, mistakes are red and name it.

    All mistakes come first when `labels` are given (the most confident ones foremost), then images in their order.

    Args:
        images: `(n, height, width, channels)` or `(n, height, width)`, values 0..255; of an array that reads files only what is shown is read.
        probabilities: `(n, classes)`.
        labels: `(n,)`, the true classes, or None.
        classes: Class names; default the numbers.
        count: Images to show, at most.
        save: PNG file to write.

    Raises:
        InputError: No images, arrays of different length, or names or labels that do not fit the probabilities.
    """
    probabilities = np.asarray(probabilities)
    if not len(images) or len(images) != len(probabilities) or (labels is not None and len(labels) != len(images)):
        raise InputError(
            f"cannot draw {len(images)} images with {len(probabilities)} predictions: one each, and at least one"
        )
    predicted, confidence = probabilities.argmax(-1), probabilities.max(-1)
    names = [str(name) for name in (range(probabilities.shape[-1]) if classes is None else classes)]
    if len(names) != probabilities.shape[-1]:
        raise InputError(f"the probabilities are of {probabilities.shape[-1]} classes and {len(names)} names are given")
    if labels is not None and not np.isin(labels, range(len(names))).all():
        raise InputError(f"labels must be 0..{len(names) - 1}, and these run from {np.min(labels)} to {np.max(labels)}")
    names = _shortened(names)
    order = np.arange(len(images))
    title = f"{len(images):,} images"
    if labels is not None:
        wrong = predicted != np.asarray(labels)
        # At most two rows of mistakes, so that the grid also shows what goes right.
        columns = _columns(min(count, len(images)))
        mistakes = np.flatnonzero(wrong)
        mistakes = mistakes[np.argsort(-confidence[mistakes], kind="stable")][: 2 * columns]
        order = np.concatenate([mistakes, np.flatnonzero(~wrong)])
        title = f"{int(wrong.sum()):,} of {len(images):,} wrong (the most confident mistakes first, in red)"
    order = order[:count]
    columns = _columns(len(order))
    rows = -(-len(order) // columns)
    longest = max(len(name) for name in names)
    figure = Picture(figsize=(columns * max(1.55, 0.11 * longest + 1), rows * 1.75 + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if place >= len(order):
            continue
        i = order[place]
        image = np.squeeze(images[int(i)]).clip(0, 255).astype("uint8")
        if image.ndim == 3 and image.shape[-1] != 3:
            image = image[..., :3] if image.shape[-1] > 3 else image[..., 0]
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        text, color = f"{names[predicted[i]]}, P = {confidence[i]:.2f}", RIGHT
        if labels is not None:
            mistaken = predicted[i] != labels[i]
            text += f"\n(true {names[labels[i]]})"
            color = WRONG if mistaken else RIGHT
        axes.set_title(text, fontsize=9, color=color, pad=3)
    return finish(figure, save)


def confusion_matrix(confusion, classes=None, save=None) -> Picture:
    """Counts of true class against predicted class (above 99,999, as of pixels: fractions); colour is the fraction of the true class.

    Args:
        confusion: `(classes, classes)` counts, rows being the true classes.
        classes: Class names; default the numbers.
        save: PNG file to write.

    Raises:
        InputError: Not a square table, or another number of names.
    """
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or not len(confusion):
        raise InputError(f"a confusion matrix is square, not of shape {confusion.shape}")
    count = len(confusion)
    names = [str(name) for name in (range(count) if classes is None else classes)]
    if len(names) != count:
        raise InputError(f"the confusion matrix has {count} classes and {len(names)} names are given")
    fraction = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    names = _shortened(names)
    letters = max(map(len, names))
    rotation = 90 if letters > 3 and (count > 4 or letters > 10) else 0
    side, room = min(14, max(3.5, 0.5 * count + 1.2)), 0.085 * letters  # inches: the table, and the names beside it
    figure = Picture(figsize=(side + room + 0.8, side + (room if rotation else 0)), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, fraction=0.045, label="fraction of the true class")
    step = -(-count // 40)
    axes.set_xticks(range(0, count, step), names[::step], rotation=rotation)
    axes.set_yticks(range(0, count, step), names[::step])
    axes.set(xlabel="predicted", ylabel="true")
    if count <= 20:
        for row in range(count):
            for column in range(count):
                if confusion[row, column]:
                    color = "white" if fraction[row, column] > 0.5 else "black"
                    text = f"{fraction[row, column]:.0%}" if confusion.max() > 99999 else confusion[row, column]
                    axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    return finish(figure, save)


def roc(curves, averages=None, save=None) -> Picture:
    """ROC curves: what share of a class is found, against what share of the rest is taken for it.

    Up to ten classes each have a colour; of more, the five with the smallest areas do.

    Args:
        curves: Class name -> `(false positive rate, true positive rate, area)`.
        averages: Curves over all classes, likewise; drawn in black.
        save: PNG file to write.

    Raises:
        InputError: There is no curve.
    """
    return _rates(curves, averages or {}, "ROC", ("false positive rate", "true positive rate", "AUC"), save)


def precision_recall(curves, averages=None, save=None) -> Picture:
    """Precision-recall curves: of what is taken for a class, the share that is it, against the share of the class that is found.

    Args:
        curves: Class name -> `(recall, precision, average precision)`.
        averages: Curves over all classes, likewise; drawn in black.
        save: PNG file to write.

    Raises:
        InputError: There is no curve.
    """
    return _rates(curves, averages or {}, "Precision and recall", ("recall", "precision", "AP"), save)


def _rates(curves, averages, title, words, save):
    if not curves:
        raise InputError("there is no curve to draw: no class has images beside images of other classes")
    worst = sorted(curves, key=lambda name: curves[name][2])
    colored = list(curves) if len(curves) <= 10 else worst[:5]
    figure = Picture(figsize=(5.8 + 0.07 * max(map(len, _shortened(colored))), 4.4), layout="constrained")
    axes = figure.subplots()
    panels = [axes]
    if curves[worst[0]][2] > 0.95:  # the curves lie in a corner, and the rest has room for a closer look at it
        corner = (0, 0.2) if words[2] == "AUC" else (0.8, 1)
        close = axes.inset_axes([0.4 if words[2] == "AUC" else 0.12, 0.1, 0.52, 0.52], xlim=corner, ylim=(0.8, 1.005))
        close.tick_params(labelsize=7)
        axes.indicate_inset_zoom(close, edgecolor="#8a94a0")
        panels.append(close)
    for panel in panels:
        for name in worst[5:] if len(curves) > 10 else ():
            panel.plot(*curves[name][:2], color="#b8bec6", linewidth=0.6, zorder=1)
        for i, (name, short) in enumerate(zip(colored, _shortened(colored))):
            x, y, area = curves[name]
            panel.plot(x, y, color=f"C{i}", linewidth=1.4, label=f"{short}, {words[2]} {area:.4f}", zorder=2)
        for style, (name, (x, y, area)) in zip(("--", ":"), averages.items()):
            label = f"{name}, {words[2]} {area:.4f}"
            panel.plot(x, y, color=RIGHT, linewidth=1.2, linestyle=style, label=label, zorder=3)
        panel.grid(alpha=0.25)
    if len(curves) > 10:
        title += f": the worst 5 of {len(curves):,} classes (gray: the others)"
    axes.set(xlabel=words[0], ylabel=words[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return finish(figure, save)


def reliability(bins, save=None) -> Picture:
    """Reliability diagrams: in each bin of confidence how often the classifier is right, how sure it is, and below the number of images.

    Args:
        bins: What `cnn_zoo.calibration.reliability` gives; or title -> that, for several side by side.
        save: PNG file to write.

    Raises:
        InputError: There is none.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", figure 1.
    """
    several = bins if isinstance(bins, dict) else {"": bins}
    if not several:
        raise InputError("there is no reliability diagram to draw")
    figure = Picture(figsize=(4.2 * len(several), 4.8), layout="constrained")
    grid = figure.subplots(2, len(several), sharex=True, squeeze=False, height_ratios=(3, 1))
    for (upper, lower), (title, found) in zip(grid.T, several.items()):
        count = len(found.counts)
        middle, width = (np.arange(count) + 0.5) / count, 0.94 / count
        here = found.counts > 0
        left, sure = middle[here] - width / 2, found.confidence[here]
        upper.plot([0, 1], [0, 1], color="#8a94a0", linewidth=0.8, linestyle="--")
        upper.bar(middle[here], found.accuracy[here], width, color="#9db8dc", label="accuracy")
        upper.vlines(middle[here], found.accuracy[here], sure, color=WRONG, linewidth=1)
        upper.hlines(sure, left, left + width, color=WRONG, linewidth=2.5, label="mean confidence")
        upper.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
        upper.set_title(f"{title}{', ' if title else ''}ECE {found.ece:.4f}", fontsize=10)
        upper.legend(loc="upper left", frameon=False, fontsize=8)
        lower.bar(middle, found.counts, width, color="#8a94a0")
        lower.set(xlabel="confidence (largest probability)", ylabel="images")
        lower.set_yscale("symlog", linthresh=1)
        lower.set_ylim(0, 3 * max(found.counts))
        for axes in (upper, lower):
            axes.spines[["top", "right"]].set_visible(False)
    return finish(figure, save)


def _shortened(names, longest=28):
    return [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]


def _columns(count):
    return max(1, min(8, int(np.ceil(np.sqrt(count)))))


def finish(figure, save):
    """The figure, written as a PNG if there is a place for it."""
    if save is not None:
        with replacing(save) as aside:
            figure.savefig(aside, dpi=150, format="png")
    return figure
