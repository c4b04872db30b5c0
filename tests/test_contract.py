"""The one contract that every row of the registry keeps. No row can opt out; a known gap is an entry of KNOWN_GAPS and must fail.

The fast tier builds every row and runs the smallest row of each family for real; `-m slow` runs all of them.
"""

import functools
import math
import re

import keras
import numpy as np
import pytest
from keras import ops

import cnn_zoo
from cnn_zoo import SPECS, backbone, build, list_models

ROWS = 114  # the registry only grows; the adapters are those of the installed Keras
ADAPTERS = 35
KNOWN_GAPS: dict[tuple[str, str], str] = {}  # (test, net) -> reason

SMALLEST = {}
for _spec in sorted(SPECS.values(), key=lambda spec: spec.params or math.inf):
    SMALLEST.setdefault(_spec.family, _spec.name)


def rows(test):
    """Parametrise over all rows, those with a known gap as strict expected failures; adapters are built in the slow tier."""
    adapters = set(list_models(family="applications")) - {SMALLEST["applications"]}
    return pytest.mark.parametrize("name", [_param(test, name, slow=name in adapters) for name in list_models()])


def real_rows(test):
    """The same, with all but the smallest row of each family in the slow tier, and of the adapters one of each module of Keras."""
    smallest = set(SMALLEST.values())
    modules = {}
    for name in sorted(list_models(family="applications"), key=lambda name: SPECS[name].params or math.inf):
        modules.setdefault(getattr(keras.applications, SPECS[name].row.constructor).__module__, name)
    names = [name for name in list_models() if SPECS[name].family != "applications" or name in modules.values()]
    return pytest.mark.parametrize("name", [_param(test, name, slow=name not in smallest) for name in names])


def _param(test, name, slow):
    marks = [pytest.mark.slow] if slow else []
    if (test, name) in KNOWN_GAPS:
        marks.append(pytest.mark.xfail(strict=True, reason=KNOWN_GAPS[test, name]))
    return pytest.param(name, marks=marks)


@functools.cache
def small_size(name):
    """An odd side, as small as the net can take, so that real runs are quick."""
    for side in (33, 65, 97, 129):
        try:
            build(name, classes=3, input_size=side)
            return side
        except cnn_zoo.InputError:
            continue
    return SPECS[name].size[0]


def image(side, channels, batch=2):
    return np.random.default_rng(1).integers(0, 256, (batch, side, side, channels)).astype("uint8")


def randomise(model):
    """Weights that are a function of nothing but path and shape, with BatchNorm statistics far from their start."""
    for variable in model.weights:
        seed = sum(map(ord, variable.path)) + math.prod(variable.shape)
        values = np.random.default_rng(seed).normal(0, 1, variable.shape) * np.sqrt(
            1 / max(1, math.prod(variable.shape[:-1]))
        )
        if "variance" in variable.path or "gamma" in variable.path:
            values = 1 + np.abs(values)
        variable.assign(values.astype("float32"))


def test_the_registry_only_grows():
    adapters = list_models(family="applications")
    assert len(SPECS) - len(adapters) >= ROWS and len(adapters) >= ADAPTERS
    assert all(name in SPECS for _, name in KNOWN_GAPS)


@pytest.fixture
def zeros(monkeypatch):
    """Nets whose numbers do not matter are filled with zeros: to draw 100 million random ones takes seconds."""
    for kind in ("VarianceScaling", "RandomNormal", "RandomUniform", "TruncatedNormal"):
        initializer = getattr(keras.initializers, kind)
        monkeypatch.setattr(initializer, "__call__", lambda self, shape, dtype=None, **_: ops.zeros(shape, dtype))


@rows("params")
def test_trainable_parameters_are_exactly_those_published(name, zeros):
    spec = SPECS[name]
    model = build(name)
    counted = sum(math.prod(v.shape) for v in model.trainable_variables)
    assert counted == spec.params or spec.params is None and spec.family == "applications"
    assert spec.source and spec.paper
    assert model.input_shape == (None, *spec.size, spec.channels)
    assert model.output_shape == (None, spec.classes)
    assert model.layers[1].name == "preprocess"
    assert [layer.name for layer in model.layers if "/" in layer.name] == []


@rows("taps")
def test_taps_lie_at_their_strides(name, zeros):
    taps = backbone(name)
    strides = [int(stride) for stride in taps.output]
    assert strides == sorted(strides) and strides[0] >= 1
    step = max(strides)
    side = max(SPECS[name].size) // step * step
    small = taps.compute_output_shape((1, side, side, SPECS[name].channels))
    large = taps.compute_output_shape((1, side + step, side + 2 * step, SPECS[name].channels))
    for stride in (
        strides
    ):  # a shift of one stride in the input is a shift of one pixel in the tap: true with and without padding
        a, b = small[str(stride)], large[str(stride)]
        assert (b[1] - a[1], b[2] - a[2]) == (step // stride, 2 * step // stride)


@real_rows("static")
def test_static_size_gives_the_same_bits_as_dynamic(name):
    side, channels = small_size(name), SPECS[name].channels
    dynamic, static = backbone(name), backbone(name, input_size=side)
    randomise(dynamic)
    static.set_weights(dynamic.get_weights())
    x = image(side, channels)
    for stride, tensor in static(x, training=False).items():
        np.testing.assert_array_equal(tensor, dynamic(x, training=False)[stride])


@real_rows("channels")
def test_any_number_of_channels(name, zeros):
    side = small_size(name)
    for channels in (1, 2, 13):
        model = build(name, classes=3, input_size=side, channels=channels)
        assert model.compute_output_shape((2, side, side, channels)) == (2, 3)
    y = build(name, classes=3, input_size=side, channels=4)(image(side, 4), training=False)
    assert y.shape == (2, 3)
    np.testing.assert_allclose(ops.sum(y, axis=-1), 1, atol=1e-5)


@real_rows("gradients")
def test_every_trainable_variable_gets_a_finite_gradient(name):
    import tensorflow as tf

    side = small_size(name)
    model = build(name, classes=3, input_size=side, activation=None)
    with tf.GradientTape() as tape:
        logits = model(image(side, SPECS[name].channels), training=True)
        loss = ops.mean(keras.losses.sparse_categorical_crossentropy(np.array([0, 2]), logits, from_logits=True))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, f"no gradient reaches {variable.path}"
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), variable.path


@real_rows("mixed")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_input_and_output_in_float32(name, policy):
    keras.config.set_dtype_policy(policy)
    side = small_size(name)
    model = build(name, classes=3, input_size=side)
    assert model.get_layer("preprocess").compute_dtype == "float32"
    y = model(image(side, SPECS[name].channels), training=False)
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    assert keras.backend.standardize_dtype(model.get_layer("logits").compute_dtype) == "float32"
    low = policy.removeprefix("mixed_")
    assert any(layer.compute_dtype == low for layer in model.layers)
    assert np.isfinite(y).all()


@real_rows("round_trip")
def test_a_saved_model_loads_without_custom_objects_and_gives_the_same_bits(name, tmp_path):
    side = small_size(name)
    model = build(name, classes=3, input_size=side)
    randomise(model)
    model.save(tmp_path / "model.keras")
    x = image(side, SPECS[name].channels)
    np.testing.assert_array_equal(
        keras.saving.load_model(tmp_path / "model.keras")(x, training=False), model(x, training=False)
    )


@real_rows("frozen")
def test_a_frozen_trunk_does_not_move_not_even_its_statistics(name):
    side = small_size(name)
    model = build(name, classes=3, input_size=side)
    trunk = [layer for layer in model.layers if not layer.name.startswith(("head", "logits", "predictions"))]
    for layer in trunk:
        layer.trainable = False
    before = [[np.array(w) for w in layer.get_weights()] for layer in trunk]
    head = [np.array(v) for v in model.trainable_variables]
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(image(side, SPECS[name].channels), np.array([0, 2]), verbose=0)
    for layer, old in zip(trunk, before, strict=True):
        for a, b in zip(old, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=layer.name)
    assert not head or any(not np.array_equal(a, v) for a, v in zip(head, model.trainable_variables, strict=True))


@rows("records")
def test_weights_records_are_complete_claims(name):
    for record in (record for (net, _), record in cnn_zoo.WEIGHTS.items() if net == name):
        assert re.fullmatch(r"sha256:[0-9a-f]{8,64}|sha1:[0-9a-f]{40}|md5:[0-9a-f]{32}|hf|gcs", record.hash)
        assert record.bytes is None or record.bytes > 0
        assert record.licence and record.dataset and record.source and record.classes
        assert (record.value is None) == (record.measured_by is None) == (record.metric is None)
        assert record.urls or record.file
