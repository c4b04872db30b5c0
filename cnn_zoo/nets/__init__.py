"""Importing this package registers every family: one line each."""

from cnn_zoo.nets import lenet  # noqa: F401
