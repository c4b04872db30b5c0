"""What Keras has no schedule for: one cycle, and a plateau that a resumed run remembers."""

import math

import keras
from keras import ops

START, END = 25, 1e4  # the first rate is a 25th of the highest, and the last one a 10,000th of the first


@keras.saving.register_keras_serializable("cnn_zoo")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate climbs once from a 25th of its highest value and falls once to nearly nothing, both along half a cosine.

    The momentum stays what it is: Keras' optimizers hold it as a constant.

    Args:
        highest: The highest rate.
        steps: Steps of the whole training, at least 1.
        climb: Fraction of them that climb, between 0 and 1.

    Source: Smith 2018, "A disciplined approach to neural network hyper-parameters: part 1", section 4.2, there with straight lines; in cosines, with
    these quotients, it is what fastai and PyTorch's `OneCycleLR` do.
    """

    def __init__(self, highest, steps, climb=0.3, name="OneCycle"):
        self.highest, self.steps, self.climb, self.name = float(highest), int(steps), float(climb), name

    def __call__(self, step):
        """The rate of a step, from 0."""
        step = ops.cast(step, "float32")
        peak = max(self.climb * self.steps - 1, 0.5)
        last = max(self.steps - 1, peak + 0.5)
        first = self.highest / START
        rising = _half_cosine(first, self.highest, step / peak)
        falling = _half_cosine(self.highest, first / END, ops.clip((step - peak) / (last - peak), 0.0, 1.0))
        return ops.where(step <= peak, rising, falling)

    def get_config(self):
        """Plain values."""
        return {"highest": self.highest, "steps": self.steps, "climb": self.climb, "name": self.name}


def _half_cosine(start, end, part):
    return end + (start - end) / 2 * (1 + ops.cos(math.pi * part))


def restarts(highest: float, steps: int, cycles: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Cosines from the highest rate to 0, each twice as long as the one before, which together fill all steps.

    Source: Loshchilov & Hutter 2017, "SGDR", equation 5, with T_mult = 2.
    """
    # Rounded up: better a last cycle that is cut by a step than one more that is begun.
    first = math.ceil(steps / (2**cycles - 1))
    return keras.optimizers.schedules.CosineDecayRestarts(highest, first, t_mul=2.0)


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Keras' own, a tenth of the rate where the loss has not fallen for a while, whose memory can be kept and given back.

    Args:
        monitor: "val_loss" or "loss".
        patience: Epochs to wait.
    """

    def __init__(self, monitor, patience):
        super().__init__(monitor, factor=0.1, patience=patience, mode="min")
        self.kept = None

    def on_train_begin(self, logs=None):
        """Begin afresh, or where the kept state was."""
        super().on_train_begin(logs)
        if self.kept is not None:
            self.state = self.kept

    @property
    def state(self) -> dict:
        """What the next decision depends on, in plain values."""
        best = None if self.best is None else float(self.best)
        return {"best": best, "wait": self.wait, "cooldown": self.cooldown_counter}

    @state.setter
    def state(self, values):
        self.best, self.wait, self.cooldown_counter = values["best"], values["wait"], values["cooldown"]
