"""One matrix, and shifts where there are some, applied to images, masks, boxes and keypoints."""

import cv2
import numpy as np

BORDERS = {"constant": cv2.BORDER_CONSTANT, "reflect": cv2.BORDER_REFLECT_101, "edge": cv2.BORDER_REPLICATE}
VISIBLE = 0.1  # a box of which less than this share is left inside the image is dropped


def warp(source, out, matrix, shifts, nearest: bool, border: str, fill):
    """Fill `out` with `source` moved by `matrix` (output pixel to input pixel) and `shifts`.

    Flips, quarter turns and crops are copied; all else is interpolated once: bilinear, or to the nearest pixel.

    Args:
        source: `(height, width)` or `(height, width, channels)`.
        out: What is written, of the size that comes out.
        matrix: 3 x 3.
        shifts: `(height, width, 2)` of the size of `out`, or None.
        nearest: For class ids, which have no values between them.
        border: A name of BORDERS.
        fill: A number, or one for each channel, for "constant".
    """
    if shifts is None and _copied(source, out, matrix):
        return
    flags = (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    size, border = (out.shape[1], out.shape[0]), BORDERS[border]
    coordinates = None if shifts is None else _coordinates(matrix, shifts)

    def move(source, out, fill):
        if coordinates is None:
            # Never warpAffine: on 16 and 32 bit ids it rounds coordinates to 1/1024 pixel, and it is no faster.
            cv2.warpPerspective(source, matrix, size, dst=out, flags=flags, borderMode=border, borderValue=fill)
        else:
            cv2.remap(source, *coordinates, flags & ~cv2.WARP_INVERSE_MAP, dst=out, borderMode=border, borderValue=fill)

    if source.ndim == 2:
        move(source, out, (fill,))
        return
    channels = source.shape[2]
    fill = np.broadcast_to(np.asarray(fill, "float64"), channels).tolist()
    if channels == 3:
        # With a fourth channel, which is dropped again, OpenCV needs half the time for the same values.
        moved = np.empty((*out.shape[:2], 4), out.dtype)
        move(cv2.cvtColor(source, cv2.COLOR_RGB2RGBA), moved, [*fill, 0])
        cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB, dst=out)
        return
    if channels == 4:
        move(source, out, fill)
        return
    start = 0
    while start < channels:
        # OpenCV interpolates 1, 3 and 4 channels exactly, other numbers in steps of 1/32 pixel, and fills 4 at most.
        count = next(count for count in (4, 3, 1) if count <= channels - start)
        part = slice(start, start + count) if count > 1 else start
        moved = np.empty((*out.shape[:2], count)[: 2 + (count > 1)], out.dtype)
        move(np.ascontiguousarray(source[..., part]), moved, fill[start : start + count])
        out[..., part] = moved
        start += count


def moved_points(points, matrix, shifts):
    """Where points `(k, 2)` of the input, x and y from the centre of the first pixel, are in the output."""
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(matrix).T
    flat = homogeneous[:, :2] / homogeneous[:, 2:]
    if shifts is None or not len(points):
        return flat
    found = flat
    for _ in range(20):  # the output pixel p with p + shift(p) = flat; shifts change slowly, so this converges
        at = found.astype("float32").reshape(-1, 1, 2)
        shift = cv2.remap(shifts, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        found = flat - shift.reshape(-1, 2)
    return found


def moved_boxes(boxes, matrix, shifts, height, width):
    """Boxes around what became of boxes: `(k, 4 or more)`, x0 y0 x1 y1 of edges; clipped, and dropped where little is left."""
    along = np.linspace(0, 1, 2 if shifts is None else 9)  # corners, and points of the sides where these bend
    x0, y0, x1, y1 = (boxes[:, i : i + 1] for i in range(4))
    x, y = x0 + along * (x1 - x0), y0 + along * (y1 - y0)
    xs = np.concatenate([x, x, x0 + 0 * y, x1 + 0 * y], axis=1)
    ys = np.concatenate([y0 + 0 * x, y1 + 0 * x, y, y], axis=1)
    around = np.stack([xs, ys], axis=-1)  # (k, points, 2)
    moved = moved_points(around.reshape(-1, 2) - 0.5, matrix, shifts).reshape(around.shape) + 0.5
    return clipped_boxes(np.concatenate([moved.min(1), moved.max(1), boxes[:, 4:]], 1), height, width)


def clipped_boxes(boxes, height, width):
    """Boxes cut at the edges of the image; those of which less than a tenth of the area is left are dropped."""
    clipped = boxes.copy()
    clipped[:, [0, 2]] = boxes[:, [0, 2]].clip(0, width)
    clipped[:, [1, 3]] = boxes[:, [1, 3]].clip(0, height)
    left = _area(clipped)
    return clipped[(left > 0) & (left >= VISIBLE * _area(boxes))]


def clipped_points(points, height, width):
    """Points, those outside the image as NaN: their order says what they are, so that none is dropped."""
    points = points.copy()
    x, y = points[:, 0], points[:, 1]
    points[(x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5), :2] = np.nan
    return points


def _area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _copied(source, out, matrix) -> bool:
    """Copy where the matrix only flips, turns by quarters and cuts, and say whether it did."""
    (a, b, x), (c, d, y), last = matrix.tolist()
    upright = b == c == 0 and abs(a) == abs(d) == 1
    if last != [0, 0, 1] or x != int(x) or y != int(y) or not (upright or (a == d == 0 and abs(b) == abs(c) == 1)):
        return False
    height, width = out.shape[:2]
    right, down = (a * (width - 1), d * (height - 1)) if upright else (b * (height - 1), c * (width - 1))
    x0, x1, y0, y1 = min(x, x + right), max(x, x + right), min(y, y + down), max(y, y + down)
    if min(x0, y0) < 0 or x1 >= source.shape[1] or y1 >= source.shape[0]:
        return False
    window = source[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1]
    if upright and (a < 0 or d < 0):
        cv2.flip(window, -1 if a == d else 0 if d < 0 else 1, dst=out)  # many times faster than NumPy's
        return True
    if not upright:
        window = window.swapaxes(0, 1)[:: int(b), :: int(c)]
    np.copyto(out, window)
    return True


def _coordinates(matrix, shifts):
    """x and y of the input for each pixel of the output, float32."""
    height, width = shifts.shape[:2]
    x = shifts[..., 0] + np.arange(width, dtype="float32")
    y = shifts[..., 1] + np.arange(height, dtype="float32")[:, None]
    (a, b, tx), (c, d, ty), (e, f, g) = matrix.tolist()
    across, down = a * x + b * y + tx, c * x + d * y + ty
    if (e, f, g) == (0, 0, 1):
        return across, down
    depth = e * x + f * y + g
    return across / depth, down / depth
