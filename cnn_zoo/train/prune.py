"""`prune`: the smallest weights of a trained net become 0, step by step, and the others are trained on.

What is pruned are the kernels of dense layers and convolutions, the last layer's too; biases, normalisation and depthwise kernels, which are few
(Zhu & Gupta 2017 leave those of MobileNet out likewise), stay whole.
"""

import gzip
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import keras
import numpy as np
from keras import layers as L
from keras import ops
from safetensors.numpy import save as safetensors_bytes

from cnn_zoo import plots
from cnn_zoo.data import Data
from cnn_zoo.errors import InputError
from cnn_zoo.files import replacing
from cnn_zoo.train.evaluate import evaluate
from cnn_zoo.train.fit import fit
from cnn_zoo.train.recipe import Recipe
from cnn_zoo.train.recipe import recipe as find_recipe
from cnn_zoo.train.run import Run, check_new, join_runs, write_text

SCOPES = ("global", "layer")
KERNELS = ("kernel", "pointwise_kernel")
DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)


@dataclass(frozen=True)
class PruningReport:
    """What pruning did to a net.

    Attributes:
        score: "accuracy", or of masks "mean_iou".
        part: The images it was measured on: "test", or where there are none "validation".
        before, pruned, tuned: The score of the net as it came; with all its pruned weights at 0 at once, not trained any further; and in the end.
        layers: For each pruned kernel its name, weights and zeros.
        weights, zeros: Of the whole net, with all that is never pruned.
        bytes: Of the weights as a safetensors file, measured: "dense", and compressed by gzip "before" and "after".
    """

    score: str
    part: str
    before: float
    pruned: float
    tuned: float
    layers: tuple[dict, ...]
    weights: int
    zeros: int
    bytes: dict

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {**vars(self), "layers": list(self.layers)}

    def __str__(self):
        wide = max(len("whole net"), *(len(row["name"]) for row in self.layers))
        lines = [f"{'kernel':{wide}}  {'weights':>12}  {'zeros':>12}   share"]
        for row in (*self.layers, {"name": "whole net", "weights": self.weights, "zeros": self.zeros}):
            share = row["zeros"] / row["weights"]
            lines.append(f"{row['name']:{wide}}  {row['weights']:12,}  {row['zeros']:12,}  {share:6.1%}")
        dense, before, after = (self.bytes[key] for key in ("dense", "before", "after"))
        return "\n".join(
            [
                *lines,
                f"{self.score.replace('_', ' ')} ({self.part}): {self.before:.4f} before, {self.pruned:.4f} pruned, {self.tuned:.4f} trained on",
                f"file: {dense:,} bytes; compressed {before:,} before, {after:,} pruned: {before / after:.1f} times smaller",
            ]
        )

    def plot(self, save=None) -> plots.Picture:
        """What is left of each kernel, and what it did to the score and the file.

        Args:
            save: PNG file to write.
        """
        figure = plots.Picture(figsize=(11, max(3, 0.26 * len(self.layers) + 1.2)), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(2, 1, 1))
        names = [row["name"] for row in self.layers]
        left.barh(names, [1 - row["zeros"] / row["weights"] for row in self.layers], color=plots.TRAINING)
        left.invert_yaxis()
        left.set(title="Weights that are left", xlim=(0, 1), xlabel="share of the kernel")
        middle.bar(
            ("before", "pruned", "trained on"), (self.before, self.pruned, self.tuned), color=["#8a94a0", plots.VALIDATION, plots.TRAINING]
        )  # fmt: skip
        middle.set(title=f"{self.score.replace('_', ' ')} ({self.part})", ylim=(0, 1))
        sizes = [self.bytes[key] / 1e3 for key in ("dense", "before", "after")]
        right.bar(("dense", "gzip before", "gzip pruned"), sizes, color=["#8a94a0", plots.VALIDATION, plots.TRAINING])
        right.set(title="File", ylabel="kB")
        for axes in (left, middle, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
        return plots.finish(figure, save)


@dataclass(frozen=True)
class Pruned:
    """What `prune` gives: the model, its run, and the report."""

    model: keras.Model
    run: Run
    report: PruningReport


def prune(
    model: keras.Model,
    data: Data,
    recipe: str | Recipe = "best",
    *,
    sparsity: float = 0.7,
    scope: str = "global",
    steps: int = 3,
    skip=(),
    loss: keras.losses.Loss | None = None,
    run=None,
    resume: bool = False,
    callbacks=(),
    verbose="auto",
    about: dict | None = None,
) -> Pruned:
    """Set the smallest weights of a trained model to 0 and train on with the others, which makes up for most of the loss.

    In each step the weights of smallest magnitude are pruned and stay 0 to the last bit while the others are trained by a `fit` of its own; the
    sparsity of step t of n is `sparsity * (1 - (1 - t / n)^3)`, so most is pruned early, when there is much to spare. What is pruned never grows
    again. The model in the end is an ordinary one, to be saved and exported as any other; a later `fit` knows nothing of its zeros.

    Args:
        model: A trained classifier or segmenter; it is changed.
        data: As for `fit`. The scores are of its test images, or else of those of validation.
        recipe: As for `fit`; its `epochs` are those of all steps together, and its schedule runs once a step. A tenth of the learning rate that
            the model was trained with is a good start. With `ema`, the averages are masked at the end of each step.
        sparsity: Share of the prunable weights that become 0, between 0 and 1.
        scope: "global": the smallest weights of all kernels together; or "layer": the same share of each kernel.
        steps: How many, at least 1 (all at once) and at most the recipe's epochs.
        skip: Names of layers to leave whole, such as the last.
        loss, callbacks, verbose, about: As for `fit`.
        run: The folder. It has a run folder for each step, `1-42%`, ..., and, of the whole, the files of any run folder, `masks.npz` of the step
            that it is in, and `pruning.json`, the report.
        resume: Go on with the run in that folder: with the step that it was in, from its last whole epoch. It ends with the same weights.

    Raises:
        InputError: Nothing to prune or to measure on, a kernel that would lose all its weights, or as for `fit`.
        StorageError, TrainingStopped: As for `fit`.

    Source: Han et al. 2015, "Learning both weights and connections for efficient neural networks", section 3 (prune and train on, in turn);
    Zhu & Gupta 2017, "To prune, or not to prune", equation 1 (how much when).
    """
    recipe = find_recipe(recipe)
    kernels = _kernels(model, skip)
    _check(sparsity, scope, steps, recipe, data)
    if data.validation is None and recipe.validation:
        data = data.split(recipe.validation, recipe.seed)
    part = "validation" if data.test is None else "test"
    if (images := getattr(data, part)) is None:
        raise InputError("there are no test images and the recipe holds none out: pruning is judged by one of them")
    folder = Path(run or Path("runs") / f"{model.name}-pruned-{datetime.now():%Y%m%d-%H%M%S}")
    settings = {"sparsity": sparsity, "scope": scope, "steps": steps, "skip": list(skip), "recipe": recipe.to_dict()}

    def score():
        found = evaluate(model, images, classes=data.classes, ignore=data.ignore)
        return float(found.mean_iou if images.has_masks else found.accuracy)

    begun = resume and (folder / "pruning.json").is_file()
    if begun:
        start = _started(folder, settings)
    else:
        if not resume:
            check_new(folder)
        start = {"settings": settings, "part": part, "before": score(), "bytes": _sizes(model)}
        whole = [np.array(ops.convert_to_numpy(kernel)) for _, kernel in kernels]
        _apply(kernels, _masks(kernels, sparsity, scope))
        start["pruned"] = score()
        for (_, kernel), value in zip(kernels, whole):
            kernel.assign(value)
        write_text(folder / "pruning.json", json.dumps(start, indent=2))

    runs = []
    for t in range(1, steps + 1):
        share = sparsity * (1 - (1 - t / steps) ** 3)
        phase = folder / f"{t}-{share:.0%}"
        going = begun and (phase / "run.json").is_file()
        if begun and not going:
            shutil.rmtree(phase, ignore_errors=True)  # killed before its first file was whole
        kept_masks = folder / f"masks-{t}.npz"
        # Kept before the step begins: when it is resumed, the weights that they were made from are gone.
        masks = _read_masks(kept_masks) if going else _masks(kernels, share, scope)
        if not going:
            with replacing(kept_masks) as aside:
                np.savez_compressed(aside, **{f"m{i}": mask for i, mask in enumerate(masks)})
        _apply(kernels, masks)
        epochs = recipe.epochs // steps + (t <= recipe.epochs % steps)
        if verbose:
            print(f"step {t} of {steps}: {share:.1%} of the prunable weights are 0, {epochs} epochs")
        with _held(kernels, masks):
            runs.append(
                fit(
                    model, data, recipe.replace(epochs=epochs), loss=loss, run=phase, resume=going, callbacks=callbacks, verbose=verbose,
                    about={**(about or {}), "prune": settings},
                )
            )  # fmt: skip
        _apply(kernels, masks)  # averages of weights are taken before Keras masks them
    report = PruningReport(
        score="mean_iou" if images.has_masks else "accuracy",
        part=part,
        before=start["before"],
        pruned=start["pruned"],
        tuned=score(),
        layers=tuple(_row(name, kernel) for name, kernel in kernels),
        weights=int(sum(np.prod(v.shape) for v in model.weights)),
        zeros=int(sum((ops.convert_to_numpy(v) == 0).sum() for v in model.weights)),
        bytes={**start["bytes"], "after": _sizes(model)["before"]},
    )
    with replacing(folder / "best.keras") as aside:
        model.save(aside)
    write_text(folder / "pruning.json", json.dumps({**start, "report": report.to_dict()}, indent=2))
    return Pruned(model, join_runs(folder, runs, runs[-1], settings["recipe"]), report)


def _kernels(model, skip):
    """(name, variable) of all that may be pruned."""
    layers = list(_flat(model))
    unknown = [name for name in skip if name not in {layer.name for layer in layers}]
    if isinstance(skip, str) or unknown:
        raise InputError(f"skip is a list of names of layers, and {model.name!r} has no {(unknown or [skip])[0]!r}")
    whole = {id(v) for layer in layers if isinstance(layer, DEPTHWISE) or layer.name in skip for v in layer.weights}
    found = [
        (v.path.rpartition("/")[0] or v.path, v) for v in model.weights if v.name in KERNELS and id(v) not in whole
    ]
    if not found:
        raise InputError(f"{model.name!r} has no kernel of a dense layer or convolution that could be pruned")
    return found


def _flat(model):
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _flat(layer)


def _masks(kernels, share, scope):
    """Of each kernel which weights stay: all but that share of the smallest magnitudes."""
    sizes = [np.abs(ops.convert_to_numpy(kernel)) for _, kernel in kernels]
    if scope == "layer":
        masks = [_largest(size.ravel(), share).reshape(size.shape) for size in sizes]
    else:
        together = _largest(np.concatenate([size.ravel() for size in sizes]), share)
        ends = np.cumsum([size.size for size in sizes])[:-1]
        masks = [part.reshape(size.shape) for part, size in zip(np.split(together, ends), sizes)]
    for (name, _), mask in zip(kernels, masks):
        if not mask.any():
            raise InputError(
                f"{share:.1%} would take all weights of {name!r}, and nothing would pass it: take a lower sparsity or scope='layer'"
            )
    return masks


def _largest(sizes, share):
    """Exactly round(share * n) are not among the largest; of equal ones the first are left out."""
    count = round(share * len(sizes))
    if not count:
        return np.ones(len(sizes), bool)
    bound = np.partition(sizes, count - 1)[count - 1]
    mask = sizes > bound
    equal = np.flatnonzero(sizes == bound)
    mask[equal[count - np.count_nonzero(sizes < bound) :]] = True
    return mask


def _apply(kernels, masks):
    for (_, kernel), mask in zip(kernels, masks):
        kernel.assign(np.where(mask, ops.convert_to_numpy(kernel), np.float32(0)))


@contextmanager
def _held(kernels, masks):
    """Within it every optimizer's step ends with 0 at what is masked, by Keras' constraints of variables, on every backend."""
    before = [kernel.constraint for _, kernel in kernels]
    try:
        for (_, kernel), mask, own in zip(kernels, masks, before):
            kernel.constraint = _Mask(mask, own)
        yield
    finally:
        for (_, kernel), own in zip(kernels, before):
            kernel.constraint = own


class _Mask(keras.constraints.Constraint):
    """0 where the mask is False; elsewhere what the kernel's own constraint says."""

    def __init__(self, mask, own):
        self.mask, self.own = ops.convert_to_tensor(mask), own

    def __call__(self, w):
        w = ops.convert_to_tensor(w if self.own is None else self.own(w))
        return ops.where(self.mask, w, ops.zeros_like(w))


def _sizes(model):
    """Bytes of the weights as a safetensors file, plain and compressed."""
    arrays = {f"{i}/{v.path}": np.ascontiguousarray(ops.convert_to_numpy(v)) for i, v in enumerate(model.weights)}
    plain = safetensors_bytes(arrays)
    return {"dense": len(plain), "before": len(gzip.compress(plain, 6, mtime=0))}


def _row(name, kernel):
    values = ops.convert_to_numpy(kernel)
    return {"name": name, "weights": int(values.size), "zeros": int((values == 0).sum())}


def _read_masks(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[f"m{i}"] for i in range(len(file.files))]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{str(path)!r} is missing or damaged ({error}): start again without resume") from error


def _started(folder, settings):
    """What was measured before the first step, after checking that it is the same pruning."""
    try:
        start = json.loads((folder / "pruning.json").read_text())
        before, now = start["settings"], json.loads(json.dumps(settings))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{str(folder / 'pruning.json')!r} is damaged ({error}): start again without resume"
        ) from error
    changed = [*Recipe.from_dict(now.pop("recipe")).changes_since(before["recipe"]).values()]
    changed += [f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in now if before.get(key) != now[key]]
    if changed:
        raise InputError(
            f"cannot resume {str(folder)!r}, since it was started with other settings: {'; '.join(changed)}"
        )
    return start


def _check(sparsity, scope, steps, recipe, data):
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 < sparsity < 1:
        raise InputError(f"sparsity is a share of the weights, above 0 and below 1, such as 0.7, not {sparsity!r}")
    if scope not in SCOPES:
        raise InputError(f"scope is one of {', '.join(SCOPES)}, not {scope!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= recipe.epochs:
        raise InputError(f"steps is a whole number from 1 to the recipe's {recipe.epochs} epochs, not {steps!r}")
    if not isinstance(data, Data):
        raise InputError(f"pruning needs a Data (of cnn_zoo.load or Data.from_arrays), not {type(data).__name__}")
