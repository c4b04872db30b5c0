"""segmentation_models over this package: its counts, its outputs, its weights, and the package itself where it is installed."""

import dataclasses
import gzip
import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import cnn_zoo.compat.segmentation_models as sm
from cnn_zoo import assemble
from cnn_zoo.compat import sm_backbones, sm_weights
from cnn_zoo.decoders.pspnet import GridPooling2D, ResizeLike
from cnn_zoo.errors import InputError, WeightsError
from cnn_zoo.registry import DECODERS, WEIGHTS

KINDS = ("Unet", "FPN", "Linknet", "PSPNet")
BACKBONES = list(sm_backbones.BACKBONES)


def size(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def check_counts(backbone, variant, row):
    """All counts of one model: in all, trainable, and trainable with a frozen encoder."""
    kind = variant.partition("/")[0]
    args = {"input_shape": tuple(row["input"][1:]), "encoder_weights": None} | row["args"]
    model = getattr(sm, kind)(backbone, encoder_freeze=True, **args)
    said = f"{backbone} {variant}"
    assert model.count_params() == row["params"], said
    assert size(model.trainable_weights) == row["encoder_frozen_trainable"], said
    sm.utils.set_trainable(model)
    assert size(model.trainable_weights) == row["trainable"], said
    groups = sum(getattr(layer, "groups", 1) - 1 for layer in model.layers)
    assert len(model.weights) + groups == row["weight_tensors"], said
    keras.utils.clear_session()


def table(shared):
    return json.loads(shared("reference/segmentation_models.json").read_text())["segmentation"]


@pytest.mark.parametrize(
    ("backbone", "variant"),
    [
        ("resnet18", "Unet/transpose"),
        ("resnet18", "PSPNet/ds16"),
        ("vgg16", "PSPNet/max,nobn,drop,256"),
        ("vgg16", "Linknet"),
        ("efficientnetb0", "FPN"),
        ("seresnext50", "PSPNet"),
    ],
)
def test_counts(shared, backbone, variant):
    check_counts(backbone, variant, table(shared)[backbone]["models"][variant])


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_all_counts(shared, backbone):
    models = table(shared)[backbone]["models"]
    assert set(KINDS) <= set(models)
    for variant, row in models.items():
        check_counts(backbone, variant, row)


@pytest.mark.slow
def test_there_are_128_pairs(shared):
    rows = table(shared)
    assert set(rows) == set(BACKBONES)
    assert sum(kind in rows[backbone]["models"] for backbone in rows for kind in KINDS) == 128


def rule(weights, tile=False):
    """The fixtures' weights, `{layer: {variable: array}}`: functions of each one's place in the old order, its kind and its shape."""
    found = {}
    for row in weights:
        i, kind, shape = row["i"], row["weight"], row["shape"]
        random = np.random.RandomState(i)
        draw = random.random_sample if kind == "moving_variance" else random.standard_normal
        x = np.resize(draw(251), np.prod(shape)).reshape(shape) if tile else draw(tuple(shape))
        if kind == "moving_variance":
            x = x + 0.5
        elif kind in ("gamma", "beta", "bias", "moving_mean"):
            x = 0.1 * x + (kind == "gamma")
        else:
            x = x * np.sqrt(2 / np.prod(shape[:2] if kind == "depthwise_kernel" else shape[:-1]))
        found.setdefault(row["layer"], {})[kind] = x.astype("float32")
    return found


def outputs(model, x, layers):
    probe = keras.Model(model.input, [model.output, *(model.get_layer(name).output for name in layers)])
    return [np.asarray(y) for y in probe(x, training=False)]


def check_fixture(model, about, arrays):
    """Output, logits and features: 1e-4 of their largest value."""
    inbound = {row["name"]: row["inbound"] for row in about["layer_table"]}
    logits = inbound[about["layer_table"][-1]["name"]][0]
    found = outputs(model, arrays["x"], [logits, *about["skips"]])
    wanted = [arrays["y"], arrays["logits"], *(arrays[f"e_{i}"] for i in range(len(about["skips"])))]
    for name, y, z in zip(["output", "logits", *about["skips"]], found, wanted, strict=True):
        np.testing.assert_allclose(y, z, rtol=0, atol=1e-4 * max(1, np.abs(z).max()), err_msg=name)


FIXTURES = ["unet_resnet18", "fpn_seresnet18", "linknet_mobilenetv2", "pspnet_vgg16", "unet_efficientnetb0"]


def fixture(shared, name):
    about = json.loads(gzip.decompress(shared(f"reference/sm_fixtures/{name}.json.gz").read_bytes()))
    arrays = np.load(shared(f"reference/sm_fixtures/{name}.npz"))
    return about, arrays, getattr(sm, about["arch"])(about["backbone"], **about["args"])


@pytest.mark.parametrize("name", FIXTURES)
def test_fixture(shared, name):
    about, arrays, model = fixture(shared, name)
    sm_weights.fit(model, rule(about["weights"]), name)
    check_fixture(model, about, arrays)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer, row in ((layer, row) for layer in norms for row in about["layer_table"] if row["name"] == layer.name):
        assert layer.momentum == row["config"]["momentum"] and np.isclose(layer.epsilon, row["config"]["epsilon"])


def test_legacy_file(shared, tmp_path):
    """The file that the old package wrote: through `load_weights`, `weights=` and the model's own method."""
    path = tmp_path / "old.h5"
    path.write_bytes(gzip.decompress(shared("reference/sm_fixtures/legacy_unet_resnet18.h5.gz").read_bytes()))
    about, arrays, model = fixture(shared, "legacy_unet_resnet18")
    sm.load_weights(model, path)
    check_fixture(model, about, arrays)
    again = sm.Unet("resnet18", encoder_weights=None, weights=str(path))
    other = sm.Unet("resnet18", encoder_weights=None)
    other.load_weights(path)
    for each in (again, other):
        np.testing.assert_array_equal(each.get_weights()[0], model.get_weights()[0])
        np.testing.assert_array_equal(
            each.get_layer("final_conv").get_weights()[0], rule_of(about)["final_conv"]["kernel"]
        )


def rule_of(about):
    return rule(about["weights"], tile=about["rule"] == "tile")


OLD_SCRIPT = """
import numpy as np
import segmentation_models as sm
from segmentation_models import Unet
from segmentation_models import get_preprocessing
from segmentation_models.losses import bce_jaccard_loss
from segmentation_models.metrics import iou_score
from segmentation_models.utils import set_trainable, set_regularization

sm.set_framework('tf.keras')
BACKBONE = 'mobilenet'
preprocess_input = get_preprocessing(BACKBONE)
x_train = preprocess_input(np.random.randint(0, 256, (4, 32, 64, 3)).astype('float32'))
y_train = (np.random.rand(4, 32, 64, 1) > 0.5).astype('float32')

model = Unet(BACKBONE, encoder_weights=None, encoder_freeze=True, decoder_filters=(32, 16, 8, 8, 8))
model = set_regularization(model, kernel_regularizer='l2')
model.compile('Adam', loss=bce_jaccard_loss, metrics=[iou_score, sm.metrics.FScore(threshold=0.5)])
set_trainable(model)
history = model.fit(x_train, y_train, batch_size=2, epochs=1, verbose=0).history
assert {'loss', 'iou_score', 'f1-score'} <= set(history), history
mask = model.predict(x_train, verbose=0)
assert mask.shape == (4, 32, 64, 1) and 0 <= mask.min() <= mask.max() <= 1
"""


def test_an_old_script_changed_in_its_imports_only():
    exec(OLD_SCRIPT.replace("segmentation_models", "cnn_zoo.compat.segmentation_models"), {})


def test_set_trainable_goes_on_with_the_optimizer(rng):
    """A frozen encoder keeps its kernels, BatchNorm trains; after `set_trainable` all of it does, and Adam's moments are those of before."""
    model = sm.PSPNet("mobilenet", (24, 24, 3), encoder_weights=None, encoder_freeze=True, downsample_factor=4)
    model.compile(keras.optimizers.Adam(0.01), sm.losses.categorical_focal_loss, run_eagerly=True)
    x, y = rng.standard_normal((2, 24, 24, 3)), rng.dirichlet(np.ones(21), (2, 24, 24)).astype("float32")
    kernel, gamma = (np.array(model.get_layer(name).get_weights()[0]) for name in ("conv_pw_1", "conv_pw_1_bn"))
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(model.get_layer("conv_pw_1").get_weights()[0], kernel)
    assert not np.array_equal(model.get_layer("conv_pw_1_bn").get_weights()[0], gamma)
    before = {variable.path: np.array(variable) for variable in model.optimizer.variables}
    sm.utils.set_trainable(model)
    after = {variable.path: np.array(variable) for variable in model.optimizer.variables}
    assert len(after) > len(before) > 20 and int(model.optimizer.iterations) == 1
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value, err_msg=path)
    model.fit(x, y, verbose=0)
    assert not np.array_equal(model.get_layer("conv_pw_1").get_weights()[0], kernel)
    assert int(model.optimizer.iterations) == 2 and float(model.optimizer.learning_rate) == np.float32(0.01)


ORACLE = """
import json, os, sys
os.environ["SM_FRAMEWORK"] = "tf.keras"
try:
    import segmentation_models as theirs
except ImportError as error:
    sys.exit(f"absent: {error}")
import numpy as np, keras
import cnn_zoo.compat.segmentation_models as sm
folder, pairs = sys.argv[1], json.loads(sys.argv[2])
for kind, backbone, arguments, ending in pairs:
    keras.utils.clear_session()
    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()  # names made by Keras start at any number
    arguments = {"encoder_weights": None} | arguments
    live = getattr(theirs, kind)(backbone, **arguments)
    rng = np.random.default_rng(0)
    for layer in live.layers:
        for v in layer.weights:
            if v.name == "moving_variance":
                v.assign(rng.uniform(0.5, 1.5, v.shape))
            elif v.name in ("moving_mean", "beta", "bias"):
                v.assign(0.1 * rng.standard_normal(v.shape))
    shape = [side or 64 for side in live.input_shape[1:]]
    x = rng.standard_normal((1, *shape)).astype("float32")
    wanted = np.asarray(live(x, training=False))
    if ending == "live":
        ours = sm.convert(live, backbone)
    elif ending == "guess":
        ours = sm.convert(live)
    else:
        path = f"{folder}/model{ending}"
        live.save_weights(path) if ending == ".weights.h5" else live.save(path)
        ours = getattr(sm, kind)(backbone, **arguments)
        ours.load_weights(path)
    y = np.asarray(ours(x, training=False))
    logits = [np.asarray(keras.Model(m.input, m.layers[-1].input)(x, training=False)) for m in (live, ours)]
    scale = max(1, float(np.abs(logits[0]).max()))
    mine = {l.name for l in ours.layers}
    lost = [l.name for l in live.layers if l.name not in mine and not l.name.startswith(
        ("zero_padding2d", "conv2d", "batch_normalization", "activation", "lambda", "add", "multiply", "concatenate", "input", "max_pool",
         "average_pool", "global_average"))]
    print("ANSWER", json.dumps([kind, backbone, ours.count_params() == live.count_params(), float(np.abs(y - wanted).max()),
                      float(np.abs(logits[1] - logits[0]).max()) / scale, lost]), flush=True)
"""


def compare(tmp_path, *pairs):
    """Each pair from the installed package into ours: same outputs."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ORACLE, str(tmp_path), json.dumps(pairs)],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    if "absent:" in done.stderr:
        pytest.skip("needs segmentation_models: " + done.stderr.strip())
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(answers) == len(pairs)
    for *which, same_count, probability, logit, lost in answers:
        assert same_count, which
        assert probability < 1e-4 and logit < 1e-4, (which, probability, logit)
        assert not [name for name in lost if not name.endswith(("_pad", "_se_reshape")) and "conv_pad" not in name], (
            which
        )


def test_a_live_model(tmp_path):
    arguments = {"decoder_block_type": "transpose", "classes": 3, "activation": "softmax"}
    compare(tmp_path, ("Unet", "mobilenetv2", arguments, "guess"))


@pytest.mark.slow
def test_live_models(tmp_path):
    compare(
        tmp_path,
        ("FPN", "resnet34", {"encoder_freeze": True}, "guess"),
        ("Linknet", "resnet18", {"decoder_use_batchnorm": False}, ".h5"),
        ("PSPNet", "efficientnetb0", {"input_shape": [96, 48, 3], "psp_pooling_type": "max"}, ".weights.h5"),
    )


LIVE = [name for name in BACKBONES if not name.startswith("densenet")]  # which the old package cannot build on Keras 3


@pytest.mark.slow
@pytest.mark.parametrize("backbone", LIVE)
def test_live_models_of_every_backbone(tmp_path, backbone):
    i = LIVE.index(backbone)
    kind = KINDS[i % 4]
    arguments = {
        "Unet": {},
        "FPN": {"classes": 4, "pyramid_aggregation": ("concat", "sum")[i // 4 % 2], "pyramid_dropout": 0.2},
        "Linknet": {"decoder_block_type": ("upsampling", "transpose")[i // 4 % 2]},
        "PSPNet": {"input_shape": [96, 96, 3], "downsample_factor": (8, 16, 4)[i // 4 % 3]},
    }[kind]
    compare(tmp_path, (kind, backbone, arguments, ("live", ".h5", ".weights.h5", ".keras")[(i + i // 4) % 4]))


@pytest.mark.slow
def test_names_of_layers():
    """Some that people address, the old package's first names of a session among them."""
    wanted = {
        "vgg16": ["block5_conv3", "block5_pool"],
        "densenet121": ["conv1_conv", "conv2_block1_0_bn", "conv5_block16_2_conv", "pool4_conv", "bn", "relu"],
        "resnet50": [
            "bn_data",
            "conv0",
            "relu0",
            "pooling0",
            "stage4_unit3_conv3",
            "stage1_unit1_sc",
            "relu1",
            "add_15",
        ],
        "seresnet50": ["conv2d", "conv2d_84", "activation_80", "multiply_15", "batch_normalization_52"],
    }
    for backbone, names in wanted.items():
        encoder = sm_backbones.encoder(backbone, (None, None, 3), None)
        for name in names:
            assert encoder.model.get_layer(name)
        assert not any(layer.name == "preprocess" for layer in encoder.model.layers)


@pytest.mark.slow
def test_densenet_names_are_those_of_keras_applications():
    theirs = {layer.name for layer in keras.applications.DenseNet121(include_top=False, weights=None).layers}
    ours = {layer.name for layer in sm_backbones.encoder("densenet121", (None, None, 3), None).model.layers}
    assert {name for name in theirs if not name.startswith(("input", "zero_padding2d"))} <= ours


def test_grouped_convolutions_of_an_old_file():
    """As many layers a convolution as it has groups, numbered from anywhere, come in the order of their numbers."""
    model, other = (sm.PSPNet("resnext50", (48, 48, 3), encoder_weights=None) for _ in range(2))
    old, grouped = {}, []
    for layer in (layer for layer in model.layers if layer.weights):
        names = [variable.name for variable in layer.weights]
        if getattr(layer, "groups", 1) == 1:
            old[layer.name] = dict(zip(names, layer.get_weights()))
        else:
            grouped.append((int(layer.name.removeprefix("conv2d").lstrip("_") or 0), layer))
    for place, (number, layer) in enumerate(sorted(grouped, key=lambda pair: pair[0])):
        assert number == 32 * place and layer.groups == 32
        for i, kernel in enumerate(np.split(layer.get_weights()[0], 32, axis=-1)):
            old[f"conv2d_{57 + number + i}"] = {"kernel": kernel}
    assert len(grouped) == 7
    sm_weights.fit(other, dict(reversed(old.items())), "an old file")
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    del old["conv2d_57"]
    with pytest.raises(WeightsError, match="223 layers not in the model"):
        sm_weights.fit(other, old, "an old file")


@pytest.mark.slow
def test_slashes_of_an_old_densenet():
    """`conv1/conv` of Keras 2 is `conv1_conv` here, which Keras 3 could not even build."""
    model, other = (sm.PSPNet("densenet121", (48, 48, 3), encoder_weights=None) for _ in range(2))
    old = {re.sub("^conv1_", "conv1/", name): values for name, values in sm_weights.variables_of(model).items()}
    assert {"conv1/conv", "conv1/bn"} <= set(old)
    sm_weights.fit(other, old, "an old file")
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_encoder_weights(tmp_path, monkeypatch, rng):
    """The published file of Keras: the first kernels stay in the order BGR, which `get_preprocessing` gives."""
    keras_vgg = keras.applications.VGG16(include_top=False, weights=None)
    path = tmp_path / "vgg.h5"
    keras_vgg.save(path)
    record = dataclasses.replace(WEIGHTS["vgg16", "imagenet"], urls=(), file=str(path), hash="sha256:")
    monkeypatch.setitem(WEIGHTS, ("vgg16", "imagenet"), record)
    x = rng.integers(0, 256, (1, 64, 64, 3)).astype("uint8")
    model = sm.FPN("vgg16", input_shape=(64, 64, 3))
    wanted = keras_vgg(keras.applications.vgg16.preprocess_input(x.astype("float32")))
    found = keras.Model(model.input, model.get_layer("block5_pool").output)(sm.get_preprocessing("vgg16")(x))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4 * np.abs(wanted).max())
    with pytest.raises(InputError, match="are for 3 channels, not 1"):
        sm.Unet("vgg16", input_shape=(None, None, 1))


APPLICATIONS = {  # nets of Keras whose pixels are prepared alike
    "vgg16": keras.applications.vgg16,
    "seresnet50": keras.applications.densenet,
    "densenet121": keras.applications.densenet,
    "efficientnetb3": keras.applications.densenet,
    "mobilenetv2": keras.applications.mobilenet_v2,
    "inceptionv3": keras.applications.inception_v3,
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_preprocessing(name, rng):
    """As keras.applications does it, for arrays of any type, tensors, images and batches."""
    x = rng.integers(0, 256, (2, 4, 5, 3)).astype("uint8")
    wanted = APPLICATIONS[name].preprocess_input(x.astype("float32"))
    prepare = sm.get_preprocessing(name)
    kept = x.astype("float32")
    for given in (x, kept, keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(kept)):
        found = prepare(given)
        assert isinstance(found, np.ndarray) == isinstance(given, np.ndarray)
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(kept, x)
    np.testing.assert_allclose(prepare(x[0]), wanted[0], rtol=1e-5, atol=1e-4)


def test_raw_preprocessing_and_names():
    x = np.zeros((1, 2, 2, 3), "uint8")
    for name in ("resnet34", "seresnet18", "resnext101"):
        assert sm.get_preprocessing(name)(x) is x
    names = sm.get_available_backbone_names()
    assert len(names) == len(set(names)) == 32 and names[0] == "resnet18"
    assert sm.__version__ == "1.0.1" and sm.framework() in ("keras", "tf.keras")
    with pytest.raises(ValueError, match="framework is one of"):
        sm.set_framework("torch")


@pytest.mark.parametrize("backbone", ["mobilenet", pytest.param("resnext50", marks=pytest.mark.slow)])
def test_own_files_round_trip(tmp_path, rng, backbone):
    """Weights and whole models saved here load here, without custom objects."""
    model = sm.PSPNet(backbone, (48, 48, 3), encoder_weights=None)
    x = rng.standard_normal((1, 48, 48, 3)).astype("float32")
    wanted = np.asarray(model(x, training=False))
    model.save_weights(tmp_path / "w.weights.h5")
    model.save(tmp_path / "m.keras")
    for path in ("w.weights.h5", "m.keras"):
        other = sm.PSPNet(backbone, (48, 48, 3), encoder_weights=None, weights=tmp_path / path)
        np.testing.assert_array_equal(np.asarray(other(x, training=False)), wanted)
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(np.asarray(loaded(x, training=False)), wanted)


@pytest.mark.slow
def test_features_by_number():
    model = sm.Unet("inceptionv3", encoder_weights=None, encoder_features=(228, "mixed2", 16, "activation_2"))
    assert model.count_params() == 29_933_105


def test_features_by_name():
    fewer = sm.Unet("resnet18", encoder_weights=None, encoder_features=["stage4_unit1_relu1", "stage3_unit1_relu1"])
    names = {layer.name for layer in fewer.layers}
    assert "decoder_stage1_concat" in names and "decoder_stage2_concat" not in names


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: sm.Unet("resnet19", encoder_weights=None), "did you mean 'resnet"),
        (lambda: sm.Unet("resnet18", encoder_weights="imagenet11k"), "has no weights 'imagenet11k'"),
        (lambda: sm.Unet("efficientnetb0", encoder_weights="advprop"), "were trained on pixels normalised"),
        (lambda: sm.Unet("resnet18", encoder_weights=None, decoder_block_type="up"), "decoder_block_type is"),
        (lambda: sm.Unet("resnet18", encoder_weights=None, encoder_features=(7,)), "numbered otherwise here"),
        (lambda: sm.Unet("resnet18", encoder_weights=None, encoder_features=("relu_0",)), "did you mean 'relu0'"),
        (lambda: sm.FPN("resnet18", encoder_weights=None, pyramid_aggregation="mean"), "aggregation is"),
        (lambda: sm.PSPNet("resnet18", (None, None, 3), encoder_weights=None), "48 divides"),
        (lambda: sm.PSPNet("resnet18", (100, 96, 3), encoder_weights=None), "48 divides"),
        (lambda: sm.PSPNet("resnet18", encoder_weights=None, downsample_factor=2), "4, 8 or 16"),
        (lambda: sm.PSPNet("resnet18", encoder_weights=None, psp_pooling_type="mean"), "'avg' or 'max'"),
        (lambda: sm.Unet("resnet18", encoder_weights=None, weights="nowhere.h5"), "there is no weights file"),
        (lambda: sm.convert(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(1, 1)])), "is no Unet"),
        (lambda: sm.get_preprocessing("resnet"), "there is no backbone"),
    ],
)
def test_wrong_arguments(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_files_that_do_not_fit(tmp_path):
    model = sm.PSPNet("mobilenet", (24, 24, 3), encoder_weights=None, downsample_factor=4)
    before = model.get_weights()
    (tmp_path / "broken.h5").write_bytes(b"no HDF5")
    with pytest.raises(WeightsError, match="not a whole Keras file"):
        model.load_weights(tmp_path / "broken.h5")
    sm.PSPNet("mobilenetv2", (24, 24, 3), encoder_weights=None, downsample_factor=4).save(tmp_path / "other.keras")
    with pytest.raises(WeightsError, match="layers not in the model: .* | .* layers not in the file"):
        model.load_weights(tmp_path / "other.keras")
    sm.PSPNet("mobilenet", (24, 24, 3), classes=3, encoder_weights=None, downsample_factor=4).save(
        tmp_path / "classes.keras"
    )
    with pytest.raises(WeightsError, match="final_conv/kernel: .* in the file"):
        model.load_weights(tmp_path / "classes.keras")
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def decoded(name, size, row=None):
    """A decoder over a small net's features at a size; `None` leaves it open."""
    taps = assemble.backbone("mobilenetv2_035", input_size=size)
    decoder = DECODERS[name]
    tensors = {int(stride): tensor for stride, tensor in taps.output.items()}
    y = decoder.decode({stride: tensors[stride] for stride in decoder.strides}, row or decoder.row)
    return keras.Model(taps.input, y)


@pytest.mark.parametrize("name", ["unet", "linknet_transpose", "fpn", "pspnet"])
def test_decoders_take_any_size_that_the_stride_divides(name, rng):
    """Open sizes give what fixed ones do; the map has the size of the image, PSPNet's that of its features."""
    row = DECODERS[name].row
    small = {"pyramid_filters": 8, "segmentation_filters": 4} if "fpn" in name else {"filters": 8}
    if "net" in name and name != "pspnet":
        small = {"filters": (8, 8, 8, 8, 4) if "unet" in name else (*row.filters[:4], 4)}
    x = rng.integers(0, 256, (2, 32, 96, 3)).astype("uint8")
    whole = decoded(name, (32, 96), row._replace(**small))
    open_ = decoded(name, (None, None), row._replace(**small))
    open_.set_weights(whole.get_weights())
    y = np.asarray(whole(x, training=False))
    assert y.shape == ((2, 4, 12, 8) if name == "pspnet" else (2, 32, 96, 4))
    np.testing.assert_array_equal(np.asarray(open_(x, training=False)), y)


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("shape", [(6, 12), (7, 5), (13, 1), (2, 3)])
def test_grid_pooling(pooling, shape, rng):
    """Against PyTorch's adaptive pooling where it is installed, and a loop in NumPy."""
    x = rng.standard_normal((2, *shape, 3)).astype("float32")
    for cells in (1, 2, 3, 6):
        layer = GridPooling2D(cells, pooling)
        found = np.asarray(layer(x))
        assert found.shape == layer.compute_output_shape(x.shape)
        for i, j in np.ndindex(cells, cells):
            (top, bottom), (left, right) = (
                (at * side // cells, int(np.ceil((at + 1) * side / cells)))
                for at, side in ((i, shape[0]), (j, shape[1]))
            )
            cell = x[:, top:bottom, left:right].reshape(2, -1, 3)
            wanted = cell.mean(1) if pooling == "avg" else cell.max(1)
            np.testing.assert_allclose(found[:, i, j], wanted, rtol=1e-5, atol=1e-6)
        try:
            import torch
        except ImportError:
            continue
        function = getattr(torch.nn.functional, f"adaptive_{pooling}_pool2d")
        wanted = function(torch.tensor(x).permute(0, 3, 1, 2), cells).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="cells must be at least 1"):
        GridPooling2D(0)


def test_layers_of_the_pyramid_keep_type_and_settings(rng):
    x = rng.standard_normal((1, 2, 2, 3)).astype("float16")
    resize = ResizeLike(dtype="float16")
    y = resize([x, np.zeros((1, 4, 8, 1), "float16")])
    assert y.shape == (1, 4, 8, 3) == resize.compute_output_shape([(1, 2, 2, 3), (1, 4, 8, 1)])
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    wanted = np.asarray(keras.layers.UpSampling2D((2, 4), interpolation="bilinear")(x.astype("float32")))
    np.testing.assert_allclose(np.asarray(y), wanted, atol=1e-2)
    again = GridPooling2D.from_config(GridPooling2D(3, "max", name="a").get_config())
    assert (again.cells, again.pooling, again.name) == (3, "max", "a")


def test_regularization(tmp_path):
    model = sm.PSPNet("mobilenet", (24, 24, 3), encoder_weights=None, encoder_freeze=True, downsample_factor=4)
    out = sm.utils.set_regularization(model, kernel_regularizer=keras.regularizers.L2(0.1), beta_regularizer="l1")
    assert (
        out.get_layer("conv1").kernel_regularizer.l2 == np.float32(0.1)
        and model.get_layer("conv1").kernel_regularizer is None
    )
    assert (
        out.get_layer("conv1_bn").beta_regularizer is not None and out.get_layer("conv1_bn").gamma_regularizer is None
    )
    assert {v.path for v in out.trainable_weights} == {v.path for v in model.trainable_weights}
    for a, b in zip(out.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    sm.PSPNet("mobilenet", (24, 24, 3), encoder_weights=None, downsample_factor=4).save(tmp_path / "m.keras")
    out.load_weights(tmp_path / "m.keras")
    assert not np.array_equal(out.get_weights()[0], model.get_weights()[0])
