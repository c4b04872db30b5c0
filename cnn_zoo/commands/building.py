"""What several commands begin with: the package, and a model with data that fit it."""

import importlib
import os
from pathlib import Path


def quiet_zoo():
    """The package, imported without the notes that TensorFlow writes to file descriptor 2 while it loads."""
    import cnn_zoo as zoo

    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        importlib.import_module("cnn_zoo.assemble")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    return zoo


def model_and_data(model: str, data: str, data_dir, given: dict, weights: str | None = None):
    """A model and a `Data` for it.

    Args:
        model: A net as `cnn-zoo train` takes it, built for the data; or a .keras file or a run folder.
        data: What `open_data` takes.
        data_dir: Folder of data by name.
        given: More options of `open_data`, as `values.data_options` gives them; without a size images come to that of the model.
        weights: Of a net: a tag or a file to start from.
    """
    zoo = quiet_zoo()
    from cnn_zoo.commands import values
    from cnn_zoo.data.opening import TAKES, kind_of

    built = zoo.load_model(model)[0] if Path(model).exists() else None
    known = built is None and ":" not in model and model in zoo.SPECS
    size = built.input_shape[1:3] if built is not None else zoo.SPECS[model].size if known else (None, None)
    if None not in size and "size" in TAKES[kind_of(data, given.get("kind"), given)]:
        given = {"size": list(size), **given}
    loaded = zoo.open_data(data, data_dir=data_dir, **values.read(given))
    if built is None:
        shape = loaded.train.images.shape[1:]
        settings = {"classes": len(loaded.classes), "channels": shape[-1], "weights": weights}
        built = zoo.build(model, input_size=shape[:2], **settings) if known else zoo.build_named(model, **settings)
    return built, loaded
