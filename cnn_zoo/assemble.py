"""The only place that makes `keras.Input`: from a row of the registry to a model.

Shared arguments, explained once here:

* `input_size`: height and width in pixels, as one integer or a pair; `None` in the pair leaves that side open where the head allows it.
* `channels`: 1 for gray, 3 for RGB, any other number for multi-band images. Weights trained on another number are adapted (below).
* `weights`: `None` for random ones, the tag of a weights record (`"imagenet"`, `"mnist"`), or the path of a file: one that `cnn_zoo.weights.save`
  wrote, or one of the formats that `cnn_zoo.weights.importers` reads.
* `classes`: number of outputs; taken from the weights when they are given, else from the net's publication.
* `activation`: `"softmax"`, `"sigmoid"` (several labels at once) or `None` for logits.

Every model takes images of shape `(batch, height, width, channels)` with values 0..255, uint8 or float, RGB order. Its first layer,
`preprocess`, normalises them in float32 whatever the precision policy; so are the logits and the probabilities.

Weights for RGB and images with other channels: a gray image is repeated to three channels inside the model (layer `gray_to_rgb`), so that it
gives the same output as its RGB twin, borders included. For `n` channels, 2 or more than 3, the first kernels are repeated in turn, R, G, B, R,
..., and multiplied by `3 / n`, which keeps the size of the activations; the statistics of `preprocess` are repeated alike.
"""

import math
from dataclasses import dataclass

import keras
from keras import layers as L

from cnn_zoo import decoders, nets, residual  # noqa: F401  (importing them registers decoders, families and their layers)
from cnn_zoo import weights as weights_of
from cnn_zoo.errors import InputError
from cnn_zoo.registry import PRESETS, SPECS, WEIGHTS, Spec, Weights, get_spec, natural

weights_of.register_shipped()
weights_of.register_published()

ACTIVATIONS = ("softmax", "sigmoid", None)
# Deviation of the weights of a new head on trained features, which may be large (a norm of 89 in SqueezeNet 1.1): with it the loss starts at
# ln(classes), and not at several times that.
SMALL = 1e-3


def build(
    name: str,
    *,
    classes: int | None = None,
    weights: str | None = None,
    input_size=None,
    channels: int | None = None,
    activation: str | None = "softmax",
    auxiliary: bool = False,
    stochastic_depth: float | None = None,
    model_name: str | None = None,
) -> keras.Model:
    """Build a classifier of the zoo, ready for `fit`, `predict` and `export`.

    Args:
        name: Key of the registry, such as `"lenet"` (`list_models()` names all).
        classes: Number of classes, at least 1 (at least 2 for softmax).
        weights: See the head of this module.
        input_size: See the head of this module. Default: the publication's.
        channels: See the head of this module. Default: the publication's.
        activation: Of the output layer, `predictions`.
        auxiliary: Add the classifiers in the middle that only training uses (GoogLeNet has two). The model then gives a dictionary
            `{"predictions": ..., "aux1": ..., "aux2": ...}`; compile it with `loss_weights={"predictions": 1, "aux1": 0.3, "aux2": 0.3}`.
        stochastic_depth: Leave residual blocks out at random in training, the last one with this probability (`cnn_zoo.stochastic_depth`).
            Default: as published, which is no but for EfficientNet and MiT.
        model_name: Decoration of the Keras model; weights are never looked up by it.

    Returns:
        A Functional model from `(batch, height, width, channels)` to `(batch, classes)`.

    Raises:
        InputError: Unknown net, a size that the net cannot take (the message says the nearest it can), classes that contradict the weights, or
            a net without auxiliary classifiers.
        WeightsError: Weights that are missing, damaged or of another shape.
    """
    spec = get_spec(name)
    record = weights_of.find(spec.name, weights)
    classes = _classes(spec, record, classes, activation)
    size, channels = size_of(spec.size, input_size), channels_of(spec, record, channels)
    if auxiliary and spec.auxiliary is None:
        having = [other.name for other in SPECS.values() if other.auxiliary]
        raise InputError(f"{spec.name!r} has no auxiliary classifiers; these have: {', '.join(sorted(having))}")

    def model_of(size):
        inputs, taps = _trunk(spec, size, channels, record)
        logits = spec.head(taps[max(taps)], classes, spec.row)
        model = keras.Model(inputs, output_of(logits, activation), name=model_name or spec.name)
        if auxiliary:
            heads = spec.auxiliary(lambda layer: model.get_layer(layer).output, classes, spec.row)
            heads = {key: output_of(tensor, activation, key) for key, tensor in heads.items()}
            model = keras.Model(inputs, {"predictions": model.output} | heads, name=model.name)
        return model

    model = fitting(model_of, spec, size)
    if record is not None:
        whole = keras.Model(model.input, model.output["predictions"]) if auxiliary else model
        weights_of.load(whole, record)
    return model if stochastic_depth is None else residual.stochastic_depth(model, stochastic_depth)


def build_classifier(
    backbone: str,
    classes: int,
    *,
    weights: str | None = "imagenet",
    input_size=None,
    channels: int | None = None,
    dropout: float = 0.2,
    head="avg",
    activation: str | None = "softmax",
    stochastic_depth: float | None = None,
    model_name: str | None = None,
) -> keras.Model:
    """A pretrained net with a new head, for transfer learning: the head starts small and random, the rest knows what it was trained on.

    The graph is flat: the layers of the net are layers of the model, under the names that weights files and `taps` use.

    Args:
        backbone: Key of the registry, such as `"resnet50"` or `"keras_efficientnetv2b0"`.
        classes: Number of your classes, at least 1 (at least 2 for softmax).
        weights: See the head of this module; the published head is left out. `None` starts from random numbers.
        input_size: See the head of this module. Default: the publication's.
        channels: See the head of this module. Default: what the weights were trained on.
        dropout: Fraction of the features dropped in training before the last layer, 0 <= dropout < 1.
        head: `"avg"` or `"max"`: global pooling, dropout, one dense layer; `"flatten"`: every pixel of the last map, dropout, one dense layer;
            `"original"`: the publication's head, made anew for your classes (`dropout` does not apply); or a function
            `head(features, classes) -> logits` of the last feature map, whose layers are best named `head_...`.
        activation: Of the output layer, `predictions`.
        stochastic_depth: As for `build`.
        model_name: Decoration of the Keras model.

    Returns:
        A Functional model from `(batch, height, width, channels)` to `(batch, classes)`.

    Raises:
        InputError: Unknown net or head, a head that fails, or a size that the net cannot take.
        WeightsError: Weights that are missing, damaged or of another shape.
    """
    spec = get_spec(backbone)
    record = weights_of.find(spec.name, weights)
    classes = _classes(spec, None, classes, activation)
    size, channels = size_of(spec.size, input_size), channels_of(spec, record, channels)
    head_of = _head(spec, head, dropout, pretrained=record is not None)
    trunk = None

    def model_of(size):
        nonlocal trunk
        inputs, taps = _trunk(spec, size, channels, record)
        trunk = keras.Model(inputs, taps[max(taps)])
        return keras.Model(inputs, output_of(head_of(trunk.output, classes), activation), name=model_name or spec.name)

    model = fitting(model_of, spec, size)
    if record is not None:
        weights_of.load(trunk, record, headless=True)
    return model if stochastic_depth is None else residual.stochastic_depth(model, stochastic_depth)


def backbone(
    name: str, *, weights: str | None = None, input_size=(None, None), channels: int | None = None
) -> keras.Model:
    """The net without its head: a model whose output is the dictionary of its taps.

    Args:
        name: Key of the registry.
        weights: See the head of this module; the numbers of the head are left out.
        input_size: Default: any size.
        channels: Default: the publication's.

    Returns:
        A model from `(batch, height, width, channels)` to `{"1": ..., "2": ..., "4": ...}`: for each stride the last tensor at that stride.

    Raises:
        InputError, WeightsError: As for `build`.
    """
    spec = get_spec(name)
    record = weights_of.find(spec.name, weights)
    size, channels = size_of(spec.size, input_size), channels_of(spec, record, channels)

    def model_of(size):
        inputs, taps = _trunk(spec, size, channels, record)
        return keras.Model(inputs, {str(stride): taps[stride] for stride in sorted(taps)}, name=f"{spec.name}_backbone")

    model = fitting(model_of, spec, size)
    if record is not None:
        weights_of.load(model, record, headless=True)
    return model


def taps(name: str) -> dict[int, str]:
    """Where the features of a net lie: `{stride: name of the layer}`, the last layer at each stride.

    Its names hold in every model that is built on the net, so this gives the features of any of them:

        keras.Model(model.input, [model.get_layer(layer).output for layer in taps("resnet50").values()])

    Raises:
        InputError: Unknown net.
    """
    spec = get_spec(name)
    inputs, tensors = _trunk(spec, spec.size, spec.channels, None)
    names = {id(layer.output): layer.name for layer in keras.Model(inputs, list(tensors.values())).layers}
    return {stride: names[id(tensors[stride])] for stride in sorted(tensors)}


def build_lenet(
    variant: str = "lenet",
    *,
    classes: int | None = None,
    weights: str | None = None,
    input_size=None,
    channels: int | None = None,
    activation: str | None = "softmax",
) -> keras.Model:
    """LeNet, the first net of every course: `build_lenet()` has the lecture's 61,706 parameters.

    Args:
        variant: `"lenet"` (the lecture's), `"lenet_relu"`, `"lenet_sigmoid"` or `"lenet5"` (as published in 1998).
        classes: Default 10.
        weights: `"mnist"` for digits trained by this project, a path, or None.
        input_size: Default 28x28 (`lenet5`: 32x32); anything at least as large.
        channels: Default 1.
        activation: `"softmax"`, `"sigmoid"` or None for logits.

    Returns:
        A model from `(batch, height, width, channels)`, values 0..255, to `(batch, classes)`.

    Raises:
        InputError, WeightsError: As for `build`.

    Source: LeCun et al. 1998, figure 2; `cnn_zoo/nets/lenet.py` lists what differs between the variants.
    """
    if get_spec(variant).family != "lenet":
        raise InputError(f"{variant!r} is not a LeNet; use build({variant!r})")
    return build(
        variant, classes=classes, weights=weights, input_size=input_size, channels=channels, activation=activation
    )


@dataclass(frozen=True)
class Info:
    """What the registry knows of a net, and the table of its layers."""

    spec: Spec
    weights: tuple[Weights, ...]
    layers: tuple[tuple[str, str, tuple, int], ...]

    def to_dict(self) -> dict:
        """The same as plain values, for JSON."""
        spec = self.spec
        return {
            "name": spec.name,
            "family": spec.family,
            "params": spec.params,
            "params_source": spec.source,
            "input_shape": [*spec.size, spec.channels],
            "classes": spec.classes,
            "preset": spec.preset,
            "paper": spec.paper,
            "weights": [
                {
                    "tag": w.tag,
                    "dataset": w.dataset,
                    "licence": w.licence,
                    w.metric or "metric": w.value,
                    "bytes": w.bytes,
                }
                for w in self.weights
            ],
            "layers": [dict(zip(("name", "type", "output_shape", "params"), layer)) for layer in self.layers],
        }

    def __str__(self) -> str:
        spec, preset = self.spec, PRESETS[self.spec.preset]
        wide = max(len(layer[0]) for layer in self.layers)
        kind = max(len(layer[1]) for layer in self.layers)
        rows = [f"{n:{wide}}  {t:{kind}}  {' x '.join(map(str, s)):>18}  {p:>12,}" for n, t, s, p in self.layers]
        known = [
            f"{w.tag} ({w.dataset}, {w.metric} {w.value:.4f}, measured by {w.measured_by}, {w.licence})"
            if w.value is not None
            else f"{w.tag} ({w.dataset}, not measured, {w.licence})"
            for w in self.weights
        ]
        return "\n".join(
            [
                f"{spec.name}: {spec.paper}",
                f"trainable parameters  {sum(layer[3] for layer in self.layers):,} ({spec.source})",
                f"input                 {spec.size[0]} x {spec.size[1]} x {spec.channels}, values 0..255; preprocess: {preset.about}",
                f"classes               {spec.classes}",
                f"weights               {'; '.join(known) or 'none'}",
                "",
                f"{'layer':{wide}}  {'type':{kind}}  {'output':>18}  {'parameters':>12}",
                *rows,
            ]
        )


def info(name: str) -> Info:
    """What the registry knows of a net; `print(info("lenet"))` shows the table of its layers.

    Raises:
        InputError: Unknown net.
    """
    spec = get_spec(name)
    model = build(name)
    layers = tuple(
        (layer.name, type(layer).__name__, tuple(layer.output.shape[1:]), _trainable(layer)) for layer in model.layers
    )
    tags = sorted((tag for net, tag in WEIGHTS if net == name), key=natural)
    return Info(spec, tuple(WEIGHTS[name, tag] for tag in tags), layers)


def _trunk(spec, size, channels, record):
    inputs, x = image_input(spec, size, channels, record)
    return inputs, spec.features(x, spec.row)


def image_input(spec, size, channels, record):
    """The input of a net, and the image as the net takes it: normalised, and gray as RGB where the weights are of RGB."""
    inputs = x = keras.Input((*size, channels), name="image")
    if record and channels == 1 and (record.channels or spec.channels) == 3:
        x = L.Concatenate(name="gray_to_rgb")([x, x, x])  # a kernel of sums would be wrong where the padding lies
    return inputs, preprocess(x, PRESETS[record.preset if record else spec.preset])


def preprocess(x, preset):
    """The layer `preprocess`: mean and deviation of the preset, repeated for other channels, their mean for one."""

    def per_channel(values):
        channels = x.shape[-1]
        if channels == 1:
            return [sum(values) / len(values)]
        return [values[i % len(values)] for i in range(channels)] if len(values) > 1 else list(values)

    mean, std = per_channel(preset.mean), per_channel(preset.std)
    count = max(len(mean), len(std))
    mean, std = (v * count if len(v) == 1 else v for v in (mean, std))
    scale, offset = [1 / s for s in std], [-m / s for m, s in zip(mean, std)]
    if count == 1:
        (scale,), (offset,) = scale, offset
    return L.Rescaling(scale, offset, dtype="float32", name="preprocess")(x)


def output_of(logits, activation, name="predictions"):
    """The output layer: probabilities in float32, or the logits as they are."""
    return L.Activation(activation, dtype="float32", name=name)(logits) if activation else logits


def _head(spec, head, dropout, pretrained):
    """A function `(features, classes) -> logits` from what `build_classifier` was given."""
    if head == "original":
        return lambda x, classes: spec.head(x, classes, spec.row)
    if callable(head):

        def custom(x, classes):
            try:
                return head(x, classes)
            except Exception as error:  # whatever it is, it is not the size that is to blame
                raise InputError(
                    f"the function given as head= failed on features of shape {x.shape}: {error}"
                ) from error

        return custom
    pools = {"avg": L.GlobalAveragePooling2D, "max": L.GlobalMaxPooling2D, "flatten": L.Flatten}
    if head not in pools:
        raise InputError(
            f"head is one of {(*pools, 'original')} or a function (features, classes) -> logits, not {head!r}"
        )
    check_dropout(dropout)

    def pooled(x, classes):
        x = pools[head](name="head_pool")(x)
        if dropout:
            x = L.Dropout(dropout, name="head_dropout")(x)
        initializer = keras.initializers.RandomNormal(stddev=SMALL) if pretrained else "glorot_uniform"
        return L.Dense(classes, kernel_initializer=initializer, dtype="float32", name="logits")(x)

    return pooled


def fitting(model_of, spec, size):
    """`model_of(size)`, or an error that says the smallest size that would do."""

    def whole(size):
        model = model_of(size)
        if None not in size and any(0 in layer.output.shape for layer in model.layers):  # older Keras lets maps vanish
            raise ValueError(f"nothing is left of {size[0]}x{size[1]} pixels")
        return model

    try:
        return whole(size)
    except ValueError as error:
        if isinstance(error, InputError) or size == spec.size:
            raise
        if None in size:
            raise InputError(
                f"the head of {spec.name!r} needs a fixed size: give input_size={spec.size}, or use backbone({spec.name!r})"
            ) from error
        low, high = 0, max(*size, *spec.size)  # sizes <= low do not fit, high does
        while high - low > 1:
            middle = (low + high) // 2
            try:
                whole((middle, middle))
                high = middle
            except ValueError:
                low = middle
        raise InputError(
            f"{spec.name!r} cannot take {size[0]}x{size[1]} images: each side must be at least {high} pixels; "
            f"give input_size=({max(high, size[0])}, {max(high, size[1])}) and resize the images to it"
        ) from error


def _classes(spec, record, classes, activation):
    check_activation(activation)
    if record is not None and record.classes:
        trained = len(record.classes)
        if classes not in (None, trained):
            raise InputError(
                f"the weights {record.net}:{record.tag} have {trained} classes, not {classes}: "
                f"leave out classes=, or build with weights=None and train"
            )
        return trained
    return classes_of(spec.classes if classes is None else classes, activation)


def classes_of(classes, activation):
    """The number of classes, if it is one and the activation has a use for it."""
    classes = whole_number("classes", classes)
    if classes == 1 and activation == "softmax":
        raise InputError("softmax over one class is always 1: use classes=2, or activation='sigmoid'")
    return classes


def channels_of(spec, record, channels):
    """The number of channels: as given, else what the weights were trained on, else the publication's."""
    trained = record.channels if record else None
    return whole_number("channels", (trained or spec.channels) if channels is None else channels)


def check_activation(activation):
    """Raise unless there is such an output."""
    if activation not in ACTIVATIONS:
        raise InputError(f"activation is one of {ACTIVATIONS}, not {activation!r}")


def check_dropout(dropout):
    """Raise unless it is a fraction."""
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise InputError(f"dropout is a fraction, 0 <= dropout < 1, not {dropout!r}")


def size_of(default, input_size):
    """Height and width, from one number or a pair; `default` for None."""
    if input_size is None:
        return default
    pair = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if len(pair) != 2:
        raise InputError(
            f"input_size is a height and a width, such as (224, 224), not {input_size!r}; channels go to channels="
        )
    return tuple(None if side is None else whole_number("input_size", side) for side in pair)


def whole_number(what, value):
    """The value as an integer, if it is one of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise InputError(f"{what} must be a whole number of at least 1, not {value!r}")
    return int(value)


def _trainable(layer):
    return sum(math.prod(variable.shape) for variable in layer.trainable_variables)
