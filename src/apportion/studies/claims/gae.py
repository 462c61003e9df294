"""GAE (arXiv 1506.02438): between the critic's values and the rewards that came, and the value loss of PPO (arXiv
1707.06347) that fits the critic.

World: six binary tokens; each that is right adds as much to the chance of being found right, so that every token
matters and the outcome says little of any.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.clarity import noise
from apportion.studies.tabular import Trained, every_response, expected, gradient, rewarded, sample, update
from apportion.training.seeds import torch_generator

DEPTH, COPIES, GROUP = 6, 16, 8
BATCHES, RATE, CRITIC_RATE = 40, 32.0, 4.0
LAMBDAS = (0.0, 0.9, 1.0)
CREDITED = 30


def chance(prompt: int, tokens: tuple[int, ...]) -> float:
    """Probability of being found right."""
    return 0.05 + 0.9 * sum(tokens) / DEPTH


def scored(rollouts: Rollouts, generator: torch.Generator) -> Rollouts:
    """Outcomes of 0 or 1, by the chance of every response."""
    likely = rewarded(rollouts, chance).column("episode:reward/outcome")
    dice = torch.rand(len(likely), generator=generator, dtype=torch.float64)
    return rollouts.with_reward("outcome", (dice < likely).double())


def critic(rate: float) -> tuple[str, ...]:
    """The learner, at a rate a table."""
    return (f"critic(learning_rate={rate * COPIES})",)


def learned(lam: float, rate: float, seed: int) -> float:
    """Exact chance of being found right, mean over training with a critic that begins at 0."""
    generator = torch_generator("cpu", seed, "gae")
    policy = TabularPolicy(2, DEPTH, COPIES)
    every = every_response(policy, chance)
    trained = Trained(policy, f"gae(lam={lam})", learning_rate=rate * COPIES, learners=critic(CRITIC_RATE))
    found = [expected(policy, every)]
    for _ in range(BATCHES):
        trained.step(scored(sample(policy, range(COPIES), GROUP, generator), generator))
        found.append(expected(policy, every))
    return fmean(found)


def with_exact_values(seed: int) -> dict[str, float]:
    """Noise of an update by a critic that is right, at the policy that training begins with."""
    generator = torch_generator("cpu", seed, "gae, exact values")
    policy = TabularPolicy(2, DEPTH, COPIES)
    exact, values = gradient(policy, every_response(policy, chance)).flatten(), exact_values(policy)
    updates: dict[float, list[Tensor]] = {lam: [] for lam in LAMBDAS}
    for _ in range(CREDITED):
        rollouts = scored(sample(policy, range(COPIES), GROUP, generator), generator)
        rollouts = rollouts.with_statistic("values/critic", values[policy.states_of(rollouts)], "backward induction")
        for lam, found in updates.items():
            found.append(update(policy, f"gae(lam={lam})", rollouts).flatten())
    return {f"noise, exact critic, lambda {lam:g}": noise(torch.stack(u), exact) for lam, u in updates.items()}


def between(seed: int) -> Mapping[str, float]:
    """What lambda 0.9 gains over the better of 0 and 1."""
    found = {lam: learned(lam, RATE, seed) for lam in LAMBDAS}
    return {
        "effect": found[0.9] - max(found[0.0], found[1.0]),
        **{f"lambda {lam:g}": value for lam, value in found.items()},
        **with_exact_values(seed),
    }


# The critic

FITTED = 60


def exact_values(policy: TabularPolicy) -> Tensor:
    """V of every state ``[S]``, by backward induction from :func:`chance`; all tokens are equally likely.

    Example:
        >>> round(float(exact_values(TabularPolicy(2, DEPTH))[0]), 3)
        0.5
    """
    values = torch.zeros(len(policy.logits), dtype=torch.float64)
    for length in range(DEPTH):
        prefixes = torch.arange(2**length)[:, None] >> torch.arange(length) & 1
        for prompt in range(policy.prompts):
            state = policy.state(torch.full((2**length,), prompt), prefixes)
            values[state] = 0.05 + 0.9 * (prefixes.sum(1).double() + (DEPTH - length) / 2) / DEPTH
    return values


def closer_values(seed: int) -> Mapping[str, float]:
    """How far values are from exact ones at the states of fresh samples: the critic's, and the mean of the group."""
    generator = torch_generator("cpu", seed, "value")
    policy = TabularPolicy(2, DEPTH, COPIES)
    exact = exact_values(policy)
    trained = Trained(policy, "gae", learning_rate=0.0, learners=critic(CRITIC_RATE))
    for _ in range(FITTED):
        trained.step(scored(sample(policy, range(COPIES), GROUP, generator), generator))
    fresh = scored(sample(policy, range(COPIES), GROUP, generator), generator)
    truth = exact[policy.states_of(fresh)]
    fitted = trained.others[0].annotate(fresh).column("values/critic")
    outcome = fresh.column("episode:reward/outcome")
    mean = torch.zeros(COPIES, dtype=torch.float64).index_add_(0, fresh.group_of_episode, outcome) / GROUP
    of_group = mean[fresh.group_of_episode][fresh.episode_of_token]
    errors = {"critic": float(((fitted - truth) ** 2).mean()), "group": float(((of_group - truth) ** 2).mean())}
    return {"effect": 1 - errors["critic"] / errors["group"], **{f"error, {k}": v for k, v in errors.items()}}


CLAIMS = (
    Claim(
        "gae",
        "between critic and rewards",
        "A lambda between 0 and 1 learns more than either: less noise than rewards alone, less error than the critic.",
        "16 tables learn side by side from 8 responses each through 40 batches, with a critic that begins at 0 and "
        "learns beside them, by gae with lambda 0, 0.9 and 1, all whitened and at the rate of 0.5 to 128 that was "
        "best for lambda 1 on seeds from 10000 on (32). Effect: chance of being found right, mean over training, less "
        "that of the better of the ends. Beside it, what is not the exact gradient in an update of the first policy "
        "by a critic that is right, as a multiple of what is: there a smaller lambda is clearer.",
        "A gain of less than 0.02.",
        0.02,
        between,
    ),
    Claim(
        "value",
        "values of states",
        "The value loss fits values of states, a better baseline for their tokens than the mean of a group.",
        "The same tables, all of whose tokens stay equally likely; a critic is fitted to the returns of 60 batches at "
        "the rate of 0.5 to 4 that was best on seeds from 10000 on (4). Effect: by what share its squared error, at "
        "the states of fresh responses, is less than that of the mean outcome of their group of 8, against exact "
        "values.",
        "An error less by under a half.",
        0.5,
        closer_values,
    ),
)
