"""State dicts of torchvision and timm, as `.safetensors` or as PyTorch's own `.pth`.

Only for nets that are the same function as one of ours; `SOURCES` names it. Where both packages have the net, their names are told apart by what
is in the file: no name means different layers in the two. Files of other nets that happen to fit in names and shapes, such as timm's
seresnet50 in our `seresnet50` (which halves the size in another convolution), are refused because the row is not in `SOURCES`.
"""

import re

from cnn_zoo.errors import WeightsError, require
from cnn_zoo.registry import get_spec
from cnn_zoo.weights import strict

SOURCES = {  # our row -> the net of torchvision, or timm's where it is named
    "alexnet_one_tower": "alexnet",
    **{f"vgg{depth}{bn}": f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")},
    "googlenet": "googlenet",
    "inceptionv3_torch": "inception_v3",
    "inceptionv4": "timm inception_v4",
    "inceptionresnetv2_timm": "timm inception_resnet_v2",
    "squeezenet1_1": "squeezenet1_1",
    "shufflenetv2_050": "shufflenet_v2_x0_5",
    "shufflenetv2": "shufflenet_v2_x1_0",
    "shufflenetv2_150": "shufflenet_v2_x1_5",
    "shufflenetv2_200": "shufflenet_v2_x2_0",
    "mobilenetv3_small": "mobilenet_v3_small",
    "mobilenetv3_large": "mobilenet_v3_large",
    **{f"densenet{depth}": f"densenet{depth}" for depth in (121, 161, 169, 201)},
    **{f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    "wide_resnet50_2": "wide_resnet50_2",
    "resnext50_32x4d": "resnext50_32x4d",
    "resnext101_32x4d": "timm resnext101_32x4d",
    "resnext101_32x8d": "resnext101_32x8d",
    "seresnet50_v15": "timm seresnet50",
    "seresnext50": "timm seresnext50_32x4d",
    "seresnext101": "timm seresnext101_32x4d",
    "senet154": "timm senet154",
    **{f"efficientnetb{i}": f"timm tf_efficientnet_b{i}" for i in range(8)},
}


def read(path) -> dict[str, dict]:
    """Module -> its variables, without the counters of BatchNorm and with today's names of the DenseNets of old files."""
    if path.suffix.lower() == ".safetensors":
        state, _ = strict.read(path)
    else:
        state = _unpickled(path)
    theirs = {}
    for key, array in state.items():
        module, _, variable = re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key).rpartition(".")
        if variable != "num_batches_tracked":
            theirs.setdefault(module, {})[variable] = array
    return theirs


def _unpickled(path):
    torch = require("torch", "torch")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle and zip files fail in a dozen ways
        why = str(error).partition("WeightsUnpickler error:")[2].strip() or str(
            error
        )  # the rest advises to trust the file
        raise WeightsError(
            f"{str(path)!r} is not a whole file of PyTorch weights ({why.partition(chr(10))[0]}): get it again, "
            "or save its state_dict() as safetensors"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(array, torch.Tensor) for array in state.values()):
        raise WeightsError(f"{str(path)!r} is not a state_dict: save model.state_dict(), not the model")
    return {key: array.float().numpy() for key, array in state.items()}


def twins(net: str, theirs: list[str]) -> dict[str, tuple]:
    """Our layers -> modules of the net's twin in torchvision or timm.

    Raises:
        WeightsError: None of their nets is the same function.
    """
    if net not in SOURCES:
        raise WeightsError(
            f"no net of torchvision or timm is the same function as {net!r}; PyTorch weights are read for {', '.join(SOURCES)}"
        )
    spec = get_spec(net)
    rename = FAMILIES[spec.features.__name__](spec.row)
    found = {}
    for name in theirs:
        if ours := rename(name):
            found.setdefault(ours, []).append(name)
    return {ours: tuple(names) for ours, names in found.items()}


def by_table(table: dict, patterns=()):
    """A function from their names to ours: those of `table`, else the first pattern that matches with what its function makes of the match."""

    def rename(name):
        if name in table:
            return table[name]
        for pattern, make in patterns:
            if match := re.fullmatch(pattern, name):
                try:
                    return make(*match.groups())
                except (KeyError, ValueError):  # a number that the net does not go to
                    return None
        return None

    return rename


def alexnet(row):
    convs = {f"features.{at}": f"conv{i}" for i, at in enumerate((0, 3, 6, 8, 10), 1)}
    return by_table({**convs, "classifier.1": "head_fc6", "classifier.4": "head_fc7", "classifier.6": "logits"})


def vgg(row):
    table, at = {}, 0
    for stage, convs in enumerate(row.convs, 1):
        for i in range(1, convs + 1):
            table[f"features.{at}"] = f"s{stage}_conv{i}"
            if row.batch_norm:
                table[f"features.{at + 1}"] = f"s{stage}_bn{i}"
            at += 3 if row.batch_norm else 2
        at += 1  # pooling
    heads = ("classifier.0", "classifier.3", "classifier.6"), ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
    return by_table(
        table | {name: ours for head in heads for name, ours in zip(head, ("head_fc6", "head_fc7", "logits"))}
    )


def googlenet(row):
    stem = {"conv1": "stem_1", "conv2": "stem_2_reduce", "conv3": "stem_2"}
    branches = {"1": "1x1", "2.0": "3x3_reduce", "2.1": "3x3", "3.0": "5x5_reduce", "3.1": "5x5", "4.1": "pool_proj"}
    return by_table(
        {"fc": "logits"},
        [
            (r"(conv[123])\.(conv|bn)", lambda at, kind: f"{stem[at]}_{kind}"),
            (
                r"inception(\d)(\w)\.branch([\d.]+)\.(conv|bn)",
                lambda stage, letter, branch, kind: f"s{stage}_{letter}_{branches[branch]}_{kind}",
            ),
            (r"(aux\d)\.conv\.(conv|bn)", lambda aux, kind: f"head_{aux}_{kind}"),
            (r"(aux\d)\.fc([12])", lambda aux, i: f"head_{aux}_{'fc' if i == '1' else 'logits'}"),
        ],
    )


STEM_V3 = {"1a": "stem_a_1", "2a": "stem_a_2", "2b": "stem_a_3", "3b": "stem_b_2", "4a": "stem_b_3"}


def inception_v3(row):
    blocks = dict(zip("5b 5c 5d 6a 6b 6c 6d 6e 7a 7b 7c".split(), "31 32 33 41 42 43 44 45 51 52 53".split()))
    paths = {"1x1": 1, "5x5": 2, "7x7": 2, "7x7dbl": 3, "7x7x3": 2, "pool": 4}

    def mixed(block, branch, step, kind):
        path = paths.get(branch)
        if branch == "3x3":  # the first path where the map shrinks, else the second
            path = 1 if block in ("6a", "7a") else 2
        elif branch == "3x3dbl":
            path = 2 if block == "6a" else 3
        step = {"": "1", "2a": "2_p1_1", "2b": "2_p2_1", "3a": "3_p1_1", "3b": "3_p2_1"}.get(step, step)
        if branch == "pool":
            step = "2"
        stage, number = blocks[block]
        return f"s{stage}_b{number}_p{path}_{step}_{kind}"

    return by_table(
        {"fc": "logits"},
        [
            (r"Conv2d_(\d\w)_\dx\d\.(conv|bn)", lambda at, kind: f"{STEM_V3[at]}_{kind}"),
            (r"Mixed_(\d\w)\.branch_?(\dx\d(?:dbl|x3)?|pool)_?(\d?[ab]?)\.(conv|bn)", mixed),
            (r"AuxLogits\.(.*)", lambda rest: f"head_aux_{rest}"),
        ],
    )


def path_of(branch, step):
    """`branch2.0` or `branch2_3a` of timm's Inception nets -> path and step in ours; "a" and "b" are the two ends of a fork."""
    number, fork = (step or "0")[:1], (step or "0")[1:]
    return f"p{int(branch) + 1}_{int(number) + 1}" + (f"_p{'ab'.index(fork) + 1}_1" if fork else "")


def inception_v4(row):
    blocks = {
        **{3: "stem_b", 4: "stem_c", 5: "stem_d"},
        **{5 + i: f"s3_b{i}" for i in range(1, 5)},
        **{9 + i: f"s4_b{i}" for i in range(1, 9)},
        **{17 + i: f"s5_b{i}" for i in range(1, 5)},
    }
    pooled = {"3": "stem_b_p2_1", "5": "stem_d_p1_1"}  # blocks of one convolution beside a pooling
    return by_table(
        {"last_linear": "logits"},
        [
            (r"features\.([012])\.(conv|bn)", lambda at, kind: f"stem_a_{int(at) + 1}_{kind}"),
            (r"features\.([35])\.conv\.(conv|bn)", lambda at, kind: f"{pooled[at]}_{kind}"),
            (
                r"features\.(\d+)\.branch(\d)(?:[._](\d[ab]?))?\.(conv|bn)",
                lambda at, branch, step, kind: f"{blocks[int(at)]}_{path_of(branch, step)}_{kind}",
            ),
        ],
    )


def inception_resnet_v2(row):
    first = {"5b": "s3_b1", "6a": "s4_b1", "7a": "s5_b1"}
    stages = {"": 3, "_1": 4, "_2": 5}

    def residual(repeat, block):
        return f"s{stages[repeat]}_b{int(block) + 2}" if block else "s5_b11"

    return by_table(
        {
            "classif": "logits",
            "block8.conv2d": "s5_b11_up",
            "conv2d_7b.conv": "s5_b12_conv",
            "conv2d_7b.bn": "s5_b12_bn",
        },
        [
            (r"conv2d_([1234][ab])\.(conv|bn)", lambda at, kind: f"{STEM_V3[at]}_{kind}"),
            (
                r"mixed_(\d\w)\.branch(\d)(?:\.(\d))?\.(conv|bn)",
                lambda at, branch, step, kind: f"{first[at]}_{path_of(branch, step)}_{kind}",
            ),
            (r"repeat(_?\d?)\.(\d+)\.conv2d", lambda repeat, block: f"{residual(repeat, block)}_up"),
            (
                r"(?:repeat(_?\d?)\.(\d+)|block8)\.branch(\d)(?:\.(\d))?\.(conv|bn)",
                lambda repeat, block, branch, step, kind: f"{residual(repeat, block)}_{path_of(branch, step)}_{kind}",
            ),
        ],
    )


def squeezenet(row):
    table, at, fire = {"features.0": "stem_conv", "classifier.1": "head_conv10"}, 2, 2
    for squeezes in row.stages:
        at += 1  # pooling
        for _ in squeezes:
            for theirs, ours in (("squeeze", "squeeze1x1"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3")):
                table[f"features.{at}.{theirs}"] = f"fire{fire}_{ours}"
            at, fire = at + 1, fire + 1
    return by_table(table)


def shufflenetv2(row):
    ends = {"conv1.0": "stem_conv", "conv1.1": "stem_bn", "conv5.0": "last_conv", "conv5.1": "last_bn", "fc": "logits"}
    parts = {  # of the two branches, with the activations that take numbers too
        **{"1.0": "skip1_conv", "1.1": "skip1_bn", "1.2": "skip2_conv", "1.3": "skip2_bn"},
        **{"2.0": "1_conv", "2.1": "1_bn", "2.3": "2_conv", "2.4": "2_bn", "2.5": "3_conv", "2.6": "3_bn"},
    }
    pattern = r"stage(\d)\.(\d+)\.branch(1\.[0-3]|2\.[013-6])"
    return by_table(ends, [(pattern, lambda stage, block, part: f"s{stage}_b{int(block) + 1}_{parts[part]}")])


def mobilenetv3(row):
    table, stage, block, inputs = {"classifier.0": "head_fc", "classifier.3": "logits"}, 1, 0, 16
    ends = {"features.0": "stem", f"features.{len(row.bnecks) + 1}": "last"}
    for number, bneck in enumerate(row.bnecks, 1):
        stage, block = (stage + 1, 1) if bneck.s > 1 else (stage, block + 1)
        parts = [
            part for part, there in (("expand", bneck.exp_size != inputs), ("dw", True), ("se", bneck.se)) if there
        ]
        inputs = bneck.out
        for i, part in enumerate([*parts, "project"]):
            theirs, ours = f"features.{number}.block.{i}", f"s{stage}_b{block}_{part}"
            if part == "se":
                table |= {f"{theirs}.fc1": f"{ours}_reduce", f"{theirs}.fc2": f"{ours}_expand"}
            else:
                ends[theirs] = ours
    for theirs, ours in ends.items():
        table |= {f"{theirs}.0": f"{ours}_conv", f"{theirs}.1": f"{ours}_bn"}
    return by_table(table)


def densenet(row):
    ends = {"conv0": "stem_conv", "norm0": "stem_bn", "norm5": f"s{len(row.depths)}_bn"}
    kinds = {"norm": "bn", "conv": "conv"}
    return by_table(
        {"classifier": "logits", **{f"features.{name}": ours for name, ours in ends.items()}},
        [
            (
                r"features\.denseblock(\d)\.denselayer(\d+)\.(norm|conv)([12])",
                lambda stage, layer, kind, i: f"s{stage}_b{layer}_{kinds[kind]}{i}",
            ),
            (r"features\.transition(\d)\.(norm|conv)", lambda stage, kind: f"s{stage}_transition_{kinds[kind]}"),
        ],
    )


def resnet(row):
    table = {"fc": "logits", "bn1": "stem_3_bn" if row.senet else "stem_bn"}
    if row.senet:
        table |= {f"conv1.{at}": ours for at, ours in ((0, "stem_1_conv"), (3, "stem_2_conv"), (6, "stem_3_conv"))}
        table |= {"conv1.1": "stem_1_bn", "conv1.4": "stem_2_bn"}
    else:
        table["conv1"] = "stem_conv"
    parts = {
        "se.fc1": "se_reduce",
        "se.fc2": "se_expand",
        "downsample.0": "shortcut_conv",
        "downsample.1": "shortcut_bn",
    }
    parts |= {f"{kind}{i}": f"{i}_{kind}" for kind in ("conv", "bn") for i in (1, 2, 3)}
    pattern = rf"layer(\d)\.(\d+)\.({'|'.join(map(re.escape, parts))})"
    return by_table(table, [(pattern, lambda stage, block, part: f"s{stage}_b{int(block) + 1}_{parts[part]}")])


def efficientnet(row):
    ends = {
        "conv_stem": "stem_conv",
        "bn1": "stem_bn",
        "conv_head": "last_conv",
        "bn2": "last_bn",
        "classifier": "logits",
    }
    parts = {"conv_pw": "expand_conv", "bn1": "expand_bn", "conv_dw": "dw_conv", "bn2": "dw_bn"}
    parts |= {"conv_pwl": "project_conv", "bn3": "project_bn"}
    flat = {"conv_dw": "dw_conv", "bn1": "dw_bn", "conv_pw": "project_conv", "bn2": "project_bn"}  # without expansion
    excite = {"se.conv_reduce": "se_reduce", "se.conv_expand": "se_expand"}

    def inside(stage, block, part):
        name = ((flat if stage == "0" else parts) | excite).get(part)
        return name and f"s{int(stage) + 1}_b{int(block) + 1}_{name}"

    return by_table(ends, [(r"blocks\.(\d)\.(\d+)\.(.+)", inside)])


FAMILIES = {  # name of the function that builds the features
    function.__name__: function
    for function in (
        *(alexnet, vgg, googlenet, inception_v3, inception_v4, inception_resnet_v2),
        *(squeezenet, shufflenetv2, mobilenetv3, densenet, resnet, efficientnet),
    )
}
