"""Data: every route to the input contract, and pipelines that are functions of seed and epoch."""

import io
import json
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from cnn_zoo import Data, DataError, InputError, MissingExtraError, Split, load, pipeline
from cnn_zoo.augment import Augmenter, crop, flip, hue, rotate, scale
from cnn_zoo.data import check_batch, decode_bytes, list_images, read_image, read_images


@pytest.fixture
def mnist_like(tmp_path, rng):
    """A folder with a small mnist.npz in Keras' layout."""
    images = rng.integers(0, 256, (240, 28, 28)).astype("uint8")
    labels = (np.arange(240) % 10).astype("uint8")
    np.savez(
        tmp_path / "mnist.npz", x_train=images[:200], y_train=labels[:200], x_test=images[200:], y_test=labels[200:]
    )
    return tmp_path


def test_digits_need_no_network():
    from sklearn.datasets import load_digits

    data = load("digits")
    images, labels = load_digits(return_X_y=True)
    assert len(data.train) == 1437 and len(data.test) == 360 and data.classes == tuple("0123456789")
    assert (
        data.train.images.dtype == np.uint8
        and data.train.images.shape[1:] == (8, 8, 1)
        and data.train.images.max() == 255
    )
    ours = np.sort(np.concatenate([data.train.images, data.test.images]).reshape(1797, 64).sum(1))
    assert np.array_equal(ours, np.sort(np.rint(images * 255 / 16).sum(1)))
    assert np.bincount(np.concatenate([data.train.labels, data.test.labels])).tolist() == np.bincount(labels).tolist()
    assert np.array_equal(load("digits", seed=7).test.images, data.test.images)  # the test split never moves


def test_npz_in_the_folder_named_by_argument_or_environment(mnist_like, monkeypatch):
    data = load("mnist", data_dir=mnist_like, validation=0.25)
    assert (len(data.train), len(data.validation), len(data.test)) == (150, 50, 40)
    assert np.bincount(data.validation.labels).tolist() == [5] * 10  # stratified
    monkeypatch.setenv("CNN_ZOO_DATA", str(mnist_like))
    assert np.array_equal(load("mnist", validation=0.25).validation.images, data.validation.images)
    assert not np.array_equal(load("mnist", validation=0.25, seed=1).validation.images, data.validation.images)
    assert data.describe()["train"]["sha256"] == load("mnist", validation=0.25).describe()["train"]["sha256"]
    assert len(data.split(0).train) == 200 and data.split(0).validation is None


def test_real_mnist(shared):
    data = load("mnist", data_dir=shared("data/mnist.npz").parent, validation=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (48_000, 12_000, 10_000)
    assert data.train.images.shape[1:] == (28, 28, 1) and data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert sum(1 for _ in pipeline(data.train, 512)) == 94  # the lecture's steps an epoch


def test_cifar_layout_with_label_columns(tmp_path, rng):
    x, y = rng.integers(0, 256, (20, 32, 32, 3)).astype("uint8"), (np.arange(20) % 10)[:, None].astype("uint8")
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = load("cifar10", data_dir=tmp_path)
    assert data.train.labels.shape == (20,) and data.classes[3] == "cat" and data.train.images.shape[-1] == 3


def fake_tfds(monkeypatch, load):
    module = types.ModuleType("tensorflow_datasets")
    module.load, module.as_numpy = load, lambda part: part
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)


def test_tensorflow_datasets_step_in(monkeypatch, tmp_path, rng):
    calls = []

    def fake(name, split, batch_size, data_dir):
        calls.append((name, split, batch_size, data_dir))
        return {"image": rng.integers(0, 256, (30, 28, 28, 1)).astype("uint8"), "label": np.arange(30) % 10}

    fake_tfds(monkeypatch, fake)
    data = load("fashion_mnist", data_dir=tmp_path)
    assert calls == [("fashion_mnist", part, -1, str(tmp_path)) for part in ("train", "test")]
    assert data.classes[9] == "Ankle boot" and "TensorFlow Datasets" in data.source


def test_missing_data_say_where_they_were_looked_for_and_what_to_do(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise ConnectionError("Network is unreachable")

    fake_tfds(monkeypatch, offline)
    with pytest.raises(
        DataError, match="mnist is not in .*Network is unreachable.*go online, or put mnist.npz.*CNN_ZOO_DATA"
    ):
        load("mnist", data_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cnn-zoo\[tfds\]'; or put mnist.npz"):
        load("mnist")
    monkeypatch.setenv("CNN_ZOO_DATA", "")  # set to nothing is not set, and never the current folder
    np.savez(tmp_path / "mnist.npz")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingExtraError, match="mnist is not in the folder of TensorFlow Datasets"):
        load("mnist")
    with pytest.raises(DataError, match="not a folder: give the folder that holds mnist.npz"):
        load("mnist", data_dir=tmp_path / "nowhere")
    with pytest.raises(DataError, match="did you mean 'mnist'"):
        load("mnits")


def test_packages_that_tensorflow_datasets_lacks_are_not_blamed_on_the_network(monkeypatch):
    def incomplete(*_, **__):
        raise ModuleNotFoundError("No module named 'importlib_resources'", name="importlib_resources")

    fake_tfds(monkeypatch, incomplete)
    with pytest.raises(MissingExtraError, match="lacks a package.*importlib_resources.*with pip, or put cifar10.npz"):
        load("cifar10")


def test_damaged_npz_files(tmp_path, mnist_like, rng):
    path = mnist_like / "mnist.npz"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged or no .npz file.*get it again"):
            load("mnist", data_dir=mnist_like)
    np.savez(path, x_train=np.zeros((2, 28, 28), "uint8"))
    with pytest.raises(DataError, match="lacks y_train, x_test, y_test"):
        load("mnist", data_dir=mnist_like)
    bad = {"x_train": np.zeros((2, 28, 28), "uint8"), "y_train": np.array([0, 12])}
    np.savez(path, **bad, x_test=bad["x_train"], y_test=np.array([0, 1]))
    with pytest.raises(DataError, match="training part of mnist.*labels run from 0 to 12 and the model has 10 classes"):
        load("mnist", data_dir=mnist_like)
    for shape, message in [
        ((2, 5, 5, 3), r"its images have shape \(5, 5, 3\), and mnist has \(28, 28, 1\)"),
        ((2, 3, 4, 5, 6), "images must be"),
        ((3, 28, 28), "3 images and labels of shape"),
        ((0, 28, 28), "there are no images"),
    ]:
        np.savez(path, x_train=bad["x_train"], y_train=[0, 1], x_test=np.zeros(shape, "uint8"), y_test=[0, 1])
        with pytest.raises(DataError, match=f"the test part of mnist from mnist.npz.*{message}"):
            load("mnist", data_dir=mnist_like)
    np.save(path, bad["x_train"])
    path.with_suffix(".npz.npy").rename(path)  # an array is no archive of arrays
    with pytest.raises(DataError, match="damaged or no .npz file"):
        load("mnist", data_dir=mnist_like)


def test_bytes_changed_anywhere_in_a_compressed_npz_are_found(tmp_path, rng):
    """zipfile, zlib and the parser of NumPy's headers each have errors of their own."""
    path = tmp_path / "mnist.npz"
    x = rng.integers(0, 3, (20, 28, 28)).astype("uint8")
    np.savez_compressed(path, x_train=x, y_train=np.arange(20) % 10, x_test=x, y_test=np.arange(20) % 10)
    whole = path.read_bytes()
    for place in range(30, 200):  # the first array: its name, its compressed header, its first pixels
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            data = load("mnist", data_dir=tmp_path)
        except DataError as error:
            assert "mnist.npz" in str(error)
        else:  # an unused field of the archive
            assert np.array_equal(data.train.images[..., 0], x)


def test_descriptions_are_plain_values_that_tell_data_apart():
    images, labels = np.arange(160, dtype="uint8").reshape(10, 4, 4), np.arange(10) % 2
    one = Data.from_arrays(images, labels, classes=["a", "b"], validation=0.4).describe()
    assert json.loads(json.dumps(one)) == one
    assert one["image_shape"] == [4, 4, 1] and one["dtype"] == "uint8" and one["classes"] == ["a", "b"]
    assert one["train"]["per_class"] == [3, 3] and one["validation"]["images"] == 4 and "test" not in one
    images[0, 0, 0] += 1
    other = Data.from_arrays(images, labels, classes=["a", "b"], validation=0.4).describe()
    assert [one[part]["sha256"] == other[part]["sha256"] for part in ("train", "validation")].count(False) == 1


@pytest.mark.parametrize(
    ("images", "first", "words"),
    [
        (np.ones((4, 5, 6), bool), 255, "logical"),
        (np.full((4, 5, 6), 7, "uint8"), 7, "8-bit"),
        (np.full((4, 5, 6, 2), 65535, "uint16"), 255, "16-bit values divided by 257"),
        (np.full((4, 5, 6), 200.5, "float64"), 200.5, "as they are"),
        (np.full((4, 5, 6), 9, "int32"), 9, "as they are"),
    ],
)
def test_arrays_come_into_the_contract_by_their_dtype(images, first, words):
    data = Data.from_arrays(images, [0, 1, 0, 1])
    assert data.train.images.flat[0] == first and words in data.source
    assert data.train.images.dtype in (np.uint8, np.float32) and data.train.images.ndim == 4


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 5)), [0] * 4, "must be \\(n, height, width\\)"),
        (np.zeros((0, 5, 5)), [], "there are no images"),
        (np.zeros((4, 5, 5)), [0, 1], "4 images and labels of shape \\(2,\\)"),
        (np.zeros((4, 5, 5)), [0.5, 1, 1, 1], "labels must be integers"),
        (np.zeros((4, 5, 5)), [-1, 1, 1, 1], "labels run from -1 to 1"),
        (np.full((4, 5, 5), np.nan), [0] * 4, "NaN or infinite"),
        (np.full((4, 5, 5), -3.0), [0] * 4, "from -3 to -3, and 0..255 is expected"),
        (np.full((4, 5, 5), 300), [0] * 4, "from 300 to 300, and 0..255"),
        (np.full((4, 5, 5), "a"), [0] * 4, "images must be numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        Data.from_arrays(images, labels)


def test_values_0_to_1_are_warned_of_and_not_touched():
    with pytest.warns(UserWarning, match="looks like 0..1 where 0..255 is expected: multiply them by 255"):
        data = Data.from_arrays(np.full((4, 5, 5), 0.5), [0, 1, 0, 1])
    assert data.train.images.max() == 0.5


def test_splits_that_cannot_be_stratified_say_why():
    with pytest.raises(DataError, match="the rarest class has 1"):
        Data.from_arrays(np.zeros((5, 4, 4), "uint8"), [0, 0, 0, 0, 1], validation=0.4)
    with pytest.raises(DataError, match="must lie between 0 and 1, not 1.5"):
        Data.from_arrays(np.zeros((5, 4, 4), "uint8"), [0, 0, 0, 0, 1], test=1.5)
    data = Data.from_arrays(np.zeros((50, 4, 4), "uint8"), np.arange(50) % 2, test=0.2, validation=0.25)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 10)


def test_batches_that_do_not_fit_a_model_say_the_remedy():
    with pytest.raises(InputError, match=r"its channel axis: images\[..., None\]"):
        check_batch(np.zeros((2, 8, 8), "uint8"))
    with pytest.raises(InputError, match="with 3 channel.*these have 1.*channels=1"):
        check_batch(np.zeros((2, 8, 8, 1), "uint8"), (8, 8, 3))
    with pytest.raises(
        InputError, match=r"takes 28x28 images and these are 8x8: resize them \(data.resize\(\(28, 28\)\)\)"
    ):
        check_batch(np.zeros((2, 8, 8, 1), "uint8"), (28, 28, 1))
    check_batch(np.zeros((2, 8, 9, 1), "uint8"), (None, None, 1))


def test_resizing_and_padding(rng):
    images = rng.integers(0, 256, (3, 8, 6, 1)).astype("uint8")
    data = Data.from_arrays(images, [0, 1, 1])
    padded = data.resize((11, 8), how="pad")
    assert np.array_equal(padded.train.images[:, 1:9, 1:7], images) and padded.train.images.sum() == images.sum()
    assert "padded with zeros from 8x6 to 11x8" in padded.source
    large = data.resize(24).train.images[..., 0]
    twin = np.stack(
        [np.asarray(Image.fromarray(i[..., 0]).resize((24, 24), Image.Resampling.BILINEAR)) for i in images]
    )
    assert large.dtype == np.uint8 and np.abs(large.astype(int) - twin).max() <= 1
    assert data.resize((8, 6)) is data
    with pytest.raises(InputError, match="cannot pad 8x6 images to 4x4"):
        data.resize(4, how="pad")
    with pytest.raises(InputError, match="'bilinear' or 'pad', not 'crop'"):
        data.resize(4, how="crop")
    for size, how in ((0, "bilinear"), (-8, "bilinear"), ((8, 8, 1), "pad"), ((9.5, 9.5), "pad")):
        with pytest.raises(InputError, match="a size is a height and a width, whole numbers of at least 1"):
            data.resize(size, how=how)
    small = Data.from_arrays(images.astype("float32"), [0, 1, 1]).resize((4, 3)).train.images[..., 0]
    twin = [Image.fromarray(i).resize((3, 4), Image.Resampling.BILINEAR) for i in images[..., 0].astype("float32")]
    np.testing.assert_allclose(
        small, np.stack([np.asarray(i) for i in twin]), atol=1e-3
    )  # antialiased as Pillow does it


def numbered(count, size=4):
    images = np.zeros((count, size, size, 1), "uint8")
    return Split(images, np.arange(count))


def labels_of(dataset):
    return [batch.numpy().tolist() for _, batch in dataset]


def test_every_epoch_is_a_function_of_seed_and_epoch():
    split = numbered(25)
    whole = labels_of(pipeline(split, 8, shuffle=True, seed=3, epochs=4))
    assert [len(batch) for batch in whole] == [8, 8, 8, 1] * 4
    epochs = [sum(whole[i : i + 4], []) for i in range(0, 16, 4)]
    assert all(sorted(epoch) == list(range(25)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert labels_of(pipeline(split, 8, shuffle=True, seed=3, first_epoch=2, epochs=4)) == whole[8:]
    assert labels_of(pipeline(split, 8, shuffle=True, seed=4, epochs=4)) != whole
    assert sum(labels_of(pipeline(split, 8)), []) == list(range(25))
    assert int(pipeline(split, 8, epochs=3).cardinality()) == 12
    images, _ = next(iter(pipeline(split, 8)))
    assert images.dtype == "uint8"
    assert labels_of(pipeline(split, 8, shuffle=True, seed=3, epochs=4, prefetch=False)) == whole
    assert labels_of(pipeline(split, 8, first_epoch=3, epochs=3)) == []
    for wrong in (0, -1, 2.5, "8"):
        with pytest.raises(InputError, match="batch_size must be a whole number of at least 1"):
            pipeline(split, wrong)


@pytest.mark.parametrize("augment", [None, "digits"])
def test_batches_have_a_known_shape_but_for_their_number(augment):
    """Augmentation must not forget height and width, which a net's first dense layer needs."""
    dataset = pipeline(numbered(20, 8), 8, augment=augment)
    images, labels = dataset.element_spec
    assert images.shape.as_list() == [None, 8, 8, 1] and labels.shape.as_list() == [None] and labels.dtype == "int64"
    assert dataset.options().deterministic


def test_augmentation_is_a_function_of_seed_and_epoch_too(rng):
    split = Split(rng.integers(0, 256, (20, 28, 28, 1)).astype("uint8"), np.arange(20))

    def images(seed, first=0):
        dataset = pipeline(split, 8, shuffle=True, seed=seed, first_epoch=first, epochs=2, augment="digits")
        return [batch.numpy() for batch, _ in dataset]

    one, again, other, resumed = images(1), images(1), images(2), images(1, first=1)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert all(np.array_equal(a, b) for a, b in zip(one[3:], resumed, strict=True))
    with pytest.raises(
        InputError,
        match=r"no augmentation 'flips' \(there are: digits, natural, .*; or give an Augmenter or a function\)",
    ):
        pipeline(split, 8, augment="flips")
    with pytest.raises(InputError, match="no augmentation 'digit'; did you mean 'digits'?"):
        pipeline(split, 8, augment="digit")
    seeds = []
    pipeline(split, 8, augment=lambda batch, seed: (seeds.append(seed), batch)[1])
    assert seeds[0].dtype == "int32" and seeds[0].shape == (2,)
    doubled = next(iter(pipeline(split, 8, augment=lambda batch, seed: batch // 2)))[0]
    assert np.array_equal(doubled, split.images[:8] // 2)


def test_masks_move_with_their_images_and_what_is_outside_is_ignored(rng):
    """The mask is a copy of the image, so that any drift between the two shows; void comes in from outside."""
    masks = np.kron(rng.integers(1, 3, (24, 6, 8)), np.ones((1, 8, 8))).astype("uint8")
    split = Split((masks * 100)[..., None], masks)
    augment = Augmenter((flip(), rotate(40), scale(0.5, 1.0), crop(40, 56)), ignore=0)
    for images, moved in pipeline(split, 8, augment=augment, epochs=2):
        assert images.shape == (8, 40, 56, 1) and moved.shape == (8, 40, 56) and moved.dtype == "uint8"
        images, moved = images.numpy()[..., 0], moved.numpy()
        assert set(np.unique(moved)) == {0, 1, 2}
        agree = np.abs(images / 100 - moved) < 0.5
        assert agree.mean() > 0.97  # bilinear against nearest, at edges
    mirrored = pipeline(split, 8, augment="micrograph")
    assert all(set(np.unique(moved)) <= {1, 2} for _, moved in mirrored)
    doubled = pipeline(split, 8, augment=lambda images, masks, seed: (images, masks * 2))
    assert np.array_equal(next(iter(doubled))[1], masks[:8] * 2)
    with pytest.raises(InputError, match="crop"):
        pipeline(split, 8, augment=Augmenter((crop(99, 99),)))
    with pytest.raises(InputError, match="3 channels|RGB"):
        pipeline(split, 8, augment=Augmenter((hue(20),)))


@pytest.fixture
def pictures(tmp_path, rng):
    """One image in every format, with an array of what is in it."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(rng.normal(size=(40, 30, 3)), (4, 4, 0))
    rgb = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype("uint8")
    for suffix in ("png", "bmp", "tiff", "webp", "gif"):
        Image.fromarray(rgb).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    Image.fromarray(rgb).save(tmp_path / "a.jpg", quality=95)
    return tmp_path, rgb


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [("png", 0), ("bmp", 0), ("tiff", 0), ("webp", 0), ("jpg", 12), ("gif", 60)]
)
def test_every_format_is_read(pictures, suffix, tolerance):
    folder, rgb = pictures
    image = read_image(folder / f"a.{suffix}")
    assert image.dtype == np.float32 and np.abs(image - rgb).max() <= tolerance
    gray = read_image(folder / f"a.{suffix}", (40, 30, 1))
    np.testing.assert_allclose(gray[..., 0], image @ np.array([0.299, 0.587, 0.114]), atol=1e-3)
    small = read_image(folder / f"a.{suffix}", (20, 15, 3))
    twin = np.asarray(Image.fromarray(np.rint(image).astype("uint8")).resize((15, 20), Image.Resampling.BILINEAR))
    assert small.shape == (20, 15, 3) and np.abs(small - twin).max() < 3


def test_gray_palette_alpha_and_16_bit_files(tmp_path, rng):
    gray = rng.integers(0, 256, (9, 7)).astype("uint8")
    Image.fromarray(gray).save(tmp_path / "gray.png")
    assert np.array_equal(read_image(tmp_path / "gray.png")[..., 0], gray)
    assert np.array_equal(read_image(tmp_path / "gray.png", (9, 7, 3)), np.repeat(gray[..., None], 3, -1))
    deep = rng.integers(0, 65536, (9, 7)).astype("uint16")
    for suffix in ("png", "tiff"):
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
        np.testing.assert_allclose(read_image(tmp_path / f"deep.{suffix}")[..., 0], deep / 257, atol=1e-3)
    rgba = rng.integers(0, 256, (9, 7, 4)).astype("uint8")
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png"), rgba)
    assert np.array_equal(read_image(tmp_path / "deep.png", (9, 7, 4))[..., 3], np.full((9, 7), 255))  # opaque
    Image.frombytes("I;16B", (7, 9), deep.astype(">u2").tobytes()).save(tmp_path / "motorola.tiff")
    assert (tmp_path / "motorola.tiff").read_bytes()[:2] == b"MM"  # the other byte order, as microscopes write it
    np.testing.assert_allclose(read_image(tmp_path / "motorola.tiff")[..., 0], deep / 257, atol=1e-3)
    Image.fromarray(rgba[..., :3]).quantize(16).save(tmp_path / "palette.png")
    expected = np.asarray(Image.open(tmp_path / "palette.png").convert("RGB"))
    assert np.array_equal(read_image(tmp_path / "palette.png"), expected)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((4, 4), 70000, "int32"), "from 70000 to 70000, and integer images must hold 0..65535"),
        (np.full((4, 4), -1, "int32"), "from -1 to -1, and integer"),
        (np.full((4, 4), 255.5, "float32"), "from 255.5 to 255.5, and float images must hold 0..255"),
        (np.full((4, 4), np.nan, "float32"), "from nan to nan"),
    ],
)
def test_files_whose_values_no_rule_brings_to_0_to_255_are_refused(tmp_path, values, words):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=f"a.tiff.*{words}.*the same for all images"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}, {"quality": 40}])
def test_jpeg_decoding_is_pillows(pictures, options):
    """Pillow decodes with the same exact inverse transform, but rounds gray values."""
    import tensorflow as tf

    buffer = io.BytesIO()
    Image.fromarray(pictures[1]).save(buffer, "JPEG", **options)
    twin = Image.open(buffer)
    decode = tf.function(lambda contents: decode_bytes(contents, (40, 30, 3)))
    rgb = decode(buffer.getvalue())
    assert rgb.shape == (40, 30, 3) and np.abs(rgb.numpy() - np.asarray(twin)).max() <= 1
    gray = decode_bytes(buffer.getvalue(), (40, 30, 1)).numpy()[..., 0]
    assert np.abs(gray - np.asarray(twin.convert("L"))).max() <= 1.5


def test_photographs_of_telephones_are_read_as_an_exported_model_reads_them(pictures):
    """Their .jpg is often an MPO: a JPEG with a second picture behind."""
    folder, rgb = pictures
    second = Image.new("RGB", (30, 40))
    Image.fromarray(rgb).save(folder / "m.jpg", format="MPO", save_all=True, append_images=[second])
    contents = (folder / "m.jpg").read_bytes()
    assert np.array_equal(read_image(folder / "m.jpg", (20, 20, 3)), decode_bytes(contents, (20, 20, 3)).numpy())


def test_bytes_in_the_graph_equal_files(pictures):
    folder, _ = pictures
    for name in ("a.png", "a.jpg"):
        for shape in ((40, 30, 3), (28, 28, 1), (None, None, 3)):
            decoded = decode_bytes((folder / name).read_bytes(), shape).numpy()
            expected = read_image(folder / name, shape if shape[0] else None)
            assert np.array_equal(decoded, expected)
    with pytest.raises(InputError, match="1, 3 or 4 channels and the model takes 2"):
        decode_bytes(b"", (28, 28, 2))


def test_files_that_cannot_be_read_are_named(pictures, monkeypatch):
    folder, _ = pictures
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not an image")
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:400])
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:1500])
    (folder / "tail.png").write_bytes((folder / "a.png").read_bytes()[:-12])  # Pillow reads it, TensorFlow does not
    for name, message in [
        ("empty.png", "is empty"), ("text.png", "is not an image"), ("cut.jpg", "is damaged"), ("half.png", "is damaged"),
        ("tail.png", "is damaged"),
        ("none.png", "there is no image"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=f"{name}.*{message}|{message}.*{name}"):
            read_image(folder / name)
    with pytest.raises(DataError, match="5 image.*cut.jpg.*empty.png.*half.png.*tail.png.*text.png"):
        read_images(folder, (8, 8, 1))
    with pytest.warns(UserWarning, match="left out 5 image"):
        paths, images = read_images(folder, (8, 8, 1), on_error="skip")
    assert [p.name for p in paths] == ["a.bmp", "a.gif", "a.jpg", "a.png", "a.tiff", "a.webp"] and images.shape == (
        6,
        8,
        8,
        1,
    )
    with pytest.warns(UserWarning, match="left out 1 image"):
        paths, images = read_images(folder / "text.png", (None, None, 3), on_error="skip")
    assert paths == [] and images.shape == (0, 0, 0, 3)
    with pytest.raises(InputError, match="'raise' or 'skip', not 'ignore'"):
        read_images(folder, (8, 8, 1), on_error="ignore")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="claims to be larger than 100 pixels"):
        read_image(folder / "a.png")


def test_images_of_several_sizes_need_one_to_be_brought_to(pictures):
    folder, rgb = pictures
    Image.fromarray(rgb[:9]).save(folder / "b.png")
    with pytest.raises(DataError, match="differ in size.*give the height and width"):
        read_images([folder / "a.png", folder / "b.png"], (None, None, 3))
    assert read_images([folder / "a.png"] * 2, (None, None, 3))[1].shape == (2, 40, 30, 3)


def test_files_that_may_not_be_read_say_so(pictures, monkeypatch):
    def forbidden(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", forbidden)
    with pytest.raises(DataError, match=r"a.png' cannot be read \(Permission denied\): check its permissions"):
        read_image(pictures[0] / "a.png")


def test_listing_images(pictures, tmp_path):
    folder, _ = pictures
    (folder / "sub").mkdir()
    (folder / "a.png").rename(folder / "sub" / "B.PNG")
    assert [p.name for p in list_images(folder)] == ["a.bmp", "a.gif", "a.jpg", "a.tiff", "a.webp", "B.PNG"]
    assert list_images([folder / "a.jpg", folder / "sub"]) == [folder / "a.jpg", folder / "sub" / "B.PNG"]
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        list_images(folder / "empty")
    with pytest.raises(DataError, match="no image or folder"):
        list_images(folder / "nowhere")


def test_data_are_not_imported_with_the_package():
    code = "import sys, cnn_zoo; assert 'cnn_zoo.data' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_classes_may_be_a_number(rng):
    images, masks = rng.integers(0, 256, (4, 6, 6)).astype("uint8"), rng.integers(0, 2, (4, 6, 6))
    assert Data.from_arrays(images, masks, classes=3).classes == ("0", "1", "2")
    assert Data.from_arrays(images, [0, 1, 1, 0], classes=3).classes == ("0", "1", "2")
