"""Rewards of a model that first writes what it thinks of an answer, and then scores it with that in view.

Suffix legend: B responses, m critiques of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.models.measuring import micro_batches
from apportion.models.reward_model import RewardModel
from apportion.rollouts import Rollouts, Spans, ragged
from apportion.rollouts.columns import split_name
from apportion.sampling import SamplingSettings, engine_for, sample_groups

CRITIQUE = "critique"
"""The kind of span that holds critiques."""


def critique_rewards(
    model: RewardModel,
    rollouts: Rollouts,
    settings: SamplingSettings,
    generator: torch.Generator,
    critiques: int = 1,
    cue: Sequence[int] = (),
    micro_batch_tokens: int = 1 << 14,
) -> tuple[Tensor, Rollouts]:
    """The mean score of every response over critiques that the model writes of it.

    What is scored is the prompt, the response, the cue and the critique, as :func:`with_critiques` stores them to
    train on.

    Args:
        model: writes and scores.
        rollouts: the responses.
        settings: how critiques are drawn; temperature 0 (the authors') makes all critiques of a response equal.
        generator: source of randomness.
        critiques: m, how many of every response.
        cue: tokens between a response and its critique.
        micro_batch_tokens: padded tokens in one forward pass.

    Returns:
        rewards ``[B]``, and the critiques: rollouts of m responses to every response, in order, a group each, with
        ``episode:reward/critique``.

    Raises:
        InputError: ``critiques`` below 1, or no room for them in the model's context.

    Source: arXiv 2502.10391.
    """
    if critiques < 1:
        raise InputError(f"critiques is {critiques}, expected 1 or more.")
    asked = [[*prompt, *answer, *cue] for prompt, answer in zip(*_rows(rollouts), strict=True)]
    written = sample_groups(engine_for(model.speaker), asked, critiques, settings, generator)
    scores = torch.zeros(written.n_responses, dtype=torch.float64, device=written.device)
    for part in micro_batches(written, micro_batch_tokens):
        scores[part] = model.end_scores(written, part).double()
    return scores.reshape(-1, critiques).mean(1), written.with_reward("critique", scores, maker="critique_rewards")


def with_critiques(rollouts: Rollouts, critiques: Sequence[Sequence[int] | None], cue: Sequence[int] = ()) -> Rollouts:
    """Responses with a critique behind each, as the objective ``reward_model`` reads them.

    The cue is not trained on; critiques are, in spans of kind ``critique``. Columns of tokens and spans are left
    behind, but for ``trained``; all others and the pairs stay.

    Args:
        rollouts: one response an episode.
        critiques: tokens of the critique of every response ``[B]``; None: it has none.
        cue: tokens between a response and its critique.

    Raises:
        InputError: another number of critiques than responses, an empty critique, or episodes of several responses.

    Example:
        >>> answers = Rollouts.from_lists([[1, 2], [3]], groups=[0, 0])
        >>> both = with_critiques(answers, [[7, 8], None], cue=[9])
        >>> both.ids.tolist(), both.spans["critique"].starts.tolist(), both.trained.tolist()
        ([1, 2, 9, 7, 8, 3], [3], [True, True, False, True, True, True])
    """
    if len(critiques) != rollouts.n_responses or rollouts.n_responses != rollouts.n_episodes:
        raise InputError(
            f"got {len(critiques)} critiques of {rollouts.n_responses} responses in {rollouts.n_episodes} episodes, "
            "expected one of every response, and one response an episode."
        )
    if any(critique is not None and not len(critique) for critique in critiques):
        raise InputError("a critique has no tokens, expected some, or None where there is no critique.")
    trained = ragged.unflatten(rollouts.trained, rollouts.token_offsets)
    ids, flags, starts, ends = [], [], [], []
    at = 0
    for answer, train, critique in zip(_rows(rollouts)[1], trained, critiques, strict=True):
        behind = [] if critique is None else [*cue, *critique]
        ids.append([*answer, *behind])
        flags.append([*train, *(place >= len(cue) for place in range(len(behind)))])
        at += len(ids[-1])
        if critique is not None:
            starts.append(at - len(critique))
            ends.append(at)
    new_ids, offsets = ragged.flatten(ids, torch.int64)
    device = rollouts.device
    columns = {n: c for n, c in rollouts.columns.items() if split_name(n)[0] in ("response", "episode", "pair")}
    longer = replace(rollouts, ids=new_ids.to(device), token_offsets=offsets.to(device), columns=columns, spans={})
    bounds = (torch.tensor(places, dtype=torch.int64, device=device) for places in (starts, ends))
    longer = replace(longer, spans={CRITIQUE: Spans(*bounds)})
    return longer.with_column("trained", ragged.flatten(flags, torch.bool)[0].to(device), maker="with_critiques")


def _rows(rollouts: Rollouts) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens of the prompt and of the response of every response."""
    prompts = ragged.unflatten(rollouts.prompt_ids, rollouts.prompt_offsets)
    answers = ragged.unflatten(rollouts.ids, rollouts.token_offsets)
    return [prompts[p] for p in rollouts.prompts.tolist()], answers
