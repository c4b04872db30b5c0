"""Malaria cells, split at random and by patients: how much of a score is knowing the patient.

    python benchmarks/malaria.py --data malaria.npz --out runs/malaria

The file holds `images` (n, height, width), `parasitized` (n,) and `file_names` (n,) of NIH's cells; the patient is told by the file name
(`C33P1thinF_IMG_...` is of C33). LeNet with ReLU is trained on four fifths and tested on the fifth, five times in turn, twice: with folds
of cells drawn at random, and with folds of whole patients. Recipe, seeds and sizes are the same, nothing is chosen on the tested cells, and
each cell is tested once either way, so that the two answers to the same cell can be compared. Intervals are of a bootstrap over patients, since
cells of one patient resemble each other. What is there already is not trained again, and a training that was stopped goes on.
"""

import argparse
import dataclasses
import functools
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from folds import trained

import cnn_zoo
from cnn_zoo.augment import Augmenter, flip, turn
from cnn_zoo.data import k_fold
from cnn_zoo.data.splits import group_names
from cnn_zoo.files import replacing

NET = "lenet_relu"
# Some names begin with their class. The rule "names" finds 201 groups: one of the 200 patients was photographed with two cameras.
PATIENT = r"^(?:Parasitized|Uninfected)?(C[0-9]+)"
# Cells have no upright: any flip and quarter turn is another cell. The rest is this package's usual small recipe, not tuned on these cells.
RECIPE = cnn_zoo.Recipe(
    "malaria", epochs=20, batch_size=128, optimizer="adamw", learning_rate=2e-3, schedule="cosine", warmup=0.1, weight_decay=0.01,
    validation=0, augment=Augmenter((flip(True, True), turn())),
)  # fmt: skip
RESAMPLES = 10_000


def cells(path):
    """The cells as `Data`, with their patients as groups."""
    with np.load(path) as file:
        images, labels, names = file["images"], file["parasitized"], file["file_names"]
    return cnn_zoo.Data.from_arrays(
        images, labels, classes=["uninfected", "parasitized"], name="malaria", names=names, groups=group_names(names, PATIENT)
    )  # fmt: skip


def tested_once(splits, folds, recipe, out):
    """Whether each image is classified rightly by a net that has not seen it, and the accuracy of each fold.

    Args:
        splits: Names to `Data` of the same images; folds are of groups where a `Data` has groups. They take turns.
        folds: How many.
        recipe: Of all of them; fold k has its seed plus k.
        out: Folder of the runs.

    Returns:
        Of each split `(n,)` bool in the order of `data.train`, and a list.
    """
    right = {name: np.zeros(len(data.train), bool) for name, data in splits.items()}
    single = {name: [] for name in splits}
    for k, turn_of in enumerate(zip(*(k_fold(data, folds) for data in splits.values()))):
        for name, fold in zip(splits, turn_of):
            held, row = fold.validation, {image: i for i, image in enumerate(splits[name].train.names)}
            run = out / name.replace(" ", "_") / f"fold{k}"
            build = functools.partial(cnn_zoo.build, NET, classes=2, input_size=fold.train.images.shape[1:3])
            model = trained(
                build, dataclasses.replace(fold, validation=None), recipe.replace(seed=recipe.seed + k), run
            )
            answers = cnn_zoo.evaluate(model, held, classes=fold.classes)
            right[name][[row[image] for image in held.names]] = answers.probabilities.argmax(-1) == held.labels
            single[name].append(answers.accuracy)
            sizes = f"{len(fold.train):,} cells trained on, {len(held):,} tested"
            print(f"fold {k}, {name}: {sizes}, accuracy {answers.accuracy:.4f}", flush=True)
    return right, single


def bootstrap(values, groups, seed=0):
    """95 % interval of the mean of `values`, by drawing whole groups with replacement."""
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(0, len(counts), (RESAMPLES, len(counts)))
    return np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), (2.5, 97.5)).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/malaria"))
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs)
    parser.add_argument("--folds", type=int, default=5)
    arguments = parser.parse_args()

    by_patient, recipe = cells(arguments.data), RECIPE.replace(epochs=arguments.epochs)
    patients = by_patient.train.groups
    at_random = dataclasses.replace(by_patient, train=dataclasses.replace(by_patient.train, groups=None))
    print(f"{len(patients):,} cells of {len(np.unique(patients))} patients; {NET}, {recipe.epochs} epochs", flush=True)
    splits = {"at random": at_random, "by patients": by_patient}
    right, single = tested_once(splits, arguments.folds, recipe, arguments.out)
    scores = {
        name: {
            "accuracy": right[name].mean(),
            "interval_by_patients": bootstrap(right[name], patients),
            "folds": single[name],
        }
        for name in splits
    }
    gap = right["at random"].astype(float) - right["by patients"]
    scores["difference"] = {"accuracy": gap.mean(), "interval_by_patients": bootstrap(gap, patients)}
    print(f"\n{'split':12}  accuracy  95 % interval, by patients  folds: mean, deviation, lowest to highest")
    for name, row in scores.items():
        low, high = row["interval_by_patients"]
        text = f"{name:12}  {row['accuracy']:8.4f}  {low:11.4f} to {high:.4f}"
        if folds := row.get("folds"):
            text += f"          {np.mean(folds):.4f}, {np.std(folds, ddof=1):.4f}, {min(folds):.4f} to {max(folds):.4f}"
        print(text)
    infected = np.array([by_patient.train.labels[patients == patient].mean() for patient in np.unique(patients)])
    known = np.average(np.maximum(infected, 1 - infected), weights=np.unique(patients, return_counts=True)[1])
    print(
        f"\nWhoever knew nothing but the patient and said what most of the patient's cells are would be right in {known:.1%}."
    )
    if scores["difference"]["interval_by_patients"][0] > 0:
        print(
            "Split at random, most tested cells have neighbours from the same slide among the training cells, with the same stain, light and\n"
            "focus and the same share of infected cells: the net knows the patient by them, as it cannot know the next patient."
        )
    elif scores["difference"]["interval_by_patients"][1] < 0:
        print(
            "The split by patients scores higher, which no leak explains: train longer, or with other seeds, before comparing."
        )
    else:
        print("The difference between the splits cannot be told from none.")
    with replacing(arguments.out / "scores.json") as path:
        path.write_text(json.dumps({"net": NET, "recipe": recipe.to_dict(), **scores}, indent=2))


if __name__ == "__main__":
    main()
