"""From what a user writes, `weights="imagenet"` or `weights="my.safetensors"`, to a `Weights` record."""

import csv
import dataclasses
import json
from importlib import resources
from pathlib import Path

from cnn_zoo.errors import WeightsError
from cnn_zoo.files import sha256
from cnn_zoo.imagenet import CLASSES
from cnn_zoo.registry import SPECS, WEIGHTS, Weights, add_weights, get_spec, get_weights
from cnn_zoo.weights.strict import read

SHIPPED = "cnn_zoo_weights"  # the repository's folder weights/, installed under this name


def register_shipped() -> None:
    """Register the weights that are installed with the package: each has a card, a JSON file, in the folder `weights/`."""
    fields = {field.name for field in dataclasses.fields(Weights)}
    for entry in sorted(resources.files(SHIPPED).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".json"):
            card = {key: value for key, value in json.loads(entry.read_text()).items() if key in fields}
            card["classes"] = tuple(card["classes"])
            if (card["net"], card["tag"]) not in WEIGHTS:
                add_weights(Weights(**card))


def register_published() -> None:
    """Register the weights that others published for ImageNet: the lines of `published.csv`.

    A line for a net that is not here is passed over: the adapters are those of the Keras that is installed.
    """
    with (resources.files("cnn_zoo.weights") / "published.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["net"] not in SPECS or (row["net"], row["tag"]) in WEIGHTS:
                continue
            urls = tuple(row["urls"].split())
            add_weights(
                Weights(
                    net=row["net"],
                    tag=row["tag"],
                    file=f"{row['tag']}-{urls[0].rpartition('/')[2]}",
                    hash=row["hash"],
                    bytes=int(row["bytes"]) if row["bytes"] else None,
                    licence=row["licence"],
                    dataset=row["dataset"],
                    classes=CLASSES,
                    preset=row["preset"],
                    source=row["source"],
                    urls=urls,
                    layout=row["layout"],
                    metric=row["metric"] or None,
                    value=float(row["value"]) if row["value"] else None,
                    size=int(row["size"]) if row["size"] else None,
                    measured_by=row["measured_by"] or None,
                )
            )


def find(net: str, weights: str | None) -> Weights | None:
    """The record for `weights`: a tag of the net's weights, or the path of a file.

    Raises:
        WeightsError: Neither; or the file belongs to another net, or nobody can tell how to read it.
    """
    if weights is None:
        return None
    if (net, str(weights)) in WEIGHTS or not Path(weights).is_file():
        return get_weights(net, str(weights))
    path = Path(weights)
    about = read(path)[1] if path.suffix.lower() == ".safetensors" else {}
    if "classes" not in about:
        return _foreign(net, path)
    if about.get("net") != net:
        raise WeightsError(f"{str(path)!r} holds weights of {about.get('net')!r}, not of {net!r}")
    return Weights(
        net=net,
        tag=path.stem,
        file=str(path.resolve()),
        hash=f"sha256:{sha256(path)}",
        bytes=path.stat().st_size,
        licence=about.get("licence", "unknown"),
        dataset=about.get("dataset", "unknown"),
        classes=tuple(json.loads(about["classes"])),
        preset=about.get("preset", "unit"),
        channels=int(about["channels"]) if "channels" in about else None,
        options=json.loads(about.get("options", "{}")),
        source=str(path),
    )


def _foreign(net, path):
    """A record for a file in another project's format: the layout is found by trying, the rest is what is published for such files."""
    from cnn_zoo.weights.importers import LAYOUTS

    reasons = []
    for name, layout in LAYOUTS.items():
        if path.suffix.lower() not in layout.suffixes:
            continue
        try:
            layout.twins(net, list(layout.read(path)))
        except WeightsError as error:
            reasons.append(f"as {name}: {error}")
            continue
        alike = [record for (of, _), record in WEIGHTS.items() if of == net and record.layout == name]
        return Weights(
            net=net,
            tag=path.stem,
            file=str(path.resolve()),
            hash=f"sha256:{sha256(path)}",
            bytes=path.stat().st_size,
            licence="unknown",
            dataset="unknown",
            classes=(),
            preset=alike[0].preset if alike else get_spec(net).preset,
            layout=name,
            source=str(path),
        )
    known = sorted({suffix for layout in LAYOUTS.values() for suffix in layout.suffixes})
    raise WeightsError(
        f"{str(path)!r} does not hold weights of {net!r} in a layout that is known here ({'; '.join(reasons)})"
        if reasons
        else f"{str(path)!r} is no weights file by its name: the endings {', '.join(known)} are known"
    )
