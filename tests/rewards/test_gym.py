"""reasoning-gym's own scorers, and what they cannot decide."""

from __future__ import annotations

from typing import Any

import pytest
from reasoning_gym.factory import create_dataset

from apportion.rewards import Verdict, reasoning_gym
from apportion.tasks.task import Task


def made(dataset: str, **config: Any) -> Task:
    entry = create_dataset(dataset, size=1, seed=3, **config)[0]
    metadata = {"dataset": dataset, "config": config, "entry": entry}
    return Task(entry["question"], entry["answer"], dataset, metadata)


def test_the_data_set_scores_its_own_entries() -> None:
    task = made("chain_sum", min_terms=2, max_terms=2)
    right = str(task.answer)
    responses = [right, f" {right}\n", f"so <answer>0</answer> no <answer>{right}</answer>", right + "1", ""]
    assert [verdict.score for verdict in reasoning_gym()([task] * 5, responses)] == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_partial_scores_are_kept_on_request_only() -> None:
    task = made("countdown")
    assert reasoning_gym()([task], ["no idea"])[0].score == 0.0
    assert reasoning_gym(partial=True)([task], ["no idea"])[0].score == pytest.approx(0.01)
    assert "scores 0.01" in reasoning_gym()([task], ["no idea"])[0].reason


def test_a_scorer_that_raises_is_unknown() -> None:
    task = made("prime_factorization")
    verdicts = reasoning_gym()([task] * 2, ["zzz", str(task.answer)])
    assert [verdict.score for verdict in verdicts] == [None, 1.0]
    assert verdicts[0].reason.startswith("the checker raised ValueError: invalid literal")


def test_an_entry_without_an_answer_is_unknown() -> None:
    assert reasoning_gym()([made("propositional_logic")], ["P"]) == [Verdict(None, "the task has no answer")]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "lacks the reasoning-gym"),
        ({"dataset": "chain_sum"}, "lacks the reasoning-gym"),
        ({"dataset": "no_such", "entry": {"answer": "1"}}, "not registered"),
        ({"dataset": "chain_sum", "config": {"no": 1}, "entry": {"answer": "1"}}, "unexpected keyword"),
        ({"dataset": "chain_sum", "entry": {"answer": "1", "metadata": lambda: 0}}, "cannot be sent"),
    ],
)
def test_tasks_of_other_making_are_unknown(metadata: dict[str, Any], reason: str) -> None:
    (verdict,) = reasoning_gym()([Task("?", "1", "other", metadata)], ["1"])
    assert verdict.score is None
    assert reason in verdict.reason


def test_a_scorer_that_hangs_is_killed() -> None:
    """The countdown scorer evaluates the response."""
    task = made("countdown")
    verdicts = reasoning_gym(time_limit=1.5)([task] * 2, ["9**9**9**9", str(task.metadata["entry"]["answer"])])
    assert verdicts[1].score == 1.0
    assert verdicts[0].reason == "the check was killed after its limit of 1.5 s"


def test_long_tags_take_linear_time() -> None:
    (verdict,) = reasoning_gym()([made("chain_sum")], ["<answer>" * 100_000])
    assert verdict.score == 0.0
