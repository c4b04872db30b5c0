"""What is in a data set and what is wrong with it: on the terminal, as JSON, and as one HTML page."""

__all__ = ["Finding", "Place", "Report", "data_report"]


def __getattr__(name):  # late, so that the command line starts without NumPy, SciPy and OpenCV
    if name in __all__:
        from cnn_zoo.data_report import report

        return getattr(report, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
