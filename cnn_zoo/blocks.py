"""Building blocks of the nets: a tensor goes in, a tensor comes out, and every layer gets a stable name."""

from keras import layers as L

from cnn_zoo.layers import GroupedConv2D, lecun_tanh

ACTIVATIONS = {"lecun_tanh": lecun_tanh}


def activation(x, act, name):
    """An activation by Keras' name or one of `ACTIVATIONS`, as a layer of its own; `None` for none."""
    return L.Activation(ACTIVATIONS.get(act, act), name=name)(x) if act else x


def conv(x, filters, kernel, stride=1, *, act=None, padding="same", name):
    """Convolution with bias, then its activation: layers `name` and `name_act`."""
    x = L.Conv2D(filters, kernel, stride, padding, name=name)(x)
    return activation(x, act, f"{name}_{act}")


def dense(x, units, act, name):
    """Fully connected layer, then its activation."""
    return activation(L.Dense(units, name=name)(x), act, f"{name}_{act}")


def conv_bn(x, filters, kernel=1, stride=1, *, act="relu", groups=1, padding="symmetric", eps=1e-5, momentum=0.9, name):
    """Convolution without bias, BatchNorm, activation: layers `name_conv`, `name_bn`, `name_<act>`.

    With `padding="symmetric"` a strided convolution pads both sides alike, as the papers and PyTorch do, whatever the input size;
    `"same"` leaves that to TensorFlow's rule, and `"valid"` pads nothing.
    """
    if padding == "symmetric":
        padding = "same"
        if stride > 1 and kernel > 1:
            x = L.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
            padding = "valid"
    kind = GroupedConv2D if groups > 1 else L.Conv2D
    x = kind(filters, kernel, stride, padding, groups=groups, use_bias=False, name=f"{name}_conv")(x)
    x = L.BatchNormalization(epsilon=eps, momentum=momentum, name=f"{name}_bn")(x)
    return activation(x, act, f"{name}_{act}")


def max_pool(x, size=3, stride=2, *, name):
    """Max pooling with the same padding on both sides; only after a ReLU, since it pads with zeros."""
    x = L.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    return L.MaxPooling2D(size, stride, name=name)(x)


def squeeze_excite(x, reduced, *, act="relu", gate="sigmoid", name):
    """Squeeze-and-excitation: channels reweighted by a two-layer net on their means (Hu et al. 2018, figure 2)."""
    s = L.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    s = activation(L.Conv2D(reduced, 1, name=f"{name}_reduce")(s), act, f"{name}_{act}")
    s = activation(L.Conv2D(x.shape[-1], 1, name=f"{name}_expand")(s), gate, f"{name}_gate")
    return L.Multiply(name=f"{name}_scale")([x, s])


def pooled_head(x, classes, row):
    """The head of most nets since 2014: global average pooling and one dense layer."""
    return L.Dense(classes, dtype="float32", name="logits")(L.GlobalAveragePooling2D(name="head_pool")(x))


def divisible(value, by=8):
    """The multiple of `by` nearest to `value`, but not more than 10 % below it."""
    rounded = max(by, int(value + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * value else rounded


def depthwise_bn(x, kernel, stride=1, *, act="relu", padding="symmetric", eps=1e-5, momentum=0.9, name):
    """Depthwise convolution without bias, BatchNorm, activation: `conv_bn` with one filter a channel, and its paddings."""
    if padding == "symmetric":
        padding = "same"
        if stride > 1:
            x = L.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
            padding = "valid"
    x = L.DepthwiseConv2D(kernel, stride, padding, use_bias=False, name=f"{name}_conv")(x)
    x = L.BatchNormalization(epsilon=eps, momentum=momentum, name=f"{name}_bn")(x)
    return activation(x, act, f"{name}_{act}")


def inverted_residual(x, filters, kernel, stride, expanded, *, act, excite=None, drop=None, name, **norm):
    """Expand with 1x1, filter depthwise, project with 1x1 and no activation; the input is added where the shapes agree.

    Args:
        expanded: Channels of the depthwise convolution; no expansion where these are the input's.
        excite: Function of the filtered tensor and a name, such as squeeze-and-excitation.
        drop: Function of the projected tensor and a name, where the input is added.
        norm: `padding`, `eps` and `momentum` of the convolutions.

    Returns:
        The block's output, and its last tensor at the input's stride (what feature pyramids take before a strided block).
    """
    y = x
    if expanded != x.shape[-1]:
        y = conv_bn(y, expanded, act=act, name=f"{name}_expand", **norm)
    inner = y
    y = depthwise_bn(y, kernel, stride, act=act, name=f"{name}_dw", **norm)
    if excite:
        y = excite(y, f"{name}_se")
    y = conv_bn(y, filters, act=None, name=f"{name}_project", **norm)
    if stride == 1 and filters == x.shape[-1]:
        if drop:
            y = drop(y, f"{name}_drop")
        y = L.Add(name=f"{name}_add")([x, y])
    return y, inner


def dropout_head(x, classes, row):
    """`pooled_head` with dropout of `row.dropout` before the dense layer."""
    x = L.Dropout(row.dropout, name="head_dropout")(L.GlobalAveragePooling2D(name="head_pool")(x))
    return L.Dense(classes, dtype="float32", name="logits")(x)


def dense_head(x, classes, row):
    """The head of the nets before 2014: all pixels into two dense layers of 4096 with dropout, then the classes."""
    x = L.Flatten(name="head_flatten")(x)
    for name in ("head_fc6", "head_fc7"):
        x = dense(x, 4096, "relu", name)
        x = L.Dropout(0.5, name=f"{name}_dropout")(x)
    return L.Dense(classes, dtype="float32", name="logits")(x)


def ceil_pool(x, size, *, name):
    """Max pooling at stride 2 whose last window may reach beyond the map, as Caffe's do; only after a ReLU, since it pads with zeros."""
    x = L.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    return L.MaxPooling2D(size, 2, name=name)(x)
