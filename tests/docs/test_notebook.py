"""docs/tutorials/quickstart.ipynb: its cells run, one after the other, in a process of their own."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = "import sys\nfor cell in sys.stdin.read().split('\\0'):\n    exec(cell, globals())\n"


@pytest.fixture
def cells(root):
    notebook = json.loads((root / "docs" / "tutorials" / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_committed_without_outputs(cells):
    assert len(cells) >= 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    for cell in cells:
        compile("".join(cell["source"]), "cell", "exec")


@pytest.mark.slow
def test_the_cells_run(cells, root, tmp_path):
    text = "\0".join("".join(cell["source"]) for cell in cells)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, input=text, text=True, capture_output=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mean IoU" in done.stdout and (tmp_path / "notebook" / "predictions.png").exists()
    assert (tmp_path / "notebook" / "saved_model" / "classes.json").exists()
