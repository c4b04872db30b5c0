"""Ants and bees: what fine-tuning is worth against training from scratch, in colour and in gray.

    python benchmarks/hymenoptera.py --data hymenoptera --weights squeezenet1_1.onnx --out runs/hymenoptera

The folder is that of PyTorch's tutorial on transfer learning, `train` and `val` with 244 and 153 photographs; the weights are SqueezeNet 1.1's of
ImageNet (a file that `cnn-zoo weights import` reads, or `imagenet`). All three runs have the same recipe, "transfer", seed, images and number of
epochs; from scratch there is nothing to keep, so all layers learn at one rate. The settings were chosen on parts of the training images; `val`
decides nothing but the epoch whose weights are kept, as in the tutorial, and the column "last epoch" is without that choice. The photographs are
from ImageNet, some perhaps among those that the weights were trained on. What is there already is not trained again, and a training that was
stopped goes on.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import cnn_zoo
from cnn_zoo.data import from_folder
from cnn_zoo.errors import InputError
from cnn_zoo.files import replacing
from cnn_zoo.train import fine_tune

SIZE = 224
SCRATCH = 1e-3  # learning rate from scratch, as usual for AdamW


def photographs(folder, channels):
    """The folder as `Data` whose images are in memory: each is read once instead of once an epoch."""
    data = from_folder(folder, size=SIZE, how="short_side_crop", channels=channels, groups=False)
    splits = [
        cnn_zoo.Split(np.asarray(part.images[np.arange(len(part))]), part.labels)
        for part in (data.train, data.validation)
    ]
    return cnn_zoo.Data("hymenoptera", *splits, None, data.classes, data.source)


def trained(name, data, weights, recipe, out):
    """The scores of one run, trained now or before."""
    run, card = out / name.replace(", ", "-").replace(" ", "-"), out / f"{name}.json"
    if card.is_file():
        return json.loads(card.read_text())
    keras.utils.set_random_seed(recipe.seed)
    channels = data.train.images.shape[-1]
    model = cnn_zoo.build_classifier(
        "squeezenet1_1", len(data.classes), weights=weights, input_size=SIZE, channels=channels
    )
    resume = (run / "1-head" / "run.json").is_file() or (run / "run.json").is_file()
    wall, cpu = time.perf_counter(), time.process_time()
    if weights is None:
        finished = cnn_zoo.fit(model, data, recipe.replace(rates=None, learning_rate=SCRATCH), run=run, resume=resume)
    else:
        finished = fine_tune(model, data, recipe, run=run, resume=resume)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = cnn_zoo.evaluate(model, data.validation, classes=data.classes)
    scores = {
        "accuracy": found.accuracy, "interval": found.interval, "last_epoch": finished.rows[-1]["val_accuracy"], "epochs": len(finished.rows),
        "cpu_seconds": round(cpu), "wall_seconds": round(wall), "resumed": resume,
    }  # fmt: skip
    with replacing(card) as aside:
        aside.write_text(json.dumps(scores))
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with train and val")
    parser.add_argument("--weights", default="imagenet", help="of SqueezeNet 1.1: a file, or imagenet")
    parser.add_argument("--out", type=Path, default=Path("runs/hymenoptera"))
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--json", action="store_true", help="print JSON at the end")
    options = parser.parse_args()
    recipe = cnn_zoo.recipe("transfer", **({"epochs": options.epochs} if options.epochs else {}))
    colour, gray = photographs(options.data, 3), photographs(options.data, 1)
    runs = {
        "fine-tuned": (colour, options.weights),
        "from scratch": (colour, None),
        "gray, fine-tuned": (gray, options.weights),
    }
    results = {name: trained(name, data, weights, recipe, options.out) for name, (data, weights) in runs.items()}
    if options.json:
        return print(json.dumps(results))
    print("| SqueezeNet 1.1 | val accuracy (95 %) | last epoch | CPU s | wall s |\n|---|---|---|---|---|")
    for name, r in results.items():
        interval = f"{r['interval'][0]:.3f} to {r['interval'][1]:.3f}"
        print(
            f"| {name} | {r['accuracy']:.3f} ({interval}) | {r['last_epoch']:.3f} | {r['cpu_seconds']} | {r['wall_seconds']} |"
        )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
