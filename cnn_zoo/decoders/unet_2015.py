"""U-Net as published: Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015, figure 1.

Left half: steps of two 3x3 convolutions and a 2x2 max pooling, with twice the channels at each. Right half: at each step a 2x2 up-convolution
that halves the channels, the features of the left half, cropped and concatenated, and two 3x3 convolutions. `build_unet` puts both together at
any depth and width, with "valid" convolutions as published or "same" ones, with BatchNorm or without; as a decoder the right half serves any net.

Deviations: none with `padding="valid", batch_norm=False` (572x572 pixels give 388x388). Kernels start from a normal distribution with the deviation
sqrt(2 / N) of section 3.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo.registry import decoder


class Row(NamedTuple):
    filters: tuple = (512, 256, 128, 64, 32)  # of each step up
    padding: str = "same"  # or "valid"
    batch_norm: bool = True
    logits_kernel: int = 1


def two_convs(x, filters, padding, batch_norm, name):
    """Two 3x3 convolutions, each with ReLU and, if wanted, BatchNorm in between."""
    for i in (1, 2):
        about = {"use_bias": not batch_norm, "kernel_initializer": "he_normal", "name": f"{name}_conv{i}"}
        x = L.Conv2D(filters, 3, padding=padding, **about)(x)
        if batch_norm:
            x = L.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_bn{i}")(x)
        x = L.Activation("relu", name=f"{name}_relu{i}")(x)
    return x


def contract(x, depth, width, padding, batch_norm, dropout=0.0):
    """The left half: the taps of a net, 1 to 2^depth."""
    taps = {}
    for step in range(depth + 1):
        if step:
            x = L.MaxPooling2D(2, name=f"s{step}_pool")(x)
        x = taps[2**step] = two_convs(x, width * 2**step, padding, batch_norm, f"s{step + 1}")
    if dropout:
        taps[2**depth] = L.Dropout(dropout, name=f"s{depth + 1}_dropout")(x)
    return taps


@decoder(
    {"unet_2015": Row()},
    strides=(2, 4, 8, 16, 32),
    paper="Ronneberger et al. 2015, U-Net: convolutional networks for biomedical image segmentation",
)
def expand(taps, row):
    coarsest, *finer = sorted(taps, reverse=True)
    x, crop = taps[coarsest], 4
    for step, (stride, filters) in enumerate(zip(finer, row.filters), 1):
        name, skip = f"decoder_s{step}", taps[stride]
        x = L.Conv2DTranspose(filters, 2, 2, kernel_initializer="he_normal", name=f"{name}_up")(x)
        if row.padding == "valid":  # what the convolutions between the two have eaten on each side
            skip = L.Cropping2D(crop, name=f"{name}_crop")(skip)
            crop = 2 * crop + 8
        x = L.Concatenate(name=f"{name}_concat")([skip, x])
        x = two_convs(x, filters, row.padding, row.batch_norm, name)
    return x
