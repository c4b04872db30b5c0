"""DeepLabV3: Chen, Papandreou, Schroff, Adam, "Rethinking atrous convolution for semantic image segmentation", arXiv:1706.05587 (2017), figure 5.
DeepLabV3+: Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-decoder with atrous separable convolution for semantic image segmentation", ECCV 2018,
figure 2.

The net's last strides are replaced by dilation, down to the stride `output_stride`. On its last features: a 1x1 convolution, 3x3 ones at several
rates and the mean of the whole map, side by side (ASPP), and a 1x1 convolution of them all. V3+ enlarges that to stride 4, joins the net's features
there, and convolves twice.

Deviations: V3 has torchvision's 3x3 convolution between ASPP and the classes. Rates are those of output stride 16 and are doubled at 8. V3+ takes the
net's last features at stride 4.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.errors import InputError
from cnn_zoo.registry import decoder
from cnn_zoo.segmentation_layers import BilinearUpSampling2D, BroadcastLike


class Row(NamedTuple):
    filters: int = 256
    rates: tuple = (6, 12, 18)  # at output stride 16
    output_stride: int = 16  # or 8
    separable: bool = False  # depthwise and 1x1 in place of full 3x3 convolutions
    skip: int = 0  # V3+: channels of the features at stride 4; 0 for V3
    aspp_dropout: float = 0.1
    logits_kernel: int = 1


def conv3(x, filters, rate, row, name):
    """3x3 convolution at a rate, BatchNorm, ReLU."""
    if row.separable:
        x = L.DepthwiseConv2D(3, padding="same", dilation_rate=rate, use_bias=False, name=f"{name}_dw")(x)
        return blocks.conv_bn(x, filters, name=name)
    x = L.Conv2D(filters, 3, padding="same", dilation_rate=rate, use_bias=False, name=f"{name}_conv")(x)
    x = L.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_bn")(x)
    return L.Activation("relu", name=f"{name}_relu")(x)


def aspp(x, row):
    """Atrous spatial pyramid pooling with image-level features."""
    branches = [blocks.conv_bn(x, row.filters, name="decoder_aspp_1x1")]
    for rate in row.rates:
        rate = rate * 16 // row.output_stride
        branches.append(conv3(x, row.filters, rate, row, f"decoder_aspp_rate{rate}"))
    image = L.GlobalAveragePooling2D(keepdims=True, name="decoder_aspp_pool")(x)
    image = blocks.conv_bn(image, row.filters, name="decoder_aspp_image")
    branches.append(BroadcastLike(name="decoder_aspp_broadcast")([image, x]))
    x = L.Concatenate(name="decoder_aspp_concat")(branches)
    x = blocks.conv_bn(x, row.filters, name="decoder_aspp_project")
    return L.Dropout(row.aspp_dropout, name="decoder_aspp_dropout")(x)


@decoder(
    {"deeplabv3": Row()},
    strides=(16,),
    dilate=16,
    paper="Chen et al. 2017, Rethinking atrous convolution for semantic image segmentation",
)
@decoder(
    {"deeplabv3plus": Row(separable=True, skip=48)},
    strides=(4, 16),
    dilate=16,
    paper="Chen et al. 2018, Encoder-decoder with atrous separable convolution for semantic image segmentation",
)
def deeplab(taps, row):
    if row.output_stride not in (8, 16):
        raise InputError(f"output_stride is 8 or 16, not {row.output_stride!r}")
    x = aspp(taps[row.output_stride], row)
    if not row.skip:
        return conv3(x, row.filters, 1, row, "decoder_1")
    x = BilinearUpSampling2D(row.output_stride // 4, name="decoder_up")(x)
    skip = blocks.conv_bn(taps[4], row.skip, name="decoder_skip")
    x = L.Concatenate(name="decoder_concat")([x, skip])
    for i in (1, 2):
        x = conv3(x, row.filters, 1, row, f"decoder_{i}")
    return x
