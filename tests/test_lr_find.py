"""The learning rate range test: it finds what it should, leaves no trace, and is drawn."""

import random

import keras
import numpy as np
import pytest
from keras import layers as L

import cnn_zoo
from cnn_zoo import Data, InputError, Recipe
from cnn_zoo.train import lr_find
from cnn_zoo.train.lr_find import _read

RECIPE = Recipe("r", batch_size=32, optimizer="adam")


@pytest.fixture
def data(rng):
    labels = np.arange(300) % 3
    images = rng.integers(0, 200, (300, 6, 6)).astype("uint8")
    for image, label in zip(images, labels):
        image[2 * label : 2 * label + 2] += 50
    return Data.from_arrays(images, labels)


def small_model():
    inputs = keras.Input((6, 6, 1))
    x = L.BatchNormalization()(L.Dense(16, activation="relu")(L.Flatten()(L.Rescaling(1 / 255)(inputs))))
    return keras.Model(inputs, L.Dense(3)(L.Dropout(0.2)(x)), name="small")


def curve(rates, noise=0.0):
    """Falls along an S whose steepest place is 1e-3, and explodes from 1e-1 on."""
    x = np.log10(rates)
    losses = 2.3 - 1.5 / (1 + np.exp(-3 * (x + 3))) + 1e-2 * np.exp(np.minimum(8 * (x + 1), 20))
    return losses + np.random.default_rng(0).normal(0, noise, len(x))


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_the_steepest_fall_and_a_tenth_of_the_lowest_are_found_on_a_known_curve(noise):
    rates = np.geomspace(1e-7, 1, 100)
    losses = curve(rates, noise)
    found = _read(rates, losses, True, "adam")
    assert 5e-4 < found.suggestion < 2e-3
    fine = np.geomspace(1e-7, 1, 10000)
    assert found.tenth == pytest.approx(fine[np.argmin(curve(fine))] / 10, rel=0.7)
    assert found.exploded == 1.0 and found.loss_at(2.0) == float("inf")
    assert found.loss_at(1e-7) == pytest.approx(2.3, abs=0.1)


def test_a_loss_that_does_not_fall_suggests_nothing():
    rates = np.geomspace(1e-7, 1, 100)
    noise = np.random.default_rng(0).normal(0, 0.05, 100)
    for losses in (2.3 + noise, 2.3 + noise + np.linspace(0, 3, 100)):
        found = _read(rates, losses, False, "adam")
        assert found.suggestion is None and found.tenth is None
        assert "the loss falls at no rate" in str(found)
    broken = _read(rates[:2], np.array([np.nan, np.nan]), True, "adam")
    assert broken.suggestion is None and broken.exploded == rates[1]


def test_it_finds_a_rate_that_trains_and_leaves_no_trace(data, tmp_path):
    model = small_model()
    model.compile(optimizer=keras.optimizers.Adam(0.123), loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(17)
    optimizer = model.optimizer
    before = [np.asarray(v) for v in (*model.variables, *optimizer.variables)]
    random.seed(5)
    np.random.seed(5)
    found = lr_find(model, data, RECIPE)
    assert [random.random(), np.random.random()] == [random.Random(5).random(), np.random.RandomState(5).random()]
    assert model.optimizer is optimizer and model.loss == "mse"
    for a, b in zip(before, (*model.variables, *optimizer.variables), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))

    assert 1e-4 < found.suggestion < 1e-1 and found.optimizer == "adam"
    assert found.rates[0] == 1e-7 and len(found.rates) == len(found.losses) == len(found.smoothed) <= 100
    np.testing.assert_allclose(found.rates[1:] / found.rates[:-1], 1e8 ** (1 / 99), rtol=1e-9)
    run = cnn_zoo.fit(model, data, RECIPE.replace(learning_rate=found.suggestion, epochs=8), run=tmp_path, verbose=0)
    assert run.history["val_accuracy"][-1] > 0.8
    assert "where the loss falls most steeply" in str(found)

    picture = found.plot(save=tmp_path / "rate.png")
    assert (tmp_path / "rate.png").read_bytes()[:4] == b"\x89PNG" and picture.axes[0].get_xscale() == "log"


def test_sgd_on_a_bowl_explodes_where_theory_says(rng):
    """Softmax regression: the curvature of the loss is at most that of the inputs; far above 2 / curvature it cannot stay calm."""
    labels = np.arange(256) % 2
    images = np.where(labels[:, None, None] == 1, 255, 0) * np.ones((1, 4, 4))
    images = np.clip(images + rng.integers(-100, 100, images.shape), 0, 255).astype("uint8")
    data = Data.from_arrays(images, labels)
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(inputs)))  # pixels 0..255 as they are: a steep bowl
    found = lr_find(model, data, RECIPE.replace(optimizer="sgd"), highest=1e3)
    flat = images.reshape(len(images), -1).astype("float64")
    curvature = np.linalg.eigvalsh(flat.T @ flat / len(flat)).max() / 2
    assert found.exploded and found.exploded > 0.1 / curvature
    assert found.suggestion is None or found.suggestion < 100 / curvature


def test_a_tf_dataset_goes_in_and_bad_input_is_refused(data):
    dataset = cnn_zoo.pipeline(data.train, 32)
    found = lr_find(small_model(), dataset, RECIPE, steps=12)  # more steps than the 10 batches that it has
    assert len(found.rates) == 12
    for settings, message in (
        ({"lowest": 0}, "0 < lowest < highest, not from 0 to 10.0"),
        ({"lowest": 1, "highest": 0.1}, "not from 1 to 0.1"),
        ({"steps": 3}, "steps must be a whole number of at least 10, not 3"),
    ):
        with pytest.raises(InputError, match=message):
            lr_find(small_model(), data, RECIPE, **settings)
    with pytest.raises(InputError, match="takes 6x6 images"):
        lr_find(small_model(), Data.from_arrays(np.zeros((60, 5, 5), "uint8"), np.arange(60) % 3), RECIPE)
    with pytest.raises(InputError, match="a built keras.Model is expected, not str"):
        lr_find("lenet", data, RECIPE)


def test_the_model_comes_back_after_an_error_in_the_middle(data, monkeypatch):
    import sys

    model = small_model()
    before = model.get_weights()
    module, calls = sys.modules["cnn_zoo.train.lr_find"], []
    real = module.step

    def failing(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "step", failing)
    with pytest.raises(KeyboardInterrupt):
        lr_find(model, data, RECIPE, lowest=0.1)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)
