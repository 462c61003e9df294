"""Columns that models make: statistics of the policy before the update, and of the reference policy.

Suffix legend: N tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apportion.errors import RunStopped
from apportion.models.policy import Policy
from apportion.rollouts import Rollouts
from apportion.rollouts.columns import split_name
from apportion.training.gradient import measure, micro_batches


def sources_in(needs: Sequence[str]) -> dict[str, list[str]]:
    """Statistics that columns ask for, by the model that makes them.

    Example:
        >>> sources_in(["log_probs/old", "entropy/old", "log_probs/reference", "credit/advantages"])
        {'old': ['log_probs', 'entropy'], 'reference': ['log_probs']}
    """
    found: dict[str, list[str]] = {}
    for need in needs:
        level, name = split_name(need)
        statistic, _, source = name.partition("/")
        if level == "token" and source in ("old", "reference"):
            found.setdefault(source, []).append(statistic)
    return {source: list(dict.fromkeys(names)) for source, names in found.items()}


def annotate(
    rollouts: Rollouts,
    policies: Mapping[str, Policy],
    wanted: Mapping[str, Sequence[str]],
    max_tokens: int,
    makers: Mapping[str, str] | None = None,
) -> Rollouts:
    """Add statistics of models, such as ``log_probs/old``.

    Args:
        rollouts: what to measure.
        policies: by the name that goes behind the slash.
        wanted: statistics by the same names.
        max_tokens: padded tokens in one forward pass.
        makers: who the columns say made them, by the same names; None: the trainer.

    Raises:
        RunStopped: a statistic is not finite.
    """
    for source, names in wanted.items():
        parts = micro_batches(rollouts, max_tokens, policies[source].prefix_sharing)
        for name, values in measure(policies[source], rollouts, names, parts).items():
            if not bool(values.isfinite().all()):
                raise RunStopped(
                    f"{name}/{source} is not finite at some token, so the weights have diverged: go back to an earlier "
                    "checkpoint, with a lower learning rate."
                )
            maker = "trainer" if makers is None else makers[source]
            rollouts = rollouts.with_statistic(f"{name}/{source}", values, maker)
    return rollouts
