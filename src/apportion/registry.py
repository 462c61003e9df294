"""Names that users write, turned into the things they name.

Wherever the library accepts a name (credit, objective, verifier, task, recipe) it accepts a *spec*:

    grpo                               a registered name
    tempo(norm_by_std=False)           with keyword arguments, Python literals only
    my_package.module:my_method        anything importable; arguments likewise

A spec is a plain string, so a resolved configuration is readable JSON, and a method needs no fork of this
repository.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from apportion.errors import InputError, unknown_name


@dataclass(frozen=True)
class Spec:
    """A parsed spec: the name before the bracket and the keyword arguments inside it."""

    name: str
    arguments: Mapping[str, Any]


def parse(text: str) -> Spec:
    """Split a spec into name and keyword arguments.

    Raises:
        InputError: not of the form ``name`` or ``name(key=literal, ...)``.

    Example:
        >>> parse("tempo(norm_by_std=False)")
        Spec(name='tempo', arguments={'norm_by_std': False})
    """
    text = text.strip()
    name, bracket, rest = text.partition("(")
    name = name.strip()
    if not name or (bracket and not rest.rstrip().endswith(")")):
        raise InputError(f"cannot read {text!r}: expected name or name(key=value, ...).")
    if not bracket:
        return Spec(name, {})
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
    except SyntaxError:
        raise InputError(f"cannot read {text!r}: expected name or name(key=value, ...).") from None
    # One call and nothing behind it: f(a=1)(b=2) would hide the first bracket.
    single = isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    if not isinstance(call, ast.Call) or not single or call.args or any(k.arg is None for k in call.keywords):
        raise InputError(f"cannot read {text!r}: expected one bracket with arguments given as key=value.")
    arguments: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg in arguments:
            raise InputError(f"cannot read {text!r}: {keyword.arg!r} is given twice, expected each argument once.")
        try:
            arguments[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError):
            raise InputError(
                f"cannot read {keyword.arg!r} in {text!r}: values must be Python literals "
                "such as 0.5, True, 'text' or [1, 2]."
            ) from None
    return Spec(name, arguments)


def split(text: str) -> list[str]:
    """Specs that are joined with commas; those inside brackets and quotes separate nothing.

    Raises:
        InputError: there is nothing between two commas.

    Example:
        >>> split("grpo, gae(gamma=0.5, lam=1),mine:x(a=')', b=[1, 2])")
        ['grpo', 'gae(gamma=0.5, lam=1)', "mine:x(a=')', b=[1, 2])"]
    """
    parts, depth, quote, escaped = [""], 0, "", False
    for character in text:
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
            if character == "," and depth <= 0:
                parts.append("")
                continue
        parts[-1] += character
    specs = [part.strip() for part in parts]
    if not all(specs):
        raise InputError(f"cannot read {text!r}: expected names separated by single commas.")
    return specs


def lookup(name: str, known: Mapping[str, Any], kind: str) -> Any:
    """The registered thing called ``name``, or what ``package.module:name`` imports.

    Modules are also looked for in the current folder, as ``python -m`` does.

    Raises:
        InputError: unknown name, or a module or attribute that is not there.
    """
    if ":" not in name:
        if name not in known:
            raise unknown_name(kind, name, known, also="; or package.module:name")
        return known[name]
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name) if module_name else None
    except (TypeError, ValueError):  # a name such as ..module, which only a package could import
        module = None
    except ModuleNotFoundError as error:
        raise InputError(
            f"cannot import {module_name!r} for the {kind} {name!r}: no module named {error.name!r} "
            "in this environment or the current folder."
        ) from None
    if module is None:
        raise InputError(f"cannot import {module_name!r} for the {kind} {name!r}: expected package.module:name.")
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise unknown_name(f"name in {module_name}", attribute, public)
    return getattr(module, attribute)


def build(text: str, known: Mapping[str, Callable[..., Any]], kind: str, **defaults: Any) -> Any:
    """Build what a spec names: look the builder up, check the arguments, call it.

    Args:
        text: the spec.
        known: registered builders.
        kind: what is being named, for messages (``credit method``, ``verifier`` ...).
        **defaults: arguments the caller supplies where the builder takes them and the spec does not say.

    Raises:
        InputError: unknown name or argument, or a value the builder refuses.
    """
    spec = parse(text)
    builder = lookup(spec.name, known, kind)
    if not callable(builder):
        raise InputError(f"{kind} {spec.name!r} is a {type(builder).__name__}, expected something callable.")
    try:
        parameters = inspect.signature(builder).parameters
    except ValueError:  # some of Python's own types have none
        raise InputError(f"{kind} {spec.name!r} has no signature that can be read, expected a function.") from None
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for argument in spec.arguments:
        if argument not in parameters and not open_ended:
            raise unknown_name(f"argument of {kind} {spec.name!r}", argument, parameters)
    arguments = {k: v for k, v in defaults.items() if k in parameters} | dict(spec.arguments)
    absent = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in arguments
    ]
    if absent:
        raise InputError(f"{kind} {spec.name!r} needs {', '.join(absent)}: write {spec.name}({absent[0]}=...).")
    try:
        return builder(**arguments)
    except TypeError as error:  # a value of the wrong kind, met before the builder could say so itself
        raise InputError(f"{kind} {text!r} cannot be made ({error}): check the kinds of its arguments.") from error
