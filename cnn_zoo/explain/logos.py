"""What the filters of a net over sequences look for, as sequence logos."""

import math
from dataclasses import dataclass

import keras
import numpy as np

from cnn_zoo.errors import InputError, require

COLUMNS = 4  # logos in a row of the picture


@dataclass(frozen=True)
class Motif:
    """The sites of one filter, laid over each other.

    Attributes:
        filter: Its number in the layer.
        sites: How many windows excite it; 0: it never rises above 0.
        rows: `(sites,)`, the index of the sequence that each lies in.
        starts: `(sites,)`, the index in its sequence at which each begins.
        frequencies: `(length, letters)`, how often each letter stands at each place; rows sum to 1 (0 where all sites have gaps).
        bits: `(length, letters)`, heights in a logo: frequency times the information of the place.
    """

    filter: int
    sites: int
    rows: np.ndarray
    starts: np.ndarray
    frequencies: np.ndarray
    bits: np.ndarray

    @property
    def information(self) -> float:
        """Of all places, in bits."""
        return float(self.bits.sum())

    def consensus(self, letters: str = "ACGT") -> str:
        """The most frequent letter of each place, small where it is in less than half of the sites; `-` without sites."""
        best = self.frequencies.argmax(-1)
        return "".join(
            "-" if not row.any() else letters[i] if row[i] >= 0.5 else letters[i].lower()
            for i, row in zip(best, self.frequencies)
        )


def motifs(model: keras.Model, images, *, layer: str | None = None, threshold: float = 0.5) -> list[Motif]:
    """The sites that excite each filter of a convolution over sequences to more than half of its maximum.

    So Basset tells its motifs: Kelley, Snoek, Rinn 2016 (Genome Research 26, 990-999), Methods: the nucleotides are counted in all windows that
    activate a filter to more than half of its largest value over all sequences. Windows that reach beyond the ends of a sequence are left out.
    The information of a place is log2(letters) minus its entropy minus the correction for few sites, (letters - 1) / (2 ln 2 sites), and not
    below 0: Schneider and Stephens 1990 (Nucleic Acids Research 18, 6097-6100).

    Args:
        model: Takes one-hot sequences `(batch, 1, length, letters)`, 0 and 255.
        images: `(n, 1, length, letters)`, such as `data.train.images` of `from_sequences`; sites are looked for in these.
        layer: Name of the convolution, filters of size `(1, k)` on the letters themselves; default the first one.
        threshold: Fraction of the maximum.

    Raises:
        InputError: The model has no such layer, the images are no sequences that it takes, or the threshold is no fraction.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1:
        raise InputError(f"threshold is a fraction of the maximum, 0 < threshold < 1, not {threshold!r}")
    convolution = _convolution(model, layer)
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] != 1 or not len(images) or images.shape[-1] != model.input_shape[-1]:
        raise InputError(
            f"sequences are (n, 1, length, {model.input_shape[-1]}), one-hot, for this model, not {images.shape}"
        )
    width = convolution.kernel_size[1]
    if images.shape[2] < width:
        raise InputError(f"the filters are {width} letters long and the sequences {images.shape[2]}")
    found = keras.Model(model.input, convolution.output).predict(images, verbose=0)[:, 0]
    if convolution.padding == "same":  # output i is of the window that begins at i - (k - 1) // 2
        first = (width - 1) // 2
        found = found[:, first : first + images.shape[2] - width + 1]
    windows = np.lib.stride_tricks.sliding_window_view(images[:, 0], width, 1).swapaxes(2, 3)
    result = []
    for number, activation in enumerate(np.moveaxis(found, -1, 0)):
        sequence, start = np.nonzero(activation > max(0, threshold * activation.max()))
        sites = windows[sequence, start].astype("float64") / 255
        result.append(Motif(number, len(sites), sequence, start, *_matrix(sites)))
    return result


def motif_logos(
    model: keras.Model,
    images,
    *,
    letters: str = "ACGT",
    layer: str | None = None,
    threshold: float = 0.5,
    count: int | None = None,
    first: int = 0,
    save=None,
):
    """Sequence logos of the filters, those with most information first.

    Above each stand the number of its filter, its sites, and where they begin: the median and the quartiles.

    Args:
        model, images, layer, threshold: As for `motifs`.
        letters: Of the channels, `cnn_zoo.data.sequences.LETTERS[kind]`.
        count: Logos at most; default all with sites.
        first: Number of the first letter of a sequence, such as -50 where the start of transcription is +1 or 0 of the count.
        save: PNG file to write.

    Returns:
        A figure.

    Raises:
        InputError: As `motifs`; as many letters as the images have not channels; or no filter has sites.
        MissingExtraError: logomaker is not installed.
    """
    logomaker = require("logomaker", "sequences")
    import pandas as pd

    from cnn_zoo.plots import Picture, finish

    found = motifs(model, images, layer=layer, threshold=threshold)
    if len(letters) != found[0].bits.shape[1]:
        raise InputError(f"the images have {found[0].bits.shape[1]} channels and {len(letters)} letters are given")
    found = sorted((motif for motif in found if motif.sites), key=lambda motif: -motif.information)[:count]
    if not found:
        raise InputError("no filter rises above 0 on these sequences: train the model first, or give other sequences")
    wide = max(2.4, 0.26 * len(found[0].bits))
    columns = max(1, min(COLUMNS, len(found), int(13 // wide)))
    rows = -(-len(found) // columns)
    figure = Picture(figsize=(columns * wide, rows * 1.55), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel()[len(found) :]:
        axes.axis("off")
    scheme = {"ACGT": "classic", "ACGU": "classic"}.get(letters, "chemistry")
    for axes, motif in zip(grid.ravel(), found):
        heights = pd.DataFrame(motif.bits, columns=list(letters))
        logomaker.Logo(heights, ax=axes, color_scheme=scheme, show_spines=False, baseline_width=0.5)
        low, middle, high = (first + round(value) for value in np.percentile(motif.starts, (25, 50, 75)))
        axes.set_title(f"filter {motif.filter}: {motif.sites} sites from {middle} ({low}..{high})", fontsize=8)
        axes.set(ylim=(0, math.log2(len(letters))), xticks=[])
        axes.tick_params(labelsize=7)
    for axes in grid[:, 0]:
        axes.set_ylabel("bits", fontsize=8)
    return finish(figure, save)


def _convolution(model, layer):
    convolutions = [found for found in model.layers if isinstance(found, keras.layers.Conv2D)]
    if layer is not None:
        convolutions = [found for found in convolutions if found.name == layer]
    if not convolutions:
        raise InputError(f"the model has no Conv2D layer{'' if layer is None else f' named {layer!r}'}")
    found, letters = convolutions[0], model.input_shape[-1]
    plain = found.kernel_size[0] == 1 and set(found.strides + found.dilation_rate) == {1}
    if not plain or found.kernel.shape[2] != letters:
        raise InputError(
            f"the layer {found.name!r} has kernels of shape {tuple(found.kernel.shape)}: motifs are (1, k, {letters}, filters), "
            "on the letters themselves, without strides"
        )
    return found


def _matrix(sites):
    """Frequencies and bits, `(length, letters)`, of sites `(n, length, letters)`; gaps count for no letter."""
    counts = sites.sum(0)
    number = counts.sum(-1, keepdims=True)
    frequencies = counts / np.maximum(number, 1e-9)
    logarithms = np.log2(frequencies, out=np.zeros_like(frequencies), where=frequencies > 0)
    letters = counts.shape[-1]
    few = (letters - 1) / (2 * math.log(2) * np.maximum(number, 1e-9))
    information = math.log2(letters) + (frequencies * logarithms).sum(-1, keepdims=True) - few
    return frequencies, frequencies * np.maximum(information, 0)
