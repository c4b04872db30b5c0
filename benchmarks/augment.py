"""Augmentation: images per second of the same steps, ours, Keras' layers and albumentations, in one run.

    python benchmarks/augment.py              (--jpegs FOLDER of class folders, else JPEGs are generated; --cores 2; --rounds 5)

First table: flip, rotate, scale, shear, translate, brightness and contrast of batches of 32 images, 224 x 224 x 3 uint8. Ours and albumentations
move masks too; Keras' layers do not. Albumentations gets its geometric steps fused (`Affine`), and as many threads as ours.
Second table: JPEG files to augmented batches, against `image_dataset_from_directory` and the same layers.
All ways take turns, and the median of the rounds counts, so that a noisy machine treats them alike; each turn starts a pipeline afresh, so that
nothing is made ahead of it. The last columns are by processor time, which others on the machine disturb less. Albumentations is measured where
it is installed.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import cv2
import keras
import numpy as np
import tensorflow as tf

from cnn_zoo.augment import Augmenter, brightness, contrast, flip, rotate, scale, shear, translate
from cnn_zoo.data import from_folder, pipeline

SIDE, BATCH = 224, 32
STEPS = [flip(), rotate(15), scale(0.8, 1.25), shear(0.1, 0.1), translate(0.1), brightness(0.2), contrast(0.2)]


def keras_layers():
    """The same steps as layers; they draw one warp after another."""
    return keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(15 / 360, fill_mode="constant"),
            keras.layers.RandomZoom((-0.2, 0.25), fill_mode="constant"),
            keras.layers.RandomShear(0.1, 0.1, fill_mode="constant"),
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant"),
            keras.layers.RandomBrightness(0.2),
            keras.layers.RandomContrast(0.2),
        ]
    )


def with_keras(dataset):
    layers = keras_layers()
    return dataset.map(lambda images: layers(images, training=True), tf.data.AUTOTUNE).prefetch(2)


def albumentations_batches(images, masks, cores):
    """A function that changes one batch on `cores` threads, or None where albumentations is not installed."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    try:
        import albumentations
    except ImportError:
        return None
    steps = albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.Affine(
                scale=(0.8, 1.25),
                rotate=(-15, 15),
                shear={"x": (-5.7, 5.7), "y": (-5.7, 5.7)},  # degrees: tangent 0.1
                translate_percent=(-0.1, 0.1),
                p=1.0,
            ),
            albumentations.RandomBrightnessContrast(0.2, 0.2, p=1.0),
        ]
    )
    pool = ThreadPoolExecutor(cores)

    def batch():
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)
        done = list(pool.map(lambda pair: steps(image=pair[0], mask=pair[1]), zip(images, masks)))
        cv2.setNumThreads(before)
        return np.stack([one["image"] for one in done]), np.stack([one["mask"] for one in done])

    return batch


def of_dataset(dataset):
    """A function that takes so many batches from a fresh start of the pipeline."""

    def take(count):
        for _ in dataset.take(count):
            pass

    return take


def of_function(function):
    """A function that makes so many batches."""

    def take(count):
        for step in range(count):
            function(step)

    return take


def in_tf_data(augment, images, masks, cores):
    """Ours as a pipeline calls it: a NumPy function of the batch and its number."""

    def change(step, images, masks):
        def function(step, images, masks):
            return tuple(augment(images, masks, seed=(0, step))[:2])

        return tf.numpy_function(function, [step, images, masks], (tf.uint8, tf.uint8))

    batches = tf.data.Dataset.from_tensors((images, masks)).repeat().enumerate()
    return batches.map(lambda step, pair: change(step, *pair), cores).prefetch(2)


def measure(ways, rounds):
    """(images per second, per second of processor time) of each of `{name: (take, batches)}`: medians of rounds in turns."""
    for take, _ in ways.values():
        take(1)  # graphs are built
    rates = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (take, count) in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            take(count)
            spent = time.perf_counter() - wall, time.process_time() - processor
            rates[name].append([count * BATCH / seconds for seconds in spent])
    return {name: np.median(values, axis=0).tolist() for name, values in rates.items()}


def table(title, rates, against):
    print(f"\n{title}\n")
    heads = ["images/s", *(f"x {name}" for name in against), "images/processor s", *(f"x {name}" for name in against)]
    print("| way | " + " | ".join(heads) + " |")
    print("|---|" + "---:|" * len(heads))
    for name, rate in rates.items():
        cells = [
            cell
            for k in (0, 1)
            for cell in (f"{rate[k]:,.0f}", *(f"{rate[k] / rates[other][k]:.2f}" for other in against))
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def arrays(rounds, cores):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, SIDE, SIDE, 3)).astype("uint8")
    masks = rng.integers(0, 20, (BATCH, SIDE, SIDE)).astype("uint8")
    augment, theirs = Augmenter(STEPS, threads=cores), albumentations_batches(images, masks, cores)
    ways = {"Keras' layers": (of_dataset(with_keras(tf.data.Dataset.from_tensors(images).repeat())), 4)}
    if theirs is not None:
        ways["albumentations, with masks"] = (of_function(lambda step: theirs()), 20)
    against = list(ways)
    ways["ours, with masks"] = (of_function(lambda step: augment(images, masks, seed=(0, step))), 30)
    # One thread a batch, as many batches at once: none waits for the slowest of its threads.
    ours = in_tf_data(Augmenter(STEPS, threads=1), images, masks, cores)
    ways["ours in tf.data, with masks"] = (of_dataset(ours), 30)
    table(f"{SIDE} x {SIDE} x 3 uint8, batches of {BATCH}, {cores} cores", measure(ways, rounds), against)


def write_jpegs(folder, count=128):
    """Photograph-like images, 800 x 600: smooth at large and grainy at small scale; two classes."""
    rng = np.random.default_rng(0)
    for k in range(count):
        parts = [
            cv2.resize(rng.normal(0, 128 / side**0.5, (side, side, 3)), (800, 600), interpolation=cv2.INTER_CUBIC)
            for side in (4, 16, 64, 256)
        ]
        target = Path(folder, "ab"[k % 2], f"{k}.jpg")
        target.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(target), (sum(parts) + 128).clip(0, 255).astype("uint8"), [cv2.IMWRITE_JPEG_QUALITY, 90])


def files(folder, rounds, cores):
    """From files to batches: `image_dataset_from_directory` and Keras' layers, against `from_folder` and `pipeline`, which keeps nothing here."""
    theirs = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIDE, SIDE), batch_size=BATCH, verbose=False, label_mode=None
    ).repeat()
    data = from_folder(folder, size=SIDE, groups=False)
    ours = pipeline(data.train, BATCH, shuffle=True, epochs=1000, augment=Augmenter(STEPS, threads=1), cache="none")
    name = "image_dataset_from_directory, Keras' layers"
    ways = {name: (of_dataset(with_keras(theirs)), 4), "from_folder, pipeline": (of_dataset(ours), 12)}
    table(f"JPEG files to {SIDE} x {SIDE} batches, {cores} cores", measure(ways, rounds), [name])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jpegs", help="folder of class folders with .jpg files; default generated ones")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    arrays(arguments.rounds, arguments.cores)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.jpegs is None:
            write_jpegs(folder)
        files(arguments.jpegs or folder, arguments.rounds, arguments.cores)


if __name__ == "__main__":
    main()
