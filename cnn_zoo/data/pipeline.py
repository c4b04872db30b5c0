"""The `tf.data` pipeline: order, augmentation and batches as functions of a seed."""

import difflib
import re
from contextlib import contextmanager

from cnn_zoo.augment import PRESETS, Augmenter
from cnn_zoo.data.arraylike import is_lazy
from cnn_zoo.data.arrays import Split
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
    prefetch: bool = True,
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
        prefetch: Prepare the next batches while the model works on one.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`: `(batch, height, width, channels)` uint8 or float32 and `(batch,)` int64,
        or masks `(batch, height, width)`.

    Raises:
        InputError: `batch_size` is no whole number of at least 1, or there is no augmentation of that name.
    """
    import tensorflow as tf

    if not hasattr(batch_size, "__index__") or batch_size < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
    count = len(split) * repeat
    steps = -(-count // batch_size)
    change = _change(augment, split, seed)
    reads = is_lazy(split.images) or is_lazy(split.labels)
    images, labels = _gatherer(split.images), _gatherer(split.labels)

    def epoch(number):
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

    def read(indices):
        rows = tf.numpy_function(values.__getitem__, (indices,), tf.as_dtype(values.dtype))
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


def _change(augment, split, seed):
    """A function `(images, labels, step) -> (images, labels)` in TensorFlow, or None."""
    import tensorflow as tf

    function = augmenter(augment, split.has_masks)
    if function is None:
        return None
    if not isinstance(function, Augmenter):

        def with_tensorflow(images, labels, step):
            key = tf.cast(tf.stack([tf.cast(seed, tf.int64), step]), tf.int32)
            return function(images, labels, key) if split.has_masks else (function(images, key), labels)

        return with_tensorflow

    def with_numpy(images, labels, step):
        if split.has_masks:
            changed = function(images, labels, seed=(seed, step))
            return changed.images, changed.masks
        return function(images, seed=(seed, step)), labels

    size = function.size(*split.images.shape[1:3])
    # A first batch of one here: what does not fit is said now, by name, and not from within TensorFlow in the middle of an epoch.
    with_numpy(split.images[:1], split.labels[:1], 0)

    def change(images, labels, step):
        types = (images.dtype, labels.dtype)
        changed, answers = tf.numpy_function(with_numpy, (images, labels, step), types)
        changed = tf.ensure_shape(changed, (None, *size, images.shape[-1]))
        return changed, tf.ensure_shape(answers, (None, *size) if split.has_masks else (None,))

    return change
