"""What several commands begin with: the package, a model with data that fit it, and what lies in a run folder."""

import importlib
import os
from pathlib import Path

from cnn_zoo.errors import InputError


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


def with_size(net: str, data: str, given: dict) -> dict:
    """Options of `open_data`, with the size of a classifier where none is given and the data can be brought to one."""
    from cnn_zoo import segmenting
    from cnn_zoo.registry import get_spec

    return given if segmenting.is_named(net) else _with(get_spec(net).size, data, given)


def _with(size, data, given):
    from cnn_zoo.data.opening import TAKES, kind_of

    sized = None not in size and "size" in TAKES[kind_of(data, given.get("kind"), given)]
    return {"size": list(size), **given} if sized else given


def model_and_data(model: str, data: str, data_dir, given: dict, **settings):
    """A model and a `Data` for it.

    Args:
        model: As for `model_for`.
        data: What `open_data` takes.
        data_dir: Folder of data by name.
        given: More options of `open_data`, as `values.with_data` gives them; without a size images come to that of the model.
        **settings: As for `model_for`.
    """
    zoo = quiet_zoo()
    from cnn_zoo.commands import values

    if _on_disk(model):
        built = zoo.load_model(model)[0]
        return built, zoo.open_data(data, data_dir=data_dir, **values.read(_with(built.input_shape[1:3], data, given)))
    loaded = zoo.open_data(data, data_dir=data_dir, **values.read(with_size(model, data, given)))
    return model_for(model, loaded, **settings), loaded


def model_for(model: str, data, **settings):
    """The model of a .keras file or a run folder; or a net as `cnn-zoo train` takes it, built for the images and classes of a `Data`."""
    zoo = quiet_zoo()
    from cnn_zoo import segmenting

    if _on_disk(model):
        return zoo.load_model(model)[0]
    shape = data.train.images.shape[1:]
    if len(shape) != 3:
        raise InputError(
            f"the nets of the zoo take images, (height, width, channels), and these data are {shape}: give fit a model of yours, with "
            "cnn_zoo.data.open_data"
        )
    settings = {"classes": len(data.classes), "channels": shape[-1], **settings}
    if segmenting.is_named(model):
        return zoo.build_named(model, **settings)
    return zoo.build(model, input_size=shape[:2], **settings)


def _on_disk(model):
    """Whether a model is a file or folder; the names of nets are no paths, even where a folder is called so."""
    from cnn_zoo.registry import SPECS
    from cnn_zoo.segmenting import WHOLE

    return model not in SPECS and model not in WHOLE and Path(model).exists()


def trained(source: Path):
    """A trained model, of a run folder, a .keras file or NET:WEIGHTS, and the names of its classes (None where they are not known)."""
    zoo = quiet_zoo()

    net, colon, tag = str(source).rpartition(":")
    if colon and not source.exists() and (net in zoo.SPECS or (net, tag) in zoo.WEIGHTS):
        build = zoo.build if net in zoo.SPECS else zoo.build_named
        return build(net, weights=tag), zoo.weights.find(net, tag).classes
    return zoo.load_model(source)


def run_of(source: Path):
    """The `Run` that a model lies in, or None."""
    from cnn_zoo.train import Run

    folder = source if source.is_dir() else source.parent
    return Run.load(folder) if source.exists() and (folder / "run.json").is_file() else None
