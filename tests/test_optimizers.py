"""LayerWise: what it does equals one optimizer a stage, on every backend, compiled and in mixed precision."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import REPOSITORY
from keras import layers as L

from cnn_zoo import InputError, Recipe
from cnn_zoo.freezing import stages
from cnn_zoo.optimizers import LayerWise

RATES = {"stem": 0.1, "stages": 0.3, "stage2": 0.5, "head": 1}
MULTIPLES = {"stem": 0.1, "stage1": 0.3, "stage2": 0.5, "head": 1}


def small_model():
    """A stem and stages 1 and 2 of one convolution each, and a head, all of them linear."""
    inputs = x = keras.Input((16, 16, 2))
    for name in ("stem", "one", "two"):
        x = (
            L.MaxPooling2D(2)(L.Conv2D(3, 3, padding="same", name=name)(x))
            if name == "stem"
            else L.Conv2D(3, 3, 2, padding="same", name=name)(x)
        )
    return keras.Model(inputs, L.Dense(2, name="logits")(L.GlobalAveragePooling2D()(x)))


def gradients(model, rng, steps):
    return [[rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables] for _ in range(steps)]


def stepped(model, optimizer, all_grads, start):
    """The weights after some steps from `start`."""
    for variable, value in zip(model.trainable_variables, start):
        variable.assign(value)
    optimizer.build(model.trainable_variables)
    for grads in all_grads:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads], model.trainable_variables)
    return [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]


def schedule(scale=1.0):
    return keras.optimizers.schedules.CosineDecay(0.1 * scale, 8)


OPTIMIZERS = {
    "sgd": lambda scale, decay: keras.optimizers.SGD(
        0.1 * scale, momentum=0.9, nesterov=True, weight_decay=0.2 * decay
    ),
    "adam": lambda scale, decay: keras.optimizers.Adam(schedule(scale)),
    "adamw": lambda scale, decay: keras.optimizers.AdamW(schedule(scale), weight_decay=0.2 * decay, clipnorm=1.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_updates_are_those_of_one_optimizer_a_stage(name, rng):
    model, make = small_model(), OPTIMIZERS[name]
    start, grads = [np.asarray(v) for v in model.trainable_variables], gradients(model, rng, 6)
    decays = {"stem": 0.0, "stage1": 1, "stage2": 1, "head": 2.0}
    found = stepped(model, LayerWise(make(1, 1), RATES, {"stem": 0, "head": 2}, model), grads, start)
    names = [v.path for v in model.trainable_variables]
    for stage, layers in stages(model).items():
        own = make(MULTIPLES[stage], decays[stage])
        places = [names.index(v.path) for layer in layers for v in layer.trainable_variables]
        variables = [model.trainable_variables[i] for i in places]
        for i in places:
            model.trainable_variables[i].assign(start[i])
        own.build(variables)
        for step in grads:
            own.apply([keras.ops.convert_to_tensor(step[i]) for i in places], variables)
        for i in places:
            expected = np.asarray(model.trainable_variables[i])
            assert np.abs(expected - start[i]).max() > 1e-3
            np.testing.assert_allclose(found[i], expected, rtol=2e-5, atol=2e-7)


def test_the_global_norm_and_accumulation_and_averages_see_all_stages(rng):
    """With all multiples 1 the wrapper is the optimizer, whatever it does with all gradients at once."""
    model = small_model()
    start, grads = [np.asarray(v) for v in model.trainable_variables], gradients(model, rng, 6)
    for settings in (
        {"global_clipnorm": 0.5},
        {"gradient_accumulation_steps": 2},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
        {"clipvalue": 0.1, "loss_scale_factor": 8.0},
    ):
        make = lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1, **settings)  # noqa: B023, E731
        wrapped, plain = LayerWise(make(), {}, None, model), make()
        results = []
        for optimizer in (wrapped, plain):
            stepped(model, optimizer, grads, start)
            optimizer.finalize_variable_values(model.trainable_variables)
            results.append([np.asarray(v) for v in model.trainable_variables])
        for ours, theirs in zip(*results):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_rate_of_0_keeps_the_bits_and_the_rate_can_be_set(rng):
    model = small_model()
    optimizer = LayerWise(keras.optimizers.AdamW(0.1, weight_decay=0.1), {"stem": 0, "head": 1}, None, model)
    start = [np.asarray(v) for v in model.trainable_variables]
    ends = stepped(model, optimizer, gradients(model, rng, 2), start)
    assert [np.array_equal(a, b) for a, b in zip(start, ends)] == [True, True, False, False, False, False, False, False]
    optimizer.learning_rate = 0.025
    assert float(optimizer.learning_rate) == pytest.approx(0.025)
    assert optimizer.get_config()["optimizer"]["config"]["learning_rate"] == pytest.approx(0.025)


def test_a_saved_model_goes_on_as_if_it_had_never_been_saved(tmp_path, rng):
    images, labels = rng.normal(size=(32, 16, 16, 2)).astype("float32"), np.arange(32) % 2
    model = small_model()
    model.compile(
        LayerWise(keras.optimizers.AdamW(schedule(), weight_decay=0.1, global_clipnorm=1.0), RATES, {"head": 0}, model),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(images, labels, batch_size=16, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    other = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(other.optimizer, LayerWise) and int(other.optimizer.iterations) == 2
    for one in (model, other):
        one.fit(images, labels, batch_size=16, verbose=0, shuffle=False)
    for a, b in zip((*model.variables, *model.optimizer.variables), (*other.variables, *other.optimizer.variables)):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


SCRIPT = """
import numpy as np, keras, cnn_zoo
from keras import layers as L
from cnn_zoo.optimizers import LayerWise
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
images, labels = rng.normal(size=(32, 16, 16, 2)).astype("float32"), np.arange(32) % 2

def train(policy, jit, wrap, rates):
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((16, 16, 2))
    x = L.MaxPooling2D(2)(L.Conv2D(3, 3, padding="same")(x))
    x = L.GlobalAveragePooling2D()(L.Conv2D(3, 3, 2, padding="same")(x))
    model = keras.Model(inputs, L.Dense(2, dtype="float32")(x))
    start = [np.asarray(keras.ops.convert_to_numpy(v)) for v in model.trainable_variables]
    optimizer = keras.optimizers.AdamW(0.05, weight_decay=0.1, global_clipnorm=1.0)
    optimizer = LayerWise(optimizer, rates, None, model) if wrap else optimizer
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=jit)
    model.fit(images, labels, batch_size=8, epochs=3, shuffle=False, verbose=0)
    name = type(model.optimizer).__name__
    assert name == {"mixed_float16": "LossScaleOptimizer"}.get(policy, "LayerWise" if wrap else "AdamW"), name
    return start, [np.asarray(keras.ops.convert_to_numpy(v)) for v in model.trainable_variables]

for policy in POLICIES:
    for jit in JITS:
        _, plain = train(policy, jit, False, {})
        _, wrapped = train(policy, jit, True, {})
        for a, b in zip(plain, wrapped):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 if policy == "float32" else 1e-2)
        start, end = train(policy, jit, True, {"stem": 0, "stages": 0.1, "head": 1})
        moved = [float(np.abs(a - b).max()) for a, b in zip(start, end)]
        assert moved[0] == 0 == moved[1], moved
        assert 0 < moved[2] < moved[4] / 2, moved
print("done", keras.backend.backend())
"""


@pytest.mark.parametrize(
    ("backend", "policies", "jits"),
    [
        ("tensorflow", ("mixed_float16",), (True,)),
        pytest.param("tensorflow", ("float32", "mixed_bfloat16"), (True, False), marks=pytest.mark.slow),
        pytest.param("jax", ("float32", "mixed_bfloat16", "mixed_float16"), (True,), marks=pytest.mark.slow),
        pytest.param("torch", ("float32", "mixed_bfloat16", "mixed_float16"), (False,), marks=pytest.mark.slow),
    ],
)
def test_every_backend_compiled_and_in_mixed_precision(backend, policies, jits):
    pytest.importorskip(backend, reason=f"needs {backend}")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT.replace("JITS", repr(jits)).replace("POLICIES", repr(policies))],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["done", backend]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: LayerWise("adam", {"stage7": 1}, None, m), "no stage 'stage7'; did you mean 'stage[12]'.*it has: stem, stage1, stage2, head"),
        (lambda m: LayerWise("adam", {"trunk": 1}, None, m), "rates know no stage 'trunk'"),
        (lambda m: LayerWise("adam", {"head": -1}, None, m), "rates of 'head' must be a finite number of at least 0, not -1"),
        (lambda m: LayerWise("adam", {}, {"head": True}, m), "decay of 'head' must be"),
        (lambda m: LayerWise("adam", 0.1, None, m), "rates are multiples by stage"),
        (lambda m: LayerWise(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), {}, None, m), "it goes around LayerWise"),
        (lambda m: LayerWise(keras.optimizers.Adam(use_ema=True), {"stem": 0}, None, m), "freeze the stage"),
        (lambda m: LayerWise("adam", {}, None, m).exclude_from_weight_decay(var_names=["bias"]), "decays by stages"),
        (lambda m: LayerWise("adam", {"other/kernel": 1}).build(m.trainable_variables), "made for another model"),
        (lambda m: Recipe(rates={"head": -1}), "rates of 'head' must be"),
        (lambda m: Recipe(rates={}, decays={"tail": 1}), "decays know no stage 'tail'"),
        (lambda m: Recipe(decays={"head": 0}), "decays of a recipe must be None without weight_decay"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make(small_model())


def test_exclusions_from_weight_decay_are_not_lost_without_a_word():
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(InputError, match="decays by stages"):
        LayerWise(optimizer, {})


def test_a_recipe_with_rates_makes_such_an_optimizer_and_is_plain_values():
    model = small_model()
    recipe = Recipe(optimizer="adamw", weight_decay=0.1, rates=RATES, decays={"head": 0.5})
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    optimizer = recipe.make_optimizer(10, model)
    assert isinstance(optimizer, LayerWise)
    assert optimizer.rates["two/kernel"] == 0.5 and optimizer.decays["logits/kernel"] == 0.5
    with pytest.raises(InputError, match="no stage 'stage9'"):
        recipe.replace(rates={"stage9": 1}).make_optimizer(10, model)
