"""Look at every image once, in parallel: its header, its values, a hash of its pixels and a small copy of it."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from cnn_zoo.data.arraylike import array_hash
from cnn_zoo.data.formats import ImageInfo, inspect, pool
from cnn_zoo.errors import ZooError

SIDE = 32  # of the small copies
PIXELS = 4_000_000  # of all images together, that histograms are made of
ORIENTATION = 0x0112  # EXIF


class Look(NamedTuple):
    """What was seen of one image. Values are on the scale 0..255 of the rule `Intensity("dtype")`: bool times 255, uint16 divided by 257.

    Attributes:
        error: Why it cannot be read; then the rest is empty.
        info: Its header.
        turned: It has an EXIF orientation other than upright.
        digest: Of shape, type and values.
        low, high, mean, contrast: Of all finite values; mean and standard deviation of the gray image.
        finite: No NaN and no infinity.
        gray_color: Three equal channels.
        small: `(32, 32)` float16, gray, mean 0 and standard deviation 1.
        sample: Some gray values, spread evenly.
        ids: Ids in its mask, or None.
        mask_error: Why its mask cannot be read.
    """

    error: str | None
    info: ImageInfo | None = None
    turned: bool = False
    digest: str = ""
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    contrast: float = 0.0
    finite: bool = True
    gray_color: bool = False
    small: np.ndarray | None = None
    sample: np.ndarray | None = None
    ids: tuple | None = None
    mask_error: str | None = None


def look(listing, progress: bool = True) -> list[Look]:
    """One `Look` an image of a `Listing`."""
    most = max(64, PIXELS // len(listing))
    looks = pool().map(lambda i: _one(listing, i, most), range(len(listing)))
    return list(tqdm(looks, "looking at images", len(listing), unit="image", disable=not progress, leave=False))


def _one(listing, i, most):
    source = listing.images[i]
    try:
        values = listing.image(i)
        if isinstance(source, Path):
            info, turned = inspect(source), _turned(source)
        else:
            bits = 1 if values.dtype == bool else 8 * values.dtype.itemsize
            info, turned = ImageInfo(*values.shape, values.dtype.name, bits, 1, "array"), False
    except ZooError as error:
        return Look(str(error))
    ids, mask_error = None, None
    if listing.masks[i] is not None:
        try:
            ids = tuple(np.unique(listing.mask(i)).tolist())
        except ZooError as error:
            mask_error = str(error)
    gray, finite = to_gray(values)
    scale = {"bool": 255, "uint16": 1 / 257}.get(values.dtype.name, 1)
    seen = values if finite else values[np.isfinite(values)]
    low, high = (float(seen.min()) * scale, float(seen.max()) * scale) if seen.size else (0.0, 0.0)
    mean, contrast = (float(number[0, 0]) for number in cv2.meanStdDev(gray))
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype("float32")
    small = (small - small.mean()) / (small.std() or 1)
    return Look(
        None, info, turned, f"{values.shape}{values.dtype}{array_hash(values)}", low, high, mean, contrast, finite,
        values.shape[-1] == 3 and bool((values[..., :1] == values).all()), small.astype("float16"),
        gray.ravel()[:: -(-gray.size // most)].astype("float32"), ids, mask_error,
    )  # fmt: skip


def to_gray(values) -> tuple[np.ndarray, bool]:
    """`(height, width)`, uint8 or float32, on the scale of `Look`, and whether all values are finite; those that are not become 0."""
    if values.dtype == bool:
        values = values * np.uint8(255)
    finite = True
    if values.dtype != np.uint8:
        values = values.astype("float32") / (257 if values.dtype == np.uint16 else 1)
        finite = bool(np.isfinite(values).all())
        values = values if finite else np.nan_to_num(values, posinf=0, neginf=0)
    channels = values.shape[-1]
    if channels == 1:
        return np.ascontiguousarray(values[..., 0]), finite
    if channels == 3:
        return cv2.cvtColor(np.ascontiguousarray(values), cv2.COLOR_RGB2GRAY), finite
    return values.mean(-1, dtype="float32"), finite


def _turned(path):
    try:
        with Image.open(path) as image:
            return image.getexif().get(ORIENTATION, 1) not in (0, 1)
    except Exception:  # kinds that Pillow does not know, such as MRC and NumPy, have no such thing
        return False
