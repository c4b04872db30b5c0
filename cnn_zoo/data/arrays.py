"""Labelled images in memory: `Split` and `Data`, and the checks that every array passes."""

import dataclasses
import hashlib
import warnings
from dataclasses import dataclass

import numpy as np

from cnn_zoo.errors import DataError, InputError


@dataclass(frozen=True)
class Split:
    """Labelled images.

    Attributes:
        images: `(n, height, width, channels)`, uint8 or float32, values 0..255.
        labels: `(n,)`, int64, from 0.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices) -> "Split":
        """The images and labels at these indices."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Data:
    """A data set: a training split and, where there are any, a validation and a test split.

    Attributes:
        name: Short name.
        train: What the net learns from.
        validation: What decides between epochs and settings, or None.
        test: What is looked at once, at the end, or None.
        classes: Names of the classes; label i is `classes[i]`.
        source: One sentence: where it is from and by which rule its values became 0..255.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    classes: tuple[str, ...]
    source: str

    @classmethod
    def from_arrays(
        cls,
        images,
        labels,
        *,
        classes=None,
        name: str = "arrays",
        test: float = 0.0,
        validation: float = 0.0,
        seed: int = 0,
    ) -> "Data":
        """Your own arrays as a data set.

        Args:
            images: `(n, height, width)` or `(n, height, width, channels)`. bool becomes 0 and 255; uint8 stays; uint16 is divided by 257;
                floats must lie in 0..255.
            labels: `(n,)` integers from 0.
            classes: Names; default "0", "1", ... up to the largest label.
            name: Short name.
            test: Fraction held out for the test, stratified.
            validation: Fraction of the rest held out for validation, stratified.
            seed: Of both splits.

        Raises:
            DataError: Empty arrays, other ranks or lengths, or a class too small for the splits.
            InputError: Values outside 0..255 or not finite, labels that are not integers in range.
        """
        images, rule = to_contract(images)
        labels = _labels(labels, len(images), classes)
        classes = tuple(map(str, classes if classes is not None else range(int(labels.max()) + 1)))
        whole = cls(name, Split(images, labels), None, None, classes, f"{len(images):,} images given as arrays, {rule}")
        if test:
            rest, held = _stratified(whole.train, test, seed, "test")
            whole = dataclasses.replace(whole, train=rest, test=held)
        return whole.split(validation, seed) if validation else whole

    def split(self, fraction: float, seed: int = 0) -> "Data":
        """Hold out a stratified validation split; an existing one is first put back into the training split.

        Args:
            fraction: 0 <= fraction < 1 of the training images; 0 leaves no validation split.
            seed: The same seed gives the same split.

        Raises:
            DataError: A class has too few images to be in both.
        """
        train = self.train
        if self.validation is not None:
            pairs = ((train.images, self.validation.images), (train.labels, self.validation.labels))
            train = Split(*map(np.concatenate, pairs))
        if fraction == 0:
            return dataclasses.replace(self, train=train, validation=None)
        train, held = _stratified(train, fraction, seed, "validation")
        return dataclasses.replace(self, train=train, validation=held)

    def resize(self, size, how: str = "bilinear") -> "Data":
        """Bring all images to one size.

        Args:
            size: Height and width in pixels, as one integer or a pair.
            how: `"bilinear"` (antialiased when shrinking), or `"pad"`: centred on zeros, for a size at least as large.

        Raises:
            InputError: `how` is neither, or padding would have to cut.
        """
        from cnn_zoo.data.images import pad, resize

        size = (size, size) if np.ndim(size) == 0 else tuple(size)
        change = {"bilinear": resize, "pad": pad}.get(how)
        if change is None:
            raise InputError(f"how is 'bilinear' or 'pad', not {how!r}")
        was = self.train.images.shape[1:3]
        if was == size:
            return self
        splits = {part: Split(change(split.images, size), split.labels) for part, split in self._splits().items()}
        word = "padded with zeros" if how == "pad" else "resized bilinearly"
        rule = f"{self.source}; {word} from {was[0]}x{was[1]} to {size[0]}x{size[1]}"
        return dataclasses.replace(self, **splits, source=rule)

    def summary(self) -> str:
        """Sizes in a few words, for people."""
        sizes = ", ".join(f"{len(split):,} {part}" for part, split in self._splits().items())
        shape = " x ".join(map(str, self.train.images.shape[1:]))
        return f"{sizes} images of {shape}, {len(self.classes)} classes"

    def describe(self) -> dict:
        """What a run keeps of its data, as plain values; two equal descriptions mean the same pixels and labels."""
        return {
            "name": self.name,
            "source": self.source,
            "image_shape": list(self.train.images.shape[1:]),
            "dtype": str(self.train.images.dtype),
            "classes": list(self.classes),
            **{
                part: {
                    "images": len(split),
                    "per_class": np.bincount(split.labels, minlength=len(self.classes)).tolist(),
                    "sha256": _fingerprint(split),
                }
                for part, split in self._splits().items()
            },
        }

    def _splits(self):
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {part: split for part, split in parts.items() if split is not None}


def to_contract(images) -> tuple[np.ndarray, str]:
    """Bring a batch of images to `(n, height, width, channels)`, 0..255, by its dtype alone; also returns the rule in words.

    Raises:
        DataError: See `Data.from_arrays`.
    """
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise DataError(
            f"images must be (n, height, width) or (n, height, width, channels), not of shape {images.shape}"
        )
    if 0 in images.shape:
        raise DataError(f"there are no images: the array has shape {images.shape}")
    if images.dtype == bool:
        return images.astype("uint8") * np.uint8(255), "logical values 0 and 1 as 0 and 255"
    if images.dtype == np.uint8:
        return images, "8-bit values as they are"
    if images.dtype == np.uint16:
        return images.astype("float32") / np.float32(257), "16-bit values divided by 257"
    if images.dtype.kind not in "fiu":
        raise DataError(f"images must be numbers, not {images.dtype}")
    check_batch(images)
    return images.astype("float32"), "values 0..255 as they are"


def check_batch(images, shape=None) -> None:
    """Check a batch of images against the input contract and, if given, a model's input.

    Args:
        images: `(n, height, width, channels)`.
        shape: `(height, width, channels)`, with None where anything goes.

    Raises:
        InputError: It does not fit; the message says what to do.
    """
    if images.ndim != 4:
        raise InputError(
            f"a batch of images has shape (n, height, width, channels), not {tuple(images.shape)}; "
            "a gray image needs its channel axis: images[..., None]"
        )
    if shape is not None:
        height, width, channels = shape
        if images.shape[3] != channels:
            raise InputError(
                f"the model takes images with {channels} channel(s) and these have {images.shape[3]}: "
                f"convert them, or build the model with channels={images.shape[3]}"
            )
        if any(want not in (None, have) for want, have in zip((height, width), images.shape[1:3], strict=True)):
            raise InputError(
                f"the model takes {height}x{width} images and these are {images.shape[1]}x{images.shape[2]}: "
                f"resize them (data.resize(({height}, {width}))), "
                f"or build the model with input_size={tuple(images.shape[1:3])}"
            )
    if images.dtype == np.uint8 or images.size == 0:
        return
    low, high = float(np.min(images)), float(np.max(images))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the images hold NaN or infinite values: replace them before training or prediction")
    if low < 0 or high > 255:
        raise InputError(
            f"the images hold values from {low:.4g} to {high:.4g}, and 0..255 is expected: "
            "bring them to that range by a rule that is the same for all images (the net normalises by itself)"
        )
    if images.dtype.kind == "f" and 0 < high <= 1:
        warnings.warn(
            f"the images hold values from {low:.4g} to {high:.4g}, which looks like 0..1 where 0..255 is expected: "
            "multiply them by 255 (the net normalises by itself)",
            stacklevel=3,
        )


def check_labels(labels, classes: int) -> None:
    """Raise InputError unless all labels are integers in `0..classes - 1`."""
    if labels.dtype.kind not in "iu":
        raise InputError(f"labels must be integers from 0, not {labels.dtype}; one-hot labels: labels.argmax(-1)")
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise InputError(
            f"labels run from {labels.min()} to {labels.max()} and the model has {classes} classes (0..{classes - 1}): "
            f"build it with classes={max(int(labels.max()) + 1, classes)}, or number the labels from 0"
        )


def _labels(labels, count, classes):
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise DataError(f"there are {count} images and labels of shape {labels.shape}: one label an image is expected")
    if labels.dtype.kind == "b":
        labels = labels.astype("int64")
    check_labels(labels, len(classes) if classes is not None else int(labels.max(initial=0)) + 1)
    return labels.astype("int64")


def _stratified(split, fraction, seed, part):
    from sklearn.model_selection import train_test_split

    if not 0 < fraction < 1:
        raise DataError(f"the {part} fraction must lie between 0 and 1, not {fraction}")
    try:
        rest, held = train_test_split(
            np.arange(len(split)), test_size=fraction, random_state=seed, stratify=split.labels
        )
    except ValueError as error:
        counts = np.bincount(split.labels)
        raise DataError(
            f"cannot hold out {fraction:.0%} of {len(split)} images for {part} with every class in both parts "
            f"(the rarest class has {counts[counts > 0].min()}): give more images, or another fraction"
        ) from error
    return split.take(np.sort(rest)), split.take(np.sort(held))


def _fingerprint(split):
    digest = hashlib.sha256(np.ascontiguousarray(split.images).data)
    digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()
