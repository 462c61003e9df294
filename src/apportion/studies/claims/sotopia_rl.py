"""Sotopia-RL (arXiv 2508.03905): scores of a dialogue shared out among utterances as a judge attributes them.

Dialogues of six utterances of five kinds. Pressing for the goal pays by how good the relationship has become, so that
being warm pays later; informing pays a little and adds knowledge; small talk does nothing, and rudeness harms. A judge
says of every utterance what it did for goal, relationship and knowledge, from -1 (harm) to 3, one step off in a fifth
of the cases: what it did *in the end*, less what small talk in its place would have, or only what it did *at once*. The
policy knows how many utterances came before, no more.

Suffix legend: E episodes, T utterances, Y dialogues there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from statistics import fmean

import torch
from torch import Tensor

from apportion.credit.sotopia_rl import DIMENSIONS
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained

TURNS, KINDS, GROUP, GROUPS, STEPS = 6, 5, 16, 2, 60
PRESS, WARM, INFORM, TALK, RUDE = range(KINDS)
RELATIONSHIP = torch.tensor([-0.25, 1.0, 0.0, 0.0, -1.0], dtype=torch.float64)
KNOWLEDGE = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
OFF = 0.2
"""Share of the judge's attributions that are one step off."""
FRESH = 30_000
"""Seeds that were not looked at, neither at rate 2 for all nor to choose rates by."""
HINDSIGHT_RATES = {"direct": 256.0, "scaled": 64.0, "uniform": 64.0}
AT_ONCE_RATES = {"direct": 128.0, "uniform": 64.0}
"""Where the expected goal, mean over the steps, is highest."""
END_RATES = {"three": 8.0, "goal_alone": 128.0}
"""Where it is highest after training, and the judge sees what was done at once."""


def effects(kinds: Tensor) -> Tensor:
    """What every utterance of dialogues ``[..., 6]`` does at once for goal, relationship and knowledge ``[..., 6, 3]``.

    Example:
        >>> effects(torch.tensor([PRESS, WARM, PRESS, RUDE, INFORM, PRESS]))[:, 0].tolist()
        [0.5, 0.0, 0.875, -0.5, 0.25, 0.25]
    """
    relationship = RELATIONSHIP[kinds]
    before = relationship.cumsum(-1) - relationship
    goal = torch.where(kinds == PRESS, 0.5 * (1 + before).clamp(min=0), 0.0)
    goal = torch.where(kinds == INFORM, 0.25, torch.where(kinds == RUDE, -0.5, goal))
    return torch.stack([goal, relationship, KNOWLEDGE[kinds]], -1)


def in_the_end(kinds: Tensor) -> Tensor:
    """The same in hindsight: what the dialogue would lack with small talk in the utterance's place.

    Example:
        >>> in_the_end(torch.tensor([PRESS, WARM, PRESS, RUDE, INFORM, PRESS]))[:2, 0].tolist()
        [0.25, 0.75]
    """
    whole, parts = effects(kinds).sum(-2), []
    for turn in range(TURNS):
        without = kinds.clone()
        without[..., turn] = TALK
        parts.append(whole - effects(without).sum(-2))
    return torch.stack(parts, -2)


def scores(kinds: Tensor) -> Tensor:
    """Scores of whole dialogues on the three dimensions, from 0 to 10 ``[..., 3]``."""
    total = effects(kinds).sum(-2)
    return (torch.tensor([2.0, 5.0, 2.0], dtype=total.dtype) + 2 * total).clamp(0, 10)


@cache
def _every() -> tuple[Tensor, Tensor]:
    """All dialogues ``[Y, 6]`` and their goals ``[Y]``."""
    kinds = torch.cartesian_prod(*[torch.arange(KINDS)] * TURNS)
    return kinds, scores(kinds)[:, 0]


def expected_goal(policy: TabularPolicy) -> float:
    """Exact expected goal of a policy."""
    kinds, goal = _every()
    likely = policy.logits.detach().softmax(1)[torch.arange(TURNS), kinds].prod(1)
    return float(likely @ goal)


def _dialogues(policy: TabularPolicy, judged: Callable[[Tensor], Tensor], generator: torch.Generator) -> Rollouts:
    count = GROUP * GROUPS
    likely = policy.logits.detach().softmax(1)
    kinds = torch.multinomial(likely, count, replacement=True, generator=generator).T
    rollouts = Rollouts(
        ids=kinds.flatten(),
        token_offsets=torch.arange(count * TURNS + 1),
        response_offsets=torch.arange(0, count * TURNS + 1, TURNS),
        group_ids=torch.arange(GROUPS).repeat_interleave(GROUP),
        prompt_ids=torch.arange(TURNS),
        prompt_offsets=torch.arange(TURNS + 1),
        prompts=torch.arange(TURNS).repeat(count),
    )
    did = judged(kinds)
    said = torch.where(did < 0, -1.0, (2 * did).round().clamp(0, 3))
    off = torch.randint(0, 2, said.shape, generator=generator) * 2 - 1
    wrong = (torch.rand(said.shape, generator=generator) < OFF) & (said >= 0)
    said = torch.where(wrong, (said + off).clamp(0, 3), said)
    for name, score, given in zip(DIMENSIONS, scores(kinds).unbind(-1), said.unbind(-1), strict=True):
        rollouts = rollouts.with_reward(name, score)
        rollouts = rollouts.with_reward(f"attribution/{name}", given.flatten(), level="response")
    return rollouts


@cache
def _goals(method: str, judged: Callable[[Tensor], Tensor], rate: float, seed: int) -> list[float]:
    """Expected goal after every step of training."""
    generator = torch.Generator().manual_seed(seed)
    policy = TabularPolicy(vocabulary=KINDS, depth=1, prompts=TURNS)
    trained, goals = Trained(policy, method, learning_rate=rate, seed=seed), []
    for _ in range(STEPS):
        trained.step(_dialogues(policy, judged, generator))
        goals.append(expected_goal(policy))
    return goals


GOAL = "sotopia_rl(dimensions=('goal',), method='{}')"


def attributed(
    seed: int, other: str, judged: Callable[[Tensor], Tensor], rates: Mapping[str, float]
) -> Mapping[str, float]:
    """Expected goal from attributions as shares of the most there can be, and from another way to share it out."""
    goals = {name: _goals(GOAL.format(name), judged, rates[name], FRESH + seed) for name in ("direct", other)}
    figures = {name: fmean(of) for name, of in goals.items()}
    ends = {f"{name}_in_the_end": of[-1] for name, of in goals.items()}
    return {"effect": figures["direct"] - figures[other], **figures, **ends}


def three_dimensions(seed: int) -> Mapping[str, float]:
    """Expected goal from rewards for goal, relationship and knowledge, and for the goal alone."""
    arms = {"three": "sotopia_rl", "goal_alone": GOAL.format("direct")}
    ends = {name: _goals(method, effects, END_RATES[name], FRESH + seed)[-1] for name, method in arms.items()}
    return {"effect": ends["three"] - ends["goal_alone"], **ends}


_FOLLOWING = "Rewards that follow a judge's attribution reach the goal better than the score itself for every utterance"
_WORLD = "Dialogues of 6 utterances of 5 kinds, 2 groups of 16 a step, 60 steps"
_TUNED = "each at the rate of 2, 4, 8, ... 256 (direct in hindsight to 2048) that was best on seeds from 50000 on"
_MEAN = "Effect: difference in expected goal, from 0 to 10, mean over the steps"

CLAIMS = (
    Claim(
        "sotopia_rl",
        "direct over uniform",
        f"{_FOLLOWING}, where the judge has hindsight.",
        f"{_WORLD}; direct against uniform, goal alone (the paper: 7.21 against 5.61), {_TUNED} (256 and 64); the "
        f"judge sees what an utterance did in the end. {_MEAN}. At rate 2 for both it was 1.95; these are other seeds.",
        "A goal higher by less than 0.3.",
        0.3,
        partial(attributed, other="uniform", judged=in_the_end, rates=HINDSIGHT_RATES),
    ),
    Claim(
        "sotopia_rl",
        "direct over uniform, judged at once",
        f"{_FOLLOWING}, where the judge sees no more than what an utterance does at once.",
        f"The same world and arms, {_TUNED} (128 and 64), with the judge looked at first. {_MEAN}. At rate 2 direct "
        "was at 4.8 after training and uniform, which sees all, at 8.8; these are other seeds.",
        "A goal higher by less than 0.3.",
        0.3,
        partial(attributed, other="uniform", judged=effects, rates=AT_ONCE_RATES),
    ),
    Claim(
        "sotopia_rl",
        "direct over scaled",
        "Attributions are better taken as they are than as shares of their sum.",
        f"{_WORLD}; direct against scaled, goal alone (the paper: 7.21 against 6.74), {_TUNED} (256 and 64); the judge "
        f"sees what an utterance did in the end. {_MEAN}. At rate 2 for both it was 0.40; these are other seeds.",
        "A goal higher by less than 0.2.",
        0.2,
        partial(attributed, other="scaled", judged=in_the_end, rates=HINDSIGHT_RATES),
    ),
    Claim(
        "sotopia_rl",
        "three dimensions",
        "Rewarding relationship and knowledge too reaches the goal better than rewarding the goal alone.",
        f"{_WORLD}; three dimensions against one, both direct (the paper: 7.81 against 7.21), {_TUNED} (8 and 128); "
        "the judge sees what an utterance did at once, so that only the relationship speaks for warmth. Effect: "
        "difference in expected goal after training, from 0 to 10. At rate 2 for both it was -0.25; these are other "
        "seeds.",
        "A goal higher by less than 0.2.",
        0.2,
        three_dimensions,
    ),
)
