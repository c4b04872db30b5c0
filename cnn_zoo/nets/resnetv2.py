"""ResNetV2: He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", ECCV 2016, figure 4(e) (full pre-activation) with the depths of
ResNet's table 1, in the dialect of TensorFlow's slim and keras.applications.

A tap is the pre-activation of the unit that halves the size, which is the activated output of the stage up to there.

Deviations from the paper, all Keras': the last unit of a stage halves the size, and its shortcut takes every second pixel; the stem, the last
convolution of a unit and its projection have biases; the stem has no activation, yet is padded with zeros before its max pooling.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family

NORM = {"eps": 1.001e-5, "momentum": 0.99}


class Row(NamedTuple):
    depths: tuple  # units of the four stages
    params: int


def bn_relu(x, name):
    x = L.BatchNormalization(epsilon=NORM["eps"], momentum=NORM["momentum"], name=f"{name}_bn")(x)
    return L.Activation("relu", name=f"{name}_relu")(x)


def unit(x, filters, stride, name):
    """BatchNorm and ReLU before each of 1x1, 3x3 and 1x1 to four times `filters`. Returns the sum, and the pre-activation."""
    first = bn_relu(x, f"{name}_preact")
    y = blocks.conv_bn(first, filters, name=f"{name}_1", **NORM)
    y = blocks.conv_bn(y, filters, 3, stride, name=f"{name}_2", **NORM)
    y = blocks.conv(y, 4 * filters, 1, name=f"{name}_3_conv")
    if x.shape[-1] != 4 * filters:
        x = blocks.conv(first, 4 * filters, 1, name=f"{name}_shortcut_conv")
    elif stride > 1:
        x = L.MaxPooling2D(1, stride, name=f"{name}_shortcut_pool")(x)
    return L.Add(name=f"{name}_add")([x, y]), first


@family(
    {  #                 units          trainable parameters
        "resnet50v2": Row((3, 4, 6, 3), 25_568_360),
        "resnet101v2": Row((3, 4, 23, 3), 44_577_896),
        "resnet152v2": Row((3, 8, 36, 3), 60_236_904),
    },
    head=blocks.pooled_head,
    source="keras.applications.ResNet*V2, trainable; also image-classifiers 1.0.0",
    size=224,
    channels=3,
    classes=1000,
    preset="symmetric",
    paper="He et al. 2016, Identity mappings in deep residual networks",
)
def resnetv2(x, row):
    taps = {}
    x = L.ZeroPadding2D(3, name="stem_pad")(x)
    x = taps[2] = L.Conv2D(64, 7, 2, name="stem_conv")(x)
    x = blocks.max_pool(x, name="stem_pool")
    for stage, depth in enumerate(row.depths, 1):
        for block in range(1, depth + 1):
            stride = 2 if block == depth and stage < len(row.depths) else 1
            x, first = unit(x, 32 * 2**stage, stride, f"s{stage}_b{block}")
            if stride > 1:
                taps[2 ** (stage + 1)] = first
    taps[2 ** (stage + 1)] = bn_relu(x, "last")
    return taps
