"""Data sets prepared once: read, brought to the contract and written as a sharded data set of TensorFlow Datasets."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np

from cnn_zoo.data.arraylike import Rows, array_hash, files_hash
from cnn_zoo.data.arrays import Data, Split
from cnn_zoo.errors import DataError, require
from cnn_zoo.files import replacing

CARD = "cnn_zoo.json"


def prepare(data: Data, folder) -> Path:
    """Write a data set as a few large files: a folder of TensorFlow Datasets, `tfds.builder_from_directory(folder)`.

    Everything is read once, image by image, with its rules applied, and the written files are read at random places without them; that pays where
    decoding and resizing cost more than training. The shards are ArrayRecord files of TensorFlow Datasets' own sizes.

    Args:
        data: A `Data`, with files or arrays.
        folder: What to write; what is there is replaced when the new one is whole.

    Returns:
        The folder.

    Raises:
        MissingExtraError: TensorFlow Datasets is not installed.
        DataError: Files that cannot be read.
        StorageError: It cannot be written.
    """
    tfds = require("tensorflow_datasets", "tfds")
    import tensorflow as tf

    masks = data.train.has_masks
    image = _feature(tfds, tf, data.train.images.shape[1:], data.train.images.dtype)
    if masks:
        label = _feature(tfds, tf, (*data.train.labels.shape[1:], 1), data.train.labels.dtype)
    else:
        label = tfds.features.ClassLabel(names=list(data.classes))
    features = tfds.features.FeaturesDict(
        {"image": image, "label": label, "name": tfds.features.Text(), "group": tfds.features.Text()}
    )

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "cnn_zoo_data"
        pkg_dir_path = Path(folder)  # where TensorFlow Datasets would look for a card of its own

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features, description=data.source)

        def _split_generators(self, manager):
            return {part: self._generate_examples(split) for part, split in data._splits().items()}

        def _generate_examples(self, split):
            for i in range(len(split)):
                answer = split.labels[i]
                yield (
                    i,
                    {
                        "image": split.images[i],
                        "label": answer[..., None] if masks else int(answer),
                        "name": "" if split.names is None else str(split.names[i]),
                        "group": "" if split.groups is None else str(split.groups[i]),
                    },
                )

    card = {
        "format": 1,
        "name": data.name,
        "source": data.source,
        "classes": list(data.classes),
        "ignore": list(data.ignore),
        "masks": masks,
        "parts": {
            part: {
                "shape": list(split.images.shape[1:]),
                "dtype": str(split.images.dtype),
                "label_dtype": str(split.labels.dtype),
                "named": split.names is not None,
                "grouped": split.groups is not None,
            }
            for part, split in data._splits().items()
        },
    }
    with replacing(folder) as aside:
        builder = Builder(data_dir=str(aside.parent / "building"), file_format="array_record")
        with contextlib.redirect_stdout(io.StringIO()):  # it speaks of downloading
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
        Path(builder.data_dir).rename(aside)
        (aside / CARD).write_text(json.dumps(card, indent=1))
    return Path(folder)


def load_prepared(folder) -> Data:
    """The data set that `prepare` wrote; images and masks are read when they are indexed, labels now.

    Raises:
        DataError: There is none, or it is damaged.
        MissingExtraError: TensorFlow Datasets is not installed.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / CARD).read_text())
        parts = card["parts"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{str(folder)!r} holds no prepared data set ({error}): make one with prepare(data, folder)"
        ) from error
    tfds = require("tensorflow_datasets", "tfds")
    try:
        builder = tfds.builder_from_directory(str(folder))
        splits = {part: _split(tfds, builder, folder, part, about, card["masks"]) for part, about in parts.items()}
    except (DataError, ImportError):
        raise
    except Exception as error:  # damaged shards raise what ArrayRecord and protocol buffers like
        raise DataError(f"{str(folder)!r} is damaged ({str(error)[:200]}): prepare it again") from error
    splits = {part: splits.get(part) for part in ("train", "validation", "test")}
    return Data(
        card["name"], **splits, classes=tuple(card["classes"]), source=card["source"], ignore=tuple(card["ignore"])
    )


class Prepared(Rows):
    """One field of a prepared split as an array that reads when it is indexed."""

    def __init__(self, folder, source, part, field, item, dtype):
        self.folder, self.part, self._source, self._field = Path(folder), part, source, field
        super().__init__(len(source), item, dtype)

    def describe(self) -> dict:
        """The field, and one hash over its rows and the files of its part."""
        files = sorted(path for path in self.folder.iterdir() if f"-{self.part}." in path.name)
        digest = files_hash(files)
        if len(self) != len(self._source) or (np.diff(self._rows) != 1).any():
            digest = array_hash(np.frombuffer((digest + array_hash(self._rows)).encode(), "uint8"))
        return {
            "count": len(self),
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "prepared": self._field,
            "sha256": digest,
        }

    def _row(self, row):
        return np.asarray(self._source[row][self._field]).reshape(self._item).astype(self.dtype, copy=False)


def _split(tfds, builder, folder, part, about, masks):
    def fields(*wanted):  # an image is not decoded where only its mask is asked for
        others = {field: tfds.decode.SkipDecoding() for field in ("image", "label") if field not in wanted}
        return builder.as_data_source(split=part, decoders=others)

    images = Prepared(folder, fields("image"), part, "image", about["shape"], about["dtype"])
    few = fields() if masks else fields("label")
    rows = [few[i] for i in range(len(few))]
    if masks:
        labels = Prepared(folder, fields("label"), part, "label", about["shape"][:2], about["label_dtype"])
    else:
        labels = np.array([row["label"] for row in rows], "int64")
    names = np.array([_text(row["name"]) for row in rows]) if about["named"] else None
    groups = np.array([_text(row["group"]) for row in rows]) if about["grouped"] else None
    return Split(images, labels, groups, names)


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _feature(tfds, tf, shape, dtype):
    """PNG where it can hold the values, else the numbers themselves."""
    if dtype == np.uint8 and len(shape) == 3 and shape[-1] in (1, 3, 4):
        return tfds.features.Image(shape=shape, dtype=np.uint8, encoding_format="png")
    return tfds.features.Tensor(shape=shape, dtype=tf.as_dtype(dtype))
