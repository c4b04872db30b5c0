"""LeNet: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86 (1998) 2278-2324.

Figure 2 and section II.B give the published net, `lenet5`; two later readings of it are what courses teach:

===============  ====================  =====================  =======================  ============================
row              lenet                 lenet_relu             lenet_sigmoid            lenet5 (1998)
===============  ====================  =====================  =======================  ============================
input            28x28, 0..1           28x28, 0..1            28x28, 0..1              32x32, -0.1..1.175
C1               6 5x5, padded by 2    6 5x5, padded by 2     6 5x5, padded by 2       6 5x5
S2, S4           average pooling       max pooling            average pooling          average times a trainable
                                                                                       coefficient plus a bias
C3               16 5x5 on all 6 maps  the same               the same                 16 5x5, Table I: 60 of 96
C5               convolution of 120    convolution of 120     dense layer of 120       convolution of 120
squashing        tanh                  ReLU                   sigmoid                  1.7159 tanh(2/3 a), after
                                                                                       S2 and S4 as well
output           dense, softmax        dense, softmax         dense, softmax           RBF on fixed 7x12 codes
===============  ====================  =====================  =======================  ============================

`lenet` is the net of the lecture's layer table, `lenet_sigmoid` that of its side-by-side figure with AlexNet, and `lenet_relu` has the same
61,706 parameters with the two changes that every net since AlexNet made.

Deviations of `lenet5`: S2 and S4 average where the paper sums, which only divides their coefficient by 4. The paper prints its codes as a
picture; ours are drawn after it, not traced. Classes other than ten get random codes, an alternative that the paper names. Kernels start from
Glorot's distribution, not uniformly in +-2.4 / fan-in.
"""

from typing import NamedTuple

import numpy as np
from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.layers import RBF, PartialConv2D
from cnn_zoo.registry import family

# Table I: the maps of S2 that each of the 16 maps of C3 sees.
TABLE_I = (
    *((i, (i + 1) % 6, (i + 2) % 6) for i in range(6)),
    *((i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6) for i in range(6)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# After figure 3: the targets of F6's 84 units, as 7x12 pictures of the digits.
DIGITS = """
.......  ...#...  .......  .......  .......  .......  ..####.  .......  .......  .......
..###..  ..##...  .#####.  #######  .#...#.  #######  .##....  #######  .#####.  .#####.
.##.##.  ####...  ##...##  ##...##  ##...##  ##.....  ##.....  ##...##  ##...##  ##...##
##...##  ..##...  .....##  ....##.  ##...##  ##.....  ##.....  .....##  ##...##  ##...##
##...##  ..##...  .....##  ...##..  ##...##  ######.  ######.  ....##.  ##...##  ##...##
##...##  ..##...  ....##.  ..####.  ##...##  .....##  ##...##  ....##.  .#####.  ##...##
##...##  ..##...  ...##..  .....##  #######  .....##  ##...##  ...##..  ##...##  .######
##...##  ..##...  ..##...  .....##  .....##  .....##  ##...##  ...##..  ##...##  .....##
.##.##.  ..##...  .##....  ##...##  .....##  ##...##  ##...##  ..##...  ##...##  .....##
..###..  ######.  #######  .#####.  .....##  .#####.  .#####.  ..##...  .#####.  ....##.
.......  .......  .......  .......  .......  .......  .......  .......  .......  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


class Row(NamedTuple):
    published: bool  # subsampling layers, Table I and RBF outputs of the 1998 paper
    c5: str
    activation: str
    pooling: str
    preset: str
    size: int
    params: int
    source: str


def codes(classes):
    """The RBF centres: `(classes, 84)` of -1 and +1."""
    if classes != 10:
        return np.random.default_rng(1998).choice((-1, 1), (classes, 84))
    lines = [line.split() for line in DIGITS.split("\n") if line]
    return np.array([[1 if dot == "#" else -1 for line in lines for dot in line[digit]] for digit in range(10)])


def subsample(x, name):
    """S2 and S4: the mean of 2x2, times a trainable coefficient, plus a trainable bias, for each map."""
    x = L.AveragePooling2D(2, name=f"{name}_mean")(x)
    x = L.DepthwiseConv2D(1, depthwise_initializer="ones", name=f"{name}_coefficient")(x)
    return blocks.activation(x, "lecun_tanh", f"{name}_lecun_tanh")


def head(x, classes, row):
    x = L.Flatten(name="head_flatten")(x)
    if row.c5 == "dense":
        x = blocks.dense(x, 120, row.activation, "head_fc1")
    x = blocks.dense(x, 84, row.activation, "head_f6")
    if row.published:
        return RBF(codes(classes), dtype="float32", name="logits")(x)
    return L.Dense(classes, dtype="float32", name="logits")(x)


@family(
    {  #                    1998    C5       squashing     pooling    preset    size  trainable parameters
        "lenet": Row(False, "conv", "tanh", "average", "unit", 28, 61_706, "the lecture's layer table"),
        "lenet_relu": Row(False, "conv", "relu", "max", "unit", 28, 61_706, "the lecture's layer table"),
        "lenet_sigmoid": Row(
            False, "dense", "sigmoid", "average", "unit", 28, 61_706, "from the shapes of the lecture's figure"
        ),
        "lenet5": Row(True, "conv", "lecun_tanh", "average", "lenet5", 32, 60_000, "LeCun et al. 1998, section II.B"),
    },
    head=head,
    channels=1,
    classes=10,
    paper="LeCun et al. 1998, Gradient-based learning applied to document recognition",
)
def lenet(x, row):
    pool = {"average": L.AveragePooling2D, "max": L.MaxPooling2D}[row.pooling]
    taps = {}
    x = taps[1] = blocks.conv(x, 6, 5, act=row.activation, padding="valid" if row.published else "same", name="c1")
    x = subsample(x, "s2") if row.published else pool(2, name="s2")(x)
    if row.published:
        x = blocks.activation(PartialConv2D(TABLE_I, 5, name="c3")(x), row.activation, f"c3_{row.activation}")
    else:
        x = blocks.conv(x, 16, 5, act=row.activation, padding="valid", name="c3")
    taps[2] = x
    x = taps[4] = subsample(x, "s4") if row.published else pool(2, name="s4")(x)
    if row.c5 == "conv":
        taps[4] = blocks.conv(x, 120, 5, act=row.activation, padding="valid", name="c5")
    return taps
