"""Training: recipes, the run folder, and errors before the first epoch rather than after it."""

import csv
import errno
import json
import os
import types

import keras
import numpy as np
import pytest
from keras import layers as L

import cnn_zoo
from cnn_zoo import Data, InputError, Recipe, Run, StorageError, TrainingStopped, evaluate, fit, load_model, recipe
from cnn_zoo.augment import Augmenter, cutmix, flip, mixup, mosaic
from cnn_zoo.data import pipeline
from cnn_zoo.train import run as run_module


@pytest.fixture
def data(thirds):
    return thirds


def small_model(activation="softmax", channels=1):
    inputs = keras.Input((12, 12, channels))
    x = L.Rescaling(1 / 255)(inputs)
    x = L.Flatten()(L.AveragePooling2D(2)(L.Conv2D(4, 3, padding="same", activation="relu")(x)))
    return keras.Model(inputs, L.Dense(3, activation=activation)(x), name="small")


QUICK = Recipe("quick", epochs=3, batch_size=16, learning_rate=0.02, validation=0.2)


@pytest.mark.parametrize("activation", ["softmax", None])
def test_a_run_learns_and_keeps_everything(data, tmp_path, activation):
    model = small_model(activation)
    run = fit(model, data, QUICK, run=tmp_path / "run", verbose=0, about={"note": "a test"})
    assert run.status == "finished" and run.history["val_accuracy"][-1] > 0.95
    test = evaluate(model, data.test, classes=data.classes)
    assert test.accuracy > 0.95 and test.interval[0] < test.accuracy <= test.interval[1] <= 1

    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {"best.keras", "history.csv", "last.keras", "run.json", "state.npz", "tensorboard"}
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["recipe"] == QUICK.to_dict() and about["note"] == "a test" and about["classes"] == list(data.classes)
    assert about["versions"]["keras"] == keras.__version__ and about["data"]["train"]["images"] == 144
    assert about["model"]["trainable_parameters"] == sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["val_loss"]) for row in rows] == run.history["val_loss"]
    assert float(rows[0]["learning_rate"]) == pytest.approx(0.02) and float(rows[0]["seconds"]) > 0

    last = keras.saving.load_model(tmp_path / "run" / "last.keras")
    np.testing.assert_array_equal(last(data.test.images), model(data.test.images))
    best, classes = load_model(tmp_path / "run")
    assert classes == data.classes
    held = data.split(QUICK.validation, QUICK.seed).validation
    assert evaluate(best, held).accuracy == pytest.approx(max(run.history["val_accuracy"]), abs=1e-6)
    assert Run.load(tmp_path / "run").best_epoch == 1 + int(np.argmax(run.history["val_accuracy"]))


def test_the_same_seed_gives_the_same_weights_and_another_others(data, tmp_path):
    def weights(folder, seed):
        keras.utils.set_random_seed(5)
        model = small_model()
        fit(model, data, QUICK.replace(epochs=1, seed=seed, validation=0.0), run=tmp_path / folder, verbose=0)
        return np.concatenate([w.ravel() for w in model.get_weights()])

    a, b, c = weights("a", 1), weights("b", 1), weights("c", 2)
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("step", [mixup(0.4), cutmix(), mosaic(p=0.5)])
def test_mixed_labels_are_shares_that_sum_to_1(data, step):
    batches = list(pipeline(data.train, 32, augment=Augmenter([flip(), step], classes=3), seed=4))
    labels = np.concatenate([labels for _, labels in batches])
    assert labels.shape == (len(data.train), 3) and labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-6)
    assert (labels.max(-1) < 0.999).any()
    np.testing.assert_allclose(labels.mean(0), 1 / 3, atol=0.1)
    again = list(pipeline(data.train, 32, augment=Augmenter([flip(), step], classes=3), seed=4))
    assert all(np.array_equal(a, b) for one, two in zip(batches, again, strict=True) for a, b in zip(one, two))
    with pytest.raises(InputError, match="makes shares of classes from ids"):
        pipeline(data.train, 32, augment=Augmenter([step]))


@pytest.mark.parametrize("activation", ["softmax", None])
def test_a_net_learns_from_mixed_samples_and_is_validated_on_whole_ones(data, tmp_path, activation):
    model = small_model(activation)
    mixed = QUICK.replace(augment=Augmenter([mixup(0.4), cutmix(p=0.3)]), epochs=6)
    run = fit(model, data, mixed, run=tmp_path / "run", verbose=0)
    assert run.history["val_accuracy"][-1] > 0.9 and set(run.history) >= {"loss", "accuracy", "val_loss"}
    held = data.split(mixed.validation, mixed.seed).validation
    found = evaluate(keras.saving.load_model(tmp_path / "run" / "last.keras"), held)
    assert found.accuracy == pytest.approx(run.history["val_accuracy"][-1], abs=1e-6)
    assert found.loss == pytest.approx(run.history["val_loss"][-1], rel=1e-4)
    with pytest.raises(InputError, match="has 4 classes and the model 3"):
        fit(model, data, QUICK.replace(augment=Augmenter([mixup()], classes=4)), run=tmp_path / "other", verbose=0)


def test_plain_tf_data_goes_in_too(data, tmp_path):
    held = data.split(0.2)
    training = cnn_zoo.pipeline(held.train, 16, shuffle=True)
    run = fit(
        small_model(),
        training,
        QUICK,
        validation=cnn_zoo.pipeline(held.validation, 48),
        run=tmp_path / "run",
        verbose=0,
    )
    assert run.history["val_accuracy"][-1] > 0.9 and len(run.rows) == 3
    with pytest.raises(InputError, match="of finite, known length"):
        fit(small_model(), training.repeat(), QUICK, run=tmp_path / "other", verbose=0)


def test_early_stopping_and_best_weights(data, tmp_path):
    model = small_model()
    patient = QUICK.replace(epochs=40, early_stopping=2, restore_best=True)
    run = fit(model, data, patient, run=tmp_path / "run", verbose=0)
    assert run.status == "stopped early" and len(run.rows) == run.best_epoch + 2 < 40
    best, _ = load_model(tmp_path / "run")
    np.testing.assert_array_equal(best(data.test.images), model(data.test.images))


def test_a_loss_that_is_not_finite_stops_with_advice(data, tmp_path):
    model = small_model(None)
    with pytest.raises(
        TrainingStopped, match=r"loss became (nan|inf) in epoch \d.*Try a learning rate of 1e\+19.*0..255"
    ):
        fit(model, data, QUICK.replace(learning_rate=1e20, optimizer="sgd"), run=tmp_path / "run", verbose=0)
    run = Run.load(tmp_path / "run")
    assert run.status == "diverged"
    for name in ("last.keras", "best.keras"):
        if (tmp_path / "run" / name).exists():
            assert all(np.isfinite(w).all() for w in keras.saving.load_model(tmp_path / "run" / name).get_weights())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (8, 12)}, "takes 12x12 images and these are 8x12"),
        ({"channels": 3}, "takes images with 1 channel.*these have 3"),
        ({"labels": 1}, "all 32 training images are of class 0"),
        ({"labels": 4}, "labels run from 0 to 3 and the model has 3 classes.*classes=4"),
    ],
)
def test_data_that_do_not_fit_the_model(change, message, tmp_path, rng):
    shape = (40, *change.get("shape", (12, 12)), change.get("channels", 1))
    data = Data.from_arrays(rng.integers(0, 256, shape).astype("uint8"), np.arange(40) % change.get("labels", 3))
    with pytest.raises(InputError, match=message):
        fit(small_model(), data, QUICK, run=tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def test_models_that_are_no_classifiers(data, tmp_path):
    inputs = keras.Input((12, 12, 1))
    image_out = keras.Model(inputs, L.Conv2D(3, 3)(inputs))
    with pytest.raises(InputError, match="the data have labels and the model gives a class a pixel"):
        fit(image_out, data, QUICK, run=tmp_path / "run")
    with pytest.raises(InputError, match=r"gives \(None, 12, 12\); a classifier gives"):
        fit(keras.Model(inputs, inputs[..., 0]), data, QUICK, run=tmp_path / "run")
    flat = keras.Input((7,))
    with pytest.raises(InputError, match="not images"):
        fit(keras.Model(flat, L.Dense(3)(flat)), data, QUICK, run=tmp_path / "run")
    with pytest.raises(InputError, match="2 inputs"):
        other = keras.Input((12, 12, 1))
        fit(keras.Model([inputs, other], L.Dense(3)(L.Flatten()(inputs + other))), data, QUICK, run=tmp_path / "run")
    with pytest.raises(InputError, match="softmax or logits, not sigmoid"):
        fit(small_model("sigmoid"), data, QUICK, run=tmp_path / "run")
    with pytest.raises(InputError, match="a built keras.Model is expected, not str"):
        fit("lenet", data, QUICK, run=tmp_path / "run")


def test_a_folder_in_use_is_not_touched(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty: choose another one"):
        fit(small_model(), data, QUICK, run=tmp_path, verbose=0)
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == ["thesis.txt"]
    with pytest.raises(StorageError, match="a part of that path is a file"):
        fit(small_model(), data, QUICK, run=tmp_path / "thesis.txt" / "run", verbose=0)


def test_a_disk_too_small_is_found_before_the_first_epoch(data, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match="0 MiB free and this run needs about 1 MiB"):
        fit(small_model(), data, QUICK, run=tmp_path / "a" / "run", verbose=0)
    assert not (tmp_path / "a").exists()  # the same command works once there is space


def test_a_disk_that_fills_up_in_the_middle_leaves_the_last_epoch_whole(data, tmp_path, monkeypatch):
    real, calls = np.savez, []

    def savez(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:  # at the start, after epoch 1, after epoch 2
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*args, **kwargs)

    monkeypatch.setattr(run_module.np, "savez", savez)
    with pytest.raises(StorageError, match="state.npz.*the disk is full: free some space"):
        fit(small_model(), data, QUICK, run=tmp_path / "run", verbose=0)
    monkeypatch.undo()
    assert run_module.read_progress(tmp_path / "run" / "state.npz")["epoch"] == 1
    run = fit(small_model(), data, QUICK, run=tmp_path / "run", resume=True, verbose=0)
    assert run.status == "finished" and len(run.rows) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs of a recipe must be a whole number of at least 1, not 0"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"learning_rate": -1}, "learning_rate of a recipe must be a finite number above 0"),
        ({"optimizer": "lion"}, "optimizer of a recipe must be one of adam, adamw, sgd"),
        ({"schedule": "step"}, "schedule"),
        ({"validation": 1}, "validation of a recipe must be at least 0 and below 1"),
        ({"warmup": 0.1}, "warmup of a recipe must be 0 with the schedule 'constant'"),
        ({"weight_decay": 0.1}, "use 'adamw'"),
        ({"seed": -1}, "seed"),
        ({"learning_rate": float("inf")}, "a finite number above 0, not inf"),
        ({"augment": "digit"}, "augment of a recipe must be one of None, digits, .*, or an Augmenter, not 'digit'"),
        ({"augment": abs}, "augment of a recipe must be one of"),
        ({"epoch": 3}, "no field 'epoch'; did you mean 'epochs'"),
    ],
)
def test_recipes_refuse_what_makes_no_sense(changes, message):
    with pytest.raises(InputError, match=message):
        recipe("lecture", **changes)


def test_recipes_by_name_and_as_plain_values():
    with pytest.raises(InputError, match="no recipe 'good'; there are: lecture, best"):
        recipe("good")
    with pytest.raises(InputError, match="or a Recipe.*, not dict"):
        recipe({"epochs": 3})
    best = recipe("best", epochs=2)
    assert Recipe.from_dict(json.loads(json.dumps(best.to_dict()))) == best and best.epochs == 2
    lecture = cnn_zoo.RECIPES["lecture"]
    assert (lecture.optimizer, lecture.batch_size, lecture.validation, lecture.epochs) == ("adam", 512, 0.2, 20)


def test_the_cosine_schedule_climbs_and_falls_as_its_formula_says():
    chosen = Recipe(epochs=10, schedule="cosine", warmup=0.2, learning_rate=0.5)
    rate = chosen.make_optimizer(10)._learning_rate
    values = [float(rate(step)) for step in range(101)]
    np.testing.assert_allclose(values[:21], np.linspace(0, 0.5, 21), atol=1e-6)
    np.testing.assert_allclose(values[20:], 0.25 * (1 + np.cos(np.pi * np.arange(81) / 80)), atol=1e-6)


def test_evaluation_equals_scikit_learn(data, rng):
    from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

    model = small_model(None)
    found = evaluate(model, data.test, classes=data.classes)
    z = np.asarray(model(data.test.images))
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, p, rtol=1e-5)
    assert np.array_equal(found.confusion, confusion_matrix(data.test.labels, p.argmax(-1)))
    assert found.loss == pytest.approx(log_loss(data.test.labels, p), rel=1e-4)
    expected = precision_recall_fscore_support(data.test.labels, p.argmax(-1), zero_division=0)
    rows = found.per_class()
    for i, name in enumerate(data.classes):
        assert list(rows[name].values()) == pytest.approx([column[i] for column in expected])
    n, k = 60, round(found.accuracy * 60)  # Wilson's interval by its formula
    centre, half = (k + 1.96**2 / 2) / (n + 1.96**2), 1.96 / (n + 1.96**2) * (k * (n - k) / n + 1.96**2 / 4) ** 0.5
    assert found.interval == pytest.approx((centre - half, centre + half), abs=1e-4)
    assert "wrong; loss" in found.report() and "middle" in found.report()
    json.dumps(found.to_dict())
    with pytest.raises(InputError, match="3 classes apart and 2 names"):
        evaluate(model, data.test, classes=("a", "b"))
    with pytest.raises(InputError, match="no images to evaluate on"):
        evaluate(model, data.test.take([]))


def test_models_are_loaded_from_runs_and_files_or_the_error_says_why(tmp_path):
    with pytest.raises(InputError, match="neither best.keras nor last.keras"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="is not a .keras file or a run folder"):
        load_model(tmp_path / "nothing.keras")
    (tmp_path / "broken.keras").write_bytes(b"PK broken")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path / "broken.keras")
    small_model().save(tmp_path / "good.keras")
    model, classes = load_model(tmp_path / "good.keras")
    assert model.name == "small" and classes is None
    with pytest.raises(InputError, match="not a run folder"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="run.json.*is damaged"):
        Run.load(tmp_path)


def test_the_step_that_ruins_the_weights_reaches_no_checkpoint(data, tmp_path):
    """One step an epoch: its loss is taken before the weights explode, so only the validation or the weights tell."""
    one_step = QUICK.replace(batch_size=256, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(TrainingStopped, match="the val_loss became (nan|inf) in epoch 1; no epoch was finished"):
        fit(small_model(None), data, one_step, run=tmp_path / "a", verbose=0)
    with pytest.raises(TrainingStopped, match="the weights became infinite or NaN in epoch 1"):
        fit(small_model(None), data, one_step.replace(validation=0, learning_rate=1e39), run=tmp_path / "b", verbose=0)
    for folder in ("a", "b"):
        assert Run.load(tmp_path / folder).status == "diverged"
        assert not (tmp_path / folder / "last.keras").exists() and not (tmp_path / folder / "best.keras").exists()


class Twice(L.Layer):
    """A layer that nobody registered."""

    def call(self, inputs):
        return inputs * 2


def test_layers_that_are_not_registered_train_and_get_their_best_weights_back(data, tmp_path):
    inputs = keras.Input((12, 12, 1))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(Twice()(L.Rescaling(1 / 255)(inputs)))))
    run = fit(model, data, QUICK.replace(restore_best=True), run=tmp_path / "run", verbose=0)
    assert run.status == "finished"
    with pytest.raises(InputError, match="register_keras_serializable"):
        load_model(tmp_path / "run")


def test_a_dataset_that_does_not_fit_is_refused_before_training(data, tmp_path):
    import tensorflow as tf

    def refused(images, labels, message, batch=16):
        dataset = tf.data.Dataset.from_tensor_slices((images, labels))
        with pytest.raises(InputError, match=message):
            fit(small_model(), dataset.batch(batch) if batch else dataset, QUICK, run=tmp_path / "run", verbose=0)

    images, labels = data.train.images, data.train.labels
    refused(images[:, :8], labels, r"takes batches of shape \(None, 12, 12, 1\)")
    refused(images, labels, "batch\\(\\) it", batch=None)
    refused(images, np.eye(3)[labels], "one-hot labels")
    with pytest.raises(InputError, match="a tf.data.Dataset, not tuple"):
        fit(small_model(), (images, labels), QUICK, run=tmp_path / "run", verbose=0)
    with pytest.raises(InputError, match="must yield batches"):
        fit(small_model(), tf.data.Dataset.from_tensor_slices(images).batch(4), QUICK, run=tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def test_penalties_are_those_of_keras_and_leave_no_trace(tmp_path, rng):
    images, labels = rng.integers(0, 256, (64, 6, 6, 1)).astype("uint8"), rng.integers(0, 2, 64)
    data = Data.from_arrays(images, labels)

    def net(**settings):
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((6, 6, 1))
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(x))
        x = keras.layers.Dense(8, activation="relu", name="first", **settings)(x)
        return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="last", **settings)(x))

    plain, built = net(), net(kernel_regularizer=keras.regularizers.L1L2(1e-3, 1e-2))
    settings = {"epochs": 2, "batch_size": 16, "validation": 0}
    ours = fit(plain, data, Recipe("a", l1=1e-3, l2=1e-2, **settings), run=tmp_path / "a", verbose=0)
    theirs = fit(built, data, Recipe("b", **settings), run=tmp_path / "b", verbose=0)
    assert (
        ours.history["loss"] == theirs.history["loss"]
        and ours.history["loss"]
        != fit(net(), data, Recipe("c", **settings), run=tmp_path / "c", verbose=0).history["loss"]
    )
    for one, other in zip(plain.get_weights(), built.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert plain.get_layer("first").kernel.regularizer is None and not plain.losses


def test_without_validation_the_last_of_equally_good_epochs_is_the_best(tmp_path, rng):
    images = np.repeat(np.array([0, 255], "uint8"), 32)[:, None, None, None] + np.zeros((1, 4, 4, 1), "uint8")
    data = Data.from_arrays(images, np.repeat([0, 1], 32))  # one epoch is enough to know them all
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    recipe = Recipe("a", epochs=8, batch_size=8, learning_rate=0.1, validation=0, restore_best=True)
    run = fit(model, data, recipe, run=tmp_path / "run", verbose=0)
    assert run.history["accuracy"][-3:] == [1, 1, 1] and run.best_epoch == 8
