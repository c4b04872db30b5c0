"""Images with labels or masks: `Split` and `Data`, and the checks that every array passes."""

import dataclasses
import hashlib
import warnings
from dataclasses import dataclass

import numpy as np

from cnn_zoo.data.arraylike import is_lazy, join, take
from cnn_zoo.data.splits import by_group
from cnn_zoo.errors import DataError, InputError

FIRST = 32  # images of a lazy array that are looked at before training; the others are checked as they are read


@dataclass(frozen=True)
class Split:
    """Images, each with a label or with a mask. Both may be lazy: array-likes that read files when they are indexed.

    Attributes:
        images: `(n, height, width, channels)`, uint8 or float32, values 0..255; signals are `(n, length, channels)` and stacks
            `(n, depth, height, width, channels)`.
        labels: `(n,)`, int64, from 0; or masks, `(n, height, width)`, uint8 or int32, a class id a pixel.
        groups: `(n,)` names of what the images come from (patients, slides), which no split takes apart; or None.
        names: `(n,)` names of the images, such as their files', by which a split is saved; or None.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None
    names: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_masks(self) -> bool:
        """Whether the labels are masks."""
        return self.labels.ndim == 3

    def take(self, indices) -> "Split":
        """The images and labels at these indices; of lazy ones nothing is read."""
        more = [None if part is None else part[indices] for part in (self.groups, self.names)]
        return Split(take(self.images, indices), take(self.labels, indices), *more)

    def join(self, other: "Split") -> "Split":
        """These images and those of another split; groups and names stay where both have them."""
        more = [
            None if one is None or two is None else np.concatenate([one, two])
            for one, two in ((self.groups, other.groups), (self.names, other.names))
        ]
        return Split(join(self.images, other.images), join(self.labels, other.labels), *more)


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
        ignore: Ids in masks that are no class (void): not trained on and not scored.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    classes: tuple[str, ...]
    source: str
    ignore: tuple[int, ...] = ()

    @classmethod
    def from_arrays(
        cls,
        images,
        labels,
        *,
        classes=None,
        ignore=(),
        name: str = "arrays",
        test: float = 0.0,
        validation: float = 0.0,
        seed: int = 0,
        groups=None,
        names=None,
    ) -> "Data":
        """Your own arrays as a data set.

        Args:
            images: `(n, height, width)` or `(n, height, width, channels)`. bool becomes 0 and 255; uint8 stays; uint16 is divided by 257;
                floats must lie in 0..255.
            labels: `(n,)` integers from 0; or masks, `(n, height, width)` or `(n, height, width, 1)`, a class id a pixel.
            classes: Names, or how many; default "0", "1", ... up to the largest label.
            ignore: Id, or ids, in masks that are no class.
            name: Short name.
            test: Fraction held out for the test, stratified (masks: at random).
            validation: Fraction of the rest held out for validation, likewise.
            seed: Of both splits.
            groups: One name an image, of what it comes from (patient, slide): no split takes a group apart.
            names: One name an image, by which `save_split` knows it again.

        Raises:
            DataError: Empty arrays, other ranks or lengths, or a class too small for the splits.
            InputError: Values outside 0..255 or not finite, labels that are not integers in range.
        """
        images, rule = to_contract(images)
        classes = range(classes) if hasattr(classes, "__index__") else classes
        ignore = tuple(int(i) for i in np.atleast_1d(ignore).astype(int))
        if np.ndim(labels) >= 3:
            labels = to_masks(labels, images.shape[:3], classes, ignore)
        else:
            labels = _labels(labels, len(images), classes)
        named = labels[~np.isin(labels, ignore)] if ignore else labels
        classes = tuple(map(str, classes if classes is not None else range(int(named.max(initial=0)) + 1)))
        source = f"{len(images):,} images given as arrays, {rule}"
        more = [
            None if given is None else _one_each(given, len(images), what)
            for given, what in ((groups, "group"), (names, "name"))
        ]
        whole = cls(name, Split(images, labels, *more), None, None, classes, source, ignore)
        return whole.hold_out(test, validation, seed)

    def hold_out(self, test: float = 0.0, validation: float = 0.0, seed: int = 0) -> "Data":
        """Hold out a test split from the training split, then a validation split from the rest; 0 leaves them as they are."""
        whole = self
        if test:
            rest, held = _stratified(whole.train, test, seed, "test")
            whole = dataclasses.replace(whole, train=rest, test=held)
        return whole.split(validation, seed) if validation else whole

    def split(self, fraction: float, seed: int = 0) -> "Data":
        """Hold out a validation split, stratified by labels (masks: at random), by whole groups where the data have groups.

        An existing one is first put back into the training split.

        Args:
            fraction: 0 <= fraction < 1 of the training images; 0 leaves no validation split.
            seed: The same seed gives the same split.

        Raises:
            DataError: A class has too few images to be in both.
        """
        train = self.train
        if self.validation is not None:
            train = train.join(self.validation)
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
        from cnn_zoo.data.images import nearest, pad, resize

        size = (size, size) if np.ndim(size) == 0 else tuple(size)
        change = {"bilinear": resize, "pad": pad}.get(how)
        if change is None:
            raise InputError(f"how is 'bilinear' or 'pad', not {how!r}")
        was = self.train.images.shape[1:3]
        if was == size:
            return self
        if is_lazy(self.train.images):
            raise InputError("files are brought to a size as they are read: give size= where they are listed")
        if self.train.has_masks and how == "pad" and not self.ignore:
            raise InputError("padding masks needs an id for what is outside: give the data an ignore id, such as 255")

        def resized(split):
            labels = split.labels
            if split.has_masks:
                labels = (
                    nearest(labels, size) if how == "bilinear" else pad(labels[..., None], size, self.ignore[0])[..., 0]
                )
            return Split(change(split.images, size), labels, split.groups, split.names)

        splits = {part: resized(split) for part, split in self._splits().items()}
        word = "padded with zeros" if how == "pad" else "resized bilinearly"
        rule = f"{self.source}; {word} from {was[0]}x{was[1]} to {size[0]}x{size[1]}"
        return dataclasses.replace(self, **splits, source=rule)

    def summary(self) -> str:
        """Sizes in a few words, for people."""
        sizes = ", ".join(f"{len(split):,} {part}" for part, split in self._splits().items())
        shape = " x ".join(map(str, self.train.images.shape[1:]))
        return f"{sizes} images of {shape}, {len(self.classes)} classes"

    def describe(self) -> dict:
        """What a run keeps of its data, as plain values; two equal descriptions mean the same pixels and labels.

        Files are described by their rules and hashes; pixels of masks in files are not counted.
        """
        return {
            "name": self.name,
            "source": self.source,
            "image_shape": list(self.train.images.shape[1:]),
            "dtype": str(self.train.images.dtype),
            "classes": list(self.classes),
            **({"ignore": list(self.ignore)} if self.ignore else {}),
            **{part: _describe(split, len(self.classes), self.ignore) for part, split in self._splits().items()},
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
        images: `(n, height, width, channels)`; of a lazy array the first are looked at.
        shape: `(height, width, channels)`, with None where anything goes; or the shape of a signal or stack.

    Raises:
        InputError: It does not fit; the message says what to do.
    """
    if shape is not None and len(shape) != 3:  # signals and stacks
        if images.ndim != len(shape) + 1 or any(w not in (None, h) for w, h in zip(shape, images.shape[1:])):
            raise InputError(
                f"the model takes batches of {('n', *shape)} and these are {tuple(images.shape)}: build one for that shape"
            )
    elif images.ndim != 4:
        raise InputError(
            f"a batch of images has shape (n, height, width, channels), not {tuple(images.shape)}; "
            "a gray image needs its channel axis: images[..., None]"
        )
    elif shape is not None:
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
    if images.dtype == np.uint8 or 0 in images.shape:
        return
    if is_lazy(images):
        images = images[:FIRST]
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


def class_counts(labels, classes: int, ignore=()) -> np.ndarray:
    """How many labels, or pixels of masks, each class has, `(classes,)`."""
    counts = np.zeros(classes, int)
    for part in labels if labels.ndim == 3 else [labels]:
        part = part.ravel()
        counts += np.bincount(part[~np.isin(part, ignore)] if len(ignore) else part, minlength=classes)
    return counts


def to_masks(masks, shape, classes=None, ignore=()) -> np.ndarray:
    """Masks as `(n, height, width)`, uint8 or int32.

    Args:
        masks: `(n, height, width)` or `(n, height, width, 1)` of integers or bool.
        shape: `(n, height, width)` of the images.
        classes: Names of the classes, or None for any number.
        ignore: Ids that are no class.

    Raises:
        DataError: Another shape than that of the images.
        InputError: Values that are no integers, or ids without a class.
    """
    masks = np.asarray(masks)
    if masks.ndim == 4 and masks.shape[-1] == 1:
        masks = masks[..., 0]
    if masks.shape != tuple(shape):
        hint = "; one-hot masks: masks.argmax(-1)" if masks.ndim == 4 else ""
        raise DataError(
            f"images of {tuple(shape)} (number, height, width) need masks of that shape, not {masks.shape}{hint}"
        )
    masks = masks.astype("uint8") if masks.dtype == bool else masks
    if masks.dtype.kind not in "iu":
        raise InputError(f"masks hold class ids, which are integers, not {masks.dtype}")
    check_masks_fit(masks, len(classes) if classes is not None else None, ignore)
    return masks.astype("uint8" if masks.max() < 256 else "int32")


def check_masks_fit(masks, classes, ignore=()) -> None:
    """Raise InputError unless all ids are in `0..classes - 1` (None: any from 0) or ignored."""
    allowed = range(
        255 if classes is None else classes
    )  # 255 marks void, or the object in a 0/255 mask, unless classes say otherwise
    found = sorted({int(i) for mask in masks for i in np.unique(mask)} - set(ignore))
    if unknown := [i for i in found if i not in allowed]:
        shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
        raise InputError(
            f"masks hold {shown}, none of the classes 0..{allowed[-1]}: name what is no class in ignore=, number the classes from 0 "
            "(0/255 masks: masks // 255), or see what cnn_zoo.check_masks says"
        )


def check_labels(labels, classes: int, ignore=()) -> None:
    """Raise InputError unless all labels, or ids of masks, are integers in `0..classes - 1`."""
    if labels.ndim == 3:
        return check_masks_fit(labels[:FIRST] if is_lazy(labels) else labels, classes, ignore)
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
    if split.groups is not None:
        rest, held = by_group(split.groups, fraction, seed, None if split.has_masks else split.labels)
        return split.take(rest), split.take(held)
    strata = None if split.has_masks else split.labels
    try:
        rest, held = train_test_split(np.arange(len(split)), test_size=fraction, random_state=seed, stratify=strata)
    except ValueError as error:
        if split.has_masks:
            raise DataError(
                f"cannot hold out {fraction:.0%} of {len(split)} images for {part}: give more images"
            ) from error
        counts = np.bincount(split.labels)
        raise DataError(
            f"cannot hold out {fraction:.0%} of {len(split)} images for {part} with every class in both parts "
            f"(the rarest class has {counts[counts > 0].min()}): give more images, or another fraction"
        ) from error
    return split.take(np.sort(rest)), split.take(np.sort(held))


def _one_each(values, count, what):
    values = np.asarray(values).astype(str)
    if values.shape != (count,):
        raise DataError(
            f"there are {count} images and {what}s of shape {values.shape}: one {what} an image is expected"
        )
    return values


def _describe(split, classes, ignore):
    result = {"images": len(split)}
    if not is_lazy(split.labels):
        counted = "pixels_per_class" if split.has_masks else "per_class"
        result[counted] = class_counts(split.labels, classes, ignore).tolist()
    if split.groups is not None:
        result["groups"] = len(np.unique(split.groups))
    state = hashlib.sha256()
    for what, values in (("files", split.images), ("mask_files", split.labels)):
        if is_lazy(values):
            result[what] = values.describe()
            state.update(result[what]["sha256"].encode())
        else:
            state.update(np.ascontiguousarray(values).data)
    return {**result, "sha256": state.hexdigest()}
