"""`build_classifier`: a new head on trained numbers, any channels, a flat graph; auxiliary heads; names of ImageNet's classes."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from cnn_zoo import (
    SPECS,
    InputError,
    WeightsError,
    backbone,
    build,
    build_classifier,
    build_lenet,
    decode,
    taps,
    weights,
)  # fmt: skip
from cnn_zoo.imagenet import CLASSES, WNIDS

NETS = {
    "squeezenet1_1": 65,
    "resnet18_ic": 65,
    "vgg11": 33,
    "mobilenetv3_small": 65,
}  # presets caffe, raw, imagenet, symmetric


@pytest.fixture(params=NETS)
def trained(request, tmp_path, rng):
    """A net, its size, and the file of random weights "trained" on RGB images."""
    net, size = request.param, NETS[request.param]
    model = build(net, classes=7, input_size=size)
    for v in model.weights:
        values = rng.normal(size=v.shape) * np.sqrt(2 / max(1, np.prod(v.shape[:-1])))
        v.assign(1 + np.abs(values) if "variance" in v.path or "gamma" in v.path else values)
    path = tmp_path / f"{net}.safetensors"
    weights.save(model, path, net=net, classes="abcdefg", preset=SPECS[net].preset)
    return net, size, path


def features(model):
    return keras.Model(model.input, model.get_layer("head_pool").input)


def test_a_gray_image_gives_the_output_of_its_rgb_twin(trained, rng):
    net, size, path = trained
    gray = rng.integers(0, 256, (2, size, size, 1)).astype("uint8")
    rgb = np.repeat(gray, 3, axis=-1)
    expected = np.asarray(features(build_classifier(net, 3, weights=path, input_size=size))(rgb, training=False))
    assert np.ptp(expected, axis=0).max() > 1e-4 * np.abs(expected).max()  # they depend on the image
    found = features(build_classifier(net, 3, weights=path, input_size=size, channels=1))(gray, training=False)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    whole = build(net, weights=path, input_size=size)(rgb, training=False)
    np.testing.assert_allclose(
        build(net, weights=path, input_size=size, channels=1)(gray, training=False), whole, atol=1e-5
    )


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_first_kernels_are_repeated_for_other_channels(trained, channels, rng):
    net, size, path = trained
    model = build_classifier(net, 3, weights=path, input_size=size, channels=channels)
    arrays, _ = weights.read(path)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    kernel = arrays[f"{first.name}/kernel"]
    assert first.kernel.shape[2] == channels
    for i in range(channels):
        np.testing.assert_allclose(first.kernel[:, :, i], kernel[:, :, i % 3] * 3 / channels, rtol=1e-6)
    rest = [
        v
        for layer in model.layers
        if not layer.name.startswith(("head", "logits", first.name, "stem_data"))
        for v in layer.weights
    ]
    assert len(rest) > 10
    for variable in rest:
        np.testing.assert_array_equal(variable, arrays[variable.path])
    y = model(rng.integers(0, 256, (1, size, size, channels)), training=False)
    assert y.shape == (1, 3) and np.isfinite(y).all()


def test_a_gray_net_takes_colour_and_keeps_its_answer(rng):
    gray = rng.integers(0, 256, (2, 28, 28, 1)).astype("uint8")
    colour = build_lenet(weights="mnist", channels=3)
    np.testing.assert_allclose(colour(np.repeat(gray, 3, -1)), build_lenet(weights="mnist")(gray), atol=1e-5)


def test_a_file_of_four_channels_comes_back_as_such(tmp_path, rng):
    model = build("resnet20", channels=4)
    weights.save(model, tmp_path / "w.safetensors", net="resnet20", classes=range(10), preset="imagenet")
    again = build("resnet20", weights=tmp_path / "w.safetensors")
    x = rng.integers(0, 256, (1, 32, 32, 4)).astype("uint8")
    np.testing.assert_array_equal(again(x, training=False), model(x, training=False))
    one = build("resnet20", channels=1)
    weights.save(one, tmp_path / "one.safetensors", net="resnet20", classes=range(10), preset="imagenet")
    again = build("resnet20", weights=tmp_path / "one.safetensors")
    assert again.input_shape == (None, 32, 32, 1) and "gray_to_rgb" not in [layer.name for layer in again.layers]
    np.testing.assert_array_equal(again(x[..., :1], training=False), one(x[..., :1], training=False))


def test_the_graph_is_flat_and_its_features_are_at_hand(trained, rng):
    net, size, path = trained
    model = build_classifier(net, 3, weights=path, input_size=size)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    x = rng.integers(0, 256, (1, size, size, 3)).astype("uint8")
    trunk = backbone(net, weights=path, input_size=size)(x, training=False)
    names = taps(net)
    assert list(map(str, names)) == list(trunk)
    found = keras.Model(model.input, [model.get_layer(name).output for name in names.values()])(x, training=False)
    for a, b in zip(found, trunk.values(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("head", ["avg", "max", "flatten", "original"])
def test_heads(head, rng):
    model = build_classifier("squeezenet1_1", 3, weights=None, input_size=65, head=head)
    assert model.output_shape == (None, 3)
    y = np.asarray(model(rng.integers(0, 256, (2, 65, 65, 3)), training=False))
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)
    dropouts = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert dropouts == ([0.5] if head == "original" else [0.2])


def test_the_loss_of_a_new_head_on_large_features_starts_at_ln_classes(tmp_path, rng):
    model = build("vgg11", classes=7, input_size=33)
    for v in model.weights:
        if v.name == "kernel":
            v.assign(rng.normal(size=v.shape) * np.sqrt(0.76 / np.prod(v.shape[:-1])))
    weights.save(model, tmp_path / "vgg11.safetensors", net="vgg11", classes="abcdefg", preset=SPECS["vgg11"].preset)
    x = rng.integers(0, 256, (16, 64, 64, 3)).astype("float32")
    new = build_classifier("vgg11", 5, weights=str(tmp_path / "vgg11.safetensors"), input_size=64)
    pooled = keras.Model(new.input, new.get_layer("head_pool").output)(x, training=False)
    assert 40 < np.linalg.norm(np.asarray(pooled), axis=-1).mean() < 400
    nats = -np.log(np.asarray(new(x, training=False)))
    assert abs(nats.mean() - np.log(5)) < 0.3 and nats.std(0).max() > 0  # small, and not the same for all images


def test_a_head_of_ones_own():
    def head(x, classes):
        x = keras.layers.GlobalMaxPooling2D(name="head_pool")(x)
        return keras.layers.Dense(classes, name="logits")(keras.layers.Dense(5, name="head_hidden")(x))

    model = build_classifier("resnet20", 4, weights=None, head=head, activation="sigmoid", dropout=0.0)
    assert model.get_layer("head_hidden").units == 5 and model.output_shape == (None, 4)
    with pytest.raises(InputError, match=r"head= failed on features of shape \(None, 8, 8, 64\): nothing doing"):
        build_classifier(
            "resnet20", 4, weights=None, head=lambda x, classes: (_ for _ in ()).throw(RuntimeError("nothing doing"))
        )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"head": "mean"}, "head is one of .*'avg'.*not 'mean'"),
        ({"dropout": 1.0}, "0 <= dropout < 1, not 1.0"),
        ({"dropout": True}, "0 <= dropout < 1"),
        ({"classes": 0}, "classes must be a whole number"),
        ({"classes": 1}, "softmax over one class"),
        ({"channels": 2.5}, "channels must be a whole number"),
        ({"activation": "relu"}, "activation is one of"),
        ({"backbone": "resnet19"}, "did you mean 'resnet1"),
        ({"input_size": (32, 32, 3)}, "channels go to channels="),
        ({"head": "flatten", "input_size": (None, None)}, "needs a fixed size"),
    ],
)
def test_wrong_input_says_what_is_right(wrong, says):
    with pytest.raises(InputError, match=says):
        build_classifier(**({"backbone": "resnet20", "classes": 3, "weights": None} | wrong))


def test_missing_weights_say_what_there_is():
    with pytest.raises(WeightsError, match="no weights 'imagenet'.*use weights=None"):
        build_classifier("resnet20", 3)
    with pytest.raises(WeightsError, match="by its name: the endings .*h5"):
        build_classifier("resnet20", 3, weights=__file__)


def test_auxiliary_classifiers_train_with_keras(rng):
    model = build("googlenet", classes=3, input_size=97, auxiliary=True)
    assert {key: tensor.shape for key, tensor in model.output.items()} == dict.fromkeys(
        ("predictions", "aux1", "aux2"), (None, 3)
    )
    model.compile(
        "sgd", dict.fromkeys(model.output, "sparse_categorical_crossentropy"),
        loss_weights={"predictions": 1, "aux1": 0.3, "aux2": 0.3}, run_eagerly=True,
    )  # fmt: skip
    x, y = rng.integers(0, 256, (2, 97, 97, 3)).astype("uint8"), np.array([0, 2])
    before = [np.array(v) for v in model.get_layer("head_aux1_logits").weights]
    assert np.isfinite(model.fit(x, dict.fromkeys(model.output, y), verbose=0).history["loss"][0])
    assert not np.array_equal(before[0], model.get_layer("head_aux1_logits").kernel)
    with pytest.raises(InputError, match="'vgg11' has no auxiliary classifiers; these have: googlenet"):
        build("vgg11", auxiliary=True)
    with pytest.raises(InputError, match="each side must be at least 79 pixels"):
        build("googlenet", input_size=64, auxiliary=True)


def test_the_classes_of_imagenet_are_those_of_the_challenge(shared):
    index = json.loads(Path(shared("data/imagenet/class_index.json")).read_text())
    assert WNIDS == tuple(index[str(i)][0] for i in range(1000)) == tuple(sorted(WNIDS))
    assert len(set(CLASSES)) == 1000 and CLASSES[243] == "bull mastiff"
    differing = [i for i in range(1000) if CLASSES[i] != index[str(i)][1].replace("_", " ")]
    assert differing == [134, 517, 639]  # told apart


def test_decode_sorts_and_names():
    scores = np.zeros((2, 1000), "float32")
    scores[0, [243, 5]] = 0.7, 0.3
    scores[1, 999] = 1
    first, second = decode(scores, top=2)
    assert [(g.index, g.name) for g in first] == [(243, "bull mastiff"), (5, "electric ray")]
    assert first[0].score == pytest.approx(0.7) and second[0].index == 999
    assert decode([0.1, 0.9], classes=["cat", "dog"])[0][0] == (1, "dog", 0.9)
    for wrong in (np.zeros((1, 10)), np.zeros((1, 2, 1000)), np.full((1, 1000), np.nan), np.full((1, 1000), "a")):
        with pytest.raises(InputError):
            decode(wrong)
    with pytest.raises(InputError, match="top is a whole number"):
        decode(scores, top=0)
