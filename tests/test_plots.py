"""Pictures: what is drawn, that PNG files are whole, and that a notebook shows them."""

import numpy as np
import pytest
from PIL import Image

from cnn_zoo import InputError, plots

HISTORY = {
    "loss": [1.0, 0.5, 0.3],
    "accuracy": [0.6, 0.8, 0.9],
    "val_loss": [0.9, 0.6, 0.7],
    "val_accuracy": [0.7, 0.85, 0.8],
}


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_curves_show_training_against_validation(tmp_path):
    figure = plots.curves(HISTORY, save=tmp_path / "curves.png")
    loss, accuracy = figure.axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [HISTORY["loss"], HISTORY["val_loss"]]
    assert accuracy.lines[0].get_ydata().tolist() == HISTORY["accuracy"]
    assert "best: 0.8500, epoch 2" in texts(figure)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size[0] > 1000
    assert len(plots.curves({"loss": [1.0], "accuracy": [0.5]}).axes[0].lines) == 1
    with pytest.raises(InputError, match="no epoch to draw"):
        plots.curves({})


def test_the_grid_is_titled_as_in_the_lecture_and_marks_mistakes(rng, tmp_path):
    probabilities = np.array([[0.99, 0.01], [0.3, 0.7], [0.2, 0.8]])
    images = rng.integers(0, 256, (3, 8, 8, 1)).astype("uint8")
    figure = plots.prediction_grid(images, probabilities, [0, 0, 1], ["seven", "nine"], save=tmp_path / "grid.png")
    titles = {axes.get_title(): axes.title.get_color() for axes in figure.axes if axes.get_title()}
    assert list(titles) == [
        "nine, P = 0.70\n(true seven)",
        "seven, P = 0.99\n(true seven)",
        "nine, P = 0.80\n(true nine)",
    ]
    assert list(titles.values()) == [plots.WRONG, plots.RIGHT, plots.RIGHT]
    assert "1 of 3 wrong" in figure.get_suptitle()
    assert np.array_equal(figure.axes[0].images[0].get_array(), images[1, ..., 0])
    without = plots.prediction_grid(images, probabilities)
    assert [axes.get_title() for axes in without.axes][:3] == ["0, P = 0.99", "1, P = 0.70", "1, P = 0.80"]
    with pytest.raises(InputError, match="cannot draw 3 images with 2 predictions"):
        plots.prediction_grid(images, probabilities[:2])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_grid_takes_any_channels_and_many_images(rng, channels):
    images = rng.integers(0, 256, (200, 6, 6, channels)).astype("uint8")
    figure = plots.prediction_grid(images, rng.dirichlet(np.ones(4), 200), rng.integers(0, 4, 200), count=30)
    assert sum(bool(axes.images) for axes in figure.axes) == 30


@pytest.mark.parametrize("count", [2, 10, 100])
def test_confusion_matrix(count, rng, tmp_path):
    confusion = rng.integers(0, 50, (count, count))
    figure = plots.confusion_matrix(confusion, [f"class {i}" for i in range(count)], save=tmp_path / "confusion.png")
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, confusion / confusion.sum(1, keepdims=True))
    if count == 10:
        assert str(confusion[3, 4]) in texts(figure)
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    with pytest.raises(InputError, match="square"):
        plots.confusion_matrix(confusion[:-1])
    with pytest.raises(InputError, match="names are given"):
        plots.confusion_matrix(confusion, ["one"])


def test_a_class_without_images_is_drawn_as_zero():
    assert plots.confusion_matrix([[0, 0], [1, 3]]).axes[0].images[0].get_array().tolist() == [[0, 0], [0.25, 0.75]]


def test_a_notebook_shows_a_figure_as_png():
    assert plots.curves(HISTORY)._repr_png_().startswith(b"\x89PNG")


def test_one_epoch_and_long_names_stay_readable():
    figure = plots.curves({key: values[:1] for key, values in HISTORY.items()})
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for axes in figure.axes for tick in axes.get_xticks() if 0.5 <= tick <= 1.5)
    names = ["Lepidoptera: Nymphalidae (brush-footed)", "Coleoptera", "Hymenoptera: Apidae"]
    figure = plots.confusion_matrix(np.diag([9, 5, 7]), names)
    figure.draw_without_rendering()
    axes, page = figure.axes[0], figure.bbox
    assert axes.get_window_extent().width > 0.4 * page.width  # the names do not squeeze the table
    assert axes.get_yticklabels()[0].get_text() == "Lepidoptera: Nymphalidae (b…"
    boxes = [tick.get_window_extent() for tick in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.width and box.y1 <= page.height for box in boxes)
    below = boxes[:3]
    assert not any(left.overlaps(right) for left, right in zip(below, below[1:]))


def test_a_grid_or_curve_that_does_not_fit_is_refused():
    images, probabilities = np.zeros((3, 8, 8, 1)), np.eye(3)
    with pytest.raises(InputError, match="3 classes and 2 names"):
        plots.prediction_grid(images, probabilities, classes=["a", "b"])
    with pytest.raises(InputError, match="labels must be 0..2, and these run from 1 to 3"):
        plots.prediction_grid(images, probabilities, [1, 2, 3])
    with pytest.raises(InputError, match="no accuracy"):
        plots.curves({"loss": [1.0]})
