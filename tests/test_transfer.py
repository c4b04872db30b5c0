"""Fine-tuning: phases, resume from any of them, and what it is worth on real photographs."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import REPOSITORY
from keras import layers as L
from PIL import Image

import cnn_zoo
from cnn_zoo import Data, InputError, Recipe, Run, TrainingStopped, load_model
from cnn_zoo.commands.values import FLAGS
from cnn_zoo.freezing import stages
from cnn_zoo.train.transfer import fine_tune

QUICK = Recipe(
    "quick", epochs=4, batch_size=16, learning_rate=0.01, optimizer="adamw", schedule="cosine", validation=0.25
)


@pytest.fixture
def data(rng):
    """Two classes told apart by which half of the image is bright."""
    labels = np.arange(64) % 2
    images = rng.integers(0, 60, (64, 16, 16, 1)).astype("uint8")
    for image, label in zip(images, labels):
        image[8 * label : 8 * label + 8] += 150
    return Data.from_arrays(images, labels, classes=("top", "bottom"))


def small_model():
    inputs = x = keras.Input((16, 16, 1))
    x = L.Rescaling(1 / 255)(x)
    for name in ("a", "b", "c"):
        x = L.BatchNormalization(name=f"{name}_bn")(L.Conv2D(4, 3, 2, padding="same", activation="relu", name=name)(x))
    x = L.Dropout(0.2, name="drop")(L.Flatten()(x))
    return keras.Model(inputs, L.Dense(2, activation="softmax", name="logits")(x), name="small")


def weights_of(model):
    return {v.path: np.array(v) for v in model.weights}


class Snap(keras.callbacks.Callback):
    """What is trained in each fit, and the weights at its start."""

    def __init__(self):
        super().__init__()
        self.fits = []

    def on_train_begin(self, logs=None):
        self.fits.append(({v.path for v in self.model.trainable_variables}, weights_of(self.model)))


def test_the_head_first_then_stage_by_stage_and_the_best_is_left(data, tmp_path):
    keras.utils.set_random_seed(1)
    model, snap = small_model(), Snap()
    run = fine_tune(
        model, data, QUICK.replace(epochs=5), stages=["stage2", "stage1"], head_epochs=2, run=tmp_path / "run", verbose=0,
        callbacks=[snap], about={"note": "a test"},
    )  # fmt: skip
    of = {name: {v.path for layer in layers for v in layer.weights} for name, layers in stages(model).items()}
    learned = [{path.split("/")[0] for path in paths} for paths, _ in snap.fits]
    assert learned == [{"logits"}, {"logits", "c", "c_bn"}, {"logits", "c", "c_bn", "b", "b_bn"}]
    assert list(of) == ["stem", "stage1", "stage2", "head"] and len(of["stem"]) == 6
    start = snap.fits[0][1]
    for path, value in weights_of(model).items():
        assert np.array_equal(value, start[path]) == (path in of["stem"])

    assert [p["name"] for p in run.about["phases"]] == ["1-head", "2-stage2", "3-stage1"]
    assert [p["epochs"] for p in run.about["phases"]] == [2, 2, 1]
    assert [row["epoch"] for row in run.rows] == [1, 2, 3, 4, 5] and run.status == "finished"
    assert run.about["note"] == "a test" and run.about["classes"] == ["top", "bottom"]
    assert run.about["best"] == max(run.history["val_accuracy"]) == run.history["val_accuracy"][run.best_epoch - 1]
    held = data.split(QUICK.validation, QUICK.seed).validation
    best, classes = load_model(tmp_path / "run")
    for found in (best, model):
        assert cnn_zoo.evaluate(found, held).accuracy == pytest.approx(run.about["best"], abs=1e-6)
    assert classes == ("top", "bottom") and Run.load(tmp_path / "run" / "2-stage2").status == "finished"
    rates = Run.load(tmp_path / "run" / "2-stage2").about["recipe"]["rates"]
    assert (
        rates == {"stem": 0.1, "stages": 0.3, "head": 1}
        and Run.load(tmp_path / "run" / "1-head").about["recipe"]["rates"] is None
    )


class Killed(BaseException):
    pass


class Kill(keras.callbacks.Callback):
    """Ends the process, as far as a test can, at the start of an epoch, counted over all phases."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def on_epoch_begin(self, epoch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("at", [3, 4])
def test_a_run_stopped_in_any_phase_ends_with_the_same_bits(data, tmp_path, at):
    keras.utils.set_random_seed(1)
    whole = small_model()
    expected = fine_tune(whole, data, QUICK, head_epochs=2, run=tmp_path / "whole", verbose=0)
    keras.utils.set_random_seed(1)
    with pytest.raises(Killed):
        fine_tune(small_model(), data, QUICK, head_epochs=2, run=tmp_path / "run", verbose=0, callbacks=[Kill(at)])
    assert not (tmp_path / "run" / "run.json").exists()
    keras.utils.set_random_seed(2)
    other = small_model()
    found = fine_tune(other, data, QUICK, head_epochs=2, run=tmp_path / "run", verbose=0, resume=True)
    assert {k: v for k, v in found.history.items() if k != "seconds"} == {
        k: v for k, v in expected.history.items() if k != "seconds"
    }
    for path, value in weights_of(whole).items():
        np.testing.assert_array_equal(value, weights_of(other)[path])


def test_ctrl_c_says_how_the_whole_goes_on(data, tmp_path):
    class CtrlC(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(TrainingStopped) as stopped:
        fine_tune(small_model(), data, QUICK, run=run, verbose=0, callbacks=[CtrlC()], about={"finetune": {}})
    assert f"run='{run}', resume=True or `cnn-zoo finetune --resume {run}`" in str(stopped.value)


@pytest.mark.slow
def test_a_segmenter_is_fine_tuned_too(tmp_path, rng):
    images = rng.integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    data = Data.from_arrays(images, (images[..., 0] > 127).astype("uint8"), classes=("dark", "bright"))
    model = cnn_zoo.build_segmenter("unet", "mobilenet_025", 2, weights=None, filters=(8, 8, 8, 8, 8))
    run = fine_tune(model, data, QUICK.replace(epochs=2, batch_size=3), run=tmp_path / "run", verbose=0)
    assert len(run.rows) == 2 and "val_mean_iou" in run.rows[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": ["stage9"]}, "no stage 'stage9'; did you mean 'stage[12]'.*it has: stem, stage1, stage2"),
        ({"stages": ["stage1", "stage2"]}, "freed from the head towards the image.*not in the order"),
        ({"stages": "head"}, "no stage 'head'"),
        ({"head_epochs": 4}, "4 epochs are too few for 4 of the head"),
        ({"head_epochs": 0}, "too few"),
        ({"rates": {"stage4": 1}}, "the model has no stage 'stage4'"),
        ({"rates": {"trunk": 1}}, "rates know no stage 'trunk'"),
        ({"resume": True}, "is not a run folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(data, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        fine_tune(small_model(), data, QUICK, run=tmp_path / "run", verbose=0, **settings)
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_trunk_and_a_folder_in_use(data, tmp_path):
    inputs = keras.Input((16, 16, 1))
    with pytest.raises(InputError, match="'flat' has only head: build_classifier"):
        fine_tune(keras.Model(inputs, L.Dense(2)(L.Flatten()(inputs)), name="flat"), data, QUICK, run=tmp_path / "run")
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty: choose another one"):
        fine_tune(small_model(), data, QUICK, run=tmp_path)


@pytest.fixture
def folder(tmp_path, rng):
    """Class folders of small colour images: dark and bright."""
    for part, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(("dark", "bright")):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (40, 40, 3)).astype("uint8") + np.uint8(150 * label)
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"photo{chr(97 + i)}.png")
    return tmp_path / "images"


def command(*arguments):
    import typer

    from cnn_zoo.commands.finetune import finetune

    app = typer.Typer()
    app.command()(finetune)
    return app(list(map(str, arguments)), standalone_mode=False)


def test_the_command_leaves_a_folder_with_everything(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cnn-zoo", "finetune", str(folder)])
    common = ["--backbone", "cnn_small", "--weights", "none", "--size", 32, "--epochs", 2, "--batch-size", 8]
    command(folder, *common, "--run", tmp_path / "run", "--no-savedmodel")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {
        "best.keras",
        "run.json",
        "history.csv",
        "report.json",
        "curves.png",
        "confusion.png",
        "1-head",
        "2-all",
    } <= names
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert 0 <= report["accuracy"] <= 1 and "accuracy" in capsys.readouterr().out
    assert not (tmp_path / "run" / "savedmodel").exists()

    # The run knows its data: those who test it and write a page of it need no more than the folder.
    from cnn_zoo.commands.evaluate import evaluate
    from cnn_zoo.commands.run_report import report as write_report

    evaluate(source=tmp_path / "run", **dict.fromkeys(FLAGS), as_json=True)
    out, err = capsys.readouterr()
    again = json.loads(out)
    assert "tested on the 8 validation images" in err and report.pop("part") == "validation" and again == report
    write_report(source=tmp_path / "run", data_option=None)
    assert f"accuracy                             {report['accuracy']:.4f}" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_the_command_goes_on_and_exports(folder, tmp_path, capsys):
    command(
        folder,
        "--backbone",
        "cnn_small",
        "--weights",
        "none",
        "--size",
        32,
        "--epochs",
        2,
        "--run",
        tmp_path / "run",
        "--no-savedmodel",
    )
    command("--resume", tmp_path / "run")
    assert "reloaded without Keras" in capsys.readouterr().out and (tmp_path / "run" / "savedmodel").is_dir()


def test_the_command_says_what_is_wrong(folder, tmp_path):
    with pytest.raises(InputError, match="no net 'resnet5o'; did you mean 'resnet5"):
        command(folder, "--backbone", "resnet5o", "--run", tmp_path / "run")
    with pytest.raises(InputError, match="give a folder of class folders"):
        command()
    with pytest.raises(InputError, match="was not written by `cnn-zoo finetune`"):
        (tmp_path / "other").mkdir()
        command("--resume", tmp_path / "other")
    with pytest.raises(InputError, match="no stage 'stage9'"):
        command(
            folder,
            "--backbone",
            "mobilenet_025",
            "--weights",
            "none",
            "--size",
            32,
            "--stages",
            "stage9",
            "--run",
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ants_and_bees(shared, tmp_path):
    """From SqueezeNet's real weights: at least 0.90 of the tutorial's validation images, and 15 points more than from scratch."""
    import zipfile

    with zipfile.ZipFile(shared("data/hymenoptera.zip")) as file:
        file.extractall(tmp_path)
    weights = shared("data/imagenet/squeezenet1_1_fp16.onnx")
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / "hymenoptera.py", "--data", tmp_path / "hymenoptera", "--weights", weights,
         "--out", tmp_path / "out", "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["fine-tuned"]["accuracy"] >= 0.90
    assert found["fine-tuned"]["accuracy"] - found["from scratch"]["accuracy"] >= 0.15
    assert found["fine-tuned"]["cpu_seconds"] < 1200 and found["gray, fine-tuned"]["accuracy"] > 0.8


ON_TWO = """
import json, sys
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import cnn_zoo
from cnn_zoo.train import distribute

images = np.random.default_rng(0).integers(0, 156, (48, 32, 32, 3)).astype("uint8")
labels = np.arange(48) % 2
images[labels == 1] += 60
data = cnn_zoo.Data.from_arrays(images, labels).split(0.25, seed=0)
recipe = cnn_zoo.recipe("transfer", epochs=4, batch_size=12, augment=None, learning_rate=0.03)
for devices in (distribute.Devices(), distribute.mirrored(["CPU:0", "CPU:1"])):
    keras.utils.set_random_seed(1)
    with devices.scope():
        model = cnn_zoo.build_classifier("resnet18", 2, weights=None, input_size=32, dropout=0)
    distribute.synchronize(model)
    run = cnn_zoo.fine_tune(model, data, recipe, run=f"{sys.argv[1]}/{devices.count}", devices=devices, verbose=0)
    loaded = cnn_zoo.load_model(run.folder / "best.keras")[0]
    apart = max(float(np.abs(a - b).max()) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))
    print(json.dumps([devices.count, run.history, apart]), flush=True)
"""


@pytest.mark.slow
def test_two_devices_give_the_curve_of_one(tmp_path):
    done = subprocess.run([sys.executable, "-c", ON_TWO, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (one, alone, _), (two, both, apart) = map(json.loads, done.stdout.splitlines())
    assert (one, two, apart) == (1, 2, 0)
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(both[name], alone[name], atol=1e-3, err_msg=name)


def test_several_machines_are_refused(data, tmp_path):
    devices = cnn_zoo.train.distribute.Devices(object(), 2, 0, 2)
    with pytest.raises(InputError, match="fine_tune trains on one machine"):
        fine_tune(small_model(), data, run=tmp_path / "run", devices=devices)
    assert not (tmp_path / "run").exists()
