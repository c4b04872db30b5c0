"""The data report: what is put wrong into a data set is found, named and drawn."""

import json
import re

import cv2
import numpy as np
import pytest
import typer
from scipy.spatial.distance import pdist, squareform
from typer.testing import CliRunner

from cnn_zoo.commands.data_report import report as command
from cnn_zoo.data import Data
from cnn_zoo.data_report import data_report, duplicates
from cnn_zoo.data_report.findings import robust_z
from cnn_zoo.errors import DataError, InputError


def kinds(report):
    return {found.kind: found for found in report.findings}


def files(finding):
    return {name for place in finding.where for name in place.files}


def picture(rng, side=48):
    """Smooth noise, in colour: no two are alike."""
    coarse = rng.integers(0, 256, (6, 6, 3)).astype("uint8")
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def folder(tmp_path, rng):
    """Two classes in two parts with nothing wrong."""
    for part, count in (("train", 12), ("test", 10)):
        for label in ("ants", "bees"):
            for i in range(count):
                save(tmp_path / "set" / part / label / f"{label}{i}.png", picture(rng))
    return tmp_path / "set"


def test_nothing_is_found_where_nothing_is_wrong(folder):
    report = data_report(folder, progress=False)
    assert not report.serious and [f.kind for f in report.findings if f.severity != "note"] == []
    assert report.facts["classes"] == {"ants": {"test": 10, "train": 12}, "bees": {"test": 10, "train": 12}}
    assert report.facts["imbalance"] == 1 and report.facts["sizes"] == {"48x48": 44}
    assert all(abs(sum(shares) - 1) < 1e-4 for shares in report.facts["histograms"]["classes"].values())


def test_each_fault_is_found_and_named(folder, rng):
    first = folder / "train/ants/ants0.png"
    (folder / "test/ants/copy.png").write_bytes(first.read_bytes())
    (folder / "train/bees/wrong.png").write_bytes((folder / "train/ants/ants1.png").read_bytes())
    save(folder / "train/ants/again.jpg", cv2.imread(str(folder / "train/ants/ants2.png")))
    (folder / "train/ants/ants3.png").write_bytes((folder / "train/ants/ants3.png").read_bytes()[:90])
    (folder / "train/ants/ants4.png").write_bytes(b"")
    (folder / "train/ants/notes.txt").write_text("?")
    save(folder / "train/ants/flat.png", np.full((48, 48, 3), 7, "uint8"))
    save(folder / "test/wasps/one.png", picture(rng, 400))
    report = data_report(folder, progress=False)
    found = kinds(report)
    assert report.serious
    assert files(found["duplicates_across_splits"]) == {"train/ants/ants0.png", "test/ants/copy.png"}
    assert files(found["duplicates_across_classes"]) == {"train/ants/ants1.png", "train/bees/wrong.png"}
    assert files(found["near_duplicates"]) == {"train/ants/ants2.png", "train/ants/again.jpg"}
    assert files(found["unreadable"]) == {"train/ants/ants3.png"} and "damaged" in str(found["unreadable"])
    assert files(found["empty_file"]) == {"train/ants/ants4.png"}
    assert "notes.txt" in str(found["folder"])
    assert files(found["flat"]) == {"train/ants/flat.png"}
    assert "wasps" in found["class_missing"].what and "wasps: 1" in str(found["rare_class"])
    sized = [f for f in report.findings if f.kind == "outliers" and "size" in f.what]
    assert files(sized[0]) == {"test/wasps/one.png"}
    assert [f.severity for f in report.findings] == sorted(
        (f.severity for f in report.findings), key=["error", "warning", "note"].index
    )


def test_where_all_images_look_alike_near_duplicates_are_no_alarm(tmp_path, rng):
    y, x = np.mgrid[:48, :48]
    for label in ("ants", "bees"):
        for i in range(20):  # round cells, with noise of their own
            disc = 200 * (np.hypot(y - 24, x - 24) < 12) + rng.integers(0, 8, (48, 48))
            save(tmp_path / label / f"{label}{i}.png", disc.astype("uint8"))
    found = kinds(data_report(tmp_path, progress=False))["near_duplicates_across_classes"]
    assert found.severity == "note" and "just look so" in found.what


def test_the_page_is_one_file_and_the_json_says_the_same(folder, tmp_path):
    (folder / "train/ants/<b>&.png").write_bytes((folder / "train/ants/ants0.png").read_bytes())
    report = data_report(folder, out=tmp_path / "r.html", progress=False)
    text = (tmp_path / "r.html").read_text()
    assert (
        not re.search(r"(src|href)=\"(?!data:image/png;base64,)", text) and "<script" not in text and "http" not in text
    )
    assert "&lt;b&gt;&amp;.png" in text and "<b>&.png" not in text
    assert text.count("<img") >= 24 and "the same pixels" in text
    data_report(folder, out=tmp_path / "r.json", progress=False)
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(report.to_dict()))


def test_groups_in_names_leak_across_parts(tmp_path, rng):
    for part, patients in (("train", "123"), ("val", "34")):
        for label in ("sick", "well"):
            for patient in patients:
                for i in range(4):
                    save(tmp_path / part / label / f"P{patient}_{label}_cell_{i}.png", picture(rng))
    leak = kinds(data_report(tmp_path, progress=False))["group_leakage"]
    assert leak.severity == "error" and [place.detail for place in leak.where] == ["P3, 8 train, 8 validation"]
    assert "group_leakage" not in kinds(data_report(tmp_path, groups=False, progress=False))
    assert "group_leakage" in kinds(data_report(tmp_path, groups=r"(P\d)", progress=False))


def test_masks_are_checked(tmp_path, rng):
    for i in range(4):
        save(tmp_path / "images" / f"{i}.png", picture(rng))
        mask = np.zeros((48, 48), "uint8")
        mask[: 10 * i] = 255
        save(tmp_path / "masks" / f"{i}.png", mask)
    save(tmp_path / "images" / "5.png", picture(rng))
    report = data_report(tmp_path, out=tmp_path / "r.html", progress=False)
    said = [f.what for f in report.findings if f.kind == "mask" and f.severity == "error"]
    assert any("0 and 255" in what for what in said) and any("without a mask" in what for what in said)
    assert files(kinds(report)["one_id_masks"]) == {"images/0.png"}
    both = data_report(tmp_path / "images", masks=tmp_path / "masks", progress=False)
    assert [f.what for f in both.findings] == [f.what for f in report.findings]


def test_exif_orientation(tmp_path, rng):
    from PIL import Image

    for i in range(3):
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 1 else 1
        Image.fromarray(picture(rng)[:32]).save(tmp_path / f"{i}.jpg", exif=exif)
    report = data_report(tmp_path, progress=False)
    assert files(kinds(report)["exif_orientation"]) == {"1.jpg"}
    assert report.facts["sizes"] == {"32x48": 2, "48x32": 1}


def test_arrays_and_values(rng):
    images = np.stack([picture(rng) for _ in range(12)])
    assert kinds(data_report(images.astype("uint16") * 5 + 33000, progress=False))["narrow_range"].severity == "warning"
    floats = images.astype("float32")
    floats[3, 0, 0] = np.nan
    floats[4, 0, 0] = 300
    found = kinds(data_report(floats, labels=[0, 1] * 6, progress=False))
    assert files(found["not_finite"]) == {"image 3"} and files(found["outside"]) == {"image 4"}
    gray = np.repeat(images[..., :1], 3, axis=-1)
    assert "all colour images are gray" in kinds(data_report(gray, progress=False))["gray_as_color"].what


def test_data_with_groups(rng):
    images = np.stack([picture(rng) for _ in range(24)])
    data = Data.from_arrays(images, [0, 1] * 12, groups=np.arange(24) // 4, test=0.3)
    report = data_report(data, progress=False)
    assert "group_leakage" not in kinds(report) and report.facts["groups"] == 6
    masks = (images[..., 0] > 127).astype("uint8")
    report = data_report(Data.from_arrays(images, masks, classes=["a", "b", "c"]), progress=False)
    assert any("occur in no mask" in f.what for f in report.findings)


def test_a_property_of_the_files_that_tells_the_class(tmp_path, rng):
    for i in range(25):
        save(tmp_path / "a" / f"a{i}.png", picture(rng))
        save(tmp_path / "b" / f"b{i}.bmp", picture(rng))
    found = kinds(data_report(tmp_path, progress=False))["shortcut"]
    assert "file format tells the class of 100%" in found.what


def test_perceptual_hash_against_a_cosine_matrix(rng):
    small = rng.normal(size=(5, 32, 32))
    n = np.arange(32)
    cosine = np.sqrt(2 / 32) * np.cos(np.pi * (2 * n + 1) * n[:, None] / 64)
    cosine[0] /= np.sqrt(2)
    for image, found in zip(small, duplicates.phash(small)):
        low = (cosine @ image @ cosine.T)[:8, :8].ravel()
        bits = low > np.median(low[1:])
        assert found == sum(1 << k for k in range(1, 64) if bits[k])


@pytest.mark.parametrize("bits", [0, 3, 6, 16])
def test_close_hashes_are_those_of_all_pairs(rng, bits):
    centre = rng.integers(0, 2, (20, 64))
    rows = np.concatenate([centre ^ (rng.random((20, 64)) < p) for p in (0, 0, 0.03, 0.1, 0.2)])
    hashes = np.packbits(rows, axis=1, bitorder="little").view("<u8")[:, 0].astype("uint64")
    found = {tuple(sorted(p)) for a, b in duplicates.close(hashes, bits) for p in zip(a.tolist(), b.tolist())}
    apart = squareform(pdist(rows, "hamming") * 64).round().astype(int)
    assert found == {(i, j) for i in range(len(rows)) for j in range(i) if apart[i, j] <= bits} or found == {
        (j, i) for i in range(len(rows)) for j in range(i) if apart[i, j] <= bits
    }


def test_robust_z():
    assert robust_z([1, 2, 3, 4, 100])[-1] == pytest.approx(97 / 1.4826)
    assert robust_z([5] * 99 + [6])[-1] == pytest.approx(1 / (1.2533 * 0.01))
    assert not robust_z([5, 5, 5]).any()


def test_command(folder):
    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, [str(folder)]).exit_code == 0
    (folder / "train/ants/ants4.png").write_bytes(b"")
    done = CliRunner().invoke(app, [str(folder), "--json"])
    assert done.exit_code == 1 and json.loads(done.stdout)["findings"][0]["kind"] == "empty_file"


def test_wrong_input(tmp_path):
    with pytest.raises(DataError, match="not there"):
        data_report(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no images"):
        data_report(tmp_path)
    with pytest.raises(InputError, match="0..16"):
        data_report(tmp_path, near=17)
    with pytest.raises(InputError, match=".html or .json"):
        data_report(tmp_path, out="report.pdf")
    with pytest.raises(InputError, match="a folder, a Data, or an array"):
        data_report([1, 2])


@pytest.mark.slow
def test_malaria_names_are_grouped(shared):
    with np.load(shared("data/malaria.npz")) as file:
        arrays = {key: file[key] for key in file.files}
    report = data_report(arrays["images"], labels=arrays["parasitized"], names=arrays["file_names"], progress=False)
    assert "201 sources" in kinds(report)["grouped_names"].what and report.facts["imbalance"] == 1
