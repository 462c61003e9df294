"""The objective of LaRe (arXiv 2412.11120): returns of episodes alone teach a decoder the rewards of their steps.

World: the card's. Episodes of 20 steps, an observation of 20 random numbers a step, of which three decide its reward:
a weighted sum of tanh(x0), x1^2 and |x2|. Only the sum over the episode is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from apportion.credit import METHODS, Clock
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.training.config import TrainConfig
from apportion.training.learner import UpdateSettings
from apportion.training.learners import LEARNERS
from apportion.training.seeds import torch_generator

STEPS, OBSERVED, EPISODES, FRESH, UPDATES = 20, 20, 30, 100, 300


def factors(observed: Tensor) -> Tensor:
    """What a language model that knows the task would write: the three that matter ``[..., 3]``."""
    return torch.stack([observed[..., 0].tanh(), observed[..., 1] ** 2, observed[..., 2].abs()], -1)


def _episodes(count: int, weights: Tensor, generator: torch.Generator) -> tuple[Rollouts, Tensor, Tensor]:
    """Episodes with their returns, observations ``[steps, OBSERVED]`` and true rewards ``[steps]``."""
    observed = torch.randn((count * STEPS, OBSERVED), generator=generator)
    reward = (factors(observed) @ weights).double()
    rollouts = Rollouts.from_lists(
        [[0] * STEPS for _ in range(count)], groups=list(range(count)), prompts=[[0]] * count
    )
    every = torch.arange(count * STEPS)
    rollouts = rollouts.with_spans("step", every, every + 1)
    return rollouts.with_reward("outcome", reward.reshape(count, STEPS).sum(1)), observed, reward


class _Task:
    """Episodes to learn from and others to be judged by.

    Args:
        seed: of everything random.
    """

    def __init__(self, seed: int) -> None:
        generator = torch_generator("cpu", seed, "return_decomposition")
        weights = torch.rand(3, generator=generator) + 0.5
        self.seed = seed
        self.training, self.observed, _ = _episodes(EPISODES, weights, generator)
        self.fresh, self.fresh_observed, self.truth = _episodes(FRESH, weights, generator)

    def proxies(self, latent: Callable[[Tensor], Tensor], **settings: Any) -> Tensor:
        """Rewards that a decoder fitted to the returns of some episodes gives the steps of others.

        Args:
            latent: what the decoder sees of observations.
            **settings: of learner ``return_decoder``.
        """
        given = {"learning_rate": 3e-3, "epochs": 1, "hidden": 32, **settings}
        seen, fresh = latent(self.observed), latent(self.fresh_observed)
        factory = LEARNERS["return_decoder"](factors=seen.shape[1], **given)
        config = TrainConfig(seed=self.seed, micro_batch_tokens=1 << 20)
        learner = factory.make(TabularPolicy(1, 1), UpdateSettings.of(config))
        training = self.training.with_column("step:latent", seen, maker="given")
        episodes = METHODS["none"](component="outcome")(training)
        for step in range(UPDATES):
            learner.update(episodes, Clock(step, UPDATES))
        marked = learner.annotate(self.fresh.with_column("step:latent", fresh, maker="given"))
        return marked.column("step:reward/proxy")

    def correlation(self, proxies: Tensor) -> float:
        """With the true rewards of the fresh steps."""
        return float(torch.corrcoef(torch.stack([proxies, self.truth]))[0, 1])

    def error(self, proxies: Tensor) -> float:
        """Mean squared error in units of the true rewards' variance."""
        return float(((proxies - self.truth) ** 2).mean() / self.truth.var())


def _from_returns(seed: int) -> Mapping[str, float]:
    task = _Task(seed)
    spread = task.fresh.column("episode:reward/outcome")[task.fresh.episode_of_token] / STEPS
    figures = {
        "factors": task.correlation(task.proxies(factors)),
        "observations": task.correlation(task.proxies(lambda observed: observed)),
        "return spread evenly": task.correlation(spread),
    }
    return {"effect": figures["factors"] - max(figures["observations"], figures["return spread evenly"]), **figures}


def _unbiased(seed: int) -> Mapping[str, float]:
    task = _Task(seed)
    figures = {loss: task.error(task.proxies(factors, loss=loss, sampled_steps=4)) for loss in ("rrd", "rrd_unbiased")}
    return {"effect": figures["rrd"] - figures["rrd_unbiased"], **figures}


WORLD = (
    "30 episodes of 20 steps; three of 20 observed numbers decide a step's reward, of which only the episode's sum is "
    "known; a decoder of three layers of 32, 300 updates of AdamW 3e-3, judged on 100 fresh episodes."
)

CLAIMS = (
    Claim(
        "return_decomposition",
        "step rewards out of returns",
        "A decoder trained on returns of few episodes finds the rewards of steps, from factors that matter and not "
        "from raw observations.",
        f"{WORLD} Effect: correlation of its rewards with the true ones from the three factors, minus the larger of "
        "that from the observations and that of the episode's return spread evenly.",
        "Raw observations do as well, or so does spreading the return.",
        0.1,
        _from_returns,
    ),
    Claim(
        "return_decomposition",
        "drawn steps, unbiased",
        "Subtracting the variance that drawing steps adds makes the decoder of few drawn steps less wrong.",
        f"{WORLD} The decoder sees the factors; 4 of 20 steps are drawn for every update. Effect: mean squared error "
        "of rrd minus that of rrd_unbiased, in units of the true rewards' variance.",
        "rrd is as close to the true rewards.",
        0.05,
        _unbiased,
    ),
)
