"""`cnn-zoo evaluate`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import quiet_zoo, run_of, trained
from cnn_zoo.commands.output import Json, Source, print_json, say, write_evaluation


@values.with_data()
def evaluate(
    source: Source,
    data: values.Data = None,
    tta: Annotated[
        list[str] | None,
        typer.Option(help="Segmenters: average over changed copies: mirror, flip, rotate or scale; more than once."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures and report.json.")] = None,
    as_json: Json = False,
    data_dir: values.DataDir = None,
    *,
    given,
):
    """Test a trained model: accuracy with its interval (of masks: IoU), per-class report, confusion matrix.

    A run folder knows its data: without `--data` (or with the same) its test part is read again as in training, or where it has none that of
    validation. Of other data the test part is taken where there is one, or where `--test` or `--split` makes one; else all images. Other models are
    tested on the digits by default.
    """
    zoo = quiet_zoo()
    from cnn_zoo.reopening import held_out_as_in, reopen

    model, names = trained(source)
    run = run_of(source)
    data = data or ("digits" if run is None else None)
    loaded = reopen(run, model.input_shape[1:3], data=data, data_dir=data_dir, options=given, classes=names)
    if loaded.test is None:
        held = held_out_as_in(run, loaded).validation if data is None else None
        what = f"all {len(loaded.train)}" if held is None else f"the {len(held)} validation"
        say(f"tested on {what} images of {loaded.name}, since these have no test part")
        loaded = dataclasses.replace(loaded, test=loaded.train if held is None else held)
    evaluation = zoo.evaluate(
        model, loaded.test, classes=names or loaded.classes, ignore=loaded.ignore, tta=tuple(tta or ())
    )
    if out is not None:
        write_evaluation(evaluation, loaded.test, out, model, ignore=loaded.ignore)
    print_json(evaluation.to_dict()) if as_json else typer.echo(evaluation.report())
