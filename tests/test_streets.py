"""The street scenes of the third notebook: what is stored is what the generator draws, and it is what it says."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import streets
from PIL import Image

from cnn_zoo import check_masks

STORED = Path(__file__).parent / "data" / "streets.zip"


@pytest.fixture(scope="module")
def stored():
    """split -> images, masks, and the masks' files as Pillow opens them."""
    found = {}
    with zipfile.ZipFile(STORED) as file:
        for split, count in streets.SPLITS.items():
            names = [f"{split}_{i:02}" for i in range(count)]
            images = [_opened(file, f"streets/{split}/images/{name}.jpg") for name in names]
            masks = [_opened(file, f"streets/{split}/masks/{name}.png") for name in names]
            found[split] = (*(np.stack([np.asarray(one) for one in part]) for part in (images, masks)), masks)
        assert len(file.namelist()) == 2 * sum(streets.SPLITS.values())
    return found


def _opened(file, name):
    image = Image.open(io.BytesIO(file.read(name)))
    image.load()
    return image


def test_what_is_stored_is_what_the_generator_draws(stored):
    drawn = (streets.scene(seed) for seed in range(sum(streets.SPLITS.values())))
    for images, masks, _ in stored.values():
        for image, mask, (picture, ids) in zip(images, masks, drawn):
            np.testing.assert_array_equal(mask, ids)
            with Image.open(io.BytesIO(streets.jpeg(picture))) as again:  # another JPEG library may round otherwise
                assert np.abs(np.asarray(again).astype(int) - image).mean() < 0.5


def test_two_scenes_differ():
    (one, first), (other, second) = streets.scene(0), streets.scene(1)
    assert (one != other).mean() > 0.5 and (first != second).mean() > 0.1


def test_it_is_small():
    assert STORED.stat().st_size < 400_000


def test_ids_and_colours_are_as_stated(stored):
    for images, masks, files in stored.values():
        assert images.shape == (len(masks), 96, 128, 3) and masks.shape[1:] == (96, 128)
        assert images.dtype == masks.dtype == np.uint8
        assert sorted(np.unique(masks)) == [*range(7), 255]  # every class and void are in every split
        for file in files:
            palette = file.getpalette()
            assert file.mode == "P"
            for i, color in [*enumerate(streets.COLORS), (streets.VOID, streets.VOID_COLOR)]:
                assert palette[3 * i : 3 * i + 3] == list(bytes.fromhex(color[1:]))
        assert 0.02 < (masks == streets.VOID).mean() < 0.08


def test_the_package_finds_nothing_wrong(tmp_path):
    with zipfile.ZipFile(STORED) as file:
        file.extractall(tmp_path)
    for split, count in streets.SPLITS.items():
        folder = tmp_path / "streets" / split
        report = check_masks(folder / "masks", streets.CLASSES, images=folder / "images", ignore=streets.VOID)
        assert report.problems == () and report.masks == count


def test_sky_is_above_and_void_is_below(stored):
    masks = np.concatenate([masks for _, masks, _ in stored.values()])
    assert (masks[:, :20] == streets.SKY).mean() > 0.3 and not (masks[:, 60:] == streets.SKY).any()
    assert (masks[:, -1] == streets.VOID).all() and not (masks[:, :20] == streets.ROAD).any()


def test_colour_alone_does_not_tell_the_classes(stored):
    """The best guess from a pixel's colour, in 16 steps a channel, finds less than half of what there is to find."""
    codes, truths = {}, {}
    for split in ("train", "test"):
        images, masks, _ = stored[split]
        known = masks != streets.VOID
        codes[split] = (images[known] // 16).astype(int) @ [256, 16, 1]
        truths[split] = masks[known]
    votes = np.zeros((4096, 7), int)
    np.add.at(votes, (codes["train"], truths["train"]), 1)
    guess, truth = votes.argmax(1)[codes["test"]], truths["test"]
    iou = [((guess == i) & (truth == i)).sum() / ((guess == i) | (truth == i)).sum() for i in range(7)]
    assert 0.1 < np.mean(iou) < 0.4
