"""What our HTML reports share: one file each, in which all pictures are, and which loads nothing."""

import base64
import io
from html import escape

import cv2
import numpy as np

from cnn_zoo.data.formats import to_channels

SIDE = 96  # pixels of the longer side of a small picture
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d2530;background:#f5f6f8;margin:0}main{max-width:1080px;margin:auto;padding:24px}
h1{font-size:26px;margin:0}h2{font-size:19px;margin:32px 0 8px}h3{font-size:15px;margin:0}p{margin:4px 0}.dim{color:#5c6773}
section,.finding{background:#fff;border:1px solid #dfe3e8;border-radius:8px;padding:12px 16px;margin:10px 0}
.finding{border-left:6px solid #8a94a0}.error{border-left-color:#c22f2f}.warning{border-left-color:#d98a00}
.tag{font-size:12px;font-weight:700;color:#fff;background:#5c6773;border-radius:4px;padding:1px 7px;margin-right:6px}
.error .tag{background:#c22f2f}.warning .tag{background:#a86500}
table{border-collapse:collapse}td,th{text-align:left;padding:2px 14px 2px 0;vertical-align:top;font-weight:400}th{font-weight:600}
td.number,th.number{text-align:right}.bar{height:14px;display:inline-block;vertical-align:middle}
figure{display:inline-block;margin:4px 6px 4px 0;vertical-align:top;max-width:110px}figcaption{font-size:10px;overflow-wrap:anywhere;color:#5c6773}
img{display:block;border-radius:3px}.set{border-top:1px solid #eceff2;padding:4px 0}.many{max-height:320px;overflow:auto;font:12px/1.5 monospace}
.histogram{display:inline-block;margin:6px 14px 6px 0}svg text{font:10px system-ui,sans-serif;fill:#5c6773}
"""


def document(title: str, parts, style: str = "") -> str:
    """The whole page.

    Args:
        title: As plain text.
        parts: Pieces of HTML.
        style: More CSS than `STYLE`.
    """
    return "\n".join([
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><main>", *parts, "</main></body></html>",
    ])  # fmt: skip


def table(header, rows, numbers=()) -> str:
    """A table of plain values, which are escaped.

    Args:
        header: One text a column, or None.
        rows: A sequence of values each.
        numbers: Indices of the columns that stand to the right.
    """

    def line(tag, values):
        cells = (
            f"<{tag}{' class=number' if i in numbers else ''}>{escape(str(value))}</{tag}>"
            for i, value in enumerate(values)
        )
        return f"<tr>{''.join(cells)}</tr>"

    return f"<table>{line('th', header) if header else ''}{''.join(line('td', row) for row in rows)}</table>"


def thumbnail(image) -> np.ndarray:
    """A small `(height, width, 3)` uint8 picture of an image of any type and number of channels; other types than uint8 are stretched."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    image = image if image.shape[-1] in (1, 3) else image[..., :3] if image.shape[-1] > 3 else image[..., :1]
    return cv2.resize(to_channels(_eight_bit(image), 3), size[::-1], interpolation=how)


def png(image) -> str | None:
    """A `(height, width, 3)` uint8 picture as the `data:` address of a PNG; None where it cannot be encoded."""
    done, contents = cv2.imencode(".png", image[..., ::-1])
    return _address(contents.tobytes()) if done else None


def figure(picture: str, name: str, most: int = 40) -> str:
    """A small picture, by its address, with a name below it, of which the last `most` characters are shown."""
    short = name if len(name) <= most else "..." + name[3 - most :]
    return (
        f'<figure title="{escape(name)}"><img src="{picture}" alt=""><figcaption>{escape(short)}</figcaption></figure>'
    )


def drawing(picture, what: str) -> str:
    """A Matplotlib figure as an image; `what` it shows is read out to those who cannot see it."""
    contents = io.BytesIO()
    # Twice as many pixels as it takes up: sharp on every screen.
    picture.savefig(contents, format="png", dpi=150)
    width = round(75 * picture.get_figwidth())
    address = _address(contents.getvalue())
    return f'<img src="{address}" alt="{escape(what)}" style="width:{width}px;max-width:100%">'


def _address(contents):
    return "data:image/png;base64," + base64.b64encode(contents).decode()


def _eight_bit(values):
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    values = np.nan_to_num(values.astype("float32"), posinf=0, neginf=0)
    low, high = np.percentile(values, (0.5, 99.5))
    return np.rint(255 * ((values - low) / max(high - low, 1e-9)).clip(0, 1)).astype("uint8")
