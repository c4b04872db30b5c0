"""`lr_find`: which learning rate? One short run in which it grows from next to nothing until the loss explodes."""

import dataclasses
import random
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np

from cnn_zoo.data import Data, plain_errors
from cnn_zoo.errors import InputError
from cnn_zoo.train.fit import compile_model, prepare
from cnn_zoo.train.precision import choose, computing, lowered
from cnn_zoo.train.recipe import Recipe
from cnn_zoo.train.recipe import recipe as find_recipe
from cnn_zoo.train.sam import check_own_steps, sharpness_aware

SMOOTHING = 0.8  # a step that lies n steps away counts 0.8^n
EXPLODED = 4  # times the lowest loss, and above the first one


@dataclass(frozen=True)
class LrFind:
    """What a learning rate range test has found.

    Attributes:
        rates: `(steps,)`, the learning rate of each step.
        losses: `(steps,)`, its loss; the last one may not be finite.
        smoothed: `(steps,)`, mean of the losses around each step, on both sides, so that it does not lag behind.
        suggestion: The rate at which the smoothed loss falls most steeply, or None where it falls nowhere.
        tenth: A tenth of the rate with the lowest smoothed loss, or None likewise, or where that is the last one.
        exploded: The rate at which the loss exploded, or None where it has not.
        optimizer: The recipe's: another one wants another rate.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    tenth: float | None
    exploded: float | None
    optimizer: str

    def __str__(self):
        if self.suggestion is None:
            return f"the loss falls at no rate from {self.rates[0]:.0e} to {self.rates[-1]:.0e}: cnn-zoo check looks for the reason"
        end = f"explodes at {self.exploded:.2g}" if self.exploded else "does not explode"
        tenth = f", or {self.tenth:.2g} (a tenth of where it is lowest)" if self.tenth else ""
        return f"learning rate for {self.optimizer}: {self.suggestion:.2g} (where the loss falls most steeply){tenth}; the loss {end}"

    def to_dict(self) -> dict:
        """Plain values, for JSON; what is not finite is None."""
        values = dataclasses.asdict(self)
        for name in ("rates", "losses", "smoothed"):
            values[name] = [float(value) if np.isfinite(value) else None for value in values[name]]
        return values

    def loss_at(self, rate: float) -> float:
        """The smoothed loss at a rate, between those that were tried: infinite beyond the explosion."""
        if self.exploded and rate >= self.exploded:
            return float("inf")
        return float(np.interp(np.log(rate), np.log(self.rates), self.smoothed))

    def plot(self, save=None):
        """The curve, with both suggestions marked.

        Args:
            save: PNG file to write.

        Returns:
            A Matplotlib figure.
        """
        from cnn_zoo.plots import TRAINING, VALIDATION, WRONG, Picture, finish

        figure = Picture(figsize=(6.5, 3.8), layout="constrained")
        axes = figure.subplots()
        finite = np.isfinite(self.losses)
        axes.plot(self.rates[finite], self.losses[finite], color=TRAINING, alpha=0.3, linewidth=1, label="each step")
        axes.plot(self.rates, self.smoothed, color=TRAINING, label="smoothed")
        for rate, color, label in (
            (self.suggestion, VALIDATION, "steepest"),
            (self.tenth, WRONG, "lowest / 10"),
        ):
            if rate:
                axes.axvline(rate, color=color, linewidth=0.8, linestyle=":")
                axes.plot(rate, self.loss_at(rate), "o", color=color, label=f"{label}: {rate:.2g}")
        low, start = self.smoothed.min(), self.smoothed[0]
        room = max(start - low, 0.05 * start)
        axes.set(
            xscale="log", xlabel="learning rate", ylabel="loss", title=f"Learning rate range test, {self.optimizer}"
        )
        axes.set_ylim(low - 0.15 * room, start + 0.5 * room)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        return finish(figure, save)


def lr_find(
    model: keras.Model,
    data,
    recipe: str | Recipe = "lecture",
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    loss: keras.losses.Loss | None = None,
) -> LrFind:
    """Learning rate range test: the rate grows by the same factor from step to step until the loss explodes.

    Model, its optimizer if it has one, and random generators are afterwards what they were before, bit for bit.

    Args:
        model: As for `fit`.
        data: As for `fit`.
        recipe: Its optimizer, batch size, augmentation and the like are used; its learning rate and schedule, averages and accumulation are not.
        lowest: First rate, above 0.
        highest: Last rate.
        steps: Batches, at least 10.
        loss: As for `fit`.

    Raises:
        InputError: As for `fit`; a range that is none; or a model with a training step of its own.

    Source: Smith 2015, "Cyclical learning rates for training neural networks", section 3.3, there with equal differences; the equal ratios, the
    smoothing and the steepest fall are fastai's.
    """
    numbers = all(isinstance(value, int | float) for value in (lowest, highest))
    if not (numbers and 0 < lowest < highest < float("inf")):
        raise InputError(f"rates grow from lowest to highest, 0 < lowest < highest, not from {lowest!r} to {highest!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 10:
        raise InputError(f"steps must be a whole number of at least 10, not {steps!r}")
    recipe = find_recipe(recipe).replace(schedule="constant", warmup=0.0, ema=0.0, accumulate=1, learning_rate=lowest)
    rates, losses = lowest * (highest / lowest) ** (np.arange(steps) / (steps - 1)), []
    with trial(model, data, recipe, loss) as (twin, task, _):
        running, lowest_mean, exploded = 0.0, float("inf"), False
        for rate, batch in zip(rates, repeated(task, steps)):
            twin.optimizer.learning_rate = rate
            losses.append(step(twin, batch)["loss"])
            running = SMOOTHING * running + (1 - SMOOTHING) * losses[-1]
            mean = running / (1 - SMOOTHING ** len(losses))
            lowest_mean = min(lowest_mean, mean)
            if exploded := not np.isfinite(mean) or mean > max(EXPLODED * lowest_mean, losses[0]):
                break
    return _read(rates[: len(losses)], np.array(losses), exploded, recipe.optimizer)


def _read(rates, losses, exploded, optimizer):
    """The `LrFind` of these losses."""
    # An explosion must not drown what came just before it.
    top = 1.5 * losses[:5].max() if np.isfinite(losses[:5]).all() else 1.0
    bounded = np.minimum(np.nan_to_num(losses, nan=np.inf), top)
    steps = np.arange(len(losses))
    weights = SMOOTHING ** abs(steps[:, None] - steps)
    smoothed = weights @ bounded / weights.sum(1)
    bottom = int(np.argmin(smoothed))
    suggestion = tenth = None
    # What it falls by must be more than the noise of the first steps, before which the rate does nothing.
    noise = np.std(losses[: max(5, len(losses) // 4)])
    if bottom >= 3 and smoothed[0] - smoothed[bottom] > max(0.02 * smoothed[0], noise / 2):
        slopes = np.gradient(smoothed[: bottom + 1], np.log(rates[: bottom + 1]))
        suggestion = float(rates[np.argmin(slopes)])
        tenth = float(rates[bottom] / 10) if bottom < len(rates) - 1 else None
    return LrFind(rates, losses, smoothed, suggestion, tenth, float(rates[-1]) if exploded else None, optimizer)


# -- short runs that leave no trace


@contextmanager
def trial(model, data, recipe, loss=None):
    """A twin of a model, compiled as for a `fit` that is to leave no trace: its variables are given back at the end.

    Yields:
        The twin, the `Task`, and a function that gives the variables the values that they began with.

    Raises:
        InputError: As for `fit`, or a model with a training step of its own.
    """
    check_own_steps(model)
    twin = (
        sharpness_aware(model, recipe.sam)
        if recipe.sam
        else keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    )
    task = prepare(twin, data, recipe, loss)
    precision, _ = choose(recipe.precision)
    kept = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    states = random.getstate(), np.random.get_state()

    def reset():
        for variable, value in zip(model.variables, kept):
            variable.assign(value)

    compile_model(twin, task, recipe.make_optimizer(task.steps, twin), precision, several=False)
    try:
        with computing(lowered(twin) if precision != "float32" else [], precision), plain_errors():
            yield twin, task, reset
    finally:
        reset()
        random.setstate(states[0])
        np.random.set_state(states[1])


def repeated(task, steps: int):
    """So many batches of the training, as arrays, through as many epochs as that takes."""
    epochs = -(-steps // task.steps)
    dataset = task.batches(epochs=epochs) if isinstance(task.data, Data) else task.batches().repeat(epochs)
    for batch in dataset.take(steps):
        yield tuple(np.asarray(part) for part in batch)


def step(model, batch) -> dict[str, float]:
    """One step of training; what it says is of this batch alone."""
    model.reset_metrics()
    return {name: float(value) for name, value in model.train_on_batch(*batch, return_dict=True).items()}
