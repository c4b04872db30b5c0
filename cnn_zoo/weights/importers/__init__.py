"""Weights that other projects published, in their own file formats and under their own names.

A `Layout` says how to read such a file, which of its layers are which of ours, and how their arrays become ours. `convert` applies one and
accounts for every array: nothing is left over, nothing is missing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn_zoo.errors import InputError, WeightsError
from cnn_zoo.registry import is_head


class Layout(NamedTuple):
    """How one project writes the weights of its nets.

    Attributes:
        read: `read(path) -> {their layer: {their variable: array}}`. Raises WeightsError for a damaged file.
        twins: `twins(net, their layers) -> {our layer: (their layer, ...)}` for every layer with weights that the published net has, its
            head included. Raises WeightsError when the names are not those of the net.
        values: `values(model, our layer, [their variables, ...]) -> {our variable: array}`, the arrays in the order of axes of Keras.
        suffixes: Endings of such files, in lower case.
    """

    read: Callable
    twins: Callable
    values: Callable
    suffixes: tuple[str, ...]


LAYOUTS: dict[str, Layout] = {}


def convert(model, net: str, path, layout: str) -> dict[str, np.ndarray]:
    """The arrays of a published file under the names of our variables.

    Args:
        model: A net of the zoo with the published input size and channels, whole or as a backbone.
        net: Its key in the registry.
        path: The file.
        layout: Key of `LAYOUTS`.

    Returns:
        Path of a variable -> array, for `weights.assign`. Shapes are those of the file.

    Raises:
        InputError: Unknown layout.
        WeightsError: The file is missing or damaged, or it is of another net: the message lists what differs.
    """
    if layout not in LAYOUTS:
        raise InputError(f"there is no layout {layout!r}; there are {', '.join(sorted(LAYOUTS))}")
    read, twins_of, values, _ = LAYOUTS[layout]
    if not Path(path).is_file():
        raise WeightsError(f"there is no weights file {str(path)!r}")
    theirs = read(Path(path))
    twins = twins_of(net, list(theirs))
    ours = {layer.name: layer for layer in model.layers if layer.weights}
    problems = {
        "in the file, unknown to the net": theirs.keys() - {name for names in twins.values() for name in names},
        "not in the file": (ours.keys() - twins.keys())
        | {name for names in twins.values() for name in names if name not in theirs},
        "not in the model": {name for name in twins.keys() - ours.keys() if not is_head(name)},
    }
    if any(problems.values()):
        said = [
            f"{len(names)} layers {what}: {', '.join(sorted(names)[:5])}" for what, names in problems.items() if names
        ]
        raise WeightsError(f"{str(path)!r} does not hold the weights of {net!r}: {' | '.join(said)}")
    return {
        f"{name}/{variable}": array
        for name, layer in ours.items()
        for variable, array in values(model, layer, [theirs[twin] for twin in twins[name]]).items()
    }


from cnn_zoo.weights.importers import (  # noqa: E402  (they belong to this package)
    caffe,
    channels_first,
    darknet,
    image_classifiers,
    keras_applications,
    keras_h5,
    keras_names,
    onnx_file,
    pytorch,
)

HDF5 = (".h5", ".hdf5", ".keras")
LAYOUTS["keras"] = Layout(keras_h5.read, keras_applications.keras_twins, keras_names.values, HDF5)
LAYOUTS["image-classifiers"] = Layout(keras_h5.read, image_classifiers.twins, keras_names.values, HDF5)
LAYOUTS["efficientnet"] = Layout(keras_h5.read, keras_applications.efficientnet_twins, keras_names.values, HDF5)
LAYOUTS["torch"] = Layout(pytorch.read, pytorch.twins, channels_first.values, (".safetensors", ".pth", ".pt", ".bin"))
LAYOUTS["onnx"] = Layout(onnx_file.read, onnx_file.twins, channels_first.values, (".onnx",))
LAYOUTS["caffe"] = Layout(caffe.read, caffe.twins, channels_first.values, (".caffemodel",))
LAYOUTS["darknet"] = Layout(darknet.read, darknet.twins, channels_first.values, (".weights",))
