"""Does it solve held-out tasks: sampled and greedy, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from apportion.evals.pass_at_k import Estimate, estimate_pass_at_k
from apportion.rewards.collect import Collector
from apportion.rollouts import Rollouts, join
from apportion.sampling import SamplingSettings
from apportion.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a policy does on held-out tasks.

    Attributes:
        sampled: pass@k by k, from samples at the training temperature; ``sampled[1]`` is the accuracy.
        greedy: accuracy of the likeliest response.
        scores: of every task in order, by kind (``sampled``, ``greedy``), what its responses scored; None is unknown.
        rollouts: the sampled responses with their verdicts.
    """

    sampled: Mapping[int, Estimate]
    greedy: Estimate
    scores: Mapping[str, list[list[float | None]]]
    rollouts: Rollouts

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sampled": {f"pass@{k}": estimate.as_dict() for k, estimate in self.sampled.items()},
            "greedy": self.greedy.as_dict(),
        }


def evaluate(
    collect: Collector,
    tasks: Sequence[Task],
    settings: SamplingSettings,
    generator: torch.Generator,
    samples: int = 1,
    ks: Sequence[int] = (1,),
    batch: int = 128,
) -> Evaluation:
    """Ask every task ``samples`` times and once greedily.

    Args:
        collect: samples from the policy and scores.
        tasks: held-out tasks.
        settings: how to sample.
        generator: source of randomness.
        samples: responses a task.
        ks: which pass@k; each at most ``samples``.
        batch: tasks at once.
    """

    def ask(how: SamplingSettings, times: int) -> Rollouts:
        starts = range(0, len(tasks), batch)
        return join([collect(tasks[i : i + batch], times, how, generator, first_group=i) for i in starts])

    drawn, once = ask(settings, samples), ask(replace(settings, temperature=0.0), 1)
    scores = {"sampled": _scores(drawn, samples), "greedy": _scores(once, 1)}
    sampled = {k: estimate_pass_at_k(scores["sampled"], k) for k in ks}
    return Evaluation(sampled, estimate_pass_at_k(scores["greedy"]), scores, drawn)


def _scores(rollouts: Rollouts, samples: int) -> list[list[float | None]]:
    """Rewards of the samples of every task; None where there is no verdict."""
    rewards = rollouts.column("episode:reward/outcome").tolist()
    scored = rollouts.column("episode:scored/outcome").tolist()
    flat = [reward if known else None for reward, known in zip(rewards, scored, strict=True)]
    return [flat[i : i + samples] for i in range(0, len(flat), samples)]
