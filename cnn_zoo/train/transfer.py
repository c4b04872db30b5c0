"""`fine_tune`: the head first, with a frozen trunk, then the trunk with it, each stage at a rate of its own."""

import shutil
from datetime import datetime
from pathlib import Path

import keras

from cnn_zoo.augment import PRESETS, Augmenter, hue, saturation
from cnn_zoo.errors import InputError
from cnn_zoo.files import replacing
from cnn_zoo.freezing import check_stage, freeze
from cnn_zoo.freezing import stages as stages_of
from cnn_zoo.outputs import is_segmenter
from cnn_zoo.train.distribute import Devices
from cnn_zoo.train.fit import fit
from cnn_zoo.train.recipe import Recipe
from cnn_zoo.train.recipe import recipe as find_recipe
from cnn_zoo.train.run import Run, check_new, join_runs

RATES = {"stem": 0.1, "stages": 0.3, "head": 1}
COLOURLESS = tuple(step for step in PRESETS["natural"] if not isinstance(step, saturation | hue))


def fine_tune(
    model: keras.Model,
    data,
    recipe: str | Recipe = "transfer",
    *,
    stages=None,
    head_epochs: int | None = None,
    rates: dict | None = None,
    loss: keras.losses.Loss | None = None,
    validation=None,
    run=None,
    resume: bool = False,
    callbacks=(),
    verbose="auto",
    about: dict | None = None,
    devices: Devices | None = None,
) -> Run:
    """Train a net that has learned something else already, such as what `build_classifier` or `build_segmenter` makes of ImageNet's weights.

    First the head is trained, so that its random start does not shake the trunk, which is frozen with its BatchNorm statistics; then the trunk is
    freed, at lower rates the nearer a stage is to the image (Howard & Ruder 2018, sections 3.2 and 3.3, for language models). Each phase starts
    from the best weights of the one before, and the model ends with the best of all, by validation accuracy (masks: mean IoU).

    Args:
        model: As for `fit`, with a trunk and a head (`cnn_zoo.freezing`).
        data: As for `fit`.
        recipe: As for `fit`; its `epochs` are those of all phases together, and its schedule runs once a phase. For images that are not RGB the
            augmentation "natural" is taken without its steps for colours.
        stages: What is freed after the head, in turn: stages such as ["stage4", "stage3"], with all that comes after them. What comes before the
            last of them stays frozen. Default: everything at once.
        head_epochs: Epochs of the head alone, at least 1. Default: a quarter. The others share the rest evenly.
        rates: Multiples of the learning rate by stage, when the trunk learns; the head alone has the whole rate before. Default: the recipe's,
            or `RATES`.
        loss, validation, callbacks, verbose, about: As for `fit`.
        run: The folder. It has a run folder for each phase, `1-head`, `2-all` (or `2-stage4`, ...), and joined the same files as any run folder.
        devices: As for `fit`, on one machine (`mirrored()`).
        resume: Go on with the run in that folder: with the phase that it was in, from its last whole epoch. It ends with the same weights.

    Returns:
        The whole run; `about["phases"]` lists the phases.

    Raises:
        InputError: No such stage, a model that is all head or has none, too few epochs, or as for `fit`.
        StorageError, TrainingStopped: As for `fit`.
    """
    recipe = find_recipe(recipe)
    if devices is not None and devices.workers > 1:
        raise InputError("fine_tune trains on one machine: mirrored(); on several, call freeze and fit for each phase")
    if recipe.rates is None or rates is not None:
        recipe = recipe.replace(rates=RATES if rates is None else rates)
    if recipe.augment == "natural" and model.input_shape[-1] != 3:
        border = "reflect" if is_segmenter(model) else "constant"  # as the preset has it
        recipe = recipe.replace(augment=Augmenter(COLOURLESS, border=border))
    folder = Path(run or Path("runs") / f"{model.name}-{recipe.name}-{datetime.now():%Y%m%d-%H%M%S}")
    if not resume:
        check_new(folder)
    phases = _phases(model, recipe, stages, head_epochs)
    recipe.make_optimizer(1, model)  # so that rates of stages that are not there are found now
    settings = {"recipe": recipe.to_dict(), "phases": [name for name, *_ in phases]}
    runs = []
    for name, frozen, phase in phases:
        freeze(model, frozen)
        begun = (folder / name / "run.json").is_file()
        if resume and runs and not begun:
            shutil.rmtree(folder / name, ignore_errors=True)  # killed before its first file was whole
        if verbose:
            print(f"{name}: {phase.epochs} epochs, frozen: {f'up to {frozen}' if frozen else 'nothing'}")
        runs.append(
            fit(
                model,
                data,
                phase,
                loss=loss,
                validation=validation,
                run=folder / name,
                resume=resume and (begun or not runs),
                callbacks=callbacks,
                verbose=verbose,
                about={**(about or {}), "fine_tune": settings},
                devices=devices,
            )  # fmt: skip
        )
    best = max(reversed(runs), key=lambda run: run.about["best"])  # of equals the last: it has seen most
    model.load_weights(best.folder / "best.keras")
    with replacing(folder / "best.keras") as aside:
        model.save(aside)
    return join_runs(folder, runs, best, settings["recipe"])


def _phases(model, recipe, stages, head_epochs):
    """For each phase its name, the last stage that is frozen, and its recipe."""
    found = list(stages_of(model))
    if "head" not in found or len(found) < 2:
        raise InputError(
            f"fine_tune trains a head and then its trunk, and {model.name!r} has only {', '.join(found)}: build_classifier and build_segmenter "
            "give both; fit trains anything"
        )
    trunk = found[: found.index("head")]
    freed = [trunk[0]] if stages is None else [stages] if isinstance(stages, str) else list(stages)
    for stage in freed:
        check_stage(stage, trunk)
    if sorted(freed, key=found.index, reverse=True) != freed or len(set(freed)) != len(freed):
        raise InputError(
            f"stages are freed from the head towards the image, such as {trunk[::-1][:2]}, and not in the order {freed}"
        )
    head_epochs = max(1, recipe.epochs // 4) if head_epochs is None else head_epochs
    rest = recipe.epochs - head_epochs
    if not (isinstance(head_epochs, int) and head_epochs >= 1 and rest >= len(freed)):
        raise InputError(
            f"{recipe.epochs} epochs are too few for {head_epochs} of the head and one of each of {len(freed)} further phases: give more epochs"
        )
    phases = [("1-head", trunk[-1], recipe.replace(epochs=head_epochs, rates=None, decays=None, restore_best=True))]
    for i, stage in enumerate(freed):
        epochs = rest // len(freed) + (i < rest % len(freed))
        before = found.index(stage)
        name = f"{i + 2}-{'all' if stages is None else stage}"
        phases.append((name, found[before - 1] if before else None, recipe.replace(epochs=epochs, restore_best=True)))
    return phases
