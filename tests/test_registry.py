"""The registry: duplicates raise, unknown names suggest, listings are in natural order."""

import dataclasses

import pytest

from cnn_zoo import SPECS, InputError, Weights, WeightsError, list_models, registry

RECORD = Weights(
    net="lenet", tag="test", file="x.safetensors", hash="sha256:" + "0" * 64, bytes=1, licence="CC0-1.0", dataset="none",
    classes=("a", "b"), preset="unit", source="a test",
)  # fmt: skip


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(registry, "SPECS", dict(SPECS))
    monkeypatch.setattr(registry, "WEIGHTS", {})


def test_a_second_net_of_the_same_name_raises():
    with pytest.raises(ValueError, match="'lenet' is already registered, by the family 'lenet'"):
        registry.add_spec(SPECS["lenet"])


def test_a_net_with_an_unknown_preset_raises():
    with pytest.raises(ValueError, match="unknown preset 'sepia'"):
        registry.add_spec(dataclasses.replace(SPECS["lenet"], name="other", preset="sepia"))


def test_a_row_must_say_everything():
    with pytest.raises(ValueError, match="'bare' lacks .*'params'"):
        registry.family({"bare": ()}, head=print)(lambda x, row: {})
    with pytest.raises(ValueError, match="does not know .*'colour'"):
        registry.family({}, colour="red")


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(InputError, match="did you mean 'lenet5'"):
        registry.get_spec("Lenet-5")


def test_weights_are_registered_once_and_for_a_known_net():
    registry.add_weights(RECORD)
    assert registry.get_weights("lenet", "test") is RECORD
    with pytest.raises(ValueError, match="already registered"):
        registry.add_weights(RECORD)
    with pytest.raises(ValueError, match="no registered net"):
        registry.add_weights(dataclasses.replace(RECORD, net="letnet"))
    with pytest.raises(ValueError, match="unknown preset"):
        registry.add_weights(dataclasses.replace(RECORD, tag="other", preset="sepia"))
    with pytest.raises(WeightsError, match="did you mean 'test'"):
        registry.get_weights("lenet", "tset")


def test_listing_filters_and_sorts_naturally():
    assert list_models("lenet*", family="lenet") == ["lenet", "lenet5", "lenet_relu", "lenet_sigmoid"]
    assert list_models(family="nothing") == []
    assert sorted(["vgg16", "vgg9", "vgg11"], key=registry.natural) == ["vgg9", "vgg11", "vgg16"]
    registry.add_weights(RECORD)
    assert registry.list_models(weights="*") == ["lenet"] and registry.list_models(weights="m*") == []
