"""The repository's list of what may be skipped: ``pending.txt``. It only shrinks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PENDING_FILE = Path(__file__).parents[2] / "pending.txt"


@dataclass(frozen=True)
class Pending:
    """What may be skipped.

    Attributes:
        golden: slugs of golden files without an adapter.
        reasons: beginnings of the reasons of other skips.
    """

    golden: tuple[str, ...]
    reasons: tuple[str, ...]

    def unlisted(self, reasons: Iterable[str]) -> list[str]:
        """The reasons that are not allowed, each once."""
        golden = {golden_reason(slug) for slug in self.golden}
        return sorted({r for r in reasons if r not in golden and not (self.reasons and r.startswith(self.reasons))})


def golden_reason(slug: str) -> str:
    """Why a golden file is skipped, in the words of ``pending.txt``."""
    return f"golden: {slug}"


def read_pending(path: Path = PENDING_FILE) -> Pending:
    """Read the list; lines are ``golden: slug``, ``skip: beginning of a reason``, ``# comment`` or blank."""
    entries: dict[str, list[str]] = {"golden": [], "skip": []}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        kind, _, entry = (part.strip() for part in line.partition(":"))
        if kind not in entries or not entry or entry in entries[kind]:
            raise ValueError(
                f"{path.name}:{number}: got {line!r}, expected 'golden: slug' or 'skip: reason', each once."
            )
        entries[kind].append(entry)
    return Pending(tuple(entries["golden"]), tuple(entries["skip"]))
