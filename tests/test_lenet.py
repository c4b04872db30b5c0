"""LeNet in its four variants, against the lecture's tables and the 1998 paper."""

import json

import numpy as np
import pytest

import cnn_zoo
from cnn_zoo import InputError, WeightsError, build_lenet, layers
from cnn_zoo.nets.lenet import DIGITS, TABLE_I, codes


def table(model, types):
    return [
        [
            type(layer).__name__,
            list(layer.output.shape[1:]),
            sum(int(np.prod(v.shape)) for v in layer.trainable_variables),
        ]
        for layer in model.layers
        if type(layer).__name__ in types
    ]


def test_the_lectures_layer_table_comes_out(shared):
    lecture = json.loads(shared("reference/lecture.json").read_text())["lenet"]
    model = build_lenet()
    assert list(model.input_shape[1:]) == lecture["input"]
    assert table(model, {row[0] for row in lecture["layers"]}) == lecture["layers"]
    assert sum(row[2] for row in lecture["layers"]) == lecture["params"] == 61_706


def test_the_sigmoid_variant_follows_the_figure():
    model = build_lenet("lenet_sigmoid")
    kinds = [layer.activation.__name__ for layer in model.layers if type(layer).__name__ == "Activation"]
    assert kinds == ["sigmoid"] * 4 + ["softmax"]
    assert [layer.units for layer in model.layers if type(layer).__name__ == "Dense"] == [120, 84, 10]


def test_lenet5_has_the_parameters_of_each_layer_in_the_paper():
    model = build_lenet("lenet5")
    counts = {}
    for v in model.trainable_variables:
        layer = v.path.split("/")[0].removeprefix("head_").split("_")[0]
        counts[layer] = counts.get(layer, 0) + int(np.prod(v.shape))
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164}  # section II.B
    assert [model.get_layer(name).output.shape[1:] for name in ("c1", "s2_mean", "c3", "s4_mean", "c5")] == [
        (28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (1, 1, 120),
    ]  # fmt: skip
    assert len(TABLE_I) == 16 and sum(map(len, TABLE_I)) == 60
    white, black = (
        np.asarray(model.get_layer("preprocess")(np.full((1, 1, 1, 1), v, "float32"))).item() for v in (0, 255)
    )
    assert (white, black) == pytest.approx((-0.1, 1.175), abs=1e-6)


def test_the_codes_are_pictures_of_the_digits():
    assert codes(10).shape == (10, 84) and set(np.unique(codes(10))) == {-1, 1}
    assert len(np.unique(codes(10), axis=0)) == 10
    assert len([line for line in DIGITS.split("\n") if line]) == 12
    distance = (codes(10)[:, None] != codes(10)[None]).sum(-1) + 84 * np.eye(10, dtype=int)
    assert distance.min() >= 5  # no two digits share nearly all pixels
    assert codes(3).shape == (3, 84) and np.array_equal(codes(3), codes(3))


def test_partial_convolution_equals_a_numpy_twin(rng):
    table = ((0,), (1, 2), (0, 1, 2))
    layer = layers.PartialConv2D(table, 3)
    x = rng.normal(size=(2, 7, 6, 3)).astype("float32")
    y = np.asarray(layer(x))
    assert [tuple(v.shape) for v in layer.trainable_variables] == [(3, 3, 6), (3,)]
    layer.bias.assign([1.0, 2.0, 3.0])
    y = np.asarray(layer(x))
    expected = np.zeros((2, 5, 4, 3))
    kernel, connection = np.asarray(layer.kernel), 0
    for o, inputs in enumerate(table):
        expected[..., o] = o + 1
        for i in inputs:
            for r in range(5):
                for c in range(4):
                    expected[:, r, c, o] += (x[:, r : r + 3, c : c + 3, i] * kernel[:, :, connection]).sum((1, 2))
            connection += 1
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="more input maps than the 2"):
        layers.PartialConv2D(table, 3)(x[..., :2])


def test_rbf_and_squashing_equal_their_equations(rng):
    x = rng.normal(size=(4, 84)).astype("float32")
    y = np.asarray(layers.RBF(codes(10))(x))
    np.testing.assert_allclose(y, -((x[:, None] - codes(10)[None]) ** 2).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(layers.lecun_tanh(np.float32([-1, 0, 1]))), [-1, 0, 1], atol=1e-4)


@pytest.mark.parametrize("variant", cnn_zoo.list_models("lenet*"))
@pytest.mark.parametrize(("size", "channels", "classes"), [(28, 1, 10), (40, 3, 2), ((33, 47), 4, 100)])
def test_any_size_channels_and_classes(variant, size, channels, classes, rng):
    if variant == "lenet5" and size == 28:
        with pytest.raises(InputError, match="at least 32 pixels; give input_size=\\(32, 32\\)"):
            build_lenet(variant, input_size=size)
        return
    model = build_lenet(variant, input_size=size, channels=channels, classes=classes)
    y = np.asarray(model(rng.integers(0, 256, (2, *model.input_shape[1:])).astype("uint8")))
    assert y.shape == (2, classes)
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)


def test_uint8_and_float_images_give_the_same_bits(rng):
    model, x = build_lenet(), rng.integers(0, 256, (2, 28, 28, 1)).astype("uint8")
    np.testing.assert_array_equal(model(x), model(x.astype("float32")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 27}, "at least 28 pixels; give input_size=\\(28, 28\\)"),
        ({"input_size": (64, 20)}, "cannot take 64x20 images.*input_size=\\(64, 28\\)"),
        ({"input_size": (28, 28, 1)}, "a height and a width.*channels="),
        ({"input_size": None, "channels": 0}, "channels must be a whole number of at least 1, not 0"),
        ({"input_size": (None, None)}, "needs a fixed size"),
        ({"classes": 1}, "softmax over one class"),
        ({"classes": 2.5}, "classes must be a whole number"),
        ({"activation": "relu"}, "activation is one of"),
        ({"variant": "vgg"}, "no net 'vgg'"),
    ],
)
def test_wrong_arguments_say_what_to_do(arguments, message):
    with pytest.raises(InputError, match=message):
        build_lenet(**arguments)


def test_logits_and_sigmoid_outputs(rng):
    x = rng.integers(0, 256, (2, 28, 28, 1)).astype("uint8")
    softmax, logits = build_lenet(), build_lenet(activation=None)
    logits.set_weights(softmax.get_weights())
    z = np.asarray(logits(x))
    e = np.exp(z - z.max(-1, keepdims=True))
    np.testing.assert_allclose(softmax(x), e / e.sum(-1, keepdims=True), rtol=1e-5)
    assert build_lenet(activation="sigmoid", classes=1).output_shape == (None, 1)


def test_info_shows_the_table():
    text = str(cnn_zoo.info("lenet"))
    assert "61,706" in text and "c5" in text and "48,120" in text
    as_json = json.loads(json.dumps(cnn_zoo.info("lenet").to_dict()))
    assert sum(layer["params"] for layer in as_json["layers"]) == as_json["params"] == 61_706


def test_weights_that_do_not_exist_say_which_do():
    with pytest.raises(WeightsError, match="has no weights 'imagenet' and no such file"):
        build_lenet(weights="imagenet")
