"""The command line: `cnn-zoo --help`.

Exit codes: 0 done, 1 stopped before the end (training diverged or was interrupted) or something wrong found (`doctor`, `check`, `masks check`,
`data report`), 2 wrong input.
Standard output carries results (with `--json` for programs), standard error everything else.
"""

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import masks, nets, weights
from cnn_zoo.commands.building import quiet_zoo, trained
from cnn_zoo.commands.check import check
from cnn_zoo.commands.data_bench import bench
from cnn_zoo.commands.data_report import report as data_report
from cnn_zoo.commands.evaluate import evaluate
from cnn_zoo.commands.finetune import finetune
from cnn_zoo.commands.lr_find import lr_find
from cnn_zoo.commands.output import Json, Source, print_json, say
from cnn_zoo.commands.predict import predict
from cnn_zoo.commands.run_report import report
from cnn_zoo.commands.search import search
from cnn_zoo.commands.train import train
from cnn_zoo.errors import TrainingStopped, ZooError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Build, train, look at and ship convolutional networks.\n\n"
    "Start with `cnn-zoo train lenet`: it trains LeNet on handwritten digits that come with the package, "
    "and leaves a folder with pictures, the model and a SavedModel.",
)

app.command("list")(nets.list_)
app.command()(nets.table)
app.command()(nets.info)
app.command()(train)
app.command()(finetune)
app.command()(check)
app.command("lr-find")(lr_find)
app.command()(search)
app.command()(evaluate)
app.command()(report)
app.command()(predict)


@app.command()
def export(
    source: Source,
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    format: Annotated[str, typer.Option(help="savedmodel.")] = "savedmodel",
    overwrite: Annotated[bool, typer.Option(help="Replace what is there.")] = False,
    as_json: Json = False,
):
    """Export a trained model with its preprocessing inside, and check the export against the model."""
    zoo = quiet_zoo()

    model, classes = trained(source)
    exported = zoo.export(model, out, format, classes=classes, overwrite=overwrite)
    if as_json:
        return print_json(exported.to_dict())
    typer.echo(f"{exported.path}: {', '.join(exported.signatures)}")
    typer.echo(f"reloaded without Keras: differs from the model by at most {exported.max_difference:.2g}")


@app.command(context_settings={"ignore_unknown_options": True})
def launch(
    workers: Annotated[int, typer.Argument(help="How many.", min=1)],
    command: Annotated[
        list[str], typer.Argument(help="What each of them runs: cnn-zoo train lenet --epochs 3, or python train.py.")
    ],
):
    """Try out training on several machines: start workers of one command here, each told of the others by TF_CONFIG."""
    quiet_zoo()
    from cnn_zoo.train.distribute import launch

    raise typer.Exit(launch(command, workers))


@app.command()
def doctor(as_json: Json = False):
    """Say what hardware, versions and extras are there, and what is wrong."""
    quiet_zoo()
    from cnn_zoo import doctor

    report = doctor.examine()
    print_json(report) if as_json else typer.echo(doctor.describe(report))
    if report["problems"]:
        raise typer.Exit(1)


data = typer.Typer(no_args_is_help=True, help="Look at data before training on them.")
data.command("report")(data_report)
data.command()(bench)
app.add_typer(data, name="data")
app.add_typer(masks.app, name="masks")
app.add_typer(weights.app, name="weights")


def main() -> None:
    """Entry point: errors that the package raises on purpose become one sentence and an exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up notes are not for users
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    try:
        app()
    except TrainingStopped as error:
        say(f"stopped: {error}")
        sys.exit(1)
    except ZooError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(1)
