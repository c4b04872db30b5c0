"""SegFormer's all-MLP decoder: Xie, Wang, Yu, Anandkumar, Alvarez, Luo, "SegFormer: simple and efficient design for semantic segmentation with
transformers", NeurIPS 2021, section 3.2, equation 4.

The features of strides 4 to 32 are brought to the same channels pixel by pixel, enlarged to stride 4 and mixed by one more layer. It is that light
because the encoders (`mit_b0` to `mit_b5`) see far by attention; it takes any net's features all the same.

Deviations: none from the authors' code (BatchNorm and ReLU after mixing; dropout of 0.1 before the classes is `dropout=0.1` of `build_segmenter`).
`segformer` has the 256 channels of B0 and B1, `segformer_768` those of B2 to B5.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import decoder
from cnn_zoo.segmentation_layers import BilinearUpSampling2D

STRIDES = (32, 16, 8, 4)


class Row(NamedTuple):
    channels: int = 256  # C
    logits_kernel: int = 1


@decoder(
    {"segformer": Row(256), "segformer_768": Row(768)},
    strides=STRIDES[::-1],
    paper="Xie et al. 2021, SegFormer: simple and efficient design for semantic segmentation with transformers",
)
def segformer(taps, row):
    levels = []
    for stride in STRIDES:
        x = L.Conv2D(row.channels, 1, name=f"decoder_linear{stride}")(taps[stride])
        if stride > 4:
            x = BilinearUpSampling2D(stride // 4, name=f"decoder_up{stride}")(x)
        levels.append(x)
    return blocks.conv_bn(L.Concatenate(name="decoder_concat")(levels), row.channels, name="decoder_fuse")
