"""PURE (arXiv 2504.15275): where a process reward model scores steps, the sum of scores is hacked and the minimum is
not.

World: at every step the policy thinks, solves well or solves carelessly, and either solution ends the response; after
eight steps it is cut off. The process reward model likes thinking (0.8) better than a good solution (0.4) and that
better than a careless one (-0.6), with an error of 0.1; a last step that leaves the problem unsolved scores -0.2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained, sample

THINK, WELL, CARELESS = 0, 1, 2
SCORES, UNSOLVED, ERROR = (0.8, 0.4, -0.6), -0.2, 0.1
DEPTH, COPIES, GROUP, UPDATES = 8, 8, 8, 200
RATE = 4.0
"""A table. Advantages are whitened, so both forms' gradients are about as long."""


def scored(rollouts: Rollouts, generator: torch.Generator) -> Rollouts:
    """Every token as a step with its score."""
    last = torch.zeros(rollouts.n_tokens, dtype=torch.bool)
    last[rollouts.token_offsets[1:] - 1] = True
    score = torch.tensor(SCORES, dtype=torch.float64)[rollouts.ids]
    score = torch.where(last & (rollouts.ids == THINK), UNSOLVED, score)
    score = score + ERROR * torch.randn(len(score), generator=generator, dtype=torch.float64)
    place = torch.arange(rollouts.n_tokens)
    return rollouts.with_spans("step", place, place + 1).with_reward("prm", score, level="step")


@torch.no_grad()
def endings(policy: TabularPolicy) -> tuple[Tensor, Tensor]:
    """Probability of reaching every step, and of solving well with it ``[prompts, DEPTH]``."""
    prompt = torch.arange(policy.prompts)
    reach, reached, solved = torch.ones(policy.prompts, dtype=torch.float64), [], []
    for step in range(DEPTH):
        likely = policy.next_logits(prompt, torch.full((policy.prompts, step), THINK)).softmax(1)
        reached.append(reach)
        solved.append(reach * likely[:, WELL])
        reach = reach * likely[:, THINK]
    return torch.stack(reached, 1), torch.stack(solved, 1)


def trained(transform: str, seed: int) -> dict[str, float]:
    """After training on scores alone: steps a response, and how often it is solved, at length and when cut short."""
    generator = torch.Generator().manual_seed(seed)
    policy = TabularPolicy(3, DEPTH, COPIES, end_ids=(WELL, CARELESS))
    method = f"pure(verifiable=None, transform={transform!r}, max_response_length={DEPTH})"
    learner = Trained(policy, method, learning_rate=RATE * COPIES)
    for _ in range(UPDATES):
        learner.step(scored(sample(policy, range(COPIES), GROUP, generator), generator))
    reached, solved = (each.mean(0) for each in endings(policy))
    in_time = torch.arange(DEPTH, 0, -1) / DEPTH  # of budgets from 1 to DEPTH, those that reach as far
    return {
        "steps": float(reached.sum()),
        "solved": float(solved.sum()),
        "solved_in_time": float(solved @ in_time.double()),
    }


def padding(seed: int) -> Mapping[str, float]:
    """Steps that the sum adds."""
    found = {form: trained(form, seed) for form in ("approx_min", "sum")}
    figures = {f"{form}_{name}": value for form, each in found.items() for name, value in each.items()}
    return {"effect": found["sum"]["steps"] - found["approx_min"]["steps"], **figures}


def solving(seed: int) -> Mapping[str, float]:
    """Problems solved within a budget that nobody knows beforehand."""
    found = {form: trained(form, seed) for form in ("approx_min", "sum")}
    figures = {f"{form}_{name}": value for form, each in found.items() for name, value in each.items()}
    return {"effect": found["approx_min"]["solved_in_time"] - found["sum"]["solved_in_time"], **figures}


_HOW = (
    "8 tables learn side by side from process scores alone, groups of 8, 200 updates by SGD at one rate, advantages "
    "whitened; pure against itself with summed scores. "
)

CLAIMS = (
    Claim(
        "pure",
        "no padding",
        "Summed process rewards are hacked by ever more thinking steps; their minimum is not.",
        _HOW + "Effect: expected steps of a response under the sum less those under the minimum, of 8 at most.",
        "Fewer than two steps more under the sum.",
        2.0,
        padding,
    ),
    Claim(
        "pure",
        "solving",
        "The minimum of process rewards leads to solutions where their sum leads to thinking without solving.",
        _HOW
        + "Effect: probability of a good solution within a budget of 1 to 8 steps, each as likely, that the policy "
        "does not know, less that under the sum.",
        "A probability higher by less than 0.2.",
        0.2,
        solving,
    ),
)
