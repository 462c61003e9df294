"""The search of MedS3: a prefix is worth the share of its completions that end right, and labels look both ways."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from apportion.errors import InputError, unknown_name
from apportion.sampling.search.backup import BACKUPS, Backup
from apportion.sampling.search.labels import LOOK_BACKS, clipped, look_back, thresholded
from apportion.sampling.search.requests import (
    CheckAnswers,
    Checked,
    Coin,
    Draw,
    Fork,
    Growth,
    Path,
    Request,
    Row,
    SearchRule,
)
from apportion.sampling.search.selection import SELECTIONS, Child, Selection, first_best
from apportion.sampling.search.tree import SearchTree

_FEW = 3
_UNKNOWN = "no answer of the search has a verdict"


@dataclass(frozen=True)
class _Settings:
    completions: int
    least_completions: int
    sure: float
    right: int
    nodes: int
    look_back: str
    lam: float
    threshold: float | None


def med_s3(
    c: float = 2.0,
    children: int = 3,
    completions: int = 20,
    least_completions: int = 5,
    unvisited: float = 5.0,
    sure: float = 0.9,
    right: int = 4,
    nodes: int = 60,
    backup: str = "comp",
    look_back: str = "soft_paper",
    lam: float = 1.0,
    threshold: float | None = 0.0,
) -> SearchRule:
    """Values from completions, and labels that see a step that lowered them.

    A round goes down by :func:`~apportion.sampling.search.selection.ucb` to a node without children and draws
    ``children`` of it; below a node worth ``sure`` or more, one that goes to the end. A new node at depth d is worth
    the share of max(completions // (d + 1), least_completions) completions that end right, one that ends the response 1
    or 0; both are handed up. Where at most three paths have ended afterwards, the best of the others are completed.
    Paths that ended are labelled by :func:`~apportion.sampling.search.labels.look_back`; those of a prompt without a
    right and a wrong one have no labels.

    Args:
        c: of the exploration bonus.
        children: continuations of a node.
        completions: that value a node, shared among its depth.
        least_completions: how many at least.
        unvisited: selection score of a node that no value went through.
        sure: value from which on a node is expanded to the end.
        right: right paths at which the search stops.
        nodes: nodes at which it stops.
        backup: rule by which values are handed up: ``comp`` or ``mean``.
        look_back: rule by which labels look back, see :data:`~apportion.sampling.search.labels.LOOK_BACKS`.
        lam: how much that takes off.
        threshold: labels above it are 1 and others 0; None: as they are, brought into 0 to 1.

    Raises:
        InputError: a setting out of range or an unknown rule; when run, a group of less than two.

    Source: arXiv 2501.12051; pixas/MedSSS. Wrong answers are not mended: that takes a prompt that asks for it.
    """
    for name, value in (
        ("children", children),
        ("completions", completions),
        ("least_completions", least_completions),
        ("right", right),
        ("nodes", nodes),
    ):
        if value < 1:
            raise InputError(f"{name} is {value}, expected at least 1.")
    if backup not in ("comp", "mean"):
        raise unknown_name("backup rule", backup, ("comp", "mean"))
    if look_back not in LOOK_BACKS:
        raise unknown_name("look-back rule", look_back, LOOK_BACKS)
    if not lam >= 0:
        raise InputError(f"lam is {lam}, expected 0 or more.")
    settings = _Settings(completions, least_completions, sure, right, nodes, look_back, lam, threshold)
    return _MedS3(children, settings, SELECTIONS["ucb"](c=c, unvisited=unvisited), BACKUPS[backup]())


class _MedS3:
    checks_steps = False

    def __init__(self, children: int, settings: _Settings, selection: Selection, back_up: Backup) -> None:
        self.children, self.settings, self.selection, self.back_up = children, settings, selection, back_up

    def grow(self, begun: Sequence[Row], coin: Coin, most: int) -> Growth:
        if most < 2:
            raise InputError(f"group_size is {most}, expected at least 2: labels need right and wrong paths.")
        search = _Tree(self, begun)
        while not search.enough and (node := search.select()) is not None:
            yield from search.expand(node)
        yield from search.finish()
        return search.paths(most)


class _Tree:
    """The tree of one prompt while it grows."""

    def __init__(self, rule: _MedS3, begun: Sequence[Row]) -> None:
        self.rule, self.settings, self.begun = rule, rule.settings, begun
        self.tree = SearchTree.rooted()
        self.rows: dict[int, Row] = {}
        self.ends: dict[int, int] = {self.tree.root: 0}
        self.answers: dict[int, Checked] = {}
        self.completed: set[int] = set()

    @property
    def enough(self) -> bool:
        right = sum(answer.right for answer in self.answers.values())
        return right >= self.settings.right or len(self.tree) >= self.settings.nodes

    def select(self) -> int | None:
        """A node without children; None where nothing is left to try."""
        node = self.tree.root
        if node in self.completed:
            return None
        while children := self.tree.children(node):
            known = [self._known(child) for child in children]
            best = first_best(self.rule.selection(known, self.tree.visits[node]))
            if best is None:
                return None
            node = children[best]
        return node

    def _known(self, node: int) -> Child:
        answer = self.answers.get(node)
        return Child(
            self.tree.values[node],
            self.tree.visits[node],
            finish=answer is not None,
            correct=answer is not None and answer.right,
            completed=node in self.completed,
        )

    def expand(self, node: int, to_the_end: bool = False) -> Generator[Request, Any, None]:
        """Children of a node, or one that goes to the end, with their values handed up."""
        place = self.ends[node]
        straight = to_the_end or (node != self.tree.root and self.tree.values[node] >= self.settings.sure)
        if node == self.tree.root:
            rows = self.begun
        else:
            rows = yield Draw([Fork(self.rows[node], place)] * (1 if straight else self.rule.children))
        ends = [len(row.ids) if straight else row.step_after(place) for row in rows]
        asked = yield from self._completions(rows, ends, self.tree.depth(node) + 2)
        checks: list[Checked] = yield CheckAnswers([row for some in asked for row in some])
        before = 0
        for row, end, some in zip(rows, ends, asked, strict=True):
            known = [check for check in checks[before : before + len(some)] if check.score is not None]
            if known:
                self._add(node, row, end, known)
            before += len(some)
        self._complete(node)

    def _completions(
        self, rows: Sequence[Row], ends: Sequence[int], share: int
    ) -> Generator[Request, Any, list[list[Row]]]:
        """By row, what values its node: itself where it ends there, else completions from there, itself among them."""
        count = max(self.settings.completions // share, self.settings.least_completions)
        further = [0 if end == len(row.ids) else count - 1 for row, end in zip(rows, ends, strict=True)]
        forks = [Fork(row, end) for row, end, n in zip(rows, ends, further, strict=True) for _ in range(n)]
        drawn: list[Row] = (yield Draw(forks)) if forks else []
        starts = [sum(further[:i]) for i in range(len(rows))]
        return [[row, *drawn[a : a + n]] for row, a, n in zip(rows, starts, further, strict=True)]

    def _add(self, parent: int, row: Row, end: int, known: Sequence[Checked]) -> None:
        node = self.tree.add(parent, "reason")
        self.rows[node], self.ends[node] = row, end
        if end == len(row.ids):
            self.tree.kinds[node] = "finish"
            self.answers[node] = known[0]
            self.completed.add(node)
        self.rule.back_up(self.tree, node, sum(check.right for check in known) / len(known))

    def _complete(self, node: int) -> None:
        """A node is completed when all its children are; one that got none has nothing to try."""
        while self.completed.issuperset(self.tree.children(node)):
            self.completed.add(node)
            above = self.tree.parents[node]
            if above is None:
                return
            node = above

    def finish(self) -> Generator[Request, Any, None]:
        """Complete the best nodes without children, where few paths have ended."""
        if len(self.answers) > _FEW:
            return
        leaves = [n for n in range(len(self.tree)) if not self.tree.children(n) and n not in self.completed and n]
        for node in sorted(leaves, key=lambda n: -self.tree.values[n])[: self.rule.children]:
            yield from self.expand(node, to_the_end=True)

    def paths(self, most: int) -> list[Path]:
        """Those that ended, right and wrong in turn, each once; where no answer has a verdict, a row without one."""
        if not self.answers:
            row = self.begun[0]
            return [Path(row, [len(row.ids)], [len(self.tree)], [0.0], [0], ["virtual"], None, Checked(None, _UNKNOWN))]
        found: dict[bool, list[Path]] = {True: [], False: []}
        seen = set()
        for leaf, answer in self.answers.items():
            if self.rows[leaf].ids not in seen:
                seen.add(self.rows[leaf].ids)
                found[answer.right].append(self._path(leaf, answer))
        both = bool(found[True]) and bool(found[False])
        in_turn = [(rank, not right, path) for right, paths in found.items() for rank, path in enumerate(paths)]
        chosen = [path for _, _, path in sorted(in_turn, key=lambda entry: entry[:2])[:most]]
        return chosen if both else [replace(path, labels=None) for path in chosen]

    def _path(self, leaf: int, answer: Checked) -> Path:
        nodes = self.tree.path(leaf)
        values = [self.tree.values[node] for node in nodes]
        found = look_back([self.tree.values[self.tree.root], *values], self.settings.look_back, self.settings.lam)
        threshold = self.settings.threshold
        return Path(
            self.rows[leaf],
            [self.ends[node] for node in nodes],
            nodes,
            values,
            [self.tree.visits[node] for node in nodes],
            [self.tree.kinds[node] for node in nodes],
            clipped(found.labels) if threshold is None else thresholded(found.labels, threshold),
            answer,
        )
