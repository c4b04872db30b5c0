"""Sequences as images: the letters, the codes of IUPAC, and files that are none."""

import numpy as np
import pytest

from cnn_zoo import DataError, InputError
from cnn_zoo.data import from_fasta, from_sequence_table, from_sequences, k_fold, one_hot
from cnn_zoo.data.sequences import LETTERS, read_fasta


def test_letters_are_channels():
    images = one_hot(["ACGT", "ttga"])
    assert images.shape == (2, 1, 4, 4) and images.dtype == np.uint8
    assert np.array_equal(images[0, 0], 255 * np.eye(4)) and images[1, 0].argmax(-1).tolist() == [3, 3, 2, 0]
    assert np.array_equal(one_hot(["ACGU"], "rna"), images[:1]) and np.array_equal(one_hot(["ACGU"]), images[:1])
    protein = one_hot([LETTERS["protein"]], "protein")
    assert np.array_equal(protein[0, 0], 255 * np.eye(20))


def test_codes_of_iupac():
    """Against Biopython's tables, written out: ambiguous_dna_values and extended protein letters."""
    values = dict(
        A="A",
        C="C",
        G="G",
        T="T",
        M="AC",
        R="AG",
        W="AT",
        S="CG",
        Y="CT",
        K="GT",
        V="ACG",
        H="ACT",
        D="AGT",
        B="CGT",
        X="GATC",
        N="GATC",
    )
    images = one_hot(["".join(values)])
    assert images.dtype == np.float32
    for position, meaning in enumerate(values.values()):
        expected = [255 / len(meaning) if letter in meaning else 0 for letter in "ACGT"]
        np.testing.assert_allclose(images[0, 0, position], expected, rtol=1e-6)
    acids = one_hot(["BZJX-*"], "protein")[0, 0]
    for row, meaning in zip(acids, ("DN", "EQ", "IL", LETTERS["protein"], "", "")):
        np.testing.assert_allclose(
            row, [255 / len(meaning) if x in meaning else 0 for x in LETTERS["protein"]], rtol=1e-6
        )


def test_lengths():
    assert one_hot(["ACG", "A"], length=2)[..., 0].tolist() == [[[255, 0]], [[255, 0]]]
    with pytest.raises(DataError, match="1 to 3 letters long: give length="):
        one_hot(["ACG", "A"])
    with pytest.raises(DataError, match="sequence 1 is empty"):
        one_hot(["ACG", ""], length=3)
    with pytest.raises(DataError, match="there are no sequences"):
        one_hot([])
    with pytest.raises(DataError, match="1 thing.* sequence 1 has 'E', 'é', which no dna sequence has"):
        one_hot(["ACG", "AéE"])
    with pytest.raises(InputError, match="kind is one of dna, rna, protein"):
        one_hot(["A"], "xna")
    with pytest.raises(InputError, match="length is a whole number"):
        one_hot(["A"], length=0)


def test_fasta_files(tmp_path):
    (tmp_path / "pos.fasta").write_text(">one | class=x\nAC\ngt\n\n>two | class=y\nTTTT\n")
    (tmp_path / "neg.fasta").write_text(">three\nCCCC\n>four\nCCCA\n")
    assert read_fasta(tmp_path / "pos.fasta") == (["one | class=x", "two | class=y"], ["ACgt", "TTTT"])
    data = from_fasta([tmp_path / "pos.fasta", tmp_path / "neg.fasta"], test=0.5)
    assert (
        data.classes == ("neg", "pos")
        and data.test.images.shape == (2, 1, 4, 4)
        and "dna sequences one-hot" in data.source
    )
    named = from_fasta({"no": tmp_path / "neg.fasta", "yes": tmp_path / "pos.fasta"}, classes=["yes", "no"])
    assert named.train.labels.tolist() == [1, 1, 0, 0] and named.train.names[0] == "three"
    one = from_fasta(tmp_path / "pos.fasta", label=lambda header: header.split("=")[1])
    assert one.classes == ("x", "y")
    with pytest.raises(InputError, match="one FASTA file needs label="):
        from_fasta(tmp_path / "pos.fasta")
    for content, message in (("ACGT\n", "no FASTA file: line 1 stands before"), ("", "has no sequences")):
        (tmp_path / "bad.fasta").write_text(content)
        with pytest.raises(DataError, match=message):
            read_fasta(tmp_path / "bad.fasta")
    with pytest.raises(DataError, match="cannot read"):
        read_fasta(tmp_path / "none.fasta")


def test_labels():
    assert from_sequences(["A", "C", "G"], ["10", "9", "9"]).classes == ("9", "10")
    assert from_sequences(["A", "C"], [1, 0], classes=["x", "y"]).train.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="all 2 sequences are of one class"):
        from_sequences(["A", "C"], ["x", "x"])
    with pytest.raises(DataError, match="2 sequences and labels of shape"):
        from_sequences(["A", "C"], ["x"])
    with pytest.raises(DataError, match="'z' is none of the classes x, y"):
        from_sequences(["A", "C"], ["x", "z"], classes=["x", "y"])


def test_tables_of_sequences(tmp_path):
    (tmp_path / "t.csv").write_text("label,sequence\nx,ACGT\ny,TTTT\ny\n")
    with pytest.raises(DataError, match="1 thing.* line 4: 1 fields, where 2 are expected"):
        from_sequence_table(tmp_path / "t.csv")
    with pytest.warns(UserWarning, match="left out 1: line 4"):
        assert len(from_sequence_table(tmp_path / "t.csv", on_error="skip").train) == 2


def test_promoters(shared):
    """UCI's E. coli promoters: 106 sequences of 57 nucleotides, half of them promoters; the first is S10."""
    data = from_sequence_table(
        shared("data/promoters.data"), sequence_column=2, label_column=0, name_column=1, classes=["-", "+"]
    )
    assert data.train.images.shape == (106, 1, 57, 4) and data.train.images.dtype == np.uint8
    assert np.bincount(data.train.labels).tolist() == [53, 53] and data.train.labels[0] == 1
    letters = np.array(list("acgt"))[data.train.images[0, 0].argmax(-1)]
    assert "".join(letters) == "tactagcaatacgcttgcgttcggtggttaagtatgtataatgcgcgggcttgtcgt"
    assert (data.train.images.sum(-1) == 255).all()
    assert sum(1 for _ in k_fold(data, 106)) == 106  # leave-one-out
