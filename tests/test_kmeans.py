"""Colour segmentation by k-means, against scikit-learn, scikit-image and images whose clusters are known."""

import colorsys
from itertools import product

import numpy as np
import pytest

from cnn_zoo import InputError
from cnn_zoo.classic import kmeans, kmeans_segment

COLORS = np.array([[200, 30, 40], [20, 160, 60], [30, 60, 220]], "uint8")


@pytest.fixture
def painting(rng):
    """Three noisy colours in vertical stripes of 30, 20 and 10 columns, and which is where."""
    truth = np.repeat([0, 1, 2], [30, 20, 10])[None].repeat(41, 0)
    noise = rng.integers(-8, 9, (41, 60, 3))
    return (COLORS[truth] + noise).astype("uint8"), truth


@pytest.mark.parametrize("space", ["rgb", "lab", "hsv"])
def test_known_clusters_are_found_and_numbered_by_size(painting, space):
    image, truth = painting
    found = kmeans_segment(image, 3, space=space)
    assert np.array_equal(found.ids, truth) and found.ids.dtype == np.uint8
    assert found.counts.tolist() == [41 * 30, 41 * 20, 41 * 10]
    means = np.stack([image[truth == i].mean(0) for i in range(3)])
    np.testing.assert_allclose(found.centres, means, atol=1e-3)
    assert np.array_equal(found.recoloured, np.rint(means).astype("uint8")[truth])
    again = kmeans_segment(image, 3, space=space)
    assert np.array_equal(found.ids, again.ids) and np.array_equal(found.centres, again.centres)
    dark = kmeans_segment(image, 3, space=space, order="lightness")
    luma = dark.centres @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luma) > 0).all()


def test_it_is_scikit_learns_kmeans(rng):
    from sklearn.cluster import KMeans

    image = rng.integers(0, 256, (30, 37, 3)).astype("uint8")
    mine = kmeans_segment(image, 5, seed=3)
    theirs = KMeans(5, n_init=4, random_state=3).fit(image.reshape(-1, 3).astype("float32"))
    order = np.argsort(-np.bincount(theirs.labels_), kind="stable")
    assert np.array_equal(mine.ids.ravel(), np.argsort(order)[theirs.labels_])
    np.testing.assert_allclose(mine.inertia, theirs.inertia_ / image[..., 0].size, rtol=1e-4)


def test_colour_spaces_are_the_standard_ones(rng):
    color = pytest.importorskip("skimage.color", reason="needs scikit-image")
    colors = rng.integers(0, 256, (200, 3))
    np.testing.assert_allclose(kmeans.rgb_to_lab(colors), color.rgb2lab(colors[None] / 255)[0], atol=0.02)
    gray = kmeans.rgb_to_lab(np.arange(256)[:, None].repeat(3, 1))
    assert np.abs(gray[:, 1:]).max() < 1e-4 and gray[0, 0] == 0 and abs(gray[-1, 0] - 100) < 1e-4
    cone = kmeans._cone(colors.astype("float32"))
    hsv = np.array([colorsys.rgb_to_hsv(*rgb) for rgb in colors / 255])
    radius = 255 * hsv[:, 1] * hsv[:, 2]
    expected = np.stack([radius * np.cos(2 * np.pi * hsv[:, 0]), radius * np.sin(2 * np.pi * hsv[:, 0])], -1)
    np.testing.assert_allclose(np.hypot(cone[:, 0], cone[:, 1]), radius, atol=1e-3)
    np.testing.assert_allclose(cone[:, 2], 255 * hsv[:, 2], atol=1e-3)
    # The hexagon of HSV and the circle differ by at most 1.2 degrees in angle.
    turned = np.abs(np.angle((cone[:, 0] + 1j * cone[:, 1]) / (expected[:, 0] + 1j * expected[:, 1])))
    assert np.rad2deg(turned).max() < 1.2


def test_position_divides_what_colour_cannot(rng):
    image = np.full((20, 80, 3), 128, "uint8") + rng.integers(0, 2, (20, 80, 3)).astype("uint8")
    halves = kmeans_segment(image, 2, position=1.0).ids
    assert len(np.unique(halves[:, :35])) == 1 and len(np.unique(halves[:, 45:])) == 1 and halves[0, 0] != halves[0, -1]


def test_any_channels_and_types():
    shapes = ((21, 33), (21, 33, 1), (21, 33, 2), (21, 33, 5))
    for shape, (dtype, high) in product(shapes, {"uint8": 255, "uint16": 65535, "float32": 255, "bool": 1}.items()):
        image = np.zeros(shape)
        image[:, 20:] = high
        found = kmeans_segment(image.astype(dtype), 2)
        assert np.array_equal(found.ids, (np.arange(33) >= 20)[None].repeat(21, 0))
        assert found.centres.shape == (2, 1 if len(shape) == 2 else shape[2]) and found.centres.max() == 255
        assert len(found.palette) == 2 and found.palette.to_rgb(found.ids).shape == (21, 33, 3)


def test_large_images_are_learnt_from_a_part_of_them(painting, monkeypatch):
    monkeypatch.setattr(kmeans, "LARGE", 500)
    image, truth = painting
    found = kmeans_segment(image, 3, space="lab")
    assert np.array_equal(found.ids, truth) and found.counts.sum() == truth.size


def test_the_clusters_go_into_the_pictures_of_masks(painting):
    from cnn_zoo.mask_plots import overlay, painted

    image, _ = painting
    found = kmeans_segment(image, 3)
    assert np.array_equal(painted(image, found.ids, found.palette, alpha=1), found.recoloured)
    assert any(
        "cluster 2" in text.get_text() for text in overlay(image, found.ids, found.palette).legends[0].get_texts()
    )


def test_bad_requests_are_refused(painting):
    image, _ = painting
    for arguments, words in {
        (1,): "whole number from 2",
        (2.5,): "whole number from 2",
        (3, "cmyk"): "space is",
        (3, "rgb", -1): "position",
        (3, "rgb", float("nan")): "position",
    }.items():
        keywords = dict(zip(("clusters", "space", "position"), arguments))
        with pytest.raises(InputError, match=words):
            kmeans_segment(image, **keywords)
    with pytest.raises(InputError, match="order is"):
        kmeans_segment(image, 3, order="area")
    with pytest.raises(InputError, match="1 different colour"):
        kmeans_segment(np.zeros((9, 9, 3), "uint8"), 2)
    with pytest.raises(InputError, match="needs RGB"):
        kmeans_segment(image[..., 0], 2, space="lab")
    with pytest.raises(InputError, match="one image"):
        kmeans_segment(np.zeros((0, 5, 3), "uint8"), 2)
    with pytest.raises(InputError, match="one image"):
        kmeans_segment(image[None], 2)
    with pytest.raises(InputError, match="NaN"):
        kmeans_segment(np.full((5, 5), np.nan), 2)
    with pytest.warns(UserWarning, match="looks like 0..1"):
        kmeans_segment(image / np.float32(255), 2)
