"""The group sampler: several independent responses to every prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from apportion.rollouts import Rollouts, ragged
from apportion.sampling.engine import Engine, SamplingSettings


def sample_groups(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    group_size: int,
    settings: SamplingSettings,
    generator: torch.Generator,
    first_group: int = 0,
    policy_version: int = 0,
) -> Rollouts:
    """Draw ``group_size`` responses to every prompt; the responses to one prompt are a group.

    Args:
        engine: what draws.
        prompts: token ids of every prompt.
        group_size: responses a prompt.
        settings: how to draw.
        generator: source of randomness.
        first_group: id of the first group; the others follow.
        policy_version: which weights drew them, in updates since the start.

    Returns:
        rollouts with ``log_probs/behaviour``, ``response:temperature``, ``response:truncated``,
        ``response:policy_version``, and what the settings record as ``<statistic>/behaviour``.
    """
    drawn = engine.generate(prompts, group_size, settings, generator)
    prompt_ids, prompt_offsets = ragged.flatten(prompts, torch.int64)
    device, rows = drawn.ids.device, len(prompts) * group_size
    prompt = torch.arange(len(prompts), device=device).repeat_interleave(group_size)
    rollouts = Rollouts(
        ids=drawn.ids,
        token_offsets=drawn.offsets,
        response_offsets=torch.arange(rows + 1, device=device),
        group_ids=prompt + first_group,
        prompt_ids=prompt_ids.to(device),
        prompt_offsets=prompt_offsets.to(device),
        prompts=prompt,
    )
    for name, values in drawn.statistics.items():
        rollouts = rollouts.with_statistic(f"{name}/behaviour", values, "sampling")
    temperature = torch.full((rows,), settings.temperature or 1.0, device=device)
    return (
        rollouts.with_statistic("log_probs/behaviour", drawn.log_probs, "sampling")
        .with_column("response:temperature", temperature, maker="sampling")
        .with_column("response:truncated", drawn.truncated, maker="sampling")
        .with_column("response:policy_version", torch.full((rows,), policy_version, device=device), maker="sampling")
    )
