"""Layers of segmentation against NumPy twins: unpooling with ties and odd sizes, padding and cropping, pooling with holes; on other backends too."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from cnn_zoo.decoders.pspnet import GridPooling2D, ResizeLike
from cnn_zoo.segmentation_layers import (
    Bilinear,
    BilinearUpSampling2D,
    BroadcastLike,
    CropLike,
    DilatedPooling2D,
    MaxUnpool2D,
    PadToMultiple,
)
from cnn_zoo.segmenting import build_segnet


def unpool(x, full, k):
    """The twin: one window after the other, `argmax` for the first of equal maxima."""
    out = np.zeros_like(full)
    for b, i, j, c in np.ndindex(x.shape):
        window = full[b, i * k : (i + 1) * k, j * k : (j + 1) * k, c]
        row, column = np.unravel_index(window.argmax(), window.shape)
        out[b, i * k + row, j * k + column, c] = x[b, i, j, c]
    return out


def pooled_size(side, k, padding):
    return side // k if padding == "valid" else -(-side // k)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("height", "width", "k"), [(6, 8, 2), (7, 5, 2), (9, 9, 3), (10, 11, 3), (4, 4, 1)])
def test_unpooling_is_that_of_its_twin(rng, height, width, k, padding):
    full = rng.integers(-2, 2, (2, height, width, 3)).astype("float32")  # few values: most windows have ties
    x = rng.normal(size=(2, pooled_size(height, k, padding), pooled_size(width, k, padding), 3)).astype("float32")
    expected = unpool(x, full, k)
    layer = MaxUnpool2D(k)
    np.testing.assert_array_equal(layer([x, full]), expected)
    assert layer.compute_output_shape((x.shape, full.shape)) == expected.shape
    inputs = [keras.Input((None, None, 3)), keras.Input((None, None, 3))]
    np.testing.assert_array_equal(
        keras.Model(inputs, layer(inputs)).predict_on_batch([x, full]), expected
    )  # open sizes, in a graph


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_unpooling_undoes_a_max_pooling(rng, padding):
    full = np.maximum(rng.normal(size=(1, 9, 7, 4)), 0).astype("float32")
    pooled = keras.layers.MaxPooling2D(2, padding=padding)(full)
    again = np.asarray(MaxUnpool2D()([pooled, full]))
    assert set(again[again != 0]) <= set(full[full != 0])
    np.testing.assert_array_equal(keras.layers.MaxPooling2D(2, padding=padding)(again), pooled)
    np.testing.assert_array_equal(again[again != 0], full[again != 0])  # each value where it came from


def test_gradients_go_to_the_values_and_not_to_the_indices(rng):
    import tensorflow as tf

    x, full = tf.constant(rng.normal(size=(1, 3, 3, 2))), tf.constant(rng.integers(0, 2, (1, 6, 6, 2)) * 1.0)
    weights = rng.normal(size=full.shape)
    with tf.GradientTape() as tape:
        tape.watch([x, full])
        loss = tf.reduce_sum(MaxUnpool2D(dtype="float64")([x, full]) * weights)
    to_x, to_full = tape.gradient(loss, [x, full])
    assert to_full is None
    expected = np.zeros(x.shape)
    one_hot = unpool(np.ones(x.shape), full.numpy(), 2)
    for i, j in np.ndindex(3, 3):
        window = np.s_[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        expected[:, i, j] = (weights[window] * one_hot[window]).sum((1, 2))
    np.testing.assert_allclose(to_x, expected)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_unpooling_in_half_precision(rng, policy):
    keras.config.set_dtype_policy(policy)
    full = rng.integers(-3, 3, (1, 5, 6, 2)).astype("float32")
    x = rng.integers(-3, 3, (1, 3, 3, 2)).astype("float32")
    y = MaxUnpool2D()([x, full])
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    np.testing.assert_array_equal(ops.cast(y, "float32"), unpool(x, full, 2))


@pytest.mark.parametrize(("small", "large"), [((1, 1), (5, 7)), ((3, 2), (8, 12)), ((6, 6), (2, 3))])
def test_resizing_is_that_of_keras(rng, small, large):
    x, like = rng.normal(size=(2, *small, 3)).astype("float32"), np.zeros((2, *large, 1), "float32")
    expected = ops.image.resize(x, large, interpolation="bilinear")
    np.testing.assert_allclose(ResizeLike()([x, like]), expected, atol=1e-6)
    inputs = [keras.Input((None, None, 3)), keras.Input((None, None, 1))]
    model = keras.Model(inputs, ResizeLike()(inputs))
    np.testing.assert_allclose(model.predict_on_batch([x, like]), expected, atol=1e-6)


def test_what_unpooling_refuses():
    with pytest.raises(ValueError, match="3 channels cannot be put at the maxima of 4"):
        MaxUnpool2D()([np.zeros((1, 2, 2, 3)), np.zeros((1, 4, 4, 4))])
    with pytest.raises(ValueError, match="pooling 8 pixels by 2 does not give 3"):
        MaxUnpool2D()([np.zeros((1, 3, 4, 1)), np.zeros((1, 8, 8, 1))])
    with pytest.raises(ValueError, match="at least 1"):
        MaxUnpool2D(0)


@pytest.mark.parametrize(("height", "width"), [(8, 16), (9, 15), (1, 1)])
def test_padding_and_cropping_undo_each_other(rng, height, width):
    x = rng.normal(size=(2, height, width, 3)).astype("float32")
    padded = np.asarray(PadToMultiple(8)(x))
    assert padded.shape[1] == -(-height // 8) * 8 and padded.shape[2] == -(-width // 8) * 8
    np.testing.assert_array_equal(padded[:, :height, :width], x)
    assert not padded[:, height:].any() and not padded[:, :, width:].any()
    np.testing.assert_array_equal(CropLike()([padded, x[..., :1]]), x)
    image = keras.Input((None, None, 3))
    model = keras.Model(image, CropLike()([PadToMultiple(8)(image), image]))
    np.testing.assert_array_equal(model.predict_on_batch(x), x)


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize(
    ("size", "dilation", "padding"), [(2, 1, (0, 1)), (3, 2, (2, 2)), (3, 2, (0, 0)), (2, 4, (0, 4))]
)
def test_pooling_with_holes_is_that_of_its_twin(rng, size, dilation, padding, mode):
    x = rng.normal(size=(2, 9, 11, 3)).astype("float32")
    expected = []
    reach = (size - 1) * dilation
    for i in range(-padding[0], 9 + padding[1] - reach):
        for j in range(-padding[0], 11 + padding[1] - reach):
            rows = [i + a * dilation for a in range(size) if 0 <= i + a * dilation < 9]
            columns = [j + a * dilation for a in range(size) if 0 <= j + a * dilation < 11]
            expected.append(getattr(np, {"max": "max", "avg": "mean"}[mode])(x[:, rows][:, :, columns], (1, 2)))
    layer = DilatedPooling2D(size, dilation, mode, padding)
    shape = layer.compute_output_shape(x.shape)
    np.testing.assert_allclose(layer(x), np.stack(expected, 1).reshape(shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_enlarging_is_that_of_keras(rng, factor):
    x = rng.normal(size=(2, 5, 7, 3)).astype("float32")
    expected = ops.image.resize(x, (5 * factor, 7 * factor), interpolation="bilinear")
    layer = BilinearUpSampling2D(factor)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)
    assert layer.compute_output_shape((None, None, 7, 3)) == (None, None, 7 * factor, 3)
    one = np.full((1, 1, 1, 2), 3.0, "float32")
    np.testing.assert_allclose(layer(one), np.full((1, factor, factor, 2), 3.0), rtol=1e-6)
    with pytest.raises(ValueError, match="at least 1"):
        BilinearUpSampling2D(0)


def all_layers():
    """Every layer in one model of open sizes."""
    image = keras.Input((None, None, 2))
    x = PadToMultiple(4)(image)
    pooled = DilatedPooling2D(3, 2, "avg", (2, 2))(keras.layers.MaxPooling2D(2)(x))
    y = keras.layers.Concatenate()([MaxUnpool2D()([pooled, x]), BilinearUpSampling2D(2)(pooled)])
    y = keras.layers.Add()([y, BroadcastLike()([keras.layers.GlobalAveragePooling2D(keepdims=True)(y), y])])
    y = keras.layers.Add()([y, ResizeLike()([GridPooling2D(3)(y), y])])
    y = keras.layers.Conv2DTranspose(2, 4, 2, "same", use_bias=False, kernel_initializer=Bilinear())(y)
    return keras.Model(image, CropLike()([y, image]))


def answer(model, format, folder, x):
    """What the exported model gives, without Keras."""
    import tensorflow as tf

    if format == "onnx":
        pytest.importorskip("tf2onnx", reason="ONNX files are written by tf2onnx")
        from onnx.reference import ReferenceEvaluator

        model.export(folder / "model.onnx", format="onnx", verbose=False)
        onnx = ReferenceEvaluator(str(folder / "model.onnx"))
        return onnx.run(None, {onnx.input_names[0]: x})[0]
    model.export(folder / "model", verbose=False)
    if format == "savedmodel":
        loaded = tf.saved_model.load(folder / "model")
        return loaded.serve(x)
    lite = tf.lite.TFLiteConverter.from_saved_model(str(folder / "model")).convert()
    lite = tf.lite.Interpreter(model_content=lite)
    index = lite.get_input_details()[0]["index"]
    lite.resize_tensor_input(index, x.shape)
    lite.allocate_tensors()
    lite.set_tensor(index, x)
    lite.invoke()
    return lite.get_tensor(lite.get_output_details()[0]["index"])


@pytest.mark.filterwarnings("ignore:(?s).*tf.lite.Interpreter is deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # of tf2onnx
@pytest.mark.parametrize("format", ["savedmodel", "litert", "onnx"])
@pytest.mark.parametrize("net", ["layers", pytest.param("segnet_basic", marks=pytest.mark.slow)])
def test_exported_layers_give_the_same_at_any_size(rng, tmp_path, net, format):
    model = all_layers() if net == "layers" else build_segnet("basic", 3)
    x = rng.uniform(0, 255, (1, 9, 14, model.input_shape[-1])).astype("float32")
    expected = model(x, training=False)
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(answer(model, format, tmp_path, x), expected, atol=atol)


def test_layers_come_back_from_a_file(rng, tmp_path):
    model = all_layers()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    image = rng.normal(size=(1, 7, 5, 2)).astype("float32")
    np.testing.assert_array_equal(again(image), model(image))
    assert [layer.get_config() for layer in again.layers] == [layer.get_config() for layer in model.layers]


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_bilinear_kernels_interpolate(rng, factor):
    x = rng.normal(size=(1, 6, 5, 3)).astype("float32")
    up = keras.layers.Conv2DTranspose(3, 2 * factor, factor, "same", use_bias=False, kernel_initializer=Bilinear())(x)
    expected = ops.image.resize(x, (6 * factor, 5 * factor), interpolation="bilinear")
    inside = np.s_[:, factor:-factor, factor:-factor]  # beyond the border one sees zeros, the other the edge
    np.testing.assert_allclose(up[inside], expected[inside], atol=1e-5)


COMPUTE = """
import keras, numpy as np
from cnn_zoo.segmentation_layers import MaxUnpool2D
from cnn_zoo.segmenting import build_segmenter, build_segnet

def compute(given, net):
    unpooled = keras.ops.convert_to_numpy(MaxUnpool2D()([given["x"], given["full"]]))
    model = build_segnet("basic", 3) if net == "segnet_basic" else build_segmenter(net, "mobilenet_025", 3)
    for i, v in enumerate(model.weights):
        values = np.random.default_rng(i).normal(0, 1, v.shape) / np.sqrt(max(1, np.prod(v.shape[:-1])))
        v.assign(1 + np.abs(values) if "variance" in v.path or "gamma" in v.path else values)
    return {"unpooled": unpooled, "map": model.predict_on_batch(given["image"])}
"""
ELSEWHERE = (
    COMPUTE
    + """
import sys
np.savez(sys.argv[2], **compute(np.load(sys.argv[1]), sys.argv[3]))
print(keras.backend.backend())
"""
)


@pytest.mark.parametrize("net", ["segnet_basic", pytest.param("deeplabv3plus", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_same_numbers_on_other_backends(rng, tmp_path, backend, net):
    pytest.importorskip(backend, reason=f"needs {backend}")
    full = rng.integers(-2, 2, (2, 7, 5, 3)).astype("float32")
    x = rng.normal(size=(2, 3, 3, 3)).astype("float32")[:, :, :2]
    image = rng.integers(0, 256, (1, 37, 45, 3)).astype("uint8")
    np.savez(tmp_path / "given.npz", x=x, full=full, image=image)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE, tmp_path / "given.npz", tmp_path / "found.npz", net],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == backend
    found, here = np.load(tmp_path / "found.npz"), {}
    exec(COMPUTE, here)  # noqa: S102  (the same lines on this backend)
    expected = here["compute"]({"x": x, "full": full, "image": image}, net)
    np.testing.assert_array_equal(found["unpooled"], unpool(x, full, 2))
    np.testing.assert_array_equal(expected["unpooled"], unpool(x, full, 2))
    np.testing.assert_allclose(found["map"], expected["map"], atol=2e-4)
    assert np.ptp(expected["map"]) > 0.01
