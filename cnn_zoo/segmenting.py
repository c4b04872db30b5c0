"""Segmenters: any decoder over any net of the zoo, SegNet and U-Net as published, as one flat graph.

image -> `preprocess` -> `pad` -> the net's layers -> the decoder's -> `logits` -> `resize` -> `crop` -> `predictions`

`pad` adds zeros below and to the right, which is what the net's own convolutions see beyond the image, up to the multiple that the net needs;
`crop` takes them off again, so that the output has exactly the size of the image. Both are the identity where the size is such a multiple.

`input_size`, `channels`, `weights` and `activation` are explained at the head of `cnn_zoo.assemble`; here a side of `None` is always allowed.
"""

import functools
import itertools
from pathlib import Path

import keras
from keras import layers as L

from cnn_zoo import weights as weights_of
from cnn_zoo.assemble import (
    channels_of,
    check_activation,
    check_dropout,
    classes_of,
    fitting,
    image_input,
    output_of,
    preprocess,
    size_of,
    whole_number,
)
from cnn_zoo.decoders import segnet as segnet_of
from cnn_zoo.decoders import unet_2015
from cnn_zoo.dilation import dilated
from cnn_zoo.errors import InputError
from cnn_zoo.registry import DECODERS, PRESETS, SPECS, WEIGHTS, Decoder, get_spec, natural, nearest
from cnn_zoo.segmentation_layers import BilinearUpSampling2D, CropLike, PadToMultiple


def list_decoders() -> list[str]:
    """Names of the decoders, in natural order."""
    return sorted(DECODERS, key=natural)


def get_decoder(name: str) -> Decoder:
    """The decoder registered as `name`.

    Raises:
        InputError: There is none; the message suggests the nearest name.
    """
    if name not in DECODERS:
        raise InputError(
            f"there is no decoder {name!r}{nearest(name, DECODERS)} (there are {', '.join(list_decoders())})"
        )
    return DECODERS[name]


def build_segmenter(
    decoder: str,
    backbone: str,
    classes: int,
    *,
    weights: str | None = None,
    input_size=(None, None),
    channels: int | None = None,
    activation: str | None = "softmax",
    dropout: float = 0.0,
    model_name: str | None = None,
    **options,
) -> keras.Model:
    """A model that gives every pixel of an image a class: any decoder over any net that has the strides it needs.

    Args:
        decoder: Key of the decoders, such as `"unet"` or `"deeplabv3plus"` (`list_decoders()` names all).
        backbone: Key of the registry, such as `"resnet34"` (`list_models()` names all).
        classes: Number of classes, the background counted (at least 2 for softmax).
        weights: Of the backbone, such as `"imagenet"`, and the decoder starts random; or of the whole segmenter, such as `"camvid"`, which then
            brings its own options. With another number of classes the last layer alone starts random.
        input_size: Height and width in pixels; `None` for any. Of any size the output has the image's.
        channels: Default: what the weights were trained on.
        activation: `"softmax"`, `"sigmoid"` (several classes at one pixel) or None for logits.
        dropout: Fraction of the decoder's features dropped in training before the last layer, 0 <= dropout < 1.
        model_name: Decoration of the Keras model.
        **options: Columns of the decoder's row, such as `filters=(128, 64, 32, 16, 8)` or `output_stride=8`.

    Returns:
        A Functional model from `(batch, height, width, channels)`, values 0..255, to `(batch, height, width, classes)`.

    Raises:
        InputError: Unknown decoder, net or option, a net without the strides that the decoder needs, or a size that the net cannot take.
        WeightsError: Weights that are missing, damaged or of another shape.
    """
    entry, spec = get_decoder(decoder), get_spec(backbone)
    record, whole = _record(f"{decoder}:{backbone}", spec.name, weights)
    classes = _checked(classes, activation, dropout)
    row = _with_options(entry, {**record.options, **options} if whole else options, classes)
    size, channels = size_of(spec.size, input_size), channels_of(spec, record, channels)
    dilate = getattr(row, "output_stride", entry.dilate)  # the stride that the net does not go beyond, if any
    wanted = [row.stride] if hasattr(row, "stride") else entry.strides
    wanted = sorted({min(stride, dilate or stride) for stride in wanted})
    trunk = None

    def model_of(size):
        nonlocal trunk
        inputs, x = image_input(spec, size, channels, record)
        x = PadToMultiple(wanted[-1], name="pad")(x)
        trunk = keras.Model(inputs, {str(stride): tap for stride, tap in spec.features(x, spec.row).items()})
        if dilate:
            trunk = dilated(trunk, dilate)
        taps = {}
        for stride in sorted(map(int, trunk.output)):  # of those that dilation makes equal the last
            taps[min(stride, dilate or stride)] = trunk.output[str(stride)]
        _check_strides(entry, spec, list(taps), wanted)
        taps = {stride: tap for stride, tap in taps.items() if stride <= wanted[-1]}
        x = entry.decode(_aligned(inputs, taps, wanted[-1]), row)
        side, heights = _heights(inputs, {"x": x}, wanted[-1])
        name = model_name or f"{decoder}_{backbone}"
        return _finished(inputs, x, row, classes, activation, dropout, name, side // heights["x"])

    model = model_of(size) if None in size else fitting(model_of, spec, size)
    return _loaded(model, record, whole, classes, trunk)


def build_segnet(
    variant: str = "vgg16",
    classes: int = 12,
    *,
    weights: str | None = None,
    input_size=(None, None),
    channels: int | None = None,
    activation: str | None = "softmax",
    dropout: float = 0.0,
    model_name: str | None = None,
) -> keras.Model:
    """SegNet, whose decoder puts values back to where the encoder's max pooling took them from.

    Args:
        variant: `"vgg16"`: SegNet, 13 + 13 convolutions, 29.4 million parameters; `"basic"`: SegNet-Basic, 4 + 4 convolutions of 7x7, 1.4 million.
        classes: 12 are CamVid's eleven and the pixels without one.
        weights: Of the VGG16 encoder (`"imagenet"`), or None.
        input_size, channels, activation, dropout, model_name: As for `build_segmenter`.

    Returns:
        A Functional model from `(batch, height, width, channels)`, values 0..255, to `(batch, height, width, classes)`.

    Raises:
        InputError, WeightsError: As for `build_segmenter`.

    Source: Badrinarayanan et al. 2017; `cnn_zoo/decoders/segnet.py` lists the deviations.
    """
    if variant == "vgg16":
        return build_segmenter(
            "segnet",
            "vgg16_bn",
            classes,
            weights=weights,
            input_size=input_size,
            channels=channels,
            activation=activation,
            dropout=dropout,
            model_name=model_name or "segnet",
        )
    if variant != "basic":
        raise InputError(
            f"build_segnet knows 'vgg16' and 'basic', not {variant!r}; over another net: build_segmenter('segnet', {variant!r}, ...)"
        )
    if weights is not None:
        raise InputError("SegNet-Basic has no encoder with published weights: leave out weights=")
    classes, basic = _checked(classes, activation, dropout), segnet_of.Basic()
    row, inputs = segnet_of.basic_decoder(basic), _image(input_size, channels)
    x = PadToMultiple(2**basic.depth, name="pad")(preprocess(inputs, PRESETS["imagenet"]))
    x = segnet_of.segnet(segnet_of.basic_encoder(x, basic), row)
    return _finished(inputs, x, row, classes, activation, dropout, model_name or "segnet_basic")


def build_unet(
    classes: int = 2,
    *,
    depth: int = 4,
    width: int = 64,
    padding: str = "same",
    batch_norm: bool = True,
    backbone: str | None = None,
    weights: str | None = None,
    input_size=(None, None),
    channels: int | None = None,
    activation: str | None = "softmax",
    dropout: float = 0.0,
    model_name: str | None = None,
    **options,
) -> keras.Model:
    """U-Net, of any depth and width, from scratch; or over a net of the zoo, which may be pretrained.

    `build_unet(padding="valid", batch_norm=False, channels=1)` is the published one: 31,030,658 parameters, 572x572 pixels give 388x388.

    Args:
        classes: Number of classes, the background counted (at least 2 for softmax).
        depth: Number of poolings, at least 1.
        width: Maps of the first step; each further one has twice as many.
        padding: `"same"`: the output has the image's size, whatever it is. `"valid"`: every convolution takes off a border, as published, and the
            output is the middle of the image; the size must come out even before each pooling.
        batch_norm: BatchNorm after each 3x3 convolution.
        backbone: Instead of all the above: `build_unet(classes, backbone="resnet34", ...)` is `build_segmenter("unet", "resnet34", classes, ...)`.
        weights: Of the backbone; without one, of the whole net, such as `"isbi2012"`.
        input_size, activation, model_name: As for `build_segmenter`.
        channels: Default 3, or what the weights of the backbone were trained on.
        dropout: At the end of the left half, as published; with a backbone as for `build_segmenter`.
        **options: With a backbone: columns of the decoder's row.

    Returns:
        A Functional model from `(batch, height, width, channels)`, values 0..255, to `(batch, height, width, classes)`.

    Raises:
        InputError: An argument that does not fit, or a size that "valid" convolutions cannot take (the message says the nearest).
        WeightsError: As for `build_segmenter`.

    Source: Ronneberger et al. 2015, figure 1.
    """
    shared = {"input_size": input_size, "activation": activation, "dropout": dropout}
    if backbone is not None:
        if (depth, width, padding, batch_norm) != (4, 64, "same", True):
            raise InputError(
                "depth, width, padding and batch_norm are those of the U-Net without a backbone: leave them out"
            )
        return build_segmenter(
            "unet", backbone, classes, weights=weights, channels=channels, model_name=model_name, **shared, **options
        )
    if options:
        raise InputError(
            f"a U-Net without a backbone has depth, width, padding and batch_norm, and no {', '.join(sorted(options))}; for a decoder's options "
            "give a backbone, such as backbone='resnet34'"
        )
    classes = _checked(classes, activation, dropout)
    if weights is not None and ("unet", str(weights)) not in WEIGHTS and not Path(weights).is_file():
        raise InputError(
            f"there is no whole U-Net with weights {weights!r}; for those of an encoder give a backbone, such as backbone='resnet34'"
        )
    record, whole = _record("unet", None, weights)
    if record:
        depth, width = record.options.get("depth", depth), record.options.get("width", width)
        channels = record.channels if channels is None else channels
    depth, width = whole_number("depth", depth), whole_number("width", width)
    if padding not in ("same", "valid"):
        raise InputError(f"padding is 'same' or 'valid', not {padding!r}")
    inputs = _image(input_size, channels)
    x = preprocess(inputs, PRESETS["symmetric"])
    if padding == "same":
        x = PadToMultiple(2**depth, name="pad")(x)
    else:
        _check_valid(inputs.shape[1:3], depth)
    row = unet_2015.Row(tuple(width * 2**step for step in reversed(range(depth))), padding, batch_norm)
    x = unet_2015.expand(unet_2015.contract(x, depth, width, padding, batch_norm, dropout), row)
    model = _finished(inputs, x, row, classes, activation, 0, model_name or "unet", whole=padding == "same")
    return _loaded(model, record, whole, classes)


def _record(name, backbone, weights):
    """The record for `weights`, or None, and whether it is of the whole segmenter rather than of its backbone."""
    if weights is None:
        return None, False
    path = Path(weights)
    whole = backbone is None or (name, str(weights)) in WEIGHTS
    if not whole and path.suffix == ".safetensors" and path.is_file():
        whole = weights_of.read(path)[1].get("net") == name
    return weights_of.find(name if whole else backbone, weights), whole


def _loaded(model, record, whole, classes, trunk=None):
    """The model with the numbers of the record."""
    if record is not None and whole and classes == len(record.classes):
        weights_of.load(model, record)
    elif record is not None:
        part = keras.Model(model.input, model.get_layer("logits").input) if whole else trunk
        weights_of.load(part, record, headless=True)
    return model


def is_named(name: str) -> bool:
    """Whether a name is one for `build_named`: unet, segnet, segnet_basic, or DECODER:NET such as unet:resnet34."""
    return name in WHOLE or ":" in name


def build_named(name: str, classes: int | None = None, **settings) -> keras.Model:
    """The segmenter of a name, as command lines and cards write it: unet, segnet, segnet_basic, or DECODER:NET such as unet:resnet34.

    Args:
        name: See above.
        classes: Default: those that its weights were trained for.
        **settings: Of the builder: `build_named("deeplabv3plus:squeezenet1_1", weights="camvid")`.

    Raises:
        InputError, WeightsError: As for the builders.
    """
    if classes is None:
        if (name, settings.get("weights")) not in WEIGHTS:
            raise InputError(
                f"how many classes does {name!r} tell apart? Say classes=, or weights= with those of a whole segmenter"
            )
        classes = len(WEIGHTS[name, settings["weights"]].classes)
    if name in WHOLE:
        return WHOLE[name](classes=classes, **settings)
    decoder, _, backbone = name.partition(":")
    return build_segmenter(decoder, backbone, classes, **settings)


WHOLE = {
    "unet": build_unet,
    "segnet": functools.partial(build_segnet, "vgg16"),
    "segnet_basic": functools.partial(build_segnet, "basic"),
}


def _finished(inputs, x, row, classes, activation, dropout, name, factor=1, whole=True):
    """From the decoder's features, at 1 / `factor` of the image, to the model; to the size of the image if `whole`."""
    if hasattr(row, "classes"):  # the decoder's features are scores already
        x = L.Activation("linear", dtype="float32", name="logits")(x)
    else:
        if dropout:
            x = L.Dropout(dropout, name="decoder_dropout")(x)
        x = L.Conv2D(classes, getattr(row, "logits_kernel", 3), padding="same", dtype="float32", name="logits")(x)
    if factor > 1:
        x = BilinearUpSampling2D(factor, dtype="float32", name="resize")(x)
    if whole:
        x = CropLike(dtype="float32", name="crop")([x, inputs])
    return keras.Model(inputs, output_of(x, activation), name=name)


def _check_valid(size, depth):
    """Raise unless each pooling halves what the convolutions without padding leave of the size."""
    for side in size:
        if side is not None and not _halves(side, depth):
            near = [other for other in range(side + 2**depth, 0, -1) if _halves(other, depth)][:2]
            smallest = next(other for other in itertools.count(1) if _halves(other, depth))
            fits = " and ".join(map(str, sorted(near))) or f"at least {smallest}"
            raise InputError(
                f'{side} pixels do not come out even before each of {depth} poolings with padding="valid"; sizes that do: {fits}'
            )


def _halves(side, depth):
    """Whether a side is even before each pooling of the published U-Net and something is left of it at the end."""
    for _ in range(depth):
        side -= 4  # two convolutions
        if side < 2 or side % 2:
            return False
        side //= 2
    side -= 4
    for _ in range(depth):
        side = 2 * side - 4
    return side > 0


def _image(input_size, channels):
    channels = whole_number("channels", 3 if channels is None else channels)
    return keras.Input((*size_of((None, None), input_size), channels), name="image")


def _checked(classes, activation, dropout):
    check_activation(activation)
    check_dropout(dropout)
    return classes_of(classes, activation)


def _with_options(entry, options, classes):
    """The decoder's row with the columns that the caller gives."""
    columns = [column for column in entry.row._fields if column != "classes"]
    for option in options:
        if option not in columns:
            known = ", ".join(columns) or "none"
            raise InputError(
                f"{entry.name!r} has no option {option!r}{nearest(option, columns)} (its options: {known})"
            )
    row = entry.row._replace(**options)
    return row._replace(classes=classes) if hasattr(row, "classes") else row


@functools.cache
def strides_of(name):
    """Strides of the taps of a net."""
    spec = get_spec(name)
    return tuple(sorted(spec.features(keras.Input((*spec.size, spec.channels)), spec.row)))


def _check_strides(entry, spec, strides, wanted):
    """Raise unless the net has the strides, with what it can do and which nets could."""
    missing = [stride for stride in wanted if stride not in strides]
    if not missing:
        return
    serves = [name for name in list_decoders() if set(DECODERS[name].strides) <= set(strides)]
    smallest, able = {}, []
    for other in sorted(SPECS.values(), key=lambda other: other.params or 0):
        smallest.setdefault(other.family, other.name)
    for name in smallest.values():
        if len(able) < 4 and set(wanted) <= set(strides_of(name)):
            able.append(name)
    raise InputError(
        f"{entry.name!r} needs features at the strides {wanted}, and {spec.name!r} has {sorted(strides)}: "
        f"{spec.name!r} can serve {', '.join(serves) or 'no decoder'}; nets that can serve {entry.name!r} are {', '.join(able)} and others"
    )


def _aligned(inputs, taps, multiple):
    """The taps at exactly 1 / stride of the padded image: what convolutions without padding took off on all sides is put back as zeros.

    What is missing is the same at every multiple of the coarsest stride.
    """
    side, heights = _heights(inputs, {str(stride): tap for stride, tap in taps.items()}, multiple)
    aligned = {}
    for stride, tap in taps.items():
        missing = side // stride - heights[str(stride)]
        change, name = (L.ZeroPadding2D, "align") if missing > 0 else (L.Cropping2D, "trim")
        border = (abs(missing) // 2, abs(missing) - abs(missing) // 2)
        aligned[stride] = change((border, border), name=f"{name}{stride}")(tap) if missing else tap
    return aligned


def _heights(inputs, tensors, multiple):
    """Height of the padded image, and those of some tensors computed from it: as they are, or for some large image where sizes are open."""
    height = inputs.shape[1]
    if height is not None:
        return -(-height // multiple) * multiple, {key: tensor.shape[1] for key, tensor in tensors.items()}
    side = multiple * -(-256 // multiple)
    shapes = keras.Model(inputs, tensors).compute_output_shape((1, side, side, inputs.shape[-1]))
    return side, {key: shape[1] for key, shape in shapes.items()}
