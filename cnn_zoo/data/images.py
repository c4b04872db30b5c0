"""Image files and raw bytes to arrays, by one rule for prediction and for exported models alike."""

from functools import partial
from pathlib import Path

import numpy as np

from cnn_zoo.data import sizes
from cnn_zoo.data.formats import SUFFIXES, luma, read_array, read_many, to_channels
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.errors import DataError, InputError

IMAGE_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix != ".npz")  # a .npz in a folder is rather a data set


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
        image = luma(image)
    if height is not None:
        image = tf.image.resize(image, (height, width), antialias=True)
        image = tf.clip_by_value(image, 0.0, 255.0)
        image.set_shape((height, width, channels))
    return image


def check_channels(channels) -> None:
    """Raise InputError unless ordinary image files can have so many channels."""
    if channels not in (1, 3, 4):
        raise InputError(f"image files have 1, 3 or 4 channels and the model takes {channels}: give it arrays instead")


def read_image(
    path, shape=None, crop: float | None = None, *, intensity: Intensity | None = None, size: sizes.Size | None = None
) -> np.ndarray:
    """Read an image file.

    The file is read by `cnn_zoo.data.formats.read_array` (of several frames the first) and brought to 0..255 by its type, `Intensity("dtype")`: 8-bit
    values as they are, 16-bit ones divided by 257; or by another rule, such as that of the images a net was trained on. PNG and JPEG come out as
    `decode_bytes` gives them in an exported model, except that a photograph with an EXIF orientation is turned here.

    Args:
        path: The file.
        shape: `(height, width, channels)` to come out; None keeps the file's size and channels.
        crop: None stretches the image to `shape`. A fraction, 0 < crop <= 1, keeps its proportions and cuts out the middle: the image is scaled
            until `shape` covers this fraction of its shorter side. 0.875 (256 to 224) is what ImageNet's classifiers are measured with.
        intensity: A fitted rule instead of the type's.
        size: A rule instead of stretching; its height and width must be those of `shape`.

    Returns:
        A float32 array, values 0..255.

    Raises:
        DataError: The file is missing, empty, damaged, too large to be true, not an image, or holds numbers that no rule brings to 0..255.
        InputError: `shape` asks for other than 1, 3 or 4 channels, `crop` is no fraction, or `size` contradicts it or `shape`.
    """
    if size is not None and (crop is not None or (size.height, size.width) != tuple((shape or ())[:2])):
        raise InputError(
            f"images {size} are asked for, and also {f'crop={crop}' if crop is not None else shape}: give one"
        )
    if crop is not None:
        if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop <= 1:
            raise InputError(f"crop is a fraction, 0 < crop <= 1, not {crop!r}")
        if shape is not None and None not in shape[:2]:
            return _middle(read_image(path, (None, None, shape[2]), intensity=intensity), shape[:2], crop)
    values = read_array(path, alpha=shape is None or shape[2] == 4)
    if shape is None:
        shape = (None, None, values.shape[-1])
    check_channels(shape[2])
    try:
        values = contract(values, shape[2], intensity)
    except (DataError, InputError) as error:
        raise DataError(f"{str(path)!r}: {error}") from error
    if size is not None:
        return size.apply(values)
    return values if shape[0] is None else resize(values[None], shape[:2])[0]


def contract(values, channels: int, intensity: Intensity | None = None) -> np.ndarray:
    """Values of an image file `(height, width, bands)` as float32 0..255 with so many channels.

    Args:
        values: As stored.
        channels: To come out.
        intensity: None for that of the type; another rule is applied to the channels that come out, as `ImageFiles` does in training.
    """
    if intensity is None:
        return to_channels(Intensity().apply(values).astype("float32"), channels)
    return intensity.apply(to_channels(values, channels)).astype("float32")


def _middle(image, size, crop):
    scale = max(want / have for want, have in zip(size, image.shape[:2])) / crop
    whole = [max(want, round(have * scale)) for want, have in zip(size, image.shape[:2])]
    top, left = ((have - want) // 2 for want, have in zip(size, whole))
    return resize(image[None], whole)[0, top : top + size[0], left : left + size[1]]


def list_images(source) -> list[Path]:
    """The image files of a folder (with its subfolders, sorted), of a list of paths, or one path.

    In folders, hidden files (`._x.jpg`, which macOS leaves behind) are not images, and neither is a `.npz`.

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
    found = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise DataError(f"the folder {str(source)!r} has no images ({', '.join(IMAGE_SUFFIXES)})")
    return found


def read_images(
    source, shape, on_error: str = "raise", crop: float | None = None, **rules
) -> tuple[list[Path], np.ndarray]:
    """Read image files into one array.

    Args:
        source: A path, a folder or a list, as for `list_images`.
        shape: `(height, width, channels)` of all of them; height and width may be None where the files are of one size.
        on_error: `"raise"` names all unreadable files in one error; `"skip"` leaves them out with a warning.
        crop: As for `read_image`.
        **rules: `intensity` and `size`, as for `read_image`.

    Returns:
        The paths that were read, and a float32 array `(n, height, width, channels)`, values 0..255; n is 0 where all were left out.

    Raises:
        DataError: See `on_error`; an empty folder; or the files differ in size and `shape` does not say which to bring them to.
        InputError: `on_error` is neither.
    """
    listed = list_images(source)
    images, kept = read_many(listed, on_error, partial(read_image, shape=shape, crop=crop, **rules))
    paths = [listed[i] for i in kept]
    if not images:
        return paths, np.zeros((0, *(side or 0 for side in shape)), "float32")
    if len(different := {image.shape[:2] for image in images}) > 1:
        raise DataError(
            f"the images differ in size ({len(different)} sizes): give the height and width to bring them to"
        )
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


def nearest(masks: np.ndarray, size) -> np.ndarray:
    """Masks `(n, height, width)` at another size: each pixel has the id of the nearest one, so that no ids are made up."""
    _check_size(size)
    return sizes.nearest(masks, size)


def pad(images: np.ndarray, size, value=0) -> np.ndarray:
    """Centre a batch on zeros, or another value; an odd difference puts the larger part below and to the right."""
    _check_size(size)
    extra = [want - have for want, have in zip(size, images.shape[1:3], strict=True)]
    if min(extra) < 0:
        raise InputError(
            f"cannot pad {images.shape[1]}x{images.shape[2]} images to {size[0]}x{size[1]}: use how='bilinear'"
        )
    return np.pad(images, [(0, 0), *((e // 2, e - e // 2) for e in extra), (0, 0)], constant_values=value)


def _check_size(size):
    if len(size) != 2 or not all(hasattr(side, "__index__") and side >= 1 for side in size):
        raise InputError(f"a size is a height and a width, whole numbers of at least 1, not {size!r}")
