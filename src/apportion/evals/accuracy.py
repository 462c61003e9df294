"""Does it solve held-out tasks: sampled and greedy, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from apportion.evals.pass_at_k import Estimate, estimate_pass_at_k
from apportion.models.codec import Codec
from apportion.rewards.collect import sample, score
from apportion.rewards.verdict import Verifier
from apportion.rollouts import Rollouts, join
from apportion.sampling import Engine, SamplingSettings
from apportion.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a policy does on held-out tasks.

    Attributes:
        sampled: pass@k by k, from samples at the training temperature; ``sampled[1]`` is the accuracy.
        greedy: accuracy of the likeliest response.
        rollouts: the sampled responses with their verdicts.
    """

    sampled: Mapping[int, Estimate]
    greedy: Estimate
    rollouts: Rollouts

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sampled": {f"pass@{k}": estimate.as_dict() for k, estimate in self.sampled.items()},
            "greedy": self.greedy.as_dict(),
        }


def evaluate(
    engine: Engine,
    codec: Codec,
    tasks: Sequence[Task],
    verifiers: Mapping[str, Verifier],
    settings: SamplingSettings,
    generator: torch.Generator,
    samples: int = 1,
    ks: Sequence[int] = (1,),
    batch: int = 128,
) -> Evaluation:
    """Ask every task ``samples`` times and once greedily.

    Args:
        engine: samples from the policy.
        codec: reads tasks, writes answers.
        tasks: held-out tasks.
        verifiers: by task source.
        settings: how to sample.
        generator: source of randomness.
        samples: responses a task.
        ks: which pass@k; each at most ``samples``.
        batch: tasks at once.
    """
    drawn = _ask(engine, codec, tasks, verifiers, settings, generator, samples, batch)
    once = _ask(engine, codec, tasks, verifiers, replace(settings, temperature=0.0), generator, 1, batch)
    scores = _scores(drawn, samples)
    return Evaluation({k: estimate_pass_at_k(scores, k) for k in ks}, estimate_pass_at_k(_scores(once, 1)), drawn)


def _ask(
    engine: Engine,
    codec: Codec,
    tasks: Sequence[Task],
    verifiers: Mapping[str, Verifier],
    settings: SamplingSettings,
    generator: torch.Generator,
    samples: int,
    batch: int,
) -> Rollouts:
    parts = []
    for start in range(0, len(tasks), batch):
        some = tasks[start : start + batch]
        rollouts = sample(engine, codec, some, samples, settings, generator, first_group=start)
        parts.append(score(rollouts, some, verifiers))
    return join(parts)


def _scores(rollouts: Rollouts, samples: int) -> list[list[float | None]]:
    """Rewards of the samples of every task; None where there is no verdict."""
    rewards = rollouts.column("episode:reward/outcome").tolist()
    scored = rollouts.column("episode:scored/outcome").tolist()
    flat = [reward if known else None for reward, known in zip(rewards, scored, strict=True)]
    return [flat[i : i + samples] for i in range(0, len(flat), samples)]
