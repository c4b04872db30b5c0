"""Pictures of what an augmentation does."""

import numpy as np

from cnn_zoo.augment.augmenter import Augmenter
from cnn_zoo.errors import InputError


def preview(images, augment, masks=None, *, n: int = 4, versions: int = 3, seed: int = 0, palette=None, save=None):
    """Images before and after, in rows; masks are painted over them, pixels from outside dark gray.

    Args:
        images: `(n, height, width, channels)`, values 0..255.
        augment: An `Augmenter`, or a list of steps.
        masks: `(n, height, width)` class ids, or None.
        n: Rows at most.
        versions: Of each image, after.
        seed: Another gives others.
        palette: `cnn_zoo.palette.Palette`; default as many colours as there are classes.
        save: PNG file to write.

    Returns:
        A Matplotlib figure.

    Raises:
        InputError: Arrays or steps that do not fit, or no images.
    """
    from cnn_zoo.mask_plots import painted  # Matplotlib is imported only where something is drawn
    from cnn_zoo.palette import Palette
    from cnn_zoo.plots import Picture, finish

    augment = augment if isinstance(augment, Augmenter) else Augmenter(augment)
    images = np.asarray(images)[:n]
    masks = None if masks is None else np.asarray(masks)[:n]
    if not len(images) or versions < 1:
        raise InputError("there is nothing to show: give one image or more, and versions=1 or more")
    batches = [(images, masks)]
    for step in range(versions):
        after = augment(images, masks, seed=(seed, step))
        batches.append((after, None) if masks is None else after[:2])
    if masks is not None and palette is None:
        kept = np.concatenate([batch[1].ravel() for batch in batches])
        palette = Palette.of(int(kept[kept != augment.ignore].max(initial=0)) + 1)
    rows, columns = len(images), 1 + versions
    side, tall = 2.2, images.shape[1] / images.shape[2]
    figure = Picture(figsize=(columns * side, rows * side * tall + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for column, (batch, ids) in enumerate(batches):
        grid[0][column].set_title("after" if column else "before", fontsize=10)
        for row, axes in enumerate(grid[:, column]):
            if ids is None:
                axes.imshow(_shown(batch[row]), cmap="gray", vmin=0, vmax=255)
            else:
                axes.imshow(painted(batch[row], ids[row], palette, ignore=augment.ignore))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    return finish(figure, save)


def _shown(image):
    """RGB of the first three channels, or the first alone."""
    return np.rint(image[..., :3] if image.shape[-1] >= 3 else image[..., 0]).astype("uint8")
