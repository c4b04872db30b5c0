"""GoogLeNet against table 1 of its paper, and its auxiliary heads."""

import keras
import numpy as np
import pytest

from cnn_zoo import SPECS, backbone, build
from cnn_zoo.nets import googlenet
from cnn_zoo.nets.googlenet import TABLE_1, auxiliary

# Columns "output size" (with its maps) and "params" in thousands; the paper's params are up to 8 % off its own numbers of maps.
BLOCKS = {
    "s3_a": (28, 256, 159), "s3_b": (28, 480, 380), "s4_a": (14, 512, 364), "s4_b": (14, 512, 437), "s4_c": (14, 512, 463),
    "s4_d": (14, 528, 580), "s4_e": (14, 832, 840), "s5_a": (7, 832, 1072), "s5_b": (7, 1024, 1388),
}  # fmt: skip


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014"])
def test_sizes_are_those_of_table_1(name):
    model = build(name)
    for block, (size, maps, _) in BLOCKS.items():
        assert model.get_layer(f"{block}_concat").output.shape[1:] == (size, size, maps)
    assert sum(columns[0] + columns[2] + columns[4] + columns[5] for columns in TABLE_1[5].values()) == 832 + 1024


def test_parameters_follow_from_table_1():
    model, x, total = build("googlenet_2014"), 192, 0
    for block, (_, maps, thousands) in BLOCKS.items():
        params = sum(layer.count_params() for layer in model.layers if layer.name.startswith(block))
        n1, r3, n3, r5, n5, proj = TABLE_1[int(block[1])][block[3]]
        by_hand = x * (n1 + r3 + r5 + proj) + 9 * r3 * n3 + 25 * r5 * n5 + n1 + r3 + n3 + r5 + n5 + proj
        assert params == by_hand and params / 1024 == pytest.approx(thousands, rel=0.08)
        x, total = maps, total + params
    stem = (
        (49 * 3 * 64 + 64) + (64 * 64 + 64) + (9 * 64 * 192 + 192)
    )  # the table's 2.7 K for the first layer is an error of the paper
    assert total + stem + 1024 * 1000 + 1000 == SPECS["googlenet_2014"].params == 6_998_552


@pytest.mark.parametrize(("name", "params"), [("googlenet", 13_004_888), ("googlenet_2014", 13_378_280)])
def test_auxiliary_heads_have_the_published_parameters(name, params):
    trunk = backbone(name, input_size=224)
    heads = auxiliary(lambda layer: trunk.get_layer(layer).output, 1000, SPECS[name].row)
    assert list(heads) == ["aux1", "aux2"] and all(head.shape == (None, 1000) for head in heads.values())
    model = keras.Model(trunk.input, heads)
    own = sum(int(np.prod(v.shape)) for v in model.trainable_variables if v.path.startswith("head_"))
    assert SPECS[name].params + own == params
    assert {layer.name for layer in model.layers} - {layer.name for layer in trunk.layers} == {
        layer.name for layer in model.layers if layer.name.startswith("head_aux")
    }


def test_auxiliary_heads_train_and_leave_the_inference_net_alone(rng):
    model = build("googlenet", classes=3, input_size=97)
    logits = auxiliary(lambda layer: model.get_layer(layer).output, 3, SPECS["googlenet"].row)
    assert all(keras.backend.standardize_dtype(y.dtype) == "float32" for y in logits.values())
    training = keras.Model(
        model.input, {"predictions": model.output} | {k: keras.ops.softmax(y) for k, y in logits.items()}
    )
    training.compile(
        optimizer=keras.optimizers.SGD(0.01),
        loss={key: "sparse_categorical_crossentropy" for key in training.output},
        loss_weights={"predictions": 1.0, "aux1": googlenet.AUXILIARY_WEIGHT, "aux2": googlenet.AUXILIARY_WEIGHT},
        run_eagerly=True,
    )
    x, y = rng.integers(0, 256, (4, 97, 97, 3)).astype("uint8"), np.array([0, 1, 2, 0])
    before = [np.array(v) for v in training.trainable_variables]
    history = training.fit(x, {key: y for key in training.output}, verbose=0).history
    parts = {key: history[f"{key}_loss"][0] for key in ("predictions", "aux1", "aux2")}
    assert history["loss"][0] == pytest.approx(parts["predictions"] + 0.3 * (parts["aux1"] + parts["aux2"]), rel=1e-4)
    moved = [not np.array_equal(a, v) for a, v in zip(before, training.trainable_variables, strict=True)]
    assert np.mean(moved) > 0.95
    np.testing.assert_allclose(training(x, training=False)["predictions"], model(x, training=False), rtol=1e-5)
