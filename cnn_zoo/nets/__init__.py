"""Importing this package registers every family: one line each."""

from cnn_zoo.nets import (
    alexnet,  # noqa: F401
    applications,  # noqa: F401
    baseline,  # noqa: F401
    darknet,  # noqa: F401
    densenet,  # noqa: F401
    efficientnet,  # noqa: F401
    googlenet,  # noqa: F401
    inception,  # noqa: F401
    lenet,  # noqa: F401
    mit,  # noqa: F401
    mobilenet,  # noqa: F401
    motif,  # noqa: F401
    nasnet,  # noqa: F401
    resnet,  # noqa: F401
    resnet_cifar,  # noqa: F401
    resnet_ic,  # noqa: F401
    resnetv2,  # noqa: F401
    shufflenet,  # noqa: F401
    squeezenet,  # noqa: F401
    vgg,  # noqa: F401
    xception,  # noqa: F401
    zfnet,  # noqa: F401
)
