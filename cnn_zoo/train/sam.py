"""Sharpness-aware minimisation: steps along the gradient at the worst point near the weights, not at the weights."""

import keras
from keras import ops

from cnn_zoo.errors import InputError
from cnn_zoo.outputs import is_segmenter


def sharpness_aware(model: keras.Model, rho: float) -> keras.Model:
    """A twin of a model, of the same layers and weights, whose `fit` takes SAM's steps: gradient g at the weights w, then the optimizer's step
    from w with the gradient at w + rho g / |g|, where |g| is the norm over all weights. A step costs two.

    Dropout draws the same pattern for both gradients, and BatchNorm's statistics are those of the first: both see the batch at w.
    Regularisers are part of both. Files and fingerprints are those of the model.

    Args:
        model: Functional or sequential, with the training step and loss that Keras gives it.
        rho: Size of the neighbourhood, above 0; the paper's 0.05 is a good start.

    Raises:
        InputError: The model brings a training step or a loss of its own.

    Source: Foret et al. 2021, "Sharpness-aware minimization for efficiently improving generalization", equation 2 and algorithm 1 (p = 2).
    """
    check_own_steps(model)
    twin = _Sharp(model.inputs[0], model.outputs[0], name=model.name)
    twin.rho, twin.original = (
        rho,
        lambda: model,
    )  # in a function, since a model in an attribute would become a part of this one
    return twin


def check_own_steps(model) -> None:
    """Raise InputError where a twin of the model would not train as the model does."""
    is_segmenter(model)  # or it is no model for `fit` at all
    for name in ("train_step", "compute_loss"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise InputError(
                f"{type(model).__name__} has a {name} of its own: this needs a model that trains as Keras' do; keras.Model(model.inputs, "
                "model.outputs) makes one, or train without"
            )


class _Sharp(keras.Model):
    def train_step(self, *arguments):
        step = _with_jax if keras.backend.backend() == "jax" else _in_place
        return step(self, *arguments)

    def save(self, *args, **settings):
        self.original().save(*args, **settings)  # a file with this class in it could be loaded nowhere

    def load_weights(self, *args, **settings):
        self.original().load_weights(*args, **settings)

    def to_json(self, **settings):
        return self.original().to_json(**settings)


def _away(gradients, rho):
    """How far each weight is moved before the second gradient; None where there is no gradient."""
    norm = ops.sqrt(sum(ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients if g is not None))
    factor = rho / (norm + 1e-12)
    return [None if g is None else ops.cast(factor, g.dtype) * g for g in gradients]


def _in_place(model, data):
    """A step with TensorFlow and PyTorch, where variables are what they are."""
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    variables = model.trainable_variables
    watched = {id(v) for v in (*variables, *model.metrics_variables)}
    others = [v for v in model.variables if id(v) not in watched]  # statistics, and the states of random generators

    before = _copies(others)
    loss, y_pred, gradients = _gradients(model, x, y, weight)
    after, start = _copies(others), _copies(variables)
    _assign(others, before)
    for variable, value, step in zip(variables, start, _away(gradients, model.rho)):
        if step is not None:
            variable.assign(value + step)
    _, _, gradients = _gradients(model, x, y, weight)
    _assign(variables, start)
    _assign(others, after)
    _apply(model.optimizer, gradients, variables)
    return _measure(model, loss, x, y, y_pred, weight)


def _copies(variables):
    return [ops.stop_gradient(ops.copy(v)) for v in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values):
        variable.assign(value)


def _gradients(model, x, y, weight):
    if keras.backend.backend() == "torch":
        y_pred = model(x, training=True)
        model.zero_grad()
        loss = model.compute_loss(x, y, y_pred, weight)
        loss.backward()
        return loss, y_pred, [v.value.grad for v in model.trainable_variables]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x, y, y_pred, weight)
    return loss, y_pred, tape.gradient(loss, model.trainable_variables)


def _apply(optimizer, gradients, variables):
    if keras.backend.backend() == "torch":
        import torch

        with torch.no_grad():
            optimizer.apply(gradients, variables)
    else:
        optimizer.apply(gradients, variables)


def _measure(model, loss, x, y, y_pred, weight):
    mean = next(metric for metric in model.metrics if metric.name == "loss")
    mean.update_state(loss, sample_weight=ops.shape(x)[0])
    return model.compute_metrics(x, y, y_pred, weight)


def _with_jax(model, state, data):
    """A step with JAX, where everything goes in and comes out."""
    import jax

    trainable, others, of_optimizer, of_metrics = state
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)

    def gradients(at):
        function = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)
        return function(at, others, of_metrics, x, y, weight, training=True, optimizer_variables=of_optimizer)

    (_, (loss, y_pred, after, of_metrics_now)), first = gradients(trainable)
    _, second = gradients([value + step for value, step in zip(trainable, _away(first, model.rho))])
    trainable, of_optimizer = model.optimizer.stateless_apply(of_optimizer, second, trainable)
    with keras.StatelessScope(state_mapping=list(zip(model.metrics_variables, of_metrics_now))) as scope:
        logs = _measure(model, loss, x, y, y_pred, weight)
    of_metrics = [scope.get_current_value(v) for v in model.metrics_variables]
    return logs, (trainable, after, of_optimizer, of_metrics)
