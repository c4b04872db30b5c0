"""EfficientNet: Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019, table 1 (B0) and section 3.3.

A row is B0 with its channels times `width` (rounded to multiples of 8), the repeats of its blocks times `depth` (rounded up) and larger images.

Deviations: none from the authors' code (BatchNorm epsilon 1e-3, momentum 0.99, "same" padding, drop-connect growing to 0.2 with depth). The paper's
sizes are B0's 224 times 1.15 to a power, rounded; the rows have the sizes of the code.
"""

import math
from functools import partial
from typing import NamedTuple

from cnn_zoo import blocks
from cnn_zoo.layers import DropPath
from cnn_zoo.registry import family


class Row(NamedTuple):
    width: float
    depth: float
    size: int
    dropout: float
    params: int


STAGES = (  # table 1: expansion, kernel, channels, layers, stride of the first
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
DROP_CONNECT = 0.2


def drop_path(x, name, rate):
    return DropPath(rate, name=name)(x) if rate else x


def excite(x, name, reduced):
    return blocks.squeeze_excite(x, reduced, act="silu", name=name)


@family(
    {  #                      w    d    size  dropout  trainable parameters
        "efficientnetb0": Row(1.0, 1.0, 224, 0.2, 5_288_548),
        "efficientnetb1": Row(1.0, 1.1, 240, 0.2, 7_794_184),
        "efficientnetb2": Row(1.1, 1.2, 260, 0.3, 9_109_994),
        "efficientnetb3": Row(1.2, 1.4, 300, 0.3, 12_233_232),
        "efficientnetb4": Row(1.4, 1.8, 380, 0.4, 19_341_616),
        "efficientnetb5": Row(1.6, 2.2, 456, 0.4, 30_389_784),
        "efficientnetb6": Row(1.8, 2.6, 528, 0.5, 43_040_704),
        "efficientnetb7": Row(2.0, 3.1, 600, 0.5, 66_347_960),
    },
    head=blocks.dropout_head,
    source="efficientnet 1.0.0, trainable; also torchvision meta num_params of EfficientNet_B*_Weights",
    channels=3,
    classes=1000,
    preset="imagenet",
    paper="Tan and Le 2019, EfficientNet: rethinking model scaling for convolutional neural networks",
)
def efficientnet(x, row):
    norm = {"act": "silu", "padding": "same", "eps": 1e-3, "momentum": 0.99}
    depths = [math.ceil(row.depth * layers) for _, _, _, layers, _ in STAGES]
    taps, at, done = {}, 2, 0
    x = blocks.conv_bn(x, blocks.divisible(32 * row.width), 3, 2, name="stem", **norm)
    for stage, ((expansion, kernel, channels, _, s), depth) in enumerate(zip(STAGES, depths), 1):
        for block in range(1, depth + 1):
            stride, inputs = s if block == 1 else 1, x.shape[-1]
            x, inner = blocks.inverted_residual(
                x,
                blocks.divisible(channels * row.width),
                kernel,
                stride,
                expansion * inputs,
                excite=partial(excite, reduced=max(1, inputs // 4)),
                drop=partial(drop_path, rate=DROP_CONNECT * done / sum(depths)),
                name=f"s{stage}_b{block}",
                **norm,
            )
            done += 1
            if stride > 1:
                taps[at] = inner
                at *= stride
    taps[at] = blocks.conv_bn(x, blocks.divisible(1280 * row.width), name="last", **norm)
    return taps
