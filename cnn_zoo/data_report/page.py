"""A report as one HTML file: pictures are within it, and it loads nothing."""

from html import escape

import numpy as np

from cnn_zoo.data.formats import pool
from cnn_zoo.data.sizes import nearest
from cnn_zoo.errors import ZooError
from cnn_zoo.html import document, figure, png, thumbnail
from cnn_zoo.mask_plots import painted
from cnn_zoo.palette import Palette

EXAMPLES, SHOWN = 240, 40  # small pictures of the grid in all; classes that are drawn
PLACES, LINES = 6, 200  # of a finding: places shown with pictures, places listed
COLORS = {"all": "#3b6fb6", "train": "#3b6fb6", "validation": "#d98a00", "test": "#4c9a5b"}


def page(report) -> str:
    """The HTML of a `Report`."""
    where = {name: i for i, name in reversed(list(enumerate(report.listing.names)))}  # of equal names the first
    shown = [name for found in report.findings for place in found.where[:PLACES] for name in place.files[:PLACES]]
    examples = _examples(report.listing)
    wanted = sorted({where[name] for name in shown if name in where} | {i for rows in examples.values() for i in rows})
    pictures = dict(zip(wanted, pool().map(lambda i: _picture(report.listing, i), wanted)))
    pictures = {name: pictures[i] for name, i in where.items() if pictures.get(i)}
    counts = [sum(found.severity == severity for found in report.findings) for severity in ("error", "warning", "note")]
    verdict = "Something serious was found." if report.serious else "Nothing serious was found."
    return document(f"Data report: {report.name}", [
        f"<h1>{escape(report.name)}</h1>",
        f'<p class="dim">{report.images:,} images. {verdict} {counts[0]} error(s), {counts[1]} warning(s), {counts[2]} note(s).</p>',
        "<h2>Findings</h2>", *(_finding(found, pictures) for found in report.findings),
        *([] if report.findings else ["<section>None.</section>"]),
        _balance(report), _mask_pixels(report), _files(report), _histograms(report), _grid(report, examples, pictures),
    ])  # fmt: skip


def _finding(found, pictures):
    sets = []
    for place in found.where[:PLACES]:
        images = "".join(figure(pictures[name], name) for name in place.files[:PLACES] if name in pictures)
        more = f" and {len(place.files) - PLACES:,} more" if len(place.files) > PLACES else ""
        names = "" if images else ", ".join(map(escape, place.files[:PLACES])) + " "
        sets.append(f'<div class="set">{images}<span class="dim">{names}{escape(place.detail)}{more}</span></div>')
    rest = ""
    if len(found.where) > PLACES:
        lines = "<br>".join(escape(str(place)) for place in found.where[:LINES])
        more = f"<br>and {len(found.where) - LINES:,} more (all are in the JSON)" if len(found.where) > LINES else ""
        rest = f'<details><summary>all {len(found.where):,}</summary><div class="many">{lines}{more}</div></details>'
    return (
        f'<div class="finding {found.severity}"><h3><span class="tag">{found.severity}</span>{escape(found.what)}</h3>'
        f"<p>{escape(found.fix)}</p>{''.join(sets)}{rest}</div>"
    )


def _balance(report):
    classes = report.facts["classes"]
    if not classes:
        return ""
    most = max(sum(parts.values()) for parts in classes.values())
    rows = []
    for name, parts in sorted(classes.items(), key=lambda item: -sum(item[1].values()))[:SHOWN]:
        bars = "".join(
            f'<span class="bar" style="width:{520 * parts[part] / most:.1f}px;background:{color}" title="{part}: {parts[part]:,}"></span>'
            for part, color in COLORS.items() if part in parts
        )  # fmt: skip
        rows.append(f'<tr><td>{escape(name)}</td><td class="number">{sum(parts.values()):,}</td><td>{bars}</td></tr>')
    more = f"<p>and {len(classes) - SHOWN:,} more classes</p>" if len(classes) > SHOWN else ""
    parts = ", ".join(
        f'<span class="bar" style="width:12px;background:{COLORS[part]}"></span> {part} {count:,}'
        for part, count in report.facts["parts"].items() if part != "all"
    )  # fmt: skip
    ratio = report.facts["imbalance"]
    return f"<h2>Classes</h2><section><p>Largest to smallest class: {ratio:.2f}. {parts}</p><table>{''.join(rows)}</table>{more}</section>"


def _mask_pixels(report):
    pixels = report.facts["mask_pixels"]
    if not pixels:
        return ""
    checked = report.listing.mask_report
    total, rows = sum(pixels.values()), []
    for i, count in sorted(pixels.items(), key=lambda item: -item[1])[:SHOWN]:
        names = checked.classes
        name = "ignored" if int(i) in checked.ignore else names[int(i)] if names and 0 <= int(i) < len(names) else ""
        bar = f'<span class="bar" style="width:{420 * count / max(pixels.values()):.1f}px;background:{COLORS["all"]}"></span>'
        rows.append(
            f'<tr><td class="number">{i}</td><td>{escape(name)}</td><td class="number">{count / total:.2%}</td><td>{bar}</td></tr>'
        )
    return f"<h2>Pixels of masks</h2><section><table><tr><th>id</th><th></th><th>share</th></tr>{''.join(rows)}</table></section>"


def _files(report):
    rows = []
    about = (
        ("height x width", "sizes"),
        ("channels", "channels"),
        ("type of values", "types"),
        ("bits a value", "bits"),
        ("format", "formats"),
    )
    for what, key in about:
        counts = list(report.facts[key].items())
        shown = ", ".join(f"{escape(value)} ({count:,})" for value, count in counts[:8])
        more = f" and {len(counts) - 8:,} more" if len(counts) > 8 else ""
        rows.append(f"<tr><th>{what}</th><td>{shown}{more}</td></tr>")
    if report.facts["groups"]:
        said = "told" if report.listing.groups_given else "guessed from the names"
        rows.append(f"<tr><th>groups</th><td>{report.facts['groups']:,} ({said})</td></tr>")
    return f"<h2>Files</h2><section><table>{''.join(rows)}</table></section>"


def _histograms(report):
    edges, classes = report.facts["histograms"]["edges"], report.facts["histograms"]["classes"]
    if not classes:
        return ""
    top, wide, high = max(max(shares) for shares in classes.values()) or 1, 220, 80
    mean = np.mean(list(classes.values()), axis=0)
    figures = []
    for name, shares in list(classes.items())[:SHOWN]:
        step = wide / len(shares)
        bars = "".join(
            f'<rect x="{k * step:.1f}" y="{high - high * share / top:.1f}" width="{step:.2f}" height="{high * share / top:.1f}"/>'
            for k, share in enumerate(shares)
        )
        line = " ".join(f"{(k + 0.5) * step:.1f},{high - high * share / top:.1f}" for k, share in enumerate(mean))
        figures.append(
            f'<div class="histogram"><b>{escape(name)}</b><svg width="{wide}" height="{high + 14}" role="img" style="display:block">'
            f'<g fill="#9db8dc">{bars}</g><polyline points="{line}" fill="none" stroke="#1d2530"/>'
            f'<text x="0" y="{high + 11}">{edges[0]:g}</text><text x="{wide}" y="{high + 11}" text-anchor="end">{edges[-1]:g}</text></svg></div>'
        )
    words = "Gray values, 16-bit ones divided by 257, each class to one scale; the line is the mean of the classes."
    return f'<h2>Intensities</h2><section><p class="dim">{words}</p>{"".join(figures)}</section>'


def _examples(listing):
    """Indices of a few images of each class (or part), spread evenly."""
    rows = {}
    for i, (label, part) in enumerate(zip(listing.labels, listing.parts)):
        rows.setdefault(label or part or "all images", []).append(i)
    rows = dict(list(rows.items())[:SHOWN])
    each = min(12, max(1, EXAMPLES // len(rows)))
    return {name: [r[k] for k in np.unique(np.linspace(0, len(r) - 1, each).round().astype(int))] for name, r in rows.items()}  # fmt: skip


def _grid(report, examples, pictures):
    names = report.listing.names
    rows = "".join(
        f'<div class="set"><b>{escape(name)}</b><br>'
        + "".join(figure(pictures[names[i]], names[i]) for i in indices if names[i] in pictures)
        + "</div>"
        for name, indices in examples.items()
    )
    words = "Images of other types than 8 bit are stretched, each by itself, for looking at; masks are painted over."
    return f'<h2>Examples</h2><section><p class="dim">{words}</p>{rows}</section>'


def _picture(listing, i):
    """A small PNG as a `data:` address, or None where the image cannot be read."""
    try:
        image = listing.image(i)
        mask = None if listing.masks[i] is None else listing.mask(i)
    except ZooError:
        mask = None
        try:
            image = listing.image(i)
        except ZooError:
            return None
    small = thumbnail(image)
    if mask is not None and mask.shape == image.shape[:2]:
        small = _paint(small, nearest(mask[None], small.shape[:2])[0], listing)
    return png(small)


def _paint(image, mask, listing):
    """Ids by their order among all ids, so that 0/255 masks have two colours."""
    ids = np.array(sorted(listing.mask_report.pixels if listing.mask_report else range(len(listing.classes))))
    palette = Palette.of(list(map(str, ids))) if len(ids) <= 250 else None
    if palette is None or not np.isin(mask, ids).all():
        return image
    return painted(image, np.searchsorted(ids, mask), palette)
