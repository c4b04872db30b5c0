"""What `fit` costs over Keras' own `model.fit`: seconds a step with everything switched off, and with averages and layer-wise rates.

    python benchmarks/training.py

`plain` is `model.fit` of the net, compiled as `fit` compiles it, on the very batches, ready in memory and never shuffled. `fit` is given the images
as `Data` and shuffles them anew in each epoch; it has everything switched off, or averages of the weights (`ema`), or a learning rate for each stage
(`rates`), or both. `arrays` is `model.fit` on the arrays, which Keras shuffles. The ways take turns, an epoch each, so that a noisy machine treats
them alike; a ratio is that of one turn, and its median and quartiles are printed, by the clock and by the processors' time. The first two epochs of
each, in which graphs are built, are not counted. What `fit` writes at the end of an epoch is no step: it is measured too, and printed for itself.
"""

import argparse
import json
import os
import platform
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import cnn_zoo
from cnn_zoo.train.fit import steps_at_once

OFF = {"optimizer": "adam", "learning_rate": 1e-4, "validation": 0}
RATES = {"rates": {"stem": 0.1, "stages": 0.3, "head": 1}}
WAYS = {
    "plain": None,
    "arrays": None,
    "fit": {},
    "ema": {"ema": 0.999},
    "rates": RATES,
    "ema + rates": {"ema": 0.999, **RATES},
}
WARM = 2  # epochs that do not count
NETS = {
    "lenet": (lambda: cnn_zoo.build_lenet(), (28, 28, 1), 128, 50),
    "resnet20": (lambda: cnn_zoo.build("resnet20", classes=10, input_size=32), (32, 32, 3), 64, 8),
}  # net, image, batch, steps an epoch


class Turns:
    """Lets threads run one at a time, an epoch each, in a fixed order."""

    def __init__(self, names):
        self.waiting, self.changed = list(names), threading.Condition()

    def begin(self, name):
        """Wait for the turn."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting[:1] == [name])

    def end(self, name, last):
        """Hand the turn on, for good after the last epoch."""
        with self.changed:
            self.waiting = self.waiting[1:] + ([] if last else [name])
            self.changed.notify_all()


class Clock(keras.callbacks.Callback):
    """Seconds of the steps of each epoch, and of what is done after the last step, by the clock and by the processors' time."""

    def __init__(self, name, turns, steps, epochs):
        super().__init__()
        self.name, self.turns, self.steps, self.epochs = name, turns, steps, epochs
        self.training, self.writing = [], []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            self.turns.begin(self.name)
        self.start = now()

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.steps - 1:
            float(logs["loss"])  # as `fit` does: the step has been computed, not only asked for
            self.stop = now()

    def on_epoch_end(self, epoch, logs=None):
        self.training.append(self.stop - self.start)
        self.writing.append(now() - self.stop)
        self.turns.end(self.name, epoch == self.epochs - 1)


def now():
    """Seconds by the clock and of all processors."""
    return np.array([time.perf_counter(), time.process_time()])


def train(way, net, clock, folder):
    """All epochs of one way, in a thread of its own."""
    build, shape, batch_size, steps = net
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size * steps, *shape), dtype="uint8")
    labels = rng.integers(0, 10, len(images))
    clock.turns.begin(way)
    keras.utils.set_random_seed(0)
    model = build()
    settings = {"epochs": clock.epochs, "verbose": 0, "callbacks": [clock]}
    if WAYS[way] is not None:
        recipe = cnn_zoo.Recipe(way, epochs=clock.epochs, batch_size=batch_size, **OFF, **WAYS[way])
        data = cnn_zoo.Data.from_arrays(images, labels)
        cnn_zoo.fit(model, data, recipe, run=f"{folder}/{way}", verbose=0, callbacks=[clock])
        return
    loss = keras.losses.SparseCategoricalCrossentropy()
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    model.compile("adam", loss, metrics=[accuracy], steps_per_execution=steps_at_once(steps))
    if way == "arrays":
        model.fit(images, labels, batch_size=batch_size, **settings)
    else:
        import tensorflow as tf

        batches = images.reshape(steps, batch_size, *shape), labels.reshape(steps, batch_size)
        model.fit(tf.data.Dataset.from_tensor_slices(batches).prefetch(2), shuffle=False, **settings)


def measure(name, ways, rounds, progress=None):
    """Clocks of all ways of one net, by name."""
    net, turns, failed = NETS[name], Turns(ways), []
    clocks = {way: Clock(way, turns, net[3], rounds + WARM) for way in ways}

    def run(way, folder):
        try:
            train(way, net, clocks[way], folder)
        except BaseException as error:  # the others would wait forever
            failed.append(error)
            with turns.changed:
                turns.waiting = [other for other in turns.waiting if other != way]
                turns.changed.notify_all()

    with tempfile.TemporaryDirectory() as folder:
        threads = [threading.Thread(target=run, args=(way, folder)) for way in ways]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
    return clocks


def summary(clocks, steps):
    """For each way milliseconds a step, ratios to `plain` as quartiles, and milliseconds of writing; each by the clock and the processors."""
    plain, found = np.array(clocks["plain"].training[WARM:]), {}
    for way, clock in clocks.items():
        training = np.array(clock.training[WARM:])
        found[way] = {
            "ms_per_step": (1000 * np.median(training, axis=0) / steps).tolist(),
            "ratio": np.percentile(training / plain, [25, 50, 75], axis=0).T.tolist(),
            "ratio_of_least": (training.min(0) / plain.min(0)).tolist(),
            "ms_writing": (1000 * np.median(clock.writing[WARM:], axis=0)).tolist(),
        }
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["plain", "fit", "ema + rates"])
    parser.add_argument(
        "--rounds", type=int, nargs="+", default=[30], help="counted epochs of each way, for all nets or for each"
    )
    parser.add_argument("--json", action="store_true", help="print JSON at the end")
    options = parser.parse_args()
    ways = ["plain", *(way for way in options.ways if way != "plain")]
    rounds = options.rounds * (len(options.nets) if len(options.rounds) == 1 else 1)
    if len(rounds) != len(options.nets) or min(rounds) < 1:
        parser.error("--rounds is one number of at least 1, or one for each net")
    results = {}
    for name, count in zip(options.nets, rounds, strict=True):
        _, shape, batch_size, steps = NETS[name]
        results[name] = summary(measure(name, ways, count), steps)
        if options.json:
            continue
        print(f"\n{name}, {shape}, batches of {batch_size}, {steps} steps an epoch, {count} rounds\n")
        print(
            "| way | ms a step | ratio, clock (quartiles) | of the shortest | ratio, processors (quartiles) | writing, ms an epoch |"
        )
        print("|---|---|---|---|---|---|")
        for way, r in results[name].items():
            clock, processors = (f"{middle:.3f} ({low:.3f} to {high:.3f})" for low, middle, high in r["ratio"])
            least, writing = r["ratio_of_least"][0], r["ms_writing"][0]
            print(
                f"| {way} | {r['ms_per_step'][0]:.2f} | {clock} | {least:.3f} | {processors} | {writing:.0f} |",
                flush=True,
            )
    if options.json:
        print(json.dumps(results))
    else:
        machine = f"{os.cpu_count()} CPUs, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
        print(f"\n{machine}, Keras {keras.__version__}, {keras.backend.backend()}")


if __name__ == "__main__":
    main()
