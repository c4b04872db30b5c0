"""Each photometric step against a twin in NumPy, SciPy, scikit-image or Pillow, to one gray level."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import ndimage
from skimage import color

from cnn_zoo.augment import (
    Augmenter,
    autocontrast,
    blur,
    brightness,
    channel_drop,
    channel_shuffle,
    contrast,
    cutout,
    equalize,
    gamma,
    hue,
    illumination,
    jpeg,
    noise,
    posterize,
    saturation,
    sharpen,
    solarize,
)
from cnn_zoo.errors import InputError

DTYPES = ["uint8", "float32"]


def photo(rng, channels=3, dtype="uint8", n=1):
    """Smooth, with all values, and some noise."""
    y, x = np.mgrid[:45, :38]
    waves = [127 + 127 * np.sin(x / (5 + band) + y / 7) for band in range(channels)]
    noisy = np.stack(waves, -1)[None] + rng.normal(0, 8, (n, 45, 38, channels))
    return np.rint(noisy.clip(0, 255)).astype(dtype)


def apply(steps, images, seed=(0, 0)):
    out = Augmenter(steps)(images, seed=seed)
    assert out.dtype == images.dtype and out.shape == images.shape and out.min() >= 0 and out.max() <= 255
    return out


def close(out, expected, tolerance=1.0):
    expected = np.clip(expected, 0, 255)
    if out.dtype == np.uint8:
        expected = np.rint(expected)
    difference = np.abs(out.astype("float64") - expected)
    assert difference.max() <= tolerance, difference.max()


CURVES = {
    "brightness": (brightness((0.1, 0.1)), lambda v: v + 25.5),
    "contrast": (contrast((-0.3, -0.3)), lambda v: (v - 127.5) * 0.7 + 127.5),
    "gamma": (gamma(0.7, 0.7), lambda v: 255 * (v / 255) ** 0.7),
    "solarize": (solarize(100), lambda v: np.where(v >= 100, 255 - v, v)),
    "posterize": (posterize(3), lambda v: v // 32 * 32),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
@pytest.mark.parametrize("name", CURVES)
def test_curves_of_values(name, channels, dtype, rng):
    step, twin = CURVES[name]
    images = photo(rng, channels, dtype)
    close(apply([step], images), twin(images.astype("float64")), 0.01)


@pytest.mark.parametrize("dtype", DTYPES)
def test_curves_in_a_row_are_clipped_each_and_rounded_once(dtype, rng):
    images = photo(rng, dtype=dtype)
    values = images.astype("float64")
    for name in ("contrast", "brightness", "gamma", "brightness"):
        values = CURVES[name][1](values).clip(0, 255)
    steps = [CURVES[name][0] for name in ("contrast", "brightness", "gamma", "brightness")]
    close(apply(steps, images), values, 0.01)


def test_a_step_between_two_curves_keeps_its_place(rng):
    images = photo(rng)
    out = apply([brightness((0.5, 0.5)), channel_drop(p=1), brightness((-0.5, -0.5))], images)
    assert (out == 0).all((0, 1, 2)).sum() == 1
    kept = ~(out == 0).all((0, 1, 2))
    close(out[..., kept], np.minimum(images[..., kept] + 127.5, 255).round() - 127.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("sigma", [0.0, 0.6, 2.3])
def test_blur_is_scipys(sigma, channels, dtype, rng):
    images = photo(rng, channels, dtype)
    radius = int(np.ceil(3 * sigma))
    expected = images.astype("float64")
    if radius:
        expected = ndimage.gaussian_filter(expected, (0, sigma, sigma, 0), mode="mirror", radius=(0, radius, radius, 0))
    close(apply([blur((sigma, sigma))], images), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("amount", [-1.0, -0.4, 0.7])
def test_sharpen_is_an_unsharp_mask(amount, dtype, rng):
    images = photo(rng, dtype=dtype)
    smooth = ndimage.gaussian_filter(images.astype("float64"), (0, 1, 1, 0), mode="mirror", radius=(0, 3, 3, 0))
    close(apply([sharpen((amount, amount))], images), images + amount * (images - smooth), 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_has_its_deviation_and_is_new_for_each_pixel_channel_and_sample(dtype):
    images = np.full((4, 64, 64, 3), 128, dtype)
    added = apply([noise((9, 9))], images).astype("float64") - 128
    assert abs(added.mean()) < 0.2 and added.std() == pytest.approx(9, rel=0.02)
    flat = added.reshape(4, -1, 3)
    assert abs(np.corrcoef(flat[0].T)[0, 1]) < 0.06 and abs(np.corrcoef(flat[0, :, 0], flat[1, :, 0])[0, 1]) < 0.06


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("amount", [-1.0, -0.5, 0.8])
def test_saturation_moves_away_from_gray(amount, dtype, rng):
    images = photo(rng, dtype=dtype)
    gray = (images @ [0.299, 0.587, 0.114])[..., None]
    close(apply([saturation((amount, amount))], images), gray + (1 + amount) * (images - gray))


@pytest.mark.parametrize("degrees", [-60.0, 25.0, 180.0])
def test_hue_turns_the_plane_of_colours_in_yiq(degrees, rng):
    images = photo(rng)
    yiq = color.rgb2yiq(images / 255)
    turned = (yiq[..., 1] + 1j * yiq[..., 2]) * np.exp(-1j * np.deg2rad(degrees))
    expected = 255 * color.yiq2rgb(np.stack([yiq[..., 0], turned.real, turned.imag], -1))
    close(apply([hue((degrees, degrees))], images), expected)


def test_a_third_of_a_turn_of_hue_brings_red_nearest_to_green():
    image = np.full((1, 4, 4, 3), (160, 60, 60), "uint8")
    assert apply([hue((120, 120))], image)[0, 0, 0].argmax() == 1


def test_channels_are_shuffled_and_dropped(rng):
    images = photo(rng, 4, n=12)
    orders = set()
    for image, new in zip(images, apply([channel_shuffle(p=1)], images)):
        orders.add(tuple(next(b for b in range(4) if np.array_equal(new[..., a], image[..., b])) for a in range(4)))
    assert len(orders) > 6 and all(sorted(order) == [0, 1, 2, 3] for order in orders)
    dropped = apply([channel_drop(77, p=1)], images)
    gone = (dropped == 77).all((1, 2))
    assert (gone.sum(1) == 1).all() and len(set(gone.argmax(1))) > 1
    np.testing.assert_array_equal(
        dropped[~gone[:, None, None].repeat(45, 1).repeat(38, 2)],
        images[~gone[:, None, None].repeat(45, 1).repeat(38, 2)],
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_jpeg_is_pillows(dtype, rng):
    images = photo(rng, dtype=dtype)
    data = io.BytesIO()
    Image.fromarray(images[0].astype("uint8")).save(data, "JPEG", quality=30)
    expected = np.asarray(Image.open(data)).astype("float64")
    out = apply([jpeg(30, 30)], images)[0]
    assert np.abs(out - expected).mean() < 1 < np.abs(out - images[0].astype("float64")).mean()
    many = photo(rng, 5, dtype)
    each = np.stack([apply([jpeg(50, 50)], many[..., [band]])[0, ..., 0] for band in range(5)], -1)
    np.testing.assert_array_equal(apply([jpeg(50, 50)], many)[0], each)


@pytest.mark.parametrize("dtype", DTYPES)
def test_illumination_is_a_plane_between_its_two_ends(dtype):
    images = np.full((6, 41, 61, 2), 100, dtype)
    y, x = np.mgrid[-1:1:41j, -1:1:61j]
    plane = np.stack([np.ones_like(x), x, y], -1).reshape(-1, 3)
    ways = []
    for image in apply([illumination((0.4, 0.4))], images):
        (fit, _, _, _) = np.linalg.lstsq(plane, image.reshape(-1, 2).astype("float64"), rcond=None)
        assert np.abs(plane @ fit - image.reshape(-1, 2)).max() <= 1
        assert np.abs(fit[1:]).sum(0) == pytest.approx([40, 40], abs=0.5) and fit[0] == pytest.approx(100, abs=0.5)
        ways.append(np.arctan2(fit[2, 0], fit[1, 0]))
    assert np.ptp(ways) > 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_autocontrast_is_pillows(dtype, rng):
    images = (photo(rng) // 2 + 40).astype(dtype)
    images[..., 2] = 90
    expected = np.asarray(ImageOps.autocontrast(Image.fromarray(images[0].astype("uint8")))).astype("float64")
    close(apply([autocontrast()], images)[0], expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_spreads_the_cumulative_histogram(channels, rng):
    images = photo(rng, channels) // 3 + 20
    out = apply([equalize()], images)
    for band in range(channels):
        values = images[0, ..., band]
        below = np.cumsum(np.bincount(values.ravel(), minlength=256))
        first = below[values.min()]
        close(out[0, ..., band], ((below - first) / (values.size - first) * 255)[values])


@pytest.mark.parametrize("hide", [False, True])
def test_cutout_hides_a_rectangle_and_in_masks_only_when_told(hide):
    images, masks = np.full((60, 50, 40, 3), 200, "uint8"), np.ones((60, 50, 40), "int64")
    out = Augmenter([cutout((0.2, 0.4), fill=7, hide_masks=hide, p=1)], ignore=99)(images, masks, seed=(0, 0))
    places = set()
    for image, mask in zip(*out[:2]):
        rows, columns = np.nonzero(image[..., 0] == 7)
        rectangle = np.zeros((50, 40), bool)
        rectangle[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        np.testing.assert_array_equal(image, np.where(rectangle, 7, 200)[..., None].repeat(3, -1))
        np.testing.assert_array_equal(mask, np.where(rectangle & hide, 99, 1))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert height <= 21 and width <= 17
        if 0 < rows.min() and rows.max() < 49:
            assert height >= 9
        places.add((rows.min(), columns.min()))
    assert len(places) > 40


@pytest.mark.parametrize("step", [hue(10), saturation(0.5)])
@pytest.mark.parametrize("channels", [1, 4])
def test_colour_steps_refuse_what_is_not_rgb(step, channels, rng):
    with pytest.raises(InputError, match=f"RGB, and these images have {channels} channels"):
        Augmenter([step])(photo(rng, channels), seed=(0, 0))


def test_dropping_the_only_channel_is_refused(rng):
    with pytest.raises(InputError, match="single channel"):
        Augmenter([channel_drop(p=1)])(photo(rng, 1), seed=(0, 0))


def test_ranges_are_drawn_evenly_and_to_their_ends():
    images = np.full((2000, 1, 1, 1), 100, "float32")
    added = Augmenter([brightness((-0.1, 0.3))])(images, seed=(0, 0)).ravel() - 100
    assert added.min() == pytest.approx(-25.5, abs=0.3) and added.max() == pytest.approx(76.5, abs=0.3)
    assert added.mean() == pytest.approx(25.5, abs=2)
    exponents = np.log(Augmenter([gamma(0.5, 2)])(images, seed=(0, 0)).ravel() / 255) / np.log(100 / 255)
    assert (exponents < 1).mean() == pytest.approx(0.5, abs=0.04)
    touched = Augmenter([brightness((0.1, 0.1), p=0.3)])(images, seed=(0, 0)).ravel() > 101
    assert touched.mean() == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(
    "make",
    [
        lambda: brightness(-0.1),
        lambda: brightness(2),
        lambda: contrast((-2, 0)),
        lambda: gamma(0, 1),
        lambda: solarize(300),
        lambda: posterize(9),
        lambda: posterize(2.5),
        lambda: blur(-1),
        lambda: blur((2, 1)),
        lambda: sharpen((-2, 0)),
        lambda: noise("loud"),
        lambda: saturation((-1.5, 0)),
        lambda: hue(500),
        lambda: channel_drop(300),
        lambda: jpeg(0, 50),
        lambda: jpeg(60, 50),
        lambda: jpeg(60, 101),
        lambda: illumination(1.5),
        lambda: cutout(1.5),
        lambda: cutout(0.2, count=0),
        lambda: cutout(p=-1),
    ],
)
def test_settings_that_do_not_fit(make):
    with pytest.raises(InputError):
        make()
