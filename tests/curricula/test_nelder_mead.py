"""The search for thresholds: its moves, what it does not ask twice, and going on after an interruption."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from apportion.curricula.nelder_mead import NelderMead
from apportion.errors import InputError

TRIANGLE = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]


def bowl(point: Sequence[float]) -> float:
    return (point[0] - 2) ** 2 + 3 * (point[1] - 0.5) ** 2


def talk(search: NelderMead, function: Callable[[Sequence[float]], float], most: int = 10_000) -> list[Any]:
    """Answer until the search ends; what it asked."""
    asked: list[Any] = []
    while len(asked) < most and (point := search.ask()) is not None:
        asked.append(point)
        search.tell(function(point))
    return asked


def test_it_finds_the_lowest_point() -> None:
    search = NelderMead(TRIANGLE, cache=0.0, tolerance=1e-12)
    asked = talk(search, bowl)
    assert search.ask() is None
    assert len(asked) < 400
    assert search.best[0] == pytest.approx((2.0, 0.5), abs=1e-4)


@pytest.mark.parametrize(
    ("values", "move"),
    [
        ([0, 1, 2, 0.5], "reflected"),
        ([0, 1, 2, 0.0], "reflected"),  # as good as the best is good enough, and not expanded
        ([0, 1, 2, -1, -2], "expanded"),
        ([0, 1, 2, -1, -0.5], "expanded"),  # better than the best is enough, as in the authors' code
        ([0, 1, 2, -1, 0.0], "reflected"),
        ([0, 1, 2, 1.5, 1.5], "contracted"),
        ([0, 1, 2, 1.0, 1.5], "contracted"),  # as bad as the second worst is too bad
    ],
)
def test_every_move(values: list[float], move: str) -> None:
    search = NelderMead(TRIANGLE, cache=0.0)
    for value in values:
        search.tell(value)
    # The worst is (0, 1), the centroid of the others (0.5, 0).
    replaced = {"reflected": (1.0, -1.0), "expanded": (1.5, -2.0), "contracted": (0.25, 0.5)}[move]
    kept = {(0.0, 0.0), (1.0, 0.0)}
    assert search.simplices[0] == ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    assert set(search.simplices[1]) == {*kept, replaced}


def test_a_shrink_moves_all_but_the_best_and_then_it_may_end() -> None:
    for spread, ends in ((0.022, False), (0.02, True)):  # 0, s, s has population deviation 0.47 s
        search = NelderMead(TRIANGLE, cache=0.0, tolerance=0.01)
        for value in (0.0, 1.0, 2.0, 3.0, 2.0):  # the contraction is no better than the worst
            search.tell(value)
        assert search.ask() == (0.5, 0.0)  # the best was evaluated
        search.tell(spread)
        assert search.ask() == (0.0, 0.5)
        search.tell(spread)
        assert (search.ask() is None) == ends
        assert search.simplices[-1] == ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5))


def test_values_that_agree_do_not_end_it_without_a_shrink() -> None:
    search = NelderMead(TRIANGLE, cache=0.0, tolerance=10.0)
    for value in (0.0, 1.0, 2.0, 0.5):
        search.tell(value)
    assert search.ask() is not None


def test_a_point_near_an_evaluated_one_has_its_value() -> None:
    near = [[1.0, 1.0], [1.04, 1.0], [2.0, 2.0]]
    asked = talk(NelderMead(near, cache=0.05), bowl, most=2)
    assert asked == [(1.0, 1.0), (2.0, 2.0)]
    assert talk(NelderMead(near, cache=0.05, relative=False), bowl, most=2) == asked
    small = [[0.001 * x for x in point] for point in near]
    assert talk(NelderMead(small, cache=0.05), bowl, most=2) == [(0.001, 0.001), (0.002, 0.002)]
    merged = NelderMead(small, cache=0.05, relative=False)  # a distance takes small thresholds for one
    assert talk(merged, bowl) == [(0.001, 0.001)]
    assert merged.best == ((0.001, 0.001), bowl((0.001, 0.001)))


def test_the_first_that_is_near_counts() -> None:
    search = NelderMead([[1.0], [1.08]], cache=0.05)
    for value in (1.0, 5.0, 9.0):
        search.tell(value)
    # The contraction to 1.04 is near both; 1.0 came first, so it is as good as the best and takes the place of 1.08.
    # What follows is near 1.0 as well: all values agree after a shrink.
    assert search.ask() is None
    assert [point for points in search.simplices for (point,) in points] == pytest.approx([1, 1.08, 1, 1.04, 1, 1.02])


def test_it_goes_on_after_an_interruption() -> None:
    whole = NelderMead(TRIANGLE, cache=0.01)
    asked = talk(whole, bowl)
    for done in (0, 1, 7, len(asked)):
        first = NelderMead(TRIANGLE, cache=0.01)
        talk(first, bowl, most=done)
        second = NelderMead(TRIANGLE, cache=0.01)
        second.restore(first.state())
        assert talk(second, bowl) == asked[done:]
        assert second.best == whole.best
        assert second.simplices == whole.simplices


def test_asking_again_asks_the_same() -> None:
    search = NelderMead(TRIANGLE)
    assert search.ask() == search.ask() == (0.0, 0.0)


@pytest.mark.parametrize(
    ("simplex", "settings", "said"),
    [
        ([], {}, "the simplex has 0 points"),
        ([[0.0], [1.0], [2.0]], {}, r"the simplex has 3 points of \[1\] numbers, expected N \+ 1 points of N"),
        ([[0.0, 1.0], [1.0], [2.0]], {}, r"3 points of \[1, 2\] numbers"),
        ([[1.0], [1.0]], {}, r"all points of the simplex are \(1.0,\), expected different ones"),
        ([[1.0], [math.nan]], {}, "a coordinate that is not finite"),
        ([[0.0], [1.0]], {"reflect": 0.0}, "reflect is 0.0, expected more than 0"),
        ([[0.0], [1.0]], {"expand": 1.0}, "expand is 1.0, expected more than 1"),
        ([[0.0], [1.0]], {"contract": 1.0}, "contract is 1.0, expected more than 0 and less than 1"),
        ([[0.0], [1.0]], {"shrink": 1.0}, "shrink is 1.0"),
        ([[0.0], [1.0]], {"tolerance": 0.0}, "tolerance is 0.0, expected more than 0"),
        ([[0.0], [1.0]], {"cache": math.inf}, "cache is inf, expected 0 or more"),
    ],
)
def test_what_cannot_be_searched(simplex: list[list[float]], settings: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        NelderMead(simplex, **settings)


def test_values_that_are_none() -> None:
    search = NelderMead([[0.0], [1.0]], tolerance=100.0, cache=0.0)
    with pytest.raises(InputError, match="nothing was evaluated yet"):
        _ = search.best
    with pytest.raises(InputError, match=r"the value at \(0.0,\) is nan, expected a finite number"):
        search.tell(math.nan)
    talk(search, lambda point: abs(point[0]))
    with pytest.raises(InputError, match="the search has ended"):
        search.tell(1.0)
