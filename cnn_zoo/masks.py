"""Masks without surprises: reading them, what is wrong with them, their colours, and class weights from them.

A mask is `(height, width)` class ids, or `(height, width, 1)`, or one-hot `(height, width, classes)`. Files keep ids in gray or palette PNG
(TIFF, .npy); a coloured file needs a `Palette` that says which colour is which class.
"""

import csv
import dataclasses
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_zoo.data import IMAGE_SUFFIXES
from cnn_zoo.data.images import list_images
from cnn_zoo.errors import DataError, InputError

MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".npy")
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# Each the farthest in CIELAB from black, white, mid gray and all before it.
_DISTINCT = (
    "246cb4 ff0000 ffd800 24d890 ff00b4 904800 00ff00 906cff ffb4ff 486c00 0000ff 00d8ff 900048 ff9090 d800ff d8b46c ff9000 90d824 "
    "ff006c 902490 006c48 b40024 b46c90 90d8b4"
).split()
_LOSSY = 16  # different values from which a mask may be a lossy one


# Colours


@dataclass(frozen=True)
class Palette:
    """Which colour is which class.

    Attributes:
        names: Class names.
        colors: RGB of each, integers 0..255; no two alike.
        ids: Class id of each; default 0, 1, 2, ... Several rows may share an id, as where CamVid's 32 classes become 11; then the
            first of them gives the id its colour and name.

    Raises:
        InputError: Lengths that differ, colours that are no RGB triple or occur twice, or ids below 0.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ids: tuple[int, ...] | None = None

    def __post_init__(self):
        names = tuple(str(name) for name in self.names)
        colors = tuple(_color(color) for color in self.colors)
        ids = tuple(range(len(names))) if self.ids is None else tuple(_whole(i, "a class id") for i in self.ids)
        if not names or not len(names) == len(colors) == len(ids):
            raise InputError(
                f"a palette needs as many names ({len(names)}) as colours ({len(colors)}) and ids ({len(ids)})"
            )
        if len(set(colors)) < len(colors):
            twice = next(color for i, color in enumerate(colors) if color in colors[:i])
            both = [name for name, color in zip(names, colors) if color == twice]
            raise InputError(f"the colour {twice} stands for {' and '.join(both)}: a colour can mean one class only")
        for field, value in zip(("names", "colors", "ids"), (names, colors, ids)):
            object.__setattr__(self, field, value)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, classes) -> "Palette":
        """Colours that are easy to tell apart, for a number of classes or for these names."""
        names = _names(classes)
        colors = [_color(f"#{color}") for color in _DISTINCT]
        more = (color for color in _voc_colors(1 << 16) if color not in colors)
        while len(colors) < len(names):
            colors.append(next(more))
        return cls(names, tuple(colors[: len(names)]))

    @classmethod
    def binary(cls, names=("background", "object")) -> "Palette":
        """Black is 0 and white is 1: what turns masks saved as 0 and 255 into ids."""
        return cls(tuple(names), ((0, 0, 0), (255, 255, 255)))

    @classmethod
    def voc(cls, classes=VOC_CLASSES, void: bool = True) -> "Palette":
        """The colour map of PASCAL VOC: the bits of the id, dealt out to red, green and blue from the highest bit down.

        Args:
            classes: Names, or how many; default the 21 of VOC 2012.
            void: Add the border colour (224, 224, 192) as id 255, `"void"`.

        Source: Everingham et al., VOC development kit, `VOClabelcolormap`.
        """
        names = _names(classes)
        colors = _voc_colors(max(256, len(names)))
        if void and len(names) <= 255:
            return cls((*names, "void"), (*colors[: len(names)], colors[255]), (*range(len(names)), 255))
        if len(names) > 256:
            raise InputError(
                f"the colour map of VOC has 256 colours, and {len(names)} classes are given: use Palette.of"
            )
        return cls(names, tuple(colors[: len(names)]))

    @classmethod
    def from_file(cls, path) -> "Palette":
        """Read a colour table.

        Text (`64 128 64 Animal` or `Animal 64 128 64`, as CamVid's `label_colors.txt`; `#` begins a comment), CSV (the same with commas, or
        with a header among whose columns are name, r, g, b and perhaps id), or JSON (`{"Animal": [64, 128, 64]}`, or a list of objects with
        `name`, `color` and perhaps `id`; colours also as "#408040").

        Raises:
            DataError: The file is missing or cannot be understood; the message names the line.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the colour table {str(path)!r} cannot be read: {error}") from error
        try:
            rows = _json_colors(text) if path.suffix.lower() == ".json" else _text_colors(text)
            names, colors, ids = zip(*rows) if rows else ((), (), ())
            if len({i is None for i in ids}) > 1:
                raise InputError("some classes have an id and some have none")
            return cls(names, colors, None if not ids or ids[0] is None else ids)
        except (InputError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"the colour table {str(path)!r} cannot be understood: {error}") from error

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each id, from 0 to the number of classes; ids of 255 and above that leave a gap (void) are not counted."""
        first = {i: name for i, name in reversed(list(zip(self.ids, self.names)))}
        count = next(i for i in range(len(first) + 1) if i not in first)
        return tuple(first[i] for i in range(count))

    def name(self, i: int) -> str:
        """The name of an id, or the id as text."""
        return next((name for name, have in zip(self.names, self.ids) if have == i), str(i))

    def color(self, i: int) -> tuple[int, int, int]:
        """The colour of an id, mid gray for an unknown one."""
        return next((color for color, have in zip(self.colors, self.ids) if have == i), (128, 128, 128))

    def to_rgb(self, mask) -> np.ndarray:
        """Class ids `(height, width)` as a uint8 picture `(height, width, 3)`.

        Raises:
            InputError: An id that the palette does not have, or no ids.
        """
        mask = _ids_only(np.asarray(mask))
        low, high = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
        table = np.full((max(*self.ids, high, 0) + 1, 3), -1, "int16")
        for i, color in reversed(list(zip(self.ids, self.colors))):
            table[i] = color
        picture = table[np.maximum(mask, 0)]
        if low < 0 or (picture[..., 0] < 0).any():
            have, counts = np.unique(mask, return_counts=True)
            unknown = [(i, n) for i, n in zip(have.tolist(), counts.tolist()) if i not in self.ids]
            raise InputError(
                f"the palette has no colour for {_list(f'id {i} ({n:,} pixels)' for i, n in unknown)}: it has the ids {_spans(self.ids)}"
            )
        return picture.astype("uint8")

    def to_ids(self, picture, unknown: int | None = None) -> np.ndarray:
        """A coloured mask `(height, width, 3)` as class ids `(height, width)`: exact, no nearest colour.

        Args:
            picture: Integers 0..255; a fourth channel (alpha) is refused.
            unknown: The id for colours that the palette does not have; None refuses them.

        Returns:
            uint8, or uint16 where the palette has an id above 255.

        Raises:
            DataError: Colours that the palette does not have, named with their pixel counts.
            InputError: No picture of three channels with whole values 0..255.
        """
        picture = np.asarray(picture)
        if picture.ndim != 3 or picture.shape[-1] != 3:
            raise InputError(f"a coloured mask has shape (height, width, 3), not {picture.shape}")
        codes = _codes(picture)
        known = np.array([r << 16 | g << 8 | b for r, g, b in self.colors])
        order = np.argsort(known)
        place = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
        found = known[order][place] == codes
        if unknown is None and not found.all():
            raise DataError(
                f"{_colors_found(codes[~found])} not in the palette: add them, "
                "or give the id that they shall have (to_ids(..., unknown=255)); many colours near one another mean a JPEG or a smoothed mask"
            )
        ids = np.array(self.ids)[order][place]
        ids = ids if unknown is None else np.where(found, ids, _whole(unknown, "an id"))
        return ids.astype("uint8" if max(*self.ids, unknown or 0) < 256 else "uint16")


def _whole(value, what):
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
        raise InputError(f"{what} is a whole number from 0, not {value!r}")
    return int(value)


def _color(color):
    if isinstance(color, str) and re.fullmatch("#[0-9a-fA-F]{6}", color):
        return tuple(bytes.fromhex(color[1:]))
    if (
        isinstance(color, str)
        or np.shape(color) != (3,)
        or not all(hasattr(v, "__index__") and 0 <= v <= 255 for v in color)
    ):
        raise InputError(f"a colour is red, green and blue, whole numbers 0..255, or '#rrggbb', not {color!r}")
    return tuple(int(v) for v in color)


def _names(classes):
    return tuple(map(str, range(_whole(classes, "a number of classes")) if np.ndim(classes) == 0 else classes))


def _voc_colors(count):
    """Colour i has bit 3k of i as bit 7 - k of red, bit 3k + 1 of green, bit 3k + 2 of blue."""
    return [
        tuple(sum((i >> (3 * k + channel) & 1) << (7 - k) for k in range(8)) for channel in range(3))
        for i in range(count)
    ]


def _text_colors(text):
    """Rows (name, colour, id or None) of CSV or of words separated by blanks."""
    rows, header = [], None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        cells = next(csv.reader([line])) if "," in line else line.split("\t") if line.count("\t") > 2 else line.split()
        cells = [cell.strip() for cell in cells if cell.strip()]
        numbers = [cell.isdecimal() for cell in cells]
        if not any(numbers) and header is None and not rows:
            header = [cell.lower() for cell in cells]
            continue
        if header and len(header) == len(cells):
            row = dict(zip(header, cells))
            name, red, green, blue = (
                next((row[key] for key in keys if key in row), None)
                for keys in (("name", "class", "label"), ("r", "red"), ("g", "green"), ("b", "blue"))
            )
            i = next((row[key] for key in ("id", "index", "value") if key in row), None)
            if name is not None and all(v is not None and v.isdecimal() for v in (red, green, blue)):
                rows.append((name, (int(red), int(green), int(blue)), int(i) if i and i.isdecimal() else None))
                continue
        if len(cells) > 3 and all(numbers[:3]) and not numbers[3]:
            rows.append((" ".join(cells[3:]), tuple(map(int, cells[:3])), None))
        elif len(cells) > 3 and all(numbers[-3:]) and not numbers[-4]:
            rows.append((" ".join(cells[:-3]), tuple(map(int, cells[-3:])), None))
        else:
            raise InputError(f"line {number} ({line[:60]!r}) is not red, green, blue and a name")
    if not rows:
        raise InputError("it has no rows")
    return rows


def _json_colors(text):
    content = json.loads(text)
    if isinstance(content, dict):
        return [(name, _json_color(color), None) for name, color in content.items()]
    rows = []
    for row in content:
        color = next((row[key] for key in ("color", "colour", "rgb") if key in row), None)
        if color is None or "name" not in row:
            raise InputError(f"{row} lacks its name or its color")
        rows.append((row["name"], _json_color(color), row.get("id")))
    return rows


def _json_color(color):
    return _color(color if isinstance(color, str) else tuple(color))


def _codes(picture):
    """Each colour as one integer."""
    if picture.dtype != np.uint8:
        if (
            picture.dtype.kind not in "iuf"
            or not ((picture >= 0) & (picture <= 255) & (picture == np.rint(picture))).all()
        ):
            raise InputError("the colours of a mask are whole numbers 0..255, and these are not")
    red, green, blue = np.moveaxis(picture.astype("int64"), -1, 0)
    return red << 16 | green << 8 | blue


def _colors_found(codes, most=8):
    colors, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    named = [f"({c >> 16}, {c >> 8 & 255}, {c & 255}) in {n:,} pixels" for c, n in zip(colors[order], counts[order])]
    return f"{len(colors):,} colour(s), {_list(named, most)},"


def _list(entries, most=8):
    entries = list(entries)
    return ", ".join(entries[:most]) + (f" and {len(entries) - most:,} more" if len(entries) > most else "")


def _spans(ids):
    """0, 1, 2, 255 as "0..2, 255"."""
    ids, parts = sorted({int(i) for i in ids}), []
    for i in ids:
        if parts and i == parts[-1][1] + 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return _list((str(low) if low == high else f"{low}..{high}" for low, high in parts), 12)


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
        `(height, width)`, uint8, uint16 or int32.

    Raises:
        DataError: The file is missing, damaged, coloured (and there is no palette), lossy or no mask; the message says what to do.
    """
    values, file = _read(path)
    if file == "JPEG":
        raise DataError(
            f"{str(path)!r} is a JPEG, which changes the values of a mask: export it again as PNG, "
            "or, where it has two classes, threshold it (read_image(path, (None, None, 1)) > 127)"
        )
    try:
        return _decode(values, palette)
    except (DataError, InputError) as error:
        raise DataError(f"{str(path)!r}: {error}") from error


@dataclass(frozen=True)
class _Indexed:
    """A palette PNG: its indices and the colours they stand for."""

    indices: np.ndarray
    table: np.ndarray

    @property
    def picture(self):
        return self.table[self.indices]


def _read(path):
    """A file's values as stored, and its format. Values are an array or, for a palette PNG, `_Indexed`."""
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no mask {str(path)!r}")
    if path.stat().st_size == 0:
        raise DataError(f"{str(path)!r} is empty (0 bytes): get the file again")
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False), "npy"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # masks of maps and slides are that large
            with Image.open(path) as image:
                image.load()
                file = image.format  # conversion forgets it
                if image.mode == "P":
                    table = np.array(image.getpalette("RGB"), "uint8").reshape(-1, 3)
                    indices = np.asarray(image)
                    missing = max(0, int(indices.max()) + 1 - len(table))
                    return _Indexed(indices, np.pad(table, [(0, missing), (0, 0)])), file
                if image.mode in ("LA", "PA"):
                    image = image.convert("RGBA")
                if image.mode not in ("1", "L", "I", "F", "RGB", "RGBA") and not image.mode.startswith("I;"):
                    image = image.convert("RGB")
                values = np.asarray(image)
                return values.astype("uint8") if values.dtype == bool else values, file
    except UnidentifiedImageError as error:
        raise DataError(f"{str(path)!r} is not an image that can be read ({', '.join(MASK_SUFFIXES)})") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{str(path)!r} has more pixels than Pillow reads: save it as .npy") from error
    except Exception as error:  # damaged bytes raise what Pillow's and NumPy's readers like
        raise DataError(f"{str(path)!r} is damaged ({error}): get the file again") from error


def _decode(values, palette):
    """Values as stored to class ids, or an error that says why not."""
    if isinstance(values, _Indexed):
        return values.indices if palette is None else palette.to_ids(values.picture)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 3 and values.shape[-1] == 4 and (values[..., 3] == 255).all():
        values = values[..., :3]
    if values.ndim == 3 and values.shape[-1] == 3 and palette is not None and values.max(initial=0) != 1:
        return palette.to_ids(values)
    if values.ndim == 3 and values.shape[-1] == 3 and _one_hot(values, -1) is None:
        if (values[..., :1] == values).all():
            return _ids_only(values[..., 0])
        raise DataError(
            f"the mask is coloured, {_colors_found(_codes(values))} and there is no palette: "
            "give one, palette=Palette(names, colors) or Palette.from_file(...)"
        )
    if values.ndim == 3:
        if (hot := _one_hot(values, -1)) is None:
            raise DataError(f"a mask of shape {values.shape} is neither class ids nor one-hot nor RGB")
        return hot.astype("uint8" if values.shape[-1] <= 256 else "uint16")
    if palette is not None and all(r == g == b for r, g, b in palette.colors):
        return palette.to_ids(np.repeat(_ids_only(values)[..., None], 3, axis=-1))
    return _ids_only(values)


def _ids_only(mask):
    """A two-dimensional array of whole numbers, or an error."""
    if mask.ndim == 3 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.ndim != 2:
        raise InputError(f"a mask of class ids has shape (height, width), not {mask.shape}")
    if mask.dtype.kind == "f":
        if not (mask == np.rint(mask)).all():  # NaN is not equal to itself
            raise InputError("a mask holds whole numbers, and this one has fractions: threshold it or take argmax(-1)")
        mask = mask.astype("int32")
    if mask.dtype.kind not in "iub":
        raise InputError(f"a mask holds whole numbers, not {mask.dtype}")
    return mask.astype("uint8") if mask.dtype == bool else mask


def _one_hot(values, axis):
    """The ids of a one-hot mask, or None where it is none. 255 may stand for 1."""
    if values.dtype.kind not in "iubf" or values.shape[axis] < 2 or not values.size:
        return None
    high = values.max()
    if high not in (1, 255) or not ((values == 0) | (values == high)).all():
        return None
    return values.argmax(axis) if ((values == high).sum(axis) == 1).all() else None


def _sources(masks):
    """Pairs (where, a function that gives values and format) for files, folders and arrays; and whether they are files."""
    if isinstance(masks, (str, Path)) or (
        not hasattr(masks, "dtype") and isinstance(masks, (list, tuple)) and masks and isinstance(masks[0], (str, Path))
    ):
        paths = list_masks(masks)
        return [(str(path), lambda path=path: _read(path)) for path in paths], paths
    if hasattr(masks, "dtype"):
        masks = np.asarray(masks)
        if masks.ndim == 2 or (masks.ndim == 3 and (masks.shape[-1] == 1 or _one_hot(masks, -1) is not None)):
            masks = masks[None]
        elif masks.ndim == 3 and masks.shape[-1] in (3, 4) and masks.dtype == np.uint8 and masks.shape[1] > 4:
            masks = masks[None]  # one picture: no stack of masks is three pixels wide
        elif masks.ndim not in (3, 4):
            raise InputError(f"masks are (n, height, width) or (n, height, width, classes), not of shape {masks.shape}")
    sources = [(f"mask {i}", lambda mask=mask: (np.asarray(mask), "array")) for i, mask in enumerate(masks)]
    if not sources:
        raise DataError("there are no masks")
    return sources, None


def list_masks(source) -> list[Path]:
    """The mask files of a folder (with its subfolders, sorted), of a list of paths, or one path.

    Raises:
        DataError: There is none.
    """
    if not isinstance(source, (str, Path)):
        return [path for entry in source for path in (list_masks(entry) if Path(entry).is_dir() else [Path(entry)])]
    if not Path(source).is_dir():
        return list_images(source)
    found = sorted(path for path in Path(source).rglob("*") if path.suffix.lower() in MASK_SUFFIXES and path.is_file())
    if not found:
        raise DataError(f"the folder {str(source)!r} has no masks ({', '.join(MASK_SUFFIXES)})")
    return found


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
            "ok": self.ok,
            "masks": self.masks,
            "sizes": [[*size, count] for size, count in self.sizes.items()],
            "pixels": {str(i): count for i, count in self.pixels.items()},
            "classes": None if self.classes is None else list(self.classes),
            "ignore": list(self.ignore),
            "problems": [{**dataclasses.asdict(problem), "where": list(problem.where)} for problem in self.problems],
        }

    def __str__(self):
        sizes = _list((f"{h}x{w} ({count:,})" for (h, w), count in self.sizes.items()), 4)
        lines = [f"{self.masks:,} mask(s), height x width {sizes or 'unknown'}"]
        total = max(1, sum(self.pixels.values()))
        for i, count in list(self.pixels.items())[:40]:
            name = self.classes[i] if self.classes and 0 <= i < len(self.classes) else ""
            name = "ignored" if i in self.ignore else "" if name == str(i) else name
            lines.append(f"  id {i:>5}  {count:>15,} pixels  {count / total:7.2%}  {name}".rstrip())
        if len(self.pixels) > 40:
            lines.append(f"  and {len(self.pixels) - 40:,} more ids")
        return "\n".join([*lines, *(map(str, self.problems) if self.problems else ["no problems found"])])


# kind -> (what, what to do, serious), in the order of the report
_KINDS = {
    "unreadable": ("masks that cannot be read", "get these files again, or take them and their images out", True),
    "shape": (
        "arrays that are no masks",
        "a mask is (height, width) class ids, (height, width, 1), or one-hot (height, width, classes)",
        True,
    ),
    "type": ("masks that hold no numbers", "convert them to whole numbers: mask.astype('uint8')", True),
    "jpeg": (
        "masks saved as JPEG, which changes their values",
        "export them again as PNG; or, where there are two classes, threshold them: read_image(path, (None, None, 1)) > 127",
        True,
    ),
    "lossy": (
        "masks with many rare values between a few frequent ones: they were compressed lossily or resized with interpolation",
        "save masks as PNG and resize them by nearest neighbour only; or, where there are two classes, threshold them: mask > 127",
        True,
    ),
    "fractions": (
        "masks with fractions (or NaN)",
        "probabilities become ids by mask.argmax(-1), or (mask > 0.5) with one channel; soft masks need a loss that takes them",
        True,
    ),
    "color": (
        "coloured masks, (height, width, 3), where class ids are expected",
        "say which colour is which class: palette=Palette(names, colors), Palette.from_file(...) or Palette.voc(); read_mask(path, palette)",
        True,
    ),
    "unknown_color": (
        "colours that the palette does not have",
        "add them to the palette; many near colours mean a JPEG or smoothed edges: export the masks again, as PNG without smoothing",
        True,
    ),
    "gray_rgb": (
        "gray masks saved with three equal channels",
        "take one channel: mask[..., 0]; read_mask(path) does",
        True,
    ),
    "alpha": ("masks with an alpha channel that is not opaque everywhere", "save them without transparency", True),
    "index": (
        "palette PNGs whose indices are not the ids that the palette gives their colours",
        "read them with read_mask(path, palette), not by their indices",
        True,
    ),
    "logical": (
        "masks of 0 and 255 where ids 0 and 1 are expected (a logical mask saved as an image)",
        "read them with read_mask(path, Palette.binary()), or divide: mask // 255",
        True,
    ),
    "scaled": (
        "masks of two values that are not 0 and 1",
        "compare: (mask > 0).astype('uint8')",
        True,
    ),
    "hot_255": ("one-hot masks with 255 for 1", "divide: mask // 255", True),
    "hot_first": (
        "one-hot masks with their classes first, (classes, height, width)",
        "move the axis: np.moveaxis(mask, 0, -1)",
        True,
    ),
    "hot_classes": (
        "one-hot masks with another number of channels than there are classes",
        "give classes= as many as the masks have channels, or make the masks again",
        True,
    ),
    "mixed": ("some masks are one-hot and some are class ids", "bring them to one form: mask.argmax(-1) makes ids", True),
    "unknown": (
        "ids that are no class",
        "classes are numbered 0..classes-1: renumber, give classes= as many as there are, "
        "or name ids without a class in ignore= (often 255, or -1)",
        True,
    ),
    "size": (
        "masks of another size than their images",
        "a mask has the height and width of its image; resize masks by nearest neighbour only",
        True,
    ),
    "no_image": ("masks without an image", "a mask has the name of its image, up to the suffix: rename or remove them", True),
    "no_mask": ("images without a mask", "give each a mask of its name (all zeros where there is nothing), or take them out", True),
    "image": ("images that cannot be read", "get these files again, or take them and their masks out", True),
    "multi": (
        "masks of 0 and 1 in which a pixel has no class or several",
        "meant so (multi-label)? Then train with a sigmoid and a loss for each class; else make them one-hot",
        False,
    ),
    "whole": ("class ids stored as floating point", "save memory: mask.astype('uint8')", False),
    "hot": ("one-hot masks", "fine as they are; class ids take less memory: mask.argmax(-1)", False),
    "gaps": (
        "very many ids, or ids with large gaps: labels of single objects, or gray levels for looking at?",
        "objects against background: (mask > 0).astype('uint8'); otherwise number the classes 0, 1, 2, ... and give classes= for an exact check",
        False,
    ),
    "absent": ("classes that occur in no mask", "look whether ids are shifted (from 1 rather than 0?), or leave the class out", False),
    "blank": ("masks in which every pixel is ignored", "leave them out: nothing can be learnt from them", False),
    "single": ("all masks hold one and the same id", "look whether these are the right files", False),
}  # fmt: skip


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
        DataError: No masks at all.
        InputError: Arguments that make no sense.
    """
    names = None if classes is None else _names(classes)
    if palette is not None:
        names = palette.classes if names is None else names
        ignore = [i for i in palette.ids if i >= len(names)] if ignore is None else ignore
    ignored = tuple(int(i) for i in np.atleast_1d([] if ignore is None else ignore))
    sources, paths = _sources(masks)
    found = {kind: [] for kind in _KINDS}
    pixels, sizes, shapes, forms, per_mask = {}, {}, [], set(), []
    for where, get in sources:
        try:
            values, file = get()
        except DataError as error:
            found["unreadable"].append(str(error))
            shapes.append(None)
            per_mask.append({})
            continue
        ids, form = _inspect(values, file, names, palette, where, found)
        size = None if ids is None else ids.shape
        if ids is None and not isinstance(values, _Indexed) and values.ndim in (2, 3):
            size = values.shape[:2]
        shapes.append(size)
        if size is not None:
            sizes[size] = sizes.get(size, 0) + 1
        counts = {}
        if ids is not None:
            forms.add(form)
            counts = _count(ids)
            for i, count in counts.items():
                pixels[i] = pixels.get(i, 0) + count
        per_mask.append(counts)
    pixels = dict(sorted(pixels.items()))
    _check_ids(sources, per_mask, pixels, names, ignored, found)
    if len(forms) > 1:
        found["mixed"].append(_list(sorted(forms)))
    if images is not None:
        _check_images(images, sources, paths, shapes, found)
    problems = [
        Problem(what, tuple(found[kind]), fix, serious) for kind, (what, fix, serious) in _KINDS.items() if found[kind]
    ]
    problems.sort(key=lambda problem: not problem.serious)
    return Report(tuple(problems), len(sources), sizes, pixels, names, ignored)


def _inspect(values, file, names, palette, where, found):
    """Note what is wrong with one mask; return its ids, or None, and whether they are ids or one-hot."""
    if file == "JPEG":
        found["jpeg"].append(where)
        return None, None
    if isinstance(values, _Indexed):
        if palette is None:
            return values.indices, "class ids"
        try:
            ids = palette.to_ids(values.picture)
        except DataError as error:
            found["unknown_color"].append(f"{where}: {error}".partition(" not in the palette")[0])
            return None, None
        if not np.array_equal(ids, values.indices):
            found["index"].append(where)
        return ids, "class ids"
    if values.dtype.kind not in "iubf":
        found["type"].append(f"{where}: {values.dtype}")
        return None, None
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or 0 in values.shape:
        found["shape"].append(f"{where}: shape {values.shape}")
        return None, None
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        low, high = np.nanmin(values), np.nanmax(values)
        found["fractions"].append(f"{where}: {values.dtype} of shape {values.shape}, from {low:.4g} to {high:.4g}")
        return None, None
    if values.ndim == 3:
        return _inspect_channels(values, names, palette, where, found)
    if values.dtype.kind == "f":
        found["whole"].append(f"{where}: {values.dtype}")
    if _looks_lossy(values, names):
        found["lossy"].append(f"{where}: {len(np.unique(values)):,} different values")
        return None, None
    try:
        return _decode(values, palette), "class ids"
    except DataError as error:
        found["unknown_color"].append(f"{where}: {error}".partition(" not in the palette")[0])
        return None, None


def _inspect_channels(values, names, palette, where, found):
    hot = _one_hot(values, -1)
    if hot is not None and (palette is None or values.shape[-1] != 3 or values.max() == 1):
        if values.max() == 255:
            found["hot_255"].append(where)
        elif names is not None and values.shape[-1] != len(names):
            found["hot_classes"].append(f"{where}: {values.shape[-1]} channels, {len(names)} classes")
        else:
            found["hot"].append(where)
        return hot, "one-hot"
    first = _one_hot(values, 0)
    if first is not None and values.shape[0] < min(values.shape[1:]):
        found["hot_first"].append(f"{where}: shape {values.shape}")
        return None, None
    if values.shape[-1] == 4 and values.max() > 1:
        if not (values[..., 3] == 255).all():
            found["alpha"].append(where)
            return None, None
        values = values[..., :3]
    if values.shape[-1] == 3 and (values.max() > 1 or names is None or len(names) != 3):
        if palette is not None:
            try:
                return palette.to_ids(values), "class ids"
            except (DataError, InputError) as error:
                found["unknown_color"].append(f"{where}: {error}".partition(" not in the palette")[0])
                return None, None
        if (values[..., :1] == values).all():
            found["gray_rgb"].append(where)
            return _ids_only(values[..., 0]), "class ids"
        colors = _colors_found(_codes(values)) if values.min() >= 0 and values.max() <= 255 else "values beyond 0..255,"
        found["color"].append(f"{where}: {colors}".rstrip(","))
        return None, None
    if values.min() >= 0 and values.max() == 1:
        counts = values.sum(-1)
        found["multi"].append(
            f"{where}: {int((counts == 0).sum()):,} pixels of no class, {int((counts > 1).sum()):,} of several"
        )
        return None, None
    found["shape"].append(f"{where}: shape {values.shape}, values {values.min()} to {values.max()}")
    return None, None


def _looks_lossy(mask, names):
    """A few values fill the mask, and between them lie many rare ones that change from pixel to pixel."""
    if mask.dtype.kind == "b" or mask.size < 64 or mask.min() < 0 or mask.max() < 64:
        return False
    if names is not None and mask.max() < len(names):
        return False
    values, inverse, counts = np.unique(mask, return_inverse=True, return_counts=True)
    if (((values < 16) | (values > 239)) & (values < 256)).all() and (values > 239).sum() > 2:
        return True  # 0 and 255 with a little noise: a JPEG of high quality
    rare = counts < 0.01 * mask.size
    if len(values) < _LOSSY or rare.sum() < 2 * (~rare).sum() or counts[rare].sum() > 0.4 * mask.size:
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


def _check_ids(sources, per_mask, pixels, names, ignored, found):
    count = None if names is None else len(names)
    seen = set(pixels) - set(ignored)
    two = len(seen) == 2 and 0 in seen and max(seen) > 1 and (count is None or max(seen) >= count)
    for (where, _), counts in zip(sources, per_mask):
        kept = set(counts) - set(ignored)
        if counts and not kept:
            found["blank"].append(where)
        if 255 in kept and kept <= {0, 255} and seen <= {0, 1, 255} and (count is None or count <= 255):
            found["logical"].append(f"{where}: {_list(f'{counts[i]:,} pixels of {i}' for i in sorted(kept))}")
        elif two and len(kept) == 2 and seen != {0, 255}:
            found["scaled"].append(f"{where}: 0 and {max(kept)}")
        elif unknown := [i for i in kept if i < 0 or (count is not None and i >= count)]:
            found["unknown"].append(f"{where}: {_list(f'id {i} ({counts[i]:,} pixels)' for i in sorted(unknown))}")
    if found["logical"] or found["scaled"] or not pixels:
        return
    if count is not None:
        found["absent"] += [f"{name} (id {i})" for i, name in enumerate(names) if i not in pixels]
    elif seen and max(seen) > 10 and (len(seen) <= (max(seen) + 1) / 4 or len(seen) > 64):
        found["gaps"].append(f"{len(seen)} ids up to {max(seen)}: {_spans(seen)}")
    if len(seen) == 1 and (count is None or count > 1):
        found["single"].append(f"id {next(iter(seen))}")


def _check_images(images, sources, paths, shapes, found):
    if isinstance(images, (str, Path)) or (
        isinstance(images, (list, tuple)) and images and isinstance(images[0], (str, Path))
    ):
        if paths is None:
            raise InputError("the images are files and the masks are arrays: give both as files or both as arrays")
        try:
            files = list_images(images)
        except DataError as error:
            found["image"].append(str(error))
            return
        partners = pair(files, paths)
        used = {image for image in partners if image is not None}
        found["no_mask"] += [str(path) for path in files if path not in used]
        found["no_image"] += [str(path) for path, image in zip(paths, partners) if image is None]
        sized = []
        for image in partners:
            try:
                sized.append(None if image is None else _image_size(image))
            except DataError as error:
                found["image"].append(str(error))
                sized.append(None)
    else:
        if paths is not None:
            raise InputError("the masks are files and the images are arrays: give both as files or both as arrays")
        sized = [np.shape(image)[:2] for image in images]
        if np.ndim(images) == 2 or (
            hasattr(images, "dtype") and np.ndim(images) == 3 and len(sources) == 1 != len(images)
        ):
            sized = [np.shape(images)[:2]]
        found["no_image"] += [where for where, _ in sources[len(sized) :]]
        found["no_mask"] += [f"image {i}" for i in range(len(sources), len(sized))]
    for (where, _), mask, image in zip(sources, shapes, sized):
        if mask is not None and image is not None and tuple(mask) != tuple(image):
            turned = " (turned by 90 degrees?)" if tuple(mask) == tuple(image)[::-1] else ""
            found["size"].append(f"{where}: mask {mask[0]}x{mask[1]}, image {image[0]}x{image[1]}{turned}")


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
        stem = mask.stem
        ends = [len(stem), *(m.start() for m in re.finditer(r"[^A-Za-z0-9]", stem))]
        candidates = next((by_name[stem[:end]] for end in sorted(ends, reverse=True) if stem[:end] in by_name), [])
        # Of images of one name, the one whose folders are most like the mask's.
        likeness = [len(set(image.parent.parts) & set(mask.parent.parts)) for image in candidates]
        best = [image for image, like in zip(candidates, likeness) if like == max(likeness)]
        pairs.append(best[0] if len(best) == 1 else None)
    return pairs


def _image_size(path):
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.size[::-1]
    except Exception as error:
        raise DataError(f"{str(path)!r} is damaged or no image ({error})") from error


# Class weights


def class_weights_from(
    masks, classes, ignore=None, how: str = "balanced", palette: Palette | None = None
) -> np.ndarray:
    """Weights that make up for rare classes, from the pixels of the training masks.

    With n_c the pixels of class c, n all pixels that are not ignored and k the classes that occur:

    - `"balanced"`: n / (k n_c), as in scikit-learn; averaged over the pixels they are 1.
    - `"median_frequency"`: median(f) / f_c, f_c = n_c / (all pixels of the masks in which c occurs). Source: Eigen and Fergus 2015, section 6.2;
      Badrinarayanan et al. 2017 (SegNet), section 3.
    - `"inverse"`: proportional to 1 / n_c, averaged over the classes they are 1.

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
    names = _names(classes)
    ignored = {int(i) for i in np.atleast_1d([] if ignore is None else ignore)}
    if how not in ("balanced", "median_frequency", "inverse"):
        raise InputError(f"how is 'balanced', 'median_frequency' or 'inverse', not {how!r}")
    pixels, around = np.zeros(len(names)), np.zeros(len(names))
    for where, get in _sources(masks)[0]:
        values, file = get()
        try:
            if file == "JPEG":
                raise DataError("it is a JPEG, which changes the values of a mask")
            counts = _count(_decode(values, palette))
        except (DataError, InputError) as error:
            raise DataError(f"{where}: {error} (check_masks looks through all masks)") from error
        if unknown := [i for i in counts if i not in ignored and not 0 <= i < len(names)]:
            raise DataError(
                f"{where}: {_list(f'id {i} ({counts[i]:,} pixels)' for i in unknown)} is no class of {len(names)} and not ignored: "
                "name it in ignore=, or see what check_masks says"
            )
        whole = sum(counts.values())
        for i, count in counts.items():
            if i not in ignored:
                pixels[i] += count
                around[i] += whole
    there = pixels > 0
    if not there.any():
        raise DataError("every pixel of the masks is ignored: there is nothing to weigh")
    if not there.all():
        absent = _list(name for name, is_there in zip(names, there) if not is_there)
        warnings.warn(f"no pixel of {absent} in these masks: weight 0", stacklevel=2)
    weights = np.zeros(len(names))
    if how == "median_frequency":
        frequency = pixels[there] / around[there]
        weights[there] = np.median(frequency) / frequency
    else:
        weights[there] = pixels.sum() / (there.sum() * pixels[there])
        if how == "inverse":
            weights /= weights[there].mean()
    return weights.astype("float32")
