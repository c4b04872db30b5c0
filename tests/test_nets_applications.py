"""Nets that Keras has too: with the same numbers in them, ours give the same logits as keras.applications."""

import keras
import numpy as np
import pytest
from keras import layers as L

from cnn_zoo import PRESETS, SPECS, build

KINDS = (L.Conv2D, L.SeparableConv2D, L.BatchNormalization, L.Dense)
PAIRS = {  # net: (Keras' function, an odd size, since the paddings must agree there too)
    "vgg16": (keras.applications.VGG16, 45),
    "vgg19": (keras.applications.VGG19, 33),
    "inceptionv3": (keras.applications.InceptionV3, 99),
    "xception": (keras.applications.Xception, 97),
    "inceptionresnetv2": (keras.applications.InceptionResNetV2, 99),
}


@pytest.fixture
def in_order(monkeypatch):
    """`in_order(make)`: a model and its layers with weights in the order in which they were first called."""
    called = []
    call = L.Layer.__call__

    def remember(self, *args, **kwargs):
        if isinstance(self, KINDS) and self not in called:
            called.append(self)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(L.Layer, "__call__", remember)

    def make_and_list(make):
        called.clear()
        model = make()
        return model, list(called)

    return make_and_list


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "inceptionresnetv2" else []) for n in PAIRS]
)
def test_same_numbers_same_logits(name, in_order, rng):
    theirs_of, size = PAIRS[name]
    ours, layers = in_order(lambda: build(name, classes=7, input_size=size, activation=None))
    shape = (size, size, 3)
    theirs, twins = in_order(lambda: theirs_of(weights=None, classes=7, input_shape=shape, classifier_activation=None))
    assert [type(layer) for layer in layers] == [type(twin) for twin in twins]
    for layer, twin in zip(layers, twins, strict=True):
        values = []
        for v in twin.weights:
            fan = np.prod(v.shape[:2] if "depthwise" in v.path else v.shape[:-1])
            value = rng.normal(0, np.sqrt(2 / fan) if len(v.shape) > 1 else 0.1, v.shape)
            values.append(1 + np.abs(value) if "variance" in v.path or "gamma" in v.path else value)
        twin.set_weights(values)
        layer.set_weights(values)
    x, preset = rng.integers(0, 256, (2, *shape)).astype("float32"), PRESETS[SPECS[name].preset]
    expected = np.asarray(theirs((x - np.float32(preset.mean)) / np.float32(preset.std), training=False))
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # the logits depend on the image
    np.testing.assert_allclose(ours(x, training=False), expected, atol=1e-5 * np.abs(expected).max())
