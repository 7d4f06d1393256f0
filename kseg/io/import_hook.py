"""A context around the first import of another package, whoever imports it.

wrapt has such hooks too, but importing it takes as long as all that a command needs before it can refuse a flag.
"""

import sys


def around_import(name, context):
    """Have the import of a package that nobody has imported yet run in a context.

    Args:
        name: of the package. context: function without arguments that returns a context manager, called when the
            package is imported; it is not left if that fails.
    """
    if name not in sys.modules:
        sys.meta_path.insert(0, _Finder(name, context))


class _Finder:
    """Finds one package as Python would, with a loader that executes it in a context."""

    def __init__(self, name, context):
        self._name = name
        self._context = context

    def find_spec(self, name, path=None, target=None):
        if name != self._name:
            return None
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        found = (finder.find_spec(name, path, target) for finder in others if hasattr(finder, "find_spec"))
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                with self._context():
                    load(module)

            spec.loader.exec_module = exec_module
        return spec
