"""PSPNet over any net: Zhao, Shi, Qi, Wang, Jia, "Pyramid scene parsing network", CVPR 2017, figure 3.

The features are averaged over the whole map and over grids of 2x2, 3x3 and 6x6 cells, each convolved with 1x1, enlarged again and concatenated
with the features themselves.

Deviations, in structure and names those of segmentation_models 1.0.1: the features are the net's own at stride 8, where the paper dilates the last
two stages instead of striding; 512 channels a level and 1x1 instead of 3x3 where they are joined. The cells are those of PyTorch's adaptive pooling,
so that any size will do; where 6 divides the map they are the old package's.
"""

from typing import NamedTuple

import keras
from keras import layers as L
from keras import ops

from cnn_zoo.decoders import parts
from cnn_zoo.errors import InputError
from cnn_zoo.registry import decoder

register = keras.saving.register_keras_serializable("cnn_zoo")
LEVELS = (1, 2, 3, 6)


@register
class GridPooling2D(L.Layer):
    """Mean or maximum of each cell of a grid over the map, whatever its size.

    Cell `i` of `n` spans the rows from `floor(i * height / n)` to `ceil((i + 1) * height / n)`, the last excluded; columns likewise. Cells of a map
    that `n` does not divide overlap by one pixel; on a map smaller than the grid pixels repeat.

    Args:
        cells: Number of cells along each side, at least 1.
        pooling: `"avg"` or `"max"`.

    Input `(batch, height, width, channels)`, output `(batch, cells, cells, channels)`.

    Source: the pyramid pooling module of Zhao et al. 2017, section 3.2; the cells are those of PyTorch's AdaptiveAvgPool2d.
    """

    def __init__(self, cells, pooling="avg", **kwargs):
        super().__init__(**kwargs)
        if cells < 1 or pooling not in ("avg", "max"):
            raise InputError(f"cells must be at least 1 and pooling 'avg' or 'max', not {cells!r} and {pooling!r}")
        self.cells, self.pooling = int(cells), pooling

    def call(self, x):
        _, height, width, _ = ops.shape(x)
        reduce, n = ops.mean if self.pooling == "avg" else ops.max, self.cells

        def cell(i, side):  # ONNX rounds negative quotients the other way, so there are none
            return slice(i * side // n, ((i + 1) * side + n - 1) // n)

        rows = [reduce(x[:, cell(i, height)], axis=1) for i in range(n)]
        cells = [[reduce(row[:, cell(i, width)], axis=1) for i in range(n)] for row in rows]
        return ops.stack([ops.stack(row, axis=1) for row in cells], axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.cells, self.cells, input_shape[-1]

    def get_config(self):
        return {**super().get_config(), "cells": self.cells, "pooling": self.pooling}


@register
class ResizeLike(L.Layer):
    """The first map at the size of the second, bilinearly, with pixels at the centres of their squares.

    As `keras.ops.image.resize`, which Keras 3.15 cannot do in a TensorFlow graph where the size is open: one product of matrices a direction.

    Inputs `(batch, h, w, channels)` and `(batch, height, width, anything)`, output `(batch, height, width, channels)`.
    """

    def call(self, inputs):
        x, like = inputs
        (_, h, w, _), (_, height, width, _) = ops.shape(x), ops.shape(like)
        exact = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        tall = ops.einsum("Hh,bhwc->bHwc", self.between(h, height), exact)
        return ops.cast(ops.einsum("Ww,bHwc->bHWc", self.between(w, width), tall), x.dtype)

    def between(self, old, new):
        """`(new, old)`: what each of the `old` pixels of a line gives to each of the `new` ones."""
        pixels, places, old, new = (ops.cast(each, "float32") for each in (ops.arange(old), ops.arange(new), old, new))
        at = (places + 0.5) * (old / new) - 0.5
        at = ops.clip(at, 0, old - 1)  # beyond the outermost pixel's centre there is only that pixel
        return ops.maximum(0, 1 - ops.abs(at[:, None] - pixels))

    def compute_output_shape(self, input_shapes):
        x, like = input_shapes
        return x[0], like[1], like[2], x[3]


class Row(NamedTuple):
    filters: int = 512  # of each level, and where they are joined
    pooling: str = "avg"  # or "max"
    dropout: float | None = None  # of whole maps
    batch_norm: bool = True
    stride: int = 8  # of the features taken


def pspnet(x, row):
    """The features with their context at every level: as many channels as `row.filters`, at the same stride."""
    joined = [x]
    for cells in LEVELS:
        name = f"psp_level{cells}"
        y = GridPooling2D(cells, row.pooling, name=f"{name}_pooling")(x)
        y = parts.conv(y, row.filters, 1, batch_norm=row.batch_norm, name=name)
        joined.append(ResizeLike(name=f"{name}_upsampling")([y, x]))
    x = L.Concatenate(name="psp_concat")(joined)
    x = parts.conv(x, row.filters, 1, batch_norm=row.batch_norm, name="aggregation")
    return x if row.dropout is None else L.SpatialDropout2D(row.dropout, name="spatial_dropout")(x)


@decoder(
    {"pspnet": Row()},
    strides=(8,),
    paper="Zhao et al. 2017, Pyramid scene parsing network",
)
def decode(taps, row):
    return pspnet(taps[row.stride], row)
