"""Losses and metrics of segmentation_models: its own values and gradients, its names, and the package itself where it is installed."""

import json
import os
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnn_zoo.compat import sm_losses, sm_metrics

SM = types.SimpleNamespace(losses=sm_losses, metrics=sm_metrics)


def instance(row):
    if "expr" in row:
        return eval(row["expr"], {"__builtins__": {}, "sm": SM, **vars(sm_losses), **vars(sm_metrics)})
    args = {k: np.float32(v) if k == "class_weights" else v for k, v in row["args"].items()}
    return getattr(getattr(SM, row["kind"]), row["cls"])(**args)


def value_and_gradient(f, gt, pr):
    pr = tf.constant(pr)
    with tf.GradientTape() as tape:
        tape.watch(pr)
        value = f(tf.constant(gt), pr)
    gradient = tape.gradient(value, pr)
    return float(value), np.zeros(pr.shape) if gradient is None else gradient.numpy().astype("float64")


def test_all_631_values_and_gradients(shared):
    """Values to 1e-6 relative, gradients to 1e-5: both were computed in float32, in another order of summation.

    Where the old package divided 0 by 0 (categorical cross-entropy of a pixel whose channels are all 0), both gradients are NaN.
    """
    rows = json.loads(shared("reference/losses_metrics.json").read_text())["rows"]
    arrays = np.load(shared("reference/losses_metrics.npz"))
    assert len(rows) == 631
    gradients = 0
    for row in rows:
        f = instance(row)
        assert f.__name__ == f.name == row["name"]
        value, gradient = value_and_gradient(f, arrays[row["data"] + "_gt"], arrays[row["data"] + "_pr"])
        np.testing.assert_allclose(value, row["value"], rtol=1e-6, atol=2e-7, err_msg=str(row))
        if "grad_l2" in row:
            gradients += 1
            size = np.sqrt(np.square(gradient).sum())
            np.testing.assert_allclose(size, row["grad_l2"], rtol=1e-5, atol=1e-9, err_msg=str(row))
            scale = 1e-6 * np.nansum(np.abs(gradient))  # of a sum in which terms cancel
            np.testing.assert_allclose(gradient.sum(), row["grad_sum"], rtol=1e-5, atol=scale, err_msg=str(row))
            first = gradient.ravel()[:4]
            np.testing.assert_allclose(
                first, row["grad_first4"], rtol=1e-5, atol=1e-6 * np.nan_to_num(size), err_msg=str(row)
            )
    assert gradients == sum("grad_l2" in row for row in rows) > 300


ORACLE = """
import json, os, sys
os.environ["SM_FRAMEWORK"] = "tf.keras"
try:
    import segmentation_models as sm
except ImportError as error:
    sys.exit(f"absent: {error}")
import numpy as np, tensorflow as tf
rng = np.random.default_rng(7)
gt = np.eye(3, dtype="float32")[rng.integers(0, 3, (2, 9, 7))]
pr = rng.dirichlet(np.ones(3), (2, 9, 7)).astype("float32")
np.savez(sys.argv[1], gt=gt, pr=pr)
answers = []
for expression in json.load(sys.stdin):
    f = eval(expression, {"sm": sm, "np": np})
    x = tf.constant(pr)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = f(tf.constant(gt), x)
    g = tape.gradient(y, x)
    answers.append([f.__name__, float(y), None if g is None else g.numpy().tolist()])
print(json.dumps(answers))
"""

SETTINGS = [
    "",
    "per_image=True",
    "class_indexes=1",
    "class_indexes=[2, 0], smooth=0.5",
    "class_weights=np.array([3., 1., 0.5]), per_image=True",
]
EXPRESSIONS = [
    *(f"sm.losses.{c}({s})" for c in ("JaccardLoss", "DiceLoss") for s in SETTINGS),
    *(f"sm.metrics.{c}({s})" for c in ("IOUScore", "FScore", "Precision", "Recall") for s in SETTINGS),
    "sm.losses.DiceLoss(beta=0.3)",
    "sm.metrics.FScore(beta=3, threshold=0.4)",
    "sm.metrics.IOUScore(threshold=0.4, name='mine')",
    "sm.losses.CategoricalCELoss(class_weights=np.array([1., 2.]), class_indexes=[0, 2])",
    "sm.losses.CategoricalFocalLoss(alpha=0.6, gamma=1.5, class_indexes=2)",
    "sm.losses.BinaryFocalLoss(0.3, 3)",
    "sm.losses.BinaryCELoss()",
    "2.5 * (sm.losses.cce_dice_loss + sm.losses.BinaryFocalLoss() * 3)",
    *(f"sm.losses.{name}" for name in vars(sm_losses) if name.endswith(("_loss", "crossentropy"))),
    *(f"sm.metrics.{name}" for name in ("iou_score", "f1_score", "f2_score", "precision", "recall")),
]


def test_the_installed_package_agrees(tmp_path):
    data = tmp_path / "data.npz"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ORACLE, str(data)],
        input=json.dumps(EXPRESSIONS),
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    if "absent:" in done.stderr:
        pytest.skip("needs segmentation_models: " + done.stderr.strip())
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    arrays = np.load(data)
    assert len(answers) == len(EXPRESSIONS) > 50
    for expression, (name, value, gradient) in zip(EXPRESSIONS, answers):
        f = eval(expression, {"sm": SM, "np": np})
        ours, ours_gradient = value_and_gradient(f, arrays["gt"], arrays["pr"])
        assert f.__name__ == name, expression
        np.testing.assert_allclose(ours, value, rtol=1e-6, atol=2e-7, err_msg=expression)
        if gradient is not None:
            scale = 1e-6 * np.abs(gradient).max()
            np.testing.assert_allclose(ours_gradient, gradient, rtol=2e-5, atol=scale, err_msg=expression)


def test_names_of_sums_and_products():
    total = 3 * (sm_losses.dice_loss + sm_losses.binary_crossentropy)
    assert total.__name__ == "3dice_loss_plus_binary_crossentropy"
    total.name = "mine"
    assert total.__name__ == total.name == "mine"
    assert sm_metrics.FScore(beta=0.5).name == "f0.5-score"
    assert sm_metrics.KerasObject().name == "KerasObject"


def test_sums_of_other_things_are_refused():
    with pytest.raises(ValueError, match="inherited from `Loss`"):
        sm_losses.dice_loss + 1
    with pytest.raises(ValueError, match="inherited from `Loss`"):
        1 + sm_losses.dice_loss
    with pytest.raises(ValueError, match="multiplied by a number"):
        sm_losses.dice_loss * "2"


def test_quirks_are_kept():
    gt = np.zeros((1, 4, 4, 2), "float32")
    gt[..., 0] = 1
    assert float(sm_losses.DiceLoss(class_weights=np.array([3.0, 3.0]))(gt, gt)) == pytest.approx(-2)
    assert float(sm_metrics.IOUScore()(gt, gt)) == pytest.approx(1), "the absent class counts as found"


def test_integer_truth_and_half_precision_are_read():
    rng = np.random.default_rng(0)
    gt, pr = rng.integers(0, 2, (2, 300, 300, 1)), rng.random((2, 300, 300, 1))
    expected = sm_losses.bce_dice_loss(gt.astype("float32"), pr.astype("float32"))
    for truth in (gt, gt.astype("uint8"), gt.astype(bool)):
        assert float(sm_losses.bce_dice_loss(truth, pr.astype("float16"))) == pytest.approx(float(expected), rel=1e-3)


def test_channels_first(request):
    request.addfinalizer(lambda: keras.config.set_image_data_format("channels_last"))
    rng = np.random.default_rng(0)
    gt = np.eye(3, dtype="float32")[rng.integers(0, 3, (2, 5, 4))]
    pr = rng.dirichlet(np.ones(3), (2, 5, 4)).astype("float32")
    losses = [
        sm_losses.DiceLoss(class_indexes=[0, 2], per_image=True),
        sm_losses.CategoricalCELoss(class_indexes=[0, 1]),
    ]
    expected = [float(loss(gt, pr)) for loss in losses]
    keras.config.set_image_data_format("channels_first")
    found = [float(loss(np.moveaxis(gt, -1, 1), np.moveaxis(pr, -1, 1))) for loss in losses]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def small_model():
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 1, activation="softmax")])


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_compiled_model_trains_and_loads_without_custom_objects(tmp_path, name, rng, recwarn):
    """What the old package needed `custom_objects` for."""
    x, y = rng.random((4, 8, 8, 1), "float32"), np.eye(3, dtype="float32")[rng.integers(0, 3, (4, 8, 8))]
    model = small_model()
    loss = 0.5 * sm_losses.DiceLoss(class_weights=np.array([1.0, 2.0, 3.0])) + sm_losses.categorical_focal_loss
    model.compile("sgd", loss, metrics=[sm_metrics.IOUScore(threshold=0.5), sm_metrics.f1_score])
    history = model.fit(x, y, batch_size=2, verbose=0).history
    assert {"loss", "iou_score", "f1-score"} <= set(history)
    model.save(tmp_path / name)
    recwarn.clear()
    again = keras.saving.load_model(tmp_path / name)
    np.testing.assert_allclose(again.evaluate(x, y, verbose=0), model.evaluate(x, y, verbose=0), rtol=1e-5)
