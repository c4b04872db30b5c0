"""`segmentation_models.losses`."""

from cnn_zoo.compat.sm_losses import *  # noqa: F403
