"""ShuffleNet. v1: Zhang, Zhou, Lin, Sun, "ShuffleNet: an extremely efficient convolutional neural network for mobile devices", CVPR 2018,
table 1 and figure 2. v2: Ma, Zhang, Zheng, Sun, "ShuffleNet V2: practical guidelines for efficient CNN architecture design", ECCV 2018, table 5
and figure 3 (the rows are torchvision's).

`shufflenet_g1` ... `shufflenet_g8` are the five columns of v1's table 1 (1x). `shufflenet` is the net of the course's table with 1.4 million
parameters and 50 layers: the Caffe2 model that the ONNX zoo and MATLAB distribute. It has half the channels of the 4-group column, and its
bottlenecks are as wide as the unit's output (112 in the first unit: 136 less the 24 of the shortcut) instead of a quarter of it.

Deviations: the papers give no epsilon and momentum of the batch normalisation; 1e-5 and 0.9 are those of the authors' PyTorch code. Average
pooling of v1's shortcut counts the zeros of its padding, as that code does. The strided unit's ReLU comes before the concatenation; the average of
a ReLU's output is not negative, so the order makes no difference.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.layers import ChannelShuffle, ChannelSlice
from cnn_zoo.registry import family


class Row1(NamedTuple):
    groups: int
    stages: tuple  # channels of stages 2 to 4
    bottleneck: (
        int  # the bottleneck has the unit's channels divided by this number; 0: as many as the unit's last convolution
    )
    params: int
    source: str


class Row2(NamedTuple):
    stages: tuple  # channels of stages 2 to 4, and of conv5
    params: int


DEPTHS = (4, 8, 4)  # units of stages 2 to 4, table 1 of v1 and table 5 of v2
COUNTED = "pytorchcv's table of models, and summed over the paper's table 1 by an independent count"
ONNX = "summed over the shapes of the ONNX zoo's model (5.7 MB); MATLAB and the course state 1.4 M"
COMMON = {"head": blocks.pooled_head, "size": 224, "channels": 3, "classes": 1000, "preset": "imagenet"}


def unit1(x, filters, stride, row, groups, name):
    """ShuffleNet unit (v1, figures 2b and 2c); `groups` are those of the first convolution."""
    out = filters - x.shape[-1] if stride > 1 else filters
    inner = filters // row.bottleneck if row.bottleneck else out
    y = blocks.conv_bn(x, inner, groups=groups, name=f"{name}_1")
    y = ChannelShuffle(row.groups, name=f"{name}_shuffle")(y)
    y = blocks.depthwise_bn(y, 3, stride, act=None, name=f"{name}_2")
    y = blocks.conv_bn(y, out, groups=row.groups, act=None, name=f"{name}_3")
    if stride == 1:
        return L.Activation("relu", name=f"{name}_out")(L.Add(name=f"{name}_add")([x, y]))
    x = L.AveragePooling2D(3, stride, name=f"{name}_pool")(L.ZeroPadding2D(1, name=f"{name}_pool_pad")(x))
    return L.Concatenate(name=f"{name}_concat")([x, L.Activation("relu", name=f"{name}_out")(y)])


@family(
    {  #                      groups  stages 2 to 4   width  trainable parameters
        "shufflenet": Row1(4, (136, 272, 544), 0, 1_395_312, ONNX),
        "shufflenet_g1": Row1(1, (144, 288, 576), 4, 1_531_936, COUNTED),
        "shufflenet_g2": Row1(2, (200, 400, 800), 4, 1_733_848, COUNTED),
        "shufflenet_g3": Row1(3, (240, 480, 960), 4, 1_865_728, COUNTED),
        "shufflenet_g4": Row1(4, (272, 544, 1088), 4, 1_968_344, COUNTED),
        "shufflenet_g8": Row1(8, (384, 768, 1536), 4, 2_434_768, COUNTED),
    },
    paper="Zhang et al. 2018, ShuffleNet: an extremely efficient convolutional neural network for mobile devices",
    **COMMON,
)
def shufflenet(x, row):
    taps = {}
    x = taps[2] = blocks.conv_bn(x, 24, 3, 2, name="stem")
    x = taps[4] = blocks.max_pool(x, name="stem_pool")
    groups = 1  # the first convolution of stage 2 is not grouped: it sees only 24 channels
    for stage, (filters, depth) in enumerate(zip(row.stages, DEPTHS), 2):
        for block in range(1, depth + 1):
            x = unit1(x, filters, 2 if block == 1 else 1, row, groups, f"s{stage}_b{block}")
            groups = row.groups
        taps[2 ** (stage + 1)] = x
    return taps


def unit2(x, filters, stride, name):
    """The unit of v2 (figures 3c and 3d): half the channels pass by, or are filtered too where the stride is 2."""
    half = filters // 2
    if stride == 1:
        y = ChannelSlice(half, filters, name=f"{name}_right")(x)
        x = ChannelSlice(0, half, name=f"{name}_left")(x)
    else:
        y = x
        x = blocks.depthwise_bn(x, 3, stride, act=None, name=f"{name}_skip1")
        x = blocks.conv_bn(x, half, name=f"{name}_skip2")
    y = blocks.conv_bn(y, half, name=f"{name}_1")
    y = blocks.depthwise_bn(y, 3, stride, act=None, name=f"{name}_2")
    y = blocks.conv_bn(y, half, name=f"{name}_3")
    return ChannelShuffle(2, name=f"{name}_shuffle")(L.Concatenate(name=f"{name}_concat")([x, y]))


@family(
    {  #                           stages 2 to 4, conv5   trainable parameters
        "shufflenetv2_050": Row2((48, 96, 192, 1024), 1_366_792),
        "shufflenetv2": Row2((116, 232, 464, 1024), 2_278_604),
        "shufflenetv2_150": Row2((176, 352, 704, 1024), 3_503_624),
        "shufflenetv2_200": Row2((244, 488, 976, 2048), 7_393_996),
    },
    source="torchvision meta num_params of ShuffleNet_V2_*_Weights",
    paper="Ma et al. 2018, ShuffleNet V2: practical guidelines for efficient CNN architecture design",
    **COMMON,
)
def shufflenetv2(x, row):
    taps = {}
    x = taps[2] = blocks.conv_bn(x, 24, 3, 2, name="stem")
    x = taps[4] = blocks.max_pool(x, name="stem_pool")
    for stage, (filters, depth) in enumerate(zip(row.stages, DEPTHS), 2):
        for block in range(1, depth + 1):
            x = unit2(x, filters, 2 if block == 1 else 1, f"s{stage}_b{block}")
        taps[2 ** (stage + 1)] = x
    taps[32] = blocks.conv_bn(x, row.stages[-1], name="last")
    return taps
