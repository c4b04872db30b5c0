"""Image files and raw bytes to arrays, by one rule for prediction and for exported models alike."""

import warnings
from pathlib import Path

import numpy as np

from cnn_zoo.errors import DataError, InputError, ZooError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def decode_bytes(contents, shape):
    """Decode one PNG or JPEG in the TensorFlow graph.

    Args:
        contents: Scalar string tensor: the bytes of the file.
        shape: `(height, width, channels)` to come out; height and width None keep the image's size. One channel is gray by ITU-R 601,
            three are RGB, four are RGB and alpha (PNG only); gray files are repeated.

    Returns:
        A float32 tensor of that shape, values 0..255, resized bilinearly (antialiased) where the size differs.
    """
    import tensorflow as tf

    height, width, channels = shape
    check_channels(channels)
    if channels == 4:
        image = tf.io.decode_png(contents, channels=4)
    else:  # this operation reads PNG as well, and it alone lets one ask for the exact inverse transform
        image = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
    image = tf.cast(image, tf.float32)
    if channels == 1:
        image = _luma(image)
    if height is not None:
        image = tf.image.resize(image, (height, width), antialias=True)
        image = tf.clip_by_value(image, 0.0, 255.0)
        image.set_shape((height, width, channels))
    return image


def check_channels(channels) -> None:
    """Raise InputError unless ordinary image files can have so many channels."""
    if channels not in (1, 3, 4):
        raise InputError(f"image files have 1, 3 or 4 channels and the model takes {channels}: give it arrays instead")


def read_image(path, shape=None, crop: float | None = None) -> np.ndarray:
    """Read an image file.

    PNG and JPEG are decoded by `decode_bytes`, as in an exported model; BMP, GIF (first frame), TIFF and WebP through Pillow, and 16-bit
    files are divided by 257.

    Args:
        path: The file.
        shape: `(height, width, channels)` to come out; None keeps the file's size and channels.
        crop: None stretches the image to `shape`. A fraction, 0 < crop <= 1, keeps its proportions and cuts out the middle: the image is scaled
            until `shape` covers this fraction of its shorter side. 0.875 (256 to 224) is what ImageNet's classifiers are measured with.

    Returns:
        A float32 array, values 0..255.

    Raises:
        DataError: The file is missing, empty, damaged, too large to be true, not an image, or holds numbers that no rule brings to 0..255.
        InputError: `shape` asks for other than 1, 3 or 4 channels, or `crop` is no fraction.
    """
    if crop is not None:
        if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop <= 1:
            raise InputError(f"crop is a fraction, 0 < crop <= 1, not {crop!r}")
        if shape is not None and None not in shape[:2]:
            return _middle(read_image(path, (None, None, shape[2])), shape[:2], crop)
    import tensorflow as tf
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no image {str(path)!r}")
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error.strerror}): check its permissions") from error
    if not contents:
        raise DataError(f"{str(path)!r} is empty (0 bytes): get the file again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()  # finds truncated files, which TensorFlow decodes to gray
                kind, mode = image.format, image.mode
                if shape is None:
                    gray = mode in ("L", "1", "F") or mode.startswith("I")
                    shape = (None, None, 1 if gray else 4 if mode == "RGBA" else 3)
                check_channels(shape[2])
                # MPO is what telephones write as .jpg: a JPEG with more pictures behind the first.
                ordinary = kind in ("JPEG", "MPO") and mode != "CMYK" and shape[2] != 4
                if ordinary or (kind == "PNG" and not mode.startswith("I")):
                    return decode_bytes(contents, shape).numpy()
                values = _values(image, shape[2], path)
    except ZooError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{str(path)!r} is not an image that can be read ({', '.join(IMAGE_SUFFIXES)})") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"{str(path)!r} claims to be larger than {Image.MAX_IMAGE_PIXELS:,} pixels: is it genuine?"
        ) from error
    except tf.errors.InvalidArgumentError as error:  # Pillow forgives what an exported model will not
        raise DataError(f"{str(path)!r} is damaged ({kind} data that end or break off): get the file again") from error
    except Exception as error:  # damaged bytes raise what Pillow's readers like: struct.error, IndexError, ...
        raise DataError(f"{str(path)!r} is damaged ({error}): get the file again") from error
    if shape[0] is not None:
        values = resize(values[None], shape[:2])[0]
    return values


def _middle(image, size, crop):
    scale = max(want / have for want, have in zip(size, image.shape[:2])) / crop
    whole = [max(want, round(have * scale)) for want, have in zip(size, image.shape[:2])]
    top, left = ((have - want) // 2 for want, have in zip(size, whole))
    return resize(image[None], whole)[0, top : top + size[0], left : left + size[1]]


def _values(image, channels, path):
    """A Pillow image as float32 `(height, width, channels)`, 0..255."""
    if image.mode == "F" or image.mode.startswith("I"):  # I is 32-bit, I;16 and I;16B are 16-bit
        values = np.asarray(image)
        most = 255 if image.mode == "F" else 65535
        if not (values.min() >= 0 and values.max() <= most):  # so put, NaN does not pass
            raise DataError(
                f"{str(path)!r} holds values from {values.min():.6g} to {values.max():.6g}, and {'float' if most == 255 else 'integer'} "
                f"images must hold 0..{most}: bring them to that range by a rule that is the same for all images"
            )
        values = (values if image.mode == "F" else values / 257).astype("float32")[..., None]
        color = np.repeat(values, min(channels, 3), axis=-1)
        return color if channels != 4 else np.concatenate([color, np.full_like(values, 255)], axis=-1)
    if channels == 4:
        return np.asarray(image.convert("RGBA")).astype("float32")
    values = np.asarray(image.convert("RGB")).astype("float32")
    return _luma(values) if channels == 1 else values


def _luma(rgb):
    """Gray by ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, written so that equal channels come out as they are, to the bit."""
    red, green, blue = rgb[..., 0:1], rgb[..., 1:2], rgb[..., 2:3]
    return green + 0.299 * (red - green) + 0.114 * (blue - green)


def list_images(source) -> list[Path]:
    """The image files of a folder (with its subfolders, sorted), of a list of paths, or one path.

    Raises:
        DataError: The folder has none, or the path does not exist.
    """
    if not isinstance(source, (str, Path)):
        return [path for entry in source for path in (list_images(entry) if Path(entry).is_dir() else [Path(entry)])]
    source = Path(source)
    if not source.is_dir():
        if not source.exists():
            raise DataError(f"there is no image or folder {str(source)!r}")
        return [source]
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise DataError(f"the folder {str(source)!r} has no images ({', '.join(IMAGE_SUFFIXES)})")
    return found


def read_images(source, shape, on_error: str = "raise", crop: float | None = None) -> tuple[list[Path], np.ndarray]:
    """Read image files into one array.

    Args:
        source: A path, a folder or a list, as for `list_images`.
        shape: `(height, width, channels)` of all of them; height and width may be None where the files are of one size.
        on_error: `"raise"` names all unreadable files in one error; `"skip"` leaves them out with a warning.
        crop: As for `read_image`.

    Returns:
        The paths that were read, and a float32 array `(n, height, width, channels)`, values 0..255; n is 0 where all were left out.

    Raises:
        DataError: See `on_error`; an empty folder; or the files differ in size and `shape` does not say which to bring them to.
        InputError: `on_error` is neither.
    """
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    paths, images, problems = [], [], []
    for path in list_images(source):
        try:
            images.append(read_image(path, shape, crop))
            paths.append(path)
        except DataError as error:
            problems.append(str(error))
    if problems:
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        if on_error == "raise":
            raise DataError(f"{len(problems)} image(s) cannot be read: {shown}. Mend or remove them, or skip them")
        warnings.warn(f"left out {len(problems)} image(s): {shown}", stacklevel=2)
    if not images:
        return paths, np.zeros((0, *(side or 0 for side in shape)), "float32")
    if len(sizes := {image.shape[:2] for image in images}) > 1:
        raise DataError(f"the images differ in size ({len(sizes)} sizes): give the height and width to bring them to")
    return paths, np.stack(images)


def resize(images: np.ndarray, size) -> np.ndarray:
    """Bilinear, antialiased resizing of a batch; uint8 is rounded and stays uint8."""
    import tensorflow as tf

    _check_size(size)
    resized = np.concatenate(
        [
            tf.image.resize(part, size, antialias=True).numpy()
            for part in np.array_split(images, -(-len(images) // 4096))
        ]
    ).clip(0, 255)
    return np.rint(resized).astype("uint8") if images.dtype == np.uint8 else resized.astype("float32")


def pad(images: np.ndarray, size) -> np.ndarray:
    """Centre a batch on zeros; an odd difference puts the larger part below and to the right."""
    _check_size(size)
    extra = [want - have for want, have in zip(size, images.shape[1:3], strict=True)]
    if min(extra) < 0:
        raise InputError(
            f"cannot pad {images.shape[1]}x{images.shape[2]} images to {size[0]}x{size[1]}: use how='bilinear'"
        )
    return np.pad(images, [(0, 0), *((e // 2, e - e // 2) for e in extra), (0, 0)])


def _check_size(size):
    if len(size) != 2 or not all(hasattr(side, "__index__") and side >= 1 for side in size):
        raise InputError(f"a size is a height and a width, whole numbers of at least 1, not {size!r}")
