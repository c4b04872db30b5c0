"""Which images there are, of which class and part, with which masks: from folders, `Data` or arrays to one list."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnn_zoo.data.arraylike import is_lazy
from cnn_zoo.data.arrays import Data
from cnn_zoo.data.folders import PARTS, class_rows, existing
from cnn_zoo.data.formats import read_array, read_ids
from cnn_zoo.data.images import IMAGE_SUFFIXES, list_images
from cnn_zoo.data.splits import group_names, suggest_groups
from cnn_zoo.errors import DataError, InputError
from cnn_zoo.masks import Report as MaskReport
from cnn_zoo.masks import check_masks, list_masks, pair


@dataclass
class Listing:
    """The images of a data set, one entry each in `names`, `images`, `labels`, `parts` and `masks`.

    Attributes:
        name: Of the data set.
        names: Of the images: paths within the folder, or `train 17`.
        images: A path, or an array (or lazy array-like) and a row of it.
        labels: Name of the class, or None.
        parts: `"train"`, `"validation"`, `"test"`, or None.
        masks: As `images`, or None.
        classes: Names of all classes.
        groups: What each image comes from, or None.
        groups_given: Whether these were told, rather than guessed from the names.
        problems: What the folders hold that is no part of a data set, in sentences.
        mask_report: What `check_masks` says, or None.
        palette: For coloured masks.
    """

    name: str
    names: list = field(default_factory=list)
    images: list = field(default_factory=list)
    labels: list = field(default_factory=list)
    parts: list = field(default_factory=list)
    masks: list = field(default_factory=list)
    classes: tuple = ()
    groups: np.ndarray | None = None
    groups_given: bool = False
    problems: list = field(default_factory=list)
    mask_report: MaskReport | None = None
    palette: object = None

    def __len__(self):
        return len(self.names)

    def add(self, name, image, label=None, part=None, mask=None):
        for column, value in zip((self.names, self.images, self.labels, self.parts, self.masks), (name, image, label, part, mask)):  # fmt: skip
            column.append(value)

    def image(self, i) -> np.ndarray:
        """Image i, `(height, width, channels)`, with its values as stored."""
        source = self.images[i]
        values = read_array(source) if isinstance(source, Path) else np.asarray(source[0][source[1]])
        return values[..., None] if values.ndim == 2 else values

    def mask(self, i) -> np.ndarray:
        """Mask i, `(height, width)` class ids."""
        source = self.masks[i]
        return read_ids(source, self.palette) if isinstance(source, Path) else np.asarray(source[0][source[1]])


def make(source, masks, labels, names, groups, classes, ignore, palette) -> Listing:
    """List a source; arguments and errors as for `data_report`."""
    if isinstance(source, (str, Path)):
        if labels is not None or names is not None:
            raise InputError("labels= and names= go with arrays: the classes of a folder are its class folders")
        listing = _of_folder(existing(source), masks, classes, ignore, palette)
    elif isinstance(source, Data):
        if not (labels is None and names is None and masks is None):
            raise InputError("a Data has its own labels, masks and names: give labels=, masks=, names= with arrays")
        listing = _of_data(source)
    else:
        listing = _of_arrays(source, masks, labels, names, classes, ignore, palette)
    if not len(listing):
        raise DataError(f"{listing.name!r} has no images: {'; '.join(listing.problems[:3])}")
    _group(listing, groups)
    return listing


def _of_folder(root, masks, classes, ignore, palette):
    listing = Listing(root.resolve().name, palette=palette)
    places = {None: (root, existing(masks))} if masks is not None else _mask_places(root)
    if not places:
        try:
            rows = class_rows(root, IMAGE_SUFFIXES, classes, listing.problems)
        except DataError:
            if any(entry.is_dir() and not entry.name.startswith(".") for entry in root.iterdir()):
                raise
            rows = []  # images alone, without classes
            for file in list_images(root):
                listing.add(file.name, file)
        for row in rows:
            listing.add(row.name, row.file, row.label, row.part)
        listing.classes = tuple(classes) if classes else tuple(sorted({row.label for row in rows}))
        return listing
    images = {file: part for part, (place, _) in places.items() for file in list_images(place)}
    files = list_masks([place for _, place in places.values()])
    partners = pair(list(images), files)
    for image, count in Counter(partners).items():
        if image is not None and count > 1:
            listing.problems.append(f"the image {str(image)!r} has {count} masks")
    mask_of = dict(zip(partners, files))
    for file, part in images.items():
        listing.add(file.relative_to(root).as_posix(), file, None, part, mask_of.get(file))
    _check(listing, files, classes, list(images), palette, ignore)
    return listing


def _mask_places(root):
    """`{part: (images, masks)}` of a folder that has these two, or has them in train, val and test."""
    parts = {PARTS[e.name.lower()]: e for e in sorted(root.iterdir()) if e.is_dir() and e.name.lower() in PARTS}
    places = {part: (place / "images", place / "masks") for part, place in {None: root, **parts}.items()}
    return {part: pair for part, pair in places.items() if pair[0].is_dir() and pair[1].is_dir()}


def _check(listing, masks, classes, images, palette, ignore):
    listing.mask_report = check_masks(masks, classes, images, palette, ignore)
    ids = [i for i in listing.mask_report.pixels if i not in listing.mask_report.ignore]
    listing.classes = listing.mask_report.classes or tuple(map(str, ids))


def _of_data(data):
    listing = Listing(data.name, classes=data.classes)
    groups = []
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    splits = {part: split for part, split in splits.items() if split is not None}
    for part, split in splits.items():
        if split.images.ndim != 4:
            raise InputError(f"the report looks at images, (n, height, width, channels), not {split.images.shape}")
        paths = getattr(split.images, "paths", None)
        names = split.names if split.names is not None else paths or [f"{part} {i}" for i in range(len(split))]
        for i, name in enumerate(names):
            image = Path(paths[i]) if paths else (split.images, i)
            where = part if len(splits) > 1 else None
            if split.has_masks:
                listing.add(str(name), image, None, where, (split.labels, i))
            else:
                listing.add(str(name), image, data.classes[int(split.labels[i])], where)
        groups.append(split.groups)
    if all(group is not None for group in groups):
        listing.groups, listing.groups_given = np.concatenate(groups), True
    if data.train.has_masks and not any(is_lazy(split.labels) for split in splits.values()):
        masks = [
            mask for split in splits.values() for mask in split.labels
        ]  # masks in files are checked as they are read
        listing.mask_report = check_masks(masks, data.classes, ignore=data.ignore)
    return listing


def _of_arrays(images, masks, labels, names, classes, ignore, palette):
    listing = Listing("arrays", palette=palette)
    if not hasattr(images, "shape") or len(images.shape) not in (3, 4):
        raise InputError(
            "data_report takes a folder, a Data, or an array (n, height, width) or (n, height, width, channels), "
            f"not {type(images).__name__}{f' of shape {images.shape}' if hasattr(images, 'shape') else ''}"
        )
    for what, given in (("labels", labels), ("names", names), ("masks", masks)):
        if given is not None and len(given) != len(images):
            raise InputError(f"there are {len(images):,} images and {len(given):,} {what}: one an image is expected")
    if labels is not None:
        numbers = np.asarray(labels)
        found = sorted(set(numbers.tolist()))
        if classes is None or numbers.dtype.kind not in "iub":
            of = {value: str(value) for value in found}
        elif found and 0 <= found[0] and found[-1] < len(classes):
            of = dict(enumerate(map(str, classes)))
        else:
            raise InputError(f"labels go from {found[0]} to {found[-1]}, and there are {len(classes)} classes")
        listing.classes = tuple(dict.fromkeys(of.values()))
        labels = [of[value] for value in numbers.tolist()]
    for i in range(len(images)):
        name = f"image {i}" if names is None else str(names[i])
        mask = None if masks is None else (masks, i)
        listing.add(name, (images, i), None if labels is None else labels[i], None, mask)
    if masks is not None:
        _check(listing, masks, classes, images, palette, ignore)
    return listing


def _group(listing, groups):
    if groups is False:
        listing.groups, listing.groups_given = None, False
    elif groups is not None and not (isinstance(groups, str) and groups == "names"):
        listing.groups, listing.groups_given = group_names(listing.names, groups), True
    elif listing.groups is None:
        listing.groups = suggest_groups(listing.names)
