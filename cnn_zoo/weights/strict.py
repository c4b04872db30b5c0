"""Strict reading and writing: every variable is accounted for by name and shape, or an error lists what differs.

The format is safetensors (no code in it, readable from every framework); a variable's key is its path in the model, such as `c1/kernel`.
"""

import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cnn_zoo.errors import WeightsError
from cnn_zoo.files import replacing
from cnn_zoo.registry import Weights
from cnn_zoo.weights.cache import locate


def variables(model) -> dict:
    """The model's weights by path: trainable ones and BatchNorm statistics, not the states of random generators."""
    return {variable.path: variable for variable in model.weights}


def save(model, path, *, net: str, classes, preset: str, **about: str) -> None:
    """Write the weights of a zoo model as safetensors.

    Args:
        model: A model from `build`.
        path: File to write, ending in `.safetensors`.
        net: Key of the registry that the model was built from.
        classes: Class names in the order of the outputs.
        preset: Name of the preset in its `preprocess` layer.
        **about: Anything else worth keeping: `dataset="...", licence="..."`.

    Raises:
        StorageError: The disk is full or the folder cannot be written.
    """
    arrays = {key: np.ascontiguousarray(variable.numpy()) for key, variable in variables(model).items()}
    metadata = {"net": net, "classes": json.dumps(list(classes)), "preset": preset, **about}
    with replacing(path) as aside:
        save_file(arrays, aside, metadata=metadata)
        os.chmod(aside, 0o666 & ~_umask())  # safetensors makes files that only their owner can read


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read(path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    Raises:
        WeightsError: It is missing, truncated or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {str(path)!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{str(path)!r} is not a whole safetensors file ({error}): get it again") from error


def assign(model, arrays: dict, what: str, *, unused_ok: bool = False) -> None:
    """Give every weight of the model its array. Nothing is changed unless all of them fit.

    Args:
        model: Any built Keras model.
        arrays: Path of a variable -> array.
        what: What the arrays are, for the error message.
        unused_ok: Allow arrays that the model has no place for, as a backbone has none for the head's.

    Raises:
        WeightsError: Lists variables without an array, arrays without a variable, and differing shapes.
    """
    places = variables(model)
    missing = sorted(places.keys() - arrays.keys())
    unused = [] if unused_ok else sorted(arrays.keys() - places.keys())
    shapes = [
        f"{key}: {tuple(arrays[key].shape)} in the file, {tuple(places[key].shape)} in the model"
        for key in sorted(places.keys() & arrays.keys())
        if tuple(arrays[key].shape) != tuple(places[key].shape)
    ]
    problems = [
        f"{len(found)} {title}: {'; '.join(found[:5])}{' ...' if len(found) > 5 else ''}"
        for title, found in (("not in the file", missing), ("not in the model", unused), ("of another shape", shapes))
        if found
    ]
    if problems:
        raise WeightsError(
            f"{what} does not fit the model {model.name!r}; {' | '.join(problems)}. "
            "Build the model with the input_size and channels that the weights were trained with"
        )
    for key, variable in places.items():
        variable.assign(arrays[key])


def load(model, record: Weights, *, unused_ok: bool = False) -> None:
    """Load the weights of a record, from the installed package, the cache or the network, after checking their hash.

    Raises:
        WeightsError: As for `locate`, `read` and `assign`.
    """
    arrays, _ = read(locate(record))
    assign(model, arrays, f"{record.net}:{record.tag}", unused_ok=unused_ok)
