"""The model card: what a model is, in Markdown (Mitchell et al. 2019, "Model Cards for Model Reporting"). Facts only; what only its maker can
know has a placeholder."""

from cnn_zoo.run_report import words

LICENCE = "[TO BE FILLED IN: the licence of the model; mind those of the data and of the weights it was begun from]"
USE = "[TO BE FILLED IN: what it is meant for, by whom, and what it must not be used for]"
LISTED = 30  # classes by name; rows of the table by class


def card(report) -> str:
    """The model card of a `RunReport`."""
    facts = report.facts
    run = facts["run"]
    masks = facts["kind"] == "segmenter"
    recipe = words.recipe_rows(facts)
    parts = [
        f"# Model card: {_plain(report.name)}",
        f"A {facts['kind']} that tells {len(facts['classes']):,} classes apart{' in each pixel' if masks else ''}: {_listed(facts['classes'])}.",
        f"Licence: {LICENCE}",
        "## Model",
        _table(None, words.model_rows(facts)),
        "## Data",
        _table(None, words.data_rows(facts)),
        "## Training",
        _table(None, words.training_rows(facts)) if run else "How it was trained is not known here: the report was made of a model alone.",
        *(["Recipe:", _table(None, recipe)] if recipe else []),
        "## Scores",
        f"On the {facts['images']:,} images of the {facts['split']} split, with 95 % intervals:",
        _table(("score", "value", "95 % interval"), words.score_rows(facts)),
        *([] if masks else [words.calibration_words(facts)]),
        f"Measured on {facts['made']['at']} by `{words.measured_by(facts)}` "
        f"({', '.join(f'{name} {version}' for name, version in facts['made']['versions'].items())}).",
        "By class:",
        _by_class(facts),
        "## Intended use",
        USE,
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(facts)),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _limits(facts):
    model, masks = facts["model"], facts["kind"] == "segmenter"
    what = "pixel" if masks else "image"
    lines = [
        f"Every {what} is given one of these {len(facts['classes'])} classes, also one that is of none of them."
        if model["output"] == "softmax" or model["output_shape"][-1] > 1
        else f"Every {what} is given one of two classes.",
        f"Images must have {model['input_shape'][-1]} channel(s) and values 0 to 255.",
        f"It was measured on the data named above only: {facts['data']['source']}.",
        *facts["notes"],
    ]
    if facts["groups"] is None:
        lines.append(
            "The data name no groups (patients, slides), so whether images of one are in several splits is not known."
        )
    measure = "iou" if masks else "recall"
    rows = [(row[measure], name) for name, row in facts["per_class"].items() if row[measure] is not None]
    if len(rows) > 1:
        weakest = ", ".join(f"{_plain(name)} ({value:.3f})" for value, name in sorted(rows, key=lambda row: row[0])[:3])
        lines.append(f"Lowest {'IoU' if masks else 'recall'}: {weakest}.")
    if facts.get("most_confused"):
        pair = facts["most_confused"][0]
        lines.append(
            f"Most often confused: {_plain(pair['true'])} is taken for {_plain(pair['predicted'])} in {pair['images']:,} images "
            f"({pair['share']:.1%} of the class)."
        )
    return lines


def _by_class(facts):
    of_masks = facts["kind"] == "segmenter"
    keys = (
        ["iou", "dice", "precision", "recall", "pixels"]
        if of_masks
        else ["precision", "recall", "f1", "auc", "support"]
    )
    rows = [
        (name, *(f"{row[key]:,}" if isinstance(row[key], int) else words.number(row[key]) for key in keys))
        for name, row in facts["per_class"].items()
    ]
    more = f"\n\nand {len(rows) - LISTED:,} more classes." if len(rows) > LISTED else ""
    return _table(("class", *keys), rows[:LISTED]) + more


def _listed(names):
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(_plain(name) for name in names[:LISTED]) + more


def _table(header, rows):
    wide = len(header or rows[0])
    lines = [header or ("",) * wide, ("---",) * wide, *rows]
    return "\n".join(
        f"| {' | '.join(_plain(cell) if line is not lines[1] else cell for cell in line)} |" for line in lines
    )


def _plain(text):
    """Text that Markdown shows as it is, in one line."""
    text = " ".join(str(text).split())
    for mark in "\\`*_<>[]|#":
        text = text.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return text
