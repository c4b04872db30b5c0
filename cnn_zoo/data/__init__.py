"""From arrays, known data sets and image files to `tf.data` pipelines, all under one input contract.

An image is `(height, width, channels)` with values 0..255, uint8 or float32, RGB order; a label is an integer from 0. How values came into
that range is always a stated rule, never a guess from the pixels.
"""

from cnn_zoo.data.arrays import Data, Split, check_batch
from cnn_zoo.data.folders import from_csv, from_dataframe, from_folder, from_masks
from cnn_zoo.data.images import IMAGE_SUFFIXES, decode_bytes, list_images, read_image, read_images
from cnn_zoo.data.opening import open_data
from cnn_zoo.data.pipeline import pipeline, plain_errors
from cnn_zoo.data.prepared import load_prepared, prepare
from cnn_zoo.data.sequences import from_fasta, from_sequence_table, from_sequences, one_hot
from cnn_zoo.data.signals import SignalFiles, from_signals
from cnn_zoo.data.sources import DATASETS, load
from cnn_zoo.data.splits import k_fold, save_split, split_by_time, suggest_groups, use_split
from cnn_zoo.data.stacks import StackFiles, from_stacks
from cnn_zoo.data.throughput import cached, cached_split
from cnn_zoo.data.tiles import tiles

__all__ = [
    "DATASETS",
    "Data",
    "IMAGE_SUFFIXES",
    "SignalFiles",
    "Split",
    "StackFiles",
    "cached",
    "cached_split",
    "check_batch",
    "decode_bytes",
    "from_csv",
    "from_dataframe",
    "from_fasta",
    "from_folder",
    "from_masks",
    "from_sequence_table",
    "from_sequences",
    "from_signals",
    "from_stacks",
    "k_fold",
    "list_images",
    "load",
    "load_prepared",
    "one_hot",
    "open_data",
    "pipeline",
    "plain_errors",
    "prepare",
    "read_image",
    "read_images",
    "save_split",
    "split_by_time",
    "suggest_groups",
    "tiles",
    "use_split",
]
