"""`cnn-zoo masks`."""

from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import quiet_zoo
from cnn_zoo.commands.output import Json, print_json, show
from cnn_zoo.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Look at masks before training on them.")
MaskFolder = Annotated[Path, typer.Argument(help="Folder of masks (or one file): gray or palette PNG, TIFF, .npy.")]


@app.command()
@values.with_data("classes", "ignore", "palette")
def check(
    images: Annotated[Path, typer.Argument(help="Folder of the images that the masks belong to.")],
    masks: MaskFolder,
    as_json: Json = False,
    *,
    given,
):
    """Find what goes wrong silently: 0/255 and coloured masks, unknown ids, other sizes than the images, missing ones, JPEG."""
    zoo = quiet_zoo()

    report = zoo.check_masks(masks, images=images, **values.read(given))
    show(report, as_json)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
@values.with_data("classes", "ignore", "palette")
def weights(
    masks: MaskFolder,
    how: Annotated[str, typer.Option(help="balanced, square_root, median_frequency or inverse.")] = "balanced",
    as_json: Json = False,
    *,
    given,
):
    """Print class weights that make up for rare classes, for the losses."""
    zoo = quiet_zoo()
    from cnn_zoo.palette import spans

    told = values.read(given)
    report = zoo.check_masks(masks, **told).raise_if_bad()
    names = told.get("classes", report.classes)
    if names is None:
        seen = set(report.pixels) - set(report.ignore)
        names = len(seen)
        if seen != set(range(names)):
            raise InputError(
                f"the masks hold the ids {spans(seen)}: say with --classes how many classes there are, and with --ignore which ids are none"
            )
    weights = zoo.class_weights_from(masks, names, report.ignore, how, told.get("palette"))
    names = [str(i) for i in range(names)] if isinstance(names, int) else list(names)
    if as_json:
        return print_json({"how": how, "classes": names, "weights": weights.tolist()})
    wide = max(map(len, names))
    for i, (name, weight) in enumerate(zip(names, weights)):
        typer.echo(f"{name:{wide}}  {report.pixels.get(i, 0):>15,} pixels  {weight:.4f}")
