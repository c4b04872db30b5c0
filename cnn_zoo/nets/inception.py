"""Inception-v3, Inception-v4 and Inception-ResNet-v2.

Inception-v3: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception architecture for computer vision", CVPR 2016;
table 1 and figures 5, 6, 7 and 10. Inception-v4 and Inception-ResNet-v2: Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet
and the impact of residual connections on learning", AAAI 2017; figures 3-9 and 15-19.
As in the figures, a block is a list of paths, and a path is a list of steps.

Rows with a plain name are the nets of TensorFlow-slim and Keras. Their dialects:

* `_sm`: the backbones of segmentation-models 1.0.1; "same" padding everywhere, so each tap has the input's size divided by its stride.
* `inceptionv3_torch`: torchvision's; BatchNorm with a scale, and average pooling that counts the zeros around the map.
* `inceptionresnetv2_timm`: timm's; BatchNorm with a scale. (`inceptionv4` has one too: there is no other dialect of it.)

Deviations, in which all rows follow the published weights:

* Inception-v3: after the first pooling, table 1 has 3x3 convolutions to 80, 192 (stride 2) and 288 maps; slim has 1x1 to 80, 3x3 to 192, max pooling.
* Inception-ResNet-v2: slim has Inception-v3's stem, not Inception-v4's; 10, 20 and 10 residual blocks, not 5, 10 and 5; 1,088 and 2,080 maps
  in the last two stages; and residuals scaled by 0.17, 0.1 and 0.2.
* No auxiliary head. Dropout before the classes is slim's 0.2. Running statistics of BatchNorm move by 0.01 a step, as in Keras.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo.registry import family

AVG, MAX = "3x3 average", "3x3 max, stride 2"  # the poolings of the figures
ROW, COLUMN = (1, 7), (7, 1)
FORK = [[(384, (1, 3))], [(384, (3, 1))]]
FORK4 = [[(256, (1, 3))], [(256, (3, 1))]]


class Row(NamedTuple):
    scale: bool  # BatchNorm has a trainable scale
    padding: str  # where the figures have no padding ("V") and at stride 2
    zeros: bool  # average pooling counts the zeros around the map
    params: int
    source: str


def conv(x, row, name, maps, kernel=1, stride=1, padding="same"):
    x = L.Conv2D(maps, kernel, stride, padding, use_bias=False, name=f"{name}_conv")(x)
    x = L.BatchNormalization(epsilon=1e-3, momentum=0.99, scale=row.scale, name=f"{name}_bn")(x)
    return L.Activation("relu", name=f"{name}_relu")(x)


def path(x, steps, row, name):
    """One path of a block. A step is a pooling, a fork (a list of paths) or a convolution `(maps, kernel, stride, padding)`."""
    for i, step in enumerate(steps, 1):
        at = f"{name}_{i}"
        if step == MAX:
            x = L.MaxPooling2D(3, 2, row.padding, name=f"{at}_pool")(x)
        elif step == AVG and row.zeros:
            x = L.AveragePooling2D(3, 1, name=f"{at}_pool")(L.ZeroPadding2D(1, name=f"{at}_pad")(x))
        elif step == AVG:
            x = L.AveragePooling2D(3, 1, "same", name=f"{at}_pool")(x)
        elif isinstance(step, list):
            x = block(x, step, row, at)
        else:
            x = conv(x, row, at, *step)
    return x


def block(x, paths, row, name):
    """The paths of a block side by side, their maps concatenated."""
    return L.Concatenate(name=f"{name}_concat")(
        [path(x, steps, row, f"{name}_p{p}") for p, steps in enumerate(paths, 1)]
    )


def residual(x, paths, scale, row, name, act="relu"):
    """Figures 16-19: a block whose maps, brought to the width of its input, scaled and added, change that input a little."""
    y = block(x, paths, row, name)
    y = L.Conv2D(x.shape[-1], 1, name=f"{name}_up")(y)
    x = L.Add(name=f"{name}_add")([x, L.Rescaling(scale, name=f"{name}_scale")(y)])
    return L.Activation(act, name=f"{name}_{act}")(x) if act else x


def stem(x, row, taps):
    """The first layers of Inception-v3, from 299x299x3 to 35x35x192."""
    p = row.padding
    x = taps[2] = path(x, [(32, 3, 2, p), (32, 3, 1, p), (64, 3)], row, "stem_a")
    x = taps[4] = path(x, [MAX, (80, 1, 1, p), (192, 3, 1, p)], row, "stem_b")
    return path(x, [MAX], row, "stem_c")


def head(x, classes, row):
    x = L.Dropout(0.2, name="head_dropout")(L.GlobalAveragePooling2D(name="head_pool")(x))
    return L.Dense(classes, dtype="float32", name="logits")(x)


V3 = "Szegedy et al. 2016, Rethinking the Inception architecture for computer vision"
V4 = "Szegedy et al. 2017, Inception-v4, Inception-ResNet and the impact of residual connections on learning"
IC = "trainable parameters of Keras' and image-classifiers 1.0.0's net"
COMMON = {"head": head, "size": 299, "channels": 3, "classes": 1000, "preset": "symmetric"}


@family(
    {
        "inceptionv3": Row(False, "valid", False, 23_817_352, IC),
        "inceptionv3_sm": Row(False, "same", False, 23_817_352, IC),
        "inceptionv3_torch": Row(
            True, "valid", True, 23_834_568, "torchvision 0.29, inception_v3 without auxiliary head"
        ),
    },
    paper=V3,
    **COMMON,
)
def inception_v3(x, row):
    taps, p = {}, row.padding
    x = stem(x, row, taps)
    for i, proj in enumerate((32, 64, 64), 1):
        a = [[(64,)], [(48,), (64, 5)], [(64,), (96, 3), (96, 3)], [AVG, (proj,)]]
        x = taps[8] = block(x, a, row, f"s3_b{i}")
    x = block(x, [[(384, 3, 2, p)], [(64,), (96, 3), (96, 3, 2, p)], [MAX]], row, "s4_b1")
    for i, n in enumerate((128, 160, 160, 192), 2):
        twice = [(n,), (n, COLUMN), (n, ROW), (n, COLUMN), (192, ROW)]
        b = [[(192,)], [(n,), (n, ROW), (192, COLUMN)], twice, [AVG, (192,)]]
        x = taps[16] = block(x, b, row, f"s4_b{i}")
    x = block(x, [[(192,), (320, 3, 2, p)], [(192,), (192, ROW), (192, COLUMN), (192, 3, 2, p)], [MAX]], row, "s5_b1")
    for i in (2, 3):
        c = [[(320,)], [(384,), FORK], [(448,), (384, 3), FORK], [AVG, (192,)]]
        x = taps[32] = block(x, c, row, f"s5_b{i}")
    return taps


@family(
    {"inceptionv4": Row(True, "valid", False, 42_679_816, "parameters of timm 1.0.31's inception_v4")},
    paper=V4,
    **COMMON,
)
def inception_v4(x, row):
    taps, p = {}, row.padding
    x = taps[2] = path(x, [(32, 3, 2, p), (32, 3, 1, p), (64, 3)], row, "stem_a")
    x = block(x, [[MAX], [(96, 3, 2, p)]], row, "stem_b")
    x = taps[4] = block(x, [[(64,), (96, 3, 1, p)], [(64,), (64, ROW), (64, COLUMN), (96, 3, 1, p)]], row, "stem_c")
    x = block(x, [[(192, 3, 2, p)], [MAX]], row, "stem_d")
    for i in range(1, 5):
        a = [[(96,)], [(64,), (96, 3)], [(64,), (96, 3), (96, 3)], [AVG, (96,)]]
        x = taps[8] = block(x, a, row, f"s3_b{i}")
    x = block(x, [[(384, 3, 2, p)], [(192,), (224, 3), (256, 3, 2, p)], [MAX]], row, "s4_b1")
    for i in range(2, 9):
        twice = [(192,), (192, COLUMN), (224, ROW), (224, COLUMN), (256, ROW)]
        b = [[(384,)], [(192,), (224, ROW), (256, COLUMN)], twice, [AVG, (128,)]]
        x = taps[16] = block(x, b, row, f"s4_b{i}")
    x = block(x, [[(192,), (192, 3, 2, p)], [(256,), (256, ROW), (320, COLUMN), (320, 3, 2, p)], [MAX]], row, "s5_b1")
    for i in range(2, 5):
        c = [[(256,)], [(384,), FORK4], [(384,), (448, (3, 1)), (512, (1, 3)), FORK4], [AVG, (256,)]]
        x = taps[32] = block(x, c, row, f"s5_b{i}")
    return taps


@family(
    {
        "inceptionresnetv2": Row(False, "valid", False, 55_813_192, IC),
        "inceptionresnetv2_sm": Row(False, "same", False, 55_813_192, IC),
        "inceptionresnetv2_timm": Row(
            True, "valid", False, 55_843_464, "parameters of timm 1.0.31's inception_resnet_v2"
        ),
    },
    paper=V4,
    **COMMON,
)
def inception_resnet_v2(x, row):
    taps, p = {}, row.padding
    x = stem(x, row, taps)
    x = block(x, [[(96,)], [(48,), (64, 5)], [(64,), (96, 3), (96, 3)], [AVG, (64,)]], row, "s3_b1")
    for i in range(2, 12):
        x = residual(x, [[(32,)], [(32,), (32, 3)], [(32,), (48, 3), (64, 3)]], 0.17, row, f"s3_b{i}")
    taps[8] = x
    x = block(x, [[(384, 3, 2, p)], [(256,), (256, 3), (384, 3, 2, p)], [MAX]], row, "s4_b1")
    for i in range(2, 22):
        x = residual(x, [[(192,)], [(128,), (160, ROW), (192, COLUMN)]], 0.1, row, f"s4_b{i}")
    taps[16] = x
    ends = [[(256,), (384, 3, 2, p)], [(256,), (288, 3, 2, p)], [(256,), (288, 3), (320, 3, 2, p)], [MAX]]
    x = block(x, ends, row, "s5_b1")
    for i in range(2, 12):  # the last one is neither scaled nor followed by a ReLU
        last = i == 11
        c = [[(192,)], [(192,), (224, (1, 3)), (256, (3, 1))]]
        x = residual(x, c, 1.0 if last else 0.2, row, f"s5_b{i}", act=None if last else "relu")
    taps[32] = conv(x, row, "s5_b12", 1536)
    return taps
