"""`cnn-zoo data report`."""

from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.output import Json, say, show


@values.with_data("kind", "masks", "groups", "classes", "ignore", "palette", "data_option")
def report(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of class folders, also within train, val, test; or of images (with --masks, or beside a folder masks); or other data, "
            "as for --data of `cnn-zoo train`."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Write the page (.html), or the plain values (.json).")] = None,
    as_json: Json = False,
    data_dir: values.DataDir = None,
    *,
    given,
):
    """What is in your data and what is wrong with it: damaged files, duplicates, leaks, imbalance, masks. Exit code 1 if something serious is.

    What images come from is guessed from their names where --groups does not say it.
    """
    from cnn_zoo.data import open_data
    from cnn_zoo.data.opening import TAKES, kind_of
    from cnn_zoo.data.prepared import CARD
    from cnn_zoo.data_report import data_report

    told = values.read(given)
    groups, kind = told.pop("groups", None), told.get("kind")
    if Path(source).is_dir() and kind in (None, "folder", "masks") and not (Path(source) / CARD).is_file():
        # What is damaged is part of the report, so nothing is opened before.
        told = {name: value for name, value in told.items() if name in ("masks", "classes", "ignore", "palette")}
        found = data_report(source, out=out, groups=groups, **told)
    else:
        takes = TAKES[kind_of(source, kind, told)]
        whole = {"test": 0.0} if "test" in takes else {}
        whole |= {"groups": False} if "groups" in takes else {}  # a report guesses them by itself
        found = data_report(open_data(source, data_dir=data_dir, **told, **whole), out=out, groups=groups)
    show(found, as_json)
    if out is not None:
        say(f"report: {out}")
    if found.serious:
        raise typer.Exit(1)
