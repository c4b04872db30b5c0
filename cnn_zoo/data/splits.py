"""Splits that do not leak: by class, by group, by time, k-fold; kept in a file and used again."""

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np

from cnn_zoo.data.arraylike import array_hash, is_lazy
from cnn_zoo.errors import DataError, InputError
from cnn_zoo.files import replacing, sha256

DRAWS = 100  # random choices of groups, of which the one nearest to the fraction in every class is taken
SEPARATOR = re.compile(r"[ _\-.]+")


# Groups


def suggest_groups(names) -> np.ndarray | None:
    """What images seem to come from (patients, slides, videos), told by their file names.

    The rule: a beginning of the names, up to a separator (blank, `_`, `-`, `.`), that holds a digit, is shared by several files and is followed by a
    counter. Where there are several such beginnings, the shortest: `C33P1thinF_IMG_20150619_114756a_cell_12.png` is of `C33P1thinF`, since to
    keep more together than needed leaks nothing. A word put directly before another group's name is left out: `ParasitizedC33P1thinF` is
    `C33P1thinF`. Names that are one word and a number (`cat_0001`) say nothing.

    Args:
        names: File names or paths.

    Returns:
        `(n,)` names of groups, or None where the names do not look grouped.
    """
    stems = [Path(str(name)).stem for name in names]
    cuts = [[match.start() for match in SEPARATOR.finditer(stem)] for stem in stems]
    for depth in range(max(map(len, cuts), default=0)):
        groups = [stem[: cut[depth]] if depth < len(cut) else stem for stem, cut in zip(stems, cuts)]
        counts = Counter(groups)
        shared = sum(
            counts[group] > 1 and any(c.isdigit() for c in group) and any(c.isdigit() for c in stem[len(group) :])
            for group, stem in zip(groups, stems)
        )
        if len(counts) > 1 and shared > len(stems) / 2:
            return np.array([_without_word(group, counts) for group in groups])
    return None


def _without_word(group, known):
    """`ParasitizedC33P1` is `C33P1` where that is a group, too."""
    word = re.match(r"[A-Za-z]*", group).end()
    rests = (group[i:] for i in range(1, word + 1))
    return next((rest for rest in rests if rest in known and any(c.isdigit() for c in rest)), group)


def with_parentheses(argument: str, text: str, example: str) -> re.Pattern:
    """A regular expression whose first parentheses hold what is looked for; InputError, which names the argument, if it is none."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(f"{argument}={text!r} is no regular expression ({error})") from error
    if pattern.groups < 1:
        raise InputError(f"{argument}={text!r} needs parentheses around what names {example}")
    return pattern


def group_names(names, groups) -> np.ndarray:
    """The group of each file, by a rule.

    Args:
        names: File names.
        groups: `"names"` for `suggest_groups`; a regular expression whose first parentheses hold the group (looked for in the file name, then in
            the whole path); a function of a name; a dictionary from names to groups; or one group a file, in their order.

    Raises:
        DataError: Names without a group, or names that do not look grouped.
        InputError: `groups` is none of these, or no regular expression.
    """
    names = [str(name) for name in names]
    if isinstance(groups, str) and groups == "names":
        if (found := suggest_groups(names)) is None:
            raise DataError("the file names do not look grouped: say which groups there are, groups=")
        return found
    if isinstance(groups, str):
        pattern = with_parentheses("groups", groups, "the group, such as '^(P[0-9]+)_'")
        matches = [pattern.search(Path(name).name) or pattern.search(name) for name in names]
        found = [match and match[1] for match in matches]
    elif isinstance(groups, dict):
        found = [groups.get(name) for name in names]
    elif callable(groups):
        found = [groups(name) for name in names]
    else:
        found = list(groups)
        if len(found) != len(names):
            raise InputError(f"there are {len(names)} images and {len(found)} groups: one group an image is expected")
    if lost := [name for name, group in zip(names, found) if group is None]:
        raise DataError(f"{len(lost):,} image(s) have no group: {listed(lost)}")
    return np.array([str(group) for group in found])


# Which rows are held out: each function gives the sorted indices of the rest and of those held out


def by_group(groups, fraction: float, seed: int = 0, labels=None) -> tuple[np.ndarray, np.ndarray]:
    """Hold out whole groups, about this fraction of the rows.

    Of 100 random choices (scikit-learn's `GroupShuffleSplit`) the one is taken in which the fraction held out is nearest to what is
    asked for, of all rows and of each class.

    Args:
        groups: `(n,)` names.
        fraction: 0 < fraction < 1.
        seed: The same seed gives the same split.
        labels: `(n,)` integers, or None.

    Raises:
        DataError: Fewer than two groups, or no choice leaves every class in both parts.
    """
    from sklearn.model_selection import GroupShuffleSplit

    _check_fraction(fraction)
    groups = np.asarray(groups)
    count = len(np.unique(groups))
    if count < 2:
        raise DataError(f"there is {count} group: to hold some out, at least 2 are needed")
    classes = np.zeros(len(groups), int) if labels is None else np.asarray(labels)
    whole = np.bincount(classes)
    held_groups = min(max(1, round(fraction * count)), count - 1)
    best, least = None, np.inf
    for _, held in GroupShuffleSplit(DRAWS, test_size=held_groups, random_state=seed).split(classes, groups=groups):
        part = np.bincount(classes[held], minlength=len(whole))[whole > 0] / whole[whole > 0]
        miss = abs(len(held) / len(groups) - fraction) + np.abs(part - fraction).mean()
        if miss < least and part.min() > 0 and part.max() < 1:
            best, least = held, miss
    if best is None:
        raise DataError(
            f"no choice of {held_groups} of the {count} groups leaves every class in both parts: give more images, or another fraction"
        )
    return np.setdiff1d(np.arange(len(groups)), best), np.sort(best)


def by_time(times, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Hold out the latest: about this fraction of the rows. What has one and the same time stays together.

    Args:
        times: `(n,)` numbers, dates (`datetime64`), or text that sorts as time does (2024-05-31).
        fraction: 0 < fraction < 1.

    Raises:
        DataError: All have one time.
    """
    _check_fraction(fraction)
    times = np.asarray(times)
    moments = np.unique(times)
    if len(moments) < 2:
        raise DataError("all images have the same time: a split by time needs an earlier and a later one")
    after = np.array([(times >= moment).mean() for moment in moments[1:]])
    first = moments[1:][np.abs(after - fraction).argmin()]
    return np.flatnonzero(times < first), np.flatnonzero(times >= first)


def _check_fraction(fraction):
    if not 0 < fraction < 1:
        raise DataError(f"the fraction held out must lie between 0 and 1, not {fraction}")


# Whole data sets


def split_by_time(data, times, *, test: float = 0.0, validation: float = 0.0):
    """The latest images of the training split as the test split, and the latest of the rest as the validation split.

    Args:
        data: A `Data`.
        times: One an image of `data.train`, as for `by_time`.
        test, validation: Fractions; 0 leaves that split as it is.
    """
    times = np.asarray(times)
    if times.shape != (len(data.train),):
        raise InputError(f"there are {len(data.train)} training images and times of shape {times.shape}")
    for part, fraction in (("test", test), ("validation", validation)):
        if fraction:
            rest, held = by_time(times, fraction)
            data = dataclasses.replace(data, train=data.train.take(rest), **{part: data.train.take(held)})
            times = times[rest]
    return data


def k_fold(data, folds: int = 5, seed: int = 0):
    """One data set after the other, each with another part of the training images as its validation split.

    Stratified by labels (masks: at random); by whole groups where the data have groups. An existing validation split is first put back; the test
    split stays. With as many folds as images, each is left out once.

    Args:
        data: A `Data`.
        folds: How many, at least 2.
        seed: Of the order.

    Yields:
        `folds` times a `Data`.

    Raises:
        InputError: Too few images or groups for so many folds.
    """
    from sklearn.model_selection import GroupKFold, KFold, LeaveOneOut, StratifiedGroupKFold, StratifiedKFold

    whole = data.split(0).train
    labels = None if whole.has_masks else whole.labels
    units = len(whole) if whole.groups is None else len(np.unique(whole.groups))
    if isinstance(folds, bool) or not hasattr(folds, "__index__") or not 2 <= folds <= units:
        what = "images" if whole.groups is None else "groups"
        raise InputError(f"folds is a whole number from 2 to the number of {what}, {units}, not {folds!r}")
    options = {"n_splits": folds, "shuffle": True, "random_state": seed}
    if folds == len(whole):
        method = LeaveOneOut()
    elif whole.groups is not None:
        stratify = labels is not None and folds <= np.bincount(labels).max()
        method = StratifiedGroupKFold(**options) if stratify else GroupKFold(folds)
    elif labels is not None:
        counts = np.bincount(labels)
        if (rarest := counts[counts > 0].min()) < folds:
            raise InputError(
                f"the rarest class has {rarest} images: {folds} folds need as many (or folds={len(whole)})"
            )
        method = StratifiedKFold(**options)
    else:
        method = KFold(**options)
    for rest, held in method.split(np.zeros(len(whole)), labels, whole.groups):
        yield dataclasses.replace(data, train=whole.take(rest), validation=whole.take(held))


def save_split(data, path) -> Path:
    """Write which image is in which part, with a hash of each, as JSON.

    Args:
        data: A `Data` whose splits have names, as those of files have.
        path: The file.

    Raises:
        DataError: Images without names, or with the same name.
        StorageError: It cannot be written.
    """
    files = {}
    for part, split in data._splits().items():
        for name, found in zip(_names(split), _hashes(split, data.classes)):
            if name in files:
                raise DataError(f"two images have the name {name!r}: a split is saved by names, so they must differ")
            files[name] = {"part": part, "sha256": found}
    with replacing(path) as aside:
        aside.write_text(json.dumps({"format": 1, "data": data.name, "files": files}, indent=1))
    return Path(path)


def use_split(data, path):
    """The same images, split as a file says that `save_split` wrote.

    Args:
        data: A `Data`; how it is split now does not matter.
        path: The file.

    Raises:
        DataError: There is no such file, it is none of `save_split`, or the images are not the same: those that are new, missing or changed
            (in content or label) are named.
    """
    try:
        kept = json.loads(Path(path).read_text())
        files = {str(name): (file["part"], file["sha256"]) for name, file in kept["files"].items()}
        if kept["format"] != 1 or not {part for part, _ in files.values()} <= {"train", "validation", "test"}:
            raise ValueError("another format")
    except OSError as error:
        raise DataError(f"cannot read the split {str(path)!r} ({error.strerror}): make it with save_split") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{str(path)!r} is no file of save_split, or damaged: make it again") from error
    parts = list(data._splits().values())
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.join(part)
    names = _names(whole)
    changed = [n for n, found in zip(names, _hashes(whole, data.classes)) if n in files and files[n][1] != found]
    problems = [
        f"{len(which):,} {what} ({listed(which)})"
        for what, which in (
            ("are new", [name for name in names if name not in files]),
            ("are missing", sorted(files.keys() - set(names))),
            ("have another content or label", changed),
        )
        if which
    ]
    if problems:
        raise DataError(
            f"the images are not those of {str(path)!r}: {'; '.join(problems)}. Get those back, or save a new split"
        )
    where = np.array([files[name][0] for name in names])
    splits = {part: np.flatnonzero(where == part) for part in ("train", "validation", "test")}
    return dataclasses.replace(data, **{part: whole.take(i) if len(i) else None for part, i in splits.items()})


def listed(names, most: int = 3) -> str:
    """The first few names."""
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _names(split):
    if split.names is None:
        raise DataError(
            "a split is saved by the names of the images, and these have none: Data.from_arrays(..., names=)"
        )
    return split.names.tolist()


def _hashes(split, classes):
    """One an image, of its content and its label or mask."""
    labels = _content(split.labels) if split.has_masks else [str(classes[label]) for label in split.labels]
    return [array_hash(np.frombuffer(f"{i}\0{a}".encode(), "uint8")) for i, a in zip(_content(split.images), labels)]


def _content(values):
    if is_lazy(values) and hasattr(values, "paths"):
        found = {path: sha256(path) for path in dict.fromkeys(values.paths)}
        return [found[path] for path in values.paths]
    return (array_hash(values[i]) for i in range(len(values)))
