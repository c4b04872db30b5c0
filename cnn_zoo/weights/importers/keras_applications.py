"""Layouts "keras" and "efficientnet": which layers of keras.applications and of efficientnet 1.0.0 are which of ours.

Keras' EfficientNet normalises pixels in a layer with weights, which must hold what our preset "imagenet" does.
"""

import re

import keras

from cnn_zoo.errors import WeightsError
from cnn_zoo.registry import get_spec, is_head
from cnn_zoo.weights.importers.keras_h5 import NAMELESS, names_by_place
from cnn_zoo.weights.importers.keras_names import Names, family, pair, refuse_nameless

STATISTICS = r"normalization(_\d+)?"  # EfficientNet's layer


def vgg(net, name):
    return {"fc1": "head_fc6", "fc2": "head_fc7"}.get(name) or re.sub(r"^block(\d)_conv(\d)$", r"s\1_conv\2", name)


def inception_v3(net):
    stem = ["stem_a_1", "stem_a_2", "stem_a_3", "stem_b_2", "stem_b_3"]
    a = "p1_1 p2_1 p2_2 p3_1 p3_2 p3_3 p4_2"
    b = "p1_1 p2_1 p2_2 p2_3 p3_1 p3_2 p3_3 p3_4 p3_5 p4_2"
    c = "p1_1 p2_1 p2_2_p1_1 p2_2_p2_1 p3_1 p3_2 p3_3_p1_1 p3_3_p2_1 p4_2"
    stages = [[a] * 3, ["p1_1 p2_1 p2_2 p2_3", *[b] * 4], ["p1_1 p1_2 p2_1 p2_2 p2_3 p2_4", c, c]]
    return _convs_and_norms(stem + _steps(stages))


def inception_resnet_v2(net):
    stem = ["stem_a_1", "stem_a_2", "stem_a_3", "stem_b_2", "stem_b_3"]
    stages = [
        ["p1_1 p2_1 p2_2 p3_1 p3_2 p3_3 p4_2", *["p1_1 p2_1 p2_2 p3_1 p3_2 p3_3"] * 10],
        ["p1_1 p2_1 p2_2 p2_3", *["p1_1 p2_1 p2_2 p2_3"] * 20],
        ["p1_1 p1_2 p2_1 p2_2 p3_1 p3_2 p3_3", *["p1_1 p2_1 p2_2 p2_3"] * 10],
    ]
    return _convs_and_norms(stem + _steps(stages))


def inception_resnet_v2_named(net, name):
    if up := re.fullmatch(r"block(35|17|8)_(\d+)_conv", name):
        return f"s{ {'35': 3, '17': 4, '8': 5}[up[1]] }_b{int(up[2]) + 1}_up"
    return {"conv_7b": "s5_b12_conv", "conv_7b_bn": "s5_b12_bn"}.get(name)


def xception(net, name):
    if stem := re.fullmatch(r"block1_conv([12])(_bn)?", name):
        return f"stem_{stem[1]}_{'bn' if stem[2] else 'conv'}"
    if at := re.fullmatch(r"block(\d+)_sepconv(\d)(_bn)?", name):
        block = int(at[1])
        ours = f"s{block}_b1" if block < 5 else f"s4_b{block - 3}" if block < 13 else f"s5_b{block - 12}"
        return f"{ours}_{at[2]}_{'bn' if at[3] else 'sepconv'}"
    return None


def xception_shortcuts(net):
    return _convs_and_norms([f"s{stage}_b1_shortcut" for stage in (2, 3, 4, 5)])


def densenet(net, name):
    if at := re.fullmatch(r"conv(\d)_block(\d+)_(?:(0)_bn|1_(bn|conv)|2_(conv))", name):
        part = "bn1" if at[3] else "conv2" if at[5] else {"bn": "bn2", "conv": "conv1"}[at[4]]
        return f"s{int(at[1]) - 1}_b{at[2]}_{part}"
    if at := re.fullmatch(r"pool(\d)_(bn|conv)", name):
        return f"s{int(at[1]) - 1}_transition_{at[2]}"
    return {"conv1_conv": "stem_conv", "conv1_bn": "stem_bn", "bn": "s4_bn"}.get(name)


def mobilenet(net, name):
    if at := re.fullmatch(r"conv_(dw|pw)_(\d+)(_bn)?", name):
        block = _block((1, 2, 2, 6, 2), int(at[2]))
        return block and f"{block}_{at[1]}_{'bn' if at[3] else 'conv'}"
    return {"conv1": "stem_conv", "conv1_bn": "stem_bn"}.get(name)


def mobilenetv2(net, name):
    if at := re.fullmatch(r"(?:expanded_conv|block_(\d+))_(expand|depthwise|project)(_BN)?", name):
        block = _block((1, 2, 3, 4, 3, 3, 1), int(at[1] or 0) + 1)
        return block and f"{block}_{at[2].replace('depthwise', 'dw')}_{'bn' if at[3] else 'conv'}"
    return {"Conv1": "stem_conv", "bn_Conv1": "stem_bn", "Conv_1": "last_conv", "Conv_1_bn": "last_bn"}.get(name)


def nasnet(net, name):
    if name in ("stem_conv1", "stem_bn1"):
        return name[:-1]
    at = re.fullmatch(r"(.*?)_(stem_[12]|reduce_\d+|\d+)", name)
    if not at:
        return None
    part, where, n = at[1], at[2], get_spec(net).row.blocks
    if where.startswith("stem"):
        cell = f"stem_r{where[-1]}"
    elif where.startswith("reduce"):
        cell = f"s{int(where[7:]) // n}_r"
    else:  # the numbers of two reduction cells are left out
        stage = 1 if int(where) < n else 2 if int(where) <= 2 * n else 3
        cell = f"s{stage}_b{int(where) - (stage - 1) * n + (stage == 1)}"
    if side := re.fullmatch(r"separable_conv_([12])(_bn)?_(normal|reduction)_(left|right)(\d)", part):
        number = 5 if side[3] == "reduction" and side[4] + side[5] == "left4" else side[5]
        return f"{cell}_{side[4]}{number}_{'bn' if side[2] else 'conv'}{side[1]}"
    parts = {f"{kind}_{what}_1": f"in_{what}" for kind in ("normal", "reduction") for what in ("conv", "bn")}
    parts |= {"adjust_conv_projection": "adjust_conv", "adjust_bn": "adjust_bn"}
    parts |= {f"adjust_conv_{i}": f"adjust_conv{i}" for i in (1, 2)}
    return f"{cell}_{parts[part]}" if part in parts else None


def efficientnet(net, name):
    if at := re.fullmatch(r"block(\d)([a-z])_(.*)", name):
        return f"s{at[1]}_b{ord(at[2]) - 96}_" + {"dwconv": "dw_conv", "bn": "dw_bn"}.get(at[3], at[3])
    names = {"stem_conv": "stem_conv", "stem_bn": "stem_bn", "top_conv": "last_conv", "top_bn": "last_bn"}
    return names.get(name)


def resnetv2(net, name):
    if at := re.fullmatch(r"conv(\d)_block(\d+)_(preact_bn|\d_conv|\d_bn)", name):
        return f"s{int(at[1]) - 1}_b{at[2]}_{'shortcut_conv' if at[3] == '0_conv' else at[3]}"
    return {"conv1_conv": "stem_conv", "post_bn": "last_bn"}.get(name)


def _block(depths, number):
    """The `number`th block, counted from 1 through all stages."""
    names = [f"s{stage}_b{block}" for stage, depth in enumerate(depths, 1) for block in range(1, depth + 1)]
    return names[number - 1] if 0 < number <= len(names) else None


def _steps(stages):
    return [
        f"s{s}_b{b}_{step}" for s, blocks in enumerate(stages, 3) for b, x in enumerate(blocks, 1) for step in x.split()
    ]


def _convs_and_norms(names):
    return {"conv2d": [(f"{n}_conv", 1) for n in names], "batch_normalization": [(f"{n}_bn", 1) for n in names]}


def none(net, name):
    """For a family none of whose layers, the last excepted, has a name of its own."""


KERAS = {  # our rows that are the same function as a net of keras.applications
    r"vgg(16|19)": Names(vgg),
    r"inceptionv3(_sm)?": Names(none, inception_v3),
    r"inceptionresnetv2(_sm)?": Names(inception_resnet_v2_named, inception_resnet_v2),
    r"xception": Names(xception, xception_shortcuts),
    r"densenet(121|169|201)": Names(densenet),
    r"mobilenet(_\d+)?": Names(mobilenet),
    r"mobilenetv2(_\d+)?": Names(mobilenetv2),
    r"nasnet(mobile|large)": Names(nasnet),
    r"resnet(50|101|152)v2": Names(resnetv2),
}
EFFICIENTNET = {r"efficientnetb[0-7]": Names(efficientnet)}


def keras_twins(net, theirs):
    """`Layout.twins` of keras.applications."""
    theirs = list(theirs)
    if not net.startswith("keras_"):
        family(net, KERAS | EFFICIENTNET, "keras")
    return _by_name_or_order(_keras_by_name, net, _told(net, theirs), theirs)


def efficientnet_twins(net, theirs):
    """`Layout.twins` of efficientnet 1.0.0."""
    theirs = list(theirs)
    family(net, EFFICIENTNET, "efficientnet")
    return _by_name_or_order(_efficientnet_by_name, net, {name: name for name in theirs}, theirs)


def _by_name_or_order(by_name, net, told, theirs):
    """The twins by the names that the file tells, or where most are unknown by order, as Keras itself loads its published files.

    Some of these have the names of older code: that of MobileNetV2 has `mobl1_conv_1_expand` for `block_1_expand`
    (github.com/JonathanCMitchell/mobilenet_v2_keras). What is paired wrongly so fails by its variables' names and shapes.
    """
    try:
        found, failed = by_name(net, told), None
    except WeightsError as error:
        found, failed = {}, error
    unknown = set(theirs) - {name for names in found.values() for name in names}
    if 2 * len(unknown) > len(theirs) and not any(name.startswith(NAMELESS) for name in theirs):
        for top in (True, False):
            model = _keras_net(net, top)
            names = [layer.name for layer in model.layers if layer.weights] if model else []
            if by_name is _efficientnet_by_name:
                names = [name for name in names if not re.fullmatch(STATISTICS, name)]
            if len(names) == len(theirs):
                return by_name(net, dict(zip(theirs, names)))
    if failed:
        raise failed
    return found


def _keras_by_name(net, told):
    statistics = [name for name in told if re.fullmatch(STATISTICS, told[name])]
    back = {told[name]: name for name in told if name not in statistics}
    paired = (
        adapter(net, back) if net.startswith("keras_") else pair(net, back, family(net, KERAS | EFFICIENTNET, "keras"))
    )
    found = {ours: tuple(back.get(name, name) for name in twins) for ours, twins in paired.items()}
    if re.fullmatch(r"(keras_)?efficientnetb\d", net) and "stem_conv" in found:
        found["stem_conv"] += tuple(statistics[:1]) or ("normalization",)
    return found


def _efficientnet_by_name(net, told):
    back = {name: key for key, name in told.items()}
    paired = pair(net, back, family(net, EFFICIENTNET, "efficientnet"))
    return {ours: tuple(back[name] for name in twins) for ours, twins in paired.items()}


def adapter(net, theirs):
    """The twins of an adapter's layers, which have Keras' names."""
    from cnn_zoo.nets import applications

    refuse_nameless(net, theirs)
    row = get_spec(net).row
    numbered = applications.numbered(theirs, applications.recipe(row.constructor, row.preset != "raw").kinds)
    wanted = {ours: name.rpartition("/")[2] for ours, name in applications.original(net).items()}
    known = {numbered.get(name, name): name for name in theirs}
    for name in theirs:  # ConvNeXt without top keeps the normalisation of its head, but not its name
        if re.fullmatch(r"layer_normalization(_\d+)?", name):
            known.setdefault(next((name for name in wanted.values() if name.endswith("_head_layernorm")), name), name)
    return {ours: (known.get(name, name),) for ours, name in wanted.items() if name in known or not is_head(ours)}


def _keras_net(net, top=True):
    """The net of the installed Keras, or None where it has none."""
    name, _, percent = net.removeprefix("keras_").removesuffix("_sm").partition("_")
    makers = {name.lower(): name for name in dir(keras.applications) if name != name.lower()}
    if name not in makers:
        return None
    make = getattr(keras.applications, makers[name])
    return make(weights=None, include_top=top, **({"alpha": int(percent) / 100} if percent else {}))


def _told(net, theirs):
    """`{name in the file: name in Keras}`. A file that tells no names is understood by building the net of the installed Keras."""
    if not any(name.startswith(NAMELESS) for name in theirs):
        return {name: name for name in theirs}
    model = _keras_net(net)
    names = names_by_place((type(layer).__name__, layer.name) for layer in model.layers) if model else {}
    return {name: names.get(name.removeprefix(NAMELESS), name) for name in theirs}
