"""Sampling in this process with torch: a prompt is prefilled once for all its copies, finished rows are dropped."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from apportion.errors import InputError
from apportion.sampling.engine import Collector, Generated, SamplingSettings, draw


class LocalEngine:
    """Draws from a transformers causal language model.

    Args:
        model: the model being trained.
        context: longest prompt and response together, in tokens.
        dtype: sample from a copy in this dtype; None: from the model itself.
    """

    def __init__(self, model: Any, context: int, dtype: torch.dtype | None = None) -> None:
        self.source, self.context = model, context
        self.model = model
        if dtype is not None:
            self.model = copy.deepcopy(model).requires_grad_(False)
            for parameter in self.model.parameters():  # buffers, such as rotary frequencies, keep their precision
                parameter.data = parameter.data.to(dtype)

    def refresh(self) -> None:
        """Bring the copy up to date with the trained weights."""
        if self.model is not self.source:
            with torch.no_grad():
                for ours, theirs in zip(self.model.parameters(), self.source.parameters(), strict=True):
                    ours.copy_(theirs)

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], copies: int, settings: SamplingSettings, generator: torch.Generator
    ) -> Generated:
        device = next(self.model.parameters()).device
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        longest = int(lengths.max())
        if int(lengths.min()) == 0:
            raise InputError("a prompt has no tokens, expected at least one.")
        if longest + settings.max_new_tokens > self.context:
            raise InputError(
                f"a prompt of {longest} tokens and {settings.max_new_tokens} new ones exceed the model's context of "
                f"{self.context}: shorten prompts or lower max_new_tokens."
            )
        padded = torch.zeros((len(prompts), longest), dtype=torch.int64, device=device)
        mask = torch.zeros_like(padded)
        for row, prompt in enumerate(prompts):
            padded[row, longest - len(prompt) :] = torch.tensor(prompt, device=device)
            mask[row, longest - len(prompt) :] = 1
        ragged_prompts = bool((lengths != longest).any())
        positions = (mask.cumsum(1) - 1).clamp(min=0)

        arguments = {"attention_mask": mask} if ragged_prompts else {}
        output = self.model(input_ids=padded, position_ids=positions, use_cache=True, logits_to_keep=1, **arguments)
        cache = output.past_key_values
        cache.batch_repeat_interleave(copies)
        logits = output.logits[:, -1].repeat_interleave(copies, 0)
        mask, position = mask.repeat_interleave(copies, 0), lengths.repeat_interleave(copies)

        collector = Collector(len(logits), settings, device)
        while True:
            tokens, log_probs = draw(logits, settings, generator)
            rows = len(tokens)
            going = collector.add(tokens, log_probs)
            if collector.done():
                return collector.result()
            if len(going) < rows:
                cache.batch_select_indices(going)
                tokens, mask, position = tokens[going], mask[going], position[going]
            mask = torch.cat([mask, mask.new_ones((len(mask), 1))], 1)
            arguments = {"attention_mask": mask} if ragged_prompts else {}
            output = self.model(
                input_ids=tokens[:, None],
                position_ids=position[:, None],
                past_key_values=cache,
                use_cache=True,
                **arguments,
            )
            logits, position = output.logits[:, -1], position + 1
