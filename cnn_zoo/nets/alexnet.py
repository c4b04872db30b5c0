"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012.

Section 3 and figure 2 give the net: two groups of maps that lived on one GPU each and meet in conv3. `alexnet_one_tower` is the same author's
"One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997 (2014), the net of torchvision; `alexnet_lecture` is the
net that courses draw beside LeNet. `alexnet_caffe` differs from `alexnet` in the constants of its normalisation only.

Deviations: the paper says 224x224 inputs; its first layer has 55x55 outputs with 227x227 only, as all later implementations have it.
Pixels lose the mean colour of ImageNet, not a mean image. Kernels start from Glorot's distribution and biases at 0, where the paper
drew kernels with deviation 0.01 and set some biases to 1. Dropout follows both hidden dense layers, as in 2012; torchvision drops their inputs.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.layers import LRN, GroupedConv2D
from cnn_zoo.registry import family


class Row(NamedTuple):
    maps: tuple[int, ...]  # of conv1 .. conv5
    groups: tuple[int, ...]
    pad: int  # on each side of the image
    lrn: dict | None  # constants of the normalisation
    preset: str
    size: int
    params: int
    source: str


PAPER, CAFFE = {"k": 2.0, "alpha": 1e-4}, {"k": 1.0, "alpha": 1e-4 / 5}
TWO, ONE = (1, 2, 1, 2, 2), (1,) * 5
WIDE = (96, 256, 384, 384, 256)
SUM = "sum over section 3.5 of Krizhevsky et al. 2012 (60 million) with 227x227 inputs: BVLC's bvlc_alexnet"


@family(
    {  #                               maps conv1-5              groups pad  LRN  pixels  size  trainable parameters
        "alexnet": Row(WIDE, TWO, 0, PAPER, "caffe", 227, 60_965_224, SUM),
        "alexnet_caffe": Row(WIDE, TWO, 0, CAFFE, "caffe", 227, 60_965_224, SUM),
        "alexnet_one_tower": Row(
            (64, 192, 384, 256, 256),
            ONE,
            2,
            None,
            "imagenet",
            224,
            61_100_840,
            "torchvision 0.29 meta num_params of AlexNet_Weights",
        ),
        "alexnet_lecture": Row(
            WIDE, ONE, 0, None, "imagenet", 224, 50_844_008, "sum over the shapes of the lecture's figure"
        ),
    },
    head=blocks.dense_head,
    channels=3,
    classes=1000,
    paper="Krizhevsky, Sutskever, Hinton 2012, ImageNet classification with deep convolutional neural networks",
)
def alexnet(x, row):
    def conv(x, i, kernel, stride=1, padding="same"):
        kind = GroupedConv2D if row.groups[i - 1] > 1 else L.Conv2D
        x = kind(row.maps[i - 1], kernel, stride, padding, groups=row.groups[i - 1], name=f"conv{i}")(x)
        return blocks.activation(x, "relu", f"conv{i}_relu")

    def norm(x, name):
        return LRN(**row.lrn, name=name)(x) if row.lrn else x

    taps = {}
    if row.pad:
        x = L.ZeroPadding2D(row.pad, name="conv1_pad")(x)
    x = taps[4] = norm(conv(x, 1, 11, 4, "valid"), "norm1")
    x = L.MaxPooling2D(3, 2, name="pool1")(x)
    x = taps[8] = norm(conv(x, 2, 5), "norm2")
    x = L.MaxPooling2D(3, 2, name="pool2")(x)
    x = taps[16] = conv(conv(conv(x, 3, 3), 4, 3), 5, 3)
    taps[32] = L.MaxPooling2D(3, 2, name="pool5")(x)
    return taps
