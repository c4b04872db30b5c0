"""Writing files so that nothing is ever half-written: aside first, renamed when whole."""

import errno
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from cnn_zoo.errors import StorageError

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, or choose a folder on another disk",
    errno.EDQUOT: "your disk quota is used up: free some space, or choose a folder on another disk",
    errno.EACCES: "you may not write there: choose another folder, or change its permissions",
    errno.EPERM: "you may not write there: choose another folder, or change its permissions",
    errno.EROFS: "that file system is read-only: choose another folder",
    errno.ENOTDIR: "a part of that path is a file, not a folder: choose another path",
}


def storage_error(error: OSError, path) -> StorageError:
    """The `StorageError` for an `OSError` met while writing `path`."""
    reason = _REMEDIES.get(error.errno, f"{error.strerror or error}: choose another path")
    return StorageError(f"cannot write {str(path)!r}: {reason}")


def make_folder(path) -> Path:
    """Make `path` and its parents, and return it.

    Raises:
        StorageError: It cannot be made, or a file of that name is in the way.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StorageError(f"cannot make the folder {str(path)!r}: a file of that name is in the way") from error
    except OSError as error:
        raise storage_error(error, path) from error
    return path


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; on success it takes the place of `path`, on any failure it is removed.

    The body may write a file or make a directory at the yielded path. A file is flushed to the disk before the rename, so a
    crash leaves either the old file or the new one, whole. The yielded name keeps the suffix of `path`, since Keras chooses formats by it.

    Raises:
        StorageError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    folder = make_folder(path.parent)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=folder))
    except OSError as error:
        raise storage_error(error, path) from error
    aside = scratch / path.name
    try:
        yield aside
        if aside.is_file():
            with open(aside, "rb") as handle:
                os.fsync(handle.fileno())
        if path.is_dir():  # os.replace cannot put anything over a folder that has files in it
            os.replace(path, scratch / "replaced")
        os.replace(aside, path)
    except OSError as error:
        if isinstance(error, StorageError) or error.errno not in _REMEDIES:
            raise
        raise storage_error(error, path) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def digest(path, algorithm: str = "sha256") -> str:
    """The hash of a file, in hexadecimal, by any algorithm of `hashlib`."""
    with open(path, "rb") as handle:
        state = hashlib.new(algorithm, usedforsecurity=False)
        while block := handle.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def sha256(path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return digest(path)
