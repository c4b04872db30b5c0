"""Darknet: the backbones of YOLO. Redmon, Farhadi, "YOLO9000: better, faster, stronger", CVPR 2017, table 6 (`darknet19`);
Redmon, Farhadi, "YOLOv3: an incremental improvement", arXiv:1804.02767, table 1 (`darknet53`).

Details that the papers leave open are those of the authors' darknet19.cfg and darknet53.cfg: batch normalisation with every convolution but the
last, leaky ReLU of slope 0.1, pixels scaled to 0..1, 256x256 images.

Deviations: the classifier of darknet19 is a 1x1 convolution before the average pooling; a linear map and a mean commute, so it is the same dense
layer after the pooling here, as in darknet53. Epsilon of the batch normalisation is 1e-5, that of darknet's GPU code (its CPU code adds 1e-6 to the
deviation instead of the variance).
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family


class Row(NamedTuple):
    depths: tuple  # convolutions (darknet19) or residual blocks (darknet53) of each stage
    params: int
    source: str
    paper: str


def conv(x, filters, kernel, stride=1, *, name):
    """Darknet's convolution: BatchNorm, then leaky ReLU."""
    x = blocks.conv_bn(x, filters, kernel, stride, act=None, momentum=0.99, name=name)
    return L.LeakyReLU(negative_slope=0.1, name=f"{name}_leaky")(x)


def residual(x, filters, name):
    """1x1 to half the channels, 3x3 back, added to the input (YOLOv3, table 1)."""
    y = conv(x, filters // 2, 1, name=f"{name}_1")
    y = conv(y, filters, 3, name=f"{name}_2")
    return L.Add(name=f"{name}_add")([x, y])


COMMON = {
    "head": blocks.pooled_head,
    "size": 256,
    "channels": 3,
    "classes": 1000,
    "preset": "unit",
}


@family(
    {
        "darknet19": Row(
            (1, 1, 3, 3, 5, 5),
            20_842_376,
            "summed over the authors' darknet19.cfg by an independent count",
            "Redmon and Farhadi 2017, YOLO9000: better, faster, stronger",
        )
    },
    **COMMON,
)
def darknet19(x, row):
    taps = {}
    for stage, depth in enumerate(row.depths):
        if stage:
            x = L.MaxPooling2D(2, padding="same", name=f"s{stage}_pool")(x)  # Darknet rounds sizes up
        for i in range(depth):
            filters, kernel = (16 * 2**stage, 1) if i % 2 else (32 * 2**stage, 3)
            x = conv(x, filters, kernel, name=f"s{stage}_{i + 1}" if stage else "stem")
        taps[2**stage] = x
    return taps


@family(
    {
        "darknet53": Row(
            (1, 2, 8, 8, 4),
            41_609_928,
            "pytorchcv's table of models, and summed over the authors' darknet53.cfg by an independent count",
            "Redmon and Farhadi 2018, YOLOv3: an incremental improvement",
        )
    },
    **COMMON,
)
def darknet53(x, row):
    taps = {}
    x = taps[1] = conv(x, 32, 3, name="stem")
    for stage, depth in enumerate(row.depths, 1):
        x = conv(x, 32 * 2**stage, 3, 2, name=f"s{stage}_down")
        for block in range(1, depth + 1):
            x = residual(x, 32 * 2**stage, f"s{stage}_b{block}")
        taps[2**stage] = x
    return taps
