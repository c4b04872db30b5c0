"""`cnn-zoo data report`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.errors import InputError


def report(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of class folders, also within train, val, test; or of images (with --masks, or beside a folder masks)."),
    ],
    masks: Annotated[Path | None, typer.Option(help="Folder of the masks of these images.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the page (.html), or the plain values (.json).")] = None,
    groups: Annotated[
        str | None,
        typer.Option(help="What images come from (patients): names, none, or a regular expression with parentheses. Default: guessed."),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Classes of masks: how many, or their names: road,car,sky.")] = None,
    ignore: Annotated[str | None, typer.Option(help="Ids in masks without a class (void), such as 255 or 11,255.")] = None,
    palette: Annotated[
        str | None, typer.Option(help="Which colour of a mask is which class: a file with a colour table, or binary or voc.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
):  # fmt: skip
    """What is in your data and what is wrong with it: damaged files, duplicates, leaks, imbalance, masks. Exit code 1 if something serious is."""
    from cnn_zoo.data_report import data_report

    found = data_report(
        folder, masks=masks, out=out, groups=False if groups == "none" else groups, classes=_classes(classes), ignore=_ids(ignore),
        palette=_palette(palette),
    )  # fmt: skip
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))
    if out is not None:
        typer.echo(f"report: {out}", err=True)
    if found.serious:
        raise typer.Exit(1)


def _classes(text):
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return [name.strip() for name in text.split(",")]


def _ids(text):
    try:
        return None if text is None else [int(i) for i in text.split(",")]
    except ValueError:
        raise InputError(f"--ignore is one id or several with commas, such as 255 or 11,255, not {text!r}") from None


def _palette(text):
    from cnn_zoo.palette import Palette

    if text in ("binary", "voc"):
        return getattr(Palette, text)()
    return None if text is None else Palette.from_file(text)
