"""Weights of segmentation_models' own models, from their files or alive, into ours of the same layers.

Layers are paired by name, `_` standing for `/`. Those that Keras named, `conv2d_7`, are paired by the order of their numbers, which is that in which
they were made: the numbers themselves depend on what else was built in the session. One grouped convolution of ours has as many twins as groups.
"""

import re
from pathlib import Path

import keras
import numpy as np

from cnn_zoo.errors import InputError, WeightsError
from cnn_zoo.weights.importers import keras_h5
from cnn_zoo.weights.importers.keras_names import AUTOMATIC
from cnn_zoo.weights.strict import assign


def load_weights(model: keras.Model, path) -> None:
    """Load a file of weights, or of a whole model: `.h5` of any version, `.weights.h5` or `.keras`, of the old package or of this one.

    Args:
        model: What `Unet`, `FPN`, `Linknet` or `PSPNet` made, with the same arguments as the model in the file.
        path: The file.

    Raises:
        WeightsError: It is missing or damaged, or does not fit: the message lists what differs, and nothing was changed.
    """
    if not Path(path).is_file():
        raise WeightsError(f"there is no weights file {str(path)!r}")
    theirs = keras_h5.read(path)
    if any(name.startswith(keras_h5.NAMELESS) for name in theirs):
        raise WeightsError(
            f"{str(path)!r} does not tell the names of its layers: load it with the program that wrote it, and save it there with "
            "model.save('model.h5')"
        )
    fit(model, theirs, repr(str(path)))


def accept_old_files(model) -> None:
    """Let `model.load_weights(path)` be `load_weights(model, path)`; with other arguments it stays Keras' own, which goes by the order of layers."""
    native = model.load_weights

    def load(filepath, **kwargs):
        return native(filepath, **kwargs) if kwargs else load_weights(model, filepath)

    model.load_weights = load


def fit(model, theirs, what) -> dict[str, tuple[str, ...]]:
    """Give `{their layer: {variable: array}}` to a model; returns `{our layer: its twins}`. Raises WeightsError when anything is left over."""
    ours = {layer.name: layer for layer in model.layers if layer.weights}
    pairs = twins(ours, theirs)
    taken = {name for names in pairs.values() for name in names}
    problems = [
        f"{len(names)} layers {where}: {', '.join(sorted(names)[:5])}{' ...' if len(names) > 5 else ''}"
        for where, names in (
            ("not in the model", theirs.keys() - taken),
            ("not in the file", ours.keys() - pairs.keys()),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"{what} does not fit the model {model.name!r}; {' | '.join(problems)}. "
            "Build it with the backbone and the arguments that the weights were trained with"
        )
    arrays = {}
    for name, names in pairs.items():
        found = values(ours[name], [theirs[twin] for twin in names], what)
        arrays |= {variable.path: found[variable.name] for variable in ours[name].weights}
    assign(model, arrays, what)
    return pairs


def twins(ours, theirs) -> dict[str, tuple[str, ...]]:
    """`{our layer: (their layer, ...)}` as far as they can be paired."""
    numbered, found = automatic(theirs), {}
    for kind in {kind for kind, _, _ in numbered}:
        queue = [name for of, _, name in sorted(numbered) if of == kind]
        layers = [name for of, _, name in sorted(automatic(ours)) if of == kind]
        counts = [getattr(ours[name], "groups", 1) for name in layers]
        if len(queue) == len(layers):  # a file of ours, or no grouped convolution
            counts = [1] * len(layers)
        if sum(counts) == len(queue):
            for name, count in zip(layers, counts):
                found[name], queue = tuple(queue[:count]), queue[count:]
    numbered = {name for _, _, name in numbered}
    for name in theirs:
        if name not in numbered and (same := name.replace("/", "_")) in ours:
            found[same] = (name,)
    return found


def automatic(names):
    """`(kind, number, name)` of the names that Keras gave."""
    return [(at[1], int(at[2] or 0), name) for name in names if (at := re.fullmatch(AUTOMATIC, name))]


def values(layer, theirs, what):
    """The variables of one of our layers from those of its twins."""
    names = [variable.name for variable in layer.weights]
    called = []
    for variables in theirs:
        if all(name.isdigit() for name in variables):  # numbered in the order of `weights`
            variables = dict(zip(names, variables.values()))
        called.append({name.replace("depthwise_", ""): array for name, array in variables.items()})
    if any(each.keys() != set(names) for each in called):
        raise WeightsError(
            f"{what} does not fit: the layer {layer.name!r} has {', '.join(names)}, in the file {', '.join(called[0])}"
        )
    if len(called) == 1:
        return called[0]
    return {name: np.concatenate([each[name] for each in called], axis=-1) for name in names}


def variables_of(model) -> dict[str, dict[str, np.ndarray]]:
    """The weights of a living model as `keras_h5.read` gives those of a file."""
    return {
        layer.name: {re.sub(":.*", "", weight.name).rpartition("/")[2]: np.asarray(weight) for weight in layer.weights}
        for layer in model.layers
        if layer.weights
    }


def arguments_of(model) -> tuple[str, dict]:
    """Which function of segmentation_models made a model, and its arguments as far as its layers tell.

    Raises:
        InputError: None of its functions did.
    """
    layers = {layer.name: layer for layer in model.layers}
    last = model.layers[-1]
    common = {
        "input_shape": tuple(model.input_shape[1:]),
        "classes": model.output_shape[-1],
        "activation": getattr(getattr(last, "activation", None), "__name__", None),
    }
    stages = sum(f"decoder_stage{i}b_relu" in layers for i in range(10))
    if "decoder_stage0c_conv" in layers or "decoder_stage0b_conv" in layers:
        linknet = "decoder_stage0c_conv" in layers
        half = "b" if linknet else "a"
        transpose = f"decoder_stage0{half}_transpose" in layers
        return "Linknet" if linknet else "Unet", common | {
            "decoder_filters": tuple(
                layers[f"decoder_stage{i}{'c' if linknet else 'b'}_conv"].filters for i in range(stages)
            ),
            "decoder_block_type": "transpose" if transpose else "upsampling",
            "decoder_use_batchnorm": "decoder_stage0b_bn" in layers,
        }
    if "fpn_stage_p2_conv" in layers:
        return "FPN", common | {
            "pyramid_block_filters": layers["fpn_stage_p2_conv"].filters,
            "pyramid_use_batchnorm": "final_stage_bn" in layers,
            "pyramid_aggregation": "sum" if "aggregation_sum" in layers else "concat",
            "pyramid_dropout": layers["pyramid_dropout"].rate if "pyramid_dropout" in layers else None,
        }
    if "psp_concat" in layers:
        return "PSPNet", common | {
            "downsample_factor": layers["final_upsampling"].size[0],
            "psp_conv_filters": layers["psp_level1_conv"].filters,
            "psp_pooling_type": "max" if "Max" in type(layers["psp_level1_pooling"]).__name__ else "avg",
            "psp_use_batchnorm": "psp_level1_bn" in layers,
            "psp_dropout": layers["spatial_dropout"].rate if "spatial_dropout" in layers else None,
        }
    raise InputError(f"the model {model.name!r} is no Unet, FPN, Linknet or PSPNet of segmentation_models")


def candidates(theirs) -> list[str]:
    """The backbones that a model with such layers may have."""
    families = (
        ("stage1_unit1_sc_bn", [f"resnext{n}" for n in (50, 101)]),
        ("bn_data", [f"{kind}{n}" for kind in ("resnet", "seresnet") for n in (18, 34, 50, 101, 152)][:7]),
        ("block1_conv1", ["vgg16", "vgg19"]),
        ("conv_dw_1", ["mobilenet"]),
        ("expanded_conv_depthwise", ["mobilenetv2"]),
        ("block1a_dwconv", [f"efficientnetb{n}" for n in range(8)]),
        ("conv2_block1_0_bn", [f"densenet{n}" for n in (121, 169, 201)]),
        ("block35_1_conv", ["inceptionresnetv2"]),
    )
    for layer, names in families:
        if layer in theirs:
            return names
    return ["inceptionv3", *(f"seresnet{n}" for n in (50, 101, 152)), "seresnext50", "seresnext101", "senet154"]
