"""The `tf.data` pipeline: order, augmentation and batches as functions of a seed."""

import difflib
import re
import weakref
from contextlib import contextmanager

import numpy as np

from cnn_zoo.augment import PRESETS, Augmenter
from cnn_zoo.augment.steps import Mixing
from cnn_zoo.data.arraylike import is_lazy
from cnn_zoo.data.arrays import Split
from cnn_zoo.data.throughput import cached_split
from cnn_zoo.errors import DataError, InputError


def pipeline(
    split: Split,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    first_epoch: int = 0,
    epochs: int = 1,
    repeat: int = 1,
    augment=None,
    balance: bool = False,
    prefetch: bool = True,
    cache: str = "auto",
):
    """Batches of a split, epoch after epoch.

    Order and augmentation of epoch e are functions of `seed` and e alone. A run that is resumed at epoch e therefore sees the very batches
    that an uninterrupted one sees. Lazy images and masks are read batch by batch, ahead of the model; `plain_errors` tells which file failed.

    Args:
        split: The images and labels.
        batch_size: Images a batch; the last batch of an epoch has what is left.
        shuffle: Draw a new order for each epoch.
        seed: Of orders and augmentation.
        first_epoch: Epoch to start with.
        epochs: Epoch to stop before; the data set ends there.
        repeat: How often an epoch goes through the images: more than once where they are few and augmented.
        augment: None; the name of a preset of `cnn_zoo.augment.PRESETS` (what comes in from outside is 0; where there are masks it is the
            mirrored image); an `Augmenter`; or a function in TensorFlow, `(images, seed) -> images`, or `(images, masks, seed) -> (images, masks)`
            where there are masks, of a batch, `seed` being an int32 tensor of shape (2,).
        balance: Instead of an order, draw each image anew: all classes that occur with equal probability, and all images of a class.
        prefetch: Prepare the next batches while the model works on one.
        cache: Where rows of lazy images and masks are kept after they were first read: "memory", "disk", "none", or "auto", which decides by what
            is free and what reading costs (`cnn_zoo.data.throughput.cached`). It changes no batch. It lives as long as the data set; what goes
            through several of them, `cached_split` keeps.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`: `(batch, height, width, channels)` uint8 or float32 and `(batch,)` int64,
        or masks `(batch, height, width)`; of an `Augmenter` that mixes samples `(batch, classes)` float32, shares of classes, instead of labels.

    Raises:
        InputError: `batch_size` is no whole number of at least 1, there is no augmentation or cache of that name, or masks are to be balanced.
        StorageError: A cache that was asked for by name does not fit.
    """
    import tensorflow as tf

    if not hasattr(batch_size, "__index__") or batch_size < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
    split, _ = cached_split(split, cache, epochs=max(0, epochs - first_epoch) * repeat)
    count = len(split) * repeat
    steps = -(-count // batch_size)
    change = changes(augment, split, seed)
    reads = is_lazy(split.images) or is_lazy(split.labels)
    images, labels = _gatherer(split.images), _gatherer(split.labels)

    draw = _balanced(split, count) if balance else None

    def epoch(number):
        if draw is not None:
            indices = draw(tf.stack([seed, number]))
        else:
            indices = tf.range(count)
            if shuffle:
                indices = tf.random.experimental.stateless_shuffle(indices, seed=tf.stack([seed, number]))
            indices %= len(split)
        batches = tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
        return tf.data.Dataset.zip(tf.data.Dataset.range(number * steps, (number + 1) * steps), batches)

    def gather(step, indices):
        batch = images(indices), labels(indices)
        return batch if change is None else change(*batch, step)

    options = tf.data.Options()
    options.deterministic = True
    dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch)
    # Without augmentation a batch costs less than waking a second thread; with it, two cores are worth having.
    dataset = dataset.map(gather, num_parallel_calls=None if change is None and not reads else tf.data.AUTOTUNE)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(max(0, epochs - first_epoch) * steps))
    if prefetch:
        dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return dataset.with_options(options)


def _balanced(split, count):
    """A function in TensorFlow from a seed to so many indices, of each class equally many on average."""
    import tensorflow as tf

    if split.has_masks:
        raise InputError(
            "balance draws images by their class, and these have masks: give the loss class weights instead"
        )
    order = np.argsort(split.labels, kind="stable").astype("int32")
    _, starts, sizes = np.unique(split.labels[order], return_index=True, return_counts=True)
    starts, sizes = starts.astype("int32"), sizes.astype("int32")

    def draw(seed):
        which, place = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        drawn = tf.random.stateless_uniform([count], which, 0, len(starts), tf.int32)
        size = tf.gather(sizes, drawn)
        within = tf.cast(
            tf.random.stateless_uniform([count], place, dtype=tf.float64) * tf.cast(size, tf.float64), tf.int32
        )
        return tf.gather(order, tf.gather(starts, drawn) + within)

    return draw


@contextmanager
def plain_errors():
    """Within it, what TensorFlow says of a file that could not be read in the middle of an epoch is said as a `DataError` again."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        if found := re.search(r"(?:DataError|InputError): (.*?)(?:\nTraceback|\n\n|$)", str(error), re.DOTALL):
            raise DataError(found[1]) from None
        raise


def _gatherer(values):
    """A function in TensorFlow from indices to those rows of an array."""
    import tensorflow as tf

    if not is_lazy(values):
        with tf.device("CPU"):
            whole = tf.constant(values)
        return lambda indices: tf.gather(whole, indices)

    # TensorFlow keeps what `numpy_function` is given for as long as the program runs: `fetch` must not keep the rows of a cache. In eager mode
    # the data set does, by `read`; one that is made within a graph is known to that graph alone.
    there = weakref.ref(values) if tf.executing_eagerly() else lambda: values

    def fetch(indices):
        return there()[indices]

    def read(indices):
        rows = tf.numpy_function(fetch, (indices,), tf.as_dtype(values.dtype))
        return tf.ensure_shape(rows, (None, *values.shape[1:]))

    return read


def augmenter(augment, masks: bool):
    """The `Augmenter` for the name of a preset; None, an `Augmenter` or a function stays what it is.

    Raises:
        InputError: There is no preset of that name.
    """
    if augment is None or callable(augment):
        return augment
    if augment not in PRESETS:
        close = difflib.get_close_matches(str(augment).lower(), PRESETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"there is no augmentation {augment!r}{hint} (there are: {', '.join(PRESETS)}; or give an Augmenter or a function)"
        )
    return Augmenter(PRESETS[augment], border="reflect" if masks else "constant")


def mixes_labels(augment) -> bool:
    """Whether labels come out as shares of classes, `(batch, classes)`."""
    return isinstance(augment, Augmenter) and any(isinstance(step, Mixing) for step in augment.steps)


def changes(augment, split: Split, seed: int):
    """The augmentation of batches of a split as a function `(images, labels, step) -> (images, labels)` in TensorFlow, or None."""
    import tensorflow as tf

    function = augmenter(augment, split.has_masks)
    if function is None:
        return None
    if not isinstance(function, Augmenter):

        def with_tensorflow(images, labels, step):
            key = tf.cast(tf.stack([tf.cast(seed, tf.int64), step]), tf.int32)
            return function(images, labels, key) if split.has_masks else (function(images, key), labels)

        return with_tensorflow

    masks = split.has_masks  # TensorFlow keeps `with_numpy`, which must not keep the split
    mixed = not masks and mixes_labels(function)

    def with_numpy(images, labels, step):
        if masks:
            changed = function(images, labels, seed=(seed, step))
            return changed.images, changed.masks
        if mixed:
            changed = function(images, labels=labels, seed=(seed, step))
            return changed.images, changed.labels
        return function(images, seed=(seed, step)), labels

    size = function.size(*split.images.shape[1:3])
    # A first batch of one here: what does not fit is said now, by name, and not from within TensorFlow in the middle of an epoch.
    with_numpy(split.images[:1], split.labels[:1], 0)

    def change(images, labels, step):
        types = (images.dtype, tf.float32 if mixed else labels.dtype)
        changed, answers = tf.numpy_function(with_numpy, (images, labels, step), types)
        changed = tf.ensure_shape(changed, (None, *size, images.shape[-1]))
        shape = (None, *size) if masks else (None, function.classes) if mixed else (None,)
        return changed, tf.ensure_shape(answers, shape)

    return change
