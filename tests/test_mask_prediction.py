"""Segmenting whole images and tiles, test-time augmentation, and classifying what was segmented."""

import os
import subprocess
import sys
from itertools import product

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from cnn_zoo import DataError, InputError, StorageError, tiling, tta
from cnn_zoo.mask_plots import region_boxes
from cnn_zoo.mask_prediction import predict_mask, predict_tiled, segment_then_classify, write_mask
from cnn_zoo.masks import Palette, read_mask
from cnn_zoo.outputs import output_kind
from cnn_zoo.regions import regions
from cnn_zoo.tta import augmented


def net(shape=(None, None, 3), outputs=4, activation="softmax", padding="same", depth=3, kernel=3):
    """A few convolutions; the radius of its receptive field is depth * (kernel // 2)."""
    x = inputs = keras.Input(shape)
    x = layers.Rescaling(1 / 128, -1)(x)
    for _ in range(depth):
        x = layers.Conv2D(8, kernel, padding=padding, activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(outputs, 1, activation=activation, kernel_initializer="he_normal")(x))


def pooled():
    """A small U-Net with two poolings: its result depends on where the pooling grid lies."""
    x = inputs = keras.Input((None, None, 3))
    x = fine = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.Rescaling(1 / 255)(x))
    x = layers.MaxPooling2D(4)(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.UpSampling2D(4)(x), fine])
    return keras.Model(inputs, layers.Conv2D(3, 3, padding="same", activation="softmax")(x))


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (150, 203, 3)).astype("uint8")


def whole(model, image):
    return model.predict_on_batch(image[None])[0]


# Whole images


def test_masks_are_the_models_most_probable_classes(rng):
    model = net()
    images = rng.integers(0, 256, (5, 17, 23, 3)).astype("uint8")
    expected = model.predict_on_batch(images)
    masks = predict_mask(model, images, classes="abcd", batch_size=2, probabilities=True)
    np.testing.assert_allclose(np.stack(masks.probabilities), expected, atol=1e-6)
    assert np.array_equal(np.stack(masks.ids), expected.argmax(-1)) and masks.ids[0].dtype == np.uint8
    assert len(masks) == 5 and masks.classes == ("a", "b", "c", "d") and masks.files is None
    np.testing.assert_allclose(masks.fractions().sum(1), 1)
    assert predict_mask(model, images).probabilities is None
    assert np.array_equal(predict_mask(model, images[0]).ids[0], masks.ids[0])
    sizes = [images[0], images[1, :9], images[2, :, :8]]
    for mask, given in zip(predict_mask(model, sizes).ids, sizes):
        assert np.array_equal(mask, whole(model, given).argmax(-1))


def test_values_come_to_the_contract_by_their_type(rng):
    model = net((None, None, 1))
    image = rng.integers(0, 256, (9, 11)).astype("uint8")
    expected = whole(model, image[..., None].astype("float32"))
    for given in (image, image.astype("uint16") * 257, image.astype("float64"), image[..., None].astype(">u2") * 257):
        np.testing.assert_allclose(predict_mask(model, given, probabilities=True).probabilities[0], expected, atol=1e-6)
    logical = predict_mask(model, image > 99, probabilities=True).probabilities[0]
    np.testing.assert_allclose(logical, whole(model, (image > 99)[..., None] * np.float32(255)), atol=1e-6)


@pytest.mark.parametrize("activation, outputs", [("softmax", 3), ("sigmoid", 1), ("sigmoid", 3), (None, 1), (None, 3)])
def test_logits_become_probabilities(activation, outputs, image):
    model = net(outputs=outputs, activation=activation)
    assert output_kind(model) == (activation or "logits")
    raw = whole(model, image).astype("float64")
    if activation is None:
        raw = 1 / (1 + np.exp(-raw)) if outputs == 1 else np.exp(raw) / np.exp(raw).sum(-1, keepdims=True)
    masks = predict_mask(model, image, probabilities=True)
    np.testing.assert_allclose(masks.probabilities[0], raw, atol=1e-5)
    expected = raw[..., 0] > 0.5 if outputs == 1 else raw.argmax(-1)
    assert (masks.ids[0] == expected).mean() > 0.999
    assert masks.classes == (("background", "object") if outputs == 1 else ("0", "1", "2"))


def test_the_kind_of_output_is_seen_through_crops_and_nested_models():
    inner = net()
    x = keras.Input((16, 16, 3))
    assert output_kind(keras.Model(x, layers.Cropping2D(1)(inner(layers.ZeroPadding2D(1)(x))))) == "softmax"
    y = layers.Activation("linear", dtype="float32")(layers.Resizing(32, 32)(inner(x)))
    assert output_kind(keras.Model(x, y)) == "softmax"
    assert output_kind(keras.Model(x, layers.Softmax()(layers.Conv2D(2, 1)(x)))) == "softmax"
    assert output_kind(keras.Model(x, layers.Conv2D(2, 1)(inner(x)))) == "logits"
    assert output_kind(keras.Model(x, layers.Add()([inner(x), inner(x)]))) == "logits"
    assert (
        output_kind(keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 1, activation="sigmoid")])) == "sigmoid"
    )


def test_files_of_any_size_come_back_in_their_size(tmp_path, rng):
    sizes = {"a.png": (20, 30), "b.png": (33, 17), "sub/c.png": (20, 30)}
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype("uint8")).save(tmp_path / name)
    dynamic, fixed = net(), net((24, 24, 3))
    for model in (dynamic, fixed):
        masks = predict_mask(model, tmp_path, probabilities=True)
        assert [mask.shape for mask in masks.ids] == list(sizes.values())
        assert [file.name for file in masks.files] == ["a.png", "b.png", "c.png"] and masks.images is None
        assert all(np.array_equal(p.argmax(-1), ids) for p, ids in zip(masks.probabilities, masks.ids))
    pixels = np.asarray(Image.open(tmp_path / "b.png"))
    assert np.array_equal(predict_mask(dynamic, tmp_path).ids[1], whole(dynamic, pixels).argmax(-1))
    assert len(predict_mask(dynamic, [tmp_path / "a.png", tmp_path / "sub"])) == 2
    (tmp_path / "z.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="1 image.* cannot be read: .*z.png.*on_error='skip'"):
        predict_mask(dynamic, tmp_path)
    with pytest.warns(UserWarning, match="left out 1 image"):
        assert len(predict_mask(dynamic, tmp_path, on_error="skip")) == 3
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="has no images"):
        predict_mask(dynamic, tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        predict_mask(dynamic, tmp_path / "z.png", on_error="skip")


def test_gray_files_go_into_models_of_rgb_and_the_other_way(tmp_path, rng):
    gray = rng.integers(0, 256, (12, 13)).astype("uint8")
    Image.fromarray(gray).save(tmp_path / "gray.png")
    model = net()
    expected = whole(model, np.stack([gray] * 3, -1)).argmax(-1)
    assert np.array_equal(predict_mask(model, tmp_path / "gray.png").ids[0], expected)
    assert np.array_equal(predict_tiled(model, tmp_path / "gray.png"), expected)
    Image.fromarray(np.stack([gray] * 3, -1)).save(tmp_path / "rgb.png")
    one = net((None, None, 1))
    assert np.array_equal(predict_mask(one, tmp_path / "rgb.png").ids[0], predict_mask(one, gray).ids[0])
    assert np.array_equal(predict_tiled(one, tmp_path / "rgb.png"), predict_mask(one, gray).ids[0])


def test_what_does_not_fit_is_refused(image, tmp_path):
    model, fixed = net(), net((24, 24, 3))
    with pytest.raises(InputError, match="24x24 images and these are 150x203"):
        predict_mask(fixed, image)
    with pytest.raises(InputError, match="3 channel.* and these have 1"):
        predict_mask(model, image[..., 0])
    with pytest.raises(InputError, match="4 classes apart and 2 names"):
        predict_mask(model, image, classes=["a", "b"])
    with pytest.raises(InputError, match="mixes files and arrays"):
        predict_mask(model, [image, "a.png"])
    with pytest.raises(InputError, match="list is empty"):
        predict_mask(model, [])
    with pytest.raises(InputError, match="NaN"):
        predict_mask(model, np.full((8, 8, 3), np.nan))
    with pytest.raises(InputError, match="batch_size"):
        predict_mask(model, image, batch_size=0)
    with pytest.raises(InputError, match="on_error"):
        predict_mask(model, image, on_error="ignore")
    with pytest.raises(InputError, match="142x195 for images of 150x203.*predict_tiled"):
        predict_mask(net(padding="valid", depth=4), image)
    x = keras.Input((8, 8, 3))
    with pytest.raises(InputError, match="a segmenter goes from"):
        predict_mask(keras.Model(x, layers.GlobalAveragePooling2D()(x)), image)
    with pytest.raises(InputError, match="built keras.Model"):
        predict_mask("model", image)
    with pytest.warns(UserWarning, match="looks like 0..1"):
        predict_mask(model, image / np.float32(255))


def test_masks_are_written_with_ids_and_colours(tmp_path, image):
    masks = predict_mask(net(), image, classes="abcd")
    palette = Palette.of(list("abcd"))
    (one,) = masks.to_png(tmp_path / "one.png", palette)
    assert np.array_equal(read_mask(one), masks.ids[0]) and np.array_equal(read_mask(one, palette), masks.ids[0])
    with Image.open(one) as picture:
        assert picture.mode == "P" and np.array_equal(np.asarray(picture.convert("RGB")), palette.to_rgb(masks.ids[0]))
    assert [path.name for path in predict_mask(net(), [image, image]).to_png(tmp_path / "two")] == [
        "mask_0.png",
        "mask_1.png",
    ]
    for name in ("x/a.png", "y/a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "in" / name)
    written = predict_mask(net(), tmp_path / "in").to_png(tmp_path / "out")
    assert written == [tmp_path / "out" / "x" / "a.png", tmp_path / "out" / "y" / "a.png"]
    Image.fromarray(image).save(tmp_path / "in" / "x" / "a.jpg")
    with pytest.raises(InputError, match="two images would write"):
        predict_mask(net(), tmp_path / "in").to_png(tmp_path / "out")
    write_mask(tmp_path / "deep.png", np.array([[0, 70, 60000]]))
    assert read_mask(tmp_path / "deep.png").tolist() == [[0, 70, 60000]]
    with pytest.raises(InputError, match="0..65535"):
        write_mask(tmp_path / "deep.png", np.array([[-1]]))
    with pytest.raises(StorageError):
        write_mask(one / "inside.png", masks.ids[0])


def test_overlays_show_image_and_classes(tmp_path, image):
    Image.fromarray(image).save(tmp_path / "a.png")
    for given in (image, tmp_path / "a.png"):
        masks = predict_mask(net(), given, classes=["sky", "road", "car", "tree"])
        labels = [text.get_text().split("  ")[0] for text in masks.overlay(title="x").legends[0].get_texts()]
        assert labels == [masks.classes[i] for i in np.unique(masks.ids[0])]


# Test-time augmentation


def test_augmentation_is_the_mean_over_the_symmetries(rng):
    model = net(kernel=3)
    images = rng.integers(0, 256, (2, 12, 18, 3)).astype("uint8")

    def mean(changes):
        return np.mean([undo(model.predict_on_batch(np.ascontiguousarray(do(images)))) for do, undo in changes], axis=0)

    same = (lambda x: x, lambda x: x)
    mirror = (lambda x: x[:, :, ::-1],) * 2
    upside = (lambda x: x[:, ::-1],) * 2
    both = (lambda x: x[:, ::-1, ::-1],) * 2
    quarter = (lambda x: np.rot90(x, 1, (1, 2)), lambda x: np.rot90(x, -1, (1, 2)))
    back = quarter[::-1]
    transpose = (lambda x: x.transpose(0, 2, 1, 3),) * 2
    other = (lambda x: x[:, ::-1, ::-1].transpose(0, 2, 1, 3),) * 2
    for names, changes in {
        (): [same],
        "mirror": [same, mirror],
        ("flip",): [same, mirror, upside, both],
        "rotate": [same, quarter, both, back],
        ("flip", "rotate"): [same, mirror, upside, both, quarter, back, transpose, other],
    }.items():
        np.testing.assert_allclose(augmented(model, names)(images), mean(changes), atol=1e-6, err_msg=str(names))
    masks = predict_mask(model, images, tta="flip", probabilities=True)
    np.testing.assert_allclose(np.stack(masks.probabilities), augmented(model, "flip")(images), atol=1e-6)


def test_scales_are_averaged(image):
    from cnn_zoo.data.images import resize

    model = net()
    scaled = resize(model.predict_on_batch(resize(image[None], (75, 102))), (150, 203))
    expected = (model.predict_on_batch(image[None]) + scaled) / 2
    np.testing.assert_allclose(augmented(model, "scale", scales=(0.5, 1))(image[None]), expected, atol=1e-6)
    np.testing.assert_allclose(augmented(model, ("scale", "flip"))(image[None]).sum(-1), 1, atol=1e-5)
    assert augmented(model, "scale", scales=[0.001, 1])(image[None]).shape == (1, 150, 203, 4)
    flat = np.full((1, 40, 41, 3), 77, "uint8")  # what sees single pixels is not changed
    model = net(kernel=1)
    np.testing.assert_allclose(augmented(model, "scale")(flat), augmented(model)(flat), atol=1e-5)


def test_augmentation_that_a_model_cannot_take_is_refused():
    with pytest.raises(InputError, match="'mirror', 'flip', 'rotate' and 'scale', not 'turn'"):
        augmented(net(), "turn")
    with pytest.raises(InputError, match="no quarter turns"):
        augmented(net((24, 32, 3)), "rotate")
    with pytest.raises(InputError, match="no other scales"):
        augmented(net((24, 24, 3)), ("flip", "scale"))
    with pytest.raises(InputError, match="above 0"):
        augmented(net(), "scale", scales=(1, 0))
    assert augmented(net((24, 24, 3)), "rotate")(np.zeros((1, 24, 24, 3))).shape == (1, 24, 24, 4)


# Tiles


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("tile, overlap", [(64, 16), ((64, 96), 0.25), (96, 0.5), (70, 6)])
def test_tiles_are_the_whole_image_where_the_margin_covers_the_receptive_field(image, tile, overlap, turned):
    model = net(depth=3)  # radius 3
    image = image.swapaxes(0, 1) if turned else image
    tiled = predict_tiled(model, image, tile=tile, overlap=overlap, margin=3, probabilities=True)
    np.testing.assert_allclose(tiled, whole(model, image), atol=1e-6)
    # One pixel less of margin and it is not: the test would see an error.
    short = predict_tiled(model, image, tile=tile, overlap=overlap, margin=2, probabilities=True)
    assert np.abs(short - whole(model, image)).max() > 1e-5


def test_tiles_see_the_pooling_grid_of_the_whole_image(rng):
    image = rng.integers(0, 256, (160, 224, 3)).astype("uint8")
    model = pooled()  # radius: 1 + 4 * 1 + 3 + 1, at most 12
    tiled = predict_tiled(model, image, tile=72, overlap=24, margin=12, probabilities=True)
    np.testing.assert_allclose(tiled, whole(model, image), atol=1e-6)


def test_nets_that_want_multiples_of_a_stride_take_images_of_any_size(rng):
    model = pooled()
    for size in ((150, 203), (30, 61), (64, 67)):
        image = rng.integers(0, 256, (*size, 3)).astype("uint8")
        with pytest.raises(InputError, match=f"fails on images of {size[0]}x{size[1]}.*predict_tiled"):
            predict_mask(model, image)
        assert predict_tiled(model, image, tile=64).shape == size
    with pytest.raises(InputError, match="fails on images of 66x66 .*multiples of 32"):
        predict_tiled(model, image, tile=66)


def test_without_a_margin_the_interior_of_a_single_tile_is_the_whole_image(image):
    model = net(depth=3)
    tiled = predict_tiled(model, image, tile=96, overlap=32, probabilities=True)
    exact = whole(model, image)
    assert np.abs(tiled[:32, :64] - exact[:32, :64]).max() < 1e-6  # the first tile alone
    assert np.abs(tiled - exact).max() > 1e-6
    assert np.abs(tiled - exact).max() < 0.05  # Hann weights make the seams small
    np.testing.assert_allclose(tiled.sum(-1), 1, atol=1e-6)


def test_weights_add_up_to_one():
    sizes = (
        (1, 64, 0.25, 0),
        (63, 64, 0, 0),
        (1000, 64, 0.9, 5),
        (777, 100, 33, 16),
        (65, 64, 0.5, 0),
        (512, 64, 0.25, 8),
    )
    for (side, tile, overlap, margin), fixed, blend in product(sizes, (False, True), ("hann", "mean")):
        total = np.zeros(side)
        for piece in tiling.plan(side, tile, overlap, margin, blend, free=not fixed):
            assert (piece.weights >= 0).all() and len(piece.weights) == piece.stop - piece.start
            total[piece.start : piece.stop] += piece.weights[: side - piece.start]
            assert piece.stop - piece.start == tile if fixed else piece.stop <= side
        np.testing.assert_allclose(total, 1, atol=1e-6)
    assert [piece.start for piece in tiling.plan(1000, 512, 0.25, 0, "hann", free=True)] == [0, 384, 480]
    assert [piece.start for piece in tiling.plan(1000, 512, 0.25, 0, "hann", free=False)] == [0, 384, 488]


def test_a_hann_window_falls_off_to_the_border():
    """Where two tiles overlap, the weight of one goes from near 1 to near 0, as sin^2 over the sum of both."""
    first, second = tiling.plan(96, 64, 0.5, 0, "hann", free=False)
    window = np.sin(np.pi * (np.arange(64) + 0.5) / 64) ** 2
    expected = window[32:] / (window[32:] + window[:32])
    np.testing.assert_allclose(first.weights[32:], expected, rtol=1e-6)
    np.testing.assert_allclose(second.weights[:32], 1 - expected, atol=1e-6)
    assert (first.weights[:32] == 1).all()


def test_models_of_one_size_take_images_of_any(rng):
    model, free = net((32, 32, 3)), net()
    free.set_weights(model.get_weights())
    for size in ((100, 75), (32, 32), (7, 90), (3, 2)):
        image = rng.integers(0, 256, (*size, 3)).astype("uint8")
        tiled = predict_tiled(model, image, overlap=8, margin=3, probabilities=True)
        assert tiled.shape == (*size, 4)
        if min(size) >= 32:
            np.testing.assert_allclose(tiled, whole(free, image), atol=1e-6)
        np.testing.assert_allclose(tiled.sum(-1), 1, atol=1e-6)
    small = np.pad(image, [(0, 29), (0, 30), (0, 0)], mode="symmetric")
    np.testing.assert_allclose(tiled, whole(model, small)[:3, :2], atol=1e-6)
    assert predict_tiled(free, image, tile=64).shape == (3, 2)


@pytest.mark.parametrize("size", [(90, 131), (9, 200)])
def test_nets_without_padding_see_the_image_mirrored(rng, size):
    """The overlap-tile strategy of U-Net (Ronneberger et al. 2015, figure 2)."""
    image = rng.integers(0, 256, size).astype("uint8")
    model, free = net((64, 64, 1), padding="valid", depth=4), net((None, None, 1), padding="valid", depth=4)
    free.set_weights(model.get_weights())
    expected = whole(free, np.pad(image, 4, mode="symmetric")[..., None])
    np.testing.assert_allclose(predict_tiled(model, image, overlap=0, probabilities=True), expected, atol=1e-6)
    np.testing.assert_allclose(predict_tiled(free, image, tile=50, probabilities=True), expected, atol=1e-6)


def test_augmented_tiles(image):
    model = net(kernel=1)
    assert np.array_equal(predict_tiled(model, image, tile=64, tta=("flip", "rotate")), whole(model, image).argmax(-1))


def test_the_result_goes_to_a_file_as_a_memory_map(image, tmp_path):
    model = net()
    for given in (image, np.ascontiguousarray(image.swapaxes(0, 1))):
        for probabilities in (False, True):
            options = {"tile": 64, "probabilities": probabilities}
            mapped = predict_tiled(model, given, out=tmp_path / "new" / "out.npy", **options)
            assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
            assert np.array_equal(mapped, predict_tiled(model, given, **options))
            assert np.array_equal(np.load(tmp_path / "new" / "out.npy"), mapped)
            assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.npy"]


def test_an_interrupted_run_leaves_no_half_file(image, tmp_path, monkeypatch):
    model, out = net(), tmp_path / "out.npy"
    kept = np.array(predict_tiled(model, image, tile=64, out=out))
    calls, forward = [], tta._probabilities

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(*arguments)

    monkeypatch.setattr(tta, "_probabilities", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_tiled(model, image, tile=64, batch_size=1, out=out, probabilities=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"] and np.array_equal(np.load(out), kept)
    out.unlink()
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        predict_tiled(model, image, tile=64, batch_size=1, out=out)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_found_before_the_work_begins(image, tmp_path, monkeypatch):
    import errno

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tta, "_probabilities", lambda *arguments: pytest.fail("work has begun"))
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(StorageError, match="disk is full"):
        predict_tiled(net(), image, tile=64, out=tmp_path / "out.npy")
    assert not list(tmp_path.iterdir())


class Sliceable:
    """What HDF5 and Zarr arrays are like; counts the largest window that was asked for."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.largest = values, values.shape, values.dtype, 0

    def __getitem__(self, key):
        window = self.values[key]
        self.largest = max(self.largest, window[..., 0].size)
        return window


def test_only_windows_are_read_of_what_can_be_sliced(image, tmp_path):
    model = net()
    expected = predict_tiled(model, image, tile=64)
    source = Sliceable(image)
    assert np.array_equal(predict_tiled(model, source, tile=64), expected)
    assert source.largest <= 95 * 95
    np.save(tmp_path / "image.npy", image)
    assert np.array_equal(predict_tiled(model, tmp_path / "image.npy", tile=64), expected)
    assert np.array_equal(predict_tiled(model, np.load(tmp_path / "image.npy", mmap_mode="r"), tile=64), expected)
    Image.fromarray(image).save(tmp_path / "image.png")
    assert np.array_equal(predict_tiled(model, str(tmp_path / "image.png"), tile=64), expected)
    deep = predict_tiled(model, image.astype("uint16") * 257, tile=64, probabilities=True)
    np.testing.assert_allclose(deep, predict_tiled(model, image, tile=64, probabilities=True), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib", "tile": (32, 48)},
        {"compression": "zlib", "rowsperstrip": 7, "predictor": True},
        {"tile": (64, 64)},
        {"compression": "zlib", "planarconfig": "separate"},
    ],
)
def test_tiff_is_read_by_windows(image, tmp_path, options):
    tifffile = pytest.importorskip("tifffile", reason="needs tifffile")
    model, planar = net(), "planarconfig" in options
    expected = predict_tiled(model, image, tile=64)
    pixels = np.moveaxis(image, -1, 0) if planar else image
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", **options)
    assert isinstance(tiling.open_image(tmp_path / "a.tif"), np.memmap)
    assert np.array_equal(predict_tiled(model, tmp_path / "a.tif", tile=64), expected)
    if not planar:
        gray = image[..., 0].astype("uint16") * 257
        tifffile.imwrite(tmp_path / "g.tif", gray, **options)
        one = net((None, None, 1))
        assert np.array_equal(
            predict_tiled(one, tmp_path / "g.tif", tile=64), predict_tiled(one, image[..., 0], tile=64)
        )


def test_tiff_without_tifffile_and_damaged_files(image, tmp_path, monkeypatch):
    Image.fromarray(image).save(tmp_path / "a.tif", compression="tiff_lzw")
    model = net()
    expected = predict_tiled(model, image, tile=64)
    assert np.array_equal(predict_tiled(model, tmp_path / "a.tif", tile=64), expected)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert np.array_equal(predict_tiled(model, tmp_path / "a.tif", tile=64), expected)
    monkeypatch.undo()
    for name in ("b.tif", "b.png", "b.npy"):
        (tmp_path / name).write_bytes(b"II*\x00 not what it says")
        with pytest.raises(DataError, match="damaged"):
            predict_tiled(model, tmp_path / name)
    with pytest.raises(DataError, match="there is no image"):
        predict_tiled(model, tmp_path / "none.png")


def test_dark_tiles_do_not_warn_and_dark_images_do():
    model = net()
    image = np.zeros((64, 200, 3), "float32")
    image[:, 150:] = 200
    predict_tiled(model, image, tile=64)
    with pytest.warns(UserWarning, match="looks like 0..1"):
        predict_tiled(model, image / 255, tile=64)


def test_tiles_that_make_no_sense_are_refused(image):
    model = net()
    for options, words in {
        ("tile", 0): "a tile is",
        ("tile", (64, 64, 3)): "a tile is",
        ("overlap", 1.0): "overlap is",
        ("overlap", 512): "overlap is",
        ("overlap", -1): "overlap is",
        ("overlap", "half"): "overlap is",
        ("margin", 100): "margin is",
        ("blend", "gauss"): "blend is",
        ("batch_size", 0): "batch_size",
        ("out", "mask.png"): "ending in .npy",
        ("tta", "turn"): "tta is",
    }.items():
        with pytest.raises(InputError, match=words):
            predict_tiled(model, image, **dict([options]))
    with pytest.raises(InputError, match="takes images of 32x32 only"):
        predict_tiled(net((32, 32, 3)), image, tile=64)
    with pytest.raises(InputError, match="3 channel.* and this one has 203"):
        predict_tiled(model, np.zeros((150, 60, 203)))
    with pytest.raises(InputError, match="channels come first"):
        predict_tiled(model, np.moveaxis(image, -1, 0))
    with pytest.raises(InputError, match="give image"):
        predict_tiled(model, image[None])
    with pytest.raises(InputError, match="not of shape"):
        predict_tiled(model, np.zeros((0, 5, 3)))
    with pytest.raises(InputError, match="0..255 is expected"):
        predict_tiled(model, image.astype("float32") * 100)
    x = keras.Input((None, None, 3))
    coarse = keras.Model(x, layers.Conv2D(2, 3, 4, padding="same", activation="softmax")(x))
    with pytest.raises(InputError, match="128x128 for images of 512x512"):
        predict_tiled(coarse, image)


MEMORY = """
import resource, sys, time
import keras, numpy as np
from keras import layers
from cnn_zoo.mask_prediction import predict_tiled

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB on Linux

x = inputs = keras.Input((None, None, 3))
x = layers.Conv2D(4, 3, strides=4, padding="same", activation="relu")(layers.Rescaling(1 / 255)(x))
model = keras.Model(inputs, layers.Conv2D(12, 1, activation="softmax")(layers.UpSampling2D(4)(x)))
image = np.lib.format.open_memmap(sys.argv[1], "w+", "uint8", (10000, 10000, 3))
for row in range(0, 10000, 1000):
    image[row : row + 1000] = np.arange(3, dtype="uint8") + np.uint8(row % 251)
del image
for size in (600, 500):  # the model as it is: traced for the shapes that come
    predict_tiled(model, np.zeros((size, size, 3), "uint8"))
before, start = peak(), time.perf_counter()
out = predict_tiled(model, sys.argv[1], out=sys.argv[2], probabilities=sys.argv[3] == "probabilities", progress=False)
print(peak() - before, time.perf_counter() - start, *out.shape)
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["ids", "probabilities"])
def test_a_picture_of_100_million_pixels_needs_little_memory(tmp_path, what):
    """Less than 2 GB above the model, 12 classes, memory-mapped input and output included."""
    pytest.importorskip("resource", reason="needs a Unix")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEMORY, str(tmp_path / "in.npy"), str(tmp_path / "out.npy"), what],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    gigabytes, seconds, *shape = map(float, done.stdout.split())
    print(f"{what}: {gigabytes:.2f} GiB above the model, {seconds:.0f} s")
    assert shape == ([10000, 10000] if what == "ids" else [10000, 10000, 12])
    assert gigabytes < 2


# Regions


def test_regions_are_the_connected_parts_of_each_class(rng):
    measure = pytest.importorskip("skimage.measure", reason="needs scikit-image")
    mask = (rng.random((40, 50)) > 0.6).astype(int) * rng.integers(1, 3, (40, 50))
    expected = []
    for i in (1, 2):
        for part in measure.regionprops(measure.label(mask == i, connectivity=2)):
            expected.append((tuple(map(int, part.bbox)), int(part.area), i))
    found = [(region.box, region.area, region.id) for region in regions(mask)]
    assert sorted(found) == sorted(expected) and found == sorted(found, key=lambda r: (r[0][:2], r[2]))
    large = [region for region in regions(mask, min_area=5)]
    assert len(large) == sum(area >= 5 for _, area, _ in expected)
    assert {region.id for region in regions(mask, background=None)} == {0, 1, 2}
    assert {region.id for region in regions(mask, ignore=2)} == {1}
    assert regions(np.zeros((5, 5), int)) == []


@pytest.fixture
def squares():
    """Dark squares of 12 and bright ones of 8 pixels on mid gray, and a mask of them with one speck."""
    image, mask = np.full((60, 80, 3), 120, "uint8"), np.zeros((60, 80), "uint8")
    for top, left, side, value in ((5, 5, 12, 10), (5, 40, 8, 250), (40, 20, 12, 20), (52, 72, 8, 240)):
        image[top : top + side, left : left + side] = value
        mask[top : top + side, left : left + side] = 1
    mask[30, 70] = 1
    return image, mask


def brightness(size, channels=3):
    """A classifier of two classes: dark (0) or bright (1), by the mean."""
    x = inputs = keras.Input((*size, channels))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    model.set_weights([np.array([[-0.05 / channels, 0.05 / channels]] * channels), np.array([6.4, -6.4])])
    return model


@pytest.mark.parametrize("size", [(16, 16), (None, None)])
def test_regions_are_cut_out_and_classified(squares, size, tmp_path):
    image, mask = squares
    found = segment_then_classify(mask, brightness(size), image, margin=0, classes=["dark", "bright"], batch_size=3)
    assert [(region.box, region.area, region.name) for region in found] == [
        ((5, 5, 17, 17), 144, "dark"),
        ((5, 40, 13, 48), 64, "bright"),
        ((40, 20, 52, 32), 144, "dark"),
        ((52, 72, 60, 80), 64, "bright"),
    ]
    assert all(region.probability == region.probabilities.max() > 0.9 for region in found)
    logit = 0.05 * 10 - 6.4
    np.testing.assert_allclose(found[0].probability, 1 / (1 + np.exp(2 * logit)), rtol=1e-4)
    wider = segment_then_classify(mask, brightness(size), image, margin=4, min_area=1)
    assert len(wider) == 5 and wider[0].box == (5, 5, 17, 17) and wider[0].probability < found[0].probability
    Image.fromarray(image).save(tmp_path / "image.png")
    by_function = segment_then_classify(
        lambda x: (np.abs(x[..., 0] - 120.0) > 50).astype(int), brightness(size), tmp_path / "image.png", margin=0
    )
    assert [region.box for region in by_function] == [region.box for region in found]
    assert segment_then_classify(np.zeros_like(mask), brightness(size), image) == []
    figure = region_boxes(image, found, save=tmp_path / "boxes.png")
    assert figure.axes[0].get_title() == "2 bright, 2 dark"
    assert [text.get_text() for text in figure.axes[0].texts] == [f"{r.name}, P = {r.probability:.2f}" for r in found]
    assert [(p.get_y(), p.get_x(), p.get_height()) for p in figure.axes[0].patches][0] == (4.5, 4.5, 12)
    assert region_boxes(image, regions(mask)).axes[0].get_title() == "5 id 1"
    assert region_boxes(image, []).axes[0].get_title() == "no regions"
    with pytest.raises(InputError, match="'bright', and the classes are dark"):
        region_boxes(image, found, ["dark"])


def test_a_net_may_segment_and_another_take_gray(squares):
    image, mask = squares
    x = inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(1, 1, name="c")(x)
    segmenter = keras.Model(inputs, layers.Activation("sigmoid")(layers.Lambda(lambda v: keras.ops.abs(v) - 50)(x)))
    segmenter.get_layer("c").set_weights([np.full((1, 1, 3, 1), 1 / 3), np.array([-120.0])])
    found = segment_then_classify(segmenter, brightness((16, 16), 1), image, margin=0)
    assert [(region.area, region.label) for region in found] == [(144, 0), (64, 1), (144, 0), (64, 1)]


def test_regions_that_do_not_fit_are_refused(squares):
    image, mask = squares
    model = brightness((16, 16))
    with pytest.raises(InputError, match="the mask is"):
        segment_then_classify(mask[:50], model, image)
    with pytest.raises(InputError, match="whole numbers"):
        segment_then_classify(mask / 2, model, image)
    with pytest.raises(InputError, match="margin"):
        segment_then_classify(mask, model, image, margin=-1)
    with pytest.raises(InputError, match="min_area"):
        segment_then_classify(mask, model, image, min_area=0)
    with pytest.raises(InputError, match="a classifier gives"):
        segment_then_classify(mask, net(), image)
    with pytest.raises(InputError, match="3 channel"):
        segment_then_classify(mask, model, image[..., :2])
