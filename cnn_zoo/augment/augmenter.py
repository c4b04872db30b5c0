"""`Augmenter`: a list of steps, applied to batches of images with their masks, boxes and keypoints."""

import contextlib
import operator
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from cnn_zoo.augment.steps import Geometric, Joint, Mixing, Photometric, Step, Values, joint, plain
from cnn_zoo.augment.warp import BORDERS, clipped_points, moved_boxes, moved_points, warp
from cnn_zoo.errors import InputError

_OWN = ("uint8", "uint16", "int16", "int32")  # types of ids that OpenCV moves as they are; others go through int32


class Augmented(NamedTuple):
    """What `Augmenter` gives where it got more than images; None for what it did not get."""

    images: np.ndarray
    masks: np.ndarray | None = None
    boxes: list | None = None
    keypoints: list | None = None
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Augmenter:
    """Random changes to batches, as a pure function of the batch and a seed.

    Of each sample, all geometric steps are multiplied to one transform, which is applied once; the others follow in the order of the list;
    steps that mix samples come last. Sample `k` draws from `Philox(key=(seed, step), counter k)` alone: neither threads nor the other
    samples of the batch change what it becomes.

    Args:
        steps: Steps of this package, and plain functions `(image, rng) -> image`.
        border: What comes in from outside: "constant" (`fill`; `ignore` in masks), or "reflect" or "edge" of image and mask alike.
        fill: Value, or one for each channel, 0..255.
        ignore: The id of pixels of a mask that come from outside.
        classes: How many there are; needed where steps mix labels that are ids.
        threads: Default as many as the process may use. OpenCV's own threads are off meanwhile.

    Raises:
        InputError: A step or a setting that does not fit.
    """

    steps: tuple
    border: str = "constant"
    fill: float | tuple[float, ...] = 0.0
    ignore: int = 255
    classes: int | None = None
    threads: int | None = field(default=None, compare=False)

    def __post_init__(self):
        if isinstance(self.steps, str) or not hasattr(self.steps, "__iter__"):
            raise InputError(f"an Augmenter wants a list of steps, not {self.steps!r}: put a single step into [ ]")
        steps = tuple(plain(step) if _is_function(step) else step for step in self.steps)
        for step in steps:
            if not isinstance(step, Step):
                raise InputError(
                    f"{step!r} is no step of an augmentation: give steps as flip() or rotate(15), or functions (image, rng) -> image"
                )
        if self.border not in BORDERS:
            raise InputError(f"border must be one of {', '.join(BORDERS)}, not {self.border!r}")
        fill = np.asarray(self.fill, "float64")
        if fill.ndim > 1 or not np.all((fill >= 0) & (fill <= 255)):
            raise InputError(f"fill must be a value 0..255, or one for each channel, not {self.fill!r}")
        for name, least in (("ignore", -(2**31)), ("classes", 1), ("threads", 1)):
            value = getattr(self, name)
            if (name == "ignore" or value is not None) and (not _is_whole(value) or not least <= value < 2**31):
                raise InputError(f"{name} must be a whole number of {least} or more, not {value!r}")
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "fill", tuple(fill.tolist()) if fill.ndim else float(fill))

    def describe(self) -> dict:
        """Plain values that say all of it, for run.json."""
        fill = list(self.fill) if isinstance(self.fill, tuple) else self.fill
        return {
            "steps": [step.describe() for step in self.steps],
            "border": self.border,
            "fill": fill,
            "ignore": self.ignore,
            "classes": self.classes,
        }

    @classmethod
    def of(cls, description: dict) -> "Augmenter":
        """The augmenter that `describe` described.

        Raises:
            InputError: A step that there is not, or one that is a function of the user's.
        """
        rest = dict(description)
        return cls(tuple(Step.of(step) for step in rest.pop("steps")), **rest)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what comes out for images of this size: `crop` changes it.

        Raises:
            InputError: A crop is larger than the image.
        """
        for step in self.steps:
            if isinstance(step, Geometric):
                height, width = step.size(height, width)
        return height, width

    def __call__(self, images, masks=None, *, boxes=None, keypoints=None, labels=None, seed):
        """Change a batch.

        Args:
            images: `(n, height, width, channels)`, uint8 or float32, values 0..255.
            masks: `(n, height, width)` integer ids, or None.
            boxes: For each image `(k, 4 or more)`: x0, y0, x1, y1 in pixels, the whole image being 0, 0, width, height; what stands in
                further columns stays with its box. A box becomes the box around what became of it, is cut at the edges of the image,
                and is dropped where less than a tenth of its area is left.
            keypoints: For each image `(k, 2 or more)`: x and y in pixels from the centre of the first pixel. Those that end outside
                become NaN, so that their order stays.
            labels: `(n,)` class ids or `(n, classes)` probabilities, for steps that mix samples; others leave them as they are.
            seed: (seed, step), two whole numbers: the same give the same, others others.

        Returns:
            The images, of the type they came in; or `Augmented` where more was given.

        Raises:
            InputError: Arrays that do not fit each other, the steps or the seed.
        """
        images, masks = _checked(images, masks, self.ignore)
        count, height, width, channels = images.shape
        boxes = _rows(boxes, count, 4, "boxes")
        keypoints = _rows(keypoints, count, 2, "keypoints")
        key = _key(seed)
        if isinstance(self.fill, tuple) and len(self.fill) != channels:
            raise InputError(f"fill has {len(self.fill)} values and the images have {channels} channels")
        if (boxes or keypoints) and any(isinstance(step, joint) for step in self.steps):
            raise InputError("a function of your own (joint) cannot move boxes or keypoints; leave it out, or them")
        size = self.size(height, width)
        ids = masks if masks is None or masks.dtype.name in _OWN else masks.astype("int32")
        out = Augmented(
            np.empty((count, *size, channels), images.dtype),
            None if ids is None else np.empty((count, *size), ids.dtype),
            None if boxes is None else [None] * count,
            None if keypoints is None else [None] * count,
            labels,
        )
        sample = Augmented(images, ids, boxes, keypoints)
        threads = max(1, min(self.threads or _cores(), count))

        def work(first):
            for k in range(first, count, threads):
                self._change(sample, out, k, _generator(key, k, 0))

        with _single_threaded_opencv():
            if threads < 2:
                work(0)
            else:
                with ThreadPoolExecutor(threads) as pool:
                    list(pool.map(work, range(threads)))  # list: to raise what was raised there
        out = self._mixed(out, key)
        if masks is None and boxes is None and keypoints is None and labels is None:
            return out.images
        return out if masks is None else out._replace(masks=out.masks.astype(masks.dtype, copy=False))

    def _change(self, given, out, k, rng):
        """Write sample `k` of `out`."""
        steps = [chosen for step in self.steps for chosen in step.chosen(rng)]
        moves = [step for step in steps if isinstance(step, Geometric)]
        size, matrix = given.images.shape[1:3], np.eye(3)
        for step in moves:
            matrix = matrix @ step.matrix(rng, *size)
            size = step.size(*size)
        every = [shifts for step in moves if (shifts := step.shifts(rng, *size)) is not None]
        shifts = sum(every) if every else None
        image, mask = out.images[k], None
        warp(given.images[k], image, matrix, shifts, False, self.border, self.fill)
        if out.masks is not None:
            mask = out.masks[k]
            warp(given.masks[k], mask, matrix, shifts, True, self.border, self.ignore)
        if out.boxes is not None:
            out.boxes[k] = moved_boxes(given.boxes[k], matrix, shifts, *size)
        if out.keypoints is not None:
            points = given.keypoints[k].copy()
            points[:, :2] = moved_points(points[:, :2], matrix, shifts)
            out.keypoints[k] = clipped_points(points, *size)
        curves = []
        for step in steps:
            if isinstance(step, Values):
                curves.append(step.curve(rng))
                continue
            if isinstance(step, Geometric):
                continue
            _bend(image, curves)
            curves = []
            if isinstance(step, Photometric):
                _keep(step, image, step.change(image, rng))
            elif isinstance(step, Joint):
                new_image, new_mask = step.change(image, mask, rng, self.ignore)
                _keep(step, image, new_image)
                if mask is not None:
                    _keep(step, mask, new_mask)
        _bend(image, curves)

    def _mixed(self, batch, key):
        for number, step in enumerate(step for step in self.steps if isinstance(step, Mixing)):
            generators = [_generator(key, k, 1 + number) for k in range(len(batch.images))]
            batch = step.mix(batch, generators, self.classes)
        return batch


def _bend(image, curves):
    """Apply curves of single values: on 8 bit as one table, rounded once."""
    if not curves:
        return
    values = np.arange(256, dtype="float64") if image.dtype == np.uint8 else image
    for curve in curves:
        values = curve(values).clip(0, 255)
    if image.dtype == np.uint8:
        cv2.LUT(image, np.rint(values).astype("uint8"), dst=image)
    else:
        image[...] = values


def _keep(step, array, new):
    """Write `new` into `array`, whose shape and type it must take."""
    if new is array:
        return
    name = step.describe().get("function", type(step).__name__)
    if getattr(new, "shape", None) != array.shape:
        raise InputError(
            f"the step {name} got an array of shape {array.shape} and gave back {getattr(new, 'shape', type(new).__name__)}: shapes must stay"
        )
    if array.ndim == 3:
        new = new.clip(0, 255)
        new = np.rint(new) if array.dtype == np.uint8 and new.dtype.kind == "f" else new
    elif new.dtype.kind not in "iu":
        raise InputError(f"the step {name} gave back a mask of type {new.dtype}: masks hold integer ids")
    array[...] = new


def _checked(images, masks, ignore):
    images = np.asarray(images)
    if images.ndim != 4 or 0 in images.shape[1:]:
        hint = "; put a single image into a batch: image[None]" if images.ndim == 3 else ""
        raise InputError(f"images must be (n, height, width, channels), not of shape {images.shape}{hint}")
    if images.dtype.name not in ("uint8", "float32"):
        raise InputError(
            f"images must be uint8 or float32 with values 0..255, not {images.dtype}; give images.astype('float32')"
        )
    if masks is None:
        return np.ascontiguousarray(images), None
    masks = np.asarray(masks)
    if masks.shape != images.shape[:3]:
        raise InputError(
            f"masks must be of shape {images.shape[:3]} (n, height, width), as the images are, not {masks.shape}"
        )
    if masks.dtype.kind not in "iu":
        raise InputError(f"masks hold integer class ids, not {masks.dtype}; give masks.astype('uint8')")
    least, most = np.iinfo(masks.dtype).min, np.iinfo(masks.dtype).max
    if not least <= ignore <= most:
        raise InputError(
            f"masks of type {masks.dtype} cannot hold ignore={ignore}; give another, or masks.astype('int32')"
        )
    if masks.dtype.itemsize > 2 and masks.size and not -(2**31) <= masks.min() <= masks.max() < 2**31:
        raise InputError(f"ids of masks must lie within 32 bits; these lie in {masks.min()}..{masks.max()}")
    return np.ascontiguousarray(images), np.ascontiguousarray(masks)


def _rows(given, count, columns, name):
    if given is None:
        return None
    if len(given) != count:
        raise InputError(f"there are {len(given)} {name} for {count} images: give one array for each image")
    rows = [
        np.asarray(one, "float64").reshape(-1, columns) if not len(one) else np.asarray(one, "float64") for one in given
    ]
    for k, one in enumerate(rows):
        if one.ndim != 2 or one.shape[1] < columns:
            raise InputError(f"{name} of image {k} must be of shape (k, {columns}) or wider, not {one.shape}")
    if name == "boxes":
        for k, one in enumerate(rows):
            if not np.all(one[:, :2] <= one[:, 2:4]):
                raise InputError(f"boxes of image {k} must be x0 y0 x1 y1 with x0 <= x1 and y0 <= y1")
    return rows


def _key(seed):
    try:
        first, second = (operator.index(value) for value in seed)
    except (TypeError, ValueError):
        raise InputError(f"seed must be two whole numbers, (seed, step), not {seed!r}") from None
    if min(first, second) < 0 or max(first, second) >= 2**64:
        raise InputError(f"seed and step must be 0 or more, below 2 ** 64, not {first} and {second}")
    return np.array([first, second], "uint64")


def _generator(key, k, stage):
    """The generator of sample `k`: counters whose upper words differ never meet."""
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, k, stage], "uint64")))


def _is_function(step):
    return callable(step) and not isinstance(step, Step | type)


def _is_whole(value):
    return not isinstance(value, bool) and hasattr(value, "__index__")


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_lock, _inside, _before = threading.Lock(), 0, 0


@contextlib.contextmanager
def _single_threaded_opencv():
    """OpenCV's own threads off: samples run in parallel already. Its setting is global, so that the last to leave restores it."""
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                cv2.setNumThreads(_before)
