"""Segmentation: our nets against segmentation_models, unpooling against its rivals, and the memory of tiled prediction.

    pip install segmentation-models==1.0.1 && python benchmarks/segmentation.py

First table: ratios ours / segmentation_models of the same net in the same process, with random weights: inference and one training step
(medians, the two taking turns so that a noisy machine treats them alike), and growth of a fresh process's memory by building and one training
step. `Unet` and so on are those of `cnn_zoo.compat.segmentation_models`; the old package runs on today's Keras with SM_FRAMEWORK=tf.keras.

Second: three ways to double a map's size, forward and backward, against nearest-neighbour upsampling in the same run.

Third: how much a process grows by predicting an image of 10,000 x 10,000 pixels tile by tile, above what the model itself takes.
"""

import argparse
import os
import statistics
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("SM_FRAMEWORK", "tf.keras")

import numpy as np
from nets import in_turns

PAIRS = (
    ("Unet", "resnet34"), ("Unet", "efficientnetb0"), ("FPN", "mobilenetv2"), ("Linknet", "vgg16"), ("PSPNet", "seresnet18"), ("Unet", "resnext50"),
)  # fmt: skip
SIDE = {"PSPNet": 192}  # a multiple of 48


def maker(kind, backbone, whose):
    """A function that builds the net: "ours" or "theirs"."""
    import cnn_zoo.compat.segmentation_models as ours

    if whose == "theirs":
        import segmentation_models as package
    else:
        package = ours
    shape = (SIDE.get(kind, 128),) * 2 + (3,)
    return lambda: getattr(package, kind)(
        backbone, input_shape=shape, encoder_weights=None, classes=4, activation="softmax"
    )


def peak_so_far():
    """KiB of this process at its largest (Linux; getrusage would begin with what its parent had)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def batch_of(model):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *model.input_shape[1:])).astype("float32")
    return x, np.eye(4, dtype="float32")[rng.integers(0, 4, x.shape[:3])]


def step(kind, backbone, whose):
    """What a fresh process does to be measured: build, and train one step."""
    model = maker(kind, backbone, whose)()
    model.compile("sgd", "categorical_crossentropy", jit_compile=False)
    model.train_on_batch(*batch_of(model))


MEASURED = """
import sys
sys.path[:] = {path!r}
import segmentation
segmentation.maker({kind!r}, {backbone!r}, {whose!r})
import keras; keras.layers.Conv2D(1, 1)(keras.ops.ones((1, 4, 4, 1)))
before = segmentation.peak_so_far()
segmentation.step({kind!r}, {backbone!r}, {whose!r})
print(segmentation.peak_so_far() - before)
"""


def peak(**which):
    """KiB by which the peak memory of a fresh process grows."""
    path = [os.path.dirname(os.path.abspath(__file__)), *sys.path]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED.format(path=path, **which)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def ratios(kind, backbone, rounds):
    """Ours / theirs: seconds of inference and of a training step, and memory."""
    import keras

    keras.utils.clear_session()
    models = {whose: maker(kind, backbone, whose)() for whose in ("ours", "theirs")}
    assert models["ours"].count_params() == models["theirs"].count_params(), (kind, backbone)
    x, y = batch_of(models["ours"])
    for model in models.values():
        model.compile("sgd", "categorical_crossentropy", jit_compile=False)
    inference = in_turns({whose: lambda m=m: m.predict_on_batch(x) for whose, m in models.items()}, 2 * rounds)
    training = in_turns({whose: lambda m=m: m.train_on_batch(x, y) for whose, m in models.items()}, rounds)
    memory = {whose: peak(kind=kind, backbone=backbone, whose=whose) for whose in models}
    return [found["ours"] / found["theirs"] for found in (inference, training, memory)]


def against_segmentation_models(rounds):
    import keras

    try:
        import segmentation_models  # noqa: F401
    except ImportError:
        print("segmentation_models is not installed: the first table is left out")
        return
    print(f"ours / segmentation_models, Keras {keras.__version__}, ratios of medians of one run")
    print(f"{'net':24} {'inference':>10} {'training step':>14} {'memory':>8}")
    columns = []
    for kind, backbone in PAIRS:
        columns.append(ratios(kind, backbone, rounds))
        print("{:24} {:10.2f} {:14.2f} {:8.2f}".format(f"{kind} {backbone}", *columns[-1]), flush=True)
    means = [statistics.geometric_mean(column) for column in zip(*columns, strict=True)]
    print("{:24} {:10.2f} {:14.2f} {:8.2f}".format("geometric mean", *means), flush=True)


def unpooling(rounds):
    import tensorflow as tf
    from keras import layers as L

    from cnn_zoo.segmentation_layers import MaxUnpool2D

    print(
        "\ntwice the size, 64 maps of 64x64, batch 4, forward and backward: time / that of nearest-neighbour upsampling"
    )
    full = tf.random.normal((4, 128, 128, 64))
    pooled = tf.Variable(L.MaxPooling2D(2)(full))
    unpool, nearest, transposed = MaxUnpool2D(), L.UpSampling2D(2), L.Conv2DTranspose(64, 2, 2)

    def timed(function):
        @tf.function
        def both():
            with tf.GradientTape() as tape:
                y = function(pooled)
            return y, tape.gradient(y, pooled)

        return lambda: [part.numpy() for part in both()]

    ways = {
        "nearest neighbour": timed(nearest),
        "max unpooling": timed(lambda x: unpool([x, full])),
        "transposed convolution 2x2": timed(transposed),
    }
    times = in_turns(ways, 4 * rounds)
    for name, seconds in times.items():
        print(f"{name:28} {seconds / times['nearest neighbour']:6.2f}")


TILED = """
import sys, tempfile, time
sys.path[:] = {path!r}
import numpy as np
import cnn_zoo
from segmentation import peak_so_far
model = cnn_zoo.build_unet(4, depth=3, width=8, channels=1)
with tempfile.TemporaryDirectory() as folder:
    image = np.lib.format.open_memmap(folder + "/image.npy", "w+", "uint8", (10000, 10000, 1))
    image[:, ::7] = 200
    cnn_zoo.predict_tiled(model, image[:512, :512], tile=512, overlap=64, progress=False)
    before, start = peak_so_far(), time.perf_counter()
    cnn_zoo.predict_tiled(model, image, tile=512, overlap=64, out=folder + "/mask.npy", progress=False)
    print(f"{{(peak_so_far() - before) / 2**20:.2f}} GiB above the model, {{time.perf_counter() - start:.0f}} s")
"""


def tiled():
    print("\n10,000 x 10,000 pixels in tiles of 512, U-Net of depth 3 and width 8: ", end="", flush=True)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            TILED.format(path=[os.path.dirname(os.path.abspath(__file__)), *sys.path]),
        ],
        capture_output=True,
        text=True,
    )
    print(done.stdout.strip() or done.stderr.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default 5)")
    parser.add_argument("--only", choices=("nets", "unpooling", "tiled"), help="one part")
    options = parser.parse_args()
    if options.only in (None, "nets"):
        against_segmentation_models(options.rounds)
    if options.only in (None, "unpooling"):
        unpooling(options.rounds)
    if options.only in (None, "tiled"):
        tiled()


if __name__ == "__main__":
    main()
