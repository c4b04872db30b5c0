"""Stages from the graph, of any model; and that what is frozen does not change by a bit."""

import keras
import numpy as np
import pytest
from keras import layers as L

import cnn_zoo
from cnn_zoo import Data, InputError, Recipe
from cnn_zoo.freezing import freeze, stages

ALL = ["stem", "stage1", "stage2", "stage3", "stage4", "head"]


def weighted(model):
    """All layers with weights, those of nested models instead of the models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from weighted(layer)
        elif layer.weights:
            yield layer


def check(model):
    """Each layer with weights in exactly one stage, in the order of `ALL`, and in forward order within; gives the names."""
    found = stages(model)
    together = [layer for layers in found.values() for layer in layers]
    assert sorted(map(id, together)) == sorted(map(id, weighted(model))) and all(found.values())
    assert list(found) == [name for name in ALL if name in found]
    return {name: [layer.name for layer in layers] for name, layers in found.items()}


# The last layer of each stage, as the papers draw the nets; strides 2, 4, 8, 16, 32.
NETS = {
    "resnet18": ("stem_bn", "s1_b2_2_bn", "s2_b2_2_bn", "s3_b2_2_bn", "s4_b2_2_bn", "logits"),
    "seresnet18": ("stem_bn", "s1_b2_se_expand", "s2_b2_se_expand", "s3_b2_se_expand", "s4_b2_se_expand", "logits"),
    "vgg11": ("s2_conv1", "s3_conv2", "s4_conv2", "s5_conv2", None, "logits"),
    "alexnet": (None, "conv1", "conv2", "conv5", None, "logits"),
    "squeezenet1_1": ("stem_conv", "fire3_expand3x3", "fire5_expand3x3", "fire9_expand3x3", None, "head_conv10"),
    "mobilenetv3_small": ("stem_bn", "s3_b1_expand_bn", "s4_b1_expand_bn", "s5_b1_expand_bn", "last_bn", "logits"),
    "darknet19": ("s1_1_bn", "s2_3_bn", "s3_3_bn", "s4_5_bn", "s5_5_bn", "logits"),
    "lenet": ("c3", None, None, None, None, "logits"),
    "mit_b0": (None, "s1_norm", "s2_norm", "s3_norm", "s4_norm", "logits"),
    "shufflenetv2": ("stem_bn", "s2_b1_1_bn", "s3_b1_1_bn", "s4_b1_1_bn", "last_bn", "logits"),
    "mlp": (None, None, None, None, None, "logits"),
}
SLOW = {
    "densenet121": ("stem_bn", "s1_transition_conv", "s2_transition_conv", "s3_transition_conv", "s4_bn", "logits"),
    "keras_mobilenetv3small": ("conv_bn", None, None, None, "conv_1_bn", "logits"),
    "keras_efficientnetb0": ("block2a_expand_bn", None, None, None, "top_bn", "logits"),
    "keras_convnexttiny": (None, None, None, None, "convnext_tiny_stage_3_block_2_layer_scale", "logits"),
    "keras_resnet50": ("conv1_bn", None, None, None, "conv5_block3_3_bn", "logits"),
}


@pytest.mark.parametrize("name", [*NETS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_nets(name):
    found = check(cnn_zoo.build(name))
    for stage, last in zip(ALL, {**NETS, **SLOW}[name]):
        assert last is None or last in found[stage][-4:], (stage, found[stage][-4:])
    if name in NETS:
        assert list(found) == [stage for stage, last in zip(ALL, NETS[name]) if last]


def test_open_sizes_and_other_heads_change_no_stage():
    whole, open_ = (
        check(cnn_zoo.build_classifier("squeezenet1_1", 3, weights=None, input_size=s)) for s in (224, (None, None))
    )
    assert whole == open_ and whole["head"] == ["logits"] and "fire9_expand3x3" in whole["stage3"]
    assert "head" not in check(cnn_zoo.backbone("resnet18"))


@pytest.mark.parametrize(
    "name", ["unet:resnet18", "fpn:mobilenet_025", "deeplabv3plus:mobilenetv3_small", "pspnet:resnet18"]
)
def test_the_head_of_a_segmenter_is_its_decoder(name):
    decoder, net = name.split(":")
    model = cnn_zoo.build_segmenter(decoder, net, 3, weights=None)
    check(model)
    trunk = {layer.name for layer in cnn_zoo.backbone(net).layers if layer.weights}
    for stage, layers in stages(model).items():
        assert all((layer.name in trunk) == (stage != "head") for layer in layers)


def test_a_decoder_with_names_of_its_own_is_told_by_what_enlarges():
    inputs = x = keras.Input((64, 64, 3))
    taps = []
    for i in range(4):
        x = L.Conv2D(4, 3, 2, padding="same", activation="relu", name=f"down{i}")(x)
        taps.append(x)
    x = L.UpSampling2D(2)(x)
    x = L.Conv2D(4, 3, padding="same", name="up0")(L.Concatenate()([x, L.Conv2D(2, 1, name="lateral")(taps[2])]))
    x = L.Conv2D(2, 1, name="scores")(L.UpSampling2D(8)(x))
    found = check(keras.Model(inputs, x))
    expected = {"stem": ["down0"], "stage1": ["down1"], "stage2": ["down2"], "stage3": ["down3"]}
    assert found == expected | {"head": found["head"]} and sorted(found["head"]) == ["lateral", "scores", "up0"]


def test_models_of_a_user_nested_sequential_and_in_other_layouts():
    inner_in = keras.Input((None, None, 3))
    inner = keras.Model(inner_in, L.Conv2D(4, 3, 2, name="b")(L.Conv2D(4, 3, 2, name="a")(inner_in)), name="inner")
    model = keras.Sequential(
        [keras.Input((65, 65, 3)), inner, L.BatchNormalization(name="c"), L.Flatten(), L.Dense(2, name="d")]
    )
    assert check(model) == {"stem": ["a"], "stage1": ["b", "c"], "head": ["d"]}
    signal = keras.Sequential(
        [keras.Input((64, 3)), L.Conv1D(4, 3, 4, name="a"), L.GlobalMaxPooling1D(), L.Dense(2, name="d")]
    )
    assert check(signal) == {"stage1": ["a"], "head": ["d"]}
    first = keras.Input((3, 64, 64))
    x = L.Conv2D(4, 3, 8, data_format="channels_first", name="a")(first)
    assert check(keras.Model(first, L.Dense(2, name="d")(L.Flatten()(x)))) == {"stage2": ["a"], "head": ["d"]}


def test_freezing_up_to_a_stage_and_freeing():
    model = cnn_zoo.build_classifier("squeezenet1_1", 3, weights=None, input_size=64)
    assert freeze(model, "stage2") == ["stem", "stage1", "stage2"]
    for name, layers in stages(model).items():
        assert all(layer.trainable == (name in ("stage3", "head")) for layer in layers)
    assert freeze(model, "stem") == ["stem"] and len(model.trainable_variables) == 50
    assert freeze(model, None) == [] and len(model.trainable_variables) == 52
    assert freeze(model) == ["stem", "stage1", "stage2", "stage3", "head"] and not model.trainable_variables
    with pytest.raises(
        InputError, match="no stage 'stage5'; did you mean 'stage[123]'.*it has: stem, stage1, stage2, stage3, head"
    ):
        freeze(model, "stage5")

    class Own(keras.Model):
        pass

    with pytest.raises(InputError, match="whose layers and their order can be seen"):
        stages(Own())


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_frozen_trunk_is_the_same_to_the_bit_after_a_fit(policy, tmp_path, rng):
    """Weights and BatchNorm statistics, moving averages included, while the head learns."""
    keras.config.set_dtype_policy(policy)
    model = cnn_zoo.build_classifier("resnet20", 2, weights=None, input_size=16)
    data = Data.from_arrays(rng.integers(0, 256, (24, 16, 16, 3)).astype("uint8"), np.arange(24) % 2)
    freeze(model, "stage1")
    before = {v.path: np.asarray(v) for v in model.variables}
    cnn_zoo.fit(
        model,
        data,
        Recipe("r", epochs=2, batch_size=12, learning_rate=0.01, validation=0),
        run=tmp_path / "run",
        verbose=0,
    )
    changed = {
        path
        for path, value in before.items()
        for v in model.variables
        if v.path == path and not np.array_equal(np.asarray(v), value)
    }
    norms = [path for path in before if "moving" in path]
    assert len(norms) > 30 and {path for path in changed if "seed" not in path} == {"logits/kernel", "logits/bias"}
    freeze(model, "stem")
    cnn_zoo.fit(model, data, Recipe("r", epochs=1, batch_size=12, validation=0), run=tmp_path / "other", verbose=0)
    moved = {
        v.path for v in model.variables if "moving" in v.path and not np.array_equal(np.asarray(v), before[v.path])
    }
    stage1 = {v.path for layer in stages(model)["stage1"] for v in layer.weights if "moving" in v.path}
    assert moved == stage1 and stage1
