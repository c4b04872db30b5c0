"""Arrays of a framework that puts channels first (PyTorch, ONNX, Caffe, Darknet), in the order of axes of Keras."""

import numpy as np
from keras import layers as L

from cnn_zoo.errors import WeightsError

CONV = {"kernel": "weight", "bias": "bias"}
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def values(model, layer, theirs: list[dict]) -> dict[str, np.ndarray]:
    """The variables of `layer` from those of its twin.

    Args:
        model: The model that holds the layer.
        layer: A convolution, depthwise convolution, dense layer or BatchNorm.
        theirs: The variables of its only twin under PyTorch's names: `weight` (a convolution's is output, input, height, width; a dense layer's is
            output, input), `bias`, `running_mean`, `running_var`.

    Returns:
        Variable -> float32 array; half precision is widened here, once.

    Raises:
        WeightsError: The twin has other variables than the layer, or weights of another number of axes.
    """
    known = NORM if isinstance(layer, L.BatchNormalization) else CONV
    ours = [variable.name for variable in layer.weights]
    if [set(twin) for twin in theirs] != [{known.get(variable) for variable in ours}]:
        found = " and ".join(", ".join(sorted(twin)) for twin in theirs)
        raise WeightsError(
            f"the layer {layer.name!r} has {', '.join(sorted(ours))}, its twin in the file has {found}: "
            "it is another net, or another dialect of it"
        )
    (twin,) = theirs
    return {
        variable: np.ascontiguousarray(_turned(model, layer, variable, np.asarray(twin[known[variable]])), np.float32)
        for variable in ours
    }


def _turned(model, layer, variable, array):
    if variable != "kernel":
        return array
    if isinstance(layer, L.Dense):
        if array.ndim == 4:  # a convolution over the whole map, which is the same function
            return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
        flatten = next((f for f in model.layers if isinstance(f, L.Flatten) and f.output is layer.input), None)
        if array.ndim == 2 and flatten is not None:  # the pixels of each channel together -> the channels of each pixel
            height, width, channels = flatten.input.shape[1:]
            if array.shape[1] == height * width * channels:
                array = array.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(array.shape)
        axes = (1, 0)
    elif isinstance(layer, L.DepthwiseConv2D):
        axes = (2, 3, 0, 1)
    else:
        axes = (2, 3, 1, 0)
    if array.ndim != len(axes):
        raise WeightsError(
            f"the weights of {layer.name!r} have {len(axes)} axes, those in the file {array.ndim}: {array.shape}"
        )
    return array.transpose(axes)
