"""Segmentation by colour with k-means, as it was done before nets: no labels, no training set, and no idea of what an object is.

Source: Lloyd 1982; the initial centres by k-means++ (Arthur and Vassilvitskii 2007); for large images mini-batches (Sculley 2010).
"""

from dataclasses import dataclass

import numpy as np

from cnn_zoo.data.arrays import check_batch, to_contract
from cnn_zoo.errors import InputError
from cnn_zoo.palette import Palette

LARGE = 500_000  # pixels from which the centres are learnt from that many drawn at random, in mini-batches
_SPANS = {"rgb": 255.0, "lab": 100.0, "hsv": 255.0}  # from black to white, in the units of each space


@dataclass(frozen=True)
class Clusters:
    """An image divided by colour.

    Attributes:
        ids: `(height, width)` uint8 (uint16 above 256 clusters): the cluster of each pixel.
        centres: `(clusters, channels)` float32, 0..255: the mean colour of each cluster's pixels.
        counts: `(clusters,)` pixels of each.
        recoloured: The image with each pixel in the mean colour of its cluster, uint8.
        inertia: Mean squared distance of the pixels to the centre of their cluster, in the units of the colour space.
    """

    ids: np.ndarray
    centres: np.ndarray
    counts: np.ndarray
    recoloured: np.ndarray
    inertia: float

    @property
    def palette(self) -> Palette:
        """The clusters' own colours, for the pictures of `cnn_zoo.mask_plots`; of equal ones the later is moved by a gray level."""
        colors = []
        for centre in np.rint(self.centres).astype(int).tolist():
            color = tuple(centre[:3]) if len(centre) >= 3 else (centre[0],) * 3
            while color in colors:
                color = (*color[:2], (color[2] + 1) % 256)
            colors.append(color)
        return Palette(tuple(f"cluster {i}" for i in range(len(colors))), tuple(colors))


def kmeans_segment(
    image, clusters: int, *, space: str = "rgb", position: float = 0.0, seed: int = 0, order: str = "size"
) -> Clusters:
    """Divide an image into clusters of like colour.

    Args:
        image: `(height, width)` or `(height, width, channels)`, any number of channels; values come to 0..255 by the dtype, as in
            `Data.from_arrays`.
        clusters: How many, at least 2.
        space: Where distances are measured: `"rgb"` (the channels as they are, any number of them), `"lab"` (CIE 1976 L*a*b*, in which equal
            distances look about equal; sRGB, D65) or `"hsv"` (hue as an angle, in the cone of saturation times value).
        position: Weight of the place of a pixel: 0 is colour alone; at 1 the length of the image's longer side counts as much as black to white.
        seed: The same seed gives the same clusters.
        order: Number the clusters by `"size"`, the largest first, or by `"lightness"`, the darkest first.

    Returns:
        `Clusters`.

    Raises:
        InputError: No image, an unknown space or order, or fewer different colours than clusters.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(
            f"one image (height, width) or (height, width, channels) is expected, not of shape {image.shape}"
        )
    image = to_contract(image[None])[0][0]
    check_batch(image[None])
    height, width, channels = image.shape
    if isinstance(clusters, bool) or not hasattr(clusters, "__index__") or not 2 <= clusters <= 65536:
        raise InputError(f"clusters is a whole number from 2, not {clusters!r}")
    if space not in _SPANS:
        raise InputError(f"space is {', '.join(map(repr, _SPANS))}, not {space!r}")
    if space != "rgb" and channels != 3:
        raise InputError(
            f"{space!r} needs RGB, and the image has {channels} channel(s): use space='rgb', the channels as they are"
        )
    if not np.isfinite(position) or position < 0:
        raise InputError(f"position is a weight of at least 0, not {position!r}")
    if order not in ("size", "lightness"):
        raise InputError(f"order is 'size' or 'lightness', not {order!r}")
    pixels = height * width
    features = _features(image, space, position)
    drawn = np.arange(pixels)
    if pixels > LARGE:
        drawn = np.sort(np.random.default_rng(seed).choice(pixels, LARGE, replace=False))
    sample = features(drawn)
    if (different := len(np.unique(sample[: 100 * clusters], axis=0))) < clusters:
        different = len(np.unique(sample, axis=0))
    if different < clusters:
        raise InputError(
            f"the image has {different} different colour(s), too few for {clusters} clusters: ask for fewer"
        )
    method = KMeans(clusters, n_init=4, random_state=seed)
    if pixels > LARGE:
        method = MiniBatchKMeans(clusters, n_init=4, batch_size=8192, random_state=seed)
    method.fit(sample)
    ids, distance = np.empty(pixels, "int64"), 0.0
    for start in range(0, pixels, LARGE):  # features of a whole slide would need many times its memory
        part = features(np.arange(start, min(start + LARGE, pixels)))
        ids[start : start + LARGE] = method.predict(part)
        distance += float(((part - method.cluster_centers_[ids[start : start + LARGE]]) ** 2).sum())
    flat = image.reshape(pixels, channels)
    counts = np.bincount(ids, minlength=clusters)
    sums = np.stack([np.bincount(ids, flat[:, c], minlength=clusters) for c in range(channels)], axis=-1)
    # A mini-batch centre may end without pixels; it keeps its number, and the colour black.
    centres = (sums / np.maximum(counts, 1)[:, None]).astype("float32")
    key = -counts if order == "size" else _lightness(centres)
    rank = np.argsort(key, kind="stable")
    ids = np.argsort(rank)[ids].reshape(height, width).astype("uint8" if clusters <= 256 else "uint16")
    centres, counts = centres[rank], counts[rank]
    recoloured = np.rint(centres).astype("uint8")[ids]
    return Clusters(ids, centres, counts, recoloured, distance / pixels)


def _features(image, space, position):
    """A function from pixel numbers to what k-means sees of them."""
    height, width, channels = image.shape
    flat = image.reshape(-1, channels)
    convert = {"rgb": lambda colors: colors, "lab": rgb_to_lab, "hsv": _cone}[space]

    def of(indices):
        colors = convert(flat[indices].astype("float32"))
        if not position:
            return colors
        places = np.stack(np.divmod(indices, width), axis=-1) * (position * _SPANS[space] / max(height, width))
        return np.concatenate([colors, places.astype("float32")], axis=-1)

    return of


def rgb_to_lab(colors) -> np.ndarray:
    """sRGB, 0..255, to CIE 1976 L*a*b* under D65: L* 0..100.

    Source: IEC 61966-2-1 (sRGB); CIE 15:2004.
    """
    values = np.asarray(colors, "float64") / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    ratio = (
        linear @ (matrix / matrix.sum(1, keepdims=True)).T
    )  # to the white of the same matrix: gray is then exactly neutral
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype("float32")


def _cone(colors):
    """HSV as a cone: hue is the angle, saturation times value the radius, value the height, all 0..255; so red has no border to itself."""
    red, green, blue = np.moveaxis(colors, -1, 0)
    value = colors.max(-1)
    chroma = value - colors.min(-1)  # saturation times value
    angle = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)
    return np.stack([chroma * np.cos(angle), chroma * np.sin(angle), value], axis=-1)


def _lightness(centres):
    return rgb_to_lab(centres)[:, 0] if centres.shape[-1] == 3 else centres.mean(-1)
