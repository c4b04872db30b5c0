"""ONNX files: the weights among the initialisers, for nets of the ONNX model zoo and for what PyTorch exports.

Three ways to tell which layer of the file is which of ours; the first that fits is taken:

* Caffe's names with `_w_0` and `_b_0`, as the converter from Caffe2 writes them. These nets take blue, green, red and the preset "caffe": SqueezeNet
  1.1 then gets 606 of 1,000 photographs of ImageNet right, and 2 with the pixels that the ONNX model zoo's README gives for all its nets. The first
  kernel is turned to red, green, blue.
* PyTorch's names, which its exporter keeps unless it folds BatchNorm.
* The place in the graph: what a layer is, its shape, what comes before it and what after, and over which poolings. Names and order do not count.
"""

import hashlib
from collections import Counter

import keras
from keras import layers as L

from cnn_zoo.errors import WeightsError, require
from cnn_zoo.layers import kind as kind_of
from cnn_zoo.registry import get_spec
from cnn_zoo.weights.importers import caffe, pytorch

INPUTS = {  # operation -> the variables that its inputs after the first are, under PyTorch's names
    "Conv": ("weight", "bias"),
    "Gemm": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
}
POOLS = {"MaxPool": "max", "AveragePool": "average", "MaxPooling2D": "max", "AveragePooling2D": "average"}


class Place(str):
    """The name of a layer, with `what` it is (kind and shape) and the `signature` of its place in the graph."""

    what: tuple
    signature: str


def read(path) -> dict[Place, dict]:
    """Layer -> its arrays under PyTorch's names.

    Raises:
        WeightsError: The file is damaged or of another format, or has weights in an operation that is not read.
        MissingExtraError: The package onnx is not installed.
    """
    onnx = require("onnx", "onnx")
    try:
        graph = onnx.load(path).graph
        arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                arrays[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
            elif node.op_type == "Identity" and node.input[0] in arrays:  # PyTorch writes equal arrays once
                arrays[node.output[0]] = arrays[node.input[0]]
    except Exception as error:  # protobuf, onnx and NumPy each have their own
        raise WeightsError(
            f"{str(path)!r} is not a whole ONNX file with its weights inside ({error}): get it again"
        ) from error
    theirs, places, made_by = {}, [], {}
    for i, node in enumerate(graph.node):
        name = str(i)
        if node.op_type in INPUTS:
            name = Place(node.input[1] if node.input[1] not in theirs else f"{node.input[1]} in node {i}")
            if missing := [x for x in node.input[1:] if x and x not in arrays]:
                raise WeightsError(
                    f"{str(path)!r} computes {missing[0]!r} instead of holding it: export it without quantisation"
                )
            theirs[name] = {variable: arrays[x] for variable, x in zip(INPUTS[node.op_type], node.input[1:]) if x}
            settings = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            if node.op_type == "Gemm" and not settings.get("transB", 0):
                theirs[name]["weight"] = theirs[name]["weight"].T
            name.what = (node.op_type, theirs[name]["weight"].shape)
        elif node.op_type in ("MatMul", "ConvTranspose") and any(x in arrays for x in node.input):
            raise WeightsError(
                f"{str(path)!r} has weights in {node.op_type}, which is not read; read are {', '.join(INPUTS)}"
            )
        places.append((name, node.op_type, [made_by[x] for x in node.input if x in made_by]))
        made_by |= {output: name for output in node.output}
    if not theirs:
        raise WeightsError(f"{str(path)!r} is not an ONNX file with weights: it has no {', '.join(INPUTS)}")
    for name, signature in signatures(places).items():
        name.signature = signature
    return caffe.rgb(theirs) if from_caffe(theirs) else theirs


def from_caffe(names) -> bool:
    """Whether the names are Caffe's, brought by way of Caffe2; nets trained in Caffe2 itself have names beginning with `gpu_0/`."""
    return all(name.endswith("_w_0") and not name.startswith("gpu_") for name in names)


def signatures(graph) -> dict[Place, str]:
    """A digest of the place of each layer with weights: equal places in two graphs have equal digests.

    Args:
        graph: `(name, kind, names of the inputs)` of each layer, inputs before what they go to; those with weights are a `Place` with `what`.
    """
    reach, before, after = {}, {}, {}  # a layer -> (layer with weights, poolings in between)
    for name, kind, inputs in graph:
        found = set().union(*(reach[x] for x in inputs))
        if isinstance(name, Place):
            before[name], after[name], reach[name] = found, set(), {(name, ())}
            for other, pools in found:
                after[other].add((name, pools))
        else:
            reach[name] = {(other, (*pools, POOLS[kind]) if kind in POOLS else pools) for other, pools in found}

    def digests(order, neighbours):
        done = {}
        for name in order:
            around = sorted((done[other], pools) for other, pools in neighbours[name])
            done[name] = hashlib.sha256(repr((name.what, around)).encode()).hexdigest()
        return done

    forward, backward = digests(before, before), digests(reversed(before), after)
    return {name: forward[name] + backward[name] for name in before}


def places_of(net: str) -> list[Place]:
    """The layers of our net that have weights, with their places."""
    spec = get_spec(net)
    image = keras.Input((*spec.size, spec.channels))
    taps = spec.features(image, spec.row)
    model = keras.Model(image, spec.head(taps[max(taps)], spec.classes, spec.row))
    graph, made = [], {}
    for config in model.get_config()["layers"]:
        layer = model.get_layer(config["name"])
        name = made[layer.name] = Place(layer.name) if layer.weights else layer.name
        if layer.weights:
            name.what = what(layer)
        graph.append((name, kind_of(layer), [made[x] for x in inputs_of(config["inbound_nodes"])]))
    found = signatures(graph)
    for name, signature in found.items():
        name.signature = signature
    return list(found)


def inputs_of(saved) -> list[str]:
    """Names of the layers that a layer's saved `inbound_nodes` come from."""
    if isinstance(saved, dict):
        if "keras_history" in saved:
            return [saved["keras_history"][0]]
        saved = list(saved.values())
    return [name for part in saved for name in inputs_of(part)] if isinstance(saved, list | tuple) else []


def what(layer) -> tuple:
    """Kind and shape of a layer of ours, as ONNX has them."""
    shape = tuple(layer.weights[0].shape)
    if isinstance(layer, L.BatchNormalization):
        return ("BatchNormalization", shape)
    if isinstance(layer, L.Dense):
        return ("Gemm", shape[::-1])
    if isinstance(layer, L.DepthwiseConv2D):
        return ("Conv", (shape[2], 1, *shape[:2]))
    return ("Conv", (shape[3], shape[2], *shape[:2]))


def twins(net: str, theirs: list[Place]) -> dict[str, tuple]:
    """Our layers -> those of the file; see the head of this module.

    Raises:
        WeightsError: The file holds another net; the message says how it differs.
    """
    for ending, fits, names_of in (("_w_0", from_caffe, caffe.twins), (".weight", lambda names: True, pytorch.twins)):
        if fits(theirs) and all(name.endswith(ending) for name in theirs):
            try:
                return {
                    ours: tuple(f"{name}{ending}" for name in names)
                    for ours, names in names_of(net, [name.removesuffix(ending) for name in theirs]).items()
                }
            except WeightsError:
                continue  # no names are known for this net: by place
    ours = places_of(net)
    kinds, their_kinds = (Counter(name.what[0] for name in names) for names in (ours, theirs))
    if kinds["BatchNormalization"] and not their_kinds["BatchNormalization"]:
        raise WeightsError(
            "the file has no BatchNormalization: it was folded into the convolutions, which cannot be undone; "
            "export the net again without it (PyTorch: training=TrainingMode.PRESERVE, do_constant_folding=False)"
        )
    whats, their_whats = Counter(name.what for name in ours), Counter(name.what for name in theirs)
    if whats != their_whats:
        lacking, extra = (
            ", ".join(map(str, sorted(some)[:3])) or "none" for some in (whats - their_whats, their_whats - whats)
        )
        raise WeightsError(
            f"the file does not hold the weights of {net!r}; layers that it lacks: {lacking}; that the net lacks: {extra}"
        )
    by_place = {name.signature: name for name in theirs}
    if len(by_place) < len(theirs) or by_place.keys() != {name.signature for name in ours}:
        raise WeightsError(
            f"the layers of the file have the shapes of those of {net!r} but are arranged in another way: it is another net"
        )
    return {str(name): (by_place[name.signature],) for name in ours}
