"""HICRA: planning tokens by grams of ids, advantages, semantic entropy; and the clusters that grams are mined from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apportion.annotations import ANNOTATORS
from apportion.annotations.mining import document_frequency, most_frequent
from apportion.annotations.planning_grams import mark
from apportion.credit import METHODS
from apportion.evals.semantic_entropy import semantic_entropy
from apportion.rollouts import Rollouts
from golden.adapters._build import rows

Ids = Sequence[Sequence[int]]


def run(**case: Any) -> dict[str, Any]:
    return selected(**case) if "solutions" in case else credited(**case)


def credited(
    *,
    response_ids: Ids,
    rewards: Sequence[float],
    group_ids: Sequence[int],
    strategic_grams: Ids,
    alpha: float,
    norm_by_std: bool,
    eps: float,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists(response_ids, groups=group_ids, rewards=rewards)
    annotated = ANNOTATORS["planning_grams"](grams=strategic_grams).apply(rollouts, None)
    base = f"grpo(norm_by_std={norm_by_std}, eps={eps})"
    credit = METHODS["hicra"](alpha=alpha, base=base)(annotated)
    first = rollouts.token_offsets[:-1]  # every response of the file has tokens
    counts = mark(rollouts, strategic_grams).counts
    return {
        "planning_mask": rows(rollouts, credit.columns["token:credit/planning"].tensor.long()),
        "base_advantages": credit.columns["token:credit/base_advantages"].tensor[first],
        "advantages": rows(rollouts, credit.advantages),
        "gram_counts": counts,
        "semantic_entropy": semantic_entropy(counts),
    }


def selected(*, solutions: Ids, clusters: Sequence[Ids], top_fraction: float) -> dict[str, Any]:
    counts = document_frequency(solutions, clusters)
    kept = most_frequent(counts, top_fraction)
    grams = sorted(gram for c in kept for gram in clusters[c])
    return {"cluster_df": counts, "selected_clusters": kept, "strategic_grams": grams}
