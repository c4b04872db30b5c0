"""One worker and two of them on the same batches: are the curves the same, and what does a step cost?

    python benchmarks/distributed.py [--net lenet] [--workers 2] [--epochs 4] [--batch-size 256]
    KERAS_BACKEND=jax python benchmarks/distributed.py

All workers run on this machine and share its cores, so two of them cannot be faster than one: the ratio of step times is what it costs that they
agree after each step, with all that two processes do twice. BatchNorm is synchronised. The first epoch, in which graphs are built, is not timed.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def train(arguments):
    """One worker; alone where no others are named."""
    import keras

    import cnn_zoo
    from cnn_zoo.train import distribute

    devices = distribute.workers() if arguments.role == "worker" else distribute.Devices()
    loaded = cnn_zoo.load("digits", size=cnn_zoo.registry.get_spec(arguments.net).size)
    # As many as 32 devices divide after a fifth is held out: otherwise the last batch of an epoch has images twice, and the curves part.
    data = cnn_zoo.Data.from_arrays(loaded.train.images[:1400], loaded.train.labels[:1400], classes=loaded.classes)
    keras.utils.set_random_seed(0)
    with devices.scope():
        model = cnn_zoo.build(arguments.net, classes=len(data.classes), channels=data.train.images.shape[-1])
    distribute.synchronize(model)
    recipe = cnn_zoo.recipe("lecture", epochs=arguments.epochs, batch_size=arguments.batch_size)
    cnn_zoo.fit(model, data, recipe, run=arguments.run, devices=devices, verbose=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="lenet")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--role", choices=["alone", "worker"], help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        return train(arguments)

    import keras

    from cnn_zoo import Run
    from cnn_zoo.train.distribute import launch

    with tempfile.TemporaryDirectory() as scratch:
        runs = []
        for role, count in (("alone", 1), ("worker", arguments.workers)):
            folder = Path(scratch) / role
            if launch([sys.executable, *sys.argv, "--role", role, "--run", str(folder)], count, timeout=3600):
                raise SystemExit(f"{role}: failed")
            runs.append(Run.load(folder))
    alone, together = runs
    print(
        f"{arguments.net}, {alone.about['data']['train']['images']} images in batches of {arguments.batch_size}, {keras.backend.backend()}"
    )
    print(f"{'epoch':>5} {'loss, 1 worker':>16} {f'{arguments.workers} workers':>16} {'difference':>12}")
    for one, other in zip(alone.rows, together.rows):
        print(
            f"{one['epoch']:>5} {one['loss']:>16.7f} {other['loss']:>16.7f} {abs(one['loss'] - other['loss']):>12.1e}"
        )
    largest = max(
        abs(a - b) for name in ("loss", "val_loss") for a, b in zip(alone.history[name], together.history[name])
    )
    steps = -(-alone.about["data"]["train"]["images"] // arguments.batch_size)
    times = [statistics.median(run.history["seconds"][1:]) / steps for run in runs]
    print(
        f"largest difference of loss and validation loss: {largest:.1e} ({'same curve' if largest <= 1e-4 else 'NOT the same curve'}, to 1e-4)"
    )
    print(
        f"a step: {1000 * times[0]:.1f} ms with one worker, {1000 * times[1]:.1f} ms with {arguments.workers} processes on the same "
        f"{os.cpu_count()} cores, {times[1] / times[0]:.2f} x"
    )
    return int(largest > 1e-4)


if __name__ == "__main__":
    raise SystemExit(main())
