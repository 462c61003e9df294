"""A scripted process reward: the quickstart's partial sums, each checked against the one before."""

from __future__ import annotations

from typing import Any

import torch

from apportion.annotations.annotator import Annotator
from apportion.errors import MissingColumn
from apportion.rewards.step_checks import step_scores as step_scores
from apportion.rollouts import Rollouts
from apportion.rollouts.makers import maker_of


def partial_sums() -> Annotator:
    """Every token of a running-sum answer is a step: +1 where it follows from the one before, -1 where it does not.

    A digit is right if it is the previous total plus the next digit of the prompt, modulo ten, whether or not the
    previous total was; so a slip is blamed once, where it was made. A step after something that is not a digit is
    unknown: there is no total to go on from.

    Makes spans of kind ``step`` with ``step:reward/prm``.
    """

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        for name in ("response:text", "response:prompt_text"):
            if not rollouts.has(name):
                raise MissingColumn(name, "partial_sums", maker_of(name))
        texts = rollouts.columns["response:text"].text
        prompts = rollouts.columns["response:prompt_text"].text
        starts, scores, known = [], [], []
        offsets = rollouts.token_offsets.tolist()
        for b, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
            length = offsets[b + 1] - offsets[b]
            # A token without text is a step that nobody can score.
            scores_of_text = step_scores(prompt or "", text or "")
            for i, score in enumerate((scores_of_text + [None] * length)[:length]):
                starts.append(offsets[b] + i)
                scores.append(score or 0.0)
                known.append(score is not None)
        at = torch.tensor(starts, dtype=torch.int64, device=rollouts.device)
        return rollouts.with_spans("step", at, at + 1).with_reward(
            "prm",
            torch.tensor(scores, dtype=torch.float64, device=rollouts.device),
            torch.tensor(known, dtype=torch.bool, device=rollouts.device),
            level="step",
            maker="partial_sums",
        )

    return Annotator(apply, ("reward/prm", "step:reward/prm"), reads_policy=False)
