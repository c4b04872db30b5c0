"""`cnn-zoo predict`."""

from pathlib import Path
from typing import Annotated

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import quiet_zoo, run_of, trained
from cnn_zoo.commands.output import Json, Source, print_json, say
from cnn_zoo.errors import DataError, InputError

LARGE = 4_000_000  # pixels from which an image is segmented in tiles


def predict(
    source: Source,
    images: Annotated[list[Path], typer.Argument(help="Image files or folders of images.")],
    top: Annotated[int, typer.Option(help="How many classes to show for each image.", min=1)] = 1,
    crop: Annotated[
        float | None,
        typer.Option(help="Classifiers: cut out the middle, such as 0.875 of it, instead of stretching."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Classifiers: write all probabilities to this file.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Segmenters: folder for the masks, PNG whose numbers are the class ids. Default: masks."),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Segmenters: also write pictures of masks over images, to OUT-overlays.")
    ] = False,
    tile: Annotated[
        int | None,
        typer.Option(help="Segmenters: go over each image in tiles of this side (by itself from 4 million pixels)."),
    ] = None,
    overlap: Annotated[
        float | None, typer.Option(help="Segmenters: of neighbouring tiles, a fraction below 1 or pixels.")
    ] = None,
    tta: Annotated[
        list[str] | None,
        typer.Option(help="Segmenters: average over changed copies: mirror, flip, rotate or scale; more than once."),
    ] = None,
    palette: Annotated[
        str | None,
        typer.Option(help="Segmenters: which colour is which class: a file with a colour table, or binary or voc."),
    ] = None,
    skip: Annotated[bool, typer.Option("--skip-errors", help="Leave out images that cannot be read.")] = False,
    as_json: Json = False,
):
    """Classify image files, or segment them."""
    zoo = quiet_zoo()

    model, classes = trained(source)
    run = run_of(source)
    rules = {} if run is None else run.image_rules
    for rule in rules.values():
        say(f"images as those of the training: {rule}")
    segments = len(model.outputs[0].shape) == 4
    of_segmenters = {"--out": out, "--overlay": overlay, "--tile": tile, "--overlap": overlap, "--tta": tta}
    of_others = {"--crop": crop, "--csv": csv} if segments else {**of_segmenters, "--palette": palette}
    if wrong := [option for option, value in of_others.items() if value not in (None, False, [])]:
        kind = "segments images" if segments else "classifies images"
        raise InputError(f"{wrong[0]} makes no sense here: the model {str(source)!r} {kind}")
    if segments:
        tiling = None if tile is None and overlap is None else {"tile": tile, "overlap": overlap}
        colors = values.as_palette(palette)
        rule, where = rules.get("intensity"), out or Path("masks")
        return _segment(model, classes, images, where, overlay, tiling, tta or (), colors, skip, as_json, rule)
    inputs = images[0] if len(images) == 1 else images
    rules |= {"size": None, "crop": crop} if crop else {}
    found = zoo.predict(model, inputs, classes=classes, on_error="skip" if skip else "raise", **rules)
    if csv is not None:
        found.to_csv(csv)
    if as_json:
        return print_json(found.to_dicts(top=top))
    typer.echo(found.table(top=top))


def _segment(model, classes, images, out, overlay, tiling, tta, palette, skip, as_json, rule):
    """Write a mask an image, one after the other: an interruption leaves those that are done, each of them whole."""
    import numpy as np

    from cnn_zoo import mask_plots
    from cnn_zoo.data import list_images
    from cnn_zoo.mask_prediction import mask_paths, predict_mask, predict_tiled, write_mask
    from cnn_zoo.masks import image_size
    from cnn_zoo.outputs import class_names
    from cnn_zoo.palette import Palette
    from cnn_zoo.tiling import open_image

    files = list_images(images)
    if palette is not None and classes is None:
        classes = palette.classes
    names = class_names(model, classes)
    palette = palette or Palette.of(names)
    targets, pictures = mask_paths(files, out), mask_paths(files, out.with_name(f"{out.name}-overlays"))
    if over := {file.resolve() for file in files} & {target.resolve() for target in targets}:
        raise InputError(f"the mask would replace the image {str(min(over))!r}: choose another folder with --out")
    free = model.inputs[0].shape[1:3] == (None, None)
    options = {key: value for key, value in (tiling or {}).items() if value is not None}
    if options.get("overlap", 0) >= 1 and options["overlap"].is_integer():
        options["overlap"] = int(options["overlap"])  # pixels
    rows = []
    for file, target, picture in zip(files, targets, pictures):
        try:
            if tiling is not None or file.suffix.lower() == ".npy" or (free and np.prod(image_size(file)) > LARGE):
                mask = predict_tiled(model, file, tta=tta, intensity=rule, **options)
            else:
                mask = predict_mask(model, file, tta=tta, intensity=rule).ids[0]
        except DataError as error:
            if not skip:
                raise
            say(f"warning: left out 1 image: {error}")
            continue
        write_mask(target, mask, palette)
        if overlay:
            image = np.asarray(open_image(file))
            image = image if rule is None else rule.apply(image if image.ndim == 3 else image[..., None])
            mask_plots.overlay(image, mask, palette, title=file.name, save=picture)
        shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
        shares = {names[i]: float(shares[i]) for i in np.argsort(-shares, kind="stable") if shares[i]}
        rows.append({"image": str(file), "mask": str(target), "fractions": shares})
        if not as_json:
            shown = ", ".join(f"{name} {share:.1%}" for name, share in list(shares.items())[:5])
            typer.echo(f"{file}  {target}  {shown}{', ...' if len(shares) > 5 else ''}")
    if not rows:
        raise DataError(f"none of the {len(files)} image(s) can be read")
    if as_json:
        print_json(rows)
