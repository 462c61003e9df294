"""The verifier for mathematical answers."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.errors import InputError
from apportion.rewards.child import shared
from apportion.rewards.each import NO_ANSWER, paired
from apportion.rewards.requirements import positive_seconds, require
from apportion.rewards.verdict import Verdict, Verifier
from apportion.tasks.task import Task


def math(time_limit: float = 5.0, where: str = "any") -> Verifier:
    r"""The answer a response states is mathematically the task's answer, compared exactly in a child process.

    What counts is the last complete box, else what follows the last "answer is" or "answer:". Numbers are compared
    without tolerance (0.333 is not 1/3), formulas as functions, sets without order, units by conversion. What cannot be
    read is wrong if it is the response's, unknown if it is the reference's. A check that hangs or crashes is unknown;
    the child is killed and the rest of the batch is still checked.

    Args:
        time_limit: seconds one response may take.
        where: ``any`` takes a response that states no answer in one of these ways as a whole, which is right only if it
            is an answer and nothing else; ``stated`` calls it wrong.

    Raises:
        InputError: math-verify is not installed, or an argument cannot be used.

    Example:
        >>> task = Task("What is a half plus a third?", r"\frac{5}{6}", "fractions")
        >>> math()([task, task], [r"It is \boxed{10/12}.", "The answer is 0.83."])
        [Verdict(score=1.0, reason='10/12 is \\frac{5}{6}'), Verdict(score=0.0, reason='0.83 is not \\frac{5}{6}')]
    """
    require("math_verify", "math-verify", "math")
    positive_seconds("math", time_limit)
    if where not in ("any", "stated"):
        raise InputError(f"math(where={where!r}) is not known: where must be 'any' or 'stated'.")

    def verify(tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]:
        # Equal answers are common within a group, and one that hangs must not cost its limit each time.
        known: dict[tuple[str, str], Verdict] = {}
        verdicts = []
        for task, response in paired(tasks, responses):
            if task.answer is None or not task.answer.strip():
                verdicts.append(NO_ANSWER)
                continue
            key = (task.answer, response)
            if key not in known:
                question = {"gold": task.answer, "response": response, "where": where}
                known[key] = shared("math").ask(question, time_limit)
            verdicts.append(known[key])
        return verdicts

    return verify
