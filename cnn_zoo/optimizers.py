"""`LayerWise`: any Keras optimizer with a learning rate and a weight decay of its own for each stage of a model."""

import re

import keras
from keras import ops

from cnn_zoo.errors import InputError
from cnn_zoo.freezing import check_stage, stages

GROUPS = ("stem", "stages", "head")  # names that every model may be given, whether it has such a stage or not
# What Keras' base class does with all gradients at once, before a step is taken.
SHARED = (
    "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor",
    "gradient_accumulation_steps",
)  # fmt: skip


@keras.saving.register_keras_serializable("cnn_zoo")
class LayerWise(keras.optimizers.Optimizer):
    """Wraps an optimizer: each stage of a model has a multiple of its learning rate and of its weight decay.

    The updates are those of one such optimizer a stage; clipping by the global norm, averages of weights (`use_ema`), gradient accumulation and loss
    scaling, as set on the wrapped optimizer, see all variables together. `learning_rate` is the rate before it is multiplied, so callbacks and
    schedules work as ever. Keras' own `MultiOptimizer` (3.15) has neither, which is why it is not used here.

    Args:
        optimizer: Any Keras optimizer with one rule for all variables, not built yet; it is copied.
        rates: Multiples of the learning rate, at least 0, by stage (`cnn_zoo.freezing`): "stages" means stage1, stage2, ... as long as one is
            not named itself. Stages that are not named have 1. At 0 the variables keep their very bits.
        decay: Likewise multiples of the weight decay (which Keras multiplies with the learning rate, too).
        model: The model whose stages these are. Without it the names are paths of variables, which is what is saved.

    Raises:
        InputError: There is no such stage, a multiple is out of range, or an optimizer that cannot be wrapped.
    """

    def __init__(self, optimizer, rates, decay=None, model=None, name=None):
        optimizer = keras.optimizers.get(optimizer)
        _check_optimizer(optimizer)
        settings = optimizer.get_config()
        if settings["use_ema"] and 0 in rates.values():
            raise InputError(
                "a rate of 0 and use_ema do not go together, since an average of equal weights is rounded: freeze the stage"
            )
        super().__init__(
            learning_rate=_learning_rate(settings["learning_rate"]), name=name, **{key: settings[key] for key in SHARED}
        )
        plain = {"clipnorm": None, "clipvalue": None, "global_clipnorm": None, "use_ema": False}
        plain |= {"ema_overwrite_frequency": None, "loss_scale_factor": None, "gradient_accumulation_steps": None}
        self.inner = type(optimizer).from_config({**settings, **plain})
        self.decay = settings["weight_decay"] or 0.0
        self.rates, self.decays = (
            by_variable(given or {}, model, what) for given, what in ((rates, "rates"), (decay, "decay"))
        )

    def build(self, variables):
        """Make the wrapped optimizer's variables, and look up the multiples of these ones."""
        if self.built:
            return
        unknown = [v.path for v in variables if v.path not in self.rates]
        if unknown:
            raise InputError(
                f"LayerWise was made for another model: it knows no variable {unknown[0]!r} ({len(unknown)} of {len(variables)} are unknown)"
            )
        super().build(variables)
        self.inner.build(variables)
        self._rates = [self.rates[v.path] for v in variables]
        self._decays = [self.decays[v.path] * self.decay for v in variables]

    @property
    def variables(self):
        """Its own variables, then the wrapped optimizer's."""
        return super().variables + self.inner.variables

    def apply(self, grads, trainable_variables=None):
        """One step, as of any Keras optimizer."""
        super().apply(grads, trainable_variables)
        self.inner.iterations.assign(self.iterations)

    def update_step(self, gradient, variable, learning_rate):
        """The wrapped optimizer's step for one variable, at this variable's rate."""
        place = self._get_variable_index(variable)
        if self._rates[place] == 0:
            return
        rate = ops.multiply(ops.cast(learning_rate, variable.dtype), self._rates[place])
        if self._decays[place]:
            self.assign_sub(variable, ops.multiply(variable, ops.multiply(rate, self._decays[place])))
        self.inner.update_step(gradient, variable, rate)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Not here: weight decay is a matter of stages."""
        raise InputError(
            "LayerWise decays by stages: give decay={'head': 0}, say, instead of exclude_from_weight_decay"
        )

    def set_weights(self, weights):
        """Set all variables, the wrapped optimizer's included."""
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def get_config(self):
        """Plain values; the multiples by the paths of the variables."""
        own = super().get_config()
        shared = {key: own[key] for key in (*SHARED, "learning_rate")}
        settings = {**self.inner.get_config(), **shared}
        optimizer = {**keras.optimizers.serialize(self.inner), "config": settings}
        return {"optimizer": optimizer, "rates": self.rates, "decay": self.decays, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The reverse of `get_config`."""
        optimizer = keras.optimizers.deserialize(config["optimizer"], custom_objects=custom_objects)
        return cls(**{**config, "optimizer": optimizer})


def by_variable(given, model, what) -> dict[str, float]:
    """Multiples of the variables of a model, by their paths, from those of its stages.

    Raises:
        InputError: See `LayerWise`.
    """
    check_multiples(given, what, model is not None)
    if model is None:
        return dict(given)
    found, values = stages(model), {}
    for name in given:
        if name not in GROUPS:
            check_stage(name, found)
    for name, layers in found.items():
        group = "stages" if name not in GROUPS else name
        value = float(given.get(name, given.get(group, 1.0)))
        for variable in (v for layer in layers for v in layer.weights):
            if values.setdefault(variable.path, value) != value:
                raise InputError(
                    f"two variables of the model are named {variable.path!r}, which are to have different {what}: give their layers different names"
                )
    return values


def check_multiples(given, what, of_stages=True) -> None:
    """Raise InputError unless these are multiples by names of stages."""
    if not isinstance(given, dict):
        raise InputError(
            f"{what} are multiples by stage, such as {{'stem': 0.1, 'stages': 0.3, 'head': 1}}, not {given!r}"
        )
    for name, value in given.items():
        if of_stages and not (isinstance(name, str) and (name in GROUPS or re.fullmatch(r"stage[1-9]\d*", name))):
            raise InputError(
                f"{what} know no stage {name!r}: stages are stem, stage1, stage2, ..., head, and 'stages' for all with a number"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise InputError(f"{what} of {name!r} must be a finite number of at least 0, not {value!r}")


def _check_optimizer(optimizer):
    kind = type(optimizer).__name__
    if not isinstance(optimizer, keras.optimizers.Optimizer) or optimizer.built:
        raise InputError(f"LayerWise wraps a Keras optimizer that is not in use yet, not {optimizer!r}")
    if kind in ("LossScaleOptimizer", "LayerWise", "MultiOptimizer", "Muon"):
        why = (
            "it goes around LayerWise, not into it"
            if kind == "LossScaleOptimizer"
            else "it has rules of its own for some variables"
        )
        raise InputError(f"LayerWise cannot wrap {kind}: {why}")
    if any(value for key, value in vars(optimizer).items() if key.startswith("_exclude_from_weight_decay")):
        raise InputError(
            "LayerWise decays by stages: give decay={'head': 0}, say, instead of exclude_from_weight_decay"
        )


def _learning_rate(value):
    """From the configuration of an optimizer to what it was made of."""
    if isinstance(value, dict):
        try:
            return keras.optimizers.schedules.deserialize(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                "a learning rate is a number or a keras.optimizers.schedules.LearningRateSchedule"
            ) from error
    return value
