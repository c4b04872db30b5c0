"""What a step of an augmentation is: a frozen record of its settings, with one method that draws from a generator.

Five kinds: `Geometric` (a 3 x 3 matrix), `Values` (a curve of single values), `Photometric` (any change of one image), `Joint` (of one image
with its mask) and `Mixing` (of a batch).
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnn_zoo.errors import InputError


@dataclass(frozen=True)
class Step:
    """Settings that can be compared, written down by `describe` and read back by `Step.of`."""

    KNOWN: ClassVar[dict] = {}  # name -> class, of every step there is

    def __init_subclass__(cls):
        if cls.__name__.islower():
            Step.KNOWN[cls.__name__] = cls

    def describe(self) -> dict:
        """Plain values, for JSON: the step's name and its settings."""
        settings = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"step": type(self).__name__, **settings}

    @staticmethod
    def of(description: dict) -> "Step":
        """The step that `describe` described.

        Raises:
            InputError: There is no such step, or it holds a function, which a description cannot.
        """
        settings = dict(description)
        name = settings.pop("step", None)
        if name not in Step.KNOWN:
            raise InputError(f"there is no augmentation step {name!r}; there are: {', '.join(sorted(Step.KNOWN))}")
        if "function" in settings:
            raise InputError(
                f"the step {settings['function']!r} is a function of your own, which a description only names; "
                "build the Augmenter in code, with the function in its list"
            )
        names = {field.name for field in dataclasses.fields(Step.KNOWN[name])}
        unknown = sorted(set(settings) - names)
        if unknown:
            raise InputError(f"{name} has no setting {unknown[0]!r}; it has: {', '.join(sorted(names))}")
        return Step.KNOWN[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})

    def chosen(self, rng) -> list["Step"]:
        """The steps that one sample gets: this one with probability `p`. A step may stand for others."""
        return [self] if self.p == 1 or rng.random() < self.p else []

    def settle(self, **values):
        """Replace settings by their checked form, while the step is made."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_p(self):
        if not (_is_number(self.p) and 0 <= self.p <= 1):
            raise InputError(f"{type(self).__name__}: p is a probability, 0..1, not {self.p!r}")


class Geometric(Step):
    """Moves pixels, by a matrix, by shifts or both; pixels are counted from the centre of the first one."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what comes out."""
        return height, width

    def matrix(self, rng, height: int, width: int) -> np.ndarray:
        """The 3 x 3 matrix that leads from an output pixel (x, y, 1) to the pixel of the `height` x `width` input it comes from."""
        return np.eye(3)

    def shifts(self, rng, height: int, width: int) -> np.ndarray | None:
        """`(height, width, 2)`: x and y by which each output pixel is shifted before all matrices; None for no shift."""
        return None


class Values(Step):
    """Changes each value by itself: `curve(rng)` gives the function of an array of values 0..255. Neighbouring ones become one table."""


class Photometric(Step):
    """Changes one image: `change(image, rng)` gives an image of the same shape; it may write into the one it gets."""


class Joint(Step):
    """Changes one image with its mask, None where there are none: `change(image, mask, rng, ignore)` gives both."""


class Mixing(Step):
    """Mixes the samples of a batch, after all else: `mix(batch, generators, classes)` gives a new batch."""

    def chosen(self, rng):
        return []  # not a matter of one sample


@dataclass(frozen=True)
class plain(Photometric):
    """A function `(image, rng) -> image` as a step; `Augmenter` makes one of each plain function in its list.

    Args:
        function: Gets `(height, width, channels)` and a NumPy generator, gives an image of the same shape; values are clipped to 0..255.
        p: Probability.
    """

    function: Callable
    p: float = 1.0

    def __post_init__(self):
        self._check_p()

    def change(self, image, rng):
        return self.function(image, rng)


@dataclass(frozen=True)
class joint(Joint):
    """A function `(image, mask, rng) -> (image, mask)` as a step, in its place among the photometric ones.

    Args:
        function: Gets image and mask (None where the batch has no masks) and a NumPy generator; shapes must stay.
        p: Probability.
    """

    function: Callable
    p: float = 1.0

    def __post_init__(self):
        if not callable(self.function):
            raise InputError(f"joint wants a function (image, mask, rng) -> (image, mask), not {self.function!r}")
        self._check_p()

    def change(self, image, mask, rng, ignore):
        return self.function(image, mask, rng)


def symmetric(step: str, name: str, value, limit: float = math.inf) -> tuple[float, float]:
    """`a` as the range -a..a; a pair as it is. Raises InputError beyond -limit..limit, for negative `a`, and for low above high."""
    low, high = _pair(step, name, value, lambda a: (-a, a))
    if max(-low, high) > limit:
        raise InputError(f"{step}: {name} must lie within -{limit:g}..{limit:g}, not {value!r}")
    return low, high


def upward(step: str, name: str, value, limit: float = math.inf) -> tuple[float, float]:
    """`a` as the range 0..a; a pair as it is. Raises InputError outside 0..limit and for low above high."""
    low, high = _pair(step, name, value, lambda a: (0.0, a))
    if low < 0 or high > limit:
        raise InputError(f"{step}: {name} must lie within 0..{limit:g}, not {value!r}")
    return low, high


def factors(step: str, low, high) -> tuple[float, float]:
    """Two factors, both above 0. Raises InputError otherwise."""
    if not (_is_number(low) and _is_number(high) and 0 < low <= high):
        raise InputError(f"{step} wants two factors above 0, the lower one first, not {low!r} and {high!r}")
    return float(low), float(high)


def whole(step: str, name: str, value) -> int:
    """A whole number of 1 or more. Raises InputError otherwise."""
    if not _is_number(value) or value != int(value) or value < 1:
        raise InputError(f"{step}: {name} must be a whole number of 1 or more, not {value!r}")
    return int(value)


def log_uniform(rng, low, high) -> float:
    """A factor between: 1/2 is as likely as 2."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _pair(step, name, value, widen):
    if _is_number(value):
        if value < 0:
            raise InputError(f"{step}: {name} must be 0 or more, or a pair (low, high), not {value!r}")
        return widen(float(value))
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]:
        return float(value[0]), float(value[1])
    raise InputError(f"{step}: {name} must be a number, or a pair (low, high), not {value!r}")


def _is_number(value):
    try:
        return not isinstance(value, (bool, str)) and math.isfinite(value)
    except TypeError:
        return False


def _plain(value):
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
