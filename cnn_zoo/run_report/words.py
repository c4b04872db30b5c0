"""The facts of a report in words, for the page and the card alike."""

import json

NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_auc": "area under ROC curve (AUC), macro",
    "micro_auc": "area under ROC curve (AUC), micro",
    "macro_average_precision": "average precision, macro",
    "micro_average_precision": "average precision, micro",
    "ece": "expected calibration error (ECE)",
    "brier": "Brier score (0 to 2)",
    "nll": "negative log-likelihood, nats",
    "mean_iou": "mean IoU",
    "mean_dice": "mean Dice",
    "mean_recall": "mean recall",
    "pixel_accuracy": "pixel accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
}
PARTS = ("train", "validation", "test")


def number(value) -> str:
    """Four places, six where four would say 1 of what is less; a dash for what is not defined."""
    return "-" if value is None else f"{value:.6f}" if 0.9999 < value < 1 else f"{value:.4f}"


def interval(ends) -> str:
    """`0.9012 to 0.9345`, or nothing."""
    return "" if ends is None else " to ".join(map(number, ends))


def shape(sizes) -> str:
    """`28 x 28 x 1`; a side that may be any is "any"."""
    return " x ".join("any" if side is None else str(side) for side in sizes)


def score_rows(facts) -> list[tuple[str, str, str]]:
    """Name, value and interval of each score."""
    rows = []
    for key, score in facts["scores"].items():
        ends = interval(score.get("interval_95"))
        how = f" ({score['interval']})" if ends and "interval" in score else ""
        rows.append((NAMES[key], number(score["value"]), ends + how))
    return rows


def data_rows(facts) -> list[tuple[str, str]]:
    """What the data are: by name, rule and hash."""
    data = facts["data"]
    rows = [
        ("name", data["name"]),
        ("from, and by which rule", data["source"]),
        ("images", f"{shape(data['image_shape'])}, {data['dtype']}"),
    ]
    if data.get("ignore"):
        rows.append(("ids without a class", ", ".join(map(str, data["ignore"]))))
    for part in PARTS:
        if part in data:
            groups = f" of {data[part]['groups']:,} groups" if "groups" in data[part] else ""
            rows.append((part, f"{data[part]['images']:,} images{groups}, SHA-256 {data[part]['sha256']}"))
    return rows


def model_rows(facts) -> list[tuple[str, str]]:
    """What the model is."""
    model = facts["model"]
    rows = [
        ("name", model["name"]),
        ("layers", f"{model['layers']:,}"),
        ("parameters", f"{model['parameters']:,}, of which {model['trainable_parameters']:,} can be trained"),
        ("input", f"{shape(model['input_shape'])}, values 0 to 255" + (", normalised by its first layer" if model["normalises"] else "")),
        ("output", f"{shape(model['output_shape'])}, {model['output']}"),
    ]  # fmt: skip
    if model["file"]:
        epoch = (facts["run"] or {}).get("best_epoch" if model["file"] == "best.keras" else "epoch")
        rows.insert(1, ("file", model["file"] + (f", after epoch {epoch}" if epoch else "")))
    return rows


def training_rows(facts) -> list[tuple[str, str]]:
    """How it was trained; nothing where that is not known."""
    run = facts["run"]
    if run is None:
        return []
    rows = [("status", run["status"]), ("epochs", f"{run['epoch']:,}, {run['seconds']:,.0f} seconds of training")]
    rows += [(key, run[key]) for key in ("started", "command", "backend", "platform", "cpus") if run[key] is not None]
    if run["versions"]:
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())))
    return rows


def recipe_rows(facts) -> list[tuple[str, str]]:
    """The fields of the recipe; nothing where it is not known."""
    recipe = (facts["run"] or {}).get("recipe") or {}
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in recipe.items()]


def measured_by(facts) -> str:
    """By what the numbers of the report were made, as code."""
    return facts["made"]["command"] or f'cnn_zoo.run_report.report(..., split="{facts["split"]}")'


def calibration_words(facts) -> str:
    """What was found of the temperature, in a sentence."""
    found = facts["calibration"]
    chance = f"Calibrated perfectly, a model as sure as this one would have an ECE of {found['by_chance']:.4f} on so many images, by chance alone."
    if found["temperature"] is None:
        return f"{chance} No temperature was fitted: {found['why_none']}."
    high = "above 1, the model is too sure of itself" if found["temperature"] > 1 else "below 1, it is not sure enough"
    return (
        f"{chance} The temperature that fits the {found['fitted_on']:,} images of the validation split best is {found['temperature']:.3f}: {high}. "
        f"With it the ECE goes from {found['before']['ece']:.4f} to {found['after']['ece']:.4f}, the negative log-likelihood from "
        f"{found['before']['nll']:.4f} to {found['after']['nll']:.4f}. cnn_zoo.calibration.with_temperature(model, {found['temperature']:.4g}) "
        "gives the model that has it, for saving and export."
    )
