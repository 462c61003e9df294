"""What a run of a study leaves: accuracy on every held-out question, along the tokens it sampled.

Suffix legend: E evaluations, Q questions, P places on the token axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apportion.errors import InputError
from apportion.training.metrics import drawn_for
from apportion.training.run_folder import RunFolder

KINDS = ("sampled", "greedy")
STOPPED = "stopped.json"
"""Beside a run that had to stop, because its loss was not finite or the like."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy of a run.

    Attributes:
        steps: steps done.
        stopped: it had to stop before its end; what it was worth at its last evaluation counts from there on.
        tokens_E: tokens sampled up to each evaluation, from 0.
        responses_E: the same in responses, those that branch from others included.
        right_EQ: share of a question's known answers that were right, by kind; NaN where none is known.
    """

    steps: int
    stopped: bool
    tokens_E: np.ndarray
    responses_E: np.ndarray
    right_EQ: dict[str, np.ndarray]

    def at(self, kind: str, tokens_P: np.ndarray) -> np.ndarray:
        """Accuracy of every question after so many tokens ``[P, Q]``, linear between evaluations."""
        above = np.clip(np.searchsorted(self.tokens_E, tokens_P, side="right"), 1, max(len(self.tokens_E) - 1, 1))
        if len(self.tokens_E) == 1:
            return np.repeat(self.right_EQ[kind], len(tokens_P), axis=0)
        before, after = self.tokens_E[above - 1], self.tokens_E[above]
        share = np.clip((tokens_P - before) / (after - before), 0.0, 1.0)[:, None]
        values = self.right_EQ[kind]
        return (1 - share) * values[above - 1] + share * values[above]

    def on_the_way(self, kind: str, tokens: float) -> np.ndarray:
        r"""Mean accuracy of every question ``[Q]`` over the first tokens.

        .. math:: \frac1T \int_0^T a_q(t)\, dt
        """
        knots = np.unique(np.append(self.tokens_E[self.tokens_E < tokens], [0.0, tokens]))
        values, widths = self.at(kind, knots), np.diff(knots)[:, None]
        return ((values[1:] + values[:-1]) / 2 * widths).sum(0) / tokens

    def tokens_to(self, kind: str, accuracy: float, tokens: float, asked: np.ndarray) -> float | None:
        """Tokens after which the accuracy over questions first is this high, within the first ``tokens``; None: never.

        Args:
            kind: one of :data:`KINDS`.
            accuracy: to reach.
            tokens: the budget.
            asked: which questions count, bool ``[Q]``.
        """
        knots = np.unique(np.append(self.tokens_E[self.tokens_E < tokens], tokens))
        values = self.at(kind, knots)[:, asked].mean(1)
        reached = np.flatnonzero(values >= accuracy)
        if not len(reached):
            return None
        first = int(reached[0])
        if first == 0:
            return float(knots[0])
        rise = values[first] - values[first - 1]
        return float(knots[first - 1] + (accuracy - values[first - 1]) / rise * (knots[first] - knots[first - 1]))

    def responses_of(self, tokens: float) -> float:
        """Responses sampled with the first ``tokens``, linear between evaluations."""
        return float(np.interp(tokens, self.tokens_E, self.responses_E))


def read_curve(folder: Path) -> Curve:
    """The curve of a run that has ended.

    Raises:
        InputError: it has not, was evaluated on other questions from one time to the next, or is from before responses
            were counted.
    """
    stopped = (folder / STOPPED).exists()
    if not stopped and not (folder / "summary.json").exists():
        raise InputError(f"the run in {folder} has not ended: run the study again to finish it.")
    run, _ = RunFolder.open(folder)
    drawn = {0: (0.0, 0.0)}
    for line in run.lines("metrics.jsonl"):
        if "responses_drawn" not in line:
            raise InputError(f"the run in {folder} was made before responses were counted: begin it anew.")
        tokens, responses = drawn[line["step"] - 1]
        drawn[line["step"]] = tokens + drawn_for(line), responses + line["responses_drawn"]
    lines = run.lines("evaluations.jsonl")
    right = {kind: [[_share(scores) for scores in line["scores"][kind]] for line in lines] for kind in KINDS}
    if not lines or any(len({len(row) for row in rows}) != 1 for rows in right.values()):
        raise InputError(f"the run in {folder} was not evaluated on the same questions every time: begin it anew.")
    tokens_E, responses_E = np.array([drawn[line["step"]] for line in lines]).T
    return Curve(max(drawn), stopped, tokens_E, responses_E, {kind: np.array(rows) for kind, rows in right.items()})


def _share(scores: list[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(score >= 1 for score in known) / len(known) if known else float("nan")


def tokens_drawn(curve: Curve) -> float:
    """Tokens of a run up to its last evaluation; one that had to stop holds its place for ever."""
    return float("inf") if curve.stopped else float(curve.tokens_E[-1])
