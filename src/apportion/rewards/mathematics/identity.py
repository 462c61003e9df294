"""Whether two formulas are the same function: exactly for rational numbers, at random points otherwise.

Two different formulas of the kind answers are made of agree at a random point with probability close to zero
(Schwartz-Zippel for polynomials), so agreement at several points to many digits is identity, and simplification,
which may run for minutes, is not needed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import sympy

from apportion.rewards.mathematics.notation import Unreadable

DIGITS = 60
"""Decimal digits compared, beyond those that the formulas themselves write out."""
_POINTS, _TRIED = 5, 24


def identical(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Equal wherever both are defined; variables go by name, and one that changes nothing does not count.

    Example:
        >>> x = sympy.Symbol("x", real=True)
        >>> identical((x - 1) * (x + 1), x**2 - 1), identical(sympy.Rational("3.14"), sympy.pi)
        (True, False)
    """
    if a == b:
        return True
    if (a.is_Rational and b.is_Rational) or a.is_infinite or b.is_infinite:
        return False
    if not (a.free_symbols | b.free_symbols):
        return _close(a, b, a, b)
    compared = [_close(p, q, a, b) for p, q in _values(a, b)]
    return bool(compared) and all(compared)


def proportional(a: sympy.Expr, b: sympy.Expr, positive: bool = False) -> bool:
    """Whether a is b times a constant other than zero (above zero if ``positive``)."""
    ratios = [p / q for p, q in _values(a, b) if not p.is_zero and not q.is_zero]
    if not ratios or not all(_close(ratio, ratios[0], a, b) for ratio in ratios[1:]):
        return False
    return not positive or bool(sympy.re(sympy.N(ratios[0], 15)) > 0)


def _values(a: sympy.Expr, b: sympy.Expr) -> list[tuple[sympy.Expr, sympy.Expr]]:
    """Both formulas at the same points, where both are defined (and real, unless i occurs)."""
    symbols = sorted(a.free_symbols | b.free_symbols, key=lambda s: s.name)
    complex_too = a.has(sympy.I) or b.has(sympy.I)
    found: list[tuple[sympy.Expr, sympy.Expr]] = []
    for point in _points(symbols):
        p, q = a.subs(point), b.subs(point)
        if any(v.has(sympy.nan, sympy.zoo, sympy.oo) or v.free_symbols for v in (p, q)):
            continue
        if not complex_too and not all(_real(v) for v in (p, q)):
            continue
        found.append((p, q))
        if len(found) == _POINTS:
            break
    return found


def _points(symbols: list[sympy.Symbol]) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    """Reproducible rational points, positive and negative; then whole numbers, for formulas in integers."""
    draw = random.Random(0)
    for _ in range(_TRIED):
        yield {
            s: sympy.Rational(draw.choice((-1, 1, 1)) * draw.randint(10, 400), draw.choice((97, 101, 103)))
            for s in symbols
        }
    for _ in range(_TRIED // 3):
        yield {s: sympy.Integer(draw.randint(1, 12)) for s in symbols}


def _real(value: sympy.Expr) -> bool:
    return value.is_real if value.is_real is not None else abs(sympy.im(sympy.N(value, 30))) < 1e-20


def _close(p: sympy.Expr, q: sympy.Expr, a: sympy.Expr, b: sympy.Expr) -> bool:
    """Equal to :data:`DIGITS` digits more than a and b write out, so that a truncated decimal always differs."""
    if p.is_Rational and q.is_Rational:
        return bool(p == q)
    digits = DIGITS + sum(len(str(n)) for f in (a, b) for n in f.atoms(sympy.Rational))
    if digits > 4000:
        raise Unreadable("too many digits to compare")
    left, right = sympy.N(p, digits), sympy.N(q, digits)
    scale = max(abs(left), abs(right), sympy.Integer(1))
    return bool(abs(left - right) < scale * sympy.Float(10, 15) ** (15 - digits))
