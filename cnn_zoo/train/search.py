"""`search`: which recipe is best? Random, grid, Bayesian and Hyperband search, by KerasTuner's oracles; each trial is a `fit` with a run folder.

search.json     what is searched
trial-000/...   the run folder of each trial
keras_tuner/    what KerasTuner's oracle keeps, for its own tools
trials.csv      the table, best first

An interrupted search goes on by asking a new oracle with the same seed again and telling it the scores that the run folders hold: KerasTuner's files
are not used for that, since they lack the state of its grid search and the random state of its Bayesian search (1.4.8).
"""

import contextlib
import difflib
import inspect
import json
import math
import shutil
import warnings
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

import keras
import numpy as np

from cnn_zoo import plots
from cnn_zoo.data import Data
from cnn_zoo.errors import InputError, TrainingStopped, require
from cnn_zoo.files import make_folder
from cnn_zoo.train.fit import fit
from cnn_zoo.train.recipe import Recipe
from cnn_zoo.train.recipe import recipe as find_recipe
from cnn_zoo.train.run import Run, check_new, write_history, write_text

WAYS = ("random", "grid", "bayesian", "hyperband")
ENDED = ("finished", "stopped early", "diverged")


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: From 0.
        values: What was tried: name -> value.
        score: The best validation accuracy (masks: mean IoU) of its epochs; 0 where it diverged or the values do not go together.
        status: "finished", "stopped early", "diverged", or "impossible": the message of the recipe is in `why`.
        recipe: The whole recipe, or None where there is none.
        folder: Its run folder.
        seconds: Of training.
        why: See `status`.
    """

    number: int
    values: dict
    score: float
    status: str
    recipe: Recipe | None
    folder: Path
    seconds: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Search:
    """What was tried, and what was best.

    Attributes:
        folder: Where everything lies.
        how: The way.
        space: What was searched.
        trials: In the order in which they were made.
    """

    folder: Path
    how: str
    space: dict
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial with the highest score, of equals the first; its model is `load_model(search.best.folder)`."""
        return self.ranked[0]

    @property
    def ranked(self) -> list[Trial]:
        """All trials, best first."""
        return sorted(self.trials, key=lambda trial: -trial.score)

    @property
    def recipe(self) -> Recipe:
        """The best recipe."""
        return self.best.recipe

    def rows(self) -> list[dict]:
        """The table, best first."""
        return [
            {
                "trial": t.number, "score": t.score, **{key: _plain(value) for key, value in t.values.items()},
                "epochs": t.recipe.epochs if t.recipe else 0, "seconds": round(t.seconds, 1), "status": t.status,
            }
            for t in self.ranked
        ]  # fmt: skip

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {"folder": str(self.folder), "how": self.how, "recipe": self.recipe.to_dict(), "trials": self.rows()}

    def __str__(self):
        rows = [{key: _short(value) for key, value in row.items()} for row in self.rows()]
        wide = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
        lines = ["  ".join(f"{key:>{wide[key]}}" for key in wide)]
        lines += ["  ".join(f"{row[key]:>{wide[key]}}" for key in wide) for row in rows]
        return "\n".join(lines)

    def plot(self, save=None) -> plots.Picture:
        """The scores in the order of the trials with the best so far, and against each thing that was searched.

        Args:
            save: PNG file to write.
        """
        figure = plots.Picture(figsize=(4.5 + 2.6 * len(self.space), 3.4), layout="constrained")
        first, *others = figure.subplots(1, 1 + len(self.space), sharey=True, squeeze=False)[0]
        scores = [t.score for t in self.trials]
        first.plot([t.number for t in self.trials], scores, "o", color=plots.TRAINING, markersize=4)
        first.step([t.number for t in self.trials], np.maximum.accumulate(scores), where="post", color=plots.VALIDATION)
        first.set(title="Trials (line: best so far)", xlabel="trial", ylabel="validation score")
        for axes, (name, spec) in zip(others, self.space.items()):
            values = [t.values[name] for t in self.trials]
            if isinstance(spec, list):
                values = [spec.index(value) for value in values]
                axes.set_xticks(range(len(spec)), [_short(_plain(value)) for value in spec])
            elif spec[0] == "log":
                axes.set_xscale("log")
            axes.plot(values, scores, "o", color=plots.TRAINING, markersize=4, alpha=0.7)
            axes.plot(values[self.trials.index(self.best)], self.best.score, "*", color=plots.VALIDATION, markersize=12)
            axes.set(xlabel=name)
        for axes in (first, *others):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        return plots.finish(figure, save)


def search(
    build,
    data,
    recipe: str | Recipe = "best",
    *,
    space: dict,
    how: str = "random",
    trials: int = 20,
    folder=None,
    resume: bool = False,
    validation=None,
    callbacks=(),
    verbose="auto",
    about: dict | None = None,
) -> Search:
    """Try values of a recipe's fields, and of what builds the model, and say which validate best.

    Args:
        build: A function that gives a new model: `build()`, or with what of `space` is no field of a recipe, such as `build(dropout=0.3)`.
        data: As for `fit`.
        recipe: What is not searched.
        space: Name -> a list of values to choose from, which may be anything that the recipe takes, or `("linear", low, high)` or
            `("log", low, high)`, whole numbers if both ends are. Example: `{"learning_rate": ("log", 1e-4, 1e-1), "batch_size": [16, 32]}`.
        how: "random"; "grid": all combinations, of a range ten values; "bayesian": where a Gaussian process expects the best (upper confidence
            bound), after three random trials a dimension; "hyperband": many trials of few epochs, of which a third goes on to three times as many,
            up to the recipe's epochs (Li et al. 2018, algorithm 1; each trial begins anew, so that its schedule is that of its epochs).
        trials: Trainings at most. Fewer are made where the space is exhausted.
        folder: Where all goes. Default: `runs/search-<time>`.
        resume: Go on with the search in that folder; `trials` may have been raised. It ends with the same trials as one that never stopped.
        validation, callbacks, verbose: As for `fit`.
        about: Anything worth keeping in search.json, as plain values.

    Returns:
        The `Search`. All trials start from the seed of their recipe, and the search itself from that of `recipe`.

    Raises:
        MissingExtraError: KerasTuner is not installed.
        InputError: A space that is none, a name that is neither a field of a recipe nor an argument of `build`, a folder in use, a resume that
            differs from what was started, no trial that could be trained, or as for `fit`.
        StorageError, TrainingStopped: As for `fit`; a trial that diverges does not stop the search.
    """
    recipe = find_recipe(recipe)
    _check(build, data, recipe, space, how, trials, validation)
    tuner_package = require("keras_tuner", "search")
    folder = Path(folder or Path("runs") / f"search-{datetime.now():%Y%m%d-%H%M%S}")
    described = {name: [_plain(v) for v in spec] for name, spec in space.items()}
    settings = {"how": how, "space": described, "recipe": recipe.to_dict()}
    settings["data"] = data.describe() if isinstance(data, Data) else str(getattr(data, "element_spec", None))
    _open(folder, settings, trials, resume, about)

    tuner, done = _tuner(tuner_package, recipe, space, how, trials, folder), []
    while len(done) < trials:
        with _quiet():
            asked = tuner.oracle.create_trial("tuner0")
        if asked.status != "RUNNING":
            break
        done.append(
            _run(asked, len(done), build, data, recipe, space, folder, resume, validation, callbacks, verbose, trials)
        )
        with _quiet():
            tuner.oracle.update_trial(asked.trial_id, {"score": done[-1].score})
            asked.status = "COMPLETED"
            tuner.oracle.end_trial(asked)
    if all(trial.status == "impossible" for trial in done):
        raise InputError(f"no trial could be trained; the first one says: {done[0].why}")
    found = Search(folder, how, dict(space), tuple(done))
    write_history(folder / "trials.csv", found.rows())
    return found


def _run(asked, number, build, data, recipe, space, folder, resume, validation, callbacks, verbose, trials):
    """One trial: taken from its run folder if it has ended, else trained."""
    tried = asked.hyperparameters.values
    values = {name: spec[tried[name]] if isinstance(spec, list) else tried[name] for name, spec in space.items()}
    of_recipe = {name: value for name, value in values.items() if name in _recipe_fields()}
    if "tuner/epochs" in tried:
        of_recipe["epochs"] = tried["tuner/epochs"]
    run, options = folder / f"trial-{number:03}", {name: v for name, v in values.items() if name not in of_recipe}
    said = ", ".join(f"{name}={_short(_plain(value))}" for name, value in values.items())
    try:
        chosen = recipe.replace(**of_recipe)
    except InputError as error:
        if verbose:
            print(f"trial {number + 1} of {trials}: {said}: {error}")
        return Trial(number, values, 0.0, "impossible", None, run, why=str(error))
    begun = resume and (run / "run.json").is_file()
    if begun:
        kept = Run.load(run)
        if kept.about.get("search") != {"values": json.loads(json.dumps({k: _plain(v) for k, v in values.items()}))}:
            raise InputError(
                f"{str(run)!r} has tried other values than {said}: it was made by another KerasTuner; start a new search"
            )
        if kept.status in ENDED:
            return _trial(kept, number, values, chosen)
    else:
        shutil.rmtree(run, ignore_errors=True)  # killed before its first file was whole
    if verbose:
        print(f"trial {number + 1} of {trials}: {said}, {chosen.epochs} epochs")
    keras.utils.set_random_seed(chosen.seed)
    plain = {name: _plain(value) for name, value in values.items()}
    try:
        fit(
            build(**options), data, chosen, validation=validation, run=run, resume=begun, callbacks=callbacks, verbose=verbose,
            about={"search": {"values": plain}},
        )  # fmt: skip
    except TrainingStopped as stopped:
        if Run.load(run).status != "diverged":
            raise TrainingStopped(
                f"interrupted in trial {number + 1} of {trials}; go on with search(..., folder={str(folder)!r}, resume=True) or "
                f"`cnn-zoo search --resume {folder}`"
            ) from stopped
    return _trial(Run.load(run), number, values, chosen)


def _trial(run, number, values, recipe):
    score = 0.0 if run.status == "diverged" else float(run.about["best"])
    return Trial(number, values, score, run.status, recipe, run.folder, run.seconds)


def _tuner(package, recipe, space, how, trials, folder):
    """KerasTuner's oracle, in the tuner that gives it a folder."""
    hyperparameters = package.HyperParameters()
    for name, spec in space.items():
        if isinstance(spec, list):  # by their places, since KerasTuner's own choices are texts or numbers of one kind
            hyperparameters.Choice(name, list(range(len(spec))))
        else:
            kind, low, high = spec
            number = hyperparameters.Int if _whole(low) and _whole(high) else hyperparameters.Float
            number(name, low, high, sampling=kind)
    oracles = package.oracles
    settings = {
        "objective": package.Objective("score", "max"), "hyperparameters": hyperparameters, "allow_new_entries": False,
        "tune_new_entries": False, "seed": recipe.seed + 1,  # 0 would be a random one
    }  # fmt: skip
    if how == "hyperband":
        oracle = oracles.HyperbandOracle(max_epochs=recipe.epochs, hyperband_iterations=None, **settings)
    else:
        of = {"random": "RandomSearchOracle", "grid": "GridSearchOracle", "bayesian": "BayesianOptimizationOracle"}[how]
        oracle = getattr(oracles, of)(max_trials=trials, **settings)
    oracle.verbose = 0
    with _quiet():
        base = require("keras_tuner.engine.base_tuner", "search").BaseTuner
        return base(oracle, directory=str(folder), project_name="keras_tuner", overwrite=True)


@contextlib.contextmanager
def _quiet():
    """KerasTuner 1.4.8 calls what Python deprecates, and scikit-learn's Gaussian process warns where few trials tell it little."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(folder, settings, trials, resume, about):
    path = folder / "search.json"
    if not resume:
        check_new(folder, "search")
        make_folder(folder)
        write_text(path, json.dumps({**settings, "trials": trials, "about": about or {}}, indent=2))
        return
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{str(folder)!r} is not the folder of a search: it has no search.json") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} is damaged ({error}): start a new search") from error
    now = json.loads(json.dumps(settings))
    changes = Recipe.from_dict(now.pop("recipe")).changes_since(kept["recipe"])
    changed = [f"another {key}" for key in now if kept.get(key) != now[key]]
    changed += [f"another recipe ({', '.join(changes.values())})"] if changes else []
    if changed:
        raise InputError(f"cannot resume {str(folder)!r}, since it was started with {' and '.join(changed)}")


def _check(build, data, recipe, space, how, trials, validation):
    if how not in WAYS:
        raise InputError(f"how is one of {', '.join(WAYS)}, not {how!r}")
    if not _whole(trials) or trials < 1:
        raise InputError(f"trials is a whole number of at least 1, not {trials!r}")
    held = recipe.validation or data.validation is not None if isinstance(data, Data) else validation is not None
    if not held:
        raise InputError(
            "trials are compared by their validation score: give a recipe that holds images out, or validation="
        )
    if not isinstance(space, dict) or not space:
        raise InputError(f"space is a dictionary such as {{'learning_rate': ('log', 1e-4, 1e-1)}}, not {space!r}")
    takes = inspect.signature(build).parameters.values()
    options = [p.name for p in takes if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    anything = any(p.kind is p.VAR_KEYWORD for p in takes)
    known = [*_recipe_fields(), *options]
    for name, spec in space.items():
        if name not in known and not anything:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(f"{name!r} is neither a field of a recipe nor an argument of build{hint}")
        if name == "epochs" and how == "hyperband":
            raise InputError(
                "hyperband chooses the epochs itself, up to those of the recipe: leave them out of the space"
            )
        if isinstance(spec, list) and spec and not any(spec[i] in spec[:i] for i in range(len(spec))):
            continue
        good = isinstance(spec, tuple) and len(spec) == 3 and spec[0] in ("linear", "log")
        good = good and all(
            isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in spec[1:]
        )
        if not good or spec[1] >= spec[2] or (spec[0] == "log" and spec[1] <= 0):
            raise InputError(
                f"the space of {name!r} must be a list of different values, or ('linear', low, high) or ('log', low, high) with low < high, "
                f"above 0 for log, not {spec!r}"
            )


def _recipe_fields():
    return [field.name for field in fields(Recipe)]


def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(value):
    """For JSON and tables."""
    return value.describe() if hasattr(value, "describe") else value


def _short(value):
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 28 else f"{text[:27]}…"
