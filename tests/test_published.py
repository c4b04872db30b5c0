"""`published.csv`: every line a complete claim, and the same claim as in the package that it was read from."""

import csv
import importlib
import re
from importlib import resources

import keras
import numpy as np
import pytest

import cnn_zoo.assemble  # noqa: F401  (registers the nets)
from cnn_zoo.registry import PRESETS, SPECS
from cnn_zoo.weights.importers import pytorch

COLUMNS = "net tag urls hash bytes licence dataset layout preset size metric value measured_by source".split()
LICENCES = {
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC-BY-4.0",
    "MIT",
    "unrestricted",
}  # the last: BVLC's own word
LAYOUTS = {"keras", "image-classifiers", "efficientnet", "torch", "onnx", "darknet", "caffe"}
HASHES = r"hf|gcs|md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{8,64}"
CONSTRUCTORS = [name for name in dir(keras.applications) if name[0].isupper()]
KERAS = {f"keras_{name.lower()}": name for name in CONSTRUCTORS}
NO_HASH = {"MobileNet", "MobileNetV2"}  # of Keras' files; MobileNetV2's is stated elsewhere
FAST = {"VGG16", "MobileNetV3Small", "ResNet50"}


def read():
    with (resources.files("cnn_zoo.weights") / "published.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


ROWS = read()
BY_KEY = {(row["net"], row["tag"]): row for row in ROWS}


def test_columns_and_keys():
    with (resources.files("cnn_zoo.weights") / "published.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == COLUMNS
    assert len(ROWS) >= 176
    assert len(BY_KEY) == len(ROWS), "a net has two records of one tag"
    nets = {row["net"] for row in ROWS}
    assert nets == {net for net, tag in BY_KEY if tag == "imagenet"}, "a net has weights and none is the default"


def every(check):
    """A test that runs `check(row)` for every record and names those that fail."""

    def test():
        failures = []
        for (net, tag), row in BY_KEY.items():
            try:
                check(row)
            except AssertionError as error:
                failures.append(f"{net}:{tag}: {error}")
        assert not failures, "\n".join(failures)

    return test


@every
def test_record_is_complete(row):
    assert None not in row and None not in row.values(), "a line is longer or shorter than the header"
    assert all(value == value.strip() for value in row.values())
    assert row["net"] in SPECS or row["net"] in KERAS
    assert re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", row["tag"])
    assert row["licence"] in LICENCES
    assert row["layout"] in LAYOUTS
    assert row["preset"] in PRESETS
    assert "ImageNet-1k" in row["dataset"]
    assert row["source"]
    assert row["bytes"] == "" or int(row["bytes"]) > 1_000_000


@every
def test_record_can_be_fetched_and_verified(row):
    urls = row["urls"].split()
    assert urls and len(set(urls)) == len(urls)
    assert len({url.rpartition("/")[2] for url in urls}) == 1, "mirrors hold one file"
    for url in urls:
        assert re.fullmatch(r"https://[a-z0-9.-]+/[\w./+-]+\.(h5|safetensors|pth|onnx|caffemodel|weights)", url), url
    assert re.fullmatch(HASHES, row["hash"])
    if row["hash"] == "hf":
        assert all(url.startswith("https://huggingface.co/") for url in urls)
    if row["hash"] == "gcs":
        assert urls[0].startswith("https://storage.googleapis.com/")
    algorithm, _, digits = row["hash"].partition(":")
    if algorithm == "sha256" and len(digits) < 64:  # torchvision states the beginning, in the name of the file
        assert urls[0] == f"https://download.pytorch.org/models/{urls[0].rpartition('/')[2]}"
        assert urls[0].endswith(f"-{digits}.pth")


@every
def test_metric_is_a_whole_claim(row):
    claim = [row[column] for column in ("metric", "value", "measured_by")]
    assert all(claim) or not any(claim), "a score without its name, or without who measured it"
    if row["value"]:
        assert row["metric"] == "top-1 accuracy"
        assert 0.4 < float(row["value"]) < 0.9
    assert row["size"] == "" or (row["value"] and 96 <= int(row["size"]) <= 672)


def test_pytorch_files_are_of_nets_of_the_same_function():
    """Hugging Face's files are those of the net that the layout "torch" knows as the twin."""
    for row in (row for row in ROWS if row["layout"] == "torch"):
        twin = pytorch.SOURCES[row["net"]].removeprefix("timm ")
        name = row["urls"].split("/timm/")[-1].partition(".")[0] if "/timm/" in row["urls"] else None
        assert name in (None, twin), row["urls"]


def test_default_has_the_preset_of_its_row_or_is_alone_with_it():
    """`build(net, weights="imagenet")` normalises as `build(net)` wherever weights with the row's own preset exist."""
    for net in {row["net"] for row in ROWS} & SPECS.keys():
        presets = {tag: row["preset"] for (of, tag), row in BY_KEY.items() if of == net}
        if SPECS[net].preset in presets.values():
            assert presets["imagenet"] == SPECS[net].preset, net


class Asked(Exception):
    """What a constructor asked its downloader for."""


def asked(constructor, patch):
    """File name, address and hash of the weights that keras.applications would download; nothing is downloaded."""

    def get_file(fname=None, origin=None, *args, file_hash=None, **kwargs):
        raise Asked(fname, origin, file_hash)

    module = importlib.import_module(keras.applications.VGG16.__module__)
    patch.setattr(module.file_utils, "get_file", get_file)  # one module, which all constructors ask
    size = {"input_shape": (224, 224, 3)} if constructor.startswith("MobileNetV3") else {}  # it warns without
    with pytest.raises(Asked) as answer:
        getattr(keras.applications, constructor)(weights="imagenet", **size)
    return answer.value.args


@pytest.mark.parametrize(
    "constructor", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in CONSTRUCTORS]
)
def test_keras_names_the_same_file(constructor, monkeypatch):
    fname, origin, file_hash = asked(constructor, monkeypatch)
    rows = [row for row in ROWS if origin in row["urls"].split()]
    if constructor in NO_HASH:
        assert file_hash is None, "Keras states a hash now: add the record"
        assert rows and all(row["hash"] == "gcs" or row["hash"].startswith("sha256:") for row in rows)
        return
    assert f"keras_{constructor.lower()}" in {row["net"] for row in rows}
    for row in rows:
        assert row["hash"] == f"{'sha256' if len(file_hash) == 64 else 'md5'}:{file_hash}"
        assert row["layout"] == "keras"


def test_every_constructor_of_keras_has_a_record():
    assert {net for net, tag in BY_KEY if net.startswith("keras_")} >= KERAS.keys()


def test_image_classifiers_lists_the_same_files():
    theirs = pytest.importorskip("classification_models.weights", reason="needs image-classifiers").WEIGHTS_COLLECTION
    wanted = {w["url"]: f"md5:{w['md5']}" for w in theirs if w["include_top"] and w["classes"] == 1000}
    ours = {row["urls"]: row["hash"] for row in ROWS if row["layout"] == "image-classifiers"}
    assert ours == wanted


def test_efficientnet_lists_the_same_files():
    theirs = pytest.importorskip("efficientnet.model", reason="needs efficientnet")
    if not hasattr(theirs, "WEIGHTS_HASHES"):
        pytest.skip("needs efficientnet 1.0.0")
    for i in range(8):
        row = BY_KEY[f"efficientnetb{i}", "imagenet_en"]
        assert row["hash"] == f"sha256:{theirs.WEIGHTS_HASHES[f'efficientnet-b{i}'][0]}"
        assert row["urls"].startswith(theirs.BASE_WEIGHTS_PATH)


def test_presets_are_those_of_the_packages():
    """Spot checks by numbers: what a published file expects of a mid-gray pixel."""
    gray = np.full(3, 128.0)

    def sees(net, tag="imagenet"):
        preset = PRESETS[BY_KEY[net, tag]["preset"]]
        return (gray - preset.mean) / preset.std

    np.testing.assert_allclose(sees("xception"), 128 / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(sees("vgg16"), [128 - 123.68, 128 - 116.779, 128 - 103.939], atol=1e-6)
    torch = (128 / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(sees("resnet50"), torch, atol=1e-6)
    np.testing.assert_allclose(sees("vgg16", "imagenet_tv1"), torch, atol=1e-6)
    np.testing.assert_allclose(sees("efficientnetb0", "advprop"), (128 / 255 - 0.5) / 0.5, atol=1e-6)
    np.testing.assert_allclose(sees("resnet18_ic"), gray)
