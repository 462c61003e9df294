"""Run the command line as if packages were not installed.

    python without.py PACKAGES ARGUMENTS...

PACKAGES are names joined with commas, or ``all`` for all but torch and numpy. Prints nothing of its own.
"""

from __future__ import annotations

import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from typing import Any

# torch's own dependencies come with it.
LIGHT = {"apportion", "torch", "torchgen", "numpy", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2"}
LIGHT |= {"markupsafe", "filelock", "fsspec", "setuptools", "_distutils_hack", *sys.stdlib_module_names}


class Without:
    """Finds modules on the path, but not those of absent packages."""

    def __init__(self, absent: str) -> None:
        self.absent = set(absent.split(","))

    def _gone(self, name: str) -> bool:
        package = name.partition(".")[0]
        return package not in LIGHT if self.absent == {"all"} else package in self.absent

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if self._gone(name) else PathFinder.find_spec(name, path, target)

    def find_distributions(self, context: Any) -> Any:
        return [] if context.name and self._gone(context.name) else PathFinder.find_distributions(context)


if __name__ == "__main__":
    packages, *arguments = sys.argv[1:]
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Without(packages)]
    if arguments[0] == "-c":
        exec(arguments[1])
    else:
        from apportion.cli.main import main

        sys.exit(main(arguments))
