"""ResNet: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, table 1, and what was built on it:
ResNeXt: Xie, Girshick, Dollar, Tu, He, "Aggregated residual transformations for deep neural networks", CVPR 2017, table 1 (resnextN_CxDd: cardinality
C, bottleneck width D); Wide ResNet: Zagoruyko, Komodakis, BMVC 2016; squeeze-and-excitation: Hu, Shen, Sun, "Squeeze-and-excitation networks",
CVPR 2018, table 1, and SENet-154 of its appendix.

Dialects: `resnet*`, `resnext*` and `wide_resnet*` are torchvision's ("v1.5": a bottleneck halves the size in its 3x3 convolution, where the paper
does it in the first 1x1). `seresnet50` to `seresnet152` halve it in the first 1x1, as their authors' release and the image-classifiers package;
`seresnet50_v15` is timm's seresnet50. The pre-activation nets of image-classifiers are in `resnet_ic.py`, those of Keras in `resnetv2.py`, the
small ones for CIFAR in `resnet_cifar.py`.

SENet-154 changes four things: three 3x3 convolutions as the stem, half the channels in the first 1x1 of a bottleneck, 3x3 instead of 1x1 where
a shortcut halves the size, and dropout of 0.2 before the classifier.

Deviations: the SE nets pool with a padding of 1 on both sides, as image-classifiers and ResNet do; their authors' Caffe nets (timm: `legacy_`) pad
only the end, which shifts the maps by one pixel. `seresnet18` and `seresnet34` are not in the paper: figure 3 applied to table 1 of ResNet.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family

REDUCTION = 16  # r of squeeze-and-excitation


class Row(NamedTuple):
    block: Callable  # building block, figure 5
    depths: tuple  # blocks of conv2_x to conv5_x
    width: int  # channels of the 3x3 convolutions of conv2_x
    cardinality: int  # groups of these convolutions
    halving: int  # kernel of the convolution that halves the size
    se: bool
    senet: bool  # the changes of SENet-154
    params: int


def basic(x, filters, stride, row, name):
    """Figure 5, left: two 3x3 convolutions."""
    y = blocks.conv_bn(x, filters, 3, stride, name=f"{name}_1")
    y = blocks.conv_bn(y, filters, 3, act=None, name=f"{name}_2")
    return add(x, y, stride, row, name)


def bottleneck(x, filters, stride, row, name):
    """Figure 5, right: 1x1 to fewer channels, 3x3, 1x1 to four times `filters`."""
    width = row.width * filters // 64
    strides = {row.halving: stride}
    y = blocks.conv_bn(x, width // 2 if row.senet else width, 1, strides.get(1, 1), name=f"{name}_1")
    y = blocks.conv_bn(y, width, 3, strides.get(3, 1), groups=row.cardinality, name=f"{name}_2")
    y = blocks.conv_bn(y, 4 * filters, act=None, name=f"{name}_3")
    return add(x, y, stride, row, name)


def add(x, y, stride, row, name):
    """F(x) + x, the latter projected where the shapes differ (option B)."""
    filters = y.shape[-1]
    if row.se:
        y = blocks.squeeze_excite(y, filters // REDUCTION, name=f"{name}_se")
    if stride > 1 or filters != x.shape[-1]:
        kernel = 3 if row.senet and stride > 1 else 1
        x = blocks.conv_bn(x, filters, kernel, stride, act=None, name=f"{name}_shortcut")
    return L.Activation("relu", name=f"{name}_relu")(L.Add(name=f"{name}_add")([x, y]))


def senet_head(x, classes, row):
    x = L.Dropout(0.2, name="head_dropout")(L.GlobalAveragePooling2D(name="head_pool")(x))
    return L.Dense(classes, dtype="float32", name="logits")(x)


IMAGENET = {"size": 224, "channels": 3, "classes": 1000, "preset": "imagenet"}
SE = {"paper": "Hu et al. 2018, Squeeze-and-excitation networks", **IMAGENET}
TIMM = "timm 1.0.31, count of parameters of"


@family(
    {  #                    block       blocks      width  C  halving  SE   SENet  trainable parameters
        "resnet18": Row(basic, (2, 2, 2, 2), 64, 1, 3, False, False, 11_689_512),
        "resnet34": Row(basic, (3, 4, 6, 3), 64, 1, 3, False, False, 21_797_672),
        "resnet50": Row(bottleneck, (3, 4, 6, 3), 64, 1, 3, False, False, 25_557_032),
        "resnet101": Row(bottleneck, (3, 4, 23, 3), 64, 1, 3, False, False, 44_549_160),
        "resnet152": Row(bottleneck, (3, 8, 36, 3), 64, 1, 3, False, False, 60_192_808),
    },
    head=blocks.pooled_head,
    source="torchvision meta num_params of ResNet*_Weights",
    paper="He et al. 2016, Deep residual learning for image recognition",
    **IMAGENET,
)
@family(
    {
        "wide_resnet50_2": Row(bottleneck, (3, 4, 6, 3), 128, 1, 3, False, False, 68_883_240),
    },
    head=blocks.pooled_head,
    source="torchvision meta num_params of Wide_ResNet50_2_Weights",
    paper="Zagoruyko and Komodakis 2016, Wide residual networks",
    **IMAGENET,
)
@family(
    {
        "resnext50_32x4d": Row(bottleneck, (3, 4, 6, 3), 128, 32, 3, False, False, 25_028_904),
        "resnext101_32x4d": Row(bottleneck, (3, 4, 23, 3), 128, 32, 3, False, False, 44_177_704),
        "resnext101_32x8d": Row(bottleneck, (3, 4, 23, 3), 256, 32, 3, False, False, 88_791_336),
    },
    head=blocks.pooled_head,
    source="torchvision meta num_params of ResNeXt*_Weights; 101_32x4d: timm 1.0.31, count of parameters",
    paper="Xie et al. 2017, Aggregated residual transformations for deep neural networks",
    **IMAGENET,
)
@family(
    {
        "seresnet18": Row(basic, (2, 2, 2, 2), 64, 1, 3, True, False, 11_778_592),
        "seresnet34": Row(basic, (3, 4, 6, 3), 64, 1, 3, True, False, 21_958_868),
        "seresnet50_v15": Row(bottleneck, (3, 4, 6, 3), 64, 1, 3, True, False, 28_088_024),
    },
    head=blocks.pooled_head,
    source=f"{TIMM} legacy_seresnet18, legacy_seresnet34, seresnet50",
    **SE,
)
@family(
    {
        "seresnet50": Row(bottleneck, (3, 4, 6, 3), 64, 1, 1, True, False, 28_088_024),
        "seresnet101": Row(bottleneck, (3, 4, 23, 3), 64, 1, 1, True, False, 49_326_872),
        "seresnet152": Row(bottleneck, (3, 8, 36, 3), 64, 1, 1, True, False, 66_821_848),
        "seresnext50": Row(bottleneck, (3, 4, 6, 3), 128, 32, 3, True, False, 27_559_896),
        "seresnext101": Row(bottleneck, (3, 4, 23, 3), 128, 32, 3, True, False, 48_955_416),
    },
    head=blocks.pooled_head,
    source=f"image-classifiers 1.0.0, trainable; also {TIMM} legacy_seresnet* and legacy_seresnext*_32x4d",
    **SE,
)
@family(
    {"senet154": Row(bottleneck, (3, 8, 36, 3), 256, 64, 3, True, True, 115_088_984)},
    head=senet_head,
    source=f"image-classifiers 1.0.0, trainable; also {TIMM} senet154",
    **SE,
)
def resnet(x, row):
    taps = {}
    if row.senet:
        for i, (filters, stride) in enumerate(((64, 2), (64, 1), (128, 1)), 1):
            x = blocks.conv_bn(x, filters, 3, stride, name=f"stem_{i}")
    else:
        x = blocks.conv_bn(x, 64, 7, 2, name="stem")
    taps[2] = x
    x = blocks.max_pool(x, name="stem_pool")
    for stage, depth in enumerate(row.depths, 1):
        for block in range(1, depth + 1):
            stride = 2 if block == 1 and stage > 1 else 1
            x = row.block(x, 32 * 2**stage, stride, row, f"s{stage}_b{block}")
        taps[2 ** (stage + 1)] = x
    return taps
