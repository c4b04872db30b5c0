"""`read_curves`: what lecturers say of the curves of a training, as code; and `Item`, in which such findings are put."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from cnn_zoo.train.run import Run

PASSED, FAILED, SKIPPED = "passed", "failed", "not applicable"
RIGHT = 0.9  # of the training images right, is having learned them


@dataclass(frozen=True)
class Item:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: "passed", "failed" or "not applicable".
        found: What was measured, in words.
        advice: What to do if it failed.
        numbers: What was measured, as plain values.
    """

    name: str
    status: str
    found: str
    advice: str = ""
    numbers: dict = dataclasses.field(default_factory=dict)

    def __str__(self):
        advice = f"\n{'':16}{self.advice}" if self.status == FAILED and self.advice else ""
        return f"{self.status:15} {self.name}: {self.found}{advice}"


def passed(name, numbers, found):
    return Item(name, PASSED, found, "", numbers)


def failed(name, numbers, found, advice):
    return Item(name, FAILED, found, advice, numbers)


def read_curves(run) -> Item:
    """What the curves of a run say, in words: underfitting, overfitting, a rate too high, or stopped too early.

    Args:
        run: A `Run` or its folder.

    Raises:
        InputError: It is no run folder.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    name, history = "curves", run.history
    if run.status == "diverged":
        advice = "lower the learning rate to a tenth, or clip gradients"
        return failed(name, {}, f"the training diverged after {len(run.rows)} epochs", advice)
    if len(run.rows) < 3:
        return Item(name, SKIPPED, f"{len(run.rows)} epochs are too few to read")
    score = "mean_iou" if "mean_iou" in history else "accuracy"
    train, fits = np.array(history["loss"]), history[score][-1]
    tail = max(1, len(train) // 5)
    last = float(train[-tail:].mean())
    numbers = {"first_loss": float(train[0]), "last_loss": last, score: fits}
    found = f"the training loss goes from {train[0]:.3f} to {last:.3f}, {score.replace('_', ' ')} {fits:.3f}"
    overfits = False
    if "val_loss" in history:
        held = np.array(history["val_loss"])
        lowest, end = int(held.argmin()), float(held[-tail:].mean())
        overfits = end > 1.15 * held[lowest] and last < train[lowest]
        fits = max(fits, history[f"val_{score}"][-1])  # of mixed samples nobody gets all right
        numbers |= {"lowest_val_loss": float(held[lowest]), "at_epoch": lowest + 1, "last_val_loss": end}
        found += f"; the validation loss is lowest in epoch {lowest + 1} ({held[lowest]:.3f}) and {end:.3f} at the end"
    if last > 2 * train.min() or last > train[0]:
        advice = "lower the learning rate, or let it fall (cosine)"
        return failed(name, numbers, f"{found}: the training loss rises", advice)
    if overfits:
        advice = (
            "more images or augmentation, weight decay, dropout, a smaller net, or early stopping with restore_best"
        )
        return failed(name, numbers, f"{found}: overfitting, it learns the training images by heart", advice)
    if fits < RIGHT and last > 0.5 * train[0]:
        advice = "a higher learning rate, a larger net, or less augmentation and weight decay"
        if train[-1] < 0.97 * train[-tail - 1]:
            advice = "train longer, since it still falls"
        return failed(name, numbers, f"{found}: underfitting, even the training images are not learned", advice)
    return passed(name, numbers, found)
