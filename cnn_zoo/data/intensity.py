"""From the numbers of any instrument to 0..255, by a stated rule that is one for all images of a data set."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from cnn_zoo.errors import InputError

RULES = ("dtype", "range", "percentiles", "minmax", "standardise")
SAMPLE = 2_000_000  # pixels of each band, in all, from which percentiles of floats are taken


@dataclass(frozen=True)
class Intensity:
    """How values become 0..255.

    - `"dtype"`: by the type alone. 8 bit as it is; logical 0 and 1 as 0 and 255; uint16 divided by 257; every other type must lie in 0..255.
    - `"range"`: `low` becomes 0 and `high` 255, linearly; beyond them clipped.
    - `"percentiles"`: the same with `low` and `high` found by `fit`: these percentiles of all training pixels, each band by itself.
    - `"minmax"`: 255 (v - min) / (max - min) with the extremes of each image by itself, over all its bands. A flat image becomes 0. It takes away
      how bright an image is in comparison with others.
    - `"standardise"`: z = (v - mean) / std with mean and standard deviation of all training pixels, found by `fit`, each band by itself; then
      127.5 + 51 z, clipped, so that 2.5 standard deviations fill the range. A band without variation becomes 127.5.

    Attributes:
        rule: One of the above.
        low, high: Numbers, or one a band.
        percentiles: Of `"percentiles"`.
        mean, std: Of `"standardise"`, one a band.
        images: From how many `fit` has its numbers.

    Raises:
        InputError: Another rule, or numbers that are none.
    """

    rule: str = "dtype"
    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None
    percentiles: tuple[float, float] = (0.1, 99.9)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    images: int | None = None

    def __post_init__(self):
        if self.rule not in RULES:
            raise InputError(f"the intensity rule is one of {', '.join(RULES)}, not {self.rule!r}")
        for name in ("low", "high", "mean", "std", "percentiles"):
            value = getattr(self, name)
            if value is not None:
                try:
                    plain = tuple(map(float, value)) if np.ndim(value) else float(value)
                except (TypeError, ValueError) as error:
                    raise InputError(f"{name} is a number or one a band, not {value!r}") from error
                if not np.isfinite(plain).all():
                    raise InputError(f"{name} is finite, not {value!r}")
                object.__setattr__(self, name, plain)
        if np.shape(self.percentiles) != (2,) or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise InputError(f"percentiles are two numbers, 0 <= low < high <= 100, not {self.percentiles!r}")
        if self.rule == "range" and (self.low is None or self.high is None):
            raise InputError("the rule 'range' needs low and high: Intensity('range', low=0, high=4095)")
        if (self.low is None) != (self.high is None) or (
            self.low is not None and np.ndim(self.low) != np.ndim(self.high)
        ):
            raise InputError("low and high are both numbers, or both one a band")
        if self.low is not None:
            if np.shape(self.low) != np.shape(self.high):
                raise InputError(f"low has {len(self.low)} bands and high {len(self.high)}")
            if not (np.array(self.low) < self.high).all():
                raise InputError(f"low must be below high, and they are {self.low} and {self.high}")

    @property
    def fitted(self) -> bool:
        """Whether `apply` has all the numbers it needs."""
        return {"percentiles": self.low is not None, "standardise": self.mean is not None}.get(self.rule, True)

    def fit(self, arrays) -> "Intensity":
        """The same rule with its numbers found in training images, which are read one after the other.

        Percentiles of integers of 8 and 16 bit are exact, from histograms, and interpolated as `numpy.percentile` does; of other types they are of a
        sample: the same number of pixels of each image, drawn with a fixed seed, 2 million in all (of an iterator without a length, 10,000
        of each image). Mean and standard deviation are of all pixels.

        Args:
            arrays: Training images as read, each `(height, width, bands)`: a list, an array `(n, height, width, bands)`, an iterator, or
                `ImageFiles.raw()`.

        Raises:
            InputError: No images, images that differ in bands or hold NaN, or a band in which both percentiles are the same value.
        """
        if self.rule not in ("percentiles", "standardise"):
            return self
        count, bands, state = 0, None, None
        share = max(256, SAMPLE // max(1, len(arrays))) if hasattr(arrays, "__len__") else 10_000
        rng = np.random.default_rng(0)
        for array in arrays:
            array = np.asarray(array)
            if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "biuf":
                raise InputError(
                    f"training images are (height, width, bands) of numbers, and image {count} is {array.dtype} of shape {array.shape}"
                )
            if bands not in (None, array.shape[-1]):
                raise InputError(
                    f"image {count} has {array.shape[-1]} band(s) and those before it {bands}: give channels="
                )
            bands = array.shape[-1]
            pixels = _numbers(array).reshape(-1, bands)
            if self.rule == "standardise":
                state = _moments(state, pixels)
            else:
                state = _tally(state, pixels, rng, share)
            count += 1
        if not count:
            raise InputError("there are no training images to fit the intensity rule on")
        if self.rule == "standardise":
            size, mean, squares = state
            std = np.sqrt(squares / size)
            return dataclasses.replace(self, mean=tuple(mean), std=tuple(std), images=count)
        low, high = _percentiles(state, self.percentiles)
        if flat := [i for i in range(bands) if not low[i] < high[i]]:
            raise InputError(
                f"the percentiles {self.percentiles} of band {flat[0]} are both {low[flat[0]]:.6g}: give wider ones, "
                "such as percentiles=(0, 100), or the rule 'range'"
            )
        return dataclasses.replace(self, low=tuple(low), high=tuple(high), images=count)

    def apply(self, array) -> np.ndarray:
        """Bring values to 0..255.

        Args:
            array: `(..., height, width, bands)`, one image or several.

        Returns:
            The same shape: uint8 where the rule is `"dtype"` and the values are logical or uint8, otherwise float32.

        Raises:
            InputError: The rule is not fitted, its bands are not those of the image, or the values are NaN or fit no rule.
        """
        array = np.asarray(array)
        if array.dtype.kind not in "biuf":
            raise InputError(f"images must be numbers, not {array.dtype}")
        if not self.fitted:
            raise InputError(
                f"the rule {self.rule!r} has no numbers yet: Intensity({self.rule!r}).fit(training images), or ImageFiles.fit()"
            )
        if self.rule == "dtype":
            return _by_dtype(array)
        values = _numbers(array)
        if self.rule == "minmax":
            low, high = (extreme(axis=(-3, -2, -1), keepdims=True) for extreme in (values.min, values.max))
            return _stretch(values, low, np.where(high > low, high - low, 1))
        first, second = (self.mean, self.std) if self.rule == "standardise" else (self.low, self.high)
        if np.ndim(first) and len(first) not in (1, array.shape[-1]):
            raise InputError(f"the intensity rule has {len(first)} bands and the image {array.shape[-1]}")
        if self.rule == "standardise":
            mean, std = np.array(first), np.array(second)
            std = np.where(std > 0, std, np.inf)
            return _stretch(values, mean - 2.5 * np.where(std < np.inf, std, 0), 5 * std, 127.5 * (std == np.inf))
        return _stretch(values, np.array(first), np.array(second) - first)

    def describe(self) -> dict:
        """What a run keeps: the rule as a sentence and as numbers; `Intensity.from_description` makes the rule of it again."""
        numbers = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        if self.rule != "percentiles":
            del numbers["percentiles"]
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in numbers.items()}
        return {**lists, "sentence": str(self)}

    @classmethod
    def from_description(cls, description: dict) -> "Intensity":
        """The rule that `describe` described."""
        return cls(**{name: value for name, value in description.items() if name != "sentence"})

    def __str__(self) -> str:
        of = "the training images" if self.images is None else f"{self.images:,} training images"
        if not self.fitted:
            return f"values by {self.rule} of the training images, not fitted yet"
        if self.rule == "range":
            return f"values from {_words(self.low)} to {_words(self.high)} as 0..255, clipped"
        if self.rule == "percentiles":
            first, last = self.percentiles
            ends = f"(from {_words(self.low)} to {_words(self.high)})"
            return f"percentiles {first:g} to {last:g} of {of} {ends} as 0..255, clipped"
        if self.rule == "standardise":
            return f"127.5 + 51 (v - mean) / std of {of} (mean {_words(self.mean)}, std {_words(self.std)}), clipped to 0..255"
        if self.rule == "minmax":
            return "the smallest value of each image as 0 and its largest as 255"
        return "8-bit values as they are, logical ones as 0 and 255, 16-bit ones divided by 257, others as they are"


def _by_dtype(array):
    if array.dtype == bool:
        return array.astype("uint8") * np.uint8(255)
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return array.astype("float32") / np.float32(257)
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not (low >= 0 and high <= 255):  # so put, NaN does not pass
        kind = "float images must hold 0..255"
        if array.dtype.kind != "f":
            kind = "integer images must hold 0..65535 as uint16, or 0..255 in other types"
        raise InputError(
            f"the image holds {array.dtype} values from {low:.6g} to {high:.6g}, and {kind}: bring them to that range by a rule that is "
            "the same for all images, such as Intensity('range', low, high) or Intensity('percentiles')"
        )
    return array.astype("float32")


def _numbers(array):
    """The array, float16 as float32; NaN and infinite values are refused."""
    if array.dtype.kind == "f" and array.size and not np.isfinite([array.min(), array.max()]).all():
        raise InputError("the image holds NaN or infinite values: replace them first")
    if array.dtype.kind == "b":
        return array.astype("uint8")
    return array.astype("float32") if array.dtype == np.float16 else array


def _stretch(values, low, span, offset=0):
    # In double precision: 33,000 to 36,900 of 65,536 must not lose its last digits before low is subtracted.
    result = np.subtract(values, low, dtype="float64")
    result *= 255 / span
    result += offset
    return np.clip(result, 0, 255, out=result).astype("float32")


def _moments(state, pixels):
    """Count, means and sums of squared differences so far, by the pairwise update of Chan, Golub and LeVeque 1979."""
    pixels = pixels.astype("float64")
    size, mean = len(pixels), pixels.mean(0)
    squares = np.square(pixels - mean).sum(0)
    if state is None:
        return size, mean, squares
    before, old, sum_before = state
    both, step = before + size, mean - old
    return both, old + step * (size / both), sum_before + squares + np.square(step) * (before * size / both)


def _tally(state, pixels, rng, share):
    """Histograms `(bands, values)` for integers of 8 and 16 bit, or a list of samples `(pixels, bands)`."""
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2 and not isinstance(state, list):
        # One table for all four types: negative values are at the beginning.
        counts = np.stack([np.bincount(band.astype("int64") + 32768, minlength=32768 + 65536) for band in pixels.T])
        return counts if state is None else state + counts
    if isinstance(state, np.ndarray):
        raise InputError(
            "some images hold integers of 8 or 16 bit and others wider types or floats: bring them to one type"
        )
    state = [] if state is None else state
    state.append(pixels if len(pixels) <= share else pixels[rng.choice(len(pixels), share, replace=False)])
    return state


def _percentiles(state, percentiles):
    if isinstance(state, list):
        return np.percentile(np.concatenate(state).astype("float64"), percentiles, axis=0)
    total = np.cumsum(state, axis=1)
    place = np.array(percentiles) / 100 * (total[0, -1] - 1)  # of the sorted pixels
    under = np.floor(place)
    found = [[np.searchsorted(band, rank, side="right") - 32768 for rank in (under, np.ceil(place))] for band in total]
    below, above = np.array(found, "float64").transpose(1, 2, 0)
    return below + (above - below) * (place - under)[:, None]


def _words(value):
    value = np.atleast_1d(value)
    return ", ".join(f"{v:.6g}" for v in value[:4]) + (f", ... ({len(value)} bands)" if len(value) > 4 else "")
