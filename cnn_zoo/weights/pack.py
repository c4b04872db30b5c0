"""From a finished run to a weights file with its card: what the folder `weights/` of the repository holds."""

import json
from pathlib import Path

import keras

from cnn_zoo.errors import InputError
from cnn_zoo.files import replacing, sha256
from cnn_zoo.registry import get_spec
from cnn_zoo.weights.strict import save


def pack(run, tag: str, folder, *, licence: str = "Apache-2.0", dataset: str | None = None) -> Path:
    """Write `NET_TAG.safetensors` and its card `NET_TAG.json` from a run of `cnn-zoo train`.

    Every statement of the card is read from the run: settings, seed, command, versions, and the test accuracy in its report.json.

    Args:
        run: The run folder, finished and evaluated.
        tag: Name of the weights: `build(net, weights=tag)`.
        folder: Where to write both files.
        licence: Of the weights.
        dataset: In words; default: the source that the run names.

    Returns:
        The path of the card.

    Raises:
        InputError: The run is not finished, was not begun by `cnn-zoo train`, or was not evaluated.
    """
    run, folder = Path(run), Path(folder)
    try:
        about = json.loads((run / "run.json").read_text())
        report = json.loads((run / "report.json").read_text())
        net, command = about["train"]["net"], about["command"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{str(run)!r} is not a finished run of `cnn-zoo train`: {error}") from error
    if about["status"] not in ("finished", "stopped early"):
        raise InputError(f"the run {str(run)!r} is {about['status']}: finish it with cnn-zoo train --resume {run}")
    spec = get_spec(net)
    best = about["recipe"]["restore_best"]
    model = keras.saving.load_model(run / ("best.keras" if best else "last.keras"), compile=False)
    path = folder / f"{net}_{tag}.safetensors"
    dataset = dataset or about["data"]["source"]
    save(model, path, net=net, classes=about["classes"], preset=spec.preset, licence=licence, dataset=dataset)
    card = {
        "net": net,
        "tag": tag,
        "file": path.name,
        "hash": f"sha256:{sha256(path)}",
        "bytes": path.stat().st_size,
        "licence": licence,
        "dataset": dataset,
        "classes": about["classes"],
        "preset": spec.preset,
        "metric": f"accuracy on the {report['images']:,} test images",
        "value": report["accuracy"],
        "interval_95": report["accuracy_interval_95"],
        "measured_by": "this project, in the run described here",
        "source": command,
        "recipe": about["recipe"],
        "epochs": about["epoch"],
        "versions": about["versions"],
        "data": about["data"],
    }
    card_path = path.with_suffix(".json")
    with replacing(card_path) as aside:
        aside.write_text(json.dumps(card, indent=2) + "\n")
    return card_path
