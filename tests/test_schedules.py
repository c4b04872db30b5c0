"""What a recipe may do besides: schedules, averages, clipping, accumulation, SAM, smoothed labels, balance; all of it is off by default."""

import json
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as L

import cnn_zoo
from cnn_zoo import Data, InputError, Recipe, Run, TrainingStopped
from cnn_zoo.augment import Augmenter, mixup
from cnn_zoo.data import pipeline
from cnn_zoo.train.fit import prepare
from cnn_zoo.train.sam import sharpness_aware
from cnn_zoo.train.schedules import OneCycle

SMALL = Recipe("small", epochs=4, batch_size=30, learning_rate=0.05, optimizer="sgd", validation=0.25)


@pytest.fixture
def data(rng):
    """Three classes told apart by which third of the image is bright, one of them rare."""
    labels = np.repeat([0, 1, 2], [70, 40, 10])
    images = rng.integers(0, 120, (120, 6, 6)).astype("uint8")
    for image, label in zip(images, labels):
        image[2 * label : 2 * label + 2] += 100
    order = rng.permutation(120)
    return Data.from_arrays(images[order], labels[order])


def small_model(dropout=0.0, seed=1):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 1))
    x = L.Dense(8, activation="relu")(L.Flatten()(L.Rescaling(1 / 255)(inputs)))
    if dropout:
        x = L.Dropout(dropout)(L.BatchNormalization()(x))
    return keras.Model(inputs, L.Dense(3, activation="softmax")(x), name="small")


def rates(schedule, steps):
    return [float(schedule(step)) for step in range(steps)]


def test_one_cycle_is_pytorchs():
    torch = pytest.importorskip("torch")
    for steps, climb in ((50, 0.3), (17, 0.2), (40, 0.5)):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.8, total_steps=steps, pct_start=climb)
        expected = []
        for _ in range(steps):
            expected.append(theirs.get_last_lr()[0])
            optimizer.step()
            if len(expected) < steps:
                theirs.step()
        ours = rates(OneCycle(0.8, steps, climb), steps)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-7)
    assert np.isfinite(rates(OneCycle(0.8, 1), 3)).all()
    kept = keras.optimizers.schedules.serialize(OneCycle(0.8, 50))
    assert rates(keras.optimizers.schedules.deserialize(kept), 9) == rates(OneCycle(0.8, 50), 9)


def test_restarts_are_cosines_that_double_and_fill_all_steps():
    schedule = SMALL.replace(schedule="restarts", cycles=3, epochs=7).make_optimizer(10)._learning_rate
    parts = [0.5 * 0.05 * (1 + np.cos(np.pi * np.arange(n) / n)) for n in (10, 20, 40)]
    np.testing.assert_allclose(rates(schedule, 70), np.concatenate(parts), atol=1e-5)
    last = rates(SMALL.replace(schedule="restarts", cycles=3, epochs=1).make_optimizer(69)._learning_rate, 69)
    assert np.sum(np.diff(last) > 0.01) == 2 and last[-1] < 0.001  # the last cycle is cut, and no further one is begun


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "plateau", "warmup": 0.1}, "warmup of a recipe must be 0 with the schedule 'plateau'"),
        ({"schedule": "restarts", "cycles": 0}, "cycles of a recipe must be a whole number of at least 1"),
        ({"patience": 0}, "patience"),
        ({"ema": 1}, "ema of a recipe must be at least 0 and below 1"),
        ({"clip": 0}, "clip of a recipe must be None, or a finite number above 0"),
        ({"accumulate": 1.5}, "accumulate"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"sam": -1}, "sam of a recipe must be a finite number of at least 0"),
        ({"sam": 0.05, "precision": "float16"}, "precision of a recipe must be float32 or bfloat16 with sam"),
        ({"balance": "loss"}, "balance of a recipe must be one of None, sampling, weights"),
        ({"precision": "half"}, "precision of a recipe must be one of float32, auto, bfloat16, float16"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        SMALL.replace(**changes)


def test_by_default_nothing_of_it_is_there(data):
    optimizer = Recipe().make_optimizer(10)
    plain = keras.optimizers.Adam(1e-3)
    assert type(optimizer) is type(plain)
    assert {**optimizer.get_config(), "name": ""} == {**plain.get_config(), "name": ""}
    task = prepare(small_model(), data, Recipe())
    assert isinstance(task.loss, keras.losses.SparseCategoricalCrossentropy) and task.weights is None
    assert [part.dtype.name for part in task.batches().element_spec] == ["uint8", "int64"]


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "one_cycle", "ema": 0.9, "clip": 0.5, "accumulate": 2},
        {"schedule": "restarts", "cycles": 2, "sam": 0.05, "label_smoothing": 0.1, "optimizer": "adamw"},
        {"schedule": "plateau", "patience": 1, "learning_rate": 1.0, "balance": "weights", "augment": Augmenter([mixup()])},
        {"precision": "bfloat16", "balance": "sampling"},
        {"precision": "float16", "ema": 0.8, "optimizer": "adam"},
    ],
    ids=lambda changes: "-".join(changes),
)  # fmt: skip
def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bits(data, tmp_path, changes):
    recipe, whole = SMALL.replace(**changes), small_model(dropout=0.2)
    run = cnn_zoo.fit(whole, data, recipe, run=tmp_path / "whole", verbose=0)
    with pytest.raises(TrainingStopped):
        cnn_zoo.fit(small_model(0.2), data, recipe, run=tmp_path / "run", verbose=0, callbacks=[Stop()])
    model = small_model(0.2, seed=9)
    again = cnn_zoo.fit(model, data, recipe, run=tmp_path / "run", verbose=0, resume=True)
    with np.load(tmp_path / "whole/state.npz") as a, np.load(tmp_path / "run/state.npz") as b:
        assert sorted(a.files) == sorted(b.files)
        for key in a.files:
            if key != "progress":
                np.testing.assert_array_equal(a[key], b[key])
    assert again.history["val_loss"] == run.history["val_loss"] and len(again.rows) == 4
    assert again.history["learning_rate"] == run.history["learning_rate"]
    for values in (model, keras.saving.load_model(tmp_path / "run/last.keras", compile=False)):
        for one, two in zip(whole.get_weights(), values.get_weights()):
            np.testing.assert_array_equal(one, two)
    about = json.loads((tmp_path / "run/run.json").read_text())["recipe"]
    assert Recipe.from_dict(about) == recipe
    with pytest.raises(InputError, match="(ema|sam|patience|balance|precision) was .* and is"):
        other = {"ema": 0.5} if recipe.ema else {"sam": 0.1} if recipe.sam else {"patience": 9, "balance": None}
        cnn_zoo.fit(small_model(0.2), data, recipe.replace(**other), run=tmp_path / "run", verbose=0, resume=True)


def test_a_plateau_lowers_the_rate_when_the_loss_does_not_fall(data, tmp_path):
    recipe = SMALL.replace(
        schedule="plateau", patience=2, learning_rate=1e-12, epochs=6
    )  # nothing can fall at this rate
    run = cnn_zoo.fit(small_model(), data, recipe, run=tmp_path / "run", verbose=0)
    np.testing.assert_allclose(run.history["learning_rate"], [1e-12, 1e-12, 1e-12, 1e-13, 1e-13, 1e-14], rtol=1e-5)
    more = cnn_zoo.fit(small_model(), data, recipe.replace(epochs=7), run=tmp_path / "run", verbose=0, resume=True)
    assert more.history["learning_rate"][-1] == pytest.approx(1e-14)


class Watch(keras.callbacks.Callback):
    """Keeps the weights after each step, and those of each validation."""

    def __init__(self):
        super().__init__()
        self.steps, self.tests = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self.model.get_weights())

    def on_test_batch_end(self, batch, logs=None):
        self.tests.append(self.model.get_weights())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_validation_and_files_have_the_averages_and_the_training_has_the_weights(data, tmp_path, accumulate):
    watch, model = Watch(), small_model()
    recipe = SMALL.replace(batch_size=90, ema=0.7, accumulate=accumulate)  # one step an epoch
    run = cnn_zoo.fit(model, data, recipe, run=tmp_path / "run", verbose=0, callbacks=[watch])
    keep, average = 0.7 ** (1 / accumulate), None
    for step, (weights, tested) in enumerate(zip(watch.steps, watch.tests, strict=True)):
        fresh = step < accumulate
        average = [w if fresh else keep * a + (1 - keep) * w for a, w in zip(average or weights, weights)]
        for a, b in zip(average, tested):
            np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(average, model.get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-6)
    plain = Watch()
    cnn_zoo.fit(small_model(), data, recipe.replace(ema=0.0), run=tmp_path / "plain", verbose=0, callbacks=[plain])
    for a, b in zip(watch.steps[-1], plain.steps[-1]):
        np.testing.assert_array_equal(a, b)  # averages change nothing of the training
    held = data.split(recipe.validation, recipe.seed).validation
    assert cnn_zoo.evaluate(model, held).loss == pytest.approx(run.history["val_loss"][-1], rel=1e-4)


def test_accumulated_batches_are_one_large_batch_and_the_schedule_ends_with_the_epochs(data, tmp_path):
    cosine = SMALL.replace(schedule="constant", validation=0, epochs=3, clip=1.0, weight_decay=0.01, batch_size=60)
    one, two = small_model(), small_model()
    cnn_zoo.fit(one, data, cosine, run=tmp_path / "one", verbose=0)
    cnn_zoo.fit(two, data, cosine.replace(batch_size=30, accumulate=2), run=tmp_path / "two", verbose=0)
    for a, b in zip(one.get_weights(), two.get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-6)
    falling = cosine.replace(schedule="cosine", batch_size=30, accumulate=2)
    run = cnn_zoo.fit(small_model(), data, falling, run=tmp_path / "three", verbose=0)
    np.testing.assert_allclose(
        run.history["learning_rate"], 0.025 * (1 + np.cos(np.pi * np.arange(1, 4) / 3)), atol=1e-6
    )


def test_clipping_bounds_the_first_step(data, tmp_path):
    model = small_model()
    before = model.get_weights()
    recipe = SMALL.replace(clip=1e-3, batch_size=120, epochs=1, validation=0)
    cnn_zoo.fit(model, data, recipe, run=tmp_path / "run", verbose=0)
    moved = math.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(before, model.get_weights())))
    assert moved == pytest.approx(1.9 * 0.05 * 1e-3, rel=1e-3)  # Nesterov: -rate (1 + 0.9) g


def test_smoothed_labels_and_weights(data):
    smooth = prepare(small_model(), data, SMALL.replace(label_smoothing=0.3))
    images, shares = next(iter(smooth.batches()))
    plain, labels = next(iter(prepare(small_model(), data, SMALL).batches()))
    np.testing.assert_array_equal(images, plain)
    np.testing.assert_allclose(shares, 0.7 * np.eye(3)[labels] + 0.1, atol=1e-6)
    held = next(iter(smooth.shares(pipeline(smooth.held_out(), 8))))[1]
    np.testing.assert_array_equal(np.sort(held, -1)[:, -1], 1)  # validation is not smoothed

    weighted = prepare(small_model(), data, SMALL.replace(balance="weights"))
    found = [(labels.numpy(), weights.numpy()) for _, labels, weights in weighted.batches()]
    labels, weights = (np.concatenate(parts) for parts in zip(*found))
    assert weights.mean() == pytest.approx(1, abs=1e-6)
    totals = [weights[labels == c].sum() for c in range(3)]
    np.testing.assert_allclose(totals, len(labels) / 3, rtol=1e-5)

    both = SMALL.replace(balance="weights", label_smoothing=0.3, augment=Augmenter([mixup()]))
    _, shares, weights = next(iter(prepare(small_model(), data, both).batches()))
    np.testing.assert_allclose(weights, (np.asarray(shares) - 0.1) / 0.7 @ weighted.weights, rtol=1e-5)


def test_a_label_that_is_no_class_is_not_smoothed_away(data, tmp_path):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((data.train.images, data.train.labels + 1)).batch(30)
    with pytest.raises(TrainingStopped, match="loss became nan"):
        cnn_zoo.fit(small_model(), dataset, SMALL.replace(label_smoothing=0.1), run=tmp_path / "run", verbose=0)


def test_balanced_sampling_draws_classes_evenly_as_seed_and_epoch_say(data):
    def labels(**settings):
        return np.concatenate([labels for _, labels in pipeline(data.train, 32, balance=True, **settings)])

    many = labels(seed=3, repeat=50)
    np.testing.assert_allclose(np.bincount(many) / len(many), 1 / 3, atol=0.02)
    two = labels(seed=3, epochs=2)
    np.testing.assert_array_equal(two[120:], labels(seed=3, first_epoch=1, epochs=2))
    assert not np.array_equal(two[:120], two[120:]) and not np.array_equal(two, labels(seed=4, epochs=2))
    images = np.concatenate([images for images, _ in pipeline(data.train, 32, balance=True, repeat=30)])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == 120  # each image is drawn at times


def test_what_is_for_labels_is_refused_with_masks_and_data_sets(data, tmp_path, rng):
    masks = Data.from_arrays(rng.integers(0, 256, (8, 8, 8)).astype("uint8"), rng.integers(0, 2, (8, 8, 8)))
    inputs = keras.Input((8, 8, 1))
    segmenter = keras.Model(inputs, L.Conv2D(2, 1, activation="softmax")(inputs))
    for changes, message in (
        ({"label_smoothing": 0.1}, "is for labels"),
        ({"balance": "weights"}, "masks have class_weight"),
    ):
        with pytest.raises(InputError, match=message):
            cnn_zoo.fit(segmenter, masks, SMALL.replace(**changes), run=tmp_path / "run")
    with pytest.raises(InputError, match="balance draws images by their class, and these have masks"):
        pipeline(masks.train, 4, balance=True)
    with pytest.raises(InputError, match="balance counts the labels of a Data"):
        cnn_zoo.fit(small_model(), pipeline(data.train, 30), SMALL.replace(balance="sampling"), run=tmp_path / "run")
    with pytest.raises(InputError, match="sam trains on one device"):
        devices = cnn_zoo.train.distribute.mirrored(["CPU:0"])
        with devices.scope():
            model = small_model()
        cnn_zoo.fit(model, data, SMALL.replace(sam=0.1), run=tmp_path / "run", devices=devices)


# A linear model and the mean of squared errors: everything by hand.
SAM = """
import numpy as np, keras
from cnn_zoo.train.sam import sharpness_aware
rng = np.random.default_rng(0)
x, y = rng.normal(size=(10, 2, 1, 1)).astype("float32"), rng.normal(size=(10, 3)).astype("float32")
inputs = keras.Input((2, 1, 1))
model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False)(keras.layers.Flatten()(inputs)))
sharp = sharpness_aware(model, 0.4)
sharp.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
flat, w = x.reshape(10, 2), model.get_weights()[0].astype("float64")
gradient = lambda w: 2 / 30 * flat.T @ (flat @ w - y)
for _ in range(3):
    logs = sharp.train_on_batch(x, y, return_dict=True)
    sharp.reset_metrics()
    assert abs(float(logs["loss"]) - np.mean((flat @ w - y) ** 2)) < 1e-5, logs  # the loss at the weights themselves
    assert abs(float(logs["mae"]) - np.mean(abs(flat @ w - y))) < 1e-5, logs
    g = gradient(w)
    w = w - 0.1 * gradient(w + 0.4 * g / np.linalg.norm(g))
    np.testing.assert_allclose(model.get_weights()[0], w, atol=1e-5)
print("good", keras.backend.backend())
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_steps_of_sam_are_those_computed_by_hand(backend):
    pytest.importorskip(backend)
    process = subprocess.run(
        [sys.executable, "-c", SAM],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.stdout.strip() == f"good {backend}", process.stderr


def test_sam_sees_a_batch_once_for_statistics_and_draws_dropout_once(data):
    images, labels = data.train.images[:40], data.train.labels[:40]

    def state(wrap):
        model = small_model(dropout=0.5)
        trained = wrap(model)
        trained.compile(optimizer=keras.optimizers.SGD(0.0), loss="sparse_categorical_crossentropy")
        trained.train_on_batch(images, labels)
        return [np.asarray(v) for v in model.non_trainable_variables]

    for a, b in zip(state(lambda model: model), state(lambda model: sharpness_aware(model, 0.5)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_sam_files_are_those_of_the_plain_model_and_other_steps_are_refused(data, tmp_path):
    cnn_zoo.fit(small_model(), data, SMALL.replace(sam=0.05, epochs=1), run=tmp_path / "run", verbose=0)
    assert type(keras.saving.load_model(tmp_path / "run/last.keras")) is type(small_model())
    assert Run.load(tmp_path / "run").about["recipe"]["sam"] == 0.05

    class Own(keras.Model):
        def compute_loss(self, *args, **settings):
            return super().compute_loss(*args, **settings)

    plain = small_model()
    with pytest.raises(InputError, match="Own has a compute_loss of its own"):
        sharpness_aware(Own(plain.inputs[0], plain.outputs[0]), 0.1)
    with pytest.raises(InputError, match="a built keras.Model is expected, not str"):
        cnn_zoo.fit("lenet", data, SMALL.replace(sam=0.05), run=tmp_path / "other")
