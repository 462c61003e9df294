"""AC-Flow (arXiv 2510.18072): fine-tuning a flow by a critic of its intermediate states.

World: the one of ``examples/ac_flow.py``. A small network carries noise to four clusters in the plane; two of them are
rewarded, 1.0 and 0.8. The paper's equations could not be read: those of :mod:`apportion.objectives.flow_matching` are a
reading of its abstract.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from apportion.objectives import flow_matching as flow
from apportion.studies.claim import Claim
from apportion.training.seeds import derive, torch_generator

CLUSTERS = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [-2.0, -2.0], [2.0, -2.0]])
REWARDED = torch.tensor([1.0, 0.8, 0.0, 0.0])
"""What the middle of each cluster earns."""
SPREAD, EULER_STEPS, SAMPLES, JUDGED = 0.3, 20, 256, 2048
PRETRAINING, STEPS, WARMUP, CRITIC_STEPS, ACTOR_STEPS, REFRESH = 800, 150, 20, 4, 2, 5


class _Network(nn.Module):
    """Of a state ``[n, 2]`` and a time ``[n]``."""

    def __init__(self, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(5, width), nn.LayerNorm(width), nn.SiLU())
        self.rest = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = math.pi * t[:, None]
        result: Tensor = self.rest(self.first(torch.cat([x, t[:, None], angle.sin(), angle.cos()], 1)))
        return result


@dataclass(frozen=True)
class _Way:
    """A way of fine-tuning.

    Attributes:
        critic: weights are of what a critic did not foresee; otherwise of the shaped reward.
        w2_coef: how much the velocity is held near the pretrained one.
    """

    critic: bool
    w2_coef: float


REWARD, REWARD_W2, CRITIC_W2 = _Way(False, 0.0), _Way(False, 0.5), _Way(True, 0.5)


def _reward(x: Tensor) -> Tensor:
    return ((-((x[:, None] - CLUSTERS) ** 2).sum(2) / 2).exp() * REWARDED).sum(1)


def _draw(network: _Network, count: int, generator: torch.Generator) -> Tensor:
    with torch.no_grad():
        noise = torch.randn((count, 2), generator=generator)
        return flow.euler(lambda x, t: network(x, torch.full((len(x),), t)), noise, EULER_STEPS)[1][-1]


def _between(samples: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Points on straight paths from fresh noise to samples, the velocity there, and when."""
    noise, times = torch.randn(samples.shape, generator=generator), torch.rand(len(samples), generator=generator)
    x, velocity = flow.interpolate(noise, samples, times)
    return x, velocity, times


def _pretrained(seed: int) -> _Network:
    """A flow to all four clusters."""
    generator = torch_generator("cpu", seed, "ac_flow", "pretraining")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "ac_flow", "network"))
        network = _Network(2)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(PRETRAINING):
        middle = CLUSTERS[torch.randint(4, (SAMPLES,), generator=generator)]
        x, velocity, times = _between(middle + SPREAD * torch.randn((SAMPLES, 2), generator=generator), generator)
        optimiser.zero_grad()
        flow.squared_norm(network(x, times) - velocity).mean().backward()
        optimiser.step()
    return network


def _fine_tuned(way: _Way, pretrained: _Network, seed: int) -> Mapping[str, float]:
    """What samples are worth, where they lie, and how weights spread early and late."""
    generator = torch_generator("cpu", seed, "ac_flow", "fine-tuning")
    actor, sampler = copy.deepcopy(pretrained), copy.deepcopy(pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "ac_flow", "critic"))
        critic = _Network(1)
    actor_optimiser = torch.optim.Adam(actor.parameters(), lr=1e-3)
    critic_optimiser = torch.optim.Adam(critic.parameters(), lr=3e-3)
    one_prompt, warmup = torch.zeros(SAMPLES, dtype=torch.int64), WARMUP if way.critic else 0
    seen: list[tuple[Tensor, Tensor]] = []
    for iteration in range(warmup + STEPS):
        samples = _draw(sampler, SAMPLES, generator)
        shaped = flow.shaped_returns(_reward(samples), one_prompt)
        for _ in range(CRITIC_STEPS if way.critic else 0):
            x, _, times = _between(samples, generator)
            critic_optimiser.zero_grad()
            flow.critic_loss(critic(x, times).squeeze(1), shaped).backward()
            critic_optimiser.step()
        for _ in range(ACTOR_STEPS if flow.actor_active(iteration, warmup) else 0):
            x, velocity, times = _between(samples, generator)
            with torch.no_grad():
                values = critic(x, times).squeeze(1) if way.critic else torch.zeros_like(shaped)
                reference = pretrained(x, times)
            advantages = flow.clipped_advantages(shaped, values, 2.0 if way.critic else math.inf)
            weights = flow.weights_of(advantages)
            actor_optimiser.zero_grad()
            flow.actor_loss(actor(x, times), velocity, reference, weights, way.w2_coef).value.backward()
            actor_optimiser.step()
            seen.append((times, weights))
        if (iteration + 1) % REFRESH == 0:
            sampler.load_state_dict(actor.state_dict())
    judged = _draw(actor, JUDGED, generator)
    times, weights = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return {
        "reward": float(_reward(judged).mean()),
        "rarer cluster": min(cluster_shares(judged)[:2]),
        "spread early": float(weights[times < 1 / 3].std()),
        "spread late": float(weights[times >= 2 / 3].std()),
    }


def cluster_shares(samples: Tensor) -> list[float]:
    """Share of samples within five spreads of each cluster, and nearest to it.

    Example:
        >>> cluster_shares(torch.tensor([[2.0, 2.1], [0.0, 0.0]]))
        [0.5, 0.0, 0.0, 0.0]
    """
    apart = torch.cdist(samples, CLUSTERS)
    near = (apart.argmin(1)[:, None] == torch.arange(4)) & (apart < 5 * SPREAD)
    return [float(share) for share in near.double().mean(0)]


def _two_clusters(seed: int) -> Mapping[str, float]:
    pretrained = _pretrained(seed)
    free, held = (_fine_tuned(way, pretrained, seed) for way in (REWARD, REWARD_W2))
    effect = held["rarer cluster"] - free["rarer cluster"]
    return {"effect": effect, **_figures(free=free, held=held)}


def _weights(seed: int) -> Mapping[str, float]:
    critic = _fine_tuned(CRITIC_W2, _pretrained(seed), seed)
    return {"effect": critic["spread late"] - critic["spread early"], **critic}


def _credit(seed: int) -> Mapping[str, float]:
    pretrained = _pretrained(seed)
    reward, critic = (_fine_tuned(way, pretrained, seed) for way in (REWARD_W2, CRITIC_W2))
    return {"effect": critic["reward"] - reward["reward"], **_figures(reward=reward, critic=critic)}


def _figures(**arms: Mapping[str, float]) -> dict[str, float]:
    return {f"{what}, {name}": value for name, arm in arms.items() for what, value in arm.items()}


WORLD = (
    "A small network pretrained to four clusters in the plane, two of them rewarded 1.0 and 0.8; 150 iterations of 256 "
    "samples and two steps of Adam 1e-3."
)

CLAIMS = (
    Claim(
        "ac_flow",
        "the Wasserstein term keeps both modes",
        "Reward weighting collapses onto the best mode; held near the pretrained flow, it keeps every good one.",
        f"{WORLD} Reward weighting with w2_coef 0.5 against 0. Effect: share of 2048 samples in the rarer of the two "
        "rewarded clusters, held minus free.",
        "The rarer cluster is as frequent without the term.",
        0.1,
        _two_clusters,
    ),
    Claim(
        "ac_flow",
        "when the weights spread",
        "What the critic did not foresee gives all points near the noise about the same weight and tells them apart "
        "near the sample.",
        f"{WORLD} Critic weighting (20 iterations of warm-up, w2_coef 0.5). Effect: standard deviation of the weights "
        "at times from 2/3 on, minus that before 1/3.",
        "Weights spread at early times: there a critic can foresee nothing, so that the whole reward is left, and near "
        "the sample it foresees all.",
        0.05,
        _weights,
    ),
    Claim(
        "ac_flow",
        "a critic's credit",
        "Weighting points of the path by a critic's advantage reaches more reward than by the reward of their sample.",
        f"{WORLD} Critic weighting against reward weighting, both with w2_coef 0.5. Effect: mean reward of 2048 "
        "samples, the critic's minus the reward's.",
        "Reward weighting reaches as much in as many steps.",
        0.02,
        _credit,
    ),
)
