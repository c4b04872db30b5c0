"""`report`: everything that is worth knowing of a training, measured on images that it did not see."""

import datetime
import math
from dataclasses import dataclass, field
from pathlib import Path

import keras

from cnn_zoo.data import Data, Split
from cnn_zoo.errors import InputError
from cnn_zoo.files import replacing
from cnn_zoo.outputs import is_segmenter, output_kind
from cnn_zoo.plots import Picture, curves
from cnn_zoo.reopening import held_out_as_in, reopen
from cnn_zoo.train import Run, load_model
from cnn_zoo.train.run import environment

SPLITS = ("test", "validation", "train")
SETTINGS = ("status", "started", "command", "backend", "platform", "cpus", "epoch", "best_epoch", "recipe", "versions")


@dataclass(frozen=True)
class RunReport:
    """What a training has led to.

    Attributes:
        name: Of the run, or of the model.
        facts: All numbers and sentences, as plain values; `to_dict()` gives them.
        figures: The pictures by name: curves, confusion, roc, precision_recall, reliability; of masks iou, worst, best.
        examples: Small pictures of a classifier's images: "worst", "best" and "confused" -> `(picture, caption)` pairs.
    """

    name: str
    facts: dict
    figures: dict[str, Picture] = field(repr=False)
    examples: dict = field(repr=False)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return self.facts

    def card(self) -> str:
        """The model card, as Markdown."""
        from cnn_zoo.run_report.card import card

        return card(self)

    def to_html(self, path) -> Path:
        """Write one HTML file that needs no other file and no network, and the model card beside it: `report.html` and `report.md`.

        Raises:
            InputError: `path` does not end in .html.
            StorageError: It cannot be written; what stood there still stands.
        """
        from cnn_zoo.run_report.page import page

        path = check_out(path)
        texts = {path.with_suffix(".md"): self.card(), path: page(self)}
        for target, text in texts.items():
            with replacing(target) as aside:
                aside.write_text(text, encoding="utf-8")
        return path

    def __str__(self):
        from cnn_zoo.run_report.words import calibration_words, score_rows

        lines = [f"{self.name}: {self.facts['images']:,} images of the {self.facts['split']} split"]
        lines += [f"  {name:36} {value}  {ends}".rstrip() for name, value, ends in score_rows(self.facts)]
        if "calibration" in self.facts:
            lines.append(calibration_words(self.facts))
        return "\n".join([*lines, *self.facts["notes"]])


def report(run, data: Data | None = None, *, split: str = "test", model=None, out=None) -> RunReport:
    """Measure a trained classifier or segmenter, and put together what is known of it.

    Scores come with 95 % intervals: Wilson's of the accuracy, of others by drawing the images (or, where the data have groups, whole groups)
    anew 1,000 times. The temperature of a classifier is fitted on the validation split.

    Args:
        run: A run folder or a `Run`, of which the model of the best epoch is taken; or a Keras model.
        data: The data; default: those of the run, opened again as its run.json says.
        split: Which part of them is looked at: "test", "validation" or "train".
        model: Instead of the one in the run folder, for layers of your own that Keras cannot load.
        out: HTML file to write; the model card goes beside it, with the suffix .md.

    Returns:
        A `RunReport`: `print(report)`, `report.to_html(path)`, `report.card()`, `report.to_dict()`.

    Raises:
        InputError: No such run, data that do not fit it, no such split, a model without data, or another suffix than .html.
        DataError: The data of the run are no longer where they were.
        StorageError: `out` cannot be written.
    """
    if out is not None:
        check_out(out)
    if split not in SPLITS:
        raise InputError(f"split is one of {', '.join(SPLITS)}, not {split!r}")
    file, classes, found = None, None, None
    if isinstance(run, keras.Model):
        if model is not None:
            raise InputError("two models are given: a model in the place of the run needs no model=")
        model = run
    else:
        found = run if isinstance(run, Run) else Run.load(run)
        classes = found.about.get("classes")
        if model is None:
            model, classes = load_model(found.folder)
            file = next(name for name in ("best.keras", "last.keras") if (found.folder / name).is_file())
    masks = is_segmenter(model)
    data = _data(found, data, model)
    looked_at = getattr(data, split)
    if looked_at is None or not len(looked_at):
        there = [name for name in SPLITS if getattr(data, name) is not None and len(getattr(data, name))]
        raise InputError(f"the data have no {split} split: choose one of {', '.join(there)}, or hold one out")
    classes = check_classes(classes, data)
    described = data.describe()
    facts = {
        "name": found.folder.resolve().name if found else model.name,
        "kind": "segmenter" if masks else "classifier",
        "split": split,
        "images": len(looked_at),
        "groups": None if looked_at.groups is None else len(set(looked_at.groups.tolist())),
        "classes": list(classes),
        "made": {"at": datetime.date.today().isoformat(), "versions": environment()["versions"], "command": None},
        "model": _describe_model(model, file),
        "run": None if found is None else {key: found.about.get(key) for key in SETTINGS} | {"seconds": found.seconds},
        "data": described,
        "notes": [],
    }
    if found is not None:
        facts["notes"] += _about_the_split(found.about.get("data"), described, split)
    if masks:
        from cnn_zoo.run_report import segmenter as look
    else:
        from cnn_zoo.run_report import classifier as look
    held_out = None if split == "validation" else data.validation
    more, figures, examples = look.look(model, looked_at, held_out, classes, data.ignore)
    facts["notes"] += more.pop("notes")
    if found is not None and found.rows:
        figures = {"curves": curves(found), **figures}
    done = RunReport(facts["name"], {**facts, **more}, figures, examples)
    if out is not None:
        done.to_html(out)
    return done


def name_of(split: Split, i: int) -> str:
    """What image i is called."""
    if split.names is not None:
        return str(split.names[i])
    paths = getattr(split.images, "paths", None)
    return f"image {i}" if paths is None else Path(paths[i]).name


def check_out(path) -> Path:
    """The path of a page; InputError for another suffix."""
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise InputError(f"the report is written as .html, not {str(path)!r}")
    return path


def _data(run, data, model):
    if data is None:
        if run is None:
            raise InputError("a model alone does not say what to measure it on: give data=")
        data = reopen(run, model.input_shape[1:3])
    if not isinstance(data, Data):
        raise InputError(f"data is a Data (of cnn_zoo.load or Data.from_arrays), not {type(data).__name__}")
    return data if run is None else held_out_as_in(run, data)


def check_classes(classes, data) -> tuple[str, ...]:
    """The names of the classes; InputError where a model and its data order them in different ways."""
    if classes is None or tuple(classes) == data.classes:
        return data.classes
    if len(classes) != len(data.classes):
        raise InputError(f"the run tells {len(classes)} classes apart and the data have {len(data.classes)}")
    at = next(i for i, (one, other) in enumerate(zip(classes, data.classes)) if one != other)
    raise InputError(
        f"class {at} is {classes[at]!r} in the run and {data.classes[at]!r} in the data: give the data with the classes of the run, in its order"
    )


def _describe_model(model, file):
    def count(variables):
        return int(sum(math.prod(variable.shape) for variable in variables))

    return {
        "name": model.name,
        "file": file,
        "layers": len(model.layers),
        "parameters": count(model.weights),
        "trainable_parameters": count(model.trainable_variables),
        "input_shape": list(model.input_shape[1:]),
        "output_shape": list(model.output_shape[1:]),
        "output": output_kind(model),
        "normalises": any(layer.name == "preprocess" for layer in model.layers),
    }


def _about_the_split(then, now, split):
    """What is to be said of the images, where a run describes what it was trained on."""
    if not isinstance(then, dict) or "train" not in then:
        return ["The run does not say which images it was trained on: whether those of this report were among them is not known."]  # fmt: skip
    parts = [part for part in SPLITS if part in then and then[part].get("sha256") != now.get(part, {}).get("sha256")]
    notes = []
    if split == "train":
        notes = ["The images of this report are those that the model was trained on: the scores say nothing of others."]
    elif split == "validation":
        notes = ["The best epoch was chosen by the images of this report: the scores are a little too good."]
    if parts:
        notes.append(
            f"The data are not those of the training: by SHA-256, other images, labels or rules in {', '.join(parts)}."
        )
    return notes
