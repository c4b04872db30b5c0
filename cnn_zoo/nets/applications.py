"""Adapters: every constructor of keras.applications as a row, `keras_` and its name in lower case: `keras_resnet50`.

The constructors are those of the installed Keras, so a new release's nets appear. The first use of a row builds Keras' own net once, notes its
operations and drops it; the row's nets are then made by creating the noted layers anew on our input, at any size, with any number of channels.

Deviations from keras.applications, none of which changes what becomes of an image:

- `preprocess` normalises and nothing else does: where the row's preset says what the `Rescaling` and `Normalization` layers at the head of Keras'
  graph do, these are left out. Those of EfficientNet B0 to B7 get ImageNet's statistics only with the published weights, from which it takes one more
  `Rescaling` to divide by the deviation, not its root (tensorflow/tensorflow issue 49930); the row always has them.
- Images are RGB. Where `preprocess_input` makes BGR of them (`Row.bgr`), published weights need the channels of their first kernel turned round.
- Padding that Keras computes from the size, and guesses where that is open, becomes "same" or `SamePadding2D`: the same zeros, at any size.
- One flat graph: the layers of nested Sequentials stand in it, and a sum written `a + b` is an `Add` layer. The logits are float32.
- Layers have the names that Keras gives them; automatic ones are numbered from 1 in the order of creation. Those of the head begin with `head_`,
  and the last one is `logits`. `original` gives Keras' names.
"""

import functools
import gc
import random
import re
from typing import NamedTuple

import keras
import numpy as np
from keras import layers as L

from cnn_zoo.layers import SamePadding2D
from cnn_zoo.registry import PRESETS, SPECS, Spec, add_spec, get_spec

SOURCE = "keras.applications of Keras 3.15.1, trainable variables counted"
KNOWN = {  # constructor: size, trainable parameters at 1000 classes, and the preset of those that normalise in the graph
    "ConvNeXtBase": (224, 88_591_464, "imagenet"),
    "ConvNeXtLarge": (224, 197_767_336, "imagenet"),
    "ConvNeXtSmall": (224, 50_223_688, "imagenet"),
    "ConvNeXtTiny": (224, 28_589_128, "imagenet"),
    "ConvNeXtXLarge": (224, 350_196_968, "imagenet"),
    "DenseNet121": (224, 7_978_856),
    "DenseNet169": (224, 14_149_480),
    "DenseNet201": (224, 20_013_928),
    "EfficientNetB0": (224, 5_288_548, "imagenet"),
    "EfficientNetB1": (240, 7_794_184, "imagenet"),
    "EfficientNetB2": (260, 9_109_994, "imagenet"),
    "EfficientNetB3": (300, 12_233_232, "imagenet"),
    "EfficientNetB4": (380, 19_341_616, "imagenet"),
    "EfficientNetB5": (456, 30_389_784, "imagenet"),
    "EfficientNetB6": (528, 43_040_704, "imagenet"),
    "EfficientNetB7": (600, 66_347_960, "imagenet"),
    "EfficientNetV2B0": (224, 7_139_704, "imagenet"),
    "EfficientNetV2B1": (240, 8_141_052, "imagenet"),
    "EfficientNetV2B2": (260, 10_096_086, "imagenet"),
    "EfficientNetV2B3": (300, 14_358_406, "imagenet"),
    "EfficientNetV2L": (480, 118_515_272, "symmetric128"),
    "EfficientNetV2M": (480, 54_139_356, "symmetric128"),
    "EfficientNetV2S": (384, 21_458_488, "symmetric128"),
    "InceptionResNetV2": (299, 55_813_192),
    "InceptionV3": (299, 23_817_352),
    "MobileNet": (224, 4_231_976),
    "MobileNetV2": (224, 3_504_872),
    "MobileNetV3Large": (224, 5_483_032, "symmetric"),
    "MobileNetV3Small": (224, 2_542_856, "symmetric"),
    "NASNetLarge": (331, 88_753_150),
    "NASNetMobile": (224, 5_289_978),
    "ResNet101": (224, 44_601_832),
    "ResNet101V2": (224, 44_577_896),
    "ResNet152": (224, 60_268_520),
    "ResNet152V2": (224, 60_236_904),
    "ResNet50": (224, 25_583_592),
    "ResNet50V2": (224, 25_568_360),
    "VGG16": (224, 138_357_544),
    "VGG19": (224, 143_667_240),
    "Xception": (299, 22_855_952),
}
IMAGE = -1  # the number of the net's input, where steps are numbered


class Row(NamedTuple):
    constructor: str
    preset: str
    bgr: bool  # `preprocess_input` turns the channels round


class Ref:
    """Stands for the output of a step among the arguments of a later one."""

    def __init__(self, step):
        self.step = step


class Step(NamedTuple):
    """One operation of a net, noted so that it can be made anew."""

    name: str
    original: str  # Keras' name, `container/layer` in a nested Sequential
    kind: str  # what an automatic name begins with, such as "conv2d"; empty where Keras' code names the layer
    make: type
    config: dict
    args: tuple
    kwargs: dict
    shape: tuple  # of its output, at the noted size
    weighted: bool

    @property
    def inputs(self):
        """Numbers of the steps whose outputs it takes."""
        return [ref.step for ref in keras.tree.flatten((self.args, self.kwargs)) if isinstance(ref, Ref)]

    def pair(self, *keys):
        """The first of some entries of the configuration, as one number a side; None where there is none."""
        found = next((self.config[key] for key in keys if key in self.config), None)
        return (found, found) if isinstance(found, int) else found and tuple(found)

    def __call__(self, tensors, name, **config):
        args, kwargs = keras.tree.map_structure(
            lambda leaf: tensors[leaf.step] if isinstance(leaf, Ref) else leaf, (self.args, self.kwargs)
        )
        return self.make.from_config({**self.config, "name": name, **config})(*args, **kwargs)


class Recipe(NamedTuple):
    """A net of keras.applications as steps by number, in an order in which they can be made."""

    trunk: dict[int, Step]
    head: dict[int, Step]  # up to the last layer with weights, whose outputs are the logits
    taps: dict[int, int]  # stride: step
    left_out: tuple[str, ...]  # Keras' names of the normalising layers that `preprocess` replaces
    kinds: frozenset[str]  # what automatic names begin with


def note(net, normalised):
    """The steps of a Functional model, and its normalising layers, which are not among them if the input is `normalised`."""
    steps, left_out, at = {}, [], {id(net.inputs[0]): IMAGE}
    shapes = {IMAGE: net.inputs[0].shape}

    def add(op, args, kwargs, within=""):
        args, kwargs = keras.tree.map_structure(
            lambda leaf: Ref(at[id(leaf)]) if isinstance(leaf, keras.KerasTensor) else leaf, (args, kwargs)
        )
        make, config = type(op), {k: v for k, v in op.get_config().items() if k not in ("name", "dtype")}
        base = re.sub(r"_\d+$", "", op.name)
        kind = base if base.replace("_", "") == make.__name__.lower() else ""
        if make.__name__ == "Add" and make is not L.Add and all(isinstance(arg, Ref) for arg in args):
            make, config, args = L.Add, {}, (list(args),)
        step = Step(
            op.name,
            within + op.name,
            kind,
            make,
            config,
            args,
            kwargs,
            op.output.shape,
            bool(getattr(op, "weights", None)),
        )
        if normalised and make in (L.Rescaling, L.Normalization) and step.inputs == [IMAGE]:
            left_out.append(step)
            at[id(op.output)] = IMAGE
        else:
            at[id(op.output)] = number = len(steps)
            steps[number], shapes[number] = step, step.shape

    def call(op, *args, **kwargs):
        if not isinstance(op, keras.Sequential):
            add(op, args, kwargs)
        else:
            for layer in op.layers:
                add(layer, args, {}, f"{op.name}/")
                args = (layer.output,)
            at[id(op.output)] = at[id(layer.output)]
        return op.output

    keras.models.clone_model(net, input_tensors=net.input, clone_function=lambda op: op, call_function=call)
    replace_guesses(steps, shapes)
    used = {i for step in steps.values() for i in step.inputs}
    last = max(steps)
    return {i: step for i, step in steps.items() if i in used or i == last}, left_out


def replace_guesses(steps, shapes):
    """Give the windows of stride 2 before which Keras pads by `correct_pad` a padding that is right at every size.

    Such padding is told by its numbers: k // 2 on both sides of an odd length, one less before an even one. The noted size is even one way and odd
    the other, so that at least the first of a net differs both ways, as no padding does that is the same at all sizes.
    """
    guessed = {}
    for i, step in steps.items():
        pad, window = steps.get(step.inputs[0]), step.pair("kernel_size", "pool_size")
        if pad and pad.make is L.ZeroPadding2D and step.pair("strides") == (2, 2) and step.config["padding"] == "valid":
            sides = shapes[pad.inputs[0]][1:3]
            if pad.pair("padding") == tuple((k // 2 - 1 + side % 2, k // 2) for k, side in zip(window, sides)):
                guessed[i] = sides[0] % 2 != sides[1] % 2
    for i in guessed if any(guessed.values()) else ():
        step, pad = steps[i], steps[steps[i].inputs[0]]
        if "kernel_size" in step.config:  # zeros around a convolution are its own "same" padding
            steps[i] = step._replace(args=pad.args, config={**step.config, "padding": "same"})
        elif step.pair("pool_size") == (3, 3):
            steps[step.inputs[0]] = pad._replace(make=SamePadding2D, config={})


def numbered(names, kinds) -> dict[str, str]:
    """Automatic names of layers, numbered from 1 in the order of creation: `{"conv2d_94": "conv2d_1", "conv2d_95": "conv2d_2"}`.

    Args:
        names: Names of layers of one net; those that Keras' code gives are passed over.
        kinds: What automatic names begin with, such as `"conv2d"` (`Recipe.kinds`).
    """
    found = {}
    for name in names:
        kind, _, number = (f"{name}_0" if name in kinds else name).rpartition("_")
        if kind in kinds and number.isdigit():
            found.setdefault(kind, []).append((int(number), name))
    return {name: f"{kind}_{i}" for kind, some in found.items() for i, (_, name) in enumerate(sorted(some), 1)}


@functools.cache
def recipe(constructor: str, normalised: bool) -> Recipe:
    """The steps of a constructor's net, without its normalising layers where ours has `normalised`. The first use builds Keras' net."""
    steps, left_out = note(keras_net(constructor), normalised)
    gc.collect()  # a Keras model is full of cycles: give back its weights before ours are made
    noted = [*steps.values(), *left_out]
    kinds = frozenset(step.kind for step in noted if step.kind)
    new = numbered([step.name for step in noted if step.kind], kinds)
    steps, left_out = {i: rename(step, new) for i, step in steps.items()}, [rename(step, new) for step in left_out]
    end = max(i for i, step in steps.items() if is_map(step))
    logits = max(i for i, step in steps.items() if step.weighted)
    trunk = {i: step for i, step in steps.items() if i <= end}
    head = {i: step for i, step in steps.items() if end < i <= logits}
    return Recipe(trunk, head, taps_of(trunk), tuple(step.original for step in left_out), kinds)


def keras_net(constructor):
    """The constructor's net at the smallest size that it takes of those that `replace_guesses` can do with."""
    make, state = getattr(keras.applications, constructor), random.getstate()
    try:
        for size in ((64, 65), (128, 129)):
            try:
                return make(weights=None, input_shape=(*size, 3), classes=10, classifier_activation=None)
            except ValueError as error:
                refused = error
        raise refused
    finally:  # Keras draws seeds from Python's generator: a net is the same whether its recipe was noted before or not
        random.setstate(state)


def rename(step, new):
    name = new.get(step.name, step.name)
    return step._replace(name=name, original=step.original.removesuffix(step.name) + name)


def is_map(step):
    """Whether a step gives a map, and not one number a channel."""
    return len(step.shape) == 4 and step.shape[1] * step.shape[2] > 1


def taps_of(trunk):
    """For each stride the last step on the main path: one that at least three quarters of all ways through the net pass.

    All of them pass the sums of residual blocks, the expansion before a strided depthwise convolution and the ends of stages. In NASNet, where a cell
    takes the outputs of two before it, about four fifths pass the output of a cell.
    """
    to, strides = {IMAGE: 1}, {IMAGE: 1}
    for i, step in trunk.items():
        to[i] = sum(to[j] for j in step.inputs)
        strides[i] = max(strides[j] for j in step.inputs) * (step.pair("strides") or (1,))[0]
    end, taps = max(trunk), {}
    onward = dict.fromkeys(to, 0) | {end: 1}
    for i, step in reversed(trunk.items()):
        for j in step.inputs:
            onward[j] += onward[i]
    for i, step in trunk.items():
        if is_map(step) and 4 * to[i] * onward[i] >= 3 * to[end] and step.make not in (L.ZeroPadding2D, SamePadding2D):
            taps[strides[i]] = i
    return taps


def features(x, row):
    net = recipe(row.constructor, row.preset != "raw")
    tensors = {IMAGE: x}
    for i, step in net.trunk.items():
        tensors[i] = step(tensors, step.name)
    return {stride: tensors[i] for stride, i in net.taps.items()}


def head(x, classes, row):
    net = recipe(row.constructor, row.preset != "raw")
    *steps, (_, logits) = net.head.items()
    tensors = {max(net.trunk): x}
    for i, step in steps:
        tensors[i] = step(tensors, f"head_{step.name}")
    outputs = "units" if "units" in logits.config else "filters"
    x = logits(tensors, "logits", **{outputs: classes}, dtype="float32")
    return x if len(x.shape) == 2 else L.Flatten(dtype="float32", name="head_flatten")(x)


def original(name: str) -> dict[str, str]:
    """Keras' names of the layers with weights of an adapter: `{our layer: theirs}`, in the order of the graph.

    They differ in the head and in nested Sequentials (ConvNeXt), whose layers are `container/layer`. Automatic names are numbered from 1 in the order
    of creation; in a file their numbers depend on what was built before in the session that wrote it: `numbered` brings them to ours. The normalising
    layers that we leave out are not among them: `Recipe.left_out` has them.

    Args:
        name: Key of the registry, such as `"keras_resnet50"`.
    """
    row = get_spec(name).row
    net = recipe(row.constructor, row.preset != "raw")
    trunk = {step.name: step.original for step in net.trunk.values() if step.weighted}
    ours = {f"head_{step.name}": step.original for step in net.head.values() if step.weighted}
    *_, last = ours
    return trunk | {("logits" if name == last else name): theirs for name, theirs in ours.items()}


def normalisation(make):
    """The preset that does what a constructor's `preprocess_input` does, and whether this turns the channels round; None where no preset does.

    Told by its effect on three pixels, in a fresh array since it may write into the one that it is given.
    """
    module = getattr(keras.applications, make.__module__.rpartition(".")[2], None)
    pixels = np.array([[[[0, 0, 0], [255, 0, 0], [10, 100, 200]]]], "float32")
    out = module.preprocess_input(pixels.copy()) if hasattr(module, "preprocess_input") else pixels
    bgr = bool(out[0, 0, 1, 0] == out[0, 0, 0, 0])  # red is not where it was
    out = out[..., ::-1] if bgr else out
    for preset in PRESETS.values():
        if np.allclose(out, (pixels - preset.mean) / preset.std, atol=1e-4):
            return preset.name, bgr
    return None


def register():
    """Add every constructor of the installed Keras that the registry lacks. One that `KNOWN` lacks has no parameter count."""
    for constructor, make in vars(keras.applications).items():
        name = f"keras_{constructor.lower()}"
        if name in SPECS or not constructor[0].isupper() or not callable(make) or not (told := normalisation(make)):
            continue
        size, params, *inside = KNOWN.get(constructor, (224, None))
        row = Row(constructor, inside[0] if inside else told[0], told[1])
        cited = re.search(r"\[([^]]+)]\(\s*(http[^)\s]+)", make.__doc__ or "")
        add_spec(
            Spec(
                name=name,
                family="applications",
                row=row,
                features=features,
                head=head,
                params=params,
                source=SOURCE,
                size=(size, size),
                channels=3,
                classes=1000,
                preset=row.preset,
                paper=f"{' '.join(cited[1].split())}, {cited[2]}" if cited else f"keras.applications.{constructor}",
            )
        )


register()
