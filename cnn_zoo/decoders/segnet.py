"""SegNet: Badrinarayanan, Kendall, Cipolla, "SegNet: a deep convolutional encoder-decoder architecture for image segmentation", TPAMI 2017.

Each step up puts the values where the encoder's pooling found its maxima (figure 3) and convolves the sparse map until it is dense. A step has as
many convolutions as the encoder's stage; the last of them brings the channels to those of the next, finer stage. Over `vgg16_bn` these are 12,
and with the classifying 3x3 convolution 13, as the encoder's. SegNet-Basic has four encoders and four decoders of one 7x7 convolution each.

Deviations: no biases beside BatchNorm in the decoder (the encoder of SegNet is that of the net). SegNet-Basic has no local response normalisation
of the image, which the authors' Caffe model puts first and the paper does not mention: `preprocess` normalises. A net that ends with other channels
than its stage before gets a 1x1 convolution in between; one without features at stride 1 ends at its finest stride.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import decoder
from cnn_zoo.segmentation_layers import MaxUnpool2D


class Row(NamedTuple):
    convs: tuple = (3, 3, 3, 2, 1)  # of each step up, the classifying one not counted
    kernel: int = 3
    act: str | None = "relu"
    logits_kernel: int = 3


class Basic(NamedTuple):
    """SegNet-Basic, section 3.1."""

    depth: int = 4
    filters: int = 64
    kernel: int = 7


@decoder(
    {"segnet": Row()},
    strides=(2, 4, 8, 16, 32),
    paper="Badrinarayanan et al. 2017, SegNet: a deep convolutional encoder-decoder architecture for image segmentation",
)
def segnet(taps, row):
    coarsest, *finer = sorted(taps, reverse=True)
    x = taps[coarsest]
    for step, (stride, convs) in enumerate(zip(finer, row.convs), 1):
        channels, name = taps[stride].shape[-1], f"decoder_s{step}"
        if x.shape[-1] != channels:
            x = blocks.conv_bn(x, channels, act=row.act, name=f"{name}_match")
        x = MaxUnpool2D(name=f"{name}_unpool")([x, taps[stride]])
        following = taps[stride // 2].shape[-1] if stride // 2 in taps else channels
        for i in range(1, convs + 1):
            filters = following if i == convs else channels
            x = blocks.conv_bn(x, filters, row.kernel, act=row.act, name=f"{name}_{i}")
    return x


def basic_encoder(x, row):
    """The encoders of SegNet-Basic: the taps of a net."""
    taps = {}
    for step in range(row.depth):
        x = blocks.conv_bn(x, row.filters, row.kernel, name=f"s{step + 1}")
        taps[2**step] = x
        x = L.MaxPooling2D(2, name=f"s{step + 1}_pool")(x)
    taps[2**row.depth] = x
    return taps


def basic_decoder(row) -> Row:
    """The row whose decoders mirror the encoders of SegNet-Basic; none of them has a ReLU."""
    return Row((1,) * row.depth, row.kernel, None, 1)
