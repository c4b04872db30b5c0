"""Xception: Chollet, "Xception: deep learning with depthwise separable convolutions", CVPR 2017 (arXiv:1610.02357).

Figure 5 gives the net: entry flow, middle flow and exit flow, all but two of its convolutions depthwise separable, none with a bias.

Deviations: no dense layers before the classes (an option of the figure), and no dropout: the net of Keras, whose author wrote the paper.
The tap of a stride is the sum that leaves its last residual block, so the separable convolutions before a block's pooling are in no tap.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family

BN = {"epsilon": 1e-3, "momentum": 0.99}


class Row(NamedTuple):
    entry: tuple[int, ...]  # maps of the entry flow's residual blocks
    middle: int  # residual blocks of the middle flow
    exit: tuple[int, ...]  # maps of the exit flow's separable convolutions
    params: int


def sepconv(x, maps, name):
    x = L.SeparableConv2D(maps, 3, padding="same", use_bias=False, name=f"{name}_sepconv")(x)
    return L.BatchNormalization(**BN, name=f"{name}_bn")(x)


def relu(x, name):
    return L.Activation("relu", name=f"{name}_relu")(x)


def down(x, maps, name, first_relu=True):
    """A residual block that halves the map: two separable convolutions of `maps` maps, 3x3 max pooling, and a 1x1 shortcut."""
    shortcut = L.Conv2D(maps[-1], 1, 2, "same", use_bias=False, name=f"{name}_shortcut_conv")(x)
    shortcut = L.BatchNormalization(**BN, name=f"{name}_shortcut_bn")(shortcut)
    x = sepconv(relu(x, f"{name}_1") if first_relu else x, maps[0], f"{name}_1")
    x = sepconv(relu(x, f"{name}_2"), maps[1], f"{name}_2")
    x = L.MaxPooling2D(3, 2, "same", name=f"{name}_pool")(x)
    return L.Add(name=f"{name}_add")([x, shortcut])


@family(
    {"xception": Row((128, 256, 728), 8, (728, 1024, 1536, 2048), 22_855_952)},
    head=blocks.pooled_head,
    source="Chollet 2017, table 3 (22,855,952); image-classifiers 1.0.0, trainable; Keras",
    size=299,
    channels=3,
    classes=1000,
    preset="symmetric",
    paper="Chollet 2017, Xception: deep learning with depthwise separable convolutions",
)
def xception(x, row):
    taps = {}
    bn = {"eps": BN["epsilon"], "momentum": BN["momentum"]}
    x = blocks.conv_bn(x, 32, 3, 2, padding="valid", **bn, name="stem_1")
    x = taps[2] = blocks.conv_bn(x, 64, 3, padding="valid", **bn, name="stem_2")
    for stage, maps in enumerate(row.entry, 2):
        x = taps[2**stage] = down(x, (maps, maps), f"s{stage}_b1", first_relu=stage > 2)
    for b in range(2, row.middle + 2):
        y = x
        for i in (1, 2, 3):
            y = sepconv(relu(y, f"s4_b{b}_{i}"), row.entry[-1], f"s4_b{b}_{i}")
        x = taps[16] = L.Add(name=f"s4_b{b}_add")([y, x])
    x = down(x, row.exit[:2], "s5_b1")
    for i, maps in enumerate(row.exit[2:], 1):
        x = taps[32] = relu(sepconv(x, maps, f"s5_b2_{i}"), f"s5_b2_{i}")
    return taps
