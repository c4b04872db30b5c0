"""Each geometric step against SciPy on a matrix worked out here, or against scikit-image; masks exactly, images to one gray level."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import transform

from cnn_zoo.augment import Augmenter, crop, elastic, flip, perspective, rotate, scale, shear, translate, turn
from cnn_zoo.errors import InputError

HEIGHT, WIDTH = 67, 53  # odd, and not square
MODES = {"constant": "grid-constant", "reflect": "mirror", "edge": "nearest"}


def sample(rng, channels=3, dtype="uint8", n=1):
    images = rng.integers(0, 256, (n, HEIGHT, WIDTH, channels)).astype(dtype)
    return images, rng.integers(0, 20, (n, HEIGHT, WIDTH)).astype("uint8")


def centred(matrix):
    """Of a 2 x 2 matrix about the centre of the image: the 3 x 3 one."""
    centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    whole = np.eye(3)
    whole[:2, :2] = matrix
    whole[:2, 2] = centre - matrix @ centre
    return whole


def grid():
    """(3, height, width): x, y and 1 of each pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype("float64")
    return np.stack([x, y, np.ones_like(x)])


def moved(array, coordinates, order, border="constant", fill=0):
    """`array` read by SciPy at the places (x, y) of each output pixel."""
    places = coordinates[1::-1]
    bands = np.moveaxis(np.atleast_3d(array).astype("float64"), -1, 0)
    read = [ndimage.map_coordinates(band, places, order=order, mode=MODES[border], cval=fill) for band in bands]
    return np.stack(read, axis=-1).reshape(array.shape)


def check(augmenter, coordinates, images, masks, fill=0):
    """Compare with SciPy; at a tie between two pixels (within 1/10,000 of one) a mask may have either."""
    out = augmenter(images, masks, seed=(0, 0))
    assert out.images.dtype == images.dtype and out.masks.dtype == masks.dtype
    expected = moved(images[0], coordinates, 1, augmenter.border, fill)
    assert np.abs(out.images[0] - expected).max() <= (1.0 if images.dtype == "uint8" else 0.05)
    ids = moved(masks[0], coordinates, 0, augmenter.border, augmenter.ignore)
    tie = (np.abs(coordinates[:2] % 1 - 0.5) < 1e-4).any(0)
    assert tie.mean() < 0.01
    np.testing.assert_array_equal(out.masks[0][~tie], ids[~tie])
    return out


LINEAR = {  # step, and the matrix that moves the picture, x to the right and y down
    "rotate": (rotate((20, 20)), [[np.cos(np.pi / 9), np.sin(np.pi / 9)], [-np.sin(np.pi / 9), np.cos(np.pi / 9)]]),
    "scale up": (scale(1.237, 1.237), [[1.237, 0], [0, 1.237]]),
    "scale down": (scale(0.713, 0.713), [[0.713, 0], [0, 0.713]]),
    "shear x": (shear((0.317, 0.317)), [[1, 0.317], [0, 1]]),
    "shear both": (shear((0.213, 0.213), (-0.171, -0.171)), [[1, 0.213], [-0.171, 1]]),
}


@pytest.mark.parametrize("border", MODES)
@pytest.mark.parametrize("name", LINEAR)
def test_linear_steps_are_what_scipy_gives(name, border, rng):
    step, forward = LINEAR[name]
    coordinates = np.tensordot(centred(np.linalg.inv(forward)), grid(), 1)
    check(Augmenter([step], border=border, fill=40), coordinates, *sample(rng), fill=40)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
def test_any_number_of_channels_and_both_types(channels, dtype, rng):
    step, forward = LINEAR["rotate"]
    coordinates = np.tensordot(centred(np.linalg.inv(forward)), grid(), 1)
    check(Augmenter([step], fill=99), coordinates, *sample(rng, channels, dtype), fill=99)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_any_type_of_ids(dtype, rng):
    step, forward = LINEAR["rotate"]
    images, masks = sample(rng)
    ids = masks.astype(dtype) * (3000 if np.iinfo(dtype).max > 2**15 else 1)
    coordinates = np.tensordot(centred(np.linalg.inv(forward)), grid(), 1)
    check(Augmenter([step], ignore=77), coordinates, images, ids)


def test_fill_of_each_channel(rng):
    images, _ = sample(rng, 5)
    out = Augmenter([translate((0.5, 0.5), (0, 0))], fill=(10, 20, 30, 40, 50))(images, seed=(0, 0))
    np.testing.assert_array_equal(out[0, :, 0], np.tile([10, 20, 30, 40, 50], (HEIGHT, 1)))


def test_translate_in_fractions_of_the_sides(rng):
    coordinates = grid() - np.array([0.1 * WIDTH, -0.2 * HEIGHT, 0])[:, None, None]
    check(Augmenter([translate((0.1, 0.1), (-0.2, -0.2))]), coordinates, *sample(rng))


def test_rotation_is_that_of_scikit_image(rng):
    """Counter-clockwise, about the centre."""
    images, _ = sample(rng, 3, "float32")
    expected = transform.rotate(images[0], 33, order=1, mode="constant", cval=0, preserve_range=True)
    inside = transform.rotate(np.ones((HEIGHT, WIDTH)), 33, order=1) > 0.999  # at the border its rule is another
    out = Augmenter([rotate((33, 33))])(images, seed=(0, 0))
    assert np.abs(out[0] - expected)[inside].max() < 0.05


def test_perspective_moves_the_corners_within_its_strength_and_warps_as_scikit_image(rng):
    step, images, masks = perspective(0.15), *sample(rng, 3, "float32")
    matrix = step.matrix(np.random.default_rng(3), HEIGHT, WIDTH)
    corners = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]) - 0.5
    away = np.abs(transform.ProjectiveTransform(matrix)(corners) - corners)
    assert (away <= np.array([0.15 * WIDTH, 0.15 * HEIGHT]) + 1e-3).all() and away.max() > 1
    flat = np.tensordot(Drawn(matrix).matrix(None, 0, 0), grid(), 1)
    out = check(Augmenter([Drawn(matrix)]), flat[:2] / flat[2], images, masks)
    expected = transform.warp(images[0], transform.ProjectiveTransform(matrix), order=1, preserve_range=True)
    assert np.abs(out.images[0] - expected)[10:-10, 10:-10].max() < 0.05


class Drawn(rotate):
    """A step with a given matrix, or given shifts."""

    def __init__(self, matrix=None, shifts=None):
        for name, value in {"degrees": 0, "p": 1, "given": matrix, "given_shifts": shifts}.items():
            object.__setattr__(self, name, value)

    def matrix(self, rng, height, width):
        return np.eye(3) if self.given is None else self.given

    def shifts(self, rng, height, width):
        return self.given_shifts


@pytest.mark.parametrize("projective", [False, True])
def test_elastic_shifts_and_a_matrix_are_one_remap(projective, rng):
    shifts = elastic(0.03, 4).shifts(np.random.default_rng(0), HEIGHT, WIDTH)
    matrix = centred(np.array([[0.9, 0.3], [-0.3, 0.9]]))
    if projective:
        matrix[2, :2] = 0.001, -0.002
    places = grid()
    places[:2] += np.moveaxis(shifts, -1, 0)
    flat = np.tensordot(matrix, places, 1)
    check(Augmenter([Drawn(shifts=shifts), Drawn(matrix)]), flat[:2] / flat[2], *sample(rng))


def test_elastic_is_smooth_of_its_strength_and_never_folds():
    step = elastic(0.04, 3)
    drawn = np.stack([step.shifts(np.random.default_rng(k), 99, 99) for k in range(400)])
    # Pixels 16, 49, 82 lie on the coarse grid; a normal cut at two deviations has 0.959 of its deviation.
    assert drawn[:, 16::33, 16::33].std() == pytest.approx(0.959 * 0.04 * 99, rel=0.05)
    assert np.abs(np.diff(drawn, axis=1)).max() < 1 and np.abs(np.diff(drawn, axis=2)).max() < 1


def test_steps_in_a_row_are_one_transform_of_their_product(rng):
    """In the order of the list: first turned, then sheared, then shifted."""
    steps = [rotate((20, 20)), shear((0.2, 0.2)), translate((0.1, 0.1), (0.0, 0.0)), scale(0.87, 0.87)]
    angle = np.pi / 9
    forward = centred(np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]))
    forward = centred(np.array([[1, 0.2], [0, 1]])) @ forward
    forward = np.array([[1, 0, 0.1 * WIDTH], [0, 1, 0], [0, 0, 1]]) @ forward
    forward = centred(np.eye(2) * 0.87) @ forward
    check(Augmenter(steps), np.tensordot(np.linalg.inv(forward), grid(), 1), *sample(rng))


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_flips_are_exact(channels, rng):
    images, masks = sample(rng, channels)
    for steps, view in (
        ([flip(p=1)], np.s_[:, :, ::-1]),
        ([flip(False, True, p=1)], np.s_[:, ::-1]),
        ([flip(True, True, p=1)], np.s_[:, ::-1, ::-1]),
        ([flip(p=1), flip(p=1)], np.s_[:]),
        ([], np.s_[:]),
    ):
        out = Augmenter(steps)(images, masks, seed=(0, 0))
        np.testing.assert_array_equal(out.images, images[view])
        np.testing.assert_array_equal(out.masks, masks[view])


def test_quarter_turns_are_exact(rng):
    images, masks = rng.integers(0, 256, (40, 21, 21, 13)).astype("float32"), rng.integers(0, 9, (40, 21, 21))
    out = Augmenter([turn()])(images, masks, seed=(0, 0))
    seen = set()
    for image, mask, new, ids in zip(images, masks, *out[:2]):
        quarters = [k for k in range(4) if np.array_equal(np.rot90(image, k), new)]
        assert len(quarters) == 1 and np.array_equal(np.rot90(mask, quarters[0]), ids)
        seen |= set(quarters)
    assert seen == {0, 1, 2, 3}
    images, _ = sample(rng, n=20)
    halves = [np.array_equal(a, b[::-1, ::-1]) for a, b in zip(images, Augmenter([turn()])(images, seed=(0, 0)))]
    assert 0 < sum(halves) < 20  # what is not square turns by 0 or 180


def test_crops_are_windows_and_differ(rng):
    images, masks = sample(rng, n=30)
    augmenter = Augmenter([flip(p=1), crop(31, 20)])
    assert augmenter.size(HEIGHT, WIDTH) == (31, 20)
    out = augmenter(images, masks, seed=(0, 0))
    assert out.images.shape == (30, 31, 20, 3)
    places = set()
    for k in range(30):
        windows = np.lib.stride_tricks.sliding_window_view(masks[k, :, ::-1], (31, 20))
        (place,) = np.argwhere((windows == out.masks[k]).all((2, 3)))
        y, x = place
        np.testing.assert_array_equal(out.images[k], images[k, :, ::-1][y : y + 31, x : x + 20])
        places.add((y, x))
    assert len(places) > 20
    whole = Augmenter([crop(HEIGHT, WIDTH)])(images, seed=(0, 0))
    np.testing.assert_array_equal(whole, images)


def test_a_crop_is_part_of_the_one_warp(rng):
    images, masks = sample(rng)
    out = Augmenter([rotate((20, 20)), crop(HEIGHT, 30)])(images, masks, seed=(0, 0))
    whole = Augmenter([rotate((20, 20))])(images, masks, seed=(0, 0))
    found = [
        x
        for x in range(WIDTH - 29)
        if np.array_equal(out.masks[0], whole.masks[0, :, x : x + 30])
        and np.abs(out.images[0].astype(int) - whole.images[0, :, x : x + 30]).max() <= 1
    ]
    assert len(found) == 1


def test_a_crop_larger_than_the_image_is_an_error(rng):
    with pytest.raises(InputError, match="larger than the images, 67 x 53"):
        Augmenter([crop(64)])(sample(rng)[0], seed=(0, 0))


ALL = [
    flip(True, True),
    turn(),
    rotate(180),
    scale(0.7, 1.4, stretch=True),
    translate(0.2),
    shear(0.2, 0.2),
    perspective(0.1),
    elastic(0.03),
]


@pytest.mark.parametrize("border", MODES)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_masks_never_drift_apart(channels, border):
    """1,000 checkerboards. The nearest pixel weighs 1/4 or more in a bilinear value, so below 63 it is black and above 192 white."""
    y, x = np.mgrid[:65, :64]
    board = ((y // 8 + x // 8) % 2).astype("uint8")
    images = np.repeat(board[None, ..., None] * 255, 250, 0).repeat(channels, -1)
    masks = np.repeat(board[None], 250, 0)
    augmenter = Augmenter(ALL, border=border)
    for step in range(4):
        out = augmenter(images, masks, seed=(0, step))
        value, inside = out.images[..., 0], out.masks != 255
        assert not ((value < 63) & (out.masks == 1)).any()
        assert not ((value > 192) & (out.masks == 0) & inside).any()
        decided = inside & ((value < 63) | (value > 192))
        assert decided.sum() > 0.5 * inside.sum()
        shifted = np.roll(out.masks, 1, axis=2)  # one pixel off would be found out
        assert ((value < 63) & (shifted == 1)).mean() > 0.01


@pytest.mark.parametrize("steps", [ALL, ALL[:-1], [flip(True, True), turn(), crop(50, 60)]])
def test_boxes_and_keypoints_go_where_the_pixels_go(steps):
    n, box = 40, np.array([[45.0, 40, 66, 70, 7]])
    masks = np.zeros((n, 110, 120), "uint8")
    masks[:, 40:70, 45:66] = 1
    y, x = np.mgrid[:110, :120]
    point = np.array([[58.0, 52.0]])
    spot = 255 * np.exp(-((x - 58) ** 2 + (y - 52) ** 2) / 8)
    images = np.repeat(spot[None, ..., None], n, 0).astype("float32")
    out = Augmenter(steps, ignore=9)(images, masks, boxes=[box] * n, keypoints=[point] * n, seed=(4, 4))
    found = 0
    for k in range(n):
        rows, columns = np.nonzero(out.masks[k] == 1)
        if not len(rows):
            continue
        edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        if len(out.boxes[k]) == 1:
            np.testing.assert_allclose(out.boxes[k][0, :4], edges, atol=1.5)
            assert out.boxes[k][0, 4] == 7
        at_y, at_x = np.unravel_index(out.images[k, ..., 0].argmax(), out.masks[k].shape)
        if 2 < at_x < out.masks.shape[2] - 3 and 2 < at_y < out.masks.shape[1] - 3 and out.images[k].max() > 200:
            np.testing.assert_allclose(out.keypoints[k][0], (at_x, at_y), atol=1.5)
            found += 1
    assert found > n * 0.4


def test_boxes_are_cut_dropped_below_a_tenth_and_points_outside_are_nan():
    images = np.zeros((1, 100, 100, 1), "uint8")
    boxes = [np.array([[40.0, 0, 60, 100], [0, 0, 40, 10], [0, 0, 55, 10], [0, 0, 57, 10], [70, 5, 90, 9]])]
    points = [np.array([[50.0, 3], [49.0, 3], [99.0, 4]])]
    out = Augmenter([translate((-0.5, -0.5), (0, 0))])(images, boxes=boxes, keypoints=points, seed=(0, 0))
    assert out.boxes[0].tolist() == [[0, 0, 10, 100], [0, 0, 7, 10], [20, 5, 40, 9]]
    np.testing.assert_array_equal(out.keypoints[0], [[0, 3], [np.nan, np.nan], [49, 4]])
    empty = Augmenter([flip()])(images, boxes=[[]], keypoints=[np.zeros((0, 2))], seed=(0, 0))
    assert empty.boxes[0].shape == (0, 4) and empty.keypoints[0].shape == (0, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rotate(-1),
        lambda: rotate("15"),
        lambda: rotate((10, 5)),
        lambda: rotate(400),
        lambda: rotate(float("nan")),
        lambda: scale(0, 1),
        lambda: scale(1.2, 0.8),
        lambda: translate(1.5),
        lambda: shear(1.0),
        lambda: perspective(0.3),
        lambda: elastic(0.2),
        lambda: elastic(0.01, 1),
        lambda: crop(0),
        lambda: crop(10.5),
        lambda: flip(p=1.2),
        lambda: rotate(3, p=None),
    ],
)
def test_settings_that_do_not_fit(make):
    with pytest.raises(InputError):
        make()
