"""Files of the real keras.applications, image-classifiers and efficientnet, with random weights and random BatchNorm statistics, in our nets."""

import gzip
import json
import re
import zipfile
from typing import NamedTuple

import h5py
import keras
import numpy as np
import pytest
from keras import applications as A

import cnn_zoo
from cnn_zoo.errors import InputError, WeightsError
from cnn_zoo.registry import PRESETS, get_spec
from cnn_zoo.weights import assign
from cnn_zoo.weights.importers import LAYOUTS, convert, keras_h5

CLASSES = 7
KERAS = {  # our row: constructor, its arguments, size in pixels
    "vgg16": (A.VGG16, {}, 32),
    "vgg19": (A.VGG19, {}, 32),
    "inceptionv3": (A.InceptionV3, {}, 99),
    "inceptionresnetv2": (A.InceptionResNetV2, {}, 99),
    "xception": (A.Xception, {}, 97),
    "densenet121": (A.DenseNet121, {}, 64),
    "mobilenet_025": (A.MobileNet, {"alpha": 0.25}, 64),
    "mobilenet": (A.MobileNet, {}, 64),
    "mobilenetv2_035": (A.MobileNetV2, {"alpha": 0.35}, 64),
    "mobilenetv2_140": (A.MobileNetV2, {"alpha": 1.4}, 64),
    "nasnetmobile": (A.NASNetMobile, {}, 96),
    "nasnetlarge": (A.NASNetLarge, {}, 96),
    "efficientnetb0": (A.EfficientNetB0, {}, 64),
    "efficientnetb3": (A.EfficientNetB3, {}, 64),
    "resnet50v2": (A.ResNet50V2, {}, 64),
    "resnet101v2": (A.ResNet101V2, {}, 64),
}
ADAPTERS = {
    "keras_mobilenetv3small": (A.MobileNetV3Small, {}, 64),
    "keras_resnet50": (A.ResNet50, {}, 64),  # takes BGR
    "keras_inceptionv3": (A.InceptionV3, {}, 99),  # automatic names
    "keras_efficientnetb0": (A.EfficientNetB0, {}, 64),
    "keras_efficientnetv2b0": (A.EfficientNetV2B0, {}, 64),
    "keras_convnexttiny": (A.ConvNeXtTiny, {}, 64),  # nets inside the net
    "keras_nasnetmobile": (A.NASNetMobile, {}, 96),
    "keras_vgg16": (A.VGG16, {}, 32),
}
KERAS_AND_ADAPTERS = KERAS | ADAPTERS
CLASSIFIERS = {  # image-classifiers' name: ours
    "resnet18": "resnet18_ic",
    "resnet50": "resnet50_ic",
    "seresnet18": "seresnet18_ic",
    "resnext50": "resnext50_ic",
    "seresnet50": "seresnet50",
    "seresnext50": "seresnext50",
    "senet154": "senet154",
    "resnet50v2": "resnet50v2",
    "xception": "xception",
    "mobilenet": "mobilenet",
}
FAST = {
    *("vgg16", "xception", "mobilenet_025", "mobilenetv2_035", "efficientnetb0"),
    "keras_mobilenetv3small",
}
PIXELS = {"mean": np.array([0.485, 0.456, 0.406]), "variance": np.array([0.229, 0.224, 0.225]) ** 2}  # EfficientNet's


def rows(names, fast=FAST):
    return [pytest.param(name, marks=[] if name in fast else [pytest.mark.slow]) for name in names]


def randomise(model, rng):
    """Random numbers that keep the signal's scale; residual branches are damped, or rounding errors would grow from block to block."""
    for layer in model.layers:
        values = {variable.path.rpartition("/")[2]: variable.numpy() for variable in layer.weights}
        for name, array in values.items():
            depthwise = "Depthwise" in type(layer).__name__ or name == "depthwise_kernel"
            if name in ("beta", "bias", "moving_mean"):
                values[name] = rng.normal(0, 0.1, array.shape)
            elif name in ("gamma", "moving_variance"):
                values[name] = rng.uniform(0.5, 1.5, array.shape)
                if name == "gamma" and re.search("[b-z]_project_bn$|bn3$|^batch_norm", layer.name):
                    values[name] *= 0.6
            elif name in PIXELS:
                values[name] = np.reshape(PIXELS[name], array.shape)
            elif name != "count":
                fan = np.prod(array.shape[:2] if depthwise else array.shape[:-1])
                values[name] = rng.normal(0, np.sqrt(2 / fan), array.shape)
        if layer.name == "bn_data":  # of raw pixels
            values |= {"moving_mean": rng.uniform(100, 140, 3), "moving_variance": rng.uniform(3000, 5000, 3)}
        layer.set_weights(list(values.values()))
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def theirs_of(net, top=True):
    """Keras' net with random numbers, and its size."""
    constructor, arguments, size = KERAS_AND_ADAPTERS[net]
    if top:
        arguments = {**arguments, "classes": CLASSES, "classifier_activation": None}
    model = constructor(weights=None, include_top=top, input_shape=(size, size, 3), **arguments)
    randomise(model, np.random.default_rng(1))
    return model, size


def ours_of(net, size, top=True):
    if top:
        return cnn_zoo.build(net, classes=CLASSES, input_size=size, activation=None)
    return cnn_zoo.backbone(net, input_size=size)


def normalised(net, x):
    """Pixels as the peers' nets want them; Keras' EfficientNet and MobileNetV3 take them as they are."""
    if re.match("efficientnet|keras_mobilenetv3|keras_efficientnet|keras_convnext", net):
        return x
    preset = PRESETS[get_spec(net).preset]
    x = (x - np.float32(preset.mean)) / np.float32(preset.std)
    return x[..., ::-1] if preset.name == "caffe" else x


def images(size):
    return np.random.default_rng(2).integers(0, 256, (2, size, size, 3)).astype("float32")


def check(ours, net, layout, paths, x, expected):
    """Our net with the numbers of each file, which must be the same in all, gives what is expected."""
    assert np.ptp(expected, axis=0).max() > 1e-2 * np.abs(expected).max()  # it depends on the image
    first, *others = (convert(ours, net, path, layout) for path in paths)
    assign(ours, first, "these")
    for arrays in others:
        same(arrays, first)
    found = ours(x, training=False)
    found = np.asarray(found[max(found, key=int)] if isinstance(found, dict) else found)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def same(arrays, expected):
    assert arrays.keys() == expected.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(array, expected[path])


def forget_names(path):
    """As Keras before 3.9 wrote `.weights.h5`: layers numbered by class, no names."""
    with h5py.File(path, "r+") as file:
        for group in file["layers"].values():
            if "name" in group["vars"].attrs:
                del group["vars"].attrs["name"]


def write_legacy(path, layers, text=str.encode, chunks=None, variable="{layer}/{name}:0"):
    """A file as Keras 1 and 2 wrote it, from `{layer: {variable: array}}`; `chunks` splits the lists of names as they do beyond 64 kB."""
    with h5py.File(path, "w") as file:

        def write(group, attribute, names):
            names = [text(name) for name in names]
            if chunks:
                for i, start in enumerate(range(0, len(names), chunks)):
                    group.attrs[f"{attribute}{i}"] = names[start : start + chunks]
            else:
                group.attrs[attribute] = names

        write(file, "layer_names", ["input_1", *layers])
        file.create_group("input_1").attrs["weight_names"] = []
        for layer, variables in layers.items():
            group = file.create_group(layer)
            names = {variable.format(layer=layer, name=name): array for name, array in variables.items()}
            write(group, "weight_names", names)
            for name, array in names.items():
                group[name] = array


class Saved(NamedTuple):
    """What Keras wrote of one of its nets, and what it computes."""

    paths: list
    layers: dict
    ours: keras.Model
    arrays: dict
    x: np.ndarray
    expected: np.ndarray


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`saved(net)`: a net of Keras, in all its formats."""
    kept = {}

    def write(net):
        theirs, size = theirs_of(net)
        folder, x = tmp_path_factory.mktemp(net), images(size)
        paths = [folder / "net.h5", folder / "net.weights.h5", folder / "net.keras"]
        theirs.save(paths[0])
        theirs.save_weights(paths[1])
        theirs.save(paths[2])
        expected = np.asarray(theirs(normalised(net, x), training=False))
        ours, layers = ours_of(net, size), keras_h5.read(paths[0])
        return Saved(paths, layers, ours, convert(ours, net, paths[0], "keras"), x, expected)

    def of(net):
        it = kept.get(net) or write(net)
        if net in FAST:  # several tests use it
            kept[net] = it
        return it

    return of


@pytest.fixture
def mobilenet(saved):
    return saved("mobilenet_025")


# ---- keras.applications


@pytest.mark.parametrize("net", rows(KERAS))
def test_a_net_of_keras_gives_its_logits(net, saved):
    it = saved(net)
    check(it.ours, net, "keras", it.paths, it.x, it.expected)


@pytest.mark.parametrize("net", rows(KERAS, {"mobilenet_025"}))
def test_a_net_of_keras_without_top_gives_its_last_tap(net, tmp_path):
    theirs, size = theirs_of(net, top=False)
    x, path = images(size), tmp_path / "notop.h5"
    theirs.save(path)
    ours = ours_of(net, size, top=False)
    check(ours, net, "keras", [path], x, np.asarray(theirs(normalised(net, x), training=False)))
    with pytest.raises(WeightsError, match="layers not in the file: .*logits"):
        convert(ours_of(net, size), net, path, "keras")


def test_a_file_with_top_fills_a_backbone(mobilenet):
    trunk = ours_of("mobilenet_025", 64, top=False)
    arrays = convert(trunk, "mobilenet_025", mobilenet.paths[0], "keras")
    assign(trunk, arrays, "these")
    assert mobilenet.arrays.keys() - arrays.keys() == {"logits/kernel", "logits/bias"}
    same(arrays, {key: mobilenet.arrays[key] for key in arrays})


@pytest.mark.parametrize("net", rows(["mobilenet_025", "inceptionv3", "densenet121"]))
def test_files_that_tell_no_names_are_read_by_the_order_of_keras(net, saved, tmp_path):
    it, path = saved(net), tmp_path / "net.weights.h5"
    path.write_bytes(it.paths[1].read_bytes())
    forget_names(path)
    same(convert(it.ours, net, path, "keras"), it.arrays)
    with zipfile.ZipFile(it.paths[2]) as archive, zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        old.write(path, "model.weights.h5")
        old.writestr("config.json", archive.read("config.json"))  # of an archive, it tells the names
    same(convert(it.ours, net, tmp_path / "old.keras", "keras"), it.arrays)


@pytest.mark.parametrize("net", rows(ADAPTERS))
def test_an_adapter_gives_what_keras_gives(net, tmp_path):
    for top in (True, False):
        theirs, size = theirs_of(net, top)
        x = images(size)
        paths = [tmp_path / "net.h5", tmp_path / "net.weights.h5"]
        theirs.save(paths[0])
        theirs.save_weights(paths[1])
        if "convnext" in net and not top:  # ends in its head's normalisation all the same
            theirs = keras.Model(theirs.input, theirs.layers[-1].input)
        expected = np.asarray(theirs(normalised(net, x), training=False))
        check(ours_of(net, size, top), net, "keras", paths, x, expected)


# ---- older files, imitated


@pytest.mark.parametrize(
    "style",
    [
        {"text": str},
        {"chunks": 7},
        {"variable": "scope/{layer}_1/{name}_1:0"},
        {"text": np.bytes_, "chunks": 1, "variable": "{name}"},
    ],
)
def test_every_way_to_write_names(style, mobilenet, tmp_path):
    layers = {
        layer: {"depthwise_kernel" if layer.startswith("conv_dw") and name == "kernel" else name: array}
        if len(variables) == 1
        else variables
        for layer, variables in mobilenet.layers.items()
        for name, array in variables.items()
    }  # Keras 2 called it so
    write_legacy(tmp_path / "old.h5", layers, **style)
    same(convert(mobilenet.ours, "mobilenet_025", tmp_path / "old.h5", "keras"), mobilenet.arrays)


def test_names_of_keras_1(saved, tmp_path):
    it = saved("vgg16")
    layers = {layer: {"W": v["kernel"], "b": v["bias"]} for layer, v in it.layers.items()}
    write_legacy(tmp_path / "old.h5", layers, variable="{layer}_{name}_1:0")
    same(convert(it.ours, "vgg16", tmp_path / "old.h5", "keras"), it.arrays)
    write_legacy(
        tmp_path / "bn.h5",
        {"bn": dict.fromkeys(("gamma", "beta", "running_mean", "running_std"), np.ones(3))},
        variable="{layer}_{name}:0",
    )
    assert list(keras_h5.read(tmp_path / "bn.h5")["bn"]) == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_automatic_numbers_start_anywhere_and_grow_with_creation(saved, tmp_path):
    it = saved("xception")
    layers = it.layers
    automatic = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?")
    first = {kind: min(int(m[2] or 0) for m in map(automatic.fullmatch, layers) if m and m[1] == kind)
             for kind in ("conv2d", "batch_normalization")}  # fmt: skip
    for start in (0, 8, 98):
        renamed = {}
        for layer in reversed(layers):  # the order in the file means nothing
            name, match = layer, automatic.fullmatch(layer)
            if match:
                number = int(match[2] or 0) - first[match[1]] + start
                name = f"{match[1]}_{number}" if number else match[1]
            renamed[name] = layers[layer]
        write_legacy(tmp_path / f"{start}.h5", renamed)
        same(convert(it.ours, "xception", tmp_path / f"{start}.h5", "keras"), it.arrays)


@pytest.mark.parametrize("net", rows(["mobilenet_025", "efficientnetb0"], {"mobilenet_025"}))
def test_unknown_names_are_read_by_order_as_keras_does(net, saved, tmp_path):
    it = saved(net)
    layers = {f"layer{i}": variables for i, variables in enumerate(it.layers.values())}
    write_legacy(tmp_path / "old.h5", layers)
    same(convert(it.ours, net, tmp_path / "old.h5", "keras"), it.arrays)
    if net == "efficientnetb0":
        write_legacy(tmp_path / "old.h5", {k: v for k, v in layers.items() if "mean" not in v})
        same(convert(it.ours, net, tmp_path / "old.h5", "efficientnet"), it.arrays)
    swapped = dict(zip(layers, [*list(layers.values())[1::-1], *list(layers.values())[2:]]))
    write_legacy(tmp_path / "old.h5", swapped)
    with pytest.raises(WeightsError):
        assign(it.ours, convert(it.ours, net, tmp_path / "old.h5", "keras"), "it")


def test_a_slash_in_a_layers_name(tmp_path):
    """Keras 2's DenseNet has layers `conv1/conv` and `conv1/bn`."""
    layers = {"conv1/conv": {"kernel": np.ones((2, 3))}, "conv1/bn": {"gamma": np.ones(2), "beta": np.zeros(2)}}
    write_legacy(tmp_path / "old.h5", layers)
    assert {name: list(v) for name, v in keras_h5.read(tmp_path / "old.h5").items()} == {
        "conv1/conv": ["kernel"],
        "conv1/bn": ["gamma", "beta"],
    }
    twins = LAYOUTS["keras"].twins("densenet121", list(layers))
    assert twins == {"stem_conv": ("conv1/conv",), "stem_bn": ("conv1/bn",)}


def test_a_real_file_of_keras_2(shared, tmp_path):
    path = tmp_path / "legacy.h5"
    path.write_bytes(gzip.decompress(shared("reference/sm_fixtures/legacy_unet_resnet18.h5.gz").read_bytes()))
    about = json.loads(gzip.decompress(shared("reference/sm_fixtures/legacy_unet_resnet18.json.gz").read_bytes()))
    layers = keras_h5.read(path)
    found = {(layer, name): list(array.shape) for layer, v in layers.items() for name, array in v.items()}
    assert found == {(weight["layer"], weight["weight"]): weight["shape"] for weight in about["weights"]}
    with pytest.raises(
        WeightsError, match="21 layers in the file, unknown to the net: decoder.* not in the file: logits"
    ):
        convert(ours_of("resnet18_ic", 64), "resnet18_ic", path, "image-classifiers")


# ---- image-classifiers and efficientnet


@pytest.mark.parametrize("net", rows(CLASSIFIERS, {"resnet18"}))
def test_a_net_of_image_classifiers_gives_its_logits(net, tmp_path):
    Classifiers = pytest.importorskip("classification_models.tfkeras", reason="needs image-classifiers").Classifiers
    constructor, preprocess = Classifiers.get(net)
    against_peer(
        CLASSIFIERS[net], "image-classifiers", constructor, preprocess, 97 if net == "xception" else 64, tmp_path
    )


@pytest.mark.slow
@pytest.mark.parametrize("net", ["efficientnetb0", "efficientnetb3"])
def test_a_net_of_efficientnet_gives_its_logits(net, tmp_path):
    peer = pytest.importorskip("efficientnet.tfkeras", reason="needs efficientnet")
    constructor = getattr(peer, net.replace("efficientnetb", "EfficientNetB"))
    against_peer(net, "efficientnet", constructor, peer.preprocess_input, 64, tmp_path)


def against_peer(net, layout, constructor, preprocess, size, tmp_path):
    for top in (True, False):
        arguments = {"classes": CLASSES} if top else {}
        theirs = constructor(input_shape=(size, size, 3), weights=None, include_top=top, **arguments)
        randomise(theirs, np.random.default_rng(1))
        x = images(size)
        paths = [tmp_path / "net.h5", tmp_path / "net.weights.h5"]
        theirs.save(paths[0])
        theirs.save_weights(paths[1])
        if top:  # their logits are inside a softmax
            dense = next(layer for layer in reversed(theirs.layers) if layer.weights)
            trunk = keras.Model(theirs.input, dense.input)
            expected = np.asarray(trunk(preprocess(x.copy()), training=False)).reshape(2, -1)
            kernel, bias = dense.get_weights()
            expected = expected @ kernel.reshape(-1, CLASSES) + bias
        else:
            expected = np.asarray(theirs(preprocess(x.copy()), training=False))
        check(ours_of(net, size, top), net, layout, paths, x, expected)


# ---- strictness


def test_efficientnets_normalisation_is_accounted_for(saved, tmp_path):
    paths, layers, ours, expected, *_ = saved("efficientnetb0")
    statistics = next(name for name in layers if name.startswith("normalization"))

    def given(**changed):
        write_legacy(tmp_path / "n.h5", {**layers, statistics: {**layers[statistics], **changed}})
        return convert(ours, "efficientnetb0", tmp_path / "n.h5", "keras")

    same(given(variance=np.sqrt(PIXELS["variance"])), expected)  # what Keras' published files hold
    with pytest.raises(
        WeightsError, match="normalises pixels with mean .*variance .*use the net of keras.applications"
    ):
        given(mean=np.zeros(3))
    with pytest.raises(WeightsError, match="normalises pixels"):
        given(variance=np.ones(3))
    with pytest.raises(WeightsError, match="normalises pixels"):
        given(mean=np.zeros(1), variance=np.ones(1))
    without = {name: variables for name, variables in layers.items() if name != statistics}
    write_legacy(tmp_path / "none.h5", without)
    with pytest.raises(WeightsError, match="1 layers not in the file: normalization"):
        convert(ours, "efficientnetb0", tmp_path / "none.h5", "keras")
    same(convert(ours, "efficientnetb0", tmp_path / "none.h5", "efficientnet"), expected)
    with pytest.raises(WeightsError, match="1 layers in the file, unknown to the net: normalization"):
        convert(ours, "efficientnetb0", paths[0], "efficientnet")


def test_what_differs_is_listed(mobilenet, tmp_path):
    paths, layers, ours, *_ = mobilenet
    net = "mobilenet_025"

    def given(layers, net=net, ours=ours, layout="keras"):
        write_legacy(tmp_path / "x.h5", layers)
        return convert(ours, net, tmp_path / "x.h5", layout)

    without = {name: variables for name, variables in layers.items() if name not in ("conv1", "conv_pw_3")}
    with pytest.raises(WeightsError, match="2 layers not in the file: s2_b2_pw_conv, stem_conv|s3_b1_pw_conv"):
        given(without)
    more = {**layers, "conv_pw_14": {"kernel": np.ones(1)}, "conv2d": {"kernel": np.ones(1)}}
    with pytest.raises(WeightsError, match="2 layers in the file, unknown to the net: conv2d, conv_pw_14"):
        given(more)
    less = {**layers, "conv1_bn": {k: v for k, v in layers["conv1_bn"].items() if k != "moving_mean"}}
    with pytest.raises(WeightsError, match="1 not in the file: stem_bn/moving_mean"):
        assign(ours, given(less), "it")
    twice = {**layers, "conv1_bn": {**layers["conv1_bn"], "other": np.ones(8)}}
    with pytest.raises(WeightsError, match="1 not in the model: stem_bn/other"):
        assign(ours, given(twice), "it")
    with pytest.raises(WeightsError, match=r"of another shape: .*in the file"):
        wide = ours_of("mobilenet_050", 64)
        assign(wide, given(layers, "mobilenet_050", wide), "it")
    with pytest.raises(WeightsError, match="does not hold the weights of 'resnet18_ic'"):
        given(layers, "resnet18_ic", layout="image-classifiers")
    with pytest.raises(WeightsError, match="'resnext50_ic' has 512 layers conv2d, the file 0: it is of another net"):
        given(layers, "resnext50_ic", layout="image-classifiers")
    for other in ("lenet", "vgg16_bn", "mobilenetv3_small"):
        with pytest.raises(WeightsError, match=f"no net that computes what '{other}' does"):
            given(layers, other)
    with pytest.raises(WeightsError, match="no net that computes what 'mobilenet_025' does"):
        given(layers, layout="efficientnet")
    with pytest.raises(InputError, match="no layout 'kears'; there are .*keras"):
        convert(ours, net, paths[0], "kears")


def test_layers_that_nobody_names_are_refused(tmp_path):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))
    path = tmp_path / "x.weights.h5"
    model.save_weights(path)
    forget_names(path)
    assert list(keras_h5.read(path)) == ["layers/conv2d"]
    ours = ours_of("mobilenet_025", 64, top=False)
    with pytest.raises(WeightsError, match=r"does not tell the names .*save it there with model.save\('net.h5'\)"):
        convert(ours, "resnet18_ic", path, "image-classifiers")


def test_damaged_files_are_refused(mobilenet, tmp_path):
    whole, bad = mobilenet.paths[0].read_bytes(), tmp_path / "bad.h5"
    ours = mobilenet.ours
    for content in (b"", b"hello", whole[:1000], whole[: len(whole) // 2], whole[:-1], b"PK\x03\x04" + whole[4:2000]):
        bad.write_bytes(content)
        with pytest.raises(WeightsError, match="bad.h5' is not a whole Keras file .*: get it again"):
            convert(ours, "mobilenet_025", bad, "keras")
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match="is not a whole Keras file"):
        keras_h5.read(bad)
    with h5py.File(bad, "w") as file:
        file["x"] = np.ones(3)
    with pytest.raises(WeightsError, match="not one in which Keras saved"):
        keras_h5.read(bad)
    with h5py.File(bad, "w") as file:
        file.attrs["layer_names"] = ["conv1"]
    with pytest.raises(WeightsError, match="is not a whole Keras file"):
        keras_h5.read(bad)
    write_legacy(bad, {})
    with pytest.raises(WeightsError, match="has no layer with weights"):
        keras_h5.read(bad)
    with pytest.raises(WeightsError, match="no weights file"):
        convert(ours, "mobilenet_025", tmp_path / "nothing.h5", "keras")
