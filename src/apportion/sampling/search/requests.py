"""What a search asks for while it grows: continuations, and verdicts on steps and answers.

A search of one prompt is a generator: it yields requests and is sent the replies, so that those of all prompts are
served together, with one call of the engine or of a verifier for all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from apportion.errors import InputError


@dataclass(frozen=True, eq=False)
class Row:
    """A response as drawn, from the prompt to its end.

    Attributes:
        prompt: number of its prompt.
        number: its number in the engine.
        ids: tokens.
        log_probs: one a token, inherited ones included.
        ends: one past the last token of every step.
        truncated: ended by the length limit.
    """

    prompt: int
    number: int
    ids: tuple[int, ...]
    log_probs: Tensor
    ends: tuple[int, ...]
    truncated: bool

    def step_after(self, place: int) -> int:
        """Where the step that begins at a place ends."""
        return next(end for end in self.ends if end > place)


@dataclass(frozen=True)
class Checked:
    """A verdict.

    Attributes:
        score: in the verifier's scale, 1 right and 0 wrong; None where it could not decide.
        reason: one line for a person.
    """

    score: float | None
    reason: str = ""

    @property
    def right(self) -> bool:
        """The full score."""
        return self.score is not None and self.score >= 1

    @property
    def sign(self) -> int:
        """1 above one half, -1 below; 0 at one half or where there is no verdict."""
        return 0 if self.score is None else (self.score > 0.5) - (self.score < 0.5)


@dataclass(frozen=True)
class Fork:
    """One further continuation of a row, which keeps ``place`` of its tokens."""

    row: Row
    place: int


@dataclass(frozen=True)
class Draw:
    """Asks for a new row a fork."""

    items: Sequence[Fork]


@dataclass(frozen=True)
class Step:
    """The tokens of a row from ``start`` to before ``end``."""

    row: Row
    start: int
    end: int


@dataclass(frozen=True)
class CheckSteps:
    """Asks for a verdict on every step, :class:`Checked`."""

    items: Sequence[Step]


@dataclass(frozen=True)
class CheckAnswers:
    """Asks for a verdict on every row as a whole, :class:`Checked`."""

    items: Sequence[Row]


Request = Draw | CheckSteps | CheckAnswers


@dataclass(frozen=True, eq=False)
class Path:
    """A path from the prompt down, as the search leaves it.

    Attributes:
        row: a row that goes through its nodes.
        ends: one past the last token of every node.
        nodes: their numbers in the tree; the root is 0 and left out.
        values: of the nodes.
        visits: of the nodes.
        kinds: of the nodes.
        labels: of the first nodes; what lies behind the last label is not trained on. None: nobody can say.
        checked: the verdict on its answer.
    """

    row: Row
    ends: Sequence[int]
    nodes: Sequence[int]
    values: Sequence[float]
    visits: Sequence[int]
    kinds: Sequence[str]
    labels: Sequence[float] | None
    checked: Checked

    @property
    def ids(self) -> tuple[int, ...]:
        return self.row.ids[: self.ends[-1]]


Coin = Callable[[int], int]
"""One of the numbers from 0 to below n, at random."""
Growth = Generator[Request, Any, list[Path]]


class SearchRule(Protocol):
    """How a tree grows.

    Attributes:
        children: continuations drawn from the prompt, and wherever a node is expanded.
        checks_steps: it asks for verdicts on steps.
    """

    children: int
    checks_steps: bool

    def grow(self, begun: Sequence[Row], coin: Coin, most: int) -> Growth:
        """Search below one prompt.

        Args:
            begun: its first rows, ``children`` of them.
            coin: source of randomness.
            most: the most paths to return.
        """
        ...


Cut = Callable[[Sequence[int], int], list[int]]
"""``(tokens, start) -> ends`` of the steps from ``start`` on; the last is the number of tokens."""


def every(tokens: int) -> Cut:
    """Steps of a number of tokens.

    Example:
        >>> every(2)([5, 6, 7], 0)
        [2, 3]
    """
    if tokens < 1:
        raise InputError(f"step_tokens is {tokens}, expected at least 1.")

    def cut(ids: Sequence[int], start: int) -> list[int]:
        return [*range(start + tokens, len(ids), tokens), len(ids)] if len(ids) > start else []

    return cut


def at_delimiter(decode: Callable[[Sequence[int]], str], delimiter: str, tokens: int) -> Cut:
    """Steps that end with the token in which a delimiter is complete, or after a number of tokens.

    Args:
        decode: from tokens to text.
        delimiter: what ends a step, which it belongs to.
        tokens: the most of a step.

    Example:
        >>> at_delimiter(lambda ids: "".join(map(chr, ids)), ".", 3)([*b"a.bcdef"], 0)
        [2, 5, 7]
    """
    if not delimiter:
        raise InputError("delimiter is empty, expected the text that ends a step.")
    if tokens < 1:
        raise InputError(f"step_tokens is {tokens}, expected at least 1.")

    def cut(ids: Sequence[int], start: int) -> list[int]:
        ends = []
        for place in range(start + 1, len(ids) + 1):
            if place - start == tokens or place == len(ids) or delimiter in decode(ids[start:place]):
                ends.append(place)
                start = place
        return ends

    return cut
