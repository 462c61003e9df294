"""What the trainer needs of a model, whatever it is inside.

Suffix legend: N tokens of a rollouts, n some of them, B responses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from apportion.models.codec import Codec
from apportion.rollouts import Rollouts, ragged

LossOfTokens = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""``(statistics of n tokens, their numbers [n]) -> scalar``; called on parts of a micro-batch, the parts add up."""


class Model(Protocol):
    """Parameters that train, and per-token statistics that depend on them.

    Attributes:
        provides: the statistics it can give.
        prefix_sharing: whether prefixes that responses of a micro-batch share are computed once.
    """

    provides: tuple[str, ...]
    prefix_sharing: bool

    @property
    def device(self) -> torch.device: ...

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters that train."""
        ...

    def statistics(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Statistics without gradient.

        Args:
            rollouts: whose tokens.
            responses: rows of one micro-batch.
            names: which, see :mod:`apportion.models.statistics`.

        Returns:
            one tensor a name, an entry for every trained token of those responses, in order.
        """
        ...

    def accumulate(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str], loss: LossOfTokens) -> None:
        """Add the gradient of a loss over the trained tokens of one micro-batch to the parameters' ``grad``."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights (and whatever is needed to load them) into a folder."""
        ...

    def load_weights(self, folder: Path) -> None:
        """Read weights written by :meth:`save` into this model."""
        ...


class Policy(Model, Protocol):
    """A distribution over the next token."""

    def codec(self, instruction: str, chat: bool | None) -> Codec:
        """How this policy reads tasks and writes answers."""
        ...

    def clone(self) -> Policy:
        """A copy with weights of its own."""
        ...

    def frozen_copy(self) -> Policy:
        """A copy that does not train: the reference policy."""
        ...


def trained_tokens(rollouts: Rollouts, responses: Tensor) -> Tensor:
    """Numbers of the trained tokens of some responses ``[n]``, in the order of ``responses``."""
    tokens = ragged.ranges(rollouts.token_offsets[responses], rollouts.token_offsets[responses + 1])
    return tokens[rollouts.trained[tokens]]
