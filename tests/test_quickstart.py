import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_quickstart_reaches_what_the_readme_says(root, tmp_path):
    """The README's first command, five minutes on two cores: it must learn the streets."""
    command = [sys.executable, str(root / "scripts" / "train.py"), f"--flagfile={root}/configs/quickstart.flags"]
    command += [f"--data_dir={tmp_path}/data", f"--workdir={tmp_path}/run"]
    subprocess.run(command, check=True, cwd=root)
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["mean_iou"] >= 0.18
