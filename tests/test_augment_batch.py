"""Seeds, threads, mixing, presets, descriptions, functions of one's own, pictures, and input that does not fit."""

import inspect
import json
import pickle

import numpy as np
import pytest

import cnn_zoo.augment as package
from cnn_zoo.augment import (
    PRESETS,
    Augmented,
    Augmenter,
    Step,
    brightness,
    contrast,
    crop,
    cutmix,
    elastic,
    flip,
    gamma,
    hue,
    joint,
    mixup,
    mosaic,
    noise,
    perspective,
    preview,
    rand_augment,
    rotate,
    scale,
    shear,
    translate,
    trivial_augment,
)
from cnn_zoo.errors import InputError

MANY = [
    flip(),
    rotate(30),
    scale(0.8, 1.25),
    shear(0.1),
    translate(0.1),
    perspective(0.05),
    elastic(0.02, p=0.5),
    brightness(0.2),
    noise(5, p=0.5),
]


def batch(rng, n=8, channels=3, dtype="uint8"):
    return rng.integers(0, 256, (n, 31, 40, channels)).astype(dtype), rng.integers(0, 5, (n, 31, 40)).astype("uint8")


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b) if x is not None)


def test_the_same_seed_and_step_give_the_same_and_others_others(rng):
    images, masks = batch(rng)
    augment = Augmenter(MANY)
    first = augment(images, masks, seed=(3, 7))
    assert same(first, augment(images, masks, seed=(3, 7)))
    assert same(first, augment(images, masks, seed=np.array([3, 7])))
    for other in ((3, 8), (4, 7), (7, 3)):
        assert not np.array_equal(first.images, augment(images, masks, seed=other).images)
    one = Augmenter(MANY)(np.repeat(images[:1], 6, 0), seed=(3, 7))
    assert len({image.tobytes() for image in one}) == 6  # samples of one batch draw for themselves


def test_neither_threads_nor_neighbours_nor_masks_change_a_sample(rng):
    images, masks = batch(rng)
    out = Augmenter(MANY, threads=1)(images, masks, seed=(0, 5))
    for threads in (2, 5, 64):
        assert same(out, Augmenter(MANY, threads=threads)(images, masks, seed=(0, 5)))
    few = Augmenter(MANY)(np.concatenate([images[:3], images[4:5]]), seed=(0, 5))
    np.testing.assert_array_equal(few[:3], out.images[:3])
    assert not np.array_equal(few[3], out.images[4])  # it is the fourth now


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_channels_are_changed_alike(dtype, rng):
    images, _ = batch(rng, channels=13, dtype=dtype)
    steps = [*MANY[:-1], contrast(0.3)]
    whole = Augmenter(steps)(images, seed=(0, 0)).astype("float64")
    for band in (0, 5, 12):
        alone = Augmenter(steps)(images[..., [band]], seed=(0, 0))
        assert np.abs(whole[..., [band]] - alone).max() <= 1


def test_the_given_arrays_stay_as_they_are_whatever_their_layout(rng):
    images, masks = batch(rng, n=6)
    before = images.copy(), masks.copy()
    augment = Augmenter([*MANY, joint(lambda image, mask, rng: (image * 0, mask * 0))])
    augment(images, masks, seed=(0, 0))
    assert same(before, (images, masks))
    strange = np.asfortranarray(images)[::2, ::-1], np.asfortranarray(masks)[::2, ::-1]
    assert same(
        Augmenter(MANY)(*strange, seed=(0, 0)), Augmenter(MANY)(*(a.copy(order="C") for a in strange), seed=(0, 0))
    )


def test_opencv_gets_its_threads_back(rng):
    import cv2

    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        Augmenter(MANY)(batch(rng)[0], seed=(0, 0))
        assert cv2.getNumThreads() == 2
        with pytest.raises(InputError):
            Augmenter([hue(10)])(batch(rng, channels=1)[0], seed=(0, 0))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("threads", [1, 3])
def test_it_gives_what_it_got(threads, rng):
    images, masks = batch(rng)
    augment = Augmenter([rotate(10)], threads=threads)
    assert isinstance(augment(images, seed=(0, 0)), np.ndarray)
    out = augment(images, labels=np.arange(8), seed=(0, 0))
    assert isinstance(out, Augmented) and out.masks is None and out.boxes is None and out.labels.tolist() == [*range(8)]
    assert augment(images[:0], masks[:0], seed=(0, 0)).images.shape == (0, 31, 40, 3)


def test_inside_tf_data(rng):
    import tensorflow as tf

    images, masks = batch(rng)
    augment = Augmenter([crop(20, 24), *MANY])

    def change(step):
        return tf.numpy_function(
            lambda step: tuple(augment(images, masks, seed=(9, step))[:2]), [step], (tf.uint8,) * 2
        )

    for step, given in tf.data.Dataset.range(4).map(change, 2).enumerate().as_numpy_iterator():
        assert same(given, augment(images, masks, seed=(9, int(step))))


# Descriptions


def every_step():
    needed = {"rotate": (15,), "scale": (0.8, 1.25), "translate": (0.1,), "shear": (0.1, 0.2), "crop": (20, 30)}
    needed |= {
        "brightness": (0.2,),
        "contrast": (0.2,),
        "gamma": (0.5, 2),
        "blur": (1,),
        "sharpen": (0.5,),
        "noise": (5,),
    }
    needed |= {"saturation": (0.3,), "hue": (10,), "illumination": (0.3,)}
    return {
        name: step(*needed.get(name, ())) for name, step in Step.KNOWN.items() if "function" not in step.__annotations__
    }


def test_descriptions_are_plain_and_lead_back():
    steps = every_step()
    assert len(steps) == 31
    augment = Augmenter(steps.values(), border="reflect", fill=(1, 2, 3), ignore=9, classes=4)
    description = json.loads(json.dumps(augment.describe()))
    again = Augmenter.of(description)
    assert again == augment and hash(again) == hash(augment) and again.describe() == augment.describe()
    assert pickle.loads(pickle.dumps(augment)) == augment
    assert augment != Augmenter(steps.values()) and rotate(15) == rotate((-15, 15)) != rotate(16)
    for name, step in steps.items():
        assert step.describe()["step"] == name
    with pytest.raises(AttributeError):
        steps["rotate"].degrees = 3


def test_every_step_is_public():
    for name, step in Step.KNOWN.items():
        if name not in ("plain", "joint") and step.__module__.startswith("cnn_zoo"):
            assert getattr(package, name) is step and name in package.__all__ and inspect.getdoc(step)


def own(image, rng):
    return image + rng.uniform(0, 300)


def test_a_plain_function_is_a_step(rng):
    images, _ = batch(rng)
    augment = Augmenter([own, flip(p=1)])
    out = augment(images, seed=(0, 0))
    assert out.dtype == np.uint8 and out.max() == 255 and (out >= images[:, :, ::-1]).all()
    assert np.array_equal(out, augment(images, seed=(0, 0)))
    assert augment.describe()["steps"][0]["function"].endswith("test_augment_batch.own")
    assert augment == Augmenter([own, flip(p=1)])
    with pytest.raises(InputError, match="test_augment_batch.own' is a function of your own"):
        Augmenter.of(augment.describe())


def test_a_joint_function_gets_image_and_mask_after_the_geometry(rng):
    images, masks = batch(rng)

    def upside_down(image, mask, rng):
        return image[::-1], mask[::-1]

    out = Augmenter([joint(upside_down), flip(p=1)])(images, masks, seed=(0, 0))
    assert same(out, (images[:, ::-1, ::-1], masks[:, ::-1, ::-1]))
    alone = Augmenter([joint(lambda image, mask, rng: (image // 2, mask))])(images, seed=(0, 0))
    np.testing.assert_array_equal(alone, images // 2)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda image, rng: image[:-1], "shapes must stay"),
        (lambda image, rng: None, "gave back NoneType"),
        (joint(lambda image, mask, rng: (image, mask[1:])), "shapes must stay"),
        (joint(lambda image, mask, rng: (image, mask / 2)), "integer ids"),
    ],
)
def test_functions_that_give_back_the_wrong_thing(step, message, rng):
    with pytest.raises(InputError, match=message):
        Augmenter([step])(*batch(rng), seed=(0, 0))


# Mixing: constant images whose values say where pixels come from


def constant(n=12, dtype="uint8"):
    values = np.arange(n) * 20
    images = np.broadcast_to(values[:, None, None, None], (n, 40, 60, 3)).astype(dtype)
    return values, images, np.broadcast_to(np.arange(n)[:, None, None], (n, 40, 60)).astype("uint8")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_mixup_blends_images_as_labels(dtype):
    values, images, _ = constant(dtype=dtype)
    out = Augmenter([mixup(1.0)], classes=12)(images, labels=np.arange(12), seed=(0, 0))
    assert out.labels.shape == (12, 12) and out.images.dtype == dtype
    np.testing.assert_allclose(out.labels.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(out.images[:, 0, 0, 0], out.labels @ values, atol=0.51)
    assert ((out.labels > 0).sum(1) == 2).all() and 0.2 < out.labels.diagonal().std() < 0.4  # uniform: 0.29
    small = Augmenter([mixup(0.05, p=0.5)], classes=12)(images, labels=np.arange(12), seed=(0, 1))
    assert (small.labels.max(1) > 0.99).sum() > 6


def test_cutmix_pastes_a_rectangle_with_its_mask_and_counts_its_area():
    values, images, masks = constant()
    out = Augmenter([cutmix()], classes=12)(images, masks, labels=np.arange(12), seed=(0, 0))
    for k in range(12):
        np.testing.assert_array_equal(out.masks[k] * 20, out.images[k, ..., 0])
        shares = np.bincount(out.masks[k].ravel(), minlength=12) / 2400
        np.testing.assert_allclose(out.labels[k], shares, atol=1e-6)
        rows, columns = np.nonzero(out.masks[k] != k)
        if len(rows):
            assert (np.ptp(rows) + 1) * (np.ptp(columns) + 1) == len(rows)
    assert 0.2 < out.labels.diagonal().mean() < 0.95


def test_mosaic_joins_four_with_masks_boxes_points_and_areas(rng):
    _, images, masks = constant()
    out = Augmenter([mosaic()], classes=12)(images, masks, labels=np.eye(12), seed=(0, 0))
    np.testing.assert_array_equal(out.masks * 20, out.images[..., 0])
    for k in range(12):
        np.testing.assert_allclose(out.labels[k], np.bincount(out.masks[k].ravel(), minlength=12) / 2400, atol=1e-6)
        corners = [out.masks[k][y, x] for y in (0, -1) for x in (0, -1)]
        assert k in corners and set(np.unique(out.masks[k])) == set(corners)

    n, masks = 10, np.zeros((10, 64, 80), "uint8")
    for k in range(n):
        masks[k, 20 + k : 40 + k, 30 : 50 + k] = k + 1
    boxes = [np.array([[30.0, 20 + k, 50 + k, 40 + k, k + 1]]) for k in range(n)]
    images = np.repeat(masks[..., None], 3, -1)
    out = Augmenter([mosaic()])(images, masks, boxes=boxes, keypoints=[box[:, :2] for box in boxes], seed=(0, 0))
    kept = 0
    for k in range(n):
        drawn = np.zeros_like(masks[0])
        for x0, y0, x1, y1, value in out.boxes[k].astype(int):
            drawn[y0:y1, x0:x1] = value
            kept += 1
        missed = (drawn != out.masks[k]) & (drawn > 0)
        assert not missed.any()  # all in a box is its object; what is in none was less than a tenth of one
        assert (out.masks[k] > 0)[drawn == 0].sum() <= 4 * 0.1 * 29 * 20
        for x, y in out.keypoints[k]:
            assert np.isnan(x) == np.isnan(y) and (np.isnan(x) or out.masks[k][int(y), int(x)] > 0)
        assert len(out.keypoints[k]) == 4
    assert kept > 10


def test_mixing_follows_the_seed_and_comes_last(rng):
    images, masks = batch(rng)
    augment = Augmenter([mosaic(), *MANY, cutmix(p=0.5)])
    assert same(augment(images, masks, seed=(0, 1)), augment(images, masks, seed=(0, 1)))
    assert not same(augment(images, masks, seed=(0, 1))[:1], augment(images, masks, seed=(0, 2))[:1])
    plain = Augmenter(MANY)(images, masks, seed=(0, 1))
    off = Augmenter([mosaic(p=0), *MANY, cutmix(p=0)])(images, masks, seed=(0, 1))
    assert same(plain, off)


@pytest.mark.parametrize(
    ("steps", "given", "message"),
    [
        ([mixup()], {"masks": True}, "cutmix"),
        ([mixup()], {}, "labels="),
        ([mixup()], {"labels": np.zeros(8, int)}, "classes="),
        ([cutmix()], {}, "labels="),
        ([mosaic()], {}, "labels="),
        ([cutmix()], {"boxes": [[]] * 8, "labels": np.zeros((8, 2))}, "mosaic"),
        ([mixup()], {"keypoints": [[]] * 8, "labels": np.zeros((8, 2))}, "mosaic"),
        ([cutmix()], {"labels": np.zeros(7, int)}, r"\(n,\) or \(n, classes\)"),
    ],
)
def test_mixing_what_cannot_be_mixed(steps, given, message, rng):
    images, masks = batch(rng)
    given = given | ({"masks": masks} if "masks" in given else {})
    with pytest.raises(InputError, match=message):
        Augmenter(steps)(images, **given, seed=(0, 0))
    with pytest.raises(InputError, match="0..2"):
        Augmenter([mixup()], classes=3)(images, labels=np.full(8, 3), seed=(0, 0))


# Presets and choices


@pytest.mark.parametrize("name", PRESETS)
def test_presets_change_images_and_keep_masks_whole(name, rng):
    images, masks = batch(rng)
    augment = Augmenter(PRESETS[name])
    assert Augmenter.of(augment.describe()) == augment
    for dtype in ("uint8", "float32"):
        out = augment(images.astype(dtype), masks, seed=(0, 0))
        assert out.images.shape == images.shape and not np.array_equal(out.images, images)
        assert set(np.unique(out.masks)) <= {0, 1, 2, 3, 4, 255}
    if name != "natural":
        assert augment(images[..., :1], seed=(0, 0)).shape == (8, 31, 40, 1)


@pytest.mark.parametrize("name", ["digits", "medical"])
def test_presets_that_must_not_mirror_do_not(name):
    """A mark on the right side stays there, and one below stays below."""
    masks = np.zeros((200, 64, 64), "uint8")
    masks[:, 28:36, 50:58], masks[:, 50:58, 28:36] = 1, 2
    out = Augmenter(PRESETS[name])(np.zeros((200, 64, 64, 1), "uint8"), masks, seed=(0, 0))
    for mask in out.masks:
        assert np.nonzero(mask == 1)[1].mean() > 38 and np.nonzero(mask == 2)[0].mean() > 38


def test_choices_draw_all_their_steps_at_their_strength():
    seen = {}
    for k in range(600):
        for step in rand_augment(2, 15).chosen(np.random.default_rng(k)):
            seen.setdefault(type(step).__name__, []).append(step)
    assert len(seen) == 11  # shear and translate stand for two each, and the identity for none
    assert {step.degrees for step in seen["rotate"]} == {(15, 15), (-15, -15)}
    assert {step.bits for step in seen["posterize"]} == {6}
    strengths = [
        step.degrees[0]
        for k in range(2000)
        for step in trivial_augment().chosen(np.random.default_rng(k))
        if type(step) is rotate
    ]
    assert min(strengths) < -125 and max(strengths) > 125 and len(set(np.abs(strengths))) > 20
    without = [step for k in range(400) for step in rand_augment(2, 9, colour=False).chosen(np.random.default_rng(k))]
    assert "saturation" not in {type(step).__name__ for step in without}


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_choices_work_on_any_channels(channels, rng):
    images, masks = batch(rng, n=40, channels=channels)
    for step in (rand_augment(3, 20, colour=channels == 3), trivial_augment(colour=channels == 3)):
        out = Augmenter([step])(images, masks, seed=(0, 0))
        assert sum(not np.array_equal(a, b) for a, b in zip(out.images, images)) > 20
    with pytest.raises(InputError, match="magnitude"):
        rand_augment(2, 31)


# Pictures


def test_preview_shows_before_and_after(rng, tmp_path):
    images, masks = batch(rng)
    figure = preview(images, Augmenter([flip(p=1)]), masks, n=2, versions=2, save=tmp_path / "preview.png")
    shown = [axes.get_images()[0].get_array() for axes in figure.axes]
    assert len(shown) == 6 and (tmp_path / "preview.png").stat().st_size > 1000
    np.testing.assert_array_equal(shown[0][:, ::-1], shown[1])
    gray = preview(images[..., :1], [gamma(0.5, 2)], n=1)
    np.testing.assert_array_equal(gray.axes[0].get_images()[0].get_array(), images[0, ..., 0])
    for wrong in ({"versions": 0}, {"n": 0}):
        with pytest.raises(InputError, match="nothing to show"):
            preview(images, [], **wrong)


# Input that does not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((31, 40, 3), "uint8")}, r"image\[None\]"),
        ({"images": np.zeros((8, 31, 40), "uint8")}, "height, width, channels"),
        ({"images": np.zeros((8, 31, 40, 0), "uint8")}, "height, width, channels"),
        ({"images": np.zeros((8, 31, 40, 3), "float64")}, "uint8 or float32"),
        ({"images": np.zeros((8, 31, 40, 3), "uint16")}, "uint8 or float32"),
        ({"masks": np.zeros((8, 40, 31), "uint8")}, r"\(8, 31, 40\)"),
        ({"masks": np.zeros((7, 31, 40), "uint8")}, r"\(8, 31, 40\)"),
        ({"masks": np.zeros((8, 31, 40, 1), "uint8")}, r"\(8, 31, 40\)"),
        ({"masks": np.zeros((8, 31, 40), "float32")}, "integer class ids"),
        ({"masks": np.zeros((8, 31, 40), bool)}, "integer class ids"),
        ({"masks": np.zeros((8, 31, 40), "int8")}, "cannot hold ignore=255"),
        ({"masks": np.full((8, 31, 40), 2**40)}, "32 bits"),
        ({"boxes": [np.zeros((1, 4))] * 7}, "7 boxes for 8 images"),
        ({"boxes": [np.zeros((1, 3))] * 8}, r"\(k, 4\)"),
        ({"boxes": [np.array([[5, 5, 3, 9]])] * 8}, "x0 <= x1"),
        ({"keypoints": [np.zeros(2)] * 8}, r"\(k, 2\)"),
        ({"seed": 3}, "two whole numbers"),
        ({"seed": (1, 2, 3)}, "two whole numbers"),
        ({"seed": (1.5, 2)}, "two whole numbers"),
        ({"seed": (-1, 2)}, "0 or more"),
    ],
)
def test_batches_that_do_not_fit(change, message, rng):
    images, masks = batch(rng)
    given = {"images": images, "masks": masks, "seed": (0, 0)} | change
    with pytest.raises(InputError, match=message):
        Augmenter([rotate(10)])(given.pop("images"), given.pop("masks"), **given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Augmenter(flip()), r"put a single step into \[ \]"),
        (lambda: Augmenter("digits"), "wants a list of steps"),
        (lambda: Augmenter([15]), "is no step"),
        (lambda: Augmenter([flip]), "is no step"),
        (lambda: Augmenter(["flip"]), "is no step"),
        (lambda: Augmenter([], border="wrap"), "constant, reflect, edge"),
        (lambda: Augmenter([], fill=300), "0..255"),
        (lambda: Augmenter([], ignore=None), "ignore"),
        (lambda: Augmenter([], ignore=1.5), "ignore"),
        (lambda: Augmenter([], classes=0), "classes"),
        (lambda: Augmenter([], threads=0), "threads"),
        (lambda: joint(3), "wants a function"),
        (lambda: mixup(0), "above 0"),
        (lambda: Augmenter.of({"steps": [{"step": "rotat"}]}), "no augmentation step 'rotat'"),
        (lambda: Augmenter.of({"steps": [{"step": "rotate", "angle": 3}]}), "no setting 'angle'"),
    ],
)
def test_augmenters_that_do_not_fit(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_joint_functions_cannot_move_boxes_and_fill_must_fit_the_channels(rng):
    images, _ = batch(rng)
    with pytest.raises(InputError, match="boxes or keypoints"):
        Augmenter([joint(lambda image, mask, rng: (image, mask))])(images, boxes=[[]] * 8, seed=(0, 0))
    with pytest.raises(InputError, match="fill has 2 values and the images have 3 channels"):
        Augmenter([], fill=(1, 2))(images, seed=(0, 0))
