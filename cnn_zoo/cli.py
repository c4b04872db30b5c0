"""The command line: `cnn-zoo --help`.

Exit codes: 0 done, 1 stopped before the end (training diverged or was interrupted) or something wrong found (`doctor`, `masks check`,
`data report`), 2 wrong input.
Standard output carries results (with `--json` for programs), standard error everything else.
"""

import dataclasses
import json
import os
import shlex
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Annotated, Optional

import typer

from cnn_zoo.commands import values
from cnn_zoo.commands.building import quiet_zoo
from cnn_zoo.commands.check import check
from cnn_zoo.commands.data_bench import bench as data_bench_command
from cnn_zoo.commands.data_report import report as data_report_command
from cnn_zoo.commands.finetune import finetune
from cnn_zoo.commands.lr_find import lr_find
from cnn_zoo.commands.run_report import report as run_report_command
from cnn_zoo.commands.search import search
from cnn_zoo.errors import DataError, InputError, TrainingStopped, ZooError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Build, train, look at and ship convolutional networks.\n\n"
    "Start with `cnn-zoo train lenet`: it trains LeNet on handwritten digits that come with the package, "
    "and leaves a folder with pictures, the model and a SavedModel.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ColorTable = Annotated[
    Optional[str],
    typer.Option("--palette", help="Which colour is which class: a file with a colour table, or binary or voc."),
]
LARGE = 4_000_000  # pixels from which an image is segmented in tiles
Source = Annotated[Path, typer.Argument(help="A run folder, a .keras file, or NET:WEIGHTS such as resnet50:imagenet.")]


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'lenet*'.")] = "*",
    weights: Annotated[Optional[str], typer.Option(help="Only nets with weights of this tag; '*' for any.")] = None,
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
        return _print_json(rows)
    wide = max(len(row["name"]) for row in rows)
    typer.echo(f"{'name':{wide}}  {'parameters':>12}  {'input':>13}  weights")
    for row in rows:
        shape = " x ".join(map(str, row["input_shape"]))
        typer.echo(
            f"{row['name']:{wide}}  {_count(row['params']):>12}  {shape:>13}  {', '.join(row['weights']) or '-'}"
        )


@app.command()
def table(
    names: Annotated[
        Optional[list[str]], typer.Argument(help="Nets or shell patterns, such as resnet50 'vgg*'. Default: all.")
    ] = None,
    lecture: Annotated[bool, typer.Option("--lecture", help="The 18 nets of the course's table.")] = False,
    form: Annotated[str, typer.Option("--format", help="text, markdown or csv.")] = "text",
    timed: Annotated[
        bool, typer.Option("--time/--no-time", help="Measure times on this machine, against SqueezeNet.")
    ] = True,
    output: Annotated[Optional[Path], typer.Option(help="Write it to a file as well: .txt, .md or .csv.")] = None,
    plot: Annotated[
        Optional[Path], typer.Option(help="Write a picture: accuracy or parameters against time (.png).")
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
        _say(f"interrupted: {len(rows)} of {len(wanted)} nets")
    if rows:
        text = forms[form](rows)
        typer.echo(text.rstrip("\n"))
        if output:
            living.save(rows, output)
        if plot:
            living.plot(rows, plot)
            _say(f"picture: {plot}")
    if interrupted:
        raise typer.Exit(1)


@app.command()
def info(name: Annotated[str, typer.Argument(help="A net, such as lenet.")], as_json: Json = False):
    """Show what is known of a net, and the table of its layers."""
    zoo = quiet_zoo()

    found = zoo.info(name)
    _print_json(found.to_dict()) if as_json else typer.echo(str(found))


@app.command()
def train(
    net: Annotated[
        str,
        typer.Argument(
            help="A net of the zoo, as `cnn-zoo list` names them; for masks a decoder over one, such as unet:resnet34, or unet, segnet, segnet_basic."
        ),
    ] = "lenet",
    data: values.Data = None,
    recipe: Annotated[
        str, typer.Option(help="All settings of the training: lecture, best; for masks camvid, isbi2012.")
    ] = "best",
    option: Annotated[
        Optional[list[str]],
        typer.Option(help="NAME=VALUE, for the decoder or U-Net: filters=128, width=16. Repeatable."),
    ] = None,
    run: Annotated[Optional[Path], typer.Option(help="Folder to write. Default: runs/NET-DATA-RECIPE-TIME.")] = None,
    resume: Annotated[
        Optional[Path],
        typer.Option(help="Go on with an interrupted run: its folder. The other settings are read from it."),
    ] = None,
    repeat: Annotated[
        Optional[Path],
        typer.Option(
            "--from",
            help="Do a run again, from its folder or run.json, in a new folder; settings of the recipe may be changed.",
        ),
    ] = None,
    weights: Annotated[Optional[str], typer.Option(help="Start from these weights: a tag or a file.")] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Instead of the recipe's.")] = None,
    batch_size: Annotated[Optional[int], typer.Option(help="Instead of the recipe's.")] = None,
    learning_rate: Annotated[Optional[float], typer.Option(help="Instead of the recipe's.")] = None,
    validation: Annotated[Optional[float], typer.Option(help="Fraction held out, instead of the recipe's.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Instead of the recipe's.")] = None,
    fields: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set",
            help="FIELD=VALUE, any field of the recipe: schedule=one_cycle, ema=0.999, precision=auto. Repeatable.",
        ),
    ] = None,
    augment: Annotated[
        Optional[str],
        typer.Option(
            help="Instead of the recipe's: natural, micrograph, medical, satellite, digits (which has no flips) or none."
        ),
    ] = None,
    savedmodel: Annotated[bool, typer.Option(help="Export a SavedModel into the run folder at the end.")] = True,
    all_devices: Annotated[
        bool,
        typer.Option(
            "--all-devices", help="Divide each batch among all GPUs of this machine. (Several machines: TF_CONFIG.)"
        ),
    ] = False,
    data_dir: values.DataDir = None,
    kind: values.Kind = None,
    masks: values.Masks = None,
    size: values.SizeText = None,
    how: values.How = None,
    channels: values.Channels = None,
    intensity: values.IntensityText = None,
    classes: values.Classes = None,
    ignore: values.Ignore = None,
    palette: values.PaletteText = None,
    groups: values.Groups = None,
    test: values.Test = None,
    split: values.SplitFile = None,
    on_error: values.OnError = None,
    data_option: values.DataOption = None,
):
    """Train a net, test it, draw its pictures and export it: everything lands in one run folder.

    Ctrl-C stops cleanly; `--resume FOLDER` goes on, and ends with the same weights as a run that was never stopped.
    """
    zoo = quiet_zoo()
    import keras

    from cnn_zoo import reopening, segmenting
    from cnn_zoo.train.distribute import here

    if resume is not None:
        settings, run = reopening.settings_of(zoo.Run.load(resume)), resume
    else:
        changes = {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "validation": validation,
            "seed": seed,
        }
        changes = {key: value for key, value in changes.items() if value is not None}
        if augment is not None:
            changes["augment"] = None if augment == "none" else augment
        changes |= values.settings(fields or [], "--set")
        given = values.data_options(
            kind, masks, size, how, channels, intensity, classes, ignore, palette, groups, test, split, on_error, data_option
        )  # fmt: skip
        if repeat is not None:
            if given:
                raise InputError(f"--from repeats a run on its own data: leave out {', '.join(sorted(given))}")
            settings = reopening.settings_of(zoo.Run.load(repeat if repeat.is_dir() else repeat.parent))
            chosen, net = zoo.Recipe.from_dict(settings["recipe"]).replace(**changes), settings["net"]
            settings = {**settings, "recipe": chosen.to_dict()}
        else:
            chosen = zoo.recipe(recipe, **changes)
            settings = {
                "net": net,
                "data": reopening.place(data or "digits"),
                "data_dir": str(data_dir.resolve()) if data_dir else None,
                "data_options": _with_size(net, data or "digits", given),
                "weights": weights,
                "options": _options(option or []),
                "recipe": chosen.to_dict(),
                "savedmodel": savedmodel,
            }
        named = Path(settings["data"]).stem.replace(":", "-")
        run = run or Path("runs") / f"{net.replace(':', '-')}-{named}-{chosen.name}-{datetime.now():%Y%m%d-%H%M%S}"

    chosen = zoo.Recipe.from_dict(settings["recipe"])
    devices = here(all_devices)  # before anything is computed
    loaded = reopening.open_settings(settings)
    if loaded.test is None:
        raise InputError("the data have no test part: hold some out, such as --test 0.2")
    shape = loaded.train.images.shape[1:]
    if len(shape) != 3:
        raise InputError(
            f"the nets of the zoo take images, (height, width, channels), and these data are {shape}: give fit a model of yours, with "
            "cnn_zoo.data.open_data"
        )
    keras.utils.set_random_seed(chosen.seed)
    about_model = {
        "classes": len(loaded.classes),
        "weights": settings["weights"],
        "channels": shape[-1],
        **settings.get("options", {}),
    }
    with devices.scope():
        if segmenting.is_named(settings["net"]):
            model = segmenting.build_named(settings["net"], **about_model)
        else:
            model = zoo.build(settings["net"], input_size=shape[:2], **about_model)
    if devices.chief:
        _say(f"{settings['net']} on {loaded.source}: {loaded.summary()}; everything goes to {run}")
    about = {"train": settings, "command": shlex.join(["cnn-zoo", *sys.argv[1:]])}
    finished = zoo.fit(model, loaded, chosen, run=run, resume=resume is not None, about=about, devices=devices)
    if not devices.chief:
        return
    # A finished run comes back as it is, and a model on several devices stays there; otherwise the one in memory has these weights already.
    if resume is not None or devices.engine is not None:
        model, _ = zoo.load_model(finished.folder / ("best.keras" if chosen.restore_best else "last.keras"))

    evaluation = zoo.evaluate(model, loaded.test, classes=loaded.classes, ignore=loaded.ignore)
    _write_evaluation(evaluation, loaded, finished.folder, model)
    zoo.plots.curves(finished, save=finished.folder / "curves.png")
    typer.echo(evaluation.report())
    if settings["savedmodel"]:
        exported = zoo.export(model, finished.folder / "savedmodel", classes=loaded.classes, overwrite=True)
        typer.echo(
            f"SavedModel: reloaded without Keras, it differs from the model by at most {exported.max_difference:.2g}"
        )
    typer.echo(f"everything is in {finished.folder}")


@app.command()
def evaluate(
    source: Source,
    data: values.Data = None,
    tta: Annotated[
        Optional[list[str]],
        typer.Option(help="Segmenters: average over changed copies: mirror, flip, rotate or scale; more than once."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for the pictures and report.json.")] = None,
    as_json: Json = False,
    data_dir: values.DataDir = None,
    kind: values.Kind = None,
    masks: values.Masks = None,
    size: values.SizeText = None,
    how: values.How = None,
    channels: values.Channels = None,
    intensity: values.IntensityText = None,
    classes: values.Classes = None,
    ignore: values.Ignore = None,
    palette: values.PaletteText = None,
    groups: values.Groups = None,
    test: values.Test = None,
    split: values.SplitFile = None,
    on_error: values.OnError = None,
    data_option: values.DataOption = None,
):
    """Test a trained model: accuracy with its interval (of masks: IoU), per-class report, confusion matrix.

    A run folder knows its data: without `--data` (or with the same) its test part is read again as in training. Of other data the test part is
    taken where there is one, or where `--test` or `--split` makes one; else all images. Other models are tested on the digits by default.
    """
    zoo = quiet_zoo()
    from cnn_zoo.reopening import reopen

    model, names = _model(zoo, source)
    given = values.data_options(
        kind, masks, size, how, channels, intensity, classes, ignore, palette, groups, test, split, on_error, data_option
        )  # fmt: skip
    run = _run_of(source)
    data = data or ("digits" if run is None else None)
    loaded = reopen(run, model.input_shape[1:3], data=data, data_dir=data_dir, options=given, classes=names)
    if loaded.test is None:
        _say(f"tested on all {len(loaded.train)} images of {loaded.name}, since these have no test part")
        loaded = dataclasses.replace(loaded, test=loaded.train)
    evaluation = zoo.evaluate(
        model, loaded.test, classes=names or loaded.classes, ignore=loaded.ignore, tta=tuple(tta or ())
    )
    if out is not None:
        _write_evaluation(evaluation, loaded, out, model)
    _print_json(evaluation.to_dict()) if as_json else typer.echo(evaluation.report())


@app.command()
def predict(
    source: Source,
    images: Annotated[list[Path], typer.Argument(help="Image files or folders of images.")],
    top: Annotated[int, typer.Option(help="How many classes to show for each image.", min=1)] = 1,
    crop: Annotated[
        Optional[float],
        typer.Option(help="Classifiers: cut out the middle, such as 0.875 of it, instead of stretching."),
    ] = None,
    csv: Annotated[Optional[Path], typer.Option(help="Classifiers: write all probabilities to this file.")] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Segmenters: folder for the masks, PNG whose numbers are the class ids. Default: masks."),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Segmenters: also write pictures of masks over images, to OUT-overlays.")
    ] = False,
    tile: Annotated[
        Optional[int],
        typer.Option(help="Segmenters: go over each image in tiles of this side (by itself from 4 million pixels)."),
    ] = None,
    overlap: Annotated[
        Optional[float], typer.Option(help="Segmenters: of neighbouring tiles, a fraction below 1 or pixels.")
    ] = None,
    tta: Annotated[
        Optional[list[str]],
        typer.Option(help="Segmenters: average over changed copies: mirror, flip, rotate or scale; more than once."),
    ] = None,
    palette: ColorTable = None,
    skip: Annotated[bool, typer.Option("--skip-errors", help="Leave out images that cannot be read.")] = False,
    as_json: Json = False,
):
    """Classify image files, or segment them."""
    zoo = quiet_zoo()

    model, classes = _model(zoo, source)
    run = _run_of(source)
    rules = {} if run is None else run.image_rules
    for rule in rules.values():
        _say(f"images as those of the training: {rule}")
    segments = len(model.outputs[0].shape) == 4
    of_segmenters = {"--out": out, "--overlay": overlay, "--tile": tile, "--overlap": overlap, "--tta": tta}
    of_others = {"--crop": crop, "--csv": csv} if segments else {**of_segmenters, "--palette": palette}
    if wrong := [option for option, value in of_others.items() if value not in (None, False, [])]:
        kind = "segments images" if segments else "classifies images"
        raise InputError(f"{wrong[0]} makes no sense here: the model {str(source)!r} {kind}")
    if segments:
        tiling = None if tile is None and overlap is None else {"tile": tile, "overlap": overlap}
        colors = values.palette(palette)
        rule, where = rules.get("intensity"), out or Path("masks")
        return _segment(model, classes, images, where, overlay, tiling, tta or (), colors, skip, as_json, rule)
    inputs = images[0] if len(images) == 1 else images
    rules |= {"size": None, "crop": crop} if crop else {}
    found = zoo.predict(model, inputs, classes=classes, on_error="skip" if skip else "raise", **rules)
    if csv is not None:
        found.to_csv(csv)
    if as_json:
        return _print_json(found.to_dicts(top=top))
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
            _say(f"warning: left out 1 image: {error}")
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
        _print_json(rows)


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

    model, classes = _model(zoo, source)
    exported = zoo.export(model, out, format, classes=classes, overwrite=overwrite)
    if as_json:
        return _print_json(exported.to_dict())
    typer.echo(f"{exported.path}: {', '.join(exported.signatures)}")
    typer.echo(f"reloaded without Keras: differs from the model by at most {exported.max_difference:.2g}")


weights_app = typer.Typer(no_args_is_help=True, help="See, fetch, check and make trained weights.")
app.add_typer(weights_app, name="weights")
NetTag = Annotated[str, typer.Argument(help="NET:TAG, such as lenet:mnist; or NET:* and *:TAG for several.")]


@weights_app.command("list")
def weights_list(which: NetTag = "*:*", as_json: Json = False):
    """List the weights that are known, with their score and who measured it."""
    rows = [
        {
            "weights": f"{record.net}:{record.tag}", "dataset": record.dataset, "metric": record.metric, "value": record.value,
            "measured_by": record.measured_by, "licence": record.licence, "bytes": record.bytes,
        }
        for record in _records(which)
    ]  # fmt: skip
    if as_json:
        return _print_json(rows)
    for row in rows:
        score = "not measured" if row["value"] is None else f"{row['metric']} {row['value']:.4f} ({row['measured_by']})"
        size = f"{row['bytes']:,} bytes  " if row["bytes"] else ""
        typer.echo(f"{row['weights']}  {size}{row['licence']}\n    {row['dataset']}\n    {score}")


@weights_app.command("fetch")
def weights_fetch(which: NetTag):
    """Download weights into the cache (CNN_ZOO_CACHE), so that later work needs no network."""
    records = _records(which)
    from cnn_zoo.weights import locate

    for record in records:
        typer.echo(f"{record.net}:{record.tag}  {locate(record)}")


@weights_app.command("verify")
def weights_verify(which: NetTag = "*:*"):
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
        _say(f"{missing} of {len(records)} are not in the cache")
    if damaged:
        raise typer.Exit(1)


@weights_app.command("import")
def weights_import(
    net: Annotated[str, typer.Argument(help="The net that the file belongs to, such as resnet50.")],
    source: Annotated[Path, typer.Argument(help="A file of Keras, PyTorch, ONNX, Darknet or Caffe.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write, for build(net, weights=...).")],
    classes: Annotated[
        Optional[Path], typer.Option(help="Text file with the names of the classes, one a line. Default: ImageNet's.")
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


@weights_app.command("pack")
def weights_pack(
    run: Annotated[Path, typer.Argument(help="A finished run of `cnn-zoo train`.")],
    tag: Annotated[str, typer.Argument(help="Name of the weights.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write the weights and their card to.")],
    dataset: Annotated[Optional[str], typer.Option(help="What it was trained on, in words.")] = None,
    licence: Annotated[str, typer.Option(help="Of the weights.")] = "Apache-2.0",
):
    """Make a weights file and its card from a run."""
    quiet_zoo()
    from cnn_zoo.weights import pack

    typer.echo(pack(run, tag, folder, dataset=dataset, licence=licence))


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


data_app = typer.Typer(no_args_is_help=True, help="Look at data before training on them.")
app.add_typer(data_app, name="data")
data_app.command("report")(data_report_command)
data_app.command("bench")(data_bench_command)
app.command("report")(run_report_command)
app.command()(finetune)
app.command()(check)
app.command("lr-find")(lr_find)
app.command()(search)

masks_app = typer.Typer(no_args_is_help=True, help="Look at masks before training on them.")
app.add_typer(masks_app, name="masks")
MaskFolder = Annotated[Path, typer.Argument(help="Folder of masks (or one file): gray or palette PNG, TIFF, .npy.")]
Classes = Annotated[Optional[str], typer.Option(help="How many classes, or their names: road,car,sky.")]
Ignore = Annotated[Optional[str], typer.Option(help="Ids without a class (void), such as 255 or 11,255.")]


@masks_app.command("check")
def masks_check(
    images: Annotated[Path, typer.Argument(help="Folder of the images that the masks belong to.")],
    masks: MaskFolder,
    classes: Classes = None,
    ignore: Ignore = None,
    palette: ColorTable = None,
    as_json: Json = False,
):
    """Find what goes wrong silently: 0/255 and coloured masks, unknown ids, other sizes than the images, missing ones, JPEG."""
    zoo = quiet_zoo()

    report = zoo.check_masks(masks, values.classes(classes), images, values.palette(palette), values.ids(ignore))
    _print_json(report.to_dict()) if as_json else typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(1)


@masks_app.command("weights")
def masks_weights(
    masks: MaskFolder,
    classes: Classes = None,
    ignore: Ignore = None,
    palette: ColorTable = None,
    how: Annotated[str, typer.Option(help="balanced, square_root, median_frequency or inverse.")] = "balanced",
    as_json: Json = False,
):
    """Print class weights that make up for rare classes, for the losses."""
    zoo = quiet_zoo()
    from cnn_zoo.palette import spans

    names, colors, ids = values.classes(classes), values.palette(palette), values.ids(ignore)
    report = zoo.check_masks(masks, names, palette=colors, ignore=ids).raise_if_bad()
    names = names if names is not None else report.classes
    if names is None:
        seen = set(report.pixels) - set(report.ignore)
        names = len(seen)
        if seen != set(range(names)):
            raise InputError(
                f"the masks hold the ids {spans(seen)}: say with --classes how many classes there are, and with --ignore which ids are none"
            )
    weights = zoo.class_weights_from(masks, names, report.ignore, how, colors)
    names = [str(i) for i in range(names)] if isinstance(names, int) else list(names)
    if as_json:
        return _print_json({"how": how, "classes": names, "weights": weights.tolist()})
    wide = max(map(len, names))
    for i, (name, weight) in enumerate(zip(names, weights)):
        typer.echo(f"{name:{wide}}  {report.pixels.get(i, 0):>15,} pixels  {weight:.4f}")


@app.command()
def doctor(as_json: Json = False):
    """Say what hardware, versions and extras are there, and what is wrong."""
    quiet_zoo()
    from cnn_zoo import doctor

    report = doctor.examine()
    _print_json(report) if as_json else typer.echo(doctor.describe(report))
    if report["problems"]:
        raise typer.Exit(1)


def _model(zoo, source):
    """A trained model and the names of its classes."""
    net, colon, tag = str(source).rpartition(":")
    if colon and not source.exists() and (net in zoo.SPECS or (net, tag) in zoo.WEIGHTS):
        build = zoo.build if net in zoo.SPECS else zoo.build_named
        return build(net, weights=tag), zoo.weights.find(net, tag).classes
    return zoo.load_model(source)


def _count(number):
    return "?" if number is None else f"{number:,}"


def _records(which):
    import fnmatch

    zoo = quiet_zoo()
    pattern = which if ":" in which else f"{which}:*"
    found = [
        record for (net, tag), record in sorted(zoo.WEIGHTS.items()) if fnmatch.fnmatchcase(f"{net}:{tag}", pattern)
    ]
    if not found:
        raise InputError(f"no weights match {which!r}; `cnn-zoo weights list` names all")
    return found


def _say(text: str) -> None:
    """Tell the person at the terminal, on standard error."""
    typer.echo(text, err=True)


def _print_json(value) -> None:
    typer.echo(json.dumps(value, indent=2))


def _options(texts) -> dict:
    found = values.settings(texts, "--option")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _with_size(net, data, options) -> dict:
    """Options for data, with the size of a classifier where none is given and the data can be brought to one."""
    from cnn_zoo import segmenting
    from cnn_zoo.data.opening import TAKES, kind_of
    from cnn_zoo.registry import get_spec

    if segmenting.is_named(net):
        return options
    size = list(get_spec(net).size)
    sized = "size" in TAKES[kind_of(data, options.get("kind"), options)]
    return {"size": size, **options} if sized else options


def _run_of(source):
    """The `Run` that a model lies in, or None."""
    from cnn_zoo.train import Run

    folder = source if source.is_dir() else source.parent
    return Run.load(folder) if source.exists() and (folder / "run.json").is_file() else None


def _write_evaluation(evaluation, data, folder, model) -> None:
    from cnn_zoo import plots
    from cnn_zoo.files import make_folder, replacing

    folder = make_folder(folder)
    with replacing(folder / "report.json") as path:
        path.write_text(json.dumps(evaluation.to_dict(), indent=2))
    classes = evaluation.classes
    plots.confusion_matrix(evaluation.confusion, classes, save=folder / "confusion.png")
    if data.test.has_masks:
        return _draw_masks(evaluation, data, folder, model)
    split = data.test
    plots.prediction_grid(
        split.images, evaluation.probabilities, split.labels, classes, save=folder / "predictions.png"
    )


def _draw_masks(evaluation, data, folder, model) -> None:
    import numpy as np

    from cnn_zoo import Palette, mask_plots, predict_mask

    split = data.test

    few = split.take(np.linspace(0, len(split) - 1, min(4, len(split))).round().astype(int))
    found, palette = predict_mask(model, few.images, classes=evaluation.classes), Palette.of(evaluation.classes)
    mask_plots.side_by_side(few.images, found, few.labels, palette, ignore=data.ignore, save=folder / "predictions.png")
    mask_plots.iou_bars(evaluation.scores()["iou"], palette=palette, save=folder / "iou.png")


def main() -> None:
    """Entry point: errors that the package raises on purpose become one sentence and an exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up notes are not for users
    warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
    try:
        app()
    except TrainingStopped as error:
        _say(f"stopped: {error}")
        sys.exit(1)
    except ZooError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(1)
