"""TensorFlow SavedModel: for TensorFlow Serving, TensorFlow in C++, Java, Go, and every converter."""

import json
import logging
import os
import subprocess
import sys

import keras
import numpy as np

from cnn_zoo.data import decode_bytes
from cnn_zoo.errors import ExportError, InputError
from cnn_zoo.files import replacing
from cnn_zoo.outputs import is_segmenter, output_kind
from cnn_zoo.version import __version__

IMAGES_COMPARED = 8

# Runs in a process of its own, in which Keras cannot be imported: what it answers owes nothing to Keras.
RELOAD = """
import sys
sys.modules["keras"] = sys.modules["tf_keras"] = None
import numpy as np, tensorflow as tf
folder, given, found = sys.argv[1:]
model = tf.saved_model.load(folder)
images, fractions = (np.load(given)[key] for key in ("images", "fractions"))
inputs = {"serving_default": {"images": tf.constant(fractions)}, "serve_uint8": {"images": tf.constant(images)}}
if "serve_bytes" in model.signatures:
    inputs["serve_bytes"] = {"contents": tf.stack([tf.io.encode_png(image) for image in images])}
answers = {}
for name, values in inputs.items():
    for key, value in model.signatures[name](**values).items():
        answers[name + "/" + key] = value.numpy()
np.savez(found, **{key: value.astype("S") if value.dtype == object else value for key, value in answers.items()})
"""


def write(model, path, classes, tolerance) -> tuple[tuple[str, ...], float]:
    """Write, reload and compare; see `cnn_zoo.exporting.export`."""
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"a SavedModel is written by the TensorFlow backend, and this process runs {keras.backend.backend()}: "
            "save the model as .keras and export it with KERAS_BACKEND=tensorflow"
        )
    with replacing(path) as aside:
        labels = aside.with_name("labels.txt")
        labels.write_text("".join(f"{name}\n" for name in classes))
        served, signatures = _served(tf, model, str(labels))
        logger = logging.getLogger("tensorflow")
        level = logger.level
        try:
            logger.setLevel(logging.WARNING)  # it would tell the name of the scratch folder
            tf.saved_model.save(served, str(aside), signatures=signatures)
        except tf.errors.OpError as error:
            raise OSError(*_errno(error)) from error
        finally:
            logger.setLevel(level)
        (aside / "model.json").write_text(json.dumps(_about(model, classes, signatures), indent=2))
        difference = _compare(model, aside, classes, signatures)
        if not difference <= tolerance:
            raise ExportError(
                f"the exported model differs from the Keras model by {difference:.3g}, more than the tolerance of {tolerance:.3g}: "
                "nothing was kept. Layers that draw random numbers in inference are one cause"
            )
    return tuple(signatures), difference


def _errno(error):
    import errno

    full = "space" in str(error).lower() or type(error).__name__ == "ResourceExhaustedError"
    return (errno.ENOSPC if full else errno.EACCES), str(error).splitlines()[0]


def _served(tf, model, labels):
    """A `tf.Module` with the model's variables and label table, and its signatures."""
    height, width, channels = model.input_shape[1:]
    served = tf.Module()
    served.weights = [variable.value for variable in model.variables]
    names = tf.lookup.TextFileInitializer(
        labels, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
    )
    served.labels = tf.lookup.StaticHashTable(names, default_value="")

    def answer(images):
        probabilities = _probabilities(model, images)
        if is_segmenter(model):
            return {"probabilities": probabilities, "mask": _masks(probabilities)}
        best = tf.argmax(probabilities, axis=-1)
        return {"probabilities": probabilities, "class": best, "label": served.labels.lookup(best)}

    def signature(dtype):
        spec = tf.TensorSpec((None, height, width, channels), dtype, "images")
        return tf.function(lambda images: answer(tf.cast(images, tf.float32)), input_signature=[spec])

    signatures = {"serving_default": signature(tf.float32), "serve_uint8": signature(tf.uint8)}
    if channels in (1, 3, 4):

        def from_bytes(contents):
            shape = (height, width, channels)
            spec = tf.TensorSpec(shape, tf.float32)
            return answer(tf.map_fn(lambda one: decode_bytes(one, shape), contents, fn_output_signature=spec))

        spec = tf.TensorSpec((None,), tf.string, "contents")
        signatures["serve_bytes"] = tf.function(from_bytes, input_signature=[spec])
    served.signatures_ = signatures
    return served, signatures


def _about(model, classes, signatures):
    import tensorflow as tf

    return {
        "name": model.name,
        "input": {"shape": list(model.input_shape[1:]), "values": "0..255", "order": "RGB", "preprocessing": "inside"},
        "classes": list(classes),
        "signatures": list(signatures),
        "parameters": model.count_params(),
        "versions": {"cnn-zoo": __version__, "keras": keras.__version__, "tensorflow": tf.__version__},
    }


def _probabilities(model, images):
    outputs = keras.ops.cast(model(images, training=False), "float32")
    if output_kind(model) != "logits":
        return outputs
    return keras.ops.sigmoid(outputs) if is_segmenter(model) and outputs.shape[-1] == 1 else keras.ops.softmax(outputs)


def _masks(probabilities):
    if probabilities.shape[-1] == 1:
        return keras.ops.cast(probabilities[..., 0] > 0.5, "int64")
    return keras.ops.cast(keras.ops.argmax(probabilities, axis=-1), "int64")


def _compare(model, folder, classes, signatures):
    """Largest difference of probabilities between the model here and the export in a process without Keras."""
    height, width, channels = (64 if side is None else side for side in model.input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, (IMAGES_COMPARED, height, width, channels)).astype("uint8")
    fractions = images.astype("float32") * np.float32(0.99)  # float images need not be whole numbers
    expected, of_fractions = (
        keras.ops.convert_to_numpy(_probabilities(model, values)) for values in (images.astype("float32"), fractions)
    )
    if not np.isfinite(expected).all():
        raise ExportError(
            "the model answers with NaN or infinite values; nothing was kept. Train it again, or load its best epoch"
        )
    given, found = folder.with_name("given.npz"), folder.with_name("found.npz")
    np.savez(given, images=images, fractions=fractions)
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, str(folder), str(given), str(found)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ExportError(
            f"the exported model cannot be loaded and run: {(done.stderr.strip().splitlines() or ['?'])[-1]}; nothing was kept"
        )
    with np.load(found) as answers:
        differences = []
        for name in signatures:
            target = of_fractions if name == "serving_default" else expected
            differences.append(float(np.abs(answers[f"{name}/probabilities"] - target).max()))
            if is_segmenter(model):
                if not np.array_equal(answers[f"{name}/mask"], _masks(answers[f"{name}/probabilities"])):
                    raise ExportError(
                        f"the signature {name!r} gives masks that its probabilities do not; nothing was kept"
                    )
                continue
            best = answers[f"{name}/class"]
            told = [label.decode() for label in answers[f"{name}/label"]]
            if told != [classes[i] for i in best]:
                raise ExportError(f"the signature {name!r} names classes wrongly ({told[:3]} ...); nothing was kept")
    return max(differences)
