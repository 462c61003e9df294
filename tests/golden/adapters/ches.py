"""CHES: scores of pairs from hidden states, which pairs a filter keeps, and the theory for answers of one token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Embedding

from apportion.annotations import ANNOTATORS
from apportion.annotations.ches import keep_lowest, quantile_window
from apportion.evals.displacement import margin_step, token_drift
from apportion.models.trunk import TrunkModel
from apportion.rollouts import Rollouts

States = Sequence[Sequence[Sequence[float]]]


def run(**given: Any) -> dict[str, Any]:
    """One of the kinds of case."""
    kinds = {"prompt_lens": on_pairs, "keep_fraction": filtered, "quantile": around, "unembedding": at_state}
    return next(kind for name, kind in kinds.items() if name in given)(**given)


def on_pairs(*, prompt_lens: Sequence[int], chosen_hidden: States, rejected_hidden: States) -> dict[str, Any]:
    """A trunk that knows every token's state by heart: token ids are places in one table."""
    table = [state for rows in (*chosen_hidden, *rejected_hidden) for state in rows]
    prompts, ids, at = [], [], 0
    for rows, length in zip((*chosen_hidden, *rejected_hidden), [*prompt_lens] * 2, strict=True):
        prompts.append(range(at, at + length))
        ids.append(range(at + length, at + len(rows)))
        at += len(rows)
    n = len(prompt_lens)
    for i in range(n):  # both answers of a pair follow the same prompt
        assert chosen_hidden[i][: prompt_lens[i]] == rejected_hidden[i][: prompt_lens[i]]
        prompts[n + i] = prompts[i]
    trunk = Embedding.from_pretrained(torch.tensor(table, dtype=torch.float64))
    policy = TrunkModel(trunk, _Row(trunk), None)
    rollouts = Rollouts.from_lists(ids, groups=[*range(n), *range(n)], prompts=prompts)
    rollouts = rollouts.with_pairs(torch.arange(n), torch.arange(n, 2 * n))
    for name in ("hidden_states", "ches"):
        rollouts = ANNOTATORS[name]().apply(rollouts, policy)
    return {
        "ches": rollouts.column("pair:ches"),
        "ches_length_normalized": rollouts.column("pair:ches_length_normalised"),
    }


class _Row(torch.nn.Module):
    """A trunk in the form of transformers: keyword arguments, and states in a tuple."""

    def __init__(self, table: Embedding) -> None:
        super().__init__()
        self.table = table

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> tuple[torch.Tensor]:
        return (self.table(input_ids),)


def filtered(*, scores: Sequence[float], keep_fraction: float) -> dict[str, Any]:
    given = torch.tensor(scores, dtype=torch.float64)
    kept = keep_lowest(given, keep_fraction)
    return {"keep_sorted": kept, "n_keep": len(kept), "threshold": given[kept].max()}


def around(*, scores: Sequence[float], quantile: float, n: int) -> dict[str, Any]:
    return {"selected": quantile_window(torch.tensor(scores, dtype=torch.float64), quantile, n)}


def at_state(
    *, unembedding: Sequence[Sequence[float]], hidden: Sequence[float], chosen: int, rejected: int, lr: float
) -> dict[str, Any]:
    given = [torch.tensor(values, dtype=torch.float64) for values in (unembedding, hidden)]
    before, after = margin_step(*given, chosen, rejected, lr)
    drift = token_drift(*given, chosen, rejected)
    return {
        "probs_before": before,
        "probs_after": after,
        "dlogp_dt": drift,
        "dlogp_chosen_dt": drift[chosen],
        "displaced": bool(after[chosen] < before[chosen]),
    }
