"""Random changes to images with their masks, boxes and keypoints: NumPy and OpenCV alone, one warp a sample, seeded."""

from cnn_zoo.augment.augmenter import Augmented, Augmenter
from cnn_zoo.augment.colour import (
    autocontrast,
    blur,
    brightness,
    channel_drop,
    channel_shuffle,
    contrast,
    cutout,
    equalize,
    gamma,
    hue,
    illumination,
    jpeg,
    noise,
    posterize,
    saturation,
    sharpen,
    solarize,
)
from cnn_zoo.augment.geometry import crop, elastic, flip, perspective, rotate, scale, shear, translate, turn
from cnn_zoo.augment.mixing import cutmix, mixup, mosaic
from cnn_zoo.augment.pictures import preview
from cnn_zoo.augment.presets import PRESETS, rand_augment, trivial_augment
from cnn_zoo.augment.steps import Step, joint

__all__ = [
    "PRESETS",
    "Augmented",
    "Augmenter",
    "Step",
    "autocontrast",
    "blur",
    "brightness",
    "channel_drop",
    "channel_shuffle",
    "contrast",
    "crop",
    "cutmix",
    "cutout",
    "elastic",
    "equalize",
    "flip",
    "gamma",
    "hue",
    "illumination",
    "joint",
    "jpeg",
    "mixup",
    "mosaic",
    "noise",
    "perspective",
    "posterize",
    "preview",
    "rand_augment",
    "rotate",
    "saturation",
    "scale",
    "sharpen",
    "shear",
    "solarize",
    "translate",
    "trivial_augment",
    "turn",
]
