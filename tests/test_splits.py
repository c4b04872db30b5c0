"""Splits: nothing leaks, every class is there, and a split that was saved comes back or says why not."""

import json

import numpy as np
import pytest

from cnn_zoo import Data, DataError, InputError
from cnn_zoo.data import k_fold, save_split, split_by_time, suggest_groups, use_split
from cnn_zoo.data.arraylike import Joined
from cnn_zoo.data.splits import by_group, by_time, group_names


def made(count=24, groups=None, names=True):
    images = np.arange(count, dtype="uint8")[:, None, None, None] * np.ones((1, 2, 2, 1), "uint8")
    names = [f"i{i}" for i in range(count)] if names else None
    return Data.from_arrays(images, np.arange(count) % 2, groups=groups, names=names)


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["C33P1thinF_I_15_1a_cell_12.png", "C33P1thinF_I_2_cell_1.png", "C9P2_cell_4.png", "C9P2_cell_5.png"], ["C33P1thinF"] * 2 + ["C9P2"] * 2),
        (["ParasitizedC1P1_cell_2.png", "C1P1_cell_1.png", "C2P3_cell_7.png"] * 2, ["C1P1", "C1P1", "C2P3"] * 2),
        (["patient_1_slice_1.png", "patient_1_slice_2.png", "patient_2_slice_1.png", "patient_2_slice_2.png"], ["patient_1"] * 2 + ["patient_2"] * 2),
        (["a/0001TP_008550.jpg", "a/0001TP_008580.jpg", "b/0016E5_00390.jpg", "b/0016E5_00420.jpg"], ["0001TP"] * 2 + ["0016E5"] * 2),
        (["cat_001.png", "cat_002.png", "dog_001.png"], None),
        (["img_0001.png", "img_0002.png", "img_0003.png"], None),
        (["0001.png", "0002.png"], None),
        (["1030023514_aad5c608f9.jpg", "1095476100_3906d8afde.jpg", "116570827_e9c126745d.jpg"], None),
        ([], None),
    ],
)  # fmt: skip
def test_names_that_look_grouped(names, groups):
    found = suggest_groups(names)
    assert (found if found is None else found.tolist()) == groups


def test_malaria_patients(shared):
    """200 patients (Rajaraman et al. 2018), one of them under two names."""
    with np.load(shared("data/malaria.npz")) as arrays:
        names, labels = arrays["file_names"], arrays["parasitized"]
    groups = suggest_groups(names)
    assert len(set(groups.tolist())) == 201
    by_name = dict(zip(names.tolist(), groups.tolist()))
    assert by_name["C100P61ThinF_IMG_20150918_144104_cell_162.png"] == "C100P61ThinF"
    assert not any(group.startswith("Parasitized") for group in by_name.values())
    rest, held = by_group(groups, 0.2, 0, labels)
    assert not set(groups[rest].tolist()) & set(groups[held].tolist()) and len(rest) + len(held) == len(names)
    assert abs(len(held) / len(names) - 0.2) < 0.02 and abs(labels[held].mean() - labels.mean()) < 0.05


def test_rules_for_groups():
    names = ["cats/P1_a.png", "dogs/P2_b.png"]
    assert group_names(names, r"^(P\d)").tolist() == ["P1", "P2"]
    assert group_names(names, dict(zip(names, "xy"))).tolist() == ["x", "y"]
    assert group_names(names, [7, 7]).tolist() == ["7", "7"]
    with pytest.raises(DataError, match=r"1 image\(s\) have no group: 'dogs/P2_b.png'"):
        group_names(names, r"^(P1)")
    with pytest.raises(InputError, match="no regular expression"):
        group_names(names, "(")
    with pytest.raises(InputError, match="needs parentheses"):
        group_names(names, "P")
    with pytest.raises(InputError, match="2 images and 1 groups"):
        group_names(names, ["a"])
    with pytest.raises(DataError, match="do not look grouped"):
        group_names(["a.png", "b.png"], "names")


def test_groups_stay_together_in_every_split():
    groups = np.arange(24) // 3
    data = made(groups=groups).hold_out(test=0.25, validation=0.3, seed=4)
    parts = [set(split.groups) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == 8 == len(set.union(*parts))
    assert sum(map(len, (data.train, data.validation, data.test))) == 24
    assert data.describe()["test"]["groups"] == len(parts[2])
    with pytest.raises(DataError, match="there is 1 group"):
        made(groups=np.zeros(24)).hold_out(test=0.5)
    with pytest.raises(DataError, match="no choice of 1 of the 2 groups leaves every class"):
        made(groups=np.arange(24) % 2).hold_out(test=0.5)
    with pytest.raises(DataError, match="one group an image"):
        made(groups=[1, 2])


def test_a_group_split_comes_near_the_fraction_in_every_class(rng):
    groups = np.repeat(np.arange(40), rng.integers(1, 30, 40))
    labels = (rng.random(len(groups)) < (groups % 5) / 5).astype(int)
    _, held = by_group(groups, 0.3, 1, labels)
    assert abs(len(held) / len(groups) - 0.3) < 0.05
    assert all(abs((labels[held] == c).sum() / (labels == c).sum() - 0.3) < 0.07 for c in (0, 1))
    assert np.array_equal(held, by_group(groups, 0.3, 1, labels)[1])
    assert not np.array_equal(held, by_group(groups, 0.3, 2, labels)[1])


def test_by_time():
    times = np.array(["2024-01-02", "2024-03-01", "2024-02-01", "2024-03-01", "2023-12-31"])
    rest, held = by_time(times, 0.4)
    assert rest.tolist() == [0, 2, 4] and held.tolist() == [1, 3]
    assert by_time(times, 0.2)[1].tolist() == [1, 3]  # one moment is not taken apart
    with pytest.raises(DataError, match="all images have the same time"):
        by_time([1, 1], 0.5)
    with pytest.raises(DataError, match="between 0 and 1"):
        by_time([1, 2], 1.5)
    data = split_by_time(made(), np.arange(24)[::-1], test=0.25, validation=1 / 3)
    assert data.test.names.tolist() == [f"i{i}" for i in range(6)]
    assert data.validation.names.tolist() == [f"i{i}" for i in range(6, 12)]
    with pytest.raises(InputError, match="24 training images and times of shape"):
        split_by_time(made(), [1, 2], test=0.5)


def test_k_fold():
    data = made().hold_out(test=0.25, validation=0.2)
    parts = list(k_fold(data, 3, seed=2))
    seen = np.concatenate([part.validation.names for part in parts])
    assert len(parts) == 3 and len(seen) == len(set(seen)) == 18
    for part in parts:
        assert part.test is data.test and not set(part.train.names) & set(part.validation.names)
        assert np.bincount(part.validation.labels).tolist() == [3, 3]
    assert [p.validation.names.tolist() for p in k_fold(data, 3, seed=2)] == [
        p.validation.names.tolist() for p in parts
    ]
    alone = list(k_fold(made(), 24))
    assert [part.validation.names.tolist() for part in alone] == [[f"i{i}"] for i in range(24)]
    for part in k_fold(made(groups=np.arange(24) // 4), 3):
        assert not set(part.train.groups) & set(part.validation.groups)
    masks = Data.from_arrays(np.zeros((6, 4, 4), "uint8"), np.zeros((6, 4, 4), int), classes=["a", "b"])
    assert [len(part.validation) for part in k_fold(masks, 3)] == [2, 2, 2]
    for folds in (1, 2.5, 25):
        with pytest.raises(InputError, match="from 2 to the number of images, 24"):
            next(k_fold(made(), folds))
    with pytest.raises(InputError, match="rarest class has 12 images: 13 folds"):
        next(k_fold(made(), 13))


def test_saved_splits_come_back(tmp_path):
    data = made().hold_out(test=0.25, validation=0.25, seed=1)
    path = save_split(data, tmp_path / "split.json")
    again = use_split(made().hold_out(test=0.5, seed=9), path)
    for part in ("train", "validation", "test"):
        one, two = getattr(data, part), getattr(again, part)
        assert sorted(one.names) == sorted(two.names)
        order = [two.names.tolist().index(name) for name in one.names]
        assert np.array_equal(two.images[order], one.images) and np.array_equal(two.labels[order], one.labels)
    kept = json.loads(path.read_text())
    kept["files"]["gone"] = {"part": "train", "sha256": "0"}
    kept["files"]["i3"]["sha256"] = "0"
    del kept["files"]["i5"]
    path.write_text(json.dumps(kept))
    with pytest.raises(
        DataError, match=r"1 are new \('i5'\); 1 are missing \('gone'\); 1 have another content or label \('i3'\)"
    ):
        use_split(made(), path)
    path.write_text("{}")
    with pytest.raises(DataError, match="no file of save_split"):
        use_split(made(), path)
    with pytest.raises(DataError, match="cannot read the split"):
        use_split(made(), tmp_path / "none.json")
    with pytest.raises(DataError, match="these have none: Data.from_arrays"):
        save_split(made(names=False), path)


def test_a_saved_split_of_files_notices_a_changed_file(tmp_path, rng):
    from PIL import Image

    from cnn_zoo.data import from_folder

    for i in range(12):
        (tmp_path / "d" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 4)).astype("uint8")).save(tmp_path / "d" / "ab"[i % 2] / f"{i}.png")
    data = from_folder(tmp_path / "d", test=0.34)
    path = save_split(data, tmp_path / "split.json")
    back = use_split(data.split(0.25, seed=3), path)  # of lazy parts put together again
    assert sorted(back.test.names) == sorted(data.test.names) and back.validation is None
    i = back.train.names.tolist().index(data.train.names[0])
    assert isinstance(back.train.images, Joined) and np.array_equal(back.train.images[i], data.train.images[0])
    assert back.train.images.describe()["sha256"] != back.train.images.take(slice(None, None, -1)).describe()["sha256"]
    Image.fromarray(np.zeros((4, 4), "uint8")).save(tmp_path / "d" / data.test.names[0])
    with pytest.raises(DataError, match=f"1 have another content or label \\('{data.test.names[0]}'\\)"):
        use_split(from_folder(tmp_path / "d"), path)


def test_joined_arrays_are_one(rng):
    one, two = rng.integers(0, 9, (4, 3)), rng.integers(0, 9, (5, 3))
    whole, joined = np.concatenate([one, two]), Joined([one, two])
    for index in (0, -1, 5, slice(None), slice(2, 7, 2), [8, 0, 4, 4], np.arange(9) % 2 == 0, []):
        assert np.array_equal(joined[index], whole[index])
    assert joined.shape == (9, 3) and joined.ndim == 2
    assert np.array_equal(joined.take([7, 1])[:], whole[[7, 1]])
    assert np.array_equal(Joined([joined, one])[[10, 3]], np.concatenate([whole, one])[[10, 3]])
    for bad in (9, [0, 9]):
        with pytest.raises(IndexError):
            joined[bad]
    with pytest.raises(InputError, match="cannot be joined"):
        Joined([one, np.zeros((2, 4))])
