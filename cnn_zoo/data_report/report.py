"""`data_report`: look at a data set before training on it."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnn_zoo.data_report import listing as listings
from cnn_zoo.data_report.findings import Finding, Place, find
from cnn_zoo.data_report.look import look
from cnn_zoo.errors import InputError

BINS = 64


@dataclass(frozen=True)
class Report:
    """What is in a data set and what is wrong with it.

    Attributes:
        name: Of the data set.
        findings: The severe first.
        images: How many there are.
        facts: Counts, as plain values: `classes` {class: {part: images}}, `imbalance` (largest class / smallest), `sizes`, `channels`, `types`,
            `bits`, `formats`, `groups`, `mask_pixels` {class id: pixels}, `histograms` {"edges", "classes": {class: shares}}.
        listing: The images, which the page shows some of.
    """

    name: str
    findings: tuple[Finding, ...]
    images: int
    facts: dict
    listing: listings.Listing = field(repr=False)

    @property
    def serious(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        findings = [
            {
                "kind": found.kind,
                "severity": found.severity,
                "what": found.what,
                "fix": found.fix,
                "where": [{"files": list(place.files), "detail": place.detail} for place in found.where],
            }
            for found in self.findings
        ]
        return {"name": self.name, "images": self.images, "serious": self.serious, "findings": findings, **self.facts}

    def to_json(self, path) -> Path:
        """Write `to_dict()` as a JSON file."""
        from cnn_zoo.files import replacing

        with replacing(path) as aside:
            aside.write_text(json.dumps(self.to_dict(), indent=1))
        return Path(path)

    def to_html(self, path) -> Path:
        """Write one HTML file that needs no other file and no network."""
        from cnn_zoo.data_report.page import page
        from cnn_zoo.files import replacing

        with replacing(path) as aside:
            aside.write_text(page(self), encoding="utf-8")
        return Path(path)

    def __str__(self):
        lines = [f"{self.name}: {self.images:,} images"]
        for name, parts in list(self.facts["classes"].items())[:40]:
            shares = ", ".join(f"{count:,} {part}" for part, count in parts.items() if part != "all")
            lines.append(f"  {name:20} {sum(parts.values()):>9,}  {shares}".rstrip())
        if len(self.facts["classes"]) > 40:
            lines.append(f"  and {len(self.facts['classes']) - 40:,} more classes")
        for what in ("sizes", "channels", "types", "formats"):
            counts = list(self.facts[what].items())
            shown = ", ".join(f"{value} ({count:,})" for value, count in counts[:4])
            lines.append(f"  {what}: {shown}{f' and {len(counts) - 4:,} more' if len(counts) > 4 else ''}")
        return "\n".join([*lines, *(map(str, self.findings) if self.findings else ["nothing found that is wrong"])])


def data_report(
    source,
    *,
    masks=None,
    labels=None,
    names=None,
    groups=None,
    classes=None,
    ignore=None,
    palette=None,
    near: int = 6,
    out=None,
    progress: bool = True,
) -> Report:
    """Find out what is in a data set and what is wrong with it, before training on it.

    Every image is read once. Nothing is changed.

    Args:
        source: A folder of class folders, also within `train`, `val` and `test`; a folder with `images` and `masks`, also within these; a folder of
            images; a `Data`; or an array `(n, height, width)` or `(n, height, width, channels)`.
        masks: Folder of the masks of a folder of images, or array of those of an array.
        labels: Of an array: `(n,)` class ids or names.
        names: Of an array: `(n,)` names of its images.
        groups: What images come from (patients, slides), as for `from_folder`; None guesses it from the names, False does not.
        classes: Names of the classes; of masks also their number.
        ignore: Id, or ids, in masks that are no class.
        palette: `cnn_zoo.masks.Palette`, for coloured masks.
        near: In how many of 64 bits two perceptual hashes may differ, 0..16, to be looked at as near duplicates.
        out: File that the page is written to (.html), or the plain values (.json).
        progress: Show a progress bar.

    Returns:
        A `Report`: `print(report)`, `report.serious`, `report.to_html(path)`.

    Raises:
        DataError: There is no such folder, or it has no images.
        InputError: Arguments that are none of these.
        StorageError: `out` cannot be written.
    """
    if isinstance(near, bool) or not hasattr(near, "__index__") or not 0 <= near <= 16:
        raise InputError(f"near is a number of bits, 0..16, not {near!r}")
    if out is not None and Path(out).suffix.lower() not in (".html", ".json"):
        raise InputError(f"the report is written as .html or .json, not {str(out)!r}")
    listing = listings.make(source, masks, labels, names, groups, classes, ignore, palette)
    looks = look(listing, progress)
    report = Report(listing.name, tuple(find(listing, looks, int(near))), len(listing), _facts(listing, looks), listing)
    if out is not None:
        (report.to_json if Path(out).suffix.lower() == ".json" else report.to_html)(out)
    return report


def _facts(listing, looks):
    infos = [seen.info for seen in looks if seen.error is None]
    classes = {}
    if listing.labels[0] is not None:
        classes = {name: {} for name in listing.classes}
        for label, part in zip(listing.labels, listing.parts):
            classes[label][part or "all"] = classes[label].get(part or "all", 0) + 1
    sizes = [sum(parts.values()) for parts in classes.values() if parts]
    report = listing.mask_report
    return {
        "classes": classes,
        "imbalance": max(sizes) / min(sizes) if sizes else None,
        "parts": _counts(part or "all" for part in listing.parts),
        "sizes": _counts(f"{info.height}x{info.width}" for info in infos),
        "channels": _counts(info.channels for info in infos),
        "types": _counts(info.dtype for info in infos),
        "bits": _counts(info.bits for info in infos),
        "formats": _counts(info.format for info in infos),
        "groups": None if listing.groups is None else len(set(map(str, listing.groups))),
        "mask_pixels": None if report is None else {str(i): count for i, count in report.pixels.items()},
        "histograms": _histograms(listing, looks),
    }


def _counts(values):
    return {str(value): count for value, count in Counter(values).most_common()}


def _histograms(listing, looks):
    """Shares of gray values on the scale of `Look`, of each class (or of all images)."""
    samples = {}
    for label, seen in zip(listing.labels, looks):
        if seen.error is None:
            samples.setdefault(label or "all images", []).append(seen.sample)
    if not samples:
        return {"edges": [], "classes": {}}
    samples = {label: np.concatenate(parts) for label, parts in samples.items()}
    if all(seen.error is not None or seen.info.dtype in ("uint8", "bool") for seen in looks):
        low, high = 0.0, 256.0
    else:
        low = min(float(np.percentile(sample, 0.1)) for sample in samples.values())
        high = max(float(np.percentile(sample, 99.9)) for sample in samples.values())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = {label: np.histogram(sample.clip(low, high), edges)[0] / len(sample) for label, sample in samples.items()}
    order = sorted(shares, key=lambda label: listing.classes.index(label) if label in listing.classes else -1)
    return {"edges": edges.round(4).tolist(), "classes": {label: shares[label].round(6).tolist() for label in order}}


__all__ = ["Finding", "Place", "Report", "data_report"]
