"""How fast nets train in short numbers: a step in bfloat16 and float16 against float32, and the CIFAR-sized ResNets.

    KERAS_BACKEND=jax python benchmarks/gpu.py
    KERAS_BACKEND=jax python benchmarks/gpu.py --batch 2 --size 64 --steps 3 --blocks 2 --matrix 512        (on a processor)

For a GPU; with the JAX backend it needs no TensorFlow. Each net in each precision is trained in a process of its own, by Keras' `model.fit`, compiled
and with its layers lowered as `cnn_zoo.fit` does it, on one batch of random images that lies ready in the host's memory and is moved to the device in
each step. So nothing is read, decoded, shuffled or augmented. The columns:

- images a second: of the median block of `--steps` steps. The first two blocks, in which graphs are compiled, do not count. `ratio` is to float32.
- memory: the most that JAX has handed out on the device, compiling included; other backends are not asked.
- share of the peak: FLOPs of the training over those of the fastest of some large matrix products in the same precision, measured in this run. A
  training step has 3 times the FLOPs of the forward pass, which are twice the multiply-accumulates that `cnn_zoo.explain.macs` counts. The peak of
  float32 is that of the backend's own choice, which may be TF32: the error of a product against float64 tells.
- 50,000 images: seconds of an epoch of CIFAR-10, extrapolated from the steps. Optimizer, schedule and batch are those of the recipe "cifar".
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Keras is imported in the processes of the measurements only: the first one to use a GPU may take all its memory.
PRECISIONS = ["float32", "bfloat16", "float16"]
ADAM = {"optimizer": "adam", "learning_rate": 1e-4}
NETS = {"resnet50": (224, 256), "unet": (256, 32)}  # size, batch
CIFAR = {"resnet20": (32, 128), "resnet56": (32, 128)}
WARM = 2  # blocks that do not count
COLUMNS = "| net | size | batch | precision | ms a step | images a second | ratio | memory, GiB | TFLOP/s | share of the peak |"
EPOCH = " 50,000 images, s (extrapolated) |"


def train(name, precision, options):
    """Milliseconds a step, images and FLOPs a second, memory and loss of one net."""
    import keras
    import numpy as np

    import cnn_zoo
    from cnn_zoo.train.fit import compile_model, prepare
    from cnn_zoo.train.precision import computing, lowered

    size, batch = {**NETS, **CIFAR}[name]
    size, batch = size if name in CIFAR else options.size or size, options.batch or batch
    keras.utils.set_random_seed(0)
    model = cnn_zoo.build_unet(input_size=size, channels=3) if name == "unet" else cnn_zoo.build(name, input_size=size)
    rng, classes = np.random.default_rng(0), model.output_shape[-1]
    images = rng.integers(0, 256, (batch, size, size, 3), dtype="uint8")
    labels = rng.integers(0, classes, (batch, *model.output_shape[1:-1]), dtype="int32")
    data = cnn_zoo.Data.from_arrays(images, labels, classes=[str(i) for i in range(classes)])
    recipe = cnn_zoo.recipe("cifar", augment=None) if name in CIFAR else cnn_zoo.Recipe(name, **ADAM)
    recipe = recipe.replace(batch_size=batch, validation=0)
    task = dataclasses.replace(prepare(model, data, recipe), steps=options.steps)
    compile_model(model, task, recipe.make_optimizer(task.steps, model), precision)
    starts, ends = [], {}

    def step_ended(step, logs):
        loss = float(logs["loss"])  # as `fit` does: the step has been computed, not only asked for
        ends[len(starts) - 1] = time.perf_counter(), loss

    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: starts.append(time.perf_counter()), on_train_batch_end=step_ended
    )
    batches = ((images, labels) for _ in itertools.count())
    with computing(lowered(model) if precision != "float32" else [], precision):
        settings = {"steps_per_epoch": options.steps, "epochs": WARM + options.blocks}
        model.fit(batches, **settings, shuffle=False, verbose=0, callbacks=[clock])
    seconds = statistics.median(ends[i][0] - starts[i] for i in range(WARM, len(starts))) / options.steps
    return {
        "size": size,
        "batch": batch,
        "ms_per_step": 1000 * seconds,
        "images_per_s": batch / seconds,
        "flops_per_s": 3 * cnn_zoo.explain.macs(model).flops * batch / seconds,
        "memory": (jax_device().memory_stats() or {}).get("peak_bytes_in_use") if jax_device() else None,
        "finite": math.isfinite(ends[len(starts) - 1][1]),
    }


def jax_device():
    """The device that JAX uses, None with other backends."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.local_devices()[0]


def multiply(precision, options):
    """FLOPs a second of large matrix products, the relative error of one, and the machine."""
    import keras
    import numpy as np

    from cnn_zoo.train.precision import choose
    from cnn_zoo.train.run import environment

    n, count, rng, seconds = options.matrix, 20, np.random.default_rng(0), []
    a, b = (keras.ops.cast(rng.standard_normal((n, n), "float32") / n**0.5, precision) for _ in "ab")
    for _ in range(WARM + options.blocks):
        product, start = b, time.perf_counter()
        for _ in range(count):  # a chain, so that they cannot run side by side; its numbers stay as large
            product = keras.ops.matmul(a, product)
        float(product[0, 0])
        seconds.append(time.perf_counter() - start)
    a, b = a[:1024, :1024], b[:1024, :1024]
    a, b, product = (
        keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")).astype("float64")
        for x in (a, b, keras.ops.matmul(a, b))
    )
    error = float(np.linalg.norm(product - a @ b) / np.linalg.norm(a @ b))
    device = jax_device().device_kind if jax_device() else keras.distribution.list_devices()[0]
    versions = ", ".join(f"{package} {version}" for package, version in environment()["versions"].items())
    machine = f"{device}, {os.cpu_count()} CPUs, {versions}; `auto` is {': '.join(choose('auto'))}"
    return {"flops_per_s": 2 * n**3 * count / min(seconds[WARM:]), "relative_error": error, "machine": machine}


def apart(name, precision):
    """What a process of its own has measured; of one that fails, why."""
    done = subprocess.run([sys.executable, *sys.argv, "--one", name, precision], capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    said = [line for line in done.stderr.splitlines() if any(word in line for word in ("Error", "EXHAUSTED", "OOM"))]
    return {"failed": said[-1][:200].replace("|", "/") if said else f"the process ended with {done.returncode}"}


def cells(name, precision, row, base, peak):
    """The row of a table."""
    if "failed" in row:
        return f"| {name} | | | {precision} | {row['failed']} |"
    ratio = f"{row['images_per_s'] / base['images_per_s']:.2f}" if "images_per_s" in base else "not known"
    memory = f"{row['memory'] / 2**30:.2f}" if row["memory"] else "not told"
    share = f"{row['flops_per_s'] / peak['flops_per_s']:.1%}" if "flops_per_s" in peak else "not known"
    which = f"{row['size']} | {row['batch']} | {precision}{'' if row['finite'] else ' (loss not finite)'}"
    speed = f"{row['ms_per_step']:.2f} | {row['images_per_s']:,.1f} | {ratio} | {memory}"
    epoch = f" {50_000 / row['images_per_s']:.1f} |" if name in CIFAR else ""
    return f"| {name} | {which} | {speed} | {row['flops_per_s'] / 1e12:.3g} | {share} |{epoch}"


def measure(options, peaks, nets, say):
    """Everything, into `peaks` and `nets`; each row is said at once."""
    say(f"\n| precision | matrix product of {options.matrix}, TFLOP/s | its relative error |\n|---|---|---|")
    for precision in options.precisions:
        peak = peaks[precision] = apart("peak", precision)
        if "failed" in peak:
            say(f"| {precision} | {peak['failed']} |")
            continue
        tf32 = f": {'TF32' if peak['relative_error'] > 1e-5 else 'no TF32'}" if precision == "float32" else ""
        say(f"| {precision} | {peak['flops_per_s'] / 1e12:.3g} | {peak['relative_error']:.1e}{tf32} |")
    for group, columns in (NETS, COLUMNS), (CIFAR, COLUMNS + EPOCH):
        for i, name in enumerate(name for name in options.nets if name in group):
            if i == 0:
                say(f"\n{columns}\n{'|---' * (columns.count('|') - 1)}|")
            rows = nets[name] = {}
            for precision in options.precisions:
                rows[precision] = apart(name, precision)
                say(cells(name, precision, rows[precision], rows.get("float32", {}), peaks[precision]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=[*NETS, *CIFAR], default=[*NETS, *CIFAR])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batch", type=int, help="images a step, of all nets (default: 256, 32, 128, 128)")
    parser.add_argument("--size", type=int, help="side of the images, not of the CIFAR-sized nets (default: 224, 256)")
    for name, value, what in ("steps", 20, "of a block"), ("blocks", 5, "that count"), ("matrix", 8192, "its side"):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{what} (default {value})")
    parser.add_argument("--json", action="store_true", help="print JSON at the end, no tables")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.steps, options.blocks, options.matrix, options.batch or 1, options.size or 1) < 1:
        parser.error("--batch, --size, --steps, --blocks and --matrix are at least 1")
    if options.one:
        name, precision = options.one
        return print(json.dumps(multiply(precision, options) if name == "peak" else train(*options.one, options)))
    options.precisions = [precision for precision in PRECISIONS if precision in options.precisions]  # float32 first
    peaks, nets = {}, {}
    try:
        measure(options, peaks, nets, (lambda line: None) if options.json else (lambda line: print(line, flush=True)))
    except KeyboardInterrupt:
        print("interrupted: the rest is missing", file=sys.stderr)
    if options.json:
        return print(json.dumps({"peaks": peaks, "nets": nets}))
    print("", *[peak["machine"] for peak in peaks.values() if "machine" in peak][:1], sep="\n")


if __name__ == "__main__":
    main()
