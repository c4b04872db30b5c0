"""`cnn-zoo weights`."""

import fnmatch
from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands.building import quiet_zoo
from cnn_zoo.commands.output import Json, print_json, say
from cnn_zoo.errors import InputError

app = typer.Typer(no_args_is_help=True, help="See, fetch, check and make trained weights.")
NetTag = Annotated[str, typer.Argument(help="NET:TAG, such as lenet:mnist; or NET:* and *:TAG for several.")]


@app.command("list")
def list_(which: NetTag = "*:*", as_json: Json = False):
    """List the weights that are known, with their score and who measured it."""
    rows = [
        {
            "weights": f"{record.net}:{record.tag}", "dataset": record.dataset, "metric": record.metric, "value": record.value,
            "measured_by": record.measured_by, "licence": record.licence, "bytes": record.bytes,
        }
        for record in _records(which)
    ]  # fmt: skip
    if as_json:
        return print_json(rows)
    for row in rows:
        score = "not measured" if row["value"] is None else f"{row['metric']} {row['value']:.4f} ({row['measured_by']})"
        size = f"{row['bytes']:,} bytes  " if row["bytes"] else ""
        typer.echo(f"{row['weights']}  {size}{row['licence']}\n    {row['dataset']}\n    {score}")


@app.command("fetch")
def fetch(which: NetTag):
    """Download weights into the cache (CNN_ZOO_CACHE), so that later work needs no network."""
    records = _records(which)
    from cnn_zoo.weights import locate

    for record in records:
        typer.echo(f"{record.net}:{record.tag}  {locate(record)}")


@app.command("verify")
def verify(which: NetTag = "*:*"):
    """Check the files that are there against the hash that their publisher states; does not download."""
    records = _records(which)
    from cnn_zoo.weights.cache import difference, is_here, place, stated_hash

    damaged, missing = False, 0
    for record in records:
        path, stated = place(record), stated_hash(record)
        if not is_here(record):
            missing += 1
            continue
        if stated is None:
            state = f"here, but only its server knows its hash: {path}"
        elif problem := difference(path, stated):
            state, damaged = f"DAMAGED: {problem}; delete {path}", True
        else:
            state = f"whole: {path}"
        typer.echo(f"{record.net}:{record.tag}  {state}")
    if missing:
        say(f"{missing} of {len(records)} are not in the cache")
    if damaged:
        raise typer.Exit(1)


@app.command("import")
def import_(
    net: Annotated[str, typer.Argument(help="The net that the file belongs to, such as resnet50.")],
    source: Annotated[Path, typer.Argument(help="A file of Keras, PyTorch, ONNX, Darknet or Caffe.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write, for build(net, weights=...).")],
    classes: Annotated[
        Path | None, typer.Option(help="Text file with the names of the classes, one a line. Default: ImageNet's.")
    ] = None,
):
    """Turn another project's weights into a file of ours; every number is accounted for, or nothing is written."""
    zoo = quiet_zoo()
    from cnn_zoo import weights
    from cnn_zoo.imagenet import CLASSES

    if target.suffix.lower() != ".safetensors":
        raise InputError(f"{str(target)!r} must end in .safetensors")
    try:
        names = classes.read_text(encoding="utf-8").split("\n") if classes else list(CLASSES)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the names of the classes from {str(classes)!r}: {error}") from error
    names = [name.strip() for name in names if name.strip()]
    if not source.is_file():
        raise InputError(f"there is no file {str(source)!r}")
    model = zoo.build(net, weights=str(source), classes=len(names))
    record = weights.find(net, str(source))
    weights.save(model, target, net=net, classes=names, preset=record.preset, source=f"{source.name} ({record.layout})")
    typer.echo(f"{target}  ({record.layout} -> {net}, {len(model.weights)} arrays, {len(names)} classes)")


@app.command("pack")
def pack(
    run: Annotated[Path, typer.Argument(help="A finished run of `cnn-zoo train`.")],
    tag: Annotated[str, typer.Argument(help="Name of the weights.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write the weights and their card to.")],
    dataset: Annotated[str | None, typer.Option(help="What it was trained on, in words.")] = None,
    licence: Annotated[str, typer.Option(help="Of the weights.")] = "Apache-2.0",
):
    """Make a weights file and its card from a run."""
    quiet_zoo()
    from cnn_zoo.weights import pack

    typer.echo(pack(run, tag, folder, dataset=dataset, licence=licence))


def _records(which):
    zoo = quiet_zoo()
    pattern = which if ":" in which else f"{which}:*"
    found = [
        record for (net, tag), record in sorted(zoo.WEIGHTS.items()) if fnmatch.fnmatchcase(f"{net}:{tag}", pattern)
    ]
    if not found:
        raise InputError(f"no weights match {which!r}; `cnn-zoo weights list` names all")
    return found
