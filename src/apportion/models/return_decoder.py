"""A decoder of latent factors into rewards: a small network that learns from returns.

Suffix legend: n tokens, T decisions, d factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter, ReLU, Sequential

from apportion.errors import InputError, unknown_name
from apportion.models.policy import LossOfTokens, trained_tokens
from apportion.rollouts import Rollouts, steps

PROXY = "proxy_reward"
"""The statistic it gives: at a token, the reward of the decision the token belongs to; 0 at tokens of none."""


class ReturnDecoder:
    """Proxy rewards f(z) of decisions from the column ``<level>:latent`` ``[T, d]``.

    Args:
        factors: d.
        hidden: width.
        layers: linear maps, with ReLU between; 1: f is linear.
        level: what the decisions are: a kind of span, or ``response``.
        device: where it is.
        dtype: of the parameters.
        seed: of the first parameters.

    Raises:
        InputError: a size below 1.

    Example:
        >>> decoder = ReturnDecoder(factors=2, layers=1)
        >>> decoder.decode(torch.ones(3, 2)).shape
        torch.Size([3])
    """

    provides: tuple[str, ...] = (PROXY,)
    prefix_sharing = False

    def __init__(
        self,
        factors: int,
        hidden: int = 256,
        layers: int = 3,
        level: str = "step",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        for name, value in (("factors", factors), ("hidden", hidden), ("layers", layers)):
            if value < 1:
                raise InputError(f"{name} is {value}, expected at least 1.")
        widths = [factors, *[hidden] * (layers - 1), 1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            maps = [Linear(a, b) for a, b in pairwise(widths)]
        parts: list[Module] = [part for linear in maps for part in (linear, ReLU())]
        self.module = Sequential(*parts[:-1]).to(device, dtype)
        self.factors, self.level = factors, level

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return self.module.named_parameters()

    def latent(self, rollouts: Rollouts) -> Tensor:
        """The factors ``[T, d]`` of all decisions.

        Raises:
            MissingColumn: nobody made them.
            InputError: there are others than it reads.
        """
        given = rollouts.column(f"{self.level}:latent", reader="the return decoder")
        if len(given) and (given.dim() != 2 or given.shape[1] != self.factors):
            wide = given.shape[1] if given.dim() == 2 else 1
            raise InputError(
                f"decisions have {wide} factors and the decoder reads {self.factors}: write "
                f"return_decoder(factors={wide})."
            )
        return given.to(next(self.module.parameters()).dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """Rewards ``[T]`` of factors ``[T, d]``."""
        return self.module(latent).squeeze(-1)

    def statistics(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        with torch.no_grad():
            return self._rewards(rollouts, trained_tokens(rollouts, responses), names)

    def accumulate(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str], loss: LossOfTokens) -> None:
        tokens = trained_tokens(rollouts, responses)
        if len(tokens):
            value = loss(self._rewards(rollouts, tokens, names), tokens)
            if value.requires_grad:
                value.backward()

    def _rewards(self, rollouts: Rollouts, tokens: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        for name in names:
            if name not in self.provides:
                raise unknown_name("statistic", name, self.provides)
        step = steps(rollouts, self.level).step_of_token[tokens]
        inside = step >= 0
        decisions, of_token = torch.unique(step[inside], return_inverse=True)
        latent = self.latent(rollouts)
        values = latent.new_zeros(len(tokens))
        if len(decisions):
            values = values.index_put((inside.nonzero().squeeze(1),), self.decode(latent[decisions])[of_token])
        return dict.fromkeys(names, values)

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_model

        save_model(self.module, str(folder / "model.safetensors"))

    def load_weights(self, folder: Path) -> None:
        from safetensors.torch import load_model

        load_model(self.module, folder / "model.safetensors")
