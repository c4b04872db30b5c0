"""The data that a run of `cnn-zoo train` or `finetune` was trained on, opened again; or other data, read by the same rules."""

import dataclasses
from pathlib import Path

from cnn_zoo.errors import DataError, InputError


def place(data: str) -> str:
    """A path as one that holds wherever the program is started; a name stays."""
    from cnn_zoo.data import DATASETS

    known = data in DATASETS or data.startswith("tfds:")
    return str(Path(data).expanduser().resolve()) if not known and Path(data).expanduser().exists() else data


def settings_of(run) -> dict:
    """What `cnn-zoo train` was told when it began a `Run`.

    Raises:
        InputError: The run was begun otherwise.
    """
    settings = run.about.get("train")
    if not settings or "data" not in settings:
        raise InputError(f"{str(run.folder)!r} was not begun by `cnn-zoo train`, so it is not known what data to open")
    if "data_options" in settings:
        return settings
    size = run.about["model"]["input_shape"][:2]  # a run from before there were options for data
    options = {} if None in size else {"size": list(size)}
    if options and settings.get("resize") == "pad":
        options["how"] = "crop"
    return {**settings, "data_options": options}


def open_settings(settings: dict):
    """The data that the settings of a command name."""
    from cnn_zoo.commands import values
    from cnn_zoo.data import open_data

    return open_data(settings["data"], data_dir=settings["data_dir"], **values.read(settings["data_options"]))


def reopen(run, size, *, data: str | None = None, data_dir=None, options: dict | None = None, classes=None):
    """The data of a run; or others, read as those were. `held_out_as_in` then gives them the validation split of the training.

    Of other data the test part is what they have, or what the options hold out; with neither, there is none.

    Args:
        run: A `Run`, or None where the data are named.
        size: Height and width that the model takes; None for a side that may be any.
        data: What `open_data` takes; default the data of the run.
        data_dir: Folder of data by name, where it is not that of the training.
        options: More arguments of `open_data`, as `cnn_zoo.commands.values.data_options` gives them; they go before those of the training.
        classes: Names in the order of the model's ids; default those of the run.

    Raises:
        InputError: The run was not begun by `cnn-zoo train` or `finetune`, and no data are named.
        DataError: They are not there, or are not what they were.
    """
    from cnn_zoo.data.opening import TAKES, kind_of

    given = options or {}
    if run is None and data is None:
        raise InputError("no run is given, so it is not known what data to open: give data= (--data)")
    begun = {} if run is None else run.about.get("train") or run.about.get("finetune") or {}
    if data is None or place(data) == begun.get("data"):
        settings = begun if "data_options" in begun else settings_of(run)
        data, options = settings["data"], {**settings["data_options"], **given}
        data_dir = data_dir or settings["data_dir"]
    else:
        rules = {} if run is None else run.image_rules
        classes = classes or (None if run is None else run.about.get("classes"))
        told = {
            "test": None if "split" in given else 0.0,
            "size": None if None in size else list(size),
            "how": rules["size"].how if "size" in rules and None not in size else None,
            "classes": list(classes) if classes else None,
            "intensity": rules["intensity"].describe() if "intensity" in rules else None,
        }
        data = place(data)
        takes = TAKES[kind_of(data, given.get("kind"), given)]
        options = {name: value for name, value in told.items() if value is not None and name in takes} | given
    where = str(Path(data_dir).resolve()) if data_dir else None
    return open_settings({"data": data, "data_dir": where, "data_options": options})


def held_out_as_in(run, data):
    """The data with the validation split that `fit` held out, if they are the data of that training; others as they are."""
    recipe, then = run.about.get("recipe") or {}, run.about.get("data", {}).get("validation")
    if data.validation is not None or then is None or not recipe.get("validation"):
        return data
    try:
        held = data.split(recipe["validation"], recipe["seed"])
    except DataError:  # a class of other data may be too small for it
        return data
    now = dataclasses.replace(held, train=held.validation, validation=None, test=None).describe()["train"]
    return held if now["sha256"] == then["sha256"] else data
