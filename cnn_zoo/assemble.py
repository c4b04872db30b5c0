"""The only place that makes `keras.Input`: from a row of the registry to a model.

Shared arguments, explained once here:

* `input_size`: height and width in pixels, as one integer or a pair; `None` in the pair leaves that side open where the head allows it.
* `channels`: 1 for gray, 3 for RGB, any other number for multi-band images.
* `weights`: `None` for random ones, the tag of a weights record (`"mnist"`), or the path of a `.safetensors` file.
* `classes`: number of outputs; taken from the weights when they are given, else from the net's publication.
* `activation`: `"softmax"`, `"sigmoid"` (several labels at once) or `None` for logits.

Every model takes images of shape `(batch, height, width, channels)` with values 0..255, uint8 or float, RGB order. Its first layer,
`preprocess`, normalises them in float32 whatever the precision policy; so are the logits and the probabilities.
"""

import math
from dataclasses import dataclass

import keras
from keras import layers as L

from cnn_zoo import nets  # noqa: F401  (importing it registers the families)
from cnn_zoo import weights as weights_of
from cnn_zoo.errors import InputError
from cnn_zoo.registry import PRESETS, WEIGHTS, Spec, Weights, get_spec, natural

weights_of.register_shipped()

ACTIVATIONS = ("softmax", "sigmoid", None)


def build(
    name: str,
    *,
    classes: int | None = None,
    weights: str | None = None,
    input_size=None,
    channels: int | None = None,
    activation: str | None = "softmax",
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
        model_name: Decoration of the Keras model; weights are never looked up by it.

    Returns:
        A Functional model from `(batch, height, width, channels)` to `(batch, classes)`.

    Raises:
        InputError: Unknown net, a size that the net cannot take (the message says the nearest it can), or classes that contradict the weights.
        WeightsError: Weights that are missing, damaged or of another shape.
    """
    spec = get_spec(name)
    record = weights_of.find(spec.name, weights)
    classes = _classes(spec, record, classes, activation)
    if activation not in ACTIVATIONS:
        raise InputError(f"activation is one of {ACTIVATIONS}, not {activation!r}")
    size, channels = _size(spec, input_size), _count("channels", spec.channels if channels is None else channels)

    def model_of(size):
        inputs, taps = _trunk(spec, size, channels, record)
        logits = spec.head(taps[max(taps)], classes, spec.row)
        outputs = L.Activation(activation, dtype="float32", name="predictions")(logits) if activation else logits
        return keras.Model(inputs, outputs, name=model_name or spec.name)

    model = _fitting(model_of, spec, size)
    if record is not None:
        weights_of.load(model, record)
    return model


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
    size, channels = _size(spec, input_size), _count("channels", spec.channels if channels is None else channels)

    def model_of(size):
        inputs, taps = _trunk(spec, size, channels, record)
        return keras.Model(inputs, {str(stride): taps[stride] for stride in sorted(taps)}, name=f"{spec.name}_backbone")

    model = _fitting(model_of, spec, size)
    if record is not None:
        weights_of.load(model, record, unused_ok=True)
    return model


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
                f"trainable parameters  {spec.params:,} ({spec.source})",
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
    inputs = keras.Input((*size, channels), name="image")
    return inputs, spec.features(_preprocess(inputs, PRESETS[record.preset if record else spec.preset]), spec.row)


def _preprocess(inputs, preset):
    def per_channel(values):
        if len(values) == 1 or len(values) == inputs.shape[-1]:
            return values
        return (
            sum(values) / len(values),
        )  # statistics of RGB say nothing of other bands: their mean is the fair guess

    mean, std = per_channel(preset.mean), per_channel(preset.std)
    count = max(len(mean), len(std))
    mean, std = (v * count if len(v) == 1 else v for v in (mean, std))
    scale, offset = [1 / s for s in std], [-m / s for m, s in zip(mean, std)]
    if count == 1:
        (scale,), (offset,) = scale, offset
    return L.Rescaling(scale, offset, dtype="float32", name="preprocess")(inputs)


def _fitting(model_of, spec, size):
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
    if record is not None:
        trained = len(record.classes)
        if classes not in (None, trained):
            raise InputError(
                f"the weights {record.net}:{record.tag} have {trained} classes, not {classes}: "
                f"leave out classes=, or build with weights=None and train"
            )
        return trained
    classes = _count("classes", spec.classes if classes is None else classes)
    if classes == 1 and activation == "softmax":
        raise InputError("softmax over one class is always 1: use classes=2, or activation='sigmoid'")
    return classes


def _size(spec, input_size):
    if input_size is None:
        return spec.size
    pair = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if len(pair) != 2:
        raise InputError(
            f"input_size is a height and a width, such as {spec.size}, not {input_size!r}; channels go to channels="
        )
    return tuple(None if side is None else _count("input_size", side) for side in pair)


def _count(what, value):
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise InputError(f"{what} must be a whole number of at least 1, not {value!r}")
    return int(value)


def _trainable(layer):
    return sum(math.prod(variable.shape) for variable in layer.trainable_variables)
