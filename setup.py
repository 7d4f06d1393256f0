"""Puts configs/ and the pages of docs/ into the package when it is built: the rest of the build is in setup.cfg."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigsAndDocs(build_py):
    """Copies configs/ and the texts of docs/ to kseg/, where an installed kseg looks for them."""

    def run(self):
        super().run()
        if not self.editable_mode:  # then they are read from the clone
            for name, ignored in (("configs", None), ("docs", _all_but_pages)):
                source = pathlib.Path(__file__).parent / name
                target = pathlib.Path(self.build_lib, "kseg", name)
                shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)


def _all_but_pages(folder, names):
    folders = {"how-to", "explanation", "reference", "tutorials"}
    return [name for name in names if name not in folders and not name.endswith(".md")]


setup(cmdclass={"build_py": BuildWithConfigsAndDocs})
