"""The stages of any Keras model, "stem", "stage1", ..., "head", told from its graph; and freezing up to one of them.

No net is known here. A layer belongs to the stage of its output's stride, which is the side of the image over that of the map:

    up to 2: stem    4: stage1    8: stage2    16: stage3    32: stage4

What comes after the last map (pooling, flattening, dense layers) is the head, and so is a last convolution of 1x1 pixels to the classes whose maps
are only pooled, as in SqueezeNet. In a segmenter the head is the decoder: what enlarges maps or depends on something that does, side branches that
feed nothing else, and the layers whose names say so (`DECODER`), since a decoder may begin with convolutions that could as well be the trunk's.
"""

import difflib
import math
from dataclasses import dataclass

import keras

from cnn_zoo.errors import InputError
from cnn_zoo.explain.graph import channels_first, graph_of

DECODER = ("aggregation", "aspp", "center", "decoder", "final", "fpn", "logits", "psp", "segm")  # names begin so
OPEN = 256  # pixels that stand for a side of any length


def stages(model: keras.Model) -> dict[str, list]:
    """The layers that have weights, by stage, in forward order.

    Args:
        model: A Functional or Sequential model, models within it included.

    Returns:
        Name of the stage -> its layers: "stem", "stage1", "stage2", ..., "head". Stages without weights are left out; each layer is in one
        (the first, where it is used in several places).

    Raises:
        InputError: The layers of the model cannot be seen.
    """
    if not getattr(model, "inputs", None):
        raise InputError(
            "stages are told of a built Functional or Sequential model, whose layers and their order can be seen"
        )
    sizes = [OPEN if side is None else side for side in model.inputs[0].shape[1:-1]]
    calls = graph_of(model, sizes if None in model.inputs[0].shape[1:-1] else None, open_sizes=True)
    states, enlarging = _follow(calls)
    trunk = _trunk(model, calls, states, enlarging)
    found, seen = {}, set()
    for call in calls.calls:
        layer = call.op
        if getattr(layer, "weights", None) and id(layer) not in seen:
            seen.add(id(layer))
            name = _name(states[call.outputs[0]].stride) if call.outputs[0] in trunk else "head"
            found.setdefault(name, []).append(layer)
    return {name: found[name] for name in sorted(found, key=_depth)}


def freeze(model: keras.Model, upto: str | None = "head") -> list[str]:
    """Freeze a stage and all before it, and free all after it.

    The weights of frozen layers stay as they are in a fit, and so do the statistics of frozen BatchNorm layers, which Keras then runs as in
    inference. A model that is compiled already must be compiled again; `fit` does.

    Args:
        model: As for `stages`.
        upto: Name of the last frozen stage; None frees everything.

    Returns:
        Names of the frozen stages.

    Raises:
        InputError: There is no such stage.
    """
    found = stages(model)
    if upto is not None:
        check_stage(upto, found)
    for layer in _all_layers(model):
        layer.trainable = True
    frozen = [] if upto is None else list(found)[: list(found).index(upto) + 1]
    for name in frozen:
        for layer in found[name]:
            layer.trainable = False
    return frozen


def _all_layers(model):
    """A model, its layers, and those of the models within it, which would hide what is free inside if they were frozen."""
    yield model
    for layer in model.layers:
        yield from _all_layers(layer) if isinstance(layer, keras.Model) else (layer,)


def check_stage(name, found) -> None:
    """Raise InputError unless `name` is one of the stages, with the nearest one."""
    if name not in found:
        close = difflib.get_close_matches(str(name), found, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"the model has no stage {name!r}{hint} (it has: {', '.join(found)})")


def _name(stride):
    power = round(math.log2(stride)) if stride > 0 else 0
    return "stem" if power <= 1 else f"stage{power - 1}"


def _depth(name):
    return {"stem": 0, "head": math.inf}.get(name) if name in ("stem", "head") else int(name[5:])


@dataclass(frozen=True)
class _State:
    """Of a tensor: its stride, and whether it is a map still, or pooled, flattened or never was one."""

    stride: float
    is_map: bool


def _follow(graph):
    """The state of each tensor, and the outputs of calls that enlarge a map."""
    states, enlarging = {}, set()
    for number, shape in zip(graph.inputs, graph.input_shapes):
        states[number] = _State(1.0, len(shape) > 2)
    for call in graph.calls:
        inputs = [(states[n], shape) for n, shape in zip(call.inputs, call.input_shapes) if n in states]
        output = _sides(call.output_shapes[0], call.op)
        maps = [
            (state.stride, _factor(call.op, _sides(shape, call.op), output)) for state, shape in inputs if state.is_map
        ]
        if maps:
            is_map = bool(output) and not (len(inputs) == 1 and _pools(call.op, _sides(inputs[0][1], call.op), output))
            enlarges = is_map and any(factor < 1 and stride > 1.5 for stride, factor in maps)
        else:  # what was pooled stays so, unless it is stretched to a map again
            is_map = enlarges = max(output, default=1) > 1
        if enlarges:
            enlarging.update(call.outputs)
        if maps and is_map:
            stride = max(stride * factor for stride, factor in maps)
        else:
            stride = max((state.stride for state, _ in inputs), default=1.0)
        states.update(dict.fromkeys(call.outputs, _State(stride, is_map)))
    return states, enlarging


def _sides(shape, op):
    """Sizes of the spatial axes; none for `(batch, features)`."""
    return shape[2:] if channels_first(op) else shape[1:-1]


def _factor(op, before, after):
    """What a call multiplies the stride by."""
    op = getattr(op, "layer", op)  # a wrapper, such as SpectralNormalization
    if hasattr(op, "strides") and "Transpose" not in type(op).__name__:
        return max(op.strides) if isinstance(op.strides, list | tuple) else op.strides
    if len(before) != len(after):  # maps as sequences of tokens, and back
        return 1
    ratio = max((a / b for a, b in zip(before, after)), default=1)
    # Borders that are cut off or added are no stride: below one and a half times a side is taken for the same.
    return max(1, math.ceil(ratio - 0.5)) if ratio >= 1 else 1 / max(1, math.ceil(1 / ratio - 0.5))


def _pools(op, before, after):
    """Whether a call makes one pixel of the whole map."""
    if max(after) > 1:
        return False
    window = getattr(op, "pool_size", getattr(op, "kernel_size", None))
    if window is None:
        return type(op).__name__.startswith("Global") or max(before) > 1
    window = window if isinstance(window, list | tuple) else (window,) * len(before)
    return len(window) == len(before) and max(before) > 2 and all(w >= side for w, side in zip(window, before))


def _trunk(model, graph, states, enlarging):
    """Numbers of the tensors that belong to the trunk."""
    consumers = {}
    for call in graph.calls:
        for number in call.inputs:
            consumers.setdefault(number, []).append(call)
    segments = any(states[number].is_map for number in graph.outputs) and enlarging
    decoder = set()
    if segments:
        for call in graph.calls:
            named = bool(getattr(call.op, "weights", None)) and call.name.rpartition("/")[2].startswith(DECODER)
            if named or decoder.intersection(call.inputs) or enlarging.intersection(call.outputs):
                decoder.update(call.outputs)
    elif (last := _scores(model, graph, states)) is not None:
        decoder.update(last.outputs)

    # Backwards from the maps that are left: a pooled branch that scales a map belongs to the trunk, the classifier does not. Of the maps that end
    # at a decoder only the coarsest, with the most layers before it, ends the trunk.
    ends = _depths(graph, states, decoder)
    ends = {max(ends, key=ends.get)} if segments and ends else set(ends)
    trunk = set()
    for call in reversed(graph.calls):
        feeds = any(trunk.intersection(user.outputs) for number in call.outputs for user in consumers.get(number, ()))
        if decoder.isdisjoint(call.outputs) and (feeds or ends.intersection(call.outputs)):
            trunk.update(call.outputs)
    return trunk


def _depths(graph, states, decoder):
    """For each map before the decoder its stride and the most layers with weights on a way to it."""
    depths, maps = {}, {}
    for call in graph.calls:
        depth = max((depths.get(number, 0) for number in call.inputs), default=0) + bool(
            getattr(call.op, "weights", None)
        )
        depths.update(dict.fromkeys(call.outputs, depth))
        number = call.outputs[0]
        if states[number].is_map and number not in decoder:
            maps[number] = (states[number].stride, depth)
    return maps


def _scores(model, graph, states):
    """The call of a last convolution of 1x1 pixels whose maps are the classes, or None."""
    if any(states[number].is_map for number in graph.outputs):
        return None
    weighted = [call for call in graph.calls if getattr(call.op, "weights", None)]
    last = weighted[-1] if weighted else None
    if last is None or not states[last.outputs[0]].is_map or len(graph.outputs) != 1:
        return None
    pixel = max(getattr(last.op, "kernel_size", (0,))) == 1
    return last if pixel and last.op.filters == model.outputs[0].shape[-1] else None
