"""Which numbers a net computes with: bfloat16 or float16 where the hardware is faster with them, float32 where they matter."""

import re
from contextlib import contextmanager
from pathlib import Path

import keras

PRECISIONS = ("float32", "auto", "bfloat16", "float16")


def choose(precision: str = "auto") -> tuple[str, str]:
    """The precision to compute in, and why.

    Args:
        precision: "float32", "bfloat16", "float16", which are taken as they are, or "auto": what the hardware that Keras' backend uses is made for.

    Returns:
        "float32", "bfloat16" or "float16", and one sentence.

    Source: https://docs.nvidia.com/deeplearning/performance/mixed-precision-training (tensor cores multiply float16 from compute capability 7.0
    and bfloat16 from 8.0); processors say by the flags avx512_bf16 and amx_bf16 that they multiply bfloat16.
    """
    if precision != "auto":
        return precision, "as the recipe says"
    kind, detail = _hardware()
    if kind == "tpu":
        return "bfloat16", "a TPU multiplies in bfloat16"
    if kind == "gpu":
        major, minor = detail
        said = f"the GPU has compute capability {major}.{minor}"
        if major >= 8:
            return (
                "bfloat16",
                f"{said}: its tensor cores multiply bfloat16, which has float32's range and needs no loss scaling",
            )
        if major == 7:
            return "float16", f"{said}: its tensor cores multiply float16, not bfloat16; the loss is scaled"
        return "float32", f"{said}, before 7.0: it has no tensor cores for shorter numbers"
    fast = sorted(detail & {"avx512_bf16", "amx_bf16"})
    if fast:
        return "bfloat16", f"the processor multiplies bfloat16 ({', '.join(fast)})"
    return "float32", "the processor has no instructions that multiply bfloat16 (avx512_bf16, amx_bf16)"


def _hardware():
    """("gpu", its compute capability), ("tpu", None), or ("cpu", its flags), as the backend of Keras sees it."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform == "tpu":
            return "tpu", None
        if device.platform != "cpu":
            return "gpu", _capability(getattr(device, "compute_capability", ""))
    elif backend == "torch":
        import torch

        if torch.cuda.is_available():
            return "gpu", torch.cuda.get_device_capability()
    else:
        import tensorflow as tf

        if tf.config.list_logical_devices("TPU"):
            return "tpu", None
        if gpus := tf.config.list_physical_devices("GPU"):
            details = tf.config.experimental.get_device_details(gpus[0])
            return "gpu", details.get("compute_capability", (0, 0))
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        flags = None
    return "cpu", set(flags[1].split()) if flags else set()


def _capability(text):
    found = re.fullmatch(r"(\d+)\.(\d+)", str(text))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def lowered(model: keras.Model) -> list:
    """The layers of a built model that may compute in short numbers.

    In float32 stay: what comes before the first layer with weights (pixels are brought to their range there), the last layer with weights and all
    after it (the scores that the loss sees), normalisation, and layers that were built with a policy of their own. BatchNorm and GroupNorm are
    among the lowered ones, since Keras computes within them in float32 whatever their policy, and only their outputs are short.
    """
    layers = list(_flat(model))
    weighted = [i for i, layer in enumerate(layers) if layer.weights and not _normalises(layer)]
    if not weighted:
        return []
    return [
        layer
        for layer in layers[weighted[0] : weighted[-1]]
        if layer.dtype_policy.name == "float32" and (not _normalises(layer) or isinstance(layer, IN_FLOAT32))
    ]


IN_FLOAT32 = (keras.layers.BatchNormalization, keras.layers.GroupNormalization)


def _normalises(layer):
    return "norm" in type(layer).__name__.lower()


def _flat(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _flat(layer)
        else:
            yield layer


@contextmanager
def computing(layers, precision: str):
    """Within it these layers compute in that precision; their weights are float32 before, within and after.

    What was traced within goes on as it is, so a model may be saved in between with `computing(layers, "float32")`.
    """
    before = [layer.dtype_policy for layer in layers]
    policy = keras.dtype_policies.DTypePolicy(precision if precision == "float32" else f"mixed_{precision}")
    try:
        for layer in layers:
            layer.dtype_policy = policy
        yield
    finally:
        for layer, own in zip(layers, before):
            layer.dtype_policy = own
