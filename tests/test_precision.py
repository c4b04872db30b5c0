"""Short numbers where they help: what the hardware is made for, which layers stay in float32, and results within a band of float32's."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers as L

import cnn_zoo
from cnn_zoo import Data, InputError, Recipe
from cnn_zoo.train import precision


@pytest.mark.parametrize(
    ("hardware", "used", "why"),
    [
        (("gpu", (9, 0)), "bfloat16", "compute capability 9.0"),
        (("gpu", (8, 0)), "bfloat16", "no loss scaling"),
        (("gpu", (7, 5)), "float16", "float16, not bfloat16; the loss is scaled"),
        (("gpu", (6, 1)), "float32", "before 7.0"),
        (("tpu", None), "bfloat16", "TPU"),
        (("cpu", {"avx2", "avx512_bf16"}), "bfloat16", r"\(avx512_bf16\)"),
        (("cpu", {"amx_bf16", "avx512_bf16"}), "bfloat16", r"\(amx_bf16, avx512_bf16\)"),
        (("cpu", {"avx2"}), "float32", "no instructions"),
    ],
)
def test_auto_chooses_by_the_hardware_and_says_why(monkeypatch, hardware, used, why):
    monkeypatch.setattr(precision, "_hardware", lambda: hardware)
    found, said = precision.choose("auto")
    assert found == used
    assert re.search(why, said)
    assert precision.choose("float16") == ("float16", "as the recipe says")


def test_this_machine_is_told_from_others():
    kind, detail = precision._hardware()
    assert kind in ("cpu", "gpu", "tpu") and precision.choose()[0] in ("float32", "bfloat16", "float16")
    assert precision._capability("8.6") == (8, 6) and precision._capability("gfx90a") == (0, 0)


def model_with_everything():
    inputs = keras.Input((8, 8, 3))
    x = L.Rescaling(1 / 255, name="preprocess")(inputs)
    x = L.Conv2D(4, 3, name="conv")(x)
    x = L.BatchNormalization(name="bn")(x)
    x = L.LayerNormalization(name="ln")(x)
    x = L.Conv2D(4, 3, dtype="float64", name="own")(L.ReLU(name="relu")(x))
    inner = keras.Sequential([keras.Input((4, 4, 4)), L.Conv2D(4, 3, name="nested")], name="inner")
    x = L.GlobalAveragePooling2D(name="pool")(inner(x))
    return keras.Model(inputs, L.Softmax(name="softmax")(L.Dense(3, name="head")(x)))


def test_first_and_last_layers_and_normalisation_stay_in_float32():
    model = model_with_everything()
    layers = precision.lowered(model)
    assert [layer.name for layer in layers] == ["conv", "bn", "relu", "nested", "pool"]
    before = [layer.dtype_policy.name for layer in model.layers]
    images = np.full((2, 8, 8, 3), 200, "uint8")
    seen = keras.Model(model.inputs[0], [model.get_layer(name).output for name in ("conv", "bn", "head", "softmax")])
    exact = [np.asarray(value) for value in seen(images)]
    with precision.computing(layers, "bfloat16"):
        short = seen(images)
        kinds = [str(value.dtype.name) for value in short]
        assert kinds == ["bfloat16", "bfloat16", "float32", "float32"]
        assert {weight.dtype for layer in layers for weight in layer.weights} == {"float32"}
        with precision.computing(layers, "float32"):
            assert [layer.dtype_policy.name for layer in model.layers] == before
        assert layers[0].dtype_policy.name == "mixed_bfloat16"
    assert [layer.dtype_policy.name for layer in model.layers] == before
    np.testing.assert_allclose(np.asarray(short[-1]), exact[-1], atol=0.02)
    assert not np.array_equal(np.asarray(short[-1]), exact[-1])


def test_keras_normalises_in_float32_whatever_the_policy():
    """What `lowered` relies on: a mean of 1000 and a deviation of 1 cannot be told from each other in 8 bits."""
    x = np.random.default_rng(0).normal(1000, 1, (64, 4, 4, 8)).astype("float16")
    for layer in (L.BatchNormalization(dtype="mixed_float16"), L.GroupNormalization(4, dtype="mixed_float16")):
        out = np.asarray(layer(x, training=True), "float32")
        wide = x.astype("float64").reshape(64, 16, 4, 2).swapaxes(1, 2).reshape(64, 4, 32)
        if isinstance(layer, L.BatchNormalization):
            wide = x.astype("float64").reshape(-1, 8).T
        expected = ((wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)).std()
        assert out.std() == pytest.approx(expected, abs=0.01) and abs(out.mean()) < 0.01


@pytest.fixture(scope="module")
def digits():
    return cnn_zoo.load("digits", size=28)


LENET = Recipe("lenet", epochs=4, batch_size=64, learning_rate=2e-3)


def trained(digits, folder, **changes):
    keras.utils.set_random_seed(3)
    model = cnn_zoo.build_lenet()
    run = cnn_zoo.fit(model, digits, LENET.replace(**changes), run=folder, verbose=0)
    return model, run, cnn_zoo.evaluate(model, digits.test)


def test_short_numbers_are_as_good_as_float32_within_two_points(digits, tmp_path):
    _, wide, best = trained(digits, tmp_path / "float32")
    assert best.accuracy > 0.85
    for name in ("bfloat16", "float16"):
        model, run, found = trained(digits, tmp_path / name, precision=name)
        assert abs(found.accuracy - best.accuracy) < 0.02 and found.loss == pytest.approx(best.loss, rel=0.15)
        assert run.history["loss"] != wide.history["loss"]  # it was not float32 after all
        saved = keras.saving.load_model(tmp_path / name / "last.keras")
        for kept in (model, saved):
            assert {layer.dtype_policy.name for layer in kept.layers} == {"float32"}
        np.testing.assert_array_equal(saved(digits.test.images[:8]), model(digits.test.images[:8]))
        scales = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scales == (name == "float16")
        assert json.loads((tmp_path / name / "run.json").read_text())["precision"]["used"] == name


def test_gradients_that_overflow_float16_skip_a_step_instead_of_ruining_the_weights(tmp_path, rng):
    data = Data.from_arrays(rng.integers(0, 256, (64, 8, 8)).astype("uint8"), np.arange(64) % 2)
    inputs = keras.Input((8, 8, 1))
    x = L.Dense(8, kernel_initializer=keras.initializers.Constant(60.0))(L.Flatten()(inputs))
    x = L.Dense(8, kernel_initializer=keras.initializers.Constant(0.01))(
        L.Rescaling(0.01)(x)
    )  # 64 * 128 * 60 is beyond float16
    model = keras.Model(inputs, L.Dense(2, activation="softmax")(L.LayerNormalization()(x)))
    before = model.get_weights()
    recipe = Recipe("half", epochs=1, batch_size=16, validation=0, precision="float16")
    with pytest.raises(cnn_zoo.TrainingStopped, match="the loss became nan in epoch 1"):
        cnn_zoo.fit(model, data, recipe, run=tmp_path / "run", verbose=0)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_a_resumed_run_keeps_the_precision_it_began_with(tmp_path, monkeypatch, rng):
    data = Data.from_arrays(rng.integers(0, 256, (60, 8, 8)).astype("uint8"), np.arange(60) % 2)
    recipe = Recipe("auto", epochs=1, batch_size=30, precision="auto")

    def model():
        inputs = keras.Input((8, 8, 1))
        return keras.Model(inputs, L.Dense(2, activation="softmax")(L.Dense(4)(L.Flatten()(inputs))), name="small")

    monkeypatch.setattr(precision, "_hardware", lambda: ("gpu", (7, 0)))
    begun = cnn_zoo.fit(model(), data, recipe, run=tmp_path / "run", verbose=0)
    assert begun.about["precision"]["used"] == "float16" and "7.0" in begun.about["precision"]["why"]
    monkeypatch.setattr(precision, "_hardware", lambda: ("cpu", set()))
    other = model()
    more = cnn_zoo.fit(other, data, recipe.replace(epochs=2), run=tmp_path / "run", verbose=0, resume=True)
    assert more.about["precision"]["used"] == "float16" and len(more.rows) == 2
    assert isinstance(other.optimizer, keras.optimizers.LossScaleOptimizer)
    monkeypatch.setattr(precision, "_hardware", lambda: ("gpu", (7, 0)))
    with pytest.raises(InputError, match="sam needs gradients without loss scaling"):
        cnn_zoo.fit(model(), data, recipe.replace(sam=0.1), run=tmp_path / "other", verbose=0)
