"""Fine-tune a flow towards a reward, three ways: by the reward, the same held near where it was, and by a critic.

    python examples/ac_flow.py

A small network learns to carry noise to four clusters of points in the plane. Two of the clusters are then rewarded,
one a little more than the other, and the flow is fine-tuned on its own samples:

* ``reward``: flow matching weighted by the shaped reward of the sample (ORW-CFM);
* ``reward+w2``: the same with the Wasserstein term that holds the velocity near the pretrained one;
* ``critic+w2``: weighted by what a critic of the intermediate state did not foresee of the reward (AC-Flow).

Printed for each: the mean reward, how many clusters hold more than 5% of the samples, and how far the weights spread
at early, middle and late times. Takes about ten seconds on one CPU core.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from apportion.objectives import flow_matching as flow

CLUSTERS = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [-2.0, -2.0], [2.0, -2.0]])
SPREAD = 0.3
REWARDED = torch.tensor([1.0, 0.8, 0.0, 0.0])
"""What the middle of each cluster earns."""


@dataclass(frozen=True)
class Way:
    """A way of fine-tuning."""

    name: str
    critic: bool
    w2_coef: float
    adv_clip: float


WAYS = (
    Way("reward", critic=False, w2_coef=0.0, adv_clip=math.inf),
    Way("reward+w2", critic=False, w2_coef=0.5, adv_clip=math.inf),
    Way("critic+w2", critic=True, w2_coef=0.5, adv_clip=2.0),
)


@dataclass(frozen=True)
class Measured:
    """What came of it."""

    way: str
    reward: float
    """mean reward of samples"""
    clusters: int
    """how many hold more than 5% of the samples"""
    shares: list[float]
    """of the samples near each cluster"""
    spread: list[float]
    """standard deviation of the weights at times in [0, 1/3), [1/3, 2/3) and [2/3, 1]; none if nothing was weighted"""


class Network(nn.Module):
    """Of a state and a time."""

    def __init__(self, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = math.pi * t[:, None]
        return self.last(self.layers(torch.cat([x, t[:, None], angle.sin(), angle.cos()], 1)))


def reward_of(x: Tensor) -> Tensor:
    """High near two clusters ``[n]``."""
    near = (-((x[:, None] - CLUSTERS) ** 2).sum(2) / 2).exp()
    return (near * REWARDED).sum(1)


def draw(network: Network, n: int, generator: torch.Generator, steps: int = 20) -> Tensor:
    """Samples ``[n, 2]``."""
    with torch.no_grad():
        noise = torch.randn((n, 2), generator=generator)
        return flow.euler(lambda x, t: network(x, torch.full((len(x),), t)), noise, steps)[1][-1]


def on_the_way(samples: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Points between fresh noise and some samples, the velocity there, and when."""
    noise, times = torch.randn(samples.shape, generator=generator), torch.rand(len(samples), generator=generator)
    return *flow.interpolate(noise, samples, times), times


def pretrain(steps: int, batch: int, generator: torch.Generator) -> Network:
    """A flow to all four clusters."""
    network = Network(2)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(steps):
        chosen = CLUSTERS[torch.randint(4, (batch,), generator=generator)]
        samples = chosen + SPREAD * torch.randn((batch, 2), generator=generator)
        x, target, times = on_the_way(samples, generator)
        optimiser.zero_grad()
        flow.squared_norm(network(x, times) - target).mean().backward()
        optimiser.step()
    return network


def fine_tune(
    way: Way,
    pretrained: Network,
    steps: int,
    generator: torch.Generator,
    report: Callable[[int], None],
    *,
    batch: int = 256,
    warmup: int = 20,
    critic_steps: int = 4,
    actor_steps: int = 2,
    refresh: int = 5,
) -> Measured:
    """Sample, reward, fit the critic, move the flow; the flow that samples follows every few iterations.

    Args:
        way: how.
        pretrained: the flow to start from, which the Wasserstein term holds on to.
        steps: iterations after the critic's warm-up.
        generator: of everything random.
        report: told the iterations done.
        batch: samples an iteration.
        warmup: iterations in which the critic alone learns.
        critic_steps: of the critic's optimiser an iteration.
        actor_steps: of the flow's.
        refresh: iterations between renewals of the flow that samples.
    """
    actor, sampler, critic = copy.deepcopy(pretrained), copy.deepcopy(pretrained), Network(1)
    nn.init.zeros_(critic.last.weight)
    nn.init.zeros_(critic.last.bias)
    actor_optimiser = torch.optim.Adam(actor.parameters(), lr=1e-3)
    critic_optimiser = torch.optim.Adam(critic.parameters(), lr=3e-3)
    one_prompt = torch.zeros(batch, dtype=torch.int64)
    warmup = warmup if way.critic else 0
    seen: list[tuple[Tensor, Tensor]] = []
    for iteration in range(warmup + steps):
        samples = draw(sampler, batch, generator)
        shaped = flow.shaped_returns(reward_of(samples), one_prompt)
        for _ in range(critic_steps if way.critic else 0):
            x, _, times = on_the_way(samples, generator)
            critic_optimiser.zero_grad()
            flow.critic_loss(critic(x, times).squeeze(1), shaped).backward()
            critic_optimiser.step()
        if flow.actor_active(iteration, warmup):
            for _ in range(actor_steps):
                x, target, times = on_the_way(samples, generator)
                with torch.no_grad():
                    values, reference = critic(x, times).squeeze(1), pretrained(x, times)
                weights = flow.weights_of(flow.clipped_advantages(shaped, values, way.adv_clip))
                actor_optimiser.zero_grad()
                flow.actor_loss(actor(x, times), target, reference, weights, way.w2_coef).value.backward()
                actor_optimiser.step()
                seen.append((times, weights))
        if (iteration + 1) % refresh == 0:
            sampler.load_state_dict(actor.state_dict())
        report(iteration + 1)
    return measure(way.name, draw(actor, 4096, generator), seen)


def measure(name: str, samples: Tensor, seen: list[tuple[Tensor, Tensor]]) -> Measured:
    """What samples are worth, where they lie, and how weights spread over time."""
    apart = torch.cdist(samples, CLUSTERS)
    shares = [float(((apart.argmin(1) == c) & (apart[:, c] < 5 * SPREAD)).double().mean()) for c in range(4)]
    spread = []
    if seen:
        times, weights = (torch.cat(parts) for parts in zip(*seen, strict=True))
        third = (3 * times).long().clamp(max=2)
        spread = [float(weights[third == part].std()) for part in range(3)]
    return Measured(name, float(reward_of(samples).mean()), sum(share > 0.05 for share in shares), shares, spread)


def run(
    seed: int = 0, steps: int = 200, pretraining: int = 1500, report: Callable[[str], None] = print
) -> list[Measured]:
    """All three ways from one pretrained flow; first what it was worth before."""
    torch.manual_seed(seed)  # of the networks' first weights
    generator = torch.Generator().manual_seed(seed)
    report(f"pretraining for {pretraining} steps")
    pretrained = pretrain(pretraining, 256, generator)
    before = draw(pretrained, 4096, generator)
    results = [measure("pretrained", before, [])]
    for way in WAYS:
        own = torch.Generator().manual_seed(seed + 1)  # the same for all

        def said(done: int, way: Way = way) -> None:
            if done % 50 == 0:
                report(f"{way.name}: {done} iterations")

        results.append(fine_tune(way, pretrained, steps, own, said))
    return results


def table(results: Sequence[Measured]) -> list[str]:
    """A line a way."""
    lines = [f"{'':12}{'reward':>8}{'clusters':>10}   {'share of each':26}weights spread at t < 1/3, < 2/3, <= 1"]
    for r in results:
        shares, spread = (" ".join(f"{x:.2f}" for x in row) for row in (r.shares, r.spread))
        lines.append(f"{r.way:12}{r.reward:8.3f}{r.clusters:10d}   {shares:26}{spread}".rstrip())
    return lines


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="everything random follows from it")
    parser.add_argument("--steps", type=int, default=200, help="iterations of fine-tuning")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps is {arguments.steps}, expected at least 1.")
    results = run(arguments.seed, arguments.steps, report=lambda text: print(text, file=sys.stderr))
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
        return
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
