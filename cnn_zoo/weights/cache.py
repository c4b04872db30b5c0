"""Where weight files are kept, and how they get there.

The folder is `CNN_ZOO_CACHE`, else `~/.cache/cnn_zoo`. A file is downloaded beside its place, checked, and only then renamed: what is in
the cache is whole. An interrupted download goes on where it stopped.
"""

import os
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException
from importlib import resources
from pathlib import Path

from cnn_zoo.errors import StorageError, WeightsError
from cnn_zoo.files import make_folder, sha256, storage_error
from cnn_zoo.registry import Weights

TIMEOUT = 30  # seconds without a byte before a server is given up
CHUNK = 1 << 18


def cache_dir() -> Path:
    """The folder of downloaded weights: `CNN_ZOO_CACHE`, else `~/.cache/cnn_zoo`."""
    return Path(os.environ.get("CNN_ZOO_CACHE") or Path.home() / ".cache" / "cnn_zoo").expanduser()


def place(record: Weights) -> Path:
    """Where the file of a record belongs: in the cache, in the installed package, or where the record says."""
    if record.urls:
        return cache_dir() / record.net / record.file
    path = Path(record.file)
    return path if path.is_absolute() else Path(str(resources.files("cnn_zoo_weights"))) / path


def is_here(record: Weights) -> bool:
    """Whether the file of a record is on this machine already."""
    return place(record).is_file()


def locate(record: Weights) -> Path:
    """The file of a record, its hash checked: from the installed package, a path, the cache, or (then cached) the network.

    Raises:
        WeightsError: It is damaged, or cannot be had; the message says what was tried and how to do it by hand.
        StorageError: The cache cannot be written.
    """
    path = place(record)
    remedy = "get the file again, or install cnn-zoo again if it came with it"
    if record.urls:
        if not path.is_file():
            return download(record, path)
        remedy = f"delete {str(path)!r} and try again"
    if not path.is_file():
        raise WeightsError(f"the weights {record.net}:{record.tag} are not at {str(path)!r}: {remedy}")
    if (found := sha256(path)) != record.sha256:
        raise WeightsError(
            f"{str(path)!r} is damaged or not what it should be: its sha256 is {found[:12]}..., "
            f"that of {record.net}:{record.tag} is {record.sha256[:12]}...; {remedy}"
        )
    return path


def download(record: Weights, path=None, *, progress: bool = True) -> Path:
    """Fetch the file of a record from its addresses, the first that works, into its place in the cache.

    A part that an earlier, interrupted call left is continued. The file appears under its name only when its hash is right.

    Args:
        record: Which weights.
        path: Where to; default: its place in the cache.
        progress: Show a progress bar.

    Raises:
        WeightsError: No address works; the message names each with its reason, and where to put the file by hand.
        StorageError: The disk is full or the folder cannot be written.
    """
    path = Path(path or place(record))
    part = make_folder(path.parent) / f"{path.name}.part"
    failures = []
    for url in record.urls:
        try:
            _fetch(url, part, record, progress)
        except StorageError:
            raise
        except (OSError, HTTPException, ValueError) as error:
            failures.append(f"{url}: {error}")
            continue
        if (found := sha256(part)) == record.sha256:
            os.replace(part, path)
            return path
        part.unlink()
        failures.append(f"{url}: wrong file (sha256 {found[:12]}... instead of {record.sha256[:12]}...)")
    raise WeightsError(
        f"cannot get the weights {record.net}:{record.tag}; tried {'; '.join(failures)}. "
        f"If this machine is offline, copy the file from another one to {str(path)!r}, "
        "or name a folder that has it in CNN_ZOO_CACHE"
    )


def _fetch(url, part, record, progress):
    have = part.stat().st_size if part.exists() else 0
    if have > record.bytes:
        part.unlink()
        have = 0
    if have == record.bytes:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if have and answer.status != 206:  # the server cannot continue a part: it sends the whole file
            have = 0
        free = shutil.disk_usage(part.parent).free
        if free < record.bytes - have:
            raise StorageError(
                f"{str(part.parent)!r} has {free:,} bytes free and {record.net}:{record.tag} needs {record.bytes - have:,} more: "
                "free some space, or name another folder in CNN_ZOO_CACHE"
            )
        with open(part, "ab" if have else "wb") as file, _bar(record, have, progress) as bar:
            while block := answer.read(CHUNK):
                try:
                    file.write(block)
                    file.flush()
                except OSError as error:
                    raise storage_error(error, part) from error
                bar.update(len(block))
    if (size := part.stat().st_size) < record.bytes:
        raise ValueError(f"the connection ended after {size:,} of {record.bytes:,} bytes")


def _bar(record, have, progress):
    from tqdm import tqdm

    title = f"{record.net}:{record.tag}"
    return tqdm(total=record.bytes, initial=have, unit="B", unit_scale=True, desc=title, disable=not progress)
