"""Stochastic depth for any net with residual blocks."""

import keras

from cnn_zoo.errors import InputError
from cnn_zoo.explain.graph import graph_of
from cnn_zoo.layers import DropPath

GROWS = ("UpSampling", "Transpose", "Resiz")  # of decoders: what is added there is no residual block


def stochastic_depth(model: keras.Model, rate: float) -> keras.Model:
    """A copy of a model, with its weights, whose residual blocks are left out at random in training.

    For each image on its own, block l of L is left out with probability `rate * l / L`, and grows by `1 / (1 - rate * l / L)` where it is kept; its
    shortcut always stays. Outside of training the copy gives what the model gives, to the last bit. What drops whole blocks already (EfficientNet,
    MiT) is replaced.

    Args:
        model: A Functional model of the zoo, of `keras.applications`, or your own: with blocks that end in the sum (`keras.layers.Add` or `+`) of a
            shortcut, which has at most one convolution, and of something deeper.
        rate: Of the last block, from 0 to less than 1: 0.2 for tens of blocks, 0.5 for a hundred and more.

    Returns:
        An uncompiled Functional model with the names of layers of the first one, and layers `<name of the Add>_drop`.

    Raises:
        InputError: There are no residual blocks, or `rate` is out of range.

    Source: Huang et al. 2016, "Deep networks with stochastic depth", equation 4 (linear decay), here scaled in training instead of at inference.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise InputError(f"stochastic_depth is a probability, 0 <= rate < 1, not {rate!r}")
    if not getattr(model, "inputs", None):
        raise InputError(f"stochastic depth wants a Functional keras.Model, not {type(model).__name__}")
    blocks = residual_blocks(model)
    if not blocks:
        raise InputError(
            f"{model.name!r} has no residual blocks that could be left out; ResNets, MobileNetV2, EfficientNet and Xception are made of them"
        )
    rates = {add: rate * number / len(blocks) for number, add in enumerate(blocks, 1)}
    drops = {layer.name for layer in model.layers if _drops(layer)}
    replaced = {last: rates[add] for add, (_, last) in blocks.items() if last in drops}

    def cloned(layer):
        if layer.name in replaced:
            return DropPath(replaced[layer.name], name=layer.name)
        return type(layer).from_config(layer.get_config())

    def call(layer, *args, **kwargs):
        place, last = blocks.get(layer.name, (None, None))
        if place is not None and last not in replaced:
            listed = isinstance(args[0], list | tuple)  # of an Add; an operation `x + y` has its tensors one by one
            tensors = list(args[0] if listed else args)
            tensors[place] = DropPath(rates[layer.name], name=f"{layer.name}_drop")(tensors[place])
            args = [tensors] if listed else tensors
        return layer(*args, **kwargs)

    plain = keras.Model(model.input, model.output, name=model.name)  # not compiled
    copy = keras.models.clone_model(plain, clone_function=cloned, call_function=call)
    for layer in plain.layers:
        if layer.weights and layer.name not in replaced:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def residual_blocks(model: keras.Model) -> dict[str, tuple[int, str]]:
    """The blocks of a model in their order: the name of the sum that ends one -> which of its two inputs is the residual, and the layer it is from.

    One input is the shortcut: what the other one is computed from, or a projection of that with one convolution. Where maps grow on the way, as in
    decoders, it is no residual block.
    """
    calls, made_by, behind = graph_of(model, open_sizes=True).calls, {}, {}
    for number, call in enumerate(calls):
        made_by |= {tensor: number for tensor in call.outputs}
        before = [made_by[tensor] for tensor in call.inputs if tensor in made_by]
        behind[number] = frozenset(before).union(*(behind[one] for one in before))

    def chain(tensor):  # numbers of the calls that it is computed by
        return behind[made_by[tensor]] | {made_by[tensor]} if tensor in made_by else frozenset()

    blocks = {}
    for call in calls:
        if (
            type(call.op).__name__ != "Add" or len(call.inputs) != 2 or "/" in call.name
        ):  # a nested model is copied as it is
            continue
        one, other = map(chain, call.inputs)
        own = [[calls[i].op for i in only] for only in (one - other, other - one)]
        kernels = [sum(_has_kernel(op) for op in ops) for ops in own]
        place = int(kernels[1] > kernels[0])
        grows = any(word in type(op).__name__ for ops in own for op in ops for word in GROWS)
        last = calls[made_by[call.inputs[place]]].name if call.inputs[place] in made_by else None
        if kernels[place] > kernels[1 - place] <= 1 and not grows and "/" not in last:
            blocks[call.name] = place, last
    return blocks


def _has_kernel(op):
    return any(weight.path.endswith("kernel") for weight in getattr(op, "weights", ()))


def _drops(layer):
    """Whether it leaves whole samples out: our layer, Keras' of ConvNeXt, or dropout with one draw a sample."""
    shape = getattr(layer, "noise_shape", None)
    each = shape is not None and all(side == 1 for side in shape[1:])
    return isinstance(layer, DropPath) or type(layer).__name__ == "StochasticDepth" or each
