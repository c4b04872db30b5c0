"""`cnn-zoo data bench`."""

from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import model_for, quiet_zoo
from cnn_zoo.commands.output import Json, show


@values.with_data("kind", "masks", "size", "how", "channels", "intensity", "data_option")
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
    as_json: Json = False,
    data_dir: values.DataDir = None,
    *,
    given,
):  # fmt: skip
    """Images per second of each stage from files to a training step, and which one is the bottleneck."""
    quiet_zoo()
    from cnn_zoo.data import open_data
    from cnn_zoo.data.bench import bench as measure
    from cnn_zoo.data.opening import TAKES, kind_of

    takes = TAKES[kind_of(source, given.get("kind"), given)]
    whole = {
        name: value for name, value in (("test", 0.0), ("groups", False)) if name in takes
    }  # no split: all is measured
    data = open_data(source, data_dir=data_dir, **values.read(given), **whole)
    found = measure(data, batch_size, augment, model_for(net, data) if net else None, seconds)
    show(found, as_json)
