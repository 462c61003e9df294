r"""What a final answer is: a quantity, a set, an ordered tuple, a region of the real line, a matrix, an equation.

``x \le 3`` and ``(-\infty, 3]`` are the same region, ``x = 1 \text{ or } x = -1`` and ``\{-1, 1\}`` the same set. The
conventions where mathematics leaves room: unparenthesised lists are sets, parenthesised tuples keep their order,
``x = v`` names the value v, a thousands separator stands only before groups of exactly three digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from apportion.rewards.mathematics.units import Unit


@dataclass(frozen=True)
class Quantity:
    """A number or formula, with the unit written behind it.

    Attributes:
        value: the exact value, percent and degree signs applied.
        unit: None where no unit is written.
        bare: the value without its last percent or degree sign; the value itself where there is none.
        mark: that sign, or ''.
    """

    value: sympy.Expr
    unit: Unit | None = None
    bare: sympy.Expr | None = None
    mark: str = ""


@dataclass(frozen=True)
class Several:
    """A set of answers; order and repeats do not count."""

    items: tuple[Answer, ...]


@dataclass(frozen=True)
class Ordered:
    """A parenthesised tuple, or the values of several names."""

    items: tuple[Answer, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Region:
    """A set of real numbers; ``name`` is the variable of the inequality it was written as."""

    points: sympy.Set
    name: str = ""


@dataclass(frozen=True)
class Table:
    """A matrix or a row or column vector."""

    rows: tuple[tuple[sympy.Expr, ...], ...]


@dataclass(frozen=True)
class Named:
    """``name = value``."""

    name: str
    value: Answer


@dataclass(frozen=True)
class Relation:
    """``left - right`` compared with zero in several variables: ``=``, ``<`` or ``\\le``."""

    residual: sympy.Expr
    sign: str


@dataclass(frozen=True)
class Numeral:
    """Digits with a base written as a suffix."""

    digits: str
    base: int


@dataclass(frozen=True)
class Words:
    """Text that is no formula: ``yes``, ``Alice``."""

    text: str


Answer = Quantity | Several | Ordered | Region | Table | Named | Relation | Numeral | Words
