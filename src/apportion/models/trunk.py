"""A transformer trunk with something that reads its hidden states, run on ragged rollouts.

The trunk runs on right-padded rows or, sharing prefixes, once on every distinct prefix; what reads the states (an
output head, a value head) runs only where the next token is trained, in chunks, and once where a state and the token
drawn from it are those of several responses.

Suffix legend: b rows of a micro-batch, n trained tokens, m readings, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from apportion.errors import InputError, unknown_name
from apportion.models.layouts import States, run_padded, run_shared, sharing
from apportion.models.packing.support import check_shareable
from apportion.models.policy import LossOfTokens, trained_tokens
from apportion.models.statistics import INTEGERS, id_columns
from apportion.rollouts import Rollouts, ragged


@dataclass(frozen=True, eq=False)
class Readings:
    """States that are read for trained tokens, each once.

    Attributes:
        hidden: ``[m, D]``.
        first: a token that each is read for ``[m]``.
        tokens: the trained tokens ``[n]``, ordered by what is read for them.
        of: the reading of each of them ``[n]``, ascending.
    """

    hidden: Tensor
    first: Tensor
    tokens: Tensor
    of: Tensor

    def behind(self, part: slice) -> tuple[Tensor, Tensor]:
        """The trained tokens behind some readings, and which of these readings each takes."""
        bounds = torch.searchsorted(self.of, torch.tensor([part.start, part.stop], device=self.of.device)).tolist()
        return self.tokens[bounds[0] : bounds[1]], self.of[bounds[0] : bounds[1]] - part.start


class TrunkModel:
    """What a policy and a critic share.

    Args:
        module: holds every parameter.
        trunk: maps ``input_ids [b, T]`` to hidden states ``[b, T, D]``.
        autocast: dtype of the training forward pass where the parameters are wider; None: the parameters' own.
    """

    provides: tuple[str, ...]
    """Statistics this model can give."""
    families: tuple[str, ...] = ()
    """What the names of further statistics begin with."""
    chunk: int
    """How many tokens are read at once."""
    reads: tuple[int, ...] = (1,)
    """How far before a token the states lie that are read for it, side by side: 0 is the one that has read it."""

    prefix_sharing: bool = False
    """Whether prefixes that responses of a micro-batch share are computed once."""

    def __init__(self, module: Module, trunk: Module, autocast: torch.dtype | None) -> None:
        self.module, self.trunk, self.autocast = module, trunk, autocast

    def share_prefixes(self) -> None:
        """Compute every distinct prefix of a micro-batch once from now on; nothing else changes.

        Raises:
            Unsupported: the model cannot be run so, see :mod:`apportion.models.packing.support`.
        """
        check_shareable(self.trunk, self.trunk.config, self.precision())
        self.prefix_sharing = True

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
        tokens = trained_tokens(rollouts, responses)
        if not len(tokens):
            none = torch.zeros(0, device=rollouts.device)
            return {name: none.long() if name in INTEGERS else none for name in names}
        with torch.no_grad(), sharing(self.trunk, self.prefix_sharing):
            readings = self._readings(rollouts, responses, tokens, names)
            parts = [
                self.read(readings.hidden[part], readings.first[part], rollouts, names)
                for part in self._chunks(len(readings.hidden))
            ]
        order = torch.argsort(readings.tokens)
        of = readings.of[order[torch.searchsorted(readings.tokens[order], tokens)]]
        return {name: torch.cat([part[name] for part in parts])[of] for name in names}

    def accumulate(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str], loss: LossOfTokens) -> None:
        """Add the gradient of a loss over the trained tokens of some responses to the parameters' ``grad``."""
        self._check(names)
        tokens = trained_tokens(rollouts, responses)
        if not len(tokens):
            return
        with sharing(self.trunk, self.prefix_sharing):
            readings = self._readings(rollouts, responses, tokens, names)
            gradient = torch.zeros_like(readings.hidden)
            for part in self._chunks(len(readings.hidden)):
                leaf = readings.hidden[part].detach().requires_grad_()
                read = self.read(leaf, readings.first[part], rollouts, names)
                behind, of = readings.behind(part)
                value = loss({name: values[of] for name, values in read.items()}, behind)
                if value.requires_grad:
                    value.backward()
                if leaf.grad is not None:
                    gradient[part] = leaf.grad
            if readings.hidden.requires_grad:
                readings.hidden.backward(gradient)

    def states_at_end(self, rollouts: Rollouts, responses: Tensor) -> Tensor:
        """Hidden states that have read whole responses ``[b, D]``, without gradient."""
        with torch.no_grad(), sharing(self.trunk, self.prefix_sharing):
            states = self._states(rollouts, responses)
            rows = torch.arange(len(responses), device=rollouts.device)
            last = ragged.lengths_of(rollouts.token_offsets)[responses] - 1
            return states.hidden[states.after(rows, last)]

    def hidden_sums(self, rollouts: Rollouts, responses: Tensor) -> Tensor:
        """Sums of the hidden states from which the trained tokens of some responses were drawn ``[b, D]``."""
        tokens = trained_tokens(rollouts, responses)
        with torch.no_grad(), sharing(self.trunk, self.prefix_sharing):
            readings = self._readings(rollouts, responses, tokens, ())
            total = readings.hidden.new_zeros(
                (len(responses), readings.hidden.shape[1]), dtype=_at_least_single(readings.hidden.dtype)
            )
            row = _row_of_token(rollouts, responses, readings.tokens)
            return total.index_add(0, row, readings.hidden[readings.of].to(total.dtype))

    def precision(self) -> AbstractContextManager[object]:
        """The numerical precision of a forward pass."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def _check(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.provides and not name.startswith(self.families):
                raise unknown_name("statistic", name, self.provides)

    def _chunks(self, n: int) -> list[slice]:
        return [slice(start, min(start + self.chunk, n)) for start in range(0, n, self.chunk)]

    def _states(self, rollouts: Rollouts, responses: Tensor) -> States:
        run = run_shared if self.prefix_sharing else run_padded
        with self.precision():
            return run(self.trunk, rollouts, responses)

    def _readings(self, rollouts: Rollouts, responses: Tensor, tokens: Tensor, names: Sequence[str]) -> Readings:
        """What is read for some trained tokens of some responses."""
        states = self._states(rollouts, responses)
        row = _row_of_token(rollouts, responses, tokens)
        place = tokens - rollouts.token_offsets[:-1][responses[row]]
        if bool((place + states.prompts[row] < max(self.reads)).any()):
            raise InputError("a response with an empty prompt has no state before its first token: give it a prompt.")
        if self.prefix_sharing:
            # One node: the same state, the same token. What else enters a statistic must be the same too.
            keys = [states.after(row, place), rollouts.temperature[rollouts.response_of_token[tokens]]]
            keys += [rollouts.column(name, tokens)[tokens] for name in id_columns(names)]
            tokens, of, first = _grouped(tokens, keys)
        else:
            of, first = torch.arange(len(tokens), device=tokens.device), tokens
        row = _row_of_token(rollouts, responses, first)
        place = first - rollouts.token_offsets[:-1][responses[row]]
        back = torch.tensor(self.reads, device=place.device)
        read = states.after(row[:, None], place[:, None] - back)
        hidden = states.hidden.index_select(0, read.flatten()).unflatten(0, read.shape).flatten(1)
        return Readings(hidden, first, tokens, of)


def _row_of_token(rollouts: Rollouts, responses: Tensor, tokens: Tensor) -> Tensor:
    """Which of ``responses`` tokens lie in."""
    row = torch.full((rollouts.n_responses,), -1, dtype=torch.int64, device=rollouts.device)
    row[responses] = torch.arange(len(responses), device=rollouts.device)
    return row[rollouts.response_of_token[tokens]]


def _grouped(tokens: Tensor, keys: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens ordered by equal keys, the group of each, and the first token of every group."""
    group = torch.zeros_like(tokens)
    for key in keys:
        values = torch.unique(key, return_inverse=True)[1]
        group = torch.unique(group * (int(values.max()) + 1) + values, return_inverse=True)[1]
    order = torch.argsort(group, stable=True)
    tokens, group = tokens[order], group[order]
    starts = torch.ones_like(group, dtype=torch.bool)
    starts[1:] = group[1:] != group[:-1]
    return tokens, group, tokens[starts]


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    """A precision that sums of many states can be taken in."""
    return torch.promote_types(dtype, torch.float32)
