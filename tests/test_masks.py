"""Reading and checking masks, colour tables, class weights, and the pictures of masks."""

import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from cnn_zoo import DataError, InputError
from cnn_zoo import mask_plots as plots
from cnn_zoo.data.formats import read_ids
from cnn_zoo.masks import Palette, check_masks, class_weights_from, pair, read_mask
from cnn_zoo.palette import VOC_CLASSES

CAMVID = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist".split()
TRAFFIC = Palette(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)))


@pytest.fixture
def mask(rng):
    """A mask of three classes in large patches, 48 x 40."""
    return np.kron(rng.integers(0, 3, (6, 5)), np.ones((8, 8), int)).astype("uint8")


def kinds(report):
    """The first words of each problem, for short assertions."""
    return [problem.what for problem in report.problems]


def only(report, words, serious=True):
    """The only problem of a report, whose text has these words."""
    assert len(report.problems) == 1, str(report)
    problem = report.problems[0]
    assert words in problem.what and problem.serious is serious and problem.fix and problem.where, str(problem)
    assert report.ok is not serious
    return problem


# Colours


def test_the_voc_colours_are_those_that_pascal_published():
    """The first 21 and the border, as the devkit's documentation prints them."""
    palette = Palette.voc()
    published = {
        "background": (0, 0, 0), "aeroplane": (128, 0, 0), "bicycle": (0, 128, 0), "bird": (128, 128, 0), "boat": (0, 0, 128),
        "bottle": (128, 0, 128), "bus": (0, 128, 128), "car": (128, 128, 128), "cat": (64, 0, 0), "chair": (192, 0, 0),
        "cow": (64, 128, 0), "diningtable": (192, 128, 0), "dog": (64, 0, 128), "horse": (192, 0, 128), "motorbike": (64, 128, 128),
        "person": (192, 128, 128), "pottedplant": (0, 64, 0), "sheep": (128, 64, 0), "sofa": (0, 192, 0), "train": (128, 192, 0),
        "tvmonitor": (0, 64, 128), "void": (224, 224, 192),
    }  # fmt: skip
    assert dict(zip(palette.names, palette.colors)) == published
    assert palette.ids == (*range(21), 255) and palette.classes == VOC_CLASSES and palette.name(255) == "void"
    assert len(set(Palette.voc(256, void=False).colors)) == 256
    with pytest.raises(InputError, match="256 colours"):
        Palette.voc(300)


def test_colours_and_ids_are_exact_inverses(mask, rng):
    assert np.array_equal(TRAFFIC.to_ids(TRAFFIC.to_rgb(mask)), mask)
    for i, color in enumerate(TRAFFIC.colors):
        assert (TRAFFIC.to_rgb(mask)[mask == i] == color).all()
    many = Palette.of(300)
    ids = rng.integers(0, 300, (20, 30))
    assert len(set(many.colors)) == 300
    decoded = many.to_ids(many.to_rgb(ids))
    assert np.array_equal(decoded, ids) and decoded.dtype == np.uint16
    void = np.array([[0, 20, 255]])
    assert np.array_equal(Palette.voc().to_ids(Palette.voc().to_rgb(void)), void)


def test_several_colours_may_mean_one_class():
    """As where CamVid's 32 classes become 11: the first colour is the one shown."""
    palette = Palette(("Car", "SUV", "Road"), ((64, 0, 128), (64, 128, 192), (128, 64, 128)), (0, 0, 1))
    assert palette.to_ids(np.array([palette.colors], "uint8")).tolist() == [[0, 0, 1]]
    assert palette.to_rgb([[0, 1]]).tolist() == [[[64, 0, 128], [128, 64, 128]]]
    assert palette.classes == ("Car", "Road") and palette.name(0) == "Car" and palette.name(9) == "9"


def test_an_unknown_colour_is_named_with_its_pixels(mask):
    picture = TRAFFIC.to_rgb(mask)
    picture[:2, :3] = (1, 2, 3)
    picture[5, 5] = (9, 9, 9)
    with pytest.raises(
        DataError, match=r"2 colour\(s\), \(1, 2, 3\) in 6 pixels, \(9, 9, 9\) in 1 pixels, not in the palette"
    ):
        TRAFFIC.to_ids(picture)
    given = TRAFFIC.to_ids(picture, unknown=255)
    assert (given == 255).sum() == 7 and np.array_equal(given[10:], mask[10:])
    with pytest.raises(InputError, match=r"no colour for id 7 \(2 pixels\): it has the ids 0..2"):
        TRAFFIC.to_rgb([[7, 7, 0]])
    with pytest.raises(InputError, match="id -1"):
        TRAFFIC.to_rgb([[-1, 0]])
    with pytest.raises(InputError, match=r"\(height, width, 3\)"):
        TRAFFIC.to_ids(mask)


TABLES = {
    "label_colors.txt": "# CamVid\n128 64 128\tRoad\n0 128 192\t\tBicyclist track\n",
    "colors.txt": "Road 128 64 128\n\nBicyclist track 0 128 192\n",
    "colors.csv": "128,64,128,Road\n0,128,192,Bicyclist track\n",
    "class_dict.csv": "name, r, g, b\nRoad, 128, 64, 128\nBicyclist track, 0, 128, 192\n",
    "ids.csv": "id,name,red,green,blue\n0,Road,128,64,128\n1,Bicyclist track,0,128,192\n",
    "colors.json": '{"Road": [128, 64, 128], "Bicyclist track": "#0080c0"}',
    "list.json": '[{"name": "Road", "color": [128, 64, 128]}, {"name": "Bicyclist track", "color": [0, 128, 192]}]',
}
BAD_TABLES = [
    ("a.txt", "1 2 3 Road\nno numbers here\n", r"line 2 \('no numbers here'\)"),
    ("a.txt", "1 2 300 Road\n", "0..255"),
    ("a.txt", "1 2 3 Road\n1 2 3 Car\n", "stands for Road and Car"),
    ("a.txt", "", "no rows"),
    ("a.json", "{", "cannot be understood"),
    ("a.json", '[{"name": "Road", "color": "red"}]', "#rrggbb"),
    ("a.json", "[1, 2]", "cannot be understood"),
    ("a.json", "7", "cannot be understood"),
    ("a.json", '[{"name": "Road"}]', "lacks its name or its color"),
]


def test_colour_tables_are_read(tmp_path):
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
        palette = Palette.from_file(tmp_path / name)
        assert palette == Palette(("Road", "Bicyclist track"), ((128, 64, 128), (0, 128, 192))), name


def test_bad_colour_tables_are_refused(tmp_path):
    for name, text, words in BAD_TABLES:
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=words):
            Palette.from_file(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        Palette.from_file(tmp_path / "none.txt")


def test_palettes_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="as many names"):
        Palette(("a", "b"), ((0, 0, 0),))
    with pytest.raises(InputError, match="whole numbers 0..255"):
        Palette(("a",), ((0.5, 0, 0),))
    with pytest.raises(InputError, match="class id"):
        Palette(("a",), ((0, 0, 0),), (-1,))
    with pytest.raises(InputError, match="as many names"):
        Palette.of(0)


# Reading


def test_reading_keeps_the_numbers_of_files(tmp_path, mask):
    gray, indexed, deep = (Image.fromarray(mask) for _ in range(3))
    indexed.putpalette([value for color in Palette.voc().colors[:21] for value in color])
    gray.save(tmp_path / "gray.png")
    indexed.save(tmp_path / "indexed.png")
    deep = mask.astype("uint16") * 300
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(mask).save(tmp_path / "gray.tif")
    Image.fromarray(mask).save(tmp_path / "lossless.webp", lossless=True)
    Image.fromarray(mask == 1).save(tmp_path / "bits.png")
    Image.fromarray(np.stack([mask] * 3, -1)).save(tmp_path / "equal.png")
    np.save(tmp_path / "hot.npy", np.eye(3, dtype="uint8")[mask])
    np.save(tmp_path / "float.npy", mask[..., None].astype("float32"))
    for name in ("gray.png", "indexed.png", "gray.tif", "equal.png", "hot.npy", "float.npy"):
        assert np.array_equal(read_mask(tmp_path / name), mask), name
    assert np.array_equal(read_mask(tmp_path / "deep.png"), deep)
    assert np.array_equal(read_mask(tmp_path / "bits.png"), mask == 1)
    assert np.array_equal(read_mask(tmp_path / "indexed.png", Palette.voc()), mask)


def packed(ids, bits):
    """A gray PNG of so few bits, written by hand, as Pillow writes none of 2 and 4."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = ids.shape
    digits = np.unpackbits(ids[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in digits)
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_masks_of_few_bits_are_not_stretched(tmp_path, rng, bits):
    ids = rng.integers(0, 2**bits, (9, 13)).astype("uint8")
    (tmp_path / "a.png").write_bytes(packed(ids, bits))
    assert np.array_equal(read_mask(tmp_path / "a.png"), ids)
    assert np.array_equal(read_ids(tmp_path / "a.png"), ids)
    assert check_masks(tmp_path, 2**bits).pixels == dict(
        zip(*map(np.ndarray.tolist, np.unique(ids, return_counts=True)))
    )


def test_a_palette_decodes_colours_and_gray_levels(tmp_path, mask):
    Image.fromarray(TRAFFIC.to_rgb(mask)).save(tmp_path / "rgb.png")
    Image.fromarray(TRAFFIC.to_rgb(mask)).convert("RGBA").save(tmp_path / "rgba.png")
    Image.fromarray((mask == 1).astype("uint8") * 255).save(tmp_path / "logical.png")
    for name in ("rgb.png", "rgba.png"):
        assert np.array_equal(read_mask(tmp_path / name, TRAFFIC), mask)
    assert np.array_equal(read_mask(tmp_path / "logical.png", Palette.binary()), mask == 1)
    Image.fromarray(mask).save(tmp_path / "gray.png")
    assert np.array_equal(read_mask(tmp_path / "gray.png", TRAFFIC), mask)  # numbers are ids already
    # Indices of a palette PNG that some tool has put into another order: colours count.
    swapped = Image.fromarray((2 - mask).astype("uint8"))
    swapped.putpalette([value for color in TRAFFIC.colors[::-1] for value in color])
    swapped.save(tmp_path / "swapped.png")
    assert np.array_equal(read_mask(tmp_path / "swapped.png", TRAFFIC), mask)
    with pytest.raises(DataError, match=r"rgb.png is one of the coloured masks.*3 colour\(s\).*palette=Palette"):
        read_mask(tmp_path / "rgb.png")


def test_files_that_are_no_masks_are_refused(tmp_path, mask, rng):
    Image.fromarray(mask).save(tmp_path / "a.jpg")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    whole = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (64, 64)).astype("uint8")).save(whole, "PNG")
    (tmp_path / "broken.png").write_bytes(whole.getvalue()[:1000])
    np.save(tmp_path / "half.npy", np.full((4, 4), 0.5))
    np.save(tmp_path / "four.npy", np.zeros((2, 3, 4, 5)))
    for name, words in {
        "a.jpg": "masks saved as JPEG.*threshold",
        "empty.png": "0 bytes",
        "text.png": "not an image",
        "broken.png": "damaged",
        "half.npy": "fractions",
        "four.npy": "shape",
        "none.png": "there is no mask",
    }.items():
        with pytest.raises(DataError, match=words):
            read_mask(tmp_path / name)


# Checking


def test_good_masks_have_no_problems(tmp_path, mask):
    for name in "abc":
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    report = check_masks(tmp_path, ["road", "car", "sky"])
    assert report.ok and not report.problems and report.raise_if_bad() is report
    values, counts = np.unique(mask, return_counts=True)
    assert report.pixels == dict(zip(values.tolist(), (3 * counts).tolist()))
    assert report.masks == 3 and report.sizes == {(48, 40): 3}
    assert "no problems found" in str(report) and "car" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    for given in (
        mask,
        mask[..., None],
        mask[None],
        [mask, mask],
        np.stack([mask] * 4),
        np.stack([mask] * 4)[..., None],
        iter([mask]),
    ):
        assert not check_masks(given, 3).problems


def test_logical_masks_are_found_and_the_remedy_works(tmp_path, mask):
    logical = (mask == 1).astype("uint8") * 255
    Image.fromarray(logical).save(tmp_path / "a.png")
    problem = only(check_masks(tmp_path), "0 and 255")
    assert "Palette.binary()" in problem.fix and f"{(mask == 1).sum():,} pixels of 255" in problem.where[0]
    assert not check_masks(tmp_path, 2, palette=Palette.binary()).problems
    assert not check_masks(logical // 255, 2).problems
    assert not check_masks(mask == 1, 2).problems
    only(check_masks([(mask == 1).astype("uint8"), logical], 2), "0 and 255")  # mixed
    only(check_masks(logical // 255 * 128), "two values")
    assert check_masks(np.where(mask == 1, 255, mask), 3, ignore=255).ok


def test_coloured_masks_are_found(tmp_path, mask):
    picture = TRAFFIC.to_rgb(mask)
    problem = only(check_masks([picture]), "coloured masks")
    assert "(128, 64, 128) in" in problem.where[0] and "Palette" in problem.fix
    assert not check_masks([picture], palette=TRAFFIC).problems
    assert check_masks([picture], palette=TRAFFIC).classes == TRAFFIC.names
    picture[0, 0] = 7
    assert "(7, 7, 7) in 1 pixels" in only(check_masks(picture, palette=TRAFFIC), "colours that the palette").where[0]
    only(check_masks(np.stack([mask] * 3, -1)), "three equal channels")
    pure = Palette(("r", "g", "b"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))  # looks like one-hot
    assert not check_masks([pure.to_rgb(mask)], palette=pure).problems
    see_through = np.concatenate([TRAFFIC.to_rgb(mask), np.full((48, 40, 1), 90, "uint8")], -1)
    only(check_masks([see_through], palette=TRAFFIC), "alpha")


def test_palette_png_is_fine_and_turned_into_rgb_it_is_not(tmp_path, mask):
    image = Image.fromarray(mask)
    image.putpalette([value for color in Palette.voc().colors for value in color])
    image.save(tmp_path / "indexed.png")
    assert not check_masks(tmp_path, 3).problems
    image.convert("RGB").save(tmp_path / "indexed.png")
    only(check_masks(tmp_path, 3), "coloured masks")
    swapped = Image.fromarray((2 - mask).astype("uint8"))
    swapped.putpalette([value for color in TRAFFIC.colors[::-1] for value in color])
    swapped.save(tmp_path / "indexed.png")
    only(check_masks(tmp_path, palette=TRAFFIC), "indices are not the ids")


def test_one_hot_masks_are_told_from_ids(mask):
    hot = np.eye(3, dtype="uint8")[mask]
    only(check_masks([hot], 3), "one-hot", serious=False)
    only(check_masks(hot, 3), "one-hot", serious=False)
    only(check_masks(np.stack([hot, hot]), 3), "one-hot", serious=False)
    assert any("another number of channels" in what for what in kinds(check_masks([hot], 4)))
    only(check_masks([hot * 255], 3), "255 for 1")
    only(check_masks([np.moveaxis(hot, -1, 0)], 3), "classes first")
    assert "some masks are one-hot and some are class ids" in kinds(check_masks([hot, mask], 3))
    several = hot.copy()
    several[:2, :2] = 1
    assert (
        "0 pixels of no class, 4 of several" in only(check_masks([several], 3), "no class or several", False).where[0]
    )


def test_unknown_ids_are_named_and_void_can_be_ignored(mask):
    void = np.where(mask == 2, 255, mask)
    problem = only(check_masks([mask, void], 2, ignore=2), "ids that are no class")
    assert problem.where == (f"mask 1: id 255 ({(mask == 2).sum():,} pixels)",)
    assert check_masks([mask, void], 2, ignore=[2, 255]).ok
    negative = mask.astype("int32") - 1
    assert "id -1" in only(check_masks(negative), "ids that are no class").where[0]
    assert not check_masks(negative, 2, ignore=-1).problems
    assert check_masks(
        np.where(mask == 2, 255, mask), ("a", "b"), palette=Palette.voc(("a", "b"))
    ).ok  # void of the palette


def test_absent_classes_blank_masks_and_odd_ids_are_notes(mask):
    problem = only(check_masks(mask, ["a", "b", "c", "d"]), "occur in no mask", serious=False)
    assert problem.where == ("d (id 3)",)
    assert any("shifted" in problem.fix for problem in check_masks(mask + 1, 4).problems)
    assert "every pixel is ignored" in " ".join(kinds(check_masks([mask, np.full_like(mask, 9)], 3, ignore=9)))
    only(check_masks(np.zeros_like(mask)), "one and the same", serious=False)
    only(check_masks(mask * 60), "large gaps", serious=False)
    only(check_masks(np.arange(400).reshape(20, 20)), "very many ids", serious=False)


def test_types_and_shapes_that_are_no_masks(mask):
    only(check_masks(mask.astype("float32"), 3), "floating point", serious=False)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (48, 40)).astype("float32")
    problem = only(check_masks([probabilities]), "fractions")
    assert "argmax(-1)" in problem.fix and "(48, 40, 3)" in problem.where[0]
    assert "fractions" in kinds(check_masks([np.where(mask == 1, np.nan, mask)], 3))[0]
    only(check_masks([mask.astype(str)]), "no numbers")
    only(check_masks([np.zeros((2, 3, 4, 5))]), "no masks")
    only(check_masks([np.full((8, 8, 5), 7)]), "no masks")
    with pytest.raises(DataError, match="no masks"):
        check_masks([])
    with pytest.raises(InputError, match="masks are"):
        check_masks(np.zeros(3))


@pytest.mark.parametrize("how", ["jpeg", "bilinear"])
def test_lossy_masks_are_found_by_their_values(mask, how):
    logical = Image.fromarray(
        np.kron((mask == 1), np.ones((3, 3)))[3:, 2:].astype("uint8") * 255
    )  # off the blocks of JPEG
    if how == "jpeg":
        file = io.BytesIO()
        logical.save(file, "JPEG", quality=60)
        lossy = np.asarray(Image.open(file))
    else:
        lossy = np.asarray(logical.resize((171, 203), Image.Resampling.BICUBIC).rotate(7, Image.Resampling.BICUBIC))
    problem = only(check_masks(lossy), "many rare values")
    assert "nearest" in problem.fix
    assert not check_masks((lossy > 127).astype("uint8"), 2).problems
    many = np.zeros((200, 200), "uint16")  # small objects with a label each are no lossy mask
    for i in range(60):
        many[10 * (i // 8) + 3 : 10 * (i // 8) + 9, 20 * (i % 8) : 20 * (i % 8) + 12] = 70 + 3 * i
    assert "lossily" not in " ".join(kinds(check_masks(many)))


def test_files_are_checked_against_their_images(tmp_path, mask):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir(), masks.mkdir()
    for name, size in {"a": (40, 48), "b": (48, 40), "c": (40, 48), "lonely": (40, 48)}.items():
        Image.new("RGB", size).save(images / f"{name}.jpg")
    for name in ("a", "b_mask", "c", "orphan"):
        Image.fromarray(mask).save(masks / f"{name}.png")
    report = check_masks(masks, 3, images)
    found = {problem.what: problem.where for problem in report.problems}
    assert len(found) == 3 and not report.ok
    assert (
        "b_mask.png: mask 48x40, image 40x48 (turned by 90 degrees?)"
        in found["masks of another size than their images"][0]
    )
    assert found["images without a mask"] == (str(images / "lonely.jpg"),)
    assert found["masks without an image"] == (str(masks / "orphan.png"),)
    with pytest.raises(DataError, match="(?s)3 thing.*turned by 90.*to do"):
        report.raise_if_bad()
    assert pair([images / "a.jpg", images / "b.jpg"], [masks / "b_mask.png", masks / "c.png"]) == [
        images / "b.jpg",
        None,
    ]
    assert check_masks([mask, mask], 3, np.zeros((2, 48, 40, 3))).ok
    assert check_masks(mask, 3, np.zeros((48, 40, 3))).ok and check_masks(mask, 3, np.zeros((48, 40))).ok
    assert "mask 48x40, image 24x20" in only(check_masks([mask], 3, np.zeros((1, 24, 20, 3))), "another size").where[0]
    only(check_masks([mask, mask], 3, np.zeros((1, 48, 40, 3))), "without an image")
    (images / "a.jpg").write_bytes(b"broken")
    assert "images that cannot be read" in kinds(check_masks(masks, 3, images))
    with pytest.raises(InputError, match="both as files or both as arrays"):
        check_masks(masks, 3, np.zeros((4, 48, 40, 3)))


def test_names_that_recur_in_folders_are_told_apart_by_them(tmp_path):
    images = [tmp_path / part / "images" / "1.png" for part in ("train", "test")]
    masks = [tmp_path / part / "masks" / "1.png" for part in ("test", "train")]
    assert pair(images, masks) == images[::-1]


def test_unreadable_and_jpeg_files_are_listed_and_the_rest_is_looked_at(tmp_path, mask):
    Image.fromarray(mask).save(tmp_path / "good.png")
    Image.fromarray(mask).save(tmp_path / "lossy.jpg")
    (tmp_path / "empty.png").touch()
    report = check_masks(tmp_path, 3)
    assert [what.split(",")[0] for what in kinds(report)] == ["masks that cannot be read", "masks saved as JPEG"]
    assert report.masks == 3 and sum(report.pixels.values()) == mask.size
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="has no masks"):
        check_masks(tmp_path / "none")


# Class weights


def test_class_weights_follow_their_definitions(rng):
    from sklearn.utils.class_weight import compute_class_weight

    masks = [rng.choice(5, (13, 17), p=p) for p in ([0.5, 0.3, 0.1, 0, 0.1], [0.9, 0.0, 0.05, 0.04, 0.01])]
    every = np.concatenate([mask.ravel() for mask in masks])
    kept = every[every != 4]
    balanced = class_weights_from(masks, 4, ignore=4)
    np.testing.assert_allclose(balanced, compute_class_weight("balanced", classes=np.arange(4), y=kept), rtol=1e-6)
    inverse = class_weights_from(masks, 4, 4, "inverse")
    np.testing.assert_allclose(inverse, balanced / balanced.mean(), rtol=1e-6)
    frequency = [sum((m == c).sum() for m in masks) / sum(m.size for m in masks if (m == c).any()) for c in range(4)]
    np.testing.assert_allclose(
        class_weights_from(masks, 4, 4, "median_frequency"), np.median(frequency) / frequency, rtol=1e-6
    )
    hot = [np.eye(5)[mask] for mask in masks]
    np.testing.assert_allclose(class_weights_from(hot, 4, 4), balanced)


def test_class_weights_of_what_is_not_there(mask):
    with pytest.warns(UserWarning, match="no pixel of d"):
        weights = class_weights_from(mask, ["a", "b", "c", "d"])
    assert weights[3] == 0 and weights.dtype == np.float32 and np.isfinite(weights).all()
    with pytest.raises(DataError, match="id 2 .* is no class of 2 and not ignored"):
        class_weights_from([mask], 2)
    with pytest.raises(DataError, match="every pixel"):
        class_weights_from(np.zeros((4, 4), int), 2, ignore=0)
    with pytest.raises(DataError, match="mask 0 is one of the coloured"):
        class_weights_from([TRAFFIC.to_rgb(mask)], 3)
    assert np.array_equal(class_weights_from([TRAFFIC.to_rgb(mask)], 3, palette=TRAFFIC), class_weights_from([mask], 3))
    with pytest.raises(InputError, match="how is"):
        class_weights_from([mask], 3, how="sqrt")


def test_camvid_and_isbi_are_what_their_papers_say(shared, tmp_path):
    """CamVid's masks pass and its median frequency weights are near those of SegNet; ISBI's are logical.

    SegNet's: alexgkendall/SegNet-Tutorial, Models/segnet_train.prototxt. Its weight of SignSymbol, 9.6446, does not follow from these masks.
    """
    with zipfile.ZipFile(shared("data/camvid.zip")) as file:
        file.extractall(tmp_path, [name for name in file.namelist() if "train/" in name])
    with zipfile.ZipFile(shared("data/isbi2012.zip")) as file:
        file.extractall(tmp_path)
    camvid, isbi = tmp_path / "camvid" / "train", tmp_path / "isbi2012"
    assert not check_masks(camvid / "masks", CAMVID, camvid / "images", ignore=11).problems
    assert len(only(check_masks(camvid / "masks", CAMVID), "no class").where) == 367
    weights = class_weights_from(camvid / "masks", CAMVID, 11, "median_frequency")
    published = np.array([0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614])
    near = np.abs(np.log(weights / published)) < np.log(1.21)
    assert near.tolist() == [name != "SignSymbol" for name in CAMVID]
    assert len(only(check_masks(isbi / "masks", 2, isbi / "images"), "0 and 255").where) == 30
    assert not check_masks(isbi / "masks", 2, isbi / "images", Palette.binary()).problems


# Pictures


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_painting_mixes_image_and_colour(mask, rng):
    image = rng.integers(0, 256, (48, 40, 3)).astype("uint8")
    painted = plots.painted(image, mask, TRAFFIC, alpha=0.25, ignore=2, background=0)
    expected = np.where((mask == 1)[..., None], np.rint(image * 0.75 + np.array(TRAFFIC.colors[1]) * 0.25), image)
    expected = np.where((mask == 2)[..., None], np.rint(image * 0.75 + np.array(plots.IGNORED) * 0.25), expected)
    assert np.array_equal(painted, expected)
    assert np.array_equal(plots.painted(image, mask, TRAFFIC, alpha=1), TRAFFIC.to_rgb(mask))


def test_overlays_take_any_image_and_list_their_classes(mask, tmp_path):
    shares = [f"{name}  {(mask == i).mean():.1%}" for i, name in enumerate(TRAFFIC.names)]
    for shape, dtype in {
        (48, 40): "uint8",
        (48, 40, 1): "uint16",
        (48, 40, 2): "float32",
        (48, 40, 7): "uint8",
    }.items():
        figure = plots.overlay(np.ones(shape, dtype), mask, TRAFFIC, title="a street", save=tmp_path / "overlay.png")
        assert [text.get_text() for text in figure.legends[0].get_texts()] == shares and "a street" in texts(figure)
        with Image.open(tmp_path / "overlay.png") as image:
            assert image.size[0] > 400
    ignored = texts(plots.overlay(np.ones(shape, dtype), np.where(mask == 2, 255, mask), ignore=255))
    assert f"ignored  {(mask == 2).mean():.1%}" in ignored


def test_large_overlays_are_thinned_out_and_long_legends_cut():
    mask = np.arange(4000)[:, None] // 100 + np.zeros((1, 100), int)
    figure = plots.overlay(np.zeros(mask.shape), mask)
    assert max(figure.axes[0].images[0].get_array().shape) <= plots.LARGEST
    assert "and 9 more" in texts(figure)


def test_side_by_side_marks_the_errors(mask, rng, tmp_path):
    image = rng.integers(0, 256, (48, 40, 3)).astype("uint8")
    predicted = mask.copy()
    predicted[:8, :8] = (mask[0, 0] + 1) % 3
    truth = np.where(np.arange(48)[:, None] < 4, 255, mask)
    figure = plots.side_by_side(
        [image, image], [predicted, mask], [truth, truth], TRAFFIC, ignore=255, save=tmp_path / "s.png"
    )
    assert [axes.get_title() for axes in figure.axes[:4]] == ["image", "truth", "prediction", "errors"]
    wrong = (figure.axes[3].images[0].get_array() == np.array([193, 18, 31])).all(-1)
    assert np.array_equal(wrong, (predicted != truth) & (truth != 255)) and wrong.sum() == 32
    judged = truth != 255
    iou = []
    for i in range(3):
        t, p = (truth == i)[judged], (predicted == i)[judged]
        iou.append((t & p).sum() / (t | p).sum())
    assert figure.axes[2].get_xlabel() == f"{1 - 32 / judged.sum():.1%} of pixels right, mean IoU {np.mean(iou):.2f}"
    assert figure.axes[6].get_xlabel() == "100.0% of pixels right, mean IoU 1.00"
    single = plots.side_by_side(image, mask, titles=["one"])
    assert [axes.get_title() for axes in single.axes] == ["image", "mask"] and "one" in texts(single)


def test_bars_show_each_class_and_the_mean(tmp_path):
    figure = plots.iou_bars([0.5, 0.9, np.nan, 0.1], ["a", "b", "c", "d"], save=tmp_path / "bars.png")
    bars = [bar.get_width() for bar in figure.axes[0].patches]
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert list(zip(names, bars)) == [("c", 0), ("d", 0.1), ("a", 0.5), ("b", 0.9)]
    assert "does not occur" in texts(figure) and "mean 0.500" in figure.axes[0].get_title()
    for values in ([], [2.0], [np.nan], [[0.5]]):
        with pytest.raises(InputError, match="IoU of each class"):
            plots.iou_bars(values)
    with pytest.raises(InputError, match="1 values and 2 names"):
        plots.iou_bars([0.5], ["a", "b"])


def test_pictures_of_what_does_not_fit_are_refused(mask):
    image = np.zeros((48, 40, 3))
    with pytest.raises(InputError, match="mask is 48x40 and its image 40x48"):
        plots.overlay(image.swapaxes(0, 1), mask)
    with pytest.raises(InputError, match="no colour for id 2"):
        plots.overlay(image, mask, Palette.of(2))
    with pytest.raises(InputError, match="argmax"):
        plots.overlay(image, np.eye(3)[mask])
    with pytest.raises(InputError, match="alpha"):
        plots.overlay(image, mask, alpha=50)
    with pytest.raises(InputError, match="2 images, 1 predictions"):
        plots.side_by_side([image, image], [mask])
    with pytest.raises(InputError, match="at least one"):
        plots.side_by_side([], [])
    with pytest.raises(InputError, match="image 0 is 48x40 and its mask 24x40"):
        plots.side_by_side([image], [mask[:24]])
