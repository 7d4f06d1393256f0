"""Puts configs/ into the package when it is built: the rest of the build is in setup.cfg."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies configs/ to kseg/configs, where an installed kseg looks for them."""

    def run(self):
        super().run()
        if not self.editable_mode:  # then they are read from the clone
            target = pathlib.Path(self.build_lib, "kseg", "configs")
            shutil.copytree(pathlib.Path(__file__).parent / "configs", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
