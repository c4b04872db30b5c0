"""SqueezeNet: Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv:1602.07360.

Table 1 gives `squeezenet1_0`; the authors' repository adds `squeezenet1_1`, which pools earlier and needs 2.4 times less computation. Both follow
the published Caffe models to the pixel: conv1 pads nothing, the poolings round sizes up, and the classes come out of a convolution with ReLU.

Deviations: none from the authors' prototxt files. Table 1 writes images of 224x224, but its 111x111 pixels after conv1 are those of 227x227, the
size of the files. In them conv10 of version 1.0 pads its input by one pixel, so that the ReLU of its bias counts in the average; the paper and
torchvision have no such padding. The classifier convolution is float32 whatever the precision policy.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family


class Row(NamedTuple):
    filters: int  # conv1
    kernel: int
    stages: tuple  # s1x1 of the fire modules between the poolings; e1x1 = e3x3 = 4 s1x1
    pad10: int  # padding of conv10
    params: int


def fire(x, squeeze, name):
    """Fire module: squeeze with 1x1, then expand with 1x1 and 3x3 side by side (figure 1)."""
    x = blocks.conv(x, squeeze, 1, act="relu", name=f"{name}_squeeze1x1")
    one = blocks.conv(x, 4 * squeeze, 1, act="relu", name=f"{name}_expand1x1")
    three = blocks.conv(x, 4 * squeeze, 3, act="relu", name=f"{name}_expand3x3")
    return L.Concatenate(name=f"{name}_concat")([one, three])


def head(x, classes, row):
    x = L.Dropout(0.5, name="head_dropout")(x)
    if row.pad10:
        x = L.ZeroPadding2D(row.pad10, name="head_pad")(x)
    x = L.Conv2D(classes, 1, dtype="float32", name="head_conv10")(x)
    x = L.Activation("relu", dtype="float32", name="head_conv10_relu")(x)
    return L.GlobalAveragePooling2D(dtype="float32", name="logits")(x)


@family(
    {  #                        conv1  s1x1 of fire2..9, a pooling before each group              pad10  parameters
        "squeezenet1_0": Row(96, 7, ((16, 16, 32), (32, 48, 48, 64), (64,)), 1, 1_248_424),
        "squeezenet1_1": Row(64, 3, ((16, 16), (32, 32), (48, 48, 64, 64)), 0, 1_235_496),
    },
    head=head,
    source="torchvision meta num_params of SqueezeNet1_0_Weights and SqueezeNet1_1_Weights",
    size=227,
    channels=3,
    classes=1000,
    preset="caffe",
    paper="Iandola et al. 2016, SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
)
def squeezenet(x, row):
    taps, number = {}, 1
    x = taps[2] = blocks.conv(x, row.filters, row.kernel, 2, act="relu", padding="valid", name="stem_conv")
    for stage, squeezes in enumerate(row.stages, 1):
        x = blocks.ceil_pool(x, 3, name=f"s{stage}_pool")
        for squeeze in squeezes:
            number += 1
            x = fire(x, squeeze, f"fire{number}")
        taps[2 ** (stage + 1)] = x
    return taps
