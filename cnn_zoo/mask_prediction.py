"""Segment arrays, image files and images of any size; and classify what was segmented."""

import contextlib
import dataclasses
import errno
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import keras
import numpy as np

from cnn_zoo.classifier import check_classifier
from cnn_zoo.data import check_batch, list_images, read_image
from cnn_zoo.data.arrays import to_contract
from cnn_zoo.data.images import resize
from cnn_zoo.errors import DataError, InputError
from cnn_zoo.files import replacing
from cnn_zoo.masks import Palette
from cnn_zoo.prediction import predict

PROGRESS_FROM = 50  # images or tiles from which a progress bar is worth its line
SCALES = (0.75, 1.0, 1.25)
CROP = 64  # pixels: the side of the crops for a classifier that takes any size
_STRIDE = 32  # the strides of nets are powers of two up to this: tiles that begin at a multiple see the pooling grid of the whole image
_SHAPED = (
    "crop",
    "resiz",
    "pad",
    "identity",
    "reshape",
    "cast",
    "upsampling",
    "dropout",
    "permute",
    "slice",
    "getitem",
)


# What a model says of a batch


def check_segmenter(model) -> None:
    """Raise InputError unless the model goes from `(batch, height, width, channels)` to `(batch, height, width, classes)`."""
    if not isinstance(model, keras.Model) or not model.built or not getattr(model, "inputs", None):
        raise InputError(
            f"a built keras.Model with a known input is expected, not {type(model).__name__}; wrap a subclassed one: "
            "x = keras.Input(shape); keras.Model(x, model(x))"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs; one of each is expected"
        )
    taken, given = tuple(model.inputs[0].shape), tuple(model.outputs[0].shape)
    if len(taken) != 4 or len(given) != 4 or given[-1] is None:
        raise InputError(
            f"the model goes from {taken} to {given}, and a segmenter goes from (batch, height, width, channels) "
            "to (batch, height, width, classes)"
        )


def mask_output(model) -> str:
    """`"softmax"`, `"sigmoid"` or `"logits"`, told by the last layer that has an activation; crops and resizing after it are passed over."""
    layers = model.layers if isinstance(model, keras.Sequential) else getattr(model, "operations", model.layers)
    for last in reversed(layers):
        if isinstance(last, keras.Model):
            return mask_output(last)
        activation = getattr(getattr(last, "activation", None), "__name__", None)
        kind = type(last).__name__.lower()
        if activation in ("softmax", "sigmoid") or kind in ("softmax", "sigmoid"):
            return activation or kind
        if activation == "linear" and kind == "activation":
            continue
        if activation is not None or not any(word in kind for word in _SHAPED):
            return "logits"
    return "logits"


def augmented(model: keras.Model, tta=(), *, scales=SCALES) -> Callable:
    """A function from a batch of images to probabilities, averaged over changed copies of the images.

    Each copy is changed, predicted, and its probabilities are changed back: exactly for flips and quarter turns; by bilinear resizing for scales.

    Args:
        model: A segmenter. Logits become probabilities.
        tta: Any of `"mirror"` (left to right), `"flip"` (left to right, top to bottom, and both: for images without up and down), `"rotate"`
            (quarter turns; with "flip" the eight symmetries of the square) and `"scale"`; one name or several.
        scales: For `"scale"`.

    Returns:
        `(b, height, width, channels)`, values 0..255, to `(b, height, width, classes)` float32.

    Raises:
        InputError: Another name; or turns or scales that a model of fixed size cannot take.
    """
    check_segmenter(model)
    names = (tta,) if isinstance(tta, str) else tuple(tta or ())
    if wrong := [name for name in names if name not in ("mirror", "flip", "rotate", "scale")]:
        raise InputError(f"tta is any of 'mirror', 'flip', 'rotate' and 'scale', not {wrong[0]!r}")
    fixed = model.inputs[0].shape[1:3]
    if "rotate" in names and fixed[0] != fixed[1]:
        raise InputError(f"a model for images of {fixed[0]}x{fixed[1]} takes no quarter turns: leave out 'rotate'")
    if "scale" in names and tuple(fixed) != (None, None):
        raise InputError(f"a model for images of {fixed[0]}x{fixed[1]} takes no other scales: leave out 'scale'")
    if "scale" in names and (not len(scales) or not all(s > 0 for s in scales)):
        raise InputError(f"scales are numbers above 0, not {scales!r}")
    turns = range(4) if "rotate" in names else range(1)
    # With quarter turns, one mirror image makes all eight symmetries of the square; a second would count each twice.
    flips = [(False, False), (True, False)]
    if "flip" in names and "rotate" not in names:
        flips += [(False, True), (True, True)]
    if not {"flip", "mirror"} & set(names):
        flips = flips[:1]
    factors = [float(s) for s in scales] if "scale" in names else [1.0]
    kind = mask_output(model)

    def predicted(images):
        images = np.asarray(images)
        size, total = images.shape[1:3], 0.0
        for factor in factors:
            scaled = images
            if factor != 1:
                scaled = resize(images, tuple(max(1, round(side * factor)) for side in size))
            for turn in turns:
                for across, down in flips:
                    changed = scaled[:, :: -1 if down else 1, :: -1 if across else 1]
                    y = _forward(model, np.ascontiguousarray(np.rot90(changed, turn, (1, 2))), kind)
                    y = np.rot90(y, -turn, (1, 2))[:, :: -1 if down else 1, :: -1 if across else 1]
                    if factor != 1:
                        if y.shape[1:3] != scaled.shape[1:3]:
                            raise InputError(_other_size(scaled.shape[1:3], y.shape[1:3]))
                        y = resize(y, size)
                    total = total + y
        return np.ascontiguousarray(total / (len(factors) * len(turns) * len(flips)), "float32")

    return predicted


def _forward(model, images, kind):
    y = np.asarray(keras.ops.convert_to_numpy(model.predict_on_batch(images))).astype("float32")
    if kind != "logits":
        return y
    if y.shape[-1] == 1:
        return np.exp(-np.logaddexp(0, -y))
    y = np.exp(y - y.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


def _other_size(size, given):
    return (
        f"the model gives masks of {given[0]}x{given[1]} for images of {size[0]}x{size[1]}: a net without padding goes through predict_tiled; "
        "otherwise end the model with a resizing to the size of its input"
    )


def _to_ids(probabilities):
    """Most probable class; with one channel, whether its probability is above one half."""
    if probabilities.shape[-1] == 1:
        return (probabilities[..., 0] > 0.5).astype("uint8")
    return probabilities.argmax(-1).astype(_id_type(probabilities.shape[-1]))


def _id_type(classes):
    return "uint8" if classes <= 256 else "uint16"


def _mask_names(model, classes):
    outputs = model.outputs[0].shape[-1]
    count = max(outputs, 2)  # one channel tells two classes apart
    if classes is None:
        return ("background", "object") if outputs == 1 else tuple(map(str, range(count)))
    names = tuple(map(str, classes))
    if len(names) != count:
        raise InputError(f"the model tells {count} classes apart and {len(names)} names are given")
    return names


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
            path: A file name ending in .png for a single mask; else a folder. There masks have the names of their files (and their subfolders,
                where they have several), or `mask_0.png`, ...
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
            root = os.path.commonpath([file.absolute().parent for file in self.files])
            paths = [path / file.absolute().relative_to(root).with_suffix(".png") for file in self.files]
        if len(set(paths)) < len(paths):
            twice = next(p for i, p in enumerate(paths) if p in paths[:i])
            raise InputError(
                f"two images would write {str(twice)!r}: they differ in their suffix only; write them into two folders"
            )
        for mask, target in zip(self.ids, paths):
            write_mask(target, mask, Palette.of(self.classes) if palette is None else palette)
        return paths

    def overlay(self, i: int = 0, palette: Palette | None = None, **options):
        """A picture of mask i over its image, with a legend; options as for `cnn_zoo.mask_plots.overlay`."""
        from cnn_zoo.mask_plots import overlay

        image = self.images[i] if self.images is not None else read_image(self.files[i])
        return overlay(image, self.ids[i], Palette.of(self.classes) if palette is None else palette, **options)


def write_mask(path, mask, palette: Palette | None = None) -> None:
    """Write class ids `(height, width)` as a PNG that keeps them: 8-bit with the colours of a palette, or 16-bit gray.

    Raises:
        InputError: Ids that no PNG can hold.
        StorageError: The file cannot be written.
    """
    from PIL import Image

    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "iub" or (mask.size and (mask.min() < 0 or mask.max() > 65535)):
        raise InputError(
            f"a mask to be written is (height, width) of whole numbers 0..65535, not {mask.dtype} {mask.shape}"
        )
    if mask.size and mask.max() > 255:
        image = Image.fromarray(mask.astype("uint16"))
    else:
        image = Image.fromarray(mask.astype("uint8"))
        if palette is not None:
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
) -> Masks:
    """Segment images.

    Args:
        model: From `(batch, height, width, channels)`, values 0..255, to `(batch, height, width, classes)`: probabilities, or logits, which
            become probabilities by softmax (one channel: sigmoid).
        inputs: An image (`(height, width)` or `(height, width, channels)`), many (`(n, height, width, channels)`, or a list of arrays of any
            sizes), whose values come to 0..255 as `Data.from_arrays` says; or an image file, a folder (with its subfolders), or a list of these.
        classes: Class names; default "0", "1", ...; with one channel "background" and "object".
        batch_size: Images of one size at once.
        tta: Test-time augmentation, as for `augmented`.
        probabilities: Keep the probabilities too.
        on_error: For files that cannot be read: "raise" or "skip" (with a warning).

    Returns:
        `Masks`, in the order of the inputs; each mask has the size of its image. Files are brought to the size of a model that has a fixed one, and
        their probabilities back to the size of the file, bilinearly; arrays must have the model's size.

    Raises:
        InputError: Images that do not fit the model, another number of names than classes, or a model whose masks are smaller than its images.
        DataError: Files that are missing or cannot be read, or an empty folder.
    """
    predicted = augmented(model, tta)
    names = _mask_names(model, classes)
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__") or batch_size < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    shape = tuple(model.inputs[0].shape[1:])
    if isinstance(inputs, Iterator):
        inputs = list(inputs)
    files = list_images(inputs) if _are_paths(inputs) else None
    arrays = None if files is not None else _as_images(inputs, shape)
    total = len(files if files is not None else arrays)
    read, problems, ids, kept, waiting, full = [], [], [], [], [], set()

    def flush():
        if not waiting:
            return
        images = np.stack([image for image, _ in waiting])
        if len(images) == batch_size:
            full.add(images.shape[1:])
        elif images.shape[1:] in full:  # the last batch is filled up and cut: a model is traced once for a batch size
            images = np.concatenate([images, np.repeat(images[-1:], batch_size - len(images), axis=0)])
        try:
            answers = predicted(images)
        except InputError:
            raise
        except Exception as error:  # each backend has its own for shapes that do not go together
            if all(side % _STRIDE == 0 for side in images.shape[1:3]):
                raise
            raise InputError(
                f"the model fails on images of {images.shape[1]}x{images.shape[2]}; if it wants multiples of 32, predict_tiled takes any size "
                f"({str(error).strip().splitlines()[-1][:200]})"
            ) from error
        for (image, size), y in zip(waiting, answers):
            if y.shape[:2] != image.shape[:2]:
                raise InputError(_other_size(image.shape[:2], y.shape[:2]))
            if size != y.shape[:2]:
                y = resize(y[None], size)[0]
            ids.append(_to_ids(y))
            if probabilities:
                kept.append(y)
        waiting.clear()

    for i in _bar(range(total), total, "segmenting", "image", None):
        if files is None:
            image = arrays[i]
            size = image.shape[:2]
        else:
            try:
                image = read_image(files[i], (None, None, shape[2]))
            except DataError as error:
                problems.append(str(error))
                continue
            size = image.shape[:2]
            if (wanted := tuple(want or have for want, have in zip(shape[:2], size))) != size:
                image = resize(image[None], wanted)[0]
            read.append(files[i])
        if waiting and (
            len(waiting) == batch_size or waiting[0][0].shape != image.shape or waiting[0][0].dtype != image.dtype
        ):
            flush()
        waiting.append((image, size))
    flush()
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


def _are_paths(inputs):
    if isinstance(inputs, (str, Path)):
        return True
    if not isinstance(inputs, (list, tuple)):
        return False
    if not inputs:
        raise InputError("there are no images: the list is empty")
    paths = [isinstance(entry, (str, Path)) for entry in inputs]
    if any(paths) and not all(paths):
        raise InputError("the list mixes files and arrays: give either the one or the other")
    return all(paths)


def _as_images(inputs, shape):
    """A list of images `(height, width, channels)` that fit the model, 0..255 by their dtype alone."""
    channels = shape[2]
    if isinstance(inputs, (list, tuple)):
        whole = [_with_channels(np.asarray(image)) for image in inputs]
    else:
        inputs = np.asarray(inputs)
        many = inputs.ndim == 4 or (inputs.ndim == 3 and inputs.shape[-1] != channels and channels == 1)
        whole = [_with_channels(image) for image in (inputs if many else inputs[None])]
    if not whole:
        raise InputError("there are no images: the array is empty")
    images = []
    for image in whole:
        if 0 in image.shape:
            raise InputError(f"there are no images: the array has shape {image.shape}")
        image = _contract(image[None])[0]
        check_batch(image[None], shape)
        images.append(image)
    return images


def _with_channels(image):
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3:
        raise InputError(f"an image is (height, width) or (height, width, channels), not of shape {image.shape}")
    return image


def _contract(images):
    """0..255 by the dtype alone, as in training; uint8 stays, all else becomes float32."""
    if images.dtype.kind not in "fiub":
        raise InputError(f"images must be numbers, not {images.dtype}")
    if images.dtype.kind == "u" and images.dtype.itemsize == 2:
        images = images.astype("uint16")  # files may have the other byte order
    if images.dtype in (bool, np.uint16):
        return to_contract(images)[0]
    return images if images.dtype == np.uint8 else images.astype("float32")


def _bar(steps, count, text, unit, progress):
    from tqdm import tqdm

    return tqdm(
        steps, total=count, desc=text, unit=unit, disable=count < PROGRESS_FROM if progress is None else not progress
    )


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
) -> np.ndarray:
    """Segment one image of any size, tile by tile, in memory that does not grow with its area.

    Overlapping tiles are averaged with weights that add up to one at each pixel. Tiles begin at multiples of 32 pixels where the model takes any
    size, so that they see the pooling grid of the whole image: with `margin` at least the radius of the receptive field, the result is that of the
    whole image. A net whose masks are smaller than its images (U-Net as published) gets the image mirrored at its border, as in that paper.

    Args:
        model: A segmenter, as for `predict_mask`.
        image: `(height, width)` or `(height, width, channels)`: an array, a memory map, or anything with `shape`, `dtype` and slices (HDF5, Zarr), of
            which only windows are read; or a file: .npy is memory-mapped, TIFF is read by windows where tifffile is installed, others as a whole.
        tile: Height and width of the tiles, or one number for both; default the model's own size, or 512.
        overlap: Of neighbouring tiles: a fraction of their size, 0 <= overlap < 1, or whole pixels.
        margin: Pixels at the inner borders of each tile that are thrown away (twice that must fit into the overlap).
        blend: `"hann"`: a tile's weight falls off smoothly to its border (Hann window); `"mean"`: all tiles count the same.
        batch_size: Tiles at once.
        tta: Test-time augmentation of each tile, as for `augmented`.
        probabilities: Return probabilities rather than class ids.
        out: A file name ending in .npy: the result is written there, whole or (on an error or Ctrl-C) not at all, and returned as a memory map. What
            is there already is replaced at the end.
        progress: Show a progress bar; default from 50 tiles.

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
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__") or batch_size < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
    shape = tuple(model.inputs[0].shape[1:])
    source = _Source(image, shape[2])
    tile = _tile_size(tile, shape[:2])
    lost = _lost(model, tile, shape[2])
    outputs = model.outputs[0].shape[-1]
    height, width = source.shape
    sides = list(zip((height, width), tile, lost))
    # A tile of another size at the end of the image, where the model takes it; else all tiles are of one size.
    free = shape[:2] == (None, None) and lost == (0, 0)
    plans = [_plan(side, size, not free, overlap, margin, gone, blend) for side, size, gone in sides]
    if free and not all(_keeps(model, *size, shape[2]) for size in product(*map(_sizes, plans))):
        plans = [_plan(side, size, True, overlap, margin, gone, blend) for side, size, gone in sides]
    form = ((height, width, outputs), "float32") if probabilities else ((height, width), _id_type(outputs))
    # Bands run along the shorter side, so that the band of sums that is in memory is small.
    along = 0 if width <= height else 1
    count = len(plans[0]) * len(plans[1])
    with _sink(out, *form) as write:
        bar = _bar(None, count, "segmenting", "tile", progress)
        with bar:
            for start, band in _bands(predicted, source, plans, lost, along, outputs, batch_size, bar):
                result = band if probabilities else _to_ids(band)
                if along:
                    result = result.swapaxes(0, 1)
                write(*((0, start) if along else (start, 0)), result)
    source.warn()
    return write.result()


@dataclass(frozen=True)
class _Piece:
    """One tile along one axis: the pixels that it answers for, what it reads around them, and its weights, which add up to one over all tiles."""

    start: int
    stop: int
    weights: np.ndarray


def _tile_size(tile, fixed):
    if tile is None:
        tile = 512
        return tuple(side or tile for side in fixed)
    tile = (tile, tile) if np.ndim(tile) == 0 else tuple(tile)
    if len(tile) != 2 or not all(
        hasattr(side, "__index__") and not isinstance(side, bool) and side >= 1 for side in tile
    ):
        raise InputError(f"a tile is a height and a width, whole numbers of at least 1, not {tile!r}")
    if any(want not in (None, have) for want, have in zip(fixed, tile)):
        raise InputError(
            f"the model takes images of {fixed[0]}x{fixed[1]} only, and tiles of {tile[0]}x{tile[1]} are asked for: leave out tile"
        )
    return tuple(int(side) for side in tile)


def _lost(model, tile, channels):
    """Pixels that the model's mask lacks at each border, `(rows, columns)`; (0, 0) for most nets."""
    try:
        given = _given(model, *tile, channels)
    except Exception as error:  # each backend has its own for shapes that do not go together
        raise InputError(
            f"the model takes no images of {tile[0]}x{tile[1]}: choose a tile whose sides are multiples of 32, or as the net wants them "
            f"({str(error).strip().splitlines()[-1][:200]})"
        ) from error
    if given == tile:
        return (0, 0)
    missing = [have - gave for have, gave in zip(tile, given)]
    strided = all(have in (2 * gave, 4 * gave, 8 * gave, 16 * gave, 32 * gave) for have, gave in zip(tile, given))
    if strided or any(m < 0 or m % 2 for m in missing):
        raise InputError(_other_size(tile, given))
    return tuple(m // 2 for m in missing)


def _keeps(model, height, width, channels):
    """Whether the model takes images of that size and gives masks of that size."""
    try:
        return _given(model, height, width, channels) == (height, width)
    except Exception:
        return False


def _given(model, height, width, channels):
    """The size of the mask for an image of that size; tried out where a stride may not divide it, since Keras does not always know."""
    shape = (1, height, width, channels)
    if height % _STRIDE or width % _STRIDE:
        return tuple(model.predict_on_batch(np.zeros(shape, "uint8")).shape[1:3])
    given = tuple(model.compute_output_shape(shape))[1:3]
    return (height, width) if None in given else given


def _sizes(pieces):
    return {piece.stop - piece.start for piece in pieces}


def _plan(side, size, fixed, overlap, margin, lost, blend):
    """The tiles along one axis of an image."""
    answered = size - 2 * lost
    if isinstance(overlap, bool) or not isinstance(overlap, (int, float, np.integer, np.floating)):
        raise InputError(f"overlap is a fraction or whole pixels, not {overlap!r}")
    shared = round(overlap * answered) if isinstance(overlap, (float, np.floating)) else int(overlap)
    if not 0 <= shared < answered:
        raise InputError(
            f"overlap is a fraction, 0 <= overlap < 1, or pixels below the tile's {answered}, not {overlap!r}"
        )
    if isinstance(margin, bool) or not hasattr(margin, "__index__") or margin < 0 or 2 * margin > shared:
        raise InputError(
            f"margin is whole pixels, and twice of it must fit into the overlap of {shared} pixels, which {margin!r} does not"
        )
    last = max(0, side - answered)
    step = answered - shared
    if not fixed:  # begin at multiples of the stride; the last tile is larger by what that leaves over
        unit = min(_STRIDE, 1 << (step.bit_length() - 1))
        step, last = step - step % unit, last - last % unit
    starts = [*range(0, last, step), last] if last else [0]
    stops = [side if start == last and not fixed else start + answered for start in starts]
    windows = []
    for start, stop in zip(starts, stops):
        length = stop - start
        place = np.arange(length)
        window = np.sin(np.pi * (place + 0.5) / length) ** 2 if blend == "hann" else np.ones(length)
        window[place < (margin if start > 0 else 0)] = 0
        window[place >= length - (margin if stop < side else 0)] = 0
        window[place >= side - start] = 0  # beyond the image
        windows.append(window)
    total = np.zeros(max(stops))
    for start, stop, window in zip(starts, stops, windows):
        total[start:stop] += window
    total[total == 0] = 1
    return [_Piece(a, b, (w / total[a:b]).astype("float32")) for a, b, w in zip(starts, stops, windows)]


def _bands(predicted, source, plans, lost, along, outputs, batch_size, bar):
    """Finished bands of the image, `(start, probabilities)`, with the axis that they follow one another along first."""
    outer, inner = plans[along], plans[1 - along]
    side, across = source.shape[along], source.shape[1 - along]
    sums, base = np.zeros((max(p.stop - p.start for p in outer), across, outputs), "float32"), 0
    for number, far in enumerate(outer):
        for group in _groups(inner, batch_size):
            windows = []
            for near in group:
                rows, columns = (far, near) if along == 0 else (near, far)
                windows.append(
                    source.window(
                        rows.start - lost[0], rows.stop + lost[0], columns.start - lost[1], columns.stop + lost[1]
                    )
                )
            batch = np.stack(windows)
            answers = predicted(batch)
            for near, y in zip(group, answers):
                if along:
                    y = y.swapaxes(0, 1)
                if y.shape[:2] != (far.stop - far.start, near.stop - near.start):
                    raise InputError(_other_size(batch.shape[1:3], y.shape[:2]))
                stop = min(near.stop, across)
                y = y * (far.weights[:, None, None] * near.weights[None, :, None])
                sums[: len(y), near.start : stop] += y[:, : stop - near.start]
            bar.update(len(group))
        done = outer[number + 1].start if number + 1 < len(outer) else side
        finished = done - base
        yield base, sums[:finished]
        if done < side:
            rest = len(sums) - finished
            sums[:rest] = sums[finished:].copy()
            sums[rest:] = 0
            base = done


def _groups(pieces, batch_size):
    """Tiles of one size, at most `batch_size` at a time and about equally many, so that few shapes are traced and none is filled up."""
    sizes = np.array([piece.stop - piece.start for piece in pieces])
    for size in dict.fromkeys(sizes.tolist()):
        same = np.flatnonzero(sizes == size)
        for part in np.array_split(same, -(-len(same) // batch_size)):
            yield [pieces[i] for i in part]


class _Source:
    """Windows of one image, brought to 0..255 and the model's channels; beyond its border it is mirrored."""

    def __init__(self, image, channels):
        self.convert = isinstance(image, (str, Path))  # files are converted, arrays must fit, as everywhere
        self.values = _open(Path(image)) if self.convert else image
        if not hasattr(self.values, "shape") or not hasattr(self.values, "dtype"):
            self.values = np.asarray(self.values)
        shape = tuple(self.values.shape)
        if len(shape) == 4 and shape[0] == 1:
            raise InputError("predict_tiled takes one image (height, width, channels): give image[0]")
        if len(shape) not in (2, 3) or 0 in shape:
            raise InputError(
                f"one image (height, width) or (height, width, channels) is expected, not of shape {shape}"
            )
        self.channels, self.shape, self.high = channels, shape[:2], 0.0
        have = shape[2] if len(shape) == 3 else 1
        if have != channels and not (self.convert and have in (1, 3, 4) and channels in (1, 3)):
            hint = (
                "; its channels come first: np.moveaxis(image, 0, -1)"
                if len(shape) == 3 and shape[0] == channels
                else ""
            )
            raise InputError(f"the model takes images with {channels} channel(s) and this one has {have}{hint}")

    def window(self, top, bottom, left, right):
        rows, columns = _mirrored(top, bottom, self.shape[0]), _mirrored(left, right, self.shape[1])
        (a, b), (c, d) = ((int(index.min()), int(index.max()) + 1) for index in (rows, columns))
        values = np.asarray(self.values[a:b, c:d])
        if values.ndim == 2:
            values = values[..., None]
        values = values[rows - a][:, columns - c]
        values = _contract(values[None])
        if self.convert:
            values = _channels(values, self.channels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one dark tile does not mean 0..1: the whole image is judged at the end
            check_batch(values)
        if values.dtype != np.uint8:
            self.high = max(self.high, float(values.max()))
        return values[0]

    def warn(self):
        """Say once, of the whole image, what `check_batch` says of a batch."""
        if 0 < self.high <= 1:
            warnings.warn(
                f"the image holds values up to {self.high:.4g}, which looks like 0..1 where 0..255 is expected: multiply it by 255",
                stacklevel=3,
            )


def _mirrored(start, stop, side):
    """Indices start..stop-1 of an axis that is mirrored at both ends, border pixels repeated, as often as it takes."""
    index = np.arange(start, stop) % (2 * side)
    return np.where(index < side, index, 2 * side - 1 - index)


def _open(path):
    """A file as an array or something that is read by windows."""
    if not path.is_file():
        raise DataError(f"there is no image {str(path)!r}")
    if path.suffix.lower() == ".npy":
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:
            raise DataError(f"{str(path)!r} is damaged or no .npy file ({error})") from error
    if path.suffix.lower() in (".tif", ".tiff"):
        with contextlib.suppress(ImportError, DataError):  # what tifffile cannot, Pillow may
            return _Tiff(path)
    return _whole(path)


def _whole(path):
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is what this function is for
            with Image.open(path) as image:
                if image.mode not in ("L", "RGB", "RGBA") and not image.mode.startswith("I;16"):
                    image.close()
                    return read_image(path)
                return np.asarray(image)
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{str(path)!r} has more pixels than Pillow reads: convert it to .npy, or to TIFF and pip install 'cnn-zoo[tiff]'"
        ) from error
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{str(path)!r} is damaged or no image that can be read ({error})") from error


class _Tiff:
    """The first picture of a TIFF file, of which strips or tiles are decoded when a window needs them; the latest are kept."""

    def __init__(self, path):
        import tifffile

        self._kept, self._room, self._path = {}, 256 << 20, path
        try:
            with tifffile.TiffFile(path) as file:
                page = self._page = file.pages[0]
                self.shape, self.dtype = page.shape, page.dtype
                ordinary = page.axes in ("YX", "YXS") and page.planarconfig == 1 and page.photometric in (1, 2)
                self._mapped = tifffile.memmap(path, page=0, mode="r") if ordinary and page.is_memmappable else None
        except Exception as error:
            raise DataError(f"{str(path)!r} is damaged or no TIFF that can be read ({error})") from error
        if not ordinary:
            raise DataError(f"{str(path)!r} is no plain gray or RGB picture (axes {page.axes}, {page.photometric!r})")
        if self._mapped is None:
            self._segment(0)  # can it be decompressed?

    def __getitem__(self, key):
        rows, columns = key
        if self._mapped is not None:
            return self._mapped[rows, columns]
        page = self._page
        result = np.zeros((rows.stop - rows.start, columns.stop - columns.start, *self.shape[2:]), self.dtype)
        across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
        high = page.tilelength if page.is_tiled else page.rowsperstrip
        wide = page.tilewidth if page.is_tiled else page.imagewidth
        for down in range(rows.start // high, -(-rows.stop // high)):
            for over in range(columns.start // wide, -(-columns.stop // wide)):
                part, top, left = self._segment(down * across + over), down * high, over * wide
                a, b = max(rows.start, top), min(rows.stop, top + part.shape[0])
                c, d = max(columns.start, left), min(columns.stop, left + part.shape[1])
                result[a - rows.start : b - rows.start, c - columns.start : d - columns.start] = part[
                    a - top : b - top, c - left : d - left
                ]
        return result

    def _segment(self, index):
        if index in self._kept:
            self._kept[index] = self._kept.pop(index)  # the latest used is last
            return self._kept[index]
        page = self._page
        try:
            with open(self._path, "rb") as file:
                file.seek(page.dataoffsets[index])
                data = file.read(page.databytecounts[index])
            part, _, size = page.decode(data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)
        except Exception as error:
            raise DataError(
                f"{str(self._path)!r} is damaged, or compressed in a way that needs pip install imagecodecs ({error})"
            ) from error
        if part is None:  # a segment that was left out is all zeros
            part = np.zeros(size, self.dtype)
        part = part[0].reshape(*part.shape[1:3], *self.shape[2:])
        self._kept[index] = part
        while sum(p.nbytes for p in self._kept.values()) > self._room and len(self._kept) > 1:
            del self._kept[next(iter(self._kept))]
        return part


class _sink:  # noqa: N801 - a context manager, used as a function
    """Takes blocks of the result: into memory, or into a .npy file that appears when it is whole."""

    def __init__(self, path, shape, dtype):
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)

    def __enter__(self):
        if self.path is None:
            self.array = np.empty(self.shape, self.dtype)
            return self
        self._replacing = replacing(self.path)
        aside = self._replacing.__enter__()
        self._file = None
        try:
            # Plain writes, no memory map: a disk that fills up is then an error, not the end of the process.
            self._file = open(aside, "wb")
            shape = tuple(int(side) for side in self.shape)
            header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._file, header)
            self._offset = self._file.tell()
            _reserve(self._file, self._offset + int(np.prod(self.shape)) * self.dtype.itemsize)
        except BaseException as error:
            if self._file is not None:
                self._file.close()
            if not self._replacing.__exit__(type(error), error, error.__traceback__):
                raise
        return self

    def __call__(self, top, left, block):
        if self.path is None:
            self.array[top : top + block.shape[0], left : left + block.shape[1]] = block
            return
        pixel = int(np.prod(self.shape[2:])) * self.dtype.itemsize
        block = np.ascontiguousarray(block, self.dtype)
        if block.shape[1] == self.shape[1]:
            self._file.seek(self._offset + top * self.shape[1] * pixel)
            self._file.write(block.data)
            return
        for row, values in enumerate(block, top):
            self._file.seek(self._offset + (row * self.shape[1] + left) * pixel)
            self._file.write(values.data)

    def __exit__(self, kind, error, trace):
        if self.path is None:
            return False
        try:
            self._file.close()
        except OSError as late:
            if error is None:
                kind, error, trace = type(late), late, late.__traceback__
        return self._replacing.__exit__(kind, error, trace)

    def result(self):
        return self.array if self.path is None else np.load(self.path, mmap_mode="r")


def _reserve(file, size):
    """Take the room on the disk at once: that it is full shows now rather than after hours."""
    file.flush()
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except AttributeError:  # Windows and macOS have no such call
        file.truncate(size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        file.truncate(size)  # a file system that cannot


# From masks to regions to classes


@dataclass(frozen=True)
class Region:
    """One connected region of a mask, and what a classifier says of it.

    Attributes:
        box: `(top, left, bottom, right)` in pixels, bottom and right beyond the last one.
        area: Pixels of the region.
        id: Its class id in the mask.
        label: The most probable class, as a number; None without a classifier.
        name: Its name.
        probability: Its probability.
        probabilities: `(classes,)`.
    """

    box: tuple[int, int, int, int]
    area: int
    id: int
    label: int | None = None
    name: str | None = None
    probability: float | None = None
    probabilities: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)


def regions(mask, *, min_area: int = 1, background=0, ignore=None) -> list[Region]:
    """The connected regions (eight neighbours) of each class id of a mask, from top to bottom.

    Args:
        mask: `(height, width)` class ids, or labels of single objects.
        min_area: Smaller regions are left out, in pixels.
        background: Id or ids that are no region; None: none.
        ignore: More such ids.

    Raises:
        InputError: No such mask.
    """
    from scipy import ndimage

    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "iub":
        raise InputError(
            f"a mask of class ids has shape (height, width) and whole numbers, not {mask.dtype} {mask.shape}"
        )
    if isinstance(min_area, bool) or not hasattr(min_area, "__index__") or min_area < 1:
        raise InputError(f"min_area is whole pixels, at least 1, not {min_area!r}")
    out = {int(i) for entry in (background, ignore) if entry is not None for i in np.atleast_1d(entry)}
    values, dense = np.unique(mask, return_inverse=True)
    boxes = ndimage.find_objects(dense.reshape(mask.shape).astype("int32") + 1)
    found = []
    for i, place in zip(values.tolist(), boxes):
        if i in out:
            continue
        labels, count = ndimage.label(mask[place] == i, np.ones((3, 3)))
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        for area, (rows, columns) in zip(areas.tolist(), ndimage.find_objects(labels)):
            if area >= min_area:
                top, left = place[0].start, place[1].start
                box = (top + rows.start, left + columns.start, top + rows.stop, left + columns.stop)
                found.append(Region(box, area, int(i)))
    return sorted(found, key=lambda region: (region.box[:2], region.id))


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
    if isinstance(image, (str, Path)):
        image = read_image(image)
    image = _contract(_with_channels(np.asarray(image))[None])[0]
    if isinstance(segmenter, keras.Model):
        wanted = segmenter.inputs[0].shape[-1]
        mask = predict_mask(segmenter, _channels(image, wanted)).ids[0]
    else:
        mask = np.asarray(segmenter(image) if callable(segmenter) else segmenter)
    if mask.shape != image.shape[:2]:
        raise InputError(
            f"the mask is {mask.shape} and the image {image.shape[:2]}: both must have one height and width"
        )
    found = regions(mask, min_area=min_area, background=background, ignore=ignore)
    if not found:
        return []
    shape = classifier.input_shape[1:]
    source, said = _channels(image, shape[-1]), []
    size = tuple(side or CROP for side in shape[:2])
    for start in range(0, len(found), batch_size):
        crops = []
        for region in found[start : start + batch_size]:
            top, left, bottom, right = region.box
            extra = (
                round(margin * max(bottom - top, right - left))
                if isinstance(margin, (float, np.floating))
                else int(margin)
            )
            crop = source[max(0, top - extra) : bottom + extra, max(0, left - extra) : right + extra]
            crops.append(resize(crop[None], size)[0])
        answer = predict(classifier, np.stack(crops), classes=classes, batch_size=batch_size)
        said += [(int(label), answer.classes[label], row) for label, row in zip(answer.labels, answer.probabilities)]
    return [
        dataclasses.replace(region, label=label, name=name, probability=float(row[label]), probabilities=row)
        for region, (label, name, row) in zip(found, said)
    ]


def _channels(image, channels):
    """Gray to RGB by repetition and RGB to gray by ITU-R BT.601, where a model asks for the other."""
    have = image.shape[-1]
    if have == channels:
        return image
    if have == 1 and channels == 3:
        return np.repeat(image, 3, axis=-1)
    if have in (3, 4) and channels == 1:
        return (image[..., :3].astype("float32") @ np.array([[0.299], [0.587], [0.114]], "float32")).clip(0, 255)
    if have == 4 and channels == 3:
        return image[..., :3]
    raise InputError(f"the model takes images with {channels} channel(s) and this one has {have}")
