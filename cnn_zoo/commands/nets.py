"""`cnn-zoo list`, `cnn-zoo table` and `cnn-zoo info`."""

from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands.building import quiet_zoo
from cnn_zoo.commands.output import Json, print_json, say, show
from cnn_zoo.errors import InputError


def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'lenet*'.")] = "*",
    weights: Annotated[str | None, typer.Option(help="Only nets with weights of this tag; '*' for any.")] = None,
    as_json: Json = False,
):
    """List the nets of the zoo, their parameters, input sizes and weights."""
    zoo = quiet_zoo()

    rows = []
    for name in zoo.list_models(pattern, weights=weights):
        spec = zoo.SPECS[name]
        tags = [tag for net, tag in zoo.WEIGHTS if net == name]
        rows.append({"name": name, "params": spec.params, "input_shape": [*spec.size, spec.channels], "weights": tags})
    if not rows:
        raise InputError(f"no net matches {pattern!r}; `cnn-zoo list` names all {len(zoo.SPECS)}")
    if as_json:
        return print_json(rows)
    wide = max(len(row["name"]) for row in rows)
    typer.echo(f"{'name':{wide}}  {'parameters':>12}  {'input':>13}  weights")
    for row in rows:
        shape = " x ".join(map(str, row["input_shape"]))
        typer.echo(
            f"{row['name']:{wide}}  {_count(row['params']):>12}  {shape:>13}  {', '.join(row['weights']) or '-'}"
        )


def table(
    names: Annotated[
        list[str] | None, typer.Argument(help="Nets or shell patterns, such as resnet50 'vgg*'. Default: all.")
    ] = None,
    lecture: Annotated[bool, typer.Option("--lecture", help="The 18 nets of the course's table.")] = False,
    form: Annotated[str, typer.Option("--format", help="text, markdown or csv.")] = "text",
    timed: Annotated[
        bool, typer.Option("--time/--no-time", help="Measure times on this machine, against SqueezeNet.")
    ] = True,
    output: Annotated[Path | None, typer.Option(help="Write it to a file as well: .txt, .md or .csv.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture: accuracy or parameters against time (.png).")
    ] = None,
):
    """The living table: depth, size, parameters, MACs, time on this machine, input, receptive field, published top-1.

    Interrupted, it prints the rows that it has.
    """
    zoo = quiet_zoo()
    from cnn_zoo import table as living

    forms = {"text": living.text, "markdown": living.markdown, "csv": living.csv}
    if form not in forms:
        raise InputError(f"--format is one of {', '.join(forms)}, not {form!r}")
    for path, suffixes in ((output, (".txt", ".md", ".csv")), (plot, (".png",))):
        if path and path.suffix.lower() not in suffixes:
            raise InputError(f"{str(path)!r} must end in {' or '.join(suffixes)}")
    wanted = list(living.LECTURE) if lecture else []
    for name in names or ([] if lecture else ["*"]):
        found = zoo.list_models(name)
        wanted += found or [zoo.registry.get_spec(name).name]
    rows, interrupted = [], False
    try:
        for row in living.each(list(dict.fromkeys(wanted)), timed=timed):
            rows.append(row)
    except KeyboardInterrupt:
        interrupted = True
        say(f"interrupted: {len(rows)} of {len(wanted)} nets")
    if rows:
        text = forms[form](rows)
        typer.echo(text.rstrip("\n"))
        if output:
            living.save(rows, output)
        if plot:
            living.plot(rows, plot)
            say(f"picture: {plot}")
    if interrupted:
        raise typer.Exit(1)


def info(name: Annotated[str, typer.Argument(help="A net, such as lenet.")], as_json: Json = False):
    """Show what is known of a net, and the table of its layers."""
    zoo = quiet_zoo()

    found = zoo.info(name)
    show(found, as_json)


def _count(number):
    return "?" if number is None else f"{number:,}"
