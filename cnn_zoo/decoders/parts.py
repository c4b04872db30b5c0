"""What several decoders are made of: a tensor goes in, a tensor comes out, and every layer gets a stable name."""

from keras import layers as L


def conv(x, filters, kernel=3, *, batch_norm=True, name):
    """Convolution, BatchNorm unless left out (then a bias), ReLU: layers `name_conv`, `name_bn`, `name_relu`."""
    x = L.Conv2D(
        filters, kernel, padding="same", use_bias=not batch_norm, kernel_initializer="he_uniform", name=f"{name}_conv"
    )(x)
    return norm_relu(x, batch_norm, name)


def transpose(x, filters, *, batch_norm=True, name):
    """Twice the size by a transposed 4x4 convolution, BatchNorm unless left out, ReLU: `name_transpose`, `name_bn`, `name_relu`."""
    x = L.Conv2DTranspose(filters, 4, 2, "same", use_bias=not batch_norm, name=f"{name}_transpose")(x)
    return norm_relu(x, batch_norm, name)


def norm_relu(x, batch_norm, name):
    if batch_norm:
        x = L.BatchNormalization(name=f"{name}_bn")(x)
    return L.Activation("relu", name=f"{name}_relu")(x)


def center(x, filters, batch_norm):
    """Two 3x3 convolutions before the first step up, for nets that end in a pooling; none for 0 filters."""
    for i in (1, 2) if filters else ():
        x = conv(x, filters, batch_norm=batch_norm, name=f"center_block{i}")
    return x
