"""From what a user writes, `weights="mnist"` or `weights="my.safetensors"`, to a `Weights` record."""

import dataclasses
import json
from importlib import resources
from pathlib import Path

from cnn_zoo.errors import WeightsError
from cnn_zoo.files import sha256
from cnn_zoo.registry import WEIGHTS, Weights, add_weights, get_weights
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


def find(net: str, weights: str | None) -> Weights | None:
    """The record for `weights`: a tag of the net's weights, or the path of a file that `cnn_zoo.weights.save` wrote.

    Raises:
        WeightsError: Neither; or the file belongs to another net or does not say its classes.
    """
    if weights is None:
        return None
    if (net, str(weights)) in WEIGHTS or not Path(weights).is_file():
        return get_weights(net, str(weights))
    path = Path(weights)
    _, about = read(path)
    if "net" not in about or "classes" not in about:
        raise WeightsError(f"{str(path)!r} does not say its net and classes; was it written by cnn_zoo.weights.save?")
    if about["net"] != net:
        raise WeightsError(f"{str(path)!r} holds weights of {about['net']!r}, not of {net!r}")
    return Weights(
        net=net,
        tag=path.stem,
        file=str(path.resolve()),
        sha256=sha256(path),
        bytes=path.stat().st_size,
        licence=about.get("licence", "unknown"),
        dataset=about.get("dataset", "unknown"),
        classes=tuple(json.loads(about["classes"])),
        preset=about.get("preset", "unit"),
        source=str(path),
    )
