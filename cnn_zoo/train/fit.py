"""`fit`: Keras' own `model.fit`, with a run folder, checkpoints, and resume that ends with the same bits."""

import dataclasses
import json
import math
import os
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import keras
import numpy as np

from cnn_zoo import losses, metrics
from cnn_zoo.data import Data, Split, check_batch, pipeline, plain_errors
from cnn_zoo.data.arrays import check_labels
from cnn_zoo.data.pipeline import augmenter, mixes_labels
from cnn_zoo.data.throughput import cached_split
from cnn_zoo.errors import InputError, StorageError, TrainingStopped
from cnn_zoo.files import make_folder, replacing
from cnn_zoo.masks import class_weights_from
from cnn_zoo.outputs import is_segmenter, output_kind
from cnn_zoo.train.distribute import Devices
from cnn_zoo.train.precision import choose, computing, lowered
from cnn_zoo.train.recipe import Recipe
from cnn_zoo.train.recipe import recipe as find_recipe
from cnn_zoo.train.run import (
    Run,
    architecture,
    check_new,
    environment,
    read_progress,
    restore_state,
    save_state,
    settled,
    state_variables,
    write_history,
    write_text,
)
from cnn_zoo.train.sam import sharpness_aware
from cnn_zoo.train.schedules import Plateau

STEPS_AT_ONCE = 50  # steps between two returns to Python, at most


def fit(
    model: keras.Model,
    data,
    recipe: str | Recipe = "lecture",
    *,
    loss: keras.losses.Loss | None = None,
    validation=None,
    run=None,
    resume: bool = False,
    callbacks=(),
    verbose="auto",
    about: dict | None = None,
    devices: Devices | None = None,
) -> Run:
    """Train a classifier or a segmenter.

    Everything about the run is kept in one folder (see `cnn_zoo.train.run`). A run that ended before its time, by Ctrl-C, a crash or
    `kill -9`, goes on with `resume=True` and ends with the same weights, bit for bit on the same machine, as one that never stopped: state is
    kept after each epoch, and the order of the images in an epoch is a function of the seed and the epoch alone.

    Args:
        model: A Keras model from `(batch, height, width, channels)` to `(batch, classes)`, or to `(batch, height, width, classes)` for masks; it
            is compiled here.
        data: A `Data`; or a `tf.data.Dataset` of batches `(images, integer labels or masks)` of finite length that yields the same batches in
            each epoch (resume is then exact only if it does).
        recipe: The name of a recipe, or a `Recipe`.
        loss: For masks, instead of the recipe's: say, a `cnn_zoo.losses.CrossEntropy(multi_label=True)` for labels that overlap, or one with
            other ids to ignore. A `Data` brings its own `ignore`.
        validation: With a `tf.data.Dataset`, another one to validate on.
        run: The folder. Default: `runs/<model>-<recipe>-<time>`.
        resume: Go on with the run in that folder; model, data and recipe must be those it was started with. Only `epochs` may be raised,
            where the schedule does not depend on it. A run that has ended trains no further.
        callbacks: More Keras callbacks.
        verbose: 0, 1 (progress bar), 2 (a line an epoch), or "auto": a bar at a terminal and in a notebook, lines in a file.
        about: Anything worth keeping in run.json, as plain values.
        devices: Where to train, if not on one device: `cnn_zoo.train.distribute.mirrored()` or `workers()`, in whose scope the model was built.

    Returns:
        The finished `Run`.

    Raises:
        InputError: Data that do not fit the model, a folder in use, or a resume that differs from what was started.
        StorageError: The folder cannot be written or the disk is full; the files of the last whole epoch stand.
        TrainingStopped: Ctrl-C (the message says how to go on), or a loss that is not finite (it says what to try).
    """
    recipe, devices = find_recipe(recipe), devices or Devices()
    devices.check(model, recipe.batch_size)
    if recipe.deterministic:
        one_order()
    if recipe.sam and devices.engine is not None:
        raise InputError("sam trains on one device: leave devices= out, or take a recipe with sam=0")
    model = sharpness_aware(model, recipe.sam) if recipe.sam else devices.trainer(model)
    with devices.scope(), devices.plain_errors(run):
        return _fit(model, data, recipe, loss, validation, run, resume, callbacks, verbose, about, devices)


def _fit(model, data, recipe, loss, validation, run, resume, callbacks, verbose, about, devices):
    task = prepare(model, data, recipe, loss)
    folder = Path(run or Path("runs") / f"{model.name}-{recipe.name}-{datetime.now():%Y%m%d-%H%M%S}")
    if devices.chief:
        Run.load(folder) if resume else check_new(folder)
    folder, verbose = devices.folder(folder, resume), verbose if devices.chief else 0

    precision, why = _precision(recipe, folder, resume)
    compile_model(model, task, recipe.make_optimizer(task.steps, model), precision, several=devices.engine is None)
    model.optimizer.build(model.trainable_variables)
    identity = {"recipe": recipe.to_dict(), "architecture": architecture(model), "data": task.described}
    if task.masks:
        identity["loss"] = settled(keras.losses.serialize(task.loss))
    about = {"classes": task.classes, "precision": {"used": precision, "why": why}, **(about or {})}
    keeper = _Keeper(folder, recipe, identity, about, task.held_out(validation) is not None)
    keeper.set_model(model)
    if resume:
        keeper.resume()
    else:
        keeper.start()
    devices.check_alike(state_variables(model))
    if not keeper.ended():
        if precision != "float32":
            keeper.lowered = lowered(model)
        with computing(keeper.lowered, precision), penalised(model, recipe.l1, recipe.l2):
            _train(model, task, validation, keeper, callbacks, verbose, devices)
    elif verbose:
        print(f"{str(folder)!r} has ended after {keeper.epoch} epochs: there is nothing left to train")
    if recipe.ema:
        take_averages(model)
    if recipe.restore_best and keeper.best_epoch:
        # Into the model that is there: loading a model would need each layer class of the user's to be registered.
        model.load_weights(folder / "best.keras")
    keeper.end(keeper.ended() or "stopped early")  # a callback of the user's may stop a training, too
    return Run.load(folder)


@contextmanager
def penalised(model, l1: float, l2: float):
    """Within it, the sums of the absolute and of the squared values of all kernels, times these factors, are part of the loss.

    It comes on top of what layers have themselves, and leaves no trace in the model or its files. As ever in Keras, the validation loss has it, too.
    """
    kernels = [v for v in model.trainable_variables if v.name.endswith("kernel")] if l1 or l2 else []
    before = [v.regularizer for v in kernels]
    penalty = keras.regularizers.L1L2(l1, l2)

    def both(own):
        return penalty if own is None else lambda values: own(values) + penalty(values)

    try:
        for variable, own in zip(kernels, before):
            variable.regularizer = both(own)
        yield
    finally:
        for variable, own in zip(kernels, before):
            variable.regularizer = own


def one_order() -> None:
    """Let the backend compute in one order only.

    Raises:
        InputError: With JAX on a GPU this is a setting of the environment, which lacks it.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(True)
    elif backend == "jax":
        import jax

        if jax.default_backend() == "gpu" and "xla_gpu_deterministic_ops=true" not in os.environ.get("XLA_FLAGS", ""):
            raise InputError("with JAX on a GPU set XLA_FLAGS=--xla_gpu_deterministic_ops=true before Python starts")


@dataclass(frozen=True)
class Task:
    """What a model is trained on and by, made of the data and the recipe.

    Attributes:
        data: A `Data` with its validation split, or a `tf.data.Dataset`.
        recipe: The recipe.
        classes: Names of the classes, or None.
        outputs: Number of the model's outputs.
        masks: Whether it is a segmenter.
        mixes: Whether augmentation makes shares of classes of labels.
        augment: The augmentation.
        weights: A weight for each class of labels, or None.
        loss, scores: For `compile`.
        steps: Of an epoch.
        described: The data, for run.json.
    """

    data: object
    recipe: Recipe
    classes: list | None
    outputs: int
    masks: bool
    mixes: bool
    augment: object
    weights: np.ndarray | None
    loss: keras.losses.Loss
    scores: list
    steps: int
    described: dict

    def held_out(self, validation=None):
        """The validation split or data set, or None."""
        return self.data.validation if isinstance(self.data, Data) else validation

    def batches(self, split: Split | None = None, first_epoch: int = 0, epochs: int = 1):
        """What a step is given: images with labels or masks, or with shares of classes; and with weights, where classes weigh differently.

        A split that is given instead of the training images is kept where `cached_split` has put it already.
        """
        recipe, dataset = self.recipe, self.data
        if isinstance(self.data, Data):
            dataset = pipeline(
                split or self.data.train, recipe.batch_size, shuffle=True, seed=recipe.seed, first_epoch=first_epoch, epochs=epochs,
                repeat=recipe.repeat, augment=self.augment, balance=recipe.balance == "sampling",
                cache="auto" if split is None else "none",
            )  # fmt: skip
        if self.weights is not None or recipe.label_smoothing:
            return dataset.map(self._target)
        return dataset

    def shares(self, dataset):
        """The same batches with labels as shares, where those of the training are: their loss and accuracy are those of the ids."""
        if self.masks or not (self.mixes or self.recipe.label_smoothing):
            return dataset
        return dataset.map(lambda images, labels: (images, self._one_hot(labels)))

    def _one_hot(self, labels):
        import tensorflow as tf

        shares = tf.one_hot(tf.reshape(labels, [-1]), self.outputs)
        return shares / tf.reduce_sum(
            shares, -1, keepdims=True
        )  # a label that is no class makes the loss NaN, as with ids

    def _target(self, images, labels):
        import tensorflow as tf

        weights = ()
        if self.weights is not None:
            of_classes = tf.constant(self.weights)
            weights = (tf.linalg.matvec(labels, of_classes) if self.mixes else tf.gather(of_classes, labels),)
        if smoothing := self.recipe.label_smoothing:
            shares = labels if self.mixes else self._one_hot(labels)
            labels = shares * (1 - smoothing) + smoothing / self.outputs
        return images, labels, *weights


def prepare(model: keras.Model, data, recipe: Recipe, loss=None) -> Task:
    """Check that model, data and recipe fit each other, and say what will be trained.

    Raises:
        InputError: They do not.
    """
    masks = is_segmenter(model)
    outputs = model.output_shape[-1]
    for field in ("label_smoothing", "balance"):
        if masks and getattr(recipe, field):
            instead = ": masks have class_weight" if field == "balance" else ""
            raise InputError(f"{field} of a recipe is for labels, and the model gives masks{instead}")
    if recipe.balance and not isinstance(data, Data):
        raise InputError("balance counts the labels of a Data: balance a tf.data.Dataset yourself, and leave it out")
    augment = augmenter(recipe.augment, masks)
    if mixes := not masks and mixes_labels(augment) and isinstance(data, Data):
        augment = _for_classes(augment, outputs)
    classes = weights = None
    if isinstance(data, Data):
        if data.validation is None and recipe.validation:
            data = data.split(recipe.validation, recipe.seed)
        _check(model, data)
        classes, described = list(data.classes), data.describe()
        steps = math.ceil(len(data.train) * recipe.repeat / recipe.batch_size)
        if recipe.balance == "weights":
            weights = class_weights(data.train.labels, outputs)
    else:
        steps, described = _describe_dataset(model, data)
    if masks:
        loss, scores = _for_masks(model, data, recipe, loss)
    else:
        loss, scores = _for_labels(model, loss, mixes or bool(recipe.label_smoothing))
    return Task(data, recipe, classes, outputs, masks, mixes, augment, weights, loss, scores, steps, described)


def compile_model(model, task: Task, optimizer, precision: str, several: bool = True) -> None:
    """Compile a model for a task; with `several`, many steps run at once where Keras can."""
    if precision == "float16" and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        if task.recipe.sam:
            raise InputError(
                "sam needs gradients without loss scaling, and this hardware would use float16: take the precision 'float32'"
            )
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    several = several and not task.masks and keras.backend.backend() != "torch"
    model.compile(
        optimizer=optimizer,
        loss=task.loss,
        metrics=task.scores,
        steps_per_execution=steps_at_once(task.steps) if several else 1,
    )


def take_averages(model) -> None:
    """Give a model the averages of its weights that its optimizer keeps."""
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for variable in model.trainable_variables:
        # A value of its own: with JAX both would be one array, which the next step deletes.
        variable.assign(np.array(keras.ops.convert_to_numpy(variable)))


def class_weights(labels, classes: int) -> np.ndarray:
    """Weights n / (k n_c) of classes, where k of them occur: 1 on average over the images; what does not occur has 0."""
    counts = np.bincount(labels, minlength=classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 0).astype("float32")


def _precision(recipe, folder, resume):
    """What to compute in, and why; a resumed run goes on as it began, whatever the hardware."""
    kept = Run.load(folder).about.get("precision") if resume else None
    return (kept["used"], kept["why"]) if kept and recipe.precision == "auto" else choose(recipe.precision)


def _for_labels(model, loss, shares):
    """Loss and metrics of a classifier, of ids or of shares of classes."""
    if loss is not None:
        raise InputError("loss= is for masks; labels are trained on with cross-entropy")
    if (kind := output_kind(model)) == "sigmoid":
        raise InputError(
            "integer labels need an output of softmax or logits, not sigmoid: build the model with activation='softmax'"
        )
    if shares:
        return keras.losses.CategoricalCrossentropy(from_logits=kind == "logits"), [
            keras.metrics.CategoricalAccuracy(name="accuracy")
        ]
    return keras.losses.SparseCategoricalCrossentropy(from_logits=kind == "logits"), [
        keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    ]


def _for_classes(augment, classes):
    """The augmenter that knows how many classes its shares are of."""
    if augment.classes not in (None, classes):
        raise InputError(f"the Augmenter has {augment.classes} classes and the model {classes}: leave classes= out")
    return dataclasses.replace(augment, classes=classes)


def _for_masks(model, data, recipe, loss):
    """Loss and metrics of a segmenter: of a `Data` its void is ignored, and its rare classes may weigh more."""
    classes, kind = model.output_shape[-1], output_kind(model)
    ignore = data.ignore if isinstance(data, Data) else ()
    if loss is None:
        if classes > 1 and kind == "sigmoid":
            raise InputError(
                "ids exclude each other, and a sigmoid a class does not: build the model with activation='softmax', or, for labels that overlap, "
                "give loss=cnn_zoo.losses.CrossEntropy(multi_label=True)"
            )
        weights = None
        if recipe.class_weight is not None:
            if not isinstance(data, Data):
                raise InputError(
                    "class_weight counts the masks of a Data; with a tf.data.Dataset give loss= with its class_weight"
                )
            weights = class_weights_from(data.train.labels, data.classes, ignore, recipe.class_weight)
        loss = losses.named(recipe.loss, from_logits=kind == "logits", ignore=ignore, class_weight=weights)
    elif isinstance(loss, losses.SegmentationLoss):
        ignore = loss.ignore
    several = getattr(loss, "multi_label", False)
    settings = {"multi_label": several, "from_logits": kind == "logits" and (several or classes == 1), "ignore": ignore}
    return loss, [metric(max(classes, 2), **settings) for metric in (metrics.PixelAccuracy, metrics.MeanIoU)]


def _train(model, task, validation, keeper, callbacks, verbose, devices):
    folder, data, recipe = keeper.folder, task.data, task.recipe
    held_out, settings = task.held_out(validation), {}
    if isinstance(data, Data):
        epochs = recipe.epochs - keeper.epoch
        train, choices = cached_split(data.train, epochs=epochs * recipe.repeat)
        if choices:
            keeper.about["cache"] = choices
        training = task.batches(train, keeper.epoch, recipe.epochs)
        held = held_out and cached_split(held_out, epochs=epochs)[0]
        held_out = held and pipeline(held, recipe.batch_size if task.masks else max(recipe.batch_size, 256))
        settings = {"steps_per_epoch": task.steps}
    else:
        training = task.batches()
    held_out = held_out and task.shares(held_out)
    training, held_out, settings = devices.feed(training, held_out, task.steps, settings)
    try:
        with plain_errors():
            model.fit(
                training,
                validation_data=held_out,
                initial_epoch=keeper.epoch,
                epochs=recipe.epochs,
                shuffle=False,
                callbacks=[*devices.callbacks(model), *keeper.before, keeper, *_tensorboard(folder), *callbacks],
                verbose=(1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2)
                if verbose == "auto"
                else verbose,
                **settings,
            )
    except KeyboardInterrupt:
        keeper.end("interrupted")
        raise TrainingStopped(
            f"interrupted after {keeper.epoch} of {recipe.epochs} epochs; go on by {_how_to_go_on(keeper.about, folder)}"
        ) from None
    except _NotFinite as error:
        keeper.end("diverged")
        kept = f"the weights of epoch {keeper.epoch} are in {str(folder / 'last.keras')!r}" if keeper.epoch else ""
        advice = "check that images are 0..255 and labels right"
        if is_segmenter(model):
            advice = "check the masks (cnn_zoo.check_masks): an id that is no class makes this loss NaN on purpose"
        raise TrainingStopped(
            f"{error} in epoch {keeper.epoch + 1}; {kept or 'no epoch was finished, so no weights were kept'}. "
            f"Try a learning rate of {recipe.learning_rate / 10:g}; {advice}"
        ) from None


def _how_to_go_on(about, folder):
    """Of a run in phases, of which this may be one, the whole is resumed; a command is named if one has begun it."""
    whole = folder.parent if {"fine_tune", "prune"} & about.keys() else folder
    commands = [f" or `cnn-zoo {name} --resume {whole}`" for name in ("train", "finetune") if name in about]
    return f"the same call with run={str(whole)!r}, resume=True{''.join(commands)}"


def steps_at_once(steps: int) -> int:
    """How many steps run between two returns to Python: what divides an epoch, up to `STEPS_AT_ONCE`."""
    return max(count for count in range(1, STEPS_AT_ONCE + 1) if steps % count == 0)


class _NotFinite(Exception):
    """A loss or a weight is NaN or infinite; the message says which."""


class _Keeper(keras.callbacks.Callback):
    """Keeps the run folder up to date, and watches the loss and the clock."""

    def __init__(self, folder, recipe, identity, about, validates):
        super().__init__()
        self.plateau = (
            Plateau("val_loss" if validates else "loss", recipe.patience) if recipe.schedule == "plateau" else None
        )
        self.before = [self.plateau] if self.plateau else []  # the state has the rate that it decides on
        self.lowered = []  # layers that compute in short numbers, though their model is kept in float32
        self.folder, self.recipe, self.identity, self.about = folder, recipe, identity, about
        self.status, self.epoch, self.rows, self.best, self.best_epoch = "running", 0, [], None, None

    # -- the folder

    def start(self):
        """Write the first files. What a run will need on the disk is asked for now, not in the middle of the night."""
        needed = 4 * sum(math.prod(v.shape) * 4 for v in state_variables(self.model)) + (1 << 20)
        there = next(path for path in (self.folder, *self.folder.absolute().parents) if os.path.exists(path))
        if (
            free := shutil.disk_usage(there).free
        ) < needed:  # before there is a folder that would be in the way next time
            raise StorageError(
                f"the disk of {str(self.folder)!r} has {free / 2**20:.0f} MiB free and this run needs about "
                f"{needed / 2**20:.0f} MiB: free some space, or choose another folder with run="
            )
        make_folder(self.folder)
        self.about = {**self.about, **environment(), "model": self.describe_model()}
        self.write()

    def resume(self):
        """Take up the state of the last whole epoch, after checking that it is the same training."""
        kept = Run.load(self.folder)
        changed = _differences(kept, self.identity)
        if changed:
            raise InputError(
                f"cannot resume {str(self.folder)!r}, since it was started with other settings: {'; '.join(changed)}"
            )
        restore_state(self.folder / "state.npz", self.model)
        progress = read_progress(self.folder / "state.npz")
        self.epoch, self.rows, self.best, self.best_epoch = (
            progress[k] for k in ("epoch", "history", "best", "best_epoch")
        )
        if self.plateau:
            self.plateau.kept = progress.pop("plateau")
        self.about = {
            key: value for key, value in kept.about.items() if key not in (*self.identity, *progress, "status")
        }
        # Told by the state, not by run.json: a kill may have come between the last epoch and the last word.
        if not self.ended():
            self.about["resumed"] = [*self.about.get("resumed", []), {"after_epoch": self.epoch, **environment()}]

    def ended(self):
        """How the training has ended, or None while epochs are left."""
        patience = self.recipe.early_stopping
        if self.epoch >= self.recipe.epochs:
            return "finished"
        return "stopped early" if patience and self.epoch and self.epoch - self.best_epoch >= patience else None

    def describe_model(self):
        trainable = sum(math.prod(v.shape) for v in self.model.trainable_variables)
        shapes = {"input_shape": self.model.input_shape[1:], "output_shape": self.model.output_shape[1:]}
        return {"name": self.model.name, "trainable_parameters": trainable, **shapes}

    def write(self):
        progress = {"epoch": self.epoch, "history": self.rows, "best": self.best, "best_epoch": self.best_epoch}
        if self.plateau:
            progress["plateau"] = self.plateau.state
        save_state(self.folder / "state.npz", self.model, progress)
        self.write_texts()

    def write_texts(self):
        if self.rows:
            write_history(self.folder / "history.csv", self.rows)
        progress = {"epoch": self.epoch, "best": self.best, "best_epoch": self.best_epoch, "history": self.rows}
        values = {"status": self.status, **self.identity, **self.about, **progress}
        write_text(self.folder / "run.json", json.dumps(values, indent=2))

    def end(self, status):
        self.status = status
        self.write_texts()

    # -- the training

    def on_epoch_begin(self, epoch, logs=None):
        self.began, self.paused, self.pause = time.perf_counter(), 0.0, None

    def on_test_begin(self, logs=None):
        self.pause = time.perf_counter()
        self._swap_in_averages()

    def on_test_end(self, logs=None):
        self._swap_out_averages()
        self.paused += time.perf_counter() - self.pause

    def on_train_batch_end(self, batch, logs=None):
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise _NotFinite(f"the loss became {loss}")

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.began - self.paused
        # Of a plateau: the rate of this epoch, which may be another one by now.
        rate = float(logs.get("learning_rate", keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))
        values = {key: float(value) for key, value in logs.items() if key != "learning_rate"}
        # Before anything is written: the step that ruins the weights has a good loss itself, and may be the last one of the epoch.
        for key, value in values.items():
            if not math.isfinite(value) and key in (
                "loss",
                "val_loss",
            ):  # the IoU of a class that is nowhere is NaN by right
                raise _NotFinite(f"the {key} became {value}")
        if not all(np.isfinite(weight).all() for weight in self.model.get_weights()):
            raise _NotFinite("the weights became infinite or NaN")
        self.rows = [*self.rows, {"epoch": epoch + 1, **values, "learning_rate": rate, "seconds": round(seconds, 3)}]
        self._swap_in_averages()
        watched = "mean_iou" if "mean_iou" in values else "accuracy"
        score = values.get(f"val_{watched}", values[watched])
        # Of equal epochs the first, by validation; by the training images alone the last, since these say the less the better they are known.
        equal = score == self.best and f"val_{watched}" not in values
        if self.best is None or score > self.best or equal:
            self.best, self.best_epoch = score, epoch + 1
            self._save_model("best.keras")
        self._save_model("last.keras")
        self._swap_out_averages()
        self.epoch = epoch + 1
        self.write()  # the state comes after the models: a kill in between repeats the epoch and writes the same models again
        if self.ended():
            self.model.stop_training = True

    def _save_model(self, name):
        with replacing(self.folder / name) as aside, computing(self.lowered, "float32"):
            self.model.save(aside)

    def _swap_in_averages(self):
        """Give the model the averages of its weights, if the recipe has some. Keras' own callback adds and subtracts, which rounds."""
        if self.recipe.ema:
            self.weights = [np.array(keras.ops.convert_to_numpy(v)) for v in self.model.trainable_variables]
            take_averages(self.model)

    def _swap_out_averages(self):
        if self.recipe.ema:
            for variable, value in zip(self.model.trainable_variables, self.weights):
                variable.assign(value)


def _differences(kept, identity):
    before, now = kept.about["recipe"], Recipe.from_dict(identity["recipe"])
    changes = now.changes_since(before)
    if now.schedule in ("constant", "plateau") and now.epochs > before["epochs"]:
        del changes["epochs"]
    changed = list(changes.values())
    if kept.about["architecture"] != identity["architecture"]:
        changed.append("the model has other layers, settings or shapes")
    if kept.about["data"] != json.loads(json.dumps(identity["data"])):
        changed.append("the data are not the same")
    if kept.about.get("loss") != json.loads(json.dumps(identity.get("loss"))):
        changed.append("the loss has other settings")
    return changed


def _check(model, data):
    for split in (data.train, data.validation):
        if split is not None:
            if split.has_masks != is_segmenter(model):
                have, gives = ("masks", "a class an image") if split.has_masks else ("labels", "a class a pixel")
                raise InputError(
                    f"the data have {have} and the model gives {gives}: build_segmenter makes models for masks, build others"
                )
            check_batch(split.images, model.input_shape[1:])
            check_labels(
                split.labels, max(2, model.output_shape[-1]) if split.has_masks else model.output_shape[-1], data.ignore
            )
    if len(data.train) == 0:
        raise InputError("there are no training images")
    if (
        not data.train.has_masks
        and (only := data.train.labels[0]) == data.train.labels.max() == data.train.labels.min()
    ):
        raise InputError(
            f"all {len(data.train)} training images are of class {only}: there is nothing to tell apart; see how the labels are read"
        )
    if data.train.has_masks and model.output_shape[1:3] != model.input_shape[1:3]:
        raise InputError(
            f"the model takes {model.input_shape[1:3]} pixels and gives {model.output_shape[1:3]}: train one whose masks are as large as its images"
        )


def _describe_dataset(model, dataset):
    spec = getattr(dataset, "element_spec", None)
    if spec is None:
        raise InputError(
            f"data is a Data (of cnn_zoo.load or Data.from_arrays) or a tf.data.Dataset, not {type(dataset).__name__}"
        )
    if not (isinstance(spec, tuple) and len(spec) == 2 and all(hasattr(part, "shape") for part in spec)):
        raise InputError(f"the tf.data.Dataset must yield batches (images, labels), not {spec}")
    images, labels = spec
    if not images.shape.is_compatible_with(model.input_shape):
        raise InputError(
            f"the model takes batches of shape {model.input_shape} and the tf.data.Dataset yields {images.shape}: "
            "batch() it, resize its images, or build the model with input_size= and channels= of the data"
        )
    if not is_segmenter(model) and (
        not labels.dtype.is_integer or (labels.shape.rank == 2 and labels.shape[1] not in (None, 1))
    ):
        raise InputError(
            f"labels must be integers from 0, one an image, not {labels.dtype.name} of shape {labels.shape}; "
            "one-hot labels: dataset.map(lambda images, labels: (images, tf.argmax(labels, -1)))"
        )
    if is_segmenter(model) and labels.shape.rank not in (None, 3, 4):
        raise InputError(
            f"masks are (batch, height, width), ids, or (batch, height, width, classes), one-hot, not {labels.shape}"
        )
    steps = int(dataset.cardinality())
    if steps < 1:
        raise InputError(
            "the tf.data.Dataset must be of finite, known length: use take(n) or tf.data.experimental.assert_cardinality"
        )
    return steps, {"element_spec": str(dataset.element_spec), "batches": steps}


def _tensorboard(folder):
    try:
        import tensorboard  # noqa: F401  (Keras' callback needs it and fails late without)
    except ImportError:
        return []
    return [keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False)]
