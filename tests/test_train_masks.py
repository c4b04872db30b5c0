"""Training and testing on masks: void is neither trained on nor scored, masks follow their images, runs resume."""

import json
import shutil

import keras
import numpy as np
import pytest
from keras import layers as L
from PIL import Image

import cnn_zoo
from cnn_zoo import (
    Data,
    DataError,
    InputError,
    Recipe,
    TrainingStopped,
    build_named,
    build_segmenter,
    build_unet,
    evaluate,
    fit,
    load,
    load_model,
    losses,
)
from cnn_zoo.data import from_masks

QUICK = Recipe("quick", epochs=10, batch_size=8, learning_rate=0.03, validation=0.25)


@pytest.fixture
def data(rng):
    """Bright squares, class 1, on a dark ground; the left column is void."""
    images = rng.integers(0, 60, (40, 16, 20)).astype("uint8")
    masks = np.zeros((40, 16, 20), "uint8")
    for image, mask, (y, x) in zip(images, masks, rng.integers(1, 9, (40, 2))):
        image[y : y + 6, x : x + 6] += 150
        mask[y : y + 6, x : x + 6] = 1
    masks[:, :, 0] = 255
    return Data.from_arrays(images, masks, classes=("ground", "square"), ignore=255, test=0.25)


def small_model(classes=2, activation="softmax", size=(16, 20)):
    inputs = keras.Input((*size, 1))
    x = L.Conv2D(8, 3, padding="same", activation="relu")(L.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, L.Conv2D(classes, 1, activation=activation)(x), name="small")


@pytest.mark.parametrize("classes, activation", [(2, "softmax"), (2, None), (1, "sigmoid"), (1, None)])
def test_a_run_on_masks_learns_and_says_how_well(data, tmp_path, classes, activation):
    model = small_model(classes, activation)
    run = fit(model, data, QUICK, run=tmp_path / "run", verbose=0)
    assert run.status == "finished" and max(run.history["val_mean_iou"]) > 0.9
    assert run.best_epoch == 1 + int(np.argmax(run.history["val_mean_iou"]))
    test = evaluate(model, data.test, classes=data.classes, ignore=data.ignore)
    found = np.asarray(model(data.test.images))
    found = found.argmax(-1) if classes == 2 else found[..., 0] > (0.5 if activation else 0)
    kept = data.test.labels != 255
    both, either = (
        ((found == 1) & (data.test.labels == 1) & kept).sum(),
        (((found == 1) | (data.test.labels == 1)) & kept).sum(),
    )
    assert test.scores()["iou"]["square"] == pytest.approx(both / either)
    assert test.confusion.sum() == kept.sum() and f"mean IoU {test.mean_iou:.4f}" in test.report()
    assert json.loads(json.dumps(test.to_dict()))["images"] == 10
    cnn_zoo.plots.curves(run, save=tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_void_changes_nothing(data, tmp_path):
    other = np.where(data.train.labels == 255, 254, data.train.labels)
    changed = Data.from_arrays(data.train.images, other, classes=data.classes, ignore=(254,))
    weights = []
    for each in (Data.from_arrays(data.train.images, data.train.labels, classes=data.classes, ignore=255), changed):
        keras.utils.set_random_seed(0)
        model = small_model()
        fit(model, each, QUICK.replace(epochs=1), run=tmp_path / str(len(weights)), verbose=0)
        weights.append(model.get_weights())
    for a, b in zip(*weights):
        np.testing.assert_array_equal(a, b)


def test_losses_by_name_and_class_weights(data, tmp_path):
    recipe = QUICK.replace(loss="cross_entropy + 0.5 dice", class_weight="median_frequency")
    run = fit(small_model(), data, recipe, run=tmp_path / "run", verbose=0)
    kept = run.about["loss"]["config"]
    assert [part["class_name"].split(">")[-1] for part in kept["losses"]] == ["CrossEntropy", "Dice"] and kept[
        "weights"
    ] == [1.0, 0.5]
    weights = cnn_zoo.class_weights_from(data.split(0.25).train.labels, 2, 255, "median_frequency")
    np.testing.assert_allclose(kept["losses"][0]["config"]["class_weight"], weights)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    for text in ("crossentropy", "", "dice +", "-1 dice", "2 3 dice", "nan dice"):
        with pytest.raises(InputError, match="names no loss"):
            Recipe(loss=text)
    with pytest.raises(InputError, match="class_weight of a recipe"):
        Recipe(class_weight="rare")


def test_a_run_on_masks_resumes_with_the_same_bits(data, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def model():
        keras.utils.set_random_seed(1)
        return small_model()

    whole = model()
    fit(whole, data, QUICK, run=tmp_path / "whole", verbose=0)
    with pytest.raises(TrainingStopped, match="interrupted after 2 of 10"):
        fit(model(), data, QUICK, run=tmp_path / "cut", callbacks=[Stop()], verbose=0)
    with pytest.raises(InputError, match="the loss has other settings"):
        fit(model(), data, QUICK, loss=losses.Focal(), run=tmp_path / "cut", resume=True, verbose=0)
    resumed = model()
    fit(resumed, data, QUICK, run=tmp_path / "cut", resume=True, verbose=0)
    for a, b in zip(whole.get_weights(), resumed.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert load_model(tmp_path / "cut")[1] == data.classes


def test_repeat_goes_through_few_images_more_than_once(data, tmp_path):
    run = fit(small_model(), data, QUICK.replace(epochs=2, repeat=5), run=tmp_path / "run", verbose=0)
    assert load_model(run.folder)[0].count_params() and len(run.rows) == 2
    assert json.loads((run.folder / "run.json").read_text())["recipe"]["repeat"] == 5
    batches = [labels.numpy() for _, labels in cnn_zoo.pipeline(data.train, 8, shuffle=True, epochs=2, repeat=5)]
    assert len(batches) == 2 * -(-len(data.train) * 5 // 8)
    seen, expected = (
        sorted(mask.tobytes() for mask in masks) for masks in (np.concatenate(batches), data.train.labels)
    )
    assert seen == sorted(expected * 10)


def test_tf_data_and_labels_that_overlap(data, tmp_path):
    import tensorflow as tf

    several = np.stack([data.train.labels == 1, data.train.images[..., 0] > 100], -1).astype("float32")
    pairs = tf.data.Dataset.from_tensor_slices((data.train.images, several)).batch(8)
    loss = losses.CrossEntropy(multi_label=True)
    run = fit(small_model(2, "sigmoid"), pairs, QUICK, loss=loss, run=tmp_path / "several", verbose=0)
    assert run.history["mean_iou"][-1] > 0.9
    ids = tf.data.Dataset.from_tensor_slices((data.train.images, data.train.labels)).batch(8)
    run = fit(small_model(), ids, QUICK, loss=losses.CrossEntropy(ignore=255), run=tmp_path / "ids", verbose=0)
    assert run.history["mean_iou"][-1] > 0.9
    with pytest.raises(TrainingStopped, match="the loss became nan in epoch 1.*an id that is no class"):
        fit(small_model(), ids, QUICK, run=tmp_path / "void", verbose=0)


def test_what_does_not_fit(data, tmp_path):
    def refused(message, model, data=data, recipe=QUICK, **settings):
        with pytest.raises(InputError, match=message):
            fit(model, data, recipe, run=tmp_path / "run", verbose=0, **settings)
        assert not (tmp_path / "run").exists()

    flat = keras.Sequential([keras.Input((16, 20, 1)), L.Flatten(), L.Dense(2, activation="softmax")])
    refused("the data have masks and the model gives a class an image", flat)
    refused("ids exclude each other", small_model(2, "sigmoid"))
    refused("takes 8x20 images and these are 16x20", small_model(size=(8, 20)))
    refused("loss= is for masks", flat, Data.from_arrays(data.train.images, np.arange(30) % 2), loss=losses.Dice())
    three = Data.from_arrays(data.train.images, data.train.labels % 200, classes=("a", "b", *map(str, range(60))))
    refused("masks hold 55, none of the classes 0..1", small_model(), three)
    with pytest.raises(InputError, match="the model gives a class an image"):
        evaluate(flat, data.test)
    with pytest.raises(InputError, match="masks hold 255"):
        evaluate(small_model(), data.test)


def test_masks_as_arrays(rng):
    images = rng.integers(0, 256, (6, 9, 10)).astype("uint8")
    data = Data.from_arrays(images, images[..., None] > 100)
    assert data.classes == ("0", "1") and data.train.labels.dtype == np.uint8 and data.train.has_masks
    assert data.describe()["train"]["pixels_per_class"] == [int((images <= 100).sum()), int((images > 100).sum())]
    with pytest.raises(InputError, match="masks hold 255.*masks // 255"):
        Data.from_arrays(images, (images > 100) * np.uint8(255))
    with pytest.raises(InputError, match="masks hold -1"):
        Data.from_arrays(images, np.full((6, 9, 10), -1))
    with pytest.raises(InputError, match="class ids, which are integers, not float64"):
        Data.from_arrays(images, np.zeros((6, 9, 10)))
    with pytest.raises(DataError, match="need masks of that shape, not .*argmax"):
        Data.from_arrays(images, np.zeros((6, 9, 10, 3), int))
    with pytest.raises(InputError, match="needs an id for what is outside"):
        data.resize((12, 12), how="pad")


def test_masks_are_resized_without_new_ids(data):
    small = data.resize((8, 10))
    assert set(np.unique(small.train.labels)) <= {0, 1, 255}
    np.testing.assert_array_equal(small.train.labels, data.train.labels[:, 1::2, 1::2])
    padded = data.resize((18, 21), how="pad")
    np.testing.assert_array_equal(padded.train.labels[:, 1:17, :20], data.train.labels)
    assert (padded.train.labels[:, 0] == 255).all() and (padded.train.images[:, 0] == 0).all()


def write_camvid(root, rng, parts=("train", "val", "test")):
    for part in parts:
        for kind in ("images", "masks"):
            (root / "camvid" / part / kind).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (12, 16, 3)).astype("uint8")).save(
                root / f"camvid/{part}/images/{i}.png"
            )
            Image.fromarray(rng.integers(0, 12, (12, 16)).astype("uint8")).save(root / f"camvid/{part}/masks/{i}.png")


def test_camvid_from_a_folder_and_a_zip(tmp_path, rng):
    write_camvid(tmp_path, rng)
    folder = load("camvid", data_dir=tmp_path)
    assert [len(s) for s in (folder.train, folder.validation, folder.test)] == [2, 2, 2] and folder.ignore == (11,)
    shutil.make_archive(tmp_path / "zipped" / "camvid", "zip", tmp_path, "camvid")
    zipped = load("camvid", data_dir=tmp_path / "zipped")
    assert zipped.describe() == folder.describe()
    (tmp_path / "camvid/val/masks/0.png").unlink()
    with pytest.raises(DataError, match="1 files without partner, such as '0'"):
        load("camvid", data_dir=tmp_path)
    Image.fromarray(np.zeros((9, 9), "uint8")).save(tmp_path / "camvid/val/masks/0.png")
    with pytest.raises(DataError, match="of several sizes"):
        load("camvid", data_dir=tmp_path)
    (tmp_path / "camvid/val/masks/0.png").write_bytes(b"")
    with pytest.raises(DataError, match="0.png.*cannot be read"):
        load("camvid", data_dir=tmp_path)
    with pytest.raises(DataError, match="put isbi2012.zip or the folder isbi2012"):
        load("isbi2012", data_dir=tmp_path)
    (tmp_path / "zipped" / "camvid.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="damaged or no zip"):
        load("camvid", data_dir=tmp_path / "zipped")


def test_the_real_sets(shared):
    data = load("isbi2012", data_dir=shared("data/isbi2012.zip").parent)
    assert data.summary() == "24 train, 6 test images of 512 x 512 x 1, 2 classes"
    assert 0.15 < data.train.labels.mean() < 0.3  # membranes are the thin part


def test_unet_trains_on_any_size(data, tmp_path):
    keras.utils.set_random_seed(0)
    model = build_unet(2, depth=2, width=8, channels=1)
    run = fit(model, data, QUICK.replace(learning_rate=0.005, epochs=15), run=tmp_path / "run", verbose=0)
    assert run.history["mean_iou"][-1] > 0.9


CAMVID = "deeplabv3plus:squeezenet1_1"


def test_shipped_segmenters_come_with_their_options(tmp_path):
    model, record = build_named(CAMVID, weights="camvid"), cnn_zoo.WEIGHTS[CAMVID, "camvid"]
    assert model.output_shape == (None, None, None, 11) and record.classes[3] == "Road" and record.bytes < 10e6
    other = build_segmenter("deeplabv3plus", "squeezenet1_1", 3, weights="camvid")
    ours, theirs = ({v.path: v.numpy() for v in m.weights} for m in (model, other))
    assert {path for path in ours if ours[path].shape != theirs[path].shape} == {"logits/kernel", "logits/bias"}
    assert all(np.array_equal(ours[path], theirs[path]) for path in ours if not path.startswith("logits"))
    with pytest.raises(InputError, match="how many classes"):
        build_named("unet:resnet18")
    with pytest.raises(InputError, match="no whole U-Net with weights 'camvid'.*give a backbone"):
        build_unet(2, weights="camvid")
    path = tmp_path / "mine.safetensors"
    cnn_zoo.weights.save(
        model, path, net=CAMVID, classes=record.classes, preset=record.preset, options=json.dumps(record.options)
    )
    again = build_segmenter("deeplabv3plus", "squeezenet1_1", 11, weights=str(path))
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights()))


@pytest.mark.slow
def test_the_shipped_camvid_net_scores_as_its_card_says(shared):
    data = load("camvid", data_dir=shared("data/camvid.zip").parent)
    found = evaluate(build_named(CAMVID, weights="camvid"), data.test, classes=data.classes, ignore=data.ignore)
    assert found.mean_iou == pytest.approx(cnn_zoo.WEIGHTS[CAMVID, "camvid"].value, abs=2e-3)


def test_masks_in_files_give_class_weights_and_train(data, tmp_path):
    """Files that are read when they are needed, with all that a recipe asks of masks."""
    for kind, arrays in (("images", data.train.images[..., 0]), ("masks", data.train.labels)):
        (tmp_path / kind).mkdir()
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(tmp_path / kind / f"{i:02}.png")
    lazy = from_masks(tmp_path / "images", tmp_path / "masks", classes=data.classes, ignore=255)
    recipe = QUICK.replace(class_weight="median_frequency", augment="micrograph", epochs=12)
    run = fit(small_model(), lazy, recipe, run=tmp_path / "run", verbose=0)
    assert run.history["mean_iou"][-1] > 0.85
    weights = cnn_zoo.class_weights_from(lazy.split(0.25).train.labels, 2, 255, "median_frequency")
    np.testing.assert_allclose(run.about["loss"]["config"]["class_weight"], weights)
    (tmp_path / "masks" / "07.png").write_bytes((tmp_path / "masks" / "07.png").read_bytes()[:60])
    with pytest.raises(DataError, match="07.png"):
        evaluate(small_model(), lazy.train, ignore=255)
