"""Verifiers from users' own functions, and from specs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, SupportsFloat

from apportion import registry
from apportion.errors import InputError
from apportion.rewards.choices import choice
from apportion.rewards.each import paired
from apportion.rewards.execution import execution
from apportion.rewards.gym import reasoning_gym
from apportion.rewards.integers import integer
from apportion.rewards.mathematics.verifier import math as mathematics
from apportion.rewards.step_checks import judged, partial_sums
from apportion.rewards.texts import exact, running_sum
from apportion.rewards.verdict import Verdict, Verifier
from apportion.tasks.task import Task

VERIFIERS: dict[str, Callable[..., Verifier]] = {
    "choice": choice,
    "exact": exact,
    "execution": execution,
    "integer": integer,
    "judged": judged,
    "math": mathematics,
    "partial_sums": partial_sums,
    "reasoning_gym": reasoning_gym,
    "running_sum": running_sum,
}
"""Verifiers by name; each is built from keyword arguments."""

_PLAIN = ("prompt", "response", "answer")
_BATCHED = ("tasks", "responses")
_EXPECTED = (
    "expected a function of (prompt, response, answer) that returns a number, True, False or None, "
    "or a verifier of (tasks, responses)"
)


def as_verifier(scorer: Callable[..., Any]) -> Verifier:
    """A verifier from a plain function of one response.

    Args:
        scorer: called as ``scorer(prompt=..., response=..., answer=...)`` with texts (``answer`` may be None). A number
            or a truth value is the score; None is unknown, and so are an exception, a number that is not finite and a
            value that is no number. A function of ``(tasks, responses)`` is taken as the verifier it is.

    Raises:
        InputError: the object is neither.

    Example:
        >>> verify = as_verifier(lambda prompt, response, answer: answer in response)
        >>> verify([Task("2+2=", "4", "sums")], ["it is 4"])
        [Verdict(score=1.0, reason='<lambda> returned True')]
    """
    name = getattr(scorer, "__name__", type(scorer).__name__)
    if not callable(scorer):
        raise InputError(f"{scorer!r} is a {type(scorer).__name__}: {_EXPECTED}.")
    if _takes(scorer, _BATCHED):
        return _guarded(scorer, name)
    if not _takes(scorer, _PLAIN):
        raise InputError(f"{name} takes ({', '.join(_parameters(scorer))}): {_EXPECTED}.")

    def check(task: Task, response: str) -> Verdict:
        try:
            return _score(scorer(prompt=task.text, response=response, answer=task.answer), name)
        except Exception as error:
            # A user's function on hostile text: what it raises says nothing about the answer.
            return Verdict(None, f"{name} raised {type(error).__name__}: {error}")

    def verify(tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]:
        return [check(task, response) for task, response in paired(tasks, responses)]

    return verify


def build_verifier(spec: str) -> Verifier:
    """The verifier that a spec names.

    Args:
        spec: a registered name with settings (``math(time_limit=2)``), or ``package.module:name`` of a function of
            (prompt, response, answer), of a verifier of (tasks, responses), or of a builder that returns either.

    Raises:
        InputError: the name, a setting, or what it builds cannot be used.

    Example:
        >>> build_verifier("exact(casefold=True)")([Task("Say yes", "yes", "words")], ["YES"])[0].score
        1.0
    """
    parsed = registry.parse(spec)
    if ":" not in parsed.name:
        verifier: Verifier = registry.build(spec, VERIFIERS, "verifier")
        return verifier
    target = registry.lookup(parsed.name, VERIFIERS, "verifier")
    if callable(target) and (_takes(target, _PLAIN) or _takes(target, _BATCHED)):
        if parsed.arguments or "(" in spec:
            raise InputError(f"{parsed.name} scores responses itself and takes no settings: write it without brackets.")
        return as_verifier(target)
    built = registry.build(spec, VERIFIERS, "verifier")
    try:
        return as_verifier(built)
    except InputError as error:
        raise InputError(f"the verifier {spec!r} cannot be used: it returned something else: {error}") from None


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        # Some built-in functions have no signature.
        return []


def _takes(function: Callable[..., Any], names: tuple[str, ...]) -> bool:
    return set(names) <= set(_parameters(function))


def _score(value: object, name: str) -> Verdict:
    if value is None:
        return Verdict(None, f"{name} returned None")
    if isinstance(value, str) or not isinstance(value, SupportsFloat):
        return Verdict(None, f"{name} returned a {type(value).__name__}, expected a number, True, False or None")
    score = float(value)
    if not math.isfinite(score):
        return Verdict(None, f"{name} returned {score}, which is no score")
    return Verdict(score, f"{name} returned {value}")


def _guarded(verifier: Verifier, name: str) -> Verifier:
    """A user's verifier that cannot take the run down with an exception."""

    def verify(tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]:
        try:
            verdicts = list(verifier(tasks, responses))
        except Exception as error:
            # As above, but the batch fails as one.
            return [Verdict(None, f"{name} raised {type(error).__name__}: {error}")] * len(tasks)
        if len(verdicts) != len(tasks) or not all(isinstance(verdict, Verdict) for verdict in verdicts):
            raise InputError(
                f"{name} returned {len(verdicts)} results for {len(tasks)} responses: expected one Verdict for each."
            )
        return verdicts

    return verify
