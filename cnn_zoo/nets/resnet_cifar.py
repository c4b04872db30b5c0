"""ResNet for CIFAR-10: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2: 6n + 2 layers.

Shortcuts are option A, as the paper's on CIFAR: where the maps get smaller and more, every second pixel and channels of zeros, so that they
have no parameters.

Deviations: the paper subtracts the mean image of the training set; here ImageNet's mean and deviation of each
channel, unless weights say otherwise.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family


class Row(NamedTuple):
    n: int
    params: int


def basic(x, filters, stride, name):
    """Figure 5, left, with shortcuts of option A."""
    y = blocks.conv_bn(x, filters, 3, stride, name=f"{name}_1")
    y = blocks.conv_bn(y, filters, 3, act=None, name=f"{name}_2")
    if stride > 1:
        x = L.MaxPooling2D(1, stride, name=f"{name}_shortcut_pool")(x)
        # To a layer that takes its input for (channels, height, width), our last axis is one to pad.
        zeros = ((0, 0), (0, filters - x.shape[-1]))
        x = L.ZeroPadding2D(zeros, data_format="channels_first", name=f"{name}_shortcut_zeros")(x)
    return L.Activation("relu", name=f"{name}_relu")(L.Add(name=f"{name}_add")([x, y]))


@family(
    {  #               n  trainable parameters
        "resnet20": Row(3, 269_722),
        "resnet32": Row(5, 464_154),
        "resnet44": Row(7, 658_586),
        "resnet56": Row(9, 853_018),
        "resnet110": Row(18, 1_727_962),
    },
    head=blocks.pooled_head,
    source="follows from section 4.2 of the paper; its table 6 gives 0.27, 0.46, 0.66, 0.85 and 1.7 M",
    size=32,
    channels=3,
    classes=10,
    preset="imagenet",
    paper="He et al. 2016, Deep residual learning for image recognition",
)
def resnet_cifar(x, row):
    taps = {}
    x = blocks.conv_bn(x, 16, 3, name="stem")
    for stage in (1, 2, 3):
        for block in range(1, row.n + 1):
            x = basic(x, 8 * 2**stage, 2 if block == 1 and stage > 1 else 1, f"s{stage}_b{block}")
        taps[2 ** (stage - 1)] = x
    return taps
