"""Attention U-Net: Oktay et al., "Attention U-Net: learning where to look for the pancreas", MIDL 2018, figures 1 and 2, equation 1.

A U-Net whose features of the net pass a gate: each pixel is multiplied by a number from 0 to 1 that is computed from it and from the coarser map of
the decoder, which knows more of what is around.

Deviations: 2D instead of 3D; as a decoder over any net; enlarging by a 2x2 transposed convolution as in U-Net.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo.decoders.unet_2015 import two_convs
from cnn_zoo.registry import decoder
from cnn_zoo.segmentation_layers import BilinearUpSampling2D


class Row(NamedTuple):
    filters: tuple = (256, 128, 64, 32, 16)  # of each step up
    batch_norm: bool = True
    logits_kernel: int = 1


def gate(skip, gating, inner, batch_norm, name):
    """Figure 2: attention coefficients on the grid of `gating`, half that of `skip`; `inner` channels where the two are added."""
    theta = L.Conv2D(inner, 2, 2, use_bias=False, name=f"{name}_theta")(skip)
    phi = L.Conv2D(inner, 1, name=f"{name}_phi")(gating)
    x = L.Activation("relu", name=f"{name}_relu")(L.Add(name=f"{name}_add")([theta, phi]))
    x = L.Conv2D(1, 1, name=f"{name}_psi")(x)
    x = L.Activation("sigmoid", name=f"{name}_coefficients")(x)
    x = BilinearUpSampling2D(2, name=f"{name}_up")(x)
    x = L.Multiply(name=f"{name}_scale")([skip, x])
    x = L.Conv2D(skip.shape[-1], 1, use_bias=not batch_norm, name=f"{name}_w_conv")(x)
    return L.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_w_bn")(x) if batch_norm else x


@decoder(
    {"attention_unet": Row()},
    strides=(2, 4, 8, 16, 32),
    paper="Oktay et al. 2018, Attention U-Net: learning where to look for the pancreas",
)
def attention_unet(taps, row):
    coarsest, *finer = sorted(taps, reverse=True)
    x = taps[coarsest]
    for step, (stride, filters) in enumerate(zip(finer, row.filters), 1):
        name = f"decoder_s{step}"
        skip = gate(taps[stride], x, filters, row.batch_norm, f"{name}_gate")
        x = L.Conv2DTranspose(filters, 2, 2, name=f"{name}_up")(x)
        x = two_convs(L.Concatenate(name=f"{name}_concat")([skip, x]), filters, "same", row.batch_norm, name)
    return x
