"""What part of the image a unit of a feature map sees, from the graph alone.

For each tensor and each axis, the first and the last input pixel that the unit at index 0 sees are carried along, and the distance (stride) between
what neighbours see. A window of `k` pixels at stride `s` and dilation `d`, after a padding of `p`, makes of them

    first <- first - p * stride        last <- last + ((k - 1) * d - p) * stride        stride <- s * stride

and where branches meet, the first is the smallest and the last the largest. That gives size and place at once, and sizes add up to the
`r <- r + (k - 1) * d * stride` of Araujo, Norris, Sim 2019, "Computing receptive fields of convolutional neural networks", Distill. After an
upsampling neighbours differ, with a period: then these numbers are carried for each index of one period.
"""

import functools
import math
from dataclasses import dataclass, field
from fractions import Fraction

from keras import layers as L

from cnn_zoo import layers as ours
from cnn_zoo.errors import InputError
from cnn_zoo.explain.graph import channels_first, graph_of


@dataclass(frozen=True)
class Field:
    """Receptive field of the units of one layer, in input pixels; every tuple has one number an axis, height first.

    Attributes:
        layer: Name of the layer.
        size: Height and width of what a unit sees: None where that is the whole image, whatever its size.
        local: The same without the branches that see the whole image, such as squeeze-and-excitation; None where there is no other branch.
        stride: Distance between what neighbouring units see; None where `local` is.
        start: First pixel that the unit at index 0 sees, counted from the image's own first pixel: negative in the padding. None where `local` is.
        axes: What `window` reads.

    Pixels of the padding count as seen. After an upsampling some units may see more pixels than others: sizes are the largest, strides the mean.
    """

    layer: str
    size: tuple[int, ...] | None
    local: tuple[int, ...] | None
    stride: tuple | None
    start: tuple[int, ...] | None
    axes: tuple | None = field(repr=False, compare=False)

    def window(self, index) -> tuple[tuple[int, int], ...]:
        """For each axis the first and last pixel that the unit at `index`, such as (row, column), sees by its local field.

        Raises:
            InputError: There is no local field.
        """
        if self.axes is None:
            raise InputError(f"every unit of {self.layer!r} sees the whole image")
        return tuple((axis.first(i), axis.last(i)) for i, axis in zip(index, self.axes))

    def centre(self, index) -> tuple[float, ...]:
        """The middle of that window, in pixels; the middle of the image's first pixel is 0."""
        return tuple((first + last) / 2 for first, last in self.window(index))

    def __str__(self) -> str:
        def times(values):
            return " x ".join(str(value) for value in values)

        whole = "the whole image" if self.size is None else times(self.size)
        if self.local is None:
            return f"{self.layer}: {whole}"
        local = "" if self.size == self.local else f" ({times(self.local)} without the branches that see all of it)"
        return f"{self.layer}: {whole}{local}, stride {times(self.stride)}, from pixel {times(self.start)}"


def receptive_field(model, layer: str | None = None, *, input_size=None) -> Field:
    """The part of the image that a unit of a layer sees.

    Squeeze-and-excitation, and anything else that pools the whole map and multiplies or adds the result back, lets every unit see the whole image:
    `size` says so (None), and `local` gives the field of the other branches, which is what papers state.

    Args:
        model: Functional or Sequential model of one input.
        layer: Name of a layer (`"outer/inner"` in a nested model; the last use of a shared one). Default: the model's
            output if it is a map (of several, the deepest), else the last map before the head pools or flattens it.
        input_size: Height and width, where they are open in the model and "same" padding makes the field's place (not its size) depend on them.

    Raises:
        InputError: The layers cannot be seen, there is no such layer, or the field passes through a layer that is not known.
    """
    graph = graph_of(model, input_size, open_sizes=True)
    if len(graph.inputs) != 1 or len(graph.input_shapes[0]) < 3:
        raise InputError(f"a model of one image is expected, and {model.name!r} takes {graph.input_shapes}")
    pixels = len(graph.input_shapes[0]) - 2
    seen = {graph.inputs[0]: _Seen((_Axis((0,), (0,), 1),) * pixels)}
    named, last = {}, None
    for call in graph.calls:
        states = [seen[number] for number in call.inputs if number in seen]
        if not states:
            continue
        try:
            state = _follow(call, states)
        except _NotKnownError as error:
            state = _Seen(None, problem=f"the layer {call.name!r} ({type(call.op).__name__}){error}")
        seen.update(dict.fromkeys(call.outputs, state))
        named[call.name] = state
        last = call.name if state.axes else last
    if layer is None:
        ends = [call.name for call in graph.calls if set(call.outputs) & set(graph.outputs) and call.name in named]
        layer = ends[-1] if ends else None
        if ends and named[layer].axes is None and not named[layer].problem:
            layer = last
        if layer is None:
            raise InputError(f"{model.name!r} has no feature map")
    elif layer not in named:
        raise InputError(f"{model.name!r} has no layer {layer!r} that sees the image; model.summary() names its layers")
    result = named[layer]
    if result.problem:
        raise InputError(f"the receptive field of {layer!r} cannot be told: {result.problem}")
    if result.axes is None:
        return Field(layer, None, None, None, None, None)
    local = tuple(max(last - first for first, last in zip(axis.firsts, axis.lasts)) + 1 for axis in result.axes)
    return Field(
        layer,
        None if result.whole else local,
        local,
        tuple(int(axis.stride) if axis.stride.denominator == 1 else float(axis.stride) for axis in result.axes),
        tuple(axis.first(0) for axis in result.axes),
        result.axes,
    )


@dataclass(frozen=True)
class _Axis:
    """What the units along one axis see: those of one period, and how far the next period is moved in the image."""

    firsts: tuple
    lasts: tuple
    step: int

    @property
    def period(self):
        return len(self.firsts)

    @property
    def stride(self):
        return Fraction(self.step, self.period)

    def first(self, i):
        return self.firsts[i % self.period] + i // self.period * self.step

    def last(self, i):
        return self.lasts[i % self.period] + i // self.period * self.step

    def seen_by(self, taps, out, back):
        """The axis of a layer whose index i sees the indices `taps(i)` of this one, and whose index i + out sees them moved by `back`."""
        times = self.period // math.gcd(self.period, back)
        indices = [taps(i) for i in range(out * times)]
        return _Axis(
            # a transposed convolution with gaps has units that see nothing
            tuple(min(map(self.first, found), default=math.inf) for found in indices),
            tuple(max(map(self.last, found), default=-math.inf) for found in indices),
            self.step * back * times // self.period,
        )

    def moved(self, distance):
        return self.seen_by(lambda i: (i + distance,), 1, 1)

    def joined(self, other):
        period = math.lcm(self.period, other.period)
        return _Axis(
            tuple(min(self.first(i), other.first(i)) for i in range(period)),
            tuple(max(self.last(i), other.last(i)) for i in range(period)),
            self.step * period // self.period,
        )


@dataclass(frozen=True)
class _Seen:
    """State of a tensor: `axes` of its local field or None, whether a branch sees the whole image, and why nothing is known of it."""

    axes: tuple[_Axis, ...] | None
    whole: bool = False
    problem: str | None = None


class _NotKnownError(Exception):
    """This layer moves pixels in a way that is not known here."""


def _pixels(shape, op, count):
    """Sizes of the spatial axes of a shape; none where the tensor is no map any more."""
    if len(shape) != count + 2:
        return ()
    return shape[2:] if channels_first(op) else shape[1:-1]


def _follow(call, states):
    op = call.op
    for state in states:
        if state.problem:
            return state
    if isinstance(op, L.SpectralNormalization):
        op = op.layer
    if _is_merge(op):
        return _merged(call, states)
    state = states[0]
    if state.axes is None or _is_pointwise(op, call):
        return state
    sizes = _pixels(call.input_shapes[0], op, len(state.axes))
    for kinds, rule in RULES:
        if isinstance(op, kinds):
            axes = rule(op, state.axes, sizes)
            return _Seen(axes, state.whole) if axes else _Seen(None)
    if isinstance(op, NORMALISATIONS):  # over the pixels too: else they are pointwise
        return _Seen(state.axes, True)
    if isinstance(op, WHOLE) or type(op).__name__ in REDUCTIONS:
        return _Seen(None)
    if isinstance(op, L.Reshape) and len(call.output_shapes[0]) == 2:
        return _Seen(None)
    raise _NotKnownError(" moves pixels in a way that is not known")


def _is_merge(op):
    kind = type(op).__name__
    if isinstance(op, L.Layer):  # the named one is private to Keras' Inception-ResNet-v2: a sum with a factor
        return isinstance(op, MERGES) or (_of_keras(op) and kind == "CustomScaleLayer")
    return kind in MERGING


def _of_keras(op):
    return type(op).__module__.startswith("keras.")


def _merged(call, states):
    """Union of the branches; one that is a single pixel (or no map at all) stretched over the others is seen by all of them."""
    count = len(next((state.axes for state in states if state.axes), ()))
    sizes = [_pixels(shape, call.op, count) for shape in call.input_shapes]
    if type(call.op).__name__ == "Concatenate":
        axis = call.op.axis % len(call.input_shapes[0])
        if count and len(call.input_shapes[0]) == count + 2 and axis != (1 if channels_first(call.op) else count + 1):
            raise _NotKnownError(" joins maps side by side")
    output = _pixels(call.output_shapes[0], call.op, count)
    maps = []
    for state, size in zip(states, sizes):
        stretched = len(size) == len(output) and any(a == 1 and b != 1 for a, b in zip(size, output))
        maps.append(_Seen(None) if stretched else state)
    local = [state.axes for state in maps if state.axes]
    whole = any(state.whole or state.axes is None for state in maps)
    if not local:
        return _Seen(None)
    axes = []
    for branches in zip(*local):
        if len({axis.stride for axis in branches}) > 1:
            raise _NotKnownError(f" joins maps of the strides {', '.join(str(axis.stride) for axis in branches)}")
        axes.append(functools.reduce(_Axis.joined, branches))
    return _Seen(tuple(axes), whole)


def _is_pointwise(op, call):
    """Whether each pixel of the result comes from the same pixel alone."""
    if isinstance(op, POINTWISE):
        return True
    kind = type(op).__name__
    if not isinstance(op, L.Layer):
        same = call.input_shapes[0][1:-1] == call.output_shapes[0][1:-1] and None not in call.input_shapes[0][1:-1]
        return kind in POINTWISE_OPERATIONS or (kind in REDUCTIONS and same)
    if isinstance(op, L.Dense):
        return True
    if isinstance(op, L.Softmax | L.LayerNormalization | L.UnitNormalization):
        axes = op.axis if isinstance(op.axis, list | tuple) else [op.axis]
        return all(axis in (-1, len(call.input_shapes[0]) - 1) for axis in axes)
    if isinstance(op, L.Reshape):
        return call.input_shapes[0] == call.output_shapes[0]
    # Keras' augmentations do nothing outside training; its two private layers of ConvNeXt act pixel by pixel.
    return _of_keras(op) and (kind.startswith("Random") or kind in ("LayerScale", "StochasticDepth"))


def _before(padding, size, kernel, stride, dilation):
    """Pixels that the padding of a layer puts before the first one."""
    if padding == "valid":
        return 0
    reach = (kernel - 1) * dilation
    if padding == "causal":
        return reach
    if stride == 1:
        return reach // 2
    if size is None:
        raise _NotKnownError(' pads ("same") by a rule that depends on the size of the image: give input_size')
    return max((math.ceil(size / stride) - 1) * stride + reach + 1 - size, 0) // 2


def _window(axis, size, kernel, stride, dilation, padding):
    before = _before(padding, size, kernel, stride, dilation)
    return axis.seen_by(lambda i: [i * stride - before + t * dilation for t in range(kernel)], 1, stride)


def _conv(op, axes, sizes):
    padding = (op.padding,) * len(axes)
    return tuple(map(_window, axes, sizes, op.kernel_size, op.strides, op.dilation_rate, padding))


def _pool(op, axes, sizes):
    ones, padding = (1,) * len(axes), (op.padding,) * len(axes)
    return tuple(map(_window, axes, sizes, _each(op.pool_size, axes), _each(op.strides, axes), ones, padding))


def _each(value, axes):
    return (value,) * len(axes) if isinstance(value, int) else tuple(value)


def _transposed(op, axes, sizes):
    return tuple(
        _transposed_window(axis, k, s, d, op.padding)
        for axis, k, s, d in zip(axes, op.kernel_size, op.strides, _each(op.dilation_rate, axes))
    )


def _transposed_window(axis, kernel, stride, dilation, padding):
    """Index i of the result sees the indices m with `i = m * stride + tap - before`."""
    before = max((kernel - 1) * dilation + 1 - stride, 0) // 2 if padding == "same" else 0

    def taps(i):
        places = [i + before - t * dilation for t in range(kernel)]
        return [place // stride for place in places if place % stride == 0]

    return axis.seen_by(taps, stride, 1)


def _upsample(op, axes, sizes):
    how = getattr(op, "interpolation", "nearest")
    if how not in ("nearest", "bilinear"):
        raise _NotKnownError(f" interpolates {how!r}: nearest and bilinear are known")
    rule = {"nearest": _repeated, "bilinear": functools.partial(_bilinear, old=1)}[how]
    return tuple(rule(axis, new=factor) for axis, factor in zip(axes, _each(op.size, axes)))


def _repeated(axis, new):
    return axis.seen_by(lambda i: (i // new,), new, 1)


def _resize(op, axes, sizes):
    if op.interpolation != "bilinear" or op.crop_to_aspect_ratio or op.pad_to_aspect_ratio or None in sizes:
        raise _NotKnownError(" resizes; known are bilinear resizings of a fixed size, without cropping or padding")
    return tuple(_bilinear(axis, old=old, new=new) for axis, old, new in zip(axes, sizes, (op.height, op.width)))


def _bilinear(axis, old, new):
    """Index i lies at `((2i + 1) old - new) / (2 new)` among the old pixels, and sees the one before and the one after."""
    common = math.gcd(old, new)

    def taps(i):
        place, rest = divmod((2 * i + 1) * old - new, 2 * new)
        return (place, place + 1) if rest else (place,)

    return axis.seen_by(taps, new // common, old // common)


def _pad(op, axes, sizes):
    return _moved(axes, [-before for before, _ in _pairs(op.padding, axes)])


def _crop(op, axes, sizes):
    return _moved(axes, [before for before, _ in _pairs(op.cropping, axes)])


def _same_pad(op, axes, sizes):
    if None in sizes:
        raise _NotKnownError(" pads by a rule that depends on the size of the image: give input_size")
    return _moved(axes, [-(size % 2) for size in sizes])


def _pairs(values, axes):
    values = _each(values, axes)
    return [values] if len(axes) == 1 and isinstance(values[0], int) else values


def _moved(axes, distances):
    return tuple(axis.moved(distance) for axis, distance in zip(axes, distances))


def _partial(op, axes, sizes):
    return tuple(_window(axis, None, op.kernel_size, 1, 1, "valid") for axis in axes)


RULES = (
    (
        (L.Conv1D, L.Conv2D, L.Conv3D, L.SeparableConv1D, L.SeparableConv2D, L.DepthwiseConv1D, L.DepthwiseConv2D),
        _conv,
    ),
    ((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), _transposed),
    (
        (
            *(L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D),
            *(L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D),
        ),
        _pool,
    ),
    ((L.UpSampling1D, L.UpSampling2D, L.UpSampling3D), _upsample),
    (L.Resizing, _resize),
    ((L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D), _pad),
    ((L.Cropping1D, L.Cropping2D, L.Cropping3D), _crop),
    (ours.SamePadding2D, _same_pad),
    (ours.PartialConv2D, _partial),
)
MERGES = (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Concatenate)
MERGING = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum", "Power", "Concatenate", "Where")
NORMALISATIONS = (L.LayerNormalization, L.GroupNormalization, L.UnitNormalization, L.Softmax)
WHOLE = (
    *(L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D),
    *(L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D),
    *(L.Flatten, L.MultiHeadAttention, L.Attention, L.Bidirectional, L.LSTM, L.GRU, L.SimpleRNN),
)
POINTWISE = (
    *(L.Activation, L.ReLU, L.LeakyReLU, L.PReLU, L.ELU, L.BatchNormalization, L.Normalization, L.Rescaling),
    *(L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.AlphaDropout),
    *(L.GaussianNoise, L.GaussianDropout, L.ActivityRegularization, L.Identity, L.Masking),
    *(ours.ChannelShuffle, ours.ChannelSlice, ours.DropPath, ours.LRN),
)
REDUCTIONS = ("Mean", "Sum", "Max", "Min", "Amax", "Amin", "Var", "Std")
POINTWISE_OPERATIONS = (
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Celu", "Silu", "Sigmoid", "LogSigmoid", "HardSigmoid"),
    *("HardSilu", "HardTanh", "Softplus", "Softsign", "Tanh", "Exp", "Log", "Sqrt", "Rsqrt", "Square", "Reciprocal"),
    *("Negative", "Absolute", "Clip", "Cast", "Round", "Floor", "Ceil", "Sign", "Identity", "StopGradient"),
)
