"""Grouped convolutions against those of Keras."""

import keras
import numpy as np
import pytest

from cnn_zoo import build
from cnn_zoo.layers import GroupedConv2D


@pytest.mark.parametrize(
    "settings",
    [
        {"groups": 4, "padding": "same", "use_bias": False},
        {"groups": 2, "strides": 2, "activation": "relu"},
        {"groups": 3, "padding": "same", "dilation_rate": 2},
        {"groups": 1},
    ],
)
def test_a_grouped_convolution_is_that_of_keras(settings, rng):
    import tensorflow as tf

    x = tf.constant(rng.normal(size=(2, 9, 7, 12)).astype("float32"))
    ours, theirs = GroupedConv2D(24, 3, **settings), keras.layers.Conv2D(24, 3, **settings)
    weights = rng.normal(size=theirs(x).shape)
    ours.build(x.shape)
    ours.set_weights(theirs.get_weights())
    assert [v.shape for v in ours.weights] == [v.shape for v in theirs.weights]
    found = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y * weights)
        found.append([y, *tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])])
    for mine, expected in zip(*found, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)


def test_a_grouped_convolution_comes_back_from_a_file(rng, tmp_path):
    image = keras.Input((None, None, 6))
    model = keras.Model(image, GroupedConv2D(9, 3, groups=3, name="conv")(image))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(1, 8, 5, 6)).astype("float32")
    np.testing.assert_array_equal(again(x), model(x))
    assert isinstance(again.get_layer("conv"), GroupedConv2D) and again.get_layer("conv").groups == 3


@pytest.mark.parametrize("net", ["resnext50_32x4d", "shufflenet", "alexnet"])
def test_the_nets_use_it_where_they_have_groups(net):
    grouped = [layer for layer in build(net).layers if getattr(layer, "groups", 1) > 1]
    grouped = [layer for layer in grouped if isinstance(layer, keras.layers.Conv2D)]
    assert grouped and all(isinstance(layer, GroupedConv2D) for layer in grouped)
