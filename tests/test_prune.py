"""Pruning: which weights go, that they stay 0 to the last bit, what it reports, resume."""

import gzip
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as L
from safetensors.numpy import save

import cnn_zoo
from cnn_zoo import InputError, Recipe, evaluate, fit, load_model
from cnn_zoo.train import prune

QUICK = Recipe("quick", epochs=4, batch_size=32, learning_rate=0.01, validation=0.2)


@pytest.fixture
def data(thirds):
    return thirds


def small_model():
    inputs = keras.Input((12, 12, 1))
    x = L.Rescaling(1 / 255)(inputs)
    x = L.BatchNormalization(name="norm")(L.Conv2D(6, 3, padding="same", activation="relu", name="conv")(x))
    x = L.DepthwiseConv2D(3, name="depthwise")(x)
    x = L.Flatten()(L.AveragePooling2D(2)(x))
    return keras.Model(inputs, L.Dense(3, activation="softmax", name="classes")(x), name="small")


def kernels_of(model):
    return {layer.name: np.array(layer.kernel) for layer in model.layers if layer.name in ("conv", "classes")}


@pytest.fixture
def trained(data, tmp_path):
    model = small_model()
    fit(model, data, QUICK, run=tmp_path / "trained", verbose=0)
    return model


def test_the_smallest_weights_of_all_go_and_the_net_still_works(data, trained, tmp_path):
    before = kernels_of(trained)
    sizes = np.sort(np.abs(np.concatenate([k.ravel() for k in before.values()])))
    found = prune(trained, data, QUICK, sparsity=0.7, steps=1, run=tmp_path / "pruned", verbose=0)
    bound = sizes[round(0.7 * len(sizes)) - 1]
    after = kernels_of(found.model)
    for name, kernel in before.items():
        np.testing.assert_array_equal(after[name] == 0, np.abs(kernel) <= bound)
        assert not np.signbit(after[name][after[name] == 0]).any()  # 0, not -0
    report = found.report
    assert [row["name"] for row in report.layers] == ["conv", "classes"]
    assert sum(row["zeros"] for row in report.layers) == round(0.7 * len(sizes))
    assert sum(row["weights"] for row in report.layers) == len(sizes)
    assert report.weights == sum(w.size for w in trained.get_weights())
    assert report.zeros == sum((w == 0).sum() for w in trained.get_weights())
    assert report.part == "test" and report.tuned == evaluate(trained, data.test).accuracy >= 0.95
    assert np.all(np.array(trained.get_layer("depthwise").kernel) != 0)

    arrays = {f"{i}/{v.path}": np.array(v) for i, v in enumerate(trained.weights)}
    assert report.bytes["dense"] == len(save(arrays))
    assert report.bytes["after"] == len(gzip.compress(save(arrays), 6, mtime=0)) < 0.7 * report.bytes["before"]

    loaded, classes = load_model(tmp_path / "pruned")
    assert classes == data.classes
    np.testing.assert_array_equal(loaded(data.test.images), trained(data.test.images))
    assert json.loads((tmp_path / "pruned" / "pruning.json").read_text())["report"] == report.to_dict()
    assert "70.0%" in str(report) or f"{report.zeros:,}" in str(report)
    report.plot(save=tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_net_that_is_pruned_with_no_training_is_reported_as_it_is(data, trained, tmp_path):
    twin = keras.models.clone_model(trained)
    twin.set_weights(trained.get_weights())
    for name in ("conv", "classes"):
        kernel = twin.get_layer(name).kernel
        values = np.array(kernel)
        order = np.argsort(np.abs(values).ravel(), kind="stable")[: round(0.9 * values.size)]
        values.ravel()[order] = 0
        kernel.assign(values)
    expected = evaluate(twin, data.test).accuracy, evaluate(trained, data.test).accuracy
    found = prune(trained, data, QUICK, sparsity=0.9, scope="layer", steps=2, run=tmp_path / "pruned", verbose=0)
    assert (found.report.pruned, found.report.before) == expected
    assert [row["zeros"] for row in found.report.layers] == [round(0.9 * row["weights"]) for row in found.report.layers]
    assert found.run.status == "finished" and [row["epoch"] for row in found.run.rows] == [1, 2, 3, 4]
    assert [phase["name"] for phase in found.run.about["phases"]] == ["1-79%", "2-90%"]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw", "weight_decay": 0.01},
        {"optimizer": "sgd", "ema": 0.9},
        {"precision": "float16", "clip": 1.0},
        {"sam": 0.05, "accumulate": 2},
        {"rates": {"stem": 0.1}},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_zeros_stay_zeros_whatever_the_recipe(data, tmp_path, changes):
    model, zeros = small_model(), []
    kernels = [model.get_layer(name).kernel for name in ("conv", "classes")]

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            zeros.append(sum(int((np.array(k) == 0).sum()) for k in kernels))

    recipe = QUICK.replace(epochs=2, **changes)
    found = prune(model, data, recipe, sparsity=0.6, steps=2, run=tmp_path / "run", verbose=0, callbacks=[Watch()])
    count = sum(row["weights"] for row in found.report.layers)
    assert zeros == [round(0.6 * (1 - 0.5**3) * count), round(0.6 * count)]
    assert sum(row["zeros"] for row in found.report.layers) == round(0.6 * count)
    assert all(kernel.constraint is None for kernel in kernels)


def test_a_kernels_own_constraint_holds_too(data, tmp_path):
    model = small_model()
    kernel = model.get_layer("classes").kernel
    kernel.constraint = own = keras.constraints.NonNeg()
    prune(model, data, QUICK.replace(epochs=1), sparsity=0.5, steps=1, run=tmp_path / "run", verbose=0)
    values = np.array(kernel)
    assert values.min() == 0 and (values > 0).any() and kernel.constraint is own


def test_a_stopped_pruning_goes_on_to_the_same_bits(data, trained, tmp_path):
    start = trained.get_weights()

    def pruned(folder, **more):
        return prune(trained, data, QUICK, sparsity=0.8, steps=2, run=tmp_path / folder, verbose=0, **more)

    expected = pruned("whole")
    weights = trained.get_weights()

    class Stop(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            Stop.epochs += 1
            if Stop.epochs == 3:  # the first epoch of the second step
                raise RuntimeError("killed")

    trained.set_weights(start)
    with pytest.raises(RuntimeError, match="killed"):
        pruned("stopped", callbacks=[Stop()])
    trained.set_weights([np.zeros_like(w) for w in start])  # resume needs the folder alone
    again = pruned("stopped", resume=True)
    for a, b in zip(weights, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.report == expected.report
    with pytest.raises(InputError, match="sparsity was 0.8 and is 0.5"):
        prune(trained, data, QUICK, sparsity=0.5, steps=2, run=tmp_path / "stopped", resume=True, verbose=0)
    with pytest.raises(InputError, match="is not empty"):
        pruned("whole")


def test_a_pruned_net_is_exported_as_any_other(data, trained, tmp_path):
    found = prune(trained, data, QUICK.replace(epochs=1), steps=1, run=tmp_path / "run", verbose=0)
    exported = cnn_zoo.export(found.model, tmp_path / "savedmodel", classes=data.classes)
    assert exported.max_difference < 1e-5


def test_what_cannot_be_pruned_is_said(data, trained, tmp_path):
    for settings, message in (
        ({"sparsity": 1.0}, "sparsity is a share"),
        ({"sparsity": True}, "sparsity is a share"),
        ({"scope": "row"}, "scope is one of global, layer"),
        ({"steps": 5}, "from 1 to the recipe's 4 epochs"),
        ({"skip": ["nothing"]}, "has no 'nothing'"),
        ({"skip": ["conv", "classes"]}, "has no kernel"),
    ):
        with pytest.raises(InputError, match=message):
            prune(trained, data, QUICK, run=tmp_path / "run", verbose=0, **settings)
    trained.get_layer("conv").kernel.assign(np.full((3, 3, 1, 6), 1e-9))
    with pytest.raises(InputError, match="all weights of 'conv'"):
        prune(trained, data, QUICK, run=tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()
    found = prune(trained, data, QUICK.replace(epochs=1), steps=1, skip=["conv"], run=tmp_path / "run", verbose=0)
    assert [row["name"] for row in found.report.layers] == ["classes"]


ELSEWHERE = """
import keras, numpy as np, cnn_zoo
from cnn_zoo import Data, Recipe
from cnn_zoo.train import prune
images, labels = np.random.default_rng(0).integers(0, 255, (48, 8, 8, 1)).astype("uint8"), np.arange(48) % 3
data = Data.from_arrays(images, labels, test=0.25)
x = keras.Input((8, 8, 1))
model = keras.Model(x, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(x))))
found = prune(model, data, Recipe(epochs=2, batch_size=12), steps=2, run={folder!r}, verbose=0)
assert sum(r["zeros"] for r in found.report.layers) == round(0.7 * sum(r["weights"] for r in found.report.layers))
print(keras.backend.backend(), "pruned")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_zeros_stay_zeros_on_other_backends(backend, tmp_path):
    pytest.importorskip(backend)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE.format(folder=str(tmp_path / "run"))],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [backend, "pruned"]
