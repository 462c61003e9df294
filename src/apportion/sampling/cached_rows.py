"""Reading with transformers' own cache: for models whose attention is more than plain causal attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class CachedRowsReader:
    """Reads prompts once, all at the same time, and then one token a row at a time.

    Args:
        model: a transformers causal language model.
        room: the most new tokens a response can have; the cache grows as it needs.
    """

    takes_more = False
    """Rows can only join at the beginning."""

    def __init__(self, model: Any, room: int) -> None:
        self.model, self.room = model, room
        self.cache: Any = None
        self.mask, self.position = torch.zeros((0, 0)), torch.zeros(0)

    def read_prompts(self, ids: Tensor, valid: Tensor, copies: int) -> Tensor:
        """Logits ``[p copies, V]`` after prompts ``[p, l]`` padded on the left; their responses are the rows."""
        positions = (valid.cumsum(1) - 1).clamp(min=0)
        output = self.model(
            input_ids=ids, position_ids=positions, attention_mask=valid.long(), use_cache=True, logits_to_keep=1
        )
        self.cache = output.past_key_values
        self.cache.batch_repeat_interleave(copies)
        self.mask = valid.long().repeat_interleave(copies, 0)
        self.position = valid.sum(1).repeat_interleave(copies)
        return output.logits[:, -1].repeat_interleave(copies, 0)

    def read_tokens(self, tokens: Tensor) -> Tensor:
        """Logits ``[b, V]`` after one token more of every row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones((len(self.mask), 1))], 1)
        output = self.model(
            input_ids=tokens[:, None],
            position_ids=self.position[:, None],
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.position = self.position + 1
        return output.logits[:, -1]

    def keep(self, going: Tensor) -> None:
        """Go on with some rows."""
        self.cache.batch_select_indices(going)
        self.mask, self.position = self.mask[going], self.position[going]
