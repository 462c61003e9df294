"""Whether what a method claims of its expected gradient is what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apportion.credit import Claim
from apportion.evals.calibration.measure import ZERO, Interval
from apportion.evals.calibration.run import Row

HOLDS, REFUTED, SEEN, UNSEEN, UNTESTED = "holds", "refuted", "seen", "not seen", "untested"


@dataclass(frozen=True)
class Verdict:
    """A claim and what became of it.

    Attributes:
        spec: the method.
        noise: of its annotations; None without any.
        claim: what it claims.
        verdict: ``holds`` or ``refuted``; of a claim to be biased, whether a bias was ``seen`` or ``not seen``;
            ``untested`` where it ran nowhere.
        evidence: where that was decided, with the figure.
    """

    spec: str
    noise: float | None
    claim: str
    verdict: str
    evidence: str


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One verdict for every method and noise.

    exact                 the interval of the bias includes 0 in every world
    exact up to scale     the interval of the part across the exact gradient does, and the scale is not negative
    consistent            with groups of the largest size the interval of that part includes 0, or the part is less
                          than half of what it was with the smallest
    biased                nothing to refute
    """
    of: dict[tuple[str, float | None], list[Row]] = {}
    for row in rows:
        of.setdefault((row.spec, row.noise), []).append(row)
    return [_verdict(spec, noise, found) for (spec, noise), found in of.items()]


def _verdict(spec: str, noise: float | None, rows: Sequence[Row]) -> Verdict:
    claim = rows[0].bias.claim
    ran = [row for row in rows if row.measured is not None]
    words = claim.name.lower().replace("_", " ")
    if not ran:
        return Verdict(spec, noise, words, UNTESTED, rows[0].reason)
    broken = BROKEN[claim](ran)
    if claim is Claim.BIASED:
        return Verdict(spec, noise, words, SEEN if broken else UNSEEN, broken or f"{len(ran)} cells")
    return Verdict(spec, noise, words, REFUTED if broken else HOLDS, broken or f"{len(ran)} cells")


def _worst(rows: Sequence[Row], figures: Sequence[Interval | None], what: str) -> str:
    """Where a figure whose interval excludes 0 is the largest, in words; empty where none does."""
    outside = [(f, r) for f, r in zip(figures, rows, strict=True) if f is not None and f.excludes(0.0)]
    if not outside:
        return ""
    figure, row = max(outside, key=lambda pair: abs(pair[0].value))
    return f"{what} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] in {row.world}, groups of {row.size}"


def _exact(rows: Sequence[Row]) -> str:
    return _worst(rows, [row.measured.bias for row in rows if row.measured], "bias")


def _direction(rows: Sequence[Row]) -> str:
    turned = _worst(rows, [row.measured.turn for row in rows if row.measured], "across")
    if turned:
        return turned
    back = [row for row in rows if row.measured and row.measured.scale and row.measured.scale.high <= ZERO]
    return f"scale {back[0].measured.scale.value:.3f} in {back[0].world}" if back else ""  # type: ignore[union-attr]


def _shrinking(rows: Sequence[Row]) -> str:
    for world in dict.fromkeys(row.world for row in rows):
        found = sorted((row for row in rows if row.world == world), key=lambda row: row.size)
        small, large = (row.measured.turn for row in (found[0], found[-1]) if row.measured)
        if large.excludes(0.0) and (len(found) < 2 or large.value > small.value / 2):
            sizes = f"{found[0].size} and {found[-1].size}"
            return f"across {small.value:.3f} and {large.value:.3f} with groups of {sizes} in {world}"
    return ""


BROKEN = {
    Claim.EXACT: _exact,
    Claim.EXACT_UP_TO_SCALE: _direction,
    Claim.CONSISTENT: _shrinking,
    Claim.BIASED: _direction,
}
"""By claim, what breaks it, in words; empty where nothing does."""
