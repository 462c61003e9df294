"""CAD-RL (arXiv 2508.10118): no loss on what was cut off, more weight on dimensions, a wider trust region.

Three small worlds: thinking that the limit cuts off; boxes written as two words and three dimensions, rewarded, where
the words are right, by their overlap with the one asked for; and questions with four right answers, most of them rare.

Suffix legend: N tokens, E episodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import ragged
from apportion.studies.claim import Claim
from apportion.studies.shared import SharedPolicy
from apportion.studies.tabular import Trained, sample

THINK, ANSWER = 0, 1
LIMIT, HABIT = 4, 0.8
"""Tokens of a response in training, and how likely the policy is to go on thinking to begin with."""


def right(thoughts: Tensor) -> Tensor:
    """Probability that an answer is right after so many thoughts."""
    return (0.2 + 0.1 * thoughts.double()).clamp(max=1.0)


def accuracy_unhurried(policy: TabularPolicy) -> float:
    """Expected accuracy without a limit, the policy going on behind it as it did to begin with.

    Example:
        >>> sure = TabularPolicy(vocabulary=2, depth=4, end_ids=(ANSWER,))
        >>> with torch.no_grad():
        ...     sure.logits[:, ANSWER] = 40.0
        >>> round(accuracy_unhurried(sure), 6)
        0.2
    """
    likely = policy.logits.detach().softmax(1)
    zeros = torch.zeros((1, 1), dtype=torch.int64)
    rows = [int(policy.state(zeros[0], zeros.expand(1, k))[0]) for k in range(LIMIT)]
    answers = torch.cat([likely[rows, ANSWER], torch.full((100,), 1 - HABIT, dtype=likely.dtype)])
    reached = torch.cat([answers.new_ones(1), (1 - answers).cumprod(0)[:-1]])
    return float((reached * answers) @ right(torch.arange(len(answers))))


def _thinker(method: str, seed: int) -> TabularPolicy:
    generator = torch.Generator().manual_seed(seed)
    policy = TabularPolicy(vocabulary=2, depth=LIMIT, end_ids=(ANSWER,))
    with torch.no_grad():
        policy.logits[:] = torch.tensor([HABIT, 1 - HABIT], dtype=torch.float64).log()
    trained = Trained(policy, method, "cad_rl(weight=None)", learning_rate=2.0, seed=seed)
    for _ in range(200):
        rollouts = sample(policy, [0] * 4, 16, generator)
        lengths = ragged.lengths_of(rollouts.token_offsets)
        ended = ~rollouts.column("response:truncated").bool()
        luck = torch.rand(len(lengths), generator=generator)
        trained.step(rollouts.with_reward("outcome", (ended & (luck < right(lengths - 1))).double()))
    return policy


def overlong(seed: int) -> Mapping[str, float]:
    """Accuracy without a limit, after training under one with and without what it cut off."""
    figures = {name: accuracy_unhurried(_thinker(name, seed)) for name in ("cad_rl", "grpo")}
    return {"effect": figures["cad_rl"] - figures["grpo"], **figures}


BOXES, SIZES, LENGTH, PRECISE = 8, 6, 5, [1, 3, 4]
"""Prompts, sizes a dimension may have, tokens, and where the three dimensions stand among them."""
FEATURES, KNOWN = 32, 0.8
"""What places of a box share, and how likely each of the two words is right to begin with."""
RATE = 128.0
"""At which training is best, by either weight of a dimension."""
FRESH_SEEDS = 30_000
"""Added to the seed of the claim on weights."""


def overlap(likely: Tensor, asked: Tensor) -> float:
    """Expected overlap (intersection over union) of boxes with those asked for, of one corner; 0 where a word is wrong.

    Args:
        likely: probabilities of tokens ``[prompts, LENGTH, SIZES]``; the right word is token 0.
        asked: sizes of the three dimensions, from 0 ``[prompts, 3]``.

    Example:
        >>> round(overlap(torch.full((1, LENGTH, 2), 0.5), torch.tensor([[0, 0, 0]])), 6)
        0.105469
    """
    sizes = torch.arange(1, likely.shape[2] + 1, dtype=likely.dtype)
    wanted = sizes[asked][:, :, None]
    share = torch.minimum(sizes, wanted) / torch.maximum(sizes, wanted)
    words = [place for place in range(LENGTH) if place not in PRECISE]
    return float(((likely[:, PRECISE] * share).sum(2).prod(1) * likely[:, words, 0].prod(1)).mean())


def draughtsman(omega: float, rate: float, seed: int) -> float:
    """Mean overlap over the steps of training."""
    generator = torch.Generator().manual_seed(seed + FRESH_SEEDS)
    asked = torch.randint(SIZES, (BOXES, 3), generator=generator)
    states = torch.arange(BOXES * LENGTH)
    features = torch.randn((len(states), FEATURES + 1), generator=generator, dtype=torch.float64) / FEATURES**0.5
    weight = torch.ones(LENGTH, dtype=torch.float64)
    weight[PRECISE] = omega
    is_word = ~torch.isin(states % LENGTH, torch.tensor(PRECISE))
    features[:, -1] = is_word.double()
    policy = SharedPolicy(
        SIZES, LENGTH, features, prompts=BOXES, state_of=lambda p, prefix: p * LENGTH + prefix.shape[1]
    )
    with torch.no_grad():
        policy.logits[-1, 0] = math.log(KNOWN / (1 - KNOWN) * (SIZES - 1))
    trained = Trained(policy, "grpo", "cad_rl", learning_rate=rate, seed=seed)
    found = []
    for _ in range(150):
        rollouts = sample(policy, range(BOXES), 8, generator)
        drawn = rollouts.ids.view(-1, LENGTH)
        given, wanted = drawn[:, PRECISE] + 1.0, asked[rollouts.group_of_episode] + 1.0
        reward = (torch.minimum(given, wanted) / torch.maximum(given, wanted)).prod(1).double()
        executes = (drawn == 0)[:, is_word[:LENGTH]].all(1)
        rollouts = rollouts.with_reward("outcome", reward * executes)
        trained.step(rollouts.with_column("precision_weight", weight.repeat(rollouts.n_episodes)))
        likely = (features @ policy.logits.detach()).softmax(1).view(BOXES, LENGTH, SIZES)
        found.append(overlap(likely, asked))
    return sum(found) / len(found)


def precision(seed: int) -> Mapping[str, float]:
    """Overlap with dimensions weighing three times as much as words, and as much."""
    figures = {f"omega_{omega:g}": draughtsman(omega, RATE, seed) for omega in (3.0, 1.0)}
    return {"effect": figures["omega_3"] - figures["omega_1"], **figures}


QUESTIONS, ANSWERS, ENOUGH = 8, 32, 0.9
RIGHT = torch.tensor([0.2, 0.05, 0.02, 0.02], dtype=torch.float64)
"""How likely the four right answers are to begin with."""


def _variety(low: float, high: float, seed: int) -> tuple[float, float]:
    """Entropy over the right answers when nine in ten responses are first right, and the steps that took."""
    generator = torch.Generator().manual_seed(seed)
    policy = TabularPolicy(vocabulary=ANSWERS, depth=1, prompts=QUESTIONS)
    others = (1 - RIGHT.sum()) / (ANSWERS - len(RIGHT))
    with torch.no_grad():
        policy.logits[:] = torch.cat([RIGHT, others.expand(ANSWERS - len(RIGHT))]).log()
    objective = f"cad_rl(ratio_low={low}, ratio_high={high}, weight=None)"
    trained = Trained(policy, "grpo", objective, learning_rate=10.0, epochs=8, seed=seed)
    steps, right_ones = 0, slice(len(RIGHT))
    while float((likely := policy.logits.detach().softmax(1)[:, right_ones]).sum(1).mean()) < ENOUGH and steps < 200:
        rollouts = sample(policy, range(QUESTIONS), 16, generator)
        trained.step(rollouts.with_reward("outcome", (rollouts.ids < len(RIGHT)).double()))
        steps += 1
    share = likely / likely.sum(1, keepdim=True)
    return float(-torch.special.xlogy(share, share).sum(1).mean()), float(steps)


def wider(seed: int) -> Mapping[str, float]:
    """Entropy over right answers at the same accuracy with wide and with usual bounds."""
    (wide, sooner), (usual, later) = _variety(0.6, 1.8, seed), _variety(0.8, 1.2, seed)
    return {"effect": wide - usual, "wide": wide, "usual": usual, "steps_wide": sooner, "steps_usual": later}


CLAIMS = (
    Claim(
        "cad_rl",
        "overlong filter",
        "Leaving attempts that were cut off out of the loss spares sound reasoning that had no room.",
        "A policy that thinks, each thought making its answer likelier right, under a limit of 4 tokens that cuts two "
        "attempts in five off to begin with; credit cad_rl against grpo, same objective, 200 steps of 4 groups of 16. "
        "Effect: difference in accuracy where it may finish.",
        "An accuracy higher by less than two points.",
        0.02,
        overlong,
    ),
    Claim(
        "cad_rl",
        "precision tokens",
        "More weight on the tokens of dimensions brings shapes closer to the ones asked for.",
        "Boxes of 2 words and 3 dimensions, sizes 1 to 6, worth their overlap where both words are right, as each is "
        "four times in five to begin with; 8 prompts whose places share 32 features, groups of 8, 150 steps; objective "
        "cad_rl with weight 3 on dimensions against 1, each at the rate of 2 to 512 that was best on seeds 80000 to "
        "80005 (128 for both). Effect: difference in expected overlap, mean over the steps. (At first words earned "
        "nothing and shared nothing, and both arms took steps of one length, of which weight 3 gave more to the "
        "dimensions: +0.063; these are other seeds.)",
        "An overlap larger by less than 0.02.",
        0.02,
        precision,
    ),
    Claim(
        "cad_rl",
        "wider trust region",
        "Wide bounds of the ratio let rare right answers grow, so that more different ones are kept.",
        "8 questions with 4 right answers among 32, at 0.2, 0.05, 0.02 and 0.02 to begin with, groups of 16, 8 passes "
        "a batch; bounds 0.6 and 1.8 against 0.8 and 1.2. Effect: difference in entropy over the right answers, in "
        "nats, when nine in ten responses are right. At a tenth and at a third of the learning rate, tried on three "
        "other seeds, it was as small.",
        "An entropy higher by less than a tenth.",
        0.1,
        wider,
    ),
)
