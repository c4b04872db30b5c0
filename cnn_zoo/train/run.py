"""The run folder: what was done, with what, how it went, and everything needed to go on.

run.json        settings, versions, seed, data, status
history.csv     a row an epoch
best.keras      the model after its best epoch
last.keras      the model after its last epoch
state.npz       all that a resumed run needs, in one file that is replaced as a whole
tensorboard/    logs for TensorBoard
"""

import csv
import hashlib
import io
import json
import os
import platform
import re
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cnn_zoo.data.intensity import Intensity
from cnn_zoo.data.sizes import Size
from cnn_zoo.errors import InputError
from cnn_zoo.files import replacing
from cnn_zoo.version import __version__


@dataclass(frozen=True)
class Run:
    """A training, finished or not.

    Attributes:
        folder: Where everything lies.
        status: "running", "finished", "stopped early", "interrupted" or "diverged".
        rows: A dictionary an epoch: epoch (from 1), loss, accuracy, val_loss, val_accuracy, learning_rate, seconds; for masks
            pixel_accuracy and mean_iou instead of accuracy.
        about: The contents of run.json.
    """

    folder: Path
    status: str
    rows: tuple[dict, ...]
    about: dict

    @property
    def history(self) -> dict[str, list]:
        """Name of a quantity -> its value in each epoch, as in Keras' `History.history`."""
        return {key: [row[key] for row in self.rows] for key in (self.rows[0] if self.rows else ())}

    @property
    def seconds(self) -> float:
        """Seconds of training over all epochs, without validation and writing."""
        return sum(row["seconds"] for row in self.rows)

    @property
    def best_epoch(self) -> int | None:
        """The epoch (from 1) whose weights are in best.keras."""
        return self.about.get("best_epoch")

    @property
    def image_rules(self) -> dict:
        """By which rules the files of the training images became arrays: `intensity` and `size`, where they are not the usual ones.

        `predict(model, files, **run.image_rules)` reads other files in the same way; `predict_mask` and `predict_tiled` take the intensity.
        """
        known = self.about.get("data", {}).get("train", {}).get("files", {})
        rules, intensity, size = {}, known.get("intensity"), known.get("size")
        if intensity and intensity["rule"] != "dtype":
            rules["intensity"] = Intensity.from_description(intensity)
        if size and size["how"] != "resize":
            rules["size"] = Size(**{name: value for name, value in size.items() if name != "sentence"})
        return rules

    @classmethod
    def load(cls, folder) -> "Run":
        """Read a run folder.

        Raises:
            InputError: It is not one, or its run.json is damaged.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / "run.json").read_text())
            rows = tuple(about["history"])
            return cls(folder, about["status"], rows, about)
        except FileNotFoundError as error:
            raise InputError(f"{str(folder)!r} is not a run folder: it has no run.json") from error
        except (ValueError, KeyError, OSError) as error:
            raise InputError(f"{str(folder / 'run.json')!r} is damaged ({error})") from error


def load_model(source) -> tuple[keras.Model, tuple[str, ...] | None]:
    """The model of a run folder (its best epoch) or of a `.keras` file, and its class names where they are known.

    Raises:
        InputError: There is none, or it is damaged.
    """
    source, folder = Path(source), Path(source)
    if source.is_dir():
        candidates = [source / name for name in ("best.keras", "last.keras")]
        source = next((path for path in candidates if path.is_file()), None)
        if source is None:
            raise InputError(
                f"{str(folder)!r} holds neither best.keras nor last.keras: give a run folder or a .keras file"
            )
    else:
        folder = source.parent
    if not source.is_file() or source.suffix != ".keras":
        raise InputError(f"{str(source)!r} is not a .keras file or a run folder")
    try:
        model = keras.saving.load_model(source, compile=False)
    except TypeError as error:  # Keras' answer to a class that it does not know
        raise InputError(
            f"{str(source)!r} has layers of your own: register them with @keras.saving.register_keras_serializable() "
            "and import them before loading"
        ) from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{str(source)!r} cannot be loaded ({str(error).splitlines()[0]}): is it whole?") from error
    classes = Run.load(folder).about.get("classes") if (folder / "run.json").is_file() else None
    return model, tuple(classes) if classes else None


def check_new(folder, what: str = "run") -> None:
    """Raise InputError unless the folder is empty, or not there yet."""
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"the folder {str(folder)!r} is not empty: choose another one, or go on with that {what} by resume=True"
        )


def join_runs(folder, runs, best, recipe: dict) -> "Run":
    """Write run.json and history.csv of a training in phases, as one run that `Run.load`, plots and reports read.

    Args:
        folder: The folder of the whole.
        runs: The `Run` of each phase.
        best: The one of them whose best epoch is that of the whole.
        recipe: The recipe of the whole, as plain values.
    """
    rows, best_epoch = [], None
    for run in runs:
        if run is best:
            best_epoch = len(rows) + run.best_epoch
        rows += [{**row, "epoch": len(rows) + i + 1} for i, row in enumerate(run.rows)]
    phases = [
        {"name": run.folder.name, "status": run.status, "epochs": len(run.rows), "best": run.about["best"], "best_epoch": run.best_epoch}
        for run in runs
    ]  # fmt: skip
    values = {**runs[-1].about, "recipe": recipe, "phases": phases, "history": rows, "epoch": len(rows)}
    values |= {"best": best.about["best"], "best_epoch": best_epoch}
    write_history(folder / "history.csv", rows)
    write_text(folder / "run.json", json.dumps(values, indent=2))
    return Run.load(folder)


def write_text(path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(text)


def write_history(path, rows) -> None:
    """Write the rows as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def environment() -> dict:
    """Versions and hardware, for run.json."""
    import importlib.metadata

    versions = {"python": platform.python_version(), "cnn-zoo": __version__}
    for package in ("keras", keras.backend.backend(), "numpy"):
        versions[package] = importlib.metadata.version(package)
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "backend": keras.backend.backend(),
        "versions": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }


def state_variables(model) -> list:
    """All variables that the next step depends on: weights, statistics, random generators, the optimizer's."""
    metrics = {id(variable) for variable in model.metrics_variables}
    return [v for v in model.variables if id(v) not in metrics] + list(model.optimizer.variables)


def architecture(model) -> str:
    """A fingerprint of the model's configuration: layers, their settings and connections, shapes."""
    shapes = [[list(v.shape), str(v.dtype)] for v in model.weights]
    return hashlib.sha256(json.dumps([settled(json.loads(model.to_json())), shapes]).encode()).hexdigest()


def settled(config):
    """A configuration without what differs between two builds of one model: names counted up, seeds, object ids, bytecode."""
    if isinstance(config, dict):
        if config.get("class_name") == "__lambda__":
            return "__lambda__"
        left_out = ("compile_config", "seed", "shared_object_id")
        return {key: settled(value) for key, value in config.items() if key not in left_out}
    if isinstance(config, list):
        return [settled(value) for value in config]
    return re.sub(r"(_\d+)+$", "", config) if isinstance(config, str) else config


def save_state(path, model, progress: dict) -> None:
    """Write the state of a run: one file, so that no kill can leave two that do not belong together."""
    arrays = {f"v{i}": np.asarray(keras.ops.convert_to_numpy(v)) for i, v in enumerate(state_variables(model))}
    # NumPy's files know no bfloat16 (kind "V"); float32 holds each of its values, so casting there and back is exact.
    arrays = {key: value.astype("float32") if value.dtype.kind == "V" else value for key, value in arrays.items()}
    with replacing(path) as aside:
        np.savez(aside, progress=np.frombuffer(json.dumps(progress).encode(), "uint8"), **arrays)


def read_progress(path) -> dict:
    """The progress that `save_state` kept.

    Raises:
        InputError: The file is missing or damaged.
    """
    return json.loads(_read_state(path)["progress"].tobytes())


def restore_state(path, model) -> None:
    """Give the model and its optimizer the state in the file.

    Raises:
        InputError: The file is missing, damaged or of another model.
    """
    arrays = _read_state(path)
    variables = state_variables(model)
    if len(variables) != len(arrays) - 1:
        raise InputError(
            f"{str(path)!r} holds {len(arrays) - 1} variables and the model with its optimizer {len(variables)}"
        )
    for i, variable in enumerate(variables):
        variable.assign(arrays[f"v{i}"])


def _read_state(path):
    try:
        with open(path, "rb") as whole, np.load(whole, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError as error:
        raise InputError(
            f"there is nothing to resume: {str(path)!r} does not exist; start again without resume"
        ) from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        folder = Path(path).parent
        raise InputError(
            f"{str(path)!r} is damaged ({error}); the weights of the last epoch are in {str(folder / 'last.keras')!r}: "
            "load them with keras.saving.load_model and start a new run"
        ) from error
