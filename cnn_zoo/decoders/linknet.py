"""LinkNet over any net: Chaurasia, Culurciello, "LinkNet: exploiting encoder representations for efficient semantic segmentation", VCIP 2017,
figures 1 and 3.

Each step goes through a quarter of the channels, doubles the size, and adds the net's features of that size.

Deviations, in structure and names those of segmentation_models 1.0.1: pixels are repeated unless `transpose`; the features of stride 2 are added,
too; the last step, to the size of the image, is one more of the same.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo.decoders import parts
from cnn_zoo.registry import decoder


class Row(NamedTuple):
    filters: tuple = (None, None, None, None, 16)  # of each step up; where features are added, theirs count instead
    transpose: bool = False  # learn to enlarge, instead of repeating pixels
    batch_norm: bool = True
    center: int = 0  # filters of two convolutions before the first step


def linknet(x, skips, row):
    """From the coarsest features and the finer ones, deepest first; a step beyond the last of these takes none."""
    x = parts.center(x, row.center, row.batch_norm)
    for stage, filters in enumerate(row.filters):
        name, quarter = f"decoder_stage{stage}", x.shape[-1] // 4
        skip = skips[stage] if stage < len(skips) else None
        x = parts.conv(x, quarter, 1, batch_norm=row.batch_norm, name=f"{name}a")
        if row.transpose:
            x = parts.transpose(x, quarter, batch_norm=row.batch_norm, name=f"{name}b")
        else:
            x = L.UpSampling2D(2, name=f"{name}_upsampling")(x)
            x = parts.conv(x, quarter, batch_norm=row.batch_norm, name=f"{name}b")
        x = parts.conv(x, filters if skip is None else skip.shape[-1], 1, batch_norm=row.batch_norm, name=f"{name}c")
        if skip is not None:
            x = L.Add(name=f"{name}_add")([x, skip])
    return x


@decoder(
    {"linknet": Row(), "linknet_transpose": Row(transpose=True)},
    strides=(2, 4, 8, 16, 32),
    paper="Chaurasia and Culurciello 2017, LinkNet: exploiting encoder representations for efficient semantic segmentation",
)
def decode(taps, row):
    return linknet(taps[32], [taps[stride] for stride in (16, 8, 4, 2)], row)
