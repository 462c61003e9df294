"""The verifier for tasks made by reasoning-gym."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apportion.rewards.child import shared
from apportion.rewards.each import NO_ANSWER, paired
from apportion.rewards.requirements import positive_seconds, require
from apportion.rewards.verdict import Verdict, Verifier
from apportion.tasks.task import Task


def reasoning_gym(partial: bool = False, time_limit: float = 10.0) -> Verifier:
    """The scorer of the reasoning-gym data set that a task came from, run in a child process.

    ``task.metadata`` must hold ``dataset`` (its name), ``config`` (the keyword arguments it was made with) and
    ``entry`` (question, answer and metadata as the data set gave them). Of the response the last ``<answer>`` element
    counts, else all of it. Some of these scorers raise on text they cannot read, some evaluate it, some may run for
    ever: all of that is unknown, never wrong, and stays in the child. An entry whose answer is None is unknown too.

    Args:
        partial: keep the scorer's partial scores. Many give 0.01 or 0.05 for any wrong answer, which would pay for
            being wrong, so the default is 1 for a full score and 0 otherwise.
        time_limit: seconds one response may take, the making of the data set included.

    Raises:
        InputError: reasoning-gym is not installed, or the time limit is no positive number.

    Example:
        >>> entry = {"question": "Spell dog backward", "answer": "god", "metadata": {}}
        >>> made_by = {"dataset": "spell_backward", "config": {}, "entry": entry}
        >>> reasoning_gym()([Task("Spell dog backward", "god", "spell_backward", made_by)], ["god"])
        [Verdict(score=1.0, reason="'god' scores 1 for 'god' (spell_backward)")]
    """
    require("reasoning_gym", "reasoning-gym", "reasoning_gym")
    positive_seconds("reasoning_gym", time_limit)

    def check(task: Task, response: str) -> Verdict:
        dataset, config, entry = (task.metadata.get(key) for key in ("dataset", "config", "entry"))
        if not isinstance(dataset, str) or not isinstance(entry, Mapping):
            return Verdict(None, "the task's metadata lacks the reasoning-gym 'dataset' and 'entry'")
        if entry.get("answer") is None:
            return NO_ANSWER
        question = {
            "dataset": dataset,
            "config": dict(config or {}),
            "entry": dict(entry),
            "response": response,
            "partial": partial,
        }
        return shared("reasoning_gym").ask(question, time_limit)

    def verify(tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]:
        return [check(task, response) for task, response in paired(tasks, responses)]

    return verify
