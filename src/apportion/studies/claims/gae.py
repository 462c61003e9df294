"""GAE (arXiv 1506.02438): between the critic's values and the rewards that came, and the value loss of PPO (arXiv
1707.06347) that fits the critic.

Worlds: six binary tokens; each that is right adds as much to the chance of being found right, so that every token
matters and the outcome says little of any; for the critic, four of them are enough and fewer are not, so that states of
a prompt differ in value.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from statistics import fmean

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.clarity import noise
from apportion.studies.tabular import Reward, Trained, every_response, expected, gradient, rewarded, sample, update
from apportion.training.seeds import torch_generator

DEPTH, COPIES, GROUP = 6, 16, 8
BATCHES, RATE, CRITIC_RATE = 40, 32.0, 4.0
LAMBDAS = (0.0, 0.9, 1.0)
CREDITED = 30


def chance(prompt: int, tokens: tuple[int, ...]) -> float:
    """Probability of being found right."""
    return 0.05 + 0.9 * sum(tokens) / DEPTH


def scored(rollouts: Rollouts, generator: torch.Generator, likelihood: Reward = chance) -> Rollouts:
    """Outcomes of 0 or 1, by the chance of every response."""
    likely = rewarded(rollouts, likelihood).column("episode:reward/outcome")
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
    exact, values = gradient(policy, every_response(policy, chance)).flatten(), exact_values(policy, chance)
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

FITTED, ENOUGH, FITTING_RATE = 60, 4, 4.0
FRESH_SEEDS = 30_000
"""Added to the seed of the critic's claim."""


def passed(prompt: int, tokens: tuple[int, ...]) -> float:
    """Probability of being found right where some number of right tokens is enough."""
    return 0.95 if sum(tokens) >= ENOUGH else 0.05


def exact_values(policy: TabularPolicy, likely: Reward) -> Tensor:
    """V of every state ``[S]``, by backward induction; all tokens are equally likely.

    Example:
        >>> values = exact_values(TabularPolicy(2, DEPTH), chance)
        >>> round(float(values[0]), 3), round(float(values[1]), 3)
        (0.5, 0.425)
    """
    values = torch.zeros(len(policy.logits), dtype=torch.float64)
    for prompt in range(policy.prompts):
        after = torch.tensor([likely(prompt, tokens) for tokens in product((0, 1), repeat=DEPTH)], dtype=torch.float64)
        for length in reversed(range(DEPTH)):
            after = after.view(-1, 2).mean(1)
            prefixes = torch.tensor(list(product((0, 1), repeat=length))).view(2**length, length)
            values[policy.state(torch.full((2**length,), prompt), prefixes)] = after
    return values


def fitted(rate: float, seed: int) -> dict[str, float]:
    """Squared errors at the states of fresh responses: the critic's, and that of the mean of the returns it had."""
    generator = torch_generator("cpu", seed + FRESH_SEEDS, "value")
    policy = TabularPolicy(2, DEPTH, COPIES)
    trained = Trained(policy, "gae", learning_rate=0.0, learners=critic(rate))
    mean = torch.zeros(COPIES, dtype=torch.float64)
    for _ in range(FITTED):
        rollouts = scored(sample(policy, range(COPIES), GROUP, generator), generator, passed)
        mean += rollouts.column("episode:reward/outcome").view(COPIES, GROUP).mean(1) / FITTED
        trained.step(rollouts)
    fresh = sample(policy, range(COPIES), GROUP, generator)
    truth = exact_values(policy, passed)[policy.states_of(fresh)]
    values = trained.others[0].annotate(fresh).column("values/critic")
    of_prompt = mean[fresh.group_of_episode][fresh.episode_of_token]
    return {name: float(((v - truth) ** 2).mean()) for name, v in (("critic", values), ("mean", of_prompt))}


def closer_values(seed: int) -> Mapping[str, float]:
    """How much closer the critic is than the mean of a prompt's returns."""
    errors = fitted(FITTING_RATE, seed)
    return {"effect": 1 - errors["critic"] / errors["mean"], **{f"error, {k}": v for k, v in errors.items()}}


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
        "The value loss fits values of states: a critic is closer to them than the mean of a prompt's returns is.",
        "The same tables, all of whose tokens stay equally likely; a response is found right 95 times in 100 where at "
        "least four of its tokens are right, else 5 times. A critic is fitted to the 480 returns of a table, 60 "
        "batches, by gae at the rate of 0.5 to 16 that was best on seeds 80000 to 80002 (4). Effect: by what share its "
        "squared error, at the states of fresh responses, is less than that of the mean of the same 480 returns, "
        "against exact values. (At first the control was the mean outcome of the 8 responses of a group, in a world "
        "where states differ so little that one number for all of them was as close as the critic: +0.62; these are "
        "other seeds.)",
        "An error less by under a half.",
        0.5,
        closer_values,
    ),
)
