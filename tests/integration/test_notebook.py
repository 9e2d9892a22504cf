"""The notebook of the documentation, executed cell by cell."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs/notebook.ipynb"


def text_of(outputs):
    return "".join(
        output.get("text", "") + str(output.get("data", {}).get("text/markdown", "")) + str(output.get("data", {}))
        for output in outputs
    )


def test_the_notebook_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)


@pytest.mark.slow
def test_the_notebook_leads_from_the_phantom_to_the_report(tmp_path, monkeypatch):
    """As it is, but for trainings of one step."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("num_epochs: 4", "num_epochs: 1").replace("epoch: 50", "epoch: 1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [text_of(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert "3 runs. The data set does not exist yet" in outputs[2]
    assert "report.html" in outputs[3]
    assert "Did it help?" in outputs[4]
    assert "image/png" in outputs[4]
    assert all(arm in outputs[5] for arm in ("teacher", "alone", "HLFD"))
    assert "ufd" in outputs[6]
