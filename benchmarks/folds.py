"""What benchmarks of several folds share."""

import keras

import cnn_zoo
from cnn_zoo.errors import InputError


def trained(build, data, recipe, run):
    """The net of a fold, trained now, or before in the folder `run`; `build()` makes it, from the recipe's seed."""
    keras.utils.set_random_seed(recipe.seed)
    model = build()
    try:
        status = cnn_zoo.Run.load(run).status
    except InputError:
        status = None
    if status != "finished":
        cnn_zoo.fit(model, data, recipe, run=run, resume=status is not None, verbose=2)
    return cnn_zoo.load_model(run / "last.keras")[0]
