"""cnn_zoo: every CNN of a first course and of everyday applied science, on current Keras.

    from cnn_zoo import build_lenet, export, fit, load

    data = load("digits", size=28)
    model = build_lenet()
    run = fit(model, data, "lecture")
    export(model, "lenet_savedmodel", classes=data.classes)

Importing the package imports Keras and registers its layers, so that `keras.saving.load_model` finds them. What needs TensorFlow or
Matplotlib is imported when it is first used.
"""

import importlib
import os
import sys

from cnn_zoo.errors import (
    DataError,
    ExportError,
    InputError,
    MissingExtraError,
    StorageError,
    TrainingStopped,
    WeightsError,
    ZooError,
)
from cnn_zoo.version import __version__

_HOMES = {  # public name -> the module that it is found in
    "Info": "assemble",
    "backbone": "assemble",
    "build": "assemble",
    "build_classifier": "assemble",
    "build_lenet": "assemble",
    "info": "assemble",
    "taps": "assemble",
    "build_named": "segmenting",
    "build_segmenter": "segmenting",
    "build_segnet": "segmenting",
    "build_unet": "segmenting",
    "list_decoders": "segmenting",
    "decode": "imagenet",
    "PRESETS": "registry",
    "SPECS": "registry",
    "WEIGHTS": "registry",
    "Preset": "registry",
    "Spec": "registry",
    "Weights": "registry",
    "list_models": "registry",
    "Data": "data",
    "Split": "data",
    "load": "data",
    "open_data": "data",
    "RunReport": "run_report",
    "report": "run_report",
    "calibrate": "calibration",
    "with_temperature": "calibration",
    "pipeline": "data",
    "RECIPES": "train",
    "Evaluation": "train",
    "MaskEvaluation": "train",
    "Recipe": "train",
    "Run": "train",
    "evaluate": "train",
    "fine_tune": "train",
    "fit": "train",
    "freeze": "freezing",
    "distill": "train",
    "LayerWise": "optimizers",
    "learn_without_forgetting": "train",
    "lr_find": "train",
    "check": "train",
    "read_curves": "train",
    "stages": "freezing",
    "stochastic_depth": "residual",
    "load_model": "train",
    "recipe": "train",
    "Predictions": "prediction",
    "predict": "prediction",
    "Masks": "mask_prediction",
    "predict_mask": "mask_prediction",
    "predict_tiled": "mask_prediction",
    "segment_then_classify": "mask_prediction",
    "Palette": "masks",
    "check_masks": "masks",
    "class_weights_from": "masks",
    "read_mask": "masks",
    "kmeans_segment": "classic",
    "Export": "exporting",
    "export": "exporting",
}

_MODULES = ("explain", "losses", "mask_plots", "metrics", "plots", "table", "weights")

__all__ = [
    "DataError",
    "ExportError",
    "InputError",
    "MissingExtraError",
    "StorageError",
    "TrainingStopped",
    "WeightsError",
    "ZooError",
    "__version__",
    *_MODULES,
    *_HOMES,
]


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"cnn_zoo.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'cnn_zoo' has no attribute {name!r}")
    importlib.import_module("cnn_zoo.assemble")  # fills the registry
    value = getattr(importlib.import_module(f"cnn_zoo.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)


if os.path.basename(sys.argv[0] if sys.argv else "").partition(".")[0] != "cnn-zoo":
    # Layers, losses, metrics and optimizers are then known to keras.saving. The command line alone waits with it, to answer --help at once.
    for _module in ("assemble", "losses", "metrics", "optimizers"):
        importlib.import_module(f"cnn_zoo.{_module}")
