"""The `tf.data` pipeline of labelled images in memory."""

from cnn_zoo.data.arrays import Split
from cnn_zoo.data.augment import augmentation
from cnn_zoo.errors import InputError


def pipeline(
    split: Split,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    first_epoch: int = 0,
    epochs: int = 1,
    augment=None,
    prefetch: bool = True,
):
    """Batches of a split, epoch after epoch.

    Order and augmentation of epoch e are functions of `seed` and e alone. A run that is resumed at epoch e therefore sees the very batches
    that an uninterrupted one sees.

    Args:
        split: The images and labels.
        batch_size: Images a batch; the last batch of an epoch has what is left.
        shuffle: Draw a new order for each epoch.
        seed: Of orders and augmentation.
        first_epoch: Epoch to start with.
        epochs: Epoch to stop before; the data set ends there.
        augment: None, the name of a preset of `AUGMENTATIONS`, or a function `(images, seed) -> images` of a batch in TensorFlow, `seed`
            being an int32 tensor of shape (2,).
        prefetch: Prepare the next batches while the model works on one.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`: `(batch, height, width, channels)` uint8 or float32 and `(batch,)` int64.

    Raises:
        InputError: `batch_size` is no whole number of at least 1, or there is no augmentation of that name.
    """
    import tensorflow as tf

    if not hasattr(batch_size, "__index__") or batch_size < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
    count = len(split)
    steps = -(-count // batch_size)
    function = augmentation(augment)
    with tf.device("CPU"):
        images, labels = tf.constant(split.images), tf.constant(split.labels)

    def epoch(number):
        indices = tf.range(count)
        if shuffle:
            indices = tf.random.experimental.stateless_shuffle(indices, seed=tf.stack([seed, number]))
        batches = tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
        return tf.data.Dataset.zip(tf.data.Dataset.range(number * steps, (number + 1) * steps), batches)

    def gather(step, indices):
        batch = tf.gather(images, indices)
        if function is not None:
            batch = function(batch, tf.cast(tf.stack([tf.cast(seed, tf.int64), step]), tf.int32))
        return batch, tf.gather(labels, indices)

    options = tf.data.Options()
    options.deterministic = True
    dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch)
    # Without augmentation a batch costs less than waking a second thread; with it, two cores are worth having.
    dataset = dataset.map(gather, num_parallel_calls=None if function is None else tf.data.AUTOTUNE)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(max(0, epochs - first_epoch) * steps))
    if prefetch:
        dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return dataset.with_options(options)
