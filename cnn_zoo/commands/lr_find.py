"""`cnn-zoo lr-find`."""

from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import model_and_data, quiet_zoo
from cnn_zoo.commands.output import Json, show


@values.with_data("kind", "masks", "size", "how", "channels", "intensity", "classes", "data_option")
def lr_find(
    model: Annotated[
        str, typer.Argument(help="A net as `cnn-zoo train` takes it (lenet, unet:resnet34); or a .keras file or a run folder.")
    ] = "lenet",
    data: values.Data = None,
    recipe: Annotated[str, typer.Option(help="All settings of the training but the rate.")] = "best",
    weights: Annotated[str | None, typer.Option(help="Of a net: start from these, a tag or a file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Picture to write (.png).")] = None,
    as_json: Json = False,
    data_dir: values.DataDir = None,
    *,
    given,
):  # fmt: skip
    """Which learning rate? A short run with an ever larger one shows where the loss falls fastest and where it explodes."""
    zoo = quiet_zoo()

    built, loaded = model_and_data(model, data or "digits", data_dir, given, weights=weights)
    found = zoo.lr_find(built, loaded, recipe)
    if out is not None:
        found.plot(save=out)
    show(found, as_json)
