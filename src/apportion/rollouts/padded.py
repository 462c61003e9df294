"""To and from the padded matrices other trainers use."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import ragged
from apportion.rollouts.model import Rollouts


def from_padded(
    ids: Tensor,
    mask: Tensor,
    rewards: Tensor,
    groups: Tensor,
    *,
    lengths: Tensor | None = None,
    component: str = "outcome",
    **token_columns: Tensor,
) -> Rollouts:
    """Rollouts from right-padded responses, one response an episode.

    Args:
        ids: ``[B, T]`` token ids of the responses.
        mask: ``[B, T]``, 1 where a token is trained. Holes are kept as untrained tokens.
        rewards: ``[B]``, or ``[B, T]`` for a reward a token; NaN is unknown.
        groups: ``[B]`` integers.
        lengths: ``[B]`` tokens a response has; default: up to the last 1 of its mask.
        component: name of the reward.
        **token_columns: further ``[B, T]`` columns; ``log_probs_old`` becomes ``log_probs/old``.

    Raises:
        InputError: shapes that do not fit, mask values other than 0 and 1, or lengths that leave out trained tokens or
            go beyond the width.

    Example:
        >>> import torch
        >>> ids, mask = torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]])
        >>> from_padded(ids, mask, rewards=torch.tensor([1.0]), groups=torch.tensor([0])).ids.tolist()
        [1, 2]
    """
    if ids.dim() != 2 or mask.shape != ids.shape:
        raise InputError(
            f"ids {tuple(ids.shape)} and mask {tuple(mask.shape)} do not fit, expected both [responses, width]."
        )
    if bool((mask.bool() != mask).any()):
        raise InputError("mask has values other than 0 and 1.")
    rows, width = ids.shape
    if rewards.shape not in ((rows,), (rows, width)):
        raise InputError(f"rewards have shape {tuple(rewards.shape)}, expected ({rows},) or ({rows}, {width}).")
    for name, column in token_columns.items():
        if column.shape != ids.shape:
            raise InputError(f"{name} has shape {tuple(column.shape)}, expected that of ids, {tuple(ids.shape)}.")
    place = torch.arange(width, device=ids.device)
    trained_up_to = ((place + 1) * mask).amax(1) if width else mask.new_zeros(rows)
    if lengths is None:
        lengths = trained_up_to
    if lengths.shape != (rows,) or bool(((lengths < trained_up_to) | (lengths > width)).any()):
        raise InputError(
            f"lengths are {lengths.tolist()}, expected one a response, from its last trained token to the width "
            f"{width}."
        )
    offsets = ragged.offsets_of(lengths.long())
    inside = ragged.position_in_row(offsets) + width * ragged.row_of(offsets)

    def flat(padded: Tensor) -> Tensor:
        return padded.flatten().index_select(0, inside)

    result = Rollouts(
        ids=flat(ids).long(),
        token_offsets=offsets,
        response_offsets=torch.arange(rows + 1, device=ids.device),
        group_ids=groups.long(),
        prompt_ids=ids.new_zeros(0).long(),
        prompt_offsets=torch.zeros(rows + 1, dtype=torch.int64, device=ids.device),
        prompts=torch.arange(rows, device=ids.device),
    )
    trained = flat(mask).bool()
    if not bool(trained.all()):
        result = result.with_column("trained", trained)
    values = flat(rewards) if rewards.dim() == 2 else rewards
    level = "token" if rewards.dim() == 2 else "episode"
    result = result.with_reward(component, values, scored=~torch.isnan(values), level=level)
    for name, column in token_columns.items():
        result = result.with_statistic(
            name.replace("_old", "/old").replace("_reference", "/reference"), flat(column), "given"
        )
    return result


def to_padded(rollouts: Rollouts, values: Tensor, width: int | None = None, fill: float = 0) -> Tensor:
    """Token values ``[N]`` as a right-padded matrix ``[B, width]``.

    Args:
        rollouts: whose tokens the values belong to.
        values: one entry a token.
        width: columns of the result; default: the longest response.
        fill: what stands in the padding.

    Raises:
        InputError: a response is longer than ``width``.
    """
    lengths = ragged.lengths_of(rollouts.token_offsets)
    longest = int(lengths.max()) if len(lengths) else 0
    width = longest if width is None else width
    if longest > width:
        raise InputError(f"a response has {longest} tokens, expected at most width={width}.")
    result = values.new_full((rollouts.n_responses * width,), fill)
    place = ragged.position_in_row(rollouts.token_offsets) + width * rollouts.response_of_token
    return result.index_copy_(0, place, values).view(rollouts.n_responses, width)
