"""Ship a trained classifier or segmenter: with its preprocessing inside, reloaded and compared before you get it."""

import difflib
import time
from dataclasses import dataclass
from pathlib import Path

from cnn_zoo.errors import InputError
from cnn_zoo.exporting import savedmodel
from cnn_zoo.outputs import class_names

FORMATS = {"savedmodel": savedmodel.write}


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: Where.
        format: Which format.
        signatures: Names of the entry points.
        max_difference: Largest difference between any output of the export, reloaded in another process, and the model's.
        seconds: Time taken to write, reload and compare.
        bytes: Size on disk.
    """

    path: Path
    format: str
    signatures: tuple[str, ...]
    max_difference: float
    seconds: float
    bytes: int

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            "path": str(self.path), "format": self.format, "signatures": list(self.signatures),
            "max_difference": self.max_difference, "seconds": self.seconds, "bytes": self.bytes,
        }  # fmt: skip


def export(
    model, path, format: str = "savedmodel", *, classes=None, overwrite: bool = False, tolerance: float = 1e-4
) -> Export:
    """Write a classifier or a segmenter for serving, and compare what was written with the model.

    A SavedModel gets three signatures. Of a classifier each answers with `probabilities` `(n, classes)`, `class` `(n,)` and `label` `(n,)`; of a
    segmenter with `probabilities` `(n, height, width, classes)` and `mask` `(n, height, width)`, the class ids (with a single output: 1 where its
    probability is above 1/2):

    * `serving_default`: `images`, float32 `(n, height, width, channels)`, values 0..255;
    * `serve_uint8`: the same as uint8;
    * `serve_bytes`: `contents`, `(n,)` strings, each the bytes of a PNG or JPEG file, brought to the model's size and channels exactly as
      `predict` does with files. Only for models of 1, 3 or 4 channels; where the model takes any size, the files of one batch must be of one size.

    The names of the classes are an asset, `assets/labels.txt`; `model.json` says the input contract, classes and versions.

    Args:
        model: A Keras classifier or segmenter on the TensorFlow backend; logits become probabilities.
        path: Folder to write.
        format: "savedmodel".
        classes: Class names; default "0", "1", ... (of a segmenter with one output "background", "object").
        overwrite: Replace the export that is at `path`; any other folder with files in it, or a file, is left alone.
        tolerance: Largest difference from the model that is accepted.

    Raises:
        InputError: Unknown format, `path` in use or not an export, or another number of names than classes.
        StorageError: The disk is full or the folder cannot be written. Nothing is left behind, and an old export still stands.
        ExportError: The export, reloaded, answers differently from the model; it is not kept.
    """
    classes = class_names(model, classes)
    if format not in FORMATS:
        close = difflib.get_close_matches(str(format).lower(), FORMATS, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"there is no export format {format!r}{hint} (there are: {', '.join(FORMATS)})")
    if bad := [name for name in classes if "\n" in name or "\r" in name or not name]:
        raise InputError(f"a class name must be one line of text, not {bad[0]!r}")
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(f"{str(path)!r} exists: choose another path, or say overwrite=True (--overwrite)")
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / "saved_model.pb").is_file()):
        raise InputError(
            f"{str(path)!r} is not an export, so it is not replaced: choose another path, or remove it yourself"
        )
    start = time.perf_counter()
    signatures, difference = FORMATS[format](model, path, classes, tolerance)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Export(path, format, signatures, difference, time.perf_counter() - start, size)
