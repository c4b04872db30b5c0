"""The living table: every net with its depth, size, parameters, multiply-accumulates, time on this machine, receptive field and published accuracy.

The columns are those of the course's table of 18 nets (`LECTURE`), and three more. All but the times follow from the registry and the graphs, so
that README's table (`readme_table`) can be checked by a test. Where they are counted by a convention, it is that which fits the course's numbers:

* depth: layers with weights on the longest path (`explain.depth`);
* size: all weights as float32, BatchNorm's statistics among them, in units of 2^20 bytes;
* parameters: trainable ones;
* time: one image, against SqueezeNet 1.1 measured in turn with it; the course's SqueezeNet is that version, by its 1.24 million parameters;
* receptive field: of the last map before the head; `all (427)` is 427 pixels, and the whole image through squeeze-and-excitation.
"""

import csv as csv_module
import gc
import io
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from cnn_zoo.assemble import build
from cnn_zoo.errors import InputError
from cnn_zoo.explain import depth, macs, receptive_field
from cnn_zoo.files import replacing
from cnn_zoo.registry import SPECS, WEIGHTS, get_spec, list_models

REFERENCE = "squeezenet1_1"  # its time is 1


class LectureRow(NamedTuple):
    depth: int | None
    megabytes: float
    millions: float  # of parameters
    relative_time: float
    input_size: int


LECTURE = {  # M. Hohle, ML Algorithms, lecture 9: its 18 nets by our names
    "nasnetlarge": LectureRow(None, 360, 88.9, 45, 331),
    "darknet19": LectureRow(19, 72.5, 21, 5.5, 256),
    "densenet201": LectureRow(201, 77, 20, 22, 224),
    "resnet50": LectureRow(50, 96, 25.6, 3.5, 224),
    "resnet101": LectureRow(101, 167, 44.6, 5, 224),
    "inceptionv3": LectureRow(48, 89, 23.9, 8, 299),
    "resnet18": LectureRow(18, 44, 11.7, 1.8, 224),
    "xception": LectureRow(71, 85, 22.9, 12, 299),
    "darknet53": LectureRow(53, 145, 41, 10, 256),
    "inceptionresnetv2": LectureRow(164, 209, 55.9, 14, 299),
    "shufflenet": LectureRow(50, 6.3, 1.4, 1.5, 224),
    "googlenet_2014": LectureRow(22, 27, 7, 2, 224),
    "mobilenetv2": LectureRow(53, 13, 3.5, 4, 224),
    "alexnet": LectureRow(8, 227, 61, 1.2, 227),
    "nasnetmobile": LectureRow(None, 20, 5.3, 5, 224),
    "squeezenet1_1": LectureRow(18, 4.6, 1.24, 1, 227),
    "vgg16": LectureRow(16, 515, 138, 6.5, 224),
    "vgg19": LectureRow(19, 535, 144, 8.5, 224),
}


def rows(names=None, *, timed: bool = True, repeats: int = 11, progress: bool = True) -> list[dict]:
    """The table, one dictionary a net; see `each` for its keys and arguments. An interrupt ends it without rows: `each` hands out one by one."""
    return list(each(names, timed=timed, repeats=repeats, progress=progress))


def each(names=None, *, timed: bool = True, repeats: int = 11, progress: bool = True) -> Iterator[dict]:
    """The rows of the table one after another; one net is in memory at a time, and the one that times are compared with.

    Args:
        names: Nets, or a shell pattern. Default: all.
        timed: Measure times; a net takes seconds to build and to trace.
        repeats: Images timed of each net, in turn with as many of the reference; the median counts.
        progress: Show a bar at a terminal.

    Yields:
        `name`, `family`, `depth`, `megabytes`, `params`, `macs`, `input_shape` (height, width, channels), `receptive_field` (the larger side, in
        pixels; None where the net has no local field), `sees_all` (whether a branch sees the whole image), `top1` (0..1 or None) and
        `top1_source`; with `timed`, `seconds` and `relative_time`. What cannot be told, of an adapter for a net of a newer Keras, is None.

    Raises:
        InputError: A name is unknown, or nothing matches the pattern.
    """
    names = _names(names)
    reference = build(REFERENCE) if timed else None
    bar = tqdm(names, unit="net", disable=None if progress else True)
    for name in bar:
        bar.set_postfix_str(name)
        spec, model = SPECS[name], build(name)
        cost, field, layers = macs(model), _or_none(receptive_field, model), _or_none(depth, model)
        top1, source = best_top1(name)
        row = {
            "name": name,
            "family": spec.family,
            "depth": layers,
            "megabytes": cost.megabytes,
            "params": cost.trainable,
            "macs": None if cost.unknown else cost.macs,
            "input_shape": (*spec.size, spec.channels),
            # before an MLP's Flatten there is only the image itself
            "receptive_field": max(field.local) if field and field.local and max(field.local) > 1 else None,
            "sees_all": None if field is None else field.size is None or max(field.size) == 1,
            "top1": top1,
            "top1_source": source,
        }
        if timed:
            row["seconds"], row["relative_time"] = _times(model, reference, repeats)
            if name == REFERENCE:
                row["relative_time"] = 1.0  # by definition, not by two measurements of the same
        del model, cost
        gc.collect()  # a model and its traced functions hold each other
        yield row


def best_top1(name: str) -> tuple[float | None, str | None]:
    """The best published top-1 accuracy on ImageNet among a net's weights, and who says so; (None, None) where nobody does."""
    known = [
        record for (net, _), record in WEIGHTS.items() if net == name and record.value is not None and _is_top1(record)
    ]
    if not known:
        return None, None
    best = max(known, key=lambda record: record.value)
    return best.value, f"{best.tag}: {best.measured_by or best.source}"


def spearman(measured: list[dict]) -> float:
    """Rank correlation of the relative times with the course's column, over the course's nets among the rows (two at least).

    Raises:
        InputError: Fewer than two of them were timed.
    """
    from scipy.stats import spearmanr

    pairs = [
        (row["relative_time"], LECTURE[row["name"]].relative_time)
        for row in measured
        if row["name"] in LECTURE and "relative_time" in row
    ]
    if len(pairs) < 2:
        raise InputError("a correlation needs two timed nets of the course's table at least: table.rows(table.LECTURE)")
    return float(spearmanr(*zip(*pairs)).statistic)


def text(table: list[dict]) -> str:
    """The table with aligned columns, for a terminal."""
    titles, cells = _cells(table, timed=True)
    widths = [max(map(len, column)) for column in zip(titles, *cells)]

    def line(values):
        padded = [v.ljust(w) if i == 0 else v.rjust(w) for i, (v, w) in enumerate(zip(values, widths))]
        return "  ".join(padded).rstrip()

    return "\n".join([line(titles), *map(line, cells)])


def markdown(table: list[dict], *, timed: bool = True) -> str:
    """The table in Markdown; without `timed`, only what is the same on every machine."""
    titles, cells = _cells(table, timed)
    lines = [f"| {' | '.join(titles)} |", f"|---|{'--:|' * (len(titles) - 1)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in cells])


def csv(table: list[dict]) -> str:
    """The table with comma-separated values, numbers in full."""
    keys = list(dict.fromkeys(key for row in table for key in row))
    out = io.StringIO()
    writer = csv_module.DictWriter(out, keys, lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({**row, "input_shape": "x".join(map(str, row["input_shape"]))})
    return out.getvalue()


def readme_table(*, progress: bool = False) -> str:
    """The table as it stands in README between `<!-- table -->` and `<!-- end -->`: nothing in it depends on the machine.

    All nets but the adapters, which are those of the Keras that is installed. Builds each once: some minutes.
    """
    return markdown(rows(own_nets(), timed=False, progress=progress), timed=False)


def own_nets() -> list[str]:
    """The nets that this package defines itself: all but the adapters for keras.applications."""
    return [name for name in list_models() if SPECS[name].family != "applications"]


def save(table: list[dict], path) -> None:
    """Write the table to a file: `.csv`, `.md`, `.txt`, or `.png` for the picture.

    Raises:
        InputError: Another ending.
        StorageError: It cannot be written.
    """
    writers = {".csv": csv, ".md": lambda t: markdown(t) + "\n", ".txt": lambda t: text(t) + "\n"}
    suffix = Path(path).suffix.lower()
    if suffix == ".png":
        plot(table, path)
        return
    if suffix not in writers:
        raise InputError(f"a table is written as .csv, .md, .txt or .png, not {str(path)!r}")
    content = writers[suffix](table)
    with replacing(path) as aside:
        aside.write_text(content, encoding="utf-8")


def plot(table: list[dict], save=None, *, y: str = "auto"):
    """Bubbles: accuracy or parameters against time, the area being the size of the weights.

    Args:
        table: Rows; where they are not timed, multiply-accumulates take the place of time.
        save: PNG file to write.
        y: `"top1"`, `"params"`, or `"auto"`: accuracy where it is known for half of the nets. Nets without it are then left out.

    Returns:
        A Matplotlib figure.

    Raises:
        InputError: No rows to draw.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    from cnn_zoo.plots import Picture, finish

    known = [row for row in table if row["top1"] is not None]
    if y == "auto":
        y = "top1" if table and 2 * len(known) >= len(table) else "params"
    if y not in ("top1", "params"):
        raise InputError(f"y is 'top1', 'params' or 'auto', not {y!r}")
    timed = all("relative_time" in row for row in table)
    drawn = [row for row in (known if y == "top1" else table) if timed or row["macs"]]
    if not drawn:
        raise InputError("there is no net to draw" + (": none of these has a published accuracy" if table else ""))
    x_of = np.array([row["relative_time"] if timed else row["macs"] / 1e9 for row in drawn])
    y_of = np.array([100 * row["top1"] if y == "top1" else row["params"] / 1e6 for row in drawn])
    size = np.array([row["megabytes"] for row in drawn])
    many = len(drawn) > 30
    figure = Picture(figsize=(16, 11) if many else (10, 6.5), layout="constrained")
    axes = figure.subplots()
    families = sorted({row["family"] for row in drawn})
    colours = {family: f"C{i % 10}" for i, family in enumerate(families)}
    areas = 12 + (1100 if many else 2200) * size / max(size.max(), 1)
    axes.scatter(
        x_of, y_of, areas, [colours[row["family"]] for row in drawn], alpha=0.5, linewidths=0.6, edgecolors="black"
    )
    axes.set_xscale("log")
    if y == "params":
        axes.set_yscale("log")
    axes.margins(0.09)
    for axis in (axes.xaxis, axes.yaxis) if y == "params" else (axes.xaxis,):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    slow = f"time of one image ({REFERENCE} = 1)" if timed else "multiply-accumulates (1e9)"
    axes.set(xlabel=slow, ylabel="top-1 accuracy (%)" if y == "top1" else "trainable parameters (millions)")
    axes.set_title("area: size of the weights; colour: family", fontsize=9, loc="right")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    _label(figure, axes, [row["name"] for row in drawn], x_of, y_of, areas, 6.5 if many else 8.5)
    return finish(figure, save)


def _label(figure, axes, names, x, y, areas, fontsize):
    """Names beside their bubbles, each where it covers no other name and no middle of a bubble, and if possible is nearest to its own."""
    figure.draw_without_rendering()  # settles the layout, so that places in pixels are final
    frame, scale = axes.get_window_extent(), figure.dpi / 72
    centres = axes.transData.transform(np.column_stack([x, y]))
    radii = np.sqrt(areas / np.pi) * scale
    cores = np.minimum(radii, 5 * scale)  # of a large bubble only the middle is kept free
    angles = np.radians([0, 180, 90, 270, 30, 150, 210, 330, 60, 120, 240, 300])
    around = [(d * scale, a) for d in range(1, 160, 3) for a in angles]
    taken = []
    for i in np.argsort(areas):  # small bubbles first: their names have to be close
        mark = axes.annotate(
            names[i], (x[i], y[i]), (0, 0), textcoords="offset points", fontsize=fontsize, ha="center", va="center"
        )
        box = mark.get_window_extent()
        half = np.array([box.width / 2 + 1, box.height / 2])

        def place(distance, angle, i=i, half=half):
            middle = centres[i] + np.array([np.cos(angle), np.sin(angle)]) * (radii[i] + distance + half)
            low, high = middle - half, middle + half
            gaps = np.hypot(*(np.clip(centres, low, high) - centres).T)
            free = (gaps > cores).all() and not any((low < b).all() and (a < high).all() for a, b in taken)
            inside = (low > frame.p0).all() and (high < frame.p1).all()
            return free and inside, gaps.argmin() == i, low, high, distance

        possible = [found for found in (place(*spot) for spot in around) if found[0]]
        if not possible:  # no room anywhere: over the bubble is better than nowhere
            continue
        _, _, low, high, distance = next((found for found in possible if found[1]), possible[0])
        taken.append((low, high))
        mark.set_position(((low + high) / 2 - centres[i]) / scale)
        if distance > 8 * scale:
            ends = axes.transData.inverted().transform([centres[i], np.clip(centres[i], low, high)])
            axes.plot(*ends.T, color="grey", linewidth=0.5, zorder=0.5, scalex=False, scaley=False)


def _names(names):
    if names is None or isinstance(names, str):
        found = list_models(names or "*")
        if not found:
            raise InputError(f"no net matches {names!r}; list_models() names all {len(SPECS)}")
        return found
    return [get_spec(name).name for name in names]


def _or_none(function, model):
    try:
        return function(model)
    except InputError:
        return None


def _is_top1(record):
    return (record.metric or "").lower().startswith("top-1") and "imagenet" in record.dataset.lower()


def _times(model, reference, repeats):
    """Median seconds of one image, and how often the reference's; both in turn, so that a machine that gets busy slows both."""
    inputs = [np.full((1, *m.input_shape[1:]), 128, "uint8") for m in (model, reference)]
    seconds = ([], [])
    for turn in range(repeats + 2):
        for net, image, found in zip((model, reference), inputs, seconds):
            start = time.perf_counter()
            net.predict_on_batch(image)
            if turn > 1:  # the first calls trace the graph and fill caches
                found.append(time.perf_counter() - start)
    own, other = map(statistics.median, seconds)
    return own, own / other


def _cells(table, timed):
    """Titles and cells as words."""
    columns = {
        "name": lambda row: row["name"],
        "depth": lambda row: "?" if row["depth"] is None else str(row["depth"]),
        "size (MB)": lambda row: f"{row['megabytes']:.1f}",
        "parameters": lambda row: f"{row['params']:,}",
        "MACs (millions)": lambda row: "?" if row["macs"] is None else f"{row['macs'] / 1e6:,.1f}",
        "time": lambda row: f"{row['relative_time']:.2f}",
        "input": lambda row: _shape(*row["input_shape"]),
        "receptive field": _field,
        "top-1 (%)": lambda row: "" if row["top1"] is None else f"{100 * row['top1']:.1f}",
    }
    if not timed or not all("relative_time" in row for row in table):
        del columns["time"]
    if all(row["top1"] is None for row in table):
        del columns["top-1 (%)"]
    return list(columns), [[cell(row) for cell in columns.values()] for row in table]


def _shape(height, width, channels):
    return f"{height}x{width}" + ("" if channels == 3 else f"x{channels}")


def _field(row):
    local = row["receptive_field"]
    if row["sees_all"] is None:
        return "?"
    if not row["sees_all"]:
        return str(local)
    return "all" if local is None else f"all ({local})"
