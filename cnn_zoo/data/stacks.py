"""Videos and volumes as stacks `(n, depth, height, width, channels)` for 3-D nets."""

from functools import partial
from pathlib import Path

import numpy as np

from cnn_zoo.data.arraylike import files_hash
from cnn_zoo.data.arrays import Data
from cnn_zoo.data.folders import as_size, assemble, class_rows, existing
from cnn_zoo.data.formats import inspect, read_array, read_many, to_channels
from cnn_zoo.data.images import list_images
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.data.lazy import _Files
from cnn_zoo.errors import DataError, InputError

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
STACK_SUFFIXES = (*VIDEOS, ".gif", ".mrc", ".mrcs", ".npy", ".tif", ".tiff")


def stack_shape(path) -> tuple[int, int, int, int]:
    """`(depth, height, width, channels)` of a stack, from its header: a video, a multi-page TIFF, an animated GIF, an MRC or .npy volume,
    or a folder of pictures.

    A .npy has the axes `(depth, height, width)` or `(depth, height, width, channels)`. What the header of a video says of its number of frames is
    an estimate.

    Raises:
        DataError: It cannot be read.
    """
    import cv2

    path = Path(path)
    if path.is_dir():
        slices = list_images(path)
        info = inspect(slices[0])
        return len(slices), info.height, info.width, info.channels
    if path.suffix.lower() in VIDEOS:
        video = _video(path)
        try:
            sides = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
            return (*(int(video.get(side)) for side in sides), 3)
        finally:
            video.release()
    if path.suffix.lower() == ".npy":
        array = _volume(path)
        return (*array.shape, 1)[:4]
    info = inspect(path)
    return info.frames, info.height, info.width, info.channels


def read_stack(path, frames=None) -> np.ndarray:
    """Read a stack, or these frames of it, with its values as stored.

    Args:
        path: As for `stack_shape`.
        frames: Numbers of frames, ascending; None for all.

    Returns:
        `(depth, height, width, channels)`, colours as RGB.

    Raises:
        DataError: It cannot be read, or its pictures differ in size.
    """
    path = Path(path)
    if not path.is_dir() and path.suffix.lower() in VIDEOS:
        return _read_video(path, frames)
    if not path.is_dir() and path.suffix.lower() == ".npy":
        array = _volume(path)
        array = np.array(array if frames is None else array[list(frames)])
        return array if array.ndim == 4 else array[..., None]
    wanted = range(stack_shape(path)[0]) if frames is None else frames
    if path.is_dir():
        slices = list_images(path)
        pictures = [read_array(slices[i]) for i in wanted]
    else:
        pictures = [read_array(path, frame=i) for i in wanted]
    if len({picture.shape for picture in pictures}) > 1:
        raise DataError(f"the pictures in {str(path)!r} differ in size or channels")
    return np.stack(pictures)


class StackFiles(_Files):
    """Files with stacks as an array `(n, depth, height, width, channels)`, 0..255, that reads when it is indexed.

    Attributes:
        paths: One path a stack.
        shape: `(n, depth, height, width, channels)`.
        dtype: uint8, or float32 where the intensity rule gives fractions.

    Args:
        paths: Files, or folders of pictures, each of which is one stack.
        depth: How many frames to take, evenly over the whole stack: frame i is `floor((i + 0.5) * frames / depth)`, so that of fewer frames some
            come twice. None: all, and the stacks must agree.
        channels: As for `ImageFiles`.
        size: A `Size` of each frame; None: as they are, which must then agree.
        intensity: An `Intensity`, or the name of a rule.

    Raises:
        DataError: Files that cannot be read, or that differ without a rule.
        InputError: Arguments that are none of these.
    """

    def __init__(self, paths, *, depth: int | None = None, channels: int | None = None, size=None, intensity="dtype"):
        if depth is not None and (isinstance(depth, bool) or not hasattr(depth, "__index__") or depth < 1):
            raise InputError(f"depth is a whole number of at least 1, not {depth!r}")
        self.paths = [Path(path) for path in paths]
        self.size = as_size(size)
        self.intensity = Intensity(intensity) if isinstance(intensity, str) else intensity
        self._depth, self._channels = depth, channels
        shapes, _ = read_many(self.paths, read=stack_shape)
        if not shapes:
            raise DataError("there are no stacks")
        wanted = []
        sides = [None, None] if self.size is None else [self.size.height, self.size.width]
        for axis, rule in enumerate((depth, *sides, channels)):
            found = [shape[axis] for shape in shapes]
            if rule is None and len(set(found)) > 1:
                other = next(i for i, value in enumerate(found) if value != found[0])
                what = ("frames", "rows", "columns", "channels")[axis]
                raise DataError(
                    f"the stacks differ: {str(self.paths[0])!r} has {found[0]} {what} and {str(self.paths[other])!r} {found[other]}: "
                    f"give {('depth=', 'size=', 'size=', 'channels=')[axis]}"
                )
            wanted.append(found[0] if rule is None else rule)
        self.shape = (len(self.paths), *wanted)
        kinds = {"uint8" if path.suffix.lower() in VIDEOS else read_stack(path, [0]).dtype.name for path in self.paths}
        plain = self.intensity.rule == "dtype" and kinds <= {"uint8", "bool"}
        self.dtype = np.dtype("uint8" if plain else "float32")

    def fit(self) -> "StackFiles":
        """The same files with the numbers of the intensity rule found in all of them: do it on the training stacks."""
        result = self.take(slice(None))
        result.intensity = self.intensity.fit(_Frames(self))
        return result

    def _values(self, path):
        count = stack_shape(path)[0]
        depth = self._depth or count
        chosen = ((2 * np.arange(depth) + 1) * count // (2 * depth)).tolist()
        values = read_stack(path, chosen)
        return values if self._channels is None else to_channels(values, self._channels)

    def _one(self, path):
        try:
            values = self.intensity.apply(self._values(path))
        except InputError as error:
            raise DataError(f"{str(path)!r}: {error}") from error
        if self.size is not None:
            values = np.stack([self.size.apply(picture) for picture in values])
        values = values.astype(self.dtype, copy=False)
        if values.shape != self.shape[1:]:
            raise DataError(
                f"{str(path)!r} has shape {values.shape} and {self.shape[1:]} is expected: give depth= or size="
            )
        return values

    def describe(self) -> dict:
        """The rules, and one hash over the names and contents of the files."""
        files = [f for path in self.paths for f in (list_images(path) if path.is_dir() else [path])]
        return {
            "count": len(self),
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "intensity": self.intensity.describe(),
            "size": None if self.size is None else self.size.describe(),
            "sha256": files_hash(files),
        }


def from_stacks(
    folder, *, depth: int | None = None, size=None, how: str = "resize", channels: int | None = None, intensity="dtype", classes=None,
    test: float = 0.0, validation: float = 0.0, groups=None, on_error: str = "raise", seed: int = 0, name: str | None = None,
) -> Data:  # fmt: skip
    """A folder with one folder of videos or volumes a class: `folder/CLASS/*.mp4`, `*.tif`, `*.mrc`, `*.npy`, or a folder of pictures a stack.

    Args:
        depth: As for `StackFiles`.
        folder, size, how, channels, intensity, classes, test, validation, groups, on_error, seed, name: As for `from_folder`.

    Raises:
        DataError: As `from_folder`, for stacks.
    """
    root, problems = existing(folder), []
    rows = class_rows(root, STACK_SUFFIXES, classes, problems, folders_too=True)
    make = partial(StackFiles, depth=depth, channels=channels, size=as_size(size, how), intensity=intensity)
    return assemble(
        rows, make, stack_shape, read_stack, problems, classes=classes, test=test, validation=validation, groups=groups,
        on_error=on_error, seed=seed, name=name or root.resolve().name, origin=f"stacks in class folders of {root.resolve().name}",
    )  # fmt: skip


class _Frames:
    """All frames of all stacks, as read, one after the other; with a length."""

    def __init__(self, files):
        self._files = files

    def __len__(self):
        return len(self._files) * self._files.shape[1]

    def __iter__(self):
        return (picture for path in self._files.paths for picture in self._files._values(path))


def _volume(path):
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{str(path)!r} is missing, damaged or no .npy file ({error})") from error
    if array.ndim not in (3, 4) or 0 in array.shape or array.dtype.kind not in "biuf":
        raise DataError(
            f"{str(path)!r} holds {array.dtype} of shape {array.shape}: (depth, height, width) or (depth, height, width, channels) is expected"
        )
    return array


def _video(path):
    import cv2

    if not path.is_file() or not path.stat().st_size:
        raise DataError(f"{str(path)!r} is {'empty' if path.is_file() else 'not there'}")
    video = cv2.VideoCapture(str(path))
    if not video.isOpened() or video.get(cv2.CAP_PROP_FRAME_WIDTH) < 1:
        video.release()
        raise DataError(
            f"{str(path)!r} is damaged, or a video whose codec OpenCV cannot read: convert it to H.264 in .mp4"
        )
    return video


def _read_video(path, frames):
    """Frames in their order: to jump to one is inexact in many formats, so all before it are passed over."""
    import cv2

    video, pictures, at, last = _video(path), [], -1, None
    try:
        for wanted in range(10**9) if frames is None else frames:
            while at < wanted and video.grab():
                at += 1
            if at < wanted:  # the header promised more
                break
            if wanted != last:
                good, picture = video.retrieve()
                if not good:
                    break
                picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            last = wanted
            pictures.append(picture)
    finally:
        video.release()
    if not pictures:
        raise DataError(f"{str(path)!r} is damaged: it has no frame that can be read")
    if frames is not None and len(pictures) < len(frames):
        if frames[-1] - at > 2:
            raise DataError(
                f"{str(path)!r} breaks off after {at + 1} frames, and its header says {frames[-1] + 1} or more"
            )
        pictures += [pictures[-1]] * (len(frames) - len(pictures))
    return np.stack(pictures)
