"""From a microscope's 16-bit files and instance labels to a batch and a picture, by stated rules, on real images."""

import keras
import numpy as np
import pytest
import tifffile

from cnn_zoo import DataError, build_unet, mask_plots
from cnn_zoo.data import from_masks, pipeline
from cnn_zoo.data.formats import read_ids
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.palette import Palette

CLASSES = ("background", "nucleus")
RULE = Intensity("percentiles", percentiles=(0.1, 99.9))


@pytest.fixture
def hela(shared, tmp_path):
    """The four HeLa images as a microscope saves them: 16-bit TIFFs, values from 33,001 to 36,863 of 65,535, labels that number the nuclei."""
    with np.load(shared("data/microscopy/nuclei.npz")) as arrays:
        for key in arrays:
            if "HeLa" in key:
                _, time, kind = key.split("/")
                (tmp_path / f"{kind}s").mkdir(exist_ok=True)
                tifffile.imwrite(tmp_path / f"{kind}s" / f"{time}.tif", arrays[key])
    return tmp_path


def test_hela_to_a_batch_and_a_picture(hela, tmp_path):
    raw = [tifffile.imread(file) for file in sorted((hela / "images").iterdir())]
    assert len(raw) == 4 and min(map(np.min, raw)) > 33_000 and max(map(np.max, raw)) < 36_900
    data = from_masks(hela, classes=CLASSES, values={"nonzero": 1}, intensity=RULE, test=0.25)
    train, rule = data.train, data.train.images.intensity

    # The rule is of the three training images alone, is the test image's too, and stands in the description.
    pixels = np.concatenate([tifffile.imread(path).ravel() for path in train.images.paths])
    low, high = np.percentile(pixels, (0.1, 99.9))
    assert rule.images == 3 and np.allclose((rule.low, rule.high), ((low,), (high,)))
    assert data.test.images.intensity == rule
    described = data.describe()
    assert str(rule) in data.source
    assert described["train"]["files"]["intensity"]["sentence"] == str(rule)
    assert f"percentiles 0.1 to 99.9 of 3 training images (from {low:.6g} to {high:.6g}) as 0..255, clipped" == str(
        rule
    )
    assert described["train"]["mask_files"]["values"] == {"nonzero": 1}

    images, masks = (part.numpy() for part in next(iter(pipeline(train, 3))))
    assert images.shape == (3, 700, 1100, 1) and images.dtype == np.float32
    assert images.min() == 0 and images.max() == 255
    for path, label, image, mask in zip(train.images.paths, train.labels.paths, images, masks):
        expected = np.clip((tifffile.imread(path).astype(float) - low) / (high - low), 0, 1) * 255
        np.testing.assert_allclose(image[..., 0], expected, atol=0.01)
        assert np.array_equal(mask, tifffile.imread(label) > 0)
        assert image[mask == 1].mean() > image[mask == 0].mean() + 20  # nuclei are brighter, by what an eye sees

    # The contrast is real, where division by 257, the rule for any 16-bit file, leaves all of them one gray.
    flat = from_masks(hela, classes=CLASSES, values={"nonzero": 1}).train.images[:]
    assert images.std() > 20 and flat.std() < 3 and flat.min() > 128 and flat.max() < 144

    picture = tmp_path / "hela.png"
    mask_plots.side_by_side(images, masks, palette=Palette.of(CLASSES), save=picture)
    assert picture.stat().st_size > 50_000


def test_a_segmenter_trains_on_instance_labels_as_classes(hela):
    data = from_masks(hela, classes=CLASSES, values={"nonzero": 1}, intensity=RULE, size=64, how="crop", ignore=255)
    model = build_unet(2, width=4, depth=2, channels=1)
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(
        pipeline(data.train, 4, epochs=2), steps_per_epoch=1, epochs=2, shuffle=False, verbose=0
    ).history
    assert np.isfinite(history["loss"]).all() and keras.ops.ndim(model.predict(data.train.images[:1], verbose=0)) == 4


def test_the_16_bit_tiff_with_instance_labels(shared, tmp_path):
    for kind, name in (("images", "cells_uint16"), ("masks", "cells_labels_uint16")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "cells.tif").write_bytes(shared(f"data/microscopy/{name}.tif").read_bytes())
    data = from_masks(tmp_path, classes=("background", "cell"), values={"nonzero": 1}, intensity=RULE)
    images, masks = (part.numpy() for part in next(iter(pipeline(data.train, 1))))
    labels = tifffile.imread(tmp_path / "masks/cells.tif")
    assert len(np.unique(labels)) == 126 and np.array_equal(masks[0], labels > 0)
    # Values up to 235 in a 16-bit file: divided by 257 the picture is black.
    assert images.std() > 20 and Intensity().apply(tifffile.imread(tmp_path / "images/cells.tif")).max() < 1
    figure = mask_plots.side_by_side(images, masks, palette=Palette.of(data.classes), save=tmp_path / "cells.png")
    assert len(figure.axes) == 2


def test_without_a_rule_instance_labels_are_refused(hela):
    with pytest.raises(DataError, match="masks hold ids up to 35"):
        from_masks(hela)
    with pytest.raises(DataError, match="none of the classes 0..1"):
        from_masks(hela, classes=CLASSES)


def test_nonzero_leaves_named_numbers_alone(tmp_path):
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, np.array([[0, 7, 300], [65535, 7, 0]], "uint16"))
    assert read_ids(path, values={"nonzero": 1}).tolist() == [[0, 1, 1], [1, 1, 0]]
    for values in ({"nonzero": 1, 65535: 255}, {65535: 255, "nonzero": 1}):
        assert read_ids(path, values=values).tolist() == [[0, 1, 1], [255, 1, 0]]
    with pytest.raises(DataError, match="values= replaces whole numbers, or 'nonzero' for all but 0, not 'other'"):
        read_ids(path, values={"other": 1})
