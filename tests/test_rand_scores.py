"""The scores against counting every pair of pixels, and thinning against scikit-image's watershed."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from cnn_zoo.errors import InputError
from cnn_zoo.rand_scores import SCORES, best_scores, membrane_scores, region_scores, thin

HALVES = np.repeat([[1, 1, 1, 0, 2, 2, 2]], 5, axis=0)  # two cells of 15 pixels and a membrane


def counted(truth, labels):
    """V_rand by all ordered pairs of counted pixels, a pixel with itself included; V_info by scikit-learn's way of writing it."""
    truth, labels = np.ravel(truth), np.ravel(labels).copy()
    labels[labels == 0] = labels.max() + 1 + np.arange((labels == 0).sum())  # each a region of its own
    truth, labels = truth[truth > 0], labels[truth > 0]
    both = true = proposed = 0
    for a, b in itertools.product(range(truth.size), repeat=2):
        both += truth[a] == truth[b] and labels[a] == labels[b]
        true += truth[a] == truth[b]
        proposed += labels[a] == labels[b]

    def entropy(ids):
        p = np.unique(ids, return_counts=True, axis=0)[1] / len(ids)
        return -np.sum(p * np.log2(p))

    h_true, h, joint = entropy(truth), entropy(labels), entropy(np.stack([truth, labels], 1))
    shared = h_true + h - joint
    return {
        "v_rand": 2 * both / (true + proposed),
        "v_rand_split": both / true,
        "v_rand_merge": both / proposed,
        "v_info": 2 * shared / (h_true + h),
        "v_info_split": shared / h,
        "v_info_merge": shared / h_true,
    }


@pytest.mark.parametrize("seed", range(8))
def test_region_scores_are_counts_of_pairs(seed):
    rng = np.random.default_rng(seed)
    truth, labels = rng.integers(0, 4, (6, 7)), rng.integers(0, 5, (6, 7)) * 3  # ids need not follow each other
    assert region_scores(truth, labels) == pytest.approx(counted(truth, labels), rel=1e-12)


def test_region_scores_agree_with_scikit():
    """Where each pixel has a region. scikit-image leaves out pairs of a pixel with itself: of each region of 11,250 pixels one in 11,250."""
    skimage, sklearn = pytest.importorskip("skimage.metrics"), pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, labels = rng.integers(1, 9, (300, 300)), rng.integers(1, 9, (300, 300))
    labels[:150] = truth[:150]
    scores = region_scores(truth, labels)
    error, precision, recall = skimage.adapted_rand_error(truth, labels)
    assert [scores["v_rand"], scores["v_rand_merge"], scores["v_rand_split"]] == pytest.approx(
        [1 - error, precision, recall], abs=1e-3
    )
    expected = sklearn.homogeneity_completeness_v_measure(truth.ravel(), labels.ravel())
    assert [scores["v_info_merge"], scores["v_info_split"], scores["v_info"]] == pytest.approx(expected, rel=1e-9)


def test_perfect_merged_and_split():
    assert region_scores(HALVES, HALVES) == pytest.approx(dict.fromkeys(SCORES, 1.0))
    renamed = np.where(HALVES == 1, 40, 7)  # of what is membrane in the truth nothing is asked
    assert region_scores(HALVES, renamed) == pytest.approx(dict.fromkeys(SCORES, 1.0))

    merged = region_scores(HALVES, np.ones_like(HALVES))
    assert merged["v_rand_split"] == merged["v_info_split"] == 1
    assert merged["v_rand_merge"] == pytest.approx(1 / 2) and merged["v_rand"] == pytest.approx(2 / 3)
    assert merged["v_info_merge"] == merged["v_info"] == 0

    split = region_scores(HALVES, np.zeros_like(HALVES))  # 30 regions of one pixel
    assert [split["v_rand_merge"], split["v_info_merge"]] == pytest.approx([1, 1])
    assert split["v_rand_split"] == pytest.approx(1 / 15)
    assert split["v_info_split"] == pytest.approx(np.log(2) / np.log(30))

    one = region_scores(np.ones((3, 3), int), np.ones((3, 3), int))
    assert one == pytest.approx(dict.fromkeys(SCORES, 1.0))


def test_thin_keeps_what_separates():
    cells = np.ones((9, 20), bool)
    cells[:, 4:7] = False  # a membrane of odd width, one of even width, and one that ends in the middle of a cell
    cells[:, 11:15] = False
    cells[3:6, 16:20] = False
    labels = thin(cells)
    assert np.array_equal(np.unique(labels), [0, 1, 2, 3])
    lines = labels == 0
    assert (lines.sum(axis=1) == 2).all() and lines[:, 5].all() and lines[:, 11:15].any(axis=1).all()
    assert np.array_equal(labels[:, 15:], np.full((9, 5), 3))
    assert np.array_equal(thin(np.ones((3, 4))), np.ones((3, 4)))
    assert np.array_equal(thin(np.zeros((3, 4))), np.ones((3, 4)))  # no cell: nothing is separated


def random_cells(rng, side):
    return ndimage.gaussian_filter(rng.standard_normal((side, side)), 3) > -0.02


def test_thin_agrees_with_a_watershed():
    """Which of two pixels in the middle of a membrane becomes the line is not defined; the regions are, and so are the scores."""
    watershed = pytest.importorskip("skimage.segmentation").watershed
    rng = np.random.default_rng(1)
    for _ in range(5):
        cells = random_cells(rng, 96)
        seeds, _ = ndimage.label(cells)
        reference, labels = watershed(~cells, seeds, connectivity=1, watershed_line=True), thin(cells)
        assert np.array_equal(labels[cells], reference[cells])
        assert np.mean(labels != reference) < 0.1
        horizontal, vertical = (labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])
        for a, b in (horizontal, vertical):  # a line lies between any two regions
            assert not ((a != b) & (a > 0) & (b > 0)).any()
        truth, _ = ndimage.label(random_cells(rng, 96))
        assert region_scores(truth, labels) == pytest.approx(region_scores(truth, reference), abs=0.02)


def test_membrane_scores_of_truth_and_of_a_gap():
    rng = np.random.default_rng(2)
    truth = np.stack([random_cells(rng, 64) for _ in range(2)]).astype("uint8") * 255
    rows = membrane_scores(truth, truth / 255)
    assert len(rows) == 10
    assert rows[5] == pytest.approx({"threshold": 0.5, **dict.fromkeys(SCORES, 1.0), "pixel_error": 0}, abs=1e-9)

    wall = (HALVES > 0).astype("uint8")
    proposal = wall.astype("float32")
    proposal[2, 3] = 0.45  # a gap of one pixel, unless the threshold is above it
    low, high = membrane_scores(wall, proposal, (0.4, 0.5))
    assert low["v_rand_merge"] == pytest.approx(1 / 2) and low["pixel_error"] == pytest.approx(1 / 35)
    assert high["v_rand"] == high["v_info"] == 1 and high["pixel_error"] == 0
    best = best_scores([low, high])
    assert best["v_rand"] == 1 and best["v_rand_threshold"] == 0.5 and best["pixel_error_threshold"] == 0.5

    thick = wall.copy()
    thick[:, 2:5] = 0  # too thick a membrane costs pixels but no pair
    (row,) = membrane_scores(wall, thick, (0.5,))
    assert row["v_rand"] == 1 and row["pixel_error"] == pytest.approx(10 / 35)


def test_means_are_over_slices():
    whole = np.ones_like(HALVES, dtype=float)
    (row,) = membrane_scores(np.stack([HALVES, HALVES]), np.stack([HALVES > 0, whole]), (0.5,))
    assert row["v_rand"] == pytest.approx((1 + 2 / 3) / 2) and row["v_info"] == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: region_scores(HALVES, HALVES[:2]), "same shape"),
        (lambda: region_scores(HALVES * 0, HALVES), "no region"),
        (lambda: region_scores(HALVES, HALVES / 2), "integer ids"),
        (lambda: region_scores(HALVES, HALVES - 1), "from 0 up"),
        (lambda: thin(np.ones((2, 3, 3))), "slice by slice"),
        (lambda: membrane_scores(HALVES, HALVES[:2]), r"\(slices, height, width\)"),
        (lambda: membrane_scores(HALVES, HALVES * 127.5), "from 0 to 1"),
        (lambda: membrane_scores(HALVES, HALVES * np.nan), "from 0 to 1"),
        (lambda: membrane_scores(HALVES, HALVES > 0, ()), "thresholds"),
        (lambda: membrane_scores(HALVES, HALVES > 0, (1.0,)), "thresholds"),
        (lambda: membrane_scores(HALVES * 0, HALVES > 0), "no region"),
        (lambda: best_scores([]), "empty"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
