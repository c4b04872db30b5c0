"""Values as command lines write them, and the flags that say what data are meant and how they are read."""

import functools
import inspect
import json
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.errors import InputError


def as_classes(text: str | None):
    """How many, or the names: `4`, `road,car,sky`."""
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return [name.strip() for name in text.split(",")]


def as_ids(text: str | None) -> list[int] | None:
    """Class ids: `255`, `11,255`."""
    try:
        return None if text is None else [int(i) for i in text.split(",")]
    except ValueError:
        raise InputError(f"--ignore is one id or several with commas, such as 255 or 11,255, not {text!r}") from None


def as_palette(text: str | None):
    """A `Palette`: `binary`, `voc`, or a file with a colour table."""
    from cnn_zoo.palette import Palette

    if text in ("binary", "voc"):
        return getattr(Palette, text)()
    return None if text is None else Palette.from_file(text)


def as_size(text: str | None):
    """Pixels, height first: `128`, `96x128`."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise InputError(f"--size is a number of pixels, or HEIGHTxWIDTH such as 96x128, not {text!r}")
    return int(text) if len(sides) == 1 else [int(side) for side in sides]


def as_intensity(text: str | dict | None):
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


def as_groups(text: str | None):
    """What images come from, as for `from_folder`; `none` says that nothing is grouped."""
    return False if text == "none" else text


def as_weights(text: str | None):
    """A tag as it is, a file by its whole path, so that a run can be resumed from anywhere; `none` is None."""
    if text in (None, "none"):
        return None
    return str(Path(text).resolve()) if Path(text).is_file() else text


def settings(texts, flag: str) -> dict:
    """NAME=VALUE texts; a value is what `plain` makes of it."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise InputError(f"{flag} wants NAME=VALUE, not {text!r}")
        found[name] = plain(value)
    return found


def plain(text: str):
    """What JSON makes of a text, or else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


# The flags of all commands that read data


def _flag(kind, name, help):
    return Annotated[kind | None, typer.Option(name, help=help, rich_help_panel="Data")]


Data = _flag(
    str,
    "--data",
    "digits (comes with the package), mnist, fashion_mnist, cifar10, camvid, isbi2012; tfds:NAME; or a path: a folder of class folders, "
    "a folder with images/ and masks/, a .csv or .tsv table, an .npz, FASTA files, videos, volumes, sounds, a prepared folder.",
)
DataDir = _flag(
    Path, "--data-dir", "Of data by name: folder with NAME.npz in Keras' layout, NAME.zip, or TensorFlow Datasets. Default: CNN_ZOO_DATA."
)  # fmt: skip
FLAGS = {
    "kind": _flag(
        str, "--kind", "What lies there, where names do not tell: folder, masks, table, arrays, prepared, fasta, sequences, stacks or signals."
    ),
    "masks": _flag(Path, "--masks", "Folder of the masks of the images in --data."),
    "size": _flag(str, "--size", "Pixels: 128, or 96x128 (height first). Default: the net's; of masks, the images'."),
    "how": _flag(
        str, "--how", "How images reach the size: resize (default), crop (a border where they are smaller), letterbox or short_side_crop."
    ),
    "channels": _flag(int, "--channels", "Make gray of colour (1) or repeat gray (3)."),
    "intensity": _flag(
        str, "--intensity", "How values become 0..255: dtype (default), range:LOW:HIGH, percentiles[:LOW:HIGH], standardise, minmax."
    ),
    "classes": _flag(str, "--classes", "Names in the order of their ids: road,car,sky; or how many."),
    "ignore": _flag(str, "--ignore", "Ids in masks without a class (void), such as 255 or 11,255."),
    "palette": _flag(str, "--palette", "Which colour of a mask is which class: a file with a colour table, or binary (0/255) or voc."),
    "groups": _flag(
        str, "--groups", "What images come from (patients), which no split takes apart: names, none, or a regular expression with parentheses."
    ),
    "test": _flag(float, "--test", "Fraction held out for the test. Default: 0.2 where there is no test part."),
    "split": _flag(Path, "--split", "A file that says which image is in which part; made if it is not there."),
    "on_error": _flag(str, "--on-error", "raise (default): all that is wrong is listed; skip: it is left out."),
    "data_option": _flag(
        list[str], "--data-option", "NAME=VALUE, another argument of cnn_zoo.data.open_data: label_column=class, length=16000. Repeatable."
    ),
}  # fmt: skip


def with_data(*names):
    """A decorator that gives a command the flags of `names`, or all of them, and hands it what was given of them as `given`.

    `given` holds plain values for run.json, by the names of `open_data`'s arguments; `read` makes arguments of it.
    """

    def decorate(command):
        @functools.wraps(command)
        def with_given(**arguments):
            given = _given(**{name: arguments.pop(name) for name in names or FLAGS})
            return command(**arguments, given=given)

        signature = inspect.signature(command)
        own = [one for one in signature.parameters.values() if one.name != "given"]
        flags = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=FLAGS[name])
            for name in names or FLAGS
        ]
        with_given.__signature__ = signature.replace(parameters=[*own, *flags])
        with_given.__annotations__ = {one.name: one.annotation for one in (*own, *flags)}
        return with_given

    return decorate


def _given(
    masks=None, size=None, intensity=None, classes=None, ignore=None, palette=None, split=None, data_option=None, **others
):  # fmt: skip
    for check, text in ((as_intensity, intensity), (as_palette, palette)):
        check(text)  # what is wrong is said now
    given = {
        **others, "masks": masks and str(masks.resolve()), "size": as_size(size), "intensity": intensity, "classes": as_classes(classes),
        "ignore": as_ids(ignore), "palette": str(Path(palette).resolve()) if palette and Path(palette).is_file() else palette,
        "split": split and str(split.resolve()), **settings(data_option or [], "--data-option"),
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def read(options: dict) -> dict:
    """What `with_data` gives, as arguments of `open_data`."""
    makers = {"intensity": as_intensity, "palette": as_palette, "groups": as_groups}
    return {name: makers[name](value) if name in makers else value for name, value in options.items()}
