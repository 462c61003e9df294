"""Critics: models of their own that say what a state is worth.

Suffix legend: n tokens, b rows, B responses, D hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import ModuleDict, Parameter

from apportion.models.huggingface import HuggingFacePolicy
from apportion.models.policy import LossOfTokens, Model, trained_tokens
from apportion.models.tabular import TabularPolicy
from apportion.models.trunk import TrunkModel
from apportion.models.value_heads import linear_head, worth
from apportion.rollouts import Rollouts


class Critic(Model, Protocol):
    """A model whose statistic ``values/<head>`` is the value of the state before a token."""

    def end_values(self, rollouts: Rollouts, responses: Tensor) -> Tensor:
        """Values of the states after whole responses ``[b]``, without gradient."""
        ...


class TransformerCritic(TrunkModel):
    """A copy of a policy's trunk with a linear value head that begins at 0.

    Args:
        policy: whose trunk to copy.
        head: name of the value head.
    """

    def __init__(self, policy: HuggingFacePolicy, head: str) -> None:
        trunk = copy.deepcopy(policy.trunk).requires_grad_(True)
        self.value = linear_head(policy.config.hidden_size, next(trunk.parameters()))
        super().__init__(ModuleDict({"trunk": trunk, "value": self.value}), trunk, policy.autocast)
        self.prefix_sharing = policy.prefix_sharing
        self.provides = (f"values/{head}",)
        self.chunk = 1 << 16

    def read(self, hidden: Tensor, tokens: Tensor, rollouts: Rollouts, names: Sequence[str]) -> Mapping[str, Tensor]:
        return {name: worth(self.value, hidden) for name in names}

    def end_values(self, rollouts: Rollouts, responses: Tensor) -> Tensor:
        with torch.no_grad():
            return worth(self.value, self.states_at_end(rollouts, responses))

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_model

        save_model(self.module, str(folder / "model.safetensors"))

    def load_weights(self, folder: Path) -> None:
        from safetensors.torch import load_model

        load_model(self.module, folder / "model.safetensors")


class TabularCritic:
    """A table with a value for every state of a tabular policy.

    Args:
        policy: whose states.
        head: name of the value head.
    """

    prefix_sharing = False

    def __init__(self, policy: TabularPolicy, head: str) -> None:
        self.policy = policy
        self.provides: tuple[str, ...] = (f"values/{head}",)
        self.values = Parameter(torch.zeros(len(policy.logits), dtype=policy.logits.dtype))

    @property
    def device(self) -> torch.device:
        return self.values.device

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return iter([("values", self.values)])

    def statistics(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        with torch.no_grad():
            return self._values(rollouts, trained_tokens(rollouts, responses), names)

    def accumulate(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str], loss: LossOfTokens) -> None:
        tokens = trained_tokens(rollouts, responses)
        if len(tokens):
            value = loss(self._values(rollouts, tokens, names), tokens)
            if value.requires_grad:
                value.backward()

    def _values(self, rollouts: Rollouts, tokens: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        return {name: self.values[self.policy.states_of(rollouts)[tokens]] for name in names}

    def end_values(self, rollouts: Rollouts, responses: Tensor) -> Tensor:
        """0: a table ends where the longest response does."""
        return torch.zeros(len(responses), dtype=self.values.dtype, device=self.device)

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file({"values": self.values.detach().contiguous()}, folder / "model.safetensors")

    def load_weights(self, folder: Path) -> None:
        from safetensors.torch import load_file

        with torch.no_grad():
            self.values.copy_(load_file(folder / "model.safetensors")["values"])


@singledispatch
def critic_for(policy: Any, head: str = "critic") -> Critic:
    """A critic of the same kind as a policy."""
    raise TypeError(f"there is no critic for a {type(policy).__name__}; register one with critic_for.register.")


@critic_for.register
def _(policy: HuggingFacePolicy, head: str = "critic") -> Critic:
    return TransformerCritic(policy, head)


@critic_for.register
def _(policy: TabularPolicy, head: str = "critic") -> Critic:
    return TabularCritic(policy, head)
