"""Readers of the files that Keras writes: `{layer: {variable: array}}`, whatever the version.

* Legacy HDF5 (Keras 1 and 2, and Keras 3's `save("x.h5")`): a group a layer, listed in the attribute `layer_names`;
  its arrays are listed in `weight_names`. Both are split into `layer_names0`, `layer_names1`, ... where they exceed HDF5's 64 kB.
* `.weights.h5` (Keras 3, and 2.12 and later), also inside a `.keras` archive: `layers/<class>_<i>/vars/<j>`, numbered in the order of
  `model.layers`. Newer Keras tells the layer's name in an attribute; for older ones only an archive's `config.json` does. A layer whose
  name nobody tells is called `layers/<class>_<i>` here. The variables are called "0", "1", ...: the order of the layer's `weights`.
"""

import io
import json
import re
import zipfile
from contextlib import contextmanager

import h5py
import numpy as np

from cnn_zoo.errors import WeightsError

NAMELESS = "layers/"
# Keras 1's names; its `running_std` held the variance.
KERAS1 = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}


def read(path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a `.h5`, `.weights.h5` or `.keras` file by the layer's and the variable's name; layers without arrays are left out.

    Raises:
        WeightsError: The file is damaged, is of another format, or holds no layers of a Keras model.
    """
    try:
        with _opened(path) as (file, names):
            root = file["model_weights"] if "model_weights" in file else file
            if _attribute(root, "layer_names"):
                found = _legacy(root)
            elif layers := file.get("layers", file.get("_layer_checkpoint_dependencies")):  # the latter: Keras 2.12
                found = _current(layers, names)
            else:
                raise WeightsError(
                    f"{str(path)!r} is an HDF5 file, but not one in which Keras saved a model or its weights"
                )
    except (OSError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{str(path)!r} is not a whole Keras file ({error}): get it again") from error
    if not found:
        raise WeightsError(f"{str(path)!r} has no layer with weights: save the model again with save_weights")
    return found


def names_by_place(layers) -> dict[str, str]:
    """`{"conv2d_3": name}` for `(class, name)` pairs in the order of `model.layers`: how a `.weights.h5` file numbers them."""
    count, found = {}, {}
    for kind, name in layers:
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)).lower()
        i = count[kind] = count.get(kind, -1) + 1
        found[f"{kind}_{i}" if i else kind] = name
    return found


@contextmanager
def _opened(path):
    """The HDF5 file, and the names of its layers by place where an archive knows them."""
    if not zipfile.is_zipfile(path):
        with h5py.File(path) as file:
            yield file, {}
        return
    with zipfile.ZipFile(path) as archive:
        layers = json.loads(archive.read("config.json"))["config"].get("layers", [])
        names = names_by_place((layer["class_name"], layer["config"]["name"]) for layer in layers)
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            yield file, names


def _attribute(group, name):
    """A list of strings, whole or in numbered chunks, of bytes or text."""
    chunks = [group.attrs[name]] if name in group.attrs else []
    while name not in group.attrs and f"{name}{len(chunks)}" in group.attrs:
        chunks.append(group.attrs[f"{name}{len(chunks)}"])
    return [item.decode() if isinstance(item, bytes) else str(item) for chunk in chunks for item in chunk]


def _legacy(root):
    found = {}
    for layer in _attribute(root, "layer_names"):
        paths = _attribute(root[layer], "weight_names")
        scopes = {path.rpartition("/")[0] for path in paths}
        for path in paths:
            scope = path.rpartition("/")[
                0
            ]  # one for all variables of a layer; several are those of a model inside the model
            name = layer if len(scopes) == 1 else scope.rpartition("/")[2]
            found.setdefault(name, {})[_variable(name, path)] = np.asarray(root[layer][path])
    return found


def _variable(layer, path):
    """`scope/conv1/kernel_1:0` -> `kernel`, and Keras 1's `conv1_W_1:0` likewise."""
    name = re.sub(r"(_\d+)?(:\d+)?$", "", path.rpartition("/")[2])
    short = name.removeprefix(f"{layer}_")
    return KERAS1.get(short, short)


def _current(layers, names, within=""):
    found = {}
    for key, group in layers.items():
        place, variables = within + key, group.get("vars", {})
        if len(variables):
            name = variables.attrs.get("name") or names.get(place) or NAMELESS + place
            found[name] = {i: np.asarray(variables[i]) for i in sorted(variables, key=int)}
        if "layers" in group:  # a model inside the model
            found.update(_current(group["layers"], names, f"{place}/"))
    return found
