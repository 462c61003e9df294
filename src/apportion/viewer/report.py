"""One self-contained file: the page with the answers it will ask for inside, for people who have not got the run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from apportion.errors import InputError
from apportion.viewer.bundle import bundle
from apportion.viewer.crediting import STORED, stored_as
from apportion.viewer.index import COLUMNS
from apportion.viewer.server import static_files
from apportion.viewer.session import Session

LIMIT = 10_000_000
"""Bytes that a report stays under."""

RESERVE = 500_000
"""Bytes of it kept for the lists of groups, which are written last."""

DIGITS = 7
"""Significant digits of numbers in a report."""

RULE = "steps in turn, evenly over the run; of a step mixed groups first, then by largest credit"
"""How groups are chosen, in words."""

Progress = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Report:
    """A report and what is in it.

    Attributes:
        html: the file.
        groups: how many groups it holds.
        chosen: how many were to be in it; what did not fit was left out, the last chosen first.
        existing: how many there are.
        methods: whose credit it holds.
        left_out: what it does not hold and why, a sentence each.
    """

    html: bytes
    groups: int
    chosen: int
    existing: int
    methods: list[str]
    left_out: list[str]


def choose(rows: Sequence[Sequence[Any]], count: int) -> list[Sequence[Any]]:
    """The groups of a report, by :data:`RULE`.

    The best group of every step comes first, then the second best of every step; where not all of a round fit, steps
    are taken evenly.

    Args:
        rows: of :data:`apportion.viewer.index.COLUMNS`.
        count: how many at most.

    Example:
        >>> def row(part, group, health, credit):
        ...     return [part, group, None, None, "", 2, 2, [], None, health, 1.0, None, credit]
        >>> rows = [row(1, 0, "wrong", 0.0), row(1, 1, "mixed", 1.0), row(2, 2, "mixed", 3.0), row(2, 3, "mixed", 2.0)]
        >>> [chosen[1] for chosen in choose(rows, 3)]
        [1, 2, 0]
    """
    part, group, health, credit = (COLUMNS.index(name) for name in ("part", "group", "health", "credit"))
    by_part: dict[int, list[Sequence[Any]]] = {}
    for row in rows:
        by_part.setdefault(row[part], []).append(row)
    for members in by_part.values():
        members.sort(key=lambda row: (row[health] != "mixed", -(row[credit] or 0.0), row[group]))
    chosen: list[Sequence[Any]] = []
    for rank in range(max(map(len, by_part.values()), default=0)):
        candidates = [by_part[p][rank] for p in sorted(by_part) if len(by_part[p]) > rank]
        room = count - len(chosen)
        if room < len(candidates):
            candidates = [candidates[i * len(candidates) // room] for i in range(room)] if room > 0 else []
        chosen += candidates
    return chosen


def make_report(session: Session, groups: int = 100, progress: Progress = iter) -> Report:
    """Make a report of everything a session has open.

    Args:
        session: with its groups listed.
        groups: how many of them to hold at most, of all runs together.
        progress: wraps the list of groups that are written.

    Raises:
        InputError: the number of groups is negative, the curves alone are too large, or no part of a source can be
            read.
    """
    if groups < 0:
        raise InputError(f"--groups is {groups}, expected 0 or more.")
    shares = [groups // len(session.sources) + (i < groups % len(session.sources)) for i in range(len(session.sources))]
    held = [_held(session, number) for number in range(len(session.sources))]
    chosen = [choose(listing.rows, share) for listing, share in zip(session.listings, shares, strict=True)]
    answers: dict[str, str] = {}
    left_out: list[str] = []
    for number, specs in enumerate(held):
        left_out += _unlisted(session, number) + _unheld(session, number)
        answers[key("run", run=number)] = packed(session.answer("run", {"run": str(number)}))
        answers[key("methods", run=number)] = packed(_methods(session, number, specs))
        for asked in _combinations(specs):
            comparison = session.comparison(number, asked)
            while (state := comparison.state())["result"] is None and state["error"] is None:
                time.sleep(0.02)
            if state["result"] is not None:
                answers[key("agreement", run=number, credit="\n".join(asked))] = packed(state["result"])
            else:
                whose = f"how far {' and '.join(asked)} agree on {session.sources[number].name}"
                left_out.append(f"{whose}: {state['error']}")
    room = LIMIT - RESERVE - len(_page({}, "", [], "")) - sum(_size(name, text) for name, text in answers.items())
    if room < 0:
        raise InputError("the curves of these runs alone are more than a report holds: report on fewer runs at once.")
    kept: list[list[Sequence[Any]]] = [[] for _ in session.sources]
    order = [(n, row) for row_of_each in itertools.zip_longest(*chosen) for n, row in enumerate(row_of_each) if row]
    for number, row in progress(order):
        query = {"run": str(number), "part": str(row[0]), "group": str(row[1]), "credit": "\n".join(held[number])}
        text = packed(session.answer("group", query))
        name = key("group", run=number, part=row[0], group=row[1])
        room -= _size(name, text)
        if room < 0:
            break
        answers[name] = text
        kept[number].append(row)
    for number, rows in enumerate(kept):
        listing = {
            "rows": sorted(map(list, rows), key=lambda row: (row[0], row[1])),
            "from": 0,
            **session.listings[number].progress(),
            "count": len(rows),
        }
        answers[key("groups", run=number)] = packed(listing)
    existing = sum(len(listing.rows) for listing in session.listings)
    written, wanted = sum(map(len, kept)), sum(map(len, chosen))
    note = f"report: {written} of {existing} groups ({RULE})"
    runs = {**session.answer("runs", {}), "live": False}
    answers[key("runs")] = packed(runs)
    specs = list(dict.fromkeys(spec for one in held for spec in one))
    title = ", ".join(source.name for source in session.sources)
    return Report(_page(answers, note, specs, title), written, wanted, existing, specs, left_out)


def _size(name: str, text: str) -> int:
    return len(name) + len(text) + len('"": "", ')


def _held(session: Session, number: int) -> list[str]:
    """The methods a report holds credit of: stored, those asked for, and enough others to compare."""
    source = session.sources[number]
    newest = source.newest()
    if newest is None:
        return []
    usable = session.methods.defaults(newest[1])
    again = stored_as(source) if STORED in usable else None
    distinct = [spec for spec in usable if spec != again]
    return distinct[: max(3, len(session.methods.asked) + 1)]


def _unheld(session: Session, number: int) -> list[str]:
    """The methods asked for that cannot credit a source, each with what it lacks."""
    source = session.sources[number]
    newest = source.newest()
    if newest is None:
        return []
    lacking = {
        spec: [n for n in session.methods.stage(spec).needs if not newest[1].has(n)] for spec in session.methods.asked
    }
    return [
        f"credit under {spec}: {source.name} lacks {', '.join(missing)}" for spec, missing in lacking.items() if missing
    ]


def _unlisted(session: Session, number: int) -> list[str]:
    """The parts whose groups, or whose credit, could not be listed, alike ones in one sentence."""
    source, listing = session.sources[number], session.listings[number]
    said = []
    for parts, what in ((listing.complaints, ""), (listing.uncredited, "credit in the list of groups of ")):
        by_reason: dict[str, list[int]] = {}
        for part, reason in sorted(parts.items()):
            by_reason.setdefault(reason, []).append(part)
        for reason, alike in by_reason.items():
            more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
            said.append(f"{what}{source.part_name(alike[0])}{more}: {reason}")
    return said


def _combinations(specs: Sequence[str]) -> Iterator[list[str]]:
    for size in (2, 3):
        yield from map(list, itertools.combinations(specs, size))


def _methods(session: Session, number: int, held: list[str]) -> dict[str, Any]:
    answer = session.answer("methods", {"run": str(number)})
    return {**answer, "methods": [m for m in answer["methods"] if m["credit"] in held], "defaults": held, "held": held}


def key(question: str, **query: Any) -> str:
    """The name of an answer, as the page asks for it.

    Example:
        >>> key("group", run=0, part=3, credit="tempo(norm_by_std=False)")
        'group?credit=tempo%28norm_by_std%3DFalse%29&part=3&run=0'
    """
    encoded = {name: quote_plus(str(value), safe="*").replace("~", "%7E") for name, value in sorted(query.items())}
    return f"{question}?{'&'.join(f'{name}={value}' for name, value in encoded.items())}"


def packed(answer: Mapping[str, Any]) -> str:
    """An answer as compressed text."""
    content = json.dumps(_rounded(answer), allow_nan=False, separators=(",", ":")).encode("ascii")
    return base64.b64encode(gzip.compress(content, mtime=0)).decode("ascii")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _page(answers: Mapping[str, str], note: str, held: Sequence[str], title: str) -> bytes:
    """The file; its policy lets its own script and styles run, known by their hashes, and nothing else."""
    static = static_files()
    modules = {name: content.decode() for name, content in static.items() if name.endswith(".js")}
    script = "\n" + bundle(modules, "app.js") + "\n"
    style = "\n" + "\n".join(static[name].decode() for name in ("palette.css", "app.css"))
    data = json.dumps({"answers": dict(answers), "note": note, "held": list(held)}).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>apportion: {_escaped(title)}</title>",
            f"<style>{style}</style></head><body>",
            "<noscript>This page shows credit with JavaScript, which is switched off.</noscript>",
            f'<script type="application/json" id="apportion-data">{data}</script>',
            f"<script>{script}</script>",
            "</body></html>\n",
        ]
    ).encode("utf-8", "backslashreplace")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
