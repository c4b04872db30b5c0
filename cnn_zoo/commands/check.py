"""`cnn-zoo check`."""

from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import model_and_data, quiet_zoo
from cnn_zoo.commands.output import Json, show


@values.with_data()
def check(
    model: Annotated[
        str,
        typer.Argument(
            help="A net as `cnn-zoo train` takes it (lenet, unet:resnet34); or a .keras file or a run folder, whose curves are then read, too."
        ),
    ] = "lenet",
    data: values.Data = None,
    recipe: Annotated[str, typer.Option(help="All settings of the training.")] = "best",
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    weights: Annotated[str | None, typer.Option(help="Of a net: start from these, a tag or a file.")] = None,
    steps: Annotated[int, typer.Option(help="Of each short run.", min=10)] = 150,
    images: Annotated[int, typer.Option(help="So many are looked at and learned from, at most.", min=12)] = 512,
    as_json: Json = False,
    data_dir: values.DataDir = None,
    *,
    given,
):
    """Is anything wrong with a net, its data or its recipe? Some short runs tell before the long one. Exit code 1 if something is."""
    zoo = quiet_zoo()
    from cnn_zoo.train import sanity

    built, loaded = model_and_data(model, data or "digits", data_dir, given, weights=weights)
    changes = {} if learning_rate is None else {"learning_rate": learning_rate}
    run = model if (Path(model) / "run.json").is_file() else None
    found = sanity.check(built, loaded, zoo.recipe(recipe, **changes), run=run, steps=steps, images=images)
    show(found, as_json)
    if found.failed:
        raise typer.Exit(1)
