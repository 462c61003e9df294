"""The page's modules as one script, for a page that is a single file: browsers load no modules from ``file:``."""

from __future__ import annotations

import re
from collections.abc import Mapping

IMPORT = re.compile(r'^import (?:\* as (\w+)|\{([^}]*)\}) from "\./([\w.]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)


def bundle(modules: Mapping[str, str], first: str) -> str:
    """Modules and all they import as one script: each in a function of its own, after those it imports.

    Args:
        modules: source by file name; they import and export in the plainest forms only.
        first: the module that is run last.

    Raises:
        ValueError: a module imports or exports in another form, or modules import each other in a circle.

    Example:
        >>> modules = {"a.js": 'import { b } from "./b.js";\\nb();\\n', "b.js": "export function b() {}\\n"}
        >>> print(bundle(modules, "a.js"))
        "use strict";
        const modules = {};
        modules["b.js"] = (() => {
        function b() {}
        return { b };
        })();
        modules["a.js"] = (() => {
        const { b } = modules["b.js"];
        b();
        return {  };
        })();
    """
    order: list[str] = []
    _visit(first, modules, order, ())
    return "\n".join(['"use strict";', "const modules = {};", *(_wrapped(name, modules[name]) for name in order)])


def _visit(name: str, modules: Mapping[str, str], order: list[str], above: tuple[str, ...]) -> None:
    if name in above:
        raise ValueError(f"modules import each other in a circle: {' -> '.join((*above, name))}.")
    if name in order:
        return
    for found in IMPORT.finditer(modules[name]):
        _visit(found[3], modules, order, (*above, name))
    order.append(name)


def _wrapped(name: str, source: str) -> str:
    def imported(found: re.Match[str]) -> str:
        whole, some, of = found.groups()
        what = whole or "{ " + some.strip().replace(" as ", ": ") + " }"
        return f'const {what} = modules["{of}"];\n'

    names = EXPORT.findall(source)
    body = EXPORT.sub("", IMPORT.sub(imported, source))
    if re.search(r"^(import|export)\b", body, re.MULTILINE):
        raise ValueError(f"{name} imports or exports in a form that a report cannot carry.")
    return f'modules["{name}"] = (() => {{\n{body.rstrip()}\nreturn {{ {", ".join(names)} }};\n}})();'
