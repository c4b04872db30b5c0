"""What the layouts of Keras files share: whose layers without names are which of ours, and how their variables become ours.

Such files hold layers called `conv2d`, `conv2d_1`, ... The numbers start anywhere (a file keeps those of the session that wrote it) and grow in the
order in which the layers were made. Their order in the file is another one, by depth in the graph.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from cnn_zoo.errors import WeightsError
from cnn_zoo.weights.importers.keras_h5 import NAMELESS

AUTOMATIC = r"(conv2d|batch_normalization|dense)(?:_(\d+))?"
LAST = {"predictions": "logits", "probs": "logits", "fc1000": "logits", "Logits": "logits", "conv_preds": "logits"}
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


class Names(NamedTuple):
    """The names of one family.

    Attributes:
        rename: `rename(net, their layer) -> our layer`, or None for what the net has not. `/` in their names is `_` here: Keras 3 allows no `/`.
        unnamed: `unnamed(net) -> {kind: [(our layer, how many of theirs), ...]}`, in the order in which they are made.
    """

    rename: Callable
    unnamed: Callable = lambda net: {}


def pair(net: str, theirs, names: Names) -> dict[str, tuple[str, ...]]:
    """The twins of our layers among `theirs`. What is unknown or double is left out, for `convert` to report.

    Raises:
        WeightsError: The layers without names of their own are not as many as the net has, or the file tells no names at all.
    """
    refuse_nameless(net, theirs)
    unnamed, found, numbered = names.unnamed(net), {}, {}
    for name in theirs:
        automatic = re.fullmatch(AUTOMATIC, name)
        if automatic and automatic[1] in unnamed:
            numbered.setdefault(automatic[1], []).append((int(automatic[2] or 0), name))
        elif ours := LAST.get(name) or names.rename(net, name.replace("/", "_")):
            found.setdefault(ours, (name,))
    for kind, ours in unnamed.items():
        queue = [name for _, name in sorted(numbered.get(kind, []))]
        expected = sum(count for _, count in ours)
        if kind == "dense" and not queue:
            continue  # a file without top
        if len(queue) != expected:
            raise WeightsError(f"{net!r} has {expected} layers {kind}, the file {len(queue)}: it is of another net")
        for layer, count in ours:
            found[layer], queue = tuple(queue[:count]), queue[count:]
    return found


def refuse_nameless(net: str, theirs) -> None:
    """Raise WeightsError when the file tells no names and they could not be found out otherwise."""
    if any(name.startswith(NAMELESS) for name in theirs):
        raise WeightsError(
            f"the file does not tell the names of its layers, and their order is not that of {net!r} in Keras {keras.__version__}: "
            "load it with the program that wrote it, and save it there with model.save('net.h5')"
        )


def family(net: str, families: dict, layout: str) -> Names:
    """The names of a net's family. Raises WeightsError when the layout has no such net."""
    for pattern, names in families.items():
        if re.fullmatch(pattern, net):
            return names
    raise WeightsError(
        f"the layout {layout!r} has no net that computes what {net!r} does: name another layout or another net"
    )


def values(model, layer, theirs):
    """The variables of one of our layers from those of its twins.

    Several twins are the groups of one convolution; the second twin of EfficientNet's stem is its normalisation of pixels.

    Raises:
        WeightsError: Groups that differ, or a normalisation that is not ImageNet's.
    """
    places = {variable.name: len(variable.shape) for variable in layer.weights}
    if layer.name == "stem_conv" and len(theirs) == 2:
        *theirs, statistics = theirs
        _check(statistics)
    theirs = [_called(variables, list(places)) for variables in theirs]
    if len({tuple((name, array.shape) for name, array in variables.items()) for variables in theirs}) > 1:
        raise WeightsError(f"the groups of {layer.name!r} differ in the file: it is damaged or of another net")
    found = dict(theirs[0])
    if len(theirs) > 1:
        found = {name: np.concatenate([variables[name] for variables in theirs], -1) for name in found}
    for name, array in found.items():
        if places.get(name) == 2 and array.shape[:2] == (1, 1):  # a 1x1 convolution of the pooled map: our dense layer
            found[name] = array[0, 0]
    if "kernel" in found and _takes_bgr(model, layer):
        found["kernel"] = found["kernel"][:, :, ::-1]
    return found


def _takes_bgr(model, layer):
    """Whether it is the first layer of a Caffe net, told by pixels of which the mean is subtracted and no more: these were trained on BGR."""
    if layer is not next(layer for layer in model.layers if layer.weights):
        return False
    pixels = model.get_layer("preprocess")
    return np.allclose(pixels.scale, 1) and np.all(np.asarray(pixels.offset) < 0)


def _called(variables, places):
    """Their variables under our names: numbers mean the order of `weights`; Keras 2 said `depthwise_kernel`."""
    if len(variables) == len(places) and (len(places) == 1 or all(name.isdigit() for name in variables)):
        return dict(zip(places, variables.values()))
    if "pointwise_kernel" in variables:
        return variables
    return {"kernel" if name == "depthwise_kernel" else name: array for name, array in variables.items()}


def _check(statistics):
    """Keras' published files hold the deviation in the variable `variance`, and its nets built for them divide by its root twice; a net that was
    adapted to ImageNet holds the variance itself."""
    found = [np.ravel(array) for array in statistics.values()][:2]
    if [array.shape for array in found] != [(3,), (3,)] or not any(
        np.allclose(found, [IMAGENET[0], IMAGENET[1] ** power], rtol=1e-3) for power in (1, 2)
    ):
        said = ", ".join(f"{name} {np.ravel(array)[:3].tolist()}" for name, array in statistics.items())
        raise WeightsError(
            f"the file's net normalises pixels with {said}, not with ImageNet's mean and deviation as ours does: "
            "use the net of keras.applications with this file"
        )
