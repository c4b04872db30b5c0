"""What this machine has, what the package needs, and what to do about the difference."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from cnn_zoo.weights import cache_dir

EXTRAS = {
    "mrc": ("mrcfile",),
    "notebook": ("ipykernel", "nbclient", "nbformat"),
    "onnx": ("onnx",),
    "ray": ("ray",),
    "sequences": ("logomaker",),
    "tensorboard": ("tensorboard",),
    "tfds": ("tensorflow-datasets",),
    "tiff": ("imagecodecs",),
    "torch": ("torch",),
}


def examine() -> dict:
    """Hardware, versions, extras, folders and problems, as plain values.

    `problems` is a list of sentences, each with its remedy; it is empty when everything the main job needs is there and works.
    """
    problems = []
    report = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_gib": _memory(),
        "packages": {name: _version(name) for name in ("cnn-zoo", "keras", "tensorflow", "jax", "torch", "numpy")},
        "extras": {
            extra: [package for package in packages if _version(package) is None] for extra, packages in EXTRAS.items()
        },
        "folders": {"weights": str(cache_dir()), "data": os.environ.get("CNN_ZOO_DATA")},
        "problems": problems,
    }
    report["backend"], report["devices"] = _backend(problems)
    _folders(problems)
    return report


def _backend(problems):
    try:
        import keras
    except Exception as error:
        problems.append(f"Keras cannot be imported ({error}): install cnn-zoo again in a fresh environment")
        return None, []
    name = keras.backend.backend()
    try:
        two = keras.ops.convert_to_numpy(keras.ops.matmul([[1.0, 1.0]], [[1.0], [1.0]]))
        if two[0, 0] != 2:
            problems.append(
                f"the {name} backend computes 1 + 1 = {two[0, 0]}: its installation or the hardware is broken"
            )
        devices = keras.distribution.list_devices()
    except Exception as error:
        problems.append(f"the {name} backend does not compute ({error}): install it again in a fresh environment")
        return name, []
    if name == "tensorflow" and not any("gpu" in device.lower() for device in devices) and shutil.which("nvidia-smi"):
        problems.append(
            "there is an NVIDIA driver but TensorFlow sees no GPU: install its CUDA libraries with "
            "pip install 'tensorflow[and-cuda]', or hide the GPU with CUDA_VISIBLE_DEVICES=-1"
        )
    return name, [str(device) for device in devices]


def _folders(problems):
    cache = cache_dir()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        problems.append(f"weights cannot be kept in {str(cache)!r}: name a folder that you may write in CNN_ZOO_CACHE")
    elif shutil.disk_usage(existing).free < 1 << 30:
        problems.append(f"less than 1 GiB is free for weights in {str(cache)!r}: free some, or set CNN_ZOO_CACHE")
    data = os.environ.get("CNN_ZOO_DATA")
    if data and not Path(data).is_dir():
        problems.append(f"CNN_ZOO_DATA names {data!r}, which is not a folder: set it to the folder of your data sets")


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory():
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def describe(report: dict) -> str:
    """The report as text for people."""
    lines = [
        f"Python      {report['python']} on {report['platform']}",
        f"hardware    {report['cpus']} CPUs, {report['memory_gib'] or '?'} GiB of memory; "
        f"{', '.join(report['devices']) or 'no device'}",
        f"backend     {report['backend']}",
        *(f"{name:11} {version or 'not installed'}" for name, version in report["packages"].items()),
        f"weights in  {report['folders']['weights']}",
        f"data in     {report['folders']['data'] or 'not set (CNN_ZOO_DATA)'}",
    ]
    for extra, missing in report["extras"].items():
        lines.append(
            f"extra       {extra}: {'there' if not missing else f'''pip install 'cnn-zoo[{extra}]' brings {', '.join(missing)}'''}"
        )
    lines += [f"PROBLEM     {problem}" for problem in report["problems"]] or ["all is well"]
    return "\n".join(lines)
