"""Membranes of the ISBI 2012 challenge: five nets, each tested on the six neighbouring slices that it has not seen.

    python benchmarks/isbi2012.py --data-dir FOLDER --out runs/isbi2012      (FOLDER holds isbi2012.zip or isbi2012/)

Prints the challenge's scores (foreground-restricted V_rand and V_info after thinning, pixel error), each the mean over the held-out slices at
the best threshold of all thirty, and draws two slices. The challenge's own test labels are not public, so these are not its leader board's
numbers. Blocks of neighbours are held out together because a slice resembles the next one. What is there already is not trained again, and a
training that was stopped goes on.
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
from cnn_zoo.files import replacing
from cnn_zoo.rand_scores import best_scores, membrane_scores

FOLDS = 5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, default=Path("runs/isbi2012"))
    parser.add_argument("--width", type=int, default=16, help="maps of the U-Net's first step")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--folds", type=int, default=FOLDS, help="train only the first so many")
    arguments = parser.parse_args()

    whole = cnn_zoo.load("isbi2012", data_dir=arguments.data_dir)
    images, masks = (
        np.concatenate([getattr(split, part) for split in (whole.train, whole.test)]) for part in ("images", "labels")
    )
    recipe = cnn_zoo.recipe("isbi2012", **({"epochs": arguments.epochs} if arguments.epochs else {}))
    fold = np.arange(len(images)) * FOLDS // len(images)
    cells, held, seconds = np.zeros(masks.shape, "float32"), np.zeros(len(images), bool), 0.0
    for k in range(arguments.folds):
        run = arguments.out / f"fold{k}"
        data = dataclasses.replace(whole, train=cnn_zoo.Split(images[fold != k], masks[fold != k]), test=None)
        build = functools.partial(cnn_zoo.build_unet, 2, width=arguments.width, channels=1)
        model = trained(build, data, recipe, run)
        seconds += cnn_zoo.Run.load(run).seconds
        found = cnn_zoo.predict_mask(model, images[fold == k], tta=("flip", "rotate"), batch_size=1, probabilities=True)
        cells[fold == k], held = np.stack(found.probabilities)[..., 0], held | (fold == k)
        one = best_scores(membrane_scores(masks[fold == k] == 0, cells[fold == k]))
        print(
            f"fold {k}: V_rand {one['v_rand']:.4f}  V_info {one['v_info']:.4f}  pixel error {one['pixel_error']:.4f}",
            flush=True,
        )

    truth, cells = masks[held] == 0, cells[held]
    rows = membrane_scores(truth, cells)
    best = best_scores(rows)
    single = [membrane_scores(t, c, (best["v_rand_threshold"],))[0]["v_rand"] for t, c in zip(truth, cells)]
    print(f"\n{held.sum()} slices, {seconds:.0f} s of training")
    for name in ("v_rand", "v_info", "pixel_error"):
        print(f"{name:12} {best[name]:.4f}  (threshold {best[f'{name}_threshold']})")
    print(f"V_rand of single slices: {min(single):.4f} to {max(single):.4f}")
    with replacing(arguments.out / "scores.json") as path:
        path.write_text(
            json.dumps({"best": best, "rows": rows, "slices": single, "recipe": recipe.to_dict()}, indent=2)
        )
    shown = np.flatnonzero(held)[[0, -1]]
    picture = arguments.out / "membranes.png"
    answers = (cells[[0, -1]] <= best["v_rand_threshold"]).astype("uint8")
    palette = cnn_zoo.Palette.of(whole.classes)
    cnn_zoo.mask_plots.side_by_side(images[shown], answers, masks[shown], palette, save=picture)
    print(f"{arguments.out / 'scores.json'} and {picture}")


if __name__ == "__main__":
    main()
