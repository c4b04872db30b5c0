"""AlexNet and ZFNet against their papers and the lecture's figure, and local response normalisation against a NumPy twin."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from cnn_zoo import build
from cnn_zoo.blocks import ceil_pool
from cnn_zoo.layers import LRN


def shapes(model, names):
    return [tuple(model.get_layer(name).output.shape[1:]) for name in names.split()]


def twin(a, n, k, alpha, beta):
    b = np.empty(a.shape)
    for i in range(a.shape[-1]):
        around = a[..., max(0, i - n // 2) : i + n // 2 + 1].astype("float64")
        b[..., i] = a[..., i] / (k + alpha * (around**2).sum(-1)) ** beta
    return b


@pytest.mark.parametrize(
    "constants", [(5, 2.0, 1e-4, 0.75), (3, 1.0, 0.5, 0.5), (1, 1.0, 1.0, 1.0), (9, 1.0, 2.0, 0.75)]
)
def test_lrn_equals_a_numpy_twin(constants, rng):
    a = rng.normal(0, 3, (2, 4, 3, 7)).astype("float32")
    layer = LRN(*constants)
    np.testing.assert_allclose(layer(a), twin(a, *constants), rtol=1e-5)
    again = LRN.from_config(layer.get_config())
    np.testing.assert_array_equal(again(a), layer(a))
    assert layer.compute_output_shape((None, None, None, 7)) == (None, None, None, 7)


def test_lrn_survives_activations_whose_squares_overflow_float16(rng):
    a = rng.normal(0, 3000, (1, 2, 2, 8)).astype("float16")
    b = LRN(dtype="float16")(a)
    assert keras.backend.standardize_dtype(b.dtype) == "float16"
    np.testing.assert_allclose(np.asarray(b, "float32"), twin(a, 5, 2.0, 1e-4, 0.75), rtol=2e-3)


@pytest.mark.parametrize("n", [0, 4])
def test_lrn_wants_an_odd_neighbourhood(n):
    with pytest.raises(ValueError, match=f"n must be odd.*not {n}"):
        LRN(n)


@pytest.mark.parametrize(("size", "window"), [(6, 3), (7, 3), (8, 2), (9, 2)])
def test_ceil_pool_reaches_beyond_the_map(size, window, rng):
    x = np.maximum(rng.normal(size=(1, size, size, 2)), 0).astype("float32")
    y = np.asarray(ceil_pool(ops.convert_to_tensor(x), window, name="pool"))
    outputs = -(-(size - window) // 2) + 1
    assert y.shape == (1, outputs, outputs, 2)
    for r in range(outputs):
        for c in range(outputs):
            np.testing.assert_array_equal(y[0, r, c], x[0, 2 * r : 2 * r + window, 2 * c : 2 * c + window].max((0, 1)))


def test_the_original_has_the_layers_of_section_3_5():
    model = build("alexnet")
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.count_params()}
    assert counts == {
        "conv1": 11 * 11 * 3 * 96 + 96,
        "conv2": 5 * 5 * 48 * 256 + 256,
        "conv3": 3 * 3 * 256 * 384 + 384,
        "conv4": 3 * 3 * 192 * 384 + 384,
        "conv5": 3 * 3 * 192 * 256 + 256,
        "head_fc6": 6 * 6 * 256 * 4096 + 4096,
        "head_fc7": 4096 * 4096 + 4096,
        "logits": 4096 * 1000 + 1000,
    }
    order = [
        layer.name
        for layer in model.layers
        if layer.name.startswith(("conv", "norm", "pool")) and "relu" not in layer.name
    ]
    assert order == ["conv1", "norm1", "pool1", "conv2", "norm2", "pool2", "conv3", "conv4", "conv5", "pool5"]


def test_the_two_groups_do_not_see_each_other(rng):
    model = build("alexnet", input_size=67, classes=2)
    conv2 = model.get_layer("conv2")
    x = rng.normal(size=(1, 3, 3, 96)).astype("float32")
    other = np.concatenate([x[..., :48], x[..., 48:] + 1], -1)
    same = np.asarray(conv2(x)) == np.asarray(conv2(other))
    assert same[..., :128].all() and not same[..., 128:].any()


def test_the_lectures_figure_comes_out(shared):
    figure = json.loads(shared("reference/lecture.json").read_text())["alexnet_variant"]
    maps = [tuple(int(n) for n in text.split()[0].split("x")) for text in figure["shapes"] if "x" in text.split()[0]]
    model = build("alexnet_lecture")
    assert list(model.input_shape[1:]) == figure["input"]
    assert shapes(model, "conv1 pool1 conv2 pool2 conv3 conv4 conv5 pool5") == maps
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [4096, 4096, 1000]
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.5, 0.5]
    first, original = figure["original_first_layer"], build("alexnet")
    assert list(original.input_shape[1:]) == first["input"]
    assert shapes(original, "conv1") == [tuple(first["output"])]
    assert (
        original.get_layer("conv1").kernel_size == (first["filter"],) * 2
        and original.get_layer("conv1").padding == "valid"
    )


def test_zfnet_has_the_sizes_of_figure_3():
    model = build("zfnet")
    assert shapes(model, "conv1 norm1 conv2 norm2 conv3 conv4 conv5 pool5") == [
        (110, 110, 96), (55, 55, 96), (26, 26, 256), (13, 13, 256), (13, 13, 384), (13, 13, 384), (13, 13, 256), (6, 6, 256),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["alexnet", "alexnet_lecture", "alexnet_one_tower", "zfnet"])
def test_too_small_an_image_says_how_large_it_must_be(name):
    with pytest.raises(ValueError, match="each side must be at least [3-7][0-9] pixels"):
        build(name, input_size=20)
