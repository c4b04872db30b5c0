"""Known data sets by name: from a folder of the user's, from scikit-learn, or through TensorFlow Datasets."""

import difflib
import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from cnn_zoo.data.arrays import Data, Split, _labels, _stratified, to_contract, to_masks
from cnn_zoo.errors import DataError, MissingExtraError, require

TEN = tuple("0123456789")
DATASETS = {  # name -> class names
    "digits": TEN,
    "mnist": TEN,
    "fashion_mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "camvid": (
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
    ),
    "isbi2012": ("cell", "membrane"),
}  # fmt: skip
_SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def load(name: str, *, data_dir=None, size=None, how: str = "bilinear", validation: float = 0.0, seed: int = 0) -> Data:
    """Load a data set.

    `"digits"` (scikit-learn's 1,797 real handwritten digits, 8x8 pixels) is always there. `"mnist"`, `"fashion_mnist"` and `"cifar10"` are
    looked for in `data_dir`, or else in the folder that the environment variable CNN_ZOO_DATA names: `NAME.npz` in Keras' layout (`x_train`,
    `y_train`, `x_test`, `y_test`) or a folder prepared by TensorFlow Datasets; failing that, TensorFlow Datasets downloads them.

    Two have masks, and must be in that folder, as `NAME/` or `NAME.zip`: `"camvid"` (`camvid/{train,val,test}/{images,masks}`, ids in the order of
    `DATASETS` and 11 for void, as in SegNet's tutorial) and `"isbi2012"` (`isbi2012/{images,masks}`, the 30 labelled slices of the challenge,
    membrane 0 and cell 255; the last six are the test split here, since the challenge's own labels are not public).

    Args:
        name: One of `DATASETS`.
        data_dir: Folder to look in first.
        size: Bring the images to this height and width; default: as they are.
        how: `"bilinear"` or `"pad"`, as in `Data.resize`.
        validation: Fraction of the training images held out for validation, stratified.
        seed: Of the validation split. The test split never depends on it.

    Returns:
        A `Data` with training, test and (if asked for) validation split.

    Raises:
        DataError: Unknown name, damaged file, or nowhere to be had: the message says where it was looked for and what to do.
        MissingExtraError: It would have to be downloaded and TensorFlow Datasets is not installed.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(str(name).lower(), DATASETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"there is no data set {name!r}{hint} (there are: {', '.join(DATASETS)})")
    if name == "digits":
        data = _digits()
    elif name in MASKED:
        data = _masked(name, data_dir)
    else:
        data = _known(name, data_dir)
    if validation:
        data = data.split(validation, seed)
    return data if size is None else data.resize(size, how)


def _digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype("uint8")
    train, test = _stratified(Split(images, labels.astype("int64")), 0.2, 0, "test")
    source = "handwritten digits of scikit-learn (UCI, test part of Optical Recognition), values 0..16 times 255/16"
    return Data("digits", train, None, test, TEN, source)


def _folder(data_dir, file):
    """The folder that the user named, or None; DataError if it is none."""
    folder = data_dir or os.environ.get("CNN_ZOO_DATA") or None
    if folder is None:
        return None
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        given = "data_dir" if data_dir else "CNN_ZOO_DATA"
        raise DataError(f"{given} names {str(folder)!r}, which is not a folder: give the folder that holds {file}")
    return folder


def _masked(name, data_dir):
    """A known data set with masks, from its folder or its zip file."""
    folder = _folder(data_dir, f"{name}.zip")
    places = [] if folder is None else [folder / f"{name}.zip", folder]
    place = next((place for place in places if place.is_file() or (place / name).is_dir()), None)
    if place is None:
        where = f"not in {str(folder)!r}" if folder else "in no folder that was named"
        raise DataError(
            f"{name} is {where}: put {name}.zip or the folder {name} (see the help of load) into a folder and name it with data_dir= or CNN_ZOO_DATA"
        )
    try:
        if place.is_dir():
            return MASKED[name](place / name)
        with zipfile.ZipFile(place) as whole:
            return MASKED[name](zipfile.Path(whole, f"{name}/"))
    except zipfile.BadZipFile as error:
        raise DataError(f"{str(place)!r} is damaged or no zip file ({error}): get it again") from error


def _pairs(place):
    """Images and masks of two folders, paired by their names without suffix, as arrays."""
    if not ((place / "images").is_dir() and (place / "masks").is_dir()):
        raise DataError(f"{str(place)!r} lacks the folders images and masks")
    images, masks = (
        {Path(f.name).stem: f for f in (place / part).iterdir() if f.is_file()} for part in ("images", "masks")
    )
    if lonely := sorted(images.keys() ^ masks.keys()):
        raise DataError(f"{str(place)!r} has {len(lonely)} files without partner, such as {lonely[0]!r}")

    def read(file):
        try:
            with Image.open(io.BytesIO(file.read_bytes())) as image:
                return np.asarray(image)
        except (OSError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{str(file)!r} cannot be read ({error})") from error

    names = sorted(images)
    pictures, answers = ([read(files[name]) for name in names] for files in (images, masks))
    try:
        return np.stack(pictures), np.stack(answers)
    except ValueError as error:
        raise DataError(f"the images or masks in {str(place)!r} are none, or of several sizes") from error


def _camvid(place):
    splits = []
    for part in ("train", "val", "test"):
        images, masks = _pairs(place / part)
        splits.append(Split(to_contract(images)[0], to_masks(masks, images.shape[:3], DATASETS["camvid"], (11,))))
    return Data(
        "camvid", *splits, DATASETS["camvid"], "CamVid as cut for SegNet's tutorial, 8-bit values as they are", (11,)
    )


def _isbi2012(place):
    images, masks = _pairs(place)
    images, masks = to_contract(images)[0], to_masks(masks == 0, images.shape[:3])
    source = "the 30 labelled slices of the ISBI 2012 challenge, the last six for the test, 8-bit values as they are"
    return Data(
        "isbi2012", Split(images[:24], masks[:24]), None, Split(images[24:], masks[24:]), DATASETS["isbi2012"], source
    )


MASKED = {"camvid": _camvid, "isbi2012": _isbi2012}


def _known(name, data_dir):
    folder = _folder(data_dir, f"{name}.npz")
    if folder is not None:
        path = folder / f"{name}.npz"
        if path.is_file():
            return _from_npz(name, path)
    return _from_tfds(name, folder)


def _from_npz(name, path):
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{str(path)!r} is damaged or no .npz file: get it again")
        with open(path, "rb") as whole, np.load(whole, allow_pickle=False) as file:
            if missing := [key for key in keys if key not in file]:
                raise DataError(f"{str(path)!r} lacks {', '.join(missing)}: it must hold {', '.join(keys)}")
            arrays = [file[key] for key in keys]
    except DataError:
        raise
    except Exception as error:  # damaged bytes raise what zipfile, zlib or the tokenizer of NumPy's headers likes
        raise DataError(f"{str(path)!r} is damaged or no .npz file ({error}): get it again") from error
    return _data(name, *arrays, f"{name} from {path.name}")


def _from_tfds(name, folder):
    place = f"{str(folder)!r}" if folder else "the folder of TensorFlow Datasets"
    remedy = (
        f"put {name}.npz (x_train, y_train, x_test, y_test) into a folder and name it with data_dir= or CNN_ZOO_DATA"
    )
    try:
        datasets = require("tensorflow_datasets", "tfds")
    except MissingExtraError as error:
        raise MissingExtraError(f"{name} is not in {place}, and downloading {error}; or {remedy}") from error
    try:
        parts = [
            datasets.as_numpy(datasets.load(name, split=part, batch_size=-1, data_dir=folder and str(folder)))
            for part in ("train", "test")
        ]
    except ImportError as error:  # it imports some of what it needs only when it downloads
        raise MissingExtraError(
            f"{name} is not in {place} and TensorFlow Datasets lacks a package that it needs to get it ({error}): "
            f"install that package with pip, or {remedy}"
        ) from error
    except Exception as error:  # the network, a proxy, a disk: its own classes are many
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise DataError(
            f"{name} is not in {place} and TensorFlow Datasets cannot get it ({reason}): go online, or {remedy}"
        ) from error
    arrays = [part[key] for part in parts for key in ("image", "label")]
    return _data(name, *arrays, f"{name} from TensorFlow Datasets")


def _data(name, x_train, y_train, x_test, y_test, origin):
    classes = DATASETS[name]
    splits, rules = [], []
    for part, images, labels in (("training", x_train, y_train), ("test", x_test, y_test)):
        try:
            images, rule = to_contract(images)
            if images.shape[1:] != _SHAPES[name]:
                raise DataError(f"its images have shape {images.shape[1:]}, and {name} has {_SHAPES[name]}")
            splits.append(Split(images, _labels(labels, len(images), classes)))
        except ValueError as error:
            raise DataError(f"the {part} part of {origin} is not what it should be: {error}") from error
        rules.append(rule)
    return Data(name, splits[0], None, splits[1], classes, f"{origin}, {rules[0]}")
