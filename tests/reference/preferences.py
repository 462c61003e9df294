"""Losses of preference pairs, pair by pair and token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reference.outcome import mean


@dataclass(frozen=True)
class Answer:
    """One side of a pair: of every token that trains, what the policy, the reference and a mark say."""

    log_probs: Sequence[float]
    reference: Sequence[float] = ()
    marks: Sequence[float] = ()

    def log_ratio(self) -> float:
        """The sum of log-ratios."""
        return math.fsum(new - old for new, old in zip(self.log_probs, self.reference, strict=True))


Pairs = Sequence[tuple[Answer, Answer]]
"""The chosen and the rejected answer of every pair."""


def surprise(z: float) -> float:
    """``-log sigmoid(z)``."""
    return math.log1p(math.exp(-z)) if z > 0 else -z + math.log1p(math.exp(z))


def t_reg(pairs: Pairs, *, base: str = "dpo", beta: float, alpha: float, margin: float = 0.0) -> list[dict[str, float]]:
    """Of every pair: weight, base loss, both regularisers and the loss."""

    def reward(answer: Answer) -> float:
        return beta * (answer.log_ratio() if base == "dpo" else mean(answer.log_probs))

    def regulariser(answer: Answer) -> float:
        return -math.fsum(beta * mark * new for mark, new in zip(answer.marks, answer.log_probs, strict=True))

    result = []
    for chosen, rejected in pairs:
        z = reward(chosen) - reward(rejected) - margin
        weight, both = 1 / (1 + math.exp(z)), (regulariser(chosen), regulariser(rejected))
        loss = surprise(z) + alpha * weight * (both[0] + both[1])
        names = ("weight", "base_loss", "reg_chosen", "reg_rejected", "loss")
        result.append(dict(zip(names, (weight, surprise(z), *both, loss), strict=True)))
    return result


def mark(better: float, worse: float) -> float:
    """The mark of a token from its log-probs behind both prompts."""
    return 1 / (1 + math.exp(worse - better)) - 0.5


def mm_dpo(
    pairs: Pairs, margins: Sequence[float], *, beta: float, w: float, k: float, beta_min: float, imitate: float
) -> dict[str, float | list[float]]:
    """Beta and loss of every pair, and the loss of all."""
    betas = [max(beta_min, beta * (1 + w * (1 - math.exp(-k * margin)))) for margin in margins]
    each = [
        surprise(b * (chosen.log_ratio() - rejected.log_ratio()))
        for b, (chosen, rejected) in zip(betas, pairs, strict=True)
    ]
    nll = mean([-new for chosen, _ in pairs for new in chosen.log_probs])
    return {"beta_per_pair": betas, "loss_per_pair": each, "loss": mean(each) + imitate * nll}


def reward_model(
    scores: Sequence[tuple[float, float]],
    critiques: Sequence[tuple[Sequence[float], Sequence[float]]],
    ties: Sequence[bool],
    margins: Sequence[float],
    *,
    reward_weight: float,
    tie_weight: float,
    center_coefficient: float,
    critic_weight: float,
) -> float:
    """The loss from the scores of both answers of every pair and the log-probs of their critiques' tokens."""
    apart = [surprise(a - b - m) for (a, b), m, tie in zip(scores, margins, ties, strict=True) if not tie]
    tied = [(a - b) ** 2 for (a, b), tie in zip(scores, ties, strict=True) if tie]
    value = reward_weight * (mean(apart) + tie_weight * mean(tied))
    value += center_coefficient * mean([(a + b) ** 2 for a, b in scores])
    spoken = [pair for pair in critiques if pair[0] and pair[1]]
    nll = [mean([-new for pair in spoken for new in pair[side]]) for side in (0, 1)]
    return value + critic_weight * sum(nll) * len(spoken) / max(len(critiques), 1)
