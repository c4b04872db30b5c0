"""State dicts of the real torchvision and timm, with random weights and random BatchNorm statistics, in our nets."""

import sys
import warnings

import numpy as np
import pytest

import cnn_zoo
from cnn_zoo.errors import MissingExtraError, WeightsError
from cnn_zoo.registry import PRESETS, get_spec
from cnn_zoo.weights import assign
from cnn_zoo.weights.importers import convert, pytorch

FAST = ("squeezenet1_1", "shufflenetv2_050", "resnet18")
SLOW = [
    *(
        "alexnet_one_tower",
        "vgg11",
        "vgg11_bn",
        "googlenet",
        "inceptionv3_torch",
        "inceptionv4",
        "inceptionresnetv2_timm",
    ),
    *("shufflenetv2", "shufflenetv2_150", "shufflenetv2_200", "mobilenetv3_small", "mobilenetv3_large"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *("resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2"),
    *("resnext50_32x4d", "resnext101_32x4d", "resnext101_32x8d"),
    *("seresnet50_v15", "seresnext50", "seresnext101", "senet154"),
    *(f"efficientnetb{i}" for i in range(8)),
]
DEEPER_ONLY = {
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
}  # the code is vgg11's, the files have half a gigabyte
KEPT = []  # declarations of operators live as long as this


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


@pytest.fixture(scope="module")
def torchvision(torch):
    """torchvision; operators for object detection that were compiled for another PyTorch are declared and stay empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision
        except ImportError:
            pytest.skip("needs torchvision")
        except RuntimeError:
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            KEPT.append(library)
            import torchvision
    return torchvision


@pytest.fixture(scope="module")
def timm(torchvision):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import timm
        except ImportError:
            pytest.skip("needs timm")
    return timm


@pytest.fixture
def peer(torch, request):
    """`peer(net)`: the twin of our net in torchvision or timm, all its numbers random."""

    def make(net, **options):
        package, _, name = pytorch.SOURCES[net].rpartition(" ")
        if package:
            model = request.getfixturevalue("timm").create_model(name, **options)
        else:
            if name in ("googlenet", "inception_v3"):
                options |= {"init_weights": False}
            model = getattr(request.getfixturevalue("torchvision").models, name)(**options)
        # Residual sums grow, and with them every rounding; but where weights are too small, logits no longer depend on the image.
        gain = {"resnet": 1.0, "mobilenet": 1.25, "efficientnet": 1.25}.get(get_spec(net).family, 2**0.5)
        gain = 1.12 if net in ("efficientnetb6", "efficientnetb7") else gain
        torch.manual_seed(0)
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                    layer.weight.normal_(std=gain / layer.weight[0].numel() ** 0.5)
                    if layer.bias is not None:
                        layer.bias.normal_(std=0.1)
                elif isinstance(layer, torch.nn.BatchNorm2d):
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.normal_(std=0.1)
                    layer.running_mean.normal_(std=0.1)
                    layer.running_var.uniform_(0.5, 1.5)
        return model.eval()

    return make


def logits(torch, model, images, preset):
    """What a PyTorch net makes of images that `preset` has normalised."""
    preset = PRESETS[preset]
    images = ((images - np.array(preset.mean)) / np.array(preset.std)).astype("float32").transpose(0, 3, 1, 2)
    with torch.no_grad():
        return model(torch.from_numpy(np.ascontiguousarray(images))).numpy()


def saved(model, path):
    from safetensors.torch import save_file

    save_file({key: array.contiguous() for key, array in model.state_dict().items()}, path)
    return path


def two_images(rng, size):
    """One of noise, one of a ramp."""
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(*size, 3)
    return np.stack([rng.integers(0, 256, (*size, 3)), ramp]).astype("uint8")


@pytest.mark.parametrize("net", [*FAST, *(pytest.param(net, marks=pytest.mark.slow) for net in SLOW)])
def test_same_logits_as_the_other_library(torch, peer, net, tmp_path, rng):
    theirs = peer(net)
    path = saved(theirs, tmp_path / "theirs.safetensors")
    model = cnn_zoo.build(net, activation=None)
    assign(model, convert(model, net, path, "torch"), net)
    path.unlink()
    spec = get_spec(net)
    images = two_images(rng, spec.size)
    want = logits(torch, theirs, images, spec.preset)
    got = np.asarray(model(images, training=False))
    scale = np.abs(want).max()
    assert np.abs(want[0] - want[1]).max() > 1e-3 * scale  # the logits depend on the image
    np.testing.assert_allclose(got, want, atol=1e-4 * scale)


def test_every_source_is_tested_or_deeper_only():
    assert pytorch.SOURCES.keys() == {*FAST, *SLOW, *DEEPER_ONLY}


def test_names_of_the_deeper_vggs(peer):
    """Names only: their weights are too large to be made in a test."""
    torch = pytest.importorskip("torch")
    for net in sorted(DEEPER_ONLY):
        with torch.device("meta"):
            theirs = {name.rpartition(".")[0] for name in peer(net).state_dict()}
        spec = get_spec(net)
        twins = pytorch.twins(net, sorted(theirs))
        assert sum(map(len, twins.values())) == len(theirs)
        convs = [f"s{stage}_conv{i}" for stage, count in enumerate(spec.row.convs, 1) for i in range(1, count + 1)]
        assert {name for name in twins if "conv" in name} == set(convs)
        assert {"head_fc6", "head_fc7", "logits"} <= twins.keys()


def test_backbone_takes_the_same_file(torch, peer, tmp_path):
    path = saved(peer("resnet18"), tmp_path / "a.safetensors")
    whole = convert(cnn_zoo.build("resnet18"), "resnet18", path, "torch")
    trunk = cnn_zoo.backbone("resnet18")
    arrays = convert(trunk, "resnet18", path, "torch")
    assign(trunk, arrays, "resnet18")
    assert whole.keys() - arrays.keys() == {"logits/kernel", "logits/bias"}


def test_half_precision_is_widened(torch, peer, tmp_path):
    theirs = peer("squeezenet1_1").half()
    arrays = convert(
        cnn_zoo.build("squeezenet1_1"), "squeezenet1_1", saved(theirs, tmp_path / "a.safetensors"), "torch"
    )
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    want = theirs.state_dict()["features.0.weight"].float().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(arrays["stem_conv/kernel"], want)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_files_of_pytorch(torch, peer, tmp_path, wrapper):
    theirs = peer("shufflenetv2_050")
    state = theirs.state_dict()
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "a.pth")
    model = cnn_zoo.build("shufflenetv2_050")
    a = convert(model, "shufflenetv2_050", tmp_path / "a.pth", "torch")
    b = convert(model, "shufflenetv2_050", saved(theirs, tmp_path / "a.safetensors"), "torch")
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def test_names_of_old_densenets(tmp_path):
    from safetensors.numpy import save_file

    save_file({"features.denseblock1.denselayer2.norm.1.weight": np.zeros(4, "float32")}, tmp_path / "a.safetensors")
    assert list(pytorch.read(tmp_path / "a.safetensors")) == ["features.denseblock1.denselayer2.norm1"]


def changed(state, change):
    """A copy of a state dict, changed in one way."""
    state = dict(state)
    key = "layer3.0.conv1.weight"
    if change == "missing layer":
        del state[key]
    elif change == "missing variable":
        del state["layer3.0.bn1.bias"]
    elif change == "unknown layer":
        state["layer3.0.conv9.weight"] = state[key].clone()
    elif change == "shape":
        state[key] = state[key][:, :7].contiguous()
    elif change == "axes":
        state[key] = state[key].flatten()
    return state


@pytest.mark.parametrize(
    "change, said",
    [
        ("missing layer", r"1 layers not in the file: s3_b1_1_conv"),
        ("missing variable", r"layer 's3_b1_1_bn' has beta, gamma, .* another dialect"),
        ("unknown layer", r"1 layers in the file, unknown to the net: layer3\.0\.conv9"),
        ("shape", r"s3_b1_1_conv/kernel: \(3, 3, 7, 256\) in the file, \(3, 3, 128, 256\) in the model"),
        ("axes", r"weights of 's3_b1_1_conv' have 4 axes, those in the file 1"),
    ],
)
def test_what_differs_is_said(torch, peer, tmp_path, change, said):
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file(changed(peer("resnet18").state_dict(), change), path)
    model = cnn_zoo.build("resnet18")
    before = model.get_layer("stem_conv").get_weights()[0]
    with pytest.raises(WeightsError, match=said):
        assign(model, convert(model, "resnet18", path, "torch"), "the file")
    np.testing.assert_array_equal(model.get_layer("stem_conv").get_weights()[0], before)


def test_other_nets_are_refused(peer, tmp_path):
    path = saved(peer("resnet18"), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="layers not in the file"):
        convert(cnn_zoo.build("resnet34"), "resnet34", path, "torch")
    with pytest.raises(WeightsError, match="no net of torchvision or timm is the same function as 'xception'"):
        convert(cnn_zoo.build("lenet"), "xception", path, "torch")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_damaged_files(torch, tmp_path, name, damage):
    from safetensors.torch import save_file

    path, state = tmp_path / name, {"features.0.weight": torch.ones(64, 3, 3, 3)}
    (save_file if name.endswith("s") else torch.save)(state, path)
    data = {"empty": b"", "text": b"<!DOCTYPE html>\n" * 20, "truncated": path.read_bytes()[:-3000]}[damage]
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="is not a whole .* get it again"):
        convert(cnn_zoo.build("squeezenet1_1"), "squeezenet1_1", path, "torch")


def test_pickles_with_code_are_refused(torch, tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="is not a state_dict"):
        pytorch.read(tmp_path / "a.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="save its state_dict"):
        pytorch.read(tmp_path / "a.pth")


def test_pth_without_pytorch_says_how_to_get_it(monkeypatch, tmp_path):
    (tmp_path / "a.pth").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"cnn-zoo\[torch\]"):
        pytorch.read(tmp_path / "a.pth")
