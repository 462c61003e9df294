"""A transformer trunk with something that reads its hidden states, run on ragged rollouts.

The trunk runs on right-padded rows; what reads the states (an output head, a value head) runs only where the next
token is trained, in chunks.

Suffix legend: b rows of a micro-batch, T its padded width, n trained tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from apportion.errors import InputError, unknown_name
from apportion.models.policy import LossOfTokens, trained_tokens
from apportion.rollouts import Rollouts, ragged


class TrunkModel:
    """What a policy and a critic share.

    Args:
        module: holds every parameter.
        trunk: maps ``input_ids [b, T]`` to hidden states ``[b, T, D]``.
        autocast: dtype of the training forward pass where the parameters are wider; None: the parameters' own.
    """

    provides: tuple[str, ...]
    """Statistics this model can give."""
    chunk: int
    """How many tokens are read at once."""

    def __init__(self, module: Module, trunk: Module, autocast: torch.dtype | None) -> None:
        self.module, self.trunk, self.autocast = module, trunk, autocast

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters that train."""
        return ((name, p) for name, p in self.module.named_parameters() if p.requires_grad)

    def read(self, hidden: Tensor, tokens: Tensor, rollouts: Rollouts, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Statistics from the states ``[n, D]`` before some tokens ``[n]``."""
        raise NotImplementedError

    def statistics(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Statistics at the trained tokens of some responses, without gradient."""
        self._check(names)
        with torch.no_grad():
            hidden, tokens = self._hidden(rollouts, responses)
            parts = [self.read(hidden[part], tokens[part], rollouts, names) for part in self._chunks(len(tokens))]
        return {name: torch.cat([p[name] for p in parts]) if parts else hidden.new_zeros(0) for name in names}

    def accumulate(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str], loss: LossOfTokens) -> None:
        """Add the gradient of a loss over the trained tokens of some responses to the parameters' ``grad``."""
        self._check(names)
        hidden, tokens = self._hidden(rollouts, responses)
        gradient = torch.zeros_like(hidden)
        for part in self._chunks(len(tokens)):
            leaf = hidden[part].detach().requires_grad_()
            value = loss(self.read(leaf, tokens[part], rollouts, names), tokens[part])
            if value.requires_grad:
                value.backward()
            if leaf.grad is not None:
                gradient[part] = leaf.grad
        if hidden.requires_grad:
            hidden.backward(gradient)

    def states_at_end(self, rollouts: Rollouts, responses: Tensor) -> Tensor:
        """Hidden states that have read whole responses ``[b, D]``, without gradient."""
        with torch.no_grad():
            rows, starts = padded_rows(rollouts, responses)
            with self.precision():
                states = self.trunk(input_ids=rows, use_cache=False)[0]
            last = starts + ragged.lengths_of(rollouts.token_offsets)[responses] - 1
            return states[torch.arange(len(responses), device=rows.device), last]

    def precision(self) -> AbstractContextManager[object]:
        """The numerical precision of a forward pass."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def _check(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.provides:
                raise unknown_name("statistic", name, self.provides)

    def _chunks(self, n: int) -> list[slice]:
        return [slice(start, min(start + self.chunk, n)) for start in range(0, n, self.chunk)]

    def _hidden(self, rollouts: Rollouts, responses: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states from which the trained tokens were drawn ``[n, D]``, and those tokens' numbers."""
        tokens = trained_tokens(rollouts, responses)
        if not len(tokens):
            return torch.zeros((0, 1), device=rollouts.device), tokens
        rows, starts = padded_rows(rollouts, responses)
        with self.precision():
            states = self.trunk(input_ids=rows, use_cache=False)[0]
        row = torch.full((rollouts.n_responses,), -1, dtype=torch.int64, device=rows.device)
        row[responses] = torch.arange(len(responses), device=rows.device)
        response = rollouts.response_of_token[tokens]
        place = starts[row[response]] + tokens - rollouts.token_offsets[response]
        if bool((place < 1).any()):
            raise InputError("a response with an empty prompt has no state before its first token: give it a prompt.")
        return states[row[response], place - 1], tokens


def padded_rows(rollouts: Rollouts, responses: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts and responses as right-padded rows.

    A causal model never looks to the right, so the padding needs no mask.

    Returns:
        ids ``[b, T]`` and where every response starts in its row ``[b]``.
    """
    prompts = rollouts.prompts[responses]
    prompt_lengths = ragged.lengths_of(rollouts.prompt_offsets)[prompts]
    lengths = ragged.lengths_of(rollouts.token_offsets)[responses]
    rows = rollouts.ids.new_zeros((len(responses), int((prompt_lengths + lengths).max())))
    of_prompt, of_response = ragged.offsets_of(prompt_lengths), ragged.offsets_of(lengths)
    rows[ragged.row_of(of_prompt), ragged.position_in_row(of_prompt)] = rollouts.prompt_ids[
        ragged.ranges(rollouts.prompt_offsets[prompts], rollouts.prompt_offsets[prompts + 1])
    ]
    row = ragged.row_of(of_response)
    rows[row, prompt_lengths[row] + ragged.position_in_row(of_response)] = rollouts.ids[
        ragged.ranges(rollouts.token_offsets[responses], rollouts.token_offsets[responses + 1])
    ]
    return rows, prompt_lengths
