"""Image files to arrays: the one reader of the package, for images, masks and headers.

OpenCV decodes JPEG, PNG and WebP (for JPEG the same values as Pillow and as TensorFlow's exact transform, in three quarters of the time;
16-bit colour, which Pillow lacks); Pillow GIF, BMP and rare kinds of the others; tifffile TIFF; mrcfile MRC; NumPy its own files.
What a file is, its first bytes say, not its name.
"""

import dataclasses
import functools
import io
import os
import struct
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from cnn_zoo.errors import DataError, InputError, ZooError, require

SUFFIXES = (
    ".bmp", ".gif", ".jpeg", ".jpg", ".mrc", ".mrcs", ".npy", ".npz", ".png", ".tif", ".tiff", ".webp",
)  # fmt: skip
_TURN = {  # EXIF orientation: mirrored left-right?, then quarter turns against the clock
    1: (False, 0), 2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1),
}  # fmt: skip


@dataclass(frozen=True)
class ImageInfo:
    """What the header of an image file says.

    Attributes:
        height, width: In pixels, after the EXIF orientation.
        channels: As `read_array` gives them: without alpha, palettes expanded.
        dtype: Name of the NumPy type that `read_array` gives.
        bits: Of one value in the file.
        frames: Pictures in the file: frames of a GIF, pages of a TIFF, sections of an MRC stack.
        format: "JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF", "MRC" or "NumPy".
        alpha: Whether the file has transparency.
    """

    height: int
    width: int
    channels: int
    dtype: str
    bits: int
    frames: int
    format: str
    alpha: bool = False


def read_array(source, frame: int | None = None, *, alpha: bool = False, max_pixels: int | None = None) -> np.ndarray:
    """Read one picture with its values as stored.

    Order is RGB; EXIF orientation is applied; palettes become colours; 1-bit files become bool; a TIFF's channels are its samples and its axis C,
    every other axis of it counts frames. Colour profiles and gamma are not applied. Of a .npy, two axes are `(h, w)`, three `(h, w, c)`, four
    `(frames, h, w, c)`. Rows of an MRC file come as stored.

    Args:
        source: A path, or the bytes of a file.
        frame: Which frame, from 0; None is the first.
        alpha: False drops transparency and leaves the colour as stored, as TensorFlow, Keras and an exported model do. True gives RGBA of a file
            that has transparency.
        max_pixels: A header that claims more pixels is refused before anything is decoded (more than 4 channels count in fours); None is
            `PIL.Image.MAX_IMAGE_PIXELS`, 89,478,485 unless you changed it.

    Returns:
        `(height, width, channels)` in the file's own type.

    Raises:
        DataError: The file is missing, empty, damaged, broken off, no image, has no such frame, or claims more than `max_pixels`.
        MissingExtraError: MRC without the package mrcfile.
    """
    values, info = _read(source, frame, False, max_pixels)
    if info.alpha and not alpha:
        values = values[..., :-1]
    elif info.alpha and values.shape[-1] == 2:
        values = values[..., [0, 0, 0, 1]]
    return np.ascontiguousarray(values)


def read_ids(
    source, palette=None, values: dict | None = None, frame: int | None = None, max_pixels: int | None = None
) -> np.ndarray:
    """Read a mask as class ids: the numbers of a gray file or the indices of a palette, never its colours unless a palette is given.

    Args:
        source: A path, or the bytes of a file.
        palette: `cnn_zoo.masks.Palette`, for coloured masks. A gray file is then decoded by it too where all its colours are gray
            (`Palette.binary()`), and its numbers are ids already where they are not.
        values: Numbers to replace, such as `{255: 1}`; all others stay. `"nonzero"` stands for all but 0 and those named: `{"nonzero": 1}` makes of
            instance labels, which number the objects, the classes background, 0, and object, 1.
        frame: As for `read_array`.
        max_pixels: As for `read_array`.

    Returns:
        `(height, width)`, the smallest of the file's own integer type and what `palette` or `values` need; 1-bit files give uint8 0 and 1.

    Raises:
        DataError: As `read_array`; or the mask is a JPEG or lossy WebP, is coloured without a palette, has a colour that the palette lacks,
            transparency, several channels or fractions.
    """
    name = _name(source)
    ids, info = _read(source, frame, True, max_pixels)
    try:
        if palette is not None:
            colors = read_array(source, frame, max_pixels=max_pixels)
            gray = all(red == green == blue for red, green, blue in palette.colors)
            if colors.shape[-1] == 3 or gray:
                colors = colors * np.uint8(255) if colors.dtype == bool else colors
                return _replace(palette.to_ids(to_channels(colors, 3)), values)
        if info.alpha and ids.shape[-1] in (2, 4):
            if not (ids[..., -1] == _opaque(ids.dtype)).all():
                raise DataError("a mask with transparency: save it without an alpha channel")
            ids = ids[..., :-1]
        if ids.shape[-1] == 3 and (ids[..., :1] == ids).all():
            ids = ids[..., :1]
        if ids.shape[-1] == 3:
            raise DataError("the mask is coloured and there is no palette: give one, palette=Palette(names, colors)")
        if ids.shape[-1] != 1:
            raise DataError(f"a mask has one channel and this one has {ids.shape[-1]}: save class ids, argmax(-1)")
        ids = ids[..., 0]
        if ids.dtype.kind == "f":
            if not (ids == np.rint(ids)).all():  # NaN is not equal to itself
                raise DataError("a mask holds whole numbers, and this one has fractions: threshold it")
            ids = ids.astype("int32")
        return _replace(ids.astype("uint8") if ids.dtype == bool else ids, values)
    except (DataError, InputError) as error:
        raise DataError(f"{name}: {error}") from error


def inspect(source, max_pixels: int | None = None) -> ImageInfo:
    """What a file holds, from its header alone.

    Args:
        source: A path, or the bytes of a file.
        max_pixels: As for `read_array`.

    Raises:
        DataError: As `read_array`, except for damage behind the header.
    """
    source = _Source(source)
    with source.guard(), ExitStack() as stack:
        return _open(source, stack, max_pixels)[0]


def read_many(sources, on_error: str = "raise", read=read_array) -> tuple[list, list[int]]:
    """Read many files in parallel.

    Args:
        sources: Paths, or the bytes of files.
        on_error: `"raise"` names all unreadable files in one error; `"skip"` leaves them out with a warning.
        read: What to do with each: `read_array`, `read_ids`, `inspect` or any function of a path that raises DataError.

    Returns:
        What `read` gave, and the indices of the sources that it gave it for.

    Raises:
        DataError: With `"raise"`; the first ten files with their causes, and how many there are.
        InputError: `on_error` is neither.
    """
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error is 'raise' or 'skip', not {on_error!r}")

    def attempt(source):
        try:
            return read(source), None
        except DataError as error:
            return None, str(error)

    sources = list(sources)
    answers = list(map(attempt, sources) if len(sources) < 2 else pool().map(attempt, sources))
    failures = [failure for _, failure in answers if failure is not None]
    if failures:
        shown = "; ".join(failures[:10]) + (f"; and {len(failures) - 10:,} more" if len(failures) > 10 else "")
        if on_error == "raise":
            raise DataError(f"{len(failures):,} image(s) cannot be read: {shown}. Mend or remove them, or skip them")
        warnings.warn(f"left out {len(failures):,} image(s): {shown}", stacklevel=3)
    kept = [i for i, (_, failure) in enumerate(answers) if failure is None]
    return [answers[i][0] for i in kept], kept


def to_channels(values: np.ndarray, channels: int) -> np.ndarray:
    """Bring `(..., channels)` to another number of channels, in the same type.

    Gray is repeated; colour becomes gray by ITU-R BT.601 (rounded for integers); the fourth channel that gray or colour get is opaque.

    Raises:
        DataError: No rule leads from the one number to the other.
    """
    have = values.shape[-1]
    if have == channels:
        return values
    if channels == 1 and have == 3 and values.dtype != bool:
        gray = luma(values.astype("float64" if values.dtype.itemsize > 2 and values.dtype != "float32" else "float32"))
        return (np.rint(gray) if values.dtype.kind in "iu" else gray).astype(values.dtype)
    if channels == 4 and have in (1, 3):
        color = np.repeat(values, 3, axis=-1) if have == 1 else values
        return np.concatenate([color, np.full_like(color[..., :1], _opaque(values.dtype))], axis=-1)
    if have == 1:
        return np.repeat(values, channels, axis=-1)
    raise DataError(f"{have} channels cannot be brought to {channels}: choose the bands first, or use channels={have}")


def luma(rgb):
    """Gray by ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, written so that equal channels come out as they are, to the bit."""
    red, green, blue = rgb[..., 0:1], rgb[..., 1:2], rgb[..., 2:3]
    return green + 0.299 * (red - green) + 0.114 * (blue - green)


@functools.cache
def pool() -> ThreadPoolExecutor:
    """The threads that read files, two for each core: decoding releases the lock, and some wait for the disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(2 * cores, thread_name_prefix="cnn_zoo_read")


if hasattr(os, "register_at_fork"):  # a forked process has the pool but not its threads, and would wait for ever
    os.register_at_fork(after_in_child=pool.cache_clear)


# Sources and what can be wrong with them


def _name(source) -> str:
    return "the image" if isinstance(source, (bytes, bytearray, memoryview)) else repr(str(source))


class _Source:
    """A path or bytes, with its first bytes and the words for what is wrong with it."""

    def __init__(self, source):
        self.name = _name(source)
        if isinstance(source, (bytes, bytearray, memoryview)):
            self.path, self._contents = None, bytes(source)
            self.head = self._contents[:512]
        else:
            self.path, self._contents = Path(source), None
            with self.guard():
                if self.path.is_dir():
                    raise DataError(f"{self.name} is a folder, and an image file is expected")
                if not self.path.is_file():  # a pipe would be waited for
                    there = self.path.exists()
                    raise DataError(f"{self.name} is no ordinary file" if there else f"there is no image {self.name}")
                with open(self.path, "rb") as file:
                    self.head = file.read(512)
        if not self.head:
            raise DataError(f"{self.name} is empty (0 bytes): get the file again")

    def contents(self) -> bytes:
        return self._contents if self.path is None else self.path.read_bytes()

    def stream(self):
        return io.BytesIO(self._contents) if self.path is None else open(self.path, "rb")

    @contextmanager
    def guard(self):
        """Whatever goes wrong inside becomes one sentence with the name of the file."""
        try:
            yield
        except ZooError:
            raise
        except Exception as error:  # damaged bytes raise what readers like: struct.error, IndexError, cv2.error, ...
            if isinstance(error, OSError) and error.errno is not None:
                raise DataError(f"{self.name} cannot be read ({error.strerror}): check its permissions") from error
            words = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{self.name} is damaged ({words[:200]}): get the file again") from error


def _open(source, stack, max_pixels):
    """`(ImageInfo, EXIF orientation, load)`; `load(frame, ids)` gives `(h, w)` or `(h, w, c)`, alpha last, not yet turned."""
    head = source.head
    if head[:3] == b"\xff\xd8\xff":
        reader = _jpeg
    elif head[:8] == b"\x89PNG\r\n\x1a\n":
        reader = _png
    elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        reader = _tiff
    elif head[:6] == b"\x93NUMPY" or (head[:4] == b"PK\3\4" and b".npy" in head):
        reader = _numpy
    elif head[208:211] == b"MAP" and head[211:212] in (b" ", b"\0"):
        reader = _mrc
    elif head[:4] == b"GIF8" or head[:2] == b"BM" or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        reader = _pillow
    else:
        raise DataError(f"{source.name} is not an image that can be read ({', '.join(SUFFIXES)})")
    info, orientation, load = reader(source, stack)
    limit = max_pixels or Image.MAX_IMAGE_PIXELS
    if limit and info.height * info.width * -(-info.channels // 4) > limit:
        raise DataError(
            f"{source.name} claims to be larger than {limit:,} pixels ({info.height:,} x {info.width:,} with {info.channels} channel(s)): "
            "is it genuine? If so, give a larger max_pixels, or cut it into tiles"
        )
    if min(info.height, info.width, info.channels, info.frames) < 1:
        raise DataError(f"{source.name} has no pixels: its header says {info.height} x {info.width}")
    if orientation >= 5:
        info = dataclasses.replace(info, height=info.width, width=info.height)
    return info, orientation, load


def _read(source, frame, ids, max_pixels):
    """Values `(h, w, c)`, alpha last, and `ImageInfo`."""
    source = _Source(source)
    with source.guard(), ExitStack() as stack:
        info, orientation, load = _open(source, stack, max_pixels)
        if not 0 <= (frame or 0) < info.frames:
            raise DataError(f"{source.name} has {info.frames} frame(s), 0..{info.frames - 1}, and no frame {frame}")
        values = load(frame or 0, ids)
        if values is None:
            raise DataError(f"{source.name} is damaged ({info.format} data that cannot be decoded): get the file again")
        mirrored, turns = _TURN[orientation]
        values = values[..., None] if values.ndim == 2 else values
        values = np.rot90(values[:, ::-1] if mirrored else values, turns)
        return np.ascontiguousarray(values, values.dtype.newbyteorder("=")), info


def _opaque(dtype):
    return True if dtype.kind == "b" else np.iinfo(dtype).max if dtype.kind == "u" else 255


def _replace(ids, values):
    if not values:
        return ids
    if wrong := [old for old in values if old != "nonzero" and not hasattr(old, "__index__")]:
        raise InputError(f"values= replaces whole numbers, or 'nonzero' for all but 0, not {wrong[0]!r}")
    types = [np.min_scalar_type(new) for new in values.values()]
    result = ids.astype(np.result_type(ids.dtype, *types))
    if "nonzero" in values:
        result[ids != 0] = values["nonzero"]
    for old, new in values.items():
        if old != "nonzero":
            result[ids == old] = new
    return result


def _orientation(exif: bytes | None) -> int:
    """Of an EXIF block; 1, upright, where it says nothing that can be understood."""
    if not exif:
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        value = tags.get(0x0112, 1)
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return 1
    return value if value in _TURN else 1


# Formats


def _imdecode(contents, flags):
    return cv2.imdecode(np.frombuffer(contents, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)


def _lossy(source, kind):
    return DataError(
        f"{source.name} is a {kind}, which changes the values of a mask: export it again as PNG, "
        "or, where it has two classes, threshold it (read_image(path, (None, None, 1)) > 127)"
    )


def _jpeg(source, stack):
    stream = stack.enter_context(source.stream())
    stream.seek(2)
    size, exif = None, None
    while True:  # segments, up to the first scan
        start = stream.read(4)
        while start[1:2] == b"\xff":  # fill bytes
            start = start[1:] + stream.read(1)
        if len(start) < 4 or start[0] != 0xFF:
            raise DataError(f"{source.name} is damaged (its JPEG header breaks off): get the file again")
        marker, length = start[1], int.from_bytes(start[2:], "big")
        after = stream.tell() + length - 2
        if marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):
            size = marker, *struct.unpack(">BHHB", stream.read(6))
        elif marker == 0xE1 and exif is None and (block := stream.read(length - 2)).startswith(b"Exif\0\0"):
            exif = block
        stream.seek(after)
        if marker == 0xDA:
            break
    if size is None:
        raise DataError(f"{source.name} is damaged (its JPEG header states no size): get the file again")
    marker, bits, height, width, components = size
    channels = 1 if components == 1 else 3
    flags = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB

    def load(frame, ids):
        if ids:
            raise _lossy(source, "JPEG")
        contents = source.contents()
        # Decoders fill what is missing with gray and say nothing. Within a scan these two bytes are the end and nothing else.
        if contents.find(b"\xff\xd9", after) < 0:
            raise DataError(f"{source.name} is damaged (JPEG data that break off): get the file again")
        if marker in (0xC0, 0xC1, 0xC2) and bits == 8 and components in (1, 3):
            return _imdecode(contents, flags)
        with JpegImagePlugin.JpegImageFile(io.BytesIO(contents)) as image:  # such as CMYK
            return np.asarray(image.convert("L" if channels == 1 else "RGB"))

    info = ImageInfo(height, width, channels, "uint8", bits, 1, "JPEG")
    return info, _orientation(exif), load


def _png(source, stack):
    """Of an animated PNG the still picture."""
    stream = stack.enter_context(source.stream())
    stream.seek(8)
    chunks = {}
    while len(start := stream.read(8)) == 8 and start[4:] != b"IDAT":
        length = int.from_bytes(start[:4], "big")
        if start[4:] in (b"IHDR", b"tRNS", b"eXIf"):
            chunks[start[4:]] = stream.read(length)
            length = 0
        stream.seek(length + 4, io.SEEK_CUR)
    if start[4:] != b"IDAT" or len(chunks.get(b"IHDR", b"")) != 13:
        raise DataError(f"{source.name} is damaged (its PNG header breaks off): get the file again")
    height, width = struct.unpack(">II", chunks[b"IHDR"][:8])[::-1]
    bits, kind = chunks[b"IHDR"][8:10]  # kind: 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGBA
    if kind not in (0, 2, 3, 4, 6) or bits not in (1, 2, 4, 8, 16):
        raise DataError(f"{source.name} is damaged (no PNG has colour type {kind}, {bits} bits): get the file again")
    alpha = kind in (4, 6) or (kind == 3 and b"tRNS" in chunks)
    channels = 1 if kind in (0, 4) else 3

    def load(frame, ids):
        contents = source.contents()
        _check_png(contents, source.name)
        if ids and kind == 3:
            with PngImagePlugin.PngImageFile(io.BytesIO(contents)) as image:
                return np.asarray(image)
        if alpha:
            values = _imdecode(contents, cv2.IMREAD_UNCHANGED)  # blue, green, red, alpha, for gray too
            return values if values is None else values[..., [2, 1, 0, 3] if channels == 3 else [0, 3]]
        values = _imdecode(
            contents, cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB)
        )
        if values is not None and kind == 0 and bits == 1:
            return values > 0
        if values is not None and ids and bits in (2, 4):  # decoders stretch these to 0..255
            return values // (255 // (2**bits - 1))
        return values

    dtype = "bool" if kind == 0 and bits == 1 else "uint16" if bits == 16 else "uint8"
    info = ImageInfo(height, width, channels, dtype, bits, 1, "PNG", alpha)
    return info, _orientation(chunks.get(b"eXIf")), load


def _check_png(contents, name):
    """Raise unless all chunks are there and those that matter (with a capital) have the checksums that they state."""
    at, view = 8, memoryview(contents)
    while at + 12 <= len(contents):
        length, kind = int.from_bytes(view[at : at + 4], "big"), contents[at + 4 : at + 8]
        end = at + 8 + length
        if (
            end + 4 <= len(contents)
            and kind[:1].isupper()
            and zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big")
        ):
            raise DataError(f"{name} is damaged (wrong checksum in its PNG data): get the file again")
        if kind == b"IEND":
            return
        at = end + 4
    raise DataError(f"{name} is damaged (PNG data that break off): get the file again")


def _pillow(source, stack):
    """GIF, BMP, WebP. The plugins are called by name: `Image.open` adds a limit on the pixels that is one for the whole process."""
    kind, plugin = {
        b"G": ("GIF", GifImagePlugin.GifImageFile),
        b"B": ("BMP", BmpImagePlugin.BmpImageFile),
        b"R": ("WebP", WebPImagePlugin.WebPImageFile),
    }[source.head[:1]]
    image = stack.enter_context(plugin(stack.enter_context(source.stream())))
    frames = getattr(image, "n_frames", 1)
    mode = image.mode
    alpha = kind != "GIF" and mode == "RGBA"
    gray = mode in ("1", "L")

    def load(frame, ids):
        if ids and kind == "WebP" and b"VP8L" not in source.head:
            raise _lossy(source, "lossy WebP")
        if kind == "WebP" and frames == 1:
            values = _imdecode(source.contents(), cv2.IMREAD_UNCHANGED)
            return values if values is None else values[..., [2, 1, 0, 3][: values.shape[-1]]]
        image.seek(frame)
        image.load()
        wanted = image.mode if image.mode in ("1", "L") or (ids and image.mode == "P") else "RGBA" if alpha else "RGB"
        return np.asarray(image if wanted == image.mode else image.convert(wanted))

    bits = 1 if mode == "1" else 8
    info = ImageInfo(
        image.height, image.width, 1 if gray else 3, "bool" if mode == "1" else "uint8", bits, frames, kind, alpha
    )
    return info, _orientation(image.info.get("exif")), load


def _tiff(source, stack):
    import tifffile

    file = stack.enter_context(tifffile.TiffFile(stack.enter_context(source.stream())))
    series = file.series[0]
    page = series.keyframe
    axes, shape, photometric = series.axes, series.shape, int(page.photometric)
    sides = dict(zip(axes, shape))
    samples = sides.get("S", 1) * sides.get("C", 1)
    frames = int(np.prod([side for axis, side in sides.items() if axis not in "YXSC"], dtype=int))
    alpha = "S" in axes and bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2)
    colored = photometric in (5, 6, 8) and not (photometric == 6 and page.compression in (6, 7))  # CMYK, YCbCr, CIELAB
    palette = photometric == 3 and page.colormap is not None
    dtype = series.dtype
    if dtype.kind not in "biuf":
        raise DataError(f"{source.name} holds {dtype} numbers, which are no image: save their real part or magnitude")
    if palette:
        dtype = np.dtype("uint8")

    def load(frame, ids):
        inner = page.axes
        outer = shape[: len(shape) - len(inner)]
        if axes.endswith(inner) and set(inner) <= set("YXSC") and len(series.pages) == int(np.prod(outer, dtype=int)):
            numbers = np.arange(len(series.pages)).reshape(*outer, *(1 for _ in inner))
            numbers = _arrange(numbers, axes)[frame].ravel()
            pages = [series[int(i)] for i in numbers]  # the channels of this frame
        else:
            pages = None
        _check_tiff(pages or [page], file.filehandle.size, source.name)
        try:
            if colored:
                raise ValueError("Pillow knows these colours")
            if pages is None:
                values = _arrange(series.asarray(), axes)[frame]
            else:
                values = _arrange(np.stack([one.asarray() for one in pages]), "C" + inner.replace("C", "Q"))[0]
        except (ValueError, RuntimeError) as error:
            if "imagecodecs" not in str(error) and not colored:
                raise
            values = _tiff_otherwise(source, [one.index for one in pages or [page]], page, str(error))
        if palette and not ids:
            table = np.asarray(page.colormap)
            return (table.T >> 8 if table.max() > 255 else table.T).astype("uint8")[values[..., 0]]
        if page.bitspersample in (2, 4) and not ids:
            values = values * np.uint8(255 // (2**page.bitspersample - 1))
        if photometric == 0 and not ids:  # white is 0
            return ~values if values.dtype == bool else _opaque(values.dtype) - values
        return values

    height, width = sides["Y"], sides["X"]
    channels = 3 if palette or colored else samples - alpha
    tag = page.tags.get("Orientation")
    orientation = int(tag.value) if tag is not None and tag.value in _TURN else 1
    info = ImageInfo(
        height, width, channels, dtype.name, int(page.bitspersample), frames, "TIFF", alpha and not (palette or colored)
    )
    return info, orientation, load


def _arrange(array, axes):
    """Any axes to `(frames, Y, X, channels)`."""
    lead = [i for i, axis in enumerate(axes) if axis not in "YXSC"]
    last = [axes.index(axis) for axis in "CS" if axis in axes]
    array = array.transpose(*lead, axes.index("Y"), axes.index("X"), *last)
    height, width = array.shape[len(lead) : len(lead) + 2]
    return array.reshape(-1, height, width, int(np.prod(array.shape[len(lead) + 2 :], dtype=int)))


def _check_tiff(pages, size, name):
    """Raise where a strip or tile lies beyond the end of the file: what is missing would be read as black."""
    if any(start + count > size for page in pages for start, count in zip(page.dataoffsets, page.databytecounts)):
        raise DataError(f"{name} is damaged (TIFF data that break off): get the file again")


def _tiff_otherwise(source, pages, page, reason):
    """The numbers as stored of what tifffile leaves to imagecodecs (LZW, JPEG, few bits), and colours that are not RGB: by libtiff."""
    planes = []
    try:
        for number in pages:
            if page.bitspersample > 8:
                buffer = np.frombuffer(source.contents(), np.uint8)
                plane = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, range=(number, number + 1))[1][0]
                plane = plane if plane.ndim == 2 else plane[..., [2, 1, 0, 3][: plane.shape[-1]]]
            else:
                with TiffImagePlugin.TiffImageFile(io.BytesIO(source.contents())) as image:
                    image.seek(number)
                    image.load()
                    plane = np.asarray(image if image.mode in ("1", "L", "P", "LA", "RGBA") else image.convert("RGB"))
                if page.photometric == 0:  # Pillow has turned it over
                    plane = ~plane
                if page.bitspersample in (2, 4) and image.mode == "L":  # and stretched it
                    plane = plane // (255 // (2**page.bitspersample - 1))
            planes.append(plane[..., None] if plane.ndim == 2 else plane)
    except Exception as error:
        raise DataError(f"{source.name} is damaged, or needs pip install 'cnn-zoo[tiff]' ({reason})") from error
    return np.concatenate(planes, axis=-1)


def _numpy(source, stack):
    stream = stack.enter_context(source.stream())
    packed = source.head[:2] == b"PK"
    if packed:
        archive = stack.enter_context(zipfile.ZipFile(stream))
        names = archive.namelist()
        if len(names) != 1:
            names = ", ".join(name.removesuffix(".npy") for name in names)
            raise DataError(f"{source.name} holds several arrays ({names[:200]}): one is expected; load it with NumPy")
        stream = stack.enter_context(archive.open(names[0]))
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    if dtype.kind not in "biuf" or not 2 <= len(shape) <= 4:
        raise DataError(
            f"{source.name} holds {dtype} of shape {shape}: (height, width), (height, width, channels) or "
            "(frames, height, width, channels) of numbers is expected"
        )
    frames, height, width, channels = {2: (1, *shape, 1), 3: (1, *shape), 4: shape}[len(shape)]

    def load(frame, ids):
        if packed:
            with np.load(io.BytesIO(source.contents()), allow_pickle=False) as arrays:
                array = next(iter(arrays.values()))
        elif source.path is not None:
            array = np.load(source.path, mmap_mode="r", allow_pickle=False)  # of a stack, one frame
        else:
            array = np.load(io.BytesIO(source.contents()), allow_pickle=False)
        return np.array(array[frame] if len(shape) == 4 else array)

    info = ImageInfo(height, width, channels, dtype.name, 8 * dtype.itemsize, frames, "NumPy")
    return info, 1, load


def _mrc(source, stack):
    mrcfile = require("mrcfile", "mrc")
    if source.path is not None:
        file = stack.enter_context(mrcfile.mmap(source.path, "r"))
    else:
        file = stack.enter_context(mrcfile.mrcinterpreter.MrcInterpreter(io.BytesIO(source.contents())))
    data = file.data
    if data.dtype.kind not in "iuf":
        raise DataError(f"{source.name} holds {data.dtype} numbers, which are no image: save their magnitude")
    height, width = data.shape[-2:]
    frames = int(np.prod(data.shape[:-2], dtype=int))

    def load(frame, ids):
        return np.array(data.reshape(-1, height, width)[frame])

    info = ImageInfo(height, width, 1, data.dtype.name, 8 * data.dtype.itemsize, frames, "MRC")
    return info, 1, load
