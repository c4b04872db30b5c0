"""`cnn-zoo data report`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values


def report(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of class folders, also within train, val, test; or of images (with --masks, or beside a folder masks); or other data, "
            "as for --data of `cnn-zoo train`."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Write the page (.html), or the plain values (.json).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    kind: values.Kind = None,
    data_dir: values.DataDir = None,
    masks: values.Masks = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="What images come from (patients): names, none, or a regular expression with parentheses. Default: guessed.",
            rich_help_panel="Data",
        ),
    ] = None,
    classes: values.Classes = None,
    ignore: values.Ignore = None,
    palette: values.PaletteText = None,
    data_option: values.DataOption = None,
):
    """What is in your data and what is wrong with it: damaged files, duplicates, leaks, imbalance, masks. Exit code 1 if something serious is."""
    from cnn_zoo.data import open_data
    from cnn_zoo.data.opening import TAKES, kind_of
    from cnn_zoo.data.prepared import CARD
    from cnn_zoo.data_report import data_report

    given = values.data_options(
        kind, masks, None, None, None, None, classes, ignore, palette, None, None, None, None, data_option
    )
    if Path(source).is_dir() and kind in (None, "folder", "masks") and not (Path(source) / CARD).is_file():
        # What is damaged is part of the report, so nothing is opened before.
        told = {
            "masks": masks,
            "classes": values.classes(classes),
            "ignore": values.ids(ignore),
            "palette": values.palette(palette),
        }
        found = data_report(source, out=out, groups=values.groups(groups), **told)
    else:
        kind = kind_of(source, kind, given)
        whole = {"test": 0.0} if "test" in TAKES[kind] else {}
        whole |= {"groups": False} if "groups" in TAKES[kind] else {}  # a report guesses them by itself
        data = open_data(source, data_dir=data_dir, **values.read(given), **whole)
        found = data_report(data, out=out, groups=values.groups(groups))
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))
    if out is not None:
        typer.echo(f"report: {out}", err=True)
    if found.serious:
        raise typer.Exit(1)
