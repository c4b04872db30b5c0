"""What shrinking costs on MNIST: pruned weights, short numbers, and a small net taught by a larger one.

    python benchmarks/shrink.py --data-dir FOLDER --out FOLDER2      (the first one holds mnist.npz; or set CNN_ZOO_DATA)

LeNet and a plain CNN (`cnn_small`) are trained with the recipe "best", in float32, bfloat16 and float16 from the same seed; those of float32 are then
pruned by 70 % and trained on, for three quarters as many epochs as before, which the whole nets do not get. Two students, LeNet and a tiny net (2 and
4 maps), are trained on `--few` images with labels alone, and the same nets from the same seed with the answers of the plain CNN besides, which has
seen all. All accuracies are of the 10,000 test images, whose 95 % interval at 99 % is about +-0.2 points, so differences of that size mean little
in a single run: `--seeds 3` takes means of three. What has been done is in FOLDER2 and is not done again.
"""

import argparse
import json
import os
import shutil
import statistics
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from keras import layers as L

import cnn_zoo
from cnn_zoo import fit
from cnn_zoo.files import replacing
from cnn_zoo.train import distill, load_model, prune

NETS = ("lenet", "cnn_small")


def tiny():
    """Two convolutions of 2 and 4 maps."""
    inputs = keras.Input((28, 28, 1))
    x = L.Rescaling(1 / 255)(inputs)
    for maps in (2, 4):
        x = L.AveragePooling2D(2)(L.Conv2D(maps, 5, padding="same", activation="tanh")(x))
    return keras.Model(inputs, L.Dense(10, activation="softmax")(L.Flatten()(x)), name="tiny")


STUDENTS = {"lenet": cnn_zoo.build_lenet, "tiny": tiny}


class Bench:
    """Accuracies by name, each measured once and kept in results.json."""

    def __init__(self, out, data):
        self.out, self.data, self.path = out, data, out / "results.json"
        self.found = json.loads(self.path.read_text()) if self.path.is_file() else {}

    def measured(self, name, train):
        """The accuracy of what `train(folder, resume)` gives."""
        if name not in self.found:
            folder = self.out / name
            begun = any((folder / file).is_file() for file in ("run.json", "pruning.json"))
            if not begun:
                shutil.rmtree(folder, ignore_errors=True)  # killed before its first file was whole
            accuracy = cnn_zoo.evaluate(train(folder, begun), self.data.test).accuracy
            self.found[name] = accuracy
            with replacing(self.path) as aside:
                aside.write_text(json.dumps(self.found, indent=1))
            print(f"{name}: {accuracy:.4f}", flush=True)
        return self.found[name]


def trained(build, data, recipe):
    """A function for `Bench.measured`; the weights start from the recipe's seed."""

    def train(folder, resume):
        keras.utils.set_random_seed(recipe.seed)
        model = build()
        fit(model, data, recipe, run=folder, resume=resume, verbose=0)
        return model

    return train


def of_net(bench, net, data, recipe, options):
    """Rows of one net: short numbers, and pruning."""
    seed, rows = recipe.seed, []
    whole = bench.measured(f"{net}-float32-{seed}", trained(lambda: cnn_zoo.build(net), data, recipe))
    for precision in ("bfloat16", "float16"):
        short = trained(lambda: cnn_zoo.build(net), data, recipe.replace(precision=precision))
        rows.append((f"{net}, {precision}", whole, bench.measured(f"{net}-{precision}-{seed}", short)))

    def pruned(folder, resume):
        model, _ = load_model(bench.out / f"{net}-float32-{seed}" / "last.keras")
        gently = recipe.replace(learning_rate=recipe.learning_rate / 4, epochs=max(3, options.epochs * 3 // 4))
        found = prune(model, data, gently, sparsity=0.7, run=folder, resume=resume, verbose=0)
        print(found.report, flush=True)
        return model

    return [*rows, (f"{net}, 70 % pruned", whole, bench.measured(f"{net}-pruned-{seed}", pruned))]


def measure(bench, data, seed, options):
    """One row a comparison: what, the accuracy without and with it."""
    recipe = cnn_zoo.recipe("best", seed=seed, epochs=options.epochs)
    rows = [row for net in NETS for row in of_net(bench, net, data, recipe, options)]
    few = cnn_zoo.Data(
        data.name, data.train.take(range(options.few)), None, data.test, data.classes, f"{options.few} of {data.source}"
    )
    longer = recipe.replace(epochs=options.student_epochs, batch_size=64)

    def of_student(name):
        def taught(folder, resume):
            keras.utils.set_random_seed(seed)
            model, (teacher, _) = STUDENTS[name](), load_model(bench.out / f"cnn_small-float32-{seed}" / "last.keras")
            distill(model, teacher, few, longer, run=folder, resume=resume, verbose=0)
            return model

        alone = bench.measured(f"{name}-few-alone-{seed}", trained(STUDENTS[name], few, longer))
        return f"{name}, {options.few:,} images, distilled", alone, bench.measured(f"{name}-few-taught-{seed}", taught)

    return [*rows, *map(of_student, STUDENTS)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder with mnist.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder for all runs; the benchmark goes on in it")
    parser.add_argument("--epochs", type=int, default=8, help="of each net; the recipe has 20")
    parser.add_argument("--few", type=int, default=1000, help="training images of the students")
    parser.add_argument("--student-epochs", type=int, default=30)
    parser.add_argument("--images", type=int, help="training images of the rest, for a quick look; default: all")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    data = cnn_zoo.load("mnist", data_dir=options.data_dir)
    if options.images:
        few = data.train.take(range(options.images))
        data = cnn_zoo.Data(data.name, few, None, data.test, data.classes, f"{options.images} of {data.source}")
    bench = Bench(options.out, data)
    runs = [measure(bench, data, seed, options) for seed in range(options.seeds)]
    print(f"\n{os.cpu_count()} CPUs, Keras {keras.__version__}, backend {keras.backend.backend()}; {data.summary()}")
    print(f"test accuracy, mean of {options.seeds} seed(s)\n{'':32}{'without':>9}{'with':>9}{'points':>9}")
    for same in zip(*runs):
        without, with_it = (statistics.mean(row[i] for row in same) for i in (1, 2))
        print(f"{same[0][0]:32}{without:9.4f}{with_it:9.4f}{100 * (with_it - without):+9.2f}")


if __name__ == "__main__":
    main()
