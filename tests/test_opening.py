"""Every source of data by one call: what lies there is told by names, what is not understood is said, options belong to kinds."""

import time
import warnings

import numpy as np
import pytest
from conftest import save
from PIL import Image
from scipy.io import wavfile

from cnn_zoo import DataError, InputError, MissingExtraError, load
from cnn_zoo.data import from_folder, from_masks, open_data, prepare
from cnn_zoo.data.formats import read_array
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.data.opening import kind_of
from cnn_zoo.data.sizes import Size


@pytest.fixture
def cells(tmp_path, rng):
    """Ten images with masks of 0 and 255."""
    for i in range(10):
        save(tmp_path / "cells" / "images" / f"c{i}.png", rng.integers(0, 256, (10, 12)))
        save(tmp_path / "cells" / "masks" / f"c{i}.png", 255 * rng.integers(0, 2, (10, 12)))
    return tmp_path / "cells"


def sizes(data):
    return [0 if split is None else len(split) for split in (data.train, data.validation, data.test)]


def same(one, two):
    assert one.describe() == two.describe()


def test_known_names():
    same(open_data("digits"), load("digits"))
    same(open_data("digits", size=28, validation=0.1, seed=3), load("digits", size=28, validation=0.1, seed=3))
    same(open_data("digits", size=(28, 28), how="crop"), load("digits", size=28, how="pad"))
    wide = open_data("digits", channels=3, size=12, how="letterbox")
    assert wide.train.images.shape[1:] == (12, 12, 3) and "1 channel(s) brought to 3" in wide.source
    assert np.ptp(wide.train.images[0], axis=-1).max() == 0
    assert np.array_equal(
        wide.train.images[0], Size(12, 12, "letterbox").apply(load("digits").train.images[0].repeat(3, -1))
    )
    with pytest.raises(DataError, match="did you mean 'digits'"):
        open_data("digitz")
    with pytest.raises(DataError, match="there is no file or folder 'no/where'"):
        open_data("no/where")


def test_class_folders(pets):
    data = open_data(pets)
    assert sizes(data) == [16, 0, 4]
    same(data, from_folder(pets, test=0.2))
    same(open_data(pets, test=0.5, size=4, groups=False), from_folder(pets, test=0.5, size=4, groups=False))
    assert sizes(open_data(pets, test=0)) == [20, 0, 0]
    for part in ("train", "test"):
        for label in "ab":
            save(pets.parent / "parts" / part / label / "x.png", np.zeros((4, 4)))
    assert sizes(open_data(pets.parent / "parts")) == [2, 0, 2]
    save(pets / "cat" / "odd.png", np.zeros((9, 6, 3)))
    with pytest.raises(DataError, match="say what they shall be brought to, size="):
        open_data(pets)
    assert open_data(pets, size=(4, 5), how="letterbox", channels=1).train.images.shape[1:] == (4, 5, 1)


def test_images_with_masks(cells):
    options = {"values": {255: 1}, "classes": ["back", "cell"], "seed": 1}
    data = open_data(cells, **options)
    assert sizes(data) == [8, 0, 2] and data.train.has_masks
    same(data, from_masks(cells, test=0.2, **options))
    same(
        open_data(cells / "images", masks=cells / "masks", test=0.2, **options),
        from_masks(cells / "images", cells / "masks", test=0.2, **options),
    )
    for values in ({"255": 1}, {"nonzero": 1}):
        assert open_data(cells, values=values, classes=2).classes == ("0", "1")
    data = open_data(cells, values={255: 1}, size=(20, 20), how="letterbox", ignore=7)
    assert data.ignore == (7,) and (data.train.labels[0] == 7).any()
    cells.rename(cells.parent / "train")
    save(cells.parent / "test" / "images" / "x.png", np.zeros((10, 12)))
    with pytest.raises(DataError, match="test' lacks the folders images and masks"):
        open_data(cells.parent, values={255: 1})


def test_tables(pets):
    lines = [
        f"{p.relative_to(pets)},{p.parent.name},p{i % 5},{('train', 'test')[i % 4 == 0]}"
        for i, p in enumerate(sorted(pets.rglob("*.png")))
    ]
    (pets / "t.csv").write_text("\n".join(["file,label,patient,part", *lines]))
    (pets / "t.tsv").write_text(
        "\n".join(["picture\twhat", *(line.replace(",", "\t").rsplit("\t", 2)[0] for line in lines)])
    )
    data = open_data(pets / "t.csv", group_column="patient")
    assert sizes(data) == [16, 0, 4] and not set(data.train.groups) & set(data.test.groups)
    assert sizes(open_data(pets / "t.csv", part_column="part")) == [15, 0, 5]
    assert sizes(open_data(pets / "t.tsv", file_column="picture", label_column="what")) == [16, 0, 4]
    with pytest.raises(DataError, match="are 'picture', 'what': say which one is meant, file_column="):
        open_data(pets / "t.tsv")
    with pytest.raises(DataError, match=r"directly in it .*1 \.csv.*or give its table '.*t\.[ct]sv'"):
        empty = pets.parent / "flat"
        empty.mkdir()
        (empty / "t.csv").write_text("file,label\n")
        open_data(empty)


def test_arrays(tmp_path, rng):
    images, labels = rng.integers(0, 256, (40, 6, 5)).astype("uint8"), np.arange(40) % 2
    np.savez(
        tmp_path / "keras.npz",
        x_train=images[:30],
        y_train=labels[:30, None],
        x_test=images[30:],
        y_test=labels[30:, None],
    )
    data = open_data(tmp_path / "keras.npz", size=10, classes=["a", "b"])
    assert sizes(data) == [30, 0, 10] and data.train.images.shape == (30, 10, 10, 1) and data.classes == ("a", "b")
    with pytest.raises(InputError, match="there is a test part already"):
        open_data(tmp_path / "keras.npz", test=0.5)
    names = np.array([f"P{i // 8}_img_{i}.png" for i in range(40)])
    np.savez(tmp_path / "own.npz", images=images, sick=labels == 1, file_names=names)
    with pytest.raises(
        DataError, match=r"holds images \(40, 6, 5\), sick \(40,\), .*say which are meant by image_key= and label_key="
    ):
        open_data(tmp_path / "own.npz")
    with pytest.raises(DataError, match="has no array 'ill': it has images"):
        open_data(tmp_path / "own.npz", label_key="ill")
    with pytest.warns(UserWarning, match="look grouped .*'P0'; 5 groups"):
        open_data(tmp_path / "own.npz", label_key="sick")
    data = open_data(tmp_path / "own.npz", label_key="sick", groups="names")
    assert sizes(data) == [32, 0, 8] and not set(data.train.groups) & set(data.test.groups)
    assert "5 groups kept together" in data.source
    np.savez(tmp_path / "words.npz", images=images, labels=np.array(["10", "9"])[labels])
    assert open_data(tmp_path / "words.npz").classes == ("9", "10")
    np.savez(tmp_path / "masks.npz", images=images, masks=255 * (images > 99).astype("uint8"))
    data = open_data(tmp_path / "masks.npz", values={255: 1}, test=0.5, size=(8, 10), how="crop", ignore=3)
    assert data.classes == ("0", "1") and data.train.labels.shape == (20, 8, 10) and data.ignore == (3,)
    assert (data.train.labels[:, 0] == 3).all() and set(np.unique(data.train.labels[:, 1:7, 2:7])) == {0, 1}
    np.savez(tmp_path / "one.npz", images=images, labels=0 * labels)
    with pytest.raises(DataError, match="all images are of one class"):
        open_data(tmp_path / "one.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:200])
    with pytest.raises(DataError, match="broken.npz' is missing, damaged or no .npz"):
        open_data(tmp_path / "broken.npz")


def test_intensity_of_arrays_is_learnt_from_training_images_alone(tmp_path, rng):
    images = rng.integers(33_000, 36_900, (40, 6, 5)).astype("uint16")
    np.savez(tmp_path / "deep.npz", images=images, labels=np.arange(40) % 2)
    assert np.allclose(
        open_data(tmp_path / "deep.npz").train.images[0][..., 0],
        images[int(open_data(tmp_path / "deep.npz").train.names[0])] / 257,
    )
    data = open_data(tmp_path / "deep.npz", intensity="standardise", split=tmp_path / "split.json")
    rule = Intensity("standardise").fit(images[data.train.names.astype(int)][..., None])
    assert np.array_equal(data.test.images, rule.apply(images[data.test.names.astype(int)][..., None]))
    same(open_data(tmp_path / "deep.npz", intensity="standardise", split=tmp_path / "split.json", seed=9), data)
    assert open_data(tmp_path / "deep.npz", intensity=Intensity("range", 33_000, 36_900)).train.images.max() > 250


def test_real_arrays(shared):
    data = open_data(shared("data/malaria.npz"), label_key="parasitized", groups="names", classes=["well", "ill"])
    assert sum(sizes(data)) == 27_558 and not set(data.train.groups) & set(data.test.groups)
    assert abs(len(data.test) / 27_558 - 0.2) < 0.02


def test_sequences(tmp_path, shared):
    (tmp_path / "genes").mkdir()
    for label, letters in (("up", "ACGT"), ("down", "TTGA")):
        (tmp_path / "genes" / f"{label}.fasta").write_text(
            "".join(f">{label}{i} class={label}\n{letters}\n" for i in range(10))
        )
    data = open_data(tmp_path / "genes")
    assert sizes(data) == [16, 0, 4] and data.classes == ("down", "up") and data.train.images.shape[1:] == (1, 4, 4)
    whole = tmp_path / "whole.fa"
    whole.write_text("".join(path.read_text() for path in (tmp_path / "genes").iterdir()))
    assert open_data(whole, label="class=([a-z]+)").classes == ("down", "up")
    for label, says in (
        (None, "give label=, a regular expression"),
        ("class=", "needs parentheses"),
        ("(x", "no regular expression"),
    ):
        with pytest.raises(InputError, match=says):
            open_data(whole, label=label)
    with pytest.raises(DataError, match="header .* has no class by label="):
        open_data(whole, label="klass=([a-z]+)")
    (tmp_path / "t.csv").write_text("sequence,label\n" + "ACGT,up\nTTGA,down\n" * 5)
    assert sizes(open_data(tmp_path / "t.csv", length=6)) == [8, 0, 2]
    promoters = shared("data/promoters.data")
    with pytest.raises(DataError, match="kind that is known .*kind='sequences'"):
        open_data(promoters)
    data = open_data(promoters, kind="sequences", label_column=0, name_column=1, sequence_column=2)
    assert sum(sizes(data)) == 106 and data.train.images.shape[1:] == (1, 57, 4) and data.classes == ("+", "-")


def test_stacks_and_signals(tmp_path, rng):
    import cv2

    for label in ("calm", "loud"):
        for i in range(5):
            path = tmp_path / "sounds" / label / f"{label}{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            wavfile.write(path, 8000, rng.integers(-99, 99, 400).astype("int16"))
            path = tmp_path / "volumes" / label / f"{label}{i}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, rng.integers(0, 256, (3, 6, 6)).astype("uint8"))
            path = tmp_path / "videos" / label / f"{label}{i}.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (16, 16))
            for _ in range(4):
                video.write(rng.integers(0, 256, (16, 16, 3)).astype("uint8"))
            video.release()
    assert open_data(tmp_path / "sounds", length=200).train.images.shape[1:] == (200, 1)
    assert open_data(tmp_path / "sounds", length=400, view="spectrogram", window=64).train.images.ndim == 4
    with pytest.raises(InputError, match="give length=, the samples of one"):
        open_data(tmp_path / "sounds")
    assert open_data(tmp_path / "videos", depth=2, size=8).train.images.shape[1:] == (2, 8, 8, 3)
    with pytest.raises(
        DataError,
        match="may be several things, with in its folders 10 .npy: say which by kind='folder' or kind='stacks' or",
    ):
        open_data(tmp_path / "volumes")
    assert open_data(tmp_path / "volumes", kind="stacks").train.images.shape[1:] == (3, 6, 6, 1)


def test_prepared(pets):
    pytest.importorskip("tensorflow_datasets")
    data = from_folder(pets, size=(4, 4), test=0.25)
    prepare(data, pets.parent / "prepared")
    again = open_data(pets.parent / "prepared")
    assert sizes(again) == sizes(data) and set(again.test.names) == set(data.test.names)
    row = data.test.names.tolist().index(again.test.names[0])
    assert np.array_equal(again.test.images[0], data.test.images[row])
    with pytest.raises(InputError, match="size: no option of the kind 'prepared'"):
        open_data(pets.parent / "prepared", size=8)


def test_tensorflow_datasets(tmp_path, rng, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    pictures = rng.integers(0, 256, (20, 9, 8, 3)).astype("uint8")

    def builder(name, features, rows):
        def info(self):
            keys = ("image", "label") if "label" in features else None
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=keys
            )

        return type(name, (tfds.core.GeneratorBasedBuilder,), {
            "VERSION": tfds.core.Version("1.0.0"), "_info": info, "pkg_dir_path": tmp_path, "__module__": __name__,
            "_split_generators": lambda self, manager: {"train": self._generate_examples()},
            "_generate_examples": lambda self: enumerate(rows),
        })  # fmt: skip

    image, label = tfds.features.Image(shape=(None, None, 3)), tfds.features.ClassLabel(names=["x", "y"])
    rows = [{"image": picture, "label": i % 2} for i, picture in enumerate(pictures)]
    builder("OpeningOne", {"image": image, "label": label}, rows)
    builder("OpeningTwo", {"image": image, "label": label}, [*rows, {"image": pictures[0, :5], "label": 0}])
    builder("OpeningThree", {"image": image, "caption": tfds.features.Text()}, [])
    options = {"data_dir": tmp_path}
    data = open_data("tfds:opening_one", **options)
    assert sizes(data) == [16, 0, 4] and data.classes == ("x", "y")
    found = {
        image.tobytes(): int(label)
        for split in (data.train, data.test)
        for image, label in zip(split.images, split.labels)
    }
    assert found == {picture.tobytes(): i % 2 for i, picture in enumerate(pictures)}
    with pytest.raises(DataError, match="differ in size .*size="):
        open_data("tfds:opening_two", **options)
    assert open_data("tfds:opening_two", size=6, **options).train.images.shape[1:] == (6, 6, 3)
    with pytest.raises(DataError, match="no images with one label each: its features are .*caption"):
        open_data("tfds:opening_three", **options)
    with pytest.raises(DataError, match="TensorFlow Datasets cannot give 'opening_none'"):
        open_data("tfds:opening_none", **options)
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cnn-zoo\[tfds\]'"):
        open_data("tfds:opening_one", **options)


def test_options_belong_to_kinds(pets, cells, tmp_path):
    for source, options, says in (
        (
            pets,
            {"palette": 1, "depth": 3},
            r"^depth, palette: no option of the kind 'folder'.*its options: channels, classes",
        ),
        (cells, {"label_key": "x"}, "label_key: no option of the kind 'masks'"),
        ("digits", {"test": 0.5}, "test: no option of the kind 'known'"),
        (pets, {"sise": 3}, "sise: no option"),
        (pets, {"kind": "pictures"}, "there is no kind 'pictures'; there are: known, tfds, folder"),
        (pets, {"how": "crop"}, "give size= as well"),
        (pets, {"size": 4, "how": "squeeze"}, "how is one of resize"),
        (pets, {"on_error": "ignore"}, "'raise' or 'skip'"),
    ):
        with pytest.raises(InputError, match=says):
            open_data(source, **options)


def test_what_lies_there_is_told_by_names(pets, cells, tmp_path):
    assert [kind_of(p) for p in (pets, cells, "digits", "tfds:x")] == ["folder", "masks", "known", "tfds"]
    (pets / "dog" / "clip.mp4").write_text("")
    with pytest.raises(
        DataError, match=r"in its folders 20 \.png, 1 \.mp4: say which by kind='folder' or kind='stacks'"
    ):
        open_data(pets)
    with pytest.raises(DataError, match="clip.mp4' is no file that can be read"):
        open_data(pets, kind="folder")
    with pytest.raises(
        DataError, match=r"no data set that is known \(directly in it 10 \.png\): class folders .folder/CLASS/file."
    ):
        open_data(pets / "cat")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="it is empty"):
        open_data(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match="is a file of no kind that is known"):
        open_data(tmp_path / "notes.txt")


@pytest.mark.parametrize("intensity", [None, "percentiles"])
def test_a_saved_split_is_used_again(pets, tmp_path, intensity):
    file = tmp_path / "split.json"
    first = open_data(pets, split=file, validation=0.25, intensity=intensity, seed=4)
    assert sizes(first) == [12, 4, 4]
    again = open_data(pets, split=file, intensity=intensity)  # another seed, no validation: the file says all of it
    same(first, again)
    assert np.array_equal(first.test.images[:], again.test.images[:])
    save(pets / "cat" / "new.png", np.zeros((8, 6, 3)))
    with pytest.raises(DataError, match="1 are new .*new.png"):
        open_data(pets, split=file, intensity=intensity)


def test_a_saved_split_of_data_with_parts_of_their_own(tmp_path):
    for i in range(5):
        for part in ("train", "val"):
            for label in "ab":
                save(
                    tmp_path / "parts" / part / label / f"{part}{i}.png", np.full((4, 4), 10 * i + 100 * (label == "b"))
                )
    first = open_data(tmp_path / "parts", split=tmp_path / "parts.json", seed=3)
    assert sizes(first) == [8, 10, 2]
    again = open_data(tmp_path / "parts", split=tmp_path / "parts.json", seed=4)
    same(first, again)
    assert np.array_equal(first.test.names, again.test.names)


def bad_folder(root, rng):
    """A class folder with everything in it that the field meets."""
    whole = (root / "cat" / "cat0.png").read_bytes()
    Image.fromarray(rng.integers(0, 256, (64, 48, 3)).astype("uint8")).save(root / "cat" / "cut.jpg")
    jpeg = (root / "cat" / "cut.jpg").read_bytes()
    (root / "cat" / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "cat" / "zero.png").write_bytes(b"")
    (root / "cat" / "text.png").write_text("hello")
    (root / "dog" / "bomb.png").write_bytes(whole[:16] + (50_000).to_bytes(4, "big") * 2 + whole[24:])
    (root / "dog" / "notes.txt").write_text("hello")
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    return {"cut.jpg", "zero.png", "text.png", "bomb.png", "notes.txt", "gone.png"}


def test_all_that_is_bad_is_named_in_one_summary_or_left_out(pets, rng):
    bad = bad_folder(pets, rng)
    began = time.perf_counter()
    with pytest.raises(DataError) as caught:
        open_data(pets, size=8)
    missed = {name for name in bad if name not in str(caught.value)}
    assert missed <= {"cut.jpg"}, str(caught.value)  # its header is whole: it is named when it is read, or
    with pytest.warns(UserWarning, match=r"left out 6: ") as told:
        data = open_data(pets, size=8, on_error="skip")
    assert all(name in str(told[0].message) for name in bad)
    assert sum(sizes(data)) == 20 and data.train.images[:].shape == (16, 8, 8, 3)
    assert time.perf_counter() - began < 20


def test_one_class_alone_and_unreadable_folders(pets, tmp_path, monkeypatch):
    import shutil

    shutil.rmtree(pets / "dog")
    with pytest.raises(DataError, match="one class only, 'cat'"):
        open_data(pets)

    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.iterdir", refused)  # the administrator, who may run this, may read everything
    with pytest.raises(DataError, match=r"pets' cannot be read \(Permission denied\): check its permissions"):
        open_data(pets)


def test_images_are_as_stored_and_nothing_is_warned_of(pets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = open_data(pets)
    for i, name in enumerate(data.test.names):
        assert np.array_equal(data.test.images[i], read_array(pets / name))
