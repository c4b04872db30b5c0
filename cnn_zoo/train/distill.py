"""Learning from another net's answers: distillation, and learning a second task without forgetting the first.

Both are a `fit` of a model that knows a teacher: `Taught` computes the teacher's answers to the very batch it trains on, augmented as it is, adds
to the loss, and is saved as the plain model that is left at the end. The teacher is no part of the files or of the state, and never changes.
"""

import hashlib
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers as L
from keras import ops

from cnn_zoo.data import Data
from cnn_zoo.data.arrays import check_labels
from cnn_zoo.errors import InputError
from cnn_zoo.outputs import check_classifier, output_kind
from cnn_zoo.train.fit import fit
from cnn_zoo.train.recipe import Recipe
from cnn_zoo.train.run import Run, architecture

SMALLEST = 1e-30  # of a probability, before its logarithm


@keras.saving.register_keras_serializable("cnn_zoo")
class SoftTargets(keras.losses.Loss):
    """Cross-entropy between two answers softened by a temperature T: softmax(teacher / T) and softmax(student / T).

    Args:
        temperature: T, above 0: the higher, the more the smaller probabilities count.
        scaled: Multiply with T^2, so that the size of the gradients does not depend on T (Hinton et al. 2015, section 2).

    Call it with logits `(batch, classes)`, the teacher's first.
    """

    def __init__(self, temperature=4.0, scaled=True, name="soft_targets", **kwargs):
        super().__init__(name=name, **kwargs)
        _check_number("temperature", temperature, low=0, open_low=True)
        self.temperature, self.scaled = float(temperature), bool(scaled)

    def call(self, y_true, y_pred):
        """The loss of each image, `(batch,)`."""
        teacher, student = (ops.cast(z, "float32") / self.temperature for z in (y_true, y_pred))
        losses = -ops.sum(ops.softmax(teacher) * ops.log_softmax(student), axis=-1)
        return losses * self.temperature**2 if self.scaled else losses

    def get_config(self):
        """Plain values."""
        return {**super().get_config(), "temperature": self.temperature, "scaled": self.scaled}


class Taught(keras.Model):
    """A model for `fit` whose loss is `hard` times that of the labels plus `soft` times that of a teacher's answers.

    Args:
        kept: The model that is trained and saved.
        inputs, outputs: What `fit` sees: answers to the labels; with `split`, so many of them, and then the answers to the teacher.
        teacher: A model, or anything from images to logits.
        about: Plain values: a run is resumed with the same ones alone.
    """

    def __init__(self, kept, inputs, outputs, teacher, soft_targets, hard, soft, logits_of, split, about):
        super().__init__(inputs=inputs, outputs=outputs, name=kept.name)
        # Within a function, since models and layers in attributes would become parts of this one.
        self.kept_model, self.answers = lambda: kept, lambda x: _logits(teacher(x, training=False), teacher)
        self.soft_targets, self.hard, self.soft, self.logits_of, self.split = soft_targets, hard, soft, logits_of, split
        self.about = about

    def _parts(self, y_pred):
        return (y_pred, y_pred) if self.split is None else (y_pred[..., : self.split], y_pred[..., self.split :])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Both losses, weighed."""
        own, told = self._parts(y_pred)
        hard = super().compute_loss(x, y, own, sample_weight, training)
        return self.hard * hard + self.soft * self.soft_targets(
            ops.stop_gradient(self.answers(x)), self.logits_of(told)
        )

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Those of the answers to the labels."""
        return super().compute_metrics(x, y, self._parts(y_pred)[0], sample_weight)

    def save(self, filepath, **kwargs):
        """Write the model that is kept."""
        self.kept_model().save(filepath, **kwargs)

    def load_weights(self, filepath, **kwargs):
        """Read the weights of the model that is kept."""
        self.kept_model().load_weights(filepath, **kwargs)

    def get_config(self):
        """What a resumed run must have in common, for its fingerprint."""
        return {"kept": keras.saving.serialize_keras_object(self.kept_model()), **self.about}


def distill(
    student: keras.Model,
    teacher: keras.Model,
    data: Data,
    recipe: str | Recipe = "best",
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    **settings,
) -> Run:
    """Train a small net on what a large one says of each image, not only on its label.

    The loss is `(1 - alpha) * cross-entropy of the labels + alpha * T^2 * cross-entropy of the teacher's answers`, both answers softened by the
    temperature T. The teacher sees the images as they are augmented for the student.

    Args:
        student: A classifier with softmax or logits; it is trained.
        teacher: Another one of the same classes, any of the zoo or your own, which takes the same images. It stays as it is.
        data: As for `fit`.
        recipe: As for `fit`.
        temperature: T, above 0.
        alpha: Weight of the teacher, 0..1.
        **settings: As for `fit`: validation, run, resume, callbacks, verbose, about.

    Returns:
        The finished `Run`; its models are students, which load without the teacher.

    Raises:
        InputError: Models that do not fit each other, or as for `fit`; a resume with another teacher, temperature or alpha.
        StorageError, TrainingStopped: As for `fit`.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", section 2.
    """
    _check_number("alpha", alpha, low=0, high=1)
    for model in (student, teacher):
        _check_softmax(model)
    if student.output_shape[-1] != teacher.output_shape[-1]:
        raise InputError(
            f"the student tells {student.output_shape[-1]} classes apart and the teacher {teacher.output_shape[-1]}: give both the same"
        )
    _check_same_images(student, teacher)
    about = {"temperature": temperature, "alpha": alpha, "teacher": _fingerprint(teacher)}
    taught = Taught(
        student, student.inputs, student.outputs, teacher, SoftTargets(temperature), 1 - alpha, alpha,
        lambda answers: _logits(answers, student), None, about,
    )  # fmt: skip
    settings["about"] = {**(settings.get("about") or {}), "distilled": {**about, "teacher": teacher.name}}
    return fit(taught, data, recipe, **settings)


@dataclass(frozen=True)
class TwoTasks:
    """What `learn_without_forgetting` gives; the models share their trunk.

    Attributes:
        old: The model for the first task, retrained.
        new: The model for the second task, softmax.
        both: From images to `{"old": ..., "new": ...}`; it is what the run folder's files hold.
        run: The run.
    """

    old: keras.Model
    new: keras.Model
    both: keras.Model
    run: Run


def learn_without_forgetting(
    model: keras.Model,
    data: Data,
    recipe: str | Recipe = "transfer",
    *,
    classes: int | None = None,
    weight: float = 1.0,
    temperature: float = 2.0,
    **settings,
) -> TwoTasks:
    """Teach a classifier a second task without the data of the first.

    A second head is put on the features that the model's last layer with weights gets. On the new images it learns the labels, and the first head
    goes on to answer as it did before: its former answers are its soft targets. Nothing of the first task's data is needed.

    Args:
        model: A classifier whose last layer with weights is dense, with softmax or logits; its trunk and head are trained.
        data: Of the second task, in the size and channels that the model takes.
        recipe: As for `fit`.
        classes: Of the second task. Default: those of the data.
        weight: Of what is remembered against what is learned, at least 0 (the paper's lambda, 1); 0 is plain fine-tuning.
        temperature: T, above 0 (the paper's 2).
        **settings: As for `fit`: validation, run, resume, callbacks, verbose, about.

    Raises:
        InputError: A model that is no such classifier, or as for `fit`.
        StorageError, TrainingStopped: As for `fit`.

    Source: Li & Hoiem 2016, "Learning without forgetting", section 3. The paper warms the new head up with a frozen trunk first; give the model
    of a `fine_tune` for that, or a recipe with low `rates` for the trunk. BatchNorm statistics become those of the new images, of which the paper's
    nets have none: with other images than the old ones, `freeze` the trunk's first stages, or expect the old task to lose by it.
    """
    _check_softmax(model)
    _check_number("weight", weight, low=0)
    if classes is None:
        if not isinstance(data, Data):
            raise InputError("how many classes does the second task have? Say classes=")
        classes = len(data.classes)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise InputError(f"classes of the second task must be a whole number of at least 2, not {classes!r}")
    if isinstance(data, Data) and not data.train.has_masks:
        check_labels(data.train.labels, classes)
    teacher = keras.models.clone_model(model)
    teacher.set_weights(model.get_weights())
    teacher.trainable = False
    features = _last_dense(model).input
    logits = L.Dense(classes, dtype="float32", name="new_logits")(features)
    new = L.Activation("softmax", dtype="float32", name="new_predictions")(logits)
    both = keras.Model(model.inputs[0], {"old": model.outputs[0], "new": new}, name=model.name)
    about = {"temperature": temperature, "weight": weight, "teacher": _fingerprint(teacher)}
    old = L.Activation("linear", dtype="float32", name="old_answers")(model.outputs[0])
    taught = Taught(
        both, model.inputs, L.Concatenate(dtype="float32", name="flatten_answers")([logits, old]), teacher,
        SoftTargets(temperature, scaled=False), 1.0, weight, lambda answers: _logits(answers, model), classes, about,
    )  # fmt: skip
    settings["about"] = {
        **(settings.get("about") or {}),
        "learned_without_forgetting": {**about, "teacher": model.name},
    }
    run = fit(taught, data, recipe, **settings)
    return TwoTasks(model, keras.Model(model.inputs[0], new, name=f"{model.name}_new"), both, run)


def _logits(answers, model):
    """Logits in float32, up to a constant that no softmax sees."""
    answers = ops.cast(answers, "float32")
    return ops.log(ops.maximum(answers, SMALLEST)) if output_kind(model) == "softmax" else answers


def _last_dense(model):
    last = [layer for layer in model.layers if layer.weights][-1]
    if not isinstance(last, L.Dense) or last.units != model.output_shape[-1]:
        raise InputError(
            f"a second head needs a model that ends in a dense layer, and {model.name!r} ends in {last.name!r} ({type(last).__name__}): "
            "build_classifier makes such models"
        )
    return last


def _check_softmax(model):
    check_classifier(model)
    if output_kind(model) == "sigmoid":
        raise InputError(
            f"{model.name!r} has a sigmoid a class, and softmax or logits are expected: answers must exclude each other"
        )


def _check_same_images(student, teacher):
    for ours, theirs in zip(student.input_shape[1:], teacher.input_shape[1:]):
        if theirs not in (None, ours):
            raise InputError(
                f"the student takes {student.input_shape[1:]} images and the teacher {teacher.input_shape[1:]}: build both for the same images"
            )


def _check_number(what, value, low, high=float("inf"), open_low=False):
    good = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and low <= value <= high
        and value != float("inf")
    )
    if not good or (open_low and value == low):
        bounds = (
            f"above {low}" if open_low else f"at least {low}" + ("" if high == float("inf") else f" and at most {high}")
        )
        raise InputError(f"{what} must be a number, {bounds}, not {value!r}")


def _fingerprint(model):
    """Of a model and its numbers."""
    state = hashlib.sha256(architecture(model).encode())
    for weight in model.get_weights():
        state.update(np.ascontiguousarray(weight).tobytes())
    return state.hexdigest()
