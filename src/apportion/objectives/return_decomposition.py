"""Return decomposition: rewards of decisions that a model learns from the return of the whole episode.

Suffix legend: n tokens, T decisions, E episodes, m members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.credit.algebra import Clock
from apportion.credit.assign import Credit
from apportion.errors import InputError, unknown_name
from apportion.objectives import episodes
from apportion.objectives.protocol import Loss, Now, Objective
from apportion.rollouts import Rollouts, ragged, steps

PROXY = "proxy_reward"
"""The statistic that is trained: the reward of the decision a token belongs to."""


@dataclass(frozen=True, eq=False)
class _Decisions:
    """Decisions with trained tokens: their proxy rewards ``[t]``, and how often each was drawn ``[t]``."""

    proxy: Tensor
    drawn: Tensor
    offsets: Tensor

    @property
    def drawn_mean(self) -> Tensor:
        """Mean proxy of what was drawn of every episode ``[E]``."""
        return ragged.sum_rows(self.drawn * self.proxy, self.offsets) / self.draws.clamp(min=1)

    @property
    def draws(self) -> Tensor:
        """How many were drawn of every episode ``[E]``."""
        return ragged.sum_rows(self.drawn, self.offsets)


def _no_correction(of: _Decisions) -> Tensor:
    return torch.zeros_like(of.draws)


def _sampling_variance(of: _Decisions) -> Tensor:
    """By how much drawing inflates the squared error of every episode, in expectation ``[E]``."""
    lengths, draws = ragged.lengths_of(of.offsets), of.draws
    deviation = of.proxy - of.drawn_mean[ragged.row_of(of.offsets)]
    variance = ragged.sum_rows(of.drawn * deviation**2, of.offsets) / (draws - 1).clamp(min=1)
    return variance * (1 - draws / lengths.clamp(min=1)) / draws.clamp(min=1)


@dataclass(frozen=True)
class _Kind:
    """Whether decisions are drawn, how many at least, and what is subtracted for it."""

    draws: bool
    least: int = 1
    correction: Callable[[_Decisions], Tensor] = _no_correction


LOSSES = {
    "rd": _Kind(draws=False),
    "rrd": _Kind(draws=True),
    "rrd_unbiased": _Kind(draws=True, least=2, correction=_sampling_variance),
}
"""What is minimised, see :func:`return_decomposition`."""


def return_decomposition(loss: str = "rd", level: str = "step", component: str = "outcome") -> Objective:
    """The mean proxy reward of an episode's decisions against its return R over its length L.

        rd             mean_i ( (1/L_i) sum_t r^_it - R_i / L_i )^2
        rrd            the same with the mean over K drawn decisions in place of that over all
        rrd_unbiased   rrd - mean_i s_i^2 (1 - K/L_i) / K,    s_i^2 the sample variance of what was drawn

    Decisions are those with trained tokens. ``now`` is the decoder's ``proxy_reward``, read at the last of them.
    Episodes whose return is unknown are left out.

    Args:
        loss: ``rd``, ``rrd`` or ``rrd_unbiased``, which may be negative.
        level: what the decisions are: a kind of span, or ``response``.
        component: the return; rewards below the episode are summed.

    Needs with ``rrd`` the column ``<level>:drawn``, how often every decision was drawn (see :func:`draw`).

    Metrics: ``decomposition_error``, the mean of ``(sum_t r^_it - R_i)^2``.

    Raises:
        InputError: an unknown loss; when evaluated, an episode without decisions, fewer drawn than the loss needs,
            or forced branches.

    Source: arXiv 2412.11120; thu-rllab/LaRe (``RDRewardDecomposer``, ``RRDRewardDecomposer``); RRD is arXiv 2111.13485.
    """
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    kind = LOSSES[loss]
    needs = (f"reward/{component}", *([f"{level}:drawn"] if kind.draws else []))

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        episodes.refuse_branches(rollouts)
        members, reward = episodes.rewarded(component, rollouts, credit, drop_unknown=True)
        token, decision, offsets = taken_decisions(rollouts, credit, level)
        lengths = ragged.lengths_of(offsets)[members]
        if bool((lengths == 0).any()):
            raise InputError(
                f"{int((lengths == 0).sum())} episodes have no {level} with trained tokens, expected at least one "
                "each: segment them."
            )
        proxy = now[PROXY][token]
        ones = torch.ones_like(proxy)
        drawn = rollouts.column(f"{level}:drawn", reader="this objective")[decision] if kind.draws else ones
        of = _Decisions(proxy, drawn.to(proxy.dtype), offsets)
        if bool((of.draws[members] < kind.least).any()):
            raise InputError(f"an episode has fewer than {kind.least} decisions drawn for {loss!r}: draw more.")
        target = reward.to(proxy.dtype) / lengths
        error = (of.drawn_mean[members] - target) ** 2 - kind.correction(of)[members]
        whole = ragged.sum_rows(proxy.detach(), offsets)[members]
        count = max(len(members), 1)
        metrics = {"decomposition_error": ((whole - reward.to(whole.dtype)) ** 2).sum() / count}
        return Loss(error.sum() / count, metrics)

    return Objective("episode", (PROXY,), needs, evaluate)


def taken_decisions(rollouts: Rollouts, credit: Credit, level: str) -> tuple[Tensor, Tensor, Tensor]:
    """Decisions with tokens that train.

    Returns:
        the last such token of each ``[t]``, its number among all decisions ``[t]``, and offsets ``[E + 1]``.
    """
    table = steps(rollouts, level)
    tokens = episodes.trained_tokens(credit)
    step = table.step_of_token[tokens]
    tokens, step = tokens[step >= 0], step[step >= 0]
    decision, of_token = torch.unique(step, return_inverse=True)
    last = torch.zeros_like(decision).scatter_reduce(0, of_token, tokens, "amax", include_self=False)
    per_episode = torch.bincount(table.episode[decision], minlength=rollouts.n_episodes)
    return last, decision, ragged.offsets_of(per_episode)


def draw(rollouts: Rollouts, credit: Credit, level: str, count: int, generator: torch.Generator) -> Tensor:
    """How often every decision is drawn ``[T]``, K of every episode's: each at most once where there are K or more.

    Args:
        rollouts: whose decisions.
        credit: says which tokens train.
        level: what the decisions are.
        count: K.
        generator: on the CPU.
    """
    _, decision, offsets = taken_decisions(rollouts, credit, level)
    offsets, total = offsets.cpu(), int(offsets[-1])
    lengths, row = ragged.lengths_of(offsets), ragged.row_of(offsets)
    order = torch.argsort(torch.rand(total, generator=generator), stable=True)
    order = order[torch.argsort(row[order], stable=True)]  # every episode's decisions in random order
    drawn = torch.zeros(total, dtype=torch.float64)
    drawn[order[ragged.position_in_row(offsets) < count]] = 1.0
    short = (lengths < count) & (lengths > 0)
    place = (torch.rand((int(short.sum()), count), generator=generator) * lengths[short][:, None]).long()
    drawn[short[row]] = 0.0
    again = (offsets[:-1][short][:, None] + place).flatten()
    drawn.index_add_(0, again, torch.ones(len(again), dtype=torch.float64))
    result = torch.zeros(rollouts.rows(level), dtype=torch.float64)
    result[decision.cpu()] = drawn
    return result.to(rollouts.device)
