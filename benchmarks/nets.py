"""The nets that Keras has too, ours against keras.applications in one run; and our relative times against the lecture's.

    python benchmarks/nets.py            (one net of each family; --all for every pair, --skip-lecture to leave the second part out)

First table: ratios ours / keras.applications of the same net with random weights: time to build (median), growth of a fresh process's memory by
building, inference and one training step (medians, the two taking turns so that a noisy machine treats them alike).
Both get the same batch of float32 images; ours normalises them inside, Keras' nets get them as they are.

Second part: Spearman's rank correlation between our relative times (SqueezeNet = 1) and the column of the lecture's table, which its authors
measured on another machine. It is printed whatever it is.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

PAIRS = {
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "inceptionv3": "InceptionV3",
    "inceptionresnetv2": "InceptionResNetV2",
    "xception": "Xception",
    "mobilenet": "MobileNet",
    "mobilenetv2": "MobileNetV2",
    "densenet121": "DenseNet121",
    "densenet169": "DenseNet169",
    "densenet201": "DenseNet201",
    "resnet50v2": "ResNet50V2",
    "resnet101v2": "ResNet101V2",
    "resnet152v2": "ResNet152V2",
    "nasnetmobile": "NASNetMobile",
    "nasnetlarge": "NASNetLarge",
    **{f"efficientnetb{i}": f"EfficientNetB{i}" for i in range(8)},
}
ONE_EACH = (
    "vgg16",
    "inceptionv3",
    "xception",
    "mobilenet",
    "mobilenetv2",
    "densenet121",
    "resnet50v2",
    "nasnetmobile",
    "efficientnetb0",
)


def maker(net, whose):
    """A function that builds the net: "ours" or "keras"."""
    import keras

    import cnn_zoo

    if whose == "ours":
        return lambda: cnn_zoo.build(net)
    return lambda: getattr(keras.applications, PAIRS[net])(weights=None)


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def in_turns(functions, rounds):
    """Median seconds of each function, one warm-up call of each left out, the functions taking turns."""
    times = {key: [] for key in functions}
    for i in range(rounds + 1):
        for key, function in functions.items():
            spent = seconds(function)
            if i:
                times[key].append(spent)
    return {key: statistics.median(values) for key, values in times.items()}


def resident():
    """Bytes of this process in memory (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def grown(net, whose):
    """Bytes by which a fresh process grows when it builds the net."""
    path = [os.path.dirname(os.path.abspath(__file__)), *sys.path]
    code = (
        f"import sys; sys.path[:] = {path!r}; import nets; make = nets.maker({net!r}, {whose!r})\n"
        "before = nets.resident(); model = make(); print(nets.resident() - before)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(out.stdout.split()[-1])


def compare(net, rounds):
    """Ratios ours / keras.applications of one net."""
    import keras
    import numpy as np

    makers = {whose: maker(net, whose) for whose in ("ours", "keras")}

    def fresh(make):
        keras.utils.clear_session()
        make()

    built = in_turns({whose: lambda make=make: fresh(make) for whose, make in makers.items()}, rounds)
    memory = {whose: grown(net, whose) for whose in makers}
    models = {whose: make() for whose, make in makers.items()}
    side = models["ours"].input_shape[1]
    batch = 4 if side < 300 else 2
    x = np.random.default_rng(0).uniform(0, 255, (batch, side, side, 3)).astype("float32")
    y = np.arange(batch)
    for model in models.values():
        model.compile(keras.optimizers.SGD(1e-4), "sparse_categorical_crossentropy", jit_compile=False)
    inference = in_turns({whose: lambda m=m: m.predict_on_batch(x) for whose, m in models.items()}, 3 * rounds)
    training = in_turns({whose: lambda m=m: m.train_on_batch(x, y) for whose, m in models.items()}, rounds)
    return [found["ours"] / found["keras"] for found in (built, memory, inference, training)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every pair, not one of each family")
    parser.add_argument("--nets", nargs="+", help="only these")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default 5)")
    parser.add_argument(
        "--skip-lecture", action="store_true", help="leave the correlation with the lecture's times out"
    )
    options = parser.parse_args()

    import keras

    print(f"ours / keras.applications {keras.__version__}, ratios of medians of one run")
    print(f"{'net':18} {'build':>6} {'memory':>7} {'inference':>10} {'training step':>14}")
    columns = []
    for net in options.nets or (PAIRS if options.all else ONE_EACH):
        ratios = compare(net, options.rounds)
        columns.append(ratios)
        print("{:18} {:6.2f} {:7.2f} {:10.2f} {:14.2f}".format(net, *ratios), flush=True)
        keras.utils.clear_session()
    means = [statistics.geometric_mean(column) for column in zip(*columns, strict=True)]
    print("{:18} {:6.2f} {:7.2f} {:10.2f} {:14.2f}".format("geometric mean", *means), flush=True)
    if options.skip_lecture:
        return

    from cnn_zoo import table

    rows = table.rows(list(table.LECTURE))
    print(f"\n{'net':18} {'lecture':>8} {'measured':>9}")
    for row in sorted(rows, key=lambda row: table.LECTURE[row["name"]].relative_time):
        print(f"{row['name']:18} {table.LECTURE[row['name']].relative_time:8.1f} {row['relative_time']:9.1f}")
    print(f"Spearman's rank correlation {table.spearman(rows):.2f} over {len(rows)} nets")


if __name__ == "__main__":
    main()
