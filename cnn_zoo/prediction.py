"""Classify arrays, image files and folders."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cnn_zoo.data import check_batch, list_images, read_images
from cnn_zoo.data.arrays import to_contract
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.data.sizes import Size
from cnn_zoo.errors import DataError, InputError
from cnn_zoo.files import replacing
from cnn_zoo.outputs import check_classifier, class_names, output_kind

PROGRESS_FROM = 1000  # images from which a progress bar is worth its line


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of some images.

    Attributes:
        probabilities: `(n, classes)` float32.
        classes: Class names.
        files: The image files, or None for arrays.
    """

    probabilities: np.ndarray
    classes: tuple[str, ...]
    files: tuple[Path, ...] | None = None

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> np.ndarray:
        """`(n,)`: the most probable class of each image, as a number."""
        return self.probabilities.argmax(-1)

    @property
    def names(self) -> list[str]:
        """The most probable class of each image, by name."""
        return [self.classes[label] for label in self.labels]

    def top(self, k: int = 1) -> list[list[tuple[str, float]]]:
        """For each image its k most probable classes, as (name, probability)."""
        order = np.argsort(-self.probabilities, axis=-1, kind="stable")[:, :k]
        return [[(self.classes[i], float(row[i])) for i in best] for row, best in zip(self.probabilities, order)]

    def to_dicts(self, top: int = 1) -> list[dict]:
        """Plain values, for JSON."""
        files = map(str, self.files) if self.files is not None else range(len(self))
        return [
            {"image": file, "predictions": [{"class": name, "probability": p} for name, p in best]}
            for file, best in zip(files, self.top(top))
        ]

    def to_csv(self, path) -> None:
        """Write a row an image: its file (or number), class, probability, and the probability of each class.

        Raises:
            StorageError: The file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", "class", "probability", *self.classes])
        files = self.files if self.files is not None else range(len(self))
        for file, name, row in zip(files, self.names, self.probabilities):
            writer.writerow([file, name, f"{row.max():.6g}", *(f"{p:.6g}" for p in row)])
        with replacing(path) as aside:
            aside.write_text(text.getvalue())

    def table(self, top: int = 1) -> str:
        """A line an image, for people."""
        files = [str(file) for file in (self.files if self.files is not None else range(len(self)))]
        wide = max(map(len, files), default=0)
        return "\n".join(
            f"{file:{wide}}  " + "   ".join(f"{name}, P = {p:.2f}" for name, p in best)
            for file, best in zip(files, self.top(top))
        )

    __str__ = table


def predict(
    model: keras.Model,
    inputs,
    *,
    classes=None,
    batch_size: int = 64,
    on_error: str = "raise",
    crop: float | None = None,
    intensity: Intensity | None = None,
    size: Size | None = None,
) -> Predictions:
    """Classify images.

    Args:
        model: From `(batch, height, width, channels)`, values 0..255, to `(batch, classes)`. Logits become probabilities by softmax
            (told by the activation of the last layer); sigmoid outputs stay as they are.
        inputs: An array of one image (`(height, width)` or `(height, width, channels)`) or of many (`(n, height, width, channels)`), whose
            values come to 0..255 as `Data.from_arrays` says; or an image file, a folder (searched with its subfolders), or a list of these.
            Files are brought to the model's size and channels as `cnn_zoo.data.read_image` says; arrays must have them.
        classes: Class names; default "0", "1", ...
        batch_size: Images at once; a folder is never in memory as a whole.
        on_error: For files: "raise" stops at the first batch in which some cannot be read, naming them; "skip" leaves them out with a warning.
        crop: For files: None stretches them to the model's size; a fraction such as 0.875 cuts out the middle, as `read_image` says.
        intensity: The rule by which values become 0..255, if not by their type: that of the training images, with its numbers.
            `predict(model, files, **run.image_rules)` reads files as those of a run were read.
        size: For files: the rule by which they come to the model's size, if they are not stretched.

    Returns:
        `Predictions`, in the order of the inputs; files of a folder in alphabetical order.

    Raises:
        InputError: Arrays that do not fit the model, or another number of names than classes.
        DataError: Files that are missing or cannot be read, or an empty folder.
    """
    check_classifier(model)
    if not hasattr(batch_size, "__index__") or batch_size < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
    classes = class_names(model, classes)
    if isinstance(inputs, Iterator):  # such as Path.glob gives
        inputs = list(inputs)
    if isinstance(inputs, (str, Path)) or (isinstance(inputs, (list, tuple)) and _are_paths(inputs)):
        rules = {"crop": crop, "intensity": intensity, "size": size}
        files, probabilities = _predict_files(model, list_images(inputs), batch_size, on_error, rules)
        return Predictions(probabilities, classes, tuple(files))
    images = _as_batch(inputs, model.input_shape[1:], intensity)
    return Predictions(_in_batches(model, images, batch_size), classes)


def _are_paths(inputs):
    paths = [isinstance(entry, (str, Path)) for entry in inputs]
    if not paths:
        raise InputError("there are no images: the list is empty")
    if any(paths) and not all(paths):
        raise InputError("the list mixes files and arrays: give either the one or the other")
    return all(paths)


def _as_batch(images, shape, intensity):
    try:
        images = np.asarray(images)
    except ValueError as error:
        raise InputError("the images of the list have different shapes: resize them, or predict one by one") from error
    if images.dtype.kind not in "fiub":
        raise InputError(f"images must be numbers, not {images.dtype}")
    if images.ndim == 2:
        images = images[None, ..., None]
    elif images.ndim == 3 and images.shape[-1] == shape[-1]:
        images = images[None]
    elif images.ndim == 3:
        images = images[..., None]
    if 0 in images.shape:
        raise InputError(f"there are no images: the array has shape {images.shape}")
    if images.ndim == 4 and intensity is not None:
        images = intensity.apply(images)
    elif images.ndim == 4 and images.dtype in (bool, np.uint16):
        images, _ = to_contract(images)  # by its dtype alone, as in training
    check_batch(images, shape)
    return images


def _predict_files(model, paths, batch_size, on_error, rules):
    shape = model.input_shape[1:]
    if None in shape[:2]:
        batch_size = 1  # of files at their own size, no two need fit into one array
    files, parts = [], [np.zeros((0, model.output_shape[-1]), "float32")]
    for start in _progress(range(0, len(paths), batch_size), len(paths)):
        read, images = read_images(paths[start : start + batch_size], shape, on_error, **rules)
        if read:
            files += read
            parts.append(_in_batches(model, images, batch_size))
    if not files:
        raise DataError(f"none of the {len(paths)} image(s) can be read")
    return files, np.concatenate(parts)


def _progress(batches, images):
    from tqdm import tqdm

    return tqdm(batches, desc="predicting", unit="batch", disable=images < PROGRESS_FROM)


def _in_batches(model, images, batch_size):
    outputs = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        # A batch of one fixed size is traced once; the last one is filled up and cut.
        missing = batch_size - len(part) if len(images) > batch_size else 0
        filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
        outputs.append(model.predict_on_batch(filled)[: len(part)])
    outputs = np.concatenate(outputs).astype("float32")
    return _softmax(outputs) if output_kind(model) == "logits" else outputs


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
