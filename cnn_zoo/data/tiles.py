"""Tiles of huge images as training samples: windows that are read when they are asked for, more of them where there is something."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from cnn_zoo.data.arraylike import Rows, files_hash
from cnn_zoo.data.arrays import Split
from cnn_zoo.data.formats import ImageInfo, _replace, inspect, read_array, read_ids, read_many, to_channels
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.errors import DataError, InputError

KEPT = 4096  # pixels of objects a mask, drawn at random, about which windows are laid


def tiles(
    images,
    masks=None,
    *,
    size,
    count: int,
    foreground: float = 0.5,
    background: int = 0,
    ignore=(),
    values: dict | None = None,
    channels: int | None = None,
    intensity: Intensity | str = "dtype",
    seed: int = 0,
):
    """Windows of large images, and of their masks, as arrays that read when they are indexed.

    Where window k lies is a function of `seed` and k alone. A share `foreground` of the windows is laid about a pixel that is not background, drawn
    at random, so that small objects in large images are seen; the others lie anywhere. Of a TIFF and a .npy only the window is read; of other
    files the whole image is, and the last few are kept in memory.

    Args:
        images: Files.
        masks: Their masks, in the same order, of the same sizes; or None.
        size: Height and width of a window in pixels, an integer or a pair.
        count: Number of windows.
        foreground: Share of windows about an object, 0..1; without masks 0.
        background: The id that is no object.
        ignore: Ids that are no object, either.
        values: Numbers in masks to replace, as for `MaskFiles`.
        channels: As for `ImageFiles`.
        intensity: An `Intensity` that is fitted, or the name of a rule that needs no numbers. `"minmax"` would differ from window to window and is
            refused.
        seed: Of the windows.

    Returns:
        A `Split` of `(count, height, width, channels)` and `(count, height, width)`; or, without masks, the images alone.

    Raises:
        DataError: Files that cannot be read, a mask of another size than its image, an image smaller than a window.
        InputError: Arguments that are none of these.
    """
    files = [Path(path) for path in images]
    size = (size, size) if np.ndim(size) == 0 else tuple(size)
    for value in (*size, count):
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
            raise InputError(f"size and count are whole numbers of at least 1, not {value!r}")
    if not 0 <= foreground <= 1:
        raise InputError(f"foreground is a share, 0..1, not {foreground!r}")
    intensity = Intensity(intensity) if isinstance(intensity, str) else intensity
    if intensity.rule == "minmax" or not intensity.fitted:
        raise InputError(
            f"the rule {intensity.rule!r} is none for windows: fit it first, or give Intensity('range', low, high)"
        )
    if masks is not None and len(masks) != len(files):
        raise InputError(f"there are {len(files)} images and {len(masks)} masks: one mask an image is expected")
    infos, _ = read_many(files, read=_large)
    for path, info in zip(files, infos):
        if info.height < size[0] or info.width < size[1]:
            raise DataError(
                f"{str(path)!r} is {info.height}x{info.width}, smaller than a window of {size[0]}x{size[1]}"
            )
    found = {info.channels for info in infos}
    if channels is None and len(found) > 1:
        raise DataError(f"the images have {', '.join(map(str, sorted(found)))} channels: give channels=")
    channels = channels or found.pop()
    objects = None
    if masks is not None:
        masks = [Path(path) for path in masks]
        known = tuple(int(i) for i in np.atleast_1d(ignore).astype(int))
        answers, _ = read_many(
            range(len(masks)), read=lambda i: _objects(masks[i], infos[i], (background, *known), values, (seed, i))
        )
        objects, types = [points for points, _ in answers], [kind for _, kind in answers]
    windows = _windows(infos, objects, size, count, foreground, seed)
    plain = intensity.rule == "dtype" and all(info.dtype in ("uint8", "bool") for info in infos)
    rule = {"size": list(size), "foreground": foreground, "background": background, "seed": seed}
    pictures = Windows(files, windows, size, (channels,), "uint8" if plain else "float32", rule, intensity)
    if masks is None:
        return pictures
    return Split(
        pictures, Windows(masks, windows, size, (), np.result_type(*types), {**rule, "values": values}, None, values)
    )


class Windows(Rows):
    """Windows of files as an array that reads when it is indexed; made by `tiles`.

    Attributes:
        files: The files.
        windows: `(n, 3)`: number of the file, top and left of each window.
    """

    def __init__(self, files, windows, size, channels, dtype, rule, intensity=None, values=None):
        self.files, self.windows, self.size, self.intensity = files, windows, size, intensity
        self._rule, self._values = rule, values
        super().__init__(len(windows), (*size, *channels), dtype)

    def describe(self) -> dict:
        """The rules, and one hash over the windows and the names and contents of the files."""
        values = {str(old): int(new) for old, new in (self._values or {}).items()}
        return {
            "count": len(self),
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            **self._rule,
            "values": values or None,
            "intensity": None if self.intensity is None else self.intensity.describe(),
            "sha256": files_hash([self.files[i] for i in self.windows[self._rows, 0]]),
        }

    def _row(self, row):
        number, top, left = self.windows[row].tolist()
        values = read_window(self.files[number], top, left, *self.size, ids=self.intensity is None, values=self._values)
        if self.intensity is None:
            return values.astype(self.dtype, copy=False)
        return self.intensity.apply(to_channels(values, self._item[-1])).astype(self.dtype, copy=False)


def read_window(
    path, top: int, left: int, height: int, width: int, *, ids: bool = False, values: dict | None = None
) -> np.ndarray:
    """A window of an image, `(height, width, channels)` as stored, or with `ids` of a mask, `(height, width)`.

    Raises:
        DataError: As `read_array` and `read_ids`.
    """
    path = Path(path)
    rows, columns = slice(top, top + height), slice(left, left + width)
    part = _part(path, rows, columns)
    if part is None:
        return (_whole_ids(path, _key(values)) if ids else _whole(path))[rows, columns].copy()
    if not ids:
        return part
    if part.shape[-1] != 1 or part.dtype.kind not in "iub":
        return _whole_ids(path, _key(values))[rows, columns].copy()
    part = part[..., 0]
    return _replace(part.astype("uint8") if part.dtype == bool else part, values)


def _part(path, rows, columns):
    """The window where it can be read by itself, else None."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim in (2, 3):
            return np.array(array[rows, columns]).reshape(rows.stop - rows.start, columns.stop - columns.start, -1)
    if suffix in (".tif", ".tiff"):
        return _tiff_part(path, rows, columns)
    return None


def _tiff_part(path, rows, columns):
    """A window of the first page, from the strips or tiles that it touches; None for kinds that only the whole reader knows."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        orientation = page.tags.get("Orientation")
        plain = (
            page.photometric in (1, 2) and page.planarconfig == 1 and not page.extrasamples and page.bitspersample >= 8
        )
        alone = len(file.series) > 0 and set(file.series[0].axes) <= set("YXS")
        if not (plain and alone and page.imagedepth == 1 and (orientation is None or orientation.value == 1)):
            return None
        samples = page.samplesperpixel
        result = np.zeros((rows.stop - rows.start, columns.stop - columns.start, samples), page.dtype)
        deep, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        across = -(-page.imagewidth // wide)
        for i in range(rows.start // deep, -(-rows.stop // deep)):
            for j in range(columns.start // wide, -(-columns.stop // wide)):
                number = i * across + j
                start, size = page.dataoffsets[number], page.databytecounts[number]
                if start + size > file.filehandle.size:
                    raise DataError(f"{str(path)!r} is damaged (TIFF data that break off): get the file again")
                top, left = max(rows.start, i * deep), max(columns.start, j * wide)
                bottom, right = min(rows.stop, (i + 1) * deep), min(columns.stop, (j + 1) * wide)
                if page.compression == 1 and page.predictor == 1:  # rows of it, straight from the file
                    item = wide * samples * page.dtype.itemsize
                    file.filehandle.seek(start + (top - i * deep) * item)
                    lines = np.frombuffer(
                        file.filehandle.read((bottom - top) * item), page.dtype.newbyteorder(file.byteorder)
                    ).reshape(bottom - top, wide, samples)
                    piece = lines[:, left - j * wide : right - j * wide]
                else:
                    file.filehandle.seek(start)
                    try:
                        segment = page.decode(file.filehandle.read(size), number, jpegtables=page.jpegtables)[0]
                    except ValueError:  # a compression that needs imagecodecs
                        return None
                    if segment is None:
                        continue  # an empty tile, all 0
                    piece = segment[0, top - i * deep : bottom - i * deep, left - j * wide : right - j * wide]
                result[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = piece
    return result


@lru_cache(maxsize=4)
def _whole(path):
    return read_array(path, max_pixels=2**40)


@lru_cache(maxsize=4)
def _whole_ids(path, values):
    return read_ids(path, values=dict(values), max_pixels=2**40)


def _key(values):
    return tuple(sorted((values or {}).items(), key=str))


def _large(path) -> ImageInfo:
    return inspect(path, max_pixels=2**40)  # that they are huge is what this is for


def _objects(path, info, none, values, seed):
    """Rows and columns of pixels of objects, at most `KEPT`, and the type of the ids."""
    ids = read_ids(path, values=values, max_pixels=2**40)
    if ids.shape != (info.height, info.width):
        raise DataError(f"{str(path)!r} is {ids.shape[0]}x{ids.shape[1]} and its image {info.height}x{info.width}")
    flat = np.flatnonzero(~np.isin(ids, none))
    if len(flat) > KEPT:
        flat = np.random.default_rng(seed).choice(flat, KEPT, replace=False)
    return np.stack(np.unravel_index(flat, ids.shape), 1), ids.dtype


def _windows(infos, objects, size, count, foreground, seed):
    """File, top and left of each window."""
    areas = np.array([float(info.height) * info.width for info in infos])
    holding = np.array([len(points) > 0 for points in objects]) if objects else np.zeros(len(infos), bool)
    result = np.empty((count, 3), int)
    for k in range(count):
        rng = np.random.Generator(np.random.Philox(key=[seed, k]))
        about = rng.random() < foreground and holding.any()
        chances = areas * holding if about else areas
        number = rng.choice(len(infos), p=chances / chances.sum())
        free = [infos[number].height - size[0], infos[number].width - size[1]]
        if about:  # the pixel lies anywhere within the window
            point = objects[number][rng.integers(len(objects[number]))]
            low = np.maximum(0, point - np.array(size) + 1)
            corner = rng.integers(low, np.minimum(point, free) + 1)
        else:
            corner = rng.integers(0, np.array(free) + 1)
        result[k] = number, *corner
    return result
