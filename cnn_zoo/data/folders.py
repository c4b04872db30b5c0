"""Your own files as a data set: a folder of class folders, images with masks, a table of files."""

import csv
import dataclasses
import os
import re
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn_zoo.data.arrays import Data, Split
from cnn_zoo.data.formats import inspect, pool, read_array, read_ids
from cnn_zoo.data.images import IMAGE_SUFFIXES, list_images
from cnn_zoo.data.lazy import ImageFiles, MaskFiles
from cnn_zoo.data.sizes import Size
from cnn_zoo.data.splits import group_names, listed, split_by_time, suggest_groups
from cnn_zoo.errors import DataError, InputError

PARTS = {  # what folders and tables call the parts of a data set
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
NOT_DATA = {"thumbs.db", "desktop.ini", "icon\r"}  # what file browsers leave behind, besides hidden files


class Row(NamedTuple):
    """One image of a listing: `where` says to people which one it is."""

    file: Path
    label: object = None
    name: str = ""
    part: str | None = None
    where: str = ""
    group: str | None = None
    time: str | None = None


def from_folder(
    folder,
    *,
    size=None,
    how: str = "resize",
    channels: int | None = None,
    intensity="dtype",
    classes=None,
    test: float = 0.0,
    validation: float = 0.0,
    groups=None,
    on_error: str = "raise",
    seed: int = 0,
    name: str | None = None,
) -> Data:
    """A folder with one folder of images a class, `folder/CLASS/*.png`, or `folder/{train,val,test}/CLASS/*.png`.

    The images are not read now but batch by batch; only their headers are. Where file names look as if several images came from one patient, slide
    or video, a warning says so: without `groups` these would be in training and test.

    Args:
        folder: The folder. Images may lie deeper within the folder of their class.
        size: Height and width in pixels (an integer or a pair) or a `Size`; None: as they are, which must then agree.
        how: Of a `size` in pixels, as in `Size`: `"resize"`, `"crop"`, `"letterbox"`, `"short_side_crop"`.
        channels: As for `ImageFiles`.
        intensity: An `Intensity`, or the name of a rule; what it needs to know it learns from the training images alone.
        classes: Names of the class folders in the order of their ids; default all, sorted.
        test: Fraction held out for the test, stratified, by whole groups where there are groups. Not with a folder `test`.
        validation: Fraction of the rest held out for validation, likewise.
        groups: What images come from, as for `group_names`: `"names"`, a regular expression, a function, a dictionary. False: nothing, and no
            warning.
        on_error: `"raise"` names all that is wrong in one error. `"skip"` leaves it out with a warning that says how many, and reads every file once
            now to find what is damaged.
        seed: Of the splits.
        name: Short name; default that of the folder.

    Raises:
        DataError: No class folders, one class only, empty class folders, files in them that are no images or cannot be read, sizes that differ
            without `size`, or a class too small for the splits.
        InputError: Arguments that are none of these.
    """
    root, problems = existing(folder), []
    rows = class_rows(root, IMAGE_SUFFIXES, classes, problems)
    make = partial(ImageFiles, channels=channels, size=as_size(size, how), intensity=intensity)
    return assemble(
        rows, make, inspect, read_array, problems, classes=classes, test=test, validation=validation, groups=groups,
        on_error=on_error, seed=seed, name=name or root.resolve().name, origin=f"images in class folders of {root.resolve().name}",
    )  # fmt: skip


def from_masks(
    images,
    masks=None,
    *,
    classes=None,
    ignore=(),
    palette=None,
    values: dict | None = None,
    size=None,
    how: str = "resize",
    channels: int | None = None,
    intensity="dtype",
    test: float = 0.0,
    validation: float = 0.0,
    groups=None,
    on_error: str = "raise",
    seed: int = 0,
    name: str | None = None,
) -> Data:
    """Images and their masks in two folders, paired by name.

    They belong together when their paths within their folders are equal up to the suffix, or the mask's goes on with something that is no letter or
    digit (`x.jpg` and `x_mask.png`). Masks hold class ids, as `read_ids` reads them; ids without a class are found in whatever mask they are in, at
    the latest when it is read in training.

    Args:
        images: A folder of images; or, without `masks`, a folder with the folders `images` and `masks`, or with these two in each of `train`, `val`
            and `test`.
        masks: A folder of masks.
        classes: Names, or None: those of the palette, or as many as there are ids (every mask is read once for that).
        ignore: Id, or ids, in masks that are no class. The first is the id of the border that `how="letterbox"` and `"crop"` add.
        palette: `cnn_zoo.masks.Palette`, for coloured masks.
        values: Numbers to replace, such as `{255: 1}` for masks saved as 0 and 255, or `{"nonzero": 1}` for masks that number the objects.
        size, how, channels, intensity, test, validation, groups, on_error, seed, name: As for `from_folder`. Splits of masks are random, or by
            groups.

    Raises:
        DataError: Images without a mask or masks without an image, two of one name, files that cannot be read, a mask of another size than its
            image, ids without a class.
        InputError: Arguments that are none of these.
    """
    root, problems = existing(images), []
    rows = []
    if masks is not None:
        rows = pair_rows(root, existing(masks), None, problems)
    else:
        for part, place in _parts(root).items():
            if not ((place / "images").is_dir() and (place / "masks").is_dir()):
                raise DataError(
                    f"{str(place)!r} lacks the folders images and masks: give both, from_masks(images, masks)"
                )
            rows += pair_rows(place / "images", place / "masks", part, problems)
    size = as_size(size, how)
    ignore = tuple(int(i) for i in np.atleast_1d(ignore).astype(int))
    options = {"size": size, "palette": palette, "values": values, "ignore": ignore[0] if ignore else None}

    def look(row):
        image, mask = inspect(row.file), inspect(row.label)
        if (image.height, image.width) != (mask.height, mask.width):
            raise DataError(
                f"{str(row.label)!r} is {mask.height}x{mask.width} and its image {image.height}x{image.width}"
            )

    def read(row):
        look(row)
        read_array(row.file)
        read_ids(row.label, palette, values)

    rows = readable(rows, look if on_error == "raise" else read, problems, on_error)
    files = [row.label for row in rows]
    if classes is None and palette is not None:
        # Several colours may share an id; the first of them names it.
        named = dict(zip(reversed(palette.ids), reversed(palette.names)))
        classes = [named.get(i, str(i)) for i in range(max(set(named) - set(ignore)) + 1)]
    if classes is None:
        found = set().union(*pool().map(lambda file: set(np.unique(read_ids(file, palette, values)).tolist()), files))
        classes = range(max(found - set(ignore), default=0) + 1)
        if len(classes) > 255:
            raise DataError(
                f"masks hold ids up to {classes[-1]}: name the classes, the ids to ignore=, or replace numbers by values= "
                "(0/255 masks: values={255: 1}; objects numbered 1, 2, 3, ...: values={'nonzero': 1})"
            )
    classes = tuple(map(str, classes))
    answers = ClassMasks(files, count=len(classes), void=ignore, **options)
    answers[:4]  # ids that are no class in all masks are told now
    make = partial(ImageFiles, channels=channels, size=size, intensity=intensity)
    return assemble(
        rows, make, inspect, read_array, [], classes=classes, masks=answers, ignore=ignore, test=test, validation=validation,
        groups=groups, on_error="raise", seed=seed, name=name or root.resolve().name, origin=f"images and masks of {root.resolve().name}",
    )  # fmt: skip


def from_csv(
    path,
    file_column="file",
    label_column="label",
    *,
    folder=None,
    group_column=None,
    part_column=None,
    time_column=None,
    delimiter: str = ",",
    on_error: str = "raise",
    name: str | None = None,
    **options,
) -> Data:
    """A table (CSV, first line names of columns) with the file and the class of each image.

    Args:
        path: The table, UTF-8.
        file_column: Its column of files.
        label_column: Its column of classes: names, or ids from 0 where `classes` names them.
        folder: What the files are relative to; default the folder of the table.
        group_column: Its column of what images come from (patient, slide), or None.
        part_column: Its column of `train`, `val` and `test`, or None.
        time_column: Its column of times that sort as text or as numbers; `test` and `validation` then hold out the latest.
        delimiter: Between columns, such as `";"` or a tab.
        on_error: As for `from_folder`. Lines are named by their numbers in the file, the first being 1.
        name: Short name; default that of the file.
        **options: `size`, `how`, `channels`, `intensity`, `classes`, `test`, `validation`, `groups`, `seed`, as for `from_folder`.

    Raises:
        DataError: The table cannot be read or lacks a column; lines with too few or too many fields, an empty field, a file that is not there
            or listed twice; and as `from_folder`.
    """
    path, problems = Path(path), []
    columns = _columns(file_column, label_column, group_column, part_column, time_column)
    records = read_table(path, columns.values(), delimiter, problems)
    return _from_records(
        records,
        "line",
        list(columns),
        Path(folder) if folder else path.parent,
        problems,
        on_error,
        name or path.stem,
        options,
    )


def from_dataframe(
    frame,
    file_column="file",
    label_column="label",
    *,
    folder=".",
    group_column=None,
    part_column=None,
    time_column=None,
    on_error: str = "raise",
    name: str = "dataframe",
    **options,
) -> Data:
    """A pandas `DataFrame` with the file and the class of each image; arguments and errors as for `from_csv`, rows named by their index."""
    columns = _columns(file_column, label_column, group_column, part_column, time_column)
    _check_columns(list(columns.values()), list(frame.columns), "the data frame")
    problems, records = [], []
    for index, *fields in zip(frame.index.tolist(), *(frame[column].tolist() for column in columns.values())):
        if empty := [c for c, v in zip(columns.values(), fields) if v is None or v != v or v == ""]:  # NaN is not NaN
            problems.append(f"row {index}: nothing in column {empty[0]!r}")
        else:
            records.append((index, [str(field) for field in fields]))
    return _from_records(records, "row", list(columns), Path(folder), problems, on_error, name, options)


class ClassMasks(MaskFiles):
    """Mask files whose ids must be classes: a mask with others is named when it is read.

    Args:
        paths: As for `MaskFiles`.
        count: Number of classes.
        void: Ids that are no class.
        **options: As for `MaskFiles`.
    """

    def __init__(self, paths, count: int, void=(), **options):
        super().__init__(paths, **options)
        self._known = np.array(sorted({*range(count), *void}))
        self._count = count

    def _one(self, path):
        ids = super()._one(path)
        if unknown := np.setdiff1d(np.unique(ids), self._known).tolist():
            raise DataError(
                f"{str(path)!r} holds the ids {listed(unknown, 8)}, none of the classes 0..{self._count - 1}: name what is no class in "
                "ignore=, or replace numbers by values= (0/255 masks: values={255: 1}; objects numbered 1, 2, 3, ...: values={'nonzero': 1})"
            )
        return ids


# Listings


def existing(folder) -> Path:
    """The folder as a path.

    Raises:
        DataError: It is none.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"{str(folder)!r} is {'a file' if folder.exists() else 'not there'}, and a folder is expected")
    return folder


def as_size(size, how: str = "resize") -> Size | None:
    """A `Size` from pixels and a rule; a `Size` and None stay what they are."""
    if size is None or isinstance(size, Size):
        return size
    if np.ndim(size) > 1 or (np.ndim(size) == 1 and len(size) != 2):
        raise InputError(f"size is a number of pixels, (height, width) or a Size, not {size!r}")
    return Size(*((size, size) if np.ndim(size) == 0 else size), how)


def class_rows(root, suffixes, classes, problems, folders_too: bool = False) -> list[Row]:
    """The files of class folders; what is wrong goes into `problems`.

    Args:
        root: The folder.
        suffixes: Of the files that count; others are problems.
        classes: Names, or None for all folders.
        problems: Gets sentences.
        folders_too: A folder of pictures within a class folder is one row (a stack), not a place where files lie.
    """
    rows = []
    for part, place in _parts(root).items():
        entries = sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
        found = [entry for entry in entries if entry.is_dir() and (classes is None or entry.name in map(str, classes))]
        loose = [entry.name for entry in entries if entry.is_file() and entry.suffix.lower() in suffixes]
        if not found:
            hint = f": its {len(loose)} files lie in no folder of their class" if loose else ""
            raise DataError(f"{str(place)!r} has no class folders{hint}; folder/CLASS/file is expected")
        problems += [f"{str(place / file)!r} is in no class folder" for file in loose]
        for folder in found:
            if folders_too:
                files = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
            else:
                files = _files(folder)
            good = [f for f in files if f.suffix.lower() in suffixes or (folders_too and f.is_dir())]
            # A list, not a set: of very many files the few others are found in passing.
            problems += [
                f"{str(f)!r} is no file that can be read ({', '.join(suffixes)})"
                for f in files
                if f.suffix.lower() not in suffixes and not (folders_too and f.is_dir())
            ]
            if not good:
                problems.append(f"the class folder {str(folder)!r} is empty")
            rows += [Row(file, folder.name, file.relative_to(root).as_posix(), part) for file in good]
    return rows


def _parts(root):
    """The folders of the parts, by their names here; `{None: root}` where it has none."""
    found = {}
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and (part := PARTS.get(entry.name.lower())):
            if part in found:
                raise DataError(f"{str(root)!r} has two folders for {part}, {found[part].name!r} and {entry.name!r}")
            found[part] = entry
    if found and "train" not in found:
        return {None: root}  # a class may be called test
    return found or {None: root}


def _files(folder):
    """All files in a folder and its folders, sorted, without hidden ones and what file browsers leave behind."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, f) for f in files if not f.startswith(".") and f.lower() not in NOT_DATA]
    return sorted(found)


def pair_rows(images: Path, masks: Path, part, problems) -> list[Row]:
    """Images with their masks as labels; what has no partner, or the name of another, goes into `problems`."""
    sides = []
    for folder in (images, masks):
        by_name = {}
        for file in list_images(folder):
            key = file.relative_to(folder).with_suffix("").as_posix()
            if key in by_name:
                problems.append(f"{str(by_name[key])!r} and {file.name!r} have the same name")
            by_name[key] = file
        sides.append(by_name)
    found = {}
    for key, mask in sides[1].items():
        image = partner(key, sides[0])
        if image is None:
            problems.append(f"the mask {str(mask)!r} has no image")
        elif image in found:
            problems.append(f"the masks {str(found[image])!r} and {mask.name!r} are both of {sides[0][image].name!r}")
        else:
            found[image] = mask
    problems += [f"the image {str(file)!r} has no mask" for key, file in sides[0].items() if key not in found]
    prefix = "" if part is None else f"{part}/"
    return [Row(sides[0][key], found[key], prefix + key, part) for key in sorted(found)]


def partner(name: str, images) -> str | None:
    """Of the names of images the one that a mask's name is, or begins with before something that is no letter or digit."""
    ends = [len(name), *(match.start() for match in re.finditer(r"[^A-Za-z0-9]", name))]
    return next((name[:end] for end in sorted(ends, reverse=True) if name[:end] in images), None)


def read_table(path, columns, delimiter, problems):
    """`(number, fields)` of each good line of a CSV; what is wrong with others goes into `problems`.

    Args:
        path: The file.
        columns: Names in its first line; or integers, where it has no such line and all of it is data.
        delimiter: Between columns.
        problems: Gets sentences.

    Raises:
        DataError: It cannot be read, or lacks a column.
    """
    columns = list(columns)
    records, width = [], None
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.reader(file, delimiter=delimiter)
            places = columns
            if not all(isinstance(column, int) for column in columns):
                header = [field.strip() for field in next(reader, [])]
                _check_columns(columns, header, repr(str(path)))
                places, width = [header.index(column) for column in columns], len(header)
            line = reader.line_num
            while True:
                first = line + 1
                try:
                    fields = next(reader, None)
                except csv.Error as error:  # such as a field of more than 128 KiB: a quotation that never ends
                    problems.append(f"line {first}: {error}")
                    line = reader.line_num
                    continue
                if fields is None:
                    break
                line = reader.line_num
                if not fields:
                    continue
                width = width or len(fields)
                if len(fields) != width:
                    problems.append(f"line {first}: {len(fields)} fields, where {width} are expected")
                    continue
                wanted = [fields[place].strip() for place in places]
                if "" in wanted:
                    problems.append(f"line {first}: nothing in column {columns[wanted.index('')]!r}")
                elif "\ufffd" in "".join(wanted):
                    problems.append(f"line {first}: bytes that are not UTF-8")
                else:
                    records.append((first, wanted))
    except IndexError as error:
        raise DataError(f"{str(path)!r} has {width} columns, and {max(columns)} is asked for, from 0") from error
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r} ({error.strerror})") from error
    return records


def _columns(*columns) -> dict:
    """Field of a `Row` -> column of the table, of those that are named."""
    fields = zip(("file", "label", "group", "part", "time"), columns, strict=True)
    return {field: column for field, column in fields if column is not None}


def _check_columns(columns, header, what):
    if missing := [column for column in columns if column not in header]:
        raise DataError(f"{what} has no column {missing[0]!r}: it has {', '.join(map(repr, header[:20])) or 'none'}")


def _from_records(records, word, fields, folder, problems, on_error, name, options):
    """A data set from `(number, [file, label, ...])`; `word` is what the number counts."""
    rows, seen, contents = [], {}, {}
    for number, values in records:
        where = f"{word} {number}"
        row = Row(where=where, **dict(zip(fields, values)))
        file = os.path.normpath(os.path.join(folder, row.file))
        place, base = os.path.split(file)
        if place not in contents:  # one listing a folder: to ask for each of a million files takes minutes
            contents[place] = set(os.listdir(place)) if os.path.isdir(place) else set()
        part = None if row.part is None else PARTS.get(row.part.lower())
        if base not in contents[place]:
            problems.append(f"{where}: there is no file {file!r}")
        elif file in seen:
            problems.append(f"{where}: {row.file!r} is listed already in {seen[file]}")
        elif row.part is not None and part is None:
            problems.append(f"{where}: {row.part!r} is no part (train, val, test)")
        else:
            seen[file] = where
            rows.append(row._replace(file=Path(file), name=row.file, part=part))
    classes = options.pop("classes", None)
    if classes is not None:
        names = set(map(str, classes))
        if not all(row.label in names for row in rows):  # then they are ids
            ids = {str(i): str(c) for i, c in enumerate(classes)}
            problems += [
                f"{row.where}: {row.label!r} is no class" for row in rows if row.label not in ids.keys() | names
            ]
            by_name = not any(row.label in ids and row.label not in names for row in rows)
            rows = [
                row._replace(label=row.label if by_name else ids[row.label])
                for row in rows
                if row.label in (names if by_name else ids)
            ]
    keys = {"channels": options.pop("channels", None), "intensity": options.pop("intensity", "dtype")}
    make = partial(ImageFiles, size=as_size(options.pop("size", None), options.pop("how", "resize")), **keys)
    settings = {"groups": None, "test": 0.0, "validation": 0.0, "seed": 0}
    if strange := options.keys() - settings.keys():
        raise InputError(f"there is no option {sorted(strange)[0]!r}")
    return assemble(
        rows, make, inspect, read_array, problems, classes=classes, on_error=on_error, name=name, origin=f"images listed in {name}",
        **{**settings, **options},
    )  # fmt: skip


# From listings to data sets


def readable(rows, look, problems, on_error) -> list[Row]:
    """The rows whose files `look` accepts; all that is wrong, these and earlier `problems`, becomes one error or one warning."""
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error is 'raise' or 'skip', not {on_error!r}")

    def attempt(row):
        try:
            look(row)
        except DataError as error:
            return f"{row.where}: {error}" if row.where else str(error)
        return None

    answers = list(pool().map(attempt, rows))
    settle(problems + [answer for answer in answers if answer is not None], on_error)
    rows = [row for row, answer in zip(rows, answers) if answer is None]
    if not rows:
        raise DataError("there are no files that can be read")
    return rows


def settle(problems, on_error):
    """One error, or one warning, for all that is wrong: the first ten and how many."""
    if not problems:
        return
    shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10:,} more" if len(problems) > 10 else "")
    if on_error == "raise":
        raise DataError(
            f"{len(problems):,} thing(s) are wrong: {shown}. Mend them, or leave them out by on_error='skip'"
        )
    warnings.warn(f"left out {len(problems):,}: {shown}", stacklevel=4)


def assemble(
    rows,
    make,
    look,
    read,
    problems,
    *,
    classes,
    groups,
    test,
    validation,
    on_error,
    seed,
    name,
    origin,
    masks=None,
    ignore=(),
) -> Data:
    """A data set of listed files.

    Args:
        rows: Of all parts.
        make: Makes the lazy images of a list of files.
        look: Raises DataError for a file whose header is wrong.
        read: The same for a file that is damaged anywhere.
        problems: Sentences about what is not among the rows.
        classes: Names, or None: the labels of the training rows, sorted (as numbers where all are).
        groups, test, validation, on_error, seed, name: As for `from_folder`.
        origin: The beginning of `Data.source`.
        masks: Lazy masks of the rows, where they have masks.
        ignore: Of the masks.
    """
    if not rows:
        settle(problems, "raise")
        raise DataError(f"there are no {origin}")
    images = None
    if on_error == "raise" and not problems:
        try:
            images = make([row.file for row in rows])
        except DataError:
            readable(rows, lambda row: look(row.file), problems, on_error)
            raise
    else:
        rows = readable(rows, lambda row: (look if on_error == "raise" else read)(row.file), problems, on_error)
        images = make([row.file for row in rows])
    names = np.array([row.name for row in rows])
    if masks is None:
        labels, classes = _ids(rows, classes)
    else:
        labels = masks
    parts = np.array([row.part or "train" for row in rows])
    given = groups if groups is not None else [row.group for row in rows] if rows[0].group is not None else None
    if given is None and suggested(names, labels):
        found = suggest_groups(names)
        warnings.warn(
            f"the file names look grouped ({str(names[0])!r} of {str(found[0])!r}; {len(set(found))} groups): images of one patient, slide or "
            "video in training and test make scores too good; give groups='names' (or another rule), or groups=False if they are not",
            stacklevel=3,
        )
    together = None if given is None or given is False else group_names(names, given)
    if (sources := getattr(images, "sources", None)) is not None:  # several windows of one file, which are alike
        labels, parts = labels[sources], parts[sources]
        together = (names if together is None else together)[sources]
        names = np.array([f"{names[file]}#{number}" for number, file in enumerate(sources.tolist())])
    whole = Split(images, labels, together, names)
    if test and "test" in parts:
        raise InputError("there is a test part already: leave test= out")
    splits = {part: np.flatnonzero(parts == part) for part in ("train", "validation", "test")}
    splits = {part: whole.take(indices) if len(indices) else None for part, indices in splits.items()}
    if splits["train"] is None:
        raise DataError("there are no training images: the part train is empty")
    data = Data(name, **splits, classes=classes, source="", ignore=ignore)
    if rows[0].time is not None:
        times = [row.time for row in rows if (row.part or "train") == "train"]
        data = split_by_time(data, as_numbers(times), test=test, validation=validation)
        how = ", split by time"
    else:
        data = data.hold_out(test, validation, seed)
        how = "" if together is None else f", {len(set(together))} groups kept together"
    data, rule = _fitted(data)
    return dataclasses.replace(data, source=f"{len(rows):,} {origin}, {rule}{how}")


def suggested(names, labels) -> bool:
    """Whether names look grouped in a way that is not just another way to write the classes."""
    groups = suggest_groups(names)
    if groups is None or not isinstance(labels, np.ndarray):
        return groups is not None
    pairs = {(group, label) for group, label in zip(groups.tolist(), labels.tolist())}
    return not len(pairs) == len(set(groups.tolist())) == len(set(labels.tolist()))


def as_numbers(values) -> np.ndarray:
    """Text as numbers where all of it is numbers."""
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return np.array(values)


def _ids(rows, classes):
    found = sorted({row.label for row in rows})
    if classes is None:
        order = as_numbers(found)
        classes = [label for _, label in sorted(zip(order.tolist(), found))]
    classes = tuple(map(str, classes))
    if len(set(classes)) < len(classes):
        raise InputError(f"two classes have one name: {', '.join(classes)}")
    if len(found) < 2:
        raise DataError(f"there is one class only, {found[0]!r}: at least two are needed")
    if absent := set(classes) - {row.label for row in rows if (row.part or "train") == "train"}:
        raise DataError(f"there are no training images of the class(es) {listed(sorted(absent))}")
    where = {label: i for i, label in enumerate(classes)}
    return np.array([where[row.label] for row in rows], "int64"), classes


def with_intensity(data, rule):
    """The same data, whose files are read by another rule of intensity."""

    def ruled(split):
        images = split.images.take(slice(None))
        images.intensity = rule
        return dataclasses.replace(split, images=images)

    return dataclasses.replace(data, **{part: ruled(split) for part, split in data._splits().items()})


def _fitted(data):
    """The same data with an intensity rule whose numbers are those of the training images, and the rule in words."""
    rule = getattr(data.train.images, "intensity", None)
    if rule is not None and not rule.fitted:
        rule = data.train.images.fit().intensity
        data = with_intensity(data, rule)
    images = data.train.images
    if hasattr(images, "rule"):
        return data, images.rule
    return data, str(rule) + ("" if images.size is None else f"; {images.size}")
