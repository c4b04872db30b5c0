"""Caffe's `.caffemodel` files: the original weights of AlexNet, GoogLeNet, VGG and SqueezeNet, with their authors' names of layers.

A `.caffemodel` is a NetParameter in the wire format of protocol buffers. Caffe is no longer maintained, so the few fields that hold
weights are described here, with their numbers in Caffe's src/caffe/proto/caffe.proto. Caffe reads images as blue, green, red: the first kernel
is turned to red, green, blue. Weights of this origin go with the preset "caffe".
"""

import functools
import re

import numpy as np

from cnn_zoo.errors import WeightsError
from cnn_zoo.registry import get_spec

MESSAGES = {  # message -> field: (number, type, repeated)
    "Shape": {"dim": (1, "INT64", True)},
    "Blob": {
        **{name: (i, "INT32", False) for i, name in enumerate(("num", "channels", "height", "width"), 1)},
        "data": (5, "FLOAT", True),
        "shape": (7, "Shape", False),
        "double_data": (8, "DOUBLE", True),
    },
    "Layer": {"name": (1, "STRING", False), "type": (2, "STRING", False), "blobs": (7, "Blob", True)},
    "OldLayer": {"name": (4, "STRING", False), "type": (5, "INT32", False), "blobs": (6, "Blob", True)},
    "Net": {"name": (1, "STRING", False), "layers": (2, "OldLayer", True), "layer": (100, "Layer", True)},
}
OLD_TYPES = {4: "Convolution", 14: "InnerProduct"}  # V1LayerParameter.LayerType


@functools.cache
def net_parameter():
    """The class of the message that a `.caffemodel` is."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="cnn_zoo/caffe.proto", package="cnn_zoo.caffe", syntax="proto2")
    for message, fields in MESSAGES.items():
        added = file.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            field = added.field.add(name=name, number=number, label=3 if repeated else 1)
            if kind in MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".cnn_zoo.caffe.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("cnn_zoo.caffe.Net"))


def read(path) -> dict[str, dict]:
    """Layer -> `weight` (output, input, height, width, or output, input) and `bias`; the first kernel takes red, green, blue.

    Raises:
        WeightsError: The file is damaged or of another format, or it holds layers that no net here has.
    """
    from google.protobuf.message import DecodeError

    net = net_parameter()()
    try:
        net.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise WeightsError(f"{str(path)!r} is not a whole .caffemodel ({error}): get it again") from error
    layers = [(layer.name, layer.type, layer.blobs) for layer in net.layer]
    layers += [(layer.name, OLD_TYPES.get(layer.type, f"type {layer.type}"), layer.blobs) for layer in net.layers]
    layers = [(name, kind, blobs) for name, kind, blobs in layers if blobs]
    if not layers:
        raise WeightsError(
            f"{str(path)!r} is not a .caffemodel with weights: a .prototxt describes a net, it does not hold its weights"
        )
    if net.name == "CaffeNet":
        raise WeightsError(
            f"{str(path)!r} is CaffeNet, which pools before it normalises, so no net here is the same function: use bvlc_alexnet.caffemodel"
        )
    theirs = {}
    for name, kind, blobs in layers:
        if kind not in OLD_TYPES.values() or len(blobs) > 2:
            raise WeightsError(
                f"{str(path)!r} has the layer {name!r} ({kind}, {len(blobs)} arrays), which is not read: only convolutions and inner products are"
            )
        arrays = [_array(blob, name, path) for blob in blobs]
        if kind == "InnerProduct":
            arrays[0] = arrays[0].reshape(arrays[0].shape[-2:])  # old files write four axes
        theirs[name] = dict(zip(("weight", "bias"), [arrays[0], *(array.reshape(-1) for array in arrays[1:])]))
    return rgb(theirs)


def rgb(theirs: dict) -> dict:
    """The same layers; the kernel of the first takes red, green, blue instead of blue, green, red."""
    first = next(iter(theirs.values()))
    if first["weight"].ndim == 4 and first["weight"].shape[1] == 3:
        first["weight"] = first["weight"][:, ::-1]
    return theirs


def _array(blob, name, path):
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    array = np.asarray(blob.data or blob.double_data, dtype=np.float32)
    if array.size != np.prod(shape, dtype=np.int64):
        raise WeightsError(
            f"{str(path)!r} is damaged: {name!r} has {array.size:,} numbers for the shape {shape}; get it again"
        )
    return array.reshape(shape)


def twins(net: str, theirs: list[str]) -> dict[str, tuple]:
    """Our layers -> Caffe's, by the names of the authors' prototxt files.

    Raises:
        WeightsError: No published Caffe net is the same function as ours.
    """
    rename = next((rename for nets, rename in RENAMES if net in nets), None)
    if rename is None:
        rows = ", ".join(row for nets, _ in RENAMES for row in nets)
        raise WeightsError(
            f"no published Caffe net is the same function as {net!r}; Caffe's weights are read for {rows}"
        )
    return {ours: (name,) for name in theirs if (ours := rename(name, get_spec(net).row))}


FULLY = {"fc6": "head_fc6", "fc7": "head_fc7", "fc8": "logits"}


def alexnet(name, row):
    return FULLY.get(name) or (name if re.fullmatch("conv[1-5]", name) else None)


def vgg(name, row):
    match = re.fullmatch(r"conv(\d)_(\d)", name)
    return FULLY.get(name) or (f"s{match[1]}_conv{match[2]}" if match else None)


def squeezenet(name, row):
    fixed = {"conv1": "stem_conv", "conv10": "head_conv10"}
    return fixed.get(name) or (
        name.replace("/", "_") if re.fullmatch(r"fire\d/(squeeze1x1|expand[13]x[13])", name) else None
    )


def googlenet(name, row):
    fixed = {
        **{"conv1/7x7_s2": "stem_1_conv", "conv2/3x3_reduce": "stem_2_reduce_conv", "conv2/3x3": "stem_2_conv"},
        **{"loss3/classifier": "logits"},
    }
    if match := re.fullmatch(r"inception_(\d)(\w)/(\dx\d(?:_reduce)?|pool_proj)", name):
        return f"s{match[1]}_{match[2]}_{match[3]}_conv"
    if match := re.fullmatch(
        r"loss([12])/(conv|fc|classifier)", name
    ):  # two of the three classifiers help training only
        return f"head_aux{match[1]}_{match[2].replace('classifier', 'logits')}"
    return fixed.get(name)


RENAMES = (  # our rows, their names -> ours
    (("alexnet_caffe",), alexnet),
    (("vgg16", "vgg19"), vgg),
    (("squeezenet1_0", "squeezenet1_1"), squeezenet),
    (("googlenet_2014",), googlenet),
)
