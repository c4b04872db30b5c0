"""Throughput: caches that change no bit, are chosen by what is measured and leave nothing behind; a bench that finds the bottleneck."""

import errno
import gc
import json
import os
import runpy
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
import typer
from conftest import REPOSITORY
from PIL import Image
from typer.testing import CliRunner

from cnn_zoo import DataError, InputError, Split, StorageError
from cnn_zoo.augment import Augmenter, flip, rotate
from cnn_zoo.commands.data_bench import bench as bench_command
from cnn_zoo.data import from_folder, from_masks, pipeline, plain_errors, throughput
from cnn_zoo.data.arraylike import Rows, is_lazy, join
from cnn_zoo.data.bench import bench, verdict
from cnn_zoo.data.lazy import ImageFiles
from cnn_zoo.data.throughput import Cached, available_memory, cached, cached_split, choose

GIB = 2**30


class Counted(Rows):
    """Rows of noise that count how often each is read, and take their time."""

    def __init__(self, values, seconds=0.0):
        super().__init__(len(values), values.shape[1:], values.dtype)
        self.values, self.seconds, self.reads = values, seconds, np.zeros(len(values), int)

    def describe(self):
        return {"sha256": "0" * 64, "count": len(self)}

    def _row(self, row):
        time.sleep(self.seconds)
        self.reads[row] += 1
        return self.values[row]


class Claimed(Rows):
    """Rows that would be so large, without being there."""

    def __init__(self, count, item, seconds=0.0):
        super().__init__(count, item, "uint8")
        self.seconds = seconds

    def describe(self):
        return {}

    def _several(self, rows):
        time.sleep(self.seconds * len(rows))


@pytest.fixture
def folder(tmp_path, rng):
    """Two classes of 20 photographs, 16 x 12."""
    for i in range(40):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 12, 3)).astype("uint8")).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def masked(tmp_path, rng):
    """Twelve images with masks."""
    for what, shape, top in (("images", (16, 12, 3), 256), ("masks", (16, 12), 3)):
        (tmp_path / "cells" / what).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(0, top, shape).astype("uint8")).save(tmp_path / "cells" / what / f"{i}.png")
    return tmp_path / "cells"


@pytest.mark.parametrize("how", ["memory", "disk"])
def test_a_cache_changes_no_bit_whoever_reads(folder, tmp_path, how):
    (tmp_path / "temporary").mkdir()
    files = ImageFiles(folder)
    whole = files[:]
    kept = cached(files, how, folder=tmp_path / "temporary")
    assert isinstance(kept, Cached) and is_lazy(kept) and kept.choice.cache == how
    assert (len(kept), kept.shape, kept.dtype, kept.ndim) == (40, files.shape, np.uint8, 4)

    def wander(seed):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            rows = rng.integers(-40, 40, rng.integers(0, 9))
            start, step = int(rng.integers(40)), int(rng.integers(1, 5))
            for index in (rows, rows > 0, int(start), slice(start, None, step), slice(None, start)):
                if isinstance(index, np.ndarray) and index.dtype == bool:
                    index = np.resize(index, 40) if len(index) else np.zeros(40, bool)
                given = kept[index]
                assert given.dtype == np.uint8 and np.array_equal(given, whole[index])
                given[...] = 0  # what is done to a batch does nothing to the cache
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(wander, range(8)))
    assert kept[[3, 1]].flags.writeable and type(kept[[3, 1]]) is np.ndarray
    with pytest.raises(IndexError):
        kept[40]
    with pytest.raises(InputError, match="an integer, a slice, or a list"):
        kept[np.zeros((2, 2), int)]


def test_each_row_is_read_once_and_the_cache_describes_its_source(folder, rng):
    source = Counted(rng.integers(0, 256, (30, 4, 5, 1)).astype("uint8"))
    kept = cached(source, "memory")
    few = kept.take([4, 2, 4])
    assert np.array_equal(few[:], source.values[[4, 2, 4]]) and source.reads.tolist() == [0, 0, 1, 0, 1] + 25 * [0]
    assert np.array_equal(kept[:], source.values) and np.array_equal(kept[::-1], source.values[::-1])
    assert source.reads.tolist() == 30 * [1]
    assert not hasattr(kept, "paths")
    assert cached(kept, "disk") is kept and cached(source.values) is source.values and cached(source, "none") is source
    files = ImageFiles(folder)
    kept = cached(files, "memory")
    assert kept.describe() == files.describe() and kept.paths == files.paths
    assert kept.take([3, 0]).describe() == files.take([3, 0]).describe() and kept.take([7]).paths == [files.paths[7]]
    both = join(kept.take([0, 1]), files.take([2]))
    assert np.array_equal(both[:], files[:3]) and len(both.paths) == 3
    data = from_folder(folder)
    split, choices = cached_split(data.train)
    assert isinstance(split.images, Cached) and split.labels is data.train.labels
    assert list(choices) == ["images"] and json.loads(json.dumps(choices)) == choices
    assert type(data)("x", split, None, None, data.classes, "x").describe() | {"name": 0, "source": 0} == (
        data.describe() | {"name": 0, "source": 0}
    )


def test_the_choice_follows_the_budgets(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "PROBE_SECONDS", 0.02)
    rows = Claimed(1000, (1024, 1024), seconds=0.001)  # 1000 MiB
    budgets = {"folder": tmp_path, "epochs": 10}
    choice = choose(rows, memory=2 * GIB, disk=0, **budgets)
    assert choice.cache == "memory" and choice.bytes == 1000 * 2**20 and choice.seconds_per_row is None
    assert choice.why == "1000 MiB fit into 50% of 2 GiB of free memory"
    assert choose(rows, memory=2000 * 2**20 - 1, disk=0, **budgets).cache == "none"
    assert choose(rows, memory=9 * GIB, disk=9 * GIB, epochs=1).cache == "none"
    assert "only once" in choose(rows, memory=9 * GIB, disk=9 * GIB, epochs=1).why
    assert choose(rows, "disk", memory=9 * GIB, disk=9 * GIB, epochs=1).cache == "disk"
    # A row of 1 MiB: the disk is made to take 5 ms for it.
    monkeypatch.setattr(throughput, "_disk_seconds", lambda folder: 0.005 / 2**20)
    for seconds, epochs, expected in ((0.02, 10, "disk"), (0.001, 10, "none"), (0.008, 2, "none"), (0.011, 2, "disk")):
        monkeypatch.setattr(throughput, "seconds_per_row", lambda values, seconds=seconds: seconds)
        choice = choose(rows, memory=GIB, disk=2 * GIB, folder=tmp_path, epochs=epochs)
        assert choice.cache == expected and choice.seconds_per_row == seconds
        assert "do not fit into 50% of 1 GiB of free memory" in choice.why and "the disk 5 ms" in choice.why
    choice = choose(rows, memory=GIB, disk=GIB, **budgets)
    assert choice.cache == "none" and "nor into 50% of the disk" in choice.why
    nowhere = choose(rows, memory=GIB, folder=tmp_path / "nowhere", epochs=10)
    assert nowhere.cache == "none" and "nothing can be written there" in nowhere.why
    assert choose(Claimed(0, (4, 4)), "disk", epochs=9).why == "no cache: there are no rows"
    with pytest.raises(InputError, match="auto, memory, disk, none, not 'memry'; did you mean 'memory'"):
        cached(rows, "memry")
    with pytest.raises(InputError, match="not 3"):
        cached(rows, 3)


def test_what_reading_costs_is_measured(rng):
    slow = Counted(np.zeros((40, 2, 2, 1), "uint8"), seconds=0.02)
    found = throughput.seconds_per_row(slow)
    assert found > 0.9 * 0.02 / (2 * (os.cpu_count() or 1)) and slow.reads.sum() >= 17
    assert throughput.seconds_per_row(slow.take([0])) > 0.018
    assert 0 < throughput._disk_seconds(throughput.temporary_folder()) < 1e-4


def test_memory_that_was_promised_is_not_free(monkeypatch, rng):
    values = rng.integers(0, 256, (10, 10, 10, 1)).astype("uint8")
    gc.collect()
    base = throughput._Kept.promised()
    monkeypatch.setattr(throughput, "available_memory", lambda: base + 2500)
    first = cached(Counted(values), epochs=5, disk=0)
    assert isinstance(first, Cached)
    second = Counted(values)
    assert cached(second, epochs=5, disk=0) is second  # 1,500 are left, and half of it is too little
    first[:]
    assert throughput._Kept.promised() == base
    del first
    gc.collect()
    assert isinstance(cached(second, epochs=5, disk=0), Cached)


def test_what_does_not_fit_is_said_or_done_without(tmp_path, monkeypatch, rng):
    with pytest.raises(StorageError, match="in memory needs 9.31 TiB and .* are free: use cache='disk', cache='none'"):
        cached(Claimed(10**7, (1024, 1000)), "memory")
    with pytest.raises(
        StorageError, match="the disk is full.*needs 9.31 TiB; TMPDIR says where, cache='none' needs nothing"
    ):
        cached(Claimed(10**7, (1024, 1000)), "disk", folder=tmp_path)
    rows = Counted(rng.integers(0, 256, (30, 4, 4, 1)).astype("uint8"), seconds=0.01)

    def full(file, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(throughput, "_allocate", full)
    with pytest.raises(StorageError, match=f"cannot write '{tmp_path}': the disk is full"):
        cached(rows, "disk", folder=tmp_path)
    split, choices = cached_split(Split(rows, np.arange(30)), epochs=50, memory=0, disk=GIB, folder=tmp_path)
    assert split.images is rows and choices["images"]["cache"] == "none" and "disk is full" in choices["images"]["why"]
    with pytest.raises(StorageError, match="cannot write"):
        cached(rows, "disk", folder=tmp_path / "nowhere", disk=GIB)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("function", [True, False])
def test_space_on_the_disk_is_taken_at_once(tmp_path, monkeypatch, function):
    """A sparse file would be found too large in the middle of an epoch, by a signal that no one can catch."""
    if not function:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif not hasattr(os, "posix_fallocate"):
        pytest.skip("no posix_fallocate here")
    size = 40 * 2**20 + 5
    with open(tmp_path / "x", "wb") as file:
        throughput._allocate(file, size)
        found = os.fstat(file.fileno())
    assert found.st_size == size and found.st_blocks * 512 >= size


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_nothing_is_left_on_the_disk(tmp_path, rng):
    def mapped():
        return sum(str(tmp_path) in line for line in Path("/proc/self/maps").read_text().splitlines())

    kept = cached(Counted(rng.integers(0, 256, (30, 40, 40, 1)).astype("uint8")), "disk", folder=tmp_path)
    assert mapped() == 1 and not list(
        tmp_path.iterdir()
    )  # it has no name even while it is used: a crash leaves nothing
    few = kept.take([1])
    del kept
    gc.collect()
    assert mapped() == 1 and np.array_equal(few[0], few.source.values[1])
    del few
    gc.collect()
    assert mapped() == 0


@pytest.mark.parametrize("how", ["memory", "disk", "auto"])
def test_batches_are_the_same_with_and_without_a_cache(masked, how):
    data = from_masks(masked)
    augment = Augmenter((flip(), rotate(30)))
    options = {"shuffle": True, "seed": 3, "augment": augment, "epochs": 4, "repeat": 2}
    plain = list(pipeline(data.train, 5, cache="none", **options))
    batches = list(pipeline(data.train, 5, cache=how, **options))
    assert len(plain) == len(batches) == 20
    for one, other in zip(plain, batches):
        assert all(np.array_equal(a, b) for a, b in zip(one, other))
    resumed = pipeline(data.train, 5, cache=how, first_epoch=2, **options)
    for one, other in zip(plain[10:], resumed, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other))
    spec = pipeline(data.train, 5, cache=how, **options).element_spec
    assert spec == pipeline(data.train, 5, cache="none", **options).element_spec
    with pytest.raises(InputError, match="a cache is auto, memory, disk, none"):
        pipeline(data.train, 5, cache="ram")


def test_files_are_read_once_in_all_epochs_and_validations(rng):
    many = rng.integers(0, 256, (200, 4, 4, 1)).astype("uint8")
    train, values = Counted(many), many[:20]
    held = Counted(values)
    assert len(list(pipeline(Split(train, np.arange(200)), 4, shuffle=True, epochs=6))) == 300
    # The first batches of the second epoch may be under way together with the last of the first, and read a row twice.
    assert train.reads.min() == 1 and train.reads.mean() < 2
    split, _ = cached_split(Split(held, np.arange(20)), epochs=6)
    validation = pipeline(split, 8)
    for _ in range(3):
        assert np.array_equal(np.concatenate([images for images, _ in validation]), values)
    assert held.reads.tolist() == 20 * [1]
    once = Counted(values)
    list(pipeline(Split(once, np.arange(20)), 8))
    assert once.reads.tolist() == 20 * [1]


def test_a_damaged_file_is_named_through_a_cache(folder):
    path = folder / "a" / "6.png"
    path.write_bytes(path.read_bytes()[:-30])
    split, _ = cached_split(from_folder(folder).train, "memory")
    for _ in range(2):  # its error is not forgotten, and its row not taken for read
        with pytest.raises(DataError, match=r"6.png' is damaged .*: get the file again") as caught, plain_errors():
            list(pipeline(split, 8))
        assert "Traceback" not in str(caught.value)
    with pytest.raises(DataError, match=r"6.png' is damaged"):
        split.images[:]
    with pytest.raises(DataError, match=r"6.png' is damaged"):
        bench(from_folder(folder), seconds=0.01)


def test_a_pipeline_keeps_its_cache_and_gives_it_back(folder):
    """TensorFlow itself never lets go of a function that it was given."""
    gc.collect()
    before = len(throughput._Kept._in_memory)

    def derived():
        batches = pipeline(from_folder(folder).train, 8, epochs=3, augment="natural")
        return batches.map(lambda images, labels: images).unbatch().batch(20)

    batches, iterator = derived(), iter(derived())
    gc.collect()
    assert len(throughput._Kept._in_memory) == before + 2
    assert sum(1 for _ in batches) == sum(1 for _ in iterator) == 6
    del batches, iterator
    gc.collect()
    assert len(throughput._Kept._in_memory) == before


def test_available_memory_is_the_least_of_all_limits(tmp_path):
    def write(path, text):
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:    4000 kB\n")
    assert available_memory(tmp_path) == 4000 * 1024
    write("proc/self/cgroup", "0::/a/b\n")
    for group, limit in (("", "max"), ("a/", "3000000"), ("a/b/", "9000000")):
        write(f"sys/fs/cgroup/{group}memory.max", f"{limit}\n")
        write(f"sys/fs/cgroup/{group}memory.current", "1500000\n")
        write(f"sys/fs/cgroup/{group}memory.stat", "anon 5\ninactive_file 400000\n")
    assert available_memory(tmp_path) == 3000000 - 1500000 + 400000
    write("proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/1\n")  # version 1, seen from within a container
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1999999")
    write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 9\n")
    assert available_memory(tmp_path) == 10
    (tmp_path / "proc/meminfo").unlink()
    (tmp_path / "proc/self/cgroup").unlink()
    assert available_memory(tmp_path) > 2**28  # half of all, where there is no /proc
    assert 0 < available_memory() < 2**45


# bench


def test_the_bench_of_files_has_all_stages(folder):
    model = keras.Sequential([keras.Input((32, 24, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    before = model.get_weights()
    found = bench(from_folder(folder, size=(32, 24)), 8, "natural", model, seconds=0.1)
    assert list(found.rates) == [
        "read bytes", "decode", "size + intensity", "augment", "batches, uncached", "batches, cached", "training step",
    ]  # fmt: skip
    assert all(rate > 0 for rate in found.rates.values()) and 0 <= found.wait <= 1
    assert found.rates["batches, uncached"] < found.rates["decode"] and found.cores >= 1 and found.batch_size == 8
    assert found.cache["images"]["cache"] == "memory"
    values = json.loads(json.dumps(found.to_dict()))
    assert values["bottleneck"] in values["rates"] and values["advice"] == found.advice
    text = str(found)
    assert all(name in text for name in found.rates) and found.advice in text and "batches of 8" in text
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_the_bench_finds_a_slow_reader_and_a_slow_augmentation(rng):
    values = rng.integers(0, 256, (16, 32, 32, 3)).astype("uint8")
    split = Split(Counted(values, seconds=0.05), np.zeros(16, int))
    found = bench(split, 8, Augmenter((flip(),)), seconds=0.2)
    assert found.bottleneck == "read" and "Reading is the slowest stage: " in found.advice
    assert "Cache in memory" in found.advice and "instead of" in found.advice
    assert found.rates["batches, cached"] > 2 * found.rates["batches, uncached"]

    def slow(image, rng):
        time.sleep(0.02)
        return image

    found = bench(Split(Counted(values), np.zeros(16, int)), 8, Augmenter((slow,)), seconds=0.2)
    assert found.bottleneck == "augment" and "take fewer or simpler steps" in found.advice
    slow_masks = Counted(np.zeros((16, 32, 32), "uint8"), seconds=0.02)
    found = bench(Split(Counted(values), slow_masks), 8, seconds=0.2)
    assert found.bottleneck == "masks" and list(found.cache) == ["images", "masks"]
    arrays = Split(values, np.zeros(16, int))
    found = bench(arrays, 8, seconds=0.05)
    assert found.bottleneck == "batches, uncached" and found.cache == {} and "but to copy it" in found.advice
    tripled = bench(arrays, 8, lambda images, seed: images // 3, seconds=0.05)
    assert tripled.bottleneck == "augment"


class Slow(keras.layers.Layer):
    """Takes its time in each step."""

    def call(self, inputs):
        import tensorflow as tf

        def wait(values):
            time.sleep(0.1)
            return values

        waited = tf.numpy_function(wait, [inputs], tf.float32)
        return inputs + 1e-6 * tf.ensure_shape(tf.stop_gradient(waited), inputs.shape)


def test_the_bench_knows_a_model_that_waits_from_one_that_works(rng):
    values = rng.integers(0, 256, (16, 8, 8, 1)).astype("uint8")
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    fast, slow = keras.Model(inputs, outputs), keras.Model(inputs, Slow()(outputs))
    found = bench(Split(values, np.zeros(16, int)), 8, model=slow, seconds=0.3)
    assert found.bottleneck == "training step" and found.wait < 0.1 and "it waits for data" in found.advice

    def sleepy(image, rng):
        time.sleep(0.05)
        return image

    found = bench(Split(values, np.zeros(16, int)), 8, Augmenter((sleepy,), threads=1), fast, seconds=0.3)
    assert found.bottleneck == "augment" and found.wait > 0.3
    assert "the model waits for them" in found.advice and "Augmentation is the slowest" in found.advice
    with pytest.raises(InputError, match="channel"):
        bench(Split(np.repeat(values, 3, -1), np.zeros(16, int)), 8, model=fast, seconds=0.01)
    with pytest.raises(InputError, match="a Keras model, not str"):
        bench(Split(values, np.zeros(16, int)), 8, model="lenet", seconds=0.01)
    with pytest.raises(InputError, match="a Data or a Split"):
        bench(values)
    with pytest.raises(InputError, match="seconds is a number above 0"):
        bench(Split(values, np.zeros(16, int)), seconds=0)
    with pytest.raises(InputError, match="batch_size"):
        bench(Split(values, np.zeros(16, int)), 0)


def test_the_verdict_says_what_to_do():
    rates = {"read bytes": 9000.0, "decode": 100.0, "size + intensity": 900.0, "augment": 900.0}
    rates |= {"batches, uncached": 70.0, "batches, cached": 800.0, "training step": 500.0}
    fits, fits_not = ({"images": {"cache": cache, "why": "because"}} for cache in ("memory", "none"))
    name, advice = verdict(rates, None, fits)
    assert name == "decode" and "Decoding is the slowest stage: 81% of the work on an image." in advice
    assert "Cache in memory (because): 800 instead of 70 images per second from the second epoch on." in advice
    assert "Make the files as small as the net needs them" in verdict(rates, None, fits_not)[1]
    assert verdict(rates, 0.03, fits)[1].startswith("The model is the bottleneck: it waits for data 3% of the time.")
    assert verdict(rates, 0.4, fits)[0] == "augment" and verdict(rates, 0.4, fits_not)[0] == "decode"
    del rates["augment"]
    assert verdict(rates, 0.4, fits)[0] == "batches, cached"


def test_the_command(folder, masked):
    app = typer.Typer()
    app.command()(bench_command)
    done = CliRunner().invoke(app, [str(folder), "--seconds", "0.05", "--batch-size", "8", "--size", "20x24"])
    assert done.exit_code == 0 and "decode" in done.stdout and "batches of 8" in done.stdout
    options = ["--json", "--seconds", "0.05", "--batch-size", "4", "--augment", "micrograph"]
    done = CliRunner().invoke(app, [str(masked), *options])
    values = json.loads(done.stdout)
    assert {"masks", "augment"} <= set(values["rates"]) and set(values["cache"]) == {"images", "masks"}
    done = CliRunner().invoke(app, [str(folder), *options, "--size", "28", "--net", "lenet"])
    assert {"decode", "training step"} <= set(json.loads(done.stdout)["rates"])
    done = CliRunner().invoke(app, [str(folder), "--size", "20 by 24"])
    assert isinstance(done.exception, InputError) and "HEIGHTxWIDTH" in str(done.exception)


@pytest.mark.slow
def test_the_command_with_a_segmenter(masked):
    app = typer.Typer()
    app.command()(bench_command)
    options = ["--json", "--seconds", "0.05", "--batch-size", "2", "--size", "32"]
    done = CliRunner().invoke(app, [str(masked), *options, "--net", "unet:mobilenetv2_035"])
    assert {"masks", "training step"} <= set(json.loads(done.stdout)["rates"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_memory_stays_flat(tmp_path):
    """What is read, 9 MiB an epoch, would be 56 MiB more in six epochs if it were kept."""
    benchmark = runpy.run_path(str(REPOSITORY / "benchmarks" / "memory.py"))
    benchmark["write_files"](tmp_path, 200, 128)
    memory = benchmark["measure"](from_folder(tmp_path, groups=False).train, 10, 32, "none")
    assert len(memory) == 10 and max(memory[4:]) - memory[3] < 30
