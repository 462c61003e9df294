"""REINFORCE++ (arXiv 2501.03262): advantages normalised over the whole batch.

World: prompts of two answers; a second token means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.studies.claim import Claim
from apportion.studies.clarity import noise, samples_saved
from apportion.studies.tabular import every_response, gradient, rewarded, sample, update
from apportion.training.seeds import torch_generator

BATCHES = 120
FRESH_SEEDS = 40_000
"""Added to the seed: others were looked at."""
BATCH, GROUP = 32, 4
"""Samples of a batch, and of a group where there are groups."""
CHANCES = tuple((i + 0.5) / 32 for i in range(32))
"""Of being right, prompt by prompt."""
SPREADS = (1.0, 1.0, 0.3, 0.3, 0.1, 0.1, 0.03, 0.03)
"""What a right answer is worth, prompt by prompt."""


def prompts_of(chances: Sequence[float]) -> TabularPolicy:
    """A table with a prompt for every chance that its first token is 1."""
    policy = TabularPolicy(2, 2, len(chances))
    with torch.no_grad():
        odds = torch.tensor(chances, dtype=torch.float64).logit()
        policy.logits[torch.arange(len(chances)) * int(policy.starts[-1]), 1] = odds
    return policy


def _right(prompt: int, tokens: tuple[int, ...]) -> float:
    return float(tokens[0])


def _worth(prompt: int, tokens: tuple[int, ...]) -> float:
    return SPREADS[prompt] * tokens[0]


def parts(updates: Tensor, exact: Tensor) -> tuple[float, float]:
    """What of the noise is left out by more batches and what is not, in units of the square along the exact gradient.

    Args:
        updates: of independent batches.
        exact: gradient.

    Returns:
        variance, and bias: the square of what the mean update has across the exact gradient.

    Example:
        >>> updates = torch.tensor([[1.0, 2.0], [1.0, 0.0], [1.0, 2.0], [1.0, 0.0]])
        >>> variance, bias = parts(updates, torch.tensor([2.0, 0.0]))
        >>> round(variance, 3), round(bias, 3), noise(updates, torch.tensor([2.0, 0.0]))
        (1.333, 0.667, 2.0)
    """
    mean = updates.mean(0)
    along = float(mean @ exact / exact.norm()) ** 2
    variance = float(updates.var(0).sum())
    return variance / along, (float(mean @ mean) - variance / len(updates)) / along - 1


def _figures(found: Mapping[str, Sequence[Tensor]], exact: Tensor) -> dict[str, float]:
    """Share of the noise that the first method spares the second; noise, variance and bias of both."""
    ours, theirs = (torch.stack(list(updates)) for updates in found.values())
    figures = {"effect": samples_saved(ours, theirs, exact)}
    for method, updates in zip(found, (ours, theirs), strict=True):
        variance, bias = parts(updates, exact)
        figures |= {f"noise, {method}": noise(updates, exact)}
        figures |= {f"variance, {method}": variance, f"bias, {method}": bias}
    return figures


def without_groups(seed: int) -> Mapping[str, float]:
    """A response to each of some prompts, against groups from as many samples, of a quarter of the prompts."""
    generator = torch_generator("cpu", seed + FRESH_SEEDS, "reinforce_pp")
    policy = prompts_of(CHANCES)
    exact = gradient(policy, every_response(policy, _right)).flatten()
    found: dict[str, list[Tensor]] = {"reinforce_pp": [], "rloo": []}
    for _ in range(BATCHES):
        for method, size in (("reinforce_pp", 1), ("rloo", GROUP)):
            prompts = torch.randint(policy.prompts, (BATCH // size,), generator=generator).tolist()
            rollouts = rewarded(sample(policy, prompts, size, generator), _right)
            found[method].append(update(policy, method, rollouts).flatten())
    return _figures(found, exact)


def one_deviation(seed: int) -> Mapping[str, float]:
    """Groups of four whose rewards are spread differently, against GRPO."""
    generator = torch_generator("cpu", seed + FRESH_SEEDS, "reinforce_pp")
    policy = prompts_of((0.5,) * len(SPREADS))
    exact = gradient(policy, every_response(policy, _worth)).flatten()
    found: dict[str, list[Tensor]] = {"reinforce_pp_baseline": [], "grpo": []}
    for _ in range(BATCHES):
        rollouts = rewarded(sample(policy, range(policy.prompts), GROUP, generator), _worth)
        for method, updates in found.items():
            updates.append(update(policy, method, rollouts).flatten())
    return _figures(found, exact)


CLAIMS = (
    Claim(
        "reinforce_pp",
        "without groups",
        "One response a prompt is enough: with the batch's mean as baseline the gradient is clearer than from groups.",
        "32 prompts with chances of being right from 0.02 to 0.98, of which every batch draws 32 for reinforce_pp, one "
        "response each, and 8 for rloo, four each. Effect: by what share the noise of a batch is smaller, that is the "
        "samples spared for an equally clear gradient; 120 batches. Beside it, variance and bias apart. At first the "
        "control was the reward itself, 0.58, then rloo drew prompts while reinforce_pp had every one, 0.65; these are "
        "other seeds.",
        "Less than a fifth of the noise spared.",
        0.2,
        without_groups,
    ),
    Claim(
        "reinforce_pp_baseline",
        "one deviation for all",
        "Dividing by the deviation of the batch rather than of each group gives a better gradient.",
        "Eight prompts, four answers each, right half of the time, where being right is worth from 1 down to 0.03; "
        "reinforce_pp_baseline against grpo, on the same samples. Effect: by what share the noise of a batch is "
        "smaller: variance and the square of the bias, in units of the square along the exact gradient, from 120 "
        "batches. Beside it, variance and bias apart, since no samples remove a bias. On seeds looked at before, 0.75 "
        "of the noise.",
        "Less than a fifth of the noise spared.",
        0.2,
        one_deviation,
    ),
)
