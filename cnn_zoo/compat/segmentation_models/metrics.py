"""`segmentation_models.metrics`."""

from cnn_zoo.compat.sm_metrics import *  # noqa: F403
