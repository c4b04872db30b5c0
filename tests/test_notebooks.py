"""Notebooks run from top to bottom with small settings, and are stored with their outputs."""

import pytest
from conftest import REPOSITORY

nbformat = pytest.importorskip("nbformat", reason="needs the extra notebook")
nbclient = pytest.importorskip("nbclient", reason="needs the extra notebook")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Jupyter itself
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch, shared):
    if path.stem.startswith("02"):  # its last part needs trained weights, which a user downloads
        monkeypatch.setenv("SQUEEZENET", str(shared("data/imagenet/squeezenet1_1_fp16.onnx")))
        monkeypatch.setenv("NETS", "squeezenet1_1 googlenet_2014 shufflenet")
    monkeypatch.setenv("STREETS", str(REPOSITORY / "tests/data/streets.zip"))
    monkeypatch.setenv("EPOCHS", "2")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), (
        "run it from top to bottom and save it"
    )
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1


def test_there_are_notebooks():
    assert NOTEBOOKS
