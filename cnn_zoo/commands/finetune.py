"""`cnn-zoo finetune`."""

import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands.building import quiet_zoo
from cnn_zoo.commands.output import finish, say
from cnn_zoo.commands.values import as_weights
from cnn_zoo.errors import InputError


def finetune(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of class folders: FOLDER/CLASS/*.jpg, or FOLDER/{train,val,test}/CLASS/*.jpg.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="A net, as `cnn-zoo list` names them.")] = "resnet50",
    weights: Annotated[str, typer.Option(help="What it knows already: a tag such as imagenet, a file, or none.")] = "imagenet",
    size: Annotated[int | None, typer.Option(help="Pixels of each side; the short side is brought to it, the middle kept.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 for gray, 3 for colour. Default: what the weights were trained on.")] = None,
    recipe: Annotated[str, typer.Option(help="All settings of the training.")] = "transfer",
    epochs: Annotated[int | None, typer.Option(help="Of head and trunk together, instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    stages: Annotated[str | None, typer.Option(help="Freed after the head in turn, such as stage4,stage3. Default: all at once.")] = None,
    groups: Annotated[
        str | None,
        typer.Option(help="What images come from (patients): names, none, or a regular expression. No split takes a group apart."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder to write. Default: runs/NET-FOLDER-TIME.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with an interrupted run: its folder. The other settings are read from it.")
    ] = None,
    savedmodel: Annotated[bool, typer.Option(help="Export a SavedModel into the run folder at the end.")] = True,
    all_devices: Annotated[bool, typer.Option("--all-devices", help="Divide each batch among all GPUs of this machine.")] = False,
):  # fmt: skip
    """Fine-tune a net on your images, test it, draw its pictures and export it: everything lands in one run folder.

    Ctrl-C stops cleanly; `--resume FOLDER` goes on, and ends with the same weights as a run that was never stopped.
    """
    zoo = quiet_zoo()
    import keras

    from cnn_zoo.train.distribute import Devices, mirrored

    if resume is not None:
        settings, run = _settings_of(resume), resume
    elif folder is None:
        raise InputError("give a folder of class folders, or --resume with the folder of a run")
    else:
        spec = zoo.registry.get_spec(backbone)
        options = {
            "kind": "folder", "size": size or list(spec.size), "how": "short_side_crop", "channels": channels or spec.channels, "test": 0.0,
            **({} if groups is None else {"groups": groups}),
        }  # fmt: skip
        changes = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
        chosen = zoo.recipe(recipe, **{key: value for key, value in changes.items() if value is not None})
        settings = {
            "data": str(folder.resolve()),
            "data_dir": None,
            "data_options": options,
            "backbone": backbone,
            "weights": as_weights(weights),
            "stages": stages.split(",") if stages else None,
            "recipe": chosen.to_dict(),
        }
        run = run or Path("runs") / f"{backbone}-{folder.name}-{datetime.now():%Y%m%d-%H%M%S}"

    chosen = zoo.Recipe.from_dict(settings["recipe"])
    data = _data(settings, chosen)
    keras.utils.set_random_seed(chosen.seed)
    devices = mirrored() if all_devices else Devices()
    with devices.scope():
        model = zoo.build_classifier(
            settings["backbone"], len(data.classes), weights=settings["weights"], input_size=data.train.images.shape[1:3],
            channels=data.train.images.shape[-1],
        )  # fmt: skip
    say(f"{settings['backbone']} on {data.source}: {data.summary()}; everything goes to {run}")
    about = {"finetune": settings, "command": shlex.join(["cnn-zoo", *sys.argv[1:]])}
    finished = zoo.train.fine_tune(
        model, data, chosen, stages=settings["stages"], run=run, resume=resume is not None, about=about, devices=devices
    )
    if all_devices:
        model, _ = zoo.load_model(finished.folder / "best.keras")  # that one stays on them
    finish(model, data, finished, savedmodel=savedmodel)


def _data(settings, recipe):
    """The images of the folder, with a validation split."""
    from cnn_zoo.reopening import open_settings

    data = open_settings(settings)
    if data.validation is None:
        if not recipe.validation:
            raise InputError(
                "there is no folder val and the recipe holds nothing out: the best epoch is told by validation images"
            )
        data = data.split(recipe.validation, recipe.seed)
    return data


def _settings_of(run):
    """What the command was told when it began the run."""
    from cnn_zoo.train.run import Run

    try:
        return Run.load(run / "1-head").about["finetune"]
    except (InputError, KeyError) as error:
        raise InputError(
            f"{str(run)!r} was not written by `cnn-zoo finetune`, or was killed before its first epoch: start again without --resume"
        ) from error
