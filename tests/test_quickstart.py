import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_quickstart_reaches_what_the_readme_says(root, tmp_path):
    """The README's first commands: both networks learn the streets, and a page compares them."""

    def run(script, *arguments):
        subprocess.run([sys.executable, str(root / "scripts" / script), *arguments], check=True, cwd=root)

    data = f"--data_dir={tmp_path}/data"
    for name in ("quickstart", "quickstart_r2unet"):
        run("train.py", f"--flagfile={root}/configs/{name}.flags", data, f"--workdir={tmp_path}/{name}")
        assert json.loads((tmp_path / name / "scores.json").read_text())["mean_iou"] >= 0.55, name
    runs = [f"{tmp_path}/{name}" for name in ("quickstart", "quickstart_r2unet")]
    run("compare.py", *runs, data, f"--output={tmp_path}/report")
    assert (tmp_path / "report" / "index.html").is_file()
