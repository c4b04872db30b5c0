"""Search: what is tried, what is best, resume, errors; real trainings where the training matters, a known function where the search does."""

import csv
import importlib
import itertools
import json
import math
import sys

import keras
import numpy as np
import pytest
from keras import layers as L

from cnn_zoo import Data, InputError, Recipe, Run, TrainingStopped, ZooError, load_model
from cnn_zoo.augment import Augmenter, flip
from cnn_zoo.train import search

pytest.importorskip("keras_tuner", reason="needs the extra search")
module = importlib.import_module("cnn_zoo.train.search")
QUICK = Recipe("quick", epochs=2, batch_size=32, learning_rate=0.01, validation=0.25)


@pytest.fixture
def data(rng):
    labels = np.arange(120) % 2
    images = rng.integers(0, 60, (120, 6, 6)).astype("uint8")
    images[labels == 1, :3] += 150
    return Data.from_arrays(images, labels)


def build(units=4):
    inputs = keras.Input((6, 6, 1))
    x = L.Dense(units, activation="relu", name="hidden")(L.Flatten()(L.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, L.Dense(2, activation="softmax")(x), name="tiny")


@pytest.fixture
def known(monkeypatch):
    """Instead of training, a run whose score is a known function of the recipe; gives the list of the recipes that were trained."""
    trained = []

    def fit(model, data, recipe, *, run, resume, about, **settings):
        trained.append(recipe)
        distance = abs(math.log10(recipe.learning_rate) + 2) + abs(recipe.label_smoothing - 0.2)
        run.mkdir(parents=True, exist_ok=True)
        rows = [{"epoch": 1, "seconds": 1.0}]
        text = {"status": "finished", "history": rows, "best": 1 - distance / 4, "recipe": recipe.to_dict(), **about}
        (run / "run.json").write_text(json.dumps(text))
        return Run.load(run)

    monkeypatch.setattr(module, "fit", fit)
    return trained


WIDE = {"learning_rate": ("log", 1e-4, 1e-1), "label_smoothing": ("linear", 0.0, 0.5), "batch_size": [16, 32, 64]}


def test_a_search_trains_and_finds_the_better_recipe(data, tmp_path):
    space = {"learning_rate": [1e-7, 0.02], "units": [8], "augment": [None, Augmenter([flip()])]}
    found = search(build, data, QUICK, space=space, how="grid", trials=9, folder=tmp_path / "s", verbose=0)
    assert len(found.trials) == 4 and found.recipe.learning_rate == 0.02 and found.best.score > 0.9
    assert {t.status for t in found.trials} == {"finished"}
    for trial in found.trials:
        run = Run.load(trial.folder)
        assert trial.score == max(run.history["val_accuracy"])
        assert run.about["recipe"] == trial.recipe.to_dict() and trial.recipe.augment is trial.values["augment"]
    model, _ = load_model(found.best.folder)
    assert model.get_layer("hidden").units == 8

    rows = list(csv.DictReader((tmp_path / "s" / "trials.csv").read_text().splitlines()))
    assert [float(row["score"]) for row in rows] == sorted((t.score for t in found.trials), reverse=True)
    assert str(found).splitlines()[0].split()[:3] == ["trial", "score", "learning_rate"]
    assert json.loads(json.dumps(found.to_dict()))["recipe"] == found.recipe.to_dict()
    found.plot(save=tmp_path / "trials.png")
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_a_grid_is_all_combinations(data, known, tmp_path):
    space = {"batch_size": [16, 32], "optimizer": ["sgd", "adam", "adamw"], "schedule": ["constant", "cosine"]}
    found = search(build, data, QUICK, space=space, how="grid", trials=99, folder=tmp_path / "s", verbose=0)
    tried = [tuple(t.values.values()) for t in found.trials]
    assert sorted(tried) == sorted(itertools.product(*space.values()))


@pytest.mark.parametrize("how", ["random", "grid", "bayesian", "hyperband"])
def test_a_stopped_search_goes_on_with_the_same_trials(data, known, tmp_path, monkeypatch, how):
    recipe = QUICK.replace(epochs=9)
    count, space = (5, {"learning_rate": WIDE["learning_rate"]}) if how == "bayesian" else (13, WIDE)
    settings = {"space": space, "how": how, "trials": count, "verbose": 0}
    whole = search(build, data, recipe, folder=tmp_path / "whole", **settings)
    assert len(whole.trials) == count
    assert len({json.dumps(t.values) + str(t.recipe.epochs) for t in whole.trials}) == count
    known.clear()

    own = module.fit

    def killed(*args, **more):
        if len(known) == count - 2:
            raise RuntimeError("killed")
        return own(*args, **more)

    monkeypatch.setattr(module, "fit", killed)
    with pytest.raises(RuntimeError, match="killed"):
        search(build, data, recipe, folder=tmp_path / "stopped", **settings)
    monkeypatch.setattr(module, "fit", own)
    # One more than at first: none is trained twice, and those that both have are the same.
    again = search(build, data, recipe, folder=tmp_path / "stopped", resume=True, **{**settings, "trials": count + 1})
    assert len(known) == len(again.trials) == count + 1
    assert [(t.values, t.recipe, t.score) for t in again.trials[:-1]] == [
        (t.values, t.recipe, t.score) for t in whole.trials
    ]
    with pytest.raises(InputError, match="started with another recipe"):
        search(build, data, recipe.replace(seed=1), folder=tmp_path / "stopped", resume=True, **settings)


def test_bayesian_search_goes_where_it_is_good(data, known, tmp_path):
    space = {"learning_rate": ("log", 1e-4, 1e-1)}
    found = search(build, data, QUICK, space=space, how="bayesian", trials=6, folder=tmp_path / "s", verbose=0)
    away = [abs(math.log10(t.values["learning_rate"]) + 2) for t in found.trials]
    assert max(away[3:]) < min(away[:3]) and min(away[3:]) < 0.2  # after 3 random ones


def test_hyperband_gives_the_best_third_three_times_the_epochs(data, known, tmp_path):
    space = {"learning_rate": ("log", 1e-4, 1e-1)}
    found = search(build, data, QUICK.replace(epochs=9), space=space, how="hyperband", trials=14, folder=tmp_path / "s", verbose=0)  # fmt: skip
    by_epochs = {e: [t for t in found.trials if t.recipe.epochs == e] for e in (1, 3, 9)}
    first = by_epochs[1]
    assert len(first) == 9 and first == list(found.trials[:9])
    best = sorted(first, key=lambda t: -t.score)[:3]
    promoted = [t for t in found.trials[9:] if t.values in [b.values for b in best]]
    assert {t.recipe.epochs for t in promoted} == {3, 9} and len(promoted) >= 3


def test_an_interrupted_trial_says_how_to_go_on(data, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    settings = {"space": {"learning_rate": ("log", 1e-3, 1e-1)}, "trials": 1, "verbose": 0}
    with pytest.raises(TrainingStopped, match="resume=True"):
        search(build, data, QUICK, folder=tmp_path / "s", callbacks=[Stop()], **settings)
    found = search(build, data, QUICK, folder=tmp_path / "s", resume=True, **settings)
    whole = search(build, data, QUICK, folder=tmp_path / "whole", **settings)
    assert [t.score for t in found.trials] == [t.score for t in whole.trials]
    weights = [load_model(s.best.folder)[0].get_weights() for s in (found, whole)]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_what_diverges_or_cannot_be_is_a_trial_with_score_0(data, tmp_path):
    space = {"learning_rate": [0.01, 1e30], "optimizer": ["adam", "sgd"]}
    recipe = QUICK.replace(optimizer="sgd", weight_decay=0.001, epochs=1)
    found = search(build, data, recipe, space=space, how="grid", trials=9, folder=tmp_path / "s", verbose=0)
    status = {tuple(t.values.values()): (t.status, t.score) for t in found.trials}
    assert status[1e30, "sgd"] == ("diverged", 0.0) and status[0.01, "adam"] == ("impossible", 0.0)
    assert status[0.01, "sgd"][0] == "finished" and found.recipe.optimizer == "sgd"
    with pytest.raises(InputError, match="no trial could be trained; the first one says: weight_decay"):
        search(build, data, recipe, space={"optimizer": ["adam"]}, folder=tmp_path / "none", verbose=0)


def test_bad_input_is_said_before_anything_is_written(data, known, tmp_path, monkeypatch):
    good = {"space": {"batch_size": [16, 32]}, "folder": tmp_path / "s", "verbose": 0}
    for changes, message in (
        ({"how": "annealing"}, "how is one of random, grid"),
        ({"trials": 0}, "trials is a whole number"),
        ({"space": {}}, "space is a dictionary"),
        ({"space": {"batchsize": [1]}}, "did you mean 'batch_size'"),
        ({"space": {"batch_size": []}}, "list of different values"),
        ({"space": {"batch_size": [16, 16]}}, "list of different values"),
        ({"space": {"learning_rate": ("log", 0, 1)}}, "above 0 for log"),
        ({"space": {"learning_rate": ("log", 1, 0.1)}}, "low < high"),
        ({"space": {"learning_rate": 0.1}}, "list of different values"),
        ({"space": {"epochs": [1, 2]}, "how": "hyperband"}, "chooses the epochs itself"),
    ):
        with pytest.raises(InputError, match=message):
            search(build, data, QUICK, **{**good, **changes})
    with pytest.raises(InputError, match="holds images out"):
        search(build, data, QUICK.replace(validation=0), **good)
    with pytest.raises(InputError, match="not the folder of a search"):
        search(build, data, QUICK, **good, resume=True)
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    with pytest.raises(ZooError, match=r"cnn-zoo\[search\]"):
        search(build, data, QUICK, **good)
    assert not (tmp_path / "s").exists() and not known


def test_the_command_searches_and_goes_on(tmp_path):
    import typer
    from typer.testing import CliRunner

    from cnn_zoo.commands.search import _space
    from cnn_zoo.commands.search import search as command

    assert _space("learning_rate=log:1e-4:1e-1") == ("learning_rate", ("log", 1e-4, 0.1))
    assert _space("augment=none,digits") == ("augment", [None, "digits"])
    with pytest.raises(InputError, match="--space wants"):
        _space("batch_size")
    app = typer.Typer()
    app.command()(command)
    asked = ["lenet", "--space", "learning_rate=log:1e-4:1e-2", "--trials", "1", "--recipe", "lecture", "--epochs", "1"]
    done = CliRunner().invoke(app, [*asked, "--run", str(tmp_path / "s"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found["trials"]) == 1 and 1e-4 <= found["recipe"]["learning_rate"] <= 1e-2
    assert {p.name for p in (tmp_path / "s").iterdir()} == {
        *("search.json", "trials.csv", "trials.png", "trial-000", "keras_tuner")
    }
    again = CliRunner().invoke(app, ["--resume", str(tmp_path / "s"), "--json"])
    assert again.exit_code == 0, again.output
