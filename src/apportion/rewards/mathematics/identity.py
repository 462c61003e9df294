"""Whether two formulas are the same function: exactly for rational numbers, at many digits otherwise.

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
_POINTS, _TRIED = 8, 24
_Value = tuple[sympy.Float, sympy.Float]


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
    digits = _digits(a, b)
    compared = [_close(p, q, digits) for p, q in _values(a, b, digits)]
    return bool(compared) and all(compared)


def proportional(a: sympy.Expr, b: sympy.Expr, positive: bool = False) -> bool:
    """Whether a is b times a constant other than zero (above zero if ``positive``)."""
    digits = _digits(a, b)
    pairs = [(complex_of(p), complex_of(q)) for p, q in _values(a, b, digits) if any(p) and any(q)]
    ratios = [(p / q).expand(complex=True).as_real_imag() for p, q in pairs]
    if not ratios or not all(_close(ratio, ratios[0], digits) for ratio in ratios[1:]):
        return False
    return not positive or bool(ratios[0][0] > 0)


def complex_of(value: _Value) -> sympy.Expr:
    return value[0] + sympy.I * value[1]


def _digits(a: sympy.Expr, b: sympy.Expr) -> int:
    """More digits than a and b write out, so that a truncated decimal always differs."""
    digits = DIGITS + sum(len(str(n)) for f in (a, b) for n in f.atoms(sympy.Rational))
    if digits > 4000:
        raise Unreadable("too many digits to compare")
    return digits


def _values(a: sympy.Expr, b: sympy.Expr, digits: int) -> list[tuple[_Value, _Value]]:
    """Both formulas at the same points, where both are defined (and real, unless i occurs)."""
    symbols = sorted(a.free_symbols | b.free_symbols, key=lambda s: s.name)
    complex_too = a.has(sympy.I) or b.has(sympy.I)
    found: list[tuple[_Value, _Value]] = []
    for point in _points(symbols):
        pair = (_value(a, point, digits), _value(b, point, digits))
        if pair[0] is not None and pair[1] is not None and (complex_too or not (pair[0][1] or pair[1][1])):
            found.append((pair[0], pair[1]))
        if len(found) == _POINTS:
            break
    return found


def _points(symbols: list[sympy.Symbol]) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    """Reproducible fractions, positive and negative; then whole numbers, for formulas in integers."""
    if not symbols:
        yield {}
        return
    draw = random.Random(0)
    for trial in range(_TRIED):
        # Signs count through all quadrants, so that x and |x| differ.
        signs = [-1 if trial >> (index % 3) & 1 else 1 for index in range(len(symbols))]
        yield {s: sympy.Rational(sign * draw.randint(10, 400), 101) for s, sign in zip(symbols, signs, strict=True)}
    for _ in range(_TRIED // 3):
        yield {s: sympy.Integer(draw.randint(1, 12)) for s in symbols}


def _value(formula: sympy.Expr, point: dict[sympy.Symbol, sympy.Rational], digits: int) -> _Value | None:
    """Real and imaginary part at a point; None where the formula is undefined there."""
    # Floating point of many digits: exact fractions in exponents would make SymPy factorise large integers.
    value = sympy.N(formula, digits, subs=point)
    if not value.is_number or value.has(sympy.nan, sympy.zoo, sympy.oo):
        return None
    real, imaginary = value.as_real_imag()
    return _significant(real), _significant(imaginary)


def _significant(part: sympy.Expr) -> sympy.Float:
    """The number, or 0 where nothing but the rounding of cancelled terms is left."""
    number = sympy.Float(part) if not part.is_Float else part
    return number if number._prec >= 20 else sympy.Float(0)


def _close(p: _Value, q: _Value, digits: int) -> bool:
    scale = max(abs(part) for part in (*p, *q))
    distance = max(abs(p[0] - q[0]), abs(p[1] - q[1]))
    return bool(scale == 0 or distance < scale * sympy.Float(10, 15) ** (15 - digits))
