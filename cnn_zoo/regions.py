"""The connected regions of a mask."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from cnn_zoo.errors import InputError


@dataclass(frozen=True)
class Region:
    """One connected region of a mask, and what a classifier says of it.

    Attributes:
        box: `(top, left, bottom, right)` in pixels, bottom and right beyond the last one.
        area: Pixels of the region.
        id: Its class id in the mask.
        label: The most probable class, as a number; None without a classifier.
        name: Its name.
        probability: Its probability.
        probabilities: `(classes,)`.
    """

    box: tuple[int, int, int, int]
    area: int
    id: int
    label: int | None = None
    name: str | None = None
    probability: float | None = None
    probabilities: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)


def regions(mask, *, min_area: int = 1, background=0, ignore=None) -> list[Region]:
    """The connected regions (eight neighbours) of each class id of a mask, from top to bottom.

    Args:
        mask: `(height, width)` class ids, or labels of single objects.
        min_area: Smaller regions are left out, in pixels.
        background: Id or ids that are no region; None: none.
        ignore: More such ids.

    Raises:
        InputError: No such mask.
    """
    from scipy import ndimage

    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "iub":
        raise InputError(
            f"a mask of class ids has shape (height, width) and whole numbers, not {mask.dtype} {mask.shape}"
        )
    if isinstance(min_area, bool) or not hasattr(min_area, "__index__") or min_area < 1:
        raise InputError(f"min_area is whole pixels, at least 1, not {min_area!r}")
    out = {int(i) for entry in (background, ignore) if entry is not None for i in np.atleast_1d(entry)}
    values, dense = np.unique(mask, return_inverse=True)
    found = []
    for i, place in zip(values.tolist(), ndimage.find_objects(dense.reshape(mask.shape).astype("int32") + 1)):
        if i in out:
            continue
        labels, count = ndimage.label(mask[place] == i, np.ones((3, 3)))
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        top, left = place[0].start, place[1].start
        for area, (rows, columns) in zip(areas.tolist(), ndimage.find_objects(labels)):
            if area >= min_area:
                box = (top + rows.start, left + columns.start, top + rows.stop, left + columns.stop)
                found.append(Region(box, area, int(i)))
    return sorted(found, key=lambda region: (region.box[:2], region.id))
