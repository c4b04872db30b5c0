"""Files that look like arrays: the same as reading one by one, whatever the index, and clear words where they cannot be one array."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from cnn_zoo import DataError, InputError
from cnn_zoo.data.formats import read_array, read_ids
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.data.lazy import ImageFiles, MaskFiles
from cnn_zoo.data.sizes import Size
from cnn_zoo.masks import Palette


@pytest.fixture
def folder(tmp_path, rng):
    """Six colour PNGs of one size."""
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype("uint8")).save(tmp_path / f"{i}.png")
    return tmp_path


def test_an_index_gives_what_an_array_would(folder):
    files = ImageFiles(folder)
    whole = np.stack([read_array(path) for path in sorted(folder.iterdir())])
    assert files.shape == whole.shape and files.dtype == whole.dtype == np.uint8
    assert len(files) == 6 and files.ndim == 4
    for index in (
        0,
        -1,
        np.int64(3),
        slice(None),
        slice(1, 5, 2),
        slice(3, 3),
        [4, 0, 0],
        np.array([5, 1]),
        [2],
        np.arange(6) % 2 == 0,
        [],
    ):
        assert np.array_equal(files[index], whole[index]), index
    taken = files.take([5, 1, 1])
    assert taken.shape == (3, 20, 30, 3) and np.array_equal(taken[:], whole[[5, 1, 1]])
    assert [path.name for path in taken.paths] == ["5.png", "1.png", "1.png"] and len(files) == 6
    for bad in (6, [0, 6], -7):
        with pytest.raises(IndexError):
            files[bad]
    with pytest.raises(InputError, match="an integer, a slice, or a list"):
        files[np.zeros((2, 2), int)]
    copied = pickle.loads(pickle.dumps(files))
    assert np.array_equal(copied[[1, 2]], whole[1:3])


def test_sizes_that_differ_name_two_files(folder, rng):
    Image.fromarray(rng.integers(0, 256, (9, 31, 3)).astype("uint8")).save(folder / "odd.png")
    with pytest.raises(
        DataError, match=r"differ \(2 kinds\): .*0.png' has 20x30 pixels and .*odd.png' 9x31: .*size=Size\("
    ):
        ImageFiles(folder)
    size = Size(16, 16, "letterbox")
    files = ImageFiles(folder, size=size)
    assert files.shape == (7, 16, 16, 3)
    assert np.array_equal(files[6], size.apply(read_array(folder / "odd.png")))


def test_channels_that_differ_name_two_files(folder, rng):
    Image.fromarray(rng.integers(0, 256, (20, 30)).astype("uint8")).save(folder / "gray.png")
    with pytest.raises(DataError, match=r"0.png' has 3 channel\(s\) and .*gray.png' 1: .*channels=1 or channels=3"):
        ImageFiles(folder)
    gray = read_array(folder / "gray.png")
    assert np.array_equal(ImageFiles(folder, channels=3)[6], np.repeat(gray, 3, -1))
    ones = ImageFiles(folder, channels=1)
    assert ones.shape == (7, 20, 30, 1) and np.array_equal(ones[6], gray)
    twin = np.rint(read_array(folder / "0.png") @ np.float32([0.299, 0.587, 0.114]))
    assert np.abs(ones[0][..., 0] - twin).max() <= 1
    assert (ImageFiles(folder, channels=4)[:][..., 3] == 255).all()
    with pytest.raises(DataError, match="0.png': 3 channels cannot be brought to 13"):
        ImageFiles(folder, channels=13)[0]


def test_transparency_is_dropped_and_kept_for_four_channels(tmp_path, rng):
    rgba = rng.integers(0, 256, (2, 9, 7, 4)).astype("uint8")
    for i in (0, 1):
        Image.fromarray(rgba[i]).save(tmp_path / f"{i}.png")
    assert np.array_equal(ImageFiles(tmp_path)[:], rgba[..., :3])
    assert np.array_equal(ImageFiles(tmp_path, channels=4)[:], rgba)


def test_intensity_rules_are_fitted_on_these_and_given_to_those(tmp_path, rng):
    deep = (rng.normal(size=(5, 20, 30)) * 500 + 35_000).astype("uint16")
    paths = [tmp_path / f"{i}.tif" for i in range(5)]
    for path, one in zip(paths, deep):
        tifffile.imwrite(path, one)
    plain = ImageFiles(paths)
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain[:][..., 0], deep / 257, rtol=1e-6)
    train = ImageFiles(paths[:3], intensity="percentiles")
    with pytest.raises(DataError, match=r"0.tif': the rule 'percentiles' has no numbers yet: .*ImageFiles.fit\(\)"):
        train[0]
    train = train.fit()
    low, high = np.percentile(deep[:3], (0.1, 99.9))
    test = ImageFiles(paths[3:], intensity=train.intensity)
    np.testing.assert_allclose(test[:][..., 0], np.clip((deep[3:] - low) / (high - low) * 255, 0, 255), atol=1e-3)
    assert train.describe()["intensity"]["low"] == [low]
    tifffile.imwrite(paths[0], np.full((20, 30), 70_000, "int32"))
    with pytest.raises(DataError, match="0.tif': the image holds int32 values from 70000 to 70000"):
        ImageFiles(paths)[:]
    tifffile.imwrite(paths[0], np.full((20, 30), np.nan, "float32"))
    with pytest.raises(DataError, match="the intensity rule of 1 images from .*0.tif.*NaN"):
        ImageFiles(paths[:1], intensity="standardise").fit()


def test_bad_files_are_all_named_or_left_out(folder):
    (folder / "2.png").write_bytes(b"")
    (folder / "4.png").write_text("text")
    whole = (folder / "5.png").read_bytes()
    (folder / "5.png").write_bytes(whole[: len(whole) // 2])  # its header is there
    with pytest.raises(DataError, match=r"2 image\(s\) cannot be read: .*2.png' is empty.*4.png' is not an image"):
        ImageFiles(folder)
    with pytest.warns(UserWarning, match=r"left out 3 image\(s\): .*2.png.*4.png.*5.png' is damaged") as caught:
        files = ImageFiles(folder, on_error="skip")
    assert len(caught) == 1 and [path.name for path in files.paths] == ["0.png", "1.png", "3.png"]
    assert files[:].shape == files.shape == (3, 20, 30, 3)
    late = ImageFiles([folder / "0.png", folder / "5.png", folder / "1.png"])
    with pytest.raises(DataError, match=r"1 image\(s\) cannot be read: .*5.png' is damaged"):
        late[:]
    with pytest.warns(UserWarning), pytest.raises(DataError, match="no files that can be read"):
        ImageFiles([folder / "2.png"], on_error="skip")
    with pytest.raises(DataError, match="no files that can be read"):
        ImageFiles([])
    with pytest.raises(InputError, match="'raise' or 'skip', not 'ignore'"):
        ImageFiles(folder, on_error="ignore")


def test_a_file_that_changes_its_size_meanwhile(folder):
    files = ImageFiles(folder)
    Image.new("RGB", (5, 5)).save(folder / "3.png")
    with pytest.raises(DataError, match=r"3.png' has shape \(5, 5, 3\) and \(20, 30, 3\) was there"):
        files[:]


def test_frames_and_the_limit(tmp_path, rng):
    stack = rng.integers(0, 256, (4, 20, 30)).astype("uint8")
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    assert np.array_equal(ImageFiles(tmp_path, frame=2)[0][..., 0], stack[2])
    assert np.array_equal(MaskFiles(tmp_path, frame=3)[0], stack[3])
    for kind in (ImageFiles, MaskFiles):
        with pytest.raises(DataError, match="larger than 599 pixels"):
            kind(tmp_path, max_pixels=599)


@pytest.mark.parametrize(
    "options", [{"channels": 0}, {"channels": "rgb"}, {"size": (20, 20)}, {"intensity": "auto"}, {"intensity": None}]
)
def test_arguments_that_are_none(folder, options):
    with pytest.raises(InputError):
        ImageFiles(folder, **options)


def test_description_is_of_the_contents(folder, tmp_path_factory):
    files = ImageFiles(folder, size=Size(8, 8), intensity="minmax")
    described = json.loads(json.dumps(files.describe()))
    assert described["count"] == 6 and described["shape"] == [6, 8, 8, 3] and described["intensity"]["rule"] == "minmax"
    assert described["size"]["how"] == "resize"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in files.paths:
        (elsewhere / path.name).write_bytes(path.read_bytes())
    assert ImageFiles(elsewhere, size=Size(8, 8), intensity="minmax").describe() == described
    assert files.take([1, 0, 2, 3, 4, 5]).describe()["sha256"] != described["sha256"]
    (elsewhere / "0.png").rename(elsewhere / "00.png")
    assert ImageFiles(elsewhere).describe()["sha256"] != described["sha256"]


def test_masks(tmp_path, rng):
    ids = rng.integers(0, 3, (4, 20, 30)).astype("uint8")
    for i, one in enumerate(ids):
        Image.fromarray(one * 127).save(tmp_path / f"{i}.png")  # 0, 127, 254
    masks = MaskFiles(tmp_path, values={127: 1, 254: 2})
    assert masks.shape == (4, 20, 30) and masks.dtype == np.uint8 and np.array_equal(masks[:], ids)
    assert np.array_equal(masks[[2, 0]], ids[[2, 0]]) and np.array_equal(masks.take([3])[0], ids[3])
    size = Size(16, 40, "letterbox")
    boxed = MaskFiles(tmp_path, size=size, values={127: 1, 254: 2}, ignore=255)
    assert np.array_equal(boxed[1], size.apply_mask(ids[1], 255)) and (boxed[:] == 255).any()
    with pytest.raises(InputError, match="a border: give its id, ignore="):
        MaskFiles(tmp_path, size=size)[0]
    wide = MaskFiles(tmp_path, size=size, ignore=999)
    assert wide.dtype == np.uint16 and wide[0].max() == 999
    described = json.loads(json.dumps(boxed.describe()))
    assert described["values"] == {"127": 1, "254": 2} and described["ignore"] == 255 and described["palette"] is None


def test_masks_in_colour(tmp_path, rng):
    ids = rng.integers(0, 3, (4, 20, 30)).astype("uint8")
    palette = Palette(("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))
    for i, one in enumerate(ids):
        Image.fromarray(palette.to_rgb(one)).save(tmp_path / f"{i}.png")
    masks = MaskFiles(tmp_path, palette=palette)
    assert masks.shape == (4, 20, 30) and np.array_equal(masks[:], ids)
    assert json.dumps(masks.describe()["palette"]) == "[[0, 0, 0, 0], [1, 255, 0, 0], [2, 0, 0, 255]]"
    with pytest.raises(DataError, match=r"4 image\(s\) cannot be read: .*0.png'?: the mask is coloured"):
        MaskFiles(tmp_path)[:]
    Image.fromarray(np.full((9, 9, 3), 3, "uint8")).save(tmp_path / "4.png")
    with pytest.raises(DataError, match=r"0.png' has 20x30 pixels and .*4.png' 9x9"):
        MaskFiles(tmp_path, palette=palette)
    with pytest.warns(UserWarning, match=r"left out 1 image\(s\): .*4.png'?: .*not in the palette"):
        assert len(MaskFiles(tmp_path, palette=palette, on_error="skip")) == 4


def test_real_data(shared, tmp_path):
    """Photographs of all sizes, and a segmentation set with its masks, as they come out of their archives."""
    with zipfile.ZipFile(shared("data/hymenoptera.zip")) as archive:
        archive.extractall(tmp_path, [name for name in archive.namelist() if "/val/bees/" in name])
    with zipfile.ZipFile(shared("data/camvid.zip")) as archive:
        archive.extractall(
            tmp_path,
            [name for name in archive.namelist() if "/val/" in name][:60]
            + [n for n in archive.namelist() if "/val/masks/" in n],
        )
    photographs = tmp_path / "hymenoptera/val/bees"
    with pytest.raises(DataError, match="the files differ"):
        ImageFiles(photographs)
    bees = ImageFiles(photographs, size=Size(64, 64, "short_side_crop"), channels=3)
    batch = bees[:]
    assert batch.shape == bees.shape and batch.dtype == np.uint8 and len(bees) > 50
    assert all(one.std() > 5 for one in batch)
    masks = MaskFiles(tmp_path / "camvid/val/masks")
    assert masks.shape[1:] == (360, 480) and set(np.unique(masks[:20])) <= set(range(12))
    assert np.array_equal(masks[0], read_ids(masks.paths[0]))
    fitted = ImageFiles(tmp_path / "camvid/val/images", intensity=Intensity("standardise")).fit()
    assert abs(fitted[:8].mean() - 127.5) < 60 and len(fitted.intensity.mean) == 3
