"""cnn_zoo: every CNN of a first course and of everyday applied science, on current Keras.

    from cnn_zoo import build_lenet, load, fit, export

    data = load("digits", size=(28, 28), validation=0.2)
    model = build_lenet()
    run = fit(model, data, "lecture")
    export(model, "lenet_savedmodel", classes=data.classes)

Importing the package imports Keras and nothing heavier: what needs TensorFlow or Matplotlib is loaded on first use.
"""

import importlib

from cnn_zoo.assemble import Info, backbone, build, build_lenet, info
from cnn_zoo.errors import (
    DataError,
    InputError,
    MissingExtraError,
    StorageError,
    TrainingStopped,
    WeightsError,
    ZooError,
)
from cnn_zoo.registry import PRESETS, SPECS, WEIGHTS, Preset, Spec, Weights, list_models
from cnn_zoo.version import __version__ as __version__
from cnn_zoo.weights import register_shipped

_LAZY = {  # public name -> the module that is imported when the name is first used
    "Data": "cnn_zoo.data",
    "Split": "cnn_zoo.data",
    "load": "cnn_zoo.data",
    "pipeline": "cnn_zoo.data",
    "RECIPES": "cnn_zoo.train",
    "Recipe": "cnn_zoo.train",
    "Run": "cnn_zoo.train",
    "evaluate": "cnn_zoo.train",
    "fit": "cnn_zoo.train",
    "recipe": "cnn_zoo.train",
    "predict": "cnn_zoo.predict",
    "export": "cnn_zoo.export",
    "plots": None,
}

__all__ = [
    "PRESETS",
    "SPECS",
    "WEIGHTS",
    "DataError",
    "Info",
    "InputError",
    "MissingExtraError",
    "Preset",
    "Spec",
    "StorageError",
    "TrainingStopped",
    "Weights",
    "WeightsError",
    "ZooError",
    "backbone",
    "build",
    "build_lenet",
    "info",
    "list_models",
    *_LAZY,
]

register_shipped()


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'cnn_zoo' has no attribute {name!r}")
    if _LAZY[name] is None:
        return importlib.import_module(f"cnn_zoo.{name}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value  # once imported, `predict` and `export` mean the functions, not the modules they live in
    return value


def __dir__():
    return sorted(__all__)
