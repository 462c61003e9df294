"""The annotator of attention rhythm: one more forward pass a response, its maps looked at one by one."""

from __future__ import annotations

from typing import Any

import torch

from apportion.annotations.annotator import Annotator
from apportion.annotations.attention import Rhythm, RhythmOfResponse, RhythmSettings, middle_layers, with_rhythm
from apportion.errors import InputError
from apportion.models.attention import observe_attention
from apportion.models.huggingface import HuggingFacePolicy
from apportion.rollouts import Rollouts


def attention_rhythm(window: int = 10, fai_low: int = 10, fai_high: int = 100, head_fraction: float = 0.3) -> Annotator:
    """Token columns ``waad/old`` and ``fai/old``, from five middle layers of the policy before the update.

    Args:
        window: beyond which WAAD counts distances no further.
        fai_low: nearest distance from which FAI looks back.
        fai_high: furthest.
        head_fraction: share of heads that are near-sighted, and that are far-sighted.

    Source: arXiv 2510.13554.
    """
    settings = RhythmSettings(window, fai_low, fai_high, head_fraction)

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        if not isinstance(policy, HuggingFacePolicy):
            raise InputError(
                f"attention_rhythm looks at attention, and a {type(policy).__name__} has none: leave it out."
            )
        lengths = rollouts.token_offsets.diff().tolist()
        rhythms = [_of_response(rollouts, b, policy, settings) for b, length in enumerate(lengths) if length]
        return with_rhythm(rollouts, rhythms, settings)

    return Annotator(apply, ("waad/old", "fai/old"))


def _of_response(rollouts: Rollouts, b: int, policy: HuggingFacePolicy, settings: RhythmSettings) -> Rhythm:
    start, end = rollouts.token_offsets[b : b + 2].tolist()
    p = int(rollouts.prompts[b])
    first, last = rollouts.prompt_offsets[p : p + 2].tolist()
    ids = torch.cat([rollouts.prompt_ids[first:last], rollouts.ids[start:end]])
    measured = RhythmOfResponse(last - first, settings)
    observe_attention(policy, ids, middle_layers(policy.config.num_hidden_layers), measured.add)
    return measured.result()
