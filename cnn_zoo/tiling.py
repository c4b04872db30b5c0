"""Images of any size, tile by tile: where tiles lie and what they weigh, reading by windows, and writing by bands. Knows nothing of models."""

import contextlib
import errno
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_zoo.data import check_batch, read_image
from cnn_zoo.data.arrays import to_contract
from cnn_zoo.errors import DataError, InputError
from cnn_zoo.files import replacing

STRIDE = 32  # the strides of nets are powers of two up to this: tiles that begin at a multiple see the pooling grid of the whole image


@dataclass(frozen=True)
class Span:
    """One tile along one axis: its pixels, and their weights, which add up to one over all tiles."""

    start: int
    stop: int
    weights: np.ndarray


def plan(side: int, size: int, overlap, margin: int, blend: str, free: bool) -> list[Span]:
    """The tiles along one axis of an image.

    Args:
        side: Pixels of the axis.
        size: Pixels of a tile.
        overlap: Of neighbours: a fraction of the size, or whole pixels.
        margin: Pixels at inner borders that weigh nothing; twice that must fit into the overlap.
        blend: "hann" or "mean".
        free: Tiles begin at multiples of `STRIDE`, and the last one may be of another size, up to the end of the image. Otherwise all are of
            one size, and a single one reaches beyond a smaller image.

    Raises:
        InputError: Overlap or margin make no sense.
    """
    if isinstance(overlap, bool) or not isinstance(overlap, (int, float, np.integer, np.floating)):
        raise InputError(f"overlap is a fraction or whole pixels, not {overlap!r}")
    shared = round(overlap * size) if isinstance(overlap, (float, np.floating)) else int(overlap)
    if not 0 <= shared < size:
        raise InputError(f"overlap is a fraction, 0 <= overlap < 1, or pixels below the tile's {size}, not {overlap!r}")
    if isinstance(margin, bool) or not hasattr(margin, "__index__") or margin < 0 or 2 * margin > shared:
        raise InputError(
            f"margin is whole pixels, and twice of it must fit into the overlap of {shared} pixels, which {margin!r} does not"
        )
    last, step = max(0, side - size), size - shared
    if free:
        unit = min(STRIDE, 1 << (step.bit_length() - 1))
        step, last = step - step % unit, last - last % unit
    starts = [*range(0, last, step), last] if last else [0]
    stops = [side if free and start == last else start + size for start in starts]
    windows = []
    for start, stop in zip(starts, stops):
        place = np.arange(stop - start)
        window = np.sin(np.pi * (place + 0.5) / len(place)) ** 2 if blend == "hann" else np.ones(len(place))
        window[: margin if start > 0 else 0] = 0
        window[len(place) - margin if stop < side else side - start :] = 0
        windows.append(window)
    total = np.zeros(max(stops))
    for start, stop, window in zip(starts, stops, windows):
        total[start:stop] += window
    total[total == 0] = 1  # beyond the image
    return [Span(a, b, (w / total[a:b]).astype("float32")) for a, b, w in zip(starts, stops, windows)]


def bands(predicted, source: "Source", plans, lost, outputs: int, batch_size: int, bar):
    """Blend tiles, and give finished bands as `(top, left, probabilities)`; a band is overwritten when the next one is asked for.

    Args:
        predicted: From a batch of tiles to `(batch, height, width, outputs)`.
        source: The image.
        plans: Tiles along rows and along columns.
        lost: Pixels `(rows, columns)` that a prediction lacks at each border of its tile: so much more is read around each.
        outputs: Channels of the prediction.
        batch_size: Tiles at once, at most.
        bar: Told of each batch.
    """
    along = int(source.shape[1] > source.shape[0])  # across the shorter side: the band in memory is small
    outer, inner = plans[along], plans[1 - along]
    across = source.shape[1 - along]
    sums = np.zeros((max(len(far.weights) for far in outer), across, outputs), "float32")
    for far, after in zip(outer, [*(far.start for far in outer[1:]), source.shape[along]]):
        for group in _groups(inner, batch_size):
            tiles = [(near, far) if along else (far, near) for near in group]
            batch = np.stack(
                [source.window(*((t.start - n, t.stop + n) for t, n in zip(tile, lost))) for tile in tiles]
            )
            for near, y in zip(group, predicted(batch)):
                y = y.swapaxes(0, 1) if along else y
                y = y * (far.weights[:, None, None] * near.weights[None, :, None])
                stop = min(near.stop, across)
                sums[: len(y), near.start : stop] += y[:, : stop - near.start]
            bar.update(len(group))
        done = after - far.start
        yield (0, far.start, sums[:done].swapaxes(0, 1)) if along else (far.start, 0, sums[:done])
        sums[:-done] = sums[done:].copy()
        sums[-done:] = 0


def _groups(spans, batch_size):
    """Tiles of one size, at most `batch_size` at a time and about equally many, so that few shapes are traced and none is filled up."""
    sizes = np.array([len(span.weights) for span in spans])
    for size in dict.fromkeys(sizes.tolist()):
        same = np.flatnonzero(sizes == size)
        for part in np.array_split(same, -(-len(same) // batch_size)):
            yield [spans[i] for i in part]


# Reading


def contract(images) -> np.ndarray:
    """A batch of images to 0..255 by its dtype alone, as in training; uint8 stays, all else becomes float32."""
    if images.dtype.kind not in "fiub":
        raise InputError(f"images must be numbers, not {images.dtype}")
    if images.dtype.kind == "u" and images.dtype.itemsize == 2:
        images = images.astype("uint16")  # files may have the other byte order
    if images.dtype in (bool, np.uint16):
        return to_contract(images)[0]
    return images if images.dtype == np.uint8 else images.astype("float32")


def to_channels(images, channels: int) -> np.ndarray:
    """Gray to RGB by repetition and RGB to gray by ITU-R BT.601, where a model asks for the other; alpha is dropped."""
    have = images.shape[-1]
    if have == channels:
        return images
    if have == 1 and channels == 3:
        return np.repeat(images, 3, axis=-1)
    if have in (3, 4) and channels == 1:
        return (images[..., :3].astype("float32") @ np.array([[0.299], [0.587], [0.114]], "float32")).clip(0, 255)
    if have == 4 and channels == 3:
        return images[..., :3]
    raise InputError(f"the model takes images with {channels} channel(s) and this one has {have}")


class Source:
    """Windows of one image, brought to 0..255 and the model's channels; beyond its border it is mirrored.

    Args:
        image: An array `(height, width[, channels])`, anything else with `shape`, `dtype` and slices, or a file. Files are converted to the
            model's channels, arrays must have them, as everywhere.
        channels: Of the model.
        intensity: The rule by which values become 0..255; None: by their type.
    """

    def __init__(self, image, channels: int, intensity=None):
        self.channels, self.high, self.convert, self.intensity = (
            channels,
            0.0,
            isinstance(image, (str, Path)),
            intensity,
        )
        self.values = open_image(image) if self.convert else image
        if not hasattr(self.values, "shape") or not hasattr(self.values, "dtype"):
            self.values = np.asarray(self.values)
        shape = tuple(self.values.shape)
        if len(shape) == 4 and shape[0] == 1:
            raise InputError("predict_tiled takes one image (height, width, channels): give image[0]")
        if len(shape) not in (2, 3) or 0 in shape:
            raise InputError(
                f"one image (height, width) or (height, width, channels) is expected, not of shape {shape}"
            )
        self.shape, have = shape[:2], (*shape, 1)[2]
        if not self.convert and have != channels:
            first = "; its channels come first: np.moveaxis(image, 0, -1)" if (*shape, 1)[0] == channels else ""
            raise InputError(f"the model takes images with {channels} channel(s) and this one has {have}{first}")

    def window(self, vertical, horizontal) -> np.ndarray:
        """`(height, width, channels)` from `(top, bottom)` and `(left, right)`, which may lie beyond the image."""
        rows, columns = _mirrored(*vertical, self.shape[0]), _mirrored(*horizontal, self.shape[1])
        top, left = int(rows.min()), int(columns.min())
        values = np.asarray(self.values[top : int(rows.max()) + 1, left : int(columns.max()) + 1])
        values = values[..., None] if values.ndim == 2 else values
        values = values[rows - top][:, columns - left][None]
        if self.intensity is None:
            values = contract(values)
            values = to_channels(values, self.channels) if self.convert else values
        else:
            values = to_channels(values, self.channels) if self.convert else values
            values = self.intensity.apply(values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one dark tile does not mean 0..1: the whole image is judged at the end
            check_batch(values)
        if values.dtype != np.uint8:
            self.high = max(self.high, float(values.max()))
        return values[0]

    def warn(self) -> None:
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


def open_image(path):
    """An image file as it is stored, `(height, width[, channels])`: .npy and TIFF as memory maps, others read as a whole.

    Raises:
        DataError: It is missing, damaged, or too large for Pillow.
    """
    from PIL import Image

    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no image {str(path)!r}")
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix.lower() in (".tif", ".tiff"):
            with contextlib.suppress(Exception):  # what tifffile cannot, or where it is not installed, Pillow may
                return _tiff(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is what tiles are for
            with Image.open(path) as image:
                if image.mode in ("L", "RGB", "RGBA") or image.mode.startswith("I;16"):
                    return np.asarray(image)
        return read_image(path)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{str(path)!r} has more pixels than Pillow reads: convert it to .npy, or to TIFF and pip install tifffile"
        ) from error
    except Exception as error:  # damaged bytes raise what Pillow's and NumPy's readers like
        raise DataError(f"{str(path)!r} is damaged or no image that can be read ({error})") from error


def _tiff(path):
    """The first picture of a TIFF file as a memory map: of the file itself, or, where that is compressed, of a temporary one."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if page.axes not in ("YX", "YXS", "SYX") or page.photometric not in (1, 2):
            raise ValueError(f"axes {page.axes}, {page.photometric!r}: no plain gray or RGB picture")
        values = tifffile.memmap(path, page=0, mode="r") if page.is_memmappable else page.asarray(out="memmap")
    return np.moveaxis(values, 0, -1) if page.axes == "SYX" else values


# Writing


@contextlib.contextmanager
def npy_writer(path, shape, dtype):
    """A function `write(top, left, block)` into a .npy file, which appears at the end and whole, or not at all.

    Plain writes and no memory map: a disk that fills up is then an error, not the end of the process.

    Raises:
        StorageError: It cannot be written; that the disk is too full shows before anything is.
    """
    dtype = np.dtype(dtype)
    pixel = int(np.prod(shape[2:])) * dtype.itemsize
    with replacing(path) as aside, open(aside, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(map(int, shape))}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        _reserve(file, offset + shape[0] * shape[1] * pixel)

        def write(top, left, block):
            whole = block.shape[1] == shape[1]
            for row, values in ((top, block),) if whole else enumerate(block, top):
                file.seek(offset + (row * shape[1] + left) * pixel)
                file.write(np.ascontiguousarray(values, dtype).data)

        yield write


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
