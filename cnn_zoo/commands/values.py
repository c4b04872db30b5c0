"""Values as command lines write them, and the flags that say what data are meant and how they are read."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.errors import InputError


def classes(text: str | None):
    """How many, or the names: `4`, `road,car,sky`."""
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return [name.strip() for name in text.split(",")]


def ids(text: str | None) -> list[int] | None:
    """Class ids: `255`, `11,255`."""
    try:
        return None if text is None else [int(i) for i in text.split(",")]
    except ValueError:
        raise InputError(f"--ignore is one id or several with commas, such as 255 or 11,255, not {text!r}") from None


def palette(text: str | None):
    """A `Palette`: `binary`, `voc`, or a file with a colour table."""
    from cnn_zoo.palette import Palette

    if text in ("binary", "voc"):
        return getattr(Palette, text)()
    return None if text is None else Palette.from_file(text)


def size(text: str | None):
    """Pixels, height first: `128`, `96x128`."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise InputError(f"--size is a number of pixels, or HEIGHTxWIDTH such as 96x128, not {text!r}")
    return int(text) if len(sides) == 1 else [int(side) for side in sides]


def intensity(text: str | dict | None):
    """An `Intensity`: the name of a rule, with its two numbers where it has some: `percentiles`, `percentiles:1:99`, `range:0:4095`; or what a run
    says of it.
    """
    from cnn_zoo.data.intensity import Intensity

    if text is None:
        return None
    if isinstance(text, dict):
        return Intensity.from_description(text)
    rule, *numbers = text.split(":")
    try:
        numbers = [float(number) for number in numbers]
    except ValueError:
        numbers = [None]
    if numbers and not (len(numbers) == 2 and None not in numbers and rule in ("range", "percentiles")):
        raise InputError(f"--intensity is the name of a rule, range:LOW:HIGH or percentiles:LOW:HIGH, not {text!r}")
    if not numbers:
        return Intensity(rule)
    return Intensity(rule, *numbers) if rule == "range" else Intensity(rule, percentiles=tuple(numbers))


def groups(text: str | None):
    """What images come from, as for `from_folder`; `none` says that nothing is grouped."""
    return False if text == "none" else text


def settings(texts, flag: str) -> dict:
    """NAME=VALUE texts; a value is what JSON makes of it, or else a text."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise InputError(f"{flag} wants NAME=VALUE, not {text!r}")
        try:
            value = json.loads(value)
        except ValueError:
            pass
        found[name] = value
    return found


# The flags of all commands that read data


def _flag(*names, help):
    return typer.Option(*names, help=help, rich_help_panel="Data")


Data = Annotated[
    str | None,
    _flag(
        "--data",
        help="digits (comes with the package), mnist, fashion_mnist, cifar10, camvid, isbi2012; tfds:NAME; or a path: a folder of class "
        "folders, a folder with images/ and masks/, a .csv or .tsv table, an .npz, FASTA files, videos, volumes, sounds, a prepared folder.",
    ),
]
DataDir = Annotated[
    Path | None,
    _flag("--data-dir", help="Of data by name: folder with NAME.npz in Keras' layout, NAME.zip, or TensorFlow Datasets. Default: CNN_ZOO_DATA."),
]  # fmt: skip
Kind = Annotated[
    str | None,
    _flag("--kind", help="What lies there, where names do not tell: folder, masks, table, arrays, prepared, fasta, sequences, stacks or signals."),
]  # fmt: skip
Masks = Annotated[Path | None, _flag("--masks", help="Folder of the masks of the images in --data.")]
SizeText = Annotated[
    str | None, _flag("--size", help="Pixels: 128, or 96x128 (height first). Default: the net's; of masks, the images'.")
]  # fmt: skip
How = Annotated[
    str | None,
    _flag("--how", help="How images reach the size: resize (default), crop (a border where they are smaller), letterbox or short_side_crop."),
]  # fmt: skip
Channels = Annotated[int | None, _flag("--channels", help="Make gray of colour (1) or repeat gray (3).")]
IntensityText = Annotated[
    str | None,
    _flag("--intensity", help="How values become 0..255: dtype (default), range:LOW:HIGH, percentiles[:LOW:HIGH], standardise, minmax."),
]  # fmt: skip
Classes = Annotated[str | None, _flag("--classes", help="Names in the order of their ids: road,car,sky; or how many.")]
Ignore = Annotated[str | None, _flag("--ignore", help="Ids in masks without a class (void), such as 255 or 11,255.")]
PaletteText = Annotated[
    str | None, _flag("--palette", help="Which colour of a mask is which class: a file with a colour table, or binary (0/255) or voc.")
]  # fmt: skip
Groups = Annotated[
    str | None,
    _flag("--groups", help="What images come from (patients), which no split takes apart: names, none, or a regular expression with parentheses."),
]  # fmt: skip
Test = Annotated[
    float | None, _flag("--test", help="Fraction held out for the test. Default: 0.2 where there is no test part.")
]  # fmt: skip
SplitFile = Annotated[
    Path | None, _flag("--split", help="A file that says which image is in which part; made if it is not there.")
]  # fmt: skip
OnError = Annotated[
    str | None, _flag("--on-error", help="raise (default): all that is wrong is listed; skip: it is left out.")
]  # fmt: skip
DataOption = Annotated[
    list[str] | None,
    _flag("--data-option", help="NAME=VALUE, another argument of cnn_zoo.data.open_data: label_column=class, length=16000. Repeatable."),
]  # fmt: skip


def data_options(
    kind, masks, size_text, how, channels, intensity_text, classes_text, ignore, palette_text, groups, test, split, on_error, more
) -> dict:  # fmt: skip
    """What was given of these flags, as plain values for run.json; `read` makes arguments of them."""
    for check, text in ((intensity, intensity_text), (palette, palette_text)):
        check(text)  # what is wrong is said now
    given = {
        "kind": kind, "masks": masks and str(masks.resolve()), "size": size(size_text), "how": how, "channels": channels,
        "intensity": intensity_text, "classes": classes(classes_text), "ignore": ids(ignore),
        "palette": str(Path(palette_text).resolve()) if palette_text and Path(palette_text).is_file() else palette_text,
        "groups": groups, "test": test, "split": split and str(split.resolve()), "on_error": on_error,
        **settings(more or [], "--data-option"),
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def read(options: dict) -> dict:
    """`data_options` as arguments of `open_data`."""
    makers = {"intensity": intensity, "palette": palette, "groups": groups}
    return {name: makers[name](value) if name in makers else value for name, value in options.items()}
