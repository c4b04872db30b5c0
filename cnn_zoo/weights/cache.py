"""Where weight files are kept, and how they get there.

The folder is `CNN_ZOO_CACHE`, else `~/.cache/cnn_zoo`. A file is downloaded beside its place, checked, and only then renamed: what is in
the cache is whole. An interrupted download goes on where it stopped.
"""

import base64
import os
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException
from importlib import resources
from pathlib import Path

from cnn_zoo.errors import StorageError, WeightsError
from cnn_zoo.files import digest, make_folder, replacing, storage_error
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


def stated_hash(record: Weights) -> str | None:
    """The hash that the file of a record must have, such as `sha256:ab12...`; None while only the server knows it."""
    if record.hash not in SERVERS:
        return record.hash
    note = _note(place(record))
    return note.read_text().strip() if note.is_file() else None


def difference(path, stated: str) -> str | None:
    """How a file differs from what its publisher states, in words; None where it does not."""
    algorithm, _, digits = stated.partition(":")
    found = digest(path, algorithm)
    return None if found.startswith(digits) else f"its {algorithm} is {found[:12]}... instead of {digits[:12]}..."


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
            return download(record)
        remedy = f"delete {str(path)!r} and try again"
    if not path.is_file():
        raise WeightsError(f"the weights {record.net}:{record.tag} are not at {str(path)!r}: {remedy}")
    stated = stated_hash(
        record
    )  # None for a file that was copied here by hand: its names and shapes are checked all the same
    if stated and (problem := difference(path, stated)):
        raise WeightsError(f"{str(path)!r} is damaged, or not {record.net}:{record.tag}: {problem}; {remedy}")
    return path


def download(record: Weights, *, progress: bool = True) -> Path:
    """Fetch the file of a record from its addresses, the first that works, into its place in the cache.

    A part that an earlier, interrupted call left is continued. The file appears under its name only when its hash is right.

    Args:
        record: Which weights.
        progress: Show a progress bar.

    Raises:
        WeightsError: No address works; the message names each with its reason, and where to put the file by hand.
        StorageError: The disk is full or the folder cannot be written.
    """
    path = place(record)
    part = make_folder(path.parent) / f"{path.name}.part"
    failures = []
    for url in record.urls:
        try:
            stated = _fetch(url, part, record, progress)
        except StorageError:
            raise
        except (OSError, HTTPException, ValueError) as error:
            failures.append(f"{url}: {error}")
            continue
        if problem := difference(part, stated):
            part.unlink()
            failures.append(f"{url}: wrong file ({problem})")
            continue
        if record.hash in SERVERS:
            with replacing(_note(path)) as aside:
                aside.write_text(stated)
        os.replace(part, path)
        return path
    raise WeightsError(
        f"cannot get the weights {record.net}:{record.tag}; tried {'; '.join(failures)}. "
        f"If this machine is offline, copy the file from another one to {str(path)!r}, "
        "or name a folder that has it in CNN_ZOO_CACHE"
    )


def _note(path):
    return path.with_name(f"{path.name}.hash")  # beside a file whose hash only its server states


def _hub_hash(headers):
    """Hugging Face states the SHA-256 with its redirect to the file."""
    etag = headers.get("X-Linked-Etag")
    return f"sha256:{etag.strip(chr(34))}" if etag else None


def _google_hash(headers):
    """Google Cloud Storage states CRC32C and MD5, in base 64."""
    for value in ",".join(headers.get_all("x-goog-hash") or []).split(","):
        if value.strip().startswith("md5="):
            return f"md5:{base64.b64decode(value.strip().removeprefix('md5=')).hex()}"
    return None


SERVERS = {"hf": _hub_hash, "gcs": _google_hash}  # where only the server states the hash, in a header


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps their headers."""

    def __init__(self):
        self.headers = []

    def redirect_request(self, request, file, code, message, headers, new):
        self.headers.append(headers)
        return super().redirect_request(request, file, code, message, headers, new)


def _fetch(url, part, record, progress):
    """Download `url` into `part`, continuing it; returns the hash that the file must have."""
    have = part.stat().st_size if part.exists() else 0
    if record.bytes is not None:
        if have > record.bytes:
            part.unlink()
            have = 0
        if have == record.bytes and record.hash not in SERVERS:
            return record.hash
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    redirects = _Redirects()
    try:
        answer = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        part.unlink()  # the part is as long as the file or longer: begin anew
        return _fetch(url, part, record, progress)
    with answer:
        if have and answer.status != 206:  # the server cannot continue a part: it sends the whole file
            have = 0
        rest = answer.headers.get("Content-Length")
        size = have + int(rest) if rest else record.bytes
        if record.bytes not in (None, size):
            raise ValueError(f"the file there has {size:,} bytes, not {record.bytes:,}")
        free = shutil.disk_usage(part.parent).free
        if size is not None and free < size - have:
            raise StorageError(
                f"{str(part.parent)!r} has {free:,} bytes free and {record.net}:{record.tag} needs {size - have:,} more: "
                "free some space, or name another folder in CNN_ZOO_CACHE"
            )
        with open(part, "ab" if have else "wb") as file, _bar(record, size, have, progress) as bar:
            while block := answer.read(CHUNK):
                try:
                    file.write(block)
                    file.flush()
                except OSError as error:
                    raise storage_error(error, part) from error
                bar.update(len(block))
        headers = [*redirects.headers, answer.headers]
    if size is not None and (got := part.stat().st_size) < size:
        raise ValueError(f"the connection ended after {got:,} of {size:,} bytes")
    if record.hash not in SERVERS:
        return record.hash
    stated = next(filter(None, map(SERVERS[record.hash], headers)), None)
    if stated is None:
        raise ValueError("the server does not state the hash of the file")
    return stated


def _bar(record, size, have, progress):
    from tqdm import tqdm

    title = f"{record.net}:{record.tag}"
    return tqdm(total=size, initial=have, unit="B", unit_scale=True, desc=title, disable=not progress)
