"""Memory over many files and many epochs: does it stay flat?

    python benchmarks/memory.py               (--files 10000 --epochs 50 --side 48 --batch 32 --cache none --warm-up 5)

Writes so many PNG files of side x side pixels in class folders, goes through all of them in each epoch by `pipeline`, shuffled and augmented, and
prints the resident memory of the process at the end of each epoch; then that after the warm-up, the last, the largest, and the slope of the
line through the epochs after the warm-up.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import cv2
import numpy as np

from cnn_zoo.data import from_folder, pipeline

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> float:
    """Resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def write_files(folder, count, side):
    """PNG files of noise over a gray level, in two class folders."""
    rng = np.random.default_rng(0)
    for label in "ab":
        Path(folder, label).mkdir()
    for k in range(count):
        image = (rng.normal(0, 20, (side, side, 3)) + rng.uniform(50, 200)).clip(0, 255).astype("uint8")
        cv2.imwrite(str(Path(folder, "ab"[k % 2], f"{k:06d}.png")), image)


def measure(split, epochs, batch_size, cache, report=lambda epoch, memory, seconds: None):
    """Resident memory in MiB at the end of each epoch."""
    steps = -(-len(split) // batch_size)
    batches = pipeline(split, batch_size, shuffle=True, seed=1, epochs=epochs, augment="natural", cache=cache)
    memory, start = [], time.perf_counter()
    for step, _ in enumerate(batches, 1):
        if step % steps == 0:
            memory.append(resident())
            report(step // steps, memory[-1], time.perf_counter() - start)
            start = time.perf_counter()
    return memory


def slope(memory) -> float:
    """MiB an epoch, by least squares."""
    return float(np.polyfit(np.arange(len(memory)), memory, 1)[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("files", 10_000), ("epochs", 50), ("side", 48), ("batch", 32), ("warm-up", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--cache", default="none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, arguments.files, arguments.side)
        split = from_folder(folder, groups=False).train
        print(f"{len(split):,} files listed: {resident():.1f} MiB", flush=True)
        print("epoch  resident MiB  images/s")

        def report(epoch, memory, seconds):
            print(f"{epoch:5}  {memory:12.1f}  {len(split) / seconds:8,.0f}", flush=True)

        memory = measure(split, arguments.epochs, arguments.batch, arguments.cache, report)
    after = memory[arguments.warm_up - 1 :]
    numbers = f"{after[0]:.1f} MiB, last {after[-1]:.1f}, largest {max(after):.1f}, slope {slope(after):+.3f} an epoch"
    print(f"after {arguments.warm_up} epochs {numbers}")


if __name__ == "__main__":
    main()
