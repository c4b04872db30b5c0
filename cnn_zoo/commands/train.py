"""`cnn-zoo train`."""

import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import model_for, quiet_zoo, with_size
from cnn_zoo.commands.output import finish, say
from cnn_zoo.errors import InputError


@values.with_data()
def train(
    net: Annotated[
        str,
        typer.Argument(
            help="A net of the zoo, as `cnn-zoo list` names them; for masks a decoder over one, such as unet:resnet34, or unet, segnet, segnet_basic."
        ),
    ] = "lenet",
    data: values.Data = None,
    recipe: Annotated[
        str, typer.Option(help="All settings of the training: lecture, best, cifar; for masks camvid, isbi2012.")
    ] = "best",
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE, of what builds the net: stochastic_depth=0.2; filters=128, width=16 of decoders. Repeatable."
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder to write. Default: runs/NET-DATA-RECIPE-TIME.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with an interrupted run: its folder. The other settings are read from it."),
    ] = None,
    repeat: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Do a run again, from its folder or run.json, in a new folder; settings of the recipe may be changed.",
        ),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Start from these weights: a tag or a file.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    validation: Annotated[float | None, typer.Option(help="Fraction held out, instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="FIELD=VALUE, any field of the recipe: schedule=one_cycle, ema=0.999, precision=auto. Repeatable.",
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Instead of the recipe's: natural, micrograph, medical, satellite, digits (which has no flips) or none."
        ),
    ] = None,
    savedmodel: Annotated[bool, typer.Option(help="Export a SavedModel into the run folder at the end.")] = True,
    all_devices: Annotated[
        bool,
        typer.Option(
            "--all-devices", help="Divide each batch among all GPUs of this machine. (Several machines: TF_CONFIG.)"
        ),
    ] = False,
    data_dir: values.DataDir = None,
    *,
    given,
):
    """Train a net, test it, draw its pictures and export it: everything lands in one run folder.

    Ctrl-C stops cleanly; `--resume FOLDER` goes on, and ends with the same weights as a run that was never stopped.
    """
    zoo = quiet_zoo()
    import keras

    from cnn_zoo import reopening
    from cnn_zoo.train.distribute import here

    if resume is not None:
        settings, run = reopening.settings_of(zoo.Run.load(resume)), resume
    else:
        changes = {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "validation": validation,
            "seed": seed,
        }
        changes = {key: value for key, value in changes.items() if value is not None}
        if augment is not None:
            changes["augment"] = None if augment == "none" else augment
        changes |= values.settings(fields or [], "--set")
        if repeat is not None:
            if given:
                raise InputError(f"--from repeats a run on its own data: leave out {', '.join(sorted(given))}")
            settings = reopening.settings_of(zoo.Run.load(repeat.parent if repeat.name == "run.json" else repeat))
            chosen, net = zoo.Recipe.from_dict(settings["recipe"]).replace(**changes), settings["net"]
            settings = {**settings, "recipe": chosen.to_dict()}
        else:
            chosen = zoo.recipe(recipe, **changes)
            settings = {
                "net": net,
                "data": reopening.place(data or "digits"),
                "data_dir": str(data_dir.resolve()) if data_dir else None,
                "data_options": with_size(net, data or "digits", given),
                "weights": values.as_weights(weights),
                "options": _options(option or []),
                "recipe": chosen.to_dict(),
                "savedmodel": savedmodel,
            }
        named = Path(settings["data"]).stem.replace(":", "-")
        run = run or Path("runs") / f"{net.replace(':', '-')}-{named}-{chosen.name}-{datetime.now():%Y%m%d-%H%M%S}"

    chosen = zoo.Recipe.from_dict(settings["recipe"])
    devices = here(all_devices)  # before anything is computed
    loaded = reopening.open_settings(settings)
    if loaded.test is None:
        raise InputError("the data have no test part: hold some out, such as --test 0.2")
    keras.utils.set_random_seed(chosen.seed)
    with devices.scope():
        model = model_for(settings["net"], loaded, weights=settings["weights"], **settings.get("options", {}))
    if devices.chief:
        say(f"{settings['net']} on {loaded.source}: {loaded.summary()}; everything goes to {run}")
    about = {"train": settings, "command": shlex.join(["cnn-zoo", *sys.argv[1:]])}
    finished = zoo.fit(model, loaded, chosen, run=run, resume=resume is not None, about=about, devices=devices)
    if not devices.chief:
        return
    # A finished run comes back as it is, and a model on several devices stays there; otherwise the one in memory has these weights already.
    if resume is not None or devices.engine is not None:
        model, _ = zoo.load_model(finished.folder / ("best.keras" if chosen.restore_best else "last.keras"))
    finish(model, loaded, finished, savedmodel=settings["savedmodel"])


def _options(texts):
    """Options of a builder: its sizes are tuples."""
    found = values.settings(texts, "--option")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
