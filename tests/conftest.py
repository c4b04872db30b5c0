"""Shared by all tests: quiet TensorFlow, a private cache, and the real data sets where they are."""

import itertools
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
from PIL import Image

import cnn_zoo

REPOSITORY = Path(__file__).parents[1]
COUNTER = itertools.count()
SHARED = REPOSITORY.parent / "shared"  # real data and reference numbers, kept beside the repository where there are any


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """Each test starts with a seed, the float32 policy, an empty cache of its own and no data folder."""
    monkeypatch.setenv("CNN_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CNN_ZOO_DATA", raising=False)
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session(free_memory=next(COUNTER) % 10 == 0)  # to collect garbage takes most of a second


@pytest.fixture
def shared():
    """`shared("data/mnist.npz")`: the path of a shared file, or a visible skip where it is not there."""

    def find(relative):
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"needs shared/{relative} beside the repository")
        return path

    return find


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def thirds(rng):
    """Three classes told apart by which third of the image is bright."""
    labels = np.arange(240) % 3
    images = rng.integers(0, 60, (240, 12, 12)).astype("uint8")
    for image, label in zip(images, labels):
        image[4 * label : 4 * label + 4] += 150
    return cnn_zoo.Data.from_arrays(images, labels, classes=("top", "middle", "bottom"), test=0.25)


def save(path, values, dtype="uint8"):
    """Write an image file, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype)).save(path)
    return path


@pytest.fixture
def pets(tmp_path, rng):
    """Ten cats and ten dogs of 8x6 pixels."""
    for label in ("cat", "dog"):
        for i in range(10):
            save(tmp_path / "pets" / label / f"{label}{i}.png", rng.integers(0, 256, (8, 6, 3)))
    return tmp_path / "pets"
