"""What commands say, and what they leave in a folder."""

import json
from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[Path, typer.Argument(help="A run folder, a .keras file, or NET:WEIGHTS such as resnet50:imagenet.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def say(text: str) -> None:
    """Tell the person at the terminal, on standard error."""
    typer.echo(text, err=True)


def print_json(value) -> None:
    """A result, for programs."""
    typer.echo(json.dumps(value, indent=2))


def show(found, as_json: bool) -> None:
    """A result that has a `to_dict`, for programs or for people."""
    print_json(found.to_dict()) if as_json else typer.echo(str(found))


def write_evaluation(evaluation, split, folder, model, *, ignore=(), **more) -> None:
    """The report of an `Evaluation` of a `Split` as report.json, with `more` at its head, and its pictures."""
    from cnn_zoo import plots
    from cnn_zoo.files import make_folder, replacing

    folder = make_folder(folder)
    with replacing(folder / "report.json") as path:
        path.write_text(json.dumps({**more, **evaluation.to_dict()}, indent=2))
    classes = evaluation.classes
    plots.confusion_matrix(evaluation.confusion, classes, save=folder / "confusion.png")
    if split.has_masks:
        return _draw_masks(evaluation, split, folder, model, ignore)
    plots.prediction_grid(
        split.images, evaluation.probabilities, split.labels, classes, save=folder / "predictions.png"
    )


def _draw_masks(evaluation, split, folder, model, ignore):
    import numpy as np

    from cnn_zoo import Palette, mask_plots, predict_mask

    few = split.take(np.linspace(0, len(split) - 1, min(4, len(split))).round().astype(int))
    found, palette = predict_mask(model, few.images, classes=evaluation.classes), Palette.of(evaluation.classes)
    mask_plots.side_by_side(few.images, found, few.labels, palette, ignore=ignore, save=folder / "predictions.png")
    mask_plots.iou_bars(evaluation.scores()["iou"], palette=palette, save=folder / "iou.png")


def finish(model, data, run, *, savedmodel: bool) -> None:
    """Test what a `Run` trained, on the test images or where there are none on those of validation; draw its pictures and export it."""
    import cnn_zoo as zoo

    part = "validation" if data.test is None else "test"
    split, said = getattr(data, part), {} if part == "test" else {"part": part}
    evaluation = zoo.evaluate(model, split, classes=data.classes, ignore=data.ignore)
    write_evaluation(evaluation, split, run.folder, model, ignore=data.ignore, **said)
    zoo.plots.curves(run, save=run.folder / "curves.png")
    typer.echo(evaluation.report())
    if part == "validation":
        say("these are the validation images, which also chose the epoch: a folder test would be an independent judge")
    if savedmodel:
        exported = zoo.export(model, run.folder / "savedmodel", classes=data.classes, overwrite=True)
        typer.echo(
            f"SavedModel: reloaded without Keras, it differs from the model by at most {exported.max_difference:.2g}"
        )
    typer.echo(f"everything is in {run.folder}")
    say(f"a page of it, with intervals, calibration, and the best and worst images: cnn-zoo report {run.folder}")
