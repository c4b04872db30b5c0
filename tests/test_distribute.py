"""Several devices and several workers train the model that one device trains, wait for each other no longer than said, and recover."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from keras import layers as L

import cnn_zoo
from cnn_zoo import InputError, Recipe, Run, TrainingStopped
from cnn_zoo.data import Data, pipeline
from cnn_zoo.errors import MissingExtraError
from cnn_zoo.train import distribute
from cnn_zoo.train.distribute import Devices, launch, on_ray, scaled, shares, synchronize, workers

# A net with BatchNorm, augmentation, a schedule, and images that no number of devices divides: 131 of them, 27 held out.
SCRIPT = """
import json, os, sys, time
where, net, folder, mode = sys.argv[1:5]
import keras, numpy as np
from keras import layers as L
jax = keras.backend.backend() == "jax"
if where == "mirrored" and not jax:
    import tensorflow as tf
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import cnn_zoo
from cnn_zoo.train import distribute

devices = {
    "one": distribute.Devices,
    "mirrored": lambda: distribute.mirrored(None if jax else ["CPU:0", "CPU:1"]),
    "workers": lambda: distribute.workers(timeout=100),
}[where]()
rng = np.random.default_rng(0)
data = cnn_zoo.Data.from_arrays(rng.integers(0, 256, (131, 12, 12)).astype("uint8"), np.arange(131) % 3)
keras.utils.set_random_seed(7 if mode == "new" else 8)
with devices.scope():
    inputs = keras.Input((12, 12, 1))
    x = L.Conv2D(4, 3, strides=2, use_bias=False)(L.Rescaling(1 / 255)(inputs))
    norm = L.BatchNormalization()
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(L.Flatten()(L.ReLU()(norm(x)))), name="small")
if net == "synchronized":
    distribute.synchronize(model)

class Watch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        print("epoch", epoch, flush=True)
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.2 if "slow" in sys.argv else 0)

recipe = cnn_zoo.Recipe(
    "r", epochs=3, batch_size=20, optimizer="adamw", schedule="cosine", warmup=0.1, augment="digits", learning_rate=0.01, restore_best=True
)
try:
    run = cnn_zoo.fit(model, data, recipe, run=folder, resume=mode == "resume", callbacks=[Watch()], devices=devices, verbose=0)
except cnn_zoo.ZooError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(3)
assert devices.chief == (str(run.folder) == folder)
print(json.dumps({"workers": devices.workers, "devices": devices.count, "history": run.history}), flush=True)
if where == "mirrored" and not jax:
    for copies in (norm.moving_mean.value.values, norm.moving_variance.value.values):
        np.testing.assert_array_equal(copies[0].numpy(), copies[1].numpy())
"""


def environment(backend="tensorflow", **more):
    kept = {key: value for key, value in os.environ.items() if key not in ("TF_CONFIG", "XLA_FLAGS")}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": backend, **more}


def start(*arguments, **settings):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**settings),
    )


def start_workers(count, *arguments, **settings):
    addresses = [f"127.0.0.1:{port}" for port in distribute._free_ports(count)]
    tasks = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}} for index in range(count)]
    return [start("workers", *arguments, TF_CONFIG=json.dumps(task), **settings) for task in tasks]


def finish(*processes, timeout=300):
    """Exit status, output and errors of each; none outlives this."""
    try:
        return [(*process.communicate(timeout=timeout), process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def results(*processes):
    """The last line of each, read, after all ended well."""
    ended = finish(*processes)
    for out, err, code in ended:
        assert code == 0, out + err
    return [json.loads(out.splitlines()[-1]) for out, _, _ in ended]


def assert_same_curve(ours, theirs):
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        np.testing.assert_allclose(ours["history"][name], theirs["history"][name], atol=1e-4, err_msg=name)
    assert len(ours["history"]["loss"]) == 3


# -- one machine


def test_two_devices_of_tensorflow_give_the_curve_of_one(tmp_path, monkeypatch, capsys):
    two = start("mirrored", "synchronized", tmp_path / "two", "new")
    monkeypatch.setattr(sys, "argv", ["script", "one", "plain", str(tmp_path / "one"), "new"])
    exec(compile(SCRIPT, "script", "exec"), {})
    one = json.loads(capsys.readouterr().out.splitlines()[-1])
    (two,) = results(two)
    assert (one["devices"], two["devices"], two["workers"]) == (1, 2, 1)
    assert_same_curve(two, one)


@pytest.mark.slow
def test_two_devices_of_jax_give_the_curve_of_one(tmp_path):
    flags = {"backend": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    (one,) = results(start("one", "plain", tmp_path / "one", "new", **flags))
    (two,) = results(start("mirrored", "plain", tmp_path / "two", "new", **flags))
    assert (one["devices"], two["devices"]) == (1, 2)
    assert_same_curve(two, one)


@pytest.mark.slow
def test_devices_without_synchronized_batchnorm_end_with_the_same_statistics(tmp_path):
    """The script compares them: in Keras 3 each device has its own, and only the first one's would be saved."""
    (two,) = results(start("mirrored", "plain", tmp_path / "two", "new"))
    assert two["devices"] == 2


# -- recipes beyond the plain one

# Each optimizer for one device is given the sums of the gradients of which each of two devices has a part.
STEPS = """
import json
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from cnn_zoo import Recipe
from cnn_zoo.train.together import together
from cnn_zoo.train import distribute

CASES = json.loads(%r)
devices, rng = distribute.mirrored(["CPU:0", "CPU:1"]), np.random.default_rng(0)
for name, settings in CASES.items():
    scaled = settings.pop("scaled", False)

    def made():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.layers.Dense(3, name="first")(inputs)))
        for v in model.trainable_variables:
            v.assign(keras.random.normal(v.shape))
        optimizer = Recipe(learning_rate=0.1, epochs=2, **settings).make_optimizer(4, model)
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0, dynamic_growth_steps=3)
        return model, optimizer

    model, alone = made()
    alone.build(model.trainable_variables)
    with devices.scope():
        other, optimizer = made()
        optimizer = together(optimizer)
        optimizer.build(other.trainable_variables)
    parts = [[rng.normal(size=(2, *v.shape)).astype("float32") for v in model.trainable_variables] for step in range(7)]
    if scaled:
        parts[1][0][1, 0, 0] = np.inf  # of the second device alone

    @tf.function
    def step(grads):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([gradient[replica] for gradient in grads], other.trainable_variables)

    for grads in parts:
        alone.apply([tf.constant(gradient.sum(0)) for gradient in grads], model.trainable_variables)
        with devices.scope():
            devices.engine.run(step, args=([tf.constant(gradient) for gradient in grads],))
    if settings.get("ema"):
        alone.finalize_variable_values(model.trainable_variables)
        with devices.scope():
            optimizer.finalize_variable_values(other.trainable_variables)
    ours = [*optimizer.variables, *other.trainable_variables]
    theirs = [*alone.variables, *model.trainable_variables]
    same = [v.name for v in ours] == [v.name for v in theirs]
    apart = max(float(np.abs(a.numpy() - b.numpy()).max()) for a, b in zip(ours, theirs, strict=True))
    copies = all(np.array_equal(*(copy.numpy() for copy in v.value.values)) for v in other.trainable_variables)
    print(json.dumps([name, same, apart, copies]), flush=True)
"""
STEPS_OF = {
    "clip": {"clip": 0.5, "optimizer": "sgd", "weight_decay": 0.1, "schedule": "one_cycle"},
    "accumulate": {"accumulate": 3, "clip": 0.5, "schedule": "restarts"},
    "ema": {"ema": 0.9, "accumulate": 2},
    "rates": {"optimizer": "adamw", "weight_decay": 0.1, "rates": {"stem": 0.1}, "decays": {"head": 0}, "accumulate": 3, "clip": 0.5, "ema": 0.9},
    "scaled": {"scaled": True, "clip": 0.5, "accumulate": 2, "ema": 0.9, "schedule": "cosine"},
    "scaled rates": {"scaled": True, "optimizer": "sgd", "rates": {"stem": 0.1}},
}  # fmt: skip


@pytest.fixture(scope="module")
def steps():
    script = STEPS % json.dumps(STEPS_OF)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    ((out, err, code),) = finish(process)
    assert code == 0, out + err
    return {name: result for name, *result in map(json.loads, out.splitlines())}


@pytest.mark.parametrize("name", STEPS_OF)
def test_devices_together_take_the_steps_of_one(steps, name):
    """Clipping, accumulation, averages, rates and loss scaling against Keras' optimizer on one device; the same variables in the same order."""
    same, apart, copies = steps[name]
    assert same and apart < 1e-5 and copies


# Each recipe on one device and on two, stopped and resumed, on two and on one.
RECIPES = """
import json, os, shutil, sys
folder = sys.argv[1]
import keras, numpy as np
from keras import layers as L
jax = keras.backend.backend() == "jax"
if not jax:
    import tensorflow as tf
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import cnn_zoo
from cnn_zoo.train import distribute

rng = np.random.default_rng(0)
labels = np.arange(131) %% 4 %% 3
images = rng.integers(0, 156, (131, 12, 12))
images[np.arange(131), labels * 3] += 90
photos = rng.integers(0, 256, (41, 16, 16)).astype("uint8")
DATA = {
    False: cnn_zoo.Data.from_arrays(images.astype("uint8"), labels),
    True: cnn_zoo.Data.from_arrays(photos, photos // 86, classes=["dark", "gray", "bright"]),
}

def conv(x, filters, strides=1):
    x = L.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    return L.ReLU()(L.BatchNormalization()(x))

def classifier():
    inputs = keras.Input((12, 12, 1))
    x = conv(conv(L.Rescaling(1 / 255)(inputs), 4, 2), 6, 2)
    return keras.Model(inputs, L.Dense(3, activation="softmax", name="head")(L.Flatten()(x)), name="small")

def unet():
    inputs = keras.Input((16, 16, 1))
    x = conv(L.Rescaling(1 / 255)(inputs), 4)
    x = conv(L.Concatenate()([L.UpSampling2D()(conv(L.MaxPooling2D()(x), 8)), x]), 4)
    return keras.Model(inputs, L.Conv2D(3, 1, activation="softmax", name="head")(x), name="small_unet")

class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

def fit(settings, masks, two, run, **more):
    devices = distribute.mirrored(None if jax else ["CPU:0", "CPU:1"]) if two else distribute.Devices()
    assert devices.count == 1 + two
    keras.utils.set_random_seed(7)
    with devices.scope():
        model = unet() if masks else classifier()
    distribute.synchronize(model)
    recipe = cnn_zoo.Recipe(**{"batch_size": 20, "epochs": 3, "learning_rate": 0.01, **settings})
    return model, cnn_zoo.fit(model, DATA[masks], recipe, run=os.path.join(folder, run), devices=devices, verbose=0, **more)

def apart(model, other):
    return max(float(np.abs(a - b).max()) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))

for name, settings in json.loads(%r).items():
    masks = settings.pop("masks", False)
    (one, alone), (two, run) = (fit(settings, masks, two, f"{name}-{two}") for two in (False, True))
    plain = unet() if masks else classifier()
    plain.load_weights(run.folder / ("best.keras" if settings.get("restore_best") else "last.keras"))
    try:
        fit(settings, masks, True, f"{name}-stopped", callbacks=[Stop()])
    except cnn_zoo.TrainingStopped:
        shutil.copytree(os.path.join(folder, f"{name}-stopped"), os.path.join(folder, f"{name}-moved"))
    resumed, _ = fit(settings, masks, True, f"{name}-stopped", resume=True)
    _, moved = fit(settings, masks, False, f"{name}-moved", resume=True)
    told = {"histories": [alone.history, run.history, moved.history], "loaded": apart(plain, two), "resumed": apart(resumed, two)}
    print(json.dumps([name, told]), flush=True)
"""
RECIPES_OF = {
    "labels": {"optimizer": "sgd", "weight_decay": 0.01, "clip": 0.1, "label_smoothing": 0.1, "balance": "weights", "l1": 1e-4, "l2": 1e-3,
               "schedule": "one_cycle"},
    "rates": {"optimizer": "adamw", "weight_decay": 0.1, "rates": {"stem": 0.1, "stages": 0.3}, "decays": {"head": 0}, "accumulate": 2,
              "ema": 0.9, "clip": 0.1, "schedule": "restarts", "balance": "sampling"},
    "plateau": {"schedule": "plateau", "patience": 1, "early_stopping": 2, "epochs": 5, "learning_rate": 0.05, "restore_best": True},
    "masks": {"masks": True, "optimizer": "adamw", "weight_decay": 0.1, "accumulate": 4, "ema": 0.9, "clip": 0.1,
              "restore_best": True},
    "bfloat16": {"precision": "bfloat16", "clip": 0.1},
    "float16": {"masks": True, "precision": "float16", "accumulate": 2, "ema": 0.9, "clip": 0.1},
}  # fmt: skip


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def recipes(request, tmp_path_factory):
    flags = {"backend": request.param, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    process = subprocess.Popen(
        [sys.executable, "-c", RECIPES % json.dumps(RECIPES_OF), str(tmp_path_factory.mktemp("recipes"))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**flags),
    )  # fmt: skip
    ((out, err, code),) = finish(process, timeout=1500)
    assert code == 0, out + err
    return dict(map(json.loads, out.splitlines()))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES_OF)
def test_recipes_on_two_devices(recipes, name):
    """The curve of one device, to 1e-4; in short numbers the losses, to 5e-3. All in one process: models of different shapes do not meet."""
    told, short = recipes[name], "16" in name
    one, *others = told["histories"]
    for history in others:
        for key in ("loss", "val_loss") if short else set(one) - {"seconds"}:
            np.testing.assert_allclose(history[key], one[key], atol=5e-3 if short else 1e-4, err_msg=key)
    assert told["loaded"] == told["resumed"] == 0


# -- shares of batches


@pytest.mark.parametrize("size, count", [(8, 2), (7, 2), (1, 3), (5, 4), (12, 4)])
def test_shares_of_a_batch(size, count):
    import tensorflow as tf

    values = np.arange(size)
    batches = tf.data.Dataset.from_tensors((values, values.astype("float32")))
    equal = [list(shares(batches, i, i + 1, count, count).as_numpy_iterator())[0] for i in range(count)]
    assert len({len(part) for part, _ in equal}) == 1
    together = np.concatenate([part for part, _ in equal])
    np.testing.assert_array_equal(together, np.resize(values, -(-size // count) * count))
    exact = [part for part, _ in shares(batches, 0, count, count).as_numpy_iterator()]
    np.testing.assert_array_equal(np.concatenate(exact), values)


def test_shares_of_an_epoch_are_the_batches_of_one_worker(rng):
    """Two workers with two devices each: order, augmentation and the cut into shares put together again."""
    data = Data.from_arrays(rng.integers(0, 256, (50, 8, 8)).astype("uint8"), np.arange(50) % 5)
    made = {"shuffle": True, "seed": 3, "epochs": 2, "augment": "digits"}
    whole = list(pipeline(data.train, 16, **made).as_numpy_iterator())
    parts = [list(shares(pipeline(data.train, 16, **made), 2 * i, 2 * i + 2, 4, 4).as_numpy_iterator()) for i in (0, 1)]
    assert len(whole) == 8 and all(len(part) == 16 for part in parts)
    for step, (images, labels) in enumerate(whole):
        mine = [part[2 * step + device] for part in parts for device in (0, 1)]
        for seen, expected in zip(map(np.concatenate, zip(*mine)), (images, labels)):
            np.testing.assert_array_equal(seen[: len(expected)], expected)
            assert len(seen) == -(-len(expected) // 4) * 4


# -- who takes part


def set_cluster(monkeypatch, addresses, index):
    monkeypatch.delenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", raising=False)
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))


def test_a_worker_that_never_comes(monkeypatch):
    ports = distribute._free_ports(3)
    set_cluster(monkeypatch, [f"127.0.0.1:{port}" for port in ports], 1)
    began = time.monotonic()
    with pytest.raises(TrainingStopped) as error:
        workers(timeout=2)
    assert 2 <= time.monotonic() - began < 6
    for words in ("worker 1 has waited 2 seconds", f"0 (127.0.0.1:{ports[0]}), 2 (127.0.0.1:{ports[2]})", "timeout="):
        assert words in str(error.value)


def test_all_come_late_and_find_each_other():
    addresses = [f"127.0.0.1:{port}" for port in distribute._free_ports(3)]
    here = []

    def come(index):
        time.sleep(0.3 * index)
        distribute._roll_call(addresses, index, 10)
        here.append(index)

    threads = [threading.Thread(target=come, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert sorted(here) == [0, 1, 2]


@pytest.mark.parametrize("config", [None, "no json", "{}", "[]", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
                                    '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}'])  # fmt: skip
def test_an_environment_that_names_no_workers(monkeypatch, config):
    monkeypatch.delenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match="set TF_CONFIG="):
        workers()


def test_the_cluster_is_read_from_either_variable(monkeypatch):
    set_cluster(monkeypatch, ["a:1", "b:2"], 1)
    assert distribute._cluster() == (["a:1", "b:2"], 1)
    with_chief = {"cluster": {"chief": ["c:3"], "worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(with_chief))
    assert distribute._cluster() == (["c:3", "a:1"], 1)
    monkeypatch.setenv("TF_CONFIG", json.dumps({**with_chief, "task": {"type": "chief", "index": 0}}))
    assert distribute._cluster() == (["c:3", "a:1"], 0)
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "x:1,y:2,z:3")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "2")
    assert distribute._cluster() == (["x:1", "y:2", "z:3"], 2)
    monkeypatch.delenv("KERAS_DISTRIBUTION_PROCESS_ID")
    with pytest.raises(InputError, match="KERAS_DISTRIBUTION_PROCESS_ID"):
        workers()


def test_a_port_in_use(monkeypatch):
    import socket

    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        set_cluster(monkeypatch, [f"127.0.0.1:{port}", "127.0.0.1:1"], 0)
        with pytest.raises(InputError, match=f"cannot listen on port {port}"):
            workers(timeout=2)


def test_workers_after_tensorflow_has_begun(monkeypatch):
    import tensorflow as tf

    tf.constant(1) + 1
    set_cluster(monkeypatch, [f"127.0.0.1:{port}" for port in distribute._free_ports(2)], 0)
    monkeypatch.setattr(distribute, "_roll_call", lambda *arguments: None)
    with pytest.raises(InputError, match="must come before anything"):
        workers()


# -- what does not fit


def small_model():
    inputs = keras.Input((8, 8, 1))
    x = L.BatchNormalization()(L.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, L.Dense(3, activation="softmax")(L.Flatten()(x)))


def test_bad_input(rng, tmp_path):
    data = Data.from_arrays(rng.integers(0, 256, (40, 8, 8)).astype("uint8"), np.arange(40) % 3)
    devices = distribute.mirrored(["CPU:0"])
    recipe = Recipe(epochs=1, batch_size=10)
    with pytest.raises(InputError, match="built elsewhere: build it within `with devices.scope"):
        cnn_zoo.fit(small_model(), data, recipe, run=tmp_path / "run", devices=devices)
    with devices.scope():
        model = small_model()
        with pytest.raises(InputError, match="leave the scope first"):
            cnn_zoo.fit(model, data, recipe, run=tmp_path / "run", devices=devices)
    with pytest.raises(InputError, match="batch_size is 10 and 4 devices get equal shares of it: choose 8 or 12"):
        cnn_zoo.fit(model, data, recipe, run=tmp_path / "run", devices=Devices(devices.engine, 4))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="there is no device 'GPU:7'; there are: CPU:0"):
        distribute.mirrored(["GPU:7"])
    with pytest.raises(InputError, match="worker 1 finds no run"):
        Devices(devices.engine, 2, 1, 2).folder(tmp_path / "nowhere", resume=True)

    class Own(keras.Model):
        pass

    with pytest.raises(InputError, match="train functional models, not Own"):
        distribute.distributed(Own(), 2)

    class OwnLoss(keras.Model):
        def compute_loss(self, *arguments, **settings):
            return 2 * super().compute_loss(*arguments, **settings)

    with pytest.raises(InputError, match="OwnLoss has its own compute_loss, which several devices of TensorFlow would"):
        cnn_zoo.fit(OwnLoss(model.inputs, model.outputs), data, recipe, run=tmp_path / "run", devices=devices)
    with pytest.raises(InputError, match="sam trains on one device"):
        cnn_zoo.fit(model, data, recipe.replace(sam=0.05), run=tmp_path / "run", devices=devices)


def test_one_device_in_a_strategy_trains_and_saves_a_plain_model(rng, tmp_path):
    """What is saved knows nothing of the twin that was trained; it evaluates as before, and has the weights of the model given."""
    data = Data.from_arrays(rng.integers(0, 256, (40, 8, 8)).astype("uint8"), np.arange(40) % 3)
    devices = distribute.mirrored(["CPU:0"])
    with devices.scope():
        model = small_model()
    before = model.get_weights()
    run = cnn_zoo.fit(model, data, Recipe(epochs=1, batch_size=8), run=tmp_path / "run", devices=devices, verbose=0)
    loaded = keras.saving.load_model(run.folder / "last.keras")
    assert type(loaded) is type(keras.Model(loaded.inputs, loaded.outputs))
    changed = [not np.array_equal(a, b) for a, b in zip(model.get_weights(), before)]
    assert all(changed)
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_synchronize_reaches_nested_models():
    inner = small_model()
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, inner(L.BatchNormalization()(inputs)))
    norms = [model.layers[1], inner.layers[2]]
    assert synchronize(model) is model and all(layer.synchronized for layer in norms)
    assert not any(layer.synchronized for layer in norms if synchronize(model, on=False))


def test_scaled_learning_rate():
    recipe = Recipe(epochs=50, batch_size=32, learning_rate=0.1, optimizer="sgd", schedule="cosine", warmup=0.01)
    large = scaled(recipe, 4)
    assert (large.batch_size, large.learning_rate, large.warmup) == (128, pytest.approx(0.4), pytest.approx(0.1))
    assert scaled(recipe.replace(warmup=0.2), 4).warmup == 0.2 and scaled(recipe.replace(epochs=6), 4).warmup == 0.5
    with pytest.raises(InputError, match="needs a warm-up"):
        scaled(Recipe(), 2)
    with pytest.raises(InputError, match="times must be"):
        scaled(recipe, 0)


def test_ray_is_an_extra():
    import importlib.util

    if importlib.util.find_spec("ray"):
        pytest.skip("Ray is installed")
    with pytest.raises(MissingExtraError, match=r"cnn-zoo\[ray\]"):
        on_ray(print, 2)


# -- the launcher


TELL = """
import json, os, pathlib, sys, time
config = json.loads(os.environ["TF_CONFIG"])
index = config["task"]["index"]
pathlib.Path(sys.argv[1], str(index)).write_text(json.dumps(config["cluster"]["worker"]))
if sys.argv[2] == "fail" and index == 1: sys.exit(5)
if sys.argv[2] != "end": time.sleep(60)
"""


@pytest.mark.parametrize("what, timeout, code", [("end", None, 0), ("fail", None, 5), ("wait", 2, 124)])
def test_launch(tmp_path, monkeypatch, what, timeout, code):
    monkeypatch.setattr(distribute, "GRACE", 0.5)
    began = time.monotonic()
    assert launch([sys.executable, "-c", TELL, str(tmp_path), what], 3, timeout) == code
    assert time.monotonic() - began < 20
    if what == "end":
        told = [json.loads((tmp_path / str(index)).read_text()) for index in range(3)]
        assert told[0] == told[1] == told[2] and len(set(told[0])) == 3


def test_launch_of_a_program_that_is_not_there():
    with pytest.raises(InputError, match="cannot start 'no-such-program'"):
        launch(["no-such-program"], 2)


# -- several workers, for real


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def whole(backend, tmp_path_factory):
    """A run of two workers that nothing disturbed: the backend, its folder, and what the workers said."""
    folder = tmp_path_factory.mktemp(backend) / "whole"
    return backend, folder, results(*start_workers(2, "synchronized", folder, "new", backend=backend))


@pytest.mark.slow
def test_two_workers_give_the_curve_of_one(whole, tmp_path):
    backend, folder, (chief, other) = whole
    (one,) = results(start("one", "plain", tmp_path / "one", "new", backend=backend))
    assert (chief["workers"], chief["devices"], one["devices"]) == (2, 2, 1)
    assert_same_curve(chief, one)
    assert [chief["history"][name] for name in ("loss", "val_loss")] == [
        other["history"][name] for name in ("loss", "val_loss")
    ]
    assert Run.load(folder).status == "finished" and {path.name for path in folder.iterdir()} >= {
        "best.keras",
        "state.npz",
    }
    with np.load(folder / "state.npz") as two, np.load(tmp_path / "one" / "state.npz") as alone:
        for key in alone.files:
            if key != "progress":
                np.testing.assert_allclose(two[key], alone[key], atol=1e-3)


@pytest.mark.slow
def test_a_killed_worker_stops_the_others_and_all_resume_with_the_same_bits(whole, tmp_path):
    backend, untouched, _ = whole
    folder = tmp_path / "run"
    processes = start_workers(2, "synchronized", folder, "new", "slow", backend=backend)
    try:
        for line in processes[1].stdout:
            if line.strip() == "epoch 1":
                break
        time.sleep(0.5)
        processes[1].send_signal(signal.SIGKILL)
        began = time.monotonic()
        out, _ = processes[0].communicate(timeout=200)
        waited = time.monotonic() - began
    finally:
        finish(*processes)
    if backend == "tensorflow":
        assert processes[0].returncode == 3 and "TrainingStopped another worker has gone" in out and waited < 60
    else:
        assert processes[0].returncode != 0  # JAX ends the process itself, in its own words
    assert Run.load(folder).status == "running"
    results(*start_workers(2, "synchronized", folder, "resume", backend=backend))
    with np.load(folder / "state.npz") as a, np.load(untouched / "state.npz") as b:
        assert sorted(a.files) == sorted(b.files) and len(a.files) > 15
        for key in a.files:
            if key != "progress":
                np.testing.assert_array_equal(a[key], b[key])
    assert Run.load(folder).history["val_loss"] == Run.load(untouched).history["val_loss"]


@pytest.mark.slow
def test_workers_that_resume_from_different_states_are_told(whole, tmp_path):
    """As on machines that do not share a disk, when the copy on one is of another run."""
    import shutil

    backend, folder, _ = whole
    shutil.copytree(folder, tmp_path / "other")
    about = json.loads((tmp_path / "other" / "run.json").read_text())
    with np.load(tmp_path / "other" / "state.npz") as state:
        arrays = {key: value if key == "progress" else value + 1 for key, value in state.items()}
    np.savez(tmp_path / "other" / "state.npz", **arrays)
    assert about["status"] == "finished"
    addresses = [f"127.0.0.1:{port}" for port in distribute._free_ports(2)]
    processes = []
    for index, its in enumerate((folder, tmp_path / "other")):
        task = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        processes.append(start("workers", "synchronized", its, "resume", backend=backend, TF_CONFIG=task))
    for out, err, code in finish(*processes):
        assert code == 3 and "the workers have different weights" in out, out + err
