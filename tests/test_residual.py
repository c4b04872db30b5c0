"""Stochastic depth for any net: which blocks are found, that nothing else changes, and that training leaves them out as often as it should."""

import keras
import numpy as np
import pytest
from keras import layers as L

import cnn_zoo
from cnn_zoo import InputError, stochastic_depth
from cnn_zoo.layers import DropPath
from cnn_zoo.residual import residual_blocks


def drops(model):
    return [layer for layer in model.layers if isinstance(layer, DropPath)]


@pytest.mark.parametrize(
    "name, count",
    # By the papers' tables: every block of a ResNet, inverted residuals whose shapes agree, 12 of Xception's 14 modules.
    [("resnet18", 8), ("resnet20", 9), ("seresnet18", 8), ("resnet18_ic", 8), ("mobilenetv2", 10), ("efficientnetb0", 9), ("xception", 12)],
)  # fmt: skip
def test_blocks_of_the_zoo(name, count, rng):
    size = 32 if name == "resnet20" else 96
    model = cnn_zoo.build(name, classes=3, input_size=size)
    copy = stochastic_depth(model, 0.5)
    rates = [layer.rate for layer in drops(copy)]
    assert rates == pytest.approx([0.5 * i / count for i in range(1, count + 1)])
    images = rng.integers(0, 256, (2, size, size, 3)).astype("float32")
    assert np.array_equal(model.predict(images, verbose=0), copy.predict(images, verbose=0))
    names = {layer.name for layer in model.layers}
    assert {layer.name for layer in copy.layers} - names <= {f"{block}_drop" for block in residual_blocks(model)}


def small(add):
    """Two blocks on 4 x 4 maps, one of them with a projection; weights that make each block as large as its shortcut."""
    inputs = keras.Input((4, 4, 2))
    x = L.Conv2D(2, 1, name="b1_conv")(inputs)
    x = add([x, inputs])
    y = L.Conv2D(3, 3, padding="same", name="b2_conv1")(x)
    y = L.BatchNormalization(name="b2_bn", trainable=False)(L.Conv2D(3, 3, padding="same", name="b2_conv2")(y))
    outputs = add([L.Conv2D(3, 1, name="b2_shortcut")(x), y])
    return keras.Model(inputs, outputs, name="small")


@pytest.mark.parametrize(
    "add", [lambda pair: L.Add()(pair), lambda pair: pair[0] + pair[1]], ids=["layer", "operation"]
)
def test_blocks_are_left_out_as_often_as_they_should_and_the_mean_stays(add, rng):
    model = small(add)
    copy = stochastic_depth(model, 0.5)
    assert [layer.rate for layer in drops(copy)] == [0.25, 0.5]
    assert not copy.get_layer("b2_bn").trainable and copy.get_layer("b2_conv1").trainable
    image = rng.normal(size=(1, 4, 4, 2)).astype("float32")
    found = np.asarray(copy(np.repeat(image, 8000, 0), training=True))
    kinds, counts = np.unique(found.reshape(len(found), -1).round(4), axis=0, return_counts=True)
    shares = np.sort(counts / len(found))  # of both, one or no blocks: 3/8 of both, 3/8 of the first, 1/8, 1/8
    assert len(kinds) == 4 and shares == pytest.approx([0.125, 0.125, 0.375, 0.375], abs=0.02)  # 4 standard errors
    # The first block is linear, and so is the second one (frozen BatchNorm): the mean over draws is the model's own output.
    assert found.mean(0) == pytest.approx(np.asarray(model(image, training=False))[0], abs=0.15)


def test_it_trains_saves_and_goes_on(rng, tmp_path):
    model = cnn_zoo.build("resnet20", classes=2, input_size=16, stochastic_depth=0.3)
    assert len(drops(model)) == 9
    images, labels = rng.integers(0, 256, (16, 16, 16, 3)).astype("uint8"), np.arange(16) % 2
    data = cnn_zoo.Data.from_arrays(images, labels)
    recipe = cnn_zoo.recipe("lecture", epochs=2, batch_size=8, validation=0)
    cnn_zoo.fit(model, data, recipe, run=tmp_path / "run", verbose=0)
    loaded, _ = cnn_zoo.load_model(tmp_path / "run")
    assert len(drops(loaded)) == 9
    assert np.array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


def test_what_drops_blocks_already_is_set_anew():
    model = cnn_zoo.build("efficientnetb0", classes=2, input_size=64)
    before = [layer.name for layer in drops(model)]
    copy = stochastic_depth(model, 0.0)
    assert [layer.name for layer in drops(copy)] == before and {layer.rate for layer in drops(copy)} == {0.0}


def test_decoders_are_left_alone():
    model = cnn_zoo.build_segmenter("fpn", "resnet18", 2)
    blocks = residual_blocks(model)
    assert len(blocks) == 8 and all(name.startswith("s") for name in blocks)


def test_the_classifier_takes_it():
    model = cnn_zoo.build_classifier("resnet18", 3, weights=None, input_size=64, stochastic_depth=0.2)
    assert [layer.rate for layer in drops(model)][-1] == 0.2


@pytest.mark.parametrize("rate", [1, -0.1, "much", True])
def test_rates_out_of_range(rate):
    with pytest.raises(InputError, match="0 <= rate < 1"):
        cnn_zoo.build("resnet20", stochastic_depth=rate)


def test_nets_without_residual_blocks():
    with pytest.raises(InputError, match="'lenet' has no residual blocks"):
        cnn_zoo.build("lenet", stochastic_depth=0.1)
    with pytest.raises(InputError, match="Functional"):
        stochastic_depth("lenet", 0.1)
