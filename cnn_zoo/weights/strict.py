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
from cnn_zoo.registry import Weights, is_head
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
    channels = model.get_layer("preprocess").input.shape[-1]  # three where a gray image is repeated first
    metadata = {"net": net, "classes": json.dumps(list(classes)), "preset": preset, "channels": str(channels), **about}
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


def adapt_channels(model, arrays: dict) -> dict:
    """The arrays with those that read the channels of the image repeated to the model's number of channels.

    Kernels are repeated in turn (R, G, B, R, ...) and multiplied by `channels of the file / channels of the model`, so that an image whose
    channels are all alike excites the layer as before; BatchNorm on the image itself is repeated alike. All else is passed on untouched.
    """
    adapted = dict(arrays)
    for path, variable in variables(model).items():
        if path not in arrays or is_head(path) or arrays[path].ndim != len(variable.shape):
            continue
        array, axis = arrays[path], {4: 2, 1: 0}.get(arrays[path].ndim)
        differing = [i for i, (a, b) in enumerate(zip(array.shape, variable.shape, strict=True)) if a != b]
        if differing == [axis] and variable.shape[axis] == model.input_shape[-1]:
            had, wanted = array.shape[axis], variable.shape[axis]
            array = np.take(array, np.arange(wanted) % had, axis=axis)
            adapted[path] = array * np.float32(had / wanted) if array.ndim == 4 else array
    return adapted


def assign(model, arrays: dict, what: str, *, headless: bool = False) -> None:
    """Give every weight of the model its array. Nothing is changed unless all of them fit.

    Args:
        model: Any built Keras model.
        arrays: Path of a variable -> array.
        what: What the arrays are, for the error message.
        headless: The model is a backbone: the arrays of a head are passed over.

    Raises:
        WeightsError: Lists variables without an array, arrays without a variable, and differing shapes.
    """
    places = variables(model)
    missing = sorted(places.keys() - arrays.keys())
    unused = sorted(key for key in arrays.keys() - places.keys() if not (headless and is_head(key)))
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
            "Build the model with the input_size and classes that the weights were trained with, "
            "or put a new head on them with build_classifier"
        )
    for key, variable in places.items():
        variable.assign(arrays[key])


def load(model, record: Weights, *, headless: bool = False) -> None:
    """Load the weights of a record, from the installed package, the cache or the network, after checking their hash.

    Raises:
        WeightsError: As for `locate`, `read` and `assign`.
    """
    path = locate(record)
    if record.layout == "cnn_zoo":
        arrays, _ = read(path)
    else:
        from cnn_zoo.weights.importers import convert  # formats of others: needed seldom

        arrays = convert(model, record.net, path, record.layout)
    assign(model, adapt_channels(model, arrays), f"{record.net}:{record.tag}", headless=headless)
