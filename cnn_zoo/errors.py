"""Errors that say what was given, what was expected and what to do next.

Every one is also a class of the standard library, so `except ValueError` catches what a Keras user expects it to catch.
The command line prints the message alone, without a traceback.
"""

import importlib


class ZooError(Exception):
    """Base of all errors that the package raises on purpose."""


class InputError(ZooError, ValueError):
    """An argument, image, array or label that does not fit, with the remedy in the message."""


class DataError(ZooError, ValueError):
    """A data set or file that is missing, unreadable or inconsistent."""


class WeightsError(ZooError, ValueError):
    """Weights that are missing, damaged, or made for another network."""


class ExportError(ZooError, RuntimeError):
    """An export that does not answer as the model does."""


class StorageError(ZooError, OSError):
    """A folder that cannot be written, or a disk that is full. What stood there before still stands."""


class MissingExtraError(ZooError, ImportError):
    """An optional dependency that is not installed; the message names the extra that brings it."""


class TrainingStopped(ZooError, RuntimeError):
    """Training ended before its last epoch: the loss is not finite, or the user pressed Ctrl-C."""


def require(module: str, extra: str):
    """Import and return `module`, or say which extra of this package installs it.

    Raises:
        MissingExtraError: `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs the package {module.partition('.')[0]!r}, which is not installed; "
            f"install it with: pip install 'cnn-zoo[{extra}]'"
        ) from error
