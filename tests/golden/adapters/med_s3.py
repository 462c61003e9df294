"""MedS3: labels that look back, values handed up, selection, votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apportion.sampling.search import labels
from apportion.sampling.search.backup import BACKUPS
from apportion.sampling.search.selection import SELECTIONS, Child, first_best
from apportion.sampling.search.tree import SearchTree
from apportion.sampling.search.votes import vote

RULES = {"comp": "comp", "default": "mean"}


def run(*, kind: str, **given: Any) -> dict[str, Any]:
    """One of the four kinds of case."""
    return {"prm_labels": labelled, "backprop": backed_up, "ucb": chosen, "select": voted}[kind](**given)


def labelled(*, values: Sequence[float], lam: float, look_back: str, threshold: float, hard: bool) -> dict[str, Any]:
    found = labels.look_back(values, look_back, lam)
    return {
        "labels": labels.thresholded(found.labels, threshold) if hard else found.labels,
        "penalties": found.penalties,
    }


def backed_up(
    *,
    parents: Sequence[int | None],
    values: Sequence[float],
    visits: Sequence[int],
    leaf: int,
    leaf_value: float,
    rule: str,
) -> dict[str, Any]:
    tree = SearchTree(list(parents), list(values), list(visits), ["reason"] * len(parents))
    BACKUPS[RULES[rule]]()(tree, leaf, leaf_value)
    return {"values": tree.values, "visits": tree.visits}


def chosen(
    *,
    c: float,
    low_gate: float,
    refine_limit: int,
    unvisited_ucb: float,
    parent_visits: int,
    children: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    rule = SELECTIONS["ucb"](c=c, unvisited=unvisited_ucb, low_gate=low_gate, refine_limit=refine_limit)
    scores = rule([Child(**child) for child in children], parent_visits)
    return {"ucb": scores, "chosen": first_best(scores)}


def voted(
    *, mode: str, aggregate: str, answers: Sequence[str], step_scores: Sequence[Sequence[float]]
) -> dict[str, Any]:
    found = vote(answers, step_scores, mode, aggregate)
    return {"scores": found.scores, "answer": found.answer, "table": dict(found.table)}
