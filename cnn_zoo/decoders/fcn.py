"""FCN: Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, figure 3.

Scores for each class by a 1x1 convolution, from the coarsest features (FCN-32s), and added to them, step by step enlarged twice, those from stride
16 (FCN-16s) and 8 (FCN-8s). Enlarging is a transposed convolution that starts as bilinear interpolation and learns; the last one is fixed.

`build_segmenter("fcn8", "vgg16", classes, fc=4096)` has the paper's two layers of 4096 maps before the scores, which were VGG's dense ones.

Deviations: the features of a stride are the last ones, such as conv4_3 of VGG, where the paper takes them after the pooling that begins the
stride (pool3). The layer that was fc6 pads with "same", where the paper pads the image by 100 pixels. Score layers start random instead of from zero.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import decoder
from cnn_zoo.segmentation_layers import Bilinear

PAPER = "Long et al. 2015, Fully convolutional networks for semantic segmentation"


class Row(NamedTuple):
    strides: tuple  # that scores are taken from, the coarsest first
    fc: int = 0  # maps of the two layers before the coarsest scores, 4096 in the paper; 0 for none
    fc_dropout: float = 0.5
    classes: int = 0  # set by the assembler


@decoder({"fcn32": Row((32,))}, strides=(32,), paper=PAPER)
@decoder({"fcn16": Row((32, 16))}, strides=(16, 32), paper=PAPER)
@decoder({"fcn8": Row((32, 16, 8))}, strides=(8, 16, 32), paper=PAPER)
def fcn(taps, row):
    coarsest, *finer = row.strides
    x = taps[coarsest]
    for name, kernel in (("decoder_fc6", 7), ("decoder_fc7", 1)) if row.fc else ():
        x = blocks.conv(x, row.fc, kernel, act="relu", name=name)
        x = L.Dropout(row.fc_dropout, name=f"{name}_dropout")(x)
    x = score(x, coarsest, row)
    for stride in finer:
        about = {"use_bias": False, "kernel_initializer": Bilinear(), "dtype": "float32", "name": f"decoder_up{stride}"}
        up = L.Conv2DTranspose(row.classes, 4, 2, "same", **about)
        x = L.Add(dtype="float32", name=f"decoder_add{stride}")([up(x), score(taps[stride], stride, row)])
    return x


def score(x, stride, row):
    return L.Conv2D(row.classes, 1, dtype="float32", name=f"decoder_score{stride}")(x)
