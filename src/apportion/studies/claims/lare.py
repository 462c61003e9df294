"""LaRe (arXiv 2412.11120): a few factors that say what matters make a decoder of returns learn from few episodes.

Attempts of 20 decisions; before each, 20 numbers are seen, three of which decide what it earns:

    r_t = 2 tanh(x_0) + x_1^2 - 2 |x_2|,    and only the sum is paid, at the end

The learner ``return_decoder`` is trained on that sum from the three factors, or from what was seen as it is.

Suffix legend: N tokens, T decisions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained, sample

LENGTH, SEEN, GROUP = 20, 20, 5
DECODER = "return_decoder(factors={factors}, hidden=64, layers=3, learning_rate=3e-3, epochs=400)"


def _attempts(count: int, seed: int) -> tuple[Rollouts, Tensor, Tensor]:
    """Attempts with their returns, what was seen ``[T, 20]``, and the three factors ``[T, 3]``."""
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randn((count * LENGTH, SEEN), generator=generator, dtype=torch.float64)
    factors = torch.stack([seen[:, 0].tanh(), seen[:, 1] ** 2, seen[:, 2].abs()], 1)
    earned = factors @ torch.tensor([2.0, 1.0, -2.0], dtype=torch.float64)
    rollouts = sample(TabularPolicy(vocabulary=1, depth=LENGTH), [0] * (count // GROUP), GROUP, generator)
    tokens = torch.arange(count * LENGTH)
    rollouts = rollouts.with_spans("step", tokens, tokens + 1).with_reward("earned", earned, level="step")
    return rollouts.with_reward("outcome", earned.view(count, LENGTH).sum(1)), seen, factors


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def _agreement(rollouts: Rollouts, latent: Tensor, seed: int) -> float:
    """Correlation of the credit from a decoder of some inputs with credit from what decisions really earned."""
    trained = Trained(
        TabularPolicy(vocabulary=1, depth=LENGTH),
        "lare",
        learning_rate=1e-3,
        optimizer="adamw",
        seed=seed,
        learners=[DECODER.format(factors=latent.shape[1])],
    )
    given = trained.step(rollouts.with_column("step:latent", latent))
    return _correlation(given.advantages, _exact(rollouts, seed))


def _exact(rollouts: Rollouts, seed: int) -> Tensor:
    policy = TabularPolicy(vocabulary=1, depth=LENGTH)
    return Trained(policy, "lare(component='earned')", learning_rate=1e-3, seed=seed).step(rollouts).advantages


def few_episodes(seed: int) -> Mapping[str, float]:
    """Agreement with exact credit after 30 attempts, from factors and from everything; and after 100."""
    rollouts, seen, factors = _attempts(30, seed)
    figures = {"factors": _agreement(rollouts, factors, seed), "everything": _agreement(rollouts, seen, seed)}
    outcome = Trained(TabularPolicy(vocabulary=1, depth=LENGTH), "rloo", learning_rate=1e-3).step(rollouts).advantages
    figures["outcome"] = _correlation(outcome, _exact(rollouts, seed))
    many, seen, _ = _attempts(100, seed)
    figures["everything_of_100"] = _agreement(many, seen, seed)
    return {"effect": figures["factors"] - figures["everything"], **figures}


CLAIMS = (
    Claim(
        "lare",
        "few episodes",
        "A decoder that reads a few task-relevant factors assigns credit well after few episodes, where one that reads "
        "everything does not.",
        "30 attempts of 20 decisions; the same decoder (3 layers of 64, 400 passes, Adam) from 3 factors and from all "
        "20 numbers seen. Effect: difference of the correlations of lare's advantages with those from what decisions "
        "really earned; beside it the outcome alone, and everything after 100 attempts.",
        "A correlation higher by less than a tenth.",
        0.1,
        few_episodes,
    ),
)
