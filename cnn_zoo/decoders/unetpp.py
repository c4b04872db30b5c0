"""U-Net++: Zhou, Siddiquee, Tajbakhsh, Liang, "UNet++: a nested U-Net architecture for medical image segmentation", DLMIA 2018, figure 1a,
equation 1.

Node X(i, j) lies at the i-th finest stride and takes all nodes X(i, 0) to X(i, j-1) and the enlarged X(i+1, j-1), so that the features of the
net become more like those of the decoder on their way to it. X(i, 0) are the net's features; the output is the last node of the finest stride.

Deviations: one output instead of deep supervision's four; BatchNorm (the authors' code has none: `batch_norm=False`). A node that a net's features
at stride 1 call for is a step more than the figure has.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo.decoders.unet_2015 import two_convs
from cnn_zoo.registry import decoder


class Row(NamedTuple):
    filters: tuple = (32, 64, 128, 256, 512)  # of each stride, the finest first
    batch_norm: bool = True
    logits_kernel: int = 1


@decoder(
    {"unetpp": Row()},
    strides=(2, 4, 8, 16, 32),
    paper="Zhou et al. 2018, UNet++: a nested U-Net architecture for medical image segmentation",
)
def unetpp(taps, row):
    rows = [[taps[stride]] for stride in sorted(taps)]
    for j in range(1, len(rows)):
        for i, (filters, nodes) in enumerate(zip(row.filters, rows[: len(rows) - j])):
            name = f"decoder_x{i}_{j}"
            up = L.Conv2DTranspose(filters, 2, 2, name=f"{name}_up")(rows[i + 1][j - 1])
            x = L.Concatenate(name=f"{name}_concat")([up, *nodes])
            nodes.append(two_convs(x, filters, "same", row.batch_norm, name))
    return rows[0][-1]
