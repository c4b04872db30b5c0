"""Sequences of nucleotides and amino acids as images, one-hot: FASTA files, tables, plain text.

A sequence becomes an image of height 1, as wide as it is long, with a channel a letter: letters have no order among them, as colours have none, and
a `Conv2D` filter of size `(1, k)` is a motif of k letters (its weights are a position weight matrix). Values are 0 and 255, and an ambiguous
letter is shared out among those that it may be: R of the nucleotides is 127.5 for A and 127.5 for G.
"""

import dataclasses
from pathlib import Path

import numpy as np

from cnn_zoo.data.arrays import Data
from cnn_zoo.data.folders import as_numbers, read_table, settle
from cnn_zoo.errors import DataError, InputError

LETTERS = {"dna": "ACGT", "rna": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWY"}
# What stands for several. Source: IUPAC-IUB, Nomenclature for incompletely specified bases in nucleic acid sequences (1984), and Nomenclature and
# symbolism for amino acids and peptides (1983). U, selenocysteine, and O, pyrrolysine, are none of the twenty: unknown, as X.
_BASES = {
    "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT", "X": "ACGT",
}  # fmt: skip
_ACIDS = {"B": "DN", "Z": "EQ", "J": "IL", **dict.fromkeys("XUO", LETTERS["protein"])}
GAPS = "-.*"  # gaps, and the end of a protein: nothing of any letter


def one_hot(sequences, kind: str = "dna", length: int | None = None) -> np.ndarray:
    """Sequences as images.

    Args:
        sequences: Text; upper or lower case. U and T are the same.
        kind: `"dna"`, `"rna"` or `"protein"`: channels are the letters of `LETTERS[kind]`, in that order.
        length: Letters of each: shorter ones get nothing (0) at their end, and of longer ones the end is cut off. None: as they are, which must
            then agree.

    Returns:
        `(n, 1, length, letters)`: uint8 0 and 255, or float32 where a letter is ambiguous. Gaps (`-`, `.`) and `*` are 0 in all channels.

    Raises:
        DataError: No sequences, empty ones, letters that are none, or lengths that differ without `length`.
        InputError: Another `kind`, or a length that is none.
    """
    table = _table(kind)
    sequences = [str(sequence) for sequence in sequences]
    if length is not None and (isinstance(length, bool) or not hasattr(length, "__index__") or length < 1):
        raise InputError(f"length is a whole number of at least 1, not {length!r}")
    if not sequences:
        raise DataError("there are no sequences")
    lengths = sorted({len(sequence) for sequence in sequences})
    if lengths[0] == 0:
        raise DataError(f"sequence {[len(s) for s in sequences].index(0)} is empty")
    if length is None and len(lengths) > 1:
        raise DataError(f"the sequences are {lengths[0]} to {lengths[-1]} letters long: give length=")
    length = length or lengths[0]
    problems = []
    codes = np.full((len(sequences), length), ord("-"), "uint8")
    for row, sequence in enumerate(sequences):
        found = np.frombuffer(sequence.encode("latin-1", "replace"), "uint8")
        if unknown := sorted(set(sequence[i] for i in np.flatnonzero(np.isnan(table[found, 0])))):
            problems.append(f"sequence {row} has {', '.join(map(repr, unknown[:5]))}, which no {kind} sequence has")
        codes[row, : len(found)] = found[:length]
    settle(problems, "raise")
    images = table[codes][:, None]
    return images if np.isin(codes, _ambiguous(table)).any() else images.astype("uint8")


def read_fasta(path) -> tuple[list[str], list[str]]:
    """The header lines, without `>`, and the sequences of a FASTA file.

    Raises:
        DataError: It cannot be read, has no sequence, or does not begin with a header.
    """
    names, parts = [], []
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, 1):
                line = line.strip()
                if line.startswith(">"):
                    names.append(line[1:].strip())
                    parts.append([])
                elif line and not line.startswith(";"):
                    if not names:
                        raise DataError(
                            f"{str(path)!r} is no FASTA file: line {number} stands before the first header, '>'"
                        )
                    parts[-1].append(line.replace(" ", ""))
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r} ({error.strerror})") from error
    if not names:
        raise DataError(f"{str(path)!r} has no sequences")
    return names, ["".join(part) for part in parts]


def from_sequences(
    sequences, labels, *, kind: str = "dna", length: int | None = None, classes=None, name: str = "sequences", **options
) -> Data:
    """Sequences with labels as a data set of images `(1, length, letters)`.

    Args:
        sequences, kind, length: As for `one_hot`.
        labels: One a sequence: names of classes, or ids from 0 where `classes` names them.
        classes: Names in the order of their ids; default all, sorted.
        name: Short name.
        **options: `test`, `validation`, `seed`, `groups` and `names`, as for `Data.from_arrays`.

    Raises:
        DataError: As `one_hot`; or other numbers of labels, one class only, or classes too small for the splits.
    """
    images = one_hot(sequences, kind, length)
    labels = np.asarray(labels)
    if labels.shape != (len(images),):
        raise DataError(
            f"there are {len(images)} sequences and labels of shape {labels.shape}: one label each is expected"
        )
    if labels.dtype.kind not in "iub" or classes is None:
        found = sorted(set(labels.tolist()))
        if all(isinstance(label, str) for label in found):
            found = [label for _, label in sorted(zip(as_numbers(found).tolist(), found))]
        order = list(found if classes is None else classes)
        if unknown := [label for label in found if label not in order]:
            raise DataError(f"{unknown[0]!r} is none of the classes {', '.join(map(str, order))}")
        classes, labels = order, np.array([order.index(label) for label in labels.tolist()])
    if len(set(labels.tolist())) < 2:
        raise DataError(f"all {len(images)} sequences are of one class: at least two are needed")
    data = Data.from_arrays(images, labels, classes=classes, name=name, **options)
    letters = ", ".join(_letters(kind))
    rule = (
        f"{len(images):,} {kind} sequences one-hot as images 1x{images.shape[2]}, channels {letters}, values 0 and 255"
    )
    shared = "" if images.dtype == np.uint8 else " (ambiguous letters shared out)"
    return dataclasses.replace(data, source=rule + shared)


def from_fasta(files, *, kind: str = "dna", length: int | None = None, name: str = "fasta", **options) -> Data:
    """FASTA files, one a class, as a data set; or one file with a rule that finds the class in a header.

    Args:
        files: A dictionary from class names to files; a list of files, whose stems are the classes; or, with `label`, one file.
        kind, length: As for `one_hot`.
        name: Short name.
        **options: `label`, a function from a header line to the name of a class; and as for `from_sequences`.

    Raises:
        DataError: As `read_fasta` and `from_sequences`.
    """
    label = options.pop("label", None)
    if isinstance(files, (str, Path)):
        if label is None:
            raise InputError(
                "one FASTA file needs label=, a function from its header lines to classes; or give a file a class"
            )
        files = {None: files}
    elif not isinstance(files, dict):
        files = {Path(file).stem: file for file in files}
    names, sequences, labels = [], [], []
    for title, file in files.items():
        headers, found = read_fasta(file)
        names += headers
        sequences += found
        labels += [str(label(header)) for header in headers] if label else [str(title)] * len(found)
    if len(set(names)) == len(names):
        options.setdefault("names", names)
    return from_sequences(sequences, labels, kind=kind, length=length, name=name, **options)


def from_sequence_table(
    path,
    sequence_column="sequence",
    label_column="label",
    name_column=None,
    *,
    delimiter: str = ",",
    on_error: str = "raise",
    **options,
) -> Data:
    """A table (CSV) with a sequence and its class in each line.

    Args:
        path: The file.
        sequence_column, label_column, name_column: Names in its first line; or numbers from 0, where all lines are data.
        delimiter: Between columns.
        on_error: `"raise"` names all bad lines in one error, `"skip"` leaves them out with a warning.
        **options: As for `from_sequences`.

    Raises:
        DataError: It cannot be read, lacks a column, or lines have too few or too many fields; and as `from_sequences`.
    """
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    problems = []
    columns = [column for column in (sequence_column, label_column, name_column) if column is not None]
    records = read_table(path, columns, delimiter, problems)
    settle(problems, on_error)
    if not records:
        raise DataError(f"{str(path)!r} has no sequences")
    sequences, labels, *names = zip(*(fields for _, fields in records))
    if names and len(set(names[0])) == len(names[0]):
        options.setdefault("names", names[0])
    return from_sequences(sequences, labels, **{"name": Path(path).stem, **options})


def _letters(kind):
    if kind not in LETTERS:
        raise InputError(f"kind is one of {', '.join(LETTERS)}, not {kind!r}")
    return LETTERS[kind]


def _table(kind):
    """`(256, letters)`: the channels of each byte, NaN where it is no letter."""
    letters = _letters(kind)
    table = np.full((256, len(letters)), np.nan, "float32")
    table[[ord(gap) for gap in GAPS]] = 0
    meanings = {letter: letter for letter in letters}
    if kind == "protein":
        meanings |= _ACIDS
    else:
        meanings |= {
            letter: bases.replace("T", letters[-1]) for letter, bases in {**_BASES, "T": "T", "U": "T"}.items()
        }
    for letter, meaning in meanings.items():
        row = np.zeros(len(letters), "float32")
        row[[letters.index(one) for one in meaning]] = 255 / len(meaning)
        table[ord(letter)] = table[ord(letter.lower())] = row
    return table


def _ambiguous(table):
    return np.flatnonzero(((table > 0) & (table < 255)).any(1))
