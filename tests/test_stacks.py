"""Videos and volumes: every kind of file gives the pictures that were put into it."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cnn_zoo import DataError, InputError
from cnn_zoo.data import StackFiles, from_stacks, pipeline
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.data.sizes import Size
from cnn_zoo.data.stacks import read_stack, stack_shape


def video(path, count=10, size=(32, 48)):
    """Each frame is one gray level, ten more than the one before."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, size[::-1])
    for i in range(count):
        writer.write(np.full((*size, 3), (20 + 10 * i, 20 + 10 * i, 0), "uint8"))  # no red
    writer.release()
    return path


def test_videos(tmp_path):
    path = video(tmp_path / "a.avi")
    assert stack_shape(path) == (10, 32, 48, 3)
    whole = read_stack(path)
    assert whole.shape == (10, 32, 48, 3) and whole[..., 0].max() < 16  # RGB
    assert np.abs(whole[..., 2].mean((1, 2)) - (20 + 10 * np.arange(10))).max() < 4
    assert np.array_equal(read_stack(path, [1, 4, 4, 9]), whole[[1, 4, 4, 9]])
    files = StackFiles([path], depth=5, channels=1, size=Size(16, 24))
    assert files.shape == (1, 5, 16, 24, 1) and files.dtype == np.uint8
    assert np.abs(np.diff(files[0].mean((1, 2, 3))) - 20 * 0.701).max() < 2  # every second; 0.587 + 0.114 of the gray
    assert StackFiles([path], depth=20)[0].shape == (20, 32, 48, 3)  # some twice
    for content in (b"", b"no video" * 100):
        path.write_bytes(content)
        with pytest.raises(DataError, match="a.avi' is (empty|damaged)"):
            read_stack(path)


def test_volumes(tmp_path, rng):
    volume = rng.integers(0, 60000, (4, 6, 8)).astype("uint16")
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    np.save(tmp_path / "a.npy", volume)
    (tmp_path / "slices").mkdir()
    for i, picture in enumerate(volume):
        Image.fromarray(picture).save(tmp_path / "slices" / f"{i}.png")
    kinds = ["a.tif", "a.npy", "slices"]
    mrcfile = pytest.importorskip("mrcfile")
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(volume)
    for kind in (*kinds, "a.mrc"):
        path = tmp_path / kind
        assert stack_shape(path) == (4, 6, 8, 1)
        assert np.array_equal(read_stack(path)[..., 0], volume), kind
        assert np.array_equal(read_stack(path, [1, 3])[..., 0], volume[[1, 3]])
    files = StackFiles([tmp_path / kind for kind in kinds])
    assert files.shape == (3, 4, 6, 8, 1) and files.dtype == np.float32
    np.testing.assert_allclose(files[[2, 0]], np.stack([volume, volume])[..., None] / 257, rtol=1e-6)
    fitted = StackFiles([tmp_path / "a.npy"], intensity="percentiles").fit()
    low, high = np.percentile(volume, [0.1, 99.9])
    np.testing.assert_allclose(fitted.intensity.low, low)
    np.testing.assert_allclose(fitted[0][..., 0], ((volume - low) * 255 / (high - low)).clip(0, 255), atol=1e-3)
    assert files.describe()["sha256"] == StackFiles([tmp_path / kind for kind in kinds]).describe()["sha256"]
    np.save(tmp_path / "b.npy", volume[:3])
    with pytest.raises(DataError, match="a.npy' has 4 frames and .*b.npy' 3: give depth="):
        StackFiles([tmp_path / "a.npy", tmp_path / "b.npy"])
    for depth in (0, 2.5, True):
        with pytest.raises(InputError, match="depth is a whole number"):
            StackFiles([tmp_path / "a.npy"], depth=depth)
    np.save(tmp_path / "c.npy", np.zeros(5))
    with pytest.raises(DataError, match=r"float64 of shape \(5,\)"):
        read_stack(tmp_path / "c.npy")


def test_class_folders_of_stacks(tmp_path, rng):
    for label in ("up", "down"):
        (tmp_path / label).mkdir()
        for i in range(4):
            np.save(tmp_path / label / f"{i}.npy", rng.integers(0, 256, (5, 6, 7, 3)).astype("uint8"))
    (tmp_path / "up" / "slices").mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (6, 7, 3)).astype("uint8")).save(tmp_path / "up" / "slices" / f"{i}.png")
    data = from_stacks(tmp_path, validation=0.25, intensity=Intensity("range", 0, 100))
    assert data.classes == ("down", "up") and len(data.train) + len(data.validation) == 9
    images, labels = next(iter(pipeline(data.train, 4)))
    assert images.shape == (4, 5, 6, 7, 3) and labels.shape == (4,)
    (tmp_path / "up" / "bad.npy").write_text("no")
    (tmp_path / "up" / "notes.doc").write_text("no")
    with pytest.raises(DataError, match="^2 thing.*notes.doc' is no file.*bad.npy' is missing, damaged"):
        from_stacks(tmp_path)
    with pytest.warns(UserWarning, match="left out 2"):
        assert len(from_stacks(tmp_path, on_error="skip").train) == 9
