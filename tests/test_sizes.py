"""Size rules against TensorFlow, Pillow and SciPy, and masks there and back."""

import json

import numpy as np
import pytest
from PIL import Image

from cnn_zoo import InputError
from cnn_zoo.data.images import _middle
from cnn_zoo.data.sizes import BORDERS, HOW, Size, bilinear, nearest

SHAPES = [(40, 30), (30, 41), (17, 90), (24, 24), (200, 7)]


@pytest.fixture
def picture(rng):
    """A smooth picture of any size, three channels, uint8."""
    from scipy.ndimage import gaussian_filter

    def make(height, width, channels=3):
        smooth = gaussian_filter(rng.normal(size=(height, width, channels)), (2, 2, 0))
        return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype("uint8")

    return make


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", [(20, 15), (80, 60), (13, 70)])
def test_resizing_is_tensorflows(picture, channels, size):
    import tensorflow as tf

    image = picture(40, 30, channels)
    twin = tf.image.resize(image, size, antialias=True).numpy()
    found = bilinear(image, size)
    assert found.dtype == np.uint8 and np.abs(found - twin).max() <= 1
    real = bilinear(image.astype("float32"), size)
    assert real.dtype == np.float32
    np.testing.assert_allclose(real, twin, atol=0.01)


@pytest.mark.parametrize("size", [(20, 15), (80, 60), (13, 70), (40, 30), (1, 1)])
def test_nearest_is_pillows_and_makes_no_ids_up(rng, size):
    mask = rng.choice([0, 3, 200], (40, 30)).astype("uint8")
    twin = np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(nearest(mask, size), twin)
    assert np.array_equal(nearest(np.stack([mask, mask.T[::-1].T]), size)[0], twin)
    large = mask.astype("int32") * 1_000_000
    assert np.array_equal(nearest(large, size), twin.astype("int32") * 1_000_000)


def test_resize(picture):
    image = picture(40, 30)
    assert np.array_equal(Size(24, 36).apply(image), bilinear(image, (24, 36)))
    assert np.array_equal(Size(40, 30).apply(image), image)


@pytest.mark.parametrize("size", [(24, 24), (10, 41), (30, 30)])
def test_short_side_crop_is_what_prediction_does(picture, size):
    for shape in SHAPES:
        image = picture(*shape).astype("float32")
        found = Size(*size, "short_side_crop").apply(image)
        np.testing.assert_allclose(found, _middle(image, size, 1.0), atol=0.01)


def test_crop_takes_the_centre_and_borders_what_is_too_small(picture):
    image = picture(40, 30)
    assert np.array_equal(Size(20, 11, "crop").apply(image), image[10:30, 9:20])
    found = Size(50, 11, "crop", value=7).apply(image)
    assert np.array_equal(found[5:45], image[:, 9:20]) and (found[:5] == 7).all() and (found[45:] == 7).all()


@pytest.mark.parametrize(("border", "mode"), [("constant", "constant"), ("reflect", "reflect"), ("edge", "edge")])
@pytest.mark.parametrize("shape", SHAPES)
def test_letterbox(picture, shape, border, mode):
    image = picture(*shape)
    size = Size(32, 48, "letterbox", border)
    found = size.apply(image)
    scale = min(32 / shape[0], 48 / shape[1])
    inner = bilinear(image, (round(shape[0] * scale), max(1, round(shape[1] * scale))))
    extra = [want - have for want, have in zip((32, 48), inner.shape)]
    assert min(extra) == 0  # it touches
    twin = np.pad(inner, [*((e // 2, e - e // 2) for e in extra), (0, 0)], mode=mode)
    assert found.shape == (32, 48, 3) and found.dtype == np.uint8 and np.array_equal(found, twin)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("border", BORDERS)
def test_images_and_masks_stay_together(rng, how, border):
    """A picture of flat squares whose gray is its id: after any rule the mask says what the image shows, but for the smoothed edges."""
    from scipy.ndimage import maximum_filter, minimum_filter

    count = 0
    for shape in [(64, 48), (33, 90), (100, 100), (20, 25)]:
        mask = np.kron(rng.integers(0, 5, (20, 25)), np.ones((8, 8), int))[: shape[0], : shape[1]].astype("uint8")
        image = (mask * 50)[..., None]
        size = Size(40, 56, how, border, value=255)
        seen, ids = size.apply(image)[..., 0], size.apply_mask(mask, ignore=255)
        assert seen.shape == ids.shape == (40, 56) and set(np.unique(ids)) <= {0, 1, 2, 3, 4, 255}
        inside = ids != 255
        flat = inside & (minimum_filter(ids, 7) == maximum_filter(ids, 7))
        count += flat.sum()
        assert np.abs(seen[flat].astype(int) - ids[flat] * 50).max(initial=0) <= 1
        if border == "constant":
            assert (seen[~inside] == 255).all()
    assert count > 200


@pytest.mark.parametrize("how", HOW)
def test_a_predicted_mask_comes_back(rng, how):
    for shape in [(64, 48), (33, 90), (20, 25), (41, 41)]:
        mask = np.kron(rng.integers(0, 5, (30, 30)), np.ones((10, 10), int))[: shape[0], : shape[1]].astype("uint8")
        size = Size(80, 112, how)
        there = size.apply_mask(mask, ignore=255)
        back = size.place(mask.shape).back(there, fill=9)
        assert back.shape == mask.shape and set(np.unique(back)) <= {0, 1, 2, 3, 4, 9}
        known = back != 9
        assert (back[known] == mask[known]).all()  # every image is enlarged or kept here: nothing is lost
        if how in ("resize", "letterbox") or (how == "crop" and shape[0] <= 80 and shape[1] <= 112):
            assert known.all()
        small = Size(16, 16, how)
        back = small.place(mask.shape).back(small.apply_mask(mask, 255), 255)
        assert (back == mask)[back != 255].mean() > 0.6
    with pytest.raises(InputError, match=r"the mask is \(3, 3\) and was to be \(80, 112\)"):
        size.place((64, 48)).back(np.zeros((3, 3), int), 0)
    assert Size(4, 4, "crop").place((8, 8)).back(np.zeros((4, 4), "uint8"), 300).max() == 300  # not 44


def test_masks_need_an_id_for_their_border():
    mask = np.zeros((9, 5), "uint8")
    with pytest.raises(InputError, match="'letterbox' gives a 9x5 mask a border: give its id, ignore="):
        Size(8, 8, "letterbox").apply_mask(mask)
    with pytest.raises(InputError, match="the border id 300 does not fit into a mask of uint8"):
        Size(8, 8, "letterbox").apply_mask(mask, 300)
    assert Size(18, 10, "letterbox").apply_mask(mask).shape == (18, 10)


@pytest.mark.parametrize(
    "given",
    [
        (0, 5),
        (5, 2.5),
        (True, 5),
        (5, 5, "stretch"),
        (5, 5, "crop", "wrap"),
        (5, 5, "crop", "constant", 256),
        (5, 5, "crop", "constant", "a"),
    ],
)
def test_sizes_that_are_none(given):
    with pytest.raises(InputError):
        Size(*given)


def test_description():
    for how in HOW:
        size = Size(20, 30, how, "edge")
        described = json.loads(json.dumps(size.describe()))
        assert described.pop("sentence") == str(size) and "20x30" in str(size)
        assert Size(**described) == size
