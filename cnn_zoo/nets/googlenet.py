"""GoogLeNet (Inception-v1): Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, "Going deeper with convolutions", CVPR 2015.

Table 1 gives the net and section 5 the auxiliary classifiers; `TABLE_1` below is that table. Two readings:

===============  =======================================  ============================================
row              googlenet (torchvision)                  googlenet_2014 (the paper, BVLC's weights)
===============  =======================================  ============================================
convolutions     without bias, BatchNorm                  with bias; local response normalisation twice
"5x5" branch     3x3 kernels                              5x5 kernels
last pooling     2x2                                      3x3
dropout          0.2                                      0.4
pixels           -1..1                                    mean colour subtracted
===============  =======================================  ============================================

Deviations: the paper does not print the constants of its normalisation; they are those of BVLC's GoogLeNet. `auxiliary` pools 5x5 at stride 3, as
the paper does, for both rows: torchvision divides the map into 4x4 windows of 4x4 pixels. Dropout of the auxiliary heads is the paper's 0.7.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.layers import LRN
from cnn_zoo.registry import family

# Columns "#1x1", "#3x3 reduce", "#3x3", "#5x5 reduce", "#5x5", "pool proj", by stage.
TABLE_1 = {
    3: {"a": (64, 96, 128, 16, 32, 32), "b": (128, 128, 192, 32, 96, 64)},
    4: {
        "a": (192, 96, 208, 16, 48, 64),
        "b": (160, 112, 224, 24, 64, 64),
        "c": (128, 128, 256, 24, 64, 64),
        "d": (112, 144, 288, 32, 64, 64),
        "e": (256, 160, 320, 32, 128, 128),
    },
    5: {"a": (256, 160, 320, 32, 128, 128), "b": (384, 192, 384, 48, 128, 128)},
}
AUXILIARY_WEIGHT = 0.3  # of each auxiliary loss in the total


class Row(NamedTuple):
    batch_norm: bool  # else biases and local response normalisation
    kernel5: int  # of the branch "5x5"
    pool4: int
    dropout: float
    preset: str
    params: int
    source: str


def conv(x, maps, kernel, row, name, stride=1):
    if stride > 1:
        x = L.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    padding = "valid" if stride > 1 else "same"
    x = L.Conv2D(maps, kernel, stride, padding, use_bias=not row.batch_norm, name=f"{name}_conv")(x)
    if row.batch_norm:
        x = L.BatchNormalization(epsilon=1e-3, momentum=0.9, name=f"{name}_bn")(x)
    return L.Activation("relu", name=f"{name}_relu")(x)


def norm(x, row, name):
    return x if row.batch_norm else LRN(k=1.0, alpha=1e-4 / 5, name=name)(x)


def inception(x, columns, row, name):
    """Figure 2(b): four branches side by side, the wide kernels behind 1x1 reductions."""
    n1, n3_reduce, n3, n5_reduce, n5, proj = columns
    b1 = conv(x, n1, 1, row, f"{name}_1x1")
    b3 = conv(conv(x, n3_reduce, 1, row, f"{name}_3x3_reduce"), n3, 3, row, f"{name}_3x3")
    b5 = conv(conv(x, n5_reduce, 1, row, f"{name}_5x5_reduce"), n5, row.kernel5, row, f"{name}_5x5")
    pool = L.MaxPooling2D(3, 1, "same", name=f"{name}_pool")(x)
    return L.Concatenate(name=f"{name}_concat")([b1, b3, b5, conv(pool, proj, 1, row, f"{name}_pool_proj")])


def head(x, classes, row):
    x = L.GlobalAveragePooling2D(name="head_pool")(x)
    x = L.Dropout(row.dropout, name="head_dropout")(x)
    return L.Dense(classes, dtype="float32", name="logits")(x)


def auxiliary(tensor, classes, row):
    """The two classifiers that help training, on top of (4a) and (4d): `{"aux1": logits, "aux2": logits}`.

    `tensor(name)` gives the output of the layer `name` of the trunk. Each loss is weighted by `AUXILIARY_WEIGHT`; inference leaves them out.
    """
    outputs = {}
    for key, block in (("aux1", "s4_a"), ("aux2", "s4_d")):
        x = L.AveragePooling2D(5, 3, name=f"head_{key}_pool")(tensor(f"{block}_concat"))
        x = L.Flatten(name=f"head_{key}_flatten")(conv(x, 128, 1, row, f"head_{key}"))
        x = L.Dense(1024, activation="relu", name=f"head_{key}_fc")(x)
        x = L.Dropout(0.7, name=f"head_{key}_dropout")(x)
        outputs[key] = L.Dense(classes, dtype="float32", name=f"head_{key}_logits")(x)
    return outputs


@family(
    {  #                 BN  5x5 pool dropout pixels  trainable parameters
        "googlenet": Row(
            True, 3, 2, 0.2, "symmetric", 6_624_904, "torchvision 0.29, googlenet without auxiliary heads"
        ),
        "googlenet_2014": Row(
            False,
            5,
            3,
            0.4,
            "caffe",
            6_998_552,
            "sum over table 1 of Szegedy et al. 2015, with biases (6.8 million by its own column)",
        ),
    },
    head=head,
    auxiliary=auxiliary,
    size=224,
    channels=3,
    classes=1000,
    paper="Szegedy et al. 2015, Going deeper with convolutions",
)
def googlenet(x, row):
    taps = {}
    x = taps[2] = conv(x, 64, 7, row, "stem_1", stride=2)
    x = norm(blocks.ceil_pool(x, 3, name="stem_pool1"), row, "stem_norm1")
    x = conv(conv(x, 64, 1, row, "stem_2_reduce"), 192, 3, row, "stem_2")
    x = taps[4] = norm(x, row, "stem_norm2")
    for stage, pool in ((3, 3), (4, 3), (5, row.pool4)):
        x = blocks.ceil_pool(x, pool, name=f"s{stage}_pool")
        for letter, columns in TABLE_1[stage].items():
            x = inception(x, columns, row, f"s{stage}_{letter}")
        taps[2**stage] = x
    return taps
