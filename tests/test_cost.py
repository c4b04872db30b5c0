"""Multiply-accumulates and depth: against sums by hand, published numbers and other programs' counts."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import REPOSITORY
from keras import layers as L
from keras import ops

from cnn_zoo import InputError, build
from cnn_zoo.explain import depth, macs
from cnn_zoo.layers import PartialConv2D


def count(layer, *shape, inputs=1):
    """Multiply-accumulates of one layer."""
    x = [keras.Input(shape) for _ in range(inputs)]
    return macs(keras.Model(x, layer(*x))).macs


# Pixels of the result x pixels of the kernel x input channels of a group x output channels, written out.
BY_HAND = [
    (L.Conv1D(8, 5), (32, 3), 28 * 5 * 3 * 8),
    (L.Conv2D(8, (3, 5), padding="same"), (10, 12, 4), 10 * 12 * 15 * 4 * 8),
    (L.Conv2D(8, 3, 2), (11, 11, 4), 5 * 5 * 9 * 4 * 8),
    (L.Conv2D(8, 3, dilation_rate=2), (11, 11, 4), 7 * 7 * 9 * 4 * 8),
    (L.Conv2D(8, 3, groups=4), (10, 10, 4), 8 * 8 * 9 * 1 * 8),
    (L.Conv3D(2, 3), (5, 6, 7, 3), 3 * 4 * 5 * 27 * 3 * 2),
    (L.DepthwiseConv1D(3, depth_multiplier=2), (10, 4), 8 * 3 * 4 * 2),
    (L.DepthwiseConv2D(3, depth_multiplier=2), (10, 10, 4), 8 * 8 * 9 * 4 * 2),
    (L.SeparableConv1D(6, 3), (10, 4), 8 * (3 * 4 + 4 * 6)),
    (L.SeparableConv2D(6, 3, depth_multiplier=2), (10, 10, 4), 8 * 8 * (9 * 4 * 2 + 4 * 2 * 6)),
    (L.Conv1DTranspose(6, 4, 2), (10, 3), 10 * 4 * 3 * 6),
    (L.Conv2DTranspose(6, 4, 2, "same"), (10, 10, 3), 10 * 10 * 16 * 3 * 6),
    (L.Conv3DTranspose(2, 2, 2), (3, 3, 3, 4), 27 * 8 * 4 * 2),
    (L.Dense(7), (5,), 5 * 7),
    (L.Dense(7), (4, 6, 5), 4 * 6 * 5 * 7),
    (L.EinsumDense("abc,cd->abd", (None, 7)), (6, 5), 6 * 5 * 7),
    (L.EinsumDense("...c,cd->...d", 7), (4, 6, 5), 4 * 6 * 5 * 7),
    (L.EinsumDense("abc,cde->abde", (None, 2, 3)), (6, 5), 6 * 5 * 2 * 3),
    (L.TimeDistributed(L.Conv2D(8, 3)), (5, 10, 10, 4), 5 * 8 * 8 * 9 * 4 * 8),
    (PartialConv2D(((0, 1), (2,), (0, 1, 2)), 5), (14, 14, 3), 10 * 10 * 25 * 6),
    (L.BatchNormalization(), (10, 10, 4), 0),
    (L.Embedding(100, 8), (10,), 0),
    (L.MaxPooling2D(2), (10, 10, 4), 0),
]


@pytest.mark.parametrize("case", range(len(BY_HAND)), ids=[f"{c[0].name}-{i}" for i, c in enumerate(BY_HAND)])
def test_layers_by_hand(case):
    layer, shape, expected = BY_HAND[case]
    twin = type(layer).from_config(layer.get_config())  # the list is made once, at import
    assert count(twin, *shape) == expected


def test_attention_by_hand():
    # queries, keys, values and result: 10 tokens x 16 features x (2 heads x 8); scores and weighted values: 10 x 10 x (2 heads x 8) each
    expected = 4 * 10 * 16 * 16 + 2 * 10 * 10 * 16
    assert count(L.MultiHeadAttention(2, 8), 10, 16, inputs=2) == expected
    assert count(lambda a, b: L.Attention()([a, b]), 10, 16, inputs=2) == 2 * 10 * 10 * 16
    assert count(lambda a, b: L.Dot((2, 2))([a, b]), 10, 16, inputs=2) == 10 * 10 * 16


def test_operations_of_keras():
    assert count(lambda a, b: ops.matmul(a, ops.transpose(b, (0, 2, 1))), 10, 16, inputs=2) == 10 * 10 * 16
    assert count(lambda a, b: ops.einsum("bic,bjc->bij", a, b), 10, 16, inputs=2) == 10 * 10 * 16
    assert count(lambda a: ops.relu(a + 1.0), 10, 16) == 0


def test_lenet_by_hand():
    cost = macs(build("lenet"))
    found = {line.name: line.macs for line in cost.layers if line.macs}
    assert found == {
        "c1": 28 * 28 * 25 * 6,
        "c3": 10 * 10 * 25 * 6 * 16,
        "c5": 25 * 16 * 120,
        "head_f6": 120 * 84,
        "logits": 84 * 10,
    }
    assert (cost.macs, cost.flops) == (sum(found.values()), 2 * sum(found.values()))
    assert cost.trainable == cost.weights == 61706 and cost.input_shape == (28, 28, 1)
    assert cost.megabytes == 4 * 61706 / 2**20
    for expected in ("117,600", "416,520", "61,706"):
        assert expected in str(cost), expected
    assert cost.to_dict()["macs"] == 416520


def test_the_1998_lenet_counts_its_connections():
    """Section II.B: 156, 1,516 and 48,120 trainable parameters make 122,304, 151,600 and 48,120 connections (biases among them)."""
    found = {line.name: line.macs for line in macs(build("lenet5")).layers}
    assert found["c1"] + 28 * 28 * 6 == 122_304
    assert found["c3"] + 10 * 10 * 16 == 151_600
    assert found["c5"] + 120 == 48_120


# "_ops" of the weights' meta data in torchvision 0.29 (1e9 multiply-accumulates at the size of the test crop), to the printed digit.
TORCHVISION = {
    "alexnet_one_tower": 0.714,
    "densenet121": 2.834,
    "densenet161": 7.728,
    "densenet169": 3.36,
    "densenet201": 4.291,
    "efficientnetb0": 0.386,
    "efficientnetb1": 0.687,
    "efficientnetb3": 1.827,
    "efficientnetb4": 4.394,
    "efficientnetb5": 10.266,
    "efficientnetb6": 19.068,
    "efficientnetb7": 37.746,
    "googlenet": 1.498,
    "inceptionv3_torch": 5.713,
    "mobilenetv2": 0.301,
    "mobilenetv3_large": 0.217,
    "mobilenetv3_small": 0.057,
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 4.089,
    "resnet101": 7.801,
    "resnet152": 11.514,
    "resnext50_32x4d": 4.23,
    "resnext101_32x8d": 16.414,
    "shufflenetv2_050": 0.04,
    "shufflenetv2": 0.145,
    "shufflenetv2_150": 0.296,
    "shufflenetv2_200": 0.583,
    "vgg11": 7.609,
    "vgg13_bn": 11.308,
    "vgg16": 15.47,
    "vgg19_bn": 19.632,
    "wide_resnet50_2": 11.398,
}
FAST = (
    "densenet121",
    "efficientnetb0",
    "googlenet",
    "mobilenetv2",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "shufflenetv2",
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in TORCHVISION])
def test_nets_cost_what_torchvision_publishes(name):
    assert round(macs(build(name)).macs / 1e9, 3) == pytest.approx(TORCHVISION[name], abs=6e-4)


def test_squeezenets_cost_what_torchvision_publishes_at_its_size():
    """At 224 pixels, ours being 227; and conv10 of version 1.0 pads its input by a pixel, as its authors' file does: 15x15 for 13x13."""
    assert round(macs(build("squeezenet1_1", input_size=224)).macs / 1e9, 3) == 0.349
    found = macs(build("squeezenet1_0", input_size=224)).macs - 512 * 1000 * (15**2 - 13**2)
    assert round(found / 1e9, 3) == 0.819


def test_efficientnet_b2_costs_what_torchvision_publishes_at_its_size():
    """288 pixels, where the authors' code has 260."""
    assert round(macs(build("efficientnetb2", input_size=288)).macs / 1e9, 3) == 1.088


def test_a_shared_layer_and_a_nested_model_cost_at_every_call():
    layer = L.Conv2D(3, 3, padding="same", name="shared")
    inner = keras.Sequential(
        [keras.Input((None, None, 3)), L.Conv2D(3, 1, name="one"), L.BatchNormalization()], name="in"
    )
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, inner(layer(inner(layer(inputs)))))
    cost = macs(model)
    assert cost.macs == 2 * 64 * 81 + 2 * 64 * 9
    assert [line.name for line in cost.layers if line.macs] == ["shared", "in/one", "shared", "in/one"]
    assert [line.weights for line in cost.layers if line.macs] == [84, 12, 0, 0]
    assert depth(model) == 4
    assert (cost.weights, cost.trainable) == (84 + 12 + 12, 84 + 12 + 6)
    inner.trainable = False
    assert macs(model).trainable == 84


def test_several_inputs_and_dictionaries():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    inner = keras.Model({"a": a, "b": b}, {"y": L.Dense(4)(L.Add()([a, b])), "z": L.Dense(5)(b)})
    c = keras.Input((6,))
    z = inner({"b": c, "a": L.Dense(6)(c)})
    model = keras.Model(c, L.Concatenate()([z["y"], z["z"]]))
    assert macs(model).macs == 36 + 24 + 30
    assert depth(model) == 2


def test_open_sizes_need_a_size():
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(2)])
    with pytest.raises(InputError, match="input_size="):
        macs(model)
    assert macs(model, 10).macs == 64 * 27 * 4 + 8
    assert macs(model, (10, 12)).macs == 80 * 27 * 4 + 8
    assert macs(model, 10).input_shape == (10, 10, 3)
    assert depth(model) == 2
    with pytest.raises(InputError, match="2 whole numbers"):
        macs(model, (10, 12, 3))
    with pytest.raises(InputError, match="2 whole numbers"):
        macs(model, (10, 0))


def test_a_fixed_model_says_when_another_size_does_not_fit():
    with pytest.raises(InputError, match="was built for 400 values and would get"):
        macs(build("lenet_sigmoid"), 40)


def test_channels_first():
    inputs = keras.Input((3, 10, 12))
    y = L.Conv2D(4, 3, data_format="channels_first")(inputs)
    y = L.SeparableConv2D(2, 3, data_format="channels_first")(y)
    assert macs(keras.Model(inputs, y)).macs == 8 * 10 * 27 * 4 + 6 * 8 * (9 * 4 + 4 * 2)


def test_layers_that_are_not_known_are_named():
    class Mystery(L.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 5))

        def call(self, x):
            return x @ self.kernel

    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2)(Mystery(name="mystery")(inputs)))
    cost = macs(model)
    assert cost.unknown == ("mystery",) and cost.macs == 10
    assert "NOT COUNTED           mystery" in str(cost)
    with pytest.raises(InputError, match="'mystery' .Mystery. has weights"):
        depth(model)
    told = macs(model, rules={Mystery: lambda layer, inputs, outputs: inputs[0][-1] * outputs[0][-1]})
    assert told.unknown == () and told.macs == 10 + 20
    recurrent = keras.Sequential([keras.Input((5, 3)), L.LSTM(4, name="memory")])
    assert macs(recurrent).unknown == ("memory",)


def test_models_that_hide_their_layers_are_refused():
    class Hidden(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Hidden()
    model(np.zeros((1, 3), "float32"))
    for refused in (model, keras.Sequential([L.Dense(2)])):
        with pytest.raises(InputError, match="does not say how its layers are joined"):
            macs(refused)
    with pytest.raises(InputError, match="a keras.Model is expected, not str"):
        depth("resnet50")
    inputs = keras.Input((3,))
    assert macs(keras.Model(inputs, model(inputs))).unknown == (model.name,)


def test_a_compiled_model_is_left_as_it_was():
    model = build("cnn_small")
    model.compile("adam", lambda y, p: ops.mean(p), metrics=["accuracy"])
    before = [layer.output for layer in model.layers]
    assert macs(model).macs > 0
    assert all(a is b for a, b in zip(before, [layer.output for layer in model.layers]))
    assert model.compiled and model.loss is not None


DEPTHS = {  # MATLAB's table of pretrained networks counts squeeze-and-excitation like this (its efficientnetb0), as does the course's for the rest
    "efficientnetb0": 82,
    "lenet": 5,
    "lenet5": 7,  # "LeNet-5 comprises 7 layers, not counting the input" (section II.B)
    "resnet110": 110,
}


@pytest.mark.parametrize("name", DEPTHS)
def test_depths(name):
    assert depth(build(name)) == DEPTHS[name]


def test_it_works_without_tensorflow():
    pytest.importorskip("jax", reason="Keras 3.12's NumPy backend needs JAX")
    code = (
        "import sys, cnn_zoo; from cnn_zoo.explain import depth, macs, receptive_field; model = cnn_zoo.build('lenet'); "
        "print(macs(model).macs, depth(model), receptive_field(model).size[0], 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "KERAS_BACKEND": "numpy", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["416520", "5", "32", "False"]
