"""`segmentation_models.utils`: what the old package did to a model after building it."""

import keras

from cnn_zoo.compat.sm_weights import accept_old_files


def set_trainable(model: keras.Model, recompile: bool = True, **kwargs) -> None:
    """Make all layers trainable, after training with `encoder_freeze=True`.

    Args:
        model: Any model.
        recompile: Go on with the same optimizer, its learning rate and its state for the variables that were trained before. Nothing else that was
            given to `compile` changes. A model that was not compiled is left so.
        **kwargs: Ignored, as the old package did.
    """
    for layer in model.layers:
        layer.trainable = True
    if recompile and getattr(model, "optimizer", None) is not None:
        before, model.optimizer = model.optimizer, type(model.optimizer).from_config(model.optimizer.get_config())
        model.optimizer.build(model.trainable_variables)  # Keras 3 optimizers know the variables they began with only
        state = {variable.path: variable for variable in before.variables}
        for variable in model.optimizer.variables:
            if variable.path in state:
                variable.assign(state[variable.path])
        model.make_train_function(force=True)


def set_regularization(
    model: keras.Model,
    kernel_regularizer=None,
    bias_regularizer=None,
    activity_regularizer=None,
    beta_regularizer=None,
    gamma_regularizer=None,
    **kwargs,
) -> keras.Model:
    """A copy of the model with these regularizers in every layer that can have them; `None` leaves what is there.

    Args:
        model: Any Functional model; unlike the old package this leaves it as it is.
        kernel_regularizer: Of kernels; depthwise ones excepted, as in the old package.
        bias_regularizer: Of biases.
        activity_regularizer: Of outputs.
        beta_regularizer: Of BatchNorm's offsets.
        gamma_regularizer: Of BatchNorm's scales.
        **kwargs: Ignored, as the old package did.

    Returns:
        The copy, with the same weights, not compiled.
    """
    given = {
        "kernel_regularizer": kernel_regularizer,
        "bias_regularizer": bias_regularizer,
        "activity_regularizer": activity_regularizer,
        "beta_regularizer": beta_regularizer,
        "gamma_regularizer": gamma_regularizer,
    }
    given = {key: keras.regularizers.get(value) for key, value in given.items() if value is not None}

    def regularized(layer):
        config = layer.get_config()
        config |= {key: keras.regularizers.serialize(value) for key, value in given.items() if key in config}
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=regularized)
    copy.set_weights(model.get_weights())
    if "load_weights" in vars(model):
        accept_old_files(copy)
    return copy
