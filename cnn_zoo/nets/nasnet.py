"""NASNet-A: Zoph, Vasudevan, Shlens, Le, "Learning transferable architectures for scalable image recognition", CVPR 2018, figure 4 and table 2.

`nasnetlarge` is NASNet-A (6 @ 4032), `nasnetmobile` NASNet-A (4 @ 1056): repeats of the normal cell and channels of the last one. The dialect is that
of keras.applications (epsilon 1e-3, momentum 0.9997).

Deviations: no auxiliary head and no drop path, which the published training used. The poolings at stride 2 see zeros at the border, as in
keras.applications; TensorFlow's slim, where the weights come from, leaves the border out of maximum and average.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.layers import SamePadding2D
from cnn_zoo.registry import family


class Row(NamedTuple):
    blocks: int  # N
    penultimate: int  # P, channels of the last cell: six times its filters in the last stage
    stem: int
    skip: bool  # after a reduction cell, its other input is that of the cell itself, not the cell's newer one
    size: int
    params: int
    source: str


def bn(x, name):
    return L.BatchNormalization(epsilon=1e-3, momentum=0.9997, name=name)(x)


def project(x, filters, name):
    """ReLU, 1x1 convolution, BatchNorm."""
    x = L.Activation("relu", name=f"{name}_relu")(x)
    return bn(L.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x), f"{name}_bn")


def separable(x, filters, kernel, stride, name):
    """ReLU, depthwise separable convolution, BatchNorm, all twice; the first has the stride (section A.2)."""
    for i, s in ((1, stride), (2, 1)):
        x = L.Activation("relu", name=f"{name}_relu{i}")(x)
        x = L.SeparableConv2D(filters, kernel, s, "same", use_bias=False, name=f"{name}_conv{i}")(x)
        x = bn(x, f"{name}_bn{i}")
    return x


def add(a, b, name):
    return L.Add(name=name)([a, b])


def average(x, name):
    return L.AveragePooling2D(3, 1, "same", name=name)(x)


def adjust(x, p, filters, halve, name):
    """The older input `p`, brought to the size and the channels of the cell; the first cell takes its only input twice."""
    if p is None:
        return x
    if halve:  # factorised reduction: every second pixel, and every second pixel one further down and right
        p = L.Activation("relu", name=f"{name}_relu")(p)
        shifted = L.Cropping2D(((1, 0), (1, 0)), name=f"{name}_crop")(
            L.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(p)
        )
        paths = []
        for i, path in ((1, p), (2, shifted)):
            path = L.AveragePooling2D(1, 2, name=f"{name}_pool{i}")(path)
            paths.append(L.Conv2D(filters // 2, 1, use_bias=False, name=f"{name}_conv{i}")(path))
        return bn(L.Concatenate(name=f"{name}_concat")(paths), f"{name}_bn")
    return p if p.shape[-1] == filters else project(p, filters, name)


def normal(x, p, filters, halve, name):
    """Normal cell (figure 4, left): six tensors side by side."""
    p, h = adjust(x, p, filters, halve, f"{name}_adjust"), project(x, filters, f"{name}_in")
    x1 = add(
        separable(h, filters, 5, 1, f"{name}_left1"), separable(p, filters, 3, 1, f"{name}_right1"), f"{name}_add1"
    )
    x2 = add(
        separable(p, filters, 5, 1, f"{name}_left2"), separable(p, filters, 3, 1, f"{name}_right2"), f"{name}_add2"
    )
    x3 = add(average(h, f"{name}_left3"), p, f"{name}_add3")
    x4 = add(average(p, f"{name}_left4"), average(p, f"{name}_right4"), f"{name}_add4")
    x5 = add(separable(h, filters, 3, 1, f"{name}_left5"), h, f"{name}_add5")
    return L.Concatenate(name=f"{name}_concat")([p, x1, x2, x3, x4, x5])


def reduction(x, p, filters, halve, name):
    """Reduction cell (figure 4, right): four tensors of half the size side by side."""
    p, h = adjust(x, p, filters, halve, f"{name}_adjust"), project(x, filters, f"{name}_in")
    padded = SamePadding2D(name=f"{name}_pad")(h)
    x1 = add(
        separable(h, filters, 5, 2, f"{name}_left1"), separable(p, filters, 7, 2, f"{name}_right1"), f"{name}_add1"
    )
    x2 = L.MaxPooling2D(3, 2, name=f"{name}_left2")(padded)
    x2 = add(x2, separable(p, filters, 7, 2, f"{name}_right2"), f"{name}_add2")
    x3 = L.AveragePooling2D(3, 2, name=f"{name}_left3")(padded)
    x3 = add(x3, separable(p, filters, 5, 2, f"{name}_right3"), f"{name}_add3")
    x4 = add(x2, average(x1, f"{name}_left4"), f"{name}_add4")
    x5 = add(
        separable(x1, filters, 3, 1, f"{name}_left5"),
        L.MaxPooling2D(3, 2, name=f"{name}_right5")(padded),
        f"{name}_add5",
    )
    return L.Concatenate(name=f"{name}_concat")([x2, x3, x4, x5])


SOURCE = "image-classifiers 1.0.0 (keras.applications), trainable; table 2 of the paper gives {} M"


@family(
    {  #                  N  P     stem  skip  size  trainable parameters
        "nasnetmobile": Row(4, 1056, 32, False, 224, 5_289_978, SOURCE.format(5.3)),
        "nasnetlarge": Row(6, 4032, 96, True, 331, 88_753_150, SOURCE.format(88.9)),
    },
    head=blocks.pooled_head,
    channels=3,
    classes=1000,
    preset="symmetric",
    paper="Zoph et al. 2018, Learning transferable architectures for scalable image recognition",
)
def nasnet(x, row):
    taps, filters = {}, row.penultimate // 24
    x = L.Conv2D(row.stem, 3, 2, use_bias=False, name="stem_conv")(x)
    x = taps[2] = bn(x, "stem_bn")
    p, x = x, reduction(x, None, filters // 4, False, "stem_r1")
    taps[4] = x
    p, x = x, reduction(x, p, filters // 2, True, "stem_r2")
    for stage in (1, 2, 3):
        for block in range(1, row.blocks + 1):
            p, x = x, normal(x, p, filters, block == 1, f"s{stage}_b{block}")
        taps[4 * 2**stage] = x
        if stage < 3:
            filters *= 2
            newer, y = x, reduction(x, p, filters, False, f"s{stage}_r")
            p, x = (p if row.skip else newer), y
    taps[32] = L.Activation("relu", name="last_relu")(x)
    return taps
