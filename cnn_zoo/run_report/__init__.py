"""What a training has led to: one HTML page, and a model card beside it."""

__all__ = ["RunReport", "report"]


def __getattr__(name):  # late, so that the command line starts without Keras and Matplotlib
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("cnn_zoo.run_report.reporting"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
