"""OPRL, or iStar (arXiv 2509.19199): an implicit process reward model, trained online on outcomes, credits turns.

World: an agent of six turns with three actions each, whatever it did before; one or two of the turns decide, and there
the first action must be taken. The verifier of the second claim errs with probability 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts, ragged
from apportion.studies.claim import Claim
from apportion.studies.speed import saved, updates_to
from apportion.studies.tabular import Trained
from apportion.studies.walks import END, Walk

TURNS, ACTIONS, GROUP = 6, 3, 8
KEY, KEYS = (3,), (1, 4)
"""Turns that decide: of the first claim, and of the second."""
PRM_GROUPS, PRM_UPDATES = 8, 20
COPIES, UPDATES, LEVEL = 16, 60, 0.9
RATES = {"oprl(alpha=0.0)": 0.4, "oprl": 0.2}
"""Where each needs fewest updates."""
MISJUDGED = 0.1
PRM_RATE = 2.0
"""Learning rate of the reward model as a multiple of the policy's, as in the paper's settings: at the policy's own or
below, its log-ratios to the policy turn against what the policy has just learnt."""


def chain() -> Walk:
    """Turn after turn, whatever is done; what it is worth is added by :func:`judged`."""
    turn = torch.arange(TURNS)
    to = torch.where(turn == TURNS - 1, END, turn + 1)[:, None].expand(-1, ACTIONS).clone()
    return Walk(to, torch.zeros((TURNS, ACTIONS), dtype=torch.float64), TURNS)


def judged(rollouts: Rollouts, keys: tuple[int, ...], generator: torch.Generator, misjudged: float = 0.0) -> Rollouts:
    """Right if the first action was taken at every deciding turn; said to be the opposite now and then."""
    turn_B, taken_B = rollouts.prompts % TURNS, rollouts.ids == 0
    kept_B = taken_B & torch.isin(turn_B, torch.tensor(keys))
    count_E = ragged.sum_rows(kept_B.double(), rollouts.response_offsets)
    turned_E = torch.rand(len(count_E), generator=generator, dtype=torch.float64) < misjudged
    return rollouts.with_reward("outcome", ((count_E == len(keys)) ^ turned_E).double())


def _learner(rate: float) -> str:
    return f"implicit_prm(learning_rate={rate})"


def rank(seed: int) -> Mapping[str, float]:
    """How far the deciding action's implicit reward stands out, under a policy that does not learn."""
    generator = torch.Generator().manual_seed(seed)
    walk = chain()
    policy = TabularPolicy(ACTIONS, 1, prompts=TURNS)
    learner = Trained(policy, "oprl", learning_rate=0.0, optimizer="adamw", learners=(_learner(0.05),))
    for _ in range(PRM_UPDATES):
        starts = torch.zeros(PRM_GROUPS, dtype=torch.int64)
        learner.step(judged(walk.sample(policy, starts, GROUP, generator), KEY, generator))
    prm = learner.others[0].model
    table = next(iter(prm.named_parameters()))[1].detach().log_softmax(1) - policy.logits.detach().log_softmax(1)
    deciding = float(table[KEY[0], 0])
    others = [float(table[t, a]) for t in range(TURNS) for a in range(ACTIONS) if (t, a) != (KEY[0], 0)]
    rest = sum(others) / len(others)
    return {"effect": (deciding - max(others)) / (deciding - rest), "deciding": deciding, "best_other": max(others)}


def curve(method: str, rate: float, seed: int) -> list[float]:
    """Exact probability of success over training, of as many tables as there are copies."""
    generator = torch.Generator().manual_seed(seed)
    walk = chain().copies(COPIES)
    policy = TabularPolicy(ACTIONS, 1, prompts=len(walk.to))
    learner = Trained(policy, method, learning_rate=rate, optimizer="adamw", learners=(_learner(PRM_RATE * rate),))
    starts = torch.arange(COPIES) * TURNS

    def success() -> float:
        likely = policy.logits.detach().softmax(1)[:, 0].view(COPIES, TURNS)
        return float(likely[:, list(KEYS)].prod(1).mean())

    found = [success()]
    for _ in range(UPDATES):
        learner.step(judged(walk.sample(policy, starts, GROUP, generator), KEYS, generator, MISJUDGED))
        found.append(success())
    return found


def speed(seed: int) -> Mapping[str, float]:
    """Updates to success nine times in ten."""
    outcome, implicit = (curve(method, rate, seed) for method, rate in RATES.items())
    return {
        "effect": saved(LEVEL, slow=outcome, fast=implicit),
        "rloo_updates": updates_to(LEVEL, outcome),
        "oprl_updates": updates_to(LEVEL, implicit),
    }


CLAIMS = (
    Claim(
        "oprl",
        "the deciding turn",
        "A process reward model trained on outcomes alone finds the turn that decides.",
        "A policy that stays uniform, 20 updates of the model by AdamW at 0.05 on 8 groups of 8 each; one of 6 turns "
        "decides. Effect: how much the log-ratio of the deciding action exceeds the best of the 17 others, as a share "
        "of what it exceeds their mean by.",
        "An excess of less than a quarter.",
        0.25,
        rank,
    ),
    Claim(
        "oprl",
        "fewer updates",
        "Adding the advantages of implicit step rewards needs fewer updates than the outcome alone.",
        "16 tables learn side by side from a group of 8 each, two of 6 turns decide, AdamW, the reward model at twice "
        "the rate; oprl against itself with alpha 0 (RLOO), each at the rate of 0.1, 0.2, 0.4 and 0.8 that was "
        "fastest on seeds from 100 on (0.2, and 0.4 for RLOO). Effect: share of the updates to success 9 times in 10 "
        "that it saves; the paper's is a half.",
        "Less than a tenth of the updates saved.",
        0.1,
        speed,
    ),
)
