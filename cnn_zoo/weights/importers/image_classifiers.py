"""Layout "image-classifiers": which layers of image-classifiers 1.0.0 are which of ours.

Its ResNets name most layers; its SENets none. A grouped convolution is built of one convolution a group there; their kernels side by side are ours.
VGG, DenseNet, Inception, Xception, MobileNet, NASNet and ResNetV2 it takes from keras_applications, with Keras' own files.
"""

import re

from cnn_zoo.registry import get_spec
from cnn_zoo.weights.importers.keras_applications import KERAS, keras_twins, none
from cnn_zoo.weights.importers.keras_names import Names, family, pair

FIXED = {"bn_data": "stem_data_bn", "conv0": "stem_conv", "bn0": "stem_bn", "bn1": "last_bn", "fc1": "logits"}
GROUPS = {"resnext50_ic": 32, "resnext101_ic": 32, "seresnext50": 32, "seresnext101": 32, "senet154": 64}


def resnet(net, name):
    """Pre-activation: their `bn1` of a unit comes before the unit's first convolution."""
    if at := re.fullmatch(r"stage(\d)_unit(\d+)_(?:(sc)|conv(\d)|bn(\d))", name):
        part = "shortcut_conv" if at[3] else f"{at[4]}_conv" if at[4] else f"{int(at[5]) - 1}_bn"
        return f"s{at[1]}_b{at[2]}_{'preact_bn' if part == '0_bn' else part}"
    return FIXED.get(name)


def resnext(net, name):
    if at := re.fullmatch(r"stage(\d)_unit(\d+)_(?:(conv|bn)(\d)|sc(_bn)?)", name):
        part = f"{at[4]}_{at[3]}" if at[3] else "shortcut_bn" if at[5] else "shortcut_conv"
        return f"s{at[1]}_b{at[2]}_{part}"
    return FIXED.get(name)


def units(net):
    """Our prefix of every residual unit, in order, and whether it is the first of its stage."""
    depths = get_spec(net).row.depths
    return [(f"s{stage}_b{b}", b == 1) for stage, depth in enumerate(depths, 1) for b in range(1, depth + 1)]


def excitations(net):
    return {"conv2d": [(f"{unit}_se_{part}", 1) for unit, _ in units(net) for part in ("reduce", "expand")]}


def groups(net):
    return {"conv2d": [(f"{unit}_2_conv", GROUPS[net]) for unit, _ in units(net)]}


def everything(net):
    stems = ["stem_1", "stem_2", "stem_3"] if get_spec(net).row.senet else ["stem"]
    convs, norms = [(f"{stem}_conv", 1) for stem in stems], [(f"{stem}_bn", 1) for stem in stems]
    for unit, first in units(net):
        parts = ["1", "2", "3", *["shortcut"] * first]
        convs += [(f"{unit}_{part}_conv", GROUPS.get(net, 1) if part == "2" else 1) for part in parts]
        norms += [(f"{unit}_{part}_bn", 1) for part in parts]
        convs += [(f"{unit}_se_{part}", 1) for part in ("reduce", "expand")]
    return {"conv2d": convs, "batch_normalization": norms, "dense": [("logits", 1)]}


NETS = {
    r"resnet(18|34|50|101|152)_ic": Names(resnet),
    r"seresnet(18|34)_ic": Names(resnet, excitations),
    r"resnext(50|101)_ic": Names(resnext, groups),
    r"seresnet(50|101|152)|seresnext(50|101)|senet154": Names(none, everything),
}


def twins(net, theirs):
    """`Layout.twins` of image-classifiers 1.0.0."""
    if any(re.fullmatch(pattern, net) for pattern in KERAS):
        return keras_twins(net, theirs)
    return pair(net, theirs, family(net, NETS, "image-classifiers"))
