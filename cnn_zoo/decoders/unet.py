"""U-Net over any net: Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015, the right half
of figure 1.

Each step doubles the size, concatenates the net's features of that size, and convolves twice with 3x3.

Deviations, in structure and names those of segmentation_models 1.0.1: "same" padding, so nothing is cropped; BatchNorm; the nearest pixel or a
4x4 transposed convolution instead of a 2x2 one; a last step from stride 2 to the size of the image, which has no features of the net to take.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo.decoders import parts
from cnn_zoo.registry import decoder


class Row(NamedTuple):
    filters: tuple = (256, 128, 64, 32, 16)  # of each step up
    transpose: bool = False  # learn to enlarge, instead of repeating pixels
    batch_norm: bool = True
    center: int = 0  # filters of two convolutions before the first step


def unet(x, skips, row):
    """From the coarsest features and the finer ones, deepest first; a step beyond the last of these takes none."""
    x = parts.center(x, row.center, row.batch_norm)
    for stage, filters in enumerate(row.filters):
        name = f"decoder_stage{stage}"
        if row.transpose:
            x = parts.transpose(x, filters, batch_norm=row.batch_norm, name=f"{name}a")
        else:
            x = L.UpSampling2D(2, name=f"{name}_upsampling")(x)
        if stage < len(skips):
            x = L.Concatenate(name=f"{name}_concat")([x, skips[stage]])
        if not row.transpose:
            x = parts.conv(x, filters, batch_norm=row.batch_norm, name=f"{name}a")
        x = parts.conv(x, filters, batch_norm=row.batch_norm, name=f"{name}b")
    return x


@decoder(
    {"unet": Row(), "unet_transpose": Row(transpose=True)},
    strides=(2, 4, 8, 16, 32),
    paper="Ronneberger et al. 2015, U-Net: convolutional networks for biomedical image segmentation",
)
def decode(taps, row):
    return unet(taps[32], [taps[stride] for stride in (16, 8, 4, 2)], row)
