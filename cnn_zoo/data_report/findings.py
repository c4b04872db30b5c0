"""What is wrong with a data set: one function a subject, each giving `Finding`s."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnn_zoo.data_report import duplicates

SEVERITIES = ("error", "warning", "note")
FAR = 5.0  # robust standard deviations from the median, beyond which an image is unlike the others
RARE, SCARCE = 10, 10  # classes with so few images; ratio of classes' sizes
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "GIF": (".gif",), "BMP": (".bmp",), "WebP": (".webp",), "TIFF": (".tif", ".tiff"),
    "MRC": (".mrc", ".mrcs"), "NumPy": (".npy", ".npz"),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where something was found: one image, or several that belong together; and what exactly."""

    files: tuple[str, ...]
    detail: str = ""

    def __str__(self):
        more = f" and {len(self.files) - 4:,} more" if len(self.files) > 4 else ""
        return ", ".join(self.files[:4]) + more + (f": {self.detail}" if self.files and self.detail else self.detail)


@dataclass(frozen=True)
class Finding:
    """One thing to know of a data set.

    Attributes:
        kind: One word for programs, such as `"duplicates_across_splits"`.
        severity: `"error"`: training on it goes wrong, or its scores will be; `"warning"`: very likely a mistake; `"note"`: worth knowing.
        what: What it is.
        fix: What to do.
        where: The images.
    """

    kind: str
    severity: str
    what: str
    fix: str
    where: tuple[Place, ...] = field(default=())

    def __str__(self):
        places = "".join(f"\n    {place}" for place in self.where[:5])
        more = f"\n    and {len(self.where) - 5:,} more" if len(self.where) > 5 else ""
        return f"{self.severity.upper()}: {self.what}{places}{more}\n  to do: {self.fix}"


def find(listing, looks, bits: int) -> list[Finding]:
    """All findings, the severe first."""
    good = [i for i, look in enumerate(looks) if look.error is None]
    found = [*_files(listing, looks), *_classes(listing), *_groups(listing)]
    if good:
        found += [
            *_headers(listing, looks, good), *_values(listing, looks, good), *_shortcuts(listing, looks, good),
            *_duplicates(listing, looks, good, bits), *_outliers(listing, looks, good), *_masks(listing, looks, good),
        ]  # fmt: skip
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _at(listing, indices, detail=None):
    return tuple(Place((listing.names[i],), "" if detail is None else detail(i)) for i in indices)


def _files(listing, looks):
    if listing.problems:
        yield Finding(
            "folder", "error", f"{len(listing.problems):,} thing(s) in the folders that are no part of a data set",
            "move them elsewhere; to train, on_error='skip' leaves them out", tuple(Place((), text) for text in listing.problems),
        )  # fmt: skip
    bad = [i for i, look in enumerate(looks) if look.error is not None]
    empty = [i for i in bad if isinstance(listing.images[i], Path) and _bytes(listing.images[i]) == 0]
    if empty:
        yield Finding(
            "empty_file", "error", f"{len(empty):,} file(s) of 0 bytes", "get these files again, or remove them", _at(listing, empty)
        )  # fmt: skip
    if bad := [i for i in bad if i not in set(empty)]:
        yield Finding(
            "unreadable", "error", f"{len(bad):,} file(s) cannot be read: damaged, broken off or no images",
            "get these files again, or remove them; to train, on_error='skip' leaves them out", _at(listing, bad, lambda i: looks[i].error),
        )  # fmt: skip


def _bytes(path):
    return path.stat().st_size if path.is_file() else None


# Classes and groups


def _classes(listing):
    if listing.labels[0] is None:
        return
    counts = Counter(listing.labels)
    if len(counts) == 1:
        yield Finding(
            "one_class",
            "error",
            f"all images are of one class, {next(iter(counts))!r}",
            "to learn to tell classes apart takes two",
        )
        return
    (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
    if many > 3 * few:
        scarce = many > SCARCE * few
        yield Finding(
            "imbalance", "warning" if scarce else "note",
            f"classes differ in size by a factor of {many / few:.1f}: {most!r} has {many:,} images and {least!r} {few:,}",
            "weight the classes in the loss, and judge by scores of each class (macro averages), not by accuracy alone",
        )  # fmt: skip
    if rare := [name for name, count in counts.items() if count < RARE]:
        yield Finding(
            "rare_class", "warning", f"{len(rare)} class(es) with fewer than {RARE} images",
            "collect more, or join or leave out these classes",

            tuple(Place((), f"{name}: {counts[name]}") for name in rare),
        )  # fmt: skip
    seen = {part: {label for label, p in zip(listing.labels, listing.parts) if p == part} for part in set(listing.parts)}  # fmt: skip
    learnt = seen.get("train", set())
    for part in sorted(set(seen) - {"train", None}):
        if new := sorted(seen[part] - learnt):
            yield Finding(
                "class_missing", "error", f"the {part} images have classes that the training images lack: {', '.join(new[:10])}",
                "a net cannot know them: add training images, or remove them; look for misspelt folders",
            )  # fmt: skip
        if absent := sorted(learnt - seen[part]):
            yield Finding(
                "class_missing", "warning", f"the {part} images lack the classes {', '.join(absent[:10])}",
                "then nothing tells how well these are found",
            )  # fmt: skip


def _groups(listing):
    if listing.groups is None:
        return
    members = {}
    for i, group in enumerate(listing.groups):
        members.setdefault(str(group), []).append(i)
    if len(members) < 2 or len(members) == len(listing):
        return
    said = "come" if listing.groups_given else "seem to come, by their names,"
    parts = {group: {listing.parts[i] for i in rows} for group, rows in members.items()}
    leaks = {group: members[group] for group, p in parts.items() if len(p) > 1}
    if leaks:
        count = sum(map(len, leaks.values()))
        yield Finding(
            "group_leakage", "error",
            f"images {said} from {len(members):,} sources (patients, slides, videos), and {len(leaks):,} of these, with {count:,} images, are in "
            "more than one of training, validation and test",
            "scores will be too good: split again by groups (groups='names', or a rule of yours). If the names mean something else: groups=False",
            tuple(
                Place(tuple(_first_of_each_part(listing, rows)), f"{group}, {_shares(listing, rows)}") for group, rows in leaks.items()
            ),
        )  # fmt: skip
    elif set(listing.parts) == {None}:
        largest = sorted(members, key=lambda group: -len(members[group]))
        yield Finding(
            "grouped_names", "note" if listing.groups_given else "warning",
            f"the {len(listing):,} images {said} from {len(members):,} sources (patients, slides, videos), such as {', '.join(largest[:3])}",
            "a random split would put images of one source into training and test: split with groups='names', or a rule of yours",
            tuple(Place((listing.names[members[g][0]],), f"{g}, {len(members[g]):,} images") for g in largest[:20]),
        )  # fmt: skip


def _first_of_each_part(listing, rows):
    first = {}
    for i in rows:
        first.setdefault(listing.parts[i], listing.names[i])
    return first.values()


def _shares(listing, rows):
    return ", ".join(f"{count:,} {part}" for part, count in Counter(listing.parts[i] for i in rows).items())


# Files and values


def _headers(listing, looks, good):
    infos = {i: looks[i].info for i in good}
    about = (
        ("mixed_sizes", "note", "sizes", lambda info: f"{info.height}x{info.width}",
         "say what they shall be brought to: size=Size(height, width, how)"),
        ("mixed_channels", "warning", "numbers of channels", lambda info: info.channels, "say how many: channels=1 (gray) or channels=3"),
        ("mixed_types", "warning", "types of values", lambda info: info.dtype,
         "were they made by one instrument, in one way? Then export them alike; else the type may tell the class"),
        ("mixed_formats", "note", "file formats", lambda info: info.format, "fine, unless the format goes with the class or the part"),
    )  # fmt: skip
    for kind, severity, what, value, fix in about:
        counts = Counter(value(info) for info in infos.values())
        if len(counts) > 1:
            usual = counts.most_common(1)[0][0]
            shown = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(4))
            more = f" and {len(counts) - 4:,} more" if len(counts) > 4 else ""
            where = () if kind == "mixed_sizes" else _at(
                listing, [i for i in good if value(infos[i]) != usual], lambda i, v=value: str(v(infos[i]))
            )  # fmt: skip
            yield Finding(kind, severity, f"images of {len(counts):,} {what}: {shown}{more}", fix, where)
    tall, wide = (sum(sign * i.height > sign * i.width for i in infos.values()) for sign in (1, -1))
    if min(tall, wide) > 0.02 * len(good):
        yield Finding(
            "orientation", "note", f"{tall:,} images are upright and {wide:,} lie across",
            "if the objects lie as well, turn them; when resizing, 'letterbox' or 'short_side_crop' keep the proportions, 'resize' does not",
        )  # fmt: skip
    if turned := [i for i in good if looks[i].turned]:
        masked = any(mask is not None for mask in listing.masks)
        yield Finding(
            "exif_orientation", "warning" if masked else "note", f"{len(turned):,} photographs are stored turned, with an EXIF mark that says so",
            "this package turns them; others may not: look whether masks, boxes and other programs' results fit; best save them upright",
            _at(listing, turned),
        )  # fmt: skip
    if alpha := [i for i in good if infos[i].alpha]:
        yield Finding(
            "alpha",
            "note",
            f"{len(alpha):,} images have transparency, which is dropped",
            "save them on a background",
            _at(listing, alpha),
        )
    if several := [i for i in good if infos[i].frames > 1]:
        yield Finding(
            "frames", "warning", f"{len(several):,} files hold several pictures, of which the first is used",
            "save each picture as a file, or read them as stacks: from_stacks", _at(listing, several, lambda i: f"{infos[i].frames} pictures"),
        )  # fmt: skip
    if gray := [i for i in good if looks[i].gray_color]:
        every = len(gray) == sum(info.channels == 3 for info in infos.values())
        yield Finding(
            "gray_as_color", "note", f"{'all' if every else f'{len(gray):,} of the'} colour images are gray: their three channels are equal",
            "channels=1 saves two thirds of the memory" if every else "were these made differently? That may tell the class", _at(listing, gray),
        )  # fmt: skip
    wrong = [i for i in good if isinstance(p := listing.images[i], Path) and p.suffix.lower() not in SUFFIXES[infos[i].format]]  # fmt: skip
    if wrong:
        yield Finding(
            "misnamed", "note", f"{len(wrong):,} files are of another format than their names say", "rename them: other programs go by the name",
            _at(listing, wrong, lambda i: infos[i].format),
        )  # fmt: skip


def _values(listing, looks, good):
    if nan := [i for i in good if not looks[i].finite]:
        yield Finding(
            "not_finite",
            "error",
            f"{len(nan):,} images hold NaN or infinite values",
            "replace or remove them",
            _at(listing, nan),
        )
    if flat := [i for i in good if looks[i].low == looks[i].high and looks[i].finite]:
        yield Finding(
            "flat",
            "warning",
            f"{len(flat):,} images are of one single value",
            "nothing can be seen on them: remove them",
            _at(listing, flat),
        )
    low, high = min(looks[i].low for i in good), max(looks[i].high for i in good)
    other = [i for i in good if looks[i].info.dtype not in ("bool", "uint8")]
    outside = [i for i in other if looks[i].low < 0 or looks[i].high > 255]
    if outside:
        yield Finding(
            "outside", "error", f"{len(outside):,} images hold values outside 0..255 (all: {low:.5g} to {high:.5g}), and their type has no rule",
            "choose one: Intensity('range', low, high), 'percentiles' or 'standardise'",
            _at(listing, outside, lambda i: f"{looks[i].low:.5g} to {looks[i].high:.5g}"),
        )  # fmt: skip
    elif len(other) == len(good) and 0 < high - low < 64:
        scale = 257 if all(looks[i].info.dtype == "uint16" for i in good) else 1
        whole = "65,535" if scale == 257 else "255"
        yield Finding(
            "narrow_range", "warning",
            f"all values lie between {low * scale:,.6g} and {high * scale:,.6g}, a small part of 0..{whole}: images will be nearly flat",
            "choose a rule: Intensity('percentiles') of the training images, or Intensity('range', low, high)",
        )  # fmt: skip


def _shortcuts(listing, looks, good):
    """A property of the files that tells the class: Goodman and Kruskal's lambda of at least 1/2 (it halves the errors of guessing)."""
    labels = [listing.labels[i] for i in good]
    most = max(Counter(labels).values())
    if labels[0] is None or most == len(labels):
        return
    about = {"format": "file format", "channels": "number of channels", "dtype": "type of values", "size": "size"}
    for name, what in about.items():
        infos = [looks[i].info for i in good]
        values = [(info.height, info.width) if name == "size" else getattr(info, name) for info in infos]
        if 1 < len(set(values)) <= len(good) / 20:
            tables = {}
            for value, label in zip(values, labels):
                tables.setdefault(value, Counter())[label] += 1
            right = sum(max(table.values()) for table in tables.values())
            if (right - most) / (len(labels) - most) >= 0.5:
                yield Finding(
                    "shortcut", "warning", f"the {what} tells the class of {right / len(labels):.0%} of the images",
                    "a net may learn that instead of the objects: make all classes in the same way",
                    tuple(Place((), f"{value}: {', '.join(f'{n:,} {label}' for label, n in tables[value].most_common(3))}") for value in tables),
                )  # fmt: skip


def _outliers(listing, looks, good):
    about = (
        ("brightness", [looks[i].mean for i in good], "mean {:.4g}"),
        ("contrast", [looks[i].contrast for i in good], "standard deviation {:.4g}"),
        ("size", [np.log(looks[i].info.height * looks[i].info.width) for i in good], "{:,.0f} pixels"),
    )
    for what, values, words in about:
        z = robust_z(values)
        far = np.flatnonzero(np.abs(z) > FAR)
        if len(far):
            shown = np.exp(values) if what == "size" else values
            order = far[np.argsort(-np.abs(z[far]), kind="stable")]
            yield Finding(
                "outliers", "note", f"{len(far):,} images differ much from the others in {what}",
                "look at them: another magnification, stain, exposure, or not of this data set?",
                tuple(Place((listing.names[good[k]],), f"{words.format(shown[k])}, robust z {z[k]:+.1f}") for k in order),
            )  # fmt: skip


def robust_z(values) -> np.ndarray:
    """(x - median) / (1.4826 MAD), or, where more than half of all values are equal, / (1.2533 mean absolute deviation).

    Source: Iglewicz and Hoaglin 1993, "How to detect and handle outliers", section 3.
    """
    off = np.asarray(values, float) - np.median(values)
    scale = 1.4826 * np.median(np.abs(off)) or 1.2533 * np.abs(off).mean()
    return off / scale if scale > 1e-9 else np.zeros_like(off)


# Twice the same


def _duplicates(listing, looks, good, bits):
    exact = [[good[k] for k in rows] for rows in duplicates.same([looks[i].digest for i in good])]
    exact = [
        rows for rows in exact if looks[rows[0]].low != looks[rows[0]].high
    ]  # flat images have a finding of their own
    yield from _sort_out(listing, exact, "duplicates", "the same pixels", ("error", "error", "warning"))
    again = {i for rows in exact for i in rows[1:]}
    once = [i for i in good if i not in again]
    small = np.stack([looks[i].small for i in once])
    sets, complete = duplicates.near(small, [looks[i].contrast for i in once], bits)
    alike = [[once[k] for k in rows] for rows in sets]
    # Round cells, or frames of a film, are all alike to this measure: then it says little of any two of them.
    most = 2 * sum(map(len, alike)) > len(once) > 20
    severities, but = (
        (("note",) * 3, " (more than half of all: perhaps these images just look so)")
        if most
        else (("warning", "warning", "note"), "")
    )
    yield from _sort_out(listing, alike, "near_duplicates", "nearly the same picture", severities, but)
    if not complete:
        yield Finding(
            "alike", "note", "so many images are alike that not all pairs were compared for near duplicates",
            "if these are frames of a video or slices of a volume: split by video or volume",
        )  # fmt: skip


def _sort_out(listing, sets, kind, words, severities, but=""):
    """Each set where it hurts most: across splits, across classes, or neither."""
    cases = {
        f"{kind}_across_splits": ("in more than one of training, validation and test",
                                  "the test would ask for what was learnt by heart: keep each set in one part", []),
        f"{kind}_across_classes": ("in more than one class", "one of the labels is wrong, or the classes overlap: decide", []),
        kind: ("in one class and one part", "keep one of each set, unless these are meant (augmented, or frames of a video)", []),
    }  # fmt: skip
    for rows in sets:
        place = Place(tuple(listing.names[i] for i in rows))
        across = False
        for column, case in ((listing.parts, f"{kind}_across_splits"), (listing.labels, f"{kind}_across_classes")):
            values = [column[i] for i in rows]
            if len(set(values)) > 1:
                cases[case][2].append(Place(place.files, ", ".join(map(str, sorted(set(map(str, values)))))))
                across = True
        if not across:
            cases[kind][2].append(place)
    for severity, (case, (where, fix, places)) in zip(severities, cases.items()):
        if places:
            count = sum(len(place.files) for place in places)
            yield Finding(case, severity, f"{count:,} images in {len(places):,} set(s) show {words}, {where}{but}", fix, tuple(places))  # fmt: skip


# Masks


def _masks(listing, looks, good):
    if listing.mask_report is not None:
        for problem in listing.mask_report.problems:
            where = tuple(Place((), place) for place in problem.where)
            yield Finding("mask", "error" if problem.serious else "note", problem.what, problem.fix, where)
    elif bad := [i for i in good if looks[i].mask_error]:
        yield Finding(
            "mask", "error", f"{len(bad):,} masks cannot be read", "mend or remove them", _at(listing, bad, lambda i: looks[i].mask_error)
        )  # fmt: skip
    known = [i for i in good if looks[i].ids is not None]
    single = [i for i in known if len(looks[i].ids) == 1]
    if single and len(single) < len(known):
        yield Finding(
            "one_id_masks", "note", f"{len(single):,} of {len(known):,} masks hold one single id",
            "empty, as they should be? Look at some; if most are, choose training tiles by their foreground",
            _at(listing, single, lambda i: f"id {looks[i].ids[0]}"),
        )  # fmt: skip
