"""A run that is killed at any moment goes on, and ends with the same bits as one that never stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from keras import layers as L

import cnn_zoo
from cnn_zoo import InputError, Run

# A model with a random generator of its own (dropout), Adam's moments, a schedule, and augmentation: all of it has to come back.
SCRIPT = """
import sys, os, time
import keras, numpy as np
from keras import layers as L
import cnn_zoo
from cnn_zoo.train import fit as _fit

folder, resume, hook = sys.argv[1], sys.argv[2] == "resume", sys.argv[3]
rng = np.random.default_rng(0)
data = cnn_zoo.Data.from_arrays(rng.integers(0, 256, (300, 12, 12)).astype("uint8"), np.arange(300) % 3)
keras.utils.set_random_seed(7 if not resume else 8)  # a resumed run must not depend on how the model was made
inputs = keras.Input((12, 12, 1))
x = L.Dropout(0.3)(L.Flatten()(L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(L.Rescaling(1 / 255)(inputs)))))
model = keras.Model(inputs, L.Dense(3, activation="softmax")(x), name="small")
recipe = cnn_zoo.Recipe("r", epochs=5, batch_size=20, optimizer="adamw", schedule="cosine", warmup=0.1, augment="digits", learning_rate=0.01)

module = sys.modules["cnn_zoo.train.fit"]
if hook == "between":  # die after best.keras of epoch 3 is there and before its state is
    original = module.save_state
    def dying(path, model, progress):
        if progress["epoch"] == 3:
            os.kill(os.getpid(), 9)
        original(path, model, progress)
    module.save_state = dying
if hook == "inside":  # die in the middle of writing the state of epoch 2
    from cnn_zoo.train import run as run_module
    original = np.savez
    count = [0]
    def dying(path, **arrays):
        count[0] += 1
        if count[0] == 3:
            original(path, **dict(list(arrays.items())[:3]))
            os.kill(os.getpid(), 9)
        original(path, **arrays)
    run_module.np.savez = dying

class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.15 if hook == "slow" else 0)
    def on_epoch_begin(self, epoch, logs=None):
        print("epoch", epoch, flush=True)

try:
    cnn_zoo.fit(model, data, recipe, run=folder, resume=resume, verbose=0, callbacks=[Slow()])
except cnn_zoo.TrainingStopped as error:
    print(error, flush=True)
    sys.exit(1)
"""


def start(folder, mode="new", hook="none"):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), mode, hook],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    code, _, err = finish(start(folder))
    assert code == 0, err
    return folder


def assert_same(folder, whole):
    """All variables, the optimizer's and the generators' included, and the history are the same to the bit."""
    with np.load(folder / "state.npz") as a, np.load(whole / "state.npz") as b:
        assert sorted(a.files) == sorted(b.files) and len(a.files) > 20
        for key in a.files:
            if key != "progress":
                np.testing.assert_array_equal(a[key], b[key])
    drop = {"seconds"}
    ours, theirs = (
        [{k: v for k, v in row.items() if k not in drop} for row in Run.load(f).rows] for f in (folder, whole)
    )
    assert ours == theirs and len(ours) == 5
    assert Run.load(folder).status == "finished" and Run.load(folder).best_epoch == Run.load(whole).best_epoch


def test_resume_after_kill_in_the_middle_of_epochs(uninterrupted, tmp_path):
    """Killed twice, each time a little into an epoch, and finished in the third process."""
    folder = tmp_path / "run"
    for mode, epoch in (("new", 1), ("resume", 3)):
        process = start(folder, mode, "slow")
        for line in process.stdout:
            if line.strip() == f"epoch {epoch}":
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        finish(process)
        assert process.returncode == -signal.SIGKILL
        assert Run.load(folder).status == "running"
    code, _, err = finish(start(folder, "resume"))
    assert code == 0, err
    assert_same(folder, uninterrupted)
    assert [entry["after_epoch"] for entry in Run.load(folder).about["resumed"]] == [1, 3]


@pytest.mark.parametrize("hook", ["between", "inside"])
def test_resume_after_kill_while_writing(uninterrupted, tmp_path, hook):
    folder = tmp_path / "run"
    code, _, err = finish(start(folder, "new", hook))
    assert code == -signal.SIGKILL, err
    code, _, err = finish(start(folder, "resume"))
    assert code == 0, err
    assert_same(folder, uninterrupted)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "new", "slow")
    for line in process.stdout:
        if line.strip() == "epoch 2":
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 1, err
    assert f"interrupted after 2 of 5 epochs; go on by the same call with run='{folder}', resume=True" in out
    assert Run.load(folder).status == "interrupted"
    code, _, err = finish(start(folder, "resume"))
    assert code == 0, err
    assert_same(folder, uninterrupted)


def test_resume_of_something_else_says_what_differs(uninterrupted, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    about = json.loads((folder / "run.json").read_text())
    kept = cnn_zoo.Recipe.from_dict(about["recipe"])
    data = cnn_zoo.Data.from_arrays(np.zeros((300, 12, 12), "uint8"), np.arange(300) % 3)
    inputs = keras.Input((12, 12, 1))
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(L.Flatten()(inputs)))
    with pytest.raises(InputError) as error:
        cnn_zoo.fit(model, data, kept.replace(learning_rate=0.5), run=folder, resume=True)
    for words in ("learning_rate was 0.01 and is 0.5", "other layers, settings or shapes", "the data are not the same"):
        assert words in str(error.value)
    with pytest.raises(InputError, match="is not a run folder"):
        cnn_zoo.fit(model, data, kept, run=tmp_path / "nowhere", resume=True)


def test_a_finished_run_is_not_trained_again_and_a_damaged_state_names_the_way_out(uninterrupted, tmp_path):
    import shutil

    before = (uninterrupted / "state.npz").read_bytes()
    code, _, err = finish(start(uninterrupted, "resume"))
    assert code == 0, err
    assert (uninterrupted / "state.npz").read_bytes() == before
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    (folder / "state.npz").write_bytes(before[:5000])
    code, _, err = finish(start(folder, "resume"))
    assert code == 1 and "state.npz' is damaged" in err and "last.keras" in err


# -- in this process: a run that is left without its last word, as a kill leaves it


RECIPE = cnn_zoo.Recipe("r", epochs=3, batch_size=16, learning_rate=0.01)


@pytest.fixture
def data(rng):
    return cnn_zoo.Data.from_arrays(rng.integers(0, 256, (120, 8, 8)).astype("uint8"), np.arange(120) % 3)


def small_model(hidden="relu"):
    inputs = keras.Input((8, 8, 1))
    x = L.Dropout(0.2)(L.Dense(8, activation=hidden)(L.Flatten()(L.Rescaling(1 / 255)(inputs))))
    return keras.Model(inputs, L.Dense(3, activation="softmax")(x), name="small")


def quiet_fit(data, recipe, folder, model=None, **settings):
    return cnn_zoo.fit(model or small_model(), data, recipe, run=folder, verbose=0, **settings)


@pytest.mark.parametrize("patience", [0, 2])
def test_a_kill_after_the_last_state_adds_no_epoch(data, tmp_path, monkeypatch, patience):
    """The state of the last epoch is there, history.csv and run.json still tell of the one before."""
    recipe = RECIPE.replace(epochs=30 if patience else 3, early_stopping=patience, restore_best=True)
    keras.utils.set_random_seed(1)
    model = small_model()
    whole = quiet_fit(data, recipe, tmp_path / "whole", model)
    keeper = sys.modules["cnn_zoo.train.fit"]._Keeper
    real = keeper.write_texts

    def dying(self):
        if self.epoch == len(whole.rows):
            raise SystemExit
        real(self)

    keras.utils.set_random_seed(1)
    with monkeypatch.context() as patch:
        patch.setattr(keeper, "write_texts", dying)
        with pytest.raises(SystemExit):
            quiet_fit(data, recipe, tmp_path / "run")
    assert Run.load(tmp_path / "run").status == "running" and len(Run.load(tmp_path / "run").rows) < len(whole.rows)
    other = small_model()
    resumed = quiet_fit(data, recipe, tmp_path / "run", other, resume=True)
    assert resumed.status == whole.status == ("stopped early" if patience else "finished")
    assert resumed.history["val_loss"] == whole.history["val_loss"]
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 1 + len(whole.rows)
    for a, b in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(a, b)  # the best weights, as restore_best promises


def test_epochs_may_be_raised_where_the_rate_is_constant(data, tmp_path, capsys):
    keras.utils.set_random_seed(1)
    quiet_fit(data, RECIPE, tmp_path / "run")
    cnn_zoo.fit(small_model(), data, RECIPE, run=tmp_path / "run", resume=True)
    assert "has ended after 3 epochs: there is nothing left to train" in capsys.readouterr().out
    more = quiet_fit(data, RECIPE.replace(epochs=5), tmp_path / "run", resume=True)
    keras.utils.set_random_seed(1)
    whole = quiet_fit(data, RECIPE.replace(epochs=5), tmp_path / "whole")
    assert more.status == "finished" and more.history["val_loss"] == whole.history["val_loss"]
    with pytest.raises(InputError, match="epochs was 5 and is 4"):
        quiet_fit(data, RECIPE.replace(epochs=4), tmp_path / "run", resume=True)
    falling = RECIPE.replace(schedule="cosine")
    quiet_fit(data, falling, tmp_path / "falling")
    with pytest.raises(InputError, match="epochs was 3 and is 5"):
        quiet_fit(data, falling.replace(epochs=5), tmp_path / "falling", resume=True)


def test_a_model_with_another_activation_is_another_model(data, tmp_path):
    quiet_fit(data, RECIPE, tmp_path / "run")
    with pytest.raises(InputError, match="other layers, settings or shapes"):
        quiet_fit(data, RECIPE, tmp_path / "run", small_model("tanh"), resume=True)


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_float16"])
def test_resume_is_exact_in_low_precision(data, tmp_path, policy):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(1)
    whole = quiet_fit(data, RECIPE, tmp_path / "whole")
    keras.utils.set_random_seed(1)
    with pytest.raises(cnn_zoo.TrainingStopped):
        quiet_fit(data, RECIPE, tmp_path / "run", callbacks=[Stop()])
    assert quiet_fit(data, RECIPE, tmp_path / "run", resume=True).history["val_loss"] == whole.history["val_loss"]
    with np.load(tmp_path / "run" / "state.npz") as a, np.load(tmp_path / "whole" / "state.npz") as b:
        for key in a.files:
            if key != "progress":
                np.testing.assert_array_equal(a[key], b[key])
