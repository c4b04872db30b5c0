"""Intensity rules against NumPy twins, and on the HeLa images whose values all lie between 33,000 and 36,900."""

import json

import numpy as np
import pytest

from cnn_zoo import InputError
from cnn_zoo.data.arrays import to_contract
from cnn_zoo.data.intensity import RULES, Intensity


@pytest.fixture
def deep(rng):
    """Images of two bands and several sizes, far from 0, uint16."""
    return [
        (rng.normal(size=(h, w, 2)) * [300, 20] + [35_000, 900]).clip(0, 65535).astype("uint16")
        for h, w in ((9, 7), (20, 30), (5, 5), (31, 4))
    ]


def pixels(images):
    return np.concatenate([image.reshape(-1, image.shape[-1]) for image in images]).astype("float64")


def test_by_dtype(rng):
    logical, byte = rng.integers(0, 2, (4, 5, 1)).astype(bool), rng.integers(0, 256, (4, 5, 3)).astype("uint8")
    rule = Intensity()
    assert np.array_equal(rule.apply(logical), np.where(logical, 255, 0)) and rule.apply(logical).dtype == np.uint8
    assert rule.apply(byte) is byte
    word = rng.integers(0, 65536, (4, 5, 1)).astype("uint16")
    np.testing.assert_allclose(rule.apply(word), word / 257, rtol=1e-6)
    assert rule.apply(np.full((1, 1, 1), 65535, "uint16")).item() == 255
    for dtype in ("int16", "int64", "float16", "float32", "float64"):
        found = rule.apply(byte.astype(dtype))
        assert found.dtype == np.float32 and np.array_equal(found, byte)
    for values in (logical, byte, word, byte.astype("float64")):  # as arrays in memory are brought to the contract
        assert np.array_equal(rule.apply(values), to_contract(values[None])[0][0])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[[256.0]]]), "float64 values from 256 to 256, and float images must hold 0..255"),
        (np.array([[[-1]]]), "int64 values from -1 to -1, and integer images must hold 0..65535 as uint16, or 0..255"),
        (np.array([[[np.nan]]]), "from nan to nan"),
        (np.array([[[1j]]]), "must be numbers, not complex"),
        (np.array([[["a"]]]), "must be numbers"),
    ],
)
def test_values_that_no_type_explains(values, words):
    with pytest.raises(InputError, match=words):
        Intensity().apply(values)


def test_range(rng):
    values = rng.integers(0, 65536, (6, 5, 2)).astype("uint16")
    found = Intensity("range", 1000, 5095).apply(values)
    twin = np.clip((values.astype("float64") - 1000) / 4095 * 255, 0, 255)
    assert found.dtype == np.float32 and np.allclose(found, twin, atol=1e-4)
    bands = Intensity("range", (0, 100), (65535, 200)).apply(values)
    twin = np.clip((values - np.array([0, 100.0])) / [65535, 100] * 255, 0, 255)
    assert np.allclose(bands, twin, atol=1e-4)
    assert Intensity("range", -1, 1).apply(np.array([[[-1.0, 0, 1, 7]]])).tolist() == [[[0, 127.5, 255, 255]]]


@pytest.mark.parametrize("percentiles", [(0.1, 99.9), (0, 100), (25, 75), (1.234, 98.7)])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8", "int8", "bool"])
def test_percentiles_of_integers_are_numpys(rng, percentiles, dtype):
    images = [rng.integers(0, 2, (9, 8, 2)).astype(bool) for _ in range(3)]
    if dtype != "bool":
        info = np.iinfo(dtype)
        spread = (info.max // 8, info.max // 20)
        images = [
            (rng.normal(size=(9, 8, 2)) * spread + info.max // 3).clip(info.min, info.max).astype(dtype)
            for _ in range(3)
        ]
    fitted = Intensity("percentiles", percentiles=percentiles).fit(iter(images))
    twin = np.percentile(pixels(images), percentiles, axis=0)
    np.testing.assert_allclose([fitted.low, fitted.high], twin, rtol=1e-12)
    assert fitted.images == 3 and fitted.fitted
    found = fitted.apply(images[0])
    expected = np.clip((images[0] - twin[0]) / (twin[1] - twin[0]) * 255, 0, 255)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_percentiles_of_floats(rng):
    """Exact while all pixels fit into the sample; near them, and the same each time, when they do not."""
    few = [rng.normal(size=(30, 20, 2)) for _ in range(4)]
    fitted = Intensity("percentiles", percentiles=(2, 98)).fit(few)
    np.testing.assert_allclose([fitted.low, fitted.high], np.percentile(pixels(few), (2, 98), axis=0))
    many = [rng.normal(size=(200, 200, 1)) for _ in range(6)]
    fitted = Intensity("percentiles", percentiles=(2, 98)).fit(iter(many))  # 10,000 of each
    again = Intensity("percentiles", percentiles=(2, 98)).fit(iter(many))
    assert fitted == again
    twin = np.percentile(pixels(many), (2, 98), axis=0)
    assert 0 < np.abs(np.array([fitted.low, fitted.high]) - twin).max() < 0.05


def test_standardise(deep):
    fitted = Intensity("standardise").fit(deep)
    everything = pixels(deep)
    np.testing.assert_allclose(fitted.mean, everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(fitted.std, everything.std(0), rtol=1e-9)
    twin = np.clip(127.5 + 51 * (deep[1] - everything.mean(0)) / everything.std(0), 0, 255)
    np.testing.assert_allclose(fitted.apply(deep[1]), twin, atol=1e-3)
    flat = Intensity("standardise").fit([np.full((4, 4, 1), 7, "uint8")])
    assert np.array_equal(flat.apply(np.full((4, 4, 1), 7, "uint8")), np.full((4, 4, 1), 127.5))
    assert np.array_equal(flat.apply(np.full((4, 4, 1), 9, "uint8")), np.full((4, 4, 1), 127.5))


def test_minmax_is_of_each_image(deep):
    rule = Intensity("minmax")
    batch = np.stack([deep[0], deep[0] // 2])
    for image, found in zip(batch, rule.apply(batch)):
        values = image.astype("float64")
        np.testing.assert_allclose(found, 255 * (values - values.min()) / np.ptp(values), atol=1e-4)
        assert np.array_equal(found, rule.apply(image))
    assert not rule.apply(np.full((4, 4, 3), 77.0)).any()


def test_only_two_rules_are_fitted(deep):
    for rule in (Intensity(), Intensity("range", 0, 1), Intensity("minmax")):
        assert rule.fitted and rule.fit(deep) is rule
    for name in ("percentiles", "standardise"):
        assert not Intensity(name).fitted
        with pytest.raises(InputError, match=f"the rule '{name}' has no numbers yet: .*fit"):
            Intensity(name).apply(deep[0])


@pytest.mark.parametrize("name", ["percentiles", "standardise"])
def test_training_images_that_do_not_fit(name, deep):
    rule = Intensity(name)
    with pytest.raises(InputError, match="no training images"):
        rule.fit([])
    with pytest.raises(InputError, match=r"image 1 has 1 band\(s\) and those before it 2"):
        rule.fit([deep[0], deep[1][..., :1]])
    with pytest.raises(InputError, match="image 0 is uint16 of shape"):
        rule.fit(deep[0])
    with pytest.raises(InputError, match="NaN"):
        rule.fit([np.full((4, 4, 1), np.nan)])
    with pytest.raises(InputError, match="has 2 bands and the image 3"):
        rule.fit(deep).apply(np.zeros((4, 4, 3), "uint16"))
    with pytest.raises(InputError, match="NaN"):
        rule.fit(deep).apply(np.full((4, 4, 2), np.inf))


def test_percentiles_of_nothing_but_one_value():
    with pytest.raises(InputError, match=r"percentiles \(0.1, 99.9\) of band 0 are both 7: give wider ones"):
        Intensity("percentiles").fit([np.full((9, 9, 1), 7, "uint8")])
    with pytest.raises(InputError, match="bring them to one type"):
        Intensity("percentiles").fit([np.arange(9, dtype="uint8").reshape(3, 3, 1), np.zeros((3, 3, 1), "float32")])


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "auto"}, {"rule": "range"}, {"rule": "range", "low": 0}, {"rule": "range", "low": 5, "high": 5},
        {"rule": "range", "low": (0, 1), "high": 5}, {"rule": "range", "low": (0, 1), "high": (5, 6, 7)},
        {"rule": "range", "low": "a", "high": 5}, {"rule": "range", "low": np.nan, "high": 5},
        {"rule": "percentiles", "percentiles": (5, 5)}, {"rule": "percentiles", "percentiles": (0, 101)},
        {"rule": "percentiles", "percentiles": 5},
    ],
)  # fmt: skip
def test_rules_that_are_none(options):
    with pytest.raises(InputError):
        Intensity(**options)


@pytest.mark.parametrize("name", RULES)
def test_description(name, deep):
    """Plain values, from which the same rule is made again."""
    rule = (Intensity(name, 0, 4095) if name == "range" else Intensity(name)).fit(deep)
    described = json.loads(json.dumps(rule.describe()))
    assert Intensity.from_description(described) == rule and described["sentence"] == str(rule)
    words = {"dtype": "divided by 257", "range": "from 0 to 4095", "minmax": "each image"}
    assert words.get(name, "of 4 training images") in str(rule)
    if not name.startswith(("percent", "stand")):
        return
    assert "not fitted yet" in str(Intensity(name))


def test_hela_becomes_visible_by_a_stated_rule(shared):
    """By its type alone an image is 16 levels of mid gray; by percentiles of all four it fills the range and brightness stays comparable."""
    with np.load(shared("data/microscopy/nuclei.npz")) as arrays:
        images = [arrays[name][..., None] for name in arrays if "HeLa" in name and name.endswith("image")]
    assert len(images) == 4 and min(image.min() for image in images) > 33_000
    plain = Intensity().apply(images[0])
    assert np.ptp(plain) < 16 and plain.min() > 127
    fitted = Intensity("percentiles").fit(images)
    np.testing.assert_allclose([fitted.low[0], fitted.high[0]], np.percentile(images, (0.1, 99.9)))
    seen = np.stack([fitted.apply(image) for image in images])
    assert seen.min() == 0 and seen.max() == 255 and len(np.unique(np.rint(seen))) > 200
    order = np.argsort([image.mean() for image in images])
    assert np.array_equal(order, np.argsort(seen.mean((1, 2, 3))))
