"""LeNet on MNIST: seconds per epoch, and seconds of training until 94.23 % and 99.0 % test accuracy, three ways in one run.

    python benchmarks/lenet.py --data-dir FOLDER      (FOLDER holds mnist.npz; or set CNN_ZOO_DATA)

`lecture` and `best` are this package's recipes; `tutorial` is what introductions to Keras do: NumPy arrays of x / 255, Adam with its default
settings, `model.fit` with its default batch size of 32. The first table compares seconds per epoch of the same net on the same 48,000 images
at equal batch sizes, the ways taking turns so that a noisy machine treats them alike; the epoch in which graphs are built is not counted.
PyTorch's own training loop is measured too where PyTorch is installed.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import cnn_zoo

MARKS = (0.9423, 0.985, 0.99)


def tutorial_model():
    model = cnn_zoo.build_lenet()
    inputs = keras.Input(
        (28, 28, 1)
    )  # the tutorial scales the arrays, not the graph: the same layers without `preprocess`
    x = inputs
    for layer in model.layers[2:]:
        x = layer(x)
    model = keras.Model(inputs, x)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def tutorial_epochs(data, batch_size):
    """A function that trains one more epoch the tutorial's way and returns its seconds."""
    model, x = tutorial_model(), (data.train.images / 255).astype("float32")

    def epoch():
        start = time.perf_counter()
        model.fit(x, data.train.labels, batch_size=batch_size, epochs=1, verbose=0)
        return time.perf_counter() - start

    return epoch


def our_epochs(data, batch_size, epochs):
    """The same with this package: the dataset and compile settings of `fit`, without its checkpoints."""
    from cnn_zoo.train.fit import steps_at_once

    model, steps = cnn_zoo.build_lenet(), -(-len(data.train) // batch_size)
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], steps_per_execution=steps_at_once(steps)
    )
    dataset = cnn_zoo.pipeline(data.train, batch_size, shuffle=True, epochs=epochs)

    def epoch():
        start = time.perf_counter()
        model.fit(dataset, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False)
        return time.perf_counter() - start

    return epoch


def torch_epochs(data, batch_size):
    """The same net and batches in a plain PyTorch loop, or None where PyTorch is not installed."""
    try:
        import torch
        from torch import nn
    except ImportError:
        return None
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )
    assert sum(p.numel() for p in model.parameters()) == 61_706
    optimizer, loss_of = torch.optim.Adam(model.parameters(), 1e-3), nn.CrossEntropyLoss()
    x = torch.tensor(data.train.images.transpose(0, 3, 1, 2) / 255, dtype=torch.float32)
    y = torch.tensor(data.train.labels)

    def epoch():
        start = time.perf_counter()
        for batch in torch.randperm(len(y)).split(batch_size):
            optimizer.zero_grad()
            loss_of(model(x[batch]), y[batch]).backward()
            optimizer.step()
        return time.perf_counter() - start

    return epoch


class Clock(keras.callbacks.Callback):
    """Seconds of training, without those of testing, when each mark of test accuracy was first passed at the end of an epoch."""

    def __init__(self, test, scaled):
        super().__init__()
        self.test, self.scaled, self.seconds, self.passed, self.accuracy = test, scaled, 0.0, {}, 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.start, self.testing = time.perf_counter(), 0.0

    def on_test_begin(self, logs=None):
        self.test_start = time.perf_counter()

    def on_test_end(self, logs=None):
        self.testing += time.perf_counter() - self.test_start

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter() - self.start - self.testing
        images = self.test.images / np.float32(255) if self.scaled else self.test.images
        right = [
            self.model.predict_on_batch(images[i : i + 1000]).argmax(-1) == self.test.labels[i : i + 1000]
            for i in range(0, len(images), 1000)
        ]
        self.accuracy = float(np.concatenate(right).mean())
        for mark in MARKS:
            if self.accuracy >= mark:
                self.passed.setdefault(mark, self.seconds)


def race(data, way, epochs):
    """Train one way to its end; returns its clock."""
    keras.utils.set_random_seed(0)
    clock = Clock(data.test, scaled=way == "tutorial")
    if way == "tutorial":
        x = (data.train.images / 255).astype("float32")
        tutorial_model().fit(x, data.train.labels, epochs=epochs or 12, verbose=0, callbacks=[clock])
    else:
        recipe = cnn_zoo.recipe(way, **({"epochs": epochs} if epochs else {}))
        with tempfile.TemporaryDirectory() as folder:
            cnn_zoo.fit(cnn_zoo.build_lenet(), data, recipe, run=f"{folder}/run", verbose=0, callbacks=[clock])
    return clock


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder with mnist.npz")
    parser.add_argument("--repeats", type=int, default=5, help="counted epochs of each way in the first table")
    parser.add_argument(
        "--epochs", type=int, help="epochs of each way in the second table; default: the recipe's, tutorial 12"
    )
    parser.add_argument("--skip-race", action="store_true", help="only the first table")
    options = parser.parse_args()
    data = cnn_zoo.load("mnist", data_dir=options.data_dir)
    held = data.split(0.2)
    print(f"{os.cpu_count()} CPUs, Keras {keras.__version__}, backend {keras.backend.backend()}; {held.summary()}\n")

    print("seconds per epoch of 48,000 images (median), and the ratio to the tutorial's way at that batch size")
    print(f"{'batch':>6}{'tutorial':>10}{'cnn_zoo':>10}{'ratio':>7}{'PyTorch':>10}{'ratio':>7}")
    for batch_size in (32, 128, 512):
        ways = {
            "tutorial": tutorial_epochs(held, batch_size),
            "cnn_zoo": our_epochs(held, batch_size, options.repeats + 1),
            "PyTorch": torch_epochs(held, batch_size),
        }
        times = {name: [] for name, epoch in ways.items() if epoch}
        for turn in range(options.repeats + 1):
            for name in times:
                seconds = ways[name]()
                if turn:
                    times[name].append(seconds)
        median = {name: statistics.median(values) for name, values in times.items()}
        row = f"{batch_size:6}{median['tutorial']:10.2f}{median['cnn_zoo']:10.2f}{median['cnn_zoo'] / median['tutorial']:7.2f}"
        if "PyTorch" in median:
            row += f"{median['PyTorch']:10.2f}{median['PyTorch'] / median['tutorial']:7.2f}"
        print(row, flush=True)
    if options.skip_race:
        return

    print("\nseconds of training until a test accuracy is reached at the end of an epoch, and where it ended")
    print(f"{'way':>10}{'94.23 %':>10}{'98.5 %':>10}{'99.0 %':>10}{'in all':>10}{'accuracy':>10}")
    for way in ("tutorial", "lecture", "best"):
        clock = race(data, way, options.epochs)
        cells = [f"{clock.passed[mark]:.1f}" if mark in clock.passed else "-" for mark in MARKS]
        print(
            f"{way:>10}{cells[0]:>10}{cells[1]:>10}{cells[2]:>10}{clock.seconds:10.1f}{clock.accuracy:10.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
