"""Whether two answers are the same, whatever form each is written in."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from apportion.rewards.mathematics.answers import (
    Answer,
    Named,
    Numeral,
    Ordered,
    Quantity,
    Region,
    Relation,
    Several,
    Table,
    Words,
)
from apportion.rewards.mathematics.expressions import expression
from apportion.rewards.mathematics.identity import identical, proportional
from apportion.rewards.mathematics.notation import Unreadable, refusals, tokens
from apportion.rewards.mathematics.reading import as_region


def same(gold: Answer, given: Answer) -> bool:
    """Whether ``given`` is the reference answer.

    Raises:
        Unreadable: the two cannot be compared exactly.
    """
    with refusals():
        return _same(gold, given)


def _same(gold: Answer, given: Answer) -> bool:
    if isinstance(gold, Named) and isinstance(given, Named):
        if gold.name == given.name:
            return _same(gold.value, given.value)
        left, right = _residual(gold), _residual(given)
        return left is not None and right is not None and proportional(left, right)
    if isinstance(gold, Relation) or isinstance(given, Relation):
        return _same_relation(gold, given)
    gold = gold.value if isinstance(gold, Named) else gold
    given = given.value if isinstance(given, Named) else given
    if isinstance(gold, Region) or isinstance(given, Region):
        return _same_region(gold, given)
    gold, given = _alone(gold), _alone(given)
    if isinstance(gold, Quantity) and isinstance(given, Quantity):
        return _same_quantity(gold, given)
    if isinstance(gold, Several) and isinstance(given, Several):
        return _covers(gold.items, given.items) and _covers(given.items, gold.items)
    if isinstance(gold, Ordered) and isinstance(given, Ordered):
        return _same_ordered(gold, given)
    if isinstance(gold, Table) and isinstance(given, Table):
        return _same_table(gold, given)
    if isinstance(gold, Numeral) or isinstance(given, Numeral):
        return _same_numeral(gold, given)
    return isinstance(gold, Words) and isinstance(given, Words) and gold.text.lower() == given.text.lower()


def _alone(answer: Answer) -> Answer:
    """A set of one value is that value."""
    return answer.items[0] if isinstance(answer, Several) and len(answer.items) == 1 else answer


def _residual(answer: Answer) -> sympy.Expr | None:
    """The expression whose zeros an equation describes."""
    if isinstance(answer, Relation):
        return answer.residual
    if isinstance(answer, Named) and isinstance(answer.value, Quantity):
        return expression(tokens(answer.name)) - answer.value.value
    return None


def _same_relation(gold: Answer, given: Answer) -> bool:
    signs = [answer.sign if isinstance(answer, Relation) else "=" for answer in (gold, given)]
    left, right = _residual(gold), _residual(given)
    if left is None or right is None or signs[0] != signs[1]:
        return False
    return proportional(left, right, positive=signs[0] != "=")


def _same_quantity(gold: Quantity, given: Quantity) -> bool:
    if gold.unit is not None and given.unit is not None:
        if gold.unit.dimensions != given.unit.dimensions:
            return False
        factors = (sympy.Rational(str(q.unit.factor)) for q in (gold, given) if q.unit)
        gold_factor, given_factor = factors
        return identical(gold.value * gold_factor, given.value * given_factor)
    if identical(gold.value, given.value):
        return True
    # Degrees and percent written on one side only are an annotation, as a unit is: 45 for 45°. A percent sign in the
    # response alone is not: 5% is not 5.
    if gold.mark and gold.bare is not None and not given.mark and given.unit is None:
        return identical(gold.bare, given.value)
    if given.mark == "°" and not gold.mark and given.bare is not None and gold.value.is_Rational:
        return identical(gold.value, given.bare)
    return False


def _covers(items: Sequence[Answer], others: Sequence[Answer]) -> bool:
    return all(any(_same(item, other) for other in others) for item in items)


def _same_ordered(gold: Ordered, given: Ordered) -> bool:
    if gold.names and given.names and set(gold.names) == set(given.names):
        order = [given.names.index(name) for name in gold.names]
        given = Ordered(tuple(given.items[index] for index in order))
    elif gold.names and given.names:
        return False
    return len(gold.items) == len(given.items) and all(map(_same, gold.items, given.items))


def _same_table(gold: Table, given: Table) -> bool:
    shapes = [[len(row) for row in table.rows] for table in (gold, given)]
    if shapes[0] != shapes[1]:
        return False
    cells = ((a, b) for row, other in zip(gold.rows, given.rows, strict=True) for a, b in zip(row, other, strict=True))
    return all(identical(a, b) for a, b in cells)


def _same_numeral(gold: Answer, given: Answer) -> bool:
    """Two numerals with bases by value; a base on one side only is an annotation of the same digits."""
    if isinstance(gold, Numeral) and isinstance(given, Numeral):
        return int(gold.digits, gold.base) == int(given.digits, given.base)
    numeral, other = (gold, given) if isinstance(gold, Numeral) else (given, gold)
    return (
        isinstance(numeral, Numeral)
        and isinstance(other, Quantity)
        and numeral.digits.isdigit()
        and identical(sympy.Integer(numeral.digits), other.value)
    )


def _same_region(gold: Answer, given: Answer) -> bool:
    if isinstance(gold, Region) and isinstance(given, Region) and gold.name and given.name and gold.name != given.name:
        return False
    left, right = as_region(gold), as_region(given)
    if left is None or right is None:
        return False
    if left == right:
        return True
    pieces, others = _pieces(left), _pieces(right)
    return len(pieces) == len(others) and all(
        a[2:] == b[2:] and identical(a[0], b[0]) and identical(a[1], b[1]) for a, b in zip(pieces, others, strict=True)
    )


def _pieces(points: sympy.Set) -> list[tuple[sympy.Expr, sympy.Expr, bool, bool]]:
    """Disjoint intervals and points from left to right: start, end, left open, right open."""
    found = []
    for part in points.args if isinstance(points, sympy.Union) else (points,):
        if isinstance(part, sympy.Interval):
            found.append((part.start, part.end, bool(part.left_open), bool(part.right_open)))
        elif isinstance(part, sympy.FiniteSet):
            found += [(point, point, False, False) for point in part]
        elif part == sympy.S.Reals:
            found.append((-sympy.oo, sympy.oo, True, True))
        elif part is not sympy.S.EmptySet:
            raise Unreadable("a set of numbers that cannot be compared")
    return sorted(found, key=lambda piece: (sympy.N(piece[0]), sympy.N(piece[1])))
