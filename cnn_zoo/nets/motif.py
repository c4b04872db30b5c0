"""Motif nets: what one-hot sequences of nucleotides or amino acids are classified with, `(1, length, letters)`.

DeepBind: Alipanahi, Delong, Weirauch, Frey, "Predicting the sequence specificities of DNA- and RNA-binding proteins by deep learning", Nature
Biotechnology 33 (2015) 831-838: convolve with motif detectors, rectify, pool, weigh. Basset: Kelley, Snoek, Rinn, Genome Research 26 (2016)
990-999, keeps where a motif is, by maxima over stretches of 3 letters.

==============  ==========  ========  ============================================  ===================
row             motifs      letters   maxima over                                   order of motifs
==============  ==========  ========  ============================================  ===================
motif           16          24        the whole sequence                            does not matter
motif_places    16          11        stretches of 3                                matters
==============  ==========  ========  ============================================  ===================

A filter of size (1, k) over one-hot letters is a weight matrix that slides along the sequence. `motif` finds a site wherever it is, and takes
sequences of any length (`input_size=(1, None)`); `motif_places` is for sequences that are aligned, as promoters are by the start of
transcription.

Deviations: DeepBind's version without hidden layer and with maxima only; both rows have half of the pooled values dropped in training. Borders
are padded with nothing (0) so that as many places come out as letters went in.
"""

from typing import NamedTuple

from keras import layers as L

from cnn_zoo import blocks
from cnn_zoo.registry import family


class Row(NamedTuple):
    motifs: int
    letters: int  # that a motif is long
    stretch: int | None  # letters of which only the best place of a motif counts; None: the whole sequence
    params: int
    source: str


def head(x, classes, row):
    if row.stretch is None:
        x = L.GlobalMaxPooling2D(name="head_pool")(x)
    else:
        x = L.MaxPooling2D((1, row.stretch), padding="same", name="head_pool")(x)
        x = L.Flatten(name="head_flatten")(x)
    x = L.Dropout(0.5, name="head_dropout")(x)
    return L.Dense(classes, dtype="float32", name="logits")(x)


@family(
    {
        "motif": Row(16, 24, None, 16 * (24 * 4 + 1) + 2 * (16 + 1), "sum over 16 motifs of 24x4 and the dense layer"),
        "motif_places": Row(
            16, 11, 3, 16 * (11 * 4 + 1) + 2 * (16 * 19 + 1), "sum over 16 motifs of 11x4 and the dense layer"
        ),
    },
    head=head,
    size=(1, 57),
    channels=4,
    classes=2,
    preset="unit",
    paper="Alipanahi et al. 2015, DeepBind; Kelley et al. 2016, Basset",
)
def motif(x, row):
    return {1: blocks.conv(x, row.motifs, (1, row.letters), act="relu", name="motifs")}
