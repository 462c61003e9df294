"""Student's t against a table of its quantiles."""

from __future__ import annotations

import pytest

from apportion.evals.student import student

TABLE = {
    (0.90, 5): 2.0150,
    (0.95, 5): 2.5706,
    (0.95, 10): 2.2281,
    (0.95, 19): 2.0930,
    (0.95, 30): 2.0423,
    (0.975, 5): 3.1634,
    (0.975, 19): 2.4334,
    (0.99, 10): 3.1693,
}
"""From the tables of any textbook, two-sided."""


@pytest.mark.parametrize(("level", "freedom"), TABLE)
def test_quantiles_are_those_of_the_table(level: float, freedom: int) -> None:
    assert student(level, freedom) == pytest.approx(TABLE[level, freedom], rel=3e-3)


def test_with_many_degrees_of_freedom_it_is_the_normal() -> None:
    assert student(0.95, 10**7) == pytest.approx(1.959964, abs=1e-6)


def test_wider_levels_and_fewer_degrees_of_freedom_widen_it() -> None:
    assert student(0.975, 19) > student(0.95, 19) > student(0.90, 19)
    assert student(0.95, 5) > student(0.95, 6) > student(0.95, 60)
