"""Claims with the files they stand in: by name, and with a digest that tells when one has changed."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from apportion.errors import InputError, unknown_name
from apportion.studies import claims
from apportion.studies.claim import Claim

TOOLS = claims.__name__.rpartition(".")[0]


@dataclass(frozen=True)
class Entry:
    """A claim and where it stands.

    Attributes:
        card: its file.
        module: the file as a module.
        claim: the claim.
        source: digest of the file and of what it takes from ``apportion.studies``.
    """

    card: str
    module: str
    claim: Claim
    source: str


def entries_of(module: str) -> tuple[Entry, ...]:
    """The claims of one module with a tuple ``CLAIMS``."""
    found = import_module(module).CLAIMS
    digest = hashlib.sha256()
    for name in sorted(_read_by(module)):
        digest.update(_source(name))
    return tuple(Entry(module.rpartition(".")[2], module, claim, digest.hexdigest()[:16]) for claim in found)


def _read_by(module: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """A module and those of this folder that it imports, or that they do."""
    seen |= {module}
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{TOOLS}."):
            seen = seen if node.module in seen else _read_by(str(node.module), seen)
    return seen


def _source(module: str) -> bytes:
    return Path(str(import_module(module).__file__)).read_bytes()


def entries(names: Sequence[str] = ()) -> list[Entry]:
    """The claims about some methods, or of some cards; without names, all.

    Raises:
        InputError: a name that no claim is about.
    """
    every = [entry for card in claims.CARDS for entry in entries_of(f"{claims.__name__}.{card}")]
    known = {entry.claim.method for entry in every} | {entry.card for entry in every}
    for name in names:
        if name in claims.WITHOUT:
            raise InputError(f"{name} has no claim of its own: {claims.WITHOUT[name]}.")
        if name not in known:
            raise unknown_name("claim of", name, known)
    return [entry for entry in every if not names or {entry.claim.method, entry.card} & set(names)]
