"""Attention rhythm: more credit for the tokens that open a chunk and for those that many later tokens look back at.

Suffix legend: N tokens, n trained tokens of decisions, T decisions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, chain, modifier
from apportion.credit.provenance import made_with
from apportion.credit.ranks import medians, peak_before, top_share
from apportion.credit.recursions import next_in_row, on_tokens, row_ends
from apportion.credit.shaping import check_coefficient
from apportion.errors import InputError, check_share, unknown_name
from apportion.rollouts import ragged, steps

WAAD, FAI = "waad/old", "fai/old"


@dataclass(frozen=True)
class _Rule:
    """The settings of a factor."""

    quantile: float
    bonus: float
    alpha: float
    k: int
    tau_waad: float | None
    tau_delta: float | None


Signals = Mapping[str, Tensor]
Factors = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]
"""Gamma ``[n]``, details of tokens ``[n]`` and details of decisions ``[T]``."""


def _local(signal: Signals, offsets: Tensor, rule: _Rule) -> Factors:
    delta = waad_change(signal[WAAD], offsets)
    chosen = top_share(delta, offsets, rule.quantile)
    return 1 + rule.bonus * chosen.to(delta), {"delta": delta, "local_set": chosen}, {}


def _global(signal: Signals, offsets: Tensor, rule: _Rule) -> Factors:
    chosen = top_share(signal[FAI], offsets, rule.quantile)
    return 1 + rule.bonus * chosen.to(signal[FAI]), {"global_set": chosen}, {}


def _coupled(signal: Signals, offsets: Tensor, rule: _Rule) -> Factors:
    waad, row = signal[WAAD], ragged.row_of(offsets)
    delta, anchor = waad_change(waad, offsets), top_share(signal[FAI], offsets, rule.quantile)
    tau_waad, tau_delta = (
        medians(values, offsets) if tau is None else values.new_full((len(offsets) - 1,), tau)
        for values, tau in ((waad, rule.tau_waad), (delta, rule.tau_delta))
    )
    peak, back = peak_before(delta, offsets, rule.k)
    dominated = anchor & (back > 0) & (waad <= tau_waad[row]) & (peak >= tau_delta[row])
    intro = torch.zeros_like(anchor)
    intro[(torch.arange(len(back), device=back.device) - back)[dominated]] = True
    share = anchor.to(waad) - rule.alpha * dominated.to(waad) + rule.alpha * intro.to(waad)
    details = {"delta": delta, "global_set": anchor, "dominated": dominated, "intro": intro}
    return 1 + rule.bonus * share, details, {"tau_waad": tau_waad, "tau_delta": tau_delta}


RHYTHMS: dict[str, tuple[Callable[[Signals, Tensor, _Rule], Factors], tuple[str, ...]]] = {
    "local": (_local, (WAAD,)),
    "global": (_global, (FAI,)),
    "coupled": (_coupled, (WAAD, FAI)),
}
"""By name, the factor and the columns it reads."""


def attention_rhythm(
    rhythm: str = "coupled",
    quantile: float = 0.4,
    amp: float = 1.5,
    alpha: float = 0.5,
    k: int = 3,
    tau_waad: float | None = None,
    tau_delta: float | None = None,
    scale_sign: str = "both",
    window: int = 10,
    fai_low: int = 10,
    fai_high: int = 100,
    head_fraction: float = 0.3,
    base: str | Stage = "grpo",
) -> Stage:
    """Advantages of another method, multiplied by gamma_t >= 1 at tokens that attention marks.

        Delta_t = |WAAD_t - WAAD_{t+1}|, 0 at the end        b = amp - 1
        TopQ(x) = the ceil(quantile T) largest of the T tokens, the earlier of equal ones

        local     gamma_t = 1 + b [t in TopQ(Delta)]
        global    gamma_t = 1 + b [t in TopQ(FAI)]
        coupled   gamma_t = 1 + b [t in TopQ(FAI) minus D] + (1 - alpha) b [t in D] + alpha b [t in I]

    D are the anchors that a chunk's opening dominates: WAAD_t <= tau_waad and max of Delta over t-k..t-1 >= tau_delta.
    I are those openings: the place of that maximum, the nearest of equal ones. Everything is within one decision (a
    turn where turns are marked, else a response), over its trained tokens.

    Args:
        rhythm: ``coupled``, ``local`` or ``global``.
        quantile: share of tokens marked.
        amp: factor of a marked token.
        alpha: share of a dominated anchor's bonus that moves to the opening.
        k: how far before an anchor its opening may be.
        tau_waad: threshold; None: the median of the decision.
        tau_delta: likewise.
        scale_sign: ``both``, or ``positive``: only where the advantage is not negative.
        window: what ``waad/old`` must have been made with, as all below.
        fai_low: of ``fai/old``.
        fai_high: of ``fai/old``.
        head_fraction: of both.
        base: the method whose advantages are multiplied.

    Needs ``waad/old`` and ``fai/old``, see :mod:`apportion.annotations.attention`; ``local`` and ``global`` one each.

    Details: ``gamma``, and as far as the rhythm has them ``delta``, ``local_set``, ``global_set``, ``dominated`` and
    ``intro``; of every decision ``tau_waad`` and ``tau_delta``.

    Raises:
        InputError: a setting out of range; when run, a column made with other settings.

    Source: arXiv 2510.13554.
    """
    from apportion.credit import build  # which imports this module

    for name, value, known in (("rhythm", rhythm, tuple(RHYTHMS)), ("scale_sign", scale_sign, ("both", "positive"))):
        if value not in known:
            raise unknown_name(name, value, known)
    check_coefficient("alpha", alpha, most=1)
    check_share("quantile", quantile)
    if not 1 <= amp < math.inf:
        raise InputError(f"amp is {amp}, expected 1 or more.")
    if type(k) is not int or k < 1:
        raise InputError(f"k is {k}, expected a whole number of 1 or more.")
    for name, threshold in (("tau_waad", tau_waad), ("tau_delta", tau_delta)):
        if threshold is not None and math.isnan(threshold):
            raise InputError(f"{name} is not a number, expected one, or None for the quantile.")
    method = build(base) if isinstance(base, str) else base
    factors, needs = RHYTHMS[rhythm]
    rule = _Rule(quantile, amp - 1, alpha, k, tau_waad, tau_delta)
    made = {WAAD: {"window": window}, FAI: {"fai_low": fai_low, "fai_high": fai_high}}
    bias = Bias(Claim.BIASED, "tokens are weighed by attention, whatever they earned")

    @modifier(needs=needs, bias=bias, covers=method.covers, by_group=True)
    def rhythmic(work: Work) -> Result:
        rollouts, table = work.rollouts, steps(work.rollouts)
        step_N = table.step_of_token
        tokens = ((step_N >= 0) & rollouts.trained).nonzero().squeeze(1)
        offsets = ragged.offsets_of(torch.bincount(step_N[tokens], minlength=len(table)))
        signal = {
            name: made_with(rollouts, name, "attention_rhythm", head_fraction=head_fraction, **made[name])[tokens]
            for name in needs
        }
        precise = {name: values.to(work.advantages.dtype) for name, values in signal.items()}
        gamma_n, of_tokens, of_decisions = factors(precise, offsets, rule)
        gamma_N = 1 + on_tokens(gamma_n - 1, tokens, rollouts.n_tokens)
        counts = work.advantages >= 0 if scale_sign == "positive" else torch.ones_like(work.trained)
        details = {name: on_tokens(values, tokens, rollouts.n_tokens) for name, values in of_tokens.items()}
        details |= {f"{table.level}:{name}": values for name, values in of_decisions.items()}
        return Result(torch.where(counts, work.advantages * gamma_N, work.advantages), {"gamma": gamma_N, **details})

    return chain(method, rhythmic, bias=bias)


def waad_change(waad: Tensor, offsets: Tensor) -> Tensor:
    """``|WAAD_t - WAAD_{t+1}|`` within every row ``[n]``; 0 at its end."""
    return torch.where(row_ends(offsets), 0.0, (waad - next_in_row(waad, offsets)).abs())
