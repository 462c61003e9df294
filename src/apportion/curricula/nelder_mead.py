"""Nelder-Mead as a conversation: a search for thresholds in which every evaluation is a training run.

What an evaluation costs shapes it: points near one that was evaluated are not evaluated again, one question is open at
a time, and the whole search is its answers so far, so that it goes on after an interruption.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from apportion.errors import InputError

Point = tuple[float, ...]
_Search = Generator[Point, float, None]
_Value = Generator[Point, float, float]


class NelderMead:
    """The lowest value of a function of N numbers, by moving a simplex of N + 1 points.

        x_r = c + reflect (c - x_worst),    c the centroid of all points but the worst
        f(best) <= f(x_r) < f(second worst):    x_r takes the place of the worst
        f(x_r) < f(best):                       c + expand (x_r - c)  does, if it is better than the best; else x_r
        otherwise:                              c + contract (x_worst - c)  does, if it is better than the worst;
                                                else every point moves:  best + shrink (x - best)

    After a shrink the search ends if the values' population standard deviation is below ``tolerance``.

    A point whose every coordinate is within the cache's tolerance of an evaluated point, the first such, has that
    point's value from then on.

    Args:
        simplex: N + 1 points of N numbers.
        reflect: how far to reflect.
        expand: how far to expand.
        contract: how far to contract.
        shrink: what is left of distances to the best.
        tolerance: of the values, at which to end.
        cache: how near a point counts as evaluated; 0: only the same point does.
        relative: ``cache`` is a share of the evaluated point's coordinates (the paper), not a distance (the authors'
            code, where it depends on the scale of the rewards).

    Attributes:
        simplices: the points at the beginning of every move, and after the last shrink, best first.

    Raises:
        InputError: points that are no simplex, or a setting out of range.

    Source: Nelder and Mead 1965; arXiv 2310.04373; tedmoskovitz/ConstrainedRL4LMs (``relative=False, cache=0.005``).

    Example:
        >>> search = NelderMead([[0.0], [1.0]], cache=0.0)
        >>> while (point := search.ask()) is not None:
        ...     search.tell((point[0] - 3) ** 2)
        >>> search.best
        ((3.0,), 0.0)
    """

    def __init__(
        self,
        simplex: Sequence[Sequence[float]],
        reflect: float = 1.0,
        expand: float = 2.0,
        contract: float = 0.5,
        shrink: float = 0.5,
        tolerance: float = 0.01,
        cache: float = 0.05,
        relative: bool = True,
    ) -> None:
        self._start = _checked(simplex)
        for name, value, least, most in (
            ("reflect", reflect, 0.0, math.inf),
            ("expand", expand, 1.0, math.inf),
            ("contract", contract, 0.0, 1.0),
            ("shrink", shrink, 0.0, 1.0),
        ):
            if not least < value < most:
                raise InputError(f"{name} is {value}, expected more than {least:g} and less than {most:g}.")
        if not 0 < tolerance < math.inf:  # with 0, a simplex of points that were evaluated would move for ever
            raise InputError(f"tolerance is {tolerance}, expected more than 0.")
        if not 0 <= cache < math.inf:
            raise InputError(f"cache is {cache}, expected 0 or more.")
        self._reflect, self._expand, self._contract, self._shrink = reflect, expand, contract, shrink
        self._tolerance, self._cache, self._relative = tolerance, cache, relative
        self._begin()

    def _begin(self) -> None:
        self.simplices: list[tuple[Point, ...]] = []
        self._evaluated: list[tuple[Point, float]] = []
        self._moves = self._search()
        self._open: Point | None = next(self._moves)

    def ask(self) -> Point | None:
        """The point to evaluate next, the same until it was told of; None when the search has ended."""
        return self._open

    def tell(self, value: float) -> None:
        """The value at the point asked for.

        Raises:
            InputError: it is not finite, or the search has ended.
        """
        if self._open is None:
            raise InputError("the search has ended, expected no further value: read its best point.")
        if not math.isfinite(value):
            raise InputError(f"the value at {self._open} is {value}, expected a finite number.")
        self._evaluated.append((self._open, float(value)))
        try:
            self._open = self._moves.send(float(value))
        except StopIteration:
            self._open = None

    @property
    def best(self) -> tuple[Point, float]:
        """The lowest value evaluated, and where; of equal ones the first.

        Raises:
            InputError: nothing was evaluated yet.
        """
        if not self._evaluated:
            raise InputError("nothing was evaluated yet, expected at least one value: tell one.")
        return min(self._evaluated, key=lambda pair: pair[1])

    def state(self) -> dict[str, Any]:
        """What was told so far."""
        return {"values": [value for _, value in self._evaluated]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state` of the same search, by telling it the same again."""
        self._begin()
        for value in state["values"]:
            self.tell(value)

    def _search(self) -> _Search:
        vertices: list[tuple[float, Point]] = []
        for point in self._start:
            vertices.append(((yield from self._value(point)), point))
        while True:
            vertices = self._in_order(vertices)
            (best, best_point), (worst, worst_point) = vertices[0], vertices[-1]
            centre = tuple(statistics.fmean(axis) for axis in zip(*(p for _, p in vertices[:-1]), strict=True))
            reflected_point = _along(centre, worst_point, -self._reflect)
            reflected = yield from self._value(reflected_point)
            if best <= reflected < vertices[-2][0]:
                vertices[-1] = (reflected, reflected_point)
            elif reflected < best:
                further_point = _along(centre, reflected_point, self._expand)
                further = yield from self._value(further_point)
                vertices[-1] = (further, further_point) if further < best else (reflected, reflected_point)
            else:
                nearer_point = _along(centre, worst_point, self._contract)
                nearer = yield from self._value(nearer_point)
                if nearer < worst:
                    vertices[-1] = (nearer, nearer_point)
                    continue
                moved = [_along(best_point, point, self._shrink) for _, point in vertices]
                vertices = []
                for point in moved:
                    vertices.append(((yield from self._value(point)), point))
                if statistics.pstdev(value for value, _ in vertices) < self._tolerance:
                    self._in_order(vertices)
                    return

    def _in_order(self, vertices: list[tuple[float, Point]]) -> list[tuple[float, Point]]:
        ordered = sorted(vertices, key=lambda vertex: vertex[0])
        self.simplices.append(tuple(point for _, point in ordered))
        return ordered

    def _value(self, point: Point) -> _Value:
        for known, value in self._evaluated:
            if all(self._near(x, y) for x, y in zip(point, known, strict=True)):
                return value
        value = yield point
        return value

    def _near(self, given: float, known: float) -> bool:
        return given == known or abs(given - known) < self._cache * (abs(known) if self._relative else 1.0)


def _along(origin: Point, towards: Point, distance: float) -> Point:
    return tuple(a + distance * (b - a) for a, b in zip(origin, towards, strict=True))


def _checked(simplex: Sequence[Sequence[float]]) -> tuple[Point, ...]:
    points = tuple(tuple(float(x) for x in point) for point in simplex)
    size = len(points[0]) if points else 0
    if not size or len(points) != size + 1 or any(len(point) != size for point in points):
        raise InputError(
            f"the simplex has {len(points)} points of {sorted({len(point) for point in points})} numbers, expected "
            "N + 1 points of N numbers."
        )
    if not all(math.isfinite(x) for point in points for x in point):
        raise InputError("the simplex has a coordinate that is not finite, expected numbers.")
    if len(set(points)) == 1:
        raise InputError(f"all points of the simplex are {points[0]}, expected different ones.")
    return points
