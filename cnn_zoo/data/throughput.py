"""A cache for arrays that read when they are indexed: in memory, on the disk or none, by what is measured to fit and to pay."""

import dataclasses
import difflib
import errno
import math
import os
import shutil
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_zoo.data.arraylike import Rows, is_lazy
from cnn_zoo.data.arrays import Split
from cnn_zoo.errors import InputError, StorageError
from cnn_zoo.files import storage_error

HOW = ("auto", "memory", "disk", "none")
MEMORY_SHARE = 0.5  # of the memory that is free: the model, its gradients and the batches under way need the rest
DISK_SHARE = 0.5  # of the disk that is free
PROBE_SECONDS, PROBE_BYTES = 0.5, 1 << 24  # of measuring what reading costs, and a disk


@dataclass(frozen=True)
class Choice:
    """Which cache was chosen, and why.

    Attributes:
        cache: "memory", "disk" or "none".
        why: One sentence.
        bytes: Of all rows.
        memory: Bytes of memory that were free; None where it cannot be told.
        disk: Bytes that were free on the disk of temporary files; None where it cannot be told.
        seconds_per_row: What reading a row takes, measured where the decision hung on it.
    """

    cache: str
    why: str
    bytes: int
    memory: int | None
    disk: int | None
    seconds_per_row: float | None = None

    def to_dict(self) -> dict:
        """Plain values, for run.json."""
        return dataclasses.asdict(self)


class Cached(Rows):
    """An array that reads each row of another one once, and keeps it; made by `cached`.

    Several threads may read at once. A row that cannot be read is not kept: its error comes again. What it takes is fixed when it is made, and is
    given back when neither it nor its `take`s are used any more.

    Attributes:
        source: The array that reads.
        choice: The `Choice`.
    """

    def __init__(self, source, choice: Choice, array: np.ndarray):
        super().__init__(len(source), source.shape[1:], source.dtype)
        self.source, self.choice, self._kept = source, choice, _Kept(array, choice.cache == "memory")

    @property
    def paths(self) -> list:
        """The file of each row, where the source has them."""
        paths = self.source.paths
        return [paths[row] for row in self._rows]

    def describe(self) -> dict:
        """What the source says of itself: a cache changes nothing."""
        return self.source.take(self._rows).describe()

    def _row(self, row):
        return self._several(np.array([row]))[0]

    def _several(self, rows):
        kept = self._kept
        with kept.lock:
            missing = np.unique(rows[~kept.known[rows]])
        if len(missing):  # two threads may read the same row; they write the same values
            kept.array[missing] = self.source[missing]
            with kept.lock:
                kept.known[missing] = True
        return kept.array[rows]


class _Kept:
    """The rows of a cache, and which of them are there."""

    _in_memory = weakref.WeakSet()

    def __init__(self, array, in_memory):
        self.array, self.known, self.lock = array, np.zeros(len(array), bool), threading.Lock()
        if in_memory:
            self._in_memory.add(self)

    @classmethod
    def promised(cls) -> int:
        """Bytes of caches in memory that will be filled: the system gives memory when it is written to, and still calls them free."""
        return sum(round(kept.array.nbytes * (1 - kept.known.mean())) for kept in list(cls._in_memory))


def cached(
    values, how: str = "auto", *, epochs: int = 2, memory: int | None = None, disk: int | None = None, folder=None
):
    """An array that reads when it is indexed, with its rows kept after they were first read.

    Values, order and errors are those of the source. `"auto"` takes memory where all rows fit into half of what is free; else a temporary file
    where they fit into half of the free disk, and reading a row anew costs more than a disk does, both measured; else nothing. The file has no
    name, so that the system deletes it even after a crash.

    Args:
        values: `ImageFiles`, `MaskFiles`, a `Rows`. An array in memory, and what is cached already, stays what it is.
        how: "auto", "memory", "disk" or "none".
        epochs: How often each row will be read; up to one "auto" keeps nothing.
        memory: Bytes of memory to count with; default what is free (`available_memory`).
        disk: Bytes of disk to count with; default what is free in `folder`.
        folder: For the temporary file; default `TMPDIR`, else /var/tmp, which unlike /tmp does not lie in memory, else Python's.

    Returns:
        A `Cached`, whose `choice` says why; or `values`.

    Raises:
        InputError: There is no cache of that name.
        StorageError: A cache that was asked for by name does not fit.
        DataError: Rows that are read to measure cannot be.
    """
    return _cached(values, how, epochs, memory, disk, folder)[0]


def cached_split(split: Split, how: str = "auto", *, epochs: int = 2, **options) -> tuple[Split, dict]:
    """A split whose images, and masks, are kept after they were first read, for as long as it is used.

    Args:
        split: The split.
        how, epochs, **options: As for `cached`.

    Returns:
        The split, and plain values that say what was chosen and why: `{"images": {...}, "masks": {...}}`, without those that are in memory anyway.

    Raises:
        InputError, StorageError, DataError: As `cached`.
    """
    parts, choices = {}, {}
    for field, name in (("images", "images"), ("labels", "masks")):
        parts[field], choice = _cached(getattr(split, field), how, epochs, **options)
        if choice is not None:
            choices[name] = choice.to_dict()
    return dataclasses.replace(split, **parts), choices


def _cached(values, how, epochs, memory=None, disk=None, folder=None):
    """The array, and the `Choice` or None."""
    if how not in HOW:
        close = difflib.get_close_matches(str(how), HOW, n=1)
        raise InputError(f"a cache is {', '.join(HOW)}, not {how!r}{f'; did you mean {close[0]!r}?' if close else ''}")
    if isinstance(values, Cached) or not is_lazy(values):
        return values, getattr(values, "choice", None)
    folder = temporary_folder() if folder is None else Path(folder)
    choice = choose(values, how, epochs=epochs, memory=memory, disk=disk, folder=folder)
    if choice.cache == "none":
        return values, choice
    try:
        array = (_in_memory if choice.cache == "memory" else _on_disk)(values, choice, folder)
    except StorageError as error:  # someone else has taken what was free a moment ago
        if how != "auto":
            raise
        return values, dataclasses.replace(choice, cache="none", why=f"no cache: {error}")
    return Cached(values, choice, array), choice


def choose(values, how: str = "auto", *, epochs: int, memory=None, disk=None, folder=None) -> Choice:
    """Which cache `cached` would use, and why; arguments and errors as there."""
    folder = temporary_folder() if folder is None else Path(folder)
    size = math.prod(values.shape) * values.dtype.itemsize
    if memory is None and (memory := available_memory()) is not None:
        memory = max(0, memory - _Kept.promised())
    disk = _free_disk(folder) if disk is None else disk
    found = {"bytes": size, "memory": memory, "disk": disk}
    if size == 0:
        return Choice("none", "no cache: there are no rows", **found)
    if how != "auto":
        return Choice(how, "asked for", **found)
    if epochs < 2:
        return Choice("none", "no cache: every row is read only once", **found)
    known = "an unknown amount of memory" if memory is None else f"{_words(memory)} of free memory"
    if size <= MEMORY_SHARE * (memory or 0):
        return Choice("memory", f"{_words(size)} fit into {MEMORY_SHARE:.0%} of {known}", **found)
    reason = f"{_words(size)} do not fit into {MEMORY_SHARE:.0%} of {known}"
    if size > DISK_SHARE * (disk or 0):
        on_disk = "nothing can be written there" if disk is None else f"{_words(disk)} are free"
        reason += f", nor into {DISK_SHARE:.0%} of the disk of {str(folder)!r}, where {on_disk}"
        return Choice("none", f"no cache: {reason}", **found)
    read = seconds_per_row(values)
    try:
        write = _disk_seconds(folder) * size / len(values)
    except OSError as error:
        return Choice("none", f"no cache: {reason}, and {storage_error(error, folder)}", **found, seconds_per_row=read)
    compared = f"reading a row takes {read * 1e3:.2g} ms and the disk {write * 1e3:.2g} ms"
    # Without: epochs * read. With: each row is read and written once, then comes from the disk, which is hardly slower at that than at writing.
    if (epochs - 1) * read <= epochs * write:
        return Choice("none", f"no cache: {reason}, and {compared}: one on the disk would not pay", **found, seconds_per_row=read)  # fmt: skip
    return Choice("disk", f"{reason} but on the disk, and {compared}", **found, seconds_per_row=read)


def seconds_per_row(values) -> float:
    """What reading a row of an array takes, in the batches and with the threads in which it is read; measured on at most 64 rows.

    Raises:
        DataError: A row cannot be read.
    """
    rows = np.linspace(0, len(values) - 1, min(len(values), 65)).astype(int)
    values[rows[:1]]  # what is imported and opened once does not count
    rows, done, start = rows[1:] if len(rows) > 1 else rows, 0, time.perf_counter()
    for part in np.split(rows, range(16, len(rows), 16)):
        values[part]
        done += len(part)
        if (spent := time.perf_counter() - start) > PROBE_SECONDS:
            break
    return spent / done


def available_memory(root="/") -> int | None:
    """Bytes of memory that this process may still take: what the system has, or what the limit of its control group leaves, whichever is less.

    None where it cannot be told. `root` is where /proc and /sys lie. Where there is no /proc it is half of all memory.
    """
    found = [*_system_memory(Path(root)), *_group_memory(Path(root))]
    if not found:
        try:
            found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
        except (AttributeError, OSError, ValueError):
            return None
    return max(0, min(found))


def temporary_folder() -> Path:
    """Where large temporary files belong."""
    if not os.environ.get("TMPDIR") and os.access("/var/tmp", os.W_OK):
        return Path("/var/tmp")
    return Path(tempfile.gettempdir())


def _system_memory(root):
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return []
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]


def _group_memory(root):
    """What the limits of the control groups of this process leave, version 2 and 1; file pages that are not in use can be taken."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        if controllers:
            base, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        here = base / path.lstrip("/")
        # A group is under the limits of all above it; within a container they may be seen at the base alone.
        for place in [folder for folder in (here, *here.parents) if folder.is_relative_to(base)]:
            try:
                limit, used = (int((place / name).read_text()) for name in names)
                stat = dict(entry.split() for entry in (place / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such group here, or no limit ("max")
                continue
            yield limit - used + int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _free_disk(folder):
    try:
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else None
    except OSError:
        return None


def _disk_seconds(folder):
    """Seconds a byte of writing through to the disk."""
    noise = np.random.default_rng(0).bytes(PROBE_BYTES)  # some file systems compress
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        file.write(noise)
        file.flush()
        os.fsync(file.fileno())
        return (time.perf_counter() - start) / PROBE_BYTES


def _in_memory(values, choice, folder):
    remedy = "use cache='disk', cache='none', or smaller images"
    if choice.memory is not None and choice.bytes > choice.memory:
        raise StorageError(
            f"a cache in memory needs {_words(choice.bytes)} and {_words(choice.memory)} are free: {remedy}"
        )
    try:
        return np.empty(values.shape, values.dtype)
    except MemoryError:
        raise StorageError(f"a cache in memory needs {_words(choice.bytes)}, which the system refuses: {remedy}") from None  # fmt: skip


def _on_disk(values, choice, folder):
    try:
        if choice.disk is not None and choice.bytes > choice.disk:  # without filling the disk first, for all others
            raise OSError(errno.ENOSPC, "full")
        with tempfile.TemporaryFile(dir=folder, prefix="cnn_zoo_") as file:
            _allocate(file, choice.bytes)
            return np.asarray(np.memmap(file, values.dtype, "r+", shape=values.shape))
    except OSError as error:
        raise StorageError(
            f"{storage_error(error, folder)} (a cache on the disk needs {_words(choice.bytes)}; TMPDIR says where, cache='none' needs nothing)"
        ) from error


def _allocate(file, size):
    """Take the space now: a mapped file that finds the disk full while it is written to kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, PROBE_BYTES):
        file.write(bytes(min(PROBE_BYTES, size - start)))
    file.flush()


def _words(count):
    power = min(4, max(0, int(math.log(max(count, 1), 1024))))
    value = count / 1024**power
    number = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
