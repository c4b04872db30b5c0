"""From arrays, known data sets and image files to `tf.data` pipelines, all under one input contract.

An image is `(height, width, channels)` with values 0..255, uint8 or float32, RGB order; a label is an integer from 0. How values came into
that range is always a stated rule, never a guess from the pixels.
"""

from cnn_zoo.data.arrays import Data, Split, check_batch
from cnn_zoo.data.images import IMAGE_SUFFIXES, decode_bytes, list_images, read_image, read_images
from cnn_zoo.data.pipeline import pipeline
from cnn_zoo.data.sources import DATASETS, load

__all__ = [
    "DATASETS",
    "IMAGE_SUFFIXES",
    "Data",
    "Split",
    "check_batch",
    "decode_bytes",
    "list_images",
    "load",
    "pipeline",
    "read_image",
    "read_images",
]
