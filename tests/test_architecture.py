"""Who may import whom, and what importing the package costs."""

import ast
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "cnn_zoo"
ALLOWED = {  # module or folder -> parts of the package that it may import
    "registry": {"errors"},
    "layers": set(),
    "blocks": {"layers"},
    "nets": {"registry", "blocks", "layers", "errors"},
    "losses": {"errors"},
    "metrics": {"errors"},
    "segmentation_layers": set(),
    "decoders": {"decoders", "registry", "blocks", "layers", "segmentation_layers", "errors"},
    "augment": {"augment", "errors", "mask_plots", "palette", "plots"},
    "data": {"augment", "data", "errors", "files"},
    "outputs": {"errors"},
    "freezing": {"errors", "explain"},
    "optimizers": {"errors", "freezing"},
    "residual": {"errors", "explain", "layers"},
    "data_report": {"data_report", "data", "errors", "files", "html", "masks", "mask_plots", "palette"},
    "html": {"data"},
    "calibration": {"errors", "outputs", "train"},
    "reopening": {"commands", "data", "errors"},
    "run_report": {
        "calibration",
        "data",
        "errors",
        "files",
        "html",
        "mask_plots",
        "metrics",
        "outputs",
        "palette",
        "plots",
        "reopening",
        "run_report",
        "train",
        "tta",
    },
    "train": {
        "train",
        "augment",
        "explain",
        "outputs",
        "data",
        "errors",
        "files",
        "freezing",
        "losses",
        "masks",
        "metrics",
        "optimizers",
        "plots",
        "tta",
        "version",
    },
    "prediction": {"outputs", "data", "errors", "files"},
    "exporting": {"exporting", "outputs", "data", "errors", "files", "version"},
    "plots": {"errors", "files"},
    "palette": {"errors"},
    "masks": {"data", "errors", "palette"},
    "tiling": {"data", "errors", "files"},
    "tta": {"data", "errors", "outputs"},
    "regions": {"errors"},
    "rand_scores": {"errors"},
    "mask_prediction": {
        "outputs",
        "data",
        "errors",
        "files",
        "mask_plots",
        "palette",
        "prediction",
        "regions",
        "tiling",
        "tta",
    },
    "mask_plots": {"errors", "palette", "plots"},
    "classic": {"classic", "data", "errors", "palette"},
    "imagenet": {"errors"},
    "weights": {"weights", "registry", "imagenet", "layers", "nets", "errors", "files"},
    "explain": {"explain", "layers", "errors", "plots"},
}


def imports(path):
    """The parts of the package that a file imports, as (part, line) pairs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "cnn_zoo" else [node.module]
            )
        else:
            continue
        yield from ((name.split(".")[1], node.lineno) for name in names if name.startswith("cnn_zoo."))


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part):
    folder = PACKAGE / part
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]
    for path in (path for path in paths if path.exists()):
        if path.parts[-2:] == ("nets", "__init__.py"):
            continue  # it registers the families
        for found, line in imports(path):
            assert found in ALLOWED[part], f"{path.relative_to(REPOSITORY)}:{line} imports cnn_zoo.{found}"


@pytest.mark.parametrize("part", ["registry", "errors", "files"])
def test_these_need_the_standard_library_only(part):
    tree = ast.parse((PACKAGE / f"{part}.py").read_text())
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert all(name.split(".")[0] in sys.stdlib_module_names | {"cnn_zoo"} for name in names), names


@pytest.mark.parametrize("part", ["nets", "layers.py", "blocks.py", "assemble.py", "losses.py", "metrics.py"])
def test_nets_and_losses_use_public_keras_and_no_tensorflow(part):
    paths = (PACKAGE / part).glob("*.py") if (PACKAGE / part).is_dir() else [PACKAGE / part]
    for path in (path for path in paths if path.exists()):
        text = path.read_text()
        assert "import tensorflow" not in text and "from tensorflow" not in text and "keras.src" not in text, path


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
    )


FORWARD = """
import sys, cnn_zoo, numpy as np
assert "tensorflow" not in sys.modules, "imported too early"
for name in ("lenet", "lenet5"):
    model = cnn_zoo.build(name)
    y = model(np.full((2, *model.input_shape[1:]), 100, "uint8"), training=False)
    assert abs(float(np.asarray(y).sum()) - 2) < 1e-4
assert "tensorflow" not in sys.modules, "imported while building"
import keras; print(keras.backend.backend())
"""


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_nets_run_without_tensorflow(backend):
    if backend == "jax":
        pytest.importorskip("jax", reason="needs JAX")
    done = run(FORWARD, KERAS_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == backend


def test_importing_costs_little_more_than_keras():
    """At most 0.3 s on top of Keras, the best of five tries since machines are noisy."""
    code = "import time, keras; start = time.perf_counter(); import cnn_zoo; print(time.perf_counter() - start)"
    assert min(float(run(code).stdout) for _ in range(5)) < 0.3


def test_every_public_name_is_there_and_listed_once():
    import cnn_zoo

    assert len(set(cnn_zoo.__all__)) == len(cnn_zoo.__all__)
    for name in cnn_zoo.__all__:
        assert getattr(cnn_zoo, name) is not None
    assert callable(cnn_zoo.predict) and callable(cnn_zoo.export)
    with pytest.raises(AttributeError, match="no attribute 'bild'"):
        getattr(cnn_zoo, "bild")  # noqa: B009
