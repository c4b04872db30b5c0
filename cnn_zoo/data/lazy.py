"""Files that look like arrays: images and masks that are read, in parallel, when they are indexed."""

import copy
import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from cnn_zoo.data.formats import inspect, pool, read_array, read_ids, read_many, to_channels
from cnn_zoo.data.images import list_images
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.data.sizes import Size
from cnn_zoo.errors import DataError, InputError
from cnn_zoo.files import sha256


class _Files:
    """What images and masks have in common: a subclass sets `paths`, `shape`, `dtype`, reads one file in `_one`, names its `_rules`."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index) -> np.ndarray:
        """One (an integer) or several (a slice, an array of indices or of bools), read by as many threads as are worth it.

        Raises:
            DataError: Files that cannot be read, all of them named.
        """
        chosen = np.arange(len(self))[index]
        if chosen.ndim == 0:
            return self._one(self.paths[int(chosen)])
        if chosen.ndim != 1:
            raise InputError("files are indexed by an integer, a slice, or a list of integers")
        result = np.empty((len(chosen), *self.shape[1:]), self.dtype)

        def fill(row):
            result[row] = self._one(self.paths[chosen[row]])

        if len(chosen) == 1:
            fill(0)
        else:
            read_many(range(len(chosen)), read=fill)
        return result

    def take(self, indices):
        """The same files at these indices, in this order; nothing is read."""
        result = copy.copy(self)
        result.paths = [self.paths[i] for i in np.arange(len(self))[indices]]
        result.shape = (len(result.paths), *self.shape[1:])
        return result

    def describe(self) -> dict:
        """What a run keeps, as plain values: the rules, and one hash over the names and contents of the files, in their order.

        The hash does not depend on the folder or on modification times. All files are read for it.
        """
        state = hashlib.sha256()
        for path, found in zip(self.paths, pool().map(sha256, self.paths)):
            state.update(f"{Path(path).name}\0{found}\n".encode())
        return {"count": len(self), "shape": list(self.shape), "dtype": str(self.dtype), **self._rules()} | {
            "sha256": state.hexdigest()
        }


class ImageFiles(_Files):
    """Image files as an array `(n, height, width, channels)`, 0..255, that reads when it is indexed.

    Each file is read, brought to `channels`, then by `intensity` to 0..255, then to `size`.

    Attributes:
        paths: One path an image.
        shape: `(n, height, width, channels)`.
        dtype: uint8, or float32 where the intensity rule gives fractions.
        intensity: The rule.

    Args:
        paths: Paths, or a folder, as for `list_images`.
        channels: 1, 3, ...; None: as the files have, which must then agree. Gray is repeated, colour becomes gray by ITU-R BT.601, transparency is
            dropped (kept for 4).
        size: A `Size`; None: as the files are, which must then agree.
        intensity: An `Intensity`, or the name of a rule.
        frame: Which picture of a file with several; None: the first.
        on_error: `"raise"` looks at all headers now and names all bad files in one error; what is damaged behind its header is named when it is
            read. `"skip"` reads every file once now, to leave out with a warning what cannot be read.
        max_pixels: As for `read_array`.

    Raises:
        DataError: No files, files that cannot be read, or that differ in size or channels without a rule.
        InputError: Arguments that are none of these.
    """

    def __init__(
        self,
        paths,
        *,
        channels: int | None = None,
        size: Size | None = None,
        intensity: Intensity | str = "dtype",
        frame: int | None = None,
        on_error: str = "raise",
        max_pixels: int | None = None,
    ):
        if channels is not None and (isinstance(channels, bool) or not hasattr(channels, "__index__") or channels < 1):
            raise InputError(f"channels is a whole number of at least 1, not {channels!r}")
        _check_size(size)
        self.size, self.frame, self._max_pixels = size, frame, max_pixels
        self.intensity = Intensity(intensity) if isinstance(intensity, str) else intensity
        if not isinstance(self.intensity, Intensity):
            raise InputError(f"intensity is an Intensity or the name of a rule, not {intensity!r}")
        self._channels = channels
        self.paths, infos = _headers(list_images(paths), on_error, self._values, max_pixels)
        if channels is None:
            channels = _same(self.paths, [info.channels for info in infos], "channel(s)", "channels=1 or channels=3")
        if size is None:
            sides = _same(self.paths, [(i.height, i.width) for i in infos], "pixels", "size=Size(height, width)")
        else:
            sides = size.height, size.width
        self._channels = channels
        self.shape = (len(self.paths), *sides, channels)
        plain = self.intensity.rule == "dtype" and all(info.dtype in ("uint8", "bool") for info in infos)
        self.dtype = np.dtype("uint8" if plain else "float32")

    def raw(self):
        """Iterate over the images as read, before intensity and size: `(h, w, channels)`, in the type of the file."""
        return _Lazy(self.paths, self._values)

    def fit(self) -> "ImageFiles":
        """The same files with the numbers of the intensity rule found in all of them: do it on the training images.

        Give the rule to the others: `ImageFiles(test_paths, intensity=train.intensity)`.
        """
        result = copy.copy(self)
        try:
            result.intensity = self.intensity.fit(self.raw())
        except InputError as error:
            raise DataError(f"the intensity rule of {len(self):,} images from {self.paths[0]}: {error}") from error
        return result

    def _values(self, path):
        values = read_array(path, self.frame, alpha=self._channels == 4, max_pixels=self._max_pixels)
        if self._channels is None:
            return values
        try:
            return to_channels(values, self._channels)
        except DataError as error:
            raise DataError(f"{str(path)!r}: {error}") from error

    def _one(self, path):
        values = self._values(path)
        try:
            values = self.intensity.apply(values)
        except InputError as error:
            raise DataError(f"{str(path)!r}: {error}") from error
        values = values if self.size is None else self.size.apply(values)
        return _expected(values.astype(self.dtype, copy=False), self.shape[1:], path)

    def _rules(self):
        return {
            "intensity": self.intensity.describe(),
            "size": None if self.size is None else self.size.describe(),
            "frame": self.frame,
        }


class MaskFiles(_Files):
    """Mask files as an array `(n, height, width)` of class ids that reads when it is indexed.

    Attributes:
        paths: One path a mask.
        shape: `(n, height, width)`.
        dtype: The smallest integer type that holds the ids of all files.

    Args:
        paths: Paths, or a folder, as for `list_images`.
        size: The `Size` of the images; ids take the nearest pixel.
        palette: `cnn_zoo.masks.Palette`, for coloured masks.
        values: Numbers to replace, such as `{255: 1}` for masks saved as 0 and 255, or `{"nonzero": 1}` for masks that number the objects.
        ignore: The id of the border that `size` adds.
        frame: Which picture of a file with several; None: the first.
        on_error: As for `ImageFiles`.
        max_pixels: As for `read_array`.

    Raises:
        DataError: No files, files that cannot be read, or that differ in size without a rule.
        InputError: Arguments that are none of these.
    """

    def __init__(
        self,
        paths,
        *,
        size: Size | None = None,
        palette=None,
        values: dict | None = None,
        ignore: int | None = None,
        frame: int | None = None,
        on_error: str = "raise",
        max_pixels: int | None = None,
    ):
        _check_size(size)
        self.size, self.palette, self.values, self.ignore, self.frame = size, palette, values, ignore, frame
        self._read = partial(read_ids, palette=palette, values=values, frame=frame, max_pixels=max_pixels)
        self.paths, infos = _headers(list_images(paths), on_error, self._read, max_pixels)
        if size is None:
            sides = _same(self.paths, [(i.height, i.width) for i in infos], "pixels", "size=Size(height, width)")
        else:
            sides = size.height, size.width
        self.shape = (len(self.paths), *sides)
        types = {np.dtype(info.dtype) for info in infos}
        if palette is not None:
            types.add(np.min_scalar_type(max(palette.ids)))
        types = {np.dtype("int32") if t.kind == "f" else np.dtype("uint8") if t.kind == "b" else t for t in types}
        more = [*(values or {}).values(), *([] if ignore is None else [ignore])]
        self.dtype = np.result_type(*types, *map(np.min_scalar_type, more))

    def _one(self, path):
        ids = self._read(path).astype(self.dtype, copy=False)
        ids = ids if self.size is None else self.size.apply_mask(ids, self.ignore)
        return _expected(ids, self.shape[1:], path)

    def _rules(self):
        palette = self.palette
        colors = None if palette is None else [[i, *color] for i, color in zip(palette.ids, palette.colors)]
        return {
            "size": None if self.size is None else self.size.describe(),
            "palette": colors,
            "values": None if self.values is None else {str(old): int(new) for old, new in self.values.items()},
            "ignore": self.ignore,
            "frame": self.frame,
        }


class _Lazy:
    """Results of a function of each path, one after the other; with a length."""

    def __init__(self, paths, read):
        self._paths, self._read = paths, read

    def __len__(self):
        return len(self._paths)

    def __iter__(self):
        return map(self._read, self._paths)


def _headers(paths, on_error, read, max_pixels):
    """The paths that can be read, and what their headers say."""

    def look(path):
        info = inspect(path, max_pixels)
        if on_error == "skip":
            read(path)
        return info

    infos, kept = read_many(paths, on_error, look)
    paths = [paths[i] for i in kept]
    if not paths:
        raise DataError("there are no files that can be read")
    return paths, infos


def _same(paths, values, what, remedy):
    """The value that all files share, or an error that names two which differ."""
    first = values[0]
    for path, value in zip(paths, values):
        if value != first:
            one, other = ("x".join(map(str, np.atleast_1d(v))) for v in (first, value))
            count = len(set(values))
            raise DataError(
                f"the files differ ({count} kinds): {str(paths[0])!r} has {one} {what} and {str(path)!r} {other}: "
                f"say what they shall be brought to, {remedy}"
            )
    return first


def _expected(values, shape, path):
    if values.shape != shape:
        raise DataError(f"{str(path)!r} has shape {values.shape} and {shape} was there when the files were listed")
    return values


def _check_size(size):
    if size is not None and not isinstance(size, Size):
        raise InputError(f"size is a Size, such as Size(224, 224, 'letterbox'), not {size!r}")
