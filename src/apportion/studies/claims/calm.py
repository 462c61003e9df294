"""CALM (arXiv 2409.12798): subgoals that a judge sees achieved pay a bonus, where the task pays only at its end.

Cells of 5 by 5, a policy that sees where it stands and what it has: fetch the key in one corner, open the door in the
next, leave by the third, which alone pays 1. At least 12 of at most 40 moves; a walk at random leaves three times in a
thousand. A judge says of every move whether it got the key or opened the door.

Suffix legend: N tokens (moves, each a turn), E episodes, S states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts, ragged
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained

SIDE, STAGES, MOVES = 5, 3, 40
GOALS = torch.tensor([SIDE - 1, SIDE * SIDE - 1, SIDE * (SIDE - 1)])
"""Cells of key, door and exit."""
EXIT = STAGES * SIDE * SIDE
GROUP, GROUPS, UPDATES = 16, 2, 300
ENOUGH = 0.8


def _grid() -> Tensor:
    """The state every move leads to ``[S, 4]``; a state is a cell and how many goals were reached, or the exit."""
    cell = torch.arange(SIDE * SIDE)
    row, column = cell // SIDE, cell % SIDE
    moves = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])
    to = (row[:, None] + moves[:, 0]).clamp(0, SIDE - 1) * SIDE + (column[:, None] + moves[:, 1]).clamp(0, SIDE - 1)
    by_stage = [to + (stage + (to == GOALS[stage]).long()) * SIDE * SIDE for stage in range(STAGES)]
    return torch.cat(by_stage).clamp(max=EXIT)


NEXT = _grid()


def _walks(policy: TabularPolicy, flips: float, generator: torch.Generator) -> Rollouts:
    """Attempts of the policy, with what the task pays and what the judge says, wrong in a share of its verdicts."""
    count = GROUP * GROUPS
    probability = policy.logits.detach().softmax(1)
    state, states, actions = torch.zeros(count, dtype=torch.int64), [], []
    for _ in range(MOVES):
        here = state.clamp(max=EXIT - 1)
        action = torch.multinomial(probability[here], 1, generator=generator).squeeze(1)
        states.append(state)
        actions.append(action)
        state = torch.where(state == EXIT, EXIT, NEXT[here, action])
    state_N, action_N = torch.stack(states, 1), torch.stack(actions, 1)
    going = state_N < EXIT
    lengths = going.sum(1)
    state_N, action_N = state_N[going], action_N[going]
    after_N = NEXT[state_N, action_N]
    # Which goal a move reached: the key or the door.
    reached = (after_N // (SIDE * SIDE) > state_N // (SIDE * SIDE))[:, None]
    verdicts = reached & (state_N[:, None] // (SIDE * SIDE) == torch.arange(STAGES - 1))
    verdicts = verdicts ^ (torch.rand(verdicts.shape, generator=generator) < flips)
    rollouts = Rollouts(
        ids=action_N,
        token_offsets=torch.arange(len(action_N) + 1),
        response_offsets=ragged.offsets_of(lengths),
        group_ids=torch.arange(GROUPS).repeat_interleave(GROUP),
        prompt_ids=torch.arange(EXIT),
        prompt_offsets=torch.arange(EXIT + 1),
        prompts=state_N,
    )
    rollouts = rollouts.with_reward("step", (after_N == EXIT).double(), level="response")
    return rollouts.with_reward("subgoals", verdicts.double(), level="response")


def success(policy: TabularPolicy) -> float:
    """Exact probability of leaving within the moves allowed."""
    probability = policy.logits.detach().softmax(1)
    at = torch.zeros(EXIT + 1, dtype=torch.float64)
    at[0] = 1
    for _ in range(MOVES):
        moved = at.new_zeros(EXIT + 1)
        moved[EXIT] = at[EXIT]
        at = moved.index_add_(0, NEXT.flatten(), (at[:EXIT, None] * probability).flatten())
    return float(at[EXIT])


def episodes_needed(method: str, rate: float, seed: int, flips: float = 0.0, updates: int = UPDATES) -> float:
    """Attempts until four in five would leave; as many as were made where that was not reached."""
    generator = torch.Generator().manual_seed(seed)
    policy = TabularPolicy(vocabulary=4, depth=1, prompts=EXIT)
    trained = Trained(policy, method, "reinforce", learning_rate=rate, seed=seed)
    for update in range(updates):
        if success(policy) >= ENOUGH:
            return float(update * GROUP * GROUPS)
        trained.step(_walks(policy, flips, generator))
    return float(updates * GROUP * GROUPS)


RATE = 1000.0
"""Best of 300, 1000, 3000 and 10,000 for the task's reward alone, on seeds from 1000 on; none is better for both."""
REPEATS, FIRST = 12, 2000
"""Runs averaged for a figure, and their first seed; 4 runs left the figures too uncertain to say anything."""


def _needed(method: str, seed: int, flips: float = 0.0) -> float:
    return fmean(episodes_needed(method, RATE, FIRST + seed * REPEATS + i, flips) for i in range(REPEATS))


def sooner(seed: int) -> Mapping[str, float]:
    """Log of how many times fewer attempts are needed with subgoals."""
    plain, shaped = _needed("calm(bonus=0.0)", seed), _needed("calm", seed)
    return {"effect": math.log(plain / shaped), "plain": plain, "shaped": shaped}


def sooner_with_errors(seed: int) -> Mapping[str, float]:
    """The same where one verdict in twenty is wrong; beside it, one in five."""
    plain = _needed("calm(bonus=0.0)", seed)
    figures = {f"shaped_{share:g}": _needed("calm", seed, share) for share in (0.05, 0.2)}
    return {"effect": math.log(plain / figures["shaped_0.05"]), "plain": plain, **figures}


ROUTE = (
    "A grid of 25 cells with key, door and exit, 2 groups of 16 attempts of at most 40 moves an update, each move "
    "credited by its returns; calm against the same without bonus, both at the learning rate that is best without. "
    "Effect: log of the ratio of attempts until four in five leave"
)

CLAIMS = (
    Claim(
        "calm",
        "sooner",
        "Bonuses for subgoals that a judge recognises cut the attempts that a late reward takes.",
        f"{ROUTE}; every verdict is right.",
        "Fewer attempts by less than half.",
        math.log(2),
        sooner,
    ),
    Claim(
        "calm",
        "sooner despite errors",
        "Verdicts of a judge that sometimes errs still help.",
        f"{ROUTE}; one verdict in twenty is turned round.",
        "Fewer attempts by less than a tenth.",
        0.1,
        sooner_with_errors,
    ),
)
