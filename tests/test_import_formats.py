"""ONNX, Caffe and Darknet: files written here by other means than the readers, and one real file with real photographs."""

import json
import struct
import sys
import zipfile

import numpy as np
import pytest

import cnn_zoo
from cnn_zoo.data import read_image
from cnn_zoo.data.images import resize
from cnn_zoo.errors import MissingExtraError, WeightsError
from cnn_zoo.layers import kind as kind_of
from cnn_zoo.registry import PRESETS, get_spec
from cnn_zoo.weights import assign
from cnn_zoo.weights.importers import LAYOUTS, convert, darknet

SQUEEZENET = "data/imagenet/squeezenet1_1_fp16.onnx"


@pytest.fixture(scope="module")
def onnx():
    return pytest.importorskip("onnx", reason="needs the package onnx")


def imported(net, path, layout, **options):
    model = cnn_zoo.build(net, **options)
    assign(model, convert(model, net, path, layout), f"{net} from {path.name}")
    return model


def layers_of(model):
    """Layers of a model by name, those with weights."""
    return {layer.name: layer for layer in model.layers if layer.weights}


def randomised(model, rng):
    """The model with random weights and random BatchNorm statistics."""
    for layer in layers_of(model).values():
        new = []
        for variable in layer.weights:
            shape = tuple(variable.shape)
            if variable.name == "kernel":
                new.append(rng.normal(0, (2 / max(1, np.prod(shape[:-1]))) ** 0.5, shape))
            elif variable.name in ("gamma", "moving_variance"):
                new.append(rng.uniform(0.5, 1.5, shape))
            else:
                new.append(rng.normal(0, 0.1, shape))
        layer.set_weights(new)
    return model


# ---- ONNX


def centre(image, shorter=256, size=224):
    """The middle of an image whose shorter side is brought to 256 pixels: how ImageNet's photographs are judged."""
    if min(image.shape[:2]) != shorter:
        sides = [round(side * shorter / min(image.shape[:2])) for side in image.shape[:2]]
        image = resize(image[None], sides)[0]
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def test_a_real_file_knows_the_bull_mastiff(onnx, shared):
    model = imported("squeezenet1_1", shared(SQUEEZENET), "onnx", input_size=224)
    image = read_image(shared("data/imagenet/bull_mastiff_243.jpg"), (224, 224, 3))
    probabilities = np.asarray(model(image[None], training=False))[0]
    assert probabilities.argmax() == 243
    assert probabilities[243] > 0.95


@pytest.mark.slow
def test_a_real_file_on_a_thousand_photographs(onnx, shared, tmp_path):
    """One photograph a class; another runtime got top-1 0.605 and top-5 0.816."""
    model = imported("squeezenet1_1", shared(SQUEEZENET), "onnx", input_size=224)
    classes = {
        wnid: int(i) for i, (wnid, *_) in json.loads(shared("data/imagenet/class_index.json").read_text()).items()
    }
    with zipfile.ZipFile(shared("data/imagenet/sample_1000.zip")) as file:
        file.extractall(tmp_path)
    paths = sorted(path for path in tmp_path.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    assert len(paths) == 1000
    labels = np.array([classes[path.name[:9]] for path in paths])
    images = np.stack([centre(read_image(path, (None, None, 3))) for path in paths])
    best = np.argsort(-model.predict(images, batch_size=50, verbose=0), axis=1)[:, :5]
    assert (best[:, 0] == labels).mean() == pytest.approx(0.605, abs=0.01)
    assert (best == labels[:, None]).any(1).mean() == pytest.approx(0.816, abs=0.01)


def test_half_precision_is_widened_and_the_first_kernel_turned(onnx, shared):
    path = shared(SQUEEZENET)
    arrays = convert(cnn_zoo.build("squeezenet1_1"), "squeezenet1_1", path, "onnx")
    inside = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    assert inside["conv1_w_0"].dtype == "float16" and arrays["stem_conv/kernel"].dtype == "float32"
    np.testing.assert_array_equal(arrays["stem_conv/kernel"], inside["conv1_w_0"].transpose(2, 3, 1, 0)[:, :, ::-1])
    np.testing.assert_array_equal(arrays["head_conv10/kernel"], inside["conv10_w_0"].transpose(2, 3, 1, 0))


def as_onnx(onnx, model, path, *, shuffled=False, without=(), half=False):
    """The graph of a Keras model as ONNX, without names that say anything; what has no weights is Identity, Concat or a pooling."""
    helper, rng = onnx.helper, np.random.default_rng(1)
    nodes, tensors, made = [], [], {}

    def tensor(array):
        array = np.ascontiguousarray(array, "float16" if half else "float32")
        tensors.append(onnx.numpy_helper.from_array(array, f"t{rng.integers(1 << 60)}"))
        return tensors[-1].name

    for config in model.get_config()["layers"]:
        layer, saved = model.get_layer(config["name"]), json.dumps(config["inbound_nodes"])
        sources = [made[part.split('"')[1]] for part in saved.split('"keras_history": [')[1:]]
        kind, settings = kind_of(layer), {}
        weights = {variable.name: variable.numpy() for variable in layer.weights}
        if layer.name in without or not sources:
            made[layer.name] = sources[0] if sources else layer.name
            continue
        if kind in ("Conv2D", "DepthwiseConv2D"):
            operation = "Conv"
            kernel = weights["kernel"].transpose((3, 2, 0, 1) if kind == "Conv2D" else (2, 3, 0, 1))
            sources += [tensor(kernel), *([tensor(weights["bias"])] if "bias" in weights else [])]
        elif kind == "Dense":
            operation, settings = "Gemm", {"transB": int(rng.integers(2))}
            sources += [
                tensor(weights["kernel"].T if settings["transB"] else weights["kernel"]),
                tensor(weights["bias"]),
            ]
        elif kind == "BatchNormalization":
            operation = kind
            sources += [tensor(weights[name]) for name in ("gamma", "beta", "moving_mean", "moving_variance")]
        else:
            pools = {"MaxPooling2D": "MaxPool", "AveragePooling2D": "AveragePool"}
            operation = pools.get(kind, "Concat" if len(sources) > 1 else "Identity")
        made[layer.name] = f"v{rng.integers(1 << 60)}"
        nodes.append(helper.make_node(operation, sources, [made[layer.name]], **settings))
    if shuffled:  # another order in which everything still comes before what it goes to
        waiting, known, nodes = nodes, {"image", *(t.name for t in tensors)}, []
        while waiting:
            ready = [node for node in waiting if set(node.input) <= known]
            node = ready[rng.integers(len(ready))]
            waiting.remove(node)
            nodes.append(node)
            known.update(node.output)
    graph = helper.make_graph(nodes, "net", [], [], initializer=tensors)
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.mark.parametrize(
    "net",
    [
        "shufflenet",
        *(
            pytest.param(net, marks=pytest.mark.slow)
            for net in (
                "squeezenet1_0",
                "resnet18",
                "resnet50",
                "googlenet_2014",
                "inceptionv4",
                "mobilenetv2_035",
                "mobilenetv3_small",
                "densenet121",
            )
        ),
    ],
)
def test_layers_are_found_by_their_place(onnx, net, tmp_path, rng):
    theirs = randomised(cnn_zoo.build(net), rng)
    arrays = convert(cnn_zoo.build(net), net, as_onnx(onnx, theirs, tmp_path / "a.onnx", shuffled=True), "onnx")
    assert arrays.keys() == {variable.path for variable in theirs.weights}
    for variable in theirs.weights:
        np.testing.assert_array_equal(arrays[variable.path], variable.numpy(), err_msg=variable.path)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("folded", [False, True])
def test_what_pytorch_exports(onnx, torch, tmp_path, folded):
    """ResNet-18 in torchvision's names, written by PyTorch's own exporter, with BatchNorm and with it folded away."""
    rng = np.random.default_rng(0)
    model = randomised(cnn_zoo.build("resnet18", activation=None), rng)

    class Block(torch.nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(outputs)
            self.conv2 = torch.nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = torch.nn.BatchNorm2d(outputs)
            if stride > 1:
                self.downsample = torch.nn.Sequential(
                    torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False), torch.nn.BatchNorm2d(outputs)
                )

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(64)
            for stage, (inputs, outputs) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), 1):
                blocks = Block(inputs, outputs, 1 if stage == 1 else 2), Block(outputs, outputs, 1)
                setattr(self, f"layer{stage}", torch.nn.Sequential(*blocks))
            self.fc = torch.nn.Linear(512, 1000)

        def forward(self, x):
            x = torch.nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(x.mean((2, 3)))

    torch.manual_seed(0)
    net = Net().eval()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean, std=0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    mode = torch.onnx.TrainingMode
    torch.onnx.export(
        *(net, torch.zeros(1, 3, 64, 64), tmp_path / "a.onnx"),
        dynamo=False,
        training=mode.EVAL if folded else mode.PRESERVE,
        do_constant_folding=folded,
    )
    if folded:
        with pytest.raises(WeightsError, match="no BatchNormalization: it was folded into the convolutions"):
            convert(model, "resnet18", tmp_path / "a.onnx", "onnx")
        return
    assign(model, convert(model, "resnet18", tmp_path / "a.onnx", "onnx"), "resnet18")
    image = rng.integers(0, 256, (1, 224, 224, 3)).astype("float32")
    preset = PRESETS[get_spec("resnet18").preset]
    normalised = ((image - preset.mean) / preset.std).astype("float32").transpose(0, 3, 1, 2)
    with torch.no_grad():
        want = net(torch.from_numpy(np.ascontiguousarray(normalised))).numpy()
    np.testing.assert_allclose(np.asarray(model(image, training=False)), want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
@pytest.mark.parametrize("layout", ["onnx", "caffe", "darknet"])
def test_damaged_files(layout, damage, tmp_path):
    if layout == "onnx":
        pytest.importorskip("onnx", reason="needs the package onnx")
    path = tmp_path / f"a{LAYOUTS[layout].suffixes[0]}"
    whole = caffemodel(
        [("conv1", "Convolution", [np.ones((64, 3, 3, 3)), np.ones(64)])]
    )  # a length before each field: any of them ends early
    path.write_bytes({"empty": b"", "text": b"<!DOCTYPE html>\n" * 20, "truncated": whole[:-300]}[damage])
    with pytest.raises(WeightsError, match="get it again|does not hold its weights|with weights"):
        convert(cnn_zoo.build("lenet"), "squeezenet1_1", path, layout)


@pytest.mark.parametrize(
    "change, said", [("net", "layers that it lacks: .*'Conv'"), ("arranged", "arranged in another way")]
)
def test_other_graphs_are_refused(onnx, tmp_path, rng, change, said):
    model = cnn_zoo.build("resnet18")
    without = ("s2_b1_shortcut_conv",) if change == "net" else ("stem_pool",)
    path = as_onnx(onnx, model, tmp_path / "a.onnx", without=without)
    with pytest.raises(WeightsError, match=said):
        convert(model, "resnet18", path, "onnx")


@pytest.mark.parametrize(
    "operation, said",
    [
        ("Conv", "computes 'scaled' instead of holding it"),
        ("MatMul", "has weights in MatMul, which is not read"),
        ("Relu", "is not an ONNX file with weights: it has no Conv, Gemm, BatchNormalization"),
    ],
)
def test_onnx_files_that_are_not_read(onnx, tmp_path, operation, said):
    helper = onnx.helper
    node = helper.make_node
    graphs = {
        "Conv": [node("Neg", ["w"], ["scaled"]), node("Conv", ["image", "scaled"], ["y"])],
        "MatMul": [node("MatMul", ["image", "w"], ["y"])],
        "Relu": [node("Relu", ["image"], ["y"])],
    }
    tensors = [onnx.numpy_helper.from_array(np.ones((3, 3, 1, 1), "float32"), "w")]
    onnx.save(
        helper.make_model(helper.make_graph(graphs[operation], "net", [], [], initializer=tensors)), tmp_path / "a.onnx"
    )
    with pytest.raises(WeightsError, match=said):
        convert(cnn_zoo.build("lenet"), "squeezenet1_1", tmp_path / "a.onnx", "onnx")


def test_onnx_files_without_the_package(monkeypatch, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"cnn-zoo\[onnx\]"):
        convert(cnn_zoo.build("lenet"), "lenet", tmp_path / "a.onnx", "onnx")


# ---- Caffe


def field(number, data, wire=2):
    """One field of a protocol buffer: key, then a length and bytes (wire type 2), or a number (0)."""

    def varint(value):
        parts = []
        while value > 127:
            parts.append(value & 127 | 128)
            value >>= 7
        return bytes([*parts, value])

    return varint(number << 3 | wire) + (varint(data) if wire == 0 else varint(len(data)) + data)


def blob(array, *, old=False):
    """BlobProto: the shape as a message, or as four numbers (before 2014), and the numbers."""
    if old:
        shape = b"".join(field(i, side, 0) for i, side in enumerate((1,) * (4 - array.ndim) + array.shape, 1))
    else:
        shape = field(7, b"".join(field(1, side, 0) for side in array.shape))
    return shape + field(5, np.asarray(array, "<f4").tobytes())


def caffemodel(layers, *, old=False, name="net"):
    """NetParameter of `(name, type, arrays)`, in the format of 2013 or today's."""
    kinds = {"Convolution": 4, "InnerProduct": 14, "Scale": 99}
    net = field(1, name.encode())
    for layer, kind, arrays in layers:
        blobs = [blob(array, old=old) for array in arrays]
        if old:
            net += field(2, field(4, layer.encode()) + field(5, kinds[kind], 0) + b"".join(field(6, b) for b in blobs))
        else:
            net += field(100, field(1, layer.encode()) + field(2, kind.encode()) + b"".join(field(7, b) for b in blobs))
    return net


CAFFE = {  # our layers in the order of the authors' prototxt, under its names
    "squeezenet1_1": {
        "stem_conv": "conv1",
        **{
            f"fire{i}_{part}": f"fire{i}/{part}"
            for i in range(2, 10)
            for part in ("squeeze1x1", "expand1x1", "expand3x3")
        },
        "head_conv10": "conv10",
    },
    "googlenet_2014": {
        **{"stem_1_conv": "conv1/7x7_s2", "stem_2_reduce_conv": "conv2/3x3_reduce", "stem_2_conv": "conv2/3x3"},
        **{
            f"s{block[0]}_{block[1]}_{part}_conv": f"inception_{block}/{part}"
            for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
            for part in ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
        },
        "logits": "loss3/classifier",
    },
    "alexnet_caffe": {
        **{f"conv{i}": f"conv{i}" for i in range(1, 6)},
        "head_fc6": "fc6",
        "head_fc7": "fc7",
        "logits": "fc8",
    },
    "vgg16": {
        **{f"s{s}_conv{i}": f"conv{s}_{i}" for s, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)},
        **{"head_fc6": "fc6", "head_fc7": "fc7", "logits": "fc8"},
    },
}


def to_caffe(model, names):
    """`(name, type, arrays)` of a model's layers as Caffe has them: channels first, the first kernel for blue, green, red."""
    layers, first = [], True
    for ours, theirs in names.items():
        layer = model.get_layer(ours)
        kernel, bias = (np.asarray(array) for array in layer.get_weights())
        if kernel.ndim == 4:
            kernel = np.einsum("hwio->oihw", kernel)
            layers.append((theirs, "Convolution", [kernel[:, ::-1] if first else kernel, bias]))
        else:
            if ours == "head_fc6":  # rows are pixels of all channels; Caffe has channels of all pixels
                *sides, channels = model.get_layer("head_flatten").input.shape[1:]
                kernel = np.einsum("hwco->chwo", kernel.reshape(*sides, channels, -1)).reshape(kernel.shape)
            layers.append((theirs, "InnerProduct", [kernel.T, bias]))
        first = False
    return layers


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "net",
    [
        "squeezenet1_1",
        *(pytest.param(net, marks=pytest.mark.slow) for net in ("googlenet_2014", "alexnet_caffe", "vgg16")),
    ],
)
def test_caffe(net, old, tmp_path, rng):
    theirs = randomised(cnn_zoo.build(net), rng)
    layers = to_caffe(theirs, CAFFE[net])
    if net == "googlenet_2014":  # the heads that only training has
        layers += [
            (f"loss{i}/{part}", "InnerProduct", [np.ones((2, 2)), np.ones(2)])
            for i in (1, 2)
            for part in ("fc", "classifier")
        ]
    path = tmp_path / "a.caffemodel"
    path.write_bytes(caffemodel(layers, old=old))
    arrays = convert(cnn_zoo.build(net), net, path, "caffe")
    assert arrays.keys() == {variable.path for variable in theirs.weights}
    for variable in theirs.weights:
        np.testing.assert_array_equal(arrays[variable.path], variable.numpy(), err_msg=variable.path)


def test_caffe_and_onnx_agree_on_the_real_file(onnx, shared, tmp_path):
    """The ONNX file was made from Caffe's: writing its arrays as they are into a .caffemodel gives the same weights."""
    graph = onnx.load(shared(SQUEEZENET)).graph
    inside = {tensor.name: onnx.numpy_helper.to_array(tensor).astype("float32") for tensor in graph.initializer}
    names = [node.input[1].removesuffix("_w_0") for node in graph.node if node.op_type == "Conv"]
    layers = [(name, "Convolution", [inside[f"{name}_w_0"], inside[f"{name}_b_0"]]) for name in names]
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(layers))
    model = cnn_zoo.build("squeezenet1_1")
    a = convert(model, "squeezenet1_1", tmp_path / "a.caffemodel", "caffe")
    b = convert(model, "squeezenet1_1", shared(SQUEEZENET), "onnx")
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize(
    "change, said",
    [
        ("missing", "1 layers not in the file: fire5_expand3x3"),
        ("unknown", "1 layers in the file, unknown to the net: conv11"),
        ("shape", r"conv10/kernel: \(1, 1, 512, 10\) in the file, \(1, 1, 512, 1000\) in the model"),
        ("no bias", "layer 'fire5_expand3x3' has bias, kernel, its twin in the file has weight"),
        ("size", "'fire5/expand3x3' has 16 numbers for the shape"),
        ("Scale", r"the layer 'fire5/expand3x3' \(Scale, 2 arrays\), which is not read"),
        ("CaffeNet", "pools before it normalises"),
        ("other net", "no published Caffe net is the same function as 'resnet18'"),
    ],
)
def test_what_differs_in_a_caffemodel_is_said(change, said, tmp_path, rng):
    model = cnn_zoo.build("squeezenet1_1")
    layers = to_caffe(model, CAFFE["squeezenet1_1"])
    at = [name for name, _, _ in layers].index("fire5/expand3x3")
    name, kind, arrays = layers[at]
    if change == "missing":
        del layers[at]
    elif change == "unknown":
        layers.append(("conv11", kind, arrays))
    elif change == "shape":
        layers[-1] = ("conv10", kind, [array[:10] for array in layers[-1][2]])
    elif change == "no bias":
        layers[at] = (name, kind, arrays[:1])
    elif change == "Scale":
        layers[at] = (name, "Scale", arrays)
    data = caffemodel(layers, name=change)
    if change == "size":
        short = field(7, b"".join(field(1, side, 0) for side in arrays[0].shape)) + field(5, bytes(64))
        data += field(100, field(1, name.encode()) + field(2, kind.encode()) + field(7, short))
    (tmp_path / "a.caffemodel").write_bytes(data)
    with pytest.raises(WeightsError, match=said):
        net = "resnet18" if change == "other net" else "squeezenet1_1"
        assign(model, convert(model, net, tmp_path / "a.caffemodel", "caffe"), "the file")


# ---- Darknet


def weights_file(model, *, version=(0, 2, 0), head=True, classes=None):
    """A model as darknet writes it; convolutions in the order of the cfg, which for these nets is that of their names."""
    convs = [layer.name for layer in model.layers if layer.name.endswith("_conv")]

    def order(name):
        stage, block, part = (name + "___").split("_")[:3]
        return (
            int(stage[1:]) if stage != "stem" else -1,
            0 if block in ("down", "conv") else int(block.strip("b")),
            part,
        )

    data = struct.pack("<3i", *version) + struct.pack("<q" if version[1] >= 2 else "<i", 32013312)
    for name in sorted(convs, key=order):
        gamma, beta, mean, variance = model.get_layer(name.replace("_conv", "_bn")).get_weights()
        kernel = np.einsum("hwio->oihw", model.get_layer(name).get_weights()[0])
        data += b"".join(np.asarray(array, "<f4").tobytes() for array in (beta, gamma, mean, variance, kernel))
    if head:
        kernel, bias = model.get_layer("logits").get_weights()
        data += b"".join(np.asarray(array, "<f4").tobytes() for array in (bias[classes], kernel.T[classes]))
    return data


@pytest.mark.parametrize("version", [(0, 2, 0), pytest.param((0, 1, 0), marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "net", [pytest.param("darknet19", id="19"), pytest.param("darknet53", id="53", marks=pytest.mark.slow)]
)
def test_darknet(net, version, tmp_path, rng):
    theirs = randomised(cnn_zoo.build(net, activation=None), rng)
    classes = np.argsort(darknet.ORDER)  # the sorted identifiers in darknet's order
    path = tmp_path / "a.weights"
    path.write_bytes(weights_file(theirs, version=version, classes=classes))
    model = imported(net, path, "darknet", activation=None)
    for variable, want in zip(model.weights, theirs.weights):
        np.testing.assert_array_equal(variable.numpy(), want.numpy(), err_msg=variable.path)


def test_classes_of_darknet_in_the_order_of_their_identifiers(shared):
    """Its first three are kit fox, English setter, Siberian husky, as in the ILSVRC 2012 development kit."""
    classes = {
        wnid: int(i) for i, (wnid, *_) in json.loads(shared("data/imagenet/class_index.json").read_text()).items()
    }
    assert sorted(darknet.ORDER) == list(range(1000))
    for place, wnid in enumerate(("n02119789", "n02100735", "n02110185")):
        assert darknet.ORDER[classes[wnid]] == place


@pytest.mark.slow
def test_darknet_without_its_classifier_fits_a_backbone(tmp_path, rng):
    theirs = randomised(cnn_zoo.backbone("darknet19"), rng)
    path = tmp_path / "darknet19.conv.23"
    path.write_bytes(weights_file(theirs, head=False))
    model = cnn_zoo.backbone("darknet19")
    assign(model, convert(model, "darknet19", path, "darknet"), "darknet19")
    for variable, want in zip(model.weights, theirs.weights):
        np.testing.assert_array_equal(variable.numpy(), want.numpy())
    with pytest.raises(WeightsError, match="1 layers not in the file: logits"):
        convert(cnn_zoo.build("darknet19"), "darknet19", path, "darknet")


@pytest.mark.parametrize("more", [-4, -1, 4])
def test_darknet_files_of_another_length(more, tmp_path):
    """DarkNet-19 has 20,842,376 trainable numbers (with the classifier's biases), and two statistics for each of its 7,200 trunk channels."""
    channels = sum(outputs for _, _, _, outputs in darknet.convolutions("darknet19")[:-1])
    size = 20 + 4 * (20_842_376 + 2 * channels)
    path = tmp_path / "a.weights"
    path.write_bytes(struct.pack("<3i", 0, 2, 0) + bytes(size - 12))
    assert "logits" in darknet.read(path)
    path.write_bytes(path.read_bytes()[:more] if more < 0 else path.read_bytes() + bytes(more))
    with pytest.raises(WeightsError, match="is neither DarkNet-19 nor DarkNet-53 of 1000 classes"):
        darknet.read(path)


def test_darknet_has_two_nets():
    with pytest.raises(WeightsError, match="are read for darknet19 and darknet53, not for 'vgg16'"):
        darknet.twins("vgg16", ["stem_conv"])


@pytest.mark.slow
def test_darknet19_is_not_darknet53(tmp_path):
    path = tmp_path / "a.weights"
    path.write_bytes(weights_file(cnn_zoo.backbone("darknet19"), head=False))
    with pytest.raises(WeightsError, match="layers not in the file: .*s1_b1_1"):
        convert(cnn_zoo.backbone("darknet53"), "darknet53", path, "darknet")
