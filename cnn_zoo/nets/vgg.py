"""VGG: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", arXiv:1409.1556 (2014), ICLR 2015.

Table 1, configurations A, B, D and E: only 3x3 convolutions, five stages of them, each ended by a 2x2 max pooling. The rows with `_bn` put a
BatchNorm between convolution and ReLU, as torchvision does; its convolutions keep their biases, although the BatchNorm makes them idle.

Deviations: kernels start from Glorot's distribution (which the paper found to do) where its deeper nets were started from the
shallowest. Rows without BatchNorm take pixels as the paper does (mean colour subtracted); torchvision also divides by the deviation.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family


class Row(NamedTuple):
    convs: tuple[int, ...]  # 3x3 convolutions in each stage
    batch_norm: bool
    preset: str
    params: int


A, B, D, E = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)
MAPS = (64, 128, 256, 512, 512)


@family(
    {  #        table 1, BatchNorm, pixels, trainable parameters
        "vgg11": Row(A, False, "caffe", 132_863_336),
        "vgg13": Row(B, False, "caffe", 133_047_848),
        "vgg16": Row(D, False, "caffe", 138_357_544),
        "vgg19": Row(E, False, "caffe", 143_667_240),
        "vgg11_bn": Row(A, True, "imagenet", 132_868_840),
        "vgg13_bn": Row(B, True, "imagenet", 133_053_736),
        "vgg16_bn": Row(D, True, "imagenet", 138_365_992),
        "vgg19_bn": Row(E, True, "imagenet", 143_678_248),
    },
    head=blocks.dense_head,
    source="torchvision 0.29 meta num_params of VGG*_Weights; vgg16 and vgg19 also Keras and image-classifiers; table 2 gives 133 to 144 million",
    size=224,
    channels=3,
    classes=1000,
    paper="Simonyan, Zisserman 2014, Very deep convolutional networks for large-scale image recognition",
)
def vgg(x, row):
    taps = {}
    for stage, (maps, convs) in enumerate(zip(MAPS, row.convs), 1):
        for i in range(1, convs + 1):
            name = f"s{stage}_conv{i}"
            x = blocks.conv(x, maps, 3, name=name)
            if row.batch_norm:
                x = L.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"s{stage}_bn{i}")(x)
            x = blocks.activation(x, "relu", f"{name}_relu")
        taps[2 ** (stage - 1)] = x
        x = L.MaxPooling2D(2, name=f"s{stage}_pool")(x)
    taps[32] = x
    return taps
