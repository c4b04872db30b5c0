"""MiT: the encoders of Xie, Wang, Yu, Anandkumar, Alvarez, Luo, "SegFormer: simple and efficient design for semantic segmentation with
transformers", NeurIPS 2021, section 3.1 and table 6. The one family here whose maps look at each other by attention instead of by kernels.

Four stages, each an overlapping patch embedding (a strided convolution and LayerNorm) and blocks of efficient self-attention (keys and values from
a map that is smaller by the reduction ratio R) and Mix-FFN (a 3x3 depthwise convolution between two dense layers, which also tells position).

Deviations: none from the authors' code; LayerNorm's epsilon is 1e-6 in the blocks and after the stages, 1e-5 in the patch embeddings and in the
reduction. The count of parameters includes the classifier of ImageNet that the encoders are pretrained with: mean over the map, one dense layer.
"""

import math
from typing import NamedTuple

import keras
from keras import layers as L
from keras import ops

from cnn_zoo import blocks
from cnn_zoo.layers import DropPath
from cnn_zoo.registry import family


class Row(NamedTuple):
    maps: tuple[int, ...]  # C of each stage
    depths: tuple[int, ...]  # L, blocks of each stage
    params: int


STAGES = (  # table 6: kernel and stride of the patch embedding, heads N, reduction ratio R
    (7, 4, 1, 8),
    (3, 2, 2, 4),
    (3, 2, 5, 2),
    (3, 2, 8, 1),
)
EXPANSION = 4  # E, of the feed-forward nets
DROP_PATH = 0.1
WIDE = (64, 128, 320, 512)

register = keras.saving.register_keras_serializable("cnn_zoo")


@register
def gelu(x):
    """GELU by the error function: exporters to ONNX do not know the complementary one, by which Keras writes it."""
    return 0.5 * x * (1 + ops.erf(x / math.sqrt(2)))


@register
class EfficientAttention(L.Layer):
    """Self-attention of all pixels of a map with a smaller copy of it.

    Args:
        heads: Attention heads, a divisor of the number of channels.
        reduction: R: keys and values come from a map smaller by this factor, made by a convolution with kernel and stride R, and LayerNorm.

    Input and output `(batch, height, width, channels)`, height and width at least `reduction`.

    Source: Xie et al. 2021, equations 1 and 2.
    """

    def __init__(self, heads, reduction=1, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.reduction = int(heads), int(reduction)

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.heads:
            raise ValueError(f"{self.name}: {channels} channels cannot be divided among {self.heads} heads")
        tokens, policy = (input_shape[0], None, channels), self.dtype_policy
        self.attend = L.MultiHeadAttention(self.heads, channels // self.heads, dtype=policy, name="attend")
        self.attend.build(tokens, tokens)
        if self.reduction > 1:
            self.reduce = L.Conv2D(channels, self.reduction, self.reduction, dtype=policy, name="reduce")
            self.reduce.build(input_shape)
            self.norm = L.LayerNormalization(epsilon=1e-5, dtype=policy, name="norm")
            self.norm.build(input_shape)

    def call(self, x, training=False):
        small = self.norm(self.reduce(x)) if self.reduction > 1 else x
        flat = (-1, x.shape[-1])  # a map as a row of tokens
        y = self.attend(
            ops.reshape(x, (ops.shape(x)[0], *flat)), ops.reshape(small, (ops.shape(x)[0], *flat)), training=training
        )
        return ops.reshape(y, ops.shape(x))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "heads": self.heads, "reduction": self.reduction}


def mix_ffn(x, name):
    """Equation 3: dense, 3x3 depthwise convolution, GELU, dense."""
    channels = x.shape[-1]
    x = L.Conv2D(EXPANSION * channels, 1, name=f"{name}_fc1")(x)
    x = L.DepthwiseConv2D(3, padding="same", name=f"{name}_dw")(x)
    return L.Conv2D(channels, 1, name=f"{name}_fc2")(L.Activation(gelu, name=f"{name}_gelu")(x))


def add(x, y, rate, name):
    if rate:
        y = DropPath(rate, name=f"{name}_drop")(y)
    return L.Add(name=f"{name}_add")([x, y])


@family(
    {  #             channels           blocks        trainable parameters
        "mit_b0": Row((32, 64, 160, 256), (2, 2, 2, 2), 3_576_392),
        "mit_b1": Row(WIDE, (2, 2, 2, 2), 13_664_424),
        "mit_b2": Row(WIDE, (3, 4, 6, 3), 24_709_288),
        "mit_b3": Row(WIDE, (3, 4, 18, 3), 44_585_128),
        "mit_b4": Row(WIDE, (3, 8, 27, 3), 61_355_688),
        "mit_b5": Row(WIDE, (3, 6, 40, 3), 81_956_008),
    },
    head=blocks.pooled_head,
    source="transformers 5.23.0, parameters of SegformerForImageClassification with the sizes of nvidia/mit-b*; table 6: encoders of 3.4 to 81.4 M",
    size=224,
    channels=3,
    classes=1000,
    preset="imagenet",
    paper="Xie et al. 2021, SegFormer: simple and efficient design for semantic segmentation with transformers",
)
def mit(x, row):
    taps, at, done = {}, 1, 0
    for stage, ((kernel, stride, heads, reduction), channels, depth) in enumerate(zip(STAGES, row.maps, row.depths), 1):
        x = L.ZeroPadding2D(kernel // 2, name=f"s{stage}_embed_pad")(x)
        x = L.Conv2D(channels, kernel, stride, name=f"s{stage}_embed_conv")(x)
        x = L.LayerNormalization(epsilon=1e-5, name=f"s{stage}_embed_norm")(x)
        for block in range(1, depth + 1):
            name, rate = f"s{stage}_b{block}", DROP_PATH * done / (sum(row.depths) - 1)
            y = L.LayerNormalization(epsilon=1e-6, name=f"{name}_norm1")(x)
            x = add(x, EfficientAttention(heads, reduction, name=f"{name}_attention")(y), rate, f"{name}_attention")
            y = L.LayerNormalization(epsilon=1e-6, name=f"{name}_norm2")(x)
            x = add(x, mix_ffn(y, f"{name}_ffn"), rate, f"{name}_ffn")
            done += 1
        at *= stride
        x = taps[at] = L.LayerNormalization(epsilon=1e-6, name=f"s{stage}_norm")(x)
    return taps
