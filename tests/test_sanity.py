"""`check` passes what is good, and each of its items fails for a case that was made to be bad."""

import json

import keras
import numpy as np
import pytest
from keras import layers as L

import cnn_zoo
from cnn_zoo import Data, InputError, Recipe, Run, Split
from cnn_zoo.train import check, read_curves
from cnn_zoo.train.sanity import Item

RECIPE = Recipe("r", batch_size=32, learning_rate=2e-3)
ALL = [
    "input range",
    "label range",
    "loss at the start",
    "gradients",
    "one small batch",
    "shuffled labels",
    "learning rate",
]


def make(rng, count=240, classes=3):
    labels = np.arange(count) % classes
    images = rng.integers(0, 180, (count, 6, 6)).astype("uint8")
    for image, label in zip(images, labels):
        image[2 * label : 2 * label + 2] += 75
    return images, labels


@pytest.fixture
def data(rng):
    return Data.from_arrays(*make(rng))


def model(*middle, scale=1 / 255, last=None, activation="softmax"):
    inputs = keras.Input((6, 6, 1))
    x = L.Flatten()(L.Rescaling(scale)(inputs))
    for layer in middle or (L.Dense(16, activation="relu", name="hidden"),):
        x = layer(x)
    return keras.Model(inputs, (last or L.Dense(3, activation=activation, name="head"))(x), name="small")


def found(model, data, recipe=RECIPE, **settings):
    return check(model, data, recipe, **{"steps": 120, "images": 160, **settings})


def test_what_is_good_passes_and_comes_back_unchanged(data):
    net = model(activation=None)
    before = [np.asarray(v) for v in net.variables]
    sanity = found(net, data)
    assert [item.name for item in sanity.items] == ALL
    assert {item.status for item in sanity.items} == {"passed"} and not sanity.failed, str(sanity)
    for a, b in zip(before, net.variables, strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))
    assert sanity["loss at the start"].numbers["expected"] == pytest.approx(np.log(3))
    assert set(sanity["gradients"].numbers["root_mean_square"]) == {"hidden", "head"}
    assert sanity["label range"].numbers["counts"] == {0: 64, 1: 64, 2: 64} or sum(
        sanity["label range"].numbers["counts"].values()
    ) == len(data.train)
    assert json.loads(json.dumps(sanity.to_dict()))["failed"] == 0 and "nothing failed" in str(sanity)


def status(sanity, name):
    item = sanity[name]
    assert item.status != "failed" or (item.advice and item.advice in str(sanity))
    return item.status


def test_images_that_were_scaled_before(data):
    images = data.train.images.astype("float32") / 255
    scaled = Data("scaled", Split(images, data.train.labels), None, None, data.classes, "by hand")
    sanity = found(model(), scaled)
    assert status(sanity, "input range") == "failed" and len(sanity.failed) == 1
    assert "have been scaled already" in sanity["input range"].found
    twice = found(model(scale=1 / 255**2), data)
    assert status(twice, "input range") == "failed" and "scaled twice" in twice["input range"].advice


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: np.zeros_like(x), "all are the same"),
        (lambda x: x.astype("float32") - 128, "0..255 are expected"),
        (lambda x: np.where(x == x.max(), np.nan, x).astype("float32"), "infinite or NaN"),
        (lambda x: x[:, :4], r"images are \(4, 6, 1\) and the model takes \(6, 6, 1\)"),
    ],
)
def test_images_that_are_nothing_to_learn_from(data, change, words):
    import re

    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((change(data.train.images), data.train.labels)).batch(32)
    item = found(model(), dataset, steps=10)["input range"]
    assert item.status == "failed" and re.search(words, item.found), item


def test_labels_out_of_range_missing_or_all_alike(data):
    images, labels = data.train.images, data.train.labels
    beyond = found(model(), Data.from_arrays(images, labels + 1))
    assert status(beyond, "label range") == "failed" and "classes=4" in beyond["label range"].advice
    assert [item.status for item in beyond.items[2:]] == ["not applicable"] * 5
    two = found(model(), Data.from_arrays(images, labels % 2, classes=("a", "b", "c")), steps=10)
    assert status(two, "label range") == "failed" and "no example of class 2" in two["label range"].found
    one = found(model(), Data.from_arrays(images, labels * 0, classes=("a", "b", "c")), steps=10)
    assert status(one, "label range") == "failed" and "all labels are 0" in one["label range"].found
    masks = Data.from_arrays(images, np.zeros((len(images), 6, 6), int), classes=("a", "b", "c"))
    assert "the data have masks and the model is for labels" in found(model(), masks)["label range"].found


def test_a_last_layer_with_large_weights_is_wrong_with_confidence(data):
    large = L.Dense(3, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(0, 5))
    sanity = found(model(last=large), data, steps=10)
    assert (
        status(sanity, "loss at the start") == "failed" and "wrong with confidence" in sanity["loss at the start"].found
    )


def test_a_trained_model_is_no_beginner(data, tmp_path):
    net = model()
    cnn_zoo.fit(net, data, RECIPE.replace(learning_rate=0.02, epochs=12), run=tmp_path / "run", verbose=0)
    assert status(found(net, data, steps=10), "loss at the start") == "not applicable"


def test_dead_cut_off_broken_and_vanishing_layers_are_named(data):
    dead = L.Dense(8, activation="relu", bias_initializer=keras.initializers.Constant(-1000.0), name="dead")
    sanity = found(model(L.Dense(16, name="before"), dead), data)
    assert status(sanity, "gradients") == "failed"
    assert set(sanity["gradients"].numbers["none"]) == {"before", "dead"} and "dead" in sanity["gradients"].advice
    assert status(sanity, "one small batch") == "failed"

    deep = [L.Dense(8, activation="sigmoid", name=f"deep{i}") for i in range(14)]
    sanity = found(model(*deep), data, steps=10)
    assert status(sanity, "gradients") == "failed" and "deep0" in sanity["gradients"].numbers["vanishing"]

    frozen = model()
    frozen.trainable = False
    assert "no layer is trainable" in found(frozen, data)["gradients"].found


@keras.saving.register_keras_serializable("cnn_zoo_tests")
class RootOfZero(L.Layer):
    """Fine forwards, infinitely steep backwards."""

    def call(self, inputs):
        return inputs + keras.ops.sqrt(keras.ops.relu(inputs) * 0)


def test_a_layer_with_an_infinite_slope(data):
    sanity = found(model(L.Dense(8, name="under"), RootOfZero()), data, steps=10)
    assert status(sanity, "gradients") == "failed" and "under" in sanity["gradients"].numbers["not finite"]


def test_branches_that_begin_at_zero_are_no_dead_layers(data):
    """ResNets begin with a scale of 0 at the end of each branch: no gradient passes it in the first step, and one does in the second."""
    inputs = keras.Input((6, 6, 1))
    x = L.Dense(8, name="trunk")(L.Flatten()(L.Rescaling(1 / 255)(inputs)))
    branch = L.BatchNormalization(gamma_initializer="zeros")(L.Dense(8, name="branch")(x))
    net = keras.Model(inputs, L.Dense(3, activation="softmax")(L.Add()([x, branch])))
    assert status(found(net, data, steps=10), "gradients") == "passed"


def test_images_that_look_alike_with_different_labels_cannot_be_learned_by_heart(data):
    images = np.repeat(data.train.images[:1], 240, axis=0)
    assert status(found(model(), Data.from_arrays(images, data.train.labels), steps=60), "one small batch") == "failed"


def test_labels_that_were_shuffled_before(data, rng):
    wrong = Data.from_arrays(data.train.images, rng.permutation(data.train.labels))
    sanity = found(model(), wrong)
    assert status(sanity, "shuffled labels") == "failed" and "no more than chance" in sanity["shuffled labels"].found
    assert status(sanity, "one small batch") == "passed"  # by heart it learns anything


@pytest.fixture(scope="module")
def digits():
    return cnn_zoo.load("digits", size=28)


@pytest.mark.parametrize(
    ("rate", "words"), [(1e2, "too high"), (1e-7, "too low"), (2e-3, "0.002; learning rate for adam")]
)
def test_the_learning_rate(digits, rate, words):
    from cnn_zoo.train.sanity import _rate

    keras.utils.set_random_seed(1)
    item = _rate(cnn_zoo.build_lenet(), digits, RECIPE.replace(learning_rate=rate, batch_size=64), None)
    assert words in item.found and item.status == ("passed" if rate == 2e-3 else "failed")


def segmentation(rng, count=40):
    images = rng.integers(0, 60, (count, 8, 8)).astype("uint8")
    masks = np.zeros((count, 8, 8), "int32")
    for image, mask in zip(images, masks):
        y, x = rng.integers(0, 5, 2)
        image[y : y + 4, x : x + 4] += 150
        mask[y : y + 4, x : x + 4] = 1
    return images, masks


def segmenter(outputs=2, activation="softmax"):
    inputs = keras.Input((8, 8, 1))
    x = L.Conv2D(8, 3, padding="same", activation="relu")(L.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, L.Conv2D(outputs, 1, activation=activation)(x))


@pytest.mark.parametrize(("outputs", "activation"), [(2, "softmax"), (1, "sigmoid"), (1, None)])
def test_segmenters_are_checked_too(rng, outputs, activation):
    images, masks = segmentation(rng)
    masks[:, 0, 0] = 255
    data = Data.from_arrays(images, masks, classes=("ground", "thing"), ignore=255)
    recipe = Recipe("seg", batch_size=4, learning_rate=5e-3)
    sanity = found(segmenter(outputs, activation), data, recipe)
    assert not sanity.failed, str(sanity)
    assert sanity["loss at the start"].numbers["expected"] == pytest.approx(np.log(2))
    if outputs == 2:
        wrong = Data.from_arrays(images, masks[rng.permutation(40)], classes=("ground", "thing"), ignore=255)
        assert status(found(segmenter(), wrong, recipe), "shuffled labels") == "failed"
        other = Data.from_arrays(images, np.where(masks == 255, 2, masks), classes=("a", "b", "c"))
        assert "and the model has the classes 0..1" in found(segmenter(), other, recipe)["label range"].found


def run_with(folder, loss, val_loss=None, accuracy=None, status="finished"):
    accuracy = accuracy or [0.99] * len(loss)
    rows = [{"epoch": i + 1, "loss": a, "accuracy": b} for i, (a, b) in enumerate(zip(loss, accuracy))]
    for row, value in zip(rows, val_loss or ()):
        row |= {"val_loss": value, "val_accuracy": row["accuracy"]}
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"status": status, "history": rows}))
    return folder


@pytest.mark.parametrize(
    ("curves", "status", "words"),
    [
        ({"loss": [1.0, 0.5, 0.2, 0.1, 0.05], "val_loss": [1.0, 0.6, 0.4, 0.35, 0.36]}, "passed", "lowest in epoch 4"),
        ({"loss": [1.0, 0.5, 0.2, 0.1, 0.02], "val_loss": [0.9, 0.5, 0.6, 0.8, 1.1]}, "failed", "overfitting"),
        ({"loss": [2.3, 2.29, 2.28, 2.28, 2.28], "accuracy": [0.1] * 5}, "failed", "underfitting"),
        ({"loss": [2.3, 2.2, 2.1, 2.0, 1.9], "accuracy": [0.3] * 5}, "failed", "train longer"),
        ({"loss": [1.0, 0.5, 0.4, 0.9, 1.4]}, "failed", "the training loss rises"),
        ({"loss": [1.0, 0.9], "status": "diverged"}, "failed", "diverged after 2 epochs"),
        ({"loss": [1.0, 0.9]}, "not applicable", "too few to read"),
    ],
)
def test_curves_are_read_in_words(tmp_path, curves, status, words):
    item = read_curves(run_with(tmp_path / "run", **curves))
    assert item.status == status and words in f"{item.found} {item.advice}", item
    assert read_curves(Run.load(tmp_path / "run")) == item


def test_a_check_with_a_run_reads_its_curves_as_well(data, tmp_path):
    folder = run_with(tmp_path / "run", [1.0, 0.5, 0.2, 0.1, 0.02], [0.9, 0.5, 0.6, 0.8, 1.1])
    sanity = found(model(), data, run=folder, steps=10)
    assert sanity.items[-1].name == "curves" and "overfitting" in sanity.items[-1].found


def test_what_cannot_be_checked_is_said(data):
    with pytest.raises(InputError, match="a built keras.Model is expected, not str"):
        check("lenet", data)
    with pytest.raises(InputError, match="a tf.data.Dataset, not list"):
        check(model(), [1, 2])
    with pytest.raises(InputError, match="3 images are too few to check"):
        check(model(), Data.from_arrays(data.train.images[:3], np.arange(3)), RECIPE)
    assert str(Item("x", "failed", "found", "do this")).endswith("do this")


def test_the_command_says_what_is_wrong_and_exits_with_1():
    import typer
    from typer.testing import CliRunner

    from cnn_zoo.commands.check import check as command

    app = typer.Typer()
    app.command()(command)
    bad = CliRunner().invoke(app, ["lenet", "--learning-rate", "100", "--steps", "40", "--images", "200", "--json"])
    assert bad.exit_code == 1, bad.output
    result = json.loads(bad.stdout)
    assert [item["name"] for item in result["items"] if item["status"] == "failed"] == ["learning rate"]
    good = CliRunner().invoke(app, ["lenet", "--steps", "120", "--images", "400"])
    assert good.exit_code == 0 and "nothing failed" in good.stdout, good.output
