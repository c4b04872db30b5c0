"""Waveforms as signals `(n, length, channels)` for 1-D nets, or as spectrograms for 2-D ones.

The contract holds for them, too: values are 0..255. Of audio, full scale (-1..1, or that of the integers in the file) becomes 0..255, silence 127.5.
"""

import warnings
from functools import partial
from pathlib import Path

import numpy as np

from cnn_zoo.data.arraylike import Rows, files_hash
from cnn_zoo.data.arrays import Data
from cnn_zoo.data.folders import assemble, class_rows, existing
from cnn_zoo.data.formats import read_many
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.errors import DataError, InputError

SIGNAL_SUFFIXES = (".csv", ".npy", ".txt", ".wav")
VIEWS = ("waveform", "spectrogram", "log_mel")
FLOOR = -80  # decibels below full scale that become 0


def read_signal(path) -> tuple[np.ndarray, int | None]:
    """Read a waveform with its values as stored.

    Args:
        path: A .wav (8, 16, 24 or 32 bit, or float); a .npy, `(length,)` or `(length, channels)`; or a .csv or .txt with a sample a line, a
            channel a column, between commas, semicolons, tabs or blanks, with or without a line of names.

    Returns:
        `(length, channels)`, and samples a second, or None where the file does not say.

    Raises:
        DataError: It is missing, empty, damaged, or no signal; the line of a text file is named.
    """
    path, rate = Path(path), None
    if not path.is_file() or not path.stat().st_size:
        raise DataError(f"{str(path)!r} is {'empty' if path.is_file() else 'not there'}")
    if path.suffix.lower() == ".wav":
        from scipy.io import wavfile

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks with titles and the like
                rate, values = wavfile.read(path)
        except Exception as error:  # damaged bytes raise struct.error, ValueError, EOFError, ...
            raise DataError(f"{str(path)!r} is damaged or no .wav that can be read ({error})") from error
    elif path.suffix.lower() == ".npy":
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{str(path)!r} is damaged or no .npy file ({error})") from error
    else:
        values = _read_text(path)
    if values.ndim not in (1, 2) or 0 in values.shape or values.dtype.kind not in "iuf":
        raise DataError(
            f"{str(path)!r} holds {values.dtype} of shape {values.shape}: (length,) or (length, channels) is expected"
        )
    return values.reshape(len(values), -1), rate


class SignalFiles(Rows):
    """Files with waveforms as windows `(n, length, channels)`, 0..255 float32, that reads when it is indexed.

    Attributes:
        paths: The file of each window.
        shape: `(n, length, channels)`; of views `(n, frequencies, times, channels)`.
        sources: The number, among `files`, of the file of each window.
        rule: How values became 0..255, in words.

    Args:
        files: The files.
        length: Samples of a window.
        step: Samples from the beginning of a window to that of the next; default `length`. What is left at the end of a file and fills no window is
            left out; a file shorter than one window is one window with silence at its end.
        intensity: An `Intensity`, which acts on the values as stored; None: full scale as 0..255, for integers and for floats in -1..1.
        view: `"waveform"`; `"spectrogram"`, an image `(window // 2 + 1, times, channels)` of the power in decibels, -80 dB and less of full scale as
            0 and 0 dB as 255, the lowest frequency first; or `"log_mel"`, the same in `mels` mel bands.
        window: Samples of a Hann window of the short-time Fourier transform.
        hop: Samples from one to the next; default a quarter of `window`.
        mels: Bands of `"log_mel"`.
        rate: Samples a second, where the files do not say.

    Raises:
        DataError: No files, files that cannot be read, that differ in channels or in samples a second.
        InputError: Arguments that are none of these.
    """

    def __init__(
        self, files, *, length: int, step: int | None = None, intensity: Intensity | None = None, view: str = "waveform",
        window: int = 512, hop: int | None = None, mels: int = 64, rate: int | None = None,
    ):  # fmt: skip
        step, hop = step or length, hop or max(1, window // 4)
        for what, value in {"length": length, "step": step, "window": window, "hop": hop, "mels": mels}.items():
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
                raise InputError(f"{what} is a whole number of at least 1, not {value!r}")
        if view not in VIEWS:
            raise InputError(f"view is one of {', '.join(VIEWS)}, not {view!r}")
        if view != "waveform" and (window > length or intensity is not None):
            raise InputError(
                "a spectrogram needs a length of at least one window, and intensity is a rule for waveforms"
            )
        if intensity is not None and not isinstance(intensity, Intensity):
            raise InputError(f"intensity is an Intensity, such as Intensity('range', -5, 5), not {intensity!r}")
        self.files = [Path(file) for file in files]
        heads, _ = read_many(self.files, read=_head)
        if not heads:
            raise DataError("there are no signals")
        for number, what in ((1, "channels"), (2, "samples a second")):
            found = [head[number] for head in heads]
            if len(set(found)) > 1:
                other = next(i for i, value in enumerate(found) if value != found[0])
                raise DataError(
                    f"the signals differ in {what}: {str(self.files[0])!r} has {found[0]} and {str(self.files[other])!r} {found[other]}"
                )
        self.rate = heads[0][2] or rate
        if view == "log_mel" and not self.rate:
            raise InputError("mel bands need rate=, samples a second, which these files do not say")
        starts = [
            (i, start)
            for i, (samples, *_) in enumerate(heads)
            for start in range(0, max(1, samples - length + 1), step)
        ]
        self.sources, self._start = np.array(starts).T
        self.length, self.intensity, self.view, self._options = length, intensity, view, (window, hop, mels)
        self._step = step
        channels = heads[0][1]
        item = (length, channels)
        self._mel = None
        if view != "waveform":
            high = window // 2 + 1
            if view == "log_mel":
                self._mel, high = mel_filters(mels, window, self.rate), mels
            item = (high, 1 + (length - window) // hop, channels)
        super().__init__(len(starts), item, "float32")

    @property
    def paths(self) -> list[Path]:
        return [self.files[i] for i in self.sources[self._rows]]

    @property
    def rule(self) -> str:
        if self.view != "waveform":
            window, hop, mels = self._options
            bands = f" in {mels} mel bands" if self.view == "log_mel" else ""
            return (
                f"power{bands} (Hann windows of {window} samples, {hop} apart), {FLOOR}..0 dB of full scale as 0..255"
            )
        windows = f"windows of {self.length} samples, {self._step} apart"
        return f"{windows}; {self.intensity or 'full scale as 0..255, silence 127.5'}"

    def fit(self) -> "SignalFiles":
        """The same windows with the numbers of the intensity rule found in all of them: do it on the training signals."""
        result = self.take(slice(None))
        result.intensity = self.intensity.fit(_Windows(self))
        return result

    def describe(self) -> dict:
        """The rules, and one hash over the windows and the names and contents of their files."""
        intensity = None if self.intensity is None else self.intensity.describe()
        return {
            "count": len(self),
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "rule": self.rule,
            "intensity": intensity,
            "starts": self._start[self._rows].tolist() if len(self) <= 1000 else len(self),
            "sha256": files_hash(self.paths),
        }

    def _window(self, row):
        """One window as stored, with silence where the file ends."""
        path, start = self.files[self.sources[row]], self._start[row]
        values = read_signal(path)[0][start : start + self.length]
        silence = 128 if values.dtype == np.uint8 else 0
        return np.pad(values, [(0, self.length - len(values)), (0, 0)], constant_values=silence)

    def _row(self, row):
        try:
            if self.view == "waveform":
                values = self._window(row)
                if self.intensity is None:
                    return ((full_scale(values) + 1) * 127.5).astype("float32")
                return self.intensity.apply(values[None])[0].astype("float32", copy=False)
            window, hop, _ = self._options
            power = _power(full_scale(self._window(row)), window, hop)
        except InputError as error:
            raise DataError(f"{str(self.files[self.sources[row]])!r}: {error}") from error
        if self._mel is not None:
            power = np.tensordot(self._mel, power, 1)
        decibels = 10 * np.log10(np.maximum(power, 1e-12))
        return ((decibels - FLOOR) * (255 / -FLOOR)).clip(0, 255).astype("float32")


def from_signals(
    folder, *, length: int, step: int | None = None, intensity=None, view: str = "waveform", window: int = 512, hop: int | None = None,
    mels: int = 64, rate: int | None = None, classes=None, test: float = 0.0, validation: float = 0.0, groups=None, on_error: str = "raise",
    seed: int = 0, name: str | None = None,
) -> Data:  # fmt: skip
    """A folder with one folder of waveforms a class, `folder/CLASS/*.wav`, cut into windows.

    Windows of one file stay together in every split, since they are alike.

    Args:
        length, step, intensity, view, window, hop, mels, rate: As for `SignalFiles`.
        folder, classes, test, validation, groups, on_error, seed, name: As for `from_folder`; groups are of files.

    Raises:
        DataError: As `from_folder`, for signals.
    """
    root, problems = existing(folder), []
    rows = class_rows(root, SIGNAL_SUFFIXES, classes, problems)
    make = partial(
        SignalFiles,
        length=length,
        step=step,
        intensity=intensity,
        view=view,
        window=window,
        hop=hop,
        mels=mels,
        rate=rate,
    )
    return assemble(
        rows, make, _head, read_signal, problems, classes=classes, test=test, validation=validation, groups=groups,
        on_error=on_error, seed=seed, name=name or root.resolve().name, origin=f"windows of waveforms in class folders of {root.resolve().name}",
    )  # fmt: skip


def full_scale(values: np.ndarray) -> np.ndarray:
    """Samples as floats -1..1: integers by the range of their type, unsigned ones about its middle.

    Raises:
        InputError: Floats beyond -1..1, or NaN.
    """
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -1 and high <= 1):  # so put, NaN does not pass
            raise InputError(
                f"the signal holds values from {low:.6g} to {high:.6g}, and floats of full scale lie in -1..1: give a rule that is the same for "
                "all, such as intensity=Intensity('range', low, high) or Intensity('percentiles')"
            )
        return values.astype("float64")
    half = 2.0 ** (8 * values.dtype.itemsize - 1)
    return values.astype("float64") / half - (1 if values.dtype.kind == "u" else 0)


def mel_filters(mels: int, window: int, rate: float) -> np.ndarray:
    """Triangular filters `(mels, window // 2 + 1)`, evenly spaced in mel from 0 to half the rate, each with a peak of 1.

    mel = 2595 log10(1 + f / 700). Source: O'Shaughnessy, Speech Communication, 1987; Young et al., The HTK Book, section 5.6. Triangles are drawn in
    mel.
    """
    scale = 2595 * np.log10(1 + np.linspace(0, rate / 2, window // 2 + 1) / 700)
    edges = np.linspace(0, scale[-1], mels + 2)
    up = (scale - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - scale) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0, np.minimum(up, down))
    if empty := int((filters.sum(1) == 0).sum()):
        raise InputError(
            f"{empty} of {mels} mel bands hold no frequency of a window of {window} samples: fewer mels, or a longer window"
        )
    return filters


def _power(values, window, hop):
    """`(frequencies, times, channels)`; a full-scale sine has power 1 at its frequency."""
    from scipy.fft import rfft
    from scipy.signal.windows import hann

    shape = hann(window, sym=False)
    pieces = np.lib.stride_tricks.sliding_window_view(values, window, axis=0)[::hop]  # (times, channels, window)
    return np.square(np.abs(rfft(pieces * (2 / shape.sum()) * shape))).transpose(2, 0, 1)


def _head(path):
    """`(samples, channels, samples a second)`."""
    values, rate = read_signal(path)
    return *values.shape, rate


def _read_text(path):
    rows, width = [], None
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            fields = line.replace(";", " ").replace(",", " ").split()
            if not fields:
                continue
            try:
                row = [float(field) for field in fields]
            except ValueError as error:
                if not rows and width is None:  # a line of names
                    width = len(fields)
                    continue
                raise DataError(f"{str(path)!r}, line {number}: {error}") from error
            width = width or len(row)
            if len(row) != width:
                raise DataError(f"{str(path)!r}, line {number}: {len(row)} numbers, where {width} are expected")
            rows.append(row)
    return np.array(rows, "float64")


class _Windows:
    """All windows as stored, `(1, length, channels)` each; with a length."""

    def __init__(self, signals):
        self._signals = signals

    def __len__(self):
        return len(self._signals)

    def __iter__(self):
        return (self._signals._window(row)[None] for row in self._signals._rows)
