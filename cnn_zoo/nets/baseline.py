"""What to beat: a net without convolutions and three plain CNNs, each the size of the images of a first course.

====================  ========================================================================  =================  ============================
row                   layers                                                                    input              published as
====================  ========================================================================  =================  ============================
mlp                   dense 512, 512                                                            28x28 gray         Keras' example mnist_mlp
cnn_small             conv 32, pool, conv 64, pool                                              28x28 gray         Keras' "Simple MNIST convnet"
cnn_mnist             conv 32, conv 64, pool, dense 128                                         28x28 gray         Keras' example mnist_cnn
cnn_vgg_like          twice (conv, conv, pool) with 32 and 64 maps, dense 512                   32x32 colour       Keras' example cifar10_cnn
====================  ========================================================================  =================  ============================

All convolutions are 3x3, all activations ReLU, all poolings 2x2 maxima. The mlp has no trunk: its only tap is the image itself, at stride 1.

Deviations: none in the layers; pixels are 0..1, as in the examples.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family


class Row(NamedTuple):
    stages: tuple[tuple[tuple[int, str], ...], ...]  # (maps, padding) of the convolutions before each pooling
    stage_dropout: float  # after each pooling
    dense: tuple[int, ...]
    dropout: float  # after each hidden dense layer, or before the classes if there is none
    size: int
    channels: int
    params: int
    source: str


def head(x, classes, row):
    x = L.Flatten(name="head_flatten")(x)
    for i, units in enumerate(row.dense, 1):
        x = blocks.dense(x, units, "relu", f"head_fc{i}")
        x = L.Dropout(row.dropout, name=f"head_dropout{i}")(x)
    if not row.dense:
        x = L.Dropout(row.dropout, name="head_dropout")(x)
    return L.Dense(classes, dtype="float32", name="logits")(x)


MLP = "sum over 784-512-512-10; its model.summary() as Keras' example mnist_mlp prints it"
SMALL = "printed by Keras' code example Simple MNIST convnet"
MNIST = "sum over the layers of Keras' example mnist_cnn, and its model.summary()"
VGG = "sum over the layers of Keras' example cifar10_cnn, and its model.summary()"
V, S = "valid", "same"


@family(
    {
        "mlp": Row((), 0, (512, 512), 0.2, 28, 1, 669_706, MLP),
        "cnn_small": Row((((32, V),), ((64, V),)), 0, (), 0.5, 28, 1, 34_826, SMALL),
        "cnn_mnist": Row((((32, V), (64, V)),), 0.25, (128,), 0.5, 28, 1, 1_199_882, MNIST),
        "cnn_vgg_like": Row((((32, S), (32, V)), ((64, S), (64, V))), 0.25, (512,), 0.5, 32, 3, 1_250_858, VGG),
    },
    head=head,
    classes=10,
    preset="unit",
    paper="Chollet et al. 2015, Keras, its first examples",
)
def plain(x, row):
    taps = {1: x}
    for stage, convs in enumerate(row.stages, 1):
        for i, (maps, padding) in enumerate(convs, 1):
            x = taps[2 ** (stage - 1)] = blocks.conv(x, maps, 3, act="relu", padding=padding, name=f"s{stage}_conv{i}")
        x = L.MaxPooling2D(2, name=f"s{stage}_pool")(x)
        x = taps[2**stage] = L.Dropout(row.stage_dropout, name=f"s{stage}_dropout")(x) if row.stage_dropout else x
    return taps
