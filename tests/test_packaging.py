"""What is written in several places about a release agrees."""

import configparser
import os
import re
import runpy
import subprocess
import sys

import pytest

import kseg


def requirements(root):
    """({package: bounds} that kseg needs, the same of its extras) of setup.cfg, without markers."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    extras = "\n".join(config["options.extras_require"].values())
    return _bounds(config["options"]["install_requires"]), _bounds(extras)


def _bounds(text):
    rows = (line.partition(";")[0].strip() for line in text.split("\n") if line and not line.startswith("#"))
    return dict(re.fullmatch(r"([\w-]+)(?:\[.*\])?(.*)", row).groups() for row in rows)


def test_the_version_is_in_one_place_and_the_citation_repeats_it(root):
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    assert config["metadata"]["version"] == "attr: kseg.__version__"
    assert f"\nversion: {kseg.__version__}\n" in (root / "CITATION.cff").read_text(encoding="utf-8")


def test_the_bounds_in_the_docs_are_those_of_the_package(root):
    rows = re.findall(
        r"^\| `([\w-]+)` \| `([^`]+)` \|", (root / "docs" / "reference" / "versions.md").read_text("utf-8"), re.M
    )
    needed, extras = requirements(root)
    assert needed.keys() | {"jax", "onnxruntime", "av"} == dict(rows).keys()
    assert dict(rows) == {name: (extras | needed)[name] for name, _ in rows}


def test_what_the_docs_say_of_jax_alone_is_what_ci_tries(root):
    tried = runpy.run_path(str(root / ".ci" / "versions.py"))
    text = (root / "docs" / "reference" / "versions.md").read_text("utf-8")
    block = "".join(f"    {line}\n" for line in tried["REQUIREMENTS"].strip().split("\n"))
    assert f'    python -c "\n{block}    " > requirements.txt\n' in text
    assert tried["JAX"] == f"jax{requirements(root)[1]['jax']}" and f"`'{tried['JAX']}'`" in text


def test_what_is_built_has_the_configs_and_the_pages_that_messages_name(root, tmp_path):
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    built = tmp_path / "lib" / "kseg"
    assert (built / "configs" / "quickstart.flags").is_file()
    assert {path.suffix for path in (built / "docs").rglob("*") if path.is_file()} == {".md"}
    named = {page for path in built.rglob("*.py") for page in re.findall(r"docs/[\w/-]+\.md", path.read_text())}
    assert len(named) > 5 and all((built / page).is_file() for page in named)
    # From there a message names the file itself; from the clone, which has docs/ beside the package, it does not.
    message = "See docs/how-to/contestants.md."
    code = f"from kseg.io.errors import InputError; print(InputError({message!r}))"  # as Python shows an error
    shown = {}
    for place in (tmp_path / "lib", root):
        environment = {**os.environ, "PYTHONPATH": str(place)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        shown[place] = done.stdout.strip()
    assert shown[tmp_path / "lib"] == f"See {built}/docs/how-to/contestants.md."
    assert shown[root] == message
