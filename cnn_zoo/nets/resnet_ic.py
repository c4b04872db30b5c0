"""The residual nets of the image-classifiers package (1.0.0), which segmentation_models builds on: dialects of
He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", ECCV 2016, figure 4(e) (`resnet*_ic`, `seresnet*_ic`), and of
Xie, Girshick, Dollar, Tu, He, "Aggregated residual transformations for deep neural networks", CVPR 2017, table 1 (`resnext*_ic`).

All take raw pixels, which a first BatchNorm without scale normalises ("bn_data"); their BatchNorm epsilon is 2e-5. The package's other residual
nets are the same functions as `seresnet50`, `seresnet101`, `seresnet152`, `seresnext50`, `seresnext101` and `senet154` of `resnet.py` and as the
nets of `resnetv2.py`.

Taps are those of segmentation_models: the first activation in the unit that halves the size, which in the pre-activation nets is also the
activated output of the stage.

Deviations from the papers: the first unit of every stage projects its shortcut, even where the shapes agree; the pre-activation nets project it from
the activated tensor and without BatchNorm. Squeeze-and-excitation weighs the residual branch before its addition, without BatchNorm in between.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family

NORM = {"eps": 2e-5, "momentum": 0.99}


class Row(NamedTuple):
    unit: Callable
    depths: tuple  # units of the four stages
    preact: bool
    se: bool
    params: int


def bn_relu(x, name):
    x = L.BatchNormalization(epsilon=NORM["eps"], momentum=NORM["momentum"], name=f"{name}_bn")(x)
    return L.Activation("relu", name=f"{name}_relu")(x)


def conv(x, filters, kernel, stride=1, *, name):
    return L.Conv2D(filters, kernel, stride, "same", use_bias=False, name=f"{name}_conv")(x)


def basic(x, filters, stride, project, se, name):
    """Pre-activation, then two 3x3 convolutions. Like the other units returns its output and its first activation."""
    first = bn_relu(x, f"{name}_preact")
    y = blocks.conv_bn(first, filters, 3, stride, name=f"{name}_1", **NORM)
    y = conv(y, filters, 3, name=f"{name}_2")
    return add(x, first, y, stride, project, se, name), first


def bottleneck(x, filters, stride, project, se, name):
    """Pre-activation, then 1x1, 3x3 and 1x1 to four times `filters`."""
    first = bn_relu(x, f"{name}_preact")
    y = blocks.conv_bn(first, filters, name=f"{name}_1", **NORM)
    y = blocks.conv_bn(y, filters, 3, stride, name=f"{name}_2", **NORM)
    y = conv(y, 4 * filters, 1, name=f"{name}_3")
    return add(x, first, y, stride, project, se, name), first


def add(x, first, y, stride, project, se, name):
    if se:
        y = blocks.squeeze_excite(y, y.shape[-1] // 16, name=f"{name}_se")
    if project:
        x = conv(first, y.shape[-1], 1, stride, name=f"{name}_shortcut")
    return L.Add(name=f"{name}_add")([x, y])


def aggregated(x, filters, stride, project, se, name):
    """ResNeXt's unit, figure 3(c): 1x1, 3x3 in 32 groups, 1x1, each with BatchNorm, activated after the addition."""
    first = blocks.conv_bn(x, 2 * filters, name=f"{name}_1", **NORM)
    y = blocks.conv_bn(first, 2 * filters, 3, stride, groups=32, name=f"{name}_2", **NORM)
    y = blocks.conv_bn(y, 4 * filters, act=None, name=f"{name}_3", **NORM)
    if project:
        x = blocks.conv_bn(x, 4 * filters, 1, stride, act=None, name=f"{name}_shortcut", **NORM)
    return L.Activation("relu", name=f"{name}_relu")(L.Add(name=f"{name}_add")([x, y])), first


COMMON = {
    "head": blocks.pooled_head,
    "source": "image-classifiers 1.0.0, trainable",
    "size": 224,
    "channels": 3,
    "classes": 1000,
    "preset": "raw",
}


@family(
    {  #                        unit        units     preact  SE  trainable parameters
        "resnet18_ic": Row(basic, (2, 2, 2, 2), True, False, 11_691_947),
        "resnet34_ic": Row(basic, (3, 4, 6, 3), True, False, 21_800_107),
        "resnet50_ic": Row(bottleneck, (3, 4, 6, 3), True, False, 25_549_483),
        "resnet101_ic": Row(bottleneck, (3, 4, 23, 3), True, False, 44_541_611),
        "resnet152_ic": Row(bottleneck, (3, 8, 36, 3), True, False, 60_185_259),
        "seresnet18_ic": Row(basic, (2, 2, 2, 2), True, True, 11_781_027),
        "seresnet34_ic": Row(basic, (3, 4, 6, 3), True, True, 21_961_303),
    },
    paper="He et al. 2016, Identity mappings in deep residual networks; SE: Hu et al. 2018, Squeeze-and-excitation networks",
    **COMMON,
)
@family(
    {
        "resnext50_ic": Row(aggregated, (3, 4, 6, 3), False, False, 25_028_907),
        "resnext101_ic": Row(aggregated, (3, 4, 23, 3), False, False, 44_177_707),
    },
    paper="Xie et al. 2017, Aggregated residual transformations for deep neural networks",
    **COMMON,
)
def resnet_ic(x, row):
    taps = {}
    x = L.BatchNormalization(epsilon=NORM["eps"], momentum=NORM["momentum"], scale=False, name="stem_data_bn")(x)
    x = taps[2] = blocks.conv_bn(x, 64, 7, 2, name="stem", **NORM)
    x = blocks.max_pool(x, name="stem_pool")
    for stage, depth in enumerate(row.depths, 1):
        for block in range(1, depth + 1):
            stride = 2 if block == 1 and stage > 1 else 1
            x, first = row.unit(x, 32 * 2**stage, stride, block == 1, row.se, f"s{stage}_b{block}")
            if stride > 1:
                taps[2**stage] = first
    taps[2 ** (stage + 1)] = bn_relu(x, "last") if row.preact else x
    return taps
