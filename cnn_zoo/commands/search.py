"""`cnn-zoo search`."""

import json
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import model_and_data, model_for, quiet_zoo
from cnn_zoo.commands.output import Json, say, show
from cnn_zoo.errors import InputError


@values.with_data("kind", "masks", "size", "channels", "intensity", "classes", "data_option")
def search(
    model: Annotated[str, typer.Argument(help="A net as `cnn-zoo train` takes it (lenet, unet:resnet34).")] = "lenet",
    data: values.Data = None,
    space: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE,VALUE,..., NAME=log:LOW:HIGH or NAME=linear:LOW:HIGH of a field of a recipe. Repeatable."),
    ] = None,
    how: Annotated[str, typer.Option(help="random, grid, bayesian or hyperband.")] = "random",
    trials: Annotated[int, typer.Option(help="Trainings at most.")] = 20,
    recipe: Annotated[str, typer.Option(help="All settings that are not searched.")] = "best",
    epochs: Annotated[int | None, typer.Option(help="Of each trial, instead of the recipe's.")] = None,
    weights: Annotated[str | None, typer.Option(help="Of a net: start from these, a tag or a file.")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder to write. Default: runs/search-NET-TIME.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with an interrupted search: its folder. The other settings are read from it.")
    ] = None,
    as_json: Json = False,
    data_dir: values.DataDir = None,
    how_sized: Annotated[str | None, typer.Option("--how-sized", help="How images reach the size.", rich_help_panel="Data")] = None,
    *,
    given,
):  # fmt: skip
    """Which recipe is best? Trains a net many times with other settings, and leaves a table, a picture and a run folder of each trial.

    Ctrl-C stops cleanly; `--resume FOLDER` goes on where it was.
    """
    zoo = quiet_zoo()

    if resume is not None:
        settings, run = _settings_of(resume), resume
    else:
        given |= {} if how_sized is None else {"how": how_sized}
        chosen = zoo.recipe(recipe, **({} if epochs is None else {"epochs": epochs}))
        settings = {
            "model": model, "data": data or "digits", "data_dir": data_dir and str(data_dir.resolve()), "given": given,
            "weights": values.as_weights(weights), "space": space or [], "how": how, "trials": trials, "recipe": chosen.to_dict(),
            "command": shlex.join(["cnn-zoo", *sys.argv[1:]]),
        }  # fmt: skip
        run = run or Path("runs") / f"search-{model.replace(':', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
    searched = dict(_space(text) for text in settings["space"])
    if not searched:
        raise InputError("what is to be searched? Say it by --space, such as --space learning_rate=log:1e-4:1e-1")

    net, with_weights = settings["model"], {"weights": settings["weights"]}
    _, loaded = model_and_data(net, settings["data"], settings["data_dir"], settings["given"], **with_weights)

    def made():
        return model_for(net, loaded, **with_weights)

    found = zoo.train.search(
        made, loaded, zoo.Recipe.from_dict(settings["recipe"]), space=searched, how=settings["how"], trials=settings["trials"],
        folder=run, resume=resume is not None, verbose=0 if as_json else "auto", about=settings,
    )  # fmt: skip
    found.plot(save=run / "trials.png")
    show(found, as_json)
    say(f"the best model is in {found.best.folder}, the table and its picture are in {run}")


def _space(text):
    """NAME=log:1e-4:1e-1, NAME=linear:0:0.5, NAME=16,32,64; a value is what JSON makes of it, or else a text."""
    name, equals, spec = text.partition("=")
    if not (name.isidentifier() and equals and spec):
        raise InputError(f"--space wants NAME=VALUE,VALUE, NAME=log:LOW:HIGH or NAME=linear:LOW:HIGH, not {text!r}")
    kind, *ends = spec.split(":")
    if kind in ("log", "linear"):
        return name, (kind, *map(_value, ends))
    return name, [_value(part) for part in spec.split(",")]


def _value(text):
    return None if text in ("none", "None") else values.plain(text)


def _settings_of(folder):
    """What the command was told when it began the search."""
    try:
        settings = json.loads((folder / "search.json").read_text())["about"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{str(folder)!r} was not written by `cnn-zoo search`: it has no search.json of its own"
        ) from error
    if "model" not in settings:
        raise InputError(f"the search in {str(folder)!r} was begun in Python: go on with search(..., resume=True)")
    return settings
