"""A policy that is a table: one row of logits for every prompt and prefix.

Small enough to enumerate, it takes the trainer's own path, so that what is claimed of a method can be compared with
exact values in milliseconds.

Suffix legend: S states, V vocabulary, n tokens, b rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from apportion.errors import InputError
from apportion.models.codec import NumberCodec
from apportion.models.policy import LossOfTokens, trained_tokens
from apportion.models.statistics import STATISTICS, from_logits, id_columns
from apportion.models.value_heads import VALUES, heads_in
from apportion.rollouts import Rollouts, ragged


class TabularPolicy:
    """Softmax of a table of logits ``[S, V]``.

    A state is a prompt (its first token, from 0) and the tokens since, at most ``depth - 1`` of them.

    Args:
        vocabulary: V; token ids are 0..V - 1.
        depth: longest response, in tokens.
        prompts: how many prompts there are.
        dtype: of the table.
        end_ids: tokens that end a response early.

    Raises:
        InputError: a table of more than ten million rows.

    Example:
        >>> TabularPolicy(vocabulary=2, depth=3).logits.shape
        torch.Size([7, 2])
    """

    provides: tuple[str, ...] = tuple(STATISTICS)
    prefix_sharing = False

    def __init__(
        self,
        vocabulary: int,
        depth: int,
        prompts: int = 1,
        dtype: str = "float64",
        end_ids: tuple[int, ...] = (),
    ) -> None:
        self.end_ids = tuple(end_ids)
        self.vocabulary, self.depth, self.prompts = vocabulary, depth, prompts
        self.starts = torch.tensor([sum(vocabulary**d for d in range(k)) for k in range(depth + 1)])
        states = prompts * int(self.starts[-1])
        if states > 10_000_000:
            raise InputError(f"a table of {states} states is too large, expected at most ten million.")
        self.logits = Parameter(torch.zeros((states, vocabulary), dtype=getattr(torch, dtype)))
        self.value_heads = ParameterDict()

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def codec(self, instruction: str = "{prompt}", chat: bool | None = None) -> NumberCodec:
        """Prompts are numbers; there is no text to put around them."""
        if instruction != "{prompt}" or chat:
            raise InputError("a tabular policy reads numbers only: leave instruction and chat out.")
        return NumberCodec(self.end_ids, self.prompts)

    @property
    def context(self) -> int:
        """Longest prompt and response together."""
        return 1 + self.depth

    def state(self, prompt: Tensor, prefix: Tensor) -> Tensor:
        """Row of the table ``[b]`` for prompts ``[b]`` and prefixes ``[b, t]`` of equal length."""
        length = prefix.shape[1]
        if length >= self.depth:
            raise InputError(f"a prefix of {length} tokens has no state, expected at most {self.depth - 1}.")
        code = torch.zeros_like(prompt)
        for t in range(length):
            code = code * self.vocabulary + prefix[:, t]
        return prompt * int(self.starts[-1]) + int(self.starts[length]) + code

    def next_logits(self, prompt: Tensor, prefix: Tensor) -> Tensor:
        """Logits ``[b, V]`` after a prefix; what the scripted engine asks for."""
        return self.logits[self.state(prompt, prefix)]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        heads = [(f"{VALUES}{head}", values) for head, values in self.value_heads.items()]
        return iter([("logits", self.logits), *heads])

    def add_value_head(self, head: str) -> None:
        """Give the statistic ``values/<head>``: a value a state, 0 to begin with."""
        self.value_heads[head] = Parameter(torch.zeros_like(self.logits[:, 0]))
        self.provides = (*self.provides, f"{VALUES}{head}")

    def states_of(self, rollouts: Rollouts) -> Tensor:
        """The state every token was drawn from ``[N]``."""
        lengths = ragged.lengths_of(rollouts.token_offsets)
        if len(lengths) and int(lengths.max()) > self.depth:
            raise InputError(f"a response has {int(lengths.max())} tokens, expected at most {self.depth}.")
        prompt = rollouts.prompt_ids[rollouts.prompt_offsets[:-1]][rollouts.prompts]
        result = torch.zeros_like(rollouts.ids)
        code = torch.zeros_like(prompt)
        for t in range(int(lengths.max()) if len(lengths) else 0):
            rows = (lengths > t).nonzero().squeeze(1)
            at = rollouts.token_offsets[rows] + t
            result[at] = prompt[rows] * int(self.starts[-1]) + int(self.starts[t]) + code[rows]
            code[rows] = code[rows] * self.vocabulary + rollouts.ids[at]
        return result

    def statistics(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        with torch.no_grad():
            return self._statistics(rollouts, trained_tokens(rollouts, responses), names)

    def accumulate(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str], loss: LossOfTokens) -> None:
        tokens = trained_tokens(rollouts, responses)
        if len(tokens):
            value = loss(self._statistics(rollouts, tokens, names), tokens)
            if value.requires_grad:
                value.backward()

    def _statistics(self, rollouts: Rollouts, tokens: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        states = self.states_of(rollouts)[tokens]
        values = {f"{VALUES}{head}": self.value_heads[head][states] for head in heads_in(names)}
        of_logits = [name for name in names if name not in values]
        temperature = rollouts.temperature[rollouts.response_of_token[tokens]]
        others = {name: rollouts.column(name, tokens)[tokens] for name in id_columns(of_logits)}
        return {**values, **from_logits(self.logits[states], rollouts.ids[tokens], temperature, of_logits, others)}

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        tables = {name: table.detach().contiguous() for name, table in self.named_parameters()}
        save_file(tables, folder / "model.safetensors")

    def load_weights(self, folder: Path) -> None:
        from safetensors.torch import load_file

        tables = load_file(folder / "model.safetensors")
        with torch.no_grad():
            for name, table in self.named_parameters():
                table.copy_(tables[name])

    def clone(self) -> TabularPolicy:
        """A copy with tables of its own."""
        twin = TabularPolicy(self.vocabulary, self.depth, self.prompts, end_ids=self.end_ids)
        twin.logits = Parameter(self.logits.detach().clone())
        twin.value_heads, twin.provides = copy.deepcopy(self.value_heads), self.provides
        return twin

    def frozen_copy(self) -> TabularPolicy:
        """A copy that does not train: the reference policy."""
        twin = self.clone()
        for _, table in twin.named_parameters():
            table.requires_grad_(False)
        return twin
