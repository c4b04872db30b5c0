"""What a net costs, from its graph alone: multiply-accumulates, parameters, bytes, depth.

A multiply-accumulate (MAC) is one product that is added to a sum. Counted are the products of convolutions, dense layers and attention, for one
image, as papers ("multiply-adds") and torchvision ("GFLOPS" of its weights) count them. Biases, normalisation, activations, poolings and sums
of branches are not: ResNet-50 has 4.09e9. Where FLOPs are asked for they are twice the MACs, one product and one sum. A convolution counts the
products with the zeros of its padding; a transposed one those of every input pixel with its whole kernel.
"""

import math
from dataclasses import dataclass

import keras
from keras import layers as L

from cnn_zoo import layers as ours
from cnn_zoo.errors import InputError
from cnn_zoo.explain.graph import channels_first, graph_of, is_model


@dataclass(frozen=True)
class LayerCost:
    """One call of a layer: its name, class, output shape without the batch, weights and multiply-accumulates.

    `weights` are 0 in every call of a shared layer but the first; `macs` is None where the layer is not known.
    """

    name: str
    kind: str
    output_shape: tuple
    weights: int
    macs: int | None


@dataclass(frozen=True)
class Cost:
    """What a model costs for one image of a given size.

    Attributes:
        input_shape: Shape of the image (of the first input), without the batch.
        layers: Every call in order; `print(cost)` shows those with weights or products.
        macs: Multiply-accumulates, of all layers that are known.
        trainable: Numbers that training changes, as the model stands: frozen layers count nothing.
        weights: All numbers: trainable, frozen and statistics of BatchNorm.
        unknown: Layers with weights whose products could not be counted; empty for every net of the zoo.
    """

    input_shape: tuple
    layers: tuple[LayerCost, ...]
    macs: int
    trainable: int
    weights: int
    unknown: tuple[str, ...]

    @property
    def flops(self) -> int:
        """Twice the multiply-accumulates."""
        return 2 * self.macs

    @property
    def megabytes(self) -> float:
        """All weights as float32, in units of 2^20 bytes: the size of a file of them, as published tables state it."""
        return 4 * self.weights / 2**20

    def to_dict(self) -> dict:
        """The same as plain values, for JSON."""
        return {
            "input_shape": list(self.input_shape),
            "macs": self.macs,
            "flops": self.flops,
            "trainable": self.trainable,
            "weights": self.weights,
            "megabytes": self.megabytes,
            "unknown": list(self.unknown),
            "layers": [
                {"name": x.name, "type": x.kind, "output_shape": list(x.output_shape), "weights": x.weights, "macs": x.macs}
                for x in self.layers
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        shown = [x for x in self.layers if x.weights or x.macs != 0]
        name = max((len(x.name) for x in shown), default=5)
        kind = max((len(x.kind) for x in shown), default=4)
        lines = [f"{'layer':{name}}  {'type':{kind}}  {'output':>18}  {'weights':>12}  {'multiply-adds':>15}  share"]
        for x in shown:
            macs = "unknown" if x.macs is None else f"{x.macs:,}"
            share = f"{100 * (x.macs or 0) / max(self.macs, 1):4.1f}%"
            shape = " x ".join(map(str, x.output_shape))
            lines.append(f"{x.name:{name}}  {x.kind:{kind}}  {shape:>18}  {x.weights:>12,}  {macs:>15}  {share}")
        lines += [
            "",
            f"for one image of {' x '.join(map(str, self.input_shape))}",
            f"multiply-accumulates  {self.macs:,} ({self.flops:,} FLOPs)",
            f"weights               {self.weights:,}, of which {self.trainable:,} trainable ({self.megabytes:.1f} MB as float32)",
        ]
        if self.unknown:
            lines.append(f"NOT COUNTED           {', '.join(self.unknown)}")
        return "\n".join(lines)


def macs(model, input_size=None, *, rules=None) -> Cost:
    """Multiply-accumulates of a model for one image, layer by layer; nested models and shared layers count at every call.

    Args:
        model: Functional or Sequential model, also nested.
        input_size: Height and width. Default: the model's own; needed where that is open.
        rules: For layers of your own, class -> function of a layer and the lists of its input and output shapes (the batch first) that
            returns its multiply-accumulates for one image.

    Returns:
        A `Cost`. Layers with weights that no rule knows are listed in its `unknown`; a layer without weights that is not known counts 0.

    Raises:
        InputError: The layers cannot be seen (a subclassed model), or the size is open, or the model cannot take it.
    """
    rules = {**RULES, **{kind: (0, rule) for kind, rule in (rules or {}).items()}}
    graph = graph_of(model, input_size)
    lines, seen = [], set()
    for call in graph.calls:
        fresh = id(call.op) not in seen
        seen.add(id(call.op))
        lines.append(
            LayerCost(
                call.name,
                type(call.op).__name__,
                tuple(call.output_shapes[0][1:]) if call.output_shapes else (),
                _count(call.op.weights) if fresh and isinstance(call.op, keras.layers.Layer) else 0,
                _macs(call.op, call.input_shapes, call.output_shapes, call.args, rules),
            )
        )
    return Cost(
        tuple(graph.input_shapes[0][1:]),
        tuple(lines),
        sum(line.macs or 0 for line in lines),
        _count(model.trainable_variables),
        _count(model.weights),
        tuple(dict.fromkeys(line.name for line in lines if line.macs is None)),
    )


def depth(model) -> int:
    """Layers with weights on the longest path from an input to an output: convolutions and dense layers, not BatchNorm.

    A separable convolution is two layers, a depthwise and a pointwise one; the two small layers of squeeze-and-excitation lie on the path. That is
    how the tables of depths count that give Xception 71 and EfficientNet-B0 82.

    Raises:
        InputError: The layers cannot be seen, or one with weights is not known.
    """
    graph = graph_of(model, open_sizes=True)
    longest = dict.fromkeys(graph.inputs, 0)
    for call in graph.calls:
        length = max((longest.get(number, 0) for number in call.inputs), default=0) + _depth(call.op, call.name)
        longest.update(dict.fromkeys(call.outputs, length))
    return max(longest.get(number, 0) for number in graph.outputs)


def _count(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def _pixels(shape, layer):
    """Places of a map: its shape without batch and channels."""
    return math.prod(shape[2:] if channels_first(layer) else shape[1:-1])


def _channels(shape, layer):
    return shape[1] if channels_first(layer) else shape[-1]


def _conv(layer, inputs, outputs):
    per_pixel = math.prod(layer.kernel_size) * (_channels(inputs[0], layer) // layer.groups) * layer.filters
    return _pixels(outputs[0], layer) * per_pixel


def _transposed(layer, inputs, outputs):
    return _pixels(inputs[0], layer) * math.prod(layer.kernel_size) * _channels(inputs[0], layer) * layer.filters


def _depthwise(layer, inputs, outputs):
    per_pixel = math.prod(layer.kernel_size) * _channels(inputs[0], layer) * layer.depth_multiplier
    return _pixels(outputs[0], layer) * per_pixel


def _separable(layer, inputs, outputs):
    pointwise = _channels(inputs[0], layer) * layer.depth_multiplier * layer.filters
    return _depthwise(layer, inputs, outputs) + _pixels(outputs[0], layer) * pointwise


def _dense(layer, inputs, outputs):
    return math.prod(outputs[0][1:]) * inputs[0][-1]


def _einsum(subscripts, shapes):
    """Products of an einsum for one sample: the sizes of all its indices, but for the batch (the first index of the first operand)."""
    operands, _, result = subscripts.replace(" ", "").partition("->")
    sizes, dots = {}, 1
    for labels, shape in zip(operands.split(","), shapes):
        head, ellipsis, tail = labels.partition("...")
        sizes.update(zip(head, shape))
        sizes.update(zip(reversed(tail), reversed(shape)))
        if ellipsis:
            free = shape[len(head) : len(shape) - len(tail)]
            dots = max(dots, math.prod(free if head else free[1:]))  # the batch is among the dots where they come first
    first = operands[:1]
    return dots * math.prod(size for label, size in sizes.items() if label != first)


def _einsum_dense(layer, inputs, outputs):
    return _einsum(layer.equation, [inputs[0], tuple(layer.kernel.shape)])


def _attention_heads(layer, inputs, outputs):
    """The projections of query, key, value and result, and the two products between them; inputs `(batch, tokens, features)`."""
    query, value = inputs[0], inputs[1]
    if len(query) != 3 or len(value) != 3:
        return None
    here, there = (layer.query_dense, layer.output_dense), (layer.key_dense, layer.value_dense)
    projections = [query[1] * _count([dense.kernel]) for dense in here]
    projections += [value[1] * _count([dense.kernel]) for dense in there]
    return sum(projections) + query[1] * value[1] * layer.num_heads * (layer.key_dim + layer.value_dim)


def _attention(layer, inputs, outputs):
    query, value = inputs[0], inputs[1]
    return query[1] * value[1] * (query[2] + value[2])


def _dot(layer, inputs, outputs):
    axis = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    return math.prod(outputs[0][1:]) * inputs[0][axis]


def _partial(layer, inputs, outputs):
    return _pixels(outputs[0], layer) * layer.kernel_size**2 * sum(map(len, layer.table))


def _rbf(layer, inputs, outputs):
    return outputs[0][-1] * inputs[0][-1]


def _none(layer, inputs, outputs):
    return 0


# Class -> layers that it is in the depth, and its multiply-accumulates. A subclass has the rule of its nearest ancestor.
RULES = {
    **dict.fromkeys((L.Conv1D, L.Conv2D, L.Conv3D), (1, _conv)),
    **dict.fromkeys((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), (1, _transposed)),
    **dict.fromkeys((L.DepthwiseConv1D, L.DepthwiseConv2D), (1, _depthwise)),
    **dict.fromkeys((L.SeparableConv1D, L.SeparableConv2D), (2, _separable)),
    L.Dense: (1, _dense),
    L.EinsumDense: (1, _einsum_dense),
    L.MultiHeadAttention: (2, _attention_heads),  # the values' projection, and that of the result
    L.Attention: (0, _attention),
    L.Dot: (0, _dot),
    ours.PartialConv2D: (1, _partial),
    ours.RBF: (1, _rbf),  # with fixed codes, but the paper's count of LeNet-5's layers (seven) has it
    # With weights, but without products that are counted:
    **dict.fromkeys((L.BatchNormalization, L.LayerNormalization, L.GroupNormalization, L.Normalization), (0, _none)),
    **dict.fromkeys((L.PReLU, L.Embedding), (0, _none)),
}
FREE = ("LayerScale", "RMSNormalization")  # of Keras, but not public in every version


def _rule(op, rules):
    for kind in type(op).__mro__:
        if kind in rules:
            return rules[kind]
    return (0, _none) if type(op).__name__ in FREE else None


def _macs(op, inputs, outputs, args, rules):
    if rule := _rule(op, rules):
        return rule[1](op, inputs, outputs)
    if isinstance(op, L.TimeDistributed):
        inner = [(1, *shape[2:]) for shape in inputs], [(1, *shape[2:]) for shape in outputs]
        inner_macs = macs(op.layer, inputs[0][2:-1]).macs if is_model(op.layer) else _macs(op.layer, *inner, (), rules)
        return None if inner_macs is None else inputs[0][1] * inner_macs
    if isinstance(op, L.SpectralNormalization):
        return _macs(op.layer, inputs, outputs, args, rules)
    if isinstance(op, L.Layer):
        return None if op.weights else 0
    kind = type(op).__name__  # an operation of keras.ops
    if kind == "Matmul":
        return math.prod(outputs[0][1:]) * inputs[0][-1]
    if kind == "Einsum":
        return _einsum(op.subscripts, inputs)
    uncounted = kind.endswith(("Conv", "ConvTranspose")) or kind in ("Dot", "Inner", "Outer", "Tensordot", "Vdot")
    return None if uncounted else 0


def _depth(op, name):
    if rule := _rule(op, RULES):
        return rule[0]
    if isinstance(op, L.SpectralNormalization | L.TimeDistributed):
        return depth(op.layer) if is_model(op.layer) else _depth(op.layer, name)
    if isinstance(op, L.Layer) and op.weights:
        raise InputError(
            f"the layer {name!r} ({type(op).__name__}) has weights and it is not known how many layers deep it is"
        )
    return 0
