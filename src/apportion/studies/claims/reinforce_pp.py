"""REINFORCE++ (arXiv 2501.03262): advantages normalised over the whole batch.

World: prompts of two answers; a second token means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from apportion.models.tabular import TabularPolicy
from apportion.studies.claim import Claim
from apportion.studies.clarity import noise, samples_saved
from apportion.studies.tabular import Reward, every_response, gradient, rewarded, sample, update
from apportion.training.seeds import torch_generator

BATCHES = 120
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


def compared(
    seed: int, policy: TabularPolicy, reward: Reward, group_size: int, method: str, control: str
) -> Mapping[str, float]:
    """Samples that a method saves over a control for an equally clear gradient, and the noise of both.

    Args:
        seed: of the samples.
        policy: drawn from.
        reward: of a response.
        group_size: responses a prompt.
        method: spec of the one.
        control: spec of the other.
    """
    generator = torch_generator("cpu", seed, "reinforce_pp")
    exact = gradient(policy, every_response(policy, reward)).flatten()
    found: dict[str, list[torch.Tensor]] = {method: [], control: []}
    for _ in range(BATCHES):
        rollouts = rewarded(sample(policy, range(policy.prompts), group_size, generator), reward)
        for spec, updates in found.items():
            updates.append(update(policy, spec, rollouts).flatten())
    ours, theirs = (torch.stack(updates) for updates in found.values())
    return {
        "effect": samples_saved(ours, theirs, exact),
        f"noise, {method}": noise(ours, exact),
        f"noise, {control}": noise(theirs, exact),
    }


def without_groups(seed: int) -> Mapping[str, float]:
    """One response a prompt, against the reward itself."""
    return compared(seed, prompts_of(CHANCES), _right, 1, "reinforce_pp", "grpo(singleton='raw')")


def one_deviation(seed: int) -> Mapping[str, float]:
    """Groups of four whose rewards are spread differently, against GRPO."""
    policy = prompts_of((0.5,) * len(SPREADS))
    return compared(seed, policy, _worth, 4, "reinforce_pp_baseline", "grpo")


CLAIMS = (
    Claim(
        "reinforce_pp",
        "without groups",
        "One response a prompt is enough: the batch's mean is a baseline.",
        "32 prompts with chances of being right from 0.02 to 0.98, one response each; reinforce_pp against the reward "
        "itself, which is grpo with a group of one. Effect: the share of samples spared for an equally clear "
        "gradient, from 120 batches.",
        "Less than a fifth of the samples spared.",
        0.2,
        without_groups,
    ),
    Claim(
        "reinforce_pp_baseline",
        "one deviation for all",
        "Dividing by the deviation of the batch rather than of each group gives a better gradient.",
        "Eight prompts, four answers each, right half of the time, where being right is worth from 1 down to 0.03; "
        "reinforce_pp_baseline against grpo, on the same samples. Effect: the share of samples spared for an equally "
        "clear gradient, from 120 batches.",
        "Less than a fifth of the samples spared.",
        0.2,
        one_deviation,
    ),
)
