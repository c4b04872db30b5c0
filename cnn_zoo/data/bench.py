"""What a pipeline spends its time on: images per second of each stage, and a sentence that names the bottleneck."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cnn_zoo.data.arraylike import is_lazy
from cnn_zoo.data.arrays import Data, Split, check_batch
from cnn_zoo.data.formats import pool, read_array, to_channels
from cnn_zoo.data.lazy import ImageFiles
from cnn_zoo.data.pipeline import changes, pipeline, plain_errors
from cnn_zoo.data.throughput import cached_split, choose
from cnn_zoo.errors import DataError, InputError

EPOCHS = 20  # of the training that the cache is chosen for
SAMPLE_BYTES = 1 << 28  # what the measurements hold in memory at once, about
LITTLE = 0.1  # a model that waits no longer than this share of its time is kept busy
WORDS = {  # work on an image, in its order
    "read bytes": "reading the files",
    "decode": "decoding",
    "size + intensity": "bringing images to their size and range",
    "read": "reading",
    "masks": "reading the masks",
    "augment": "augmentation",
}


@dataclass(frozen=True)
class Bench:
    """What `bench` found.

    Attributes:
        rates: Images per second of each stage, alone on all cores: those of `WORDS` that there are; "batches, uncached" and "batches, cached" out of
            the whole pipeline, the latter once its rows are kept in memory; "training step" on a batch that is there.
        wait: Share of its time that the model waits for data, or None without a model.
        cores: Processors that this process may use.
        batch_size: Images a batch.
        cache: What `cnn_zoo.data.throughput.choose` says for a training of 20 epochs, of images and of masks, as plain values.
        bottleneck: The key of `rates` that limits.
        advice: One or two sentences.
    """

    rates: dict
    wait: float | None
    cores: int
    batch_size: int
    cache: dict
    bottleneck: str
    advice: str

    def to_dict(self) -> dict:
        """Plain values."""
        return {**asdict(self), "rates": {name: round(rate, 2) for name, rate in self.rates.items()}}

    def __str__(self) -> str:
        work = {name: 1 / self.rates[name] for name in WORDS if name in self.rates}
        lines = [f"{'stage':18}  {'images/s':>10}  {'of the work':>11}"]
        for name, rate in self.rates.items():
            share = f"{work[name] / sum(work.values()):.0%}" if name in work else ""
            lines.append(f"{name:18}  {rate:10,.0f}  {share:>11}".rstrip())
        return "\n".join([*lines, f"{self.cores} core(s), batches of {self.batch_size}", self.advice])


def bench(data, batch_size: int = 32, augment=None, model=None, seconds: float = 2.0) -> Bench:
    """Measure each stage from files to a training step, each by itself on all cores.

    Files that were read a while ago may come from the system's memory rather than from the disk; the first look is the honest one.

    Args:
        data: A `Data`, of which the training split is looked at, or a `Split`.
        batch_size: Images a batch.
        augment: As for `pipeline`.
        model: A Keras model for these images, or None. A copy of it is trained; the optimizer is Adam.
        seconds: About how long each stage is measured.

    Raises:
        DataError: A file cannot be read.
        InputError: The model does not fit the data, or an argument is none of these.
    """
    split = data.train if isinstance(data, Data) else data
    if not isinstance(split, Split) or not len(split):
        raise InputError(f"data is a Data or a Split with at least one image, not {data!r:.200}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InputError(f"seconds is a number above 0, not {seconds!r}")
    whole = pipeline(split, batch_size, shuffle=True, epochs=_MANY, augment=augment, cache="none")
    order = np.random.default_rng(0).permutation(len(split))
    reads = is_lazy(split.images) or is_lazy(split.labels)
    rates = {}
    with plain_errors():
        if is_lazy(split.images):
            rates |= _stages(_image_steps(split.images), order, _chunk(split.images, batch_size), seconds)
        if is_lazy(split.labels):
            rates |= _stages({"masks": split.labels.__getitem__}, order, batch_size, seconds)
        batch = split.take(order[:batch_size])
        batch = Split(batch.images[:], batch.labels[:])
        if augment is not None:
            rates["augment"] = len(batch) * _repeated(_augmentation(augment, batch), seconds)
        rates["batches, uncached"] = _flow(whole, seconds)
        choices = {
            name: choose(values, epochs=EPOCHS)
            for name, values in (("images", split.images), ("masks", split.labels))
            if is_lazy(values)
        }
        fast = whole
        if reads:
            row = sum(values[:1].nbytes for values in (batch.images, batch.labels))
            few, _ = cached_split(split.take(order[: max(batch_size, min(8 * batch_size, SAMPLE_BYTES // row))]), "memory")  # fmt: skip
            few.images[:], few.labels[:]  # kept from now on
            fast = pipeline(few, batch_size, shuffle=True, epochs=_MANY, augment=augment)
            rates["batches, cached"] = _flow(fast, seconds)
        wait = None
        if model is not None:
            kept = all(choice.cache != "none" for choice in choices.values())
            rates["training step"], wait = _training(model, batch, fast if kept else whole, seconds)
    bottleneck, advice = verdict(rates, wait, {name: choice.to_dict() for name, choice in choices.items()})
    return Bench(rates, wait, cores(), batch_size, {n: c.to_dict() for n, c in choices.items()}, bottleneck, advice)


def verdict(rates: dict, wait: float | None, cache: dict) -> tuple[str, str]:
    """The stage that limits, and what to do, in one to three sentences; arguments as the attributes of `Bench`."""
    work = {name: 1 / rates[name] for name in WORDS if name in rates}
    first = ""
    if wait is not None and wait <= LITTLE:
        return "training step", (
            f"The model is the bottleneck: it waits for data {wait:.0%} of the time. "
            "Faster data would not help; a smaller net, smaller images or a faster processor would."
        )
    if wait is not None:
        first = f"The data are the bottleneck: the model waits for them {wait:.0%} of the time. "
    kept = bool(cache) and all(choice["cache"] != "none" for choice in cache.values())
    # The model was fed from the cache: what limits it is what is done to each image in each epoch.
    left = {name: spent for name, spent in work.items() if name == "augment"} if wait is not None and kept else work
    if not left:
        name = "batches, cached" if kept else "batches, uncached"
        return name, f"{first}Nothing is done to an image but to copy it: {rates[name]:,.0f} images per second."
    slowest = max(left, key=left.get)
    share = f"{work[slowest] / sum(work.values()):.0%} of the work on an image"
    share = share if left is work else "all that is left once images are kept"
    first += f"{WORDS[slowest].capitalize()} is the slowest stage: {share}. "
    if slowest == "augment":
        return slowest, first + "It is done anew in each epoch: take fewer or simpler steps, or more cores."
    whys = "; ".join(dict.fromkeys(choice["why"] for choice in cache.values()))
    if kept:
        gain = f"{rates['batches, cached']:,.0f} instead of {rates['batches, uncached']:,.0f} images per second"
        where = {"memory": "in memory", "disk": "on the disk"}[cache["images" if "images" in cache else "masks"]["cache"]]  # fmt: skip
        return slowest, f"{first}Cache {where} ({whys}): {gain} from the second epoch on."
    return slowest, f"{first}Make the files as small as the net needs them, once: resize them, or prepare(data, folder) ({whys})."  # fmt: skip


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_MANY = 1_000_000  # epochs: as long as anybody looks


def _image_steps(images):
    """`{stage: function of rows, or of what the stage before gave}`."""
    if type(images) is not ImageFiles:
        return {"read": images.__getitem__}

    def fetch(row):
        return images.paths[row], Path(images.paths[row]).read_bytes()

    def decode(item):
        path, contents = item
        options = {"frame": images.frame, "alpha": images.shape[-1] == 4, "max_pixels": images._max_pixels}
        try:
            return read_array(contents, **options)
        except DataError:
            read_array(path, **options)  # says which file it is
            raise

    def finish(values):
        values = images.intensity.apply(to_channels(values, images.shape[-1]))
        return values if images.size is None else images.size.apply(values)

    functions = {"read bytes": fetch, "decode": decode, "size + intensity": finish}
    return {
        name: lambda items, function=function: list(pool().map(function, items)) for name, function in functions.items()
    }


def _chunk(images, batch_size):
    """How many images to decode at once: a batch, unless they are huge; no fewer than there are threads."""
    if type(images) is not ImageFiles:
        return batch_size
    first = read_array(images.paths[0], images.frame, max_pixels=images._max_pixels)
    return max(2 * cores(), min(batch_size, SAMPLE_BYTES // first.nbytes))


def _stages(steps, order, chunk, seconds):
    """Images per second of steps, each on what the one before gave for the same rows."""
    spent, done = dict.fromkeys(steps, 0.0), 0
    while not done or sum(spent.values()) < seconds * len(steps):
        rows = values = order[np.arange(done, done + min(chunk, len(order))) % len(order)]
        for name, function in steps.items():
            start = time.perf_counter()
            values = function(values)
            spent[name] += time.perf_counter() - start
        done += len(rows)
    return {name: done / max(total, 1e-9) for name, total in spent.items()}


def _augmentation(augment, batch):
    """A function that changes a batch in memory, as the pipeline does."""
    import tensorflow as tf

    change = changes(augment, batch, 0)
    images, labels = tf.constant(batch.images), tf.constant(batch.labels)
    graph = tf.function(lambda step: change(images, labels, step))
    return lambda step: graph(tf.constant(step, tf.int64))


def _repeated(function, seconds):
    """Calls per second of a function of the number of the call; the first is not counted."""
    function(0)
    start, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds or not done:
        done += 1
        function(done)
    return done / spent


def _flow(batches, seconds):
    """Images per second out of a pipeline, from its second batch on."""
    batches = iter(batches)
    next(batches)
    start, batch_count, done = time.perf_counter(), 0, 0
    while (spent := time.perf_counter() - start) < seconds or batch_count < 4:
        done += len(next(batches)[1])
        batch_count += 1
    return done / spent


def _training(model, batch, batches, seconds):
    """Images per second of training steps on one batch, and the share of the time that steps on `batches` wait for them."""
    import keras

    if not isinstance(model, keras.Model):
        raise InputError(f"model is a Keras model, not {type(model).__name__}")
    check_batch(batch.images, model.input_shape[1:])
    twin = keras.models.clone_model(model)
    # What the loss is costs nothing beside the net, and this one takes labels and masks, softmax and logits.
    twin.compile("adam", loss=lambda answers, outputs: keras.ops.mean(keras.ops.square(outputs)))
    rate = len(batch) * _repeated(lambda step: twin.train_on_batch(batch.images, batch.labels), seconds)
    batches, waited, begun, start = iter(batches), [], None, time.perf_counter()
    while len(waited) < 3 or time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        images, labels = next(batches)
        after = time.perf_counter()
        twin.train_on_batch(np.asarray(images), np.asarray(labels))
        if begun is not None:
            waited.append(after - before)
        elif after - start > seconds / 2:  # what was made ahead of the first step is used up
            begun = time.perf_counter()
    return rate, sum(waited) / (time.perf_counter() - begun)
