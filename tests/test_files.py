"""Files appear whole or not at all."""

import errno
import os

import pytest

from cnn_zoo import StorageError
from cnn_zoo.files import make_folder, replacing


def full_disk():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_takes_the_place_of_the_old_one(tmp_path):
    target = tmp_path / "new folder" / "a.txt"
    for text in ("one", "two"):
        with replacing(target) as aside:
            assert aside.name == "a.txt" and not aside.exists()
            aside.write_text(text)
        assert target.read_text() == text
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    for text in ("one", "two"):
        with replacing(tmp_path / "folder") as aside:
            aside.mkdir()
            (aside / text).touch()
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("error", [full_disk, lambda: 1 / 0, lambda: [][0]])
def test_on_failure_the_old_file_stands_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(StorageError if error is full_disk else (ZeroDivisionError, IndexError)) as raised:
        with replacing(target) as aside:
            aside.write_text("half")
            error()
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    if error is full_disk:
        assert "the disk is full: free some space" in str(raised.value)


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(StorageError, match="a file of that name is in the way"):
        make_folder(tmp_path / "a")
    with pytest.raises(StorageError, match="a part of that path is a file"):
        make_folder(tmp_path / "a" / "b")
