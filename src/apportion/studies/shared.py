"""Tables whose states share parameters: what is learnt of one state is said of others too.

Suffix legend: S states, R rows of the table, V vocabulary, n tokens, b rows of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from apportion.models.statistics import from_logits, id_columns
from apportion.models.tabular import TabularPolicy
from apportion.models.value_heads import VALUES, heads_in
from apportion.rollouts import Rollouts, ragged

StateOf = Callable[[Tensor, Tensor], Tensor]
"""``(prompts [b], prefixes [b, t]) -> states [b]``, numbers below S."""


class SharedPolicy(TabularPolicy):
    """Softmax of ``features[s] @ logits`` where several prefixes may be one state s, and states may share features.

    With one feature a state it is a table ``[S, V]``, and prefixes of one state share its row.

    Args:
        vocabulary: V; token ids are 0..V - 1.
        depth: longest response, in tokens.
        features: of every state ``[S, R]``; None: one of its own for each of ``states``.
        states: S, where there are no features.
        prompts: how many prompts there are.
        state_of: which state a prefix is; None: its prompt, which is all there is to know of the first token.
        end_ids: tokens that end a response early.

    Example:
        >>> policy = SharedPolicy(vocabulary=2, depth=50, states=50, state_of=by_position)
        >>> policy.logits.shape
        torch.Size([50, 2])
    """

    def __init__(
        self,
        vocabulary: int,
        depth: int,
        features: Tensor | None = None,
        states: int | None = None,
        prompts: int = 1,
        state_of: StateOf | None = None,
        end_ids: tuple[int, ...] = (),
    ) -> None:
        self.vocabulary, self.depth, self.prompts, self.end_ids = vocabulary, depth, prompts, tuple(end_ids)
        self.features, self.state_of = features, state_of or by_prompt
        rows = features.shape[1] if features is not None else states or prompts
        self.logits = Parameter(torch.zeros((rows, vocabulary), dtype=torch.float64))
        self.value_heads = ParameterDict()

    def state(self, prompt: Tensor, prefix: Tensor) -> Tensor:
        return self.state_of(prompt, prefix)

    def next_logits(self, prompt: Tensor, prefix: Tensor) -> Tensor:
        return self._mixed(self.logits, self.state(prompt, prefix))

    def states_of(self, rollouts: Rollouts) -> Tensor:
        """The state every token was drawn from ``[N]``."""
        lengths = ragged.lengths_of(rollouts.token_offsets)
        prompt = rollouts.prompt_ids[rollouts.prompt_offsets[:-1]][rollouts.prompts]
        longest = int(lengths.max()) if len(lengths) else 0
        text = torch.zeros((len(lengths), longest), dtype=torch.int64, device=rollouts.device)
        text[rollouts.response_of_token, ragged.position_in_row(rollouts.token_offsets)] = rollouts.ids
        result = torch.zeros_like(rollouts.ids)
        for t in range(longest):
            rows = (lengths > t).nonzero().squeeze(1)
            result[rollouts.token_offsets[rows] + t] = self.state(prompt[rows], text[rows, :t])
        return result

    def _mixed(self, table: Tensor, states: Tensor) -> Tensor:
        """Rows of a table ``[R, ...]``, or what features make of them, for some states."""
        return table[states] if self.features is None else self.features[states] @ table

    def _statistics(self, rollouts: Rollouts, tokens: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        states = self.states_of(rollouts)[tokens]
        values = {f"{VALUES}{head}": self._mixed(self.value_heads[head], states) for head in heads_in(names)}
        of_logits = [name for name in names if name not in values]
        temperature = rollouts.temperature[rollouts.response_of_token[tokens]]
        others = {name: rollouts.column(name, tokens)[tokens] for name in id_columns(of_logits)}
        logits = self._mixed(self.logits, states)
        return {**values, **from_logits(logits, rollouts.ids[tokens], temperature, of_logits, others)}

    def clone(self) -> SharedPolicy:
        twin = copy.copy(self)
        twin.logits = Parameter(self.logits.detach().clone())
        twin.value_heads = copy.deepcopy(self.value_heads)
        return twin


def by_prompt(prompt: Tensor, prefix: Tensor) -> Tensor:
    """The prompt is the state."""
    return prompt


def by_position(prompt: Tensor, prefix: Tensor) -> Tensor:
    """The number of tokens since the prompt is the state: tokens are drawn independently."""
    return torch.full_like(prompt, prefix.shape[1])
