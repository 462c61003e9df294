"""Preferences, marks, critiques and weights for the batches of this suite, and naive losses of what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from apportion.rollouts import Rollouts
from objectives.batches import Batch
from reference import losses, preferences
from reference.preferences import Answer


def with_pairs(rollouts: Rollouts) -> Rollouts:
    """Right episodes preferred to wrong ones of their group, by margins of both signs."""
    rollouts = rollouts.with_pairs(torch.tensor([0, 4, 3, 5]), torch.tensor([2, 2, 1, 1]))
    return rollouts.with_column("pair:margin", torch.tensor([0.0, 1.5, -0.5, 4.0], dtype=torch.float64))


def with_marks(rollouts: Rollouts) -> Rollouts:
    """Contrastive marks, NaN where not trained."""
    values = torch.linspace(-0.5, 0.5, rollouts.n_tokens, dtype=torch.float64)
    marks = torch.where(rollouts.trained, values, torch.nan)
    return with_pairs(rollouts).with_statistic("mark/contrastive", marks, "contrastive_marks")


def with_critiques(rollouts: Rollouts) -> Rollouts:
    """The last token of every episode but one is its critique."""
    ends = rollouts.episode_offsets[1:][torch.arange(rollouts.n_episodes) != 4]
    return with_pairs(rollouts).with_spans("critique", ends - 1, ends)


def with_precision(rollouts: Rollouts) -> Rollouts:
    """Weights of 1, 2 and 4, NaN where not trained."""
    weight = 2.0 ** (torch.arange(rollouts.n_tokens) % 3).double()
    return rollouts.with_statistic("precision_weight", torch.where(rollouts.trained, weight, torch.nan), "given")


def answers(given: Batch, now: Mapping[str, Tensor], marked: bool = False) -> preferences.Pairs:
    """Both answers of every pair."""
    pairs = given.rollouts.pairs
    assert pairs is not None
    tables = [given.rows(given.read(name, now)) for name in ("now/log_probs", "log_probs/reference")]
    tables += [given.rows(given.read("mark/contrastive", now))] if marked else []
    trained = given.rows(given.credit.trained)

    def answer(episode: int) -> Answer:
        return Answer(*([x for x, t in zip(table[episode], trained[episode], strict=True) if t] for table in tables))

    sides = zip(pairs.preferred.tolist(), pairs.other.tolist(), strict=True)
    return [(answer(one), answer(two)) for one, two in sides]


def t_reg(given: Batch, now: Mapping[str, Tensor], **settings: Any) -> float:
    """Mean of the regularised losses."""
    return preferences.mean([pair["loss"] for pair in preferences.t_reg(answers(given, now, True), **settings)])


def mm_dpo(given: Batch, now: Mapping[str, Tensor], **settings: Any) -> float:
    """Scaled by the margins that :func:`with_pairs` gives."""
    result = preferences.mm_dpo(answers(given, now), given.rollouts.column("pair:margin").tolist(), **settings)["loss"]
    assert isinstance(result, float)
    return result


def reward_model(given: Batch, now: Mapping[str, Tensor], margin: bool = False, **settings: float) -> float:
    """Scores after the last trained token of every episode, critiques where :func:`with_critiques` puts them."""
    trained, score = given.rows(given.credit.trained), given.rows(given.read("now/scores/reward", now))
    last = [max(t for t, train in enumerate(row) if train) for row in trained]
    log_probs = given.rows(now["log_probs"].detach()) if "log_probs" in now else score
    pairs = given.rollouts.pairs
    assert pairs is not None
    sides = list(zip(pairs.preferred.tolist(), pairs.other.tolist(), strict=True))
    margins = given.rollouts.column("pair:margin").tolist() if margin else [0.0] * len(sides)
    critique = [[] if e == 4 else [log_probs[e][len(row) - 1]] for e, row in enumerate(trained)]
    return preferences.reward_model(
        [(score[a][last[a]], score[b][last[b]]) for a, b in sides],
        [(critique[a], critique[b]) for a, b in sides],
        [False] * len(sides),
        margins,
        **settings,
    )


def cad_rl(given: Batch, now: Mapping[str, Tensor], low: float, high: float, weighted: bool = True) -> float:
    """The surrogate within bounds of the ratio, averaged by precision."""
    names = ("now/log_probs", "log_probs/old", "credit/advantages")
    tables = [given.rows(given.read(name, now)) for name in names]
    trained, counted = given.rows(given.credit.trained), given.rows(given.credit.counted)
    terms = [
        [
            losses.clip_term(*(table[e][t] for table in tables), low=1 - low, high=high - 1) if train else float("nan")
            for t, train in enumerate(row)
        ]
        for e, row in enumerate(trained)
    ]
    omega = given.rows(given.read("precision_weight", now)) if weighted else None
    return losses.aggregate(terms, trained, counted, "seq_mean_token_mean", omega=omega)
