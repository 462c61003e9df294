"""PACS (arXiv 2509.02522): the classifier's error term bounds how far a batch moves the policy.

World: one prompt with 20 answers of which 5 are right, groups of 8, four passes over every batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor

from apportion import objectives
from apportion.models.tabular import TabularPolicy
from apportion.objectives import Objective
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained, rewarded, sample
from apportion.training.seeds import torch_generator

ANSWERS, RIGHT, GROUP, PASSES, BATCHES = 20, 5, 8, 4, 150
PROMPTS = 8
DRAWS = 32
"""As many answers are drawn of the trained policy to see which right ones come up."""
LEARNT = 0.95
"""Accuracy from which on a policy moves little whatever it learns by."""
FRESH = 30_000
"""Seeds that were not looked at with one rate for both, nor to choose one by."""
EQUAL_RATES = {"pacs": 16.0, "fixed": 11.5}
"""At which both are as accurate in training."""
SUMMED = "seq_mean_token_sum"


def _reward(prompt: int, tokens: tuple[int, ...]) -> float:
    return float(tokens[0] < RIGHT)


def class_weighted(rollouts: Rollouts) -> Rollouts:
    """Reward ``fixed``: ``w_i (y_i - 1/2)`` with the class weights of PACS, which its loss has at its first step.

        w_i = n / (2 n_label) where a group has both labels, else 1

    Example:
        >>> one = Rollouts.from_lists([[0], [9], [9], [9]], groups=[0] * 4, rewards=[1.0, 0.0, 0.0, 0.0])
        >>> [round(r, 3) for r in class_weighted(one).column("episode:reward/fixed").tolist()]
        [1.0, -0.333, -0.333, -0.333]
    """
    label = rollouts.column("episode:reward/outcome")
    group = rollouts.group_of_episode
    right = torch.zeros(rollouts.n_groups, dtype=label.dtype).index_add_(0, group, label)
    size = torch.bincount(group).to(label.dtype)
    same = torch.where(label > 0, right[group], (size - right)[group])
    weight = torch.where(same < size[group], size[group] / (2 * same), 1.0)
    return rollouts.with_reward("fixed", weight * (label - 0.5))


def _learn(method: str, objective: Objective, rate: float, seed: int) -> Mapping[str, float]:
    """Train; how far batches moved their own responses on the way, and how many right answers are alive."""
    policy = TabularPolicy(ANSWERS, 1, PROMPTS)
    generator = torch_generator("cpu", seed, "pacs")
    trained = Trained(policy, method, objective, learning_rate=rate, epochs=PASSES, seed=seed)
    largest, accuracy = [], []
    for _ in range(BATCHES):
        rollouts = class_weighted(rewarded(sample(policy, range(PROMPTS), GROUP, generator), _reward))
        trained.step(rollouts)
        right = _right(policy)
        accuracy.append(float(right.sum(1).mean()))
        largest.append(float(_scores(policy, rollouts).abs().max()))
    found = float((1 - (1 - right) ** DRAWS).sum(1).mean())
    speed = sum(accuracy) / BATCHES
    learning = [drift for drift, before in zip(largest, [0.0, *accuracy], strict=False) if before < LEARNT]
    return {
        "drift": fmean(learning),
        "largest drift": max(largest),
        "found": found,
        "accuracy": accuracy[-1],
        "accuracy in training": speed,
    }


def _scores(policy: TabularPolicy, rollouts: Rollouts) -> Tensor:
    """psi of every episode: its log-ratio to the policy that drew it, less the mean of the others'."""
    with torch.no_grad():
        now = policy.logits.log_softmax(1)[policy.states_of(rollouts), rollouts.ids]
    ratio = (now - rollouts.column("log_probs/behaviour")).reshape(-1, GROUP)
    return (ratio - ratio.mean(1, keepdim=True)) * GROUP / (GROUP - 1)


def _right(policy: TabularPolicy) -> Tensor:
    """Probabilities of the right answers ``[prompts, RIGHT]``."""
    with torch.no_grad():
        return policy.logits.softmax(1)[:, :RIGHT]


def _drift(seed: int) -> Mapping[str, float]:
    arms = {
        "pacs": _learn("none(component='outcome')", objectives.OBJECTIVES["pacs"](), EQUAL_RATES["pacs"], FRESH + seed),
        "fixed": _learn("rloo(component='fixed')", objectives.reinforce(SUMMED), EQUAL_RATES["fixed"], FRESH + seed),
    }
    return {"effect": 1 - arms["pacs"]["drift"] / arms["fixed"]["drift"], **_figures(arms)}


def _found(seed: int) -> Mapping[str, float]:
    arms = {
        "pacs": _learn("none(component='outcome')", objectives.OBJECTIVES["pacs"](), 8.0, seed),
        "grpo": _learn("grpo", objectives.clip(0.2, 0.28, aggregate=SUMMED), 16.0, seed),
    }
    return {"effect": arms["pacs"]["found"] - arms["grpo"]["found"], **_figures(arms)}


def _figures(arms: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{what}, {name}": value for name, arm in arms.items() for what, value in arm.items()}


WORLD = "8 prompts with 20 answers each, 5 of them right; groups of 8, 150 batches, four passes over each, SGD."

CLAIMS = (
    Claim(
        "pacs",
        "smaller steps away",
        "The error term of the classifier bounds how far the passes over a batch take the policy from the one that "
        "drew it.",
        f"{WORLD} The control is the same gradient with the error term held at its first value, that is leave-one-out "
        "with rewards w (y - 1/2), at the rate of 10, 11, 11.5 and 12 (11.5) whose mean accuracy over the run is "
        "nearest to that of pacs at 16, on seeds from 50000 on. Effect: by what share the largest score |psi| of a "
        "batch is smaller, mean over the batches until the accuracy is 0.95. At first both were at rate 16, where the "
        "control learns sooner: 0.39; these are other seeds.",
        "The policy moves as far without the error term.",
        0.1,
        _drift,
    ),
    Claim(
        "pacs",
        "more right answers than GRPO",
        "Where both learn equally fast, PACS keeps more right answers alive than GRPO: the paper's gain at pass@256.",
        f"{WORLD} The control is grpo with clip(0.2, 0.28). Learning rates 8 for pacs and 16 for grpo, the least of 4, "
        "8, 16, 32 with a mean accuracy over the run of 0.96 or more on two other seeds. Effect: how many of the 5 "
        "right answers come up in 32 draws after training, minus the control's.",
        "GRPO has as many right answers alive.",
        0.1,
        _found,
    ),
)
