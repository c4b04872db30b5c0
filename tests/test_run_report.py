"""The report of a run: its numbers against scikit-learn, its page and card, and data that leave something undefined."""

import dataclasses
import json
import re

import cv2
import keras
import numpy as np
import pytest
import typer
from keras import layers as L
from scipy.stats import bootstrap
from sklearn import metrics as reference
from typer.testing import CliRunner

from cnn_zoo import Data, InputError, Recipe, Run, StorageError, evaluate, fit, load, metrics, plots
from cnn_zoo.calibration import reliability
from cnn_zoo.commands.run_report import report as command
from cnn_zoo.data import from_folder, open_data
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.reopening import held_out_as_in, reopen
from cnn_zoo.run_report import intervals, report


def oracle(classes, activation="softmax", outputs=None):
    """A classifier whose logits are the pixels of its image over 20."""
    inputs = keras.Input((1, classes, 1))
    x = L.Flatten()(L.Rescaling(1 / 20)(inputs))
    x = x if outputs is None else x[:, -outputs:] - x[:, :outputs]
    return keras.Model(inputs, L.Activation(activation)(x) if activation else x, name="oracle")


def made_up(rng, classes, images, noise=2.5, **settings):
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)) * noise + 6
    logits[np.arange(images), labels] += 4
    pixels = (20 * logits).clip(0, 255).astype("uint8").reshape(images, 1, classes, 1)
    return Data.from_arrays(
        pixels, labels, classes=[f"kind {i}" for i in range(classes)], **{"test": 0.5, "validation": 0.3, **settings}
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run as `cnn-zoo train` leaves it."""
    inputs = keras.Input((8, 8, 1))
    x = L.Dense(10, activation="softmax")(L.Flatten()(L.Rescaling(1 / 255, name="preprocess")(inputs)))
    model = keras.Model(inputs, x, name="small")
    recipe = Recipe("quick", epochs=2, batch_size=32, learning_rate=0.01, validation=0.2, seed=3)
    about = {"train": {"net": "small", "data": "digits", "data_dir": None, "resize": "bilinear"}, "command": "cnn-zoo train small"}  # fmt: skip
    return fit(model, load("digits"), recipe, run=tmp_path_factory.mktemp("runs") / "small", verbose=0, about=about)


def test_a_run_is_reported_from_its_folder(run, tmp_path):
    found = report(run.folder, out=tmp_path / "page.html")
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "page.md"}
    facts = found.to_dict()
    assert json.loads(json.dumps(facts)) == json.loads(json.dumps(facts, allow_nan=False))
    assert facts["notes"] == []  # the very data of the training, the held-out part too
    assert facts["data"] == json.loads((run.folder / "run.json").read_text())["data"]
    assert facts["model"]["parameters"] == 650 and facts["model"]["file"] == "best.keras" and facts["split"] == "test"
    assert facts["calibration"]["fitted_on"] == facts["data"]["validation"]["images"]
    assert facts["calibration"]["after"]["nll"] < facts["calibration"]["before"]["nll"]
    assert {"curves", "confusion", "roc", "precision_recall", "reliability"} == set(found.figures)
    assert "accuracy" in str(found) and "temperature" in str(found)

    page, card = ((tmp_path / name).read_text() for name in ("page.html", "page.md"))
    assert not re.search(r"(src|href)=\"(?!data:image/png;base64,)", page)
    assert "<script" not in page and "http" not in page and page.count("<img") > 48
    for text in ("cnn-zoo train small", facts["data"]["test"]["sha256"], "values 0..16 times 255/16", "learning"):
        assert text in page and text in card
    assert f"{facts['scores']['accuracy']['value']:.4f}" in card and "[TO BE FILLED IN" in card
    assert report(Run.load(run.folder), load("digits")).facts["scores"] == facts["scores"]


def test_the_scores_are_those_of_scikit_learn(rng):
    data = made_up(rng, 5, 800)
    model = oracle(5)
    facts = report(model, data).facts
    p, y = np.asarray(model(data.test.images)), data.test.labels
    scores = {key: score["value"] for key, score in facts["scores"].items()}
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(y, p.argmax(-1)))
    assert scores["macro_f1"] == pytest.approx(reference.f1_score(y, p.argmax(-1), average="macro"))
    for average in ("macro", "micro"):
        auc = reference.roc_auc_score(y, p, multi_class="ovr", average=average)
        assert scores[f"{average}_auc"] == pytest.approx(auc, abs=1e-6)
        truth = np.eye(5)[y]
        precision = reference.average_precision_score(truth, p, average=average)
        assert scores[f"{average}_average_precision"] == pytest.approx(precision, abs=1e-6)
    exact = p / p.sum(-1, keepdims=True, dtype="float64")
    assert scores["nll"] == pytest.approx(reference.log_loss(y, exact), rel=1e-5)
    assert scores["ece"] == pytest.approx(reliability(p, y).ece)
    assert facts["confusion"] == reference.confusion_matrix(y, p.argmax(-1)).tolist()
    table = reference.classification_report(y, p.argmax(-1), output_dict=True)
    assert facts["per_class"]["kind 2"]["recall"] == pytest.approx(table["2"]["recall"])
    first = facts["most_confused"][0]
    off = np.array(facts["confusion"]) - np.diag(np.diag(facts["confusion"]))
    assert first["images"] == off.max() == off[tuple(first["ids"])]
    for key in ("accuracy", "macro_f1", "macro_auc"):
        low, high = facts["scores"][key]["interval_95"]
        assert low < scores[key] < high


def test_weighted_scores_are_those_of_images_repeated(rng):
    p = rng.dirichlet(np.ones(4) * 0.4, 300).round(2)  # rounded: there are ties
    y = np.where(rng.random(300) < 0.7, p.argmax(-1), rng.integers(0, 4, 300))
    weights = rng.integers(0, 4, 300)
    found, rows = intervals.Classified(p, y), np.repeat(np.arange(300), weights)
    said = p.argmax(-1)
    assert found.accuracy(weights) == pytest.approx(reference.accuracy_score(y[rows], said[rows]))
    assert found.macro_f1(weights) == pytest.approx(reference.f1_score(y, said, average="macro", sample_weight=weights))
    assert found.ece(weights) == pytest.approx(reliability(p[rows], y[rows]).ece)
    areas = [reference.roc_auc_score(y == i, p[:, i], sample_weight=weights) for i in range(4)]
    assert found.macro_auc(weights) == pytest.approx(np.mean(areas))


def test_intervals_are_those_of_scipy_and_whole_groups_are_drawn(rng):
    right = (rng.random(200) < 0.8).astype(float)
    means = [(right * weights).sum() / weights.sum() for weights in intervals.drawings(200)]
    theirs = bootstrap((right,), np.mean, method="percentile", n_resamples=5000, random_state=0).confidence_interval
    assert intervals.percentiles(means) == pytest.approx(list(theirs), abs=0.012)
    assert intervals.reflected(means, 0.8) == pytest.approx([1.6 - theirs.high, 1.6 - theirs.low], abs=0.012)
    groups = np.repeat(["b", "a", "c"], [3, 5, 2])
    for weights in intervals.drawings(10, groups, times=50):
        assert all(len(set(weights[groups == name])) == 1 for name in "abc")
        assert sum(weights[groups == name][0] for name in "abc") == 3
    assert not list(intervals.drawings(1)) and not list(intervals.drawings(3, ["a"] * 3))
    assert intervals.percentiles([np.nan, np.nan]) is None and intervals.reflected([], 0.5) is None


def test_groups_widen_the_intervals(rng):
    data = made_up(rng, 3, 400)
    half = dataclasses.replace(data.test, groups=np.arange(len(data.test)) // 20)
    order = np.argsort(evaluate(oracle(3), half).probabilities.argmax(-1) == half.labels, kind="stable")
    half = dataclasses.replace(half.take(order), groups=half.groups)  # whole groups are right or wrong together
    facts = report(oracle(3), dataclasses.replace(data, test=half)).facts
    accuracy = facts["scores"]["accuracy"]
    assert accuracy["interval"] == "bootstrap by group" and facts["groups"] == 10
    assert np.ptp(accuracy["interval_95"]) > 1.5 * np.ptp(accuracy["wilson_95"])
    assert "whole groups" in " ".join(facts["notes"])


def test_what_the_split_lacks_is_said(rng, tmp_path):
    data = made_up(rng, 4, 300)
    few = data.test.take(np.flatnonzero(data.test.labels < 2))
    found = report(oracle(4), dataclasses.replace(data, test=few, validation=None), out=tmp_path / "r.html")
    row = found.facts["per_class"]["kind 3"]
    assert row["recall"] is None and row["auc"] is None and row["support"] == 0
    assert (
        "'kind 2', 'kind 3'" in found.facts["notes"][0]
        and "no validation split" in found.facts["calibration"]["why_none"]
    )
    assert found.facts["scores"]["macro_auc"]["value"] == pytest.approx(
        np.mean([found.facts["per_class"][f"kind {i}"]["auc"] for i in range(2)])
    )
    one = report(oracle(4), dataclasses.replace(data, test=data.test.take([0])), out=tmp_path / "one.html")
    scores = one.facts["scores"]
    assert scores["macro_auc"]["value"] is None and scores["macro_f1"]["interval_95"] is None
    assert scores["accuracy"]["interval_95"][0] < scores["accuracy"]["value"] + 1e-9
    assert "roc" not in one.figures and "one image" in " ".join(one.facts["notes"])
    for name in ("r", "one"):
        assert "nan" not in re.sub(r"base64,[^\"]*", "", (tmp_path / f"{name}.html").read_text()).lower()


@pytest.mark.parametrize("activation", ["softmax", None, "sigmoid"])
def test_any_output(rng, activation):
    data = made_up(rng, 3, 400)
    facts = report(oracle(3, activation), data).facts
    assert facts["model"]["output"] == (activation or "logits")
    if activation == "sigmoid":
        assert facts["calibration"]["temperature"] is None and "sigmoid" in facts["calibration"]["why_none"]
    else:
        assert facts["calibration"]["temperature"] > 1.1


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_one_output_for_two_classes(rng, activation):
    data = made_up(rng, 2, 400)
    facts = report(oracle(2, activation, outputs=1), data).facts
    both = report(oracle(2), data).facts
    assert facts["confusion"] == both["confusion"]
    assert facts["scores"]["nll"]["value"] == pytest.approx(both["scores"]["nll"]["value"], rel=1e-3)
    assert facts["calibration"]["temperature"] == pytest.approx(both["calibration"]["temperature"], rel=0.02)


def test_names_are_escaped_and_many_classes_are_readable(rng, tmp_path):
    data = made_up(rng, 60, 600, validation=0)
    names = ("<script>alert(1)</script>", "a|b*c_d\nnext", *data.classes[2:])
    found = report(oracle(60), dataclasses.replace(data, classes=names), out=tmp_path / "r.html")
    page, card = (tmp_path / "r.html").read_text(), (tmp_path / "r.md").read_text()
    assert "<script" not in page and "&lt;script&gt;alert" in page
    assert "<script" not in card and "a\\|b\\*c\\_d next" in card
    assert page.count('<table class="confusion">') == 1 and "of the 60 classes the table has the 24" in page.lower()
    assert len(found.facts["confusion"]) == 60 and "worst 5 of 60" in found.figures["roc"].axes[0].get_title()


def test_images_in_files(tmp_path, rng):
    for label, level in (("dark", 40), ("light", 180)):
        for i in range(10):
            (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
            image = rng.integers(level, level + 40, (12, 12, 3)).astype("uint8")
            assert cv2.imwrite(str(tmp_path / "set" / label / f"{label}{i}.png"), image)
    data = from_folder(tmp_path / "set", size=(12, 12), test=0.4)
    inputs = keras.Input((12, 12, 3))
    x = L.GlobalAveragePooling2D()(L.Rescaling(1 / 255)(inputs))
    found = report(keras.Model(inputs, L.Dense(2, activation="softmax")(x)), data, out=tmp_path / "r.html")
    assert ".png" in found.examples["worst"][0][1] and found.facts["data"]["test"]["files"]
    assert found.examples["worst"][0][0].shape == (96, 96, 3)


def segmenter(outputs, activation):
    inputs = keras.Input((None, None, 1))
    x = L.Rescaling(1 / 40, -3)(inputs)
    x = x if outputs == 1 else L.Concatenate()([-x, x])
    return keras.Model(inputs, L.Activation(activation)(x) if activation else L.Identity()(x), name="bright")


@pytest.fixture
def masks(rng):
    images = rng.integers(0, 256, (12, 20, 24)).astype("uint8")
    truth = (images > 120).astype("uint8") ^ (rng.random(images.shape) < 0.1)
    truth[:, 0] = 255
    return Data.from_arrays(images, truth, classes=("ground", "square"), ignore=255, test=0.8)


@pytest.mark.parametrize("outputs, activation", [(2, "softmax"), (2, None), (1, "sigmoid"), (1, None)])
def test_a_segmenter(masks, outputs, activation, tmp_path):
    model = segmenter(outputs, activation)
    found = report(model, masks, out=tmp_path / "r.html")
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    expected = evaluate(model, masks.test, classes=masks.classes, ignore=255)
    assert facts["confusion"] == expected.confusion.tolist()
    assert facts["scores"]["mean_iou"]["value"] == expected.mean_iou
    assert facts["per_class"]["square"]["dice"] == expected.scores()["dice"]["square"]
    low, high = facts["scores"]["mean_iou"]["interval_95"]
    assert low < expected.mean_iou < high and high - low < 0.1
    alone = evaluate(model, masks.test.take([3]), ignore=255).mean_iou
    assert facts["per_image"][3]["mean_iou"] == pytest.approx(alone)
    assert set(found.figures) == {"iou", "confusion", "worst", "best"}
    page = (tmp_path / "r.html").read_text()
    assert "<script" not in page and "http" not in page and page.count("<img") == 3
    assert "mean IoU" in (tmp_path / "r.md").read_text()


def test_a_segmenter_with_little_to_measure(masks, tmp_path):
    one = masks.test.take([0])
    found = report(segmenter(2, "softmax"), dataclasses.replace(masks, test=one), out=tmp_path / "r.html")
    assert found.facts["scores"]["mean_iou"]["interval_95"] is None and "best" not in found.figures
    assert "one image" in found.facts["notes"][0]
    void = dataclasses.replace(one, labels=np.full_like(one.labels, 255))
    found = report(segmenter(2, "softmax"), dataclasses.replace(masks, test=void), out=tmp_path / "void.html")
    assert found.facts["scores"]["mean_iou"]["value"] is None and found.facts["per_image"][0]["mean_iou"] is None
    assert "No pixel" in found.facts["notes"][0]


def test_iou_of_drawn_images_against_the_metric(rng):
    each = rng.integers(0, 50, (6, 3, 3))
    counts = np.stack([each.diagonal(axis1=1, axis2=2), each.sum(2), each.sum(1)], 1)
    weights = np.array([0, 2, 1, 0, 0, 3])
    iou, mean = intervals.mean_iou(counts, weights)
    expected = metrics.scores(np.tensordot(weights, each, 1))
    assert mean == pytest.approx(expected["mean_iou"]) and iou == pytest.approx(list(expected["iou"].values()))


def test_a_run_of_files_finds_its_folder_again(tmp_path, rng):
    for label, level in (("dark", 40), ("light", 180)):
        for i in range(15):
            (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
            image = rng.integers(level, level + 40, (10, 14, 3)).astype("uint8")
            assert cv2.imwrite(str(tmp_path / "set" / label / f"{label}{i}.png"), image)
    options = {"size": [12, 12], "channels": 1, "intensity": "percentiles", "test": 0.4, "groups": r"([a-z]+\d)"}
    data = open_data(tmp_path / "set", **{**options, "intensity": Intensity("percentiles")})
    inputs = keras.Input((12, 12, 1))
    x = L.Dense(2, activation="softmax")(L.GlobalAveragePooling2D()(L.Rescaling(1 / 255)(inputs)))
    about = {"train": {"net": "n", "data": str(tmp_path / "set"), "data_dir": None, "data_options": options}}
    recipe = Recipe("quick", epochs=1, batch_size=8, validation=0.25)
    done = fit(keras.Model(inputs, x), data, recipe, run=tmp_path / "run", verbose=0, about=about)
    again = held_out_as_in(done, reopen(done, (12, 12)))
    assert again.describe() == done.about["data"] and again.validation is not None and again.test.groups is not None
    same = reopen(done, (12, 12), data=str(tmp_path / "set"))
    assert same.test.names.tolist() == again.test.names.tolist()
    (tmp_path / "set").rename(tmp_path / "other")
    more = reopen(done, (12, 12), data=str(tmp_path / "other"))
    assert more.test is None and more.validation is None and len(more.train) == 30
    assert str(more.train.images.intensity) == str(again.train.images.intensity)  # the numbers of the training


def test_other_data_and_other_splits_are_said(run):
    data = load("digits")
    fewer = dataclasses.replace(data, test=data.test.take(np.arange(100)))
    assert report(run.folder, fewer).facts["notes"] == [
        "The data are not those of the training: by SHA-256, other images, labels or rules in test."
    ]
    held_out = report(run.folder, data, split="validation").facts
    assert "best epoch was chosen" in held_out["notes"][0] and held_out["calibration"]["temperature"] is None


def test_command(run, tmp_path):
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [str(run.folder), "--part", "train", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (
        facts["images"] == 1149
        and "was trained on" in facts["notes"][0]
        and facts["run"]["command"] == "cnn-zoo train small"
        and facts["made"]["command"]
    )
    assert (run.folder / "report.html").is_file() and facts["made"]["command"] in (run.folder / "report.md").read_text()
    done = CliRunner().invoke(app, ["lenet:mnist", "--data", "digits", "--out", str(tmp_path / "r.html")])
    assert done.exit_code == 0 and "accuracy" in done.stdout and (tmp_path / "r.md").is_file()
    (tmp_path / "alone.keras").write_bytes((run.folder / "best.keras").read_bytes())
    done = CliRunner().invoke(app, [str(tmp_path / "alone.keras")])
    assert isinstance(done.exception, InputError) and "--data" in str(done.exception)


def test_wrong_input(run, rng, tmp_path):
    data = made_up(rng, 3, 60)
    with pytest.raises(InputError, match="not a run folder"):
        report(tmp_path)
    with pytest.raises(InputError, match="give data="):
        report(oracle(3))
    with pytest.raises(InputError, match="two models"):
        report(oracle(3), data, model=oracle(3))
    with pytest.raises(InputError, match="a Data"):
        report(oracle(3), [1, 2])
    with pytest.raises(InputError, match="split is one of"):
        report(oracle(3), data, split="tests")
    with pytest.raises(InputError, match="no test split: choose one of validation, train"):
        report(oracle(3), dataclasses.replace(data, test=None))
    with pytest.raises(InputError, match="as .html"):
        report(oracle(3), data, out=tmp_path / "r.pdf")
    with pytest.raises(InputError, match="10 classes apart and the data have 3"):
        report(run, data)
    other = dataclasses.replace(load("digits"), classes=tuple("1234567890"))
    with pytest.raises(InputError, match="class 0 is '0' in the run and '1' in the data"):
        report(run, other)
    about = {key: value for key, value in run.about.items() if key != "train"}
    with pytest.raises(InputError, match="was not begun by"):
        report(dataclasses.replace(run, about=about))
    (tmp_path / "file").write_text("here")
    with pytest.raises(StorageError):
        report(oracle(3), data, out=tmp_path / "file" / "r.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_pictures(tmp_path, rng):
    p, y = rng.dirichlet(np.ones(3), 50), rng.integers(0, 3, 50)
    x, z, _ = reference.roc_curve(y == 0, p[:, 0])
    figure = plots.roc({"one": (x, z, 0.9876)}, {"all": (x, z, 0.5)}, save=tmp_path / "roc.png")
    assert figure.axes[0].lines[0].get_xdata().tolist() == x.tolist() and (tmp_path / "roc.png").is_file()
    assert [text.get_text() for text in figure.legends[0].texts] == ["one, AUC 0.9876", "all, AUC 0.5000"]
    assert plots.precision_recall({"one": (x, z, 0.5)}).axes[0].get_xlabel() == "recall"
    bins = reliability(p, y)
    heights = [bar.get_height() for bar in plots.reliability(bins).axes[0].patches]
    np.testing.assert_allclose(heights, bins.accuracy[bins.counts > 0])
    assert len(plots.reliability({"before": bins, "after": bins}, save=tmp_path / "r.png").axes) == 4
    for draw in (plots.roc, plots.precision_recall, plots.reliability):
        with pytest.raises(InputError, match="there is no"):
            draw({})
