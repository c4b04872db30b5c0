"""Feature pyramid network for segmentation. The pyramid: Lin, Dollar, Girshick, He, Hariharan, Belongie, "Feature pyramid networks for object
detection", CVPR 2017, figure 3. Its use: Kirillov, Girshick, He, Dollar, "Panoptic feature pyramid networks", CVPR 2019, figure 3.

From coarse to fine, each level is the level before at twice the size plus a 1x1 convolution of the net's features; two 3x3 convolutions a level,
all levels enlarged to the finest, then added or concatenated.

Deviations, in structure and names those of segmentation_models 1.0.1: the levels lie at strides 16, 8, 4 and 2, one step finer than in the papers;
BatchNorm instead of group normalisation; each level is enlarged at once instead of step by step; one more 3x3 convolution after they are joined.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo.decoders import parts
from cnn_zoo.errors import InputError
from cnn_zoo.registry import decoder
from cnn_zoo.segmentation_layers import BilinearUpSampling2D


class Row(NamedTuple):
    pyramid_filters: int = 256
    segmentation_filters: int = 128
    aggregation: str = "concat"  # or "sum"
    dropout: float | None = None  # of whole maps
    batch_norm: bool = True


def level(x, skip, filters, stage):
    """One level of the pyramid from the level before and the net's features at twice its size."""
    name = f"fpn_stage_p{stage}"
    if x.shape[-1] != filters:
        x = L.Conv2D(filters, 1, kernel_initializer="he_uniform", name=f"{name}_pre_conv")(x)
    skip = L.Conv2D(filters, 1, kernel_initializer="he_uniform", name=f"{name}_conv")(skip)
    return L.Add(name=f"{name}_add")([L.UpSampling2D(2, name=f"{name}_upsampling")(x), skip])


def fpn(x, skips, row):
    """From the coarsest features and four finer ones, deepest first, to twice the size of the finest."""
    if row.aggregation not in ("sum", "concat"):
        raise InputError(f"aggregation is 'sum' or 'concat', not {row.aggregation!r}")
    levels = []
    for stage, skip in zip((5, 4, 3, 2), skips, strict=True):
        x = level(x, skip, row.pyramid_filters, stage)
        levels.append(x)
    joined = []
    for stage, size, x in zip((5, 4, 3, 2), (8, 4, 2, 1), levels):
        for half in "ab":
            x = parts.conv(x, row.segmentation_filters, batch_norm=row.batch_norm, name=f"segm_stage{stage}{half}")
        joined.insert(0, L.UpSampling2D(size, name=f"upsampling_stage{stage}")(x) if size > 1 else x)
    if row.aggregation == "sum":
        x = L.Add(name="aggregation_sum")(joined)
    else:
        x = L.Concatenate(name="aggregation_concat")(joined)
    if row.dropout:
        x = L.SpatialDropout2D(row.dropout, name="pyramid_dropout")(x)
    x = parts.conv(x, row.segmentation_filters, batch_norm=row.batch_norm, name="final_stage")
    return BilinearUpSampling2D(2, name="final_upsampling")(x)


@decoder(
    {"fpn": Row(), "fpn_sum": Row(aggregation="sum")},
    strides=(2, 4, 8, 16, 32),
    paper="Kirillov et al. 2019, Panoptic feature pyramid networks; Lin et al. 2017, Feature pyramid networks for object detection",
)
def decode(taps, row):
    return fpn(taps[32], [taps[stride] for stride in (16, 8, 4, 2)], row)
