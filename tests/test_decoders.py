"""Decoders and the nets they are published with against published counts and counts by hand; dilation against the net itself; attention."""

import math

import keras
import numpy as np
import pytest

from cnn_zoo import SPECS, InputError, backbone, build
from cnn_zoo.decoders import deeplab, segnet, unet_2015, unetpp
from cnn_zoo.dilation import dilated
from cnn_zoo.nets.mit import EfficientAttention
from cnn_zoo.registry import DECODERS
from cnn_zoo.segmenting import build_segmenter, build_segnet, build_unet


def params(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables)


def convs(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def randomise(model):
    for variable in model.weights:
        seed = sum(map(ord, variable.path)) + math.prod(variable.shape)
        values = np.random.default_rng(seed).normal(
            0, np.sqrt(2 / max(1, math.prod(variable.shape[:-1]))), variable.shape
        )
        variable.assign(1 + np.abs(values) if "variance" in variable.path or "gamma" in variable.path else values)


def test_every_decoder_says_what_it_needs_and_where_it_is_from():
    assert len(DECODERS) >= 17
    for name, entry in DECODERS.items():
        assert entry.name == name and entry.paper and list(entry.strides) == sorted(entry.strides)


# SegNet


def test_segnet_has_thirteen_and_thirteen_convolutions_and_the_published_parameters():
    model = build_segnet(classes=11, input_size=(360, 480))
    encoder = [layer for layer in convs(model) if not layer.name.startswith(("decoder", "logits"))]
    decoder = [layer for layer in convs(model) if layer.name.startswith(("decoder", "logits"))]
    assert len(encoder) == len(decoder) == 13 and all(layer.kernel_size == (3, 3) for layer in encoder + decoder)
    assert [layer.filters for layer in decoder] == [512] * 5 + [256] * 3 + [128] * 2 + [64] * 2 + [11]
    outputs = [512] * 5 + [256] * 3 + [128] * 2 + [64] * 2
    up = sum(9 * a * b + 2 * b for a, b in zip([512, *outputs], outputs)) + 9 * 64 * 11 + 11  # BatchNorm has two a map
    mirrored = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    down = sum(9 * a * b + 3 * b for a, b in zip([3, *mirrored], mirrored))  # with biases, as VGG
    assert params(model) == down + up
    assert params(model) / 1e6 == pytest.approx(29.4, abs=0.05)  # the published size
    assert model.output_shape == (None, 360, 480, 11)


def test_segnet_basic_has_four_and_four():
    model = build_segnet("basic", 11)
    assert [layer.kernel_size[0] for layer in convs(model)] == [7] * 8 + [1]
    by_hand = 49 * (3 * 64 + 7 * 64 * 64) + 8 * 2 * 64 + 64 * 11 + 11
    assert params(model) == by_hand == 1_416_075  # the paper's table 1 says 1.425 M
    relus = [layer.name for layer in model.layers if "relu" in layer.name]
    assert len(relus) == 4 and not any(name.startswith("decoder") for name in relus)


def test_segnet_puts_values_back_to_where_the_maxima_were(rng):
    model = build_segnet("basic", 3)
    randomise(model)
    maps = [model.get_layer(name).output for name in ("s1_relu", "decoder_s4_unpool")]  # the finest, and back into it
    maps = keras.Model(model.input, maps)(rng.integers(0, 256, (1, 32, 48, 3)), training=False)
    windows = (np.asarray(t).reshape(16, 2, 24, 2, 64).swapaxes(1, 2).reshape(16, 24, 4, 64) for t in maps)
    before, unpooled = windows
    assert ((unpooled != 0).sum(2) <= 1).all() and (unpooled != 0).mean() > 0.2
    filled = (unpooled != 0).any(2)
    np.testing.assert_array_equal(np.abs(unpooled).argmax(2)[filled], before.argmax(2)[filled])


# U-Net


def test_unet_is_exactly_the_published_one():
    model = build_unet(padding="valid", batch_norm=False, channels=1, input_size=572)
    assert model.output_shape == (None, 388, 388, 2)
    widths, total, x = (64, 128, 256, 512, 1024), 0, 1
    for width in widths:
        total, x = total + 9 * x * width + width + 9 * width * width + width, width
    for width in widths[-2::-1]:
        total += 4 * 2 * width * width + width  # up-convolution
        total += 9 * 2 * width * width + width + 9 * width * width + width
    assert params(model) == total + 2 * 64 + 2 == 31_030_658  # "23 convolutional layers" of figure 1
    ups = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
    assert len(convs(model)) + len(ups) == 23
    sizes = {
        name: model.get_layer(name).output.shape[1]
        for name in ("s1_relu2", "s5_relu2", "decoder_s1_crop", "decoder_s4_crop")
    }
    assert sizes == {"s1_relu2": 568, "s5_relu2": 28, "decoder_s1_crop": 56, "decoder_s4_crop": 392}


def test_unet_of_any_depth_and_width(rng):
    model = build_unet(3, depth=2, width=8, dropout=0.5)
    image = rng.integers(0, 256, (1, 21, 14, 3)).astype("uint8")
    assert model(image, training=False).shape == (1, 21, 14, 3)
    assert {"s3_dropout", "s1_bn1"} <= {layer.name for layer in model.layers}
    assert max(layer.filters for layer in convs(model)) == 32
    valid = build_unet(3, depth=2, width=4, padding="valid")
    assert valid(rng.integers(0, 256, (1, 44, 60, 3)), training=False).shape == (1, 4, 20, 3)


@pytest.mark.parametrize(("side", "says"), [(571, "556 and 572"), (200, "188 and 204"), (100, "at least 188")])
def test_valid_unet_says_which_sizes_come_out_even(side, says):
    with pytest.raises(InputError, match=says):
        build_unet(padding="valid", input_size=side)


def test_valid_unet_sees_what_same_unet_sees_in_the_middle(rng):
    """With "valid" convolutions the output is that of an image that goes on: the middle of what "same" gives, far from its borders."""
    valid, same = (
        build_unet(2, depth=1, width=4, padding=p, batch_norm=False, activation=None) for p in ("valid", "same")
    )
    randomise(same)
    valid.set_weights(same.get_weights())
    image = rng.integers(0, 256, (1, 60, 60, 3)).astype("uint8")
    small, whole = np.asarray(valid(image, training=False)), np.asarray(same(image, training=False))
    assert small.shape[1] == 44
    np.testing.assert_allclose(small, whole[:, 8:-8, 8:-8], atol=1e-4)


def test_unetpp_and_unet_have_the_published_parameters():
    """Table 2 of Zhou et al. 2018: 7.76 M for U-Net and 9.04 M for U-Net++, with 32 to 512 maps and no BatchNorm."""
    image = keras.Input((64, 64, 3))
    taps = unet_2015.contract(image, 4, 32, "same", False)
    plain = unet_2015.expand(taps, unet_2015.Row((256, 128, 64, 32), batch_norm=False))
    assert params(keras.Model(image, keras.layers.Conv2D(1, 1)(plain))) == 7_760_097
    nested = unetpp.unetpp(taps, unetpp.Row(batch_norm=False))
    assert params(keras.Model(image, keras.layers.Conv2D(1, 1)(nested))) == 9_042_177


# FCN, DeepLab, SegFormer


def test_fcn8_over_vgg16_with_its_dense_layers_as_convolutions():
    by_hand = 14_714_688 + (49 * 512 * 4096 + 4096) + (4096 * 4096 + 4096)  # VGG's convolutions, fc6, fc7
    by_hand += 4097 * 21 + 2 * 513 * 21 + 2 * 16 * 21 * 21  # scores, and two transposed convolutions
    model = build_segmenter("fcn8", "vgg16", 21, fc=4096)
    assert params(model) == by_hand
    assert params(model) / 1e6 == pytest.approx(134, abs=0.5)  # table 1 of the paper


def test_fcn_starts_by_interpolating():
    model = build_segmenter("fcn8", "mobilenet_025", 4)
    kernel = np.asarray(model.get_layer("decoder_up16").kernel)
    np.testing.assert_array_equal(kernel[..., 0, 1], 0)
    np.testing.assert_allclose(kernel[..., 2, 2], np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25]))


def test_deeplabv3_has_torchvisions_parameters():
    auxiliary = 9 * 1024 * 256 + 2 * 256 + 256 * 21 + 21  # its second head, used in training only
    model = build_segmenter("deeplabv3", "resnet50", 21, output_stride=8)
    assert params(model) == 42_004_074 - auxiliary  # torchvision meta num_params of DeepLabV3_ResNet50_Weights
    rates = [model.get_layer(f"decoder_aspp_rate{rate}_conv").dilation_rate for rate in (12, 24, 36)]
    assert rates == [(12, 12), (24, 24), (36, 36)]
    assert model.get_layer("s4_b3_2_conv").dilation_rate == (4, 4)
    first = model.get_layer("s4_b1_2_conv")
    assert first.dilation_rate == (2, 2)  # behind a stride taken out it keeps its reach


def test_deeplabv3plus_by_hand():
    def bn(filters):
        return 2 * filters

    def separable(a, b):
        return 9 * a + a * b + bn(b)

    aspp = 2048 * 256 + bn(256) + 3 * separable(2048, 256) + 2048 * 256 + bn(256) + 5 * 256 * 256 + bn(256)
    decoder = 256 * 48 + bn(48) + separable(304, 256) + separable(256, 256) + 256 * 21 + 21
    net = SPECS["resnet50"].params - 2048 * 1000 - 1000
    assert params(build_segmenter("deeplabv3plus", "resnet50", 21)) == net + aspp + decoder


# Of SegformerForSemanticSegmentation in transformers 5.23.0 with 150 classes; the paper's table 1 has them in millions.
SEGFORMER = {
    "mit_b0": (3_752_694, 3.8),
    "mit_b1": (13_715_798, 13.7),
    "mit_b2": (27_461_974, 27.5),
    "mit_b3": (47_337_814, 47.3),
    "mit_b4": (64_108_374, 64.1),
    "mit_b5": (84_708_694, 84.7),
}


@pytest.mark.parametrize("net", ["mit_b0", *(pytest.param(net, marks=pytest.mark.slow) for net in list(SEGFORMER)[1:])])
def test_segformer_has_the_published_parameters(net):
    exact, millions = SEGFORMER[net]
    model = build_segmenter("segformer" if net in ("mit_b0", "mit_b1") else "segformer_768", net, 150)
    assert params(model) == exact and round(exact / 1e6, 1) == millions


@pytest.mark.parametrize("reduction", [1, 2])
def test_attention_is_that_of_its_twin(rng, reduction):
    layer, x = EfficientAttention(2, reduction), rng.normal(size=(2, 4, 6, 8)).astype("float32")
    layer.build(x.shape)
    randomise(layer)
    w = {v.path.split("/", 1)[1] if v.path.startswith("efficient") else v.path: np.asarray(v) for v in layer.weights}
    small = x
    if reduction > 1:
        tiles = x.reshape(2, 2, 2, 3, 2, 8).swapaxes(2, 3)  # (batch, rows, columns, 2, 2, channels)
        small = np.einsum("bijklc,klcd->bijd", tiles, w["reduce/kernel"]) + w["reduce/bias"]
        small = (small - small.mean(-1, keepdims=True)) / np.sqrt(small.var(-1, keepdims=True) + 1e-5)
        small = small * w["norm/gamma"] + w["norm/beta"]
    tokens, few = x.reshape(2, 24, 8), small.reshape(2, -1, 8)
    q, k, v = (
        np.einsum("btc,chd->bthd", t, w[f"attend/{name}/kernel"]) + w[f"attend/{name}/bias"]
        for name, t in (("query", tokens), ("key", few), ("value", few))
    )
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(4)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    y = np.einsum("bhts,bshd->bthd", scores / scores.sum(-1, keepdims=True), v)
    y = np.einsum("bthd,hdc->btc", y, w["attend/attention_output/kernel"]) + w["attend/attention_output/bias"]
    np.testing.assert_allclose(layer(x), y.reshape(x.shape), atol=1e-5)


def test_attention_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="7 channels cannot be divided among 2 heads"):
        EfficientAttention(2)(np.zeros((1, 2, 2, 7)))


# Dilation

NETS = ("resnet18", "vgg11", "mobilenet_025", "squeezenet1_1", "googlenet")
SLOW = (
    "densenet121",
    "xception",
    "shufflenet",
    "inceptionv3",
    "nasnetmobile",
    "darknet19",
    "alexnet",
    "zfnet",
    "resnext50_32x4d",
)
ADAPTERS = (
    "keras_resnet50",
    "keras_mobilenet",
    "keras_densenet121",
    "keras_xception",
    "keras_nasnetmobile",
    "keras_inceptionv3",
)


@pytest.mark.parametrize("name", [*NETS, *(pytest.param(name, marks=pytest.mark.slow) for name in (*SLOW, *ADAPTERS))])
@pytest.mark.parametrize("stride", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_a_dilated_net_contains_the_net(name, stride, rng):
    net = backbone(name)
    dense = dilated(net, stride)
    assert [layer.name for layer in dense.layers if layer.weights] == [
        layer.name for layer in net.layers if layer.weights
    ]
    randomise(net)
    dense.set_weights(net.get_weights())
    image = rng.integers(0, 256, (1, 128, 128, 3)).astype("uint8")
    coarse, fine = net(image, training=False), dense(image, training=False)
    # Of SqueezeNet, which ends at stride 16, nothing is left to dilate for 16: the same net.
    assert coarse.keys() == fine.keys() and (max(map(int, coarse)) > stride or (name, stride) == ("squeezenet1_1", 16))
    for key, tap in coarse.items():
        every = max(1, int(key) // stride)
        sampled, tap = np.asarray(fine[key])[:, ::every, ::every], np.asarray(tap)
        height, width = tap.shape[1:3]
        assert sampled.shape[1] >= height  # there may be one more, where the net has a partial window at the end
        np.testing.assert_allclose(sampled[:, :height, :width], tap, atol=1e-5 * np.abs(tap).max(), err_msg=key)


@pytest.mark.parametrize("name", ["efficientnetb0", "mit_b0", "mobilenetv3_small"])
def test_nets_that_look_at_the_whole_map_are_dilated_too(name, rng):
    net, dense = backbone(name), dilated(backbone(name), 8)
    assert [v.shape for v in dense.weights] == [v.shape for v in net.weights]
    taps = dense(rng.integers(0, 256, (1, 64, 96, 3)).astype("uint8"), training=False)
    assert {key: tap.shape[1:3] for key, tap in taps.items() if int(key) >= 8} == {
        key: (8, 12) for key in ("8", "16", "32")
    }


def test_dilating_where_there_is_nothing_to_dilate_changes_nothing(rng):
    net = backbone("mobilenet_025")
    same = dilated(net, 32)
    assert [layer.get_config() for layer in same.layers[1:]] == [layer.get_config() for layer in net.layers[1:]]


def test_aspp_sees_the_whole_map():
    taps = {16: keras.Input((None, None, 8)), 4: keras.Input((None, None, 8))}
    x = deeplab.deeplab(taps, deeplab.Row(filters=4, skip=3))
    assert keras.Model(list(taps.values()), x).compute_output_shape([(1, 5, 7, 8), (1, 20, 28, 8)]) == (1, 20, 28, 4)
    with pytest.raises(InputError, match="output_stride is 8 or 16, not 32"):
        deeplab.deeplab(taps, deeplab.Row(output_stride=32))


def test_mit_is_a_net_of_the_zoo():
    model = build("mit_b0", classes=3, input_size=33)
    assert model.output_shape == (None, 3)
    assert list(backbone("mit_b0").output) == ["4", "8", "16", "32"]
    assert segnet.Basic().depth == 4
