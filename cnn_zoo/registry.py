"""What the zoo holds: one `Spec` a net, one `Weights` a set of trained numbers, one `Preset` a way to normalise pixels.

Standard library only. A family file in `nets/` registers its rows with `@family`; everything else (listing, building, the contract test,
the README's table) reads the dictionaries below.
"""

import difflib
import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cnn_zoo.errors import InputError, WeightsError


@dataclass(frozen=True)
class Preset:
    """Normalisation of pixels: `(x - mean) / std` per channel, on values 0..255 in RGB order.

    One value in `mean` and `std` holds for every channel.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    about: str


@dataclass(frozen=True)
class Spec:
    """One net: how it is built, what it expects, and the number that it must be exact against.

    Attributes:
        name: Key in the registry.
        family: Name of the family's file in `nets/`.
        row: The family's row of hyper-parameters, in the paper's vocabulary.
        features: `features(x, row) -> {stride: tensor}`, the taps of the net.
        head: `head(x, classes, row) -> logits` from the last tap.
        params: Trainable parameters at `classes` classes and the default input; None for a net of a newer Keras that nobody counted yet.
        source: Where that number is published (or how it follows from the publication).
        size: Default input height and width in pixels.
        channels: Default number of channels.
        classes: Number of classes that `params` is stated for.
        preset: Name of the preset used when no weights say otherwise.
        paper: Citation.
        auxiliary: `auxiliary(tensor of a layer, classes, row) -> {output: logits}`, classifiers in the middle that help training.
    """

    name: str
    family: str
    row: Any = field(repr=False)
    features: Callable = field(repr=False)
    head: Callable = field(repr=False)
    params: int | None
    source: str
    size: tuple[int, int]
    channels: int
    classes: int
    preset: str
    paper: str
    auxiliary: Callable | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Weights:
    """One set of trained numbers, as a complete claim.

    Attributes:
        net: Key of the `Spec` it belongs to; of a segmenter its name, such as "unet" or "deeplabv3plus:squeezenet1_1".
        tag: Name of the set: `build(net, weights=tag)`.
        file: File name in the cache, or in the installed package when `urls` is empty.
        urls: Where it is published; later ones are mirrors.
        hash: Of the file, as its publisher states it: `sha256:...`, `sha1:...` or `md5:...` (at least the first 8 hexadecimal digits; some
            publish no more), or `hf` or `gcs` where the server, Hugging Face or Google Cloud Storage, states it with the file.
        bytes: Size of the file; None where the publisher does not state it.
        layout: Whose names and order of axes the file has: a key of `cnn_zoo.weights.importers.LAYOUTS`, or `cnn_zoo` for our own.
        licence: SPDX identifier, or the publisher's words.
        dataset: What it was trained on.
        classes: Class names in the order of the outputs.
        preset: Name of the preset it was trained with.
        channels: Of the images it was trained on; None for those of the net's publication.
        metric: Name of the score, such as "test accuracy".
        value: The score, 0..1, or None where nobody measured it.
        size: Height and width in pixels that it was measured at; None for the net's default.
        measured_by: Who measured `value`.
        options: Of a segmenter, what its builder must be told: `{"filters": 128}`.
        source: Page or command that it comes from.
    """

    net: str
    tag: str
    file: str
    hash: str
    bytes: int | None
    licence: str
    dataset: str
    classes: tuple[str, ...]
    preset: str
    source: str
    urls: tuple[str, ...] = ()
    layout: str = "cnn_zoo"
    channels: int | None = None
    metric: str | None = None
    value: float | None = None
    size: int | None = None
    measured_by: str | None = None
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Decoder:
    """One way from the features of a net to a map of classes.

    Attributes:
        name: Key in the registry.
        row: The decoder's row of hyper-parameters, in the paper's vocabulary (a NamedTuple: `row._replace(...)` makes variants).
        decode: `decode({stride: tensor}, row) -> tensor`, a map of features at any stride.
        strides: The strides that it takes from the net's taps; a net without one of them cannot serve.
        dilate: Stride beyond which the net's convolutions are to be dilated instead of strided, or None.
        paper: Citation.
    """

    name: str
    row: Any = field(repr=False)
    decode: Callable = field(repr=False)
    strides: tuple[int, ...]
    dilate: int | None
    paper: str


SPECS: dict[str, Spec] = {}
DECODERS: dict[str, Decoder] = {}
WEIGHTS: dict[tuple[str, str], Weights] = {}
PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("unit", (0.0,), (255.0,), "x / 255: values 0..1"),
        Preset("raw", (0.0,), (1.0,), "pixels as they are"),
        Preset("symmetric", (127.5,), (127.5,), "x / 127.5 - 1: values -1..1 (TensorFlow's slim models)"),
        Preset("symmetric128", (128.0,), (128.0,), "x / 128 - 1: values -1..0.992 (EfficientNetV2 S, M and L)"),
        Preset(
            "imagenet",
            (123.675, 116.28, 103.53),
            (58.395, 57.12, 57.375),
            "mean and deviation of ImageNet (torchvision)",
        ),
        Preset("caffe", (123.68, 116.779, 103.939), (1.0,), "mean of ImageNet subtracted (Caffe's nets, VGG)"),
        Preset("lenet5", (20.0,), (200.0,), "background 0 -> -0.1, ink 255 -> 1.175 (LeCun et al. 1998, section II.B)"),
    )
}


def family(rows: dict, *, auxiliary: Callable | None = None, **common):
    """Register every row of a family; decorates the family's `features(x, row)` function.

    `common` holds what all rows share of `Spec`'s fields; a column of the row with such a name wins over it.

    Raises:
        ValueError: A row's name is taken, or a field is given neither by the row nor by the family.
    """
    wanted = ("head", "params", "source", "size", "channels", "classes", "preset", "paper")
    if extra := set(common) - set(wanted):
        raise ValueError(f"family() does not know {sorted(extra)}")

    def register(features):
        name_of_family = features.__module__.rpartition(".")[2]
        for name, row in rows.items():
            values = {key: getattr(row, key, common.get(key)) for key in wanted}
            if missing := [key for key, value in values.items() if value is None]:
                raise ValueError(f"the row {name!r} lacks {missing}")
            if isinstance(values["size"], int):
                values["size"] = (values["size"], values["size"])
            add_spec(Spec(name=name, family=name_of_family, row=row, features=features, auxiliary=auxiliary, **values))
        return features

    return register


def decoder(rows: dict, *, strides, paper: str, dilate: int | None = None):
    """Register every row of a decoder; decorates its `decode(taps, row)` function.

    Raises:
        ValueError: A row's name is taken.
    """

    def register(decode):
        for name, row in rows.items():
            if name in DECODERS:
                raise ValueError(f"a decoder named {name!r} is already registered")
            DECODERS[name] = Decoder(name, row, decode, tuple(strides), dilate, paper)
        return decode

    return register


def is_head(layer: str) -> bool:
    """Whether a layer (or the path of its variable) belongs to the head, which a backbone does not have."""
    return layer.startswith(("head", "logits"))


def add_spec(spec: Spec) -> None:
    """Add one net. Raises ValueError when its name is taken or its preset is unknown."""
    if spec.name in SPECS:
        raise ValueError(f"a net named {spec.name!r} is already registered, by the family {SPECS[spec.name].family!r}")
    if spec.preset not in PRESETS:
        raise ValueError(f"{spec.name!r} names the unknown preset {spec.preset!r}")
    SPECS[spec.name] = spec


def add_weights(record: Weights) -> None:
    """Add one set of weights. Raises ValueError when its net is unknown or its tag is taken."""
    key = (record.net, record.tag)
    if key in WEIGHTS:
        raise ValueError(f"weights {record.net}:{record.tag} are already registered")
    if record.net not in SPECS and record.net.partition(":")[0] not in DECODERS:
        raise ValueError(f"weights {record.net}:{record.tag} belong to no registered net")
    if record.preset not in PRESETS:
        raise ValueError(f"weights {record.net}:{record.tag} name the unknown preset {record.preset!r}")
    WEIGHTS[key] = record


def nearest(name: str, known) -> str:
    """A phrase that suggests the nearest of the known names: `; did you mean 'lenet'?`, or an empty string."""
    match = difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def get_spec(name: str) -> Spec:
    """The net registered as `name`.

    Raises:
        InputError: There is none; the message suggests the nearest name.
    """
    if name not in SPECS:
        raise InputError(f"there is no net {name!r}{nearest(name, SPECS)} (list_models() names all {len(SPECS)})")
    return SPECS[name]


def get_weights(net: str, tag: str) -> Weights:
    """The weights `tag` of the net `net`.

    Raises:
        WeightsError: There are none; the message lists those there are.
    """
    if (net, tag) not in WEIGHTS:
        tags = [t for n, t in WEIGHTS if n == net]
        there = f"there are: {', '.join(map(repr, tags))}" if tags else "none are known for this net; use weights=None"
        raise WeightsError(f"{net!r} has no weights {tag!r} and no such file exists{nearest(tag, tags)} ({there})")
    return WEIGHTS[net, tag]


def natural(name: str) -> list:
    """Sort key that puts vgg11 before vgg16 and resnet50 before resnet101."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def list_models(pattern: str = "*", *, family: str | None = None, weights: str | None = None) -> list[str]:
    """Names of the nets, in natural order.

    Args:
        pattern: Shell pattern, such as `"lenet*"`.
        family: Only nets of this family (the name of its file in `nets/`).
        weights: Only nets that have weights with this tag; `"*"` for any.
    """
    tagged = {net for net, tag in WEIGHTS if weights is not None and fnmatch.fnmatchcase(tag, weights)}
    return sorted(
        (
            name
            for name, spec in SPECS.items()
            if fnmatch.fnmatchcase(name, pattern)
            and family in (None, spec.family)
            and (weights is None or name in tagged)
        ),
        key=natural,
    )
