"""Folders, pairs and tables of files: what is right becomes a data set that reads as it goes, what is wrong is told all at once."""

import importlib
import sys
import time
import warnings
import zipfile

import numpy as np
import pytest
from conftest import save
from PIL import Image

from cnn_zoo import DataError, InputError
from cnn_zoo.data import from_csv, from_dataframe, from_folder, from_masks, pipeline, plain_errors
from cnn_zoo.data.folders import ClassMasks, read_table
from cnn_zoo.data.formats import read_array
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.data.lazy import ImageFiles
from cnn_zoo.data.sizes import Size
from cnn_zoo.data.tiles import read_window, tiles


def test_class_folders(pets):
    data = from_folder(pets, test=0.2, validation=0.25, seed=1)
    assert data.classes == ("cat", "dog") and data.name == "pets" and data.source.startswith("20 images")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [12, 4, 4]
    for split in (data.train, data.validation, data.test):
        assert isinstance(split.images, ImageFiles) and split.images.dtype == np.uint8
        assert np.bincount(split.labels).tolist() == [len(split) / 2] * 2
        for i, (name, label) in enumerate(zip(split.names, split.labels)):
            assert name.startswith(data.classes[label])
            assert np.array_equal(split.images[i], read_array(pets / name))
    names = [set(split.names) for split in (data.train, data.validation, data.test)]
    assert len(set.union(*names)) == 20
    again = from_folder(pets, test=0.2, validation=0.25, seed=1)
    assert again.describe() == data.describe()
    assert data.split(0).train.images.shape == (16, 8, 6, 3)  # the validation split is put back
    assert len(data.split(0.5).validation) == 8
    data.summary()
    with pytest.raises(InputError, match="give size= where they are listed"):
        data.resize(4)


def test_lazy_batches_are_those_of_the_array(pets):
    data = from_folder(pets)
    whole = data.train.images[:]
    options = {"shuffle": True, "seed": 5, "epochs": 2}
    lazy = list(pipeline(data.train, 8, **options))
    for (images, labels), (expected, answers) in zip(
        lazy, pipeline(type(data.train)(whole, data.train.labels), 8, **options), strict=True
    ):
        assert np.array_equal(images, expected) and np.array_equal(labels, answers)
    augmented = next(iter(pipeline(data.train, 8, augment="natural")))[0]
    assert augmented.shape == (8, 8, 6, 3)
    spec = pipeline(data.train, 8).element_spec[0]
    assert spec.shape.as_list() == [None, 8, 6, 3]


def test_folders_of_parts(pets, tmp_path, rng):
    for part in ("train", "val", "test"):
        for label in "ab":
            save(tmp_path / "parts" / part / label / f"{part}{label}.png", rng.integers(0, 256, (4, 4)))
    data = from_folder(tmp_path / "parts")
    assert [split.names.tolist() for split in (data.train, data.validation, data.test)] == [
        [f"{part}/a/{part}a.png", f"{part}/b/{part}b.png"] for part in ("train", "val", "test")
    ]
    with pytest.raises(InputError, match="there is a test part already"):
        from_folder(tmp_path / "parts", test=0.5)
    (pets / "test").mkdir()
    save(pets / "test" / "x.png", np.zeros((8, 6, 3)))
    assert from_folder(pets).classes == ("cat", "dog", "test")  # without a folder train, a class may be called so


def test_intensity_is_learnt_from_training_images_alone(pets):
    data = from_folder(pets, test=0.5, intensity="standardise", size=(4, 5), how="letterbox")
    values = np.concatenate([read_array(pets / name).reshape(-1, 3) for name in data.train.names])
    np.testing.assert_allclose(data.train.images.intensity.mean, values.mean(0), rtol=1e-6)
    assert data.test.images.intensity == data.train.images.intensity
    assert (
        data.train.images.shape == (10, 4, 5, 3) and "std of 10 training images" in data.source and "4x5" in data.source
    )


def test_all_that_is_wrong_with_a_folder_is_told_at_once(pets, rng):
    (pets / "empty").mkdir()
    (pets / "cat" / "notes.txt").write_text("hello")
    (pets / "dog" / "text.png").write_text("hello")
    (pets / "dog" / "none.png").write_bytes(b"")
    (pets / "dog" / ".hidden").write_text("")
    (pets / "dog" / "Thumbs.db").write_text("")
    whole = (pets / "cat" / "cat0.png").read_bytes()
    save(pets / "loose.png", np.zeros((8, 6, 3)))
    with pytest.raises(DataError) as caught:
        from_folder(pets)
    message = str(caught.value)
    assert message.startswith("5 thing(s) are wrong")
    for word in (
        "empty' is empty",
        "notes.txt' is no file that",
        "text.png' is not an image",
        "none.png' is empty (0 bytes)",
        "loose.png' is in no",
    ):
        assert word in message
    (pets / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="left out 6: "):
        data = from_folder(pets, on_error="skip")
    assert len(data.train) == 20 and data.classes == ("cat", "dog")
    with pytest.raises(InputError, match="'raise' or 'skip', not 'ignore'"):
        from_folder(pets, on_error="ignore")


def test_damage_behind_a_header_is_named_when_it_is_read(pets):
    path = pets / "cat" / "cat3.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 30])
    data = from_folder(pets)
    with pytest.raises(DataError, match=r"cat3.png' is damaged .*: get the file again") as caught, plain_errors():
        list(pipeline(data.train, 8))
    assert "Traceback" not in str(caught.value)


def test_folders_that_are_no_data_set(tmp_path, pets):
    with pytest.raises(DataError, match="not there, and a folder is expected"):
        from_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="10 files lie in no folder of their class.*folder/CLASS/file"):
        from_folder(pets / "cat")
    with pytest.raises(DataError, match="one class only, 'cat'"):
        from_folder(pets, classes=["cat"])
    with pytest.raises(DataError, match="no training images of the class.*'bird'"):
        from_folder(pets, classes=["cat", "bird", "dog"])
    assert from_folder(pets, classes=["dog", "cat"]).train.labels[-1] == 0
    save(pets / "cat" / "odd.png", np.zeros((9, 6, 3)))
    with pytest.raises(DataError, match="differ .2 kinds.: .*odd.png"):
        from_folder(pets)


def test_grouped_names_are_warned_of_and_kept_together(tmp_path, rng):
    for p in range(8):
        for i in range(3):
            save(tmp_path / "ab"[p % 2] / f"P{p}_img_{i}.png", rng.integers(0, 256, (4, 4)))
    with pytest.warns(UserWarning, match=r"look grouped .*'P0'; 8 groups.*groups='names'"):
        from_folder(tmp_path)
    for groups in ("names", r"^(P\d+)_", lambda name: name.split("/")[1][:2]):
        data = from_folder(tmp_path, test=0.25, groups=groups)
        train, test = (set(split.groups) for split in (data.train, data.test))
        assert len(test) == 2 and not train & test and "8 groups kept together" in data.source
        assert data.describe()["test"]["groups"] == 2
        held = data.split(0.34)
        assert not set(held.train.groups) & set(held.validation.groups)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_folder(tmp_path, groups=False)


def test_real_photographs(shared, tmp_path):
    with zipfile.ZipFile(shared("data/hymenoptera.zip")) as archive:
        names = [n for n in archive.namelist() if n.endswith(".jpg")]
        archive.extractall(tmp_path, names[::20])
    data = from_folder(
        tmp_path / "hymenoptera", size=64, how="short_side_crop"
    )  # a warning of groups would be an error
    assert data.classes == ("ants", "bees") and len(data.train) + len(data.validation) == len(names[::20])
    assert data.train.images[:2].shape == (2, 64, 64, 3)


@pytest.fixture
def cells(tmp_path, rng):
    """Six images with masks of 0, 1 and void 9."""
    for i in range(6):
        save(tmp_path / "images" / f"c{i}.png", rng.integers(0, 256, (10, 12, 3)))
        mask = rng.integers(0, 2, (10, 12))
        mask[0, 0] = 9
        save(tmp_path / "masks" / f"c{i}_mask.png", mask)
    return tmp_path


def test_images_with_masks(cells):
    data = from_masks(cells, classes=["back", "cell"], ignore=9, test=1 / 3)
    assert (
        data.train.has_masks and data.train.labels.shape == (4, 10, 12) and data.ignore == (9,) and len(data.test) == 2
    )
    for i, name in enumerate(data.train.names):
        assert np.array_equal(data.train.images[i], read_array(cells / "images" / f"{name}.png"))
        assert np.array_equal(data.train.labels[i], np.asarray(Image.open(cells / "masks" / f"{name}_mask.png")))
    images, masks = next(iter(pipeline(data.train, 4, augment="micrograph")))
    assert images.shape == (4, 10, 12, 3) and masks.shape == (4, 10, 12) and masks.dtype == "uint8"
    assert from_masks(cells / "images", cells / "masks", ignore=9).classes == ("0", "1")
    boxed = from_masks(cells, classes=2 * ["x"], ignore=9, size=Size(16, 16, "letterbox"))
    assert boxed.train.labels[0][0, 0] == 9
    described = data.describe()["train"]
    assert described["mask_files"]["count"] == 4 and described["sha256"]


def test_training_on_files_resumes_as_on_arrays(cells, tmp_path):
    """Lazy images and masks train to the very weights that arrays do, and a run that is taken up again ends with them."""
    import dataclasses

    import keras

    from cnn_zoo import Recipe, evaluate, fit

    lazy = from_masks(cells, classes=["back", "cell"], ignore=9, validation=1 / 3)
    whole = dataclasses.replace(
        lazy,
        train=dataclasses.replace(lazy.train, images=lazy.train.images[:], labels=lazy.train.labels[:]),
        validation=dataclasses.replace(
            lazy.validation, images=lazy.validation.images[:], labels=lazy.validation.labels[:]
        ),
    )

    def trained(data, run, epochs=2, resume=False):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((10, 12, 3))
        x = keras.layers.Rescaling(1 / 255)(inputs)
        model = keras.Model(inputs, keras.layers.Conv2D(2, 3, padding="same", activation="softmax")(x))
        fit(
            model,
            data,
            Recipe(epochs=epochs, batch_size=2, augment="micrograph"),
            run=tmp_path / run,
            resume=resume,
            verbose=0,
        )
        return model

    one, two = trained(lazy, "lazy"), trained(whole, "whole")
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True))
    assert evaluate(one, lazy.validation, ignore=(9,)).scores() == evaluate(two, whole.validation, ignore=(9,)).scores()
    save(cells / "images" / "c0.png", np.zeros((10, 12, 3)))
    with pytest.raises(InputError, match="cannot resume"):  # other pixels in a file of the same name
        trained(from_masks(cells, classes=["back", "cell"], ignore=9, validation=1 / 3), "lazy", resume=True)


def test_ids_that_are_no_class_are_named_with_their_file(cells):
    with pytest.raises(DataError, match=r"c\d_mask.png' holds the ids 9, none of the classes 0..1"):
        from_masks(cells, classes=["back", "cell"])
    files = sorted((cells / "masks").iterdir())
    save(files[5], np.full((10, 12), 7))
    masks = ClassMasks(files, 2, (9,))
    assert masks[:5].max() == 9
    with pytest.raises(DataError, match="c5_mask.png' holds the ids 7"):
        masks.take([0, 5])[:]


def test_pairs_that_do_not_fit_are_told_at_once(cells):
    save(cells / "images" / "alone.png", np.zeros((10, 12, 3)))
    save(cells / "masks" / "lost.png", np.zeros((10, 12)))
    save(cells / "masks" / "c1.png", np.zeros((10, 12)))
    save(cells / "images" / "c2.bmp", np.zeros((10, 12, 3)))
    save(cells / "masks" / "c3_mask.png", np.zeros((5, 12)))
    (cells / "masks" / "c4_mask.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        from_masks(cells, classes=["back", "cell"], ignore=9)
    message = str(caught.value)
    assert message.startswith("6 thing(s) are wrong")
    for words in (
        "alone.png' has no mask", "lost.png' has no image", "are both of 'c1.png'", "'c2.png' have the same name",
        "c3_mask.png' is 5x12 and its image 10x12", "c4_mask.png' is empty (0 bytes)",
    ):  # fmt: skip
        assert words in message, words
    with pytest.warns(UserWarning, match="left out 6: "):
        data = from_masks(cells, classes=["back", "cell"], ignore=9, on_error="skip")
    assert len(data.train) == 4
    with pytest.raises(DataError, match="lacks the folders images and masks"):
        from_masks(cells / "images")


def test_real_street_scenes(shared, tmp_path):
    with zipfile.ZipFile(shared("data/camvid.zip")) as archive:
        stems = sorted(n.split("/")[-1][:-4] for n in archive.namelist() if "/masks/" in n and n.endswith(".png"))[::60]
        archive.extractall(tmp_path, [n for n in archive.namelist() if n.split("/")[-1][:-4] in stems])
    data = from_masks(tmp_path / "camvid", classes=[str(i) for i in range(11)], ignore=11, groups=False)
    assert data.train.images.shape[1:] == (360, 480, 3) and data.train.labels.dtype == np.uint8
    assert len(data.train) + len(data.validation) + len(data.test) == len(stems)


def write_csv(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_tables(pets, tmp_path):
    files = sorted(p.relative_to(pets) for p in pets.rglob("*.png"))
    lines = ["file,label,patient,when", *(f"{f},{f.parts[0]},p{i % 5},{2000 + i}" for i, f in enumerate(files))]
    table = write_csv(pets / "table.csv", lines)
    data = from_csv(table, test=0.2, group_column="patient")
    assert data.classes == ("cat", "dog") and not set(data.train.groups) & set(data.test.groups)
    assert data.train.names[0] in map(str, files) and len(data.test) == 4
    late = from_csv(table, time_column="when", test=0.25, label_column="patient")
    assert late.test.names.tolist() == list(map(str, files[-5:])) and "split by time" in late.source
    semicolons = write_csv(tmp_path / "s.csv", [line.replace(",", ";") for line in lines])
    assert len(from_csv(semicolons, folder=pets, delimiter=";").train) == 20
    with pytest.raises(DataError, match="has no column 'class': it has 'file', 'label', 'patient', 'when'"):
        from_csv(table, label_column="class")
    with pytest.raises(DataError, match="cannot read .*none.csv"):
        from_csv(tmp_path / "none.csv")
    ids = write_csv(pets / "ids.csv", ["file,label", *(f"{f},{int(f.parts[0] == 'dog')}" for f in files)])
    assert from_csv(ids, classes=["cat", "dog"]).train.labels.sum() == 10
    with pytest.raises(DataError, match="line 12: '1' is no class"):
        from_csv(ids, classes=["cat"])
    with pytest.raises(InputError, match="no option 'sise'"):
        from_csv(ids, sise=3)


def test_bad_lines_are_named_by_number(pets):
    files = sorted(p.relative_to(pets) for p in pets.rglob("*.png"))
    lines = ["file,label", *(f"{f},{f.parts[0]}" for f in files)]
    lines[3] += ",more"
    lines[4] = lines[4].split(",")[0] + ","
    lines[5] = "nowhere.png,cat"
    lines[7] = lines[6]
    lines[8] = ""
    table = write_csv(pets / "table.csv", lines)
    with pytest.raises(DataError) as caught:
        from_csv(table)
    message = str(caught.value)
    assert message.startswith(
        "4 thing(s) are wrong: line 4: 3 fields, where 2 are expected; line 5: nothing in column 'label'"
    )
    assert "line 6: there is no file" in message and "is listed already in line 7" in message
    with pytest.warns(UserWarning, match="left out 4"):
        assert len(from_csv(table, on_error="skip").train) == 15


def test_one_bad_line_in_a_million_is_found_fast(tmp_path):
    lines = [f"{i}.png,cat" for i in range(1_000_000)]
    lines[654_321] = "broken"
    (tmp_path / "big.csv").write_text("\n".join(["file,label", *lines]))
    problems, start = [], time.process_time()
    records = read_table(tmp_path / "big.csv", ["file", "label"], ",", problems)
    assert problems == ["line 654323: 1 fields, where 2 are expected"] and len(records) == 999_999
    assert time.process_time() - start < 15


def test_data_frames(pets):
    pandas = pytest.importorskip("pandas")
    files = sorted(p.relative_to(pets) for p in pets.rglob("*.png"))
    frame = pandas.DataFrame({"file": map(str, files), "label": [f.parts[0] for f in files], "n": range(20)})
    data = from_dataframe(frame, folder=pets, validation=0.5)
    assert len(data.validation) == 10 and data.classes == ("cat", "dog")
    frame.loc[3, "label"] = None
    with pytest.raises(DataError, match="1 thing.s. are wrong: row 3: nothing in column 'label'"):
        from_dataframe(frame, folder=pets)
    with pytest.raises(DataError, match="the data frame has no column 'kind'"):
        from_dataframe(frame, label_column="kind", folder=pets)


# Tiles


@pytest.mark.parametrize("kind", ["strips", "tiles", "deflate", "npy", "png"])
def test_windows_are_what_the_whole_image_has_there(tmp_path, rng, kind):
    import tifffile

    image = rng.integers(0, 60000, (100, 130, 3)).astype("uint16")
    path = tmp_path / "a.tif"
    if kind == "npy":
        np.save(path := tmp_path / "a.npy", image)
    elif kind == "png":
        image = image.astype("uint8")
        path = save(tmp_path / "a.png", image)
    else:
        options = {
            "strips": {"rowsperstrip": 7},
            "tiles": {"tile": (32, 48)},
            "deflate": {"tile": (32, 32), "compression": "zlib"},
        }[kind]
        tifffile.imwrite(path, image, photometric="rgb", byteorder=">" if kind == "strips" else "<", **options)
    for top, left, height, width in ((0, 0, 100, 130), (31, 47, 40, 50), (99, 129, 1, 1), (64, 96, 32, 34)):
        window = read_window(path, top, left, height, width)
        assert window.dtype == image.dtype
        assert np.array_equal(window, image[top : top + height, left : left + width])


def test_only_the_window_of_a_huge_file_is_read(tmp_path, monkeypatch):
    import tifffile

    module = importlib.import_module("cnn_zoo.data.tiles")  # the package has the function of that name

    tifffile.imwrite(
        tmp_path / "a.tif", np.arange(512 * 512, dtype="uint32").reshape(512, 512).astype("uint16"), tile=(64, 64)
    )
    np.save(tmp_path / "b.npy", np.zeros((512, 512), "uint8"))
    monkeypatch.setattr(module, "read_array", None)
    assert read_window(tmp_path / "a.tif", 100, 100, 9, 9)[0, 0] == (100 * 512 + 100) % 65536
    assert read_window(tmp_path / "b.npy", 100, 100, 9, 9).shape == (9, 9, 1)


def test_tiles_see_small_objects(tmp_path, rng):
    images, masks = [], []
    for i in range(3):
        mask = np.zeros((200, 240))
        if i:
            mask[150:154, 30 * i : 30 * i + 4] = i
        images.append(save(tmp_path / f"{i}.png", mask * 50 + 10))
        masks.append(save(tmp_path / f"{i}_mask.png", mask))
    split = tiles(images, masks, size=32, count=60, foreground=0.5, seed=3)
    assert split.images.shape == (60, 32, 32, 1) and split.labels.shape == (60, 32, 32) and split.has_masks
    pictures, answers = split.images[:], split.labels[:]
    assert np.array_equal(pictures[..., 0], answers * 50 + 10)  # they do not drift apart
    assert 20 <= (answers > 0).any((1, 2)).sum() <= 45
    again = tiles(images, masks, size=32, count=90, foreground=0.5, seed=3)
    assert np.array_equal(again.images[:60], pictures)  # window k is a function of seed and k
    assert not np.array_equal(tiles(images, masks, size=32, count=60, seed=4).images[:], pictures)
    rare = tiles(images, masks, size=32, count=60, foreground=0, seed=3).labels[:]
    assert (rare > 0).any((1, 2)).sum() < 20
    assert split.images.describe()["sha256"] == again.images.take(range(60)).describe()["sha256"]
    batch, truth = next(iter(pipeline(split, 8)))
    assert np.array_equal(batch, pictures[:8]) and np.array_equal(truth, answers[:8])
    with pytest.raises(DataError, match="200x240, smaller than a window of 300x300"):
        tiles(images, size=300, count=3)
    with pytest.raises(InputError, match="'minmax' is none for windows"):
        tiles(images, size=30, count=3, intensity="minmax")
    floats = tiles(images, size=30, count=3, intensity=Intensity("range", 0, 100))
    assert floats.dtype == np.float32 and floats.shape == (3, 30, 30, 1)


# Prepared once


def test_prepared_data_come_back_as_they_were(pets, cells):
    pytest.importorskip("tensorflow_datasets")
    from cnn_zoo.data import load_prepared, prepare

    data = from_folder(pets, test=0.2)
    back = load_prepared(prepare(data, pets.parent / "prepared"))
    assert back.classes == data.classes and back.source == data.source and back.validation is None
    for part in ("train", "test"):
        one, two = getattr(data, part), getattr(back, part)
        order = [two.names.tolist().index(name) for name in one.names]  # shards are shuffled
        assert np.array_equal(two.images[order], one.images[:]) and np.array_equal(two.labels[order], one.labels)
    batch = next(iter(pipeline(back.train, 4, shuffle=True)))[0]
    assert batch.shape == (4, 8, 6, 3) and batch.dtype == "uint8"
    masked = from_masks(cells, classes=["back", "cell"], ignore=9, intensity=Intensity("range", 0, 99))
    again = load_prepared(prepare(masked, pets.parent / "masked"))
    order = [again.train.names.tolist().index(name) for name in masked.train.names]
    assert np.array_equal(again.train.images[order], masked.train.images[:]) and again.ignore == (9,)
    assert np.array_equal(again.train.labels[order], masked.train.labels[:])
    assert again.describe() == load_prepared(pets.parent / "masked").describe()
    with pytest.raises(DataError, match="holds no prepared data set.*prepare"):
        load_prepared(pets)


def test_preparing_needs_an_extra(pets, monkeypatch):
    from cnn_zoo.data import prepare

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'cnn-zoo\[tfds\]'"):
        prepare(from_folder(pets), pets.parent / "prepared")
