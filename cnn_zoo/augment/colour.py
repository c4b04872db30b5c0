"""Steps that change values and leave pixels where they are. Values are 0..255 before and after each, clipped."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from cnn_zoo.augment.steps import Joint, Photometric, Values, factors, log_uniform, symmetric, upward, whole
from cnn_zoo.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # weights of R, G and B in gray, ITU-R BT.601


@dataclass(frozen=True)
class brightness(Values):
    """Add the same to all values.

    Args:
        amount: Fraction of 255: `a` for -a..a, or (low, high); uniform.
        p: Probability.
    """

    amount: float | tuple[float, float]
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(amount=symmetric("brightness", "amount", self.amount, 1))

    def curve(self, rng):
        added = 255 * rng.uniform(*self.amount)
        return lambda values: values + added


@dataclass(frozen=True)
class contrast(Values):
    """Stretch (above 0) or squeeze (below 0) values about the middle, 127.5.

    Args:
        amount: The factor less 1: `a` for -a..a, or (low, high), -1 or more; uniform.
        p: Probability.
    """

    amount: float | tuple[float, float]
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        amount = symmetric("contrast", "amount", self.amount)
        if amount[0] < -1:
            raise InputError(f"contrast: amount must be -1 or more (-1 makes all gray), not {self.amount!r}")
        self.settle(amount=amount)

    def curve(self, rng):
        factor = 1 + rng.uniform(*self.amount)
        return lambda values: (values - 127.5) * factor + 127.5


@dataclass(frozen=True)
class gamma(Values):
    """Bend the curve of values: `255 * (v / 255) ** exponent`; exponents above 1 darken.

    Args:
        low, high: Exponents; drawn so that 1/2 is as likely as 2.
        p: Probability.
    """

    low: float
    high: float
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        low, high = factors("gamma", self.low, self.high)
        self.settle(low=low, high=high)

    def curve(self, rng):
        exponent = log_uniform(rng, self.low, self.high)
        return lambda values: 255 * (values / 255) ** exponent


@dataclass(frozen=True)
class solarize(Values):
    """Invert the values from a threshold on.

    Args:
        threshold: 0..255, or (low, high); uniform.
        p: Probability.
    """

    threshold: float | tuple[float, float] = 128
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        given = self.threshold if isinstance(self.threshold, tuple) else (self.threshold, self.threshold)
        self.settle(threshold=upward("solarize", "threshold", given, 256))

    def curve(self, rng):
        threshold = rng.uniform(*self.threshold)
        return lambda values: np.where(values >= threshold, 255 - values, values)


@dataclass(frozen=True)
class posterize(Values):
    """Keep the first bits of each value.

    Args:
        bits: 1..8.
        p: Probability.
    """

    bits: int = 4
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(bits=whole("posterize", "bits", self.bits))
        if self.bits > 8:
            raise InputError(f"posterize: bits must be 1..8, not {self.bits}")

    def curve(self, rng):
        step = 2 ** (8 - self.bits)
        return lambda values: np.floor(values / step) * step


@dataclass(frozen=True)
class blur(Photometric):
    """Gaussian blur; at the edges the image is mirrored.

    Args:
        sigma: Standard deviation in pixels: `a` for 0..a, or (low, high); uniform. The kernel ends after 3 of them.
        p: Probability.
    """

    sigma: float | tuple[float, float]
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(sigma=upward("blur", "sigma", self.sigma))

    def change(self, image, rng):
        return _blurred(image, rng.uniform(*self.sigma))


@dataclass(frozen=True)
class sharpen(Photometric):
    """Unsharp mask: the image, and more of what a Gaussian blur of 1 pixel takes away.

    Args:
        amount: `a` for 0..a, or (low, high); uniform. 1 doubles fine detail, and -1 leaves the blurred image.
        p: Probability.
    """

    amount: float | tuple[float, float]
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        pair = self.amount if isinstance(self.amount, tuple) else upward("sharpen", "amount", self.amount)
        pair = symmetric("sharpen", "amount", pair)
        if pair[0] < -1:
            raise InputError(f"sharpen: amount must be -1 or more, not {self.amount!r}")
        self.settle(amount=pair)

    def change(self, image, rng):
        amount = rng.uniform(*self.amount)
        return cv2.addWeighted(image, 1 + amount, _blurred(image, 1.0), -amount, 0).reshape(image.shape)


@dataclass(frozen=True)
class noise(Photometric):
    """Add Gaussian noise, of each pixel and channel by itself.

    Args:
        sigma: Standard deviation in gray levels of 255: `a` for 0..a, or (low, high); uniform.
        p: Probability.
    """

    sigma: float | tuple[float, float]
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(sigma=upward("noise", "sigma", self.sigma))

    def change(self, image, rng):
        sigma = rng.uniform(*self.sigma)
        return image + np.float32(sigma) * rng.standard_normal(image.shape, dtype="float32")


@dataclass(frozen=True)
class saturation(Photometric):
    """Move colours away from gray (above 0) or towards it. RGB images only.

    Args:
        amount: The factor less 1: `a` for -a..a, or (low, high), -1 or more; uniform.
        p: Probability.
    """

    amount: float | tuple[float, float]
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        amount = symmetric("saturation", "amount", self.amount)
        if amount[0] < -1:
            raise InputError(f"saturation: amount must be -1 or more (-1 makes all gray), not {self.amount!r}")
        self.settle(amount=amount)

    def change(self, image, rng):
        _check_rgb("saturation", image)
        factor = 1 + rng.uniform(*self.amount)
        return cv2.transform(image, factor * np.eye(3) + (1 - factor) * np.tile(LUMA, (3, 1)))


@dataclass(frozen=True)
class hue(Photometric):
    """Turn colours about the axis of grays in the space YIQ, so that brightness stays. RGB images only.

    Args:
        degrees: `a` for -a..a, or (low, high); uniform. 120 brings red near green.
        p: Probability.
    """

    degrees: float | tuple[float, float]
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(degrees=symmetric("hue", "degrees", self.degrees, 360))

    def change(self, image, rng):
        _check_rgb("hue", image)
        angle = math.radians(rng.uniform(*self.degrees))
        cos, sin = math.cos(angle), math.sin(angle)
        return cv2.transform(image, np.linalg.inv(_YIQ) @ [[1, 0, 0], [0, cos, sin], [0, -sin, cos]] @ _YIQ)


@dataclass(frozen=True)
class channel_shuffle(Photometric):
    """Bring the channels into a random order."""

    p: float = 0.5

    def __post_init__(self):
        self._check_p()

    def change(self, image, rng):
        return image[..., rng.permutation(image.shape[-1])]


@dataclass(frozen=True)
class channel_drop(Photometric):
    """Set one channel, whichever, to a value.

    Args:
        fill: 0..255.
        p: Probability.
    """

    fill: float = 0.0
    p: float = 0.5

    def __post_init__(self):
        self._check_p()
        self.settle(fill=upward("channel_drop", "fill", self.fill, 255)[1])

    def change(self, image, rng):
        if image.shape[-1] < 2:
            raise InputError("channel_drop would leave nothing of images with a single channel; leave it out")
        image[..., rng.integers(image.shape[-1])] = self.fill
        return image


@dataclass(frozen=True)
class jpeg(Photometric):
    """Write and read as JPEG. Images that are not RGB go channel by channel; float32 is rounded.

    Args:
        low, high: Quality, 1..100; whole numbers between are equally likely.
        p: Probability.
    """

    low: int = 40
    high: int = 95
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(low=whole("jpeg", "low", self.low), high=whole("jpeg", "high", self.high))
        if not self.low <= self.high <= 100:
            raise InputError(f"jpeg wants two qualities, 1..100, the lower one first, not {self.low} and {self.high}")

    def change(self, image, rng):
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(self.low, self.high + 1))]
        whole = np.rint(image).astype("uint8")
        if image.shape[-1] == 3:
            _, data = cv2.imencode(".jpg", cv2.cvtColor(whole, cv2.COLOR_RGB2BGR), quality)
            return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        parts = [cv2.imencode(".jpg", np.ascontiguousarray(part), quality)[1] for part in np.moveaxis(whole, -1, 0)]
        return np.stack([cv2.imdecode(part, cv2.IMREAD_GRAYSCALE) for part in parts], axis=-1)


@dataclass(frozen=True)
class illumination(Photometric):
    """Uneven light: a slope of brightness across the image, in a random direction.

    Args:
        strength: How much brighter the one end is and darker the other, as a factor less 1: `a` for 0..a, or (low, high), 1 at most; uniform.
        p: Probability.
    """

    strength: float | tuple[float, float]
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(strength=upward("illumination", "strength", self.strength, 1))

    def change(self, image, rng):
        strength, angle = rng.uniform(*self.strength), rng.uniform(0, 2 * math.pi)
        cos, sin = math.cos(angle), math.sin(angle)
        x = np.linspace(-1, 1, image.shape[1], dtype="float32")
        y = np.linspace(-1, 1, image.shape[0], dtype="float32")[:, None]
        slope = (x * cos + y * sin) / (abs(cos) + abs(sin))  # -1 and 1 in opposite corners
        return image * (1 + np.float32(strength) * slope)[..., None]


@dataclass(frozen=True)
class equalize(Photometric):
    """Spread the values of each channel until all are about equally frequent; float32 is rounded."""

    p: float = 1.0

    def __post_init__(self):
        self._check_p()

    def change(self, image, rng):
        whole = np.rint(image).astype("uint8")
        return np.stack([cv2.equalizeHist(np.ascontiguousarray(c)) for c in np.moveaxis(whole, -1, 0)], axis=-1)


@dataclass(frozen=True)
class autocontrast(Photometric):
    """Stretch the values of each channel to 0..255; a channel of one value stays."""

    p: float = 1.0

    def __post_init__(self):
        self._check_p()

    def change(self, image, rng):
        low, high = (function(image, axis=(0, 1), keepdims=True).astype("float32") for function in (np.min, np.max))
        return np.where(high > low, (image - low) * 255 / np.maximum(high - low, 1e-6), image)


@dataclass(frozen=True)
class cutout(Joint):
    """Hide rectangles (DeVries & Taylor 2017, arXiv:1708.04552); they may reach over the edges.

    Args:
        size: Sides, as a fraction of those of the image: `a` for a alone, or (low, high), drawn for each side; uniform.
        count: How many.
        fill: Value 0..255 in them.
        hide_masks: Whether their pixels are the augmenter's `ignore` in masks; default the mask stays, so that a net learns to guess.
        p: Probability.
    """

    size: float | tuple[float, float] = 0.25
    count: int = 1
    fill: float = 0.0
    hide_masks: bool = False
    p: float = 0.5

    def __post_init__(self):
        self._check_p()
        size = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        self.settle(size=upward("cutout", "size", size, 1), count=whole("cutout", "count", self.count))
        self.settle(fill=upward("cutout", "fill", self.fill, 255)[1])

    def change(self, image, mask, rng, ignore):
        height, width = image.shape[:2]
        for _ in range(self.count):
            high, wide = rng.uniform(*self.size) * height, rng.uniform(*self.size) * width
            y, x = rng.uniform(0, height) - high / 2, rng.uniform(0, width) - wide / 2
            hidden = (
                slice(max(round(y), 0), max(round(y + high), 0)),
                slice(max(round(x), 0), max(round(x + wide), 0)),
            )
            image[hidden] = self.fill
            if self.hide_masks and mask is not None:
                mask[hidden] = ignore
        return image, mask


_YIQ = np.array([LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])  # FCC NTSC


def _blurred(image, sigma):
    side = 2 * math.ceil(3 * sigma) + 1
    if side == 1:
        return image
    return cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101).reshape(image.shape)


def _check_rgb(step, image):
    if image.shape[-1] != 3:
        raise InputError(f"{step} is a matter of RGB, and these images have {image.shape[-1]} channels; leave it out")
