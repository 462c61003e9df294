"""Labels of steps from signals inside a response: what it took back itself, and what its wrong answer rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apportion.annotations.annotator import Annotator
from apportion.annotations.judging import Tags, ask, build_judge
from apportion.annotations.scripted_judges import JUDGES
from apportion.annotations.transcripts import (
    GUARD,
    Transcript,
    numbers_in,
    rows_of,
    tags_for,
    transcripts,
    with_counts,
)
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from apportion.rollouts.columns import split_name
from apportion.rollouts.makers import maker_of

RIGHT = """The solution reaches the right answer, perhaps after mistakes that it takes back itself. Do not solve the \
problem. First find every place where the solution corrects itself or goes back. For each, say what error is taken \
back and in which steps it may have been made. Then go through those steps one by one: a step is incorrect if it makes \
the error or depends on it."""
WRONG = """The answer of the solution is wrong. Do not solve the problem. Find the steps whose content agrees with \
that wrong answer: they state it, or claim something that it rests on. Steps of which you cannot say so do not count."""
REPLIES = {True: "incorrect_steps", False: "matching_steps"}


def thought_labels(
    judge: str = "running_sum_labels",
    retries: int = 1,
    answer_after: str = "</think>",
    kind: str = "step",
    component: str = "outcome",
) -> Annotator:
    """A label for every step: ``correct`` or ``incorrect`` in right responses, ``match`` or ``uncertain`` in wrong.

    The judge does not solve the problem. In a right response it looks for reflections, traces the error that each
    takes back, and lists the steps that depend on it. In a wrong one all steps of the written answer are ``match``, and
    of the thinking those that the judge finds to agree with the wrong answer. The last step holds the answer, so it is
    ``correct`` or ``match``. A number that says otherwise, or is of no step, is left out and counted. A response has no
    labels where its outcome is unknown, or the judge's reply cannot be read, again after ``retries``.

    Args:
        judge: a scripted judge by name, or ``package.module:name``; see :mod:`apportion.annotations.judging`.
        retries: how often an unreadable reply is asked for again.
        answer_after: the text that ends the thinking; in a response without it the last step is the written answer.
        kind: of the spans that are steps; an annotator before this one makes them.
        component: the outcome, 0 or 1.

    Makes ``<kind>:label``, text, and ``response:outside/label``, how many numbers were left out.

    Source: arXiv 2507.23317.
    """
    if not answer_after:
        raise InputError("answer_after is empty, expected the text that ends the thinking, such as '</think>'.")
    asked = build_judge(judge, JUDGES)

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        right = _right(rollouts, component)
        judged = transcripts(rollouts, policy, kind, "thought_labels")
        cases = [_Case.of(t, bool(right[t.response]), answer_after) for t in judged if right[t.response] is not None]
        tags = tags_for(judged, list(REPLIES.values()))
        listed: dict[int, set[int]] = {case.transcript.response: set() for case in cases if not case.open_steps}
        for verdict in (True, False):
            listed |= _listed(asked, [c for c in cases if c.right == verdict and c.open_steps], verdict, tags, retries)

        labels: list[str | None] = [None] * rollouts.rows(kind)
        outside = {}
        rows = rows_of(rollouts, kind)
        for case in cases:
            b = case.transcript.response
            if b in listed:
                labels[rows[b].start : rows[b].stop] = case.labels(listed[b])
                outside[b] = len(listed[b] - case.possible)
        rollouts = rollouts.with_column(f"{kind}:label", labels, maker="thought_labels")
        return with_counts(rollouts, "outside/label", outside, "thought_labels")

    return Annotator(apply, (f"{kind}:label",))


def label_prompt(judged: Transcript, right: bool, tags: Tags) -> str:
    """What the judge is asked about one response."""
    reply, last = REPLIES[right], len(judged.steps) - 1
    return f"""Below is a problem and a solution to it. The solution is cut into steps, numbered 0 to {last}. {GUARD}

{judged.tagged(tags, with_reference=False)}

{RIGHT if right else WRONG}
End with the numbers of those steps between tags, separated by commas, or with nothing between them if there are none:
{tags.opening(reply)}numbers{tags.closing(reply)}"""


@dataclass(frozen=True)
class _Case:
    """A response whose outcome is known.

    Attributes:
        transcript: its steps.
        right: its outcome.
        open_steps: how many of its first steps the judge decides on.
    """

    transcript: Transcript
    right: bool
    open_steps: int

    @staticmethod
    def of(transcript: Transcript, right: bool, answer_after: str) -> _Case:
        before_last = len(transcript.steps) - 1
        thinking, marker, _ = transcript.whole.rpartition(answer_after)
        if right or not marker:
            return _Case(transcript, right, before_last)
        written = len(thinking) + len(marker)
        return _Case(transcript, right, min(sum(start < written for start in transcript.starts), before_last))

    @property
    def possible(self) -> set[int]:
        """The steps that the judge may list: a wrong response's written answer too, which is known to match."""
        return set(range(self.open_steps if self.right else len(self.transcript.steps)))

    def labels(self, listed: set[int]) -> list[str]:
        """Of every step."""
        named, others, answer = ("incorrect", "correct", "correct") if self.right else ("match", "uncertain", "match")
        thinking = [named if step in listed else others for step in range(self.open_steps)]
        return thinking + [answer] * (len(self.transcript.steps) - self.open_steps)


def _listed(judge: Any, cases: Sequence[_Case], right: bool, tags: Tags, retries: int) -> dict[int, set[int]]:
    """The steps that the judge lists, by response, where its reply could be read."""
    prompts = [label_prompt(case.transcript, right, tags) for case in cases]
    replies = ask(judge, prompts, lambda reply: numbers_in(tags.last(REPLIES[right], reply)), retries)
    both = zip(cases, replies, strict=True)
    return {case.transcript.response: reply for case, reply in both if reply is not None}


def _right(rollouts: Rollouts, component: str) -> list[bool | None]:
    """Whether every response is right; None where that is not known.

    Raises:
        InputError: an episode of several responses, or an outcome other than 0 and 1.
    """
    full = rollouts.find(f"reward/{component}")
    if full is None:
        raise MissingColumn(f"reward/{component}", "thought_labels", maker_of(f"reward/{component}"))
    level = split_name(full)[0]
    if level not in ("response", "episode") or rollouts.n_responses != rollouts.n_episodes:
        raise InputError(
            f"thought_labels reads {full!r} of {rollouts.n_responses} responses in {rollouts.n_episodes} episodes, "
            "expected an outcome of episodes of one response each."
        )
    column, scored = rollouts.columns[full], rollouts.columns[f"{level}:scored/{component}"].tensor.bool()
    known = scored if column.present is None else scored & column.present
    given = [value if there else None for value, there in zip(column.tensor.tolist(), known.tolist(), strict=True)]
    if set(given) - {0.0, 1.0, None}:
        raise InputError(f"thought_labels reads {full!r} with partial credit, expected 1 (right) or 0 (wrong).")
    return [None if value is None else value == 1 for value in given]
