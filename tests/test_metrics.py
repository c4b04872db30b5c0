"""Metrics against scikit-learn and twins by hand, over batches, at the edges."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sk

from cnn_zoo.errors import InputError
from cnn_zoo.losses import Dice
from cnn_zoo.metrics import (
    BoundaryF1,
    FrequencyWeightedIoU,
    MeanDice,
    MeanIoU,
    MeanPrecision,
    MeanRecall,
    PixelAccuracy,
    SegmentationScores,
    boundary_f1,
    confusion_matrix,
    scores,
)

FROM_COUNTS = [MeanIoU, MeanDice, MeanPrecision, MeanRecall, PixelAccuracy, FrequencyWeightedIoU]
CLASSES = 4


@pytest.fixture(autouse=True)
def clean():
    """In place of conftest's: its clear_session collects garbage for half a second, and here are many tests and few models."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def ids(rng):
    return rng.integers(0, CLASSES, (5, 7, 6))


@pytest.fixture
def p(rng):
    return rng.dirichlet(np.ones(CLASSES), (5, 7, 6)).astype("float32")


def fill(metric, y_true, y_pred, weight=None, batch=2):
    """Several batches, the last of which is smaller."""
    for i in range(0, len(y_true), batch):
        part = slice(i, i + batch)
        metric.update_state(y_true[part], y_pred[part], None if weight is None else weight[part])
    return metric


# ---------------------------------------------------------------- against scikit-learn


def twin(truth, guess, classes):
    """All scores by scikit-learn, of flat ids."""
    labels = range(classes)
    options = dict(labels=labels, zero_division=np.nan)
    iou = np.array([sk.jaccard_score(truth == i, guess == i, zero_division=0) for i in labels])
    iou[[not (truth == i).any() and not (guess == i).any() for i in labels]] = np.nan
    support = np.bincount(truth, minlength=classes)
    precision, recall, _, _ = sk.precision_recall_fscore_support(truth, guess, **options)
    return {
        "pixel_accuracy": sk.accuracy_score(truth, guess),
        "mean_iou": np.nanmean(iou),
        "mean_dice": np.nanmean(sk.f1_score(truth, guess, average=None, **options)),
        "mean_precision": np.nanmean(precision),
        "mean_recall": np.nanmean(recall),
        "frequency_weighted_iou": np.nansum(iou * support) / support.sum(),
    }


def test_all_scores_are_scikit_learns_whatever_is_given(ids, p):
    """Ids, one-hot, logits, probabilities and predicted ids, ignored ids and weights: the same numbers, over batches of 2, 2 and 1."""
    ids[ids == 3] = 0  # class 3 is not in the truth; the prediction has it
    mask = ids.copy()
    mask[0, 0], mask[1, :, 0] = 255, -1
    weight = np.ones(ids.shape)
    weight[3] = 0
    counted = (mask == ids) & (weight > 0)
    guess = p.argmax(-1)
    expected = twin(ids[counted], guess[counted], CLASSES)
    one_hot = np.eye(CLASSES)[ids] * (mask == ids)[..., None]
    logits = np.log(p) - 7
    for truth, prediction in [
        (mask, p),
        (mask[..., None].astype("int16"), logits),
        (mask.astype("float32"), p.astype("float16")),
        (one_hot, p),
        (one_hot.astype("uint8"), guess),
        (mask, guess[..., None].astype("uint8")),
        (tf.constant(mask), tf.constant(logits)),
    ]:
        metric = fill(SegmentationScores(CLASSES, ignore=(255, -1)), truth, prediction, weight)
        result = {key: float(value) for key, value in metric.result().items()}
        for key, value in expected.items():
            assert result[key] == pytest.approx(value, rel=1e-6), key
            assert metric.scores()[key] == pytest.approx(value, rel=1e-12), key
        assert result["iou_3"] == 0, "predicted and not there"
        np.testing.assert_array_equal(metric.matrix(), sk.confusion_matrix(ids[counted], guess[counted]))
    for make in FROM_COUNTS:
        metric = make(CLASSES, ignore=(255, -1))
        assert float(fill(metric, mask, p, weight).result()) == pytest.approx(expected[metric.name], rel=1e-6)


@pytest.mark.parametrize("from_logits", [False, True])
def test_one_channel(from_logits, rng):
    truth, p = rng.integers(0, 2, (3, 6, 5)), rng.random((3, 6, 5, 1)).astype("float32")
    given = np.log(p / (1 - p)) if from_logits else p
    metric = fill(SegmentationScores(2, from_logits=from_logits), truth, given)
    expected = twin(truth.ravel(), (p > 0.5).astype(int).ravel(), 2)
    assert {k: float(v) for k, v in metric.result().items() if k in expected} == pytest.approx(expected, rel=1e-6)
    foreground = fill(MeanIoU(2, class_ids=1, from_logits=from_logits), truth, given).result()
    assert float(foreground) == pytest.approx(sk.jaccard_score(truth.ravel(), (p > 0.5).ravel()))


def test_several_labels(rng):
    truth, p = rng.integers(0, 2, (3, 6, 5, 3)), rng.random((3, 6, 5, 3)).astype("float32")
    flat_truth, flat_guess = truth.reshape(-1, 3), (p > 0.5).reshape(-1, 3)
    metric = fill(SegmentationScores(3, multi_label=True), truth, p)
    matrix = sk.multilabel_confusion_matrix(flat_truth, flat_guess)
    np.testing.assert_array_equal(metric.matrix(), matrix)
    result = {key: float(value) for key, value in metric.result().items()}
    assert result["mean_dice"] == pytest.approx(sk.f1_score(flat_truth, flat_guess, average="macro"), rel=1e-6)
    assert result["mean_iou"] == pytest.approx(sk.jaccard_score(flat_truth, flat_guess, average="macro"), rel=1e-6)
    assert result["pixel_accuracy"] == pytest.approx((flat_truth == flat_guess).mean(), rel=1e-6)
    weighted = sk.jaccard_score(flat_truth, flat_guess, average="weighted")
    assert result["frequency_weighted_iou"] == pytest.approx(weighted, rel=1e-6)
    assert metric.scores()["frequency_weighted_iou"] == pytest.approx(weighted, rel=1e-12)
    marked = np.where(rng.random(truth.shape) < 0.2, 255, truth)
    expected = np.mean([
        sk.f1_score(flat_truth[keep, i], flat_guess[keep, i])
        for i, keep in enumerate((marked.reshape(-1, 3) != 255).T)
    ])  # fmt: skip
    assert float(fill(MeanDice(3, multi_label=True, ignore=255), marked, p).result()) == pytest.approx(expected)
    assert float(fill(MeanIoU(1, multi_label=True), truth[..., :1], p[..., :1]).result()) == pytest.approx(
        sk.jaccard_score(flat_truth[:, 0], flat_guess[:, 0])
    )


@pytest.mark.parametrize("beta", [0, 0.5, 2])
def test_f_beta(beta, ids, p):
    expected = sk.fbeta_score(ids.ravel(), p.argmax(-1).ravel(), beta=beta, average="macro")
    metric = fill(MeanDice(CLASSES, beta), ids, p)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
    assert metric.scores(beta=beta)["mean_dice"] == pytest.approx(expected, rel=1e-12)


def test_it_is_not_a_mean_over_batches(ids, p):
    whole = float(fill(MeanIoU(CLASSES), ids, p, batch=5).result())
    assert float(fill(MeanIoU(CLASSES), ids, p, batch=1).result()) == whole
    assert np.mean([float(MeanIoU(CLASSES)(ids[i : i + 1], p[i : i + 1])) for i in range(5)]) != pytest.approx(whole)


def test_with_hard_predictions_the_dice_loss_is_1_minus_the_dice_score(ids, p):
    guess = p.argmax(-1)
    assert 1 - float(Dice()(ids, np.eye(CLASSES)[guess])) == pytest.approx(float(MeanDice(CLASSES)(ids, guess)))


# ---------------------------------------------------------------- counts


def test_counts_are_exact_where_floats_are_not():
    """Beyond 2^24, where float32 loses single pixels, and across the two words of a count."""
    metric = MeanIoU(2)
    one = np.ones((1, 1, 1), int)
    metric.state.assign(metric.state + np.array([[0, 0, 2**24, 2**30 - 1, 0], [0, 0, 0, 5, 0]]))
    metric.update_state(one, one)
    metric.update_state(one, 0 * one)
    assert metric.matrix().tolist() == [[0, 0], [2**24 + 1, 6 * 2**30]]
    assert float(metric.result()) == pytest.approx(6 * 2**30 / (6 * 2**30 + 2**24 + 1) / 2, rel=1e-6)
    metric.reset_state()
    assert not metric.matrix().any()


def test_confusion_matrix_of_arrays(ids, p):
    guess = p.argmax(-1)
    mask = np.where(ids == 2, 255, ids)
    total = sum(confusion_matrix(a, b, CLASSES, ignore=255) for a, b in zip(mask, guess))
    np.testing.assert_array_equal(total, sk.confusion_matrix(ids[ids != 2], guess[ids != 2], labels=range(CLASSES)))
    assert total.dtype == "int64"
    assert not confusion_matrix(ids[:0], guess[:0], CLASSES).any()
    with pytest.raises(InputError, match="differ in shape"):
        confusion_matrix(ids, guess[0], CLASSES)
    with pytest.raises(InputError, match="truth has ids 255"):
        confusion_matrix(mask, guess, CLASSES)
    with pytest.raises(InputError, match="prediction has ids 4, 5"):
        confusion_matrix(ids, guess + 2, CLASSES)


# ---------------------------------------------------------------- absent classes


def test_policies_for_absent_classes():
    """Class 1 is all right, class 2 predicted and not there, class 3 nowhere, class 0 half right."""
    matrix = np.array([[1, 0, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    truth, guess = np.repeat([[0, 0, 1]], [1, 1, 4], axis=1)[None], np.repeat([[0, 2, 1]], [1, 1, 4], axis=1)[None]
    expected = {"skip": (0.5 + 1 + 0) / 3, "zero": 1.5 / 4, "one": 2.5 / 4}
    for absent, mean in expected.items():
        result = scores(matrix, absent=absent)
        assert result["mean_iou"] == pytest.approx(mean)
        assert result["iou"] == {"0": 0.5, "1": 1.0, "2": 0.0, "3": None}
        assert result["recall"] == {"0": 0.5, "1": 1.0, "2": None, "3": None}
        assert float(MeanIoU(4, absent=absent)(truth, guess)) == pytest.approx(mean, rel=1e-6)
    watched = SegmentationScores(4)(truth, guess)
    assert np.isnan(float(watched["iou_3"])) and float(watched["iou_2"]) == 0
    assert json.loads(json.dumps(scores(matrix)))["pixels"] == {"0": 2, "1": 4, "2": 0, "3": 0}


def test_an_ignored_class_is_left_out_of_means(ids, p):
    metric = fill(SegmentationScores(CLASSES, ignore=1), ids, p)
    keep = ids != 1
    expected = scores(confusion_matrix(ids[keep], p.argmax(-1)[keep], CLASSES), class_ids=[0, 2, 3])
    assert metric.scores() == expected
    assert float(metric.result()["mean_iou"]) == pytest.approx(expected["mean_iou"], rel=1e-6)
    assert expected["mean_iou"] == pytest.approx(np.mean([expected["iou"][i] for i in "023"]))
    assert float(fill(MeanIoU(CLASSES, class_ids=[3]), ids, p).result()) == pytest.approx(
        sk.jaccard_score(ids.ravel() == 3, p.argmax(-1).ravel() == 3), rel=1e-6
    )


@pytest.mark.parametrize("make", [*FROM_COUNTS, BoundaryF1])
def test_nothing_counted_is_no_number(make, ids, p):
    metric = make(CLASSES, ignore=range(CLASSES))
    assert np.isnan(float(metric.result()))
    assert np.isnan(float(metric(ids, p)))
    metric.update_state(ids[:0], p[:0])
    assert np.isnan(float(metric.result()))
    nothing = scores(np.zeros((3, 3), int))
    assert nothing["mean_iou"] is None and nothing["pixel_accuracy"] is None and nothing["iou"]["0"] is None


def test_single_class_and_ties():
    """A data set of one class only; equal scores, of which the first class wins."""
    truth = np.zeros((1, 3, 3), int)
    assert float(MeanIoU(3)(truth, np.full((1, 3, 3, 3), 1 / 3, "float32"))) == 1
    assert float(MeanIoU(2, class_ids=0)(truth, np.full((1, 3, 3, 1), 0.5, "float32"))) == 1


# ---------------------------------------------------------------- boundaries


def boundary_twin(truth, guess, classes, tolerance, ignore):
    """Pixel by pixel."""
    height, width = truth.shape
    kept = truth != ignore

    def boundary(mask, i):
        found = []
        for y, x in np.argwhere((mask == i) & kept):
            beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            if any(0 <= a < height and 0 <= b < width and kept[a, b] and mask[a, b] != i for a, b in beside):
                found.append((y, x))
        return np.array(found).reshape(-1, 2)

    def share(a, b):
        if not len(a) or not len(b):
            return 0.0
        return np.mean([np.hypot(*(b - place).T).min() <= tolerance for place in a])

    result = []
    for i in range(classes):
        true, found = boundary(truth, i), boundary(guess, i)
        p, r = share(found, true), share(true, found)
        result.append(np.nan if not len(true) and not len(found) else 2 * p * r / (p + r) if p + r else 0.0)
    return np.array(result)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3])
def test_boundary_f1_against_the_twin(tolerance, rng):
    def masks():  # squares of 3 pixels
        return np.kron(rng.choice(4, (3, 5, 4), p=[0.6, 0.2, 0.15, 0.05]), np.ones((1, 3, 3), int))

    truth, guess = masks(), masks()
    truth[:, :2, 3:6] = 255
    truth[0][truth[0] == 2] = guess[0][guess[0] == 2] = 1  # class 2 is not in the first image
    expected = np.array([boundary_twin(a, b, 4, tolerance, 255) for a, b in zip(truth, guess)])
    assert np.isnan(expected).any() and (expected > 0).any()
    found = [boundary_f1(a, b, 4, tolerance=tolerance, ignore=255) for a, b in zip(truth, guess)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    metric = fill(BoundaryF1(4, tolerance, ignore=255), truth, guess)
    mean = np.nanmean([np.nanmean(of_class) for of_class in expected.T if not np.isnan(of_class).all()])
    assert float(metric.result()) == pytest.approx(mean, rel=1e-6)


def test_boundary_f1_by_hand():
    """A square moved by 2 pixels: wrong at tolerance 1, right at 2; areas without contour have no score."""
    truth, guess = np.zeros((20, 20), int), np.zeros((20, 20), int)
    truth[5:12, 5:12], guess[5:12, 7:14] = 1, 1
    assert 0 < boundary_f1(truth, guess, 2, tolerance=1)[1] < 1
    assert boundary_f1(truth, guess, 2, tolerance=2)[1] == 1
    np.testing.assert_array_equal(boundary_f1(truth, truth, 3), [1, 1, np.nan])
    np.testing.assert_array_equal(boundary_f1(truth, 0 * truth, 3), [0, 0, np.nan])
    assert np.isnan(boundary_f1(0 * truth, 0 * truth, 2)).all()
    with pytest.raises(InputError, match="two of one"):
        boundary_f1(truth, truth[1:], 2)
    with pytest.raises(InputError, match="ids 1"):
        boundary_f1(truth, truth, 1)


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize("make", [*FROM_COUNTS, BoundaryF1])
def test_ids_without_a_class(make, ids, p):
    ids[0, 0, 0] = 255
    with pytest.raises(InputError, match="truth has ids 255"):
        make(CLASSES).update_state(ids, p)
    metric = make(CLASSES)
    assert np.isnan(float(metric(tf.constant(ids), p)))
    assert np.isnan(float(metric(ids[1:], p[1:]))), "once wrong is wrong"
    assert np.isfinite(float(make(CLASSES)(ids[1:], p[1:])))
    if make is not BoundaryF1:
        with pytest.raises(InputError, match="1 pixels have ids that are none of the 4 classes"):
            metric.matrix()


@pytest.mark.parametrize(
    "settings, truth, prediction, message",
    [
        ({}, (2, 8, 8), (2, 8, 8), "given floats"),
        ({}, (2, 8, 8), (2, 8, 8, 4), "predictions of 3 classes"),
        ({}, (2, 8, 8), (2, 8, 8, 1), "predictions of 3 classes"),
        ({}, (2, 8), (2, 8, 8, 3), "masks must be ids"),
        ({}, (2, 8, 8, 2), (2, 8, 8, 3), "masks must be ids"),
        ({}, (2, 8, 7), (2, 8, 8, 3), "differ in number or size"),
        ({"multi_label": True}, (2, 8, 8), (2, 8, 8, 3), "one value a class"),
    ],
)
def test_shapes(settings, truth, prediction, message):
    with pytest.raises(InputError, match=message):
        MeanIoU(3, **settings).update_state(np.zeros(truth, int), np.zeros(prediction, "float32"))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MeanIoU(1), "at least 2"),
        (lambda: MeanIoU(3, class_ids=[3]), "class_ids are from 0 to 2"),
        (lambda: MeanIoU(3, absent="none"), "'skip', 'zero' or 'one'"),
        (lambda: MeanDice(3, -1), "beta"),
        (lambda: SegmentationScores(3, "ab"), "as many names"),
        (lambda: BoundaryF1(3, -1), "tolerance"),
        (lambda: BoundaryF1(3, multi_label=True), "exclude each other"),
        (lambda: scores(np.zeros((2, 3))), "confusion matrix is"),
        (lambda: scores(-np.eye(2)), "negative"),
        (lambda: scores(np.eye(2), class_names="aa"), "as many names"),
        (
            lambda: MeanIoU(2)(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int), np.ones((1, 2, 2, 3))),
            "sample_weight",
        ),
    ],
)
def test_settings_that_do_not_fit(make, message):
    with pytest.raises(InputError, match=message):
        make()


# ---------------------------------------------------------------- in models


SETTINGS = dict(from_logits=True, ignore=(1, 255), class_ids=(0, 2), absent="one", name="mine", dtype="float64")


@pytest.mark.parametrize("make", [*FROM_COUNTS, SegmentationScores, BoundaryF1])
def test_serialised_whole_and_not_taken_for_keras_own(make):
    own = {
        MeanDice: {"beta": 2.0},
        BoundaryF1: {"tolerance": 3.5},
        SegmentationScores: {"class_names": ("a", "b", "c")},
    }
    settings = {**SETTINGS, **own.get(make, {}), **({} if make is BoundaryF1 else {"multi_label": True})}
    metric = make(3, **settings)
    config = json.loads(json.dumps(keras.metrics.serialize(metric)))
    for again in (keras.metrics.deserialize(config), keras.metrics.get(config)):
        assert type(again) is make
        assert again.get_config() == metric.get_config() == {"classes": 3, **settings}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_in_fit_and_after_loading(policy, tmp_path, ids, p):
    """The numbers of `fit` and `evaluate` are those of the data set, with batches of different sizes."""
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential(
        [keras.Input((None, None, CLASSES)), keras.layers.Conv2D(CLASSES, 1, activation="softmax")]
    )
    watched = [SegmentationScores(CLASSES, class_names="abcd", ignore=255), BoundaryF1(CLASSES, ignore=255)]
    model.compile(
        "sgd", Dice(ignore=255), metrics=watched, weighted_metrics=[MeanIoU(CLASSES, ignore=255, name="below")]
    )
    mask = np.where(ids == 1, 255, ids).astype("uint8")
    weight = (np.arange(7) > 2)[None, :, None] * np.ones(mask.shape, "float32")
    history = model.fit(p, mask, 2, validation_data=(p, mask, weight), verbose=0).history
    assert {"mean_iou", "val_iou_a", "val_boundary_f1"} <= set(history)
    guess = model.predict(p, verbose=0).argmax(-1)
    below = scores(confusion_matrix(mask[:, 3:], guess[:, 3:], CLASSES, ignore=255))
    assert history["val_below"][-1] == pytest.approx(below["mean_iou"], rel=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    found = again.evaluate(p, mask, batch_size=3, return_dict=True, verbose=0)
    expected = scores(confusion_matrix(mask, guess, CLASSES, ignore=255))
    assert found["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"], rel=1e-6)
    assert found["frequency_weighted_iou"] == pytest.approx(expected["frequency_weighted_iou"], rel=1e-6)
    for name, i in zip("abcd", "0123"):
        iou = expected["iou"][i]
        assert found[f"iou_{name}"] == pytest.approx(np.nan if iou is None else iou, rel=1e-6, nan_ok=True)
