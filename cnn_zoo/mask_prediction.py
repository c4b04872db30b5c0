"""Segment arrays, image files and images of any size; and classify what was segmented."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice, product
from pathlib import Path

import keras
import numpy as np

from cnn_zoo.data import check_batch, list_images, read_image
from cnn_zoo.data.images import resize
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.errors import DataError, InputError
from cnn_zoo.files import replacing
from cnn_zoo.outputs import check_classifier, class_names, most_probable
from cnn_zoo.palette import Palette
from cnn_zoo.prediction import predict
from cnn_zoo.regions import Region, regions
from cnn_zoo.tiling import STRIDE, Source, bands, contract, npy_writer, plan, to_channels
from cnn_zoo.tta import augmented, check_size, does_not_take

PROGRESS_FROM = 50  # images or tiles from which a progress bar is worth its line
TILE = 512  # pixels: the side of the tiles for a model that takes any size
CROP = 64  # pixels: the side of the crops for a classifier that takes any size


# Whole images


@dataclass(frozen=True)
class Masks:
    """What a segmenter says of some images.

    Attributes:
        ids: A mask an image, `(height, width)` class ids, uint8 (uint16 above 256 classes).
        probabilities: `(height, width, outputs)` float32 an image, or None where they were not asked for.
        classes: Class names.
        images: The images, as given to the model; None for files, which are read again when they are needed.
        files: The image files, or None for arrays.
    """

    ids: tuple[np.ndarray, ...]
    probabilities: tuple[np.ndarray, ...] | None
    classes: tuple[str, ...]
    images: tuple[np.ndarray, ...] | None = None
    files: tuple[Path, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def fractions(self) -> np.ndarray:
        """`(n, classes)`: the part of each image that each class covers."""
        return np.stack([np.bincount(mask.ravel(), minlength=len(self.classes)) / mask.size for mask in self.ids])

    def to_png(self, path, palette: Palette | None = None) -> list[Path]:
        """Write the masks as PNG whose numbers are the class ids, shown in the colours of a palette.

        Args:
            path: A file name ending in .png for a single mask; else a folder, in which masks are named as `mask_paths` says, or `mask_0.png`, ...
            palette: Colours for viewers; default `Palette.of(classes)`. Masks of more than 256 classes are 16-bit gray.

        Returns:
            The files.

        Raises:
            InputError: Two images would write one file.
            StorageError: They cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() == ".png" and len(self) == 1:
            paths = [path]
        elif self.files is None:
            paths = [path / f"mask_{i:0{len(str(len(self) - 1))}}.png" for i in range(len(self))]
        else:
            paths = mask_paths(self.files, path)
        for mask, target in zip(self.ids, paths):
            write_mask(target, mask, Palette.of(self.classes) if palette is None else palette)
        return paths

    def overlay(self, i: int = 0, palette: Palette | None = None, **options):
        """A picture of mask i over its image, with a legend; options as for `cnn_zoo.mask_plots.overlay`."""
        from cnn_zoo.mask_plots import overlay

        image = self.images[i] if self.images is not None else read_image(self.files[i])
        return overlay(image, self.ids[i], Palette.of(self.classes) if palette is None else palette, **options)


def mask_paths(files, folder) -> list[Path]:
    """The files in `folder` for the masks of image files: named like them, in their subfolders where they have several.

    Raises:
        InputError: Two images would write one file.
    """
    files = [Path(file).absolute() for file in files]
    root = os.path.commonpath([file.parent for file in files])
    paths = [Path(folder) / file.relative_to(root).with_suffix(".png") for file in files]
    if twice := [path for i, path in enumerate(paths) if path in paths[:i]]:
        raise InputError(
            f"two images would write {str(twice[0])!r}: they differ in their suffix only; write them into two folders"
        )
    return paths


def write_mask(path, mask, palette: Palette | None = None) -> None:
    """Write class ids `(height, width)` as a PNG that keeps them: 8-bit with the colours of a palette, or 16-bit gray.

    Raises:
        InputError: Ids that no PNG can hold.
        StorageError: The file cannot be written.
    """
    from PIL import Image

    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "iub" or mask.min(initial=0) < 0 or mask.max(initial=0) > 65535:
        raise InputError(
            f"a mask to be written is (height, width) of whole numbers 0..65535, not {mask.dtype} {mask.shape}"
        )
    deep = mask.max(initial=0) > 255
    image = Image.fromarray(mask.astype("uint16" if deep else "uint8"))
    if palette is not None and not deep:
        image.putpalette([value for i in range(256) for value in palette.color(i)])
    with replacing(path) as aside:
        image.save(aside, format="PNG")


def predict_mask(
    model: keras.Model,
    inputs,
    *,
    classes=None,
    batch_size: int = 8,
    tta=(),
    probabilities: bool = False,
    on_error: str = "raise",
    intensity: Intensity | None = None,
) -> Masks:
    """Segment images.

    Args:
        model: From `(batch, height, width, channels)`, values 0..255, to `(batch, height, width, classes)`: probabilities, or logits, which
            become probabilities by softmax (one channel: sigmoid).
        inputs: An image (`(height, width)` or `(height, width, channels)`), many (`(n, height, width, channels)`, or a list of arrays of any
            sizes), whose values come to 0..255 as `Data.from_arrays` says; or an image file, a folder (with its subfolders), or a list of these.
        classes: Class names; default "0", "1", ...; with one channel "background" and "object".
        batch_size: Images of one size at once.
        tta: Test-time augmentation, as for `cnn_zoo.tta.augmented`: any of "mirror", "flip", "rotate", "scale".
        probabilities: Keep the probabilities too.
        on_error: For files that cannot be read: "raise" or "skip" (with a warning).
        intensity: The rule by which values become 0..255, if not by their type: that of the training images (`run.image_rules["intensity"]`).

    Returns:
        `Masks`, in the order of the inputs; each mask has the size of its image. Files are brought to the size of a model that has a fixed one, and
        their probabilities back to the size of the file, bilinearly; arrays must have the model's size.

    Raises:
        InputError: Images that do not fit the model, another number of names than classes, or a model whose masks are smaller than its images.
        DataError: Files that are missing or cannot be read, or an empty folder.
    """
    predicted = augmented(model, tta)
    names = class_names(model, classes)
    _check_batch_size(batch_size)
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    shape = tuple(model.inputs[0].shape[1:])
    inputs = list(inputs) if isinstance(inputs, Iterator) else inputs
    files = list_images(inputs) if _are_files(inputs) else None
    arrays = None if files is not None else _as_images(inputs, shape, intensity)
    read, problems, ids, kept = [], [], [], []

    def images():
        """Each image at the model's size, and the size that it had."""
        for entry in _bar(files or arrays, len(files or arrays), "image", None):
            if arrays is not None:
                yield entry, entry.shape[:2]
                continue
            try:
                image = read_image(entry, (None, None, shape[2]), intensity=intensity)
            except DataError as error:
                problems.append(str(error))
                continue
            read.append(entry)
            size = image.shape[:2]
            wanted = tuple(want or have for want, have in zip(shape[:2], size))
            yield (image if wanted == size else resize(image[None], wanted)[0]), size

    full = set()  # what the model is traced for: there a shorter batch is filled up
    for kind, alike in groupby(images(), key=lambda pair: (pair[0].shape, pair[0].dtype)):
        while part := list(islice(alike, batch_size)):
            batch = [image for image, _ in part]
            if len(batch) == batch_size:
                full.add(kind)
            elif kind in full:
                batch += [batch[-1]] * (batch_size - len(batch))
            for (image, size), y in zip(part, _tried(predicted, np.stack(batch))):
                check_size(image.shape[:2], y.shape[:2])
                y = y if size == y.shape[:2] else resize(y[None], size)[0]
                ids.append(most_probable(y))
                kept += [y] if probabilities else []
    if problems:
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        if on_error == "raise" or not read:
            raise DataError(
                f"{len(problems)} image(s) cannot be read: {shown}. Mend or remove them, or skip them (on_error='skip')"
            )
        warnings.warn(f"left out {len(problems)} image(s): {shown}", stacklevel=2)
    return Masks(
        tuple(ids),
        tuple(kept) if probabilities else None,
        names,
        None if arrays is None else tuple(arrays),
        None if files is None else tuple(read),
    )


def _tried(predicted, batch):
    try:
        return predicted(batch)
    except InputError:
        raise
    except Exception as error:
        if all(side % STRIDE == 0 for side in batch.shape[1:3]):
            raise  # it is not the size
        raise does_not_take(batch.shape[1:3], error) from error


def _are_files(inputs):
    if not isinstance(inputs, (list, tuple)):
        return isinstance(inputs, (str, Path))
    if not inputs:
        raise InputError("there are no images: the list is empty")
    paths = [isinstance(entry, (str, Path)) for entry in inputs]
    if any(paths) and not all(paths):
        raise InputError("the list mixes files and arrays: give either the one or the other")
    return all(paths)


def _as_images(inputs, shape, intensity):
    """A list of images `(height, width, channels)` that fit the model, 0..255 by their dtype alone."""
    if not isinstance(inputs, (list, tuple)):
        inputs = np.asarray(inputs)
        many = inputs.ndim == 4 or (inputs.ndim == 3 and inputs.shape[-1] != shape[2] == 1)
        inputs = inputs if many else inputs[None]
    images = [_as_image(image, intensity) for image in inputs]
    if not images or any(0 in image.shape for image in images):
        raise InputError(f"there are no images: {np.shape(inputs)}")
    for image in images:
        check_batch(image[None], shape)
    return images


def _as_image(image, intensity=None):
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3:
        raise InputError(f"an image is (height, width) or (height, width, channels), not of shape {image.shape}")
    if not image.size:
        return image
    return contract(image[None])[0] if intensity is None else intensity.apply(image)


def _check_batch_size(batch_size):
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__") or batch_size < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")


def _bar(steps, count, unit, progress):
    from tqdm import tqdm

    hidden = count < PROGRESS_FROM if progress is None else not progress
    return tqdm(steps, total=count, desc="segmenting", unit=unit, disable=hidden)


# Images of any size


def predict_tiled(
    model: keras.Model,
    image,
    *,
    tile=None,
    overlap=0.25,
    margin: int = 0,
    blend: str = "hann",
    batch_size: int = 4,
    tta=(),
    probabilities: bool = False,
    out=None,
    progress: bool | None = None,
    intensity: Intensity | None = None,
) -> np.ndarray:
    """Segment one image of any size, tile by tile, in memory that does not grow with its area.

    Overlapping tiles are averaged with weights that add up to one at each pixel. Tiles begin at multiples of 32 pixels where the model takes any
    size, so that they see the pooling grid of the whole image: with `margin` at least the radius of the receptive field, the result is that of the
    whole image. A net whose masks are smaller than its images (U-Net as published) gets the image mirrored at its border, as in that paper.

    Args:
        model: A segmenter, as for `predict_mask`.
        image: `(height, width)` or `(height, width, channels)`: an array, a memory map, or anything with `shape`, `dtype` and slices (HDF5, Zarr), of
            which only windows are read; or a file: .npy is memory-mapped, and TIFF where tifffile is installed; others are read as a whole.
        tile: Height and width of the tiles, or one number for both; default the model's own size, or 512.
        overlap: Of neighbouring tiles: a fraction of their size, 0 <= overlap < 1, or whole pixels.
        margin: Pixels at the inner borders of each tile that are thrown away (twice that must fit into the overlap).
        blend: `"hann"`: a tile's weight falls off smoothly to its border (Hann window); `"mean"`: all tiles count the same.
        batch_size: Tiles at once.
        tta: Test-time augmentation of each tile, as for `predict_mask`.
        probabilities: Return probabilities rather than class ids.
        out: A file name ending in .npy: the result is written there, whole or (on an error or Ctrl-C) not at all, and returned as a memory map. What
            is there already is replaced at the end.
        progress: Show a progress bar; default from 50 tiles.
        intensity: As for `predict_mask`; not the rule "minmax", which each tile would take otherwise.

    Returns:
        `(height, width)` class ids, uint8 (uint16 above 256 classes); or `(height, width, outputs)` float32 probabilities.

    Raises:
        InputError: An image, tile or overlap that does not fit the model; the message says what would.
        DataError: A file that is missing, damaged or too large for its format.
        StorageError: `out` cannot be written, which is found out before the work begins where the disk is full.
    """
    predicted = augmented(model, tta)
    if blend not in ("hann", "mean"):
        raise InputError(f"blend is 'hann' or 'mean', not {blend!r}")
    if out is not None and Path(out).suffix.lower() != ".npy":
        raise InputError(f"out is a file name ending in .npy, not {str(out)!r}; write_mask writes PNG")
    _check_batch_size(batch_size)
    height, width, channels = model.inputs[0].shape[1:]
    if intensity is not None and intensity.rule == "minmax":
        raise InputError(
            "the rule 'minmax' stretches each image by itself, and tiles would differ: stretch the whole image first"
        )
    source = Source(image, channels, intensity)
    tile = _tile_size(tile, (height, width))
    lost = _lost(model, tile, channels)
    outputs = model.outputs[0].shape[-1]

    answered = np.subtract(tile, 2 * lost).tolist()

    def plans(free):
        return [plan(side, size, overlap, margin, blend, free) for side, size in zip(source.shape, answered)]

    # A tile of another size at the end of the image, where the model takes it; else all tiles are of one size.
    spans = plans(free=(height, width) == (None, None) and not lost.any())
    sizes = product(*({len(span.weights) for span in axis} for axis in spans))
    if not lost.any() and not all(_keeps(model, size, channels) for size in sizes):
        spans = plans(free=False)

    shape = (*source.shape, outputs) if probabilities else source.shape
    dtype = "float32" if probabilities else most_probable(np.zeros((1, 1, outputs))).dtype
    result = np.empty(shape, dtype) if out is None else None

    def keep(top, left, block):
        result[top : top + block.shape[0], left : left + block.shape[1]] = block

    tiles = len(spans[0]) * len(spans[1])
    with contextlib.nullcontext(keep) if out is None else npy_writer(out, shape, dtype) as write:
        with _bar(None, tiles, "tile", progress) as bar:
            for top, left, band in bands(predicted, source, spans, lost, outputs, batch_size, bar):
                write(top, left, band if probabilities else most_probable(band))
    source.warn()
    return result if out is None else np.load(out, mmap_mode="r")


def _tile_size(tile, fixed):
    if tile is None:
        return tuple(side or TILE for side in fixed)
    tile = (tile, tile) if np.ndim(tile) == 0 else tuple(tile)
    whole = all(hasattr(side, "__index__") and not isinstance(side, bool) and side >= 1 for side in tile)
    if len(tile) != 2 or not whole:
        raise InputError(f"a tile is a height and a width, whole numbers of at least 1, not {tile!r}")
    if any(want not in (None, have) for want, have in zip(fixed, tile)):
        raise InputError(
            f"the model takes images of {fixed[0]}x{fixed[1]} only, and tiles of {tile[0]}x{tile[1]} are asked for: leave out tile"
        )
    return tuple(int(side) for side in tile)


def _lost(model, tile, channels):
    """Pixels `(rows, columns)` that the model's mask lacks at each border; none for most nets."""
    try:
        given = _given(model, tile, channels)
    except Exception as error:
        raise does_not_take(tile, error) from error
    missing = np.subtract(tile, given)
    coarse = all(have in [gave << k for k in range(1, 6)] for have, gave in zip(tile, given))
    if coarse or missing.min() < 0 or (missing % 2).any():  # neither whole nor cut evenly at its borders
        check_size(tile, given)
    return missing // 2


def _keeps(model, size, channels):
    """Whether the model takes images of that size and gives masks of that size."""
    try:
        return _given(model, size, channels) == size
    except Exception:
        return False


def _given(model, size, channels):
    """The size of the mask for an image of that size; tried out where a stride may not divide it, since Keras does not always know."""
    shape = (1, *size, channels)
    if size[0] % STRIDE or size[1] % STRIDE:
        return tuple(model.predict_on_batch(np.zeros(shape, "uint8")).shape[1:3])
    given = tuple(model.compute_output_shape(shape))[1:3]
    return size if None in given else given


# From masks to regions to classes


def segment_then_classify(
    segmenter,
    classifier: keras.Model,
    image,
    *,
    min_area: int = 16,
    margin=0.1,
    background=0,
    ignore=None,
    classes=None,
    batch_size: int = 64,
) -> list[Region]:
    """Cut the regions of a mask out of an image and classify each crop.

    Args:
        segmenter: A segmentation model, a function from the image to a mask (such as k-means or a threshold), or a mask `(height, width)`. Objects
            that touch are one region: give a mask with a label an object to keep them apart.
        classifier: From `(batch, height, width, channels)` to `(batch, classes)`; crops are resized to its size bilinearly, to 64x64 where it
            takes any.
        image: `(height, width, channels)` or `(height, width)`, values 0..255; or a file.
        min_area: Smaller regions are left out, in pixels.
        margin: Added around each box: a fraction of its longer side, or whole pixels.
        background: Id or ids that are no object.
        ignore: More such ids.
        classes: Class names of the classifier.
        batch_size: Crops at once.

    Returns:
        `Region`s with box (without the margin), area and class, from top to bottom; an empty list where there are none.

    Raises:
        InputError: Image, mask, model or margin do not fit together.
        DataError: A file that cannot be read.
    """
    if isinstance(margin, bool) or not isinstance(margin, (int, float, np.number)) or not 0 <= margin < np.inf:
        raise InputError(f"margin is a fraction or whole pixels, not below 0, not {margin!r}")
    check_classifier(classifier)
    _check_batch_size(batch_size)
    image = _as_image(read_image(image) if isinstance(image, (str, Path)) else image)
    if isinstance(segmenter, keras.Model):
        mask = predict_mask(segmenter, to_channels(image, segmenter.inputs[0].shape[-1])).ids[0]
    else:
        mask = np.asarray(segmenter(image) if callable(segmenter) else segmenter)
    if mask.shape != image.shape[:2]:
        raise InputError(
            f"the mask is {mask.shape} and the image {image.shape[:2]}: both must have one height and width"
        )
    height, width, channels = classifier.input_shape[1:]
    image, done = to_channels(image, channels), []
    waiting = iter(regions(mask, min_area=min_area, background=background, ignore=ignore))
    while part := list(islice(waiting, batch_size)):
        crops = []
        for top, left, bottom, right in (region.box for region in part):
            fraction = isinstance(margin, (float, np.floating))
            extra = round(margin * max(bottom - top, right - left)) if fraction else int(margin)
            crop = image[max(0, top - extra) : bottom + extra, max(0, left - extra) : right + extra]
            crops.append(resize(crop[None], (height or CROP, width or CROP))[0])
        answer = predict(classifier, np.stack(crops), classes=classes, batch_size=batch_size)
        for region, label, row in zip(part, answer.labels.tolist(), answer.probabilities):
            said = {"label": label, "name": answer.classes[label], "probability": float(row[label])}
            done.append(dataclasses.replace(region, probabilities=row, **said))
    return done
