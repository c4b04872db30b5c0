"""The command line as a person meets it: results, help, exit codes, and one plain sentence for what goes wrong."""

import importlib
import json
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from cnn_zoo.cli import main

CLI = str(Path(sys.executable).with_name("cnn-zoo"))


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def program(*arguments, cwd=None):
    """The installed program, in a process of its own."""
    done = subprocess.run([CLI, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cli(monkeypatch, capfd):
    """The same command line within this process, which saves the seconds that TensorFlow takes to load."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["cnn-zoo", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop, warnings.catch_warnings():
            warnings.simplefilter("default")
            main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err + out, err
        return Done(stop.value.code or 0, out, err)

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The quick start with fewer epochs."""
    folder = tmp_path_factory.mktemp("cli")
    done = program(
        "train", "lenet", "--recipe", "lecture", "--epochs", 4, "--batch-size", 32, "--run", "run", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy 0.9" in done.stdout and "everything is in run" in done.stdout and "SavedModel" in done.stdout
    return folder / "run"


def test_the_quick_start_leaves_everything_in_one_folder(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "run.json", "history.csv", "best.keras", "last.keras", "state.npz", "report.json", "savedmodel",
        "curves.png", "confusion.png", "predictions.png",
    }  # fmt: skip
    for picture in run.glob("*.png"):
        with Image.open(picture) as image:
            assert (
                min(image.size) > 400 and len(image.convert("L").getcolors(256) or range(999)) > 20
            )  # it is not blank
    report = json.loads((run / "report.json").read_text())
    assert report["accuracy"] > 0.9 and np.sum(report["confusion"]) == report["images"] == 360
    assert json.loads((run / "run.json").read_text())["command"].startswith("cnn-zoo train lenet --recipe lecture")


def test_evaluate_and_predict_agree_with_the_run(cli, run, tmp_path):
    report = json.loads((run / "report.json").read_text())
    done = cli("evaluate", run / "last.keras", "--data", "digits", "--json", "--out", tmp_path / "out")
    assert json.loads(done.stdout)["accuracy"] == report["accuracy"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.json", "confusion.png", "predictions.png"}

    import cnn_zoo

    data, folder = cnn_zoo.load("digits", size=28), tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(data.test.images[i, ..., 0]).save(folder / f"{i}.png")
    done = cli("predict", run, folder, "--top", 2, "--json", "--csv", tmp_path / "p.csv")
    rows = json.loads(done.stdout)
    model, classes = cnn_zoo.load_model(run)
    expected = cnn_zoo.predict(model, data.test.images[:3], classes=classes)
    assert [row["predictions"][0]["class"] for row in rows] == expected.names
    assert [row["predictions"][0]["probability"] for row in rows] == pytest.approx(
        expected.probabilities.max(-1), abs=1e-5
    )
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4
    (folder / "bad.png").write_text("no image")
    assert cli("predict", run, folder).returncode == 2
    done = cli("predict", run, folder, "--skip-errors")
    assert done.returncode == 0 and "left out 1 image" in done.stderr and "0.png" in done.stdout


def test_a_run_from_before_there_were_options_for_data(cli, run, tmp_path):
    import shutil

    old = shutil.copytree(run, tmp_path / "old")
    about = json.loads((old / "run.json").read_text())
    del about["train"]["data_options"]
    about["train"]["resize"] = "bilinear"
    (old / "run.json").write_text(json.dumps(about))
    report = json.loads((run / "report.json").read_text())
    assert json.loads(cli("evaluate", old, "--json").stdout) == report
    assert "has ended after 4 epochs" in cli("train", "--resume", old).stdout


@pytest.fixture
def pets(tmp_path, rng):
    """Cats are bright above and dogs below; 20 each, 30x20 pixels of 16 bit, in two sizes."""
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(20):
            image = rng.integers(33_000, 34_000, (30 + i % 2, 20)).astype("uint16")
            image[slice(15) if label == "cat" else slice(15, None)] += 2_500
            Image.fromarray(image).save(tmp_path / "pets" / label / f"{label}{i}.png")
    return tmp_path / "pets"


def weights(path):
    import keras

    return np.concatenate([w.ravel() for w in keras.saving.load_model(path, compile=False).get_weights()])


def test_a_folder_trains_is_resumed_and_tested_again(cli, pets, tmp_path, monkeypatch):
    keeper = importlib.import_module("cnn_zoo.train.fit")._Keeper
    options = ("--data", pets, "--size", "28x32", "--intensity", "percentiles")
    options += ("--split", tmp_path / "split.json", "--test", 0.25)
    settings = ("--epochs", 3, "--batch-size", 8, "--learning-rate", 0.01, "--augment", "satellite", "--no-savedmodel")
    monkeypatch.chdir(tmp_path)
    done = cli("train", "lenet", *options, *settings, "--run", "whole")
    assert done.returncode == 0 and "everything is in whole" in done.stdout, done.stderr
    assert "28 x 32 x 1" in done.stderr and "percentiles 0.1 to 99.9 of 30 training images" in done.stderr
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert report["images"] == 10 and set(report["per_class"]) == {"cat", "dog"}
    about = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert about["train"]["data_options"]["size"] == [28, 32] and about["recipe"]["augment"] == "satellite"

    begin = keeper.on_epoch_begin

    def stop(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(keeper, "on_epoch_begin", stop)
        done = cli("train", "lenet", *options, *settings, "--run", "half")
        assert done.returncode == 1 and "or `cnn-zoo train --resume half`" in done.stderr
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = cli("train", "--resume", tmp_path / "half")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(weights(tmp_path / "half" / "last.keras"), weights(tmp_path / "whole" / "last.keras"))

    for arguments in ((), ("--data", pets)):
        assert json.loads(cli("evaluate", tmp_path / "whole" / "last.keras", *arguments, "--json").stdout) == report
    others = tmp_path / "others"
    pets.rename(others)
    done = cli("evaluate", tmp_path / "whole" / "last.keras", "--data", others, "--json")
    assert json.loads(done.stdout)["images"] == 40 and "tested on all 40 images" in done.stderr
    done = cli("predict", tmp_path / "whole", others / "cat" / "cat0.png")
    assert "images as those of the training: percentiles 0.1 to 99.9 of 30 training images" in done.stderr
    import cnn_zoo

    model, _ = cnn_zoo.load_model(tmp_path / "whole")
    rules = cnn_zoo.Run.load(tmp_path / "whole").image_rules
    again = cnn_zoo.open_data(str(others), size=(28, 32), test=0.0, **rules)
    expected = cnn_zoo.evaluate(model, again.train).probabilities.max(-1)
    rows = json.loads(cli("predict", tmp_path / "whole", others, "--json").stdout)
    assert [row["predictions"][0]["probability"] for row in rows] == pytest.approx(expected, abs=1e-5)
    done = cli("evaluate", tmp_path / "whole")
    assert done.returncode == 2 and "there is no file or folder" in done.stderr


def test_a_folder_of_masks_trains_a_segmenter(cli, tmp_path, rng, monkeypatch):
    for part in ("images", "masks"):
        (tmp_path / "cells" / part).mkdir(parents=True)
    for i in range(10):
        image = rng.integers(0, 256, (16, 24)).astype("uint8")
        Image.fromarray(image).save(tmp_path / "cells" / "images" / f"{i}.png")
        Image.fromarray(np.where(image > 127, 255, 0).astype("uint8")).save(tmp_path / "cells" / "masks" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    done = cli(
        "train", "unet", "--data", "cells", "--palette", "binary", "--option", "width=2", "--option", "depth=2", "--recipe", "lecture",
        "--epochs", 2, "--batch-size", 2, "--run", "run", "--no-savedmodel",
    )  # fmt: skip
    assert done.returncode == 0 and "object" in done.stdout, done.stderr
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"predictions.png", "iou.png", "report.json"}
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert json.loads(cli("evaluate", "run", "--json").stdout)["confusion"] == report["confusion"]


def test_data_of_any_kind_are_reported_on(cli, pets, tmp_path):
    np.savez(tmp_path / "a.npz", images=np.arange(8 * 36).reshape(8, 6, 6).astype("uint8"), sick=np.arange(8) % 2)
    done = cli("data", "report", tmp_path / "a.npz", "--data-option", "label_key=sick", "--json")
    assert json.loads(done.stdout)["images"] == 8, done.stderr
    assert json.loads(cli("data", "report", pets, "--json").stdout)["images"] == 40
    assert "no kind 'x'" in cli("data", "report", tmp_path / "a.npz", "--kind", "x").stderr


def test_export_again_needs_overwrite(cli, run, tmp_path):
    done = cli("export", run, tmp_path / "model", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["max_difference"] < 1e-5
    done = cli("export", run, tmp_path / "model")
    assert done.returncode == 2 and "--overwrite" in done.stderr


def test_the_shipped_weights_score_what_their_card_says(shared):
    card = json.loads((Path(__file__).parents[1] / "weights" / "lenet_mnist.json").read_text())
    import cnn_zoo

    data = cnn_zoo.load("mnist", data_dir=shared("data/mnist.npz").parent)
    found = cnn_zoo.evaluate(cnn_zoo.build_lenet(weights="mnist"), data.test)
    assert found.accuracy == pytest.approx(card["value"], abs=2e-4) and found.accuracy >= 0.992
    assert (Path(__file__).parents[1] / "weights" / card["file"]).stat().st_size == card["bytes"] < 1_000_000


def test_list_info_and_weights(cli):
    rows = {row["name"]: row for row in json.loads(cli("list", "lenet*", "--json").stdout)}
    assert rows["lenet"]["params"] == 61_706 and rows["lenet"]["weights"] == ["mnist"]
    assert "61,706" in cli("list").stdout
    assert (
        "c5" in cli("info", "lenet").stdout and json.loads(cli("info", "lenet5", "--json").stdout)["params"] == 60_000
    )
    listed = json.loads(cli("weights", "list", "lenet", "--json").stdout)
    assert listed[0]["weights"] == "lenet:mnist" and listed[0]["value"] > 0.99
    assert "lenet:mnist  whole" in cli("weights", "verify").stdout
    assert "lenet_mnist.safetensors" in cli("weights", "fetch", "lenet:mnist").stdout


def test_verify_finds_damage_and_counts_what_is_not_here(cli, tmp_path):
    import cnn_zoo

    record = cnn_zoo.WEIGHTS["squeezenet1_1", "imagenet"]
    path = tmp_path / "cache" / record.net / record.file  # CNN_ZOO_CACHE, by tests/conftest.py
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not what it should be")
    done = cli("weights", "verify", "squeezenet1_1:*")
    assert done.returncode == 1 and "squeezenet1_1:imagenet  DAMAGED: its sha" in done.stdout
    assert "are not in the cache" in cli("weights", "verify").stderr


def test_the_table_in_every_form(cli, tmp_path):
    text = cli(
        "table", "lenet", "mlp*", "--no-time", "--output", str(tmp_path / "t.csv"), "--plot", str(tmp_path / "t.png")
    )
    assert "61,706" in text.stdout and "receptive field" in text.stdout and "time" not in text.stdout
    assert (tmp_path / "t.csv").read_text().startswith("name,family,depth")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    timed = cli("table", "lenet", "--format", "markdown").stdout.splitlines()
    assert timed[0].startswith("| name | depth |") and "| time |" in timed[0] and timed[2].startswith("| lenet | 5 |")
    for wrong, says in (
        (("table", "lenett"), "did you mean 'lenet'"),
        (("table", "--format", "html"), "--format is one of text, markdown, csv"),
        (("table", "--plot", "t.pdf"), "must end in .png"),
    ):
        assert says in cli(*wrong).stderr


def test_published_weights_serve_without_a_run(cli, tmp_path):
    import keras

    digit = keras.utils.array_to_img(np.zeros((28, 28, 1)), scale=False)
    digit.save(tmp_path / "digit.png")
    answer = json.loads(cli("predict", "lenet:mnist", str(tmp_path / "digit.png"), "--json").stdout)
    assert answer[0]["predictions"][0]["class"] in set("0123456789")
    done = cli("export", "lenet:mnist", str(tmp_path / "served"))
    assert done.returncode == 0 and (tmp_path / "served" / "saved_model.pb").is_file()
    assert "did you mean 'mnist'" in cli("predict", "lenet:mnst", str(tmp_path / "digit.png")).stderr


def test_other_projects_weights_become_ours(cli, shared, tmp_path):
    import cnn_zoo

    source, target = shared("data/imagenet/squeezenet1_1_fp16.onnx"), tmp_path / "ours.safetensors"
    done = cli("weights", "import", "squeezenet1_1", str(source), str(target))
    assert "onnx -> squeezenet1_1, 52 arrays, 1000 classes" in done.stdout
    model = cnn_zoo.build("squeezenet1_1", weights=target, input_size=224)
    model.save(tmp_path / "model.keras")
    photo = shared("data/imagenet/bull_mastiff_243.jpg")
    answer = json.loads(cli("predict", str(tmp_path / "model.keras"), str(photo), "--crop", "0.875", "--json").stdout)
    assert answer[0]["predictions"][0]["class"] == "243" and answer[0]["predictions"][0]["probability"] > 0.95
    for wrong, says in (
        (("resnet18", source, target), "no BatchNormalization"),
        (("squeezenet1_1", photo, target), "is no weights file by its name"),
        (("squeezenet1_1", tmp_path / "no.onnx", target), "there is no file"),
        (("squeezenet1_1", source, tmp_path / "x.h5"), "must end in .safetensors"),
    ):
        assert says in cli("weights", "import", *map(str, wrong)).stderr


@pytest.fixture
def segmenter(tmp_path):
    """A saved model that says "bright" where an image is above mid gray, and 16-pixel images of which some part is."""
    import keras

    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, activation="softmax")(inputs))
    model.set_weights([np.array([[-1.0, 1.0]] * 3)[None, None], np.array([384.0, -384.0])])
    model.save(tmp_path / "bright.keras")
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name, part in {"a.png": 4, "sub/b.png": 12}.items():
        Image.fromarray(
            np.where(np.arange(16)[:, None, None] < part, 250, 5).repeat(20, 1).repeat(3, 2).astype("uint8")
        ).save(tmp_path / "images" / name)
    return tmp_path / "bright.keras"


def test_a_segmenter_writes_masks_and_pictures(cli, segmenter, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    done = cli("predict", segmenter, images, "--out", out, "--overlay")
    assert done.returncode == 0 and "a.png  0 75.0%, 1 25.0%" in done.stdout, done.stderr + done.stdout
    for name, part in {"a.png": 4, "sub/b.png": 12}.items():
        with Image.open(out / name) as mask:
            assert mask.mode == "P" and np.array_equal(np.asarray(mask), (np.arange(16)[:, None] < part).repeat(20, 1))
        with Image.open(tmp_path / "out-overlays" / name) as picture:
            assert min(picture.size) > 200
    rows = json.loads(
        cli("predict", segmenter, images, "--out", out, "--tta", "flip", "--tta", "rotate", "--json").stdout
    )
    assert [row["fractions"] for row in rows] == [{"0": 0.75, "1": 0.25}, {"1": 0.75, "0": 0.25}]
    assert rows[1]["mask"] == str(out / "sub" / "b.png")
    (tmp_path / "colors.txt").write_text("10 20 30 dark\n200 210 220 bright\n")
    done = cli("predict", segmenter, images / "a.png", "--out", out, "--palette", tmp_path / "colors.txt")
    assert "dark 75.0%, bright 25.0%" in done.stdout
    assert Image.open(out / "a.png").convert("RGB").getpixel((0, 0)) == (200, 210, 220)
    (images / "bad.png").write_text("no image")
    assert cli("predict", segmenter, images, "--out", out).returncode == 2
    done = cli("predict", segmenter, images, "--out", out, "--skip-errors")
    assert done.returncode == 0 and "left out 1 image" in done.stderr and "a.png" in done.stdout


def test_large_images_are_segmented_in_tiles(cli, segmenter, tmp_path, monkeypatch):
    from cnn_zoo import mask_prediction

    tiles, tiled = [], mask_prediction.predict_tiled
    monkeypatch.setattr(
        mask_prediction, "predict_tiled", lambda *args, **options: tiles.append(options) or tiled(*args, **options)
    )
    image, whole = tmp_path / "images" / "a.png", tmp_path / "whole"
    cli("predict", segmenter, image, "--out", whole)
    assert tiles == []
    cli("predict", segmenter, image, "--out", tmp_path / "tiled", "--tile", 8, "--overlap", 2, "--tta", "mirror")
    assert tiles.pop() == {"tta": ["mirror"], "tile": 8, "overlap": 2, "intensity": None}
    monkeypatch.setattr(importlib.import_module("cnn_zoo.commands.predict"), "LARGE", 16 * 20 - 1)
    cli("predict", segmenter, image, "--out", tmp_path / "large")
    assert tiles.pop() == {"tta": (), "intensity": None}
    np.save(tmp_path / "a.npy", np.asarray(Image.open(image)))
    cli("predict", segmenter, tmp_path / "a.npy", "--out", tmp_path / "array", "--overlay")
    assert len(tiles) == 1 and (tmp_path / "array-overlays" / "a.png").is_file()
    masks = [np.asarray(Image.open(tmp_path / name / "a.png")) for name in ("whole", "tiled", "large", "array")]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_bad_requests_to_a_segmenter_are_one_sentence(cli, run, segmenter, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    for arguments, says in {
        (segmenter, images, "--csv", "p.csv"): "--csv makes no sense here: the model",
        (segmenter, images, "--crop", 0.9): "segments images",
        (run, images, "--tile", 64): "--tile makes no sense here: the model",
        (run, images, "--tta", "flip"): "classifies images",
        (segmenter, images, "--out", images): "would replace the image",
        (segmenter, images, "--out", out, "--tta", "turn"): "tta is any of",
        (segmenter, images, "--out", out, "--tile", 0): "a tile is",
        (segmenter, images, "--out", out, "--overlap", 600): "overlap is",
        (segmenter, images, "--out", out, "--palette", "no.txt"): "colour table 'no.txt' cannot be read",
        (segmenter, images, "--out", out, "--palette", "voc"): "2 classes apart and 21 names",
        (segmenter, tmp_path / "none.png", "--out", out): "there is no image",
    }.items():
        done = cli("predict", *arguments)
        assert done.returncode == 2 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not out.exists() and len(list(images.rglob("*.png"))) == 2


def test_masks_are_checked_and_weighed(cli, tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir(), masks.mkdir()
    mask = np.repeat([[0, 0, 0, 1], [0, 0, 0, 255]], 8, axis=0).repeat(8, axis=1).astype("uint8")  # 48, 8 and 8 of 64
    Image.new("RGB", (32, 16)).save(images / "a.jpg")
    Image.fromarray(mask).save(masks / "a.png")
    done = cli("masks", "check", images, masks, "--classes", "road,car", "--ignore", "255")
    assert done.returncode == 0 and "no problems found" in done.stdout and "car" in done.stdout
    done = cli("masks", "check", images, masks, "--classes", "2")
    assert done.returncode == 1 and "ids that are no class" in done.stdout and "to do: " in done.stdout
    done = cli("masks", "check", images, masks, "--classes", "2", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["problems"][0]["serious"] is True
    done = cli("masks", "weights", masks, "--ignore", "255")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["0", "384", "pixels", "0.5833"],  # 448 / (2 * 384)
        ["1", "64", "pixels", "3.5000"],
    ]
    answer = json.loads(
        cli("masks", "weights", masks, "--ignore", "255", "--classes", "road,car", "--how", "inverse", "--json").stdout
    )
    assert answer["classes"] == ["road", "car"] and answer["weights"] == pytest.approx([2 / 7, 12 / 7])
    done = cli("masks", "weights", masks)
    assert done.returncode == 2 and "hold the ids 0..1, 255: say with --classes" in done.stderr
    Image.fromarray((mask == 1).astype("uint8") * 255).save(masks / "a.png")
    done = cli("masks", "check", images, masks)
    assert done.returncode == 1 and "0 and 255" in done.stdout
    done = cli("masks", "weights", masks)
    assert done.returncode == 2 and "0 and 255" in done.stderr
    assert cli("masks", "check", images, masks, "--palette", "binary").returncode == 0
    assert "background" in cli("masks", "weights", masks, "--palette", "binary").stdout
    for wrong, says in {
        ("check", images, tmp_path / "none"): "there is no mask or folder",
        ("check", tmp_path / "none", masks): "there is no image or folder",
        ("check", images, masks, "--ignore", "void"): "--ignore is one id or several",
        ("weights", masks, "--palette", "binary", "--how", "sqrt"): "how is one of balanced",
    }.items():
        done = cli("masks", *wrong)
        assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    "command", ["list", "info", "table", "train", "evaluate", "predict", "export", "doctor", "weights", "masks"]
)
def test_every_command_has_help(cli, command):
    done = cli(command, "--help")
    assert done.returncode == 0 and len(done.stdout) > 200


def test_the_program_itself_says_one_sentence_and_no_notes_of_tensorflow(tmp_path):
    done = program("weights", "fetch", "lenet:moon", cwd=tmp_path)
    assert done == (2, "", "error: no weights match 'lenet:moon'; `cnn-zoo weights list` names all\n")


def test_help_does_not_wait_for_keras():
    code = "import sys; sys.argv = ['cnn-zoo', '--help']; import cnn_zoo.cli; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "lenat"], "there is no net 'lenat'; did you mean 'lenet'?"),
        (["train", "--data", "mnits"], "did you mean 'mnist'"),
        (
            ["train", "--data", "mnist", "--data-dir", "nowhere"],
            "is not a folder: give the folder that holds mnist.npz",
        ),
        (["train", "--recipe", "good"], "there are: lecture, best"),
        (["train", "--epochs", "0"], "epochs of a recipe must be a whole number of at least 1"),
        (["train", "--weights", "mnits"], "has no weights 'mnits'"),
        (["train", "lenet", "--how", "squeeze"], "how is one of resize, crop"),
        (["train", "lenet", "--size", "big"], "--size is a number of pixels, or HEIGHTxWIDTH"),
        (["train", "lenet", "--intensity", "range:0"], "range:LOW:HIGH"),
        (["train", "lenet", "--palette", "binary"], "palette: no option of the kind 'known'"),
        (["train", "lenet", "--data", "no/where"], "there is no file or folder 'no/where'"),
        (["train", "lenet", "--data-option", "depth"], "--data-option wants NAME=VALUE"),
        (["train", "lenet", "--augment", "photos"], "augment of a recipe must be one of None, digits"),
        (["train", "--resume", "nowhere"], "is not a run folder"),
        (["info", "resnet"], "there is no net 'resnet'"),
        (["list", "xyz*"], "no net matches"),
        (["evaluate", "nowhere"], "is not a .keras file or a run folder"),
        (["predict", "nowhere.keras", "a.png"], "is not a .keras file or a run folder"),
        (["weights", "fetch", "lenet:moon"], "no weights match"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(cli, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli(*arguments)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == [] or [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_a_full_disk_is_one_sentence_and_exit_code_2(cli, run, tmp_path):
    """On a real file system of 300 KiB, where the machine lets the test make one."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        for arguments in (
            ["train", "--run", small / "run", "--epochs", 1],
            ["export", run, small / "model"],
        ):
            done = cli(*arguments)
            assert done.returncode == 2 and "free some space" in done.stderr, done.stderr
            assert not (small / "model").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_ctrl_c_and_resume(tmp_path):
    def start(*arguments):
        return subprocess.Popen(
            [CLI, "train", *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    process = start("lenet", "--epochs", "400", "--run", "run", "--no-savedmodel")
    for line in process.stdout:
        if line.startswith("Epoch 4/"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "cnn-zoo train --resume run" in err and "Traceback" not in err, err
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["status"] == "interrupted" and state["epoch"] >= 3
    process = start("--resume", "run")
    for line in process.stdout:
        if line.startswith(f"Epoch {state['epoch'] + 3}/"):
            break
    time.sleep(0.05)
    process.kill()
    process.communicate()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["epoch"] >= state["epoch"] + 2


def test_doctor_says_what_is_there_and_what_is_wrong(cli, tmp_path, monkeypatch):
    done = cli("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["problems"] == [] and report["backend"] == "tensorflow"
    assert report["packages"]["keras"] and report["cpus"] >= 1
    monkeypatch.setenv("CNN_ZOO_DATA", str(tmp_path / "nowhere"))
    done = cli("doctor")
    assert done.returncode == 1 and "PROBLEM" in done.stdout and "CNN_ZOO_DATA names" in done.stdout


@pytest.mark.slow
def test_two_workers_train_as_one(tmp_path):
    """The same command, alone and as two workers on this machine: one run folder, the same curve."""
    train = [
        "train",
        "lenet",
        "--epochs",
        "2",
        "--batch-size",
        "64",
        "--validation",
        "0.22",
        "--augment",
        "none",
        "--no-savedmodel",
    ]
    code = "from cnn_zoo.cli import main; main()"
    program = [sys.executable, "-c", code]
    alone = subprocess.run(
        [*program, *train, "--run", "one"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert alone.returncode == 0, alone.stderr
    both = [*program, "launch", "2", *program, *train, "--run", "two"]
    done = subprocess.run(both, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "everything is in two" in done.stdout, done.stderr
    one, two = (json.loads((tmp_path / run / "run.json").read_text())["history"] for run in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-3) and a["val_loss"] == pytest.approx(
            b["val_loss"], abs=2e-3
        )
    assert (tmp_path / "two" / "report.json").is_file()


def test_a_run_is_done_again_from_its_settings(cli, run, tmp_path):
    again = tmp_path / "again"
    done = cli("train", "--from", run / "run.json", "--run", again)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(weights(again / "last.keras"), weights(run / "last.keras"))
    # In a process of its own: TensorFlow never lets go of determinism.
    done = program(
        "train", "--from", run, "--run", tmp_path / "other", "--epochs", 1, "--set", "deterministic=true", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "other" / "run.json").read_text())
    assert about["recipe"]["epochs"] == 1 and about["recipe"]["deterministic"] is True and len(about["history"]) == 1
    done = cli("train", "--from", run, "--size", 32)
    assert done.returncode == 2 and "on its own data: leave out size" in done.stderr
