"""GroundedPRM: the value of a simulation handed up, selection, labels of a path, probability of a judgement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apportion.rewards.step_checks import right_probability
from apportion.sampling.search.backup import BACKUPS, rollout_value
from apportion.sampling.search.labels import signed
from apportion.sampling.search.selection import SELECTIONS, Child, all_best
from apportion.sampling.search.tree import SearchTree

SIGNS = {"collect_positive": 1.0, "collect_negative": -1.0}


def run(*, kind: str, **given: Any) -> dict[str, Any]:
    """One of the four kinds of case."""
    return {"backprop": backed_up, "uct": chosen, "labels": labelled, "score": scored}[kind](**given)


def backed_up(
    *,
    parents: Sequence[int | None],
    node: int,
    values: Sequence[float],
    visits: Sequence[int],
    intermediate_verdicts: Sequence[int],
    final_correct: int,
    decay: float,
) -> dict[str, Any]:
    tree = SearchTree(list(parents), list(values), list(visits), ["reason"] * len(parents))
    value = rollout_value(intermediate_verdicts, final_correct)
    BACKUPS["decayed"](decay=decay)(tree, node, value)
    return {"rollout_value": value, "values": tree.values, "visits": tree.visits}


def chosen(
    *, child_values: Sequence[float], child_visits: Sequence[int], parent_visits: int, c: float, phase: str
) -> dict[str, Any]:
    children = [Child(value, visits) for value, visits in zip(child_values, child_visits, strict=True)]
    scores = SELECTIONS["uct"](c=c, sign=SIGNS[phase])(children, parent_visits)
    return {"uct": scores, "best": all_best(scores)}


def labelled(*, step_scores: Sequence[float], verdicts: Sequence[str], path_label: str) -> dict[str, Any]:
    said = {"True": 1, "False": -1}
    labels = signed(step_scores, [said[verdict] for verdict in verdicts], path_label == "positive")
    return {"kept": bool(labels), "labels": labels}


def scored(*, top_logprobs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {"reward": right_probability(top_logprobs)}
