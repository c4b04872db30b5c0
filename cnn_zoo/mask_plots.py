"""Pictures of masks: over their images, beside the truth, and how well each class is found.

As in `cnn_zoo.plots`, each function returns a figure that a notebook shows, and with `save=` also writes a PNG.
"""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch, Rectangle

from cnn_zoo.errors import InputError
from cnn_zoo.palette import Palette
from cnn_zoo.plots import RIGHT, TRAINING, WRONG, Picture, _shortened, finish

LARGEST = 1600  # pixels of the longer side that are drawn of one image; a larger one is thinned out
IGNORED = (90, 90, 90)
_LISTED = 32  # classes that a legend lists


def painted(
    image, mask, palette: Palette | None = None, *, alpha: float = 0.5, ignore=None, background=None
) -> np.ndarray:
    """A mask painted over its image, as an array of the image's size.

    Args:
        image: `(height, width)` or `(height, width, channels)`, values 0..255.
        mask: `(height, width)` class ids.
        palette: Colours; default `Palette.of` as many classes as the mask has.
        alpha: Opacity of the colours, 0..1.
        ignore: Id or ids that are shown dark gray.
        background: Id or ids that are left as the image is.

    Returns:
        `(height, width, 3)` uint8.

    Raises:
        InputError: They do not fit.
    """
    mask = _mask(mask)
    picture = _picture(image)
    if picture.shape[:2] != mask.shape:
        raise InputError(
            f"the mask is {_by(mask.shape)} and its image {_by(picture.shape[:2])}: both must have one height and width"
        )
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is an opacity, 0..1, not {alpha!r}")
    colors = _colored(mask, _palette(palette, [mask], ignore), ignore)
    opacity = np.full((*mask.shape, 1), alpha, "float32")
    opacity[np.isin(mask, _ids(background))] = 0
    return np.rint(picture * (1 - opacity) + colors * opacity).astype("uint8")


def overlay(
    image,
    mask,
    palette: Palette | None = None,
    *,
    alpha: float = 0.5,
    ignore=None,
    background=None,
    title=None,
    save=None,
) -> Picture:
    """A mask over its image, with a legend of the classes in it and the part of the image that each covers.

    Args:
        image: `(height, width)` or `(height, width, channels)`, values 0..255.
        mask: `(height, width)` class ids.
        palette: Colours and names; default `Palette.of` as many classes as the mask has.
        alpha: Opacity of the colours, 0..1.
        ignore: Id or ids that are shown dark gray.
        background: Id or ids that are left as the image is.
        title: Above the picture.
        save: PNG file to write.

    Raises:
        InputError: They do not fit, or the mask has an id without a colour.
    """
    mask = _mask(mask)
    palette = _palette(palette, [mask], ignore)
    image, thin = np.asarray(image), mask
    if image.shape[:2] == mask.shape:  # otherwise `painted` says so
        image, thin = _thin(image), _thin(mask)
    picture = painted(image, thin, palette, alpha=alpha, ignore=ignore, background=background)
    high, wide = picture.shape[:2]
    width = min(8.0, max(3.0, 5.5 * wide / high))
    height = max(2.2, width * high / wide + (0.3 if title else 0))
    figure = _with_legend(width, height, _entries(palette, [mask], ignore, share=True, clear=background))
    axes = figure.subplots()
    axes.imshow(picture)
    axes.axis("off")
    if title:
        axes.set_title(title, fontsize=10)
    return finish(figure, save)


def side_by_side(
    images,
    predictions,
    truths=None,
    palette: Palette | None = None,
    *,
    ignore=None,
    count: int = 6,
    titles=None,
    save=None,
) -> Picture:
    """Images in rows: the image, its true mask, the predicted mask, and the errors in red.

    Below each prediction stands its pixel accuracy and mean IoU over the classes in it or in the truth. Without `truths`: image and mask.

    Args:
        images: `(n, height, width[, channels])` or a list of images of any sizes, values 0..255; or a single image with a single mask.
        predictions: As many masks, `(height, width)` class ids; or a `Masks`.
        truths: As many, or None.
        palette: Colours and names; default `Palette.of` as many classes as the masks have.
        ignore: Id or ids of the truth that are not judged: dark gray there and among the errors.
        count: Rows at most.
        titles: A text for each image.
        save: PNG file to write.

    Raises:
        InputError: They do not fit, or there are none.
    """
    predictions = getattr(predictions, "ids", predictions)
    if hasattr(predictions, "dtype") and np.ndim(predictions) == 2:
        images, predictions = [images], [predictions]
        truths = None if truths is None else [truths]
    given = {"images": len(images), "predictions": len(predictions)}
    if truths is not None:
        given["truths"] = len(truths)
    if len(set(given.values())) > 1 or not len(images):
        raise InputError(
            f"as many of each are expected, and at least one: {', '.join(f'{n} {k}' for k, n in given.items())}"
        )
    rows = min(count, len(images))
    predictions = [_mask(mask) for mask in predictions[:rows]]
    truths = None if truths is None else [_mask(mask) for mask in truths[:rows]]
    every = predictions + (truths or [])
    palette = _palette(palette, every, ignore)
    pictures = [_picture(image) for image in images[:rows]]
    for i, (picture, mask) in enumerate(zip(pictures, predictions)):
        for other in (mask, *([truths[i]] if truths else [])):
            if picture.shape[:2] != other.shape:
                raise InputError(f"image {i} is {_by(picture.shape[:2])} and its mask {_by(other.shape)}")
    columns = ["image", "mask"] if truths is None else ["image", "truth", "prediction", "errors"]
    shape = np.median([picture.shape[:2] for picture in pictures], axis=0)
    side = 2.7 * np.sqrt(shape[1] / shape[0])
    height = rows * (side * shape[0] / shape[1] + 0.28) + 0.3
    figure = _with_legend(len(columns) * side, height, _entries(palette, every, ignore))
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for i, (picture, mask) in enumerate(zip(pictures, predictions)):
        small, thin = _thin(picture), _thin(mask)
        shown = dict.fromkeys(("mask", "prediction"), _colored(thin, palette, None)) | {"image": small}
        if truths is not None:
            truth = _thin(truths[i])
            shown["truth"] = _colored(truth, palette, ignore)
            gray = small.mean(-1, keepdims=True) * 0.5 + 127
            errors = np.where((thin != truth)[..., None], np.array(to_rgb(WRONG)) * 255, np.repeat(gray, 3, axis=-1))
            errors[np.isin(truth, _ids(ignore))] = IGNORED
            shown["errors"] = errors.astype("uint8")
        for axes, name in zip(grid[i], columns):
            axes.imshow(shown[name])
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if i == 0:
                axes.set_title(name, fontsize=10)
        if titles is not None:
            grid[i][0].set_xlabel(_shortened([str(titles[i])])[0], fontsize=8, color=RIGHT)
        if truths is not None:
            grid[i][2].set_xlabel(_score(truths[i], mask, ignore), fontsize=8, color=RIGHT)
    return finish(figure, save)


def region_boxes(image, regions, classes=None, *, title=None, save=None) -> Picture:
    """An image with a box around each region, in the colour of its class, titled as in the lecture, `ant, P = 0.99`.

    Args:
        image: `(height, width)` or `(height, width, channels)`, values 0..255.
        regions: What `segment_then_classify` or `regions` gives.
        classes: Names that share out the colours; default those of the regions, in alphabetical order.
        title: Above the picture; default the number of regions of each class.
        save: PNG file to write.

    Raises:
        InputError: A region has a name that is not among `classes`.
    """
    said = [region.name if region.name is not None else f"id {region.id}" for region in regions]
    names = sorted(set(said)) if classes is None else [str(name) for name in classes]
    if wrong := sorted(set(said) - set(names)):
        raise InputError(f"a region is {wrong[0]!r}, and the classes are {', '.join(names)}")
    picture = _picture(image)
    step = -(-max(picture.shape[:2]) // LARGEST)
    high, wide = picture.shape[:2]
    width = min(8.0, max(3.0, 5.5 * wide / high))
    figure = Picture(figsize=(width, width * high / wide + 0.3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture[::step, ::step], extent=(-0.5, wide - 0.5, high - 0.5, -0.5))
    axes.axis("off")
    palette = Palette.of(names) if names else None
    for region, name in zip(regions, said):
        top, left, bottom, right = region.box
        color = np.array(palette.colors[names.index(name)]) / 255
        axes.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=color, linewidth=1.5)
        )
        text = name if region.probability is None else f"{name}, P = {region.probability:.2f}"
        label = {"facecolor": "white", "alpha": 0.75, "edgecolor": color, "linewidth": 0.8, "pad": 0.8}
        # Above the box, and within the picture: below it at the upper border, to the left at the right one.
        upper, late = top > 0.04 * high, left > wide - 0.07 * len(text) / width * wide
        place = {"va": "bottom" if upper else "top", "ha": "right" if late else "left"}
        axes.text(
            right if late else left, top if upper else bottom, text, fontsize=6.5, color=RIGHT, bbox=label, **place
        )
    counts = ", ".join(f"{said.count(name):,} {name}" for name in names if name in said)
    axes.set_title(title or counts or "no regions", fontsize=10)
    return finish(figure, save)


def iou_bars(
    iou, classes=None, *, mean: float | None = None, palette: Palette | None = None, title="IoU by class", save=None
) -> Picture:
    """Intersection over union of each class as a bar, the worst at the bottom, and their mean as a line.

    Args:
        iou: `(classes,)`, 0..1; NaN for a class that does not occur, which is named but not counted. Or class name -> value, as
            `evaluate(...).scores()["iou"]` has it, with None for NaN.
        classes: Names; default the palette's, or the numbers.
        mean: Where the line is drawn; default the mean of those that are not NaN.
        palette: Colours of the bars; default one for all.
        title: Above the picture.
        save: PNG file to write.

    Raises:
        InputError: No values, values outside 0..1, or another number of names.
    """
    if isinstance(iou, dict):
        classes = list(iou) if classes is None else classes
        iou = [np.nan if value is None else value for value in iou.values()]
    iou = np.asarray(iou, "float64")
    if iou.ndim != 1 or not len(iou) or np.isnan(iou).all() or ((iou < 0) | (iou > 1)).any():
        raise InputError(f"IoU of each class is expected, numbers 0..1 (or NaN), not {iou}")
    if classes is None:
        classes = range(len(iou)) if palette is None or len(palette.classes) != len(iou) else palette.classes
    names = _shortened([str(name) for name in classes])
    if len(names) != len(iou):
        raise InputError(f"there are {len(iou)} values and {len(names)} names")
    mean = float(np.nanmean(iou)) if mean is None else mean
    order = np.argsort(-np.nan_to_num(iou, nan=-1), kind="stable")[::-1]
    figure = Picture(figsize=(6.5, 0.27 * len(iou) + 1.1), layout="constrained")
    axes = figure.subplots()
    colors = [TRAINING if palette is None else np.array(palette.color(i)) / 255 for i in order]
    edge = "none" if palette is None else "#555555"
    bars = axes.barh(range(len(iou)), np.nan_to_num(iou[order]), color=colors, edgecolor=edge, linewidth=0.5)
    for bar, value in zip(bars, iou[order]):
        text = "does not occur" if np.isnan(value) else f"{value:.3f}"
        place = (bar.get_width() + 0.01, bar.get_y() + bar.get_height() / 2)
        axes.text(*place, text, va="center", fontsize=8, bbox={"pad": 0.5, "fc": "white", "ec": "none"})
    axes.axvline(mean, color=RIGHT, linewidth=1, linestyle="--", zorder=0.5)
    axes.set_yticks(range(len(iou)), [names[i] for i in order], fontsize=9)
    axes.set(xlim=(0, 1.12), xlabel="IoU", ylim=(-0.6, len(iou) - 0.4))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_title(f"{title}, mean {mean:.3f} (dashed)", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return finish(figure, save)


def _by(shape):
    return "x".join(map(str, shape))


def _ids(ignore):
    return np.atleast_1d([] if ignore is None else ignore)


def _mask(mask):
    mask = np.asarray(mask)
    if mask.ndim == 3 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.dtype.kind not in "iub" or not mask.size:
        raise InputError(
            f"a mask is (height, width) of class ids, not {mask.dtype} of shape {mask.shape}; one-hot or probabilities: argmax(-1)"
        )
    return mask.astype("uint8") if mask.dtype == bool else mask


def _picture(image):
    """Any image as `(height, width, 3)` uint8: of many channels the first three, of two the first."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or not image.size or image.dtype.kind not in "iufb":
        raise InputError(f"an image is (height, width) or (height, width, channels), not of shape {image.shape}")
    if image.dtype == bool:
        image = image * 255.0
    elif image.dtype.kind == "u" and image.dtype.itemsize == 2:
        image = image / 257
    image = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    return np.nan_to_num(image).clip(0, 255).astype("uint8")


def _thin(array):
    step = -(-max(array.shape[:2]) // LARGEST)
    return array[::step, ::step]


def _palette(palette, masks, ignore):
    if palette is not None:
        return palette
    kept = [mask[~np.isin(mask, _ids(ignore))] for mask in masks]
    return Palette.of(max([1, *(int(mask.max()) + 1 for mask in kept if mask.size)]))


def _colored(mask, palette, ignore):
    ignored = np.isin(mask, _ids(ignore))
    first = palette.ids[0]
    picture = palette.to_rgb(np.where(ignored, first, mask))
    picture[ignored] = IGNORED
    return picture


def _score(truth, mask, ignore):
    judged = ~np.isin(truth, _ids(ignore))
    if not judged.any():
        return "all ignored"
    truth, mask = truth[judged].astype("int64"), mask[judged].astype("int64")
    both = np.union1d(truth, mask)
    union = [((truth == i) | (mask == i)).sum() for i in both]
    iou = np.mean([((truth == i) & (mask == i)).sum() / u for i, u in zip(both, union)])
    return f"{(truth == mask).mean():.1%} of pixels right, mean IoU {iou:.2f}"


def _entries(palette, masks, ignore, share=False, clear=None):
    """What a legend lists: the classes of the masks, with `share` also the part of all pixels that is theirs."""
    counts = {}
    for mask in masks:
        for i, count in zip(*(values.tolist() for values in np.unique(mask, return_counts=True))):
            counts[i] = counts.get(i, 0) + count
    total, ignored = sum(counts.values()), sum(counts.pop(i) for i in _ids(ignore).tolist() if i in counts)
    most = len(counts) if len(counts) <= _LISTED else _LISTED - 1
    shown = sorted(sorted(counts, key=lambda i: -counts[i])[:most])  # the most frequent ones, by id

    def entry(name, count, color):
        label = f"{name}  {count / total:.1%}" if share else name
        return Patch(facecolor=color, edgecolor="#555555", linewidth=0.5, label=label)

    entries = [
        entry(name, counts[i], "none" if i in _ids(clear) else np.array(palette.color(i)) / 255)
        for i, name in zip(shown, _shortened([palette.name(i) for i in shown], 22))
    ]
    if ignored:
        entries.append(entry("ignored", ignored, np.array(IGNORED) / 255))
    if more := len(counts) - most:
        entries.append(Patch(facecolor="none", label=f"and {more:,} more"))
    return entries


def _with_legend(width, height, entries):
    """A figure with a legend beside a space of that width and height, in inches."""
    columns = 1 if len(entries) * 0.19 < height - 0.3 else 2
    beside = columns * (0.42 + 0.067 * max(len(entry.get_label()) for entry in entries))
    figure = Picture(figsize=(width + beside, height), layout="constrained")
    options = {"frameon": False, "fontsize": 8, "ncols": columns, "handlelength": 1.2}
    figure.legend(handles=entries, loc="outside right upper", **options)
    return figure
