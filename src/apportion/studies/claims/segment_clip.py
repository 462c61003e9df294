"""The objective of MA-RLHF (arXiv 2410.02743): one clipped ratio a macro action holds the macro action.

World: twenty tokens out of four, each place with a right token, independently drawn; the share of right tokens is the
score, given at the end. Credit is ma_rlhf on macro actions of five tokens, with a critic.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from apportion import objectives
from apportion.annotations.macro_actions import macro_actions
from apportion.objectives import Objective
from apportion.rollouts import Rollouts, ragged
from apportion.studies.claim import Claim
from apportion.studies.shared import SharedPolicy, by_position
from apportion.studies.tabular import Trained, rewarded, sample
from apportion.training.seeds import torch_generator

TOKENS, LENGTH, MACRO = 4, 20, 5
STEPS, RESPONSES, PASSES, CLIP = 40, 64, 6, 0.2
TOKENS_A_SEGMENT = 4
"""Twenty tokens are five macro actions, the last of one token: a mean over tokens weighs each a fourth as much."""
RATE = 12.0
BEST = {"macro": 24.0, "token": 48.0}
"""Learning rates: of the claim on bounds, and where each learns most."""
FRESH_SEEDS = 30_000
"""Added to the seed of the claim on learning."""


def _reward(prompt: int, tokens: tuple[int, ...]) -> float:
    return tokens.count(0) / LENGTH


def macro_ratios(policy: SharedPolicy, rollouts: Rollouts) -> Tensor:
    """Of every macro action, how much likelier the policy now makes its tokens than the one that drew them ``[S]``."""
    with torch.no_grad():
        now = policy.logits.log_softmax(1)[policy.states_of(rollouts), rollouts.ids]
    sizes = rollouts.column("macro:size").long()
    return ragged.sum_rows(now - rollouts.column("log_probs/behaviour"), ragged.offsets_of(sizes)).exp()


def _learn(objective: Objective, rate: float, seed: int) -> Mapping[str, float]:
    """Train; the exact score at the end and on the way, and how many macro actions a batch took out of bounds."""
    policy = SharedPolicy(TOKENS, LENGTH, states=LENGTH, state_of=by_position)
    generator = torch_generator("cpu", seed, "segment_clip")
    method, marks = "ma_rlhf(kl_coefficient=0.0)", macro_actions(f"fixed(n={MACRO})")
    trained = Trained(
        policy, method, objective, learning_rate=rate, epochs=PASSES, seed=seed, learners=["critic(learning_rate=0.3)"]
    )
    outside, scores = [], []
    for _ in range(STEPS):
        rollouts = rewarded(sample(policy, [0] * 8, RESPONSES // 8, generator), _reward)
        rollouts = marks.apply(rollouts, policy)
        trained.step(rollouts)
        outside.append(float(((macro_ratios(policy, rollouts) - 1).abs() > CLIP).double().mean()))
        scores.append(float(policy.logits.detach().softmax(1)[:, 0].mean()))
    return {"outside": sum(outside) / STEPS, "score": scores[-1], "score on the way": sum(scores) / STEPS}


def _macro(rate: float, seed: int) -> Mapping[str, float]:
    return _learn(objectives.OBJECTIVES["segment_clip"](unit="macro", low=CLIP), rate, seed)


def _token(rate: float, seed: int) -> Mapping[str, float]:
    return _learn(objectives.clip(low=CLIP), rate, seed)


def bounds(seed: int) -> Mapping[str, float]:
    """How many more macro actions ratios of tokens let out of bounds."""
    return _compared("outside", -1.0, macro=_macro(RATE, seed), token=_token(TOKENS_A_SEGMENT * RATE, seed))


def learning(seed: int) -> Mapping[str, float]:
    """How much more is learnt by ratios of macro actions, each at its own best rate."""
    seed += FRESH_SEEDS
    return _compared("score", 1.0, macro=_macro(BEST["macro"], seed), token=_token(BEST["token"], seed))


def _compared(figure: str, sign: float, **arms: Mapping[str, float]) -> Mapping[str, float]:
    effect = sign * (arms["macro"][figure] - arms["token"][figure])
    return {"effect": effect, **{f"{what}, {name}": arm[what] for name, arm in arms.items() for what in arm}}


WORLD = (
    "Twenty independent tokens out of four, scored at the end by the share that is right; ma_rlhf credit on macro "
    "actions of five with a critic, 40 batches of 64 responses, six passes over each, clip 0.2, SGD."
)

CLAIMS = (
    Claim(
        "segment_clip",
        "macro actions stay in bounds",
        "One clipped ratio a macro action keeps more macro actions within the bounds than one a token, which may leave "
        "them together.",
        f"{WORLD} Learning rate 12, and 48 for clip, whose mean is over four times as many terms. Effect: share of a "
        "batch's macro actions whose ratio is more than 0.2 from 1 after its passes, mean over batches: clip's minus "
        "segment_clip's.",
        "As many macro actions leave the bounds.",
        0.05,
        bounds,
    ),
    Claim(
        "segment_clip",
        "more is learnt",
        "One clipped ratio a macro action learns more than one a token.",
        f"{WORLD} Each at the rate that was best on seeds 80000 and 80001: 24 of 3 to 48, and for clip 48 of 12 to 96. "
        "Effect: exact score after training, segment_clip's minus clip's. (At first at 48 and 192, which is too large "
        "for clip: +0.15; these are other seeds.)",
        "Token ratios learn as much.",
        0.05,
        learning,
    ),
)
