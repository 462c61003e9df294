"""What a viewer answers: sources opened once, their groups listed as they appear, and questions about them.

The live page asks over HTTP and a report carries the same answers inside; both come from :meth:`Session.answer`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from apportion.errors import ApportionError, InputError
from apportion.rollouts import Rollouts
from apportion.viewer import index
from apportion.viewer.agreeing import Comparison
from apportion.viewer.crediting import STORED, Methods, stored_as
from apportion.viewer.group import group_record
from apportion.viewer.source import Source
from apportion.viewer.texts import Decode, open_tokenizer, tokenizer_of_run

REWARDS = index.COLUMNS.index("rewards")

SLICE = 2000
"""Rows of groups in one answer."""

Query = Mapping[str, str]


class Listing:
    """The groups of a source, listed part by part as parts appear.

    Args:
        source: of the rollouts.
        methods: what is on offer.
        decode: turns tokens into text.

    Attributes:
        rows: of :data:`apportion.viewer.index.COLUMNS`, in the order in which parts were read.
        complaints: by part, why it cannot be read.
        uncredited: by part that is listed without credit, why.
        rewards: the smallest and the largest known reward so far; None before the first.
        edition: grows whenever rows listed before cease to hold, as when a resumed run writes steps anew.
    """

    def __init__(self, source: Source, methods: Methods, decode: Decode | None) -> None:
        self.source, self.methods, self.decode = source, methods, decode
        self.rows: list[list[Any]] = []
        self.complaints: dict[int, str] = {}
        self.uncredited: dict[int, str] = {}
        self.rewards: tuple[float, float] | None = None
        self.edition = 0
        self._seen: dict[int, Any] = {}
        self._lock = threading.Lock()

    def catch_up(self) -> int:
        """List the parts that appeared since the last time; returns how many did."""
        with self._lock:
            now = {part: self.source.stamp(part) for part in self.source.parts()}
            if any(now.get(part) != stamp for part, stamp in self._seen.items()):
                self.rows, self.complaints, self.uncredited, self.rewards, self._seen = [], {}, {}, None, {}
                self.edition += 1
            new = [part for part in now if part not in self._seen]
            for part in new:
                self._list(part)
                self._seen[part] = now[part]
            return len(new)

    def _list(self, part: int) -> None:
        try:
            rollouts = self.source.read(part)
            rows = index.rows(part, rollouts, self._advantages(part, rollouts), self.decode)
        except ApportionError as error:
            self.complaints[part] = str(error)
            return
        except Exception as error:  # whatever a file holds, the others are listed
            name = self.source.part_name(part)
            self.complaints[part] = f"{name} cannot be listed ({type(error).__name__}: {error})."
            return
        self.rows += rows
        rewards = [reward for row in rows for reward in row[REWARDS] if reward is not None]
        if rewards:
            low, high = self.rewards or (rewards[0], rewards[0])
            self.rewards = min(low, *rewards), max(high, *rewards)

    def _advantages(self, part: int, rollouts: Rollouts) -> Tensor | None:
        chosen = self.methods.defaults(rollouts)[:1]
        try:
            return self.methods.whole(self.source, part, chosen[0]).advantages if chosen else None
        except ApportionError as error:
            self.uncredited[part] = str(error)
            return None

    def progress(self) -> dict[str, Any]:
        """How far it is, as JSON."""
        return {
            "edition": self.edition,
            "listed": len(self._seen),
            "parts": len(self.source.parts()),
            "count": len(self.rows),
            "rewards": self.rewards,
            "complaints": [
                *(self.complaints[part] for part in sorted(self.complaints)),
                *dict.fromkeys(self.uncredited[part] for part in sorted(self.uncredited)),
            ],
        }


class Session:
    """Runs and files open side by side.

    Args:
        paths: folders of runs, files of rollouts.
        specs: credit methods to offer beside the registered ones, and to show first.
        tokenizer: of files, and of runs without one of their own.

    Raises:
        InputError: one of them cannot be used.
    """

    def __init__(self, paths: Sequence[Path], specs: Sequence[str] = (), tokenizer: Path | None = None) -> None:
        self.methods = Methods(specs)
        self.sources = [Source(path) for path in paths]
        given = None if tokenizer is None else open_tokenizer(tokenizer)
        self.decoders = [given or _decoder_of(source) for source in self.sources]
        self.listings = [
            Listing(source, self.methods, decode) for source, decode in zip(self.sources, self.decoders, strict=True)
        ]
        self._comparisons: dict[tuple[Any, ...], tuple[Any, Comparison]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._questions: dict[str, Callable[[Query], dict[str, Any]]] = {
            "runs": self._runs,
            "run": self._run,
            "groups": self._groups,
            "methods": self._methods,
            "group": self._group,
            "agreement": self._agreement,
        }

    def watch(self, seconds: float = 2.0) -> None:
        """List groups in the background, now and as they appear, until :meth:`close`."""

        def follow() -> None:
            while not self._stop.is_set():
                for listing in self.listings:
                    with contextlib.suppress(OSError):  # a folder that cannot be looked into is said at every question
                        listing.catch_up()
                self._stop.wait(seconds)

        threading.Thread(target=follow, name="list groups", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()

    def answer(self, question: str, query: Query) -> dict[str, Any]:
        """The answer to a question of the page, as JSON.

        Raises:
            InputError: an unknown question, or a query that cannot be answered.
        """
        if question not in self._questions:
            raise InputError(f"unknown question {question!r}: expected one of {', '.join(self._questions)}.")
        return self._questions[question](query)

    def _runs(self, query: Query) -> dict[str, Any]:
        return {
            "runs": [
                {"name": source.name, "path": str(source.path), "is_run": source.is_run, **listing.progress()}
                for source, listing in zip(self.sources, self.listings, strict=True)
            ],
            "columns": list(index.COLUMNS),
            "live": True,
        }

    def _run(self, query: Query) -> dict[str, Any]:
        number = self._number(query)
        overview, progress = self.sources[number].overview(), self.listings[number].progress()
        return {**overview, **progress, "complaints": [*overview["complaints"], *progress["complaints"]]}

    def _groups(self, query: Query) -> dict[str, Any]:
        listing = self.listings[self._number(query)]
        start = whole(query, "from")
        rows = listing.rows[start : start + SLICE]
        return {"rows": rows, "from": start, **listing.progress()}

    def _methods(self, query: Query) -> dict[str, Any]:
        source = self.sources[self._number(query)]
        newest = source.newest()
        if newest is None:
            return {"methods": [], "defaults": [], "refused": {}}
        _, rollouts = newest
        return {
            "methods": self.methods.offer(rollouts, stored_as(source)),
            "defaults": self.methods.defaults(rollouts),
            "refused": self.methods.refused,
        }

    def _group(self, query: Query) -> dict[str, Any]:
        number = self._number(query)
        return group_record(
            self.sources[number],
            whole(query, "part"),
            whole(query, "group"),
            specs_of(query),
            self.methods,
            self.decoders[number],
        )

    def _agreement(self, query: Query) -> dict[str, Any]:
        return self.comparison(self._number(query), specs_of(query)).state()

    def comparison(self, number: int, specs: Sequence[str]) -> Comparison:
        """The comparison of methods on a source, begun at the first call and again when there are new parts."""
        source = self.sources[number]
        stamps = tuple((part, source.stamp(part)) for part in source.parts())
        key = (number, tuple(specs))
        with self._lock:
            known, found = self._comparisons.get(key, (None, None))
            if found is None or (known != stamps and (found.result is not None or found.error is not None)):
                found = Comparison(source, specs, self.methods, self.decoders[number]).start()
                self._comparisons[key] = stamps, found
            return found

    def _number(self, query: Query) -> int:
        number = whole(query, "run")
        if number >= len(self.sources):
            raise InputError(f"run {number} is not open, expected 0 to {len(self.sources) - 1}.")
        return number


def _decoder_of(source: Source) -> Decode | None:
    tokenizer = tokenizer_of_run(source.path) if source.is_run else None
    return None if tokenizer is None else open_tokenizer(tokenizer)


def whole(query: Query, name: str) -> int:
    """A whole number of a query; missing is 0, and only ids of groups may be below.

    Raises:
        InputError: it is something else.
    """
    text = query.get(name, "0")
    digits = text.removeprefix("-") if name == "group" else text
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
        raise InputError(f"{name} is {text[:40]!r}, expected a whole number.")
    return int(text)


def specs_of(query: Query) -> list[str]:
    """The methods a query names, one a line."""
    return [spec for spec in query.get("credit", "").split("\n") if spec] or [STORED]
