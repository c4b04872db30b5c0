"""`cnn-zoo lr-find`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import model_and_data, quiet_zoo


def lr_find(
    model: Annotated[
        str, typer.Argument(help="A net as `cnn-zoo train` takes it (lenet, unet:resnet34); or a .keras file or a run folder.")
    ] = "lenet",
    data: values.Data = None,
    recipe: Annotated[str, typer.Option(help="All settings of the training but the rate.")] = "best",
    weights: Annotated[str | None, typer.Option(help="Of a net: start from these, a tag or a file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Picture to write (.png).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    data_dir: values.DataDir = None,
    kind: values.Kind = None,
    masks: values.Masks = None,
    size: values.SizeText = None,
    how: values.How = None,
    channels: values.Channels = None,
    intensity: values.IntensityText = None,
    classes: values.Classes = None,
    data_option: values.DataOption = None,
):  # fmt: skip
    """Which learning rate? A short run with an ever larger one shows where the loss falls fastest and where it explodes."""
    zoo = quiet_zoo()

    given = values.data_options(kind, masks, size, how, channels, intensity, classes, *[None] * 6, data_option)
    built, loaded = model_and_data(model, data or "digits", data_dir, given, weights)
    found = zoo.lr_find(built, loaded, recipe)
    if out is not None:
        found.plot(save=out)
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))
