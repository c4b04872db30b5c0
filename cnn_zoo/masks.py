"""Masks without surprises: reading them, what is wrong with them, and class weights from them.

A mask is `(height, width)` class ids, or `(height, width, 1)`, or one-hot `(height, width, classes)`. Files keep ids in gray or palette PNG
(TIFF, .npy); a coloured file needs a `Palette` that says which colour is which class.
"""

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_zoo.data import IMAGE_SUFFIXES, list_images
from cnn_zoo.data.folders import partner
from cnn_zoo.data.formats import _read as read_stored
from cnn_zoo.data.formats import inspect, read_array
from cnn_zoo.errors import DataError, InputError
from cnn_zoo.palette import Palette, as_ids, colors_found, counted, listed, names_of, spans

MASK_SUFFIXES = IMAGE_SUFFIXES
LARGEST = 2**28  # pixels of a mask, as of maps and slides: more than an image is believed to have

# kind -> (what is wrong, what to do, whether training on it goes wrong), in the order of the report
_KINDS = {
    "unreadable": ("masks that cannot be read", "get these files again, or take them and their images out", True),
    "shape": ("arrays that are no masks", "a mask is (height, width) class ids, (height, width, 1), or one-hot (height, width, classes)", True),
    "type": ("masks that hold no numbers", "convert them to whole numbers: mask.astype('uint8')", True),
    "jpeg": ("masks saved as JPEG, which changes their values",
             "export them again as PNG, or threshold them if of two classes: read_image(path, (None, None, 1)) > 127", True),
    "lossy": ("masks with many rare values between a few frequent ones: compressed lossily, or resized with interpolation",
              "save masks as PNG and resize them by nearest neighbour only; or threshold them if of two classes: mask > 127", True),
    "fractions": ("masks with fractions (or NaN)", "probabilities become ids by mask.argmax(-1), or (mask > 0.5) with one channel", True),
    "color": ("coloured masks, (height, width, 3), where class ids are expected",
              "say which colour is which class: palette=Palette(names, colors), Palette.from_file(...) or Palette.voc()", True),
    "unknown_color": ("colours that the palette does not have",
                      "add them; if many are near one another (JPEG, smoothed edges), export the masks again as PNG without smoothing", True),
    "gray_rgb": ("gray masks saved with three equal channels", "take one channel: mask[..., 0]; read_mask(path) does", True),
    "alpha": ("masks with an alpha channel that is not opaque everywhere", "save them without transparency", True),
    "index": ("palette PNGs whose indices are not the ids that the palette gives their colours", "read them with read_mask(path, palette)", True),
    "logical": ("masks of 0 and 255 where ids 0 and 1 are expected (a logical mask saved as an image)",
                "read them with read_mask(path, Palette.binary()), or divide: mask // 255", True),
    "scaled": ("masks of two values that are not 0 and 1", "compare: (mask > 0).astype('uint8')", True),
    "hot_255": ("one-hot masks with 255 for 1", "divide: mask // 255", True),
    "hot_first": ("one-hot masks with their classes first, (classes, height, width)", "move the axis: np.moveaxis(mask, 0, -1)", True),
    "hot_classes": ("one-hot masks with another number of channels than there are classes", "give as many classes, or make the masks again", True),
    "mixed": ("some masks are one-hot and some are class ids", "bring them to one form: mask.argmax(-1) makes ids", True),
    "unknown": ("ids that are no class",
                "number the classes 0, 1, 2, ..., say how many there are, or name ids without a class in ignore= (often 255, or -1)", True),
    "size": ("masks of another size than their images", "give each its image's height and width; resize by nearest neighbour only", True),
    "no_image": ("masks without an image", "a mask has the name of its image, up to the suffix: rename or remove them", True),
    "no_mask": ("images without a mask", "give each a mask of its name (all zeros where there is nothing), or take them out", True),
    "image": ("images that cannot be read", "get these files again, or take them and their masks out", True),
    "multi": ("masks of 0 and 1 in which a pixel has no class or several",
              "meant so (multi-label)? Then train with a sigmoid and a loss for each class; else make them one-hot", False),
    "whole": ("class ids stored as floating point", "save memory: mask.astype('uint8')", False),
    "hot": ("one-hot masks", "fine as they are; class ids take less memory: mask.argmax(-1)", False),
    "gaps": ("very many ids, or ids with large gaps: labels of single objects, or gray levels for looking at?",
             "objects against background: (mask > 0).astype('uint8'); else number the classes 0, 1, 2, ... and say how many", False),
    "absent": ("classes that occur in no mask", "look whether ids are shifted (from 1 rather than 0?), or leave the class out", False),
    "blank": ("masks in which every pixel is ignored", "leave them out: nothing can be learnt from them", False),
    "single": ("all masks hold one and the same id", "look whether these are the right files", False),
}  # fmt: skip


# Reading


def read_mask(path, palette: Palette | None = None) -> np.ndarray:
    """Read one mask as class ids.

    Without a palette the numbers of the file are the ids: those of a gray file, or the indices of a palette PNG. With one, a coloured file or
    palette PNG is decoded by its colours; a gray file is as well if all colours of the palette are gray (`Palette.binary()` reads 0/255
    masks), and otherwise its numbers are ids already.

    Args:
        path: PNG, TIFF, BMP, GIF, lossless WebP or .npy. JPEG is refused: it changes the values.
        palette: Which colour is which class.

    Returns:
        `(height, width)` of an integer type.

    Raises:
        DataError: The file is missing, damaged, coloured (and there is no palette), a JPEG or no mask; the message says what to do.
    """
    return _ids_of(str(path), Path(path), palette)


def _ids_of(where, source, palette):
    ids, kind, detail = _examine(*_read(source), palette)
    if ids is None:
        what, fix, _ = _KINDS[kind]
        raise DataError(f"{where} is one of the {what}{f' ({detail})' if detail else ''}: {fix}")
    return ids


def _examine(values, indices, form, palette, classes=None):
    """What `_read` gives as `(ids or None, kind of problem or None, detail)`; with a problem that can be mended there are ids, too."""
    if form == "JPEG":
        return None, "jpeg", None
    if indices is not None and palette is None:
        return indices, None, None
    if values.dtype.kind not in "iubf":
        return None, "type", str(values.dtype)
    about = f"{values.dtype} of shape {values.shape}"
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or not values.size:
        return None, "shape", about
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        return None, "fractions", f"{about}, from {np.nanmin(values):.4g} to {np.nanmax(values):.4g}"
    if values.ndim == 3:
        ids, kind, detail = _channels(values, palette, classes)
        if ids is not None and indices is not None and not np.array_equal(ids, indices):
            kind = "index"
        return ids, kind, detail
    kind = "whole" if values.dtype.kind == "f" else None
    if palette is not None and all(red == green == blue for red, green, blue in palette.colors):
        return _by_colors(np.repeat(as_ids(values)[..., None], 3, axis=-1), palette, kind)
    return as_ids(values), kind, str(values.dtype)


def _channels(values, palette, classes):
    """The same for values `(height, width, channels)`: RGB, one-hot, or neither."""
    low, high, channels = values.min(), values.max(), values.shape[-1]
    if channels == 4 and high > 1 and (values[..., 3] == 255).all():
        values, channels = values[..., :3], 3
    hot = _one_hot(values, -1)
    if hot is not None and (palette is None or channels != 3 or high == 1):
        if high == 255:
            return hot, "hot_255", f"{channels} channels"
        wrong = classes is not None and channels != classes
        return hot, "hot_classes" if wrong else "hot", f"{channels} channels, {classes} classes" if wrong else None
    if _one_hot(values, 0) is not None and values.shape[0] < min(values.shape[1:]):
        return None, "hot_first", f"shape {values.shape}"
    if channels == 3 and palette is not None:
        return _by_colors(values, palette)
    if channels == 3 and (values[..., :1] == values).all():
        return as_ids(values[..., 0]), "gray_rgb", None
    if low == 0 and high == 1:
        counts = values.sum(-1)
        return None, "multi", f"{(counts == 0).sum():,} pixels of no class, {(counts > 1).sum():,} of several"
    if channels == 3 and low >= 0 and high <= 255:
        return None, "color", colors_found(values).rstrip(",")
    return None, "alpha" if channels == 4 and high > 1 else "shape", f"shape {values.shape}, values {low} to {high}"


def _by_colors(values, palette, kind=None):
    try:
        return palette.to_ids(values), kind, None
    except (DataError, InputError) as error:
        return None, "unknown_color", str(error).partition(" not in the palette")[0].rstrip(",")


def _one_hot(values, axis):
    """The ids of a one-hot mask, or None where it is none. 255 may stand for 1."""
    high = values.max()
    if values.shape[axis] < 2 or high not in (1, 255) or not ((values == 0) | (values == high)).all():
        return None
    if not ((values == high).sum(axis) == 1).all():
        return None
    return values.argmax(axis).astype("uint8" if values.shape[axis] <= 256 else "uint16")


def _read(source):
    """The values of a file or array (of a palette file its colours), the indices of a palette file or None, and the format."""
    if not isinstance(source, Path):
        return np.asarray(source), None, "array"
    path = source
    if not path.is_file():
        raise DataError(f"there is no mask {str(path)!r}")
    if path.suffix.lower() == ".npy" and path.stat().st_size:
        try:
            return np.load(path, allow_pickle=False), None, "npy"  # with all its axes: one-hot masks have three
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{str(path)!r} is damaged ({error}): get the file again") from error
    info = inspect(path, LARGEST)
    if info.format == "JPEG":
        return read_array(path, max_pixels=LARGEST), None, info.format
    stored, _ = read_stored(path, None, True, LARGEST)
    if info.channels == 3 and stored.shape[-1] == 1:
        return read_array(path, max_pixels=LARGEST), stored[..., 0], info.format
    return (read_array(path, alpha=True, max_pixels=LARGEST) if info.alpha else stored), None, info.format


def list_masks(source) -> list[Path]:
    """The mask files of a folder (with its subfolders, sorted), of a list of paths, or one path.

    Raises:
        DataError: There is none.
    """
    if isinstance(source, (str, Path)):
        if not Path(source).exists():
            raise DataError(f"there is no mask or folder {str(source)!r}")
        source = [source]
    found = []
    for entry in map(Path, source):
        inside = [path for path in entry.rglob("*") if path.suffix.lower() in MASK_SUFFIXES and path.is_file()]
        found += sorted(inside) if entry.is_dir() else [entry]
    if not found:
        raise DataError(f"{listed(map(str, source))} has no masks ({', '.join(MASK_SUFFIXES)})")
    return found


def _are_files(entries):
    return isinstance(entries, (str, Path)) or (
        isinstance(entries, (list, tuple)) and bool(entries) and isinstance(entries[0], (str, Path))
    )


def _sources(masks):
    """(where, path or array) of each mask."""
    if _are_files(masks):
        return [(str(path), path) for path in list_masks(masks)]
    if hasattr(masks, "dtype") and hasattr(masks, "size"):
        shape = masks.shape
        if masks.ndim == 3 and masks.size:
            # A single mask with channels rather than a stack: no stack of masks is one pixel wide, nor three.
            picture = shape[-1] in (3, 4) and masks.dtype == np.uint8 and shape[1] > 4
            single = shape[-1] == 1 or picture or _one_hot(np.asarray(masks), -1) is not None
        else:
            single = masks.ndim == 2
        if not single and masks.ndim not in (3, 4):
            raise InputError(f"masks are (n, height, width) or (n, height, width, classes), not of shape {shape}")
        masks = masks[None] if single else masks
    sources = [(f"mask {i}", mask) for i, mask in enumerate(masks)]
    if not sources:
        raise DataError("there are no masks")
    return sources


# Checking


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with some masks.

    Attributes:
        what: What is wrong.
        where: The masks, each with what was found there.
        fix: What to do.
        serious: Training on it goes wrong. Otherwise worth knowing only.
    """

    what: str
    where: tuple[str, ...]
    fix: str
    serious: bool = True

    def __str__(self):
        places = "".join(f"\n    {place}" for place in self.where[:5])
        more = f"\n    and {len(self.where) - 5:,} more" if len(self.where) > 5 else ""
        return f"{'ERROR' if self.serious else 'note'}: {self.what}{places}{more}\n  to do: {self.fix}"


@dataclass(frozen=True)
class Report:
    """What `check_masks` found.

    Attributes:
        problems: The serious ones first.
        masks: How many masks were looked at.
        sizes: `(height, width)` -> number of masks.
        pixels: id -> pixels, over all masks that could be read.
        classes: Class names, or None.
        ignore: Ids without a class.
    """

    problems: tuple[Problem, ...]
    masks: int
    sizes: dict
    pixels: dict
    classes: tuple[str, ...] | None
    ignore: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """No serious problem."""
        return not any(problem.serious for problem in self.problems)

    def raise_if_bad(self) -> "Report":
        """Raise DataError if there is a serious problem; else return the report."""
        if not self.ok:
            bad = [problem for problem in self.problems if problem.serious]
            raise DataError("\n".join([f"{len(bad)} thing(s) are wrong with the masks", *map(str, bad)]))
        return self

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            **dataclasses.asdict(self),
            "ok": self.ok,
            "sizes": [[*size, count] for size, count in self.sizes.items()],
            "pixels": {str(i): count for i, count in self.pixels.items()},
        }

    def __str__(self):
        sizes = listed((f"{h}x{w} ({count:,})" for (h, w), count in self.sizes.items()), 4)
        lines = [f"{self.masks:,} mask(s), height x width {sizes or 'unknown'}"]
        total = max(1, sum(self.pixels.values()))
        for i, count in list(self.pixels.items())[:40]:
            name = self.classes[i] if self.classes and 0 <= i < len(self.classes) else ""
            name = "ignored" if i in self.ignore else "" if name == str(i) else name
            lines.append(f"  id {i:>5}  {count:>15,} pixels  {count / total:7.2%}  {name}".rstrip())
        if len(self.pixels) > 40:
            lines.append(f"  and {len(self.pixels) - 40:,} more ids")
        return "\n".join([*lines, *(map(str, self.problems) if self.problems else ["no problems found"])])


def check_masks(masks, classes=None, images=None, palette: Palette | None = None, ignore=None) -> Report:
    """Look through masks, before training, for what goes wrong silently.

    Args:
        masks: A folder (searched with its subfolders), files, or arrays: `(n, height, width)`, `(n, height, width, classes)`, or a list of masks.
        classes: Number of classes, or their names. Without it unknown ids and absent classes cannot be told.
        images: Their images: a folder or files, which go with the mask of the same name (suffix apart, also with an addition such as
            `_mask`), or arrays in the order of the masks.
        palette: What coloured masks are decoded with; also gives the class names where `classes` is None.
        ignore: Id or ids without a class (void). Default none, or what the palette has beyond its classes.

    Returns:
        A `Report`: `print(report)`, `report.ok`, `report.raise_if_bad()`.

    Raises:
        DataError: No masks or no images at all.
        InputError: Arguments that make no sense.
    """
    names = None if classes is None else names_of(classes)
    if palette is not None:
        names = palette.classes if names is None else names
        ignore = [i for i in palette.ids if i >= len(names)] if ignore is None else ignore
    ignored = tuple(int(i) for i in np.atleast_1d([] if ignore is None else ignore))
    sources = _sources(masks)
    found = {kind: [] for kind in _KINDS}
    pixels, sizes, shapes, per_mask, forms = {}, {}, [], [], set()
    for where, source in sources:
        counts, shape = {}, None
        try:
            values, indices, form = _read(source)
            ids, kind, detail = _examine(values, indices, form, palette, None if names is None else len(names))
            shape = values.shape[:2] if values.ndim in (2, 3) else None
        except DataError as error:
            ids, kind, where, detail = None, "unreadable", str(error), None
        if kind in (None, "whole", "unknown_color") and indices is None and values.size == np.prod(shape):
            if _looks_lossy(values.reshape(shape), names):
                ids, kind, detail = None, "lossy", f"{len(np.unique(values)):,} different values"
        if kind is not None:
            found[kind].append(f"{where}: {detail}" if detail else where)
        if ids is not None:
            forms.add("one-hot" if kind in ("hot", "hot_255", "hot_classes") else "class ids")
            counts = _count(ids)
        if shape is not None:
            sizes[shape] = sizes.get(shape, 0) + 1
        for i, count in counts.items():
            pixels[i] = pixels.get(i, 0) + count
        shapes.append(shape)
        per_mask.append((where, counts))
    if len(forms) > 1:
        found["mixed"].append(listed(sorted(forms)))
    _check_ids(per_mask, pixels, names, ignored, found)
    if images is not None:
        _check_images(images, sources, shapes, found)
    problems = [Problem(what, tuple(found[kind]), fix, bad) for kind, (what, fix, bad) in _KINDS.items() if found[kind]]
    return Report(tuple(problems), len(sources), sizes, dict(sorted(pixels.items())), names, ignored)


def _looks_lossy(mask, names):
    """A few values fill the mask, and between them lie many rare ones that change from pixel to pixel."""
    if mask.size < 64 or mask.min() < 0 or mask.max() < (64 if names is None else max(64, len(names))):
        return False
    values, inverse, counts = np.unique(mask, return_inverse=True, return_counts=True)
    if (((values < 16) | (values > 239)) & (values < 256)).all() and (values > 239).sum() > 2:
        return True  # 0 and 255 with a little noise: a JPEG of high quality
    rare = counts < 0.01 * mask.size
    if len(values) < 16 or rare.sum() < 2 * (~rare).sum() or counts[rare].sum() > 0.4 * mask.size:
        return False
    pixels = rare[inverse.reshape(mask.shape)]
    same = mask[:, 1:] == mask[:, :-1]  # in a mask of many small objects a rare value goes on to the next pixel
    return bool(same[pixels[:, 1:]].mean() < 0.6) if pixels[:, 1:].any() else False


def _count(ids):
    if ids.dtype == np.uint8:
        counts = np.bincount(ids.ravel(), minlength=256)
        return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    values, counts = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist()))


def _check_ids(per_mask, pixels, names, ignored, found):
    count = np.inf if names is None else len(names)
    seen = set(pixels) - set(ignored)
    two = len(seen) == 2 and 0 in seen and max(seen) > 1 and (names is None or max(seen) >= count)
    for where, counts in per_mask:
        kept = {i: n for i, n in counts.items() if i not in ignored}
        if counts and not kept:
            found["blank"].append(where)
        if 255 in kept and set(kept) <= {0, 255} and seen <= {0, 1, 255} and (names is None or count <= 255):
            found["logical"].append(f"{where}: {listed(f'{n:,} pixels of {i}' for i, n in kept.items())}")
        elif two and len(kept) == 2 and seen != {0, 255}:
            found["scaled"].append(f"{where}: 0 and {max(kept)}")
        elif unknown := {i: n for i, n in kept.items() if not 0 <= i < count}:
            found["unknown"].append(f"{where}: {counted(unknown)}")
    if found["logical"] or found["scaled"] or not seen:
        return
    if names is not None:
        found["absent"] += [f"{name} (id {i})" for i, name in enumerate(names) if i not in pixels]
    elif max(seen) > 10 and (len(seen) <= (max(seen) + 1) / 4 or len(seen) > 64):
        found["gaps"].append(f"{len(seen)} ids up to {max(seen)}: {spans(seen)}")
    if len(seen) == 1 and count > 1:
        found["single"].append(f"id {next(iter(seen))}")


def _check_images(images, sources, shapes, found):
    if _are_files(images) != isinstance(sources[0][1], Path):
        raise InputError("give images and masks both as files or both as arrays: these are one of each")
    if _are_files(images):
        files = list_images(images)
        partners = pair(files, [path for _, path in sources])
        found["no_mask"] += [str(path) for path in files if path not in set(partners)]
    else:
        one = np.ndim(images) == 2 or (hasattr(images, "dtype") and np.ndim(images) == 3 and len(sources) == 1)
        partners = [images] if one and len(images) != 1 else list(images)
        found["no_mask"] += [f"image {i}" for i in range(len(sources), len(partners))]
        partners += [None] * (len(sources) - len(partners))
    for (where, _), mask, image in zip(sources, shapes, partners):
        if image is None:
            found["no_image"].append(where)
            continue
        try:
            size = image_size(image) if isinstance(image, Path) else np.shape(image)[:2]
        except DataError as error:
            found["image"].append(str(error))
            continue
        if mask is not None and mask != size:
            turned = " (turned by 90 degrees?)" if mask == size[::-1] else ""
            found["size"].append(f"{where}: mask {mask[0]}x{mask[1]}, image {size[0]}x{size[1]}{turned}")


def pair(images, masks) -> list[Path | None]:
    """For each mask file its image file, or None.

    They belong together when their names are equal up to the suffix, or the mask's goes on after its image's with something that is no
    letter or digit (`x.jpg` and `x_mask.png`, `x.labels.png`). Where names recur in several folders, the folders decide.
    """
    by_name = {}
    for image in images:
        by_name.setdefault(Path(image).stem, []).append(Path(image))
    pairs = []
    for mask in map(Path, masks):
        candidates = by_name.get(partner(mask.stem, by_name), [])
        # Of images of one name, the one whose folders are most like the mask's.
        likeness = [len(set(image.parent.parts) & set(mask.parent.parts)) for image in candidates]
        best = [image for image, like in zip(candidates, likeness) if like == max(likeness)]
        pairs.append(best[0] if len(best) == 1 else None)
    return pairs


def image_size(path) -> tuple[int, int]:
    """Height and width of an image file, from its header.

    Raises:
        DataError: It is missing, damaged or no image.
    """
    info = inspect(path, 2**40)
    return info.height, info.width


# Class weights


CLASS_WEIGHTS = ("balanced", "median_frequency", "inverse", "square_root")


def class_weights_from(
    masks, classes, ignore=None, how: str = "balanced", palette: Palette | None = None
) -> np.ndarray:
    """Weights that make up for rare classes, from the pixels of the training masks.

    With n_c the pixels of class c, n all pixels that are not ignored and k the classes that occur:

    - `"balanced"`: n / (k n_c), as in scikit-learn; averaged over the pixels they are 1.
    - `"median_frequency"`: median(f) / f_c, f_c = n_c / (all pixels of the masks in which c occurs). Source: Eigen and Fergus 2015, section 6.2;
      Badrinarayanan et al. 2017 (SegNet), section 3.
    - `"inverse"`: proportional to 1 / n_c, averaged over the classes they are 1.
    - `"square_root"`: proportional to 1 / sqrt(n_c), averaged over the pixels they are 1: half way to balanced, where rare classes are very rare.

    Args:
        masks: As for `check_masks`.
        classes: Number of classes, or their names.
        ignore: Id or ids without a class.
        how: See above.
        palette: For coloured masks.

    Returns:
        `(classes,)` float32. A class that occurs nowhere has weight 0, with a warning.

    Raises:
        DataError: Masks that cannot be read, or ids that are neither a class nor ignored (`check_masks` says more).
        InputError: Another `how`.
    """
    names = names_of(classes)
    ignored = {int(i) for i in np.atleast_1d([] if ignore is None else ignore)}
    if how not in CLASS_WEIGHTS:
        raise InputError(f"how is one of {', '.join(CLASS_WEIGHTS)}, not {how!r}")
    pixels, around = np.zeros(len(names)), np.zeros(len(names))
    for where, source in _sources(masks):
        counts = _count(_ids_of(where, source, palette))
        if unknown := {i: n for i, n in counts.items() if i not in ignored and not 0 <= i < len(names)}:
            raise DataError(
                f"{where}: {counted(unknown)} is no class of {len(names)} and not ignored: "
                "name it in ignore=, or see what check_masks says"
            )
        for i in set(counts) - ignored:
            pixels[i] += counts[i]
            around[i] += sum(counts.values())
    there = pixels > 0
    if not there.any():
        raise DataError("every pixel of the masks is ignored: there is nothing to weigh")
    if not there.all():
        absent = listed(name for name, is_there in zip(names, there) if not is_there)
        warnings.warn(f"no pixel of {absent} in these masks: weight 0", stacklevel=2)
    weights = np.zeros(len(names))
    if how == "median_frequency":
        frequency = pixels[there] / around[there]
        weights[there] = np.median(frequency) / frequency
    else:
        weights[there] = pixels.sum() / (there.sum() * pixels[there])
    if how == "inverse":
        weights /= weights[there].mean()
    elif how == "square_root":
        weights = np.sqrt(weights)
        weights *= pixels.sum() / (weights @ pixels)
    return weights.astype("float32")
