"""Verifiers that look at one response at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apportion.errors import InputError
from apportion.rewards.verdict import Verdict, Verifier
from apportion.tasks.task import Task

NO_ANSWER = Verdict(None, "the task has no answer")
_SHOWN = 60


def answered(check: Callable[[str, str], Verdict]) -> Verifier:
    """A verifier from ``check(answer, response)``; a task without an answer is unknown.

    Example:
        >>> verify = answered(lambda answer, response: Verdict(float(answer == response)))
        >>> verify([Task("1+1=", "2", "sums"), Task("?", None, "sums")], ["2", "2"])
        [Verdict(score=1.0, reason=''), Verdict(score=None, reason='the task has no answer')]
    """

    def verify(tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]:
        return [
            NO_ANSWER if task.answer is None else check(task.answer, response)
            for task, response in paired(tasks, responses)
        ]

    return verify


def paired(tasks: Sequence[Task], responses: Sequence[str]) -> list[tuple[Task, str]]:
    """Each task with its response.

    Raises:
        InputError: there are not as many responses as tasks.
    """
    if len(tasks) != len(responses):
        raise InputError(f"a verifier got {len(tasks)} tasks and {len(responses)} responses: give one task a response.")
    return list(zip(tasks, responses, strict=True))


def short(text: str) -> str:
    """Text as one short line that can be printed anywhere.

    Example:
        >>> short("two\\nlines" + "!" * 100)
        'two lines!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!...'
    """
    line = " ".join(text[: 4 * _SHOWN].encode("utf-8", "replace").decode().split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def shown(text: str) -> str:
    """:func:`short` in quotes."""
    return repr(short(text))
