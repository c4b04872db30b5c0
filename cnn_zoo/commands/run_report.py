"""`cnn-zoo report`."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import quiet_zoo


def report(
    source: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, a .keras file, or NET:WEIGHTS such as lenet:mnist.")
    ],
    data: values.Data = None,
    data_dir: values.DataDir = None,
    part: Annotated[str, typer.Option(help="What is looked at: test, validation or train.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Page to write (.html), and the model card beside it (.md). Default: RUN/report.html, or report.html.")
    ] = None,
    data_option: values.DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
):  # fmt: skip
    """How good is a trained model: one page with its scores and their intervals, curves, confusions, calibration and examples, and a model card.

    A run folder knows its data. Of other data the test part is taken where there is one, else all images.
    """
    zoo = quiet_zoo()
    from cnn_zoo.reopening import reopen
    from cnn_zoo.run_report import report as make
    from cnn_zoo.run_report.reporting import check_classes, check_out

    out = out or (source / "report.html" if source.is_dir() else Path("report.html"))
    check_out(out)  # before the work rather than after it
    named = {"data": data, "data_dir": data_dir, "options": values.settings(data_option or [], "--data-option")}
    run, model, size = None, None, None
    if source.is_dir() or (source.is_file() and (source.parent / "run.json").is_file()):
        run = zoo.Run.load(source if source.is_dir() else source.parent)
        size = run.about["model"]["input_shape"][:2]
    if not source.is_dir():
        model, classes = _model(source)
        size = model.input_shape[1:3]
    opened = reopen(run, size, **named)
    if model is not None:
        check_classes(classes, opened)
    if opened.test is None and data is not None:
        opened = dataclasses.replace(opened, test=opened.train)
    found = make(model, opened, split=part) if run is None else make(run, opened, split=part, model=model)
    made = {**found.facts["made"], "command": shlex.join(["cnn-zoo", *sys.argv[1:]])}
    found = dataclasses.replace(found, facts={**found.facts, "made": made})
    found.to_html(out)
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))
    typer.echo(f"report: {out}, model card: {out.with_suffix('.md')}", err=True)


def _model(source):
    """A model that is no run folder, and the names of its classes where they are known."""
    import cnn_zoo as zoo

    net, colon, tag = str(source).rpartition(":")
    if colon and not source.exists() and (net in zoo.SPECS or (net, tag) in zoo.WEIGHTS):
        build = zoo.build if net in zoo.SPECS else zoo.build_named
        return build(net, weights=tag), zoo.weights.find(net, tag).classes
    return zoo.load_model(source)
