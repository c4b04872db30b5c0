"""From a finished run to a weights file with its card: what the folder `weights/` of the repository holds."""

import json
from pathlib import Path

import keras
import numpy as np

from cnn_zoo.errors import InputError
from cnn_zoo.files import replacing, sha256
from cnn_zoo.registry import PRESETS
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
    options = about["train"].get("options") or {}
    best = about["recipe"]["restore_best"]
    model = keras.saving.load_model(run / ("best.keras" if best else "last.keras"), compile=False)
    preset = _preset(model)
    path = folder / f"{net.replace(':', '-')}_{tag}.safetensors"
    dataset = dataset or about["data"]["source"]
    save(
        model,
        path,
        net=net,
        classes=about["classes"],
        preset=preset,
        licence=licence,
        dataset=dataset,
        options=json.dumps(options),
    )
    if "mean_iou" in report:
        score = {
            "metric": f"mean IoU over the {len(about['classes'])} classes, on the {report['images']:,} test images",
            "value": report["mean_iou"],
            "pixel_accuracy": report["pixel_accuracy"],
            "iou": report["iou"],
        }
    else:
        score = {
            "metric": f"accuracy on the {report['images']:,} test images",
            "value": report["accuracy"],
            "interval_95": report["accuracy_interval_95"],
        }
    card = {
        "net": net,
        "tag": tag,
        "file": path.name,
        "hash": f"sha256:{sha256(path)}",
        "bytes": path.stat().st_size,
        "licence": licence,
        "dataset": dataset,
        "classes": about["classes"],
        "preset": preset,
        "channels": model.get_layer("preprocess").input.shape[-1],
        **({"options": options} if options else {}),
        **score,
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


def _preset(model):
    """Name of the preset that the model's first layer normalises by."""
    layer = model.get_layer("preprocess")
    channels = layer.input.shape[-1]
    for name, preset in PRESETS.items():
        mean, std = (
            np.resize(values, channels) if channels > 1 else np.mean(values) for values in (preset.mean, preset.std)
        )
        if np.allclose(layer.scale, 1 / std) and np.allclose(layer.offset, -mean / std):
            return name
    raise InputError(f"the model {model.name!r} normalises by no known preset ({', '.join(PRESETS)})")
