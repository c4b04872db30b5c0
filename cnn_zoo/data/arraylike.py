"""Arrays that read when they are indexed: what every one of them can do, and several put together."""

import copy
import hashlib
from pathlib import Path

import numpy as np

from cnn_zoo.data.formats import pool
from cnn_zoo.errors import InputError
from cnn_zoo.files import sha256


def is_lazy(values) -> bool:
    """Whether this is an array that reads when it is indexed: `ImageFiles`, `MaskFiles` or a `Rows`."""
    return hasattr(values, "describe") and not isinstance(values, np.ndarray)


def take(values, indices):
    """Some rows of an array, or of one that reads when it is indexed; of the latter nothing is read."""
    return values.take(indices) if is_lazy(values) else values[indices]


def join(first, second):
    """Two arrays, lazy or not, one after the other."""
    return Joined([first, second]) if is_lazy(first) or is_lazy(second) else np.concatenate([first, second])


class Rows:
    """An array `(n, ...)` that reads its rows, in parallel, when it is indexed. A subclass reads row i of all in `_row(i)`.

    Args:
        count: Number of rows.
        item: Shape of one.
        dtype: Type of their values.
    """

    def __init__(self, count: int, item, dtype):
        self._rows, self._item, self.dtype = np.arange(count), tuple(map(int, item)), np.dtype(dtype)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._item)

    @property
    def ndim(self) -> int:
        return 1 + len(self._item)

    def __getitem__(self, index) -> np.ndarray:
        """One row (an integer), or several (a slice, an array of indices or of bools)."""
        rows = self._rows[index]
        if np.ndim(rows) > 1:
            raise InputError("rows are indexed by an integer, a slice, or a list of integers")
        return self._row(int(rows)) if np.ndim(rows) == 0 else self._several(rows)

    def take(self, indices):
        """The same rows at these indices, in this order; nothing is read."""
        result = copy.copy(self)
        result._rows = self._rows[indices]
        return result

    def _several(self, rows):
        result = np.empty((len(rows), *self._item), self.dtype)

        def fill(place):
            result[place] = self._row(int(rows[place]))

        list(map(fill, range(len(rows))) if len(rows) < 2 else pool().map(fill, range(len(rows))))
        return result


class Joined(Rows):
    """Several arrays, lazy or not, one after the other.

    Raises:
        InputError: Their rows differ in shape.
    """

    def __init__(self, parts):
        self.parts = list(parts)
        if len({part.shape[1:] for part in self.parts}) > 1:
            raise InputError(f"arrays of {' and '.join(str(part.shape[1:]) for part in self.parts)} cannot be joined")
        self._starts = np.cumsum([0, *map(len, self.parts)])
        super().__init__(
            self._starts[-1], self.parts[0].shape[1:], np.result_type(*(part.dtype for part in self.parts))
        )

    @property
    def paths(self) -> list:
        """One path a row, where all parts have them."""
        return [self.parts[part].paths[row] for part, row in map(self._where, self._rows)]

    def describe(self) -> dict:
        """The descriptions of the parts, and their order."""
        used = [np.flatnonzero(self._of(self._rows) == part) for part in range(len(self.parts))]
        described = []
        for number, part in enumerate(self.parts):
            few = take(part, self._rows[used[number]] - self._starts[number])
            described.append(few.describe() if is_lazy(few) else {"sha256": array_hash(few)})
        order = array_hash(self._of(self._rows))
        state = hashlib.sha256("".join([order, *(part["sha256"] for part in described)]).encode())
        return {"count": len(self), "shape": list(self.shape), "parts": described, "sha256": state.hexdigest()}

    def _of(self, rows):
        return np.searchsorted(self._starts, rows, side="right") - 1

    def _where(self, row):
        part = int(self._of(row))
        return part, int(row - self._starts[part])

    def _row(self, row):
        part, row = self._where(row)
        return self.parts[part][row].astype(self.dtype, copy=False)

    def _several(self, rows):  # each part reads with the threads: from within one of them it would wait for itself
        result = np.empty((len(rows), *self._item), self.dtype)
        parts = self._of(rows)
        for part in np.unique(parts):
            result[parts == part] = self.parts[part][rows[parts == part] - self._starts[part]]
        return result


def array_hash(array) -> str:
    """SHA-256 of the values of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def files_hash(paths) -> str:
    """One SHA-256 over the names and contents of files, in their order; it depends neither on their folder nor on their dates."""
    unique = list(dict.fromkeys(map(Path, paths)))
    found = dict(zip(unique, pool().map(sha256, unique)))
    state = hashlib.sha256()
    for path in map(Path, paths):
        state.update(f"{path.name}\0{found[path]}\n".encode())
    return state.hexdigest()
