"""MobileNet. v1: Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", arXiv:1704.04861, table 1.
v2: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, table 2.
v3: Howard et al., "Searching for MobileNetV3", ICCV 2019, tables 1 (large) and 2 (small).

Dialects: v1 and v2 are those of TensorFlow's slim and keras.applications ("same" padding, pixels -1..1, BatchNorm epsilon 1e-3, momentum 0.99 and
0.999); v3 is torchvision's (symmetric padding, ImageNet mean and deviation, BatchNorm epsilon 1e-3, momentum 0.99). A suffix is the width multiplier
in percent.

Deviations: table 1 of v1 gives the last depthwise convolution stride 2, a misprint: at stride 1 the sizes agree. Of v2, dropout of 0.2 before the
classifier is slim's; keras.applications has none. Of v3, dropout of 0.2 as in torchvision.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family


class Width(NamedTuple):
    alpha: float
    dropout: float
    params: int


SEPARABLE = (
    (64, 1, 1),
    (128, 2, 2),
    (256, 2, 2),
    (512, 6, 2),
    (1024, 2, 2),
)  # v1, table 1: filters, blocks, stride of the first
BOTTLENECKS = (  # v2, table 2: t, c, n, s
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@family(
    {  #                        alpha  dropout  trainable parameters
        "mobilenet_025": Width(0.25, 0.001, 470_072),
        "mobilenet_050": Width(0.5, 0.001, 1_331_592),
        "mobilenet_075": Width(0.75, 0.001, 2_585_560),
        "mobilenet": Width(1.0, 0.001, 4_231_976),
    },
    head=blocks.dropout_head,
    source="keras.applications.MobileNet, trainable, for each alpha; table 7 of the paper gives 0.5, 1.3, 2.6 and 4.2 M",
    size=224,
    channels=3,
    classes=1000,
    preset="symmetric",
    paper="Howard et al. 2017, MobileNets: efficient convolutional neural networks for mobile vision applications",
)
def mobilenet(x, row):
    norm = {"act": "relu6", "padding": "same", "eps": 1e-3, "momentum": 0.99}
    taps, at = {}, 2
    x = blocks.conv_bn(x, int(32 * row.alpha), 3, 2, name="stem", **norm)
    for stage, (filters, depth, stride) in enumerate(SEPARABLE, 1):
        for block in range(1, depth + 1):
            x = blocks.depthwise_bn(x, 3, stride if block == 1 else 1, name=f"s{stage}_b{block}_dw", **norm)
            x = blocks.conv_bn(x, int(filters * row.alpha), name=f"s{stage}_b{block}_pw", **norm)
        at *= stride
        taps[at] = x
    return taps


@family(
    {  #                          alpha  dropout  trainable parameters
        "mobilenetv2_035": Width(0.35, 0.2, 1_677_128),
        "mobilenetv2_050": Width(0.5, 0.2, 1_968_680),
        "mobilenetv2_075": Width(0.75, 0.2, 2_636_424),
        "mobilenetv2": Width(1.0, 0.2, 3_504_872),
        "mobilenetv2_130": Width(1.3, 0.2, 5_386_792),
        "mobilenetv2_140": Width(1.4, 0.2, 6_108_776),
    },
    head=blocks.dropout_head,
    source="keras.applications.MobileNetV2, trainable, for each alpha; 1.0 is also torchvision meta num_params of MobileNet_V2_Weights",
    size=224,
    channels=3,
    classes=1000,
    preset="symmetric",
    paper="Sandler et al. 2018, MobileNetV2: inverted residuals and linear bottlenecks",
)
def mobilenetv2(x, row):
    norm = {"act": "relu6", "padding": "same", "eps": 1e-3, "momentum": 0.999}
    taps, at = {}, 2
    x = blocks.conv_bn(x, blocks.divisible(32 * row.alpha), 3, 2, name="stem", **norm)
    for stage, (t, c, n, s) in enumerate(BOTTLENECKS, 1):
        for block in range(1, n + 1):
            stride, name = s if block == 1 else 1, f"s{stage}_b{block}"
            x, inner = blocks.inverted_residual(
                x, blocks.divisible(c * row.alpha), 3, stride, t * x.shape[-1], name=name, **norm
            )
            if stride > 1:
                taps[at] = inner
                at *= stride
    taps[at] = blocks.conv_bn(x, blocks.divisible(1280 * max(1, row.alpha)), name="last", **norm)
    return taps


class Bneck(NamedTuple):
    kernel: int
    exp_size: int
    out: int
    se: bool
    nl: str
    s: int


class Row3(NamedTuple):
    bnecks: tuple
    last: int  # channels of the last convolution
    wide: int  # units of the dense layer in the head
    params: int


RE, HS = "relu", "hard_silu"
LARGE = (
    *(Bneck(3, 16, 16, False, RE, 1), Bneck(3, 64, 24, False, RE, 2), Bneck(3, 72, 24, False, RE, 1)),
    *(Bneck(5, 72, 40, True, RE, 2), Bneck(5, 120, 40, True, RE, 1), Bneck(5, 120, 40, True, RE, 1)),
    *(Bneck(3, 240, 80, False, HS, 2), Bneck(3, 200, 80, False, HS, 1), Bneck(3, 184, 80, False, HS, 1)),
    *(Bneck(3, 184, 80, False, HS, 1), Bneck(3, 480, 112, True, HS, 1), Bneck(3, 672, 112, True, HS, 1)),
    *(Bneck(5, 672, 160, True, HS, 2), Bneck(5, 960, 160, True, HS, 1), Bneck(5, 960, 160, True, HS, 1)),
)
SMALL = (
    *(Bneck(3, 16, 16, True, RE, 2), Bneck(3, 72, 24, False, RE, 2), Bneck(3, 88, 24, False, RE, 1)),
    *(Bneck(5, 96, 40, True, HS, 2), Bneck(5, 240, 40, True, HS, 1), Bneck(5, 240, 40, True, HS, 1)),
    *(Bneck(5, 120, 48, True, HS, 1), Bneck(5, 144, 48, True, HS, 1), Bneck(5, 288, 96, True, HS, 2)),
    *(Bneck(5, 576, 96, True, HS, 1), Bneck(5, 576, 96, True, HS, 1)),
)


def excite3(x, name):
    """Squeeze-and-excitation of v3: a quarter of the channels, hard sigmoid."""
    return blocks.squeeze_excite(x, blocks.divisible(x.shape[-1] // 4), gate="hard_sigmoid", name=name)


def head3(x, classes, row):
    x = blocks.dense(L.GlobalAveragePooling2D(name="head_pool")(x), row.wide, HS, "head_fc")
    return L.Dense(classes, dtype="float32", name="logits")(L.Dropout(0.2, name="head_dropout")(x))


@family(
    {  #                             table  last  dense  trainable parameters
        "mobilenetv3_small": Row3(SMALL, 576, 1024, 2_542_856),
        "mobilenetv3_large": Row3(LARGE, 960, 1280, 5_483_032),
    },
    head=head3,
    source="torchvision meta num_params of MobileNet_V3_Small_Weights and MobileNet_V3_Large_Weights",
    size=224,
    channels=3,
    classes=1000,
    preset="imagenet",
    paper="Howard et al. 2019, Searching for MobileNetV3",
)
def mobilenetv3(x, row):
    norm = {"eps": 1e-3, "momentum": 0.99}
    taps, at, stage, block = {}, 2, 1, 0
    x = blocks.conv_bn(x, 16, 3, 2, act=HS, name="stem", **norm)
    for b in row.bnecks:
        stage, block = (stage + 1, 1) if b.s > 1 else (stage, block + 1)
        name, excite = f"s{stage}_b{block}", excite3 if b.se else None
        x, inner = blocks.inverted_residual(
            x, b.out, b.kernel, b.s, b.exp_size, act=b.nl, excite=excite, name=name, **norm
        )
        if b.s > 1:
            taps[at] = inner
            at *= b.s
    taps[at] = blocks.conv_bn(x, row.last, act=HS, name="last", **norm)
    return taps
