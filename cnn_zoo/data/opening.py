"""`open_data`: every source of data by one call.

What lies at a path is told by names and suffixes alone, by this rule, and never by pixels; where nothing or several things fit, `kind=` says it:

- one of `DATASETS` is that data set (`./digits` is a folder); `tfds:NAME` is one of TensorFlow Datasets;
- `.npz` is arrays; `.fa`, `.fasta` and the like are FASTA; `.csv` and `.tsv` are a table, of files where they have a column `file`, of sequences
  where they have a column `sequence`;
- a folder with the file that `prepare` leaves is prepared; one with the folders `images` and `masks`, or with these in `train`, `val` and `test`, or
  given with `masks=`, has masks; one of FASTA files has a file a class;
- otherwise it holds class folders, and the files in them decide: pictures, videos (stacks), or sounds (signals; text files count where there is
  nothing else). `.npy` may be any of the three.
"""

import dataclasses
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from cnn_zoo.data.arrays import Data, Split, _labels, to_masks
from cnn_zoo.data.folders import (
    _fitted,
    _parts,
    as_numbers,
    as_size,
    existing,
    from_csv,
    from_folder,
    from_masks,
    suggested,
    with_intensity,
)
from cnn_zoo.data.formats import _replace, to_channels
from cnn_zoo.data.images import IMAGE_SUFFIXES
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.data.prepared import CARD, load_prepared
from cnn_zoo.data.sequences import from_fasta, from_sequence_table
from cnn_zoo.data.signals import from_signals
from cnn_zoo.data.sources import DATASETS, load
from cnn_zoo.data.splits import group_names, save_split, suggest_groups, use_split, with_parentheses
from cnn_zoo.data.stacks import VIDEOS, from_stacks
from cnn_zoo.errors import DataError, InputError, MissingExtraError, require

TEST = 0.2  # held out where the data have no test part and nothing else is said
FASTA = (".fa", ".faa", ".fas", ".fasta", ".ffn", ".fna", ".frn")
TABLES = {".csv": ",", ".tsv": "\t"}
_PIXELS = {"size", "how", "channels", "intensity"}
_PARTS = {"groups", "test", "validation"}
TAKES = {  # kind -> the options that make sense
    "known": {"data_dir", "size", "how", "channels", "validation"},
    "tfds": {"data_dir", *_PIXELS, "test", "validation"},
    "folder": {*_PIXELS, *_PARTS, "classes", "on_error"},
    "masks": {*_PIXELS, *_PARTS, "classes", "ignore", "masks", "palette", "values", "on_error"},
    "table": {
        *_PIXELS, *_PARTS, "classes", "on_error", "folder", "file_column", "label_column", "group_column", "part_column", "time_column",
        "delimiter",
    },
    "arrays": {
        *_PIXELS, *_PARTS, "classes", "ignore", "values", "image_key", "label_key", "mask_key", "name_key", "group_key",
    },
    "prepared": {"test", "validation"},
    "fasta": {*_PARTS, "classes", "letters", "length", "label"},
    "sequences": {
        *_PARTS, "classes", "on_error", "letters", "length", "sequence_column", "label_column", "name_column", "delimiter",
    },
    "stacks": {*_PIXELS, *_PARTS, "classes", "on_error", "depth"},
    "signals": {
        *_PARTS, "intensity", "classes", "on_error", "length", "step", "view", "window", "hop", "mels", "rate",
    },
}  # fmt: skip
_OF_FILES = {
    "folder": from_folder,
    "masks": from_masks,
    "table": from_csv,
    "stacks": from_stacks,
    "signals": from_signals,
}


def open_data(
    source,
    *,
    kind: str | None = None,
    data_dir=None,
    size=None,
    how: str | None = None,
    channels: int | None = None,
    intensity=None,
    classes=None,
    ignore=None,
    masks=None,
    palette=None,
    values: dict | None = None,
    groups=None,
    test: float | None = None,
    validation: float | None = None,
    on_error: str | None = None,
    split=None,
    seed: int = 0,
    **options,
) -> Data:
    """Data from wherever they are.

    Args:
        source: A name of `DATASETS`, `tfds:NAME` (images with labels), or a path; the head of this module says how it is told what lies there.
        kind: A key of `TAKES`, where names do not tell.
        data_dir: Of data by name: as for `load`, and where TensorFlow Datasets keeps its own.
        size: Height and width in pixels, one number for both, or a `Size`. None: as the images are, which must then agree.
        how: One of `cnn_zoo.data.sizes.HOW`; default `"resize"`.
        channels: Make gray of colour (1), or repeat gray.
        intensity: An `Intensity` or the name of a rule; default `"dtype"`. What it needs to know it learns from the training images alone.
        classes: Names, or how many.
        ignore: Id, or ids, in masks that are no class.
        masks: A folder of masks, of the images in the folder `source`.
        palette: A `Palette`, for coloured masks.
        values: Numbers in masks to replace, such as `{255: 1}`, as for `read_ids`.
        groups: What images come from, which no split takes apart, as for `from_folder`. False: nothing, and no warning.
        test: Fraction held out for the test. Default 0.2 where the data have no test part; 0: none.
        validation: Fraction of the rest held out for validation; default none.
        on_error: Of files: `"raise"` (default), all that is wrong is listed in one error; or `"skip"`, it is left out with a warning.
        split: A file that says which image is in which part: where it is there, it is used (`test` and `validation` are not); where not, it is made.
        seed: Of the splits.
        **options: Of a kind: columns and `delimiter` of tables, as for `from_csv` and `from_sequence_table`; `image_key`, `label_key`, `mask_key`,
            `name_key`, `group_key` of arrays; `letters` ("dna", "rna", "protein") and `length` of sequences, and `label` of one FASTA file, a regular
            expression whose first parentheses hold the class in a header; `depth` of stacks; those of `from_signals`.

    Returns:
        A `Data`.

    Raises:
        DataError: There is nothing, or nothing that is understood (what is there is said); and as the functions of the kinds.
        InputError: Options that make no sense for the kind, or whose values do not.
        MissingExtraError: An optional dependency is missing.
    """
    given = {
        "data_dir": data_dir, "size": size, "how": how, "channels": channels, "intensity": intensity, "classes": classes, "ignore": ignore,
        "masks": masks, "palette": palette, "values": values, "groups": groups, "test": test, "validation": validation, "on_error": on_error,
        **options,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    try:
        kind = kind_of(source, kind, given)
        if strange := sorted(given.keys() - TAKES[kind]):
            takes = ", ".join(sorted(TAKES[kind]))
            raise InputError(
                f"{', '.join(strange)}: no option of the kind {kind!r}, which {str(source)!r} is (its options: {takes})"
            )
        if kind == "signals" and "length" not in given:
            raise InputError("signals are cut into windows: give length=, the samples of one")
        if "how" in given and "size" not in given:
            raise InputError("how= says how images reach a size: give size= as well")
        if isinstance(given.get("classes"), int):
            given["classes"] = tuple(map(str, range(given["classes"])))
        if "values" in given:
            numbers = {old: int(old) for old in given["values"] if str(old).isdecimal()}  # JSON has text for keys
            given["values"] = {numbers.get(old, old): new for old, new in given["values"].items()}
        return (_of_files if kind in _OF_FILES else _in_memory)(kind, source, given, split, seed)
    except PermissionError as error:
        raise DataError(f"{error.filename!r} cannot be read ({error.strerror}): check its permissions") from error


def kind_of(source, kind: str | None = None, given=()) -> str:
    """Which key of `TAKES` a source is, by the rule at the head of this module.

    Args:
        source: As for `open_data`.
        kind: What the user says that it is, or None.
        given: Names of the options that are given.

    Raises:
        DataError: Nothing is there, or nothing or several kinds fit: what is there is said, and what to do.
        InputError: There is no such kind.
    """
    if kind is not None:
        if kind not in TAKES:
            raise InputError(f"there is no kind {kind!r}; there are: {', '.join(TAKES)}")
        return kind
    if isinstance(source, str) and source in DATASETS:
        return "known"
    if str(source).startswith("tfds:"):
        return "tfds"
    path = Path(source).expanduser()
    if path.is_dir():
        return _kind_of_folder(path, given)
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise DataError(f"there is no file or folder {str(source)!r}")
        return "known"  # which says what names there are, and which is near
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return "arrays"
    if suffix in FASTA:
        return "fasta"
    if suffix in TABLES:
        return _kind_of_table(path, given)
    raise DataError(
        f"{str(path)!r} is a file of no kind that is known (.npz, {', '.join((*TABLES, *FASTA))}): if it is a table, say so by "
        "kind='table' or kind='sequences', or give the folder that it lies in"
    )


def _kind_of_table(path, given):
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        head = file.readline()
    columns = [
        field.strip().strip('"')
        for field in head.split(given["delimiter"] if "delimiter" in given else TABLES[path.suffix.lower()])
    ]
    fits = [
        kind
        for kind, column in (("table", "file"), ("sequences", "sequence"))
        if f"{column}_column" in given or (column in columns and not {"file_column", "sequence_column"} & set(given))
    ]
    if len(fits) != 1:
        raise DataError(
            f"the columns of {str(path)!r} are {', '.join(map(repr, columns[:20]))}: say which one is meant, file_column= (of image files) or "
            "sequence_column=, and label_column= for the classes"
        )
    return fits[0]


def _kind_of_folder(root, given):
    if (root / CARD).is_file():
        return "prepared"
    places = _parts(root).values()
    if "masks" in given or any((place / "images").is_dir() and (place / "masks").is_dir() for place in places):
        return "masks"
    loose = Counter(e.suffix.lower() for e in root.iterdir() if e.is_file() and not e.name.startswith("."))
    inner = Counter()
    for place in places:
        for folder in (entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            for _, folders, files in os.walk(folder, followlinks=True):
                folders[:] = [name for name in folders if not name.startswith(".")]
                inner.update(os.path.splitext(name)[1].lower() for name in files if not name.startswith("."))
    pictures = [suffix for suffix in IMAGE_SUFFIXES if suffix != ".npy"]
    fits = {
        "fasta": sum(loose[suffix] for suffix in FASTA),
        "folder": sum(inner[suffix] for suffix in pictures),
        "stacks": sum(inner[suffix] for suffix in VIDEOS),
        "signals": inner[".wav"],
    }
    fits = [kind for kind, count in fits.items() if count]
    if not fits and not inner[".npy"] and (inner[".csv"] or inner[".txt"]):
        fits = ["signals"]
    if len(fits) == 1:
        return fits[0]
    what = "; ".join(
        f"{where} {', '.join(f'{count:,} {suffix or chr(34) * 2}' for suffix, count in counts.most_common(6))}"
        for where, counts in (("in its folders", inner), ("directly in it", loose))
        if counts
    )
    if fits or inner[".npy"]:
        could = " or ".join(f"kind={name!r}" for name in fits or ("folder", "stacks", "signals"))
        raise DataError(f"{str(root)!r} may be several things, with {what}: say which by {could}")
    tables = [f"{str(root / e.name)!r}" for e in root.iterdir() if e.suffix.lower() in TABLES]
    hint = f", or give its table {tables[0]}" if tables else ""
    raise DataError(
        f"{str(root)!r} holds no data set that is known ({what or 'it is empty'}): class folders (folder/CLASS/file), the folders images and "
        f"masks (or masks=), or FASTA files are expected{hint}"
    )


# Files: read as they are needed, so size and intensity go along to where they are listed


def _of_files(kind, source, given, split, seed):
    there = split is not None and Path(split).exists()
    options = {**given, "seed": seed}
    if kind == "table":
        options.setdefault("delimiter", TABLES.get(Path(source).suffix.lower(), ","))
    if there:
        options |= {"test": 0.0, "validation": 0.0}
    elif "test" not in given:
        parted = (
            "part_column" in given if kind == "table" else "masks" not in given and "test" in _parts(existing(source))
        )
        options["test"] = 0.0 if parted else TEST
    data = _OF_FILES[kind](source, **options)
    if there:
        return _refitted(use_split(data, split), given.get("intensity"))
    if split is not None:
        save_split(data, split)
        return _of_files(
            kind, source, given, split, seed
        )  # as it will be opened from now on, for runs are resumed on it
    return data


def _refitted(data, rule):
    """The same data with the numbers of the intensity rule found in these training images."""
    rule = Intensity(rule) if isinstance(rule, str) else rule
    if rule is None or rule.fitted:
        return data
    before = str(data.train.images.intensity)

    data, _ = _fitted(with_intensity(data, rule))
    return dataclasses.replace(data, source=data.source.replace(before, str(data.train.images.intensity)))


# What is read as a whole: split as it is, then brought to values, channels and size


def _in_memory(kind, source, given, split, seed):
    pixels = {name: given.pop(name) for name in ("size", "how", "channels", "intensity") if name in given}
    parts = {name: given.pop(name) for name in ("groups", "test", "validation") if name in given}
    size = as_size(pixels.get("size"), pixels.get("how", "resize"))
    if kind == "tfds":
        given["size"] = size  # images of several sizes can be stacked only then
    data = _READ[kind](source, **given)
    data = _grouped(data, parts.get("groups"), given.get("group_key") is not None)
    if split is not None and Path(split).exists():
        data = use_split(data, split)
    else:
        if data.test is not None and parts.get("test"):
            raise InputError("there is a test part already: leave test= out")
        test = parts.get("test", TEST) if data.test is None else 0.0
        data = data.hold_out(test, parts.get("validation", 0.0), seed)
        if split is not None:
            save_split(data, split)
    if kind in ("arrays", "tfds"):
        data = _ruled(data, pixels.get("intensity", "dtype"))
    return _sized(_with_channels(data, pixels.get("channels")), size)


def _grouped(data, groups, known):
    names = data.train.names
    if groups is None and not known and names is not None and suggested(names, data.train.labels):
        found = suggest_groups(names)
        warnings.warn(
            f"the names look grouped ({str(names[0])!r} of {str(found[0])!r}; {len(set(found))} groups): images of one patient, slide or video in "
            "training and test make scores too good; give groups='names' (or another rule), or groups=False if they are not",
            stacklevel=4,
        )
    if groups is None or groups is False:
        return data
    if names is None and isinstance(groups, (str, dict)):
        raise InputError("groups= is a rule for names, and these data have none: give one group an image")
    if data.test is not None:
        raise InputError("the data come in parts already: groups= is for splits that are made")
    found = group_names(range(len(data.train)) if names is None else names, groups)
    source = f"{data.source}, {len(set(found))} groups kept together"
    return dataclasses.replace(data, train=dataclasses.replace(data.train, groups=found), source=source)


def _each(data, change, said):
    """The data with the images (and masks) of every part changed, and what was done added to their source."""
    parts = {part: change(split) for part, split in data._splits().items()}
    return dataclasses.replace(data, **parts, source=f"{data.source}, {said}" if said else data.source)


def _ruled(data, rule):
    rule = Intensity(rule) if isinstance(rule, str) else rule
    rule = rule.fit(data.train.images)
    return _each(data, lambda split: dataclasses.replace(split, images=rule.apply(split.images)), str(rule))


def _with_channels(data, channels):
    if channels in (None, data.train.images.shape[-1]):
        return data
    said = f"{data.train.images.shape[-1]} channel(s) brought to {channels}"
    return _each(data, lambda s: dataclasses.replace(s, images=to_channels(s.images, channels)), said)


def _sized(data, size):
    if size is None or data.train.images.shape[1:3] == (size.height, size.width):
        return data
    grows = all(want >= have for want, have in zip((size.height, size.width), data.train.images.shape[1:3]))
    if size.how == "resize" or (size.how == "crop" and grows and (size.border, size.value) == ("constant", 0)):
        return data.resize((size.height, size.width), "bilinear" if size.how == "resize" else "pad")
    void = data.ignore[0] if data.ignore else None

    def sized(split):
        masks = np.stack([size.apply_mask(m, void) for m in split.labels]) if split.has_masks else split.labels
        return dataclasses.replace(split, images=np.stack([size.apply(i) for i in split.images]), labels=masks)

    return _each(data, sized, str(size))


def _arrays(
    path, *, classes=None, ignore=(), values=None, image_key=None, label_key=None, mask_key=None, name_key=None, group_key=None
) -> Data:  # fmt: skip
    """Images as stored, with labels or masks, of an .npz."""
    path = Path(path).expanduser()
    try:
        with open(path, "rb") as whole, np.load(whole, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # damaged bytes raise what zipfile, zlib or NumPy like
        raise DataError(f"{str(path)!r} is missing, damaged or no .npz file ({error})") from error
    ignore = tuple(int(i) for i in np.atleast_1d(ignore).astype(int))

    def array(key, default):
        if key is not None and key not in arrays:
            raise DataError(f"{str(path)!r} has no array {key!r}: it has {held}")
        return arrays.get(default if key is None else key)

    held = ", ".join(f"{key} {array.shape}" for key, array in arrays.items()) or "none"
    names = array(name_key, "names" if "names" in arrays else "file_names")
    given_groups = array(group_key, "groups")
    if image_key is None and {"x_train", "y_train"} <= arrays.keys():
        pairs = {part: (arrays.get(f"x_{part}"), arrays.get(f"y_{part}")) for part in ("train", "val", "test")}
        names = given_groups = None
    else:
        images, answers = array(image_key, "images"), array(mask_key, "masks")
        if answers is None or label_key is not None:
            answers = array(label_key, "labels")
        if images is None or answers is None:
            raise DataError(
                f"{str(path)!r} holds {held}: x_train and y_train (x_val, y_val, x_test, y_test), or images with labels or masks are expected; "
                "say which are meant by image_key= and label_key= or mask_key="
            )
        pairs = {"train": (images, answers)}
        names = np.arange(len(images)) if names is None else names
    pairs = {part: pair for part, pair in pairs.items() if pair[0] is not None and pair[1] is not None}
    if classes is None and "classes" in arrays:
        classes = arrays["classes"].tolist()
    splits, texts = {}, None
    for part, (images, answers) in pairs.items():
        images = images[..., None] if images.ndim == 3 else images
        if images.ndim != 4 or 0 in images.shape:
            raise DataError(
                f"{str(path)!r}: images are (n, height, width) or (n, height, width, channels), not {images.shape}"
            )
        if answers.ndim >= 3:
            answers = to_masks(_replace(answers, values), images.shape[:3], classes, ignore)
        elif answers.dtype.kind in "US":
            found = sorted(set(answers.astype(str).tolist()))
            texts = texts or [text for _, text in sorted(zip(as_numbers(found).tolist(), found))]
            order = list(classes or texts)
            if lost := sorted(set(found) - set(order)):
                raise DataError(f"{str(path)!r}: {lost[0]!r} is none of the classes {', '.join(order)}")
            answers = np.array([order.index(text) for text in answers.astype(str).tolist()], "int64")
        else:
            answers = _labels(answers, len(images), classes)
        for what, found in (("names", names), ("groups", given_groups)):
            if found is not None and np.shape(found) != (len(images),):
                raise DataError(f"{str(path)!r} holds {len(images)} images and {what} of shape {np.shape(found)}")
        more = [None if found is None else np.asarray(found).astype(str) for found in (given_groups, names)]
        splits["validation" if part == "val" else part] = Split(images, answers, *more)
    labels = splits["train"].labels
    if classes is None:
        last = max(int(split.labels[~np.isin(split.labels, ignore)].max(initial=0)) for split in splits.values())
        classes = texts or range(last + 1)
    if labels.ndim == 1 and len(np.unique(labels)) < 2:
        raise DataError(f"{str(path)!r}: all images are of one class: at least two are needed")
    parts = {part: splits.get(part) for part in ("train", "validation", "test")}
    count = sum(len(split) for split in splits.values())
    return Data(
        path.stem, **parts, classes=tuple(map(str, classes)), source=f"{count:,} images of {path.name}", ignore=ignore
    )


def _tfds(source, *, data_dir=None, size=None) -> Data:
    """Images as stored, with labels, of TensorFlow Datasets."""
    name = str(source).removeprefix("tfds:")
    tfds = require("tensorflow_datasets", "tfds")
    try:
        builder = tfds.builder(name, data_dir=data_dir and str(data_dir))
        features = dict(builder.info.features.items())
        image, label = builder.info.supervised_keys or ("image", "label")
        kinds = {image: tfds.features.Image, label: tfds.features.ClassLabel}
        if not all(isinstance(features.get(name), kind) for name, kind in kinds.items()):
            raise DataError(
                f"{source} has no images with one label each: its features are {', '.join(features.keys())}"
            )
        builder.download_and_prepare()
        wanted = {"train": "train", "validation": "validation", "test": "test"}
        found = {part: builder.as_dataset(split=key) for part, key in wanted.items() if key in builder.info.splits}
        if "train" not in found:
            raise DataError(f"{source} has no split train: it has {', '.join(builder.info.splits)}")
        parts = {part: _stacked(source, tfds.as_numpy(rows), image, label, size) for part, rows in found.items()}
    except (DataError, InputError, MissingExtraError):
        raise
    except ImportError as error:  # it imports some of what it needs only when it downloads
        raise MissingExtraError(
            f"TensorFlow Datasets lacks a package that it needs for {name} ({error}): install that package with pip"
        ) from error
    except Exception as error:  # unknown names, the network, a disk: its own classes are many
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise DataError(f"TensorFlow Datasets cannot give {name!r} ({reason})") from error
    names = tuple(features[label].names)
    count = sum(map(len, parts.values()))
    parts = {part: parts.get(part) for part in ("train", "validation", "test")}
    return Data(name, **parts, classes=names, source=f"{count:,} images of {name} from TensorFlow Datasets")


def _stacked(source, rows, image, label, size):
    images, labels = [], []
    for row in rows:
        small = size is not None and row[image].dtype == np.uint8  # others have their intensity rule first
        images.append(size.apply(row[image]) if small else row[image])
        labels.append(row[label])
    if len(shapes := {one.shape for one in images}) > 1:
        raise DataError(
            f"the images of {source} differ in size or channels ({len(shapes)} kinds): say what they shall be brought to, size="
        )
    return Split(np.stack(images), np.array(labels, "int64"))


def _fasta(source, *, letters="dna", label=None, **options) -> Data:
    path = Path(source).expanduser()
    if path.is_dir():
        if label is not None:
            raise InputError("label= finds classes in the headers of one FASTA file; in a folder each file is a class")
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in FASTA)
        return from_fasta(files, kind=letters, name=path.resolve().name, **options)
    if label is None:
        raise InputError(
            f"{str(path)!r} is one FASTA file: give label=, a regular expression whose first parentheses hold the class in a header, or a folder "
            "with a file a class"
        )
    return from_fasta(path, kind=letters, name=path.stem, label=label if callable(label) else _finder(label), **options)


def _finder(label):
    """A function from a header to what the first parentheses of a regular expression hold."""
    pattern = with_parentheses("label", label, "the class, such as 'class=([a-z]+)'")

    def found(header):
        match = pattern.search(header)
        if match is None:
            raise DataError(f"the header {header!r} has no class by label={label!r}")
        return match[1]

    return found


def _sequences(source, *, letters="dna", delimiter=None, **options) -> Data:
    path = Path(source).expanduser()
    return from_sequence_table(
        path, kind=letters, delimiter=delimiter or TABLES.get(path.suffix.lower(), ","), **options
    )


_READ = {
    "known": load,
    "tfds": _tfds,
    "arrays": _arrays,
    "prepared": load_prepared,
    "fasta": _fasta,
    "sequences": _sequences,
}
