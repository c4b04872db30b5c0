"""Finer maps from a net as it is: strides are taken out, and what follows is dilated so that every kernel meets the pixels that it was trained on."""

import keras
from keras import layers as L

from cnn_zoo.layers import SamePadding2D
from cnn_zoo.segmentation_layers import DilatedPooling2D

POOLS = {L.MaxPooling2D: "max", L.AveragePooling2D: "avg"}


def dilated(model: keras.Model, stride: int) -> keras.Model:
    """A copy of a net that never gets coarser than `stride`, with the same names, the same shapes of weights, and new random weights.

    Its maps contain those of the net: every second (fourth, ...) pixel, from the first on, is a pixel of the net's, to the last bit but for the order
    of sums. This holds for sizes that the net's strides divide. Means over the whole map, such as those of squeeze-and-excitation, and attention
    see more pixels than before, and are not the same.

    Args:
        model: A Functional model of convolutions, poolings and the like, from one image to any number of maps.
        stride: A power of 2.

    Returns:
        A Functional model on the same `keras.Input` with outputs of the same structure.

    Source: Chen et al. 2017, "Rethinking atrous convolution for semantic image segmentation", section 3.1.
    """
    strides, padded = {id(model.inputs[0]): 1}, set()  # by the ids of tensors
    kept = []  # the tensors, so that their ids stay theirs

    def call(op, *args, **kwargs):
        tensors = [leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, keras.KerasTensor)]
        before, config = max(strides[id(tensor)] for tensor in tensors), op.get_config()
        after = before * pair(config.get("strides", 1))[0]
        layers = rebuilt(op, config, before, after, stride, padded=id(tensors[0]) in padded)
        y = layers[0](*args, **kwargs)
        for layer in layers[1:]:
            y = layer(y)
        strides[id(y)] = after
        if isinstance(op, L.ZeroPadding2D):
            padded.add(id(y))
        kept.append(y)
        return y

    return keras.models.clone_model(model, input_tensors=model.input, clone_function=lambda op: op, call_function=call)


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def rebuilt(op, config, before, after, stride, *, padded):
    """The layers that stand for one layer where the strides before it multiply to `before`, and with its own to `after`.

    Args:
        padded: Whether its input comes from a `ZeroPadding2D`, which says all there is to say about its border.
    """
    if not isinstance(op, L.Layer):  # an operation such as `a + b`
        return [type(op).from_config(config)]
    dilation = max(1, before // stride)  # distance of what were neighbours
    step = max(1, min(after, stride) // before)  # what is left of its stride
    about, kind = {"name": op.name, "dtype": op.dtype_policy}, type(op)
    if isinstance(op, SamePadding2D) and before >= stride:
        return [L.ZeroPadding2D(((0, 2 * dilation), (0, 2 * dilation)), **about)]  # on even sizes nothing lies above
    if kind in (L.ZeroPadding2D, L.Cropping2D):
        key = "padding" if kind is L.ZeroPadding2D else "cropping"
        config[key] = [[dilation * side for side in sides] for sides in config[key]]
    if "strides" not in config or (dilation == 1 and after // before == step):
        return [kind.from_config(config)]
    window, own = pair(config["pool_size" if kind in POOLS else "kernel_size"]), after // before
    borders = [(0, 0), (0, 0)]
    if config["padding"] == "same" or (kind in POOLS and window == (own, own) and not padded):
        above = [max(0, size - own) // 2 for size in window]  # as "same" has at this stride, on sizes that it divides
        borders = [(dilation * a, dilation * (max(0, size - step) - a)) for size, a in zip(window, above)]
    if kind in POOLS:
        if step > 1:
            return [kind.from_config(config | {"strides": step})]
        return [DilatedPooling2D(window[0], dilation, POOLS[kind], borders[0], **about)]
    config |= {"strides": step, "padding": "valid"}
    if max(window) > 1:
        config["dilation_rate"] = tuple(dilation * rate for rate in pair(config["dilation_rate"]))
    if any(above != below for above, below in borders):
        border = L.ZeroPadding2D(borders, name=f"{op.name}_border", dtype=op.dtype_policy)
        return [border, kind.from_config(config)]
    if any(map(any, borders)):
        config["padding"] = "same"
    return [kind.from_config(config)]
