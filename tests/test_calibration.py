"""Calibration: each number against another way to get it, and a calibrated model that is saved and exported as any other."""

import json

import keras
import numpy as np
import pytest
from keras import layers as L
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from scipy.stats import binom
from sklearn.metrics import brier_score_loss, log_loss, mean_squared_error

from cnn_zoo import Data, InputError, build_unet, evaluate, export
from cnn_zoo.calibration import (
    brier,
    calibrate,
    ece_by_chance,
    nll,
    reliability,
    temperature,
    two_outputs,
    with_temperature,
)
from cnn_zoo.outputs import output_kind


@pytest.fixture
def scored(rng):
    """Logits that are 2.5 times too large for labels that are drawn by their softmax."""
    logits = rng.normal(size=(4000, 5))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(-1)  # draws by softmax(logits)
    return 2.5 * logits, labels


def test_bins_against_a_loop(scored):
    logits, labels = scored
    p = softmax(logits, -1)
    found = reliability(p, labels, 10)
    total = 0
    for m in range(10):
        inside = [i for i in range(len(p)) if m / 10 < p[i].max() <= (m + 1) / 10]
        assert found.counts[m] == len(inside)
        if inside:
            confidence = sum(p[i].max() for i in inside) / len(inside)
            accuracy = sum(p[i].argmax() == labels[i] for i in inside) / len(inside)
            assert found.confidence[m] == pytest.approx(confidence) and found.accuracy[m] == pytest.approx(accuracy)
            total += len(inside) * abs(confidence - accuracy)
        else:
            assert np.isnan(found.confidence[m]) and np.isnan(found.accuracy[m])
    assert found.ece == pytest.approx(total / len(p)) and found.ece > 0.1


def test_a_confidence_on_an_edge_is_in_the_lower_bin():
    p = np.array([[0.5, 0.5], [0.5 + 1e-9, 0.5 - 1e-9], [1.0, 0.0]])
    assert reliability(p, np.array([0, 0, 0]), 4).counts.tolist() == [0, 1, 1, 1]


def test_ece_in_closed_form():
    p = np.tile([0.8, 0.2], (10, 1))
    labels = np.array([0] * 6 + [1] * 4)  # 0.8 sure, right in 6 of 10
    assert reliability(p, labels).ece == pytest.approx(0.2)
    assert brier(p, labels) == pytest.approx(0.6 * 2 * 0.2**2 + 0.4 * 2 * 0.8**2)
    assert nll(p, labels) == pytest.approx(-0.6 * np.log(0.8) - 0.4 * np.log(0.2))


def test_ece_by_chance_in_closed_form(scored):
    for n, p in ((4, 0.8), (400, 0.6)):  # one bin: the mean distance of a binomial share from its expectation
        shares = np.arange(n + 1) / n
        expected = (binom.pmf(np.arange(n + 1), n, p) * np.abs(shares - p)).sum()
        assert ece_by_chance(np.tile([p, 1 - p], (n, 1)), times=20000) == pytest.approx(expected, rel=0.03)
    calibrated = softmax(scored[0] / 2.5, -1)
    assert reliability(calibrated, scored[1]).ece < 2 * ece_by_chance(calibrated) < 0.05


def test_brier_and_nll_against_scikit_learn(scored):
    logits, labels = scored
    p = softmax(logits, -1)
    assert nll(p, labels) == pytest.approx(log_loss(labels, p))
    two = softmax(logits[:, :2], -1)
    # Scikit-learn's score of two classes counts one of the two equal terms.
    assert brier(two, labels % 2) == pytest.approx(2 * brier_score_loss(labels % 2, two[:, 1]))
    assert brier(p, labels) == pytest.approx(5 * mean_squared_error(np.eye(5)[labels], p))
    assert nll(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(-np.log(np.finfo("float32").tiny))


def test_temperature_against_a_search(scored):
    logits, labels = scored

    def loss(t):
        return -log_softmax(logits / t, -1)[np.arange(len(labels)), labels].mean()

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8})
    found = temperature(logits, labels)
    assert found == pytest.approx(best.x, rel=1e-4) and found == pytest.approx(2.5, abs=0.15)
    assert temperature(3 * logits + np.arange(len(labels))[:, None], labels) == pytest.approx(3 * found)
    assert reliability(softmax(logits / found, -1), labels).ece < 0.25 * reliability(softmax(logits, -1), labels).ece


def test_no_temperature_is_best():
    with pytest.raises(InputError, match="all 2 images are classified rightly"):
        temperature(np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([0, 1]))
    with pytest.raises(InputError, match="no more of the classes than chance"):
        temperature(np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([1, 0]))
    with pytest.raises(InputError, match="no more of the classes than chance"):
        temperature(np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), np.array([0, 1, 0]))


def classifier(outputs, activation):
    inputs = keras.Input((6, 6, 1))
    x = L.Flatten()(L.Rescaling(1 / 40)(inputs))
    return keras.Model(inputs, L.Dense(outputs, activation=activation)(x), name="small")


@pytest.fixture
def data(rng):
    images = rng.integers(0, 256, (300, 6, 6, 1)).astype("uint8")
    return Data.from_arrays(images, rng.integers(0, 3, 300))


@pytest.mark.parametrize("activation", ["softmax", None])
def test_a_calibrated_model(data, activation, tmp_path):
    model = classifier(3, activation)
    # Labels that follow the model, with some noise: there is something to calibrate.
    raw = np.asarray(model(data.train.images))
    logits = np.log(raw) if activation else raw
    rng = np.random.default_rng(1)
    data = Data.from_arrays(data.train.images, (logits / 3 + rng.gumbel(size=logits.shape)).argmax(-1))
    t = calibrate(model, data.train)
    assert t == pytest.approx(temperature(logits, data.train.labels), rel=1e-3) and t > 1.5
    calibrated = with_temperature(model, t)
    assert output_kind(calibrated) == "softmax"
    np.testing.assert_allclose(calibrated(data.train.images), softmax(logits / t, -1), atol=1e-5)
    assert calibrate(calibrated, data.train) == pytest.approx(1, abs=1e-3)
    before, after = evaluate(model, data.train), evaluate(calibrated, data.train)
    assert after.loss < before.loss and after.accuracy == before.accuracy

    calibrated.save(tmp_path / "calibrated.keras")
    again = keras.saving.load_model(tmp_path / "calibrated.keras", compile=False)
    assert np.array_equal(again(data.train.images[:9]), calibrated(data.train.images[:9]))
    assert 1 / again.get_layer("temperature").scale == pytest.approx(t)


@pytest.mark.slow
def test_the_export_carries_the_temperature(data, tmp_path):
    import tensorflow as tf

    model = classifier(3, "softmax")
    exported = export(with_temperature(model, 2.0), tmp_path / "saved", classes=["a", "b", "c"])
    assert exported.max_difference < 1e-5 and json.loads((tmp_path / "saved/model.json").read_text())
    images = data.train.images[:5]
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serve_uint8"](images=tf.constant(images))
    expected = softmax(np.log(np.asarray(model(images))) / 2, -1)
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-5)


def test_a_model_that_is_sure_to_the_last_bit_stays_finite():
    inputs = keras.Input((1, 1, 1))
    x = L.Softmax()(keras.ops.concatenate([L.Flatten()(inputs), -L.Flatten()(inputs)], -1))
    calibrated = with_temperature(keras.Model(inputs, x), 4.0)
    p = np.asarray(calibrated(np.array([0, 1, 255.0]).reshape(-1, 1, 1, 1)))
    assert np.isfinite(p).all() and p[0].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(p[1], softmax([0.25, -0.25]), rtol=1e-5)
    assert p[2, 0] > 1 - 1e-6


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_output_is_two_classes(data, activation):
    model = classifier(1, activation)
    raw = np.asarray(model(data.train.images))[:, 0].astype("float64")
    p = raw if activation else expit(raw)
    two = Data.from_arrays(data.train.images, data.train.labels % 2)
    found = evaluate(two_outputs(model), two.train)
    np.testing.assert_allclose(found.probabilities, np.stack([1 - p, p], -1), atol=1e-5)
    calibrated = with_temperature(model, 2.0)
    odds = np.log(p / (1 - p))
    np.testing.assert_allclose(np.asarray(calibrated(two.train.images))[:, 0], expit(odds / 2), atol=1e-5)
    assert output_kind(calibrated) == "sigmoid" and calibrated.output_shape == (None, 1)


def test_mixed_precision_keeps_float32(data):
    keras.config.set_dtype_policy("mixed_bfloat16")
    calibrated = with_temperature(classifier(3, "softmax"), 1.5)
    assert calibrated.outputs[0].dtype == "float32"


def test_wrong_input(data):
    model = classifier(3, "softmax")
    for bad in (0, -1, float("nan"), float("inf"), "2"):
        with pytest.raises(InputError, match="a number above 0"):
            with_temperature(model, bad)
    with pytest.raises(InputError, match="3 sigmoid outputs"):
        with_temperature(classifier(3, "sigmoid"), 2.0)
    with pytest.raises(InputError, match="3 sigmoid outputs"):
        calibrate(classifier(3, "sigmoid"), data.train)
    with pytest.raises(InputError, match="a class a pixel"):
        calibrate(build_unet(classes=2, input_size=(16, 16), channels=1, width=4), data.train)
    with pytest.raises(InputError, match="no images"):
        calibrate(model, None)
    with pytest.raises(InputError, match="at least one"):
        reliability(np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(InputError, match="labels are integers 0..2"):
        reliability(np.eye(3), np.array([0, 1, 3]))
    with pytest.raises(InputError, match="bins must be"):
        reliability(np.eye(3), np.arange(3), 0)
