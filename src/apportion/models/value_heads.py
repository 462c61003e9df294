"""Values read off a model's states: linear heads that begin at 0.

A head on the policy's own trunk is trained with the policy, by an objective whose ``now`` names ``values/<head>``; a
critic is a model of its own with one.

Suffix legend: n tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import Linear, Module, ModuleDict

VALUES = "values/"
"""What the statistics of value heads begin with."""


@runtime_checkable
class HasValueHeads(Protocol):
    """A policy that value heads can be put on."""

    def add_value_head(self, head: str) -> None:
        """Give the statistic ``values/<head>``, which begins at 0 and trains with the policy."""
        ...


def heads_in(names: Sequence[str]) -> list[str]:
    """The value heads whose statistics are asked for.

    Example:
        >>> heads_in(["log_probs", "values/residual"])
        ['residual']
    """
    return [name.removeprefix(VALUES) for name in names if name.startswith(VALUES)]


class ValueHeads(ModuleDict):
    """Linear heads by name, with a file of weights of their own beside the model's."""

    FILE = "value_heads.safetensors"

    def save(self, folder: Path) -> None:
        """Write the weights, if there are heads."""
        from safetensors.torch import save_model

        if len(self):
            save_model(self, str(folder / self.FILE))

    def load(self, folder: Path) -> None:
        """Read the weights that :meth:`save` wrote. Heads that were not there then stay as they are."""
        from safetensors.torch import load_file

        if len(self) and (folder / self.FILE).exists():
            state = load_file(folder / self.FILE)
            for name, head in self.items():
                given = {key: state[f"{name}.{key}"] for key in head.state_dict() if f"{name}.{key}" in state}
                if given:
                    head.load_state_dict(given)


def linear_head(width: int, like: Tensor) -> Linear:
    """A linear map of states to values that begins at 0."""
    head = Linear(width, 1).to(like.device, like.dtype)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    return head


def worth(head: Module, hidden: Tensor) -> Tensor:
    """Values ``[n]`` of states ``[n, D]``."""
    # The head stays in its own precision: values are regressed, and bfloat16 has three digits.
    dtype = next(head.parameters()).dtype
    return head(hidden.to(dtype)).squeeze(-1)
