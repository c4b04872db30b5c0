"""Steps that mix the samples of a batch. Labels become shares of classes, `(n, classes)`; ids of masks are pasted, never blended.

Losses that take shares are `CategoricalCrossentropy` and `BinaryCrossentropy` of Keras, and those that take probabilities as truth.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from cnn_zoo.augment.steps import Mixing, upward
from cnn_zoo.augment.warp import clipped_boxes, clipped_points
from cnn_zoo.errors import InputError


@dataclass(frozen=True)
class mixup(Mixing):
    """Blend each image with another of the batch, and their labels alike (Zhang et al. 2018, arXiv:1710.09412, equation 2).

    Args:
        alpha: Of the distribution Beta(alpha, alpha) of the shares; the smaller, the closer to one image alone.
        p: Probability.
    """

    alpha: float = 0.2
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(alpha=_alpha("mixup", self.alpha))

    def mix(self, batch, generators, classes):
        if batch.masks is not None:
            raise InputError("mixup would blend class ids of masks, which means nothing: use cutmix() or mosaic()")
        _check_only("mixup", batch, ("boxes", "keypoints"))
        labels = _shares("mixup", batch, classes)
        images, mixed = batch.images.copy(), labels.copy()
        for k, rng in enumerate(generators):
            if rng.random() >= self.p:
                continue
            share, other = rng.beta(self.alpha, self.alpha), _partner(rng, k, len(images))
            blended = cv2.addWeighted(batch.images[k], share, batch.images[other], 1 - share, 0)
            images[k] = blended.reshape(images[k].shape)
            mixed[k] = share * labels[k] + (1 - share) * labels[other]
        return batch._replace(images=images, labels=mixed)


@dataclass(frozen=True)
class cutmix(Mixing):
    """Paste a rectangle of another image of the batch, with its mask (Yun et al. 2019, arXiv:1905.04899, equations 1 and 2).

    Labels are mixed by the areas, after the rectangle is cut at the edges.

    Args:
        alpha: Of the distribution Beta(alpha, alpha) of the share of the area that stays.
        p: Probability.
    """

    alpha: float = 1.0
    p: float = 1.0

    def __post_init__(self):
        self._check_p()
        self.settle(alpha=_alpha("cutmix", self.alpha))

    def mix(self, batch, generators, classes):
        _check_only("cutmix", batch, ("boxes", "keypoints"))
        labels = _shares("cutmix", batch, classes)
        images, masks, mixed = batch.images.copy(), _copy(batch.masks), _copy(labels)
        height, width = images.shape[1:3]
        for k, rng in enumerate(generators):
            if rng.random() >= self.p:
                continue
            side, other = np.sqrt(1 - rng.beta(self.alpha, self.alpha)), _partner(rng, k, len(images))
            y, x = rng.uniform(0, height), rng.uniform(0, width)
            top, bottom = (round(min(max(y + half, 0), height)) for half in (-side * height / 2, side * height / 2))
            left, right = (round(min(max(x + half, 0), width)) for half in (-side * width / 2, side * width / 2))
            window = (slice(top, bottom), slice(left, right))
            images[k][window] = batch.images[other][window]
            if masks is not None:
                masks[k][window] = batch.masks[other][window]
            if labels is not None:
                pasted = (bottom - top) * (right - left) / (height * width)
                mixed[k] = (1 - pasted) * labels[k] + pasted * labels[other]
        return batch._replace(images=images, masks=masks, labels=mixed)


@dataclass(frozen=True)
class mosaic(Mixing):
    """Four images in one, meeting at a random point of the middle half (YOLOv4, Bochkovskiy et al. 2020, arXiv:2004.10934, figure 3).

    Each gives a window of its own, at the scale it has; the first is the sample itself, and the places of the four are drawn. Masks, boxes
    and keypoints go along (a box is dropped where less than a tenth of it is in the window); labels are mixed by the areas.

    Args:
        p: Probability.
    """

    p: float = 1.0

    def __post_init__(self):
        self._check_p()

    def mix(self, batch, generators, classes):
        labels = _shares("mosaic", batch, classes)
        images, masks, mixed = batch.images.copy(), _copy(batch.masks), _copy(labels)
        boxes, keypoints = (None if rows is None else list(rows) for rows in (batch.boxes, batch.keypoints))
        count, height, width = images.shape[:3]
        for k, rng in enumerate(generators):
            if rng.random() >= self.p:
                continue
            y, x = (round(rng.uniform(0.25, 0.75) * side) for side in (height, width))
            corners = [(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)]
            corners = [corners[place] for place in rng.permutation(4)]
            others = [k, *(int(rng.integers(count)) for _ in range(3))]
            starts = [
                (int(rng.integers(height - (bottom - top) + 1)), int(rng.integers(width - (right - left) + 1)))
                for top, left, bottom, right in corners
            ]
            tiles = list(zip(corners, others, starts))
            for (top, left, bottom, right), other, (down, across) in tiles:
                target = (k, slice(top, bottom), slice(left, right))
                source = (other, slice(down, down + bottom - top), slice(across, across + right - left))
                images[target] = batch.images[source]
                if masks is not None:
                    masks[target] = batch.masks[source]
            if labels is not None:
                shares = [(bottom - top) * (right - left) / (height * width) for top, left, bottom, right in corners]
                mixed[k] = sum(share * labels[other] for share, other in zip(shares, others))
            if boxes is not None:
                boxes[k] = np.concatenate([_moved(batch.boxes[tile[1]], *tile, clipped_boxes) for tile in tiles])
            if keypoints is not None:
                keypoints[k] = np.concatenate(
                    [_moved(batch.keypoints[tile[1]], *tile, clipped_points) for tile in tiles]
                )
        return batch._replace(images=images, masks=masks, boxes=boxes, keypoints=keypoints, labels=mixed)


def _moved(rows, corner, other, start, clipped):
    """Boxes or points of one image, in the mosaic: brought into the window, cut there, brought to its place."""
    (top, left, bottom, right), (down, across) = corner, start
    columns = 4 if clipped is clipped_boxes else 2
    rows = rows.copy()
    rows[:, :columns] -= (across, down) * (columns // 2)
    rows = clipped(rows, bottom - top, right - left)
    rows[:, :columns] += (left, top) * (columns // 2)
    return rows


def _partner(rng, k, count):
    """Another sample of the batch, each equally likely; of a single one itself."""
    return (k + int(rng.integers(1, count))) % count if count > 1 else k


def _copy(array):
    return None if array is None else array.copy()


def _alpha(step, value):
    alpha = upward(step, "alpha", value)[1]
    if alpha == 0:
        raise InputError(f"{step}: alpha must be above 0; to switch it off, leave {step} out")
    return alpha


def _check_only(step, batch, names):
    for name in names:
        if getattr(batch, name) is not None:
            raise InputError(
                f"{step} cannot keep {name} true to what is seen: use mosaic(), or leave out {step} or the {name}"
            )


def _shares(step, batch, classes):
    """Labels as `(n, classes)` float32; None where the truth is in masks or boxes."""
    labels = batch.labels
    if labels is None:
        if step == "mixup" or (batch.masks is None and batch.boxes is None):
            raise InputError(f"{step} mixes labels with the images: give labels=")
        return None
    labels = np.asarray(labels)
    if labels.shape[:1] != batch.images.shape[:1] or labels.ndim > 2:
        raise InputError(
            f"labels must be of shape (n,) or (n, classes) for {len(batch.images)} images, not {labels.shape}"
        )
    if labels.ndim == 2:
        return labels.astype("float32")
    if classes is None:
        raise InputError(f"{step} makes shares of classes from ids: give Augmenter(..., classes=how many there are)")
    if labels.dtype.kind not in "iu" or (labels.size and not 0 <= labels.min() <= labels.max() < classes):
        raise InputError(f"labels must be integer class ids 0..{classes - 1}, or shares of shape (n, classes)")
    return np.eye(classes, dtype="float32")[labels]
