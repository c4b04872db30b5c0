"""Steps that move pixels. All of one sample become one matrix, and one warp: `cnn_zoo.augment.warp` applies it."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from cnn_zoo.augment.steps import Geometric, factors, log_uniform, symmetric, upward, whole
from cnn_zoo.errors import InputError


@dataclass(frozen=True)
class flip(Geometric):
    """Mirror left to right, top to bottom, or both; exact, nothing is interpolated.

    Args:
        horizontal: Whether left and right may change places.
        vertical: Whether top and bottom may.
        p: Probability of each of them.
    """

    horizontal: bool = True
    vertical: bool = False
    p: float = 0.5

    def __post_init__(self):
        self._check_p()

    def chosen(self, rng):
        return [self]  # `p` is that of each direction

    def matrix(self, rng, height, width):
        x = -1.0 if self.horizontal and rng.random() < self.p else 1.0
        y = -1.0 if self.vertical and rng.random() < self.p else 1.0
        return _about_centre(x, 0.0, 0.0, y, height, width)


@dataclass(frozen=True)
class turn(Geometric):
    """Turn by 0, 90, 180 or 270 degrees, each equally likely; exact. An image that is not square turns by 0 or 180 and keeps its size."""

    p: float = 1.0

    def __post_init__(self):
        self._check_p()

    def matrix(self, rng, height, width):
        quarter = int(rng.integers(4)) if height == width else 2 * int(rng.integers(2))
        cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[quarter]
        return _about_centre(cos, -sin, sin, cos, height, width)


@dataclass(frozen=True)
class rotate(Geometric):
    """Turn about the centre, counter-clockwise.

    Args:
        degrees: `a` for -a..a, or (low, high); uniform.
        p: Probability.
    """

    degrees: float | tuple[float, float]
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(degrees=symmetric("rotate", "degrees", self.degrees, 360))

    def matrix(self, rng, height, width):
        angle = math.radians(rng.uniform(*self.degrees))
        cos, sin = math.cos(angle), math.sin(angle)
        return _about_centre(cos, -sin, sin, cos, height, width)


@dataclass(frozen=True)
class scale(Geometric):
    """Enlarge (above 1) or shrink (below 1) about the centre; the size of the image stays.

    Args:
        low, high: Factors; drawn so that 1/2 is as likely as 2.
        stretch: Whether width and height draw a factor each, so that shapes change.
        p: Probability.
    """

    low: float
    high: float
    stretch: bool = False
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        low, high = factors("scale", self.low, self.high)
        self.settle(low=low, high=high)

    def matrix(self, rng, height, width):
        x = log_uniform(rng, self.low, self.high)
        y = log_uniform(rng, self.low, self.high) if self.stretch else x
        return _about_centre(1 / x, 0.0, 0.0, 1 / y, height, width)


@dataclass(frozen=True)
class translate(Geometric):
    """Shift to the right and downwards.

    Args:
        x, y: Fractions of width and height: `a` for -a..a, or (low, high); uniform. `y` is as `x` where it is not given.
        p: Probability.
    """

    x: float | tuple[float, float]
    y: float | tuple[float, float] | None = None
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        x = symmetric("translate", "x", self.x, 1)
        self.settle(x=x, y=x if self.y is None else symmetric("translate", "y", self.y, 1))

    def matrix(self, rng, height, width):
        x, y = rng.uniform(*self.x) * width, rng.uniform(*self.y) * height
        return np.array([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class shear(Geometric):
    """Skew about the centre: x grows by `x` times the height above it, y by `y` times the width beside it.

    Args:
        x, y: Tangents of the angles: `a` for -a..a, or (low, high), below 1; uniform.
        p: Probability.
    """

    x: float | tuple[float, float]
    y: float | tuple[float, float] = 0.0
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(x=symmetric("shear", "x", self.x, 0.99), y=symmetric("shear", "y", self.y, 0.99))

    def matrix(self, rng, height, width):
        x, y = rng.uniform(*self.x), rng.uniform(*self.y)
        whole = 1 - x * y  # the determinant of [[1, x], [y, 1]], whose inverse leads from output to input
        return _about_centre(1 / whole, -x / whole, -y / whole, 1 / whole, height, width)


@dataclass(frozen=True)
class perspective(Geometric):
    """Look from another side: each corner of the output comes from near that corner of the input.

    Args:
        strength: How far at most, as a fraction of the sides: below 0.25, beyond which an image could fold.
        p: Probability.
    """

    strength: float = 0.1
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(strength=upward("perspective", "strength", self.strength, 0.249)[1])

    def matrix(self, rng, height, width):
        left, top, right, bottom = -0.5, -0.5, width - 0.5, height - 0.5
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], "float32")
        moved = corners + rng.uniform(-self.strength, self.strength, (4, 2)) * (width, height)
        return cv2.getPerspectiveTransform(corners, moved.astype("float32"))


@dataclass(frozen=True)
class crop(Geometric):
    """Cut out a window at a random place; it sets the size of what comes out, in the same warp as all else.

    Args:
        height, width: Pixels; `width` is as `height` where it is not given. An image that is smaller is an error, when it comes.
    """

    height: int
    width: int | None = None

    def __post_init__(self):
        width = self.height if self.width is None else self.width
        self.settle(height=whole("crop", "height", self.height), width=whole("crop", "width", width))

    def chosen(self, rng):
        return [self]  # always: a batch has one size

    def size(self, height, width):
        if self.height > height or self.width > width:
            raise InputError(
                f"crop({self.height}, {self.width}) is larger than the images, {height} x {width}: "
                "crop less, or resize or pad the images first"
            )
        return self.height, self.width

    def matrix(self, rng, height, width):
        bottom, right = self.size(height, width)
        x, y = rng.integers(width - right + 1), rng.integers(height - bottom + 1)
        return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class elastic(Geometric):
    """Warp locally: a coarse grid of random shifts, by bicubic interpolation a shift of each pixel. It acts last, wherever it stands.

    As in U-Net (Ronneberger et al. 2015, section 3.1), which shifts a 3 x 3 grid by 10 of 512 pixels.

    Args:
        strength: Standard deviation of the shifts of the coarse grid, as a fraction of the shorter side; at two of them they are cut.
        grid: Points of the coarse grid along each side, 2 or more.
        p: Probability.

    Raises:
        InputError: `strength * grid` is above 0.15, where an image could fold over itself.
    """

    strength: float = 0.02
    grid: int = 3
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        strength, grid = upward("elastic", "strength", self.strength)[1], whole("elastic", "grid", self.grid)
        if grid < 2:
            raise InputError(f"elastic: grid must be 2 or more, not {grid}")
        if (
            strength * grid > 0.15
        ):  # two neighbours can differ by 4 deviations, and cubic curves are 3/2 as steep between
            raise InputError(
                f"elastic: shifts of {strength:g} on a grid of {grid} could fold the image: strength can be {0.15 / grid:.3g} at most"
            )
        self.settle(strength=strength, grid=grid)

    def shifts(self, rng, height, width):
        coarse = np.clip(rng.standard_normal((self.grid, self.grid, 2)), -2, 2) * (self.strength * min(height, width))
        return cv2.resize(coarse.astype("float32"), (width, height), interpolation=cv2.INTER_CUBIC)


def _about_centre(a, b, c, d, height, width):
    """The matrix of [[a, b], [c, d]] about the centre of the image."""
    x, y = (width - 1) / 2, (height - 1) / 2
    return np.array([[a, b, x - a * x - b * y], [c, d, y - c * x - d * y], [0.0, 0.0, 1.0]])
