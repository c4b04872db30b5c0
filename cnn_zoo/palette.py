"""Which colour is which class: colour tables, class ids to pictures and back."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_zoo.errors import DataError, InputError

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# Each the farthest in CIELAB from black, white, mid gray and all before it.
_DISTINCT = (
    "246cb4 ff0000 ffd800 24d890 ff00b4 904800 00ff00 906cff ffb4ff 486c00 0000ff 00d8ff 900048 ff9090 d800ff d8b46c ff9000 90d824 "
    "ff006c 902490 006c48 b40024 b46c90 90d8b4"
).split()
_COLUMNS = {"class": "name", "label": "name", "red": "r", "green": "g", "blue": "b", "index": "id", "value": "id"}


@dataclass(frozen=True)
class Palette:
    """Which colour is which class.

    Attributes:
        names: Class names.
        colors: RGB of each, integers 0..255 or "#rrggbb"; no two alike.
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
        if twice := [color for i, color in enumerate(colors) if color in colors[:i]]:
            both = " and ".join(name for name, color in zip(names, colors) if color == twice[0])
            raise InputError(f"the colour {twice[0]} stands for {both}: a colour can mean one class only")
        for field, value in (("names", names), ("colors", colors), ("ids", ids)):
            object.__setattr__(self, field, value)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, classes) -> "Palette":
        """Colours that are easy to tell apart, for a number of classes or for these names."""
        names = names_of(classes)
        colors = [_color(f"#{color}") for color in _DISTINCT]
        if len(names) > len(colors):
            colors = list(dict.fromkeys(colors + _voc_colors(len(names))))
        return cls(names, tuple(colors[: len(names)]))

    @classmethod
    def binary(cls, names=("background", "object")) -> "Palette":
        """Black is 0 and white is 1: what turns masks saved as 0 and 255 into ids."""
        return cls(tuple(names), ((0, 0, 0), (255, 255, 255)))

    @classmethod
    def voc(cls, classes=VOC_CLASSES, void: bool = True) -> "Palette":
        """The colour map of PASCAL VOC: the bits of the id, dealt out to red, green and blue from the highest bit down.

        Args:
            classes: At most 256 names, or how many; default the 21 of VOC 2012.
            void: Add the border colour (224, 224, 192) as id 255, `"void"`, where there are fewer than 256 classes.

        Source: Everingham et al., VOC development kit, `VOClabelcolormap`.
        """
        names = names_of(classes)
        if len(names) > 256:
            raise InputError(
                f"the colour map of VOC has 256 colours, and {len(names)} classes are given: use Palette.of"
            )
        colors = _voc_colors(256)
        if void and len(names) < 256:
            return cls((*names, "void"), (*colors[: len(names)], colors[255]), (*range(len(names)), 255))
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
            rows = _json_rows(json.loads(text)) if path.suffix.lower() == ".json" else _text_rows(text)
            names, colors, ids = zip(*rows) if rows else ((), (), ())
            if None in ids and set(ids) != {None}:
                raise InputError("some classes have an id and some have none")
            return cls(names, colors, None if None in ids else ids)
        except (InputError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"the colour table {str(path)!r} cannot be understood: {error}") from error

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each id from 0 up to the first that the palette lacks (so without a void of 255)."""
        count = next(i for i in range(len(self.ids) + 1) if i not in self.ids)
        return tuple(self.name(i) for i in range(count))

    def name(self, i: int) -> str:
        """The name of an id, or the id as text."""
        return self.names[self.ids.index(i)] if i in self.ids else str(i)

    def color(self, i: int) -> tuple[int, int, int]:
        """The colour of an id, mid gray for an unknown one."""
        return self.colors[self.ids.index(i)] if i in self.ids else (128, 128, 128)

    def to_rgb(self, mask) -> np.ndarray:
        """Class ids `(height, width)` as a uint8 picture `(height, width, 3)`.

        Raises:
            InputError: An id that the palette does not have, or no ids.
        """
        mask = as_ids(np.asarray(mask))
        table = np.full((max(*self.ids, int(mask.max(initial=0)), 0) + 1, 3), -1, "int16")
        for i in self.ids:
            table[i] = self.color(i)
        picture = table[np.maximum(mask, 0)]
        if mask.min(initial=0) < 0 or (picture[..., 0] < 0).any():
            have, counts = np.unique(mask, return_counts=True)
            unknown = {i: n for i, n in zip(have.tolist(), counts.tolist()) if i not in self.ids}
            raise InputError(f"the palette has no colour for {counted(unknown)}: it has the ids {spans(self.ids)}")
        return picture.astype("uint8")

    def to_ids(self, picture, unknown: int | None = None) -> np.ndarray:
        """A coloured mask `(height, width, 3)` as class ids `(height, width)`: exact, no nearest colour.

        Args:
            picture: Whole numbers 0..255.
            unknown: The id for colours that the palette does not have; None refuses them.

        Returns:
            uint8, or uint16 where there is an id above 255.

        Raises:
            DataError: Colours that the palette does not have, named with their pixel counts.
            InputError: No picture of three channels with whole values 0..255.
        """
        picture = np.asarray(picture)
        if picture.ndim != 3 or picture.shape[-1] != 3:
            raise InputError(f"a coloured mask has shape (height, width, 3), not {picture.shape}")
        codes = _codes(picture)
        known = _codes(np.array(self.colors))
        order = np.argsort(known)
        place = order[np.searchsorted(known[order], codes).clip(max=len(known) - 1)]
        found = known[place] == codes
        if unknown is None and not found.all():
            raise DataError(
                f"{colors_found(picture[~found])} not in the palette: add them, "
                "or give the id that they shall have (to_ids(..., unknown=255)); many colours near one another mean a JPEG or a smoothed mask"
            )
        ids = np.array(self.ids)[place]
        ids = ids if unknown is None else np.where(found, ids, _whole(unknown, "an id"))
        return ids.astype("uint8" if max(*self.ids, unknown or 0) < 256 else "uint16")


def as_ids(mask) -> np.ndarray:
    """An array as class ids `(height, width)` of an integer type.

    Raises:
        InputError: It has another shape, or holds no whole numbers.
    """
    if mask.ndim == 3 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.ndim != 2:
        raise InputError(f"a mask of class ids has shape (height, width), not {mask.shape}")
    if mask.dtype.kind == "f" and (mask == np.rint(mask)).all():  # NaN is not equal to itself
        mask = mask.astype("int32")
    if mask.dtype.kind not in "iub":
        raise InputError(f"a mask holds whole numbers, and this one {mask.dtype}: threshold it or take argmax(-1)")
    return mask.astype("uint8") if mask.dtype == bool else mask


def names_of(classes) -> tuple[str, ...]:
    """Class names from themselves or from how many there are."""
    return tuple(map(str, range(_whole(classes, "a number of classes")) if np.ndim(classes) == 0 else classes))


def colors_found(pixels) -> str:
    """The colours of a picture with their pixel counts, in words."""
    codes, counts = np.unique(_codes(pixels), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    named = [f"({c >> 16}, {c >> 8 & 255}, {c & 255}) in {n:,} pixels" for c, n in zip(codes[order], counts[order])]
    return f"{len(codes):,} colour(s), {listed(named)},"


def listed(entries, most: int = 8) -> str:
    """The first entries, and how many more there are."""
    entries = list(entries)
    return ", ".join(entries[:most]) + (f" and {len(entries) - most:,} more" if len(entries) > most else "")


def counted(pixels) -> str:
    """Ids and their pixels, `{7: 2}`, in words."""
    return listed(f"id {i} ({count:,} pixels)" for i, count in sorted(pixels.items()))


def spans(ids) -> str:
    """0, 1, 2, 255 as "0..2, 255"."""
    parts = []
    for i in sorted(ids):
        if parts and i == parts[-1][1] + 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return listed((str(low) if low == high else f"{low}..{high}" for low, high in parts), 12)


def _whole(value, what):
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
        raise InputError(f"{what} is a whole number from 0, not {value!r}")
    return int(value)


def _color(color):
    if isinstance(color, str):
        color = tuple(bytes.fromhex(color[1:])) if re.fullmatch("#[0-9a-fA-F]{6}", color) else color
    if np.shape(color) != (3,) or not all(hasattr(v, "__index__") and 0 <= v <= 255 for v in color):
        raise InputError(f"a colour is red, green and blue, whole numbers 0..255, or '#rrggbb', not {color!r}")
    return tuple(int(v) for v in color)


def _voc_colors(count):
    """Colour i has bit 3k of i as bit 7 - k of red, bit 3k + 1 of green, bit 3k + 2 of blue."""
    return [
        tuple(sum((i >> (3 * k + channel) & 1) << (7 - k) for k in range(8)) for channel in range(3))
        for i in range(count)
    ]


def _codes(picture):
    """Each colour as one integer."""
    if picture.dtype != np.uint8:
        whole = picture.dtype.kind in "iuf" and (picture >= 0) & (picture <= 255) & (picture == np.rint(picture))
        if not np.all(whole):
            raise InputError("the colours of a mask are whole numbers 0..255, and these are not")
    red, green, blue = np.moveaxis(picture.astype("int32"), -1, 0)
    return red << 16 | green << 8 | blue


def _text_rows(text):
    """Rows (name, colour, id or None) of CSV, or of words separated by blanks."""
    rows, header = [], []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        separator = "," if "," in line else "\t" if line.count("\t") > 2 else None
        cells = next(csv.reader([line], delimiter=separator)) if separator else line.split()
        cells = [cell.strip() for cell in cells if cell.strip()]
        digits = [cell.isdecimal() for cell in cells]
        if not rows and not header and not any(digits):
            header = [_COLUMNS.get(cell.lower(), cell.lower()) for cell in cells]
            continue
        row = dict(zip(header, cells))
        if "name" in row and all(row.get(key, "").isdecimal() for key in "rgb"):
            color, name, i = [row[key] for key in "rgb"], row["name"], row.get("id", "")
        elif len(cells) > 3 and all(digits[:3]) and not digits[3]:
            color, name, i = cells[:3], " ".join(cells[3:]), ""
        elif len(cells) > 3 and all(digits[-3:]) and not digits[-4]:
            color, name, i = cells[-3:], " ".join(cells[:-3]), ""
        else:
            raise InputError(f"line {number} ({line[:60]!r}) is not red, green, blue and a name")
        rows.append((name, tuple(map(int, color)), int(i) if i.isdecimal() else None))
    if not rows:
        raise InputError("it has no rows")
    return rows


def _json_rows(content):
    if isinstance(content, dict):
        return [(name, color, None) for name, color in content.items()]
    if wrong := [row for row in content if "name" not in row or "color" not in row]:
        raise InputError(f"{wrong[0]} lacks its name or its color")
    return [(row["name"], row["color"], row.get("id")) for row in content]
