"""Rewards of running a program: what happened, in four classes, as a number."""

from __future__ import annotations

import re
from collections.abc import Sequence

from apportion import registry
from apportion.errors import InputError, unknown_name
from apportion.rewards.each import paired
from apportion.rewards.verdict import Verdict, Verifier
from apportion.tasks.task import Task

OUTCOMES = {"passed": 1.0, "failed_test": -0.3, "runtime_error": -0.6, "compile_error": -1.0}
"""Reward of what happened when a program was run.

Source: CodeRL arXiv 2207.01780, B-Coder arXiv 2310.03173."""


def reward_of_outcome(outcome: str) -> float:
    """The reward of an outcome.

    Raises:
        InputError: it is none of :data:`OUTCOMES`.

    Example:
        >>> reward_of_outcome("runtime_error")
        -0.6
    """
    if outcome not in OUTCOMES:
        raise unknown_name("outcome", outcome, OUTCOMES)
    return OUTCOMES[outcome]


def execution(run: str = "apportion.rewards.execution:outcome_of_sum") -> Verifier:
    """Rewards by outcome class: +1 passed, -0.3 a test failed, -0.6 it raised, -1 it does not compile.

    Args:
        run: ``package.module:name`` of a function ``(prompt, response, answer)`` of texts that runs the program and
            returns one of :data:`OUTCOMES`; None, an exception and anything else are unknown. Programs of others belong
            in a process of their own, with a time limit.

    Raises:
        InputError: there is no such function.

    Example:
        >>> from apportion.tasks.task import Task
        >>> task = Task("04=6", "0", "running_sum")
        >>> [verdict.score for verdict in execution()([task] * 4, ["60.", "61.", "6.", "6+0"])]
        [1.0, -0.3, -0.6, -1.0]
    """
    runner = registry.lookup(run, {}, "runner of programs")
    if not callable(runner):
        raise InputError(f"{run!r} is a {type(runner).__name__}, expected a function of (prompt, response, answer).")

    def verify(tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]:
        verdicts = []
        for task, response in paired(tasks, responses):
            try:
                outcome = runner(prompt=task.text, response=response, answer=task.answer)
                verdict = Verdict(None, "not run") if outcome is None else Verdict(reward_of_outcome(outcome), outcome)
            except Exception as error:  # of a user's function on hostile text
                verdict = Verdict(None, f"{run} raised {type(error).__name__}: {error}")
            verdicts.append(verdict)
        return verdicts

    return verify


def outcome_of_sum(prompt: str, response: str, answer: str | None) -> str | None:
    """An answer of the quickstart read as a program of additions, a digit a step and a full stop at its end.

    Something else than that does not compile; one step too few or too many raises; another last digit fails the test.

    Example:
        >>> outcome_of_sum("0453496=6", "6058217.", "7")
        'passed'
    """
    if answer is None:
        return None
    if not re.fullmatch(r"[0-9]+\.", response):
        return "compile_error"
    if len(response) != len(prompt.partition("=")[0]) + 1:
        return "runtime_error"
    return "passed" if response[-2] == answer else "failed_test"
