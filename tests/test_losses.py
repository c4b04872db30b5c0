"""Losses against twins in NumPy and scikit-learn, at the edges, by finite differences, and on other backends."""

import json
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from sklearn.metrics import f1_score, jaccard_score, log_loss

from cnn_zoo.errors import InputError
from cnn_zoo.losses import (
    CrossEntropy,
    Dice,
    Focal,
    FocalTversky,
    Jaccard,
    Lovasz,
    Tversky,
    WeightedSum,
    boundary_weights,
)

ALL = [CrossEntropy, Focal, Dice, Jaccard, Tversky, FocalTversky, Lovasz]
OF_PIXELS, OF_CLASSES = ALL[:2], ALL[2:]
CLASSES = 4


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(autouse=True)
def clean():
    """In place of conftest's: its clear_session collects garbage for half a second, and here are many tests and few models."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def ids(rng):
    return rng.integers(0, CLASSES, (3, 6, 5))


@pytest.fixture
def logits(rng):
    return rng.normal(size=(3, 6, 5, CLASSES)).astype("float32") * 2


# ---------------------------------------------------------------- twins: one class, one list of pixels at a time


def lovasz_twin(errors, truth, weight):
    """The Lovasz extension by its integral: of the Jaccard loss of the set {error >= level}, over all levels above 0."""
    total = 0.0
    levels = np.unique(np.concatenate([[0.0], errors[errors > 0]]))
    for low, high in zip(levels[:-1], levels[1:]):
        wrong = errors >= high
        union = (weight * (truth | wrong)).sum()
        total += (high - low) * ((weight * wrong).sum() / union if union else 0.0)
    return total


def class_twin(loss, t, p, w):
    if isinstance(loss, Lovasz):
        errors = 1 - np.log(p / (1 - p)) * (2 * t - 1) if loss.hinge else np.abs(t - p)
        return lovasz_twin(errors, t > 0.5, w)
    alpha, beta, hits = {Dice: (1, 1, 2), Jaccard: (1, 1, 1)}.get(type(loss), (loss.alpha, loss.beta, 1))
    top = hits * (w * t * p).sum() + loss.smooth
    value = 1 - top / (top + alpha * (w * (1 - t) * p).sum() + beta * (w * t * (1 - p)).sum())
    return value ** (1 / loss.gamma) if isinstance(loss, FocalTversky) else value


def twin(loss, truth, p, w, exclusive=True, class_weight=None, absent="skip"):
    """Of pixels `(n, classes)`: soft or one-hot truth, probabilities and weights `(n,)`."""
    n, classes = truth.shape
    if isinstance(loss, tuple(OF_PIXELS)):
        gamma = getattr(loss, "gamma", 0)
        top = bottom = 0.0
        for i in range(n):
            for c in range(classes):
                for t, q, side in ((truth[i, c], p[i, c], 1), (1 - truth[i, c], 1 - p[i, c], 0)):
                    if exclusive and side == 0:
                        continue
                    v = 1 if class_weight is None else class_weight[side if classes == 1 else c]
                    top += w[i] * v * t * (1 - q) ** gamma * -np.log(q)
                    bottom += w[i] * v * t
        return top / bottom if bottom else 0.0
    values, weights = [], []
    for c in range(classes):
        if (w * truth[:, c]).sum() > 0 or (absent == "count" and w.sum() > 0):
            values.append(class_twin(loss, truth[:, c], p[:, c], w))
            weights.append(1 if class_weight is None else class_weight[c])
    return np.average(values, weights=weights) if np.sum(weights) > 0 else 0.0


def flat(x):
    return x.reshape(-1, x.shape[-1]).astype("float64")


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("class_weight", [None, (1.0, 3.0, 0.0, 2.0)])
def test_softmax_against_the_twin(make, per_image, class_weight, ids, logits, rng):
    """Ids, one-hot, logits, probabilities, ignored ids and weights of pixels: one number."""
    ids[ids == 2] = 1  # class 2 is absent
    mask = ids.copy()
    mask[0, 0], mask[1, :, 0] = 255, -1
    weight = rng.random(ids.shape)
    settings = dict(ignore=(255, -1), per_image=per_image, class_weight=class_weight)
    one_hot = np.eye(CLASSES)[ids] * ((mask >= 0) & (mask < 255))[..., None]
    p = softmax(logits.astype("float64"))
    counted = weight * (mask == ids)
    groups = range(3) if per_image else [slice(None)]
    expected = np.mean([
        twin(make(), flat(one_hot[g]), flat(p[g]), counted[g].ravel(), class_weight=class_weight) for g in groups
    ])  # fmt: skip
    for truth in (mask, mask[..., None].astype("int16"), one_hot, mask.astype("float32")):
        found = float(make(from_logits=True, **settings)(truth, logits, weight))
        assert found == pytest.approx(expected, rel=2e-5)
    found = float(make(**settings)(mask, p.astype("float32"), weight[..., None]))
    assert found == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("loss", [make() for make in ALL] + [Lovasz(hinge=True)], ids=lambda x: x.name)
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("absent", ["skip", "count"])
def test_sigmoid_against_the_twin(loss, classes, absent, rng):
    """One channel, and several labels a pixel, some with a value that is ignored."""
    truth = rng.integers(0, 2, (2, 5, 4, classes)).astype("float64")
    truth[..., -1] = 0  # an absent label
    logits = rng.normal(size=truth.shape).astype("float32") * 2
    p = sigmoid(logits.astype("float64"))
    settings = {"multi_label": True, **({} if isinstance(loss, tuple(OF_PIXELS)) else {"absent": absent})}
    extra = {"hinge": True} if getattr(loss, "hinge", False) else {}
    expected = twin(loss, flat(truth), flat(p), np.ones(40), exclusive=False, absent=absent)
    make = type(loss)
    assert float(make(from_logits=True, **settings, **extra)(truth, logits)) == pytest.approx(expected, rel=2e-5)
    assert float(make(**settings, **extra)(truth.astype(bool), p.astype("float32"))) == pytest.approx(
        expected, rel=2e-5
    )
    marked = np.concatenate([truth, np.full((1, 5, 4, classes), 255)])
    found = make(from_logits=True, ignore=255, **settings, **extra)(marked, np.concatenate([logits, logits[:1]]))
    assert float(found) == pytest.approx(expected, rel=2e-5)


def test_cross_entropy_is_scikit_learns(ids, logits):
    p, weight = softmax(logits.astype("float64")), np.array([1.0, 2.0, 0.5, 4.0])
    expected = log_loss(ids.ravel(), flat(p), sample_weight=weight[ids.ravel()])
    assert float(CrossEntropy(from_logits=True, class_weight=weight)(ids, logits)) == pytest.approx(expected, rel=1e-6)
    foreground = (ids == 1).astype(int)
    expected = log_loss(foreground.ravel(), p[..., 1].ravel(), sample_weight=np.array([1, 5])[foreground.ravel()])
    found = CrossEntropy(class_weight=(1, 5))(foreground, p[..., 1:2].astype("float32"))
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("make, score", [(Dice, f1_score), (Jaccard, jaccard_score), (Lovasz, jaccard_score)])
def test_of_hard_predictions_they_are_1_minus_scikit_learns_score(make, score, ids, logits):
    guess = logits.argmax(-1)
    expected = 1 - score(ids.ravel(), guess.ravel(), average="macro")
    assert float(make()(ids, np.eye(CLASSES)[guess])) == pytest.approx(expected, rel=1e-6)


def test_families_meet_where_their_settings_do(ids, logits):
    def value(loss):
        return float(loss(ids, logits))

    logit = dict(from_logits=True)
    assert value(Focal(0, **logit)) == value(CrossEntropy(**logit))
    assert value(Tversky(0.5, 0.5, **logit)) == pytest.approx(value(Dice(**logit)), rel=1e-6)
    assert value(Tversky(1, 1, smooth=3, **logit)) == pytest.approx(value(Jaccard(smooth=3, **logit)), rel=1e-6)
    assert value(FocalTversky(gamma=1, **logit)) == pytest.approx(value(Tversky(**logit)), rel=1e-6)
    single = ids[..., None] == 1
    two = np.concatenate([~single, single], -1)
    x = np.concatenate([np.zeros_like(logits[..., :1]), logits[..., :1]], -1)
    assert float(CrossEntropy(**logit)(single, logits[..., :1])) == pytest.approx(float(CrossEntropy(**logit)(two, x)))


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("make", ALL)
def test_weights_are_averaged_over(make, ids, logits):
    """Ten times the weights is the same loss, from 0 to what the worst class has, and never below 0."""
    weight = np.array([0.1, 5, 2, 7])
    values = [float(make(from_logits=True, class_weight=f * weight)(ids, logits)) for f in (1, 10)]
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    each = [float(make(from_logits=True, class_weight=np.eye(CLASSES)[c])(ids, logits)) for c in range(CLASSES)]
    assert 0 <= min(each) <= values[0] <= max(each)
    same = [float(make(from_logits=True)(ids, logits, np.full(3, f))) for f in (0.3, 1, 30)]
    np.testing.assert_allclose(same, same[1], rtol=1e-5)
    right = np.eye(CLASSES, dtype="float32")[ids]
    assert 0 <= float(make(class_weight=weight)(ids, right)) < 1e-6


@pytest.mark.parametrize("make", ALL)
def test_weights_of_images(make, ids, logits):
    """Weight 0 leaves an image out; per image, weights are those of a weighted mean."""
    loss = make(from_logits=True)
    for zero in (np.array([1, 1, 0.0]), np.array([[1], [1], [0.0]])):
        assert float(loss(ids, logits, zero)) == pytest.approx(float(loss(ids[:2], logits[:2])), rel=1e-5)
    each = [float(loss(ids[i : i + 1], logits[i : i + 1])) for i in range(3)]
    found = float(make(from_logits=True, per_image=True)(ids, logits, np.array([1.0, 2.0, 5.0])))
    assert found == pytest.approx(np.average(each, weights=[1, 2, 5]), rel=1e-5)


def test_an_ignored_class_takes_no_part(ids, logits):
    """Id 3 has a channel: its pixels do not count, and neither does its term in the mean over classes."""
    for make in OF_CLASSES:
        p = softmax(logits)
        found = float(make(ignore=3, absent="count")(ids, p))
        expected = twin(make(), flat(np.eye(CLASSES)[ids])[:, :3], flat(p)[:, :3], (ids != 3).ravel().astype(float))
        assert found == pytest.approx(expected, rel=2e-5)
        assert float(make(ignore=3, absent="count")(np.eye(CLASSES)[ids], p)) == pytest.approx(found, rel=1e-6)


# ---------------------------------------------------------------- edges


def gradient(loss, truth, x, weight=None):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(truth, x, weight)
    return float(value), tape.gradient(value, x).numpy()


@pytest.mark.parametrize("make", ALL)
def test_nothing_to_count_is_0(make, ids, logits):
    for loss in (
        make(from_logits=True, ignore=range(CLASSES)),
        make(from_logits=True, ignore=[0, 1, 2, 3], per_image=True),
    ):
        value, slope = gradient(loss, ids, logits)
        assert value == 0 and not slope.any()
    assert float(make(from_logits=True)(ids[:0], logits[:0])) == 0
    assert float(make(from_logits=True, per_image=True)(ids[:0], logits[:0])) == 0
    value, slope = gradient(make(from_logits=True), ids, logits, np.zeros(3))
    assert value == 0 and not slope.any()


def test_absent_foreground():
    """One channel and an empty mask: skipped, or counted with what `smooth` makes of it."""
    mask, p = np.zeros((1, 4, 4), int), np.full((1, 4, 4, 1), 0.25, "float32")
    assert float(Dice()(mask, p)) == 0
    assert float(Dice(absent="count")(mask, p)) == 1
    assert float(Dice(absent="count")(mask, 0 * p)) == 0
    assert float(Dice(absent="count", smooth=4)(mask, p)) == pytest.approx(1 - 4 / (4 + 4))
    assert float(Lovasz(absent="count")(mask, p)) == 0.25
    assert float(CrossEntropy()(mask, p)) == pytest.approx(-np.log(0.75))


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("scale", [1e4, 6e4])
def test_huge_logits_of_half_precision(make, scale, rng):
    """Right and sure: 0. Wrong and sure: finite, with finite gradients. In float16, whose sums would overflow at 65,504."""
    ids = rng.integers(0, 2, (1, 300, 300))
    right = np.where(np.eye(2)[ids] > 0, scale, -scale).astype("float16")
    for truth, x in ((ids, right), (ids, right[..., 1:])):
        value, slope = gradient(make(from_logits=True), truth, x)
        assert 0 <= value < 1e-6 and np.isfinite(slope).all()
        value, slope = gradient(make(from_logits=True), 1 - truth, x)
        assert 0.9 < value < 4 * scale and np.isfinite(value) and np.isfinite(slope).all()
    p = (right > 0).astype("float16")
    value, slope = gradient(make(), 1 - ids, p)
    assert 0.9 < value < 20 and np.isfinite(slope).all()


@pytest.mark.parametrize("make", ALL)
def test_computed_in_float32(make, ids, logits):
    half = logits.astype("float16")
    expected = float(make(from_logits=True)(ids, half.astype("float32")))
    value = make(from_logits=True)(ids, half)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_lovasz_of_equal_errors_does_not_depend_on_their_order(rng):
    truth, p = rng.integers(0, 2, (1, 20, 20)), rng.choice([0.25, 0.5, 0.75], (1, 20, 20, 1))
    order = rng.permutation(400)
    values = [Lovasz()(truth.reshape(-1)[o].reshape(1, 20, 20), p.reshape(-1)[o].reshape(1, 20, 20, 1)) for o in (order, range(400))]  # fmt: skip  # noqa: E501
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-5)
    expected = lovasz_twin(np.abs(truth - p[..., 0]).ravel(), truth.ravel() == 1, np.ones(400))
    assert float(values[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [make for make in ALL] + ["hinge"])
@pytest.mark.parametrize("per_image", [False, True])
def test_gradients_by_finite_differences(loss, per_image, rng):
    """In float64, all entries; at 1e-6 of the gradient's size."""
    settings = dict(from_logits=True, dtype="float64", ignore=7, per_image=per_image)
    classes = 1 if loss == "hinge" else 3
    loss = Lovasz(hinge=True, **settings) if loss == "hinge" else loss(**settings)
    truth = rng.integers(0, max(classes, 2), (2, 3, 2))
    truth[0, 0] = 7
    x, weight = rng.normal(size=(2, 3, 2, classes)), rng.random((2, 3, 2))
    _, slope = gradient(loss, truth, x, weight)
    expected = np.zeros_like(x)
    step = 1e-6
    for place in np.ndindex(x.shape):
        high, low = x.copy(), x.copy()
        high[place] += step
        low[place] -= step
        expected[place] = (float(loss(truth, high, weight)) - float(loss(truth, low, weight))) / (2 * step)
    assert np.abs(slope).max() > 1e-3
    np.testing.assert_allclose(slope, expected, atol=1e-6 * max(1, np.abs(slope).max()))
    assert not slope[0, 0].any(), "ignored pixels have no gradient"


@pytest.mark.parametrize("make", ALL)
def test_gradients_are_finite_where_powers_and_logarithms_are_not(make):
    truth, p = np.array([[[0, 1], [1, 0]]]), np.array([[[[1, 0], [0, 1]], [[1, 0], [1, 0]]]], "float32")
    for loss in (make(), make(per_image=True), *([Focal(0.5)] if make is Focal else [])):
        for mask in (truth, p[..., 1].astype(int)):
            value, slope = gradient(loss, mask, p)
            assert np.isfinite(value) and np.isfinite(slope).all()


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("bad", [255, -1, 1.5])
def test_ids_without_a_class(make, bad, ids, logits):
    """NumPy: an error. In a graph: NaN, and no gradient, so that the weights of the model stay."""
    mask = ids.astype("float32")
    mask[0, 0, 0] = bad
    with pytest.raises(InputError, match=f"these hold {bad}; .*ignore"):
        make(from_logits=True)(mask, logits)
    value, slope = gradient(make(from_logits=True), tf.constant(mask), logits)
    assert np.isnan(value) and not slope.any()
    assert np.isfinite(float(make(from_logits=True, ignore=255)(np.where(mask == bad, 255, mask), logits)))


def test_masks_of_0_and_255(logits):
    mask = np.full((3, 6, 5), 255, "uint8")
    with pytest.raises(InputError, match="1 channel.*from 0 to 1, and these hold 255"):
        Dice(from_logits=True)(mask, logits[..., :1])
    assert np.isnan(float(Dice(from_logits=True)(tf.constant(mask), logits[..., :1])))


def test_logits_taken_for_probabilities(ids, logits):
    with pytest.raises(InputError, match="from_logits=True"):
        CrossEntropy()(ids, logits)
    assert np.isnan(float(CrossEntropy()(ids, tf.constant(logits))))


def test_one_hot_of_several_labels(logits):
    with pytest.raises(InputError, match="multi_label=True"):
        CrossEntropy(from_logits=True)(np.ones(logits.shape), logits)
    assert np.isnan(float(CrossEntropy(from_logits=True)(tf.ones(logits.shape), logits)))
    with pytest.raises(InputError, match="one-hot values from 0 to 1"):
        CrossEntropy(from_logits=True)(np.full(logits.shape, 255), logits)


@pytest.mark.parametrize(
    "truth, prediction, message",
    [
        ((2, 8, 8), (2, 8, 8), r"predictions must be \(batch, height, width, classes\)"),
        ((2, 8), (2, 8, 8, 3), "masks must be ids"),
        ((2, 8, 8, 2), (2, 8, 8, 3), r"one-hot \(batch, height, width, 3\)"),
        ((2, 8, 8), (2, 6, 8, 3), "resize or crop the masks"),
        ((3, 8, 8), (2, 8, 8, 3), "differ in number or size"),
    ],
)
def test_shapes(truth, prediction, message):
    with pytest.raises(InputError, match=message):
        CrossEntropy()(np.zeros(truth, int), np.full(prediction, 0.3, "float32"))


@pytest.mark.parametrize("shape", [(2, 8, 7), (3,), (2, 8), (2, 8, 8, 2)])
def test_shapes_of_sample_weights(shape):
    with pytest.raises(InputError, match="sample_weight"):
        CrossEntropy()(np.zeros((2, 8, 8), int), np.full((2, 8, 8, 3), 0.3, "float32"), np.ones(shape))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CrossEntropy(class_weight=(1, -1)), "class_weight"),
        (lambda: CrossEntropy(class_weight=(0, 0)), "above 0"),
        (lambda: Focal(-1), "gamma"),
        (lambda: Dice(smooth=-1), "smooth"),
        (lambda: Tversky(0, 0), "alpha"),
        (lambda: FocalTversky(gamma=0), "gamma"),
        (lambda: Jaccard(absent="one"), "'skip' or 'count'"),
        (lambda: -1 * Dice(), "at least 0"),
        (lambda: WeightedSum([Dice()], [1, 2]), "as many weights"),
        (lambda: Dice(class_weight=(1, 2))(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2, 1))), "one class"),
        (lambda: Dice(class_weight=(1, 2))(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2, 3))), "3 are needed"),
        (lambda: CrossEntropy(class_weight=[1])(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2, 1))), "2 are needed"),
        (lambda: Lovasz(hinge=True)(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2, 3))), "hinge"),
    ],
)
def test_settings_that_do_not_fit(make, message):
    with pytest.raises(InputError, match=message):
        make()


# ---------------------------------------------------------------- sums, models


def test_sums_and_products(ids, logits):
    a, b, c = (
        CrossEntropy(from_logits=True),
        Dice(from_logits=True),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    one_hot = np.eye(CLASSES, dtype="float32")[ids]
    x, y, z = (float(loss(one_hot, logits)) for loss in (a, b, c))
    for total, expected in [
        (a + 0.5 * b, x + 0.5 * y),
        (2 * (a + b * 3) + b, 2 * x + 7 * y),
        (sum([a, b]), x + y),
        (c + a, z + x),
        (a + c, x + z),
        (0.5 * a + np.float32(2) * b, 0.5 * x + 2 * y),
    ]:
        assert float(total(one_hot, logits)) == pytest.approx(expected, rel=1e-6)
        again = keras.losses.deserialize(keras.losses.serialize(total))
        assert float(again(one_hot, logits)) == pytest.approx(expected, rel=1e-6)
    for wrong in (lambda: a + 1, lambda: 1 + a, lambda: a * b, lambda: a * "2"):
        with pytest.raises(TypeError):
            wrong()


SETTINGS = dict(
    from_logits=True, multi_label=True, ignore=(3, 255), class_weight=(1.0, 2.0), per_image=True, name="mine"
)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(**SETTINGS),
        Focal(1.5, **SETTINGS),
        Dice(2.0, absent="count", **SETTINGS),
        Jaccard(2.0, absent="count", **SETTINGS),
        Tversky(0.2, 0.9, 2.0, absent="count", **SETTINGS),
        FocalTversky(0.2, 0.9, 2.5, 2.0, absent="count", **SETTINGS),
        Lovasz(True, absent="count", dtype="float64", **SETTINGS),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_serialised_whole_and_not_taken_for_keras_own(loss):
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    for again in (keras.losses.deserialize(config), keras.losses.get(config)):
        assert type(again) is type(loss)
        assert again.get_config() == loss.get_config()
    assert {**SETTINGS, "dtype": loss.dtype}.items() <= loss.get_config().items()


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_trains_saves_and_loads(policy, tmp_path, rng):
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(3, 1, activation="softmax")])
    loss = CrossEntropy(ignore=255, class_weight=(1, 2, 3)) + 0.5 * Lovasz(ignore=255) + Dice(ignore=255)
    model.compile(keras.optimizers.Adam(0.2), loss)
    x = rng.integers(0, 3, (8, 6, 5))
    mask = np.where(rng.random(x.shape) < 0.1, 255, x).astype("uint8")
    images = (x[..., None] - 1).astype("float32")
    weight = np.stack([boundary_weights(m, ignore=255) for m in mask])
    history = model.fit(images, mask, sample_weight=weight, batch_size=3, epochs=12, verbose=0).history["loss"]
    assert history[-1] < 0.75 * history[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.evaluate(images, mask, verbose=0) == pytest.approx(model.evaluate(images, mask, verbose=0), rel=1e-5)


REPLICAS = """
import json
import tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import numpy as np
from cnn_zoo.losses import CrossEntropy, Dice
from cnn_zoo.metrics import SegmentationScores
mask, answers = np.tile(np.arange(64).reshape(1, 8, 8) % 3, (4, 1, 1)), []
images = np.tile(np.random.default_rng(0).random((1, 8, 8, 1), "float32"), (4, 1, 1, 1))
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 3, padding="same", activation="softmax")])
        model.compile(keras.optimizers.SGD(1.0), CrossEntropy() + 0.5 * Dice(), metrics=[SegmentationScores(3)])
    logs = model.fit(images, mask, 4, epochs=2, verbose=0).history
    pixels = int(model.metrics[-1].metrics[0].matrix().sum())
    answers.append([pixels, *(logs[key][-1] for key in sorted(logs)), *(float(w) for v in model.get_weights() for w in v.ravel())])
print("=", json.dumps(answers))
"""


@pytest.mark.slow
def test_two_replicas_train_as_one():
    """Keras adds up gradients of replicas and counts of metrics: each loss gives its share of the mean."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REPLICAS],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = json.loads(done.stdout.rpartition("=")[2])
    assert one[0] == 4 * 64
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- U-Net's weight map


def weights_twin(labels, w0, sigma):
    """Distances from each pixel to each object, by hand."""
    result = np.ones(labels.shape)
    objects = [np.argwhere(labels == i) for i in np.unique(labels) if i]
    for place in np.argwhere(labels == 0):
        distances = sorted(np.sqrt(np.square(pixels - place).sum(1)).min() for pixels in objects)
        if len(distances) > 1:
            result[tuple(place)] += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return result


def test_boundary_weights_against_the_twin(rng):
    mask = (ndimage.gaussian_filter(rng.random((40, 33)), 2) > 0.51).astype("uint8")
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    assert count > 3
    expected = weights_twin(labels, 10, 5)
    found = boundary_weights(mask)
    assert found.dtype == "float32" and found.shape == mask.shape and found.max() > 3
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(boundary_weights(labels[..., None] * 3, instances=True), expected, atol=2e-6)
    expected = weights_twin(labels, 4, 1.5) - 1 + np.where(mask, 3, 2)
    np.testing.assert_allclose(boundary_weights(mask, w0=4, sigma=1.5, class_weight=(2, 3)), expected, atol=2e-6)


def test_boundary_weights_between_touching_instances_and_at_the_edges():
    row = np.array([[1, 1, 0, 2, 2, 0, 0, 0, 0, 0]])
    found = boundary_weights(row, instances=True)
    np.testing.assert_allclose(found[0, [0, 2, 5]], [1, 1 + 10 * np.exp(-4 / 50), 1 + 10 * np.exp(-25 / 50)], rtol=1e-6)
    assert (boundary_weights(np.zeros((3, 4), int)) == 1).all()
    assert (boundary_weights(np.ones((3, 4), int)) == 1).all()
    assert (boundary_weights(np.eye(5, dtype=int)) == 1).all(), "one object, by its corners"
    ignored = boundary_weights(np.array([[1, 0, 255, 0, 1]]), ignore=255)
    assert ignored[0, 2] == 0 and ignored[0, 1] == pytest.approx(1 + 10 * np.exp(-16 / 50))


@pytest.mark.parametrize(
    "mask, settings, message",
    [
        (np.zeros((2, 3, 4)), {}, "one at a time"),
        (np.full((3, 4), 0.5), {}, "whole ids"),
        (np.full((3, 4), -1), {}, "ignore"),
        (np.zeros((3, 4)), {"sigma": 0}, "sigma"),
        (np.full((3, 4), 2), {"class_weight": (1, 2)}, "class 2 needs a class weight"),
    ],
)
def test_boundary_weights_of_wrong_input(mask, settings, message):
    with pytest.raises(InputError, match=message):
        boundary_weights(mask, **settings)


# ---------------------------------------------------------------- backends

NUMBERS = """
import json
import keras
import numpy as np
from cnn_zoo.compat import sm_losses, sm_metrics
from cnn_zoo.losses import CrossEntropy, Dice, Focal, FocalTversky, Jaccard, Lovasz, Tversky
from cnn_zoo.metrics import BoundaryF1, MeanIoU, SegmentationScores

def value_and_gradient(f, x):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = f(x)
        return float(y), tape.gradient(y, x).numpy()
    if backend == "jax":
        import jax
        y, g = jax.jit(jax.value_and_grad(f))(x)
        return float(y), np.asarray(g)
    import torch
    x = torch.tensor(x, requires_grad=True)
    y = f(x)
    y.backward()
    return float(y), x.grad.numpy()

rng = np.random.default_rng(3)
mask = rng.integers(0, 3, (2, 7, 6)); mask[0, 0] = 255
x = rng.normal(size=(2, 7, 6, 3)).astype("float32")
weight = rng.random(mask.shape).astype("float32")
tensor = keras.ops.convert_to_tensor
answers = []
for make in (CrossEntropy, Focal, Dice, Jaccard, Tversky, FocalTversky, Lovasz):
    for settings in ({}, {"per_image": True, "class_weight": (1, 2, 3)}, {"multi_label": True}):
        loss = make(from_logits=True, ignore=255, **settings) + 0.5 * Dice(from_logits=True, ignore=255)
        value, gradient = value_and_gradient(lambda p: loss(tensor(mask), p, tensor(weight)), x)
        answers += [value, *gradient.ravel().tolist()]
one = x[..., :1]
value, gradient = value_and_gradient(lambda p: Lovasz(True, from_logits=True, ignore=(2, 255))(tensor(mask), p), one)
answers += [value, *gradient.ravel().tolist()]
assert np.isnan(float(CrossEntropy(from_logits=True)(tensor(mask), tensor(x))))

model = keras.Sequential([keras.Input((7, 6, 3)), keras.layers.Softmax()])
model.compile(loss=CrossEntropy(ignore=255) + Lovasz(ignore=255), metrics=[
    SegmentationScores(3, ignore=255), MeanIoU(3, ignore=255, class_ids=[1]), BoundaryF1(3, tolerance=1, ignore=255)])
found = model.evaluate(x, mask.astype("int32"), batch_size=1, verbose=0, return_dict=True)
answers += [found[key] for key in sorted(found)]
many = MeanIoU(2)
for _ in range(3):
    many.state.assign(many.state + keras.ops.cast(np.array([[2**29, 0, 0, 2**28 - 3, 0]] * 2), many.state.dtype))
    many.update_state(tensor(np.ones((1, 2, 2), "int32")), tensor(np.ones((1, 2, 2), "int32")))
answers += many.matrix().ravel().tolist()

labels = SegmentationScores(3, multi_label=True, absent="one")
labels.update_state(tensor(rng.integers(0, 2, x.shape)), tensor(np.abs(x) / 3), tensor(weight))
answers += [float(value) for value in labels.result().values()]
foreground = MeanIoU(2, class_ids=1, from_logits=True, ignore=255, absent="zero")
answers.append(float(foreground(tensor(np.minimum(mask, 1) + 254 * (mask == 255)), tensor(one))))
gt, pr = tensor(np.eye(3, dtype="float32")[np.minimum(mask, 2)]), np.array(keras.ops.softmax(tensor(x)))
for f in (0.5 * sm_losses.DiceLoss(2, np.array([1.0, 3.0]), [2, 0], True) + sm_losses.binary_focal_loss, sm_losses.cce_jaccard_loss):
    value, gradient = value_and_gradient(lambda p: f(gt, p), pr)
    answers += [value, *gradient.ravel().tolist()]
answers.append(float(sm_metrics.FScore(2, threshold=0.4)(gt, tensor(pr))))
"""


@pytest.mark.slow
def test_other_backends_give_the_same_values_and_gradients():
    """JAX (under jit) and PyTorch, each in a process of its own; losses, gradients, metrics and counts beyond 2^59."""
    here = {}
    exec(NUMBERS, here)
    expected = here["answers"]
    assert len(expected) > 2500 and np.isfinite(expected).all()
    tried = 0
    for backend in ("jax", "torch"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", NUMBERS + "\nprint('=', json.dumps(answers))"],
            env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
        )
        if f"No module named '{backend}'" in done.stderr:
            warnings.warn(pytest.PytestWarning(f"{backend} is not installed"), stacklevel=1)
            continue
        assert done.returncode == 0, f"{backend}: {done.stderr[-3000:]}"
        found = json.loads(done.stdout.rpartition("=")[2])
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6, err_msg=backend)
        tried += 1
    if not tried:
        pytest.skip("needs JAX or PyTorch")
