"""Motif nets against NumPy, and the logos of their filters against sites that were planted."""

import sys

import keras
import matplotlib.image
import numpy as np
import pytest
from scipy.stats import entropy

from cnn_zoo import InputError, build
from cnn_zoo.data import one_hot
from cnn_zoo.errors import MissingExtraError
from cnn_zoo.explain import motif_logos, motifs


def convolved(images, kernel, bias):
    """`(n, length, filters)` by sums over windows, with nothing beyond the ends."""
    width = kernel.shape[1]
    first = (width - 1) // 2
    x = np.pad(images[:, 0] / 255, ((0, 0), (first, width - 1 - first), (0, 0)))
    return (
        np.stack([np.tensordot(x[:, i : i + width], kernel[0], ([1, 2], [0, 1])) for i in range(images.shape[2])], 1)
        + bias
    )


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture
def sequences(rng):
    return one_hot(["".join(row) for row in rng.choice(list("ACGT"), (12, 30))])


@pytest.mark.parametrize("name", ["motif", "motif_places"])
def test_nets_are_what_they_say(name, sequences, rng):
    model = build(name, input_size=(1, 30))
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    kernel, bias, dense, offset = model.get_weights()
    maps = np.maximum(convolved(sequences, kernel, bias), 0)
    pooled = maps.max(1) if name == "motif" else maps.reshape(12, 10, 3, 16).max(2).reshape(12, 160)
    np.testing.assert_allclose(
        model.predict(sequences, verbose=0), softmax(pooled @ dense + offset), rtol=1e-4, atol=1e-6
    )


def test_any_length_and_alphabet():
    model = build("motif", classes=3, input_size=(1, None), channels=20)
    assert model.input_shape == (None, 1, None, 20)
    for length in (5, 40):
        assert model.predict(one_hot(["ACDEFGHIKLMNPQRSTVWY" * 2] * 2, "protein", length), verbose=0).shape == (2, 3)
    assert build("motif_places", input_size=(1, 300), channels=20).output_shape == (None, 2)


def with_filters(consensus, padding="same", length=30):
    """A model whose filter i counts the letters that agree with `consensus[i]`, less half of them."""
    width = len(consensus[0])
    inputs = keras.Input((1, length, 4))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(len(consensus), (1, width), padding=padding, name="filters")(x)
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(x))
    kernel = one_hot(consensus).astype("float32").transpose(1, 2, 3, 0) / 255
    model.set_weights([kernel, np.full(len(consensus), -width / 2, "float32")])
    return model


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("consensus", ["TTGACA", "TATAATG"])
def test_planted_sites_are_found_where_they_are(padding, consensus, rng):
    texts, places = ["".join(row) for row in rng.choice(list("CG"), (40, 30))], rng.integers(0, 31 - len(consensus), 40)
    texts = [text[:i] + consensus + text[i + len(consensus) :] for text, i in zip(texts, places)]
    (motif,) = motifs(with_filters([consensus], padding), one_hot(texts), threshold=0.9)
    assert (
        motif.sites == 40
        and motif.rows.tolist() == list(range(40))
        and motif.starts.tolist() == places.tolist()
        and motif.consensus() == consensus
    )
    np.testing.assert_array_equal(motif.frequencies, one_hot([consensus])[0, 0] / 255)
    expected = 2 - 3 / (2 * np.log(2) * 40)  # a letter that never changes: two bits, less the correction for 40 sites
    np.testing.assert_allclose(motif.bits.sum(-1), expected, rtol=1e-6)


def test_the_rule_against_a_loop(sequences):
    """Counted window by window, with SciPy's entropy."""
    consensus = ["ACGT", "GGTT", "TATA"]
    model = with_filters(consensus)
    kernel, bias = model.get_weights()
    scores = convolved(sequences, kernel, bias)
    letters = np.array(list("ACGT"))[sequences[:, 0].argmax(-1)]
    for number, motif in enumerate(motifs(model, sequences, layer="filters", threshold=0.4)):
        # Output i of a filter of 4 is of the window from i - 1 to i + 2.
        whole = scores[:, 1:28, number]
        sites = [(n, start) for n in range(12) for start in range(27) if whole[n, start] > 0.4 * whole.max()]
        counts = np.array([[sum(letters[n, s + k] == letter for n, s in sites) for letter in "ACGT"] for k in range(4)])
        assert motif.sites == len(sites) > 3 and motif.starts.tolist() == [start for _, start in sites]
        frequencies = counts / len(sites)
        np.testing.assert_allclose(motif.frequencies, frequencies)
        bits = np.maximum(2 - entropy(frequencies, base=2, axis=-1) - 3 / (2 * np.log(2) * len(sites)), 0)
        np.testing.assert_allclose(motif.bits, frequencies * bits[:, None], atol=1e-9)
        assert motif.information == pytest.approx(bits.sum())


def test_filters_that_never_rise_have_no_sites():
    dead, alive = motifs(with_filters(["AAAAA", "CCCCC"]), one_hot(["C" * 30] * 3))
    assert dead.sites == 0 and dead.information == 0 and dead.consensus() == "-----" and not dead.frequencies.any()
    assert alive.sites == 3 * 26
    with pytest.raises(InputError, match="no filter rises above 0"):
        motif_logos(with_filters(["AAAAA"]), one_hot(["C" * 30]))


def test_ambiguous_letters_and_gaps_are_shared_out():
    (motif,) = motifs(with_filters(["AAAA"], length=4), one_hot(["AARA", "AAR-"]))
    np.testing.assert_allclose(motif.frequencies, [[1, 0, 0, 0], [1, 0, 0, 0], [0.5, 0, 0.5, 0], [1, 0, 0, 0]])


def test_the_picture(tmp_path, sequences):
    figure = motif_logos(
        with_filters(["ACGTA", "GGGTT", "TATAC"]), sequences, first=-10, count=2, save=tmp_path / "x.png"
    )
    assert len(figure.axes) == 2 and all("sites from" in axes.get_title() for axes in figure.axes)
    picture = matplotlib.image.imread(tmp_path / "x.png")[..., :3]
    colored = (np.ptp(picture, axis=-1) > 0.3).mean()
    assert colored > 0.02  # letters of four colours cover some of it
    protein = build("motif", input_size=(1, 40), channels=20)
    texts = one_hot(["ACDEFGHIKLMNPQRSTVWY" * 2] * 3, "protein")
    assert motif_logos(protein, texts, letters="ACDEFGHIKLMNPQRSTVWY", count=5).axes


def test_bad_input_is_said_in_a_sentence(monkeypatch, sequences):
    model = with_filters(["ACGTA"])
    with pytest.raises(InputError, match="threshold is a fraction"):
        motifs(model, sequences, threshold=1.5)
    with pytest.raises(InputError, match=r"sequences are \(n, 1, length, 4\)"):
        motifs(model, sequences[:, 0])
    with pytest.raises(InputError, match="no Conv2D layer named 'nothing'"):
        motifs(model, sequences, layer="nothing")
    with pytest.raises(InputError, match=r"motifs are \(1, k, 1, filters\)"):
        motifs(build("lenet"), sequences)
    with pytest.raises(InputError, match="5 letters long and the sequences 3"):
        motifs(with_filters(["ACGTA"], length=None), sequences[:, :, :3])
    with pytest.raises(InputError, match="4 channels and 20 letters"):
        motif_logos(model, sequences, letters="ACDEFGHIKLMNPQRSTVWY")
    monkeypatch.setitem(sys.modules, "logomaker", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cnn-zoo\[sequences\]'"):
        motif_logos(model, sequences)


@pytest.mark.slow
def test_a_trained_net_finds_what_was_planted(rng):
    """Half of the sequences have TATAAT somewhere; the net is told which, not what or where, and a logo shows it."""
    texts = ["".join(row) for row in rng.choice(list("ACGT"), (400, 40))]
    places = rng.integers(0, 35, 200)
    texts[:200] = [text[:i] + "TATAAT" + text[i + 6 :] for text, i in zip(texts, places)]
    images, labels = one_hot(texts), np.repeat([1, 0], 200)
    model = build("motif", input_size=(1, 40))
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    model.fit(images, labels, epochs=30, batch_size=32, verbose=0)
    best = max(motifs(model, images[:200]), key=lambda motif: motif.bits.sum(-1).max() if motif.sites > 50 else 0)
    assert "TATAAT" in best.consensus().upper()
    offset = best.consensus().upper().index("TATAAT")
    assert (best.starts + offset == places[best.rows]).mean() > 0.8
    assert best.bits[offset : offset + 6].sum() > 0.6 * best.information
