"""`cnn-zoo data bench`."""

import json
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import quiet_zoo


def bench(
    source: Annotated[str, typer.Argument(help="A folder of class folders, images with masks, or other data as for --data of `cnn-zoo train`.")],
    augment: Annotated[
        str | None, typer.Option(help="A preset: digits, natural, micrograph, satellite or medical.")
    ] = None,
    net: Annotated[
        str | None, typer.Option(help="Measure a training step, too: a net, or for masks unet or unet:resnet34.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a batch.", min=1)] = 32,
    seconds: Annotated[float, typer.Option(help="About how long each stage is measured.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    kind: values.Kind = None,
    data_dir: values.DataDir = None,
    masks: values.Masks = None,
    size: values.SizeText = None,
    how: values.How = None,
    channels: values.Channels = None,
    intensity: values.IntensityText = None,
    data_option: values.DataOption = None,
):  # fmt: skip
    """Images per second of each stage from files to a training step, and which one is the bottleneck."""
    from cnn_zoo.data import open_data
    from cnn_zoo.data.bench import bench as measure
    from cnn_zoo.data.opening import TAKES, kind_of

    given = values.data_options(kind, masks, size, how, channels, intensity, *[None] * 7, data_option)
    takes = TAKES[kind_of(source, kind, given)]
    whole = {
        name: value for name, value in (("test", 0.0), ("groups", False)) if name in takes
    }  # no split: all is measured
    data = open_data(source, data_dir=data_dir, **values.read(given), **whole)
    found = measure(data, batch_size, augment, _model(net, data) if net else None, seconds)
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))


def _model(net, data):
    zoo = quiet_zoo()
    build = zoo.build_named if data.train.has_masks else zoo.build
    height, width, channels = data.train.images.shape[1:]
    return build(net, classes=len(data.classes), input_size=(height, width), channels=channels)
