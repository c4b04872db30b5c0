"""Receptive fields: against formulas, published tables, and what units of real nets answer to."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from cnn_zoo import InputError, backbone, build
from cnn_zoo.explain import receptive_field


def net(*layers, size=(64, 64), channels=1):
    x = inputs = keras.Input((*size, channels))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def square(pixels):
    return (pixels, pixels)


def test_stacked_convolutions_see_one_plus_depth_times_kernel_less_one():
    for kernel in (1, 2, 3, 5):
        for depth in (1, 2, 5):
            model = net(*(L.Conv2D(1, kernel, padding="same") for _ in range(depth)))
            assert receptive_field(model).size == square(1 + depth * (kernel - 1))  # the lecture's formula


def test_strided_convolutions_see_twice_as_much_with_every_layer():
    for depth in (1, 2, 3, 4):
        field = receptive_field(net(*(L.Conv2D(1, 3, 2) for _ in range(depth))))
        assert field.size == square(2 ** (depth + 1) - 1)  # the lecture's formula
        assert field.stride == square(2**depth) and field.start == (0, 0)


def test_dilation_and_rectangles():
    field = receptive_field(net(L.Conv2D(1, (3, 5), dilation_rate=2), L.MaxPooling2D((1, 3), (1, 2)), L.Conv2D(1, 3)))
    assert field.size == (5 + 2, 9 + 2 + 2 * 2) and field.stride == (1, 2)


# alexnet to resnet_v1_152: google-research/receptive_field, RECEPTIVE_FIELD_TABLE.md (Araujo, Norris, Sim 2019), as receptive field, effective
# stride and effective padding (how far the first unit's field begins before the image).
PUBLISHED = {
    "alexnet_caffe": (195, 32, 64),  # alexnet_v2/pool5
    "vgg11": (150, 32, 59),  # vgg_a/pool5
    "vgg16": (212, 32, 90),  # vgg_16/pool5
    "inceptionv3": (1311, 32, 618),
    "inceptionv4": (2071, 32, 998),
    "inceptionresnetv2": (3039, 32, 1482),
    "mobilenet": (315, 32, 126),
    "mobilenet_075": (315, 32, 126),
}
# The slim nets halve the size in the last block of a stage. So do Keras' ResNetV2; for the sum it is the same whether that is done there or in the
# first 1x1 of the next stage (SE-ResNet). Their poolings pad both sides, which moves the start. In torchvision's ResNets the first 3x3 of three
# stages halves the size itself, and so still moves over pixels of the finer map: they see 8 + 16 + 32 pixels less, 427 = 483 - 56.
PUBLISHED_SIZES = {
    "resnet50v2": 483,
    "resnet101v2": 1027,
    "resnet152v2": 1507,
    "seresnet50": 483,
    "seresnet101": 1027,
    "resnet50": 483 - 56,
    "resnet101": 1027 - 56,
    "resnet152": 1507 - 56,
}
SLOW = ("inceptionresnetv2", "inceptionv4", "seresnet101", "resnet101v2", "resnet152v2", "resnet101", "resnet152")


def some(names):
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in names]


@pytest.mark.parametrize("name", some(PUBLISHED))
def test_fields_are_those_published(name):
    size, stride, padding = PUBLISHED[name]
    field = receptive_field(backbone_end(name, 224 if "inception" not in name else 299))
    assert (field.local, field.stride, field.start) == (square(size), square(stride), square(-padding))


@pytest.mark.parametrize("name", some(PUBLISHED_SIZES))
def test_sizes_of_residual_nets_are_those_published(name):
    field = receptive_field(backbone_end(name, 224))
    assert field.local == square(PUBLISHED_SIZES[name])
    assert (field.size is None) == name.startswith("se")


def backbone_end(name, size):
    trunk = backbone(name, input_size=size)
    return keras.Model(trunk.inputs, trunk.output[str(max(map(int, trunk.output)))])


def test_fields_along_vgg16():
    """Every end point of vgg_16 in the same table."""
    model = build("vgg16", input_size=64)
    expected = {"s1_pool": 6, "s2_pool": 16, "s3_pool": 44, "s4_pool": 100, "s5_pool": 212}
    assert {name: receptive_field(model, name).size[0] for name in expected} == expected


def linear(model):
    """The same net without what could close a path: average for maximum, no activation, all kernels positive, no offset."""

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, L.MaxPooling2D):
            return L.AveragePooling2D.from_config(config)
        if "activation" in config:
            config["activation"] = "linear"
        if "offset" in config:
            config["offset"] = 0.0
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=clone)
    for variable in twin.weights:
        one = variable.path.endswith(("gamma", "variance"))
        kernel = 2 / np.sqrt(np.prod(variable.shape[:-1])) if "kernel" in variable.path else 0
        variable.assign(np.full(variable.shape, 1 if one else kernel, "float32"))
    return twin


def answers(model, unit, images):
    """Whether a unit of a `linear` net answers to each image: the sum of what it sees is then positive, and 0 only where it sees nothing."""
    y = np.asarray(model.predict(np.stack(images), batch_size=8, verbose=0))
    return list((y[(slice(None), *unit)] > 0).any(-1))


def lit(model, axis, pixels):
    """An image of zeros but for the rows (axis 0) or columns (axis 1) named."""
    image = np.zeros(model.input_shape[1:], "float32")
    image[(slice(None), pixels) if axis else pixels] = 1
    return image


def check_by_light(model, unit):
    """The unit sees the first and the last row and column of its window, and nothing before and after them."""
    window, model = receptive_field(model).window(unit), linear(model)
    assert all(0 < first and last < side - 1 for (first, last), side in zip(window, model.input_shape[1:3])), window
    images = []
    for axis, (first, last) in enumerate(window):
        images += [lit(model, axis, p) for p in (slice(first), first, last, slice(last + 1, None))]
    assert answers(model, unit, images) == [False, True, True, False] * 2


def residual(x):
    y = L.Conv2D(2, 3, 2, "same")(x)
    y = L.Conv2D(2, 5, 1, "same")(y)
    return L.Add()([L.Conv2D(2, 1, 2)(x), y])


def inception(x):
    a = L.Conv2D(2, 1)(x)
    b = L.Conv2D(2, (1, 7), padding="same")(x)
    c = L.Conv2D(2, 3, padding="same", dilation_rate=3)(L.DepthwiseConv2D(3, padding="same")(x))
    d = L.AveragePooling2D(3, 1, "same")(x)
    return L.Concatenate()([a, b, c, d])


def misaligned(x):
    """Branches whose fields are of one size but shifted: their union is larger than either."""
    a = L.Conv2D(1, 3, 2)(L.ZeroPadding2D(((2, 0), (2, 0)))(x))
    b = L.Conv2D(1, 3, 2)(L.ZeroPadding2D(((0, 2), (0, 2)))(x))
    return L.Add()([a, b])


SMALL = {
    "valid": [L.Conv2D, (2, 5, 2), L.MaxPooling2D, (3, 2), L.SeparableConv2D, (2, 3)],
    "same": [L.Conv2D, (2, 3, 2, "same"), L.Conv2D, (2, 5, 2, "same"), L.AveragePooling2D, (3, 2, "same")],
    "even": [L.Conv2D, (2, 4, 1, "same"), L.Conv2D, (2, 2, 2, "same"), L.MaxPooling2D, (2, 2)],
    "padded": [L.ZeroPadding2D, (((3, 1), (0, 2)),), L.Conv2D, (1, 7, 3), L.Cropping2D, (((1, 0), (2, 1)),)],
}


@pytest.mark.parametrize("side", [63, 64])
@pytest.mark.parametrize("kind", [*SMALL, "residual", "inception", "misaligned"])
def test_a_unit_sees_exactly_its_field(kind, side):
    x = inputs = keras.Input((side, side, 1))
    if kind in SMALL:
        parts = iter(SMALL[kind])
        for layer, arguments in zip(parts, parts):
            x = layer(*arguments)(x)
    else:
        x = {"residual": residual, "inception": inception, "misaligned": misaligned}[kind](L.Conv2D(2, 3)(x))
    model = keras.Model(inputs, x)
    check_by_light(model, (model.output_shape[1] // 2, model.output_shape[2] // 2 - 1))


@pytest.mark.parametrize("up", ["nearest", "bilinear", "transposed", "transposed valid", "resized"])
def test_each_unit_sees_exactly_its_window_after_upsampling(up):
    """Neighbours see a pixel more or less: the largest of a period is the field."""
    layer = {
        "nearest": L.UpSampling2D(2),
        "bilinear": L.UpSampling2D(2, interpolation="bilinear"),
        "transposed": L.Conv2DTranspose(2, 4, 2, "same"),
        "transposed valid": L.Conv2DTranspose(2, 5, 3),
        "resized": L.Resizing(48, 93),
    }[up]
    model = net(L.Conv2D(2, 3, 2, "same"), layer, L.Conv2D(2, 3, padding="same"))
    field, middle, twin, found = receptive_field(model), model.output_shape[1] // 2, linear(model), []
    rows = [lit(model, 0, row) for row in range(model.input_shape[1])]
    for row in range(middle, middle + 6):
        seen = np.flatnonzero(answers(twin, (row, middle), rows))
        assert (seen[0], seen[-1]) == field.window((row, middle))[0]
        found.append(seen[-1] - seen[0] + 1)
    assert max(found) == field.size[0]


REAL = {
    "squeezenet1_1": 287,
    "mobilenet_025": 417,
    "resnet18": 545,
    "googlenet": 513,
    "shufflenetv2_050": 641,
    "zfnet": 353,
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if REAL[name] > 420 else []) for name in REAL]
)
def test_a_unit_of_a_net_of_the_zoo_sees_exactly_its_field(name):
    model = backbone_end(name, REAL[name])
    check_by_light(model, tuple(side // 2 for side in model.output_shape[1:3]))


def test_a_branch_that_sees_the_whole_image_is_reported():
    inputs = keras.Input((32, 32, 4))
    x = L.Conv2D(4, 3)(inputs)
    gate = L.Conv2D(4, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    model = keras.Model(inputs, L.Conv2D(4, 3, name="last")(L.Multiply()([x, gate])))
    field = receptive_field(model)
    assert (field.size, field.local, field.stride) == (None, (5, 5), (1, 1))
    assert "the whole image (5 x 5 without" in str(field)


def test_the_output_of_a_classifier_sees_the_whole_image_and_the_default_is_its_last_map():
    model = build("cnn_small")
    assert receptive_field(model).local == (10, 10)
    field = receptive_field(model, "logits")
    assert field.size is None and field.local is None and field.start is None
    with pytest.raises(InputError, match="whole image"):
        field.window((0, 0))


def test_the_centre_and_the_window():
    field = receptive_field(net(L.Conv2D(1, 3, 2, "valid"), L.Conv2D(1, 3, padding="same")))
    assert field.size == (7, 7) and field.start == (-2, -2) and field.centre((0, 0)) == (1, 1)
    assert field.window((3, 4)) == ((4, 10), (6, 12))


def test_signals_and_volumes():
    x = inputs = keras.Input((100, 3))
    for _ in range(8):  # eight strided convolutions over 1000 samples, as for seismic events
        x = L.Conv1D(4, 3, 2, "causal")(x)
    assert receptive_field(keras.Model(inputs, x)).size == (2**9 - 1,)
    inputs = keras.Input((16, 16, 16, 1))
    model = keras.Model(inputs, L.Conv3D(1, 3)(L.AveragePooling3D(2)(inputs)))
    assert receptive_field(model).size == (6, 6, 6)


def test_nested_and_sequential_models():
    inner = keras.Sequential(
        [keras.Input((None, None, 1)), L.Conv2D(1, 3, name="conv"), L.MaxPooling2D(2)], name="inner"
    )
    inputs = keras.Input((64, 64, 1))
    model = keras.Model(inputs, inner(inner(inputs)))
    assert receptive_field(model).size == (1 + 2 + 1 + 4 + 2,) * 2
    assert receptive_field(model, "inner/conv").size == (1 + 2 + 1 + 4,) * 2  # its last use


def test_operations_of_keras():
    inputs = keras.Input((64, 64, 2))
    x = L.Conv2D(2, 3, padding="same")(inputs)
    model = keras.Model(inputs, ops.relu(x * 2.0 + inputs))
    assert receptive_field(model).size == (3, 3)
    assert receptive_field(keras.Model(inputs, ops.mean(x, axis=(1, 2)))).layer == model.layers[1].name


def test_an_open_size_is_asked_for_only_where_it_matters():
    sized = net(L.Conv2D(1, 3, 2, "valid"), L.Conv2D(1, 3, padding="same"), size=(None, None))
    assert receptive_field(sized).size == (7, 7)
    same = net(L.Conv2D(1, 3, 2, "same"), size=(None, None))
    with pytest.raises(InputError, match="give input_size"):
        receptive_field(same)
    assert receptive_field(same, input_size=64).start == (0, 0)
    assert receptive_field(same, input_size=63).start == (-1, -1)


def test_what_cannot_be_told_is_an_error():
    with pytest.raises(InputError, match="no layer 'nothing'"):
        receptive_field(build("cnn_small"), "nothing")
    model = net(L.Permute((2, 1, 3)), L.Conv2D(1, 3, name="after"))
    with pytest.raises(InputError, match="'after' cannot be told: the layer 'permute"):
        receptive_field(model, "after")
    with pytest.raises(InputError, match="one image"):
        receptive_field(keras.Sequential([keras.Input((5,)), L.Dense(2)]))
    inputs = keras.Input((32, 32, 1))
    a, b = L.Conv2D(1, 3, 1)(inputs), L.Conv2D(1, 3, 1)(L.UpSampling2D(2)(inputs))
    with pytest.raises(InputError, match="strides"):
        receptive_field(keras.Model(inputs, L.Add()([a, L.Cropping2D(16)(b)])))


def test_the_model_is_left_as_it_was():
    model = build("cnn_small")
    before = [layer.output for layer in model.layers]
    receptive_field(model)
    assert all(a is b for a, b in zip(before, [layer.output for layer in model.layers]))
