"""Importing this package registers every decoder: one line each.

A decoder is a function `decode(taps, row) -> tensor`: from the features of a net, `{stride: tensor}`, to one map at a finer stride. It knows no net's
name. What it needs of the net is the strides in its record; the assembler adds the last convolution, resizes to the size of the image, and pads
and crops where a size is no multiple of the coarsest stride.
"""

from cnn_zoo.decoders import (
    attention_unet,  # noqa: F401
    deeplab,  # noqa: F401
    fcn,  # noqa: F401
    fpn,  # noqa: F401
    linknet,  # noqa: F401
    pspnet,  # noqa: F401
    segformer,  # noqa: F401
    segnet,  # noqa: F401
    unet,  # noqa: F401
    unet_2015,  # noqa: F401
    unetpp,  # noqa: F401
)
