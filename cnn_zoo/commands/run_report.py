"""`cnn-zoo report`."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import quiet_zoo, run_of, trained
from cnn_zoo.commands.output import Json, say, show


@values.with_data("data_option")
def report(
    source: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, a .keras file, or NET:WEIGHTS such as lenet:mnist.")
    ],
    data: values.Data = None,
    data_dir: values.DataDir = None,
    part: Annotated[str | None, typer.Option(help="What is looked at: test, validation or train. Default: test, where there is such a part.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Page to write (.html), and the model card beside it (.md). Default: RUN/report.html, or report.html.")
    ] = None,
    as_json: Json = False,
    *,
    given,
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
    named = {"data": data, "data_dir": data_dir, "options": given}
    run, model, size = zoo.Run.load(source) if source.is_dir() else run_of(source), None, None
    if run is not None:
        size = run.about["model"]["input_shape"][:2]
    if not source.is_dir():
        model, classes = trained(source)
        size = model.input_shape[1:3]
    opened = reopen(run, size, **named)
    if model is not None:
        check_classes(classes, opened)
    if opened.test is None and data is not None:
        opened = dataclasses.replace(opened, test=opened.train)
    part = part or ("validation" if opened.test is None else "test")
    found = make(model, opened, split=part) if run is None else make(run, opened, split=part, model=model)
    made = {**found.facts["made"], "command": shlex.join(["cnn-zoo", *sys.argv[1:]])}
    found = dataclasses.replace(found, facts={**found.facts, "made": made})
    found.to_html(out)
    show(found, as_json)
    say(f"report: {out}, model card: {out.with_suffix('.md')}")
