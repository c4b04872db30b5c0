"""Prediction: arrays and files, by the same rule, whatever the model gives."""

import csv
import errno
import importlib
import json
import os

import keras
import numpy as np
import pytest
from keras import layers as L
from PIL import Image

from cnn_zoo import DataError, InputError, StorageError, predict

HEIGHT, WIDTH, CLASSES = 12, 10, 5
NAMES = ("ant", "bee", "cat", "dog", "eel")


def net(channels=3, activation="softmax", size=(HEIGHT, WIDTH)):
    """Normalisation, then one dense layer: small enough for a NumPy twin."""
    inputs = keras.Input((*size, channels))
    x = L.Rescaling(1 / 255, name="preprocess")(inputs)
    x = L.Flatten()(x) if None not in size else L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(CLASSES, activation=activation, name="predictions")(x))


def twin(model, images, activation="softmax"):
    kernel, bias = model.get_weights()
    z = (images.astype("float64") / 255).reshape(len(images), -1) @ kernel + bias
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-z))
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (7, HEIGHT, WIDTH, 3)).astype("uint8")


@pytest.fixture
def folder(tmp_path, images):
    """Seven PNG files, written in an order that is not the alphabetical one."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for i in (3, 0, 6, 1, 5, 2, 4):
        Image.fromarray(images[i]).save(folder / ("sub" if i > 4 else ".") / f"{i}.png")
    return folder


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_probabilities_agree_with_numpy(images, activation):
    model = net(activation=activation)
    found = predict(model, images, classes=NAMES, batch_size=3)
    assert found.probabilities.shape == (7, CLASSES) and found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities, twin(model, images, activation), atol=1e-6)
    np.testing.assert_array_equal(found.labels, twin(model, images, activation).argmax(-1))
    assert found.names == [NAMES[i] for i in found.labels]
    assert len(found) == 7 and found.files is None and found.classes == NAMES


def test_a_softmax_layer_is_not_applied_twice(images):
    model = net(activation=None)
    whole = keras.Model(model.input, L.Softmax()(model.output))
    np.testing.assert_allclose(predict(whole, images).probabilities, twin(model, images), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_gives_float32(images, policy):
    keras.config.set_dtype_policy(policy)
    model = net(activation=None)
    found = predict(model, images)
    assert found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, twin(model, images), atol=0.02)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_the_dtype_of_an_array_does_not_matter(images, dtype):
    model = net()
    np.testing.assert_allclose(
        predict(model, images.astype(dtype)).probabilities, predict(model, images).probabilities, atol=1e-6
    )


def test_one_image_many_images_and_gray_ones(images):
    model, gray = net(), net(channels=1)
    all_of_them = predict(model, images).probabilities
    np.testing.assert_allclose(predict(model, images[2]).probabilities, all_of_them[2:3], atol=1e-6)
    np.testing.assert_allclose(predict(model, list(images)).probabilities, all_of_them, atol=1e-6)
    planes = images[..., 0]
    expected = twin(gray, planes[..., None])
    for given, rows in (
        (planes[2], [2]),
        (planes[2][..., None], [2]),
        (planes, range(7)),
        (planes[..., None], range(7)),
    ):
        np.testing.assert_allclose(predict(gray, given).probabilities, expected[list(rows)], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_a_folder_equals_its_arrays_in_alphabetical_order(folder, images, batch_size):
    model = net()
    found = predict(model, folder, batch_size=batch_size)
    assert [file.name for file in found.files] == [f"{i}.png" for i in range(7)]
    np.testing.assert_allclose(found.probabilities, twin(model, images), atol=1e-6)


def test_a_file_and_a_list_in_the_order_given(folder, images):
    model = net()
    expected = twin(model, images)
    np.testing.assert_allclose(predict(model, str(folder / "1.png")).probabilities, expected[1:2], atol=1e-6)
    files = [folder / "3.png", folder / "sub" / "5.png", str(folder / "0.png")]
    found = predict(model, files)
    np.testing.assert_allclose(found.probabilities, expected[[3, 5, 0]], atol=1e-6)
    assert [file.name for file in found.files] == ["3.png", "5.png", "0.png"]


def test_jpeg_agrees_with_pillow(tmp_path, images):
    model = net()
    Image.fromarray(images[0]).save(tmp_path / "a.jpg", quality=90)
    pixels = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert np.abs(pixels.astype(int) - images[0]).max() > 0  # it is lossy: the file decides, not the array it came from
    np.testing.assert_allclose(predict(model, tmp_path / "a.jpg").probabilities, twin(model, pixels[None]), atol=0.01)


def test_gray_and_rgba_files_reach_the_channels_of_the_model(tmp_path, images):
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "gray.png")
    repeated = np.repeat(images[:1, ..., :1], 3, axis=-1)
    model = net()
    np.testing.assert_allclose(predict(model, tmp_path / "gray.png").probabilities, twin(model, repeated), atol=1e-6)
    four = np.concatenate([images[0], images[1, ..., :1]], axis=-1)
    Image.fromarray(four).save(tmp_path / "rgba.png")
    model = net(channels=4)
    np.testing.assert_allclose(predict(model, tmp_path / "rgba.png").probabilities, twin(model, four[None]), atol=1e-6)


def test_files_are_resized_and_arrays_are_not(tmp_path, rng):
    large = rng.integers(0, 256, (40, 30, 3)).astype("uint8")
    Image.fromarray(large).save(tmp_path / "large.png")
    assert predict(net(), tmp_path / "large.png").probabilities.shape == (1, CLASSES)
    with pytest.raises(InputError, match=r"12x10 images and these are 40x30: resize them .* input_size=\(40, 30\)"):
        predict(net(), large)


def test_a_model_of_any_size_takes_files_of_many_sizes(tmp_path, rng):
    model = net(size=(None, None))
    sizes = {"a": (9, 8), "b": (20, 31), "c": (9, 8)}
    pixels = {name: rng.integers(0, 256, (*size, 3)).astype("uint8") for name, size in sizes.items()}
    for name, image in pixels.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    means = [image.reshape(1, 1, -1, 3).mean(2, keepdims=True) for image in pixels.values()]
    expected = twin(model, np.concatenate(means))
    np.testing.assert_allclose(predict(model, tmp_path, batch_size=2).probabilities, expected, atol=1e-6)


def test_a_folder_is_never_in_memory_as_a_whole(folder, monkeypatch):
    module = importlib.import_module("cnn_zoo.prediction")
    counts = []

    def spy(paths, *rest, **rules):
        counts.append(len(paths))
        return real(paths, *rest, **rules)

    real = module.read_images
    monkeypatch.setattr(module, "read_images", spy)
    module.predict(net(), folder, batch_size=2)
    assert counts == [2, 2, 2, 1]


def test_progress_shows_on_standard_error_for_many_images_only(folder, monkeypatch, capsys):
    module = importlib.import_module("cnn_zoo.prediction")
    module.predict(net(), folder)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(module, "PROGRESS_FROM", 5)
    module.predict(net(), folder)
    shown = capsys.readouterr()
    assert shown.out == "" and "predicting" in shown.err


def test_top_k(images):
    found = predict(net(), images, classes=NAMES)
    for row, best in zip(found.probabilities, found.top(3)):
        assert [name for name, _ in best] == [NAMES[i] for i in sorted(range(CLASSES), key=lambda i: -row[i])[:3]]
        assert [p for _, p in best] == sorted(row.tolist(), reverse=True)[:3]
    assert [best[0][0] for best in found.top()] == found.names
    assert len(found.top(99)[0]) == CLASSES


def test_table_and_json(folder, images):
    model = net()
    found = predict(model, folder, classes=NAMES)
    lines = str(found).splitlines()
    assert len(lines) == 7 and all(name in line for name, line in zip(found.names, lines))
    assert str(folder / "0.png") in lines[0] and f"{found.probabilities[0].max():.2f}" in lines[0]
    assert found.table(top=2).splitlines()[0].count("P = ") == 2
    rows = json.loads(json.dumps(found.to_dicts(top=2)))
    assert [row["image"] for row in rows] == [str(file) for file in found.files]
    best = rows[3]["predictions"]
    assert best[0] == {"class": found.names[3], "probability": pytest.approx(found.probabilities[3].max())}
    assert len(best) == 2
    assert [row["image"] for row in predict(model, images).to_dicts()] == list(range(7))


def test_csv(folder, tmp_path):
    names = ("ant", 'with "quotes", and comma', "cat", "dog", "eel")
    found = predict(net(), folder, classes=names)
    found.to_csv(tmp_path / "new" / "p.csv")
    with open(tmp_path / "new" / "p.csv", newline="") as handle:
        header, *rows = csv.reader(handle)
    assert header == ["image", "class", "probability", *names]
    assert [row[0] for row in rows] == [str(file) for file in found.files] and [row[1] for row in rows] == found.names
    written = np.array([row[3:] for row in rows], "float64")
    np.testing.assert_allclose(written, found.probabilities, rtol=1e-5)
    np.testing.assert_allclose([float(row[2]) for row in rows], written.max(-1))


def test_a_full_disk_leaves_the_old_csv(images, tmp_path, monkeypatch):
    found = predict(net(), images)
    (tmp_path / "p.csv").write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="the disk is full"):
        found.to_csv(tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["p.csv"]


def test_an_unreadable_file_is_named_or_skipped(folder, images):
    model = net()
    whole = (folder / "2.png").read_bytes()
    for contents in (b"", b"not an image", whole[: len(whole) // 2]):
        (folder / "2.png").write_bytes(contents)
        with pytest.raises(DataError, match=r"1 image\(s\) cannot be read: .*2\.png"):
            predict(model, folder)
        with pytest.warns(UserWarning, match=r"left out 1 image\(s\): .*2\.png"):
            found = predict(model, folder, on_error="skip")
        assert [file.name for file in found.files] == [f"{i}.png" for i in (0, 1, 3, 4, 5, 6)]
        np.testing.assert_allclose(found.probabilities, twin(model, images[[0, 1, 3, 4, 5, 6]]), atol=1e-6)
    with pytest.raises(InputError, match="on_error is 'raise' or 'skip', not 'ignore'"):
        predict(model, folder, on_error="ignore")


def test_nothing_to_read(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="has no images"):
        predict(net(), tmp_path)
    with pytest.raises(DataError, match="there is no image or folder .*missing"):
        predict(net(), tmp_path / "missing")
    with pytest.raises(InputError, match="there are no images: the list is empty"):
        predict(net(), [])
    with pytest.raises(InputError, match=r"there are no images: the array has shape \(0, 12, 10, 3\)"):
        predict(net(), np.zeros((0, HEIGHT, WIDTH, 3)))


@pytest.mark.parametrize(
    "inputs, message",
    [
        (np.zeros(10), r"\(n, height, width, channels\), not \(10,\)"),
        (np.zeros((1, 1, HEIGHT, WIDTH, 3)), r"\(n, height, width, channels\), not \(1, 1, 12, 10, 3\)"),
        (
            np.zeros((HEIGHT, WIDTH)),
            r"3 channel\(s\) and these have 1: convert them, or build the model with channels=1",
        ),
        (np.zeros((2, HEIGHT, WIDTH, 4)), r"3 channel\(s\) and these have 4"),
        (np.full((HEIGHT, WIDTH, 3), np.nan), "NaN or infinite"),
        (np.full((HEIGHT, WIDTH, 3), 256.0), "values from 256 to 256, and 0..255 is expected"),
        (np.full((HEIGHT, WIDTH, 3), -1), "values from -1 to -1, and 0..255 is expected"),
        (np.full((HEIGHT, WIDTH, 3), "a"), "images must be numbers"),
    ],
)
def test_arrays_that_do_not_fit(inputs, message):
    with pytest.raises(InputError, match=message):
        predict(net(), inputs)


def test_values_from_0_to_1_get_a_warning():
    with pytest.warns(UserWarning, match="looks like 0..1 where 0..255 is expected: multiply them by 255"):
        predict(net(), np.full((HEIGHT, WIDTH, 3), 0.5))


def test_a_dark_file_gets_no_warning(tmp_path):
    """Its scale is known from its format: warnings are errors here."""
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 1, "uint8")).save(tmp_path / "dark.png")
    assert len(predict(net(), tmp_path / "dark.png")) == 1


def test_other_arguments_that_do_not_fit(images):
    with pytest.raises(InputError, match="the model tells 5 classes apart and 2 names are given"):
        predict(net(), images, classes=["a", "b"])
    for batch_size in (0, -1, 2.5):
        with pytest.raises(InputError, match="batch_size must be a whole number of at least 1"):
            predict(net(), images, batch_size=batch_size)


def test_models_that_are_no_classifiers(images):
    with pytest.raises(InputError, match="a built keras.Model is expected"):
        predict(keras.Sequential([L.Flatten(), L.Dense(3)]), images)
    a, b = keras.Input((HEIGHT, WIDTH, 3)), keras.Input((HEIGHT, WIDTH, 3))
    with pytest.raises(InputError, match="the model has 2 inputs and 1 outputs; one of each is expected"):
        predict(keras.Model([a, b], L.Flatten()(L.Add()([a, b]))), images)
    with pytest.raises(InputError, match="a classifier gives"):
        predict(keras.Model(a, L.Conv2D(2, 3)(a)), images)
    flat = keras.Input((4,))
    with pytest.raises(InputError, match=r"not images \(batch, height, width, channels\)"):
        predict(keras.Model(flat, L.Dense(3)(flat)), images)


def wrapped(model, how):
    inputs = keras.Input((HEIGHT, WIDTH, 3))
    if how == "nested":
        return keras.Model(inputs, model(inputs))
    if how == "sequential":
        return keras.Sequential([inputs, model])
    return keras.Model(model.input, L.Activation("linear", dtype="float32")(model.output))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("how", ["nested", "sequential", "cast"])
def test_the_kind_of_output_is_found_behind_wrappers(images, how, activation):
    model = net(activation=activation)
    found = predict(wrapped(model, how), images).probabilities
    np.testing.assert_allclose(found, twin(model, images, activation), atol=1e-6)


def test_softmax_as_an_operation(images):
    model = net(activation=None)
    found = predict(keras.Model(model.input, keras.ops.softmax(model.output)), images).probabilities
    np.testing.assert_allclose(found, twin(model, images), atol=1e-6)


def test_models_without_one_plain_input_and_output_are_refused(images):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = L.Flatten(), L.Dense(3)

        def call(self, x):
            return self.dense(self.flatten(x))

    model = Subclassed()
    model(images.astype("float32"))
    with pytest.raises(InputError, match="does not say what its input is"):
        predict(model, images)
    inputs = keras.Input((4, 4, 3), name="x")
    for model in (keras.Model(inputs, {"x": L.Flatten()(inputs)}), keras.Model({"x": inputs}, L.Flatten()(inputs))):
        with pytest.raises(InputError, match="dictionary"):
            predict(model, np.zeros((2, 4, 4, 3), "uint8"))


def test_logical_and_16_bit_arrays_are_scaled_as_in_training(images):
    model = net()
    logical = predict(model, images > 127).probabilities
    np.testing.assert_allclose(logical, twin(model, (images > 127) * 255), atol=1e-6)
    deep = predict(model, images.astype("uint16") * 257).probabilities
    np.testing.assert_allclose(deep, twin(model, images), atol=1e-6)


def test_generators_of_paths_and_mixed_or_ragged_lists(images, tmp_path):
    for i in (0, 1):
        Image.fromarray(images[i]).save(tmp_path / f"{i}.png")
    assert len(predict(net(), tmp_path.glob("*.png"), batch_size=np.int64(2))) == 2
    with pytest.raises(InputError, match="different shapes"):
        predict(net(), [images[0], images[1][:5]])
    with pytest.raises(InputError, match="mixes files and arrays"):
        predict(net(), ["a.png", images[0]])
    (tmp_path / "z.png").write_bytes(b"x")
    with pytest.warns(UserWarning), pytest.raises(DataError, match="none of the 1"):
        predict(net(), tmp_path / "z.png", on_error="skip")
