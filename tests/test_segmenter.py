"""`build_segmenter`: every decoder over every net that can serve it; any size; weights of the trunk; what it refuses."""

import functools
import math
import subprocess
import sys

import keras
import numpy as np
import pytest

from cnn_zoo import SPECS, InputError, WeightsError, backbone, list_models, weights
from cnn_zoo.registry import DECODERS, is_head
from cnn_zoo.segmenting import (
    build_segmenter,
    build_segnet,
    build_unet,
    get_decoder,
    list_decoders,
    strides_of,
)

SMALL = "mobilenet_025"
DECODES = {entry.decode: name for name, entry in reversed(DECODERS.items())}.values()  # one row of each function
SMALLEST = {}  # net of each family
for _spec in sorted(SPECS.values(), key=lambda spec: spec.params or math.inf):
    SMALLEST.setdefault(_spec.family, _spec.name)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def able(decoder, net):
    return set(DECODERS[decoder].strides) <= set(strides_of(net))


def image(height, width, channels=3, batch=1, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, channels)).astype("uint8")


def randomise(model):
    """Weights that are a function of nothing but path and shape."""
    for variable in model.weights:
        if "seed" in variable.path:
            continue
        seed = sum(map(ord, variable.path)) + math.prod(variable.shape)
        values = np.random.default_rng(seed).normal(0, 1, variable.shape) / np.sqrt(
            max(1, math.prod(variable.shape[:-1]))
        )
        variable.assign(1 + np.abs(values) if "variance" in variable.path or "gamma" in variable.path else values)


def check_a_training_step(model, x):
    import tensorflow as tf

    classes = model.output_shape[-1]
    masks = np.random.default_rng(2).integers(0, classes, x.shape[:3])
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(masks, model(x, training=True)))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, f"no gradient reaches {variable.path}"
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), variable.path


def check_in_a_graph(model, x, expected):
    """A TensorFlow graph that knows no size, such as `fit` and exporters make, gives the same."""
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, None, x.shape[-1]), tf.uint8)]
    graph = tf.function(lambda x: model(x, training=False), input_signature=signature)
    np.testing.assert_allclose(graph(x), expected, atol=1e-5)


def check_savedmodel(model, x, expected, folder):
    """What is exported, and read without Keras, gives the same."""
    import tensorflow as tf

    model.export(folder, verbose=False)
    loaded = tf.saved_model.load(folder)
    np.testing.assert_allclose(loaded.serve(x.astype("float32")), expected, atol=1e-5)


def check(decoder, net, tmp_path, side=64, exports=False):
    """Builds, keeps odd sizes, static as dynamic, exports, trains, comes back from a file."""
    model = build_segmenter(decoder, net, 3)
    randomise(model)
    odd, even = image(side + 5, side - 1 + side % 2), image(side, side)
    y = np.asarray(model(odd, training=False))
    assert y.shape == (*odd.shape[:3], 3) and np.isfinite(y).all()
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)
    if exports:
        check_savedmodel(model, odd, y, tmp_path / "exported")
    else:  # a third of the time
        check_in_a_graph(model, odd, y)
    static = build_segmenter(decoder, net, 3, input_size=odd.shape[1:3])
    assert static.output_shape == (None, *odd.shape[1:3], 3)
    static.set_weights(model.get_weights())
    np.testing.assert_array_equal(static(odd, training=False), y)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(even, training=False), model(even, training=False))
    check_a_training_step(model, np.concatenate([even, even[:, ::-1]]))
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert {"preprocess", "pad", "logits", "crop", "predictions"} <= {layer.name for layer in model.layers}


@pytest.mark.parametrize("decoder", DECODES)
def test_every_decoder_over_a_small_net(decoder, tmp_path):
    check(decoder, SMALL, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("net", SMALLEST.values())
@pytest.mark.parametrize("decoder", list_decoders())
def test_every_decoder_over_a_net_of_each_family(decoder, net, tmp_path):
    if not able(decoder, net):
        with pytest.raises(InputError, match="needs features at the strides"):
            build_segmenter(decoder, net, 3)
    else:
        check(decoder, net, tmp_path, side=smallest_side(net), exports=True)


@functools.cache
def smallest_side(net):
    for side in (32, 64, 96, 128, 160):
        try:
            build_segmenter("fcn32", net, 2, input_size=side)
            return max(side, 64)
        except InputError:
            continue
    return 192


@pytest.mark.slow
@pytest.mark.parametrize("net", list_models())
def test_every_pair_builds(net):
    served = [decoder for decoder in list_decoders() if able(decoder, net)]
    assert served or max(strides_of(net)) < 32
    for decoder in served:
        model = build_segmenter(decoder, net, 3)
        assert model.output_shape == (None, None, None, 3)
        assert model.compute_output_shape((1, 277, 310, SPECS[net].channels)) == (1, 277, 310, 3)
        keras.utils.clear_session()


@pytest.mark.parametrize(
    ("decoder", "net"), [("fcn8", "zfnet"), slow("unet_2015", "xception"), slow("fcn16", "inceptionv3")]
)
def test_nets_without_padding_are_brought_to_the_grid(decoder, net):
    """Their features lose a border; what is put back makes every tap 1 / stride of the padded image."""
    if not able(decoder, net):
        pytest.fail(f"{net} has strides {strides_of(net)}")
    model = build_segmenter(decoder, net, 2)
    assert any(layer.name.startswith("align") for layer in model.layers)
    assert model(image(161, 170), training=False).shape == (1, 161, 170, 2)


def test_an_image_that_needs_no_padding_is_not_touched():
    """The bits are those of the graph without `pad` and `crop`, and of a larger image's graph on the padded image."""
    model = build_segmenter("unet", SMALL, 3)
    randomise(model)
    x = image(64, 96)
    inner = keras.Model(model.get_layer("pad").output, model.get_layer("logits").output)
    normal = keras.Model(model.input, model.get_layer("preprocess").output)(x)
    probabilities = keras.ops.softmax(inner(normal, training=False))
    np.testing.assert_array_equal(model(x, training=False), probabilities)
    odd = x[:, :50, :70]
    padded = np.pad(np.asarray(normal)[:, :50, :70], ((0, 0), (0, 14), (0, 26), (0, 0)))
    expected = keras.ops.softmax(inner(padded, training=False)[:, :50, :70])
    np.testing.assert_array_equal(model(odd, training=False), expected)


@pytest.mark.parametrize(
    "build", [slow(build_segnet), functools.partial(build_segnet, "basic"), functools.partial(build_unet, width=8)]
)
def test_published_nets_keep_any_size(build, tmp_path):
    model = build(classes=4)
    randomise(model)
    x = image(37, 50)
    y = np.asarray(model(x, training=False))
    assert y.shape == (1, 37, 50, 4)
    static = build(classes=4, input_size=(37, 50))
    static.set_weights(model.get_weights())
    np.testing.assert_array_equal(static(x, training=False), y)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(x, training=False), y)
    check_in_a_graph(model, x, y)
    check_a_training_step(build(classes=4), image(32, 32, batch=2))


FRESH = """
import sys
import keras, numpy as np
import cnn_zoo
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[2], model(np.load(sys.argv[2]), training=False))
"""


def test_a_file_opens_where_nothing_but_the_package_is_imported(tmp_path):
    model, x = build_segmenter("pspnet", "mit_b0", 3), image(40, 33)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    subprocess.run([sys.executable, "-c", FRESH, tmp_path / "model.keras", tmp_path / "x.npy"], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), model(x, training=False))


@pytest.mark.parametrize(("channels", "activation", "classes"), [(1, "softmax", 2), (2, "sigmoid", 1), (5, None, 4)])
def test_any_channels_classes_and_outputs(channels, activation, classes):
    model = build_segmenter("linknet", SMALL, classes, channels=channels, activation=activation)
    y = np.asarray(model(image(40, 33, channels), training=False))
    assert y.shape == (1, 40, 33, classes)
    assert activation is None or (0 <= y).all() and (y <= 1).all()
    assert model.layers[-1].name == ("crop" if activation is None else "predictions")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("decoder", ["deeplabv3plus", slow("segnet"), slow("fcn8"), slow("pspnet")])
def test_mixed_precision_keeps_input_and_output_in_float32(decoder, policy):
    keras.config.set_dtype_policy(policy)
    model = build_segmenter(decoder, SMALL, 3)
    y = model(image(40, 64), training=False)
    assert keras.backend.standardize_dtype(y.dtype) == "float32" and np.isfinite(y).all()
    for name in ("preprocess", "logits", "crop"):
        assert model.get_layer(name).compute_dtype == "float32"
    assert sum(layer.compute_dtype == policy.removeprefix("mixed_") for layer in model.layers) > 50


def save_trunk(path, net=SMALL):
    model = backbone(net)
    randomise(model)
    weights.save(model, path, net=net, classes=[], preset=SPECS[net].preset)
    return model


@pytest.mark.parametrize("decoder", ["deeplabv3plus", "pspnet"])
def test_weights_go_into_the_trunk(decoder, tmp_path):
    trunk = save_trunk(tmp_path / "w.safetensors")
    model = build_segmenter(decoder, SMALL, 3, weights=tmp_path / "w.safetensors")
    mine = {v.path: v for v in model.weights}
    theirs = {v.path: v for v in trunk.weights}
    shared = mine.keys() & theirs.keys()
    assert len(shared) > (50 if decoder == "pspnet" else 100)
    for path in shared:
        np.testing.assert_array_equal(mine[path], theirs[path])
    assert not any(is_head(path) for path in theirs)


def test_a_gray_image_gives_the_output_of_its_rgb_twin(tmp_path):
    save_trunk(tmp_path / "w.safetensors")
    colour = build_segmenter("unet", SMALL, 3, weights=tmp_path / "w.safetensors")
    gray = build_segmenter("unet", SMALL, 3, weights=tmp_path / "w.safetensors", channels=1)
    assert gray.input_shape[-1] == 1 and "gray_to_rgb" in [layer.name for layer in gray.layers]
    gray.set_weights(colour.get_weights())
    x = image(45, 52, 1)
    np.testing.assert_allclose(gray(x, training=False), colour(np.repeat(x, 3, -1), training=False), atol=1e-5)


def test_weights_of_another_net_are_refused(tmp_path):
    save_trunk(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError):
        build_segmenter("unet", "mobilenet_050", 3, weights=tmp_path / "w.safetensors")


def test_options_replace_columns_of_the_row():
    wide = build_segmenter("unet", SMALL, 3, filters=(64, 32, 16, 8, 4))
    assert wide.get_layer("decoder_stage4b_conv").filters == 4
    fine = build_segmenter("deeplabv3", SMALL, 3, output_stride=8)
    coarse = build_segmenter("deeplabv3", SMALL, 3)
    x = image(64, 64)
    for model, side in ((fine, 8), (coarse, 4)):
        features = keras.Model(model.input, model.get_layer("decoder_1_relu").output)
        assert features(x, training=False).shape[1] == side
    assert [v.shape for v in fine.weights] == [v.shape for v in coarse.weights]
    dropped = build_segmenter("segformer", "mit_b0", 3, dropout=0.1)
    assert dropped.get_layer("decoder_dropout").rate == 0.1


def test_build_unet_over_a_net_is_the_segmenter():
    a, b = (
        build_unet(3, backbone=SMALL, filters=(16, 16, 16, 16, 16)),
        build_segmenter("unet", SMALL, 3, filters=(16,) * 5),
    )
    assert [layer.name for layer in a.layers] == [layer.name for layer in b.layers] and a.name == b.name


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: build_segmenter("unett", SMALL, 2), "no decoder 'unett'; did you mean 'unet'"),
        (lambda: build_segmenter("unet", "resnet43", 2), "no net 'resnet43'; did you mean"),
        (lambda: build_segmenter("unet", SMALL, 0), "classes must be a whole number"),
        (lambda: build_segmenter("unet", SMALL, 1), "softmax over one class"),
        (lambda: build_segmenter("unet", SMALL, 2, activation="relu"), "activation is one of"),
        (lambda: build_segmenter("unet", SMALL, 2, dropout=1), "dropout is a fraction"),
        (lambda: build_segmenter("unet", SMALL, 2, filter=3), "no option 'filter'; did you mean 'filters'"),
        (lambda: build_segmenter("fcn8", SMALL, 2, classes_=3), "no option 'classes_'"),
        (lambda: build_segmenter("unet", SMALL, 2, input_size=(32, 32, 3)), "height and a width"),
        (lambda: build_segnet("resnet34"), "build_segmenter\\('segnet', 'resnet34'"),
        (lambda: build_segnet("basic", weights="imagenet"), "leave out weights="),
        (lambda: build_unet(padding="full"), "'same' or 'valid'"),
        (lambda: build_unet(weights="imagenet"), "give a backbone"),
        (lambda: build_unet(backbone=SMALL, depth=3), "leave them out"),
        (lambda: build_unet(depth=0), "depth must be a whole number"),
        (lambda: build_unet(input_size=(3, 4, 5)), "height and a width"),
        (lambda: get_decoder("fpnet"), "did you mean"),
    ],
)
def test_what_is_refused_and_how(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_a_net_without_the_strides_is_told_what_it_can_do():
    with pytest.raises(InputError) as error:
        build_segmenter("unet", "mit_b0", 2)
    said = str(error.value)
    assert "'unet' needs features at the strides [2, 4, 8, 16, 32], and 'mit_b0' has [4, 8, 16, 32]" in said
    assert "segformer" in said.split("can serve")[1] and "mobilenet" in said.split("nets that can")[1]
    with pytest.raises(InputError, match="'squeezenet1_1' can serve .*deeplabv3"):
        build_segmenter("segformer", "squeezenet1_1", 2)
    assert build_segmenter("deeplabv3", "squeezenet1_1", 2)(image(64, 71), training=False).shape == (1, 64, 71, 2)


@pytest.mark.slow
def test_a_size_that_is_too_small_is_told_the_smallest():
    with pytest.raises(InputError, match="each side must be at least"):
        build_segmenter("fcn8", "inceptionv3", 2, input_size=32)
