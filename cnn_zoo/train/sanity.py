"""`check`: what lecturers tell to try before the first long training, as code."""

import dataclasses
import math
import warnings
from dataclasses import dataclass

import keras
import numpy as np

from cnn_zoo import metrics
from cnn_zoo.data import Data, Split
from cnn_zoo.errors import InputError, ZooError
from cnn_zoo.outputs import is_segmenter, output_kind
from cnn_zoo.train.curves import FAILED, PASSED, RIGHT, SKIPPED, Item, failed, passed, read_curves
from cnn_zoo.train.lr_find import lr_find, step, trial
from cnn_zoo.train.recipe import Recipe
from cnn_zoo.train.recipe import recipe as find_recipe

RUNS = ("loss at the start", "gradients", "one small batch", "shuffled labels", "learning rate")
RATES = (1e-3, 1e-2, 1e-4)  # of Adam, tried in turn on one small batch
START_BAND = 0.7  # nats around ln(classes): a net that is wrong twice as often as by chance
LEARNED = 0.2  # of the first loss, or `RIGHT` of a small batch right, is learning it by heart
VANISHED = 1e-7  # of the largest gradient
SURE = 2.5  # standard errors
SMALL_INPUTS = 0.01  # standard deviation of what the first layer with weights is given


@dataclass(frozen=True)
class Sanity:
    """What `check` has found, in the order of its items."""

    items: tuple[Item, ...]

    @property
    def failed(self) -> tuple[Item, ...]:
        """The items that failed."""
        return tuple(item for item in self.items if item.status == FAILED)

    def __getitem__(self, name: str) -> Item:
        """The item of that name."""
        return next(item for item in self.items if item.name == name)

    def __str__(self):
        count = len(self.failed)
        return "\n".join([*map(str, self.items), f"{count} failed" if count else "nothing failed"])

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {"failed": len(self.failed), "items": [dataclasses.asdict(item) for item in self.items]}


def check(
    model: keras.Model,
    data,
    recipe: str | Recipe = "lecture",
    *,
    loss: keras.losses.Loss | None = None,
    run=None,
    steps: int = 150,
    images: int = 512,
) -> Sanity:
    """Is anything wrong with a model, its data and its recipe? Some short runs tell, before the long one.

    Looked at are: the range of the images, the labels, the loss at the start (ln(classes) of a net that knows nothing), the gradients of each layer,
    whether the net learns one small batch by heart, whether it learns more from the labels than from shuffled ones, and the learning rate. The model
    is afterwards what it was before.

    Args:
        model: As for `fit`.
        data: As for `fit`.
        recipe: As for `fit`.
        loss: As for `fit`.
        run: A run folder or `Run` whose curves are read as well.
        steps: Of each short run.
        images: So many are looked at and learned from, at most.

    Raises:
        InputError: What is no model or no data for `fit` at all.

    Source: Karpathy 2019, "A recipe for training neural networks"; Stanford CS231n, "Neural networks part 3", Sanity checks; Zhang et al. 2017,
    "Understanding deep learning requires rethinking generalization" (shuffled labels).
    """
    recipe, masks = find_recipe(recipe), is_segmenter(model)
    sample, held = _samples(data, recipe, images)
    items = [_inputs(model, sample), _labels(model, sample, data, masks)]
    curves = [] if run is None else [read_curves(run)]
    if not model.trainable_variables:
        advice = "free some: cnn_zoo.train.freeze(model, upto=None)"
        items.append(failed("gradients", {"usable": False}, "no layer is trainable", advice))
    if not all(item.numbers.get("usable", True) for item in items):
        done = [item.name for item in items]
        rest = [name for name in RUNS if name not in done]
        return Sanity((*items, *(Item(name, SKIPPED, "what failed comes first") for name in rest), *curves))
    plain = recipe.replace(
        augment=None, balance=None, label_smoothing=0.0, sam=0.0, ema=0.0, clip=None, accumulate=1, schedule="constant", warmup=0.0,
        optimizer="adam", learning_rate=1e-3, weight_decay=0.0, rates=None, decays=None, repeat=1, precision="float32", validation=0.0,
        class_weight=None,
    )  # fmt: skip
    small = Data("sample", sample, held, None, _names(model, data, masks), "a sample", _ignored(data))
    with trial(model, small, plain, loss) as (twin, task, reset):
        items.append(_start(twin, sample, masks, small.ignore))
        items.append(_gradients(twin, sample, masks))
        begin = _beginner(twin, masks, small.ignore, reset)
        items.append(_by_heart(twin, sample, masks, steps, begin))
        rate = items[-1].numbers["rate"] if items[-1].status == PASSED else RATES[0]
        items.append(_shuffled(twin, sample, held, masks, small.ignore, steps, lambda: begin(rate)))
    items.append(_rate(model, data, recipe, loss))
    return Sanity((*items, *curves))


# -- the data


def _samples(data, recipe, images):
    """Images to learn from and others to test on, as plain arrays, half as many."""
    if isinstance(data, Data):
        train, held = data.train, data.validation
        rng = np.random.default_rng(recipe.seed)
        order = rng.permutation(len(train))
        part = train.take(np.sort(order[:images]))
        if held is None:
            held = train.take(np.sort(order[images : images + images // 2])) if len(train) > images else None
        else:
            held = held.take(np.sort(rng.permutation(len(held))[: images // 2]))
        part = Split(np.asarray(part.images), np.asarray(part.labels))
        held = held and Split(np.asarray(held.images), np.asarray(held.labels))
    else:
        if not hasattr(data, "element_spec"):
            raise InputError(
                f"data is a Data (of cnn_zoo.load or Data.from_arrays) or a tf.data.Dataset, not {type(data).__name__}"
            )
        pairs = list(data.unbatch().take(images + images // 2).as_numpy_iterator())
        values, labels = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
        labels = labels[..., 0] if labels.ndim in (2, 4) and labels.shape[-1] == 1 else labels
        part, held = Split(values[:images], labels[:images]), Split(values[images:], labels[images:])
    if held is None or len(held) < 4:  # a third of the sample
        cut = -(-2 * len(part) // 3)
        order = np.random.default_rng(recipe.seed).permutation(len(part))
        part, held = part.take(order[:cut]), part.take(order[cut:])
    if len(part) < 4 or len(held) < 2:
        raise InputError(f"{len(part) + len(held)} images are too few to check a training on: give at least a dozen")
    return part, held


def _names(model, data, masks):
    outputs = model.output_shape[-1]
    return data.classes if isinstance(data, Data) else tuple(map(str, range(max(2, outputs) if masks else outputs)))


def _ignored(data):
    return data.ignore if isinstance(data, Data) else ()


def _inputs(model, sample):
    name, images = "input range", sample.images.astype("float32")
    low, high = float(images.min()), float(images.max())
    numbers = {"dtype": str(sample.images.dtype), "minimum": low, "maximum": high}
    unusable = {**numbers, "usable": False}
    if any(ours not in (None, theirs) for ours, theirs in zip(model.input_shape[1:], images.shape[1:], strict=True)):
        found = f"images are {images.shape[1:]} and the model takes {model.input_shape[1:]}"
        return failed(name, unusable, found, "build the model for them, or resize them")
    if not np.isfinite(images).all():
        return failed(name, unusable, "some values are infinite or NaN", "leave these images out")
    found = f"images are {numbers['dtype']} from {low:g} to {high:g}"
    if low == high:
        return failed(name, numbers, f"{found}: all are the same", "see how they are read")
    if -2 <= low and high <= 2:
        advice = "give the images as they are in their files; scaling is the model's own first layer"
        return failed(name, unusable, f"{found}, and 0..255 are expected: they have been scaled already", advice)
    if low < 0 or high > 255:
        advice = "bring them to 0..255 by a rule: Data.from_arrays, or intensity= of the readers"
        return failed(name, unusable, f"{found}, and 0..255 are expected", advice)
    weighted = (layer for layer in model.layers if layer.weights and "norm" not in type(layer).__name__.lower())
    first = next(weighted, None)
    if first is None or isinstance(first, keras.Model):
        return passed(name, numbers, found)
    seen = keras.Model(model.inputs[0], first.input)(sample.images[:64], training=False)
    deviation = numbers["deviation"] = float(np.std(keras.ops.convert_to_numpy(seen)))
    found += f"; the first layer with weights, {first.name!r}, is given a standard deviation of {deviation:.2g}"
    if deviation < SMALL_INPUTS:
        return failed(name, numbers, found, "the images are scaled twice on their way: take one Rescaling away")
    return passed(name, numbers, found)


def _labels(model, sample, data, masks):
    name, what = "label range", "masks" if masks else "labels"
    classes = max(2, model.output_shape[-1]) if masks else model.output_shape[-1]
    unusable = {"classes": classes, "usable": False}
    if sample.has_masks != masks:
        found = f"the data have {'masks' if sample.has_masks else 'labels'} and the model is for {what}"
        return failed(name, unusable, found, "build_segmenter makes models for masks, build others")
    all_of_them = isinstance(data, Data) and not masks  # since labels are cheap to look at
    labels = data.train.labels if all_of_them else sample.labels
    if not np.issubdtype(labels.dtype, np.integer):
        return failed(name, unusable, f"{what} are {labels.dtype}", "give whole numbers from 0")
    ids, counts = np.unique(labels[~np.isin(labels, _ignored(data))], return_counts=True)
    if outside := [int(i) for i in ids if not 0 <= i < classes]:
        found = f"{what} have {', '.join(map(str, outside[:5]))}, and the model has the classes 0..{classes - 1}"
        return failed(
            name, unusable, found, f"build the model with classes={int(ids.max()) + 1}, or correct the {what}"
        )
    numbers = {"classes": classes, "counts": {int(i): int(n) for i, n in zip(ids, counts)}}
    if len(ids) < 2:
        found = f"all {what} are {ids[0] if len(ids) else 'ignored'}"
        return failed(
            name, {**numbers, "usable": False}, found, "there is nothing to tell apart: see how they are read"
        )
    found = f"{what} are 0..{classes - 1}; the rarest has {counts.min() / counts.sum():.1%}, the most frequent {counts.max() / counts.sum():.1%}"
    if missing := sorted(set(range(classes)) - set(ids.tolist())):
        found = f"no example of class {', '.join(map(str, missing[:5]))} in the {what} of {len(labels)} images"
        if all_of_them or (isinstance(data, Data) and len(sample) == len(data.train)):
            return failed(name, numbers, found, "label some, or build the model with fewer classes")
    return passed(name, numbers, found)


# -- short runs


def _cross_entropy(model, split, masks, ignore):
    """Cross-entropy of each image, in nats, and the share of it that is right, both `(n,)`."""
    outputs = np.concatenate([
        keras.ops.convert_to_numpy(model(split.images[i : i + 32], training=False)) for i in range(0, len(split), 32)
    ]).astype("float32")  # fmt: skip
    logits, labels = output_kind(model) == "logits", split.labels
    kept = ~np.isin(labels, ignore)
    if outputs.shape[-1] == 1:
        p = 1 / (1 + np.exp(-outputs)) if logits else outputs
        outputs, logits = np.concatenate([1 - p, p], -1), False
    if logits:
        outputs = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    true = np.take_along_axis(outputs, np.where(kept, labels, 0)[..., None].astype("int64"), -1)[..., 0]
    nats, right = -np.log(np.maximum(true, 1e-12)), outputs.argmax(-1) == labels
    if masks:
        count = np.maximum(kept.sum((1, 2)), 1)
        return (nats * kept).sum((1, 2)) / count, (right & kept).sum((1, 2)) / count
    return nats, right.astype("float32")


def _start(model, sample, masks, ignore):
    name, classes = "loss at the start", max(2, model.output_shape[-1])
    part = sample.take(np.arange(min(len(sample), 16 if masks else 256)))
    loss, expected = float(_cross_entropy(model, part, masks, ignore)[0].mean()), math.log(classes)
    numbers = {"loss": loss, "expected": expected}
    found = f"cross-entropy {loss:.3f}, and ln({classes}) = {expected:.3f} of a net that knows nothing"
    if not math.isfinite(loss) or loss > expected + START_BAND:
        advice = "begin with smaller weights in the last layer, bring images to a small range in the first, and see that labels are in the order of "
        return failed(name, numbers, f"{found}: it is wrong with confidence", f"{advice}the outputs")
    if loss < expected - START_BAND:
        return Item(name, SKIPPED, f"{found}: it knows something already", "", numbers)
    return passed(name, numbers, found)


def _gradients(model, sample, masks):
    """Gradients of three batches, added up by an SGD whose momentum forgets nothing: all backends, and no gradient is rounded away by a weight."""
    name, rate = "gradients", 1e-4
    optimizer = keras.optimizers.SGD(rate, momentum=1.0)
    model.compile(optimizer=optimizer, loss=model.loss)
    optimizer.build(model.trainable_variables)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist")  # this is what is asked here
        for batch in _cycled(sample, masks, 3):
            step(model, batch)
    of = {
        v.path: np.asarray(keras.ops.convert_to_numpy(m), "float64") / rate
        for v, m in zip(model.trainable_variables, optimizer.momentums)
    }
    sizes = {}
    for layer in _layers(model):
        parts = [of[v.path].ravel() for v in layer.trainable_variables if v.path in of]
        if parts:
            sizes[layer.name] = float(np.sqrt(np.mean(np.concatenate(parts) ** 2)))
    largest = max((value for value in sizes.values() if math.isfinite(value)), default=0.0)
    groups = {
        "not finite": [layer for layer, value in sizes.items() if not math.isfinite(value)],
        "none": [layer for layer, value in sizes.items() if value == 0],
        "vanishing": [layer for layer, value in sizes.items() if 0 < value < VANISHED * largest],
    }
    numbers = {"root_mean_square": sizes, **groups}
    advice = {
        "not finite": "images or labels are out of range, or a layer divides by 0 or takes the logarithm of 0",
        "none": "their units are dead (ReLU of what is always below 0: other initialisation), or nothing leads from them to the loss",
        "vanishing": "take ReLU for sigmoid and tanh, normalisation between the layers, or shortcuts around them",
    }
    if bad := {kind: layers for kind, layers in groups.items() if layers}:
        found = "; ".join(
            f"{kind}: {', '.join(layers[:5])}{' ...' if len(layers) > 5 else ''}" for kind, layers in bad.items()
        )
        return failed(name, numbers, found, "; ".join(advice[kind] for kind in bad))
    least = min(sizes, key=sizes.get)
    found = f"reach all {len(sizes)} trainable layers; the smallest is {sizes[least]:.1e} in {least!r}, the largest {largest:.1e}"
    return passed(name, numbers, found)


def _by_heart(model, sample, masks, steps, begin):
    name, score = "one small batch", "mean_iou" if masks else "accuracy"
    batch = next(_cycled(sample, masks, 1))
    for rate in RATES:
        begin(rate)
        rows = []
        while len(rows) < steps and not (len(rows) >= 5 and rows[-1]["loss"] < LEARNED / 4 * rows[0]["loss"]):
            rows.append(step(model, batch))
        first, last, right = rows[0]["loss"], *(float(np.mean([row[k] for row in rows[-5:]])) for k in ("loss", score))
        numbers = {
            "images": len(batch[0]),
            "rate": rate,
            "steps": len(rows),
            "first_loss": first,
            "last_loss": last,
            score: right,
        }
        found = f"after {len(rows)} steps on the same {len(batch[0])} images the loss is {last:.3f} (at first {first:.3f}), "
        found += f"{score.replace('_', ' ')} {right:.2f}"
        if last <= LEARNED * first or right >= RIGHT:
            return passed(name, numbers, found)
    advice = "images that look the same have different labels, the net is too small, frozen or dead, or its output and the loss do not fit"
    return failed(name, numbers, f"{found}: it cannot learn them by heart", advice)


def _shuffled(model, sample, held, masks, ignore, steps, begin):
    name, scores = "shuffled labels", []
    rng = np.random.default_rng(0)
    for labels in (sample.labels, sample.labels[rng.permutation(len(sample))]):
        begin()
        for batch in _cycled(Split(sample.images, labels), masks, steps):
            step(model, batch)
        scores.append(_cross_entropy(model, held, masks, ignore)[1])
    better = scores[0] - scores[1]
    error = float(better.std(ddof=1) / math.sqrt(len(better)))
    numbers = {
        "true": float(scores[0].mean()),
        "shuffled": float(scores[1].mean()),
        "standard_error": error,
        "images": len(better),
    }
    what = f"the pixels of {len(better)} images" if masks else f"{len(better)} images"
    found = (
        f"of {what} {numbers['true']:.1%} are right, and {numbers['shuffled']:.1%} after training on shuffled labels"
    )
    if better.mean() > SURE * error and better.mean() > 0:
        return passed(name, numbers, found)
    advice = (
        "labels do not belong to their images (sorted, shuffled, read in another order?), or images do not show what the labels say; with few images "
        "or a hard task, try more steps"
    )
    return failed(name, numbers, f"{found}: no more than chance", advice)


def _rate(model, data, recipe, loss):
    name, rate = "learning rate", recipe.learning_rate
    try:
        found = lr_find(model, data, recipe, lowest=1e-6, highest=max(10.0, 2 * rate), steps=60, loss=loss)
    except ZooError as error:
        return Item(name, SKIPPED, str(error))
    numbers = {"rate": rate, "suggestion": found.suggestion, "tenth": found.tenth, "exploded": found.exploded}
    if found.suggestion is None:
        return failed(name, numbers, str(found), "the other items say why")
    said = f"{rate:g}; {found}"
    low, start = found.smoothed.min(), found.smoothed[0]
    if rate > found.rates[found.smoothed.argmin()] and found.loss_at(rate) > low + 0.5 * (start - low):
        return failed(name, numbers, f"too high: {said}", f"try {found.tenth or found.suggestion:.1g}")
    if rate < found.suggestion / 100:
        return failed(name, numbers, f"too low: {said}", f"try {found.suggestion:.1g}")
    return passed(name, numbers, said)


def _beginner(model, masks, ignore, reset):
    """Compile a model with Adam, whatever the recipe's optimizer, since its rate is a matter of its own; return what takes both to their start."""
    classes, logits = model.output_shape[-1], output_kind(model) == "logits"
    score = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    if masks:
        score = metrics.MeanIoU(max(classes, 2), from_logits=logits and classes == 1, ignore=ignore)
    optimizer = keras.optimizers.Adam(RATES[0])
    model.compile(optimizer=optimizer, loss=model.loss, metrics=[score])
    optimizer.build(model.trainable_variables)
    kept = [np.array(keras.ops.convert_to_numpy(v)) for v in optimizer.variables]

    def begin(rate):
        reset()
        for variable, value in zip(optimizer.variables, kept):
            variable.assign(value)
        optimizer.learning_rate = rate

    return begin


def _cycled(split, masks, count):
    """So many small batches, again and again through the same order; the first has as many classes of labels as it can."""
    order = np.random.default_rng(0).permutation(len(split))
    if not masks:
        seen = {}
        turns = [seen.update({label: seen.get(label, 0) + 1}) or seen[label] for label in split.labels[order].tolist()]
        order = order[np.argsort(turns, kind="stable")]
    size = min(4 if masks else 16, len(order))
    for i in range(count):
        places = order[(np.arange(size) + i * size) % len(order)]
        yield split.images[places], split.labels[places]


def _layers(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer
