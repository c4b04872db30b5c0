"""Distillation and learning without forgetting: the losses by NumPy, teachers that stay as they are, and old tasks that are not lost."""

import keras
import numpy as np
import pytest
from keras import layers as L

import cnn_zoo
from cnn_zoo import Data, InputError, Recipe, load_model
from cnn_zoo.train.distill import SoftTargets, distill, learn_without_forgetting

QUICK = Recipe("quick", epochs=3, batch_size=16, learning_rate=0.01, validation=0.25, augment="digits")


def small_model(classes=3, activation="softmax", width=4, side=8):
    inputs = keras.Input((side, side, 1))
    x = L.Conv2D(width, 3, 2, padding="same", activation="relu")(L.Rescaling(1 / 255)(inputs))
    x = L.Dropout(0.1)(L.Flatten()(L.BatchNormalization()(x)))
    return keras.Model(inputs, L.Dense(classes, activation=activation, name="scores")(x), name="small")


@pytest.fixture
def data(rng):
    return Data.from_arrays(rng.integers(0, 256, (60, 8, 8)).astype("uint8"), np.arange(60) % 3)


def soft(z, temperature):
    e = np.exp((z - z.max(-1, keepdims=True)) / temperature)
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(("temperature", "scaled"), [(1.0, True), (4.0, True), (2.5, False)])
def test_soft_targets_equal_numpy(temperature, scaled, rng):
    teacher, student = rng.normal(0, 5, (2, 7, 4)).astype("float32")
    expected = -(soft(teacher, temperature) * np.log(soft(student, temperature))).sum(-1)
    loss = SoftTargets(temperature, scaled, reduction=None)
    np.testing.assert_allclose(loss(teacher, student), expected * (temperature**2 if scaled else 1), rtol=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    np.testing.assert_array_equal(again(teacher, student), loss(teacher, student))


@pytest.mark.parametrize("activations", [("softmax", "softmax"), (None, "softmax"), ("softmax", None)])
def test_the_loss_of_a_distillation_equals_numpy(data, tmp_path, activations):
    """That of the validation images, before a step has moved anything."""
    student, teacher = (small_model(3, activation, width) for activation, width in zip(activations, (4, 9)))
    before = [np.array(v) for v in teacher.weights]
    split = data.split(0.25)
    recipe = QUICK.replace(epochs=1, learning_rate=1e-30, optimizer="sgd")
    inner = [np.asarray(v) for v in student.weights if "moving" in v.path]
    run = distill(student, teacher, split, recipe, temperature=3, alpha=0.7, run=tmp_path / "run", verbose=0)
    for variable, value in zip([v for v in student.weights if "moving" in v.path], inner):
        assert not np.array_equal(np.asarray(variable), value)  # the statistics move, and the loss below is with them

    def logits(model, activation):
        z = np.asarray(model(split.validation.images)).astype("float64")
        return np.log(z) if activation else z

    z, told = logits(student, activations[0]), logits(teacher, activations[1])
    hard = -np.log(soft(z, 1))[np.arange(len(z)), split.validation.labels].mean()
    taught = -(soft(told, 3) * np.log(soft(z, 3))).sum(-1).mean()
    assert run.history["val_loss"][0] == pytest.approx(0.3 * hard + 0.7 * 9 * taught, rel=1e-4)
    for value, variable in zip(before, teacher.weights):
        np.testing.assert_array_equal(value, np.asarray(variable))


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_a_distillation_resumes_to_the_same_bits_and_leaves_a_plain_student(data, tmp_path):
    keras.utils.set_random_seed(3)
    teacher = small_model(width=9)
    kept = [np.array(v) for v in teacher.weights]

    def run(folder, seed, **settings):
        keras.utils.set_random_seed(seed)
        student = small_model()
        distill(
            student,
            teacher,
            data,
            QUICK.replace(optimizer="adamw", restore_best=True),
            run=tmp_path / folder,
            verbose=0,
            **settings,
        )
        return student

    whole = run("whole", 4)
    with pytest.raises(cnn_zoo.TrainingStopped):
        run("run", 4, callbacks=[Kill()])
    with pytest.raises(InputError, match="other layers, settings or shapes"):
        run("run", 4, resume=True, temperature=2.0)
    resumed = run("run", 5, resume=True)
    for (
        a,
        b,
    ) in zip(whole.weights, resumed.weights):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    best, _ = load_model(tmp_path / "run")
    assert type(best).__name__ == "Functional" and len(best.weights) == len(whole.weights)
    for a, b in zip(whole.weights, best.weights):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    for value, variable in zip(kept, teacher.weights):
        np.testing.assert_array_equal(value, np.asarray(variable))


def test_a_student_learns_what_its_teacher_knows_without_any_label(tmp_path):
    """alpha=1: labels are noise, and the student answers as the teacher does."""
    keras.utils.set_random_seed(0)
    digits = cnn_zoo.load("digits", validation=0.1)
    recipe = QUICK.replace(epochs=8, batch_size=32, optimizer="adamw", augment=None)
    teacher = small_model(10, width=16)
    cnn_zoo.fit(teacher, digits, recipe, run=tmp_path / "teacher", verbose=0)
    noise = np.random.default_rng(0).permutation(digits.train.labels)
    blind = Data(
        "noise",
        cnn_zoo.Split(digits.train.images, noise),
        None,
        digits.test,
        digits.classes,
        "digits with labels at random",
    )
    student = small_model(10, width=8)
    distill(student, teacher, blind, recipe, alpha=1.0, run=tmp_path / "student", verbose=0)
    assert (
        cnn_zoo.evaluate(student, digits.test).accuracy > cnn_zoo.evaluate(teacher, digits.test).accuracy - 0.06 > 0.8
    )


def test_a_second_task_without_losing_the_first(tmp_path):
    """Digits 0..4 first, then 5..9: the old task is kept clearly better than by fine-tuning, the new one is learned as well."""
    digits = cnn_zoo.load("digits")

    def task(low):
        parts = []
        for split in (digits.train, digits.test):
            rows = np.flatnonzero((split.labels >= low) & (split.labels < low + 5))
            parts.append(cnn_zoo.Split(split.images[rows], split.labels[rows] - low))
        return Data(f"from {low}", parts[0], None, parts[1], tuple(map(str, range(low, low + 5))), "digits")

    first, second = task(0), task(5)
    recipe = Recipe("tasks", epochs=6, batch_size=32, learning_rate=0.005, validation=0.1)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = L.Flatten()(L.Conv2D(8, 3, padding="same", activation="relu")(L.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, L.Dense(5, activation="softmax", name="scores")(L.Dense(32, activation="relu")(x)))
    cnn_zoo.fit(model, first, recipe, run=tmp_path / "first", verbose=0)
    start, scores = model.get_weights(), {}
    before = cnn_zoo.evaluate(model, first.test).accuracy
    for weight in (0.0, 1.0):
        model.set_weights(start)
        keras.utils.set_random_seed(1)
        found = learn_without_forgetting(
            model, second, recipe.replace(learning_rate=0.02), weight=weight, run=tmp_path / str(weight), verbose=0
        )
        scores[weight] = [cnn_zoo.evaluate(m, t.test).accuracy for m, t in ((found.old, first), (found.new, second))]
    assert before > 0.95 and scores[0][1] > 0.85 and scores[1][1] > 0.85, scores
    assert scores[1][0] > scores[0][0] + 0.25, scores
    both = keras.saving.load_model(tmp_path / "1.0" / "last.keras", compile=False)
    answers = both(second.test.images)
    np.testing.assert_allclose(answers["old"], found.old(second.test.images), atol=1e-6)
    np.testing.assert_allclose(answers["new"], found.new(second.test.images), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: distill(small_model(), small_model(4), d), "the student tells 3 classes apart and the teacher 4"),
        (lambda d: distill(small_model(), small_model(side=12), d), r"takes \(8, 8, 1\) images and the teacher \(12, 12, 1\)"),
        (lambda d: distill(small_model(), small_model(3, "sigmoid"), d), "has a sigmoid a class"),
        (lambda d: distill(small_model(), small_model(), d, alpha=1.5), "alpha must be a number, at least 0 and at most 1, not 1.5"),
        (lambda d: distill(small_model(), small_model(), d, temperature=0), "temperature must be a number, above 0, not 0"),
        (lambda d: learn_without_forgetting(small_model(), d, weight=-1), "weight must be a number, at least 0, not -1"),
        (lambda d: learn_without_forgetting(small_model(), d, classes=2), "labels run from 0 to 2 and the model has 2 classes"),
        (lambda d: learn_without_forgetting(small_model(), d, classes=1), "at least 2, not 1"),
        (lambda d: learn_without_forgetting(cnn_zoo.build("squeezenet1_1", input_size=64), d), "ends in 'head_conv10'.*build_classifier"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(call, message, data):
    with pytest.raises(InputError, match=message):
        call(data)
