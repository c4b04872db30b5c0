"""How well cells are told apart by the membranes between them: the scores of the ISBI-2012 challenge, and pixel error.

A gap of one pixel in a membrane merges two cells, and hardly changes the pixel error; a membrane that is too thick changes the pixel error, and
merges nothing. So the challenge compares regions: the proposal is thinned, until membranes are lines one pixel wide between different cells, and
pairs of pixels that lie in one cell are counted, or information is measured, over the pixels that are cell in the truth.

Source: Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for connectomics", Frontiers in Neuroanatomy 9:142,
equations 1 to 5; what the paper leaves open (neighbours, thresholds, means) is that of the challenge's own program, Trainable Weka Segmentation's
`RandError` and `VariationOfInformation`.
"""

import numpy as np
from scipy import ndimage, sparse

from cnn_zoo.errors import InputError

THRESHOLDS = tuple(i / 10 for i in range(10))
SCORES = ("v_rand", "v_rand_split", "v_rand_merge", "v_info", "v_info_split", "v_info_merge")


def region_scores(truth, labels) -> dict:
    """V_rand and V_info of a segmentation into regions.

    Args:
        truth: Integer ids of the true regions, of any shape; 0 is membrane, whose pixels are not counted.
        labels: Integer ids of the proposed regions, of the same shape. Each pixel of 0 is a region of its own.

    Returns:
        `v_rand`, `v_info` and for each `_split` (1 if no true region is split) and `_merge` (1 if no two are merged), whose harmonic means they are;
        from 0 to 1, the higher the better.

    Raises:
        InputError: Ids that are not integers from 0, shapes that differ, or no pixel that is counted.

    Source: Arganda-Carreras et al. 2015, equations 3 and 5, with alpha = 1/2, 0 and 1.
    """
    truth, labels = _checked_ids(truth), _checked_ids(labels)
    if truth.shape != labels.shape:
        raise InputError(f"truth and labels must have the same shape, not {truth.shape} and {labels.shape}")
    counted = truth > 0
    if not counted.any():
        raise InputError("the truth has no region: all its pixels are 0, which is membrane")
    truth, labels = truth[counted], labels[counted]
    alone = int((labels == 0).sum())
    pixels = truth.size
    # Pixels of no region are not in the table: each would be a column of its own.
    rows, columns = (np.unique(ids, return_inverse=True)[1] for ids in (truth, labels))
    table = sparse.coo_array((np.ones(pixels), (rows, columns)))
    table.sum_duplicates()
    both = table.data[np.unique(labels)[table.col] > 0]
    in_truth, in_labels = np.bincount(rows), np.bincount(columns[labels > 0])
    both, in_truth, in_labels = (counts[counts > 0] / pixels for counts in (both, in_truth, in_labels))

    # The chance that two pixels, drawn with replacement, are in one region of both, of the truth, of the proposal.
    together, true_pairs, pairs = (
        np.sum(p**2) + n / pixels**2 for p, n in ((both, alone), (in_truth, 0), (in_labels, alone))
    )
    joint, true_entropy, entropy = (
        -np.sum(p * np.log(p)) + n / pixels * np.log(pixels)
        for p, n in ((both, alone), (in_truth, 0), (in_labels, alone))
    )
    shared = max(0.0, true_entropy + entropy - joint)
    return {
        "v_rand": float(2 * together / (true_pairs + pairs)),
        "v_rand_split": float(together / true_pairs),
        "v_rand_merge": float(together / pairs),
        "v_info": _share(2 * shared, true_entropy + entropy),
        "v_info_split": _share(shared, entropy),
        "v_info_merge": _share(shared, true_entropy),
    }


def thin(cells) -> np.ndarray:
    """Regions of a slice, with membranes thinned to lines one pixel wide between different regions; where they separate nothing they vanish.

    Regions are connected by 4 neighbours. Without any cell nothing is separated: all is one region.

    Args:
        cells: `(height, width)`, true where there is cell, false where there is membrane.

    Returns:
        `(height, width)` int32: 1, 2, ... for regions, 0 for lines.

    Source: the watershed of the binary image, Vincent and Soille 1991, as in the challenge's program.
    """
    cells = np.asarray(cells, bool)
    if cells.ndim != 2:
        raise InputError(f"cells must be one slice (height, width), not {cells.shape}; thin slice by slice")
    if not cells.any():
        return np.ones(cells.shape, "int32")
    labels = np.pad(ndimage.label(cells)[0], 1)
    around = (1, -1, labels.shape[1], -labels.shape[1])
    flat = labels.ravel()
    inside = np.pad(np.ones(cells.shape, bool), 1).ravel()
    left = np.flatnonzero(inside & (flat == 0))
    largest = np.iinfo(labels.dtype).max
    while left.size:  # all regions grow by one pixel at a time, but not into pixels that two of them reach
        beside = np.stack([flat[left + step] for step in around])
        high = beside.max(axis=0)
        low = np.where(beside > 0, beside, largest).min(axis=0)
        reached = high > 0
        if not reached.any():
            break  # enclosed by lines
        flat[left[reached]] = np.where(low == high, high, 0)[reached]
        left = left[~reached]
    # Where two regions meet between pixels, in membranes of even width, the one of the higher label gives a pixel.
    grown = np.flatnonzero(inside & (np.pad(~cells, 1).ravel()) & (flat > 0))
    beside = np.stack([flat[grown + step] for step in around])
    flat[grown[((beside > 0) & (beside < flat[grown])).any(axis=0)]] = 0
    return flat.reshape(labels.shape)[1:-1, 1:-1].astype("int32")


def membrane_scores(truth, probability, thresholds=THRESHOLDS) -> list[dict]:
    """The scores of slices at each threshold: V_rand and V_info after thinning, and pixel error without; each the mean over slices.

    Args:
        truth: `(slices, height, width)` or one slice `(height, width)`: 0 for membrane, anything else for cell.
        probability: Of *cell*, from 0 to 1, of the same shape. Pixels above the threshold are cell.
        thresholds: Numbers from 0 up to but without 1.

    Returns:
        A dictionary a threshold: `threshold`, the scores of `region_scores` and `pixel_error` (share of pixels on the wrong side).

    Raises:
        InputError: Shapes that differ, probabilities beyond 0 to 1, or a slice of truth without cell.
    """
    truth, probability = np.asarray(truth), np.asarray(probability)
    if truth.shape != probability.shape or truth.ndim not in (2, 3) or not truth.size:
        raise InputError(
            f"truth and probability must both be (slices, height, width), not {truth.shape} and {probability.shape}"
        )
    if not (probability.min() >= 0 and probability.max() <= 1):
        raise InputError(
            f"probabilities are from 0 to 1; given {probability.min():.4g} to {probability.max():.4g} (logits, or 0 to 255?)"
        )
    thresholds = [float(threshold) for threshold in np.ravel(thresholds)]
    if not thresholds or not all(0 <= threshold < 1 for threshold in thresholds):
        raise InputError(f"thresholds are from 0 up to but without 1, at least one; given {thresholds}")
    height_width = truth.shape[-2:]
    truth, probability = truth.reshape(-1, *height_width) != 0, probability.reshape(-1, *height_width)
    regions = [ndimage.label(cells)[0] for cells in truth]
    rows = []
    for threshold in thresholds:
        cells = probability > threshold
        each = [region_scores(true, thin(proposed)) for true, proposed in zip(regions, cells)]
        means = {name: float(np.mean([scores[name] for scores in each])) for name in SCORES}
        rows.append({"threshold": threshold, **means, "pixel_error": float(np.mean(cells != truth))})
    return rows


def best_scores(rows) -> dict:
    """The best of each score over thresholds, as the challenge ranks: largest `v_rand` and `v_info` with their parts, smallest `pixel_error`.

    A threshold chosen on the slices that are scored flatters a little: for a fixed one give `membrane_scores` that one alone.

    Args:
        rows: What `membrane_scores` gives.

    Returns:
        All scores, and `v_rand_threshold`, `v_info_threshold` and `pixel_error_threshold`.
    """
    if not rows:
        raise InputError("no scores to choose from: rows is empty")
    best = {}
    for name in ("v_rand", "v_info"):
        row = max(rows, key=lambda row: row[name])
        best |= {f"{name}{part}": row[f"{name}{part}"] for part in ("", "_split", "_merge")}
        best[f"{name}_threshold"] = row["threshold"]
    row = min(rows, key=lambda row: row["pixel_error"])
    return best | {"pixel_error": row["pixel_error"], "pixel_error_threshold": row["threshold"]}


def _share(part, whole):
    """Of no information nothing can be lost: one region only has all of it."""
    return float(part / whole) if whole > 1e-12 else 1.0


def _checked_ids(ids):
    ids = np.asarray(ids)
    if ids.dtype.kind not in "iu" or (ids.size and ids.min() < 0):
        raise InputError(f"regions are integer ids from 0 up, 0 being membrane; given {ids.dtype}")
    return ids
