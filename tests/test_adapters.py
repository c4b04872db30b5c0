"""Rows made from keras.applications: the same numbers in them give the same logits as Keras' own nets, from images 0..255."""

import keras
import numpy as np
import pytest
from keras import layers as L

from cnn_zoo import PRESETS, SPECS, backbone, build, list_models
from cnn_zoo.nets import applications

ROWS = list_models("keras_*")
NETS = {  # the smallest nets of each module, and an odd size that they take
    "keras_mobilenetv3small": 45,
    "keras_mobilenetv2": 45,
    "keras_vgg16": 37,
    "keras_mobilenet": 45,
    "keras_efficientnetb0": 45,
    "keras_resnet50": 45,
    "keras_efficientnetv2b0": 45,
    "keras_nasnetmobile": 45,
    "keras_densenet121": 45,
    "keras_convnexttiny": 45,
    "keras_inceptionv3": 85,
    "keras_xception": 75,
    "keras_resnet50v2": 45,
    "keras_vgg19": 37,
    "keras_efficientnetv2s": 45,
    "keras_inceptionresnetv2": 85,
    "keras_mobilenetv3large": 45,
    "keras_nasnetlarge": 45,
}
QUICK = list(NETS)[:3]
STATISTICS = [np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225]) ** 2, np.int32(0)]  # of pixels / 255


def some(names):
    """Parametrise over nets; those that take long are slow."""
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in names]


def constructor_of(name):
    return getattr(keras.applications, SPECS[name].row.constructor)


def preprocess_input_of(name):
    return getattr(keras.applications, constructor_of(name).__module__.rpartition(".")[2]).preprocess_input


def give_statistics(layer):
    """ImageNet's statistics to a Normalization layer that has none: EfficientNet's come with the published weights."""
    if isinstance(layer, L.Normalization) and layer.weights:
        layer.set_weights(STATISTICS)
        layer.finalize_state()


def by_name(net, kinds):
    """Layers with weights by name, those in a Sequential too, as `container/layer`; automatic names numbered from 1."""
    layers = {}
    for layer in net.layers:
        inner = layer.layers if isinstance(layer, keras.Sequential) else [layer]
        layers |= {f"{layer.name}/{x.name}" if x is not layer else x.name: x for x in inner if x.weights}
    new = applications.numbered([name for name in layers if "/" not in name], kinds)
    return {new.get(name, name): layer for name, layer in layers.items()}


def random_values(layer, rng):
    """Weights that keep activations within bounds at any depth, and BatchNorm statistics far from their start."""
    values = []
    for v in layer.weights:
        fan = np.prod(v.shape[:-2] if v.shape[-1] == 1 else v.shape[:-1])  # a depthwise kernel sees one channel
        value = rng.normal(0, np.sqrt(1.35 / fan) if len(v.shape) > 1 else 0.03, v.shape)
        if v.path.endswith(("variance", "gamma")):
            value = (0.7 if "variance" in v.path else 1) + rng.exponential(
                0.4 if "variance" in v.path else 0.2, v.shape
            )
        values.append(value)
    return values


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (2, 5, 5, 3)).astype("float32")


def test_every_constructor_is_a_row():
    there = {name for name, value in vars(keras.applications).items() if name[0].isupper() and callable(value)}
    assert {SPECS[name].row.constructor for name in ROWS} == there
    assert len(ROWS) >= 35 and len(applications.KNOWN) >= 40
    for name in ROWS:
        spec = SPECS[name]
        assert name == f"keras_{spec.row.constructor.lower()}" and "arxiv.org" in spec.paper
        assert spec.row.constructor not in applications.KNOWN or spec.params > 1e6


@pytest.mark.parametrize("name", ROWS)
def test_preset_does_what_preprocess_input_does(name, pixels):
    row, preset = SPECS[name].row, PRESETS[SPECS[name].preset]
    out = preprocess_input_of(name)(pixels.copy())
    if (out == pixels).all():  # the graph does it, which the next test looks at
        assert row.preset in ("imagenet", "symmetric", "symmetric128") and not row.bgr
    else:
        np.testing.assert_allclose(out[..., ::-1] if row.bgr else out, (pixels - preset.mean) / preset.std, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_preset_does_what_the_graph_did_and_nothing_else_does(name, pixels):
    row, preset, x = SPECS[name].row, PRESETS[SPECS[name].preset], pixels
    net = applications.recipe(row.constructor, True)
    for layer in applications.keras_net(row.constructor).layers:
        if isinstance(layer, L.Rescaling | L.Normalization):
            give_statistics(layer)
            x = np.asarray(layer(x))
    assert bool(net.left_out) == (x is not pixels)
    if net.left_out:
        np.testing.assert_allclose(x, (pixels - preset.mean) / preset.std, atol=1e-5)
    assert not any(s.make in (L.Rescaling, L.Normalization) for s in [*net.trunk.values(), *net.head.values()])
    assert max(net.taps.values()) == max(net.trunk) and {4, 8, 16, 32} <= set(net.taps) <= {1, 2, 4, 8, 16, 32}
    names = [step.name for step in net.trunk.values()]
    assert len(set(names)) == len(names)
    assert not any(n.startswith(("head", "logits", "predictions", "preprocess")) or "/" in n for n in names)


@pytest.mark.parametrize("name", some(NETS))
def test_same_numbers_same_logits(name, rng):
    """At an odd and at an even size, from pixels 0..255 here and by way of `preprocess_input` there."""
    row, original = SPECS[name].row, applications.original(name)
    net = applications.recipe(row.constructor, True)
    values = {}
    for size in (NETS[name], NETS[name] + 3):
        shape = (size, size, 3)
        theirs = constructor_of(name)(weights=None, input_shape=shape, classes=7, classifier_activation=None)
        layers = by_name(theirs, net.kinds)
        for layer in theirs.layers:
            give_statistics(layer)
        assert set(original.values()) == {x for x in layers if x not in net.left_out}
        ours = build(name, classes=7, input_size=size, activation=None)
        assert {layer.name for layer in ours.layers if layer.weights} == original.keys()
        for i, (our, their) in enumerate(original.items()):
            if [v.shape for v in layers[their].weights] != [v.shape for v in values.get(our, ())]:
                values[our] = random_values(layers[their], rng)
            layers[their].set_weights(values[our])
            kernel, *rest = values[our]
            ours.get_layer(our).set_weights([kernel[:, :, ::-1] if row.bgr and i == 0 else kernel, *rest])
        coarse = rng.integers(0, 256, (2, 4, 4, 3))  # large areas, since means of fine noise are all alike
        x = coarse.repeat(-(-size // 4), 1).repeat(-(-size // 4), 2)[:, :size, :size].astype("float32")
        expected = np.asarray(theirs(preprocess_input_of(name)(x.copy()), training=False))
        assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # the logits depend on the image
        np.testing.assert_allclose(ours(x, training=False), expected, atol=1e-4 * np.abs(expected).max(), rtol=0)
        assert [layer.name for layer in ours.layers if isinstance(layer, L.Rescaling | L.Normalization)] == [
            "preprocess"
        ]


@pytest.mark.parametrize("name", some(["keras_mobilenetv2", "keras_efficientnetb0", "keras_nasnetmobile"]))
@pytest.mark.parametrize("size", [45, 52])
def test_padding_that_keras_guesses_is_right_at_any_size(name, size, rng):
    """Keras' own nets fail this: built for any size they pad as if every map were even."""
    dynamic, static = backbone(name), backbone(name, input_size=size)
    static.set_weights(dynamic.get_weights())
    x = rng.integers(0, 256, (1, size, size, 3)).astype("uint8")
    for stride, tap in static(x, training=False).items():
        np.testing.assert_array_equal(tap, dynamic(x, training=False)[stride])


@pytest.mark.parametrize("name", some(["keras_mobilenetv3small", "keras_inceptionv3"]))
def test_names_and_numbers_do_not_depend_on_what_was_built_before(name):
    def make():
        keras.utils.set_random_seed(3)
        return build(name, classes=3, input_size=85)

    again = make()
    L.Conv2D(3, 3), L.ReLU(), L.BatchNormalization()  # take automatic names
    applications.recipe.cache_clear()
    first = make()
    assert [operation.name for operation in again.operations] == [operation.name for operation in first.operations]
    for a, b in zip(first.weights, again.weights, strict=True):
        assert a.path == b.path
        np.testing.assert_array_equal(a, b, err_msg=a.path)


def test_automatic_names_are_numbered_in_the_order_of_creation():
    names = ["conv2d_10", "stem", "conv2d_9", "batch_normalization", "conv2d_bias_3", "batch_normalization_1"]
    assert applications.numbered(names, {"conv2d", "batch_normalization"}) == {
        "conv2d_9": "conv2d_1",
        "conv2d_10": "conv2d_2",
        "batch_normalization": "batch_normalization_1",
        "batch_normalization_1": "batch_normalization_2",
    }


@pytest.mark.parametrize("name", some(["keras_mobilenetv3small", "keras_convnexttiny", "keras_inceptionresnetv2"]))
def test_a_saved_model_needs_no_custom_objects(name, tmp_path, rng):
    size = NETS[name]
    model = build(name, classes=3, input_size=size)
    model.save(tmp_path / "model.keras")
    x = rng.integers(0, 256, (1, size, size, 3)).astype("uint8")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x, training=False), model(x, training=False))


def test_a_constructor_of_a_new_release_appears_and_works(monkeypatch, rng):
    def NewNet(weights, input_shape, classes, classifier_activation):
        inputs = keras.Input(input_shape)
        x = L.Rescaling(1 / 255)(inputs)
        x = L.Conv2D(8, 3, 2, "same", name="stem_conv")(x)
        x = keras.Sequential([L.BatchNormalization(), L.ReLU()], name="stem_rest")(x)
        x = x + L.Conv2D(8, 1)(x)
        x = L.MaxPooling2D(2)(x)
        x = L.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, L.Dense(classes, classifier_activation, name="predictions")(x))

    monkeypatch.setattr(keras.applications, "NewNet", NewNet, raising=False)
    applications.register()
    try:
        spec = SPECS["keras_newnet"]
        assert spec.params is None and spec.preset == "raw" and spec.size == (224, 224)
        model = build("keras_newnet", classes=4, input_size=33, channels=1, activation=None)
        assert [layer.name for layer in model.layers] == [
            "image",
            "preprocess",
            "rescaling_1",
            "stem_conv",
            "batch_normalization_1",
            "re_lu_1",
            "conv2d_1",
            "add_1",
            "max_pooling2d_1",
            "head_global_average_pooling2d_1",
            "logits",
        ]
        assert model(rng.integers(0, 256, (2, 33, 33, 1)), training=False).shape == (2, 4)
        assert {stride: tap.shape[-1] for stride, tap in backbone("keras_newnet").output.items()} == {
            "1": 3,
            "2": 8,
            "4": 8,
        }
        assert applications.original("keras_newnet")["batch_normalization_1"] == "stem_rest/batch_normalization_1"
        assert applications.original("keras_newnet")["logits"] == "predictions"
    finally:
        SPECS.pop("keras_newnet", None)
