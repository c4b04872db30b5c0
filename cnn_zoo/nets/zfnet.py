"""ZFNet: Zeiler, Fergus, "Visualizing and understanding convolutional networks", arXiv:1311.2901 (2013), ECCV 2014.

Figure 3 gives the net: AlexNet with a smaller, denser first layer (7x7 at stride 2 in place of 11x11 at stride 4), found by looking at what
the first layers of AlexNet had learnt, and with all connections where AlexNet has two groups. The figure's sizes (110, 55, 26, 13, 6) follow
from one pixel of padding at the image and from poolings whose last window may reach beyond the map.

Deviations: the contrast normalisation across maps, whose constants the paper does not print, is AlexNet's. Pixels lose the mean colour of ImageNet,
not a mean image. Kernels start from Glorot's distribution, not with deviation 0.01; filters of large norm are not rescaled in training.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.layers import LRN
from cnn_zoo.registry import family


class Row(NamedTuple):
    maps: tuple[int, ...]  # of layers 1 .. 5
    params: int
    source: str


@family(
    {
        "zfnet": Row(
            (96, 256, 384, 384, 256), 62_357_608, "sum over figure 3 of Zeiler and Fergus 2013; pytorchcv lists it"
        )
    },
    head=blocks.dense_head,
    size=224,
    preset="caffe",
    paper="Zeiler, Fergus 2013, Visualizing and understanding convolutional networks",
    channels=3,
    classes=1000,
)
def zfnet(x, row):
    taps = {}
    x = L.ZeroPadding2D(1, name="conv1_pad")(x)
    x = taps[2] = blocks.conv(x, row.maps[0], 7, 2, act="relu", padding="valid", name="conv1")
    x = taps[4] = LRN(name="norm1")(blocks.ceil_pool(x, 3, name="pool1"))
    x = taps[8] = blocks.conv(x, row.maps[1], 5, 2, act="relu", padding="valid", name="conv2")
    x = LRN(name="norm2")(blocks.ceil_pool(x, 3, name="pool2"))
    for i in (3, 4, 5):
        x = taps[16] = blocks.conv(x, row.maps[i - 1], 3, act="relu", name=f"conv{i}")
    taps[32] = blocks.ceil_pool(x, 3, name="pool5")
    return taps
