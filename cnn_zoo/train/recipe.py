"""All settings of a training in one frozen value."""

import dataclasses
import difflib
import json
import math
from dataclasses import dataclass

import keras

from cnn_zoo import losses
from cnn_zoo.augment import (
    PRESETS,
    Augmenter,
    brightness,
    contrast,
    crop,
    elastic,
    flip,
    rotate,
    saturation,
    scale,
    translate,
    turn,
)
from cnn_zoo.errors import InputError
from cnn_zoo.masks import CLASS_WEIGHTS
from cnn_zoo.optimizers import LayerWise, check_multiples
from cnn_zoo.train.precision import PRECISIONS
from cnn_zoo.train.schedules import OneCycle, restarts

OPTIMIZERS = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW, "sgd": keras.optimizers.SGD}
SCHEDULES = ("constant", "cosine", "one_cycle", "restarts", "plateau")
BALANCES = (None, "sampling", "weights")


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        name: Short name.
        epochs: Passes over the training images, at least 1.
        repeat: Passes that count as one epoch, at least 1: more for a handful of images, each of which augmentation makes many of.
        batch_size: Images a step, at least 1.
        optimizer: "adam", "adamw" or "sgd" (with Nesterov momentum 0.9).
        learning_rate: Its largest value, above 0.
        schedule: "constant"; "cosine": after the warm-up it falls to 0 along half a cosine; "one_cycle" (`train.schedules.OneCycle`);
            "restarts": cosines from the top to 0, each twice as long as the one before (SGDR); or "plateau": a tenth each time when the validation
            loss (without validation: the loss) has not fallen for a while.
        warmup: Fraction of all steps, 0 <= warmup < 1, in which the learning rate climbs linearly from 0; of "one_cycle" the one in which it climbs,
            0.3 if this is 0.
        cycles: Of "restarts": how many, at least 1.
        patience: Of "plateau": epochs to wait, at least 1.
        weight_decay: Decoupled weight decay, for "adamw" and "sgd".
        l1, l2: Penalties in the loss, times the sum of absolute or of squared values of all kernels.
        rates: None, or multiples of the learning rate by stage, such as {"stem": 0.1, "stages": 0.3, "head": 1} (`train.optimizers.LayerWise`).
        decays: None, or likewise multiples of the weight decay.
        ema: 0, or how much of the average of the weights each step keeps, below 1: 0.999, say. Validation, best.keras, last.keras and the model in
            the end then have the averages (BatchNorm's statistics are those of the training); the training itself goes on with the weights.
        clip: None, or the largest norm, above 0, of all gradients together.
        accumulate: Batches whose mean gradient makes one update, at least 1: `accumulate * batch_size` images, in the memory of `batch_size`.
        sam: 0, or rho of sharpness-aware minimisation (`train.sam`), about 0.05; a step costs two.
        loss: For masks: a key of `cnn_zoo.losses.LOSSES`, or a sum such as "cross_entropy + 0.5 dice". Labels: cross-entropy, always.
        class_weight: For masks, of the loss: None, or the rule of `cnn_zoo.class_weights_from`, such as "median_frequency".
        label_smoothing: For labels: share, 0..1, that is taken from the true class and given to all evenly (Szegedy et al. 2016, section 7). The
            validation loss is not smoothed, so that it can be compared.
        balance: For labels: None, "sampling" (each image of an epoch is drawn anew, all classes with equal probability) or "weights" (of the loss, in
            inverse proportion to the images of a class, 1 on average).
        augment: None, a preset of `cnn_zoo.augment.PRESETS` by its name, or an `Augmenter`.
        validation: Fraction of the training images held out where the data has no validation split, 0 <= validation < 1.
        early_stopping: Stop when the validation accuracy (masks: mean IoU) has not risen for so many epochs; 0: never.
        restore_best: At the end, give the model the weights of its best epoch: by validation; without any by the training images, the last of equals.
        precision: "float32" (as the model was built), "bfloat16", "float16" (with loss scaling), or "auto", by the hardware; `train.precision` says
            which layers stay in float32. Weights and files are float32 in any case.
        deterministic: Let the backend compute in one order only, which costs time on a GPU: the same run twice then gives the same bits there, too.
            (On a CPU it does anyway.) TensorFlow and PyTorch keep it for the rest of the process.
        seed: Of the validation split, the order of the images and the augmentation.
    """

    name: str = "custom"
    epochs: int = 20
    repeat: int = 1
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup: float = 0.0
    cycles: int = 3
    patience: int = 5
    weight_decay: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    rates: dict | None = None
    decays: dict | None = None
    ema: float = 0.0
    clip: float | None = None
    accumulate: int = 1
    sam: float = 0.0
    loss: str = "cross_entropy"
    class_weight: str | None = None
    label_smoothing: float = 0.0
    balance: str | None = None
    augment: str | Augmenter | None = None
    validation: float = 0.2
    early_stopping: int = 0
    restore_best: bool = False
    precision: str = "float32"
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self):
        def expect(good, field, what):
            if not good:
                raise InputError(f"{field} of a recipe must be {what}, not {getattr(self, field)!r}")

        for field in ("epochs", "repeat", "batch_size", "cycles", "patience", "accumulate"):
            expect(_whole(getattr(self, field)) and getattr(self, field) >= 1, field, "a whole number of at least 1")
        for field in ("early_stopping", "seed"):
            expect(_whole(getattr(self, field)) and getattr(self, field) >= 0, field, "a whole number of at least 0")
        expect(isinstance(self.deterministic, bool), "deterministic", "True or False")
        expect(self.optimizer in OPTIMIZERS, "optimizer", f"one of {', '.join(OPTIMIZERS)}")
        expect(self.schedule in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}")
        expect(_number(self.learning_rate) and self.learning_rate > 0, "learning_rate", "a finite number above 0")
        for field in ("weight_decay", "l1", "l2", "sam"):
            expect(_number(getattr(self, field)) and getattr(self, field) >= 0, field, "a finite number of at least 0")
        expect(self.clip is None or (_number(self.clip) and self.clip > 0), "clip", "None, or a finite number above 0")
        for field in ("rates", "decays"):
            if getattr(self, field) is not None:
                check_multiples(getattr(self, field), field)
        expect(self.decays is None or self.weight_decay, "decays", "None without weight_decay")
        losses.named(self.loss)
        rules = (None, *CLASS_WEIGHTS)
        expect(self.class_weight in rules, "class_weight", f"one of {', '.join(map(str, rules))}")
        known = (None, *PRESETS)
        good = isinstance(self.augment, Augmenter) or self.augment in known
        expect(good, "augment", f"one of {', '.join(map(str, known))}, or an Augmenter")
        expect(self.balance in BALANCES, "balance", f"one of {', '.join(map(str, BALANCES))}")
        expect(self.precision in PRECISIONS, "precision", f"one of {', '.join(PRECISIONS)}")
        for field in ("warmup", "ema", "label_smoothing", "validation"):
            expect(_number(getattr(self, field)) and 0 <= getattr(self, field) < 1, field, "at least 0 and below 1")
        expect(self.optimizer != "adam" or not self.weight_decay, "weight_decay", "0 with 'adam' (use 'adamw')")
        climbs = self.schedule in ("cosine", "one_cycle")
        expect(climbs or not self.warmup, "warmup", f"0 with the schedule {self.schedule!r}")
        expect(not (self.sam and self.precision == "float16"), "precision", "float32 or bfloat16 with sam")

    def replace(self, **changes) -> "Recipe":
        """The recipe with some fields changed.

        Raises:
            InputError: An unknown field, with the nearest known one, or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for field in changes:
            if field not in known:
                close = difflib.get_close_matches(field, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise InputError(f"a recipe has no field {field!r}{hint} (it has: {', '.join(known)})")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {key: value.describe() if isinstance(value, Augmenter) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict) -> "Recipe":
        """The reverse of `to_dict`."""
        if isinstance(values.get("augment"), dict):
            values = {**values, "augment": Augmenter.of(values["augment"])}
        return cls().replace(**values)

    def changes_since(self, kept: dict) -> dict[str, str]:
        """What is otherwise than in a recipe that was kept by `to_dict`, in words by field. A field that it lacks had its default then."""
        before, now = (json.loads(json.dumps(recipe.to_dict())) for recipe in (Recipe.from_dict(kept), self))
        return {
            field: f"{field} was {before[field]!r} and is {now[field]!r}"
            for field in now
            if before[field] != now[field]
        }

    def make_optimizer(self, steps_per_epoch: int, model: keras.Model | None = None) -> keras.optimizers.Optimizer:
        """A new Keras optimizer; its schedule depends on nothing but its own step counter, which a resumed run restores.

        Args:
            steps_per_epoch: Steps of an epoch.
            model: What it is for; its stages are asked where the recipe has `rates` or `decays`.

        Raises:
            InputError: The model has no such stage.
        """
        rate, steps = float(self.learning_rate), self.epochs * steps_per_epoch
        if self.schedule == "one_cycle":
            rate = OneCycle(rate, steps, self.warmup or 0.3)
        elif self.schedule == "restarts":
            rate = restarts(rate, steps, self.cycles)
        elif self.schedule == "cosine":
            climb = round(self.warmup * steps)
            rate = keras.optimizers.schedules.CosineDecay(
                0.0 if climb else rate, max(1, steps - climb), warmup_target=rate if climb else None, warmup_steps=climb
            )
        settings = {"momentum": 0.9, "nesterov": True} if self.optimizer == "sgd" else {}
        if self.weight_decay:
            settings["weight_decay"] = self.weight_decay
        if self.ema:
            # Keras takes the average at each batch, also at those that only accumulate.
            settings |= {"use_ema": True, "ema_momentum": self.ema ** (1 / self.accumulate)}
        if self.clip:
            settings["global_clipnorm"] = self.clip
        if self.accumulate > 1:
            settings["gradient_accumulation_steps"] = self.accumulate
        optimizer = OPTIMIZERS[self.optimizer](rate, **settings)
        if self.rates is None and self.decays is None:
            return optimizer
        return LayerWise(optimizer, self.rates or {}, self.decays, model)


def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        # The course's run: Adam, batches of 512, 20 % of 60,000 images held out, so 94 steps an epoch.
        Recipe("lecture", epochs=20, batch_size=512, optimizer="adam", learning_rate=1e-3, validation=0.2),
        # What reached the highest validation accuracy on MNIST with the lecture's net in about a minute and a half on two cores.
        Recipe(
            "best", epochs=20, batch_size=128, optimizer="adamw", learning_rate=4e-3, schedule="cosine", warmup=0.1,
            weight_decay=0.05, augment="digits", validation=0.1,
        ),
        # A few hundred photographs, from a net that knows ImageNet, for `fine_tune`: the head alone at 1e-2, then 1e-3 for it and 1e-4 for the
        # trunk, since SqueezeNet, which has no BatchNorm, forgets at 1e-3 (benchmarks/hymenoptera.py; chosen on a part of its training images).
        Recipe(
            "transfer", epochs=20, batch_size=16, optimizer="adamw", learning_rate=1e-2, schedule="cosine", warmup=0.1, weight_decay=0.01,
            rates={"stem": 0.003, "stages": 0.01, "head": 0.1}, augment="natural", restore_best=True,
        ),
        # ResNets for 32 x 32 pixels, after section 4.2 of He et al. 2016: 45,000 images of CIFAR-10, 64,000 steps; but with a cosine instead of two
        # falls of the rate, Nesterov momentum, and shifts by fractions of a pixel. This project has not trained by it to the end.
        Recipe(
            "cifar", epochs=182, batch_size=128, optimizer="sgd", learning_rate=0.1, schedule="cosine", warmup=0.01, weight_decay=1e-4,
            augment=Augmenter((flip(), translate(0.125))), validation=0.1,
        ),
        # Street scenes from a few hundred photographs: half way to balanced, since a pole is a hundred times rarer than the road.
        Recipe(
            "camvid", epochs=100, batch_size=8, optimizer="adamw", learning_rate=1e-3, schedule="cosine", warmup=0.02, weight_decay=1e-4,
            class_weight="square_root", augment=Augmenter(
                (flip(), scale(0.5, 1.5), crop(240, 320), brightness(0.15), contrast(0.25), saturation(0.3)), ignore=11
            ), restore_best=True,
        ),
        # Membranes from two dozen slices: any turn, and tissue gives way; what one slice becomes in ten passes counts as one epoch.
        Recipe(
            "isbi2012", epochs=12, repeat=10, batch_size=4, optimizer="adamw", learning_rate=2e-3, schedule="cosine", warmup=0.04,
            weight_decay=1e-4, class_weight="balanced", validation=0, augment=Augmenter(
                (flip(True, True), turn(), rotate(45), scale(0.8, 1.25), elastic(0.02), crop(256, 256), brightness(0.12), contrast(0.25)),
                border="reflect",
            ),
        ),
    )
}  # fmt: skip


def recipe(name: str | Recipe, **changes) -> Recipe:
    """A recipe by name, with some fields changed: `recipe("lecture", epochs=5)`.

    Raises:
        InputError: There is none of that name, it is neither a name nor a `Recipe`, or a change does not fit.
    """
    if isinstance(name, str):
        if name not in RECIPES:
            raise InputError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}, or make a Recipe(...)")
        name = RECIPES[name]
    if not isinstance(name, Recipe):
        raise InputError(f"a recipe is a name ({', '.join(RECIPES)}) or a Recipe(...), not {type(name).__name__}")
    return name.replace(**changes)
