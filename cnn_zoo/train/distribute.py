"""More than one device, more than one machine: `mirrored()` and `workers()` say where, `fit(..., devices=...)` trains there.

    devices = mirrored()                       # all GPUs of this machine; or workers(): all machines that TF_CONFIG names
    with devices.scope():
        model = cnn_zoo.build("resnet50", classes=10)
    run = cnn_zoo.fit(model, data, recipe, devices=devices)

The engines are TensorFlow's (`MirroredStrategy`, `MultiWorkerMirroredStrategy`) and, with the JAX backend, Keras' own (`DataParallel`). The
`batch_size` is that of all devices together, and each device gets its share of the very batches that a single one would get, so the curves are
the same up to rounding, wherever nothing looks at a batch as a whole and nothing draws at random within the net:

- Shares are equal: where the last batch of an epoch cannot be divided, up to `count - 1` of its images are taken twice.
- BatchNorm looks at a batch: on TensorFlow each device sees its own share, unless `synchronize(model)`. With JAX it sees all.
- So do losses of masks that divide by what they find in a batch: Dice and its like, class weights, ignored pixels. With JAX they see all.
- Dropout draws on TensorFlow the same pattern on each device, and with JAX one pattern for the whole batch.

All fields of a recipe are kept, for labels and masks, but `sam`, which trains on one device; in bfloat16 and float16 rounding is coarser, so the
losses agree to some 1e-3. A run can be resumed on another number of devices. `fine_tune` takes the devices of one machine, `prune` and `search` take
none, nor does TensorFlow train on several what has a loss or steps of its own, as `distill` and `learn_without_forgetting` make it: that is refused.

Each worker prepares whole batches and keeps its share: augmentation stays a function of the seed and the epoch, and is not sped up by more machines.
"""

import atexit
import functools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import zlib
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cnn_zoo.errors import InputError, TrainingStopped, require
from cnn_zoo.train.together import together

TIMEOUT = 180  # seconds that workers wait for each other
UNLIKE = (
    "the workers have different weights: give them the same keras.utils.set_random_seed and the same weights file, "
    "or resume from the same run folder"
)
GRACE = 10  # seconds that `launch` leaves to the other workers when one has failed


@dataclass(frozen=True)
class Devices:
    """Where a model is trained. `mirrored` and `workers` make them; `Devices()` is the one device that Keras would take anyway.

    Attributes:
        engine: A `tf.distribute.Strategy`, a `keras.distribution.DataParallel`, or None.
        count: Devices of all workers together; each trains on an equal share of a batch.
        worker: Which of the workers this process is, from 0; the first one is the chief, and it alone writes the run folder.
        workers: How many there are.
    """

    engine: object = None
    count: int = 1
    worker: int = 0
    workers: int = 1

    @property
    def chief(self) -> bool:
        return self.worker == 0

    def scope(self):
        """A context in which models are built, so that their variables are on all devices."""
        return nullcontext() if self.engine is None else self.engine.scope()

    # -- what `fit` asks

    def check(self, model, batch_size: int) -> None:
        """Raise InputError where the model lives elsewhere, or a batch has no equal shares."""
        if self.engine is None:
            return
        if batch_size % self.count:
            fewer = batch_size - batch_size % self.count
            choices = f"{fewer} or {fewer + self.count}" if fewer else str(self.count)
            raise InputError(
                f"batch_size is {batch_size} and {self.count} devices get equal shares of it: choose {choices}"
            )
        if keras.backend.backend() == "tensorflow":
            _check_functional(model)
        if not self._holds(model):
            raise InputError("the model was built elsewhere: build it within `with devices.scope():`")

    def _holds(self, model):
        if keras.backend.backend() == "tensorflow":
            return getattr(model, "distribute_strategy", None) is self.engine
        return all(len(v.value.sharding.device_set) == self.count for v in model.variables)

    def trainer(self, model):
        """The model that Keras' `fit` is called on: on TensorFlow `distributed(model)`, else the model."""
        alone = self.engine is None or keras.backend.backend() == "jax"
        return model if alone else distributed(model, self.workers)

    def folder(self, folder, resume: bool) -> Path:
        """Where this worker writes: the chief into the run folder, others into a scratch copy of it, since all must take the same steps."""
        if self.chief:
            return Path(folder)
        scratch = tempfile.mkdtemp(prefix="cnn-zoo-worker-")
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        own = Path(scratch) / "run"
        if resume:
            if not (Path(folder) / "run.json").is_file():
                raise InputError(
                    f"worker {self.worker} finds no run in {str(folder)!r}: workers resume from a folder that all of them see, "
                    "or from a copy of it at the same path"
                )
            shutil.copytree(folder, own)
        return own

    def check_alike(self, variables) -> None:
        """Raise InputError where workers would start from different weights: they would train different models and not notice."""
        if self.workers == 1:
            return
        mine = 0
        for variable in variables:
            mine = zlib.crc32(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes(), mine)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            def mean():
                context = tf.distribute.get_replica_context()
                return context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.constant(mine, "float64"))

            means = self.engine.experimental_local_results(tf.function(self.engine.run, autograph=False)(mean))
            alike = float(means[0]) == mine
        else:
            from jax.experimental.multihost_utils import process_allgather

            alike = bool((process_allgather(np.uint32(mine)) == mine).all())
        if not alike:
            raise InputError(UNLIKE)

    def feed(self, training, held_out, steps: int, settings: dict) -> tuple:
        """What Keras' `fit` is given instead of `tf.data.Dataset`s of the batches that one device would get: this worker's shares of them.

        In training shares are equal: where the last batch of an epoch cannot be divided, up to `count - 1` of its images are taken twice (as
        PyTorch's DistributedSampler does). In validation each image counts once.
        """
        if self.engine is None:
            return training, held_out, settings
        if not settings:  # a data set of one epoch
            training = training.repeat()
        settings = {"steps_per_epoch": steps}
        if held_out:
            settings["validation_steps"] = int(held_out.cardinality())
            if settings["validation_steps"] < 1:
                raise InputError(
                    "validation= must be of finite, known length: use take(n) or tf.data.experimental.assert_cardinality"
                )
        if keras.backend.backend() == "jax":  # what is held out goes to each device as a whole: _ValidateWhole
            return shares(training, self.worker, self.worker + 1, self.workers, self.count), held_out, settings
        local = self.count // self.workers
        mine = self.worker * local, (self.worker + 1) * local, self.count
        spread = self.engine.distribute_datasets_from_function
        equal, exact = shares(training, *mine, self.count), held_out and shares(held_out, *mine)
        return spread(lambda context: equal), held_out and spread(lambda context: exact), settings

    def callbacks(self, model) -> list:
        """What must be called before all other callbacks."""
        if self.engine is None:
            return []
        jax = keras.backend.backend() == "jax"
        return [_ValidateWhole(self.engine) if jax else _AverageStatistics(self.engine, model)]

    @contextmanager
    def plain_errors(self, folder):
        """Within it, what an engine says of a worker that has gone is said as `TrainingStopped`."""
        if self.workers == 1:
            yield
            return
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # What a collective operation says of a peer that is gone depends on when it went.
            lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
                    tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError)  # fmt: skip
        else:
            import jax

            lost = (jax.errors.JaxRuntimeError,)
        try:
            yield
        except AssertionError as error:  # JAX's, when values that differ are put on the devices of all
            if "; got: " in str(error):
                raise InputError(UNLIKE) from None
            raise
        except lost as error:
            reason = str(error).strip().splitlines()[-1][:200]
            raise TrainingStopped(
                f"another worker has gone, and worker {self.worker} cannot go on alone ({reason}); the run folder has the state of the last whole "
                f"epoch: start all workers again with resume=True or `cnn-zoo train --resume {folder or 'FOLDER'}`"
            ) from error


def here(every: bool = False) -> Devices:
    """Where the environment says to train: `workers()` where it names any; else all devices of this machine, or the usual one.

    Args:
        every: All devices of this machine.
    """
    if "TF_CONFIG" in os.environ or "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ:
        return workers()
    return mirrored() if every else Devices()


def mirrored(devices=None) -> Devices:
    """All devices of this machine: `tf.distribute.MirroredStrategy`, or with the JAX backend `keras.distribution.DataParallel`.

    Args:
        devices: Some of them, by name: `["GPU:0", "GPU:1"]` (JAX: `["gpu:0", "gpu:1"]`). Default: all GPUs, or the CPU where there is none.

    Raises:
        InputError: There is no such device, or the backend is PyTorch.
    """
    backend = _backend()
    known = keras.distribution.list_devices() if backend == "jax" else _tensorflow_devices()
    if unknown := [name for name in devices or () if name not in known]:
        raise InputError(f"there is no device {unknown[0]!r}; there are: {', '.join(known)}")
    if backend == "jax":
        engine = _jax_engine()(devices=devices)
        return Devices(engine, engine.num_model_replicas)
    strategy = _mirrored_strategy(tuple(devices) if devices else None)
    return Devices(strategy, strategy.num_replicas_in_sync)


def workers(timeout: float = TIMEOUT) -> Devices:
    """All devices of all machines: `MultiWorkerMirroredStrategy`, or with the JAX backend `DataParallel` over the processes.

    Call it first of all, in a process on each machine that runs the same program. Who takes part is said, for either backend, by `TF_CONFIG`
    (`{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}`) or by Keras' `KERAS_DISTRIBUTION_JOB_ADDRESSES`
    (`host:port,host:port`) and `KERAS_DISTRIBUTION_PROCESS_ID`. Ports must be free and open between the machines.

    Args:
        timeout: Seconds to wait for the others.

    Raises:
        InputError: The environment names no workers, or TensorFlow or JAX has computed something before.
        TrainingStopped: A worker has not come in time; the message says which.
    """
    addresses, index = _cluster()
    backend = _backend()
    _roll_call(addresses, index, timeout)
    try:
        if backend == "tensorflow":
            import tensorflow as tf

            cluster = tf.train.ClusterSpec({"worker": addresses})
            resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
                cluster, task_type="worker", task_id=index, rpc_layer="grpc"
            )
            strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
            return Devices(strategy, strategy.num_replicas_in_sync, index, len(addresses))
        keras.distribution.initialize(",".join(addresses), len(addresses), index)
        engine = _jax_engine()()
        return Devices(engine, engine.num_model_replicas, index, len(addresses))
    except RuntimeError as error:
        raise InputError(
            f"workers() must come before anything that TensorFlow or JAX computes ({str(error).splitlines()[0]})"
        ) from error


def distributed(model: keras.Model, workers: int) -> keras.Model:
    """A twin of a functional model, of the same layers and weights, that fits, evaluates and predicts under TensorFlow's strategies.

    Keras' own models do not under `MultiWorkerMirroredStrategy` (keras issue 20585, as of 3.15), for two reasons. A model *object* that was made
    in a strategy's scope builds itself from a batch first, and fails on one whose shares are spread over workers, or of different sizes (that,
    under `MirroredStrategy` too): so the twin is made outside of the scope, of variables made inside. And over several workers what a step
    returns is averaged along its first axis, which a number does not have: so there the twin's steps return vectors of length 1. Compile it and
    call its methods within the scope, with `steps_per_execution=1` and metrics as objects (of names variables are made too late).

    Args:
        model: Built within the strategy's scope.
        workers: Processes that take part.

    Raises:
        InputError: The model is not functional or has steps of its own, or this is called within the scope.
    """
    import tensorflow as tf

    _check_functional(model)
    if tf.distribute.has_strategy():
        raise InputError(
            "leave the scope first: only the model is built within `with devices.scope():`, fit is called after it"
        )
    shape = (1,) if workers > 1 else ()

    class Distributed(keras.Model):
        def compile(self, optimizer, **settings):
            super().compile(together(optimizer), **settings)

        def train_step(self, data):
            return {name: tf.reshape(value, shape) for name, value in super().train_step(data).items()}

        def test_step(self, data):
            return {name: tf.reshape(value, shape) for name, value in super().test_step(data).items()}

        def save(self, *args, **settings):
            model.save(*args, **settings)  # a file with this class in it could be loaded nowhere

        def load_weights(self, *args, **settings):
            model.load_weights(*args, **settings)

        def to_json(self, **settings):
            return model.to_json(**settings)

    return Distributed(model.inputs, model.outputs, name=model.name)


def synchronize(model: keras.Model, on: bool = True) -> keras.Model:
    """Make BatchNorm see the whole batch of all devices (Keras' `synchronized=True`), and return the model.

    Needed where the share of a device is small, and for curves that are those of one device. It costs a reduction over all devices for each
    BatchNorm and step. With the JAX backend BatchNorm sees the whole batch anyway, and nothing changes.
    """
    if keras.backend.backend() == "tensorflow":
        for layer in _batch_norms(model):
            layer.synchronized = on
    return model


def scaled(recipe, times: int, warmup_epochs: float = 5.0):
    """A recipe for batches that are `times` as large: the learning rate is multiplied too, and climbs to it over the first epochs.

    Source: Goyal et al., "Accurate, Large Minibatch SGD" (2017), linear scaling rule (section 2.1) and gradual warm-up (2.2), where 5 epochs
    carry ResNet-50 with SGD up to batches of 8192. For Adam there is no such rule: try it, or leave the rate alone.

    Raises:
        InputError: `times` is below 1, or the schedule is "constant", which has no warm-up.
    """
    if not isinstance(times, int) or times < 1:
        raise InputError(f"times must be a whole number of at least 1, not {times!r}")
    if recipe.schedule == "constant":
        raise InputError(
            "a larger learning rate needs a warm-up, which the schedule 'constant' has not: recipe.replace(schedule='cosine')"
        )
    warmup = max(recipe.warmup, min(0.5, warmup_epochs / recipe.epochs))
    return recipe.replace(
        batch_size=recipe.batch_size * times, learning_rate=recipe.learning_rate * times, warmup=warmup
    )


def on_ray(function, workers: int, *, gpu: bool = False, **settings):
    """Run `function()` on that many workers of a Ray cluster; in it, `workers()` finds the others.

    Args:
        function: Calls `workers()`, builds a model and fits it. Ray sends it to the workers, so it imports what it needs by itself.
        workers: How many.
        gpu: One GPU each.
        settings: More of `ray.train.tensorflow.TensorflowTrainer`, such as `run_config`.

    Returns:
        Ray's `Result`.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    ray_train = require("ray.train", "ray")
    trainer = require("ray.train.tensorflow", "ray").TensorflowTrainer
    return trainer(function, scaling_config=ray_train.ScalingConfig(num_workers=workers, use_gpu=gpu), **settings).fit()


def launch(command, workers: int, timeout: float | None = None) -> int:
    """Start that many workers of one command on this machine, for trying out, and wait for them.

    What worker 0 prints is shown; of the others, only what they say on stderr. When one fails, the others have ten seconds to say what they lack.

    Args:
        command: As for `subprocess`: `["cnn-zoo", "train", "lenet", ...]`.
        workers: How many.
        timeout: Seconds after which all are ended.

    Returns:
        0, the exit status of the first that failed, or 124 after the timeout.

    Raises:
        InputError: There is no such program.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    processes = []
    try:
        for index in range(workers):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
            quiet = subprocess.DEVNULL if index else None
            try:
                processes.append(subprocess.Popen(command, env=environment, stdout=quiet))
            except OSError as error:
                raise InputError(
                    f"cannot start {command[0]!r} ({error.strerror}): is it installed, and executable?"
                ) from error
        end = time.monotonic() + timeout if timeout else float("inf")
        while time.monotonic() < end:
            codes = [process.poll() for process in processes]
            failed = [code for code in codes if code]
            if failed or None not in codes:
                return abs(failed[0]) if failed else 0
            time.sleep(0.1)
        return 124
    finally:
        end = time.monotonic() + GRACE
        for process in processes:
            try:
                process.wait(max(0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def shares(dataset, first: int, last: int, count: int, fill: int = 0):
    """The shares `first`, ..., `last - 1` of `count` of each batch, one after the other.

    Args:
        dataset: A `tf.data.Dataset` of batches.
        first: First share, from 0.
        last: Share to stop before.
        count: Shares of a batch; they are of one size, but for the last ones of a batch that cannot be divided.
        fill: 0, or a multiple of `count`: batches are filled up to a multiple of it with images of their own, so that all shares are of one size.
    """
    import tensorflow as tf

    def split(*batch):
        size = tf.shape(batch[0])[0]
        each = -(-size // (fill or count)) * ((fill or count) // count)

        def share(number):
            rows = tf.range(number * each, (number + 1) * each)
            rows = rows % size if fill else tf.boolean_mask(rows, rows < size)
            return tuple(tf.gather(values, rows) for values in batch)

        return tf.data.Dataset.from_tensor_slices(tf.range(first, last)).map(share)

    options = tf.data.Options()
    options.deterministic = True
    return dataset.flat_map(split).prefetch(2 * (last - first)).with_options(options)


# -- inside


def _check_functional(model):
    """Raise InputError unless the layers of a model are all that it trains by: its twin under TensorFlow's strategies has nothing else of it."""
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise InputError(
            f"several devices train functional models, not {type(model).__name__}: x = keras.Input(shape); keras.Model(x, model(x))"
        )
    plain = type(keras.Model(model.inputs, model.outputs)), keras.Sequential
    for name in ("call", "train_step", "test_step", "compute_loss", "compute_metrics"):
        if getattr(type(model), name) not in [getattr(kind, name) for kind in plain]:
            raise InputError(
                f"{type(model).__name__} has its own {name}, which several devices of TensorFlow would leave out: train it on one device, "
                "or on several with KERAS_BACKEND=jax"
            )


def _backend():
    if (backend := keras.backend.backend()) not in ("tensorflow", "jax"):
        raise InputError(f"several devices need KERAS_BACKEND=tensorflow or jax, not {backend}")
    return backend


@functools.cache
def _mirrored_strategy(devices):
    """One for all models of a process: each strategy counts its reductions from 1, and TensorFlow confuses those of equal number."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


def _tensorflow_devices():
    import tensorflow as tf

    return [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]


def _cluster():
    """The addresses of all workers and the place of this one among them."""
    if addresses := os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES"):
        addresses, index = addresses.split(","), os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "")
        told = "KERAS_DISTRIBUTION_JOB_ADDRESSES=host:port,host:port with KERAS_DISTRIBUTION_PROCESS_ID=0, 1, ..."
    else:
        told = (
            'TF_CONFIG=\'{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}\''
        )
        try:
            config = json.loads(os.environ.get("TF_CONFIG") or "{}")
            cluster, task = config["cluster"], config["task"]
            addresses = [*cluster.get("chief", ()), *cluster["worker"]]
            index = int(task["index"]) + (len(cluster.get("chief", ())) if task["type"] == "worker" else 0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"who takes part is not said: set {told} on each machine") from error
    good = all(port.isdigit() and host for host, _, port in (address.rpartition(":") for address in addresses))
    if not good or not str(index).isdigit() or int(index) >= len(addresses):
        raise InputError(f"workers {addresses} and place {index!r} do not fit: set {told} on each machine")
    return addresses, int(index)


def _roll_call(addresses, index, timeout):
    """Wait until each worker has reached each other one: the engines themselves wait for an hour, or for ever, and do not say for whom."""
    end = time.monotonic() + timeout
    unreached = set(range(len(addresses))) - {index}
    unheard = set(unreached)
    port = int(addresses[index].rpartition(":")[2])
    try:
        server = socket.create_server(("", port), backlog=len(addresses))
    except OSError as error:
        raise InputError(
            f"worker {index} cannot listen on port {port} ({error.strerror}): choose another one"
        ) from error
    with server:
        server.settimeout(0.1)
        while unreached or unheard:
            if time.monotonic() > end:
                absent = ", ".join(f"{i} ({addresses[i]})" for i in sorted(unreached | unheard))
                raise TrainingStopped(
                    f"worker {index} has waited {timeout:g} seconds for worker {absent}: start it, see that its port is open to this machine and "
                    "that all have the same list of addresses; a longer wait: workers(timeout=...)"
                )
            for other in sorted(unreached):
                host, _, its_port = addresses[other].rpartition(":")
                try:
                    with socket.create_connection((host, int(its_port)), timeout=1) as connection:
                        connection.sendall(index.to_bytes(4, "big"))
                    unreached.discard(other)
                except OSError:
                    pass
            try:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(1)
                    unheard.discard(int.from_bytes(connection.recv(4), "big"))
            except OSError:
                pass


def _free_ports(count):
    """Ports that nobody listens on now; all are held until all are found."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _batch_norms(model):
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            yield layer
        elif hasattr(layer, "layers"):
            yield from _batch_norms(layer)


class _AverageStatistics(keras.callbacks.Callback):
    """Averages BatchNorm's running statistics over the devices before they are used or kept: in Keras 3 each device has its own."""

    def __init__(self, strategy, model):
        super().__init__()
        import tensorflow as tf

        variables = [
            variable
            for layer in _batch_norms(model)
            if layer.trainable and not layer.synchronized
            for variable in layer.non_trainable_variables
        ]

        def average():
            means = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.MEAN, [tf.convert_to_tensor(variable.value) for variable in variables]
            )
            for variable, mean in zip(variables, means):
                variable.assign(mean)

        @tf.function(autograph=False)
        def run():
            strategy.run(average)

        self.average = run if variables and strategy.num_replicas_in_sync > 1 else (lambda: None)

    def on_test_begin(self, logs=None):
        self.average()

    def on_epoch_end(self, epoch, logs=None):
        self.average()


def _jax_engine():
    """A `DataParallel` that can also give a batch to each device as a whole."""

    class Parallel(keras.distribution.DataParallel):
        whole = False

        def __init__(self, **settings):
            super().__init__(auto_shard_dataset=False, **settings)

        def get_data_layout(self, data_shape):
            if self.whole:
                return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
            return super().get_data_layout(data_shape)

    return Parallel


class _ValidateWhole(keras.callbacks.Callback):
    """With JAX each device validates on all images: a batch that has no equal shares could not be divided, and its images must count once."""

    def __init__(self, engine):
        super().__init__()
        self.engine = engine

    def on_test_begin(self, logs=None):
        self.engine.whole = True

    def on_test_end(self, logs=None):
        self.engine.whole = False
