"""The page of a report."""

import json
from html import escape

import numpy as np

from cnn_zoo.html import document, drawing, figure, png, table
from cnn_zoo.run_report import words

CELLS = 24  # classes up to which the confusion matrix is a table in full; of more, the table has those that are confused most
STYLE = """
.scroll{max-height:460px;overflow:auto}.wide{overflow-x:auto}.half{display:inline-block;vertical-align:top;margin-right:28px}
.confusion td,.confusion th{padding:3px 6px;font-size:12px;text-align:right;border:1px solid #eceff2;vertical-align:middle}
.confusion td small{display:block;font-size:10px;opacity:.75}.confusion th.column{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left}
th{position:sticky;top:0;background:#fff}pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:12px}
section img{margin:6px 0;display:inline-block;vertical-align:top}
.pair{display:inline-block;vertical-align:top;margin:0 26px 10px 0}
.examples figure{max-width:120px;width:120px}td{overflow-wrap:anywhere}
"""
FIGURES = {
    "curves": "loss and score by epoch",
    "confusion": "confusion matrix",
    "roc": "ROC curves",
    "precision_recall": "precision-recall curves",
    "reliability": "reliability diagram",
    "iou": "IoU by class",
    "worst": "worst images",
    "best": "best images",
}


def page(report) -> str:
    """The HTML of a `RunReport`."""
    facts = report.facts
    body = _segmenter(report) if facts["kind"] == "segmenter" else _classifier(report)
    groups = "" if facts["groups"] is None else f" of {facts['groups']:,} groups"
    return document(f"Report: {report.name}", [
        f"<h1>{escape(report.name)}</h1>",
        f'<p class="dim">A {facts["kind"]} of {len(facts["classes"]):,} classes, measured on the {facts["images"]:,} images{groups} '
        f"of the {facts['split']} split of {escape(facts['data']['name'])}.</p>",
        *(f'<div class="finding"><p>{escape(note)}</p></div>' for note in facts["notes"]),
        _section("Scores", table(("score", "value", "95 % interval"), words.score_rows(facts), numbers=(1,)), _how(facts)),
        *body,
        _section("Training", _drawn(report, "curves"), table(None, words.training_rows(facts))) if facts["run"] else "",
        _section("Settings", _halves(facts)),
        _section("Data", table(None, words.data_rows(facts)), _details("all that is known of the data", facts["data"])),
    ], STYLE)  # fmt: skip


def _classifier(report):
    facts = report.facts
    rows = [
        (name, words.number(row["precision"]), words.number(row["recall"]), words.number(row["f1"]), words.number(row["auc"]),
         words.number(row["average_precision"]), f"{row['support']:,}")
        for name, row in facts["per_class"].items()
    ]  # fmt: skip
    header = ("class", "precision", "recall", "F1", "AUC", "average precision", "images")
    return [
        _section("By class", f'<div class="scroll">{table(header, rows, numbers=range(1, 7))}</div>'),
        _section("Confusion matrix", _confusion(report)),
        _section("Most confused classes", _confused(report)),
        _section("Worst examples", _dim("The images whose true class has the lowest probability."), _examples(report, "worst")),
        _section("Best examples", _dim("Rightly classified images with the highest probability, a few of each class."), _examples(report, "best")),
        _section("ROC and precision-recall curves", _dim("One class against the rest, by scikit-learn."),
                 _drawn(report, "roc", "precision_recall") or "<p>Not defined: no class has images beside images of other classes.</p>"),
        _section("Calibration", _calibration(facts), _drawn(report, "reliability")),
    ]  # fmt: skip


def _segmenter(report):
    facts = report.facts
    rows = [
        (name, words.number(row["iou"]), words.interval(row["iou_95"]), words.number(row["dice"]), words.number(row["precision"]),
         words.number(row["recall"]), f"{row['pixels']:,}")
        for name, row in facts["per_class"].items()
    ]  # fmt: skip
    header = ("class", "IoU", "95 % interval", "Dice", "precision", "recall", "pixels")
    each = sorted(facts["per_image"], key=lambda row: 2 if row["mean_iou"] is None else row["mean_iou"])
    images = table(("image", "mean IoU"), [(row["image"], words.number(row["mean_iou"])) for row in each], numbers=(1,))
    return [
        _section("By class", f'<div class="scroll">{table(header, rows, numbers=(1, 3, 4, 5, 6))}</div>', _drawn(report, "iou")),
        _section("Confusion matrix", _confusion(report)),
        _section("Worst images", _dim("Those with the lowest mean IoU."), _drawn(report, "worst")),
        _section("Best images", _drawn(report, "best")) if "best" in report.figures else "",
        _section("By image", f"<details><summary>mean IoU of each</summary><div class=scroll>{images}</div></details>"),
    ]  # fmt: skip


def _confusion(report):
    facts = report.facts
    confusion, names = np.array(facts["confusion"]), facts["classes"]
    unit = "pixels" if facts["kind"] == "segmenter" else "images"
    wrong = confusion - np.diag(confusion.diagonal())
    chosen = np.arange(len(names))
    said = f"Row: true class; column: predicted class. Number of {unit}, and share of the true class."
    drawn = ""
    if len(names) > CELLS:
        chosen = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:CELLS])
        drawn = _drawn(report, "confusion")
        said += f" Of the {len(names):,} classes the table has the {CELLS} that are confused most."
    total = np.maximum(confusion.sum(1), 1)
    upright = len(chosen) <= 6 or max(len(names[j]) for j in chosen) <= 4
    head = "".join(f"<th{'' if upright else ' class=column'}>{escape(_short(names[j]))}</th>" for j in chosen)
    rows = []
    for i in chosen:
        cells = []
        for j in chosen:
            share = confusion[i, j] / total[i]
            color = "72,145,92" if i == j else "194,47,47"
            style = f"background:rgba({color},{share**0.5 * 0.75:.2f})" if confusion[i, j] else "color:#c3c8ce"
            title = f"{names[i]} taken for {names[j]}: {confusion[i, j]:,} ({share:.2%})"
            shown = f"{_count(confusion[i, j])}<small>{share:.1%}</small>" if confusion[i, j] else "0"
            cells.append(f'<td style="{style}" title="{escape(title)}">{shown}</td>')
        rows.append(f"<tr><th>{escape(_short(names[i]))}</th>{''.join(cells)}</tr>")
    grid = f'<div class="wide"><table class="confusion"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
    return f"{_dim(said)}{grid}{drawn}"


def _confused(report):
    pairs = report.facts["most_confused"]
    if not pairs:
        return "<p>None: every image is classified rightly.</p>"
    sets = []
    for place, pair in enumerate(pairs):
        said = f"<b>{escape(pair['true'])}</b> taken for <b>{escape(pair['predicted'])}</b>"
        said += f": {pair['images']:,} ({pair['share']:.1%} of the class)"
        sets.append(f'<div class="pair">{said}<br>{_examples(report, f"confused {place}")}</div>')
    return "".join(sets)


def _calibration(facts):
    found = facts["calibration"]
    rows = [
        (
            words.NAMES[key],
            words.number(found["before"][key]),
            words.number(found["after"][key]) if found["after"] else "-",
        )
        for key in ("ece", "brier", "nll")
    ]
    said = f"{found['bins']} bins; {found['source']}."
    scores = table(("", "as it is", "with temperature"), rows, numbers=(1, 2))
    return scores + f"<p>{escape(words.calibration_words(facts))}</p>" + _dim(said)


def _how(facts):
    anew = "groups" if facts["groups"] is not None else "images"
    if facts["kind"] == "segmenter":
        return _dim(
            f"Intervals: bootstrap, {anew} drawn anew 1,000 times. Scores are of the pixels of all images together."
        )
    return _dim(
        f"Intervals: Wilson's of the accuracy where it says so; the others by the bootstrap, {anew} drawn anew 1,000 times "
        "(the middle 95 %; of the ECE mirrored at its value, since drawing anew makes it larger)."
    )


def _halves(facts):
    halves = [("Model", words.model_rows(facts)), ("Recipe", words.recipe_rows(facts))]
    halves.append(("This report", [
        ("made", facts["made"]["at"]), ("by", words.measured_by(facts)),
        *((name, version) for name, version in facts["made"]["versions"].items()),
    ]))  # fmt: skip
    return "".join(f'<div class="half"><h3>{what}</h3>{table(None, rows)}</div>' for what, rows in halves if rows)


def _examples(report, what):
    return f'<div class="examples">{"".join(figure(png(picture), caption, 120) for picture, caption in report.examples[what])}</div>'


def _drawn(report, *names):
    return "".join(drawing(report.figures[name], FIGURES[name]) for name in names if name in report.figures)


def _section(title, *parts):
    return f"<h2>{title}</h2><section>{''.join(parts)}</section>"


def _dim(text):
    return f'<p class="dim">{escape(text)}</p>'


def _details(what, values):
    return f"<details><summary>{what}</summary><pre>{escape(json.dumps(values, indent=1))}</pre></details>"


def _short(name):
    return name if len(name) <= 24 else f"{name[:23]}…"


def _count(value):
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:,}"
