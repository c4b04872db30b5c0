"""SqueezeNet, ShuffleNet, MobileNet, Darknet, DenseNet, NASNet, EfficientNet: special layers, published numbers, keras.applications as the oracle."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from cnn_zoo import SPECS, backbone, blocks, build
from cnn_zoo.layers import ChannelShuffle, ChannelSlice, DropPath, SamePadding2D

# ---- layers


def test_channel_shuffle_equals_a_numpy_twin(rng):
    x = rng.normal(size=(2, 3, 5, 12)).astype("float32")
    y = np.asarray(ChannelShuffle(3)(x))
    for i in range(3):
        for j in range(4):
            np.testing.assert_array_equal(y[..., j * 3 + i], x[..., i * 4 + j])
    np.testing.assert_array_equal(ChannelShuffle(4)(y), x)  # dealing into 12/3 groups undoes it
    np.testing.assert_array_equal(ChannelShuffle(1)(x), x)
    with pytest.raises(ValueError, match="12 channels cannot be divided into 5 groups"):
        ChannelShuffle(5)(x)


def test_channel_shuffle_and_slice_take_open_sizes(rng):
    inputs = keras.Input((None, None, 8))
    model = keras.Model(inputs, ChannelSlice(2, 5)(ChannelShuffle(2)(inputs)))
    assert model.output_shape == (None, None, None, 3)
    for shape in ((1, 4, 7, 8), (3, 5, 2, 8)):
        x = rng.normal(size=shape).astype("float32")
        order = [0, 4, 1, 5, 2, 6, 3, 7]
        np.testing.assert_array_equal(model.predict(x, verbose=0), x[..., order[2:5]])
    with pytest.raises(ValueError, match="no channels 4 to 9 in 8"):
        ChannelSlice(4, 9)(inputs)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 7), (6, 7), (1, 2), (11, 4)])
def test_same_padding_is_tensorflows(height, width, rng):
    x = rng.normal(size=(2, height, width, 3)).astype("float32")
    y = np.asarray(SamePadding2D()(x))
    assert y.shape == SamePadding2D().compute_output_shape(x.shape)
    top, left = height % 2, width % 2
    expected = np.zeros((2, height + 1 + top, width + 1 + left, 3), "float32")
    expected[:, top : top + height, left : left + width] = x
    np.testing.assert_array_equal(y, expected)
    kernel = rng.normal(size=(3, 3, 3, 1)).astype("float32")
    valid, same = (ops.conv(v, kernel, 2, padding=p) for v, p in ((y, "valid"), (x, "same")))
    np.testing.assert_allclose(valid, same, rtol=1e-5, atol=1e-5)
    inputs = keras.Input((None, None, 3))
    np.testing.assert_array_equal(keras.Model(inputs, SamePadding2D()(inputs)).predict(x, verbose=0), y)


def test_drop_path_drops_whole_samples_at_its_rate():
    x = np.ones((2000, 2, 3, 4), "float32")
    layer = DropPath(0.25, seed=1)
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer(x, training=False), x)
    y = np.asarray(layer(x, training=True))
    first = y[:, :1, :1, :1]
    np.testing.assert_array_equal(y, np.broadcast_to(first, y.shape))
    np.testing.assert_allclose(np.unique(first), [0, 1 / 0.75], rtol=1e-6)
    assert abs((first == 0).mean() - 0.25) < 0.04  # four standard deviations of 2000 draws
    assert not np.array_equal(y, layer(x, training=True))  # the generator moves on
    np.testing.assert_array_equal(y, DropPath.from_config(layer.get_config())(x, training=True))
    assert layer.trainable_variables == [] and layer.weights == []
    np.testing.assert_array_equal(DropPath(0.0)(x, training=True), x)
    with pytest.raises(ValueError, match="less than 1"):
        DropPath(1.0)


# ---- published facts


def test_squeezenet_has_the_sizes_of_caffe():
    def sides(name, size):
        return [v.shape[1] for v in backbone(name, input_size=size).output.values()]

    assert sides("squeezenet1_0", 227) == [111, 55, 27, 13]  # table 1
    assert sides("squeezenet1_1", 227) == [113, 56, 28, 14]  # Caffe rounds (113 - 3) / 2 + 1 ... up
    assert sides("squeezenet1_1", 224) == [111, 55, 27, 13]


def test_a_rounded_up_pooling_window_hangs_over_the_edge(rng):
    for side in (8, 9):
        x = rng.uniform(size=(1, side, side, 2)).astype("float32")
        out = -(-(side - 3) // 2) + 1
        expected = [[x[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(out)] for i in range(out)]
        inputs = keras.Input((None, None, 2))
        np.testing.assert_array_equal(keras.Model(inputs, blocks.ceil_pool(inputs, 3, name="p"))(x)[0], expected)


def test_squeezenet_recognises_the_bull_mastiff_with_the_authors_weights(shared):
    from PIL import Image

    weights = np.load(shared("data/imagenet/squeezenet1_1_f32.npz"))
    image = Image.open(shared("data/imagenet/bull_mastiff_243.jpg")).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - 224) // 2 for side in image.size)
    model = build("squeezenet1_1", input_size=224)
    variables = {v.path: v for v in model.weights}
    for key in weights:
        values = weights[key][:, :, ::-1] if key == "conv1/kernel" else weights[key]  # Caffe's channels are BGR
        layer, _, kind = key.rpartition("/")
        layer = {"conv1": "stem_conv", "conv10": "head_conv10"}.get(layer, layer.replace("/", "_"))
        variables.pop(f"{layer}/{kind}").assign(values)
    assert not variables
    p = np.asarray(model(np.asarray(image.crop((left, top, left + 224, top + 224)))[None]))[0]
    assert p.argmax() == 243 and p[243] > 0.95


def test_the_courses_shufflenet_has_50_layers_and_1_4_million_parameters():
    model = build("shufflenet")
    kinds = [type(layer).__name__ for layer in model.layers]
    assert sum(kinds.count(kind) for kind in ("Conv2D", "GroupedConv2D", "DepthwiseConv2D", "Dense")) == 50
    assert round(SPECS["shufflenet"].params / 1e6, 1) == 1.4
    assert model.get_layer("s2_b1_1_conv").output.shape[1:] == (56, 56, 112)  # as in the ONNX zoo's model
    assert model.get_layer("s2_b1_concat").output.shape[1:] == (28, 28, 136)


@pytest.mark.parametrize(
    "name", ["shufflenet", "shufflenet_g1", "shufflenet_g2", "shufflenet_g3", "shufflenet_g4", "shufflenet_g8"]
)
def test_shufflenet_parameters_follow_from_table_1(name):
    row = SPECS[name].row
    total, before = 3 * 9 * 24 + 2 * 24, 24
    for stage, (channels, depth) in enumerate(zip(row.stages, (4, 8, 4))):
        for unit in range(depth):
            out = channels if unit else channels - before
            inner = channels // 4 if row.bottleneck else out
            first = 1 if stage == unit == 0 else row.groups
            total += before * inner // first + 9 * inner + inner * out // row.groups + 2 * (inner + inner + out)
            before = channels
    assert total + 1000 * before + 1000 == SPECS[name].params


def test_darknet_parameters_follow_from_the_cfg_files():
    def conv_bn(kernel, *channels):
        return sum(kernel**2 * a * b + 2 * b for a, b in zip(channels, channels[1:]))

    head = 1024 * 1000 + 1000
    nineteen = conv_bn(3, 3, 32, 64, 128) + conv_bn(1, 128, 64) + conv_bn(3, 64, 128, 256) + conv_bn(1, 256, 128)
    nineteen += conv_bn(3, 128, 256, 512) + 2 * conv_bn(1, 512, 256) + 2 * conv_bn(3, 256, 512)
    nineteen += conv_bn(3, 512, 1024) + 2 * conv_bn(1, 1024, 512) + 2 * conv_bn(3, 512, 1024)
    assert nineteen + head == SPECS["darknet19"].params
    fifty_three = conv_bn(3, 3, 32)
    for channels, repeats in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        fifty_three += conv_bn(3, channels // 2, channels)
        fifty_three += repeats * (conv_bn(1, channels, channels // 2) + conv_bn(3, channels // 2, channels))
    assert fifty_three + head == SPECS["darknet53"].params


def test_darknet_is_leaky_by_a_tenth():
    model = build("darknet19", input_size=64)
    assert {layer.negative_slope for layer in model.layers if type(layer).__name__ == "LeakyReLU"} == {0.1}
    convolutions = [layer for layer in model.layers if type(layer).__name__ in ("Conv2D", "Dense")]
    assert len(convolutions) == 19
    assert sum(type(layer).__name__ in ("Conv2D", "Dense") for layer in build("darknet53").layers) == 53


def test_feature_pyramids_take_the_expansion_before_a_strided_block():
    shapes = {k: v.shape[-1] for k, v in backbone("mobilenetv2").output.items()}
    assert shapes == {"2": 96, "4": 144, "8": 192, "16": 576, "32": 1280}
    shapes = {k: v.shape[-1] for k, v in backbone("efficientnetb0").output.items()}
    assert shapes == {"2": 96, "4": 144, "8": 240, "16": 672, "32": 1280}
    shapes = {k: v.shape[-1] for k, v in backbone("mobilenetv3_large").output.items()}
    assert shapes == {"2": 64, "4": 72, "8": 240, "16": 672, "32": 960}


def test_drop_connect_grows_with_depth():
    rates = [layer.rate for layer in build("efficientnetb0").layers if isinstance(layer, DropPath)]
    assert rates == sorted(rates) and len(rates) == 9
    assert rates[0] == pytest.approx(0.2 * 2 / 16) and rates[-1] == pytest.approx(0.2 * 14 / 16)


# ---- keras.applications as the oracle


def densenet(path):
    path = re.sub(
        r"^s(\d)_b(\d+)_(bn|conv)(\d)",
        lambda m: f"conv{int(m[1]) + 1}_block{m[2]}_{int(m[4]) - (m[3] == 'bn')}_{m[3]}",
        path,
    )
    path = re.sub(r"^s(\d)_transition_", lambda m: f"pool{int(m[1]) + 1}_", path)
    return re.sub("^stem_", "conv1_", path).replace("s4_bn", "bn").replace("logits", "predictions")


def mobilenet(path):
    blocks = [(stage, block) for stage, depth in enumerate((1, 2, 2, 6, 2), 1) for block in range(1, depth + 1)]

    def number(match):
        return f"conv_{match[3]}_{blocks.index((int(match[1]), int(match[2]))) + 1}" + (
            "_bn" if match[4] == "bn" else ""
        )

    path = re.sub(r"^s(\d)_b(\d)_(dw|pw)_(conv|bn)", number, path)
    return path.replace("stem_conv", "conv1").replace("stem_bn", "conv1_bn").replace("logits", "conv_preds")


def mobilenetv2(path):
    blocks = [(stage, block) for stage, depth in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for block in range(1, depth + 1)]

    def number(match):
        i = blocks.index((int(match[1]), int(match[2])))
        part = {"dw": "depthwise"}.get(match[3], match[3])
        return (f"block_{i}_" if i else "expanded_conv_") + part + ("_BN" if match[4] == "bn" else "")

    path = re.sub(r"^s(\d)_b(\d)_(expand|dw|project)_(conv|bn)", number, path)
    names = {
        "stem_conv": "Conv1",
        "stem_bn": "bn_Conv1",
        "last_conv": "Conv_1",
        "last_bn": "Conv_1_bn",
        "logits": "predictions",
    }
    layer, _, variable = path.partition("/")
    return f"{names.get(layer, layer)}/{variable}"


def nasnet(path):
    def cell(match):
        where, rest, n = match[1], match[2], 4  # N normal cells a stage
        if where.startswith("stem_r"):
            kind, number = "reduction", f"stem_{where[-1]}"
        elif where.endswith("_r"):
            kind, number = "reduction", f"reduce_{n * int(where[1])}"
        else:
            stage, block = map(int, re.findall(r"\d+", where))
            kind, number = "normal", str((stage - 1) * n + block - (stage == 1))
        if side := re.fullmatch(r"(left|right)(\d)_(conv|bn)(\d)", rest):
            place = f"{side[1]}{4 if kind == 'reduction' and side[2] == '5' else side[2]}"
            return f"separable_conv_{side[4]}{'_bn' if side[3] == 'bn' else ''}_{kind}_{place}_{number}"
        names = {
            "in_conv": f"{kind}_conv_1",
            "in_bn": f"{kind}_bn_1",
            "adjust_conv": "adjust_conv_projection",
            "adjust_conv1": "adjust_conv_1",
            "adjust_conv2": "adjust_conv_2",
            "adjust_bn": "adjust_bn",
        }
        return f"{names[rest]}_{number}"

    layer, _, variable = path.partition("/")
    layer = re.sub(r"^(stem_r\d|s\d_r|s\d_b\d)_(.*)$", cell, layer)
    names = {"stem_conv": "stem_conv1", "stem_bn": "stem_bn1", "logits": "predictions"}
    return f"{names.get(layer, layer)}/{variable}"


def efficientnet(path):
    def block(match):
        name = f"block{match[1]}{chr(96 + int(match[2]))}_"
        return name + {"dw_conv": "dwconv", "dw_bn": "bn"}.get(match[3], match[3])

    path = re.sub(r"^s(\d)_b(\d+)_([^/]*)", block, path)
    return path.replace("last_", "top_").replace("logits", "predictions")


def unit(x):
    return (
        x  # keras.applications normalises EfficientNet inside; its Normalization layer is given mean and variance below
    )


ORACLES = {
    "densenet121": (densenet, keras.applications.DenseNet121, keras.applications.densenet.preprocess_input),
    "mobilenet": (mobilenet, keras.applications.MobileNet, keras.applications.mobilenet.preprocess_input),
    "mobilenet_050": (
        mobilenet,
        lambda **k: keras.applications.MobileNet(alpha=0.5, **k),
        keras.applications.mobilenet.preprocess_input,
    ),
    "mobilenetv2": (mobilenetv2, keras.applications.MobileNetV2, keras.applications.mobilenet_v2.preprocess_input),
    "nasnetmobile": (nasnet, keras.applications.NASNetMobile, keras.applications.nasnet.preprocess_input),
    "efficientnetb0": (efficientnet, keras.applications.EfficientNetB0, unit),
}


SLOW = ("densenet121", "nasnetmobile")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in ORACLES])
def test_same_weights_give_the_output_of_keras_applications(name, rng):
    rename, oracle, preprocess = ORACLES[name]
    theirs = oracle(weights=None, classifier_activation=None, input_shape=(224, 224, 3), classes=50)
    ours = build(name, classes=50, activation=None)
    # The last two parts of a path are layer and variable; NASNet has name scopes before them.
    targets = {"/".join(v.path.split("/")[-2:]): v for v in theirs.weights}
    assert len(targets) == len(theirs.weights)
    for variable in ours.weights:
        scale = {"moving_mean": 0.1, "moving_variance": 1, "beta": 0.1, "bias": 0.1}.get(variable.name)
        if scale:
            values = scale * rng.normal(size=variable.shape)
            variable.assign(1 + np.abs(values) if variable.name == "moving_variance" else values)
        target = targets.pop(rename(variable.path))
        target.assign(ops.reshape(variable, target.shape))
    for path, variable in targets.items():  # nothing else may be left
        layer, _, kind = path.rpartition("/")
        assert layer == "normalization"
        if kind != "count":
            statistics = {"mean": [0.485, 0.456, 0.406], "variance": np.square([0.229, 0.224, 0.225])}[kind]
            variable.assign(np.reshape(statistics, variable.shape))
    if targets:
        theirs.get_layer("normalization").finalize_state()
    x = rng.integers(0, 256, (2, 224, 224, 3)).astype("float32")
    expected = np.asarray(theirs(preprocess(x.copy()), training=False))
    assert expected.std() > 1e-3
    np.testing.assert_allclose(ours(x, training=False), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
