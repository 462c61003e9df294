"""The search of GroundedPRM: simulations whose every step is checked, and a tree that adds up what they were worth."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from apportion.errors import InputError
from apportion.sampling.search.backup import BACKUPS, Backup, rollout_value
from apportion.sampling.search.labels import signed
from apportion.sampling.search.requests import (
    CheckAnswers,
    Checked,
    CheckSteps,
    Coin,
    Draw,
    Fork,
    Growth,
    Path,
    Request,
    Row,
    SearchRule,
    Step,
)
from apportion.sampling.search.selection import SELECTIONS, Child, Selection, all_best
from apportion.sampling.search.tree import SearchTree


def grounded_prm(
    c: float = 1.414, children: int = 3, rounds: int = 12, depth: int = 9, decay: float = 0.9
) -> SearchRule:
    """Checked steps and the outcome, mixed into one value and handed up the tree.

    A round goes down by :func:`~apportion.sampling.search.selection.uct` to a node without children, draws
    ``children`` of it, and simulates from one of them to the end of the response. Every simulated step is checked, and
    so is the answer; :func:`~apportion.sampling.search.backup.rollout_value` of both is added to the child and, with
    decay, to those above. Low values are looked for once half of the paths that may be kept end right. Paths that ended
    are kept, as many right as wrong at most, and labelled by :func:`~apportion.sampling.search.labels.signed`: values
    of nodes, verdicts of simulated steps.

    A node that ends the response is simulated once, which ends what it has to say, and a node all of whose children are
    at their end is not gone down to.

    Args:
        c: of the exploration bonus.
        children: continuations of a node.
        rounds: simulations a prompt, at most.
        depth: steps of a path, at most; one that has not ended by then counts as wrong and is not kept.
        decay: of a value, for every step up.

    Raises:
        InputError: a setting out of range; when run, a group of less than two.

    Source: arXiv 2510.14942; JerryPlain/GroundedPRMCode. Its ``select`` takes a random child; the UCT of the paper is
    used. A path ends where the policy ends it, not where it first names the answer.
    """
    for name, value in (("children", children), ("rounds", rounds), ("depth", depth)):
        if value < 1:
            raise InputError(f"{name} is {value}, expected at least 1.")
    selections = {sign: SELECTIONS["uct"](c=c, sign=sign) for sign in (1.0, -1.0)}
    return _Grounded(children, rounds, depth, selections, BACKUPS["decayed"](decay=decay))


class _Grounded:
    checks_steps = True

    def __init__(
        self, children: int, rounds: int, depth: int, selections: dict[float, Selection], back_up: Backup
    ) -> None:
        self.children, self.rounds, self.depth = children, rounds, depth
        self.selections, self.back_up = selections, back_up

    def grow(self, begun: Sequence[Row], coin: Coin, most: int) -> Growth:
        if most < 2:
            raise InputError(f"group_size is {most}, expected at least 2: the search keeps right and wrong paths.")
        search = _Tree(self, begun, coin, most // 2)
        for _ in range(self.rounds):
            node = search.select()
            if node is None:
                break
            yield from search.simulate(node)
        return search.paths()


class _Simulated:
    """A simulation: its row, the node it began at, the ends and verdicts of all its steps, and what came of it."""

    def __init__(self, row: Row, node: int, ends: Sequence[int], verdicts: Sequence[int], checked: Checked) -> None:
        self.row, self.node, self.ends, self.verdicts, self.checked = row, node, ends, verdicts, checked


class _Tree:
    """The tree of one prompt while it grows."""

    def __init__(self, rule: _Grounded, begun: Sequence[Row], coin: Coin, each: int) -> None:
        self.rule, self.begun, self.coin, self.each = rule, begun, coin, each
        self.tree = SearchTree.rooted()
        self.rows: dict[int, Row] = {}
        self.verdicts: dict[int, int] = {}
        self.completed: set[int] = set()
        self.kept: dict[bool, list[_Simulated]] = {True: [], False: []}
        self.last: _Simulated | None = None

    def select(self) -> int | None:
        """A node without children; None where enough paths are kept or nothing is left to try."""
        if all(len(kept) == self.each for kept in self.kept.values()) or self.tree.root in self.completed:
            return None
        scores = self.rule.selections[1.0 if len(self.kept[True]) < self.each else -1.0]
        node = self.tree.root
        while children := self.tree.children(node):
            known = [
                Child(self.tree.values[child], self.tree.visits[child], completed=child in self.completed)
                for child in children
            ]
            best = all_best(scores(known, self.tree.visits[node]))
            node = children[best[self.coin(len(best))]]
        return node

    def simulate(self, node: int) -> Generator[Request, Any, None]:
        """Expand a node unless it is an end, simulate below it, and hand up what that was worth."""
        if not self._is_end(node):
            new = yield from self._expand(node)
            node = new[self.coin(len(new))]
        row, level = self.rows[node], self.tree.depth(node)
        ends = row.ends[: self.rule.depth]
        yield from self._check_path(node)
        steps = [Step(row, start, end) for start, end in zip((0, *ends), ends, strict=False)][level:]
        simulated: list[Checked] = (yield CheckSteps(steps)) if steps else []
        ended = len(ends) == len(row.ends)
        (checked,) = (yield CheckAnswers([row])) if ended else [Checked(None, "the path did not end")]
        if self._is_end(node):
            self._complete(node)
        above = [self.verdicts[above] for above in self.tree.path(node)]
        self.last = _Simulated(row, node, ends, [*above, *(check.sign for check in simulated)], checked)
        if ended and checked.score is None:
            return
        value = rollout_value([check.sign for check in simulated[:-1]], 1 if checked.right else -1)
        self.rule.back_up(self.tree, node, value)
        if ended:
            self._keep(self.last)

    def _keep(self, one: _Simulated) -> None:
        """Store a path that ended, if there is room; the same tokens again, if more of them are nodes by now."""
        kept = self.kept[one.checked.right]
        same = next((i for i, other in enumerate(kept) if other.row.ids == one.row.ids), None)
        if same is None and len(kept) < self.each:
            kept.append(one)
        elif same is not None and self.tree.depth(one.node) > self.tree.depth(kept[same].node):
            kept[same] = one

    def _expand(self, node: int) -> Generator[Request, Any, list[int]]:
        """Children of a node, each the first step of a row that was drawn to its end."""
        if node == self.tree.root:
            rows = self.begun
        else:
            place = self.rows[node].ends[self.tree.depth(node) - 1]
            rows = yield Draw([Fork(self.rows[node], place)] * self.rule.children)
        new = []
        for row in rows:
            child = self.tree.add(node, "reason")
            self.rows[child] = row
            if self.tree.depth(child) == len(row.ends):
                self.tree.kinds[child] = "finish"
            new.append(child)
        return new

    def _check_path(self, node: int) -> Generator[Request, Any, None]:
        """Verdicts on the nodes of a path that have none yet."""
        path = self.tree.path(node)
        ends = self.rows[node].ends
        asked = [i for i, above in enumerate(path) if above not in self.verdicts]
        if asked:
            checks = yield CheckSteps([Step(self.rows[node], ends[i - 1] if i else 0, ends[i]) for i in asked])
            self.verdicts |= {path[i]: check.sign for i, check in zip(asked, checks, strict=True)}

    def _is_end(self, node: int) -> bool:
        """No step may follow: the response ended, or the path is as deep as allowed."""
        return node != self.tree.root and self.tree.depth(node) >= min(len(self.rows[node].ends), self.rule.depth)

    def _complete(self, node: int) -> None:
        self.completed.add(node)
        for above in self.tree.ancestors(node):
            if not self.completed.issuperset(self.tree.children(above)):
                return
            self.completed.add(above)

    def paths(self) -> list[Path]:
        """Those kept; of a prompt without any, the last one tried, unlabelled."""
        kept = [*self.kept[True], *self.kept[False]]
        tried = kept or ([] if self.last is None else [self.last])
        found, number = [], len(self.tree)
        for one in tried:
            nodes = self.tree.path(one.node)
            beyond = range(len(nodes), len(one.ends))
            values = [self.tree.values[n] for n in nodes] + [float(one.verdicts[i]) for i in beyond]
            labels = signed(values, one.verdicts, one.checked.right) if kept else []
            found.append(
                Path(
                    one.row,
                    one.ends,
                    [*nodes, *range(number, number + len(beyond))],
                    values,
                    [self.tree.visits[n] for n in nodes] + [0] * len(beyond),
                    [self.tree.kinds[n] for n in nodes] + ["virtual"] * len(beyond),
                    [float(label) for label in labels] or None,
                    one.checked,
                )
            )
            number += len(beyond)
        return found
