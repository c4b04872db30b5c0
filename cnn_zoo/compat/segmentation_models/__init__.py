"""segmentation_models 1.0.1 over this package: change the import, and old code runs on current Keras.

    import cnn_zoo.compat.segmentation_models as sm

    model = sm.Unet("resnet34", encoder_weights="imagenet")
    model.compile("adam", sm.losses.bce_jaccard_loss, [sm.metrics.iou_score])
    x = sm.get_preprocessing("resnet34")(x)

Names, arguments, defaults, numbers of parameters and outputs are the old package's; so are the names of the layers, `_` standing for `/`, which
Keras 3 refuses. The model takes what `get_preprocessing` gives: unlike in the rest of this package, no normalisation is inside.
`model.load_weights` takes files of the old package, too; `convert` takes a whole model of it.

What differs: a grouped convolution is one layer instead of one a group; features cannot be named by a number other than the old defaults; PSPNet's
poolings are layers of ours. `set_framework` changes nothing: there is only the Keras that is installed.
"""

import functools
import os

import keras
import numpy as np
from keras import layers as L

from cnn_zoo.compat import sm_backbones
from cnn_zoo.compat.segmentation_models import losses, metrics, utils
from cnn_zoo.compat.sm_weights import accept_old_files, arguments_of, candidates, fit, load_weights, variables_of
from cnn_zoo.decoders import fpn, linknet, pspnet, unet
from cnn_zoo.errors import InputError, WeightsError

__version__ = "1.0.1"  # of the package whose names these are
__all__ = [
    "Unet",
    "PSPNet",
    "FPN",
    "Linknet",
    "convert",
    "framework",
    "get_available_backbone_names",
    "get_preprocessing",
    "load_weights",
    "losses",
    "metrics",
    "set_framework",
    "utils",
    "__version__",
]

FRAMEWORKS = ("keras", "tf.keras")
IMAGENET = {  # mean and deviation; "caffe" has no deviation and its channels in the order BGR
    "caffe": ((103.939, 116.779, 123.68), (1.0,)),
    "torch": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
_framework = os.environ.get("SM_FRAMEWORK", "keras")


def framework() -> str:
    """What `set_framework` or the variable `SM_FRAMEWORK` said, `"keras"` by default."""
    return _framework


def set_framework(name: str) -> None:
    """Accept `"keras"` or `"tf.keras"`; both are the Keras that is installed.

    Raises:
        InputError: Another name.
    """
    global _framework
    if str(name).lower() not in FRAMEWORKS:
        raise InputError(f"the framework is one of {FRAMEWORKS}, not {name!r}")
    _framework = name.lower()


def get_available_backbone_names() -> list[str]:
    """The names of the 32 backbones."""
    return list(sm_backbones.BACKBONES)


def get_preprocessing(name: str):
    """The function that prepares pixels for a backbone: an image or a batch `(..., height, width, 3)`, RGB, values 0..255, to a float one.

    Arrays stay arrays and tensors tensors. The old package wrote over a float array; this one leaves it as it is.

    Raises:
        InputError: Unknown backbone.
    """
    return functools.partial(_prepare, mode=sm_backbones.get(name).mode)


def _prepare(x, mode, **kwargs):
    if mode == "raw":
        return x
    array = isinstance(x, np.ndarray)
    if "float" not in keras.backend.standardize_dtype(x.dtype):
        x = x.astype(keras.config.floatx()) if array else keras.ops.cast(x, keras.config.floatx())
    if mode == "tf":
        return x / 127.5 - 1
    mean, std = (np.asarray(value, keras.backend.standardize_dtype(x.dtype)) for value in IMAGENET[mode])
    if hasattr(x, "flip"):  # PyTorch mixes with no arrays, and has no negative steps
        mean, std = keras.ops.convert_to_tensor(mean), keras.ops.convert_to_tensor(std)
    if mode == "torch":
        return (x / 255 - mean) / std
    return (x.flip(-1) if hasattr(x, "flip") else x[..., ::-1]) - mean


def Unet(
    backbone_name="vgg16",
    input_shape=(None, None, 3),
    classes=1,
    activation="sigmoid",
    weights=None,
    encoder_weights="imagenet",
    encoder_freeze=False,
    encoder_features="default",
    decoder_block_type="upsampling",
    decoder_filters=(256, 128, 64, 32, 16),
    decoder_use_batchnorm=True,
) -> keras.Model:
    """U-Net.

    Args:
        backbone_name: One of `get_available_backbone_names()`.
        input_shape: `(height, width, channels)`; height and width are multiples of 32, or None for any such.
        classes: Channels of the output.
        activation: Of the output: `"sigmoid"`, `"softmax"`, `"linear"`, ...
        weights: File for the whole model: see `load_weights`.
        encoder_weights: `"imagenet"`, for EfficientNets also `"noisy-student"`; the path of a file; None for random ones.
        encoder_freeze: Keep the backbone as it is in training, its BatchNorm excepted, which the old package left trainable on purpose.
        encoder_features: Names of the backbone's layers whose outputs the decoder takes, coarse to fine.
        decoder_block_type: `"upsampling"` repeats pixels, `"transpose"` learns to enlarge.
        decoder_filters: Of each step up.
        decoder_use_batchnorm: BatchNorm after the decoder's convolutions.

    Raises:
        InputError: An argument that is unknown or out of range.
        WeightsError: Weights that are missing, damaged or of another model.
    """
    transpose = _block_type(decoder_block_type)
    encoder = sm_backbones.encoder(backbone_name, input_shape, encoder_weights)
    row = unet.Row(tuple(decoder_filters), transpose, decoder_use_batchnorm, 512 if encoder.pooled else 0)
    x = unet.unet(encoder.model.output, _features(encoder, encoder_features), row)
    return _model("unet", encoder, _logits(x, classes, "final_conv"), activation, encoder_freeze, weights)


def Linknet(
    backbone_name="vgg16",
    input_shape=(None, None, 3),
    classes=1,
    activation="sigmoid",
    weights=None,
    encoder_weights="imagenet",
    encoder_freeze=False,
    encoder_features="default",
    decoder_block_type="upsampling",
    decoder_filters=(None, None, None, None, 16),
    decoder_use_batchnorm=True,
) -> keras.Model:
    """LinkNet; arguments and errors as of `Unet`. `decoder_filters` counts for steps without features of the backbone only."""
    transpose = _block_type(decoder_block_type)
    encoder = sm_backbones.encoder(backbone_name, input_shape, encoder_weights)
    row = linknet.Row(tuple(decoder_filters), transpose, decoder_use_batchnorm, 512 if encoder.pooled else 0)
    x = linknet.linknet(encoder.model.output, _features(encoder, encoder_features), row)
    name = f"conv2d_{encoder.convs}" if encoder.convs else "conv2d"  # the old package left it to Keras
    return _model("linknet", encoder, _logits(x, classes, name), activation, encoder_freeze, weights)


def FPN(
    backbone_name="vgg16",
    input_shape=(None, None, 3),
    classes=21,
    activation="softmax",
    weights=None,
    encoder_weights="imagenet",
    encoder_freeze=False,
    encoder_features="default",
    pyramid_block_filters=256,
    pyramid_use_batchnorm=True,
    pyramid_aggregation="concat",
    pyramid_dropout=None,
) -> keras.Model:
    """Feature pyramid network; other arguments and errors as of `Unet`.

    Args:
        pyramid_block_filters: Channels of the pyramid; the convolutions after it have half of them.
        pyramid_use_batchnorm: BatchNorm after these.
        pyramid_aggregation: `"concat"` or `"sum"`.
        pyramid_dropout: Fraction of maps dropped in training, or None.
    """
    encoder = sm_backbones.encoder(backbone_name, input_shape, encoder_weights)
    row = fpn.Row(
        pyramid_block_filters, pyramid_block_filters // 2, pyramid_aggregation, pyramid_dropout, pyramid_use_batchnorm
    )
    x = fpn.fpn(encoder.model.output, _features(encoder, encoder_features)[:4], row)
    return _model("fpn", encoder, _logits(x, classes, "head_conv"), activation, encoder_freeze, weights)


def PSPNet(
    backbone_name="vgg16",
    input_shape=(384, 384, 3),
    classes=21,
    activation="softmax",
    weights=None,
    encoder_weights="imagenet",
    encoder_freeze=False,
    downsample_factor=8,
    psp_conv_filters=512,
    psp_pooling_type="avg",
    psp_use_batchnorm=True,
    psp_dropout=None,
) -> keras.Model:
    """PSPNet; other arguments and errors as of `Unet`.

    Args:
        input_shape: Height and width are multiples of `6 * downsample_factor`, and not None.
        downsample_factor: 4, 8 or 16: stride of the features.
        psp_conv_filters: Channels of each level.
        psp_pooling_type: `"avg"` or `"max"`.
        psp_use_batchnorm: BatchNorm after the convolutions.
        psp_dropout: Fraction of maps dropped in training, or None.
    """
    if downsample_factor not in (4, 8, 16):
        raise InputError(f"downsample_factor is 4, 8 or 16, not {downsample_factor!r}")
    step = 6 * downsample_factor
    if any(side is None or side < step or side % step for side in input_shape[:2]):
        raise InputError(f"PSPNet takes heights and widths that {step} divides, not {tuple(input_shape)}")
    encoder = sm_backbones.encoder(backbone_name, input_shape, encoder_weights)
    x = encoder.tensor(encoder.features[{16: 0, 8: 1, 4: 2}[downsample_factor]])
    row = pspnet.Row(psp_conv_filters, psp_pooling_type, psp_dropout, psp_use_batchnorm, downsample_factor)
    x = _logits(pspnet.pspnet(x, row), classes, "final_conv")
    x = L.UpSampling2D(downsample_factor, interpolation="bilinear", name="final_upsampling")(x)
    return _model("pspnet", encoder, x, activation, encoder_freeze, weights)


def convert(model: keras.Model, backbone_name: str | None = None, **arguments) -> keras.Model:
    """The same model as ours, from a living one of segmentation_models: same arguments, weights and trainable layers.

    Args:
        model: What its `Unet`, `FPN`, `Linknet` or `PSPNet` made.
        backbone_name: Its backbone; found by trying when left out, which takes longer.
        **arguments: Those of its function that cannot be told from its layers, such as `encoder_features`.

    Raises:
        InputError: It is no such model, or was made with arguments that have to be given.
    """
    function, found = arguments_of(model)
    builders = {"Unet": Unet, "Linknet": Linknet, "FPN": FPN, "PSPNet": PSPNet}
    theirs, problem = variables_of(model), None
    for name in [backbone_name] if backbone_name else candidates(theirs):
        ours = builders[function](name, encoder_weights=None, **found | arguments)
        if ours.count_params() != model.count_params():
            continue
        try:
            pairs = fit(ours, theirs, f"the given {function}")
        except WeightsError as error:
            problem = error
            continue
        for layer, names in pairs.items():
            ours.get_layer(layer).trainable = model.get_layer(names[0]).trainable
        return ours
    raise InputError(
        f"this is no {function} of segmentation_models with {model.count_params():,} parameters over "
        f"{backbone_name or 'a backbone known here'} and {found}; if it was made with other arguments, such as "
        f"encoder_features, give them to convert()" + (f" ({problem})" if problem else "")
    )


def _block_type(name):
    if name not in ("upsampling", "transpose"):
        raise InputError(f"decoder_block_type is 'upsampling' or 'transpose', not {name!r}")
    return name == "transpose"


def _features(encoder, wanted):
    names = encoder.features[:4] if isinstance(wanted, str) and wanted == "default" else wanted
    return [encoder.tensor(name) for name in names]


def _logits(x, classes, name):
    return L.Conv2D(classes, 3, padding="same", name=name)(x)


def _model(kind, encoder, x, activation, freeze, weights):
    x = L.Activation(activation, dtype="float32", name=activation if isinstance(activation, str) else None)(x)
    model = keras.Model(encoder.model.input, x, name=f"{kind}_{encoder.name}")
    if freeze:
        for layer in encoder.model.layers:
            if not isinstance(layer, L.BatchNormalization):
                layer.trainable = False
    accept_old_files(model)
    if weights is not None:
        load_weights(model, weights)
    return model
