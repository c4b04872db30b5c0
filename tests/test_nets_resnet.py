"""The residual nets, and every net that segmentation_models builds on, against the counts measured on the original packages."""

import json
import math
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

from cnn_zoo import SPECS, backbone, build
from cnn_zoo.nets import resnet_cifar

PREACTIVATION = [f"resnet{n}" for n in (18, 34, 50, 101, 152)] + ["seresnet18", "seresnet34", "resnext50", "resnext101"]
NETS = [
    *PREACTIVATION, "seresnet50", "seresnet101", "seresnet152", "seresnext50", "seresnext101", "senet154", "resnet50v2", "resnet101v2",
    "resnet152v2", "vgg16", "vgg19", "densenet121", "densenet169", "densenet201", "inceptionresnetv2", "inceptionv3", "xception",
    "nasnetlarge", "nasnetmobile", "mobilenet", "mobilenetv2", *(f"efficientnetb{i}" for i in range(8)),
]  # fmt: skip


def ours(name):
    """Our row for a name of segmentation_models: one of its names means another net everywhere else."""
    return f"{name}_ic" if name in PREACTIVATION else name


@pytest.fixture
def reference(shared):
    return json.loads(Path(shared("reference/segmentation_models.json")).read_text())["classification"]


def test_all_nets_of_segmentation_models_are_rows(reference):
    assert set(NETS) == set(reference) and len(NETS) == 38 and {ours(name) for name in NETS} <= SPECS.keys()
    for name, facts in reference.items():
        assert SPECS[ours(name)].params == facts["top"]["trainable"], name
        assert SPECS[ours(name)].size == (facts["size"], facts["size"]), name


SMALL = ("resnet18", "seresnet18", "mobilenet", "mobilenetv2", "efficientnetb0", "vgg16")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in SMALL else [pytest.mark.slow]) for n in NETS])
def test_trunk_and_batch_norm_are_those_of_the_package(name, reference):
    facts, model = reference[name], backbone(ours(name))
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == facts["no_top"]["trainable"]
    frozen = {id(v) for v in model.weights} - {id(v) for v in model.trainable_variables}  # without states of generators
    assert sum(math.prod(v.shape) for v in model.weights if id(v) in frozen) == facts["no_top"]["non_trainable"]
    norms = [layer for layer in model.layers if isinstance(layer, L.BatchNormalization)]
    found = Counter(f"eps={norm.epsilon} scale={norm.scale} center={norm.center}" for norm in norms)
    expected = Counter()  # momentum left out: it is a matter of training
    for key, count in facts["top"]["bn"].items():
        expected[" ".join(part for part in key.split() if not part.startswith("momentum"))] += count
    assert found == expected


def test_where_a_bottleneck_halves_the_size():
    halving = {name: build(name, input_size=64).get_layer for name in ("resnet50", "seresnet50")}
    assert halving["resnet50"]("s2_b1_1_conv").strides == (1, 1) and halving["resnet50"]("s2_b1_2_conv").strides == (
        2,
        2,
    )
    assert halving["seresnet50"]("s2_b1_1_conv").strides == (2, 2)
    assert halving["seresnet50"]("s2_b1_2_conv").strides == (1, 1)


def test_shortcuts_of_option_a_have_no_parameters(rng):
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, resnet_cifar.basic(inputs, 10, 2, "b"))
    for layer in model.layers:
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])  # only the shortcut is left
    x = np.abs(rng.normal(size=(2, 8, 8, 4))).astype("float32")
    y = np.asarray(model(x, training=False))
    np.testing.assert_array_equal(y[..., :4], x[:, ::2, ::2])
    np.testing.assert_array_equal(y[..., 4:], 0)


@pytest.mark.parametrize(("name", "depth"), [("resnet20", 20), ("resnet56", 56), ("resnet18", 18), ("resnet152", 152)])
def test_depth_is_in_the_name(name, depth):
    layers = [
        v for v in build(name, input_size=32).layers if isinstance(v, L.Conv2D | L.Dense) and "shortcut" not in v.name
    ]
    assert len(layers) == depth
