"""DenseNet: Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", CVPR 2017, table 1 (the -BC nets for ImageNet).

Deviations: the epsilon of the batch normalisation, 1.001e-5, and the momentum are those of keras.applications, whose published weights are a
conversion of the authors'; torchvision's 1e-5 differs by less than single precision resolves.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family


class Row(NamedTuple):
    growth: int  # k
    stem: int  # 2k
    depths: tuple
    params: int


def bn_relu_conv(x, filters, kernel, name, suffix=""):
    """The paper's composite function H: BatchNorm, ReLU, convolution."""
    x = L.BatchNormalization(epsilon=1.001e-5, name=f"{name}_bn{suffix}")(x)
    x = L.Activation("relu", name=f"{name}_relu{suffix}")(x)
    return L.Conv2D(filters, kernel, padding="same", use_bias=False, name=f"{name}_conv{suffix}")(x)


def dense_layer(x, growth, name):
    """One layer of a dense block: `growth` new channels, computed from all before them."""
    y = bn_relu_conv(x, 4 * growth, 1, name, 1)
    y = bn_relu_conv(y, growth, 3, name, 2)
    return L.Concatenate(name=f"{name}_concat")([x, y])


@family(
    {  #                    k   2k  layers of the dense blocks  trainable parameters
        "densenet121": Row(32, 64, (6, 12, 24, 16), 7_978_856),
        "densenet169": Row(32, 64, (6, 12, 32, 32), 14_149_480),
        "densenet201": Row(32, 64, (6, 12, 48, 32), 20_013_928),
        "densenet161": Row(48, 96, (6, 12, 36, 24), 28_681_000),
    },
    head=blocks.pooled_head,
    source="torchvision meta num_params of DenseNet*_Weights",
    size=224,
    channels=3,
    classes=1000,
    preset="imagenet",
    paper="Huang et al. 2017, Densely connected convolutional networks",
)
def densenet(x, row):
    taps = {}
    x = taps[2] = blocks.conv_bn(x, row.stem, 7, 2, eps=1.001e-5, momentum=0.99, name="stem")
    x = blocks.max_pool(x, name="stem_pool")
    for stage, depth in enumerate(row.depths, 1):
        for block in range(1, depth + 1):
            x = dense_layer(x, row.growth, f"s{stage}_b{block}")
        if stage < len(row.depths):  # transition: half the channels, half the size
            x = taps[2 ** (stage + 1)] = bn_relu_conv(x, x.shape[-1] // 2, 1, f"s{stage}_transition")
            x = L.AveragePooling2D(2, name=f"s{stage}_transition_pool")(x)
    x = L.BatchNormalization(epsilon=1.001e-5, name=f"s{stage}_bn")(x)
    taps[2 ** (stage + 1)] = L.Activation("relu", name=f"s{stage}_relu")(x)
    return taps
