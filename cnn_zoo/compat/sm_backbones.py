"""The 32 backbones of segmentation_models 1.0.1: which of our nets they are, and under which names their layers were known.

Old names are those of a fresh Python session: layers that the old package left to Keras to name are `conv2d`, `conv2d_1`, ... in the order in which
it made them. A grouped convolution, which it built of one convolution a group, has the name of the first of these. Layers that it did not have
(a padding, say, which ours leave to the convolution) keep our names.
"""

import re
from typing import NamedTuple

import keras
from keras import layers as L

from cnn_zoo import assemble, layers
from cnn_zoo.errors import InputError
from cnn_zoo.registry import PRESETS, WEIGHTS, nearest
from cnn_zoo.weights.importers.image_classifiers import NETS
from cnn_zoo.weights.importers.keras_applications import EFFICIENTNET, KERAS
from cnn_zoo.weights.importers.keras_names import family

FUSED = ""  # an activation that was part of its convolution
UNIT = r"^s(\d)_b(\d+)_"

RESNET = (
    (r"^stem_data_bn$", "bn_data"),
    (r"^stem_(conv|bn|relu)$", r"\g<1>0"),
    (r"^stem_pool$", "pooling0"),
    (r"^last_(bn|relu)$", r"\g<1>1"),
    (UNIT + r"preact_(bn|relu)$", r"stage\1_unit\2_\g<3>1"),
    (UNIT + r"(\d)_conv$", r"stage\1_unit\2_conv\3"),
    (UNIT + r"1_(bn|relu)$", r"stage\1_unit\2_\g<3>2"),
    (UNIT + r"2_(bn|relu)$", r"stage\1_unit\2_\g<3>3"),
    (UNIT + r"shortcut_conv$", r"stage\1_unit\2_sc"),
)
RESNEXT = (
    *RESNET[:3],
    (UNIT + r"([13])_conv$", r"stage\1_unit\2_conv\3"),
    (UNIT + r"(\d)_(bn|relu)$", r"stage\1_unit\2_\4\3"),
    (UNIT + r"relu$", r"stage\1_unit\2_relu"),
    (UNIT + r"shortcut_conv$", r"stage\1_unit\2_sc"),
    (UNIT + r"shortcut_bn$", r"stage\1_unit\2_sc_bn"),
)
VGG = (
    (r"^s(\d)_(conv\d|pool)$", r"block\1_\2"),
    (r"^s\d_conv\d_relu$", FUSED),
)
DENSENET = (
    (r"^stem_(conv|bn|relu)$", r"conv1_\1"),
    (r"^stem_pool$", "pool1"),
    (r"^s4_(bn|relu)$", r"\1"),
    (r"^s(\d)_transition_(\w+)$", lambda at: f"pool{int(at[1]) + 1}_{at[2]}"),
    (UNIT + r"(bn|relu)(\d)$", lambda at: f"conv{int(at[1]) + 1}_block{at[2]}_{int(at[4]) - 1}_{at[3]}"),
    (UNIT + r"conv(\d)$", lambda at: f"conv{int(at[1]) + 1}_block{at[2]}_{at[3]}_conv"),
    (UNIT + r"concat$", lambda at: f"conv{int(at[1]) + 1}_block{at[2]}_concat"),
)
INCEPTION_V3 = (
    (r"^s3_b(\d)_concat$", lambda at: f"mixed{int(at[1]) - 1}"),
    (r"^s4_b(\d)_concat$", lambda at: f"mixed{int(at[1]) + 2}"),
    (r"^s5_b(\d)_concat$", lambda at: f"mixed{int(at[1]) + 7}"),
    (r"^s5_b(\d)_p2_2_concat$", lambda at: f"mixed9_{int(at[1]) - 2}"),
)
BLOCKS = {"3": "block35", "4": "block17", "5": "block8"}
INCEPTION_RESNET = (
    (r"^s3_b1_concat$", "mixed_5b"),
    (r"^s4_b1_concat$", "mixed_6a"),
    (r"^s5_b1_concat$", "mixed_7a"),
    (r"^s5_b12_conv$", "conv_7b"),
    (r"^s5_b12_bn$", "conv_7b_bn"),
    (r"^s5_b12_relu$", "conv_7b_ac"),
    (UNIT + r"concat$", lambda at: f"{BLOCKS[at[1]]}_{int(at[2]) - 1}_mixed"),
    (UNIT + r"up$", lambda at: f"{BLOCKS[at[1]]}_{int(at[2]) - 1}_conv"),
    (UNIT + r"add$", lambda at: f"{BLOCKS[at[1]]}_{int(at[2]) - 1}"),
    (UNIT + r"relu$", lambda at: f"{BLOCKS[at[1]]}_{int(at[2]) - 1}_ac"),
)
PARTS = {"conv": "", "bn": "_bn", "relu6": "_relu"}


def numbered(depths):
    """Blocks counted through all stages: a function of a match with the stage, counted from 1, and the block of the stage."""
    return lambda at: sum(depths[: int(at[1]) - 1]) + int(at[2])


BLOCK1, BLOCK2 = numbered((1, 2, 2, 6, 2)), numbered((1, 2, 3, 4, 3, 3, 1))
MOBILENET = (
    (r"^stem_(conv|bn|relu6)$", lambda at: f"conv1{PARTS[at[1]]}"),
    (UNIT + r"(dw|pw)_(\w+)$", lambda at: f"conv_{at[3]}_{BLOCK1(at)}{PARTS[at[4]]}"),
)
MOBILENET_V2 = (
    (r"^stem_conv$", "Conv1"),
    (r"^stem_bn$", "bn_Conv1"),
    (r"^stem_relu6$", "Conv1_relu"),
    (r"^last_conv$", "Conv_1"),
    (r"^last_bn$", "Conv_1_bn"),
    (r"^last_relu6$", "out_relu"),
    (
        UNIT + r"(expand|dw|project)_(\w+)$",
        lambda at: (
            (f"block_{BLOCK2(at) - 1}" if BLOCK2(at) > 1 else "expanded_conv")
            + f"_{at[3].replace('dw', 'depthwise')}{PARTS[at[4]].replace('bn', 'BN')}"
        ),
    ),
    (UNIT + r"add$", lambda at: f"block_{BLOCK2(at) - 1}_add"),
)
EFFICIENT = {
    "dw_conv": "dwconv",
    "dw_bn": "bn",
    "dw_silu": "activation",
    "expand_silu": "expand_activation",
    "se_scale": "se_excite",
    "se_silu": FUSED,
    "se_gate": FUSED,
}


def efficient(at):
    part = EFFICIENT.get(at[3], at[3])
    return part and f"block{at[1]}{chr(96 + int(at[2]))}_{part}"


EFFICIENTNET_NAMES = (
    (r"^stem_(conv|bn)$", r"stem_\1"),
    (r"^stem_silu$", "stem_activation"),
    (r"^last_(conv|bn)$", r"top_\1"),
    (r"^last_silu$", "top_activation"),
    (UNIT + r"(\w+)$", efficient),
)


class Backbone(NamedTuple):
    """One backbone of the old package.

    Attributes:
        net: Our net.
        mode: How its pixels are prepared: `"raw"`, `"caffe"`, `"torch"` or `"tf"`, as keras_applications calls them.
        names: Pairs of a pattern of our layers' names and what they were called.
        image: Name of the input.
        published: `encoder_weights` -> tag of the weights that the old package downloaded.
        initializer: Of the convolutions' kernels, or None for Keras' own.
        momentum: Of BatchNorm.
    """

    net: str
    mode: str
    names: tuple
    image: str = "input_1"
    published: dict = {"imagenet": "imagenet"}
    initializer: object = None
    momentum: float = 0.99


HE, EN = "he_uniform", keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")
NOISY = {"imagenet": "imagenet_en", "noisy-student": "noisy-student"}
BACKBONES = {
    **{f"resnet{n}": Backbone(f"resnet{n}_ic", "raw", RESNET, "data", initializer=HE) for n in (18, 34, 50, 101, 152)},
    **{f"seresnet{n}": Backbone(f"seresnet{n}_ic", "raw", RESNET, "data", initializer=HE) for n in (18, 34)},
    **{f"seresnet{n}": Backbone(f"seresnet{n}", "torch", (), "input", initializer=HE) for n in (50, 101, 152)},
    **{
        f"seresnext{n}": Backbone(f"seresnext{n}", "torch", (), "input", {"imagenet": "imagenet_ic"}, HE)
        for n in (50, 101)
    },
    "senet154": Backbone("senet154", "torch", (), "input", initializer=HE),
    **{f"resnext{n}": Backbone(f"resnext{n}_ic", "raw", RESNEXT, "data") for n in (50, 101)},
    **{f"vgg{n}": Backbone(f"vgg{n}", "caffe", VGG) for n in (16, 19)},
    **{f"densenet{n}": Backbone(f"densenet{n}", "torch", DENSENET) for n in (121, 169, 201)},
    "inceptionresnetv2": Backbone("inceptionresnetv2_sm", "tf", INCEPTION_RESNET),
    "inceptionv3": Backbone("inceptionv3_sm", "tf", INCEPTION_V3),
    "mobilenet": Backbone("mobilenet", "tf", MOBILENET),
    "mobilenetv2": Backbone("mobilenetv2", "tf", MOBILENET_V2, momentum=0.999),
    **{
        f"efficientnetb{n}": Backbone(f"efficientnetb{n}", "torch", EFFICIENTNET_NAMES, published=NOISY, initializer=EN)
        for n in range(8)
    },
}
INDEXES = {  # layers that the old package took its features from by number, coarse to fine
    "inceptionv3": (228, 86, 16, 9),
    "inceptionresnetv2": (594, 260, 16, 9),
    "densenet121": (311, 139, 51, 4),
    "densenet169": (367, 139, 51, 4),
    "densenet201": (479, 139, 51, 4),
    "seresnet50": (246, 136, 62, 4),
    "seresnet101": (552, 136, 62, 4),
    "seresnet152": (858, 208, 62, 4),
    "seresnext50": (1078, 584, 254, 4),
    "seresnext101": (2472, 584, 254, 4),
    "senet154": (6884, 1625, 454, 12),
}


class Encoder(NamedTuple):
    """A backbone under its old names: the model up to its last feature map, and the names of its feature layers, coarse to fine."""

    name: str
    model: keras.Model
    features: tuple
    convs: int  # how many convolutions the old package left to Keras to name

    def tensor(self, layer):
        """The output of a layer, by its name or by one of the numbers that the old package used itself."""
        if isinstance(layer, int):
            numbers = INDEXES.get(self.name, ())
            if layer not in numbers:
                raise InputError(
                    f"the layers of {self.name!r} are numbered otherwise here than in segmentation_models; "
                    f"name the layer instead of giving the number {layer}"
                )
            layer = self.features[numbers.index(layer)]
        names = {each.name: each for each in self.model.layers}
        if layer not in names:
            raise InputError(f"{self.name!r} has no layer {layer!r}{nearest(layer, names)}")
        return names[layer].output

    @property
    def pooled(self):
        """Whether the last layer is a pooling, as in VGG."""
        return isinstance(self.model.layers[-1], L.MaxPooling2D)


def get(name: str) -> Backbone:
    """The backbone that the old package called `name`. Raises InputError when there is none."""
    if name not in BACKBONES:
        raise InputError(f"there is no backbone {name!r}{nearest(name, BACKBONES)}; there are {', '.join(BACKBONES)}")
    return BACKBONES[name]


def encoder(name: str, input_shape, encoder_weights) -> Encoder:
    """Build a backbone.

    Args:
        name: As the old package called it.
        input_shape: `(height, width, channels)`.
        encoder_weights: None, a key of the backbone's `published`, a tag of our net's weights, or the path of a file.

    Raises:
        InputError, WeightsError: Unknown names, or weights for RGB and another number of channels.
    """
    backbone = get(name)
    if keras.config.image_data_format() != "channels_last":
        raise InputError(
            "these models are channels_last only: call keras.config.set_image_data_format('channels_last')"
        )
    *size, channels = input_shape
    if encoder_weights is not None and channels != 3:
        raise InputError(
            f"encoder_weights={encoder_weights!r} are for 3 channels, not {channels}: give encoder_weights=None, "
            "or put a 1x1 convolution to 3 channels before the model"
        )
    weights = None if encoder_weights is None else backbone.published.get(encoder_weights, encoder_weights)
    _check_published(backbone, encoder_weights, weights)
    source = assemble.backbone(backbone.net, weights=weights, input_size=tuple(size), channels=channels)
    model, names = _renamed(source, backbone, with_weights=weights is not None)
    taps = {int(stride): names[id(tensor)] for stride, tensor in source.output.items()}
    features = tuple(taps[stride] for stride in sorted(taps, reverse=True) if stride < 32)
    return Encoder(name, model, features, sum(count for _, count in unnamed(backbone.net).get("conv2d", [])))


def _check_published(backbone, given, weights):
    """The weights must be for pixels as `get_preprocessing` prepares them."""
    record = WEIGHTS.get((backbone.net, str(weights)))
    wanted = {"raw": "raw", "caffe": "caffe", "torch": "imagenet", "tf": "symmetric"}[backbone.mode]
    if record is not None and record.preset != wanted:
        raise InputError(
            f"encoder_weights={given!r} were trained on pixels normalised as {PRESETS[record.preset].about!r}, "
            f"get_preprocessing gives {PRESETS[wanted].about!r}"
        )


def _renamed(source, backbone, with_weights):
    """The net without `preprocess`, under the old names; and the new names by id of the old layers' tensors."""
    called = old_names(source, backbone)
    fused = {
        id(layer.input): layer.get_config()["activation"] for layer in source.layers if called[layer.name] == FUSED
    }
    first = next(layer.name for layer in source.layers if layer.weights)
    tensors, names = {}, {}
    for layer in source.layers:
        out = id(layer.output)
        if isinstance(layer, L.InputLayer):
            tensors[out] = inputs = keras.Input(layer.output.shape[1:], name=backbone.image)
            continue
        given = layer.input
        if layer.name == "preprocess" or called[layer.name] == FUSED:
            tensors[out], names[out] = tensors[id(given)], names.get(id(given))
            continue
        config = layer.get_config() | {"name": called[layer.name]}
        if out in fused:
            config["activation"] = fused[out]
        if backbone.initializer and isinstance(layer, L.Conv2D):
            kind = "depthwise_initializer" if "depthwise_initializer" in config else "kernel_initializer"
            config[kind] = keras.initializers.serialize(keras.initializers.get(backbone.initializer))
        if isinstance(layer, L.BatchNormalization):
            config["momentum"] = backbone.momentum
        new = type(layer).from_config(config)
        many = isinstance(given, list | tuple)
        tensors[out] = new([tensors[id(each)] for each in given] if many else tensors[id(given)])
        names[out] = new.name
        if with_weights and layer.weights:
            values = layer.get_weights()
            if layer.name == first and backbone.mode == "caffe":
                values[0] = values[0][:, :, ::-1]  # pixels come in the order BGR
            new.set_weights(values)
    last = source.output[max(source.output, key=int)]
    return keras.Model(inputs, tensors[id(last)], name=backbone.net), names


def old_names(source, backbone) -> dict[str, str]:
    """What every layer of one of our nets was called: `{our name: old name}`."""
    found, automatic = {}, {}
    for layer in source.layers:
        for pattern, new in backbone.names:
            if at := re.match(pattern, layer.name):
                found[layer.name] = new(at) if callable(new) else at.expand(new)
                break
        else:
            found[layer.name] = layer.name
            if not isinstance(layer, L.InputLayer | L.ZeroPadding2D | L.Rescaling):
                automatic.setdefault(_kind(layer), []).append(layer.name)
    made = unnamed(backbone.net)
    convs = [name for name, _ in made.get("conv2d", [])]
    made["activation"] = [(re.sub("_conv$", "_relu", name), 1) for name in convs]  # Inception's
    for kind, names in automatic.items():
        order = [pair for pair in made.get(kind, []) if pair[0] in names]
        if {name for name, _ in order} != set(names):
            order = [(name, 1) for name in names]  # one after the other along the main path
        number = 0
        for name, count in order:
            found[name] = f"{kind}_{number}" if number else kind
            number += count
    return found


def unnamed(net):
    """`{kind: [(our layer, how many of theirs), ...]}` of the layers with weights that the old package left to Keras to name."""
    families = NETS | KERAS | EFFICIENTNET
    return dict(family(net, families, "segmentation_models").unnamed(net))


def _kind(layer):
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", layers.kind(layer)).lower()
