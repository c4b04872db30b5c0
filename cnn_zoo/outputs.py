"""What `fit`, `evaluate`, `predict` and `export` ask of a Keras model, whoever built it: is it a classifier or a segmenter?"""

import keras
import numpy as np

from cnn_zoo.errors import InputError

# In the names of layers that only move, cut or stretch what they are given.
SHAPING = ("crop", "resiz", "pad", "identity", "flatten", "reshape", "cast", "upsampling", "dropout", "permute", "slice", "getitem")  # fmt: skip


def check_classifier(model) -> None:
    """Raise InputError unless the model goes from `(batch, height, width, channels)` to `(batch, classes)`."""
    if is_segmenter(model):
        raise InputError(
            f"the model gives {model.output_shape}, a class a pixel, and a classifier gives (batch, classes); "
            "predict_mask and evaluate are for segmenters"
        )


def check_segmenter(model) -> None:
    """Raise InputError unless the model goes from `(batch, height, width, channels)` to `(batch, height, width, classes)`."""
    if not is_segmenter(model):
        raise InputError(
            f"the model goes from {model.input_shape} to {model.output_shape}, and a segmenter goes from (batch, height, width, channels) "
            "to (batch, height, width, classes)"
        )


def is_segmenter(model) -> bool:
    """True for a model from images to `(batch, height, width, classes)`, False for one to `(batch, classes)`; InputError for any other."""
    if not isinstance(model, keras.Model) or not model.built:
        raise InputError(f"a built keras.Model is expected, not {type(model).__name__}; build() makes one")
    if not getattr(model, "inputs", None):
        raise InputError(
            f"{type(model).__name__} does not say what its input is: begin a Sequential with keras.Input(shape), "
            "and wrap a subclassed model x = keras.Input(shape); keras.Model(x, model(x))"
        )
    if not isinstance(model, keras.Sequential) and (isinstance(model.input, dict) or isinstance(model.output, dict)):
        raise InputError("the model's inputs or outputs are a dictionary; one plain tensor each is expected")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs; one of each is expected"
        )
    if len(model.input_shape) != 4:
        raise InputError(
            f"the model takes inputs of shape {model.input_shape}, not images (batch, height, width, channels)"
        )
    if len(model.output_shape) not in (2, 4):
        raise InputError(
            f"the model gives {model.output_shape}; a classifier gives (batch, classes), a segmenter (batch, height, width, classes)"
        )
    return len(model.output_shape) == 4


def output_kind(model) -> str:
    """`"softmax"`, `"sigmoid"` or `"logits"`, told by the activation of the model's last layer.

    A model as last layer is looked into, and layers that only move, cut or stretch what they are given are passed over.
    """
    for last in reversed(model.layers if isinstance(model, keras.Sequential) else model.operations):
        if isinstance(last, keras.Model):
            return output_kind(last)
        name = getattr(getattr(last, "activation", None), "__name__", type(last).__name__).lower()
        if name in ("softmax", "sigmoid"):
            return name
        linear = name == "linear" and isinstance(last, keras.layers.Activation)
        if not linear and not any(word in name for word in SHAPING):
            return "logits"
    return "logits"


def class_names(model, classes=None) -> tuple[str, ...]:
    """The names as a tuple, "0", "1", ... where none are given; InputError when there are not as many as classes.

    A segmenter with one output tells two classes apart, "background" and "object".
    """
    two = is_segmenter(model) and model.output_shape[-1] == 1
    count = model.output_shape[-1]
    if classes is None:
        classes = ("background", "object") if two else range(count)
    classes = tuple(map(str, classes))
    if len(classes) != (2 if two else count):
        raise InputError(f"the model tells {2 if two else count} classes apart and {len(classes)} names are given")
    return classes


def most_probable(probabilities) -> np.ndarray:
    """Class ids, uint8 (uint16 above 256 classes); of one channel, whether its probability is above one half."""
    if probabilities.shape[-1] == 1:
        return (probabilities[..., 0] > 0.5).astype("uint8")
    return probabilities.argmax(-1).astype("uint8" if probabilities.shape[-1] <= 256 else "uint16")
