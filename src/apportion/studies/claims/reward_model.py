"""The critique-based reward model of MM-RLHF (arXiv 2502.10391): scores are better behind a critique.

World: answers of two digits below five that should repeat the two digits of their prompt. Of a pair, the answer with
more digits right is preferred; its annotated critique marks every digit 1 (right) or 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apportion import objectives
from apportion.credit import METHODS, Clock
from apportion.models.digits import digit_llama
from apportion.models.reward_model import RewardModel, reward_model_for
from apportion.rollouts import Rollouts, ragged
from apportion.sampling import SamplingSettings, engine_for, sample_groups
from apportion.studies.claim import Claim
from apportion.training.config import TrainConfig
from apportion.training.learner import Learner, UpdateSettings
from apportion.training.seeds import derive, torch_generator

DIGITS, LENGTH = 5, 2
TRAINING, HELD_OUT, UPDATES, RATE = 256, 256, 120, 3e-3
FIRST_DIGIT, EQUALS, STOP = 1, 11, 12
"""Ids of 0, of the end of a prompt and of an answer."""


@dataclass(frozen=True)
class _Pairs:
    """Prompts ``[K, LENGTH]`` and two answers each ``[K, 2, LENGTH]``, the preferred one first."""

    prompts: Tensor
    answers: Tensor

    @staticmethod
    def of(count: int, generator: torch.Generator) -> _Pairs:
        """Pairs of different quality."""
        prompts = torch.randint(DIGITS, (4 * count, 1, LENGTH), generator=generator)
        repeats = torch.rand((4 * count, 2, LENGTH), generator=generator) < 0.5
        answers = torch.where(repeats, prompts, torch.randint(DIGITS, repeats.shape, generator=generator))
        quality = (answers == prompts).sum(2)
        better = (quality[:, :1] < quality[:, 1:]).long()
        ordered = answers.gather(1, torch.cat([better, 1 - better], 1)[..., None].expand_as(answers))
        unequal = (quality[:, 0] != quality[:, 1]).nonzero().squeeze(1)[:count]
        return _Pairs(prompts[unequal, 0], ordered[unequal])

    @property
    def marks(self) -> Tensor:
        """Which digits are right ``[K, 2, LENGTH]``."""
        return (self.answers == self.prompts[:, None]).long()

    def rollouts(self, critiques: list[list[int]]) -> Rollouts:
        """Answers, then what is given as ids behind each (a critique, or a stop alone), marked as its critique."""
        rows = [[FIRST_DIGIT + d for d in row] for row in self.answers.flatten(0, 1).tolist()]
        every = torch.arange(len(rows))
        prompts = [[FIRST_DIGIT + d for d in self.prompts[e // 2].tolist()] + [EQUALS] for e in every.tolist()]
        rollouts = Rollouts.from_lists(
            [row + critique for row, critique in zip(rows, critiques, strict=True)],
            groups=(every // 2).tolist(),
            prompts=prompts,
        )
        rollouts = rollouts.with_pairs(every[::2], every[1::2])
        return rollouts.with_spans("critique", rollouts.token_offsets[:-1] + LENGTH, rollouts.token_offsets[1:])

    def annotated(self) -> list[list[int]]:
        """The true marks and a stop, behind every answer."""
        return [[FIRST_DIGIT + mark for mark in row] + [STOP] for row in self.marks.flatten(0, 1).tolist()]

    def bare(self) -> list[list[int]]:
        """A stop behind every answer."""
        return [[STOP]] * (2 * len(self.prompts))


def _trained(seed: int, rollouts: Rollouts, critic_weight: float) -> RewardModel:
    model = reward_model_for(digit_llama(hidden=32, seed=derive(seed, "reward_model", "model") % 2**31))
    objective = objectives.OBJECTIVES["reward_model"](critic_weight=critic_weight)
    settings = UpdateSettings.of(TrainConfig(learning_rate=RATE, minibatches=4, epochs=1, seed=seed))
    learner = Learner("rm", model, objective, replace(settings, micro_batch_tokens=1 << 14))
    credit = METHODS["none"]()(rollouts)
    for step in range(UPDATES // 4):
        learner.update(credit, Clock(step, UPDATES // 4))
    return model


def _critiques(model: RewardModel, rollouts: Rollouts) -> list[list[int]]:
    """What the model writes behind answers, greedily."""
    prompts = ragged.unflatten(rollouts.prompt_ids, rollouts.prompt_offsets)
    answers = ragged.unflatten(rollouts.ids, rollouts.token_offsets)
    asked = [prompts[p] + row[:LENGTH] for p, row in zip(rollouts.prompts.tolist(), answers, strict=True)]
    settings = SamplingSettings(LENGTH + 1, temperature=0.0, end_ids=(STOP,))
    said = sample_groups(engine_for(model.speaker), asked, 1, settings, torch.Generator())
    return ragged.unflatten(said.ids, said.token_offsets)


def _accuracy(model: RewardModel, rollouts: Rollouts) -> float:
    scores = model.end_scores(rollouts, torch.arange(rollouts.n_responses)).reshape(-1, 2)
    return float((scores[:, 0] > scores[:, 1]).double().mean())


def _measure(seed: int) -> Mapping[str, float]:
    generator = torch_generator("cpu", seed, "reward_model")
    training, held_out = _Pairs.of(TRAINING, generator), _Pairs.of(HELD_OUT, generator)
    bare = held_out.rollouts(held_out.bare())
    plain = _trained(seed, training.rollouts(training.bare()), 0.0)
    critic = _trained(seed, training.rollouts(training.annotated()), 1.0)
    own = _critiques(critic, bare)
    figures = {
        "critique": _accuracy(critic, held_out.rollouts(own)),
        "annotated critique": _accuracy(critic, held_out.rollouts(held_out.annotated())),
        "plain": _accuracy(plain, bare),
        "critiques right": sum(a == b for a, b in zip(own, held_out.annotated(), strict=True)) / len(own),
    }
    return {"effect": figures["critique"] - figures["plain"], **figures}


CLAIMS = (
    Claim(
        "reward_model",
        "a critique before the score",
        "A reward model that writes a critique and scores behind it orders answers better than one that only scores.",
        "A small Llama over digits (hidden size 32) is to say which answer repeats more of its prompt's two digits; "
        "256 pairs, 120 updates of AdamW 3e-3. One is trained on annotated critiques too and judged behind its own, "
        "greedy ones. Effect: share of 256 held-out pairs in the right order, minus that of the model without "
        "critiques.",
        "Scores are as good without a critique.",
        0.02,
        _measure,
    ),
)
