"""The layers that segmentation needs and Keras does not have, and FCN's initialiser. All are registered, so saved models load without
`custom_objects`, and all use `keras.ops` only, so they run on every backend."""

import functools

import keras
import numpy as np
from keras import layers as L
from keras import ops

register = keras.saving.register_keras_serializable("cnn_zoo")


def grown(x, height, width, most, value=0.0):
    """The map, with a border of `value` below and to the right, cut to `height` and `width`, which are at most `most` larger than it is.

    A border of constant width and a cut that depends on the size: exporters know that better than a border that depends on the size.
    """
    if all(isinstance(side, int) for side in (height, width)) and (height, width) == tuple(x.shape[1:3]):
        return x
    return ops.pad(x, ((0, 0), (0, most), (0, most), (0, 0)), constant_values=value)[:, :height, :width]


def interleave(parts, axis):
    """Rows (axis 1) or columns (axis 2) of several maps of one shape in turn: the first of each, then the second of each."""
    batch, height, width, channels = ops.shape(parts[0])
    tall, wide = (height * len(parts), width) if axis == 1 else (height, width * len(parts))
    return ops.reshape(ops.stack(parts, axis=axis + 1), (batch, tall, wide, channels))


@register
class MaxUnpool2D(L.Layer):
    """Undoes a max pooling: each value goes to where its window had its maximum; all other places are 0.

    Args:
        pool_size: Side of the pooling's square windows, which lie side by side from the upper left corner.

    Inputs: a pooled map, or what a decoder made of one, `(batch, h, w, channels)`, and the map before that pooling,
    `(batch, height, width, channels)`, where `h` is `height / pool_size`, rounded down ("valid" pooling) or up ("same"); `w` likewise. Output of the
    second one's shape with the first one's values. Of equal maxima in a window the first, row by row, is taken. A place in no window is 0. No
    gradient flows into the second input.

    The indices of the maxima are found by comparing, not handed over by the pooling: no gather, no scatter, no int64 maps, on any backend.

    Raises:
        ValueError: The maps differ in channels, or one cannot be a pooling of the other.

    Source: Badrinarayanan et al. 2017, "SegNet", section 3.
    """

    def __init__(self, pool_size=2, **kwargs):
        super().__init__(**kwargs)
        if pool_size < 1:
            raise ValueError(f"pool_size must be at least 1, not {pool_size}")
        self.pool_size = int(pool_size)

    def build(self, input_shape):
        pooled, full = input_shape
        if pooled[-1] != full[-1]:
            raise ValueError(f"{self.name}: {pooled[-1]} channels cannot be put at the maxima of {full[-1]}")
        for small, large in zip(pooled[1:3], full[1:3]):
            if None not in (small, large) and small not in (large // self.pool_size, -(-large // self.pool_size)):
                raise ValueError(f"{self.name}: pooling {large} pixels by {self.pool_size} does not give {small}")

    def call(self, inputs):
        x, full = inputs
        k = self.pool_size
        (_, h, w, _), (_, height, width, _) = ops.shape(x), ops.shape(full)
        windows = grown(full, k * h, k * w, k - 1, float("-inf"))
        places = [windows[:, i::k, j::k] for i in range(k) for j in range(k)]  # the same corner of all windows
        highest, zero, placed, taken = functools.reduce(ops.maximum, places), ops.zeros_like(x), [], None
        for place in places:
            hit = ops.equal(place, highest)
            first = hit if taken is None else ops.logical_and(hit, ops.logical_not(taken))
            taken = hit if taken is None else ops.logical_or(taken, hit)
            placed.append(ops.where(first, x, zero))
        rows = [interleave(placed[i * k : (i + 1) * k], 2) for i in range(k)]
        return grown(interleave(rows, 1), height, width, k - 1)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[1])

    def get_config(self):
        return {**super().get_config(), "pool_size": self.pool_size}


@register
class BilinearUpSampling2D(L.Layer):
    """The map `factor` times as large, interpolated bilinearly between the centres of its pixels and constant beyond the outermost.

    As `UpSampling2D(factor, interpolation="bilinear")`, which Keras 3.15 cannot do in a TensorFlow graph where the size is open.

    Args:
        factor: At least 1.

    Input `(batch, height, width, channels)`, output `(batch, factor * height, factor * width, channels)`.
    """

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        if factor < 1:
            raise ValueError(f"factor must be at least 1, not {factor}")
        self.factor = int(factor)

    def call(self, x):
        x = self.stretch(x, 1, ops.concatenate([x[:, :1], x, x[:, -1:]], axis=1))
        return self.stretch(x, 2, ops.concatenate([x[:, :, :1], x, x[:, :, -1:]], axis=2))

    def stretch(self, x, axis, edged):
        before, after = (edged[:, :-2], edged[:, 2:]) if axis == 1 else (edged[:, :, :-2], edged[:, :, 2:])
        parts = []
        for i in range(self.factor):
            at = (i + 0.5) / self.factor - 0.5  # from the centre of the pixel
            parts.append(x * (1 - abs(at)) + (before if at < 0 else after) * abs(at))
        return interleave(parts, axis)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return batch, height and height * self.factor, width and width * self.factor, channels

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@register
class PadToMultiple(L.Layer):
    """Zeros below and to the right, as few as make height and width multiples of a number; the identity where they are.

    Args:
        multiple: At least 1.

    Input `(batch, height, width, channels)`, output `(batch, h, w, channels)` with `h = ceil(height / multiple) * multiple` and `w` likewise.
    """

    def __init__(self, multiple, **kwargs):
        super().__init__(**kwargs)
        if multiple < 1:
            raise ValueError(f"multiple must be at least 1, not {multiple}")
        self.multiple = int(multiple)

    def up(self, side):
        return (side + self.multiple - 1) // self.multiple * self.multiple  # ONNX rounds negative quotients otherwise

    def call(self, x):
        _, height, width, _ = ops.shape(x)
        return grown(x, self.up(height), self.up(width), self.multiple - 1)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return batch, height and self.up(height), width and self.up(width), channels

    def get_config(self):
        return {**super().get_config(), "multiple": self.multiple}


@register
class CropLike(L.Layer):
    """The upper left part of the first map, as large as the second; the identity where they agree.

    Inputs `(batch, h, w, channels)` and `(batch, height, width, anything)`, output `(batch, height, width, channels)`.
    """

    def call(self, inputs):
        x, like = inputs
        _, height, width, _ = ops.shape(like)
        return grown(x, height, width, 0)

    def compute_output_shape(self, input_shape):
        (batch, _, _, channels), like = input_shape
        return batch, like[1], like[2], channels


@register
class BroadcastLike(L.Layer):
    """One pixel repeated to the size of another map.

    Inputs `(batch, 1, 1, channels)` and `(batch, height, width, anything)`, output `(batch, height, width, channels)`.
    """

    def call(self, inputs):
        x, like = inputs
        batch, height, width, _ = ops.shape(like)
        return ops.broadcast_to(x, (batch, height, width, x.shape[-1]))

    def compute_output_shape(self, input_shape):
        (batch, _, _, channels), like = input_shape
        return batch, like[1], like[2], channels


@register
class DilatedPooling2D(L.Layer):
    """Pooling at stride 1 whose windows have holes: what a pooling becomes when strides are taken out of a net.

    Args:
        pool_size: Pixels along each side of a window.
        dilation: Distance between them.
        mode: `"max"` or `"avg"`.
        padding: How far windows reach beyond the map, above and to the left, and below and to the right. They see only what lies in the map.

    Input `(batch, height, width, channels)`, output `(batch, h, w, channels)` with `h = height + sum(padding) - (pool_size - 1) * dilation` and `w`
    likewise.

    Source: Chen et al. 2018, "DeepLab", section 3.1 (the "a trous" algorithm).
    """

    def __init__(self, pool_size, dilation=1, mode="max", padding=(0, 0), **kwargs):
        super().__init__(**kwargs)
        if mode not in ("max", "avg"):
            raise ValueError(f"mode is 'max' or 'avg', not {mode!r}")
        self.pool_size, self.dilation, self.mode = int(pool_size), int(dilation), mode
        self.padding = tuple(int(side) for side in padding)

    @property
    def lost(self):
        """By how many pixels the output is smaller."""
        return (self.pool_size - 1) * self.dilation - sum(self.padding)

    def call(self, x):
        if self.mode == "max":
            return self.slide(x, ops.maximum, float("-inf"))
        return self.slide(x, ops.add, 0.0) / self.slide(ops.ones_like(x[:1, :, :, :1]), ops.add, 0.0)

    def slide(self, x, join, outside):
        """Rows first, then columns: a maximum or sum over a square can be taken one way after the other."""
        _, height, width, _ = ops.shape(x)
        if any(self.padding):
            x = ops.pad(x, ((0, 0), self.padding, self.padding, (0, 0)), constant_values=outside)
        starts = [i * self.dilation for i in range(self.pool_size)]
        x = functools.reduce(join, [x[:, i : i + height - self.lost] for i in starts])
        return functools.reduce(join, [x[:, :, i : i + width - self.lost] for i in starts])

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return batch, height and height - self.lost, width and width - self.lost, channels

    def get_config(self):
        own = {key: getattr(self, key) for key in ("pool_size", "dilation", "mode", "padding")}
        return {**super().get_config(), **own}


@register
class Bilinear(keras.initializers.Initializer):
    """Kernels with which a transposed convolution interpolates bilinearly, each channel by itself: side 2f for stride f.

    Source: Long et al. 2015, "Fully convolutional networks for semantic segmentation", section 3.3.
    """

    def __call__(self, shape, dtype=None):
        height, width, outputs, inputs = shape
        rows, columns = (1 - np.abs(np.arange(n) - (n - 1) / 2) / ((n + 1) // 2) for n in (height, width))  # triangles
        kernel = np.einsum("i,j,oc->ijoc", rows, columns, np.eye(outputs, inputs))
        return ops.convert_to_tensor(kernel, dtype=dtype or keras.config.floatx())
