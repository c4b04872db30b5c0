"""`fit`: Keras' own `model.fit`, with a run folder, checkpoints, and resume that ends with the same bits."""

import json
import math
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path

import keras
import numpy as np

from cnn_zoo import losses, metrics
from cnn_zoo.data import Data, check_batch, pipeline, plain_errors
from cnn_zoo.data.arrays import check_labels
from cnn_zoo.errors import InputError, StorageError, TrainingStopped
from cnn_zoo.files import make_folder, replacing
from cnn_zoo.masks import class_weights_from
from cnn_zoo.outputs import is_segmenter, output_kind
from cnn_zoo.train.recipe import Recipe
from cnn_zoo.train.recipe import recipe as find_recipe
from cnn_zoo.train.run import (
    Run,
    architecture,
    environment,
    read_progress,
    restore_state,
    save_state,
    settled,
    state_variables,
    write_history,
    write_text,
)

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
            where the schedule is constant. A run that has ended trains no further.
        callbacks: More Keras callbacks.
        verbose: 0, 1 (progress bar), 2 (a line an epoch), or "auto": a bar at a terminal and in a notebook, lines in a file.
        about: Anything worth keeping in run.json, as plain values.

    Returns:
        The finished `Run`.

    Raises:
        InputError: Data that do not fit the model, a folder in use, or a resume that differs from what was started.
        StorageError: The folder cannot be written or the disk is full; the files of the last whole epoch stand.
        TrainingStopped: Ctrl-C (the message says how to go on), or a loss that is not finite (it says what to try).
    """
    recipe = find_recipe(recipe)
    masks = is_segmenter(model)
    classes = None
    if isinstance(data, Data):
        if data.validation is None and recipe.validation:
            data = data.split(recipe.validation, recipe.seed)
        _check(model, data)
        classes, described = list(data.classes), data.describe()
        steps = math.ceil(len(data.train) * recipe.repeat / recipe.batch_size)
    else:
        steps, described = _describe_dataset(model, data)
    folder = Path(run or Path("runs") / f"{model.name}-{recipe.name}-{datetime.now():%Y%m%d-%H%M%S}")
    _check_folder(folder, resume)

    loss, scores = (_for_masks if masks else _for_labels)(model, data, recipe, loss)
    model.compile(
        optimizer=recipe.make_optimizer(steps),
        loss=loss,
        metrics=scores,
        steps_per_execution=1 if masks else steps_at_once(steps),
    )
    model.optimizer.build(model.trainable_variables)
    identity = {"recipe": recipe.to_dict(), "architecture": architecture(model), "data": described}
    if masks:
        identity["loss"] = settled(keras.losses.serialize(loss))
    keeper = _Keeper(folder, recipe, identity, {"classes": classes, **(about or {})}, resume)
    keeper.set_model(model)
    if resume:
        keeper.resume()
    else:
        keeper.start()
    if not keeper.ended():
        _train(model, data, validation, recipe, steps, keeper, callbacks, verbose)
    elif verbose:
        print(f"{str(folder)!r} has ended after {keeper.epoch} epochs: there is nothing left to train")
    if recipe.restore_best and keeper.best_epoch:
        # Into the model that is there: loading a model would need each layer class of the user's to be registered.
        model.load_weights(folder / "best.keras")
    keeper.end(keeper.ended() or "stopped early")  # a callback of the user's may stop a training, too
    return Run.load(folder)


def _for_labels(model, data, recipe, loss):
    """Loss and metrics of a classifier."""
    if loss is not None:
        raise InputError("loss= is for masks; labels are trained on with cross-entropy")
    if (kind := output_kind(model)) == "sigmoid":
        raise InputError(
            "integer labels need an output of softmax or logits, not sigmoid: build the model with activation='softmax'"
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=kind == "logits"), ["accuracy"]


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


def _train(model, data, validation, recipe, steps, keeper, callbacks, verbose):
    folder = keeper.folder
    if isinstance(data, Data):
        training = pipeline(
            data.train, recipe.batch_size, shuffle=True, seed=recipe.seed, first_epoch=keeper.epoch, epochs=recipe.epochs,
            repeat=recipe.repeat, augment=recipe.augment,
        )  # fmt: skip
        at_once = recipe.batch_size if data.train.has_masks else max(recipe.batch_size, 256)
        held_out = data.validation and pipeline(data.validation, at_once)
        settings = {"steps_per_epoch": steps}
    else:
        training, held_out, settings = data, validation, {}
    try:
        with plain_errors():
            model.fit(
                training,
                validation_data=held_out,
                initial_epoch=keeper.epoch,
                epochs=recipe.epochs,
                shuffle=False,
                callbacks=[keeper, *_tensorboard(folder), *callbacks],
                verbose=(1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2)
                if verbose == "auto"
                else verbose,
                **settings,
            )
    except KeyboardInterrupt:
        keeper.end("interrupted")
        raise TrainingStopped(
            f"interrupted after {keeper.epoch} of {recipe.epochs} epochs; go on with "
            f"fit(model, data, recipe, run={str(folder)!r}, resume=True) or `cnn-zoo train --resume {folder}`"
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


def steps_at_once(steps: int) -> int:
    """How many steps run between two returns to Python: what divides an epoch, up to `STEPS_AT_ONCE`."""
    return max(count for count in range(1, STEPS_AT_ONCE + 1) if steps % count == 0)


class _NotFinite(Exception):
    """A loss or a weight is NaN or infinite; the message says which."""


class _Keeper(keras.callbacks.Callback):
    """Keeps the run folder up to date, and watches the loss and the clock."""

    def __init__(self, folder, recipe, identity, about, resumed):
        super().__init__()
        self.folder, self.recipe, self.identity, self.about = folder, recipe, identity, about
        self.status, self.epoch, self.rows, self.best, self.best_epoch = "running", 0, [], None, None

    # -- the folder

    def start(self):
        """Write the first files. What a run will need on the disk is asked for now, not in the middle of the night."""
        make_folder(self.folder)
        needed = 4 * sum(math.prod(v.shape) * 4 for v in state_variables(self.model)) + (1 << 20)
        if (free := shutil.disk_usage(self.folder).free) < needed:
            raise StorageError(
                f"the disk of {str(self.folder)!r} has {free / 2**20:.0f} MiB free and this run needs about "
                f"{needed / 2**20:.0f} MiB: free some space, or choose another folder with run="
            )
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

    def on_test_end(self, logs=None):
        self.paused += time.perf_counter() - self.pause

    def on_train_batch_end(self, batch, logs=None):
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise _NotFinite(f"the loss became {loss}")

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.began - self.paused
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
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
        watched = "mean_iou" if "mean_iou" in values else "accuracy"
        score = values.get(f"val_{watched}", values[watched])
        if self.best is None or score > self.best:
            self.best, self.best_epoch = score, epoch + 1
            self._save_model("best.keras")
        self._save_model("last.keras")
        self.epoch = epoch + 1
        self.write()  # the state comes after the models: a kill in between repeats the epoch and writes the same models again
        if self.ended():
            self.model.stop_training = True

    def _save_model(self, name):
        with replacing(self.folder / name) as aside:
            self.model.save(aside)


def _differences(kept, identity):
    changed = []
    before, now = kept.about["recipe"], identity["recipe"]
    for field, value in now.items():
        more = field == "epochs" and now["schedule"] == "constant" and value > before.get(field, value)
        if before.get(field, value) != value and not more:
            changed.append(f"{field} was {before.get(field)!r} and is {value!r}")
    if kept.about["architecture"] != identity["architecture"]:
        changed.append("the model has other layers, settings or shapes")
    if kept.about["data"] != json.loads(json.dumps(identity["data"])):
        changed.append("the data are not the same")
    if kept.about.get("loss") != json.loads(json.dumps(identity.get("loss"))):
        changed.append("the loss has other settings")
    return changed


def _check_folder(folder, resume):
    if resume:
        Run.load(folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"the folder {str(folder)!r} is not empty: choose another one, or go on with that run by resume=True"
        )


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
