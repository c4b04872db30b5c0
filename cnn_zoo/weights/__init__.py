"""Trained numbers: find the record, get the file, check it, put every number in its place."""

from cnn_zoo.weights.cache import cache_dir, download, is_here, locate
from cnn_zoo.weights.pack import pack
from cnn_zoo.weights.records import find, register_published, register_shipped
from cnn_zoo.weights.strict import assign, load, read, save

__all__ = [
    "assign",
    "cache_dir",
    "download",
    "find",
    "is_here",
    "load",
    "locate",
    "pack",
    "read",
    "register_published",
    "register_shipped",
    "save",
]
