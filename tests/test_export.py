"""A SavedModel answers as the model does, from arrays and from raw files, and appears whole or not at all."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L
from PIL import Image

from cnn_zoo import ExportError, InputError, StorageError, build_unet, export, predict

HEIGHT, WIDTH = 12, 10
NAMES = ("ant", "bee, striped", "Käfer")
CASES = {  # name: channels, activation, size, precision policy
    "rgb_logits": (3, None, (HEIGHT, WIDTH), "float32"),
    "gray_softmax_mixed": (1, "softmax", (HEIGHT, WIDTH), "mixed_float16"),
    "rgba_sigmoid_any_size": (4, "sigmoid", (None, None), "float32"),
}


def net(channels=3, activation="softmax", size=(HEIGHT, WIDTH), extra=None):
    inputs = keras.Input((*size, channels))
    x = L.Rescaling(1 / 255, dtype="float32", name="preprocess")(inputs)
    x = L.BatchNormalization()(L.Conv2D(6, 3, activation="relu")(x))
    x = extra(x) if extra else x
    x = L.Flatten()(x) if None not in size else L.GlobalMaxPooling2D()(x)
    return keras.Model(
        inputs, L.Dense(len(NAMES), activation=activation, dtype="float32", name="predictions")(x), name="tiny"
    )


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A model, its export, the loaded SavedModel, six images and the folder of their PNG files."""
    import tensorflow as tf

    channels, activation, size, policy = CASES[request.param]
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(policy)
    model = net(channels, activation, size)
    keras.config.set_dtype_policy("float32")
    folder = tmp_path_factory.mktemp(request.param)
    images = np.random.default_rng(1).integers(0, 256, (6, HEIGHT, WIDTH, channels)).astype("uint8")
    (folder / "images").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0] if channels == 1 else image).save(folder / "images" / f"{i}.png")
    exported = export(model, folder / "served", classes=NAMES)
    return model, exported, tf.saved_model.load(str(exported.path)), images, folder / "images"


def contents(folder):
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def fingerprint(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_export_says(case):
    _, exported, *_ = case
    assert exported.signatures == ("serving_default", "serve_uint8", "serve_bytes")
    assert exported.format == "savedmodel" and 0 <= exported.max_difference < 1e-5
    assert json.loads(json.dumps(exported.to_dict()))["path"] == str(exported.path)


def test_every_signature_agrees_with_predict(case):
    model, _, served, images, folder = case
    fractions = images.astype("float32") * np.float32(0.97)
    for name, inputs, expected in (
        ("serving_default", {"images": fractions}, predict(model, fractions, classes=NAMES)),
        ("serve_uint8", {"images": images}, predict(model, images, classes=NAMES)),
        ("serve_bytes", {"contents": np.array(contents(folder), object)}, predict(model, folder, classes=NAMES)),
    ):
        answer = served.signatures[name](
            **{key: keras.ops.convert_to_tensor(v) if v.dtype != object else v for key, v in inputs.items()}
        )
        assert set(answer) == {"probabilities", "class", "label"}
        assert answer["probabilities"].dtype == "float32" and answer["class"].dtype == "int64"
        np.testing.assert_allclose(answer["probabilities"], expected.probabilities, atol=1e-5)
        np.testing.assert_array_equal(answer["class"], expected.labels)
        assert [label.decode() for label in answer["label"].numpy()] == expected.names
        assert answer["probabilities"].shape == (6, len(NAMES)) and np.ptp(expected.probabilities) > 1e-3


def test_bytes_and_arrays_agree(case):
    """PNG is lossless: the same images as raw files and as arrays."""
    model, _, served, images, folder = case
    answer = served.signatures["serve_bytes"](contents=np.array(contents(folder), object))
    np.testing.assert_allclose(answer["probabilities"], predict(model, images).probabilities, atol=1e-5)


def test_one_file_and_jpeg_and_another_size(case, tmp_path):
    model, _, served, images, _ = case
    shape = (25, 31) if images.shape[-1] != 1 else (HEIGHT, WIDTH)
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / ("a.jpg" if images.shape[-1] < 4 else "a.png"))
    answer = served.signatures["serve_bytes"](contents=np.array(contents(tmp_path), object))
    np.testing.assert_allclose(answer["probabilities"], predict(model, tmp_path).probabilities, atol=1e-5)


def test_labels_and_description_lie_beside_the_graph(case):
    model, exported, *_ = case
    labels = (exported.path / "assets" / "labels.txt").read_text(encoding="utf-8")
    assert labels == "".join(f"{name}\n" for name in NAMES)
    about = json.loads((exported.path / "model.json").read_text())
    assert about["name"] == "tiny" and about["classes"] == list(NAMES) and about["parameters"] == model.count_params()
    assert about["input"] == {
        "shape": list(model.input_shape[1:]),
        "values": "0..255",
        "order": "RGB",
        "preprocessing": "inside",
    }
    assert tuple(about["signatures"]) == exported.signatures and set(about["versions"]) == {
        "cnn-zoo",
        "keras",
        "tensorflow",
    }
    assert sorted(path.name for path in exported.path.parent.iterdir()) == ["images", "served"]


def test_the_export_can_be_moved(case, tmp_path):
    """The labels come along: the file they were read from when it was written is gone."""
    import tensorflow as tf

    _, exported, served, images, _ = case
    shutil.copytree(exported.path, tmp_path / "moved")
    moved = tf.saved_model.load(str(tmp_path / "moved"))
    images = tf.constant(images)
    answers = [model.signatures["serve_uint8"](images=images)["label"].numpy() for model in (served, moved)]
    np.testing.assert_array_equal(*answers)


def saved_model_cli(*arguments):
    program = Path(sys.executable).with_name("saved_model_cli")
    if not program.exists():
        pytest.skip("needs TensorFlow's saved_model_cli")
    return subprocess.run(
        [program, *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("case", ["rgb_logits"], indirect=True)
def test_saved_model_cli_shows_and_runs_it(case, tmp_path):
    model, exported, _, images, _ = case
    shown = saved_model_cli("show", "--dir", exported.path, "--all")
    assert shown.returncode == 0, shown.stderr
    for words in (
        "signature_def['serving_default']",
        "signature_def['serve_uint8']",
        "signature_def['serve_bytes']",
        "inputs['images']",
        "inputs['contents']",
        "outputs['probabilities']",
        "outputs['class']",
        "outputs['label']",
        "shape: (-1, 12, 10, 3)",
        "shape: (-1, 3)",
        "dtype: DT_UINT8",
        "dtype: DT_INT64",
    ):
        assert words in shown.stdout, words
    np.save(tmp_path / "images.npy", images)
    ran = saved_model_cli(
        "run", "--dir", exported.path, "--tag_set", "serve", "--signature_def", "serve_uint8",
        "--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    expected = predict(model, images, classes=NAMES)
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected.probabilities, atol=1e-5)
    np.testing.assert_array_equal(np.load(tmp_path / "class.npy"), expected.labels)
    found = np.load(tmp_path / "label.npy", allow_pickle=True)
    assert [label.decode() for label in found] == expected.names


def test_models_of_many_bands_have_no_bytes_signature(tmp_path):
    exported = export(net(channels=7), tmp_path / "served")
    assert exported.signatures == ("serving_default", "serve_uint8")
    assert (tmp_path / "served" / "assets" / "labels.txt").read_text() == "0\n1\n2\n"


@keras.saving.register_keras_serializable("test_export")
class Noise(L.Layer):
    """Adds noise at inference too, so no two answers are equal."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)


def test_an_export_that_differs_is_not_kept(tmp_path):
    old = tmp_path / "served"
    old.mkdir()
    (old / "saved_model.pb").write_text("old")
    before = fingerprint(tmp_path)
    with pytest.raises(
        ExportError, match=r"differs from the Keras model by .* more than the tolerance of 0.0001: nothing was kept"
    ):
        export(net(extra=Noise()), old, overwrite=True)
    assert fingerprint(tmp_path) == before and [path.name for path in tmp_path.iterdir()] == ["served"]


@pytest.mark.parametrize("old", [False, True])
def test_a_full_disk_leaves_nothing_new(tmp_path, monkeypatch, old):
    import tensorflow as tf

    if old:
        (tmp_path / "served").mkdir()
        (tmp_path / "served" / "saved_model.pb").write_text("old")
    before = fingerprint(tmp_path)

    def full(served, folder, **_):
        Path(folder, "variables").mkdir(parents=True)
        Path(folder, "variables", "half").touch()
        raise tf.errors.ResourceExhaustedError(None, None, f"{folder}/variables/half; No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(StorageError, match="the disk is full: free some space"):
        export(net(), tmp_path / "served", overwrite=old)
    assert fingerprint(tmp_path) == before and len(list(tmp_path.iterdir())) == old


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a part of that path is a file|a file of that name is in the way"):
        export(net(), tmp_path / "file" / "served")


def test_an_export_that_cannot_be_loaded_is_not_kept(tmp_path, monkeypatch):
    import tensorflow as tf

    def damaged(served, folder, **_):
        Path(folder).mkdir()
        Path(folder, "saved_model.pb").write_bytes(b"not a graph")

    monkeypatch.setattr(tf.saved_model, "save", damaged)
    with pytest.raises(ExportError, match="cannot be loaded and run: .*; nothing was kept"):
        export(net(), tmp_path / "served")
    assert not list(tmp_path.iterdir())


def test_overwriting_has_to_be_asked_for(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "saved_model.pb").write_text("old")
    with pytest.raises(InputError, match="exists: choose another path, or say overwrite=True"):
        export(net(), tmp_path / "served")
    assert (tmp_path / "served" / "saved_model.pb").read_text() == "old"
    exported = export(net(), tmp_path / "served", overwrite=True)
    assert exported.max_difference < 1e-5 and (tmp_path / "served" / "variables").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["served"]


def test_arguments_that_do_not_fit(tmp_path):
    model, path = net(), tmp_path / "served"
    with pytest.raises(
        InputError, match=r"no export format 'savedmodl'; did you mean 'savedmodel'\? \(there are: savedmodel\)"
    ):
        export(model, path, "savedmodl")
    with pytest.raises(InputError, match=r"no export format 'tarball' \(there are"):
        export(model, path, "tarball")
    with pytest.raises(InputError, match="the model tells 3 classes apart and 2 names are given"):
        export(model, path, classes=["a", "b"])
    for bad in ("two\nlines", "two\rlines", ""):
        with pytest.raises(InputError, match="a class name must be one line of text"):
            export(model, path, classes=["a", bad, "c"])
    with pytest.raises(InputError, match="a built keras.Model is expected"):
        export(keras.Sequential([L.Flatten(), L.Dense(3)]), path)
    a, b = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    with pytest.raises(InputError, match="the model has 2 inputs"):
        export(keras.Model([a, b], L.Flatten()(L.Add()([a, b]))), path)
    assert not list(tmp_path.iterdir())


def test_another_backend_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        InputError, match="this process runs jax: save the model as .keras and export it with KERAS_BACKEND"
    ):
        export(net(), tmp_path / "served")
    assert not list(tmp_path.iterdir())


def test_only_exports_are_replaced_and_nan_is_not_shipped(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("years")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "file"):
        with pytest.raises(InputError, match="is not an export"):
            export(net(), tmp_path / name, overwrite=True)
    assert (tmp_path / "thesis" / "a.tex").read_text() == "years" and (tmp_path / "file").read_text() == "x"
    model = net()
    model.set_weights([weights * np.nan for weights in model.get_weights()])
    with pytest.raises(ExportError, match="NaN"):
        export(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("classes, activation", [(3, "softmax"), (3, None), (1, "sigmoid"), (1, None)])
def test_a_segmenter_answers_with_masks(tmp_path, rng, classes, activation):
    import tensorflow as tf

    model = build_unet(classes, depth=2, width=4, activation=activation)
    exported = export(model, tmp_path / "unet")
    assert exported.max_difference < 1e-5 and set(exported.signatures) == {
        "serving_default",
        "serve_uint8",
        "serve_bytes",
    }
    images = rng.integers(0, 256, (2, 21, 30, 3)).astype("uint8")
    loaded = tf.saved_model.load(str(tmp_path / "unet"))
    outputs = model.predict(images, verbose=0)
    expected = outputs[..., 0] > (0 if activation is None else 0.5) if classes == 1 else outputs.argmax(-1)
    found = loaded.signatures["serve_uint8"](images=tf.constant(images))
    assert (found["mask"].numpy() == expected).mean() > 0.999  # a tie may fall either way
    from_bytes = loaded.signatures["serve_bytes"](contents=tf.stack([tf.io.encode_png(image) for image in images]))
    np.testing.assert_allclose(from_bytes["probabilities"], found["probabilities"], atol=1e-6)
    names = (tmp_path / "unet" / "assets" / "labels.txt").read_text().split()
    assert names == (["background", "object"] if classes == 1 else ["0", "1", "2"])
    with pytest.raises(InputError, match="names are given"):
        export(model, tmp_path / "other", classes=["a", "b", "c", "d"])
