"""What a front is worth: its hypervolume, its knee, and what one more per cent of cost buys on either side of that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rfsearch.direction import merit
from rfsearch.ledger import Record
from rfsearch.numbers import byte_size, prefixed
from rfsearch.report.contenders import Contender
from rfsearch.report.front import COST_AXES, CostAxis, pareto_front
from rfsearch.report.statistics import mean
from rfsearch.report.view import RunView

Point = tuple[float, float]
"""Cost and merit; a merit is a score, turned so that a higher one is the better one."""


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """Return the area that points dominate within a reference point: what costs more and has less merit than one.

    Args:
        points: Those that cost no less, or have no more merit, than the reference dominate nothing.
        reference: The worst corner: a high cost and a low merit.
    """
    area, best = 0.0, reference[1]
    inside = [point for point in points if point[0] < reference[0]]
    for cost, value in sorted(inside, key=lambda point: (point[0], -point[1])):
        if value > best:
            area += (reference[0] - cost) * (value - best)
            best = value
    return area


@dataclass(frozen=True)
class Box:
    """Bound the costs and merits of a run's trials: its worst corner is the reference point of hypervolumes.

    Attributes:
        worst: Highest cost and lowest merit.
        best: Lowest cost and highest merit.

    Example:
        >>> Box((2.0, 0.0), (1.0, 0.5)).share([(1.0, 0.25)])
        0.5
    """

    worst: Point
    best: Point

    def share(self, points: Iterable[Point]) -> float:
        """Return the share of the box that points dominate."""
        return hypervolume(points, self.worst) / hypervolume([self.best], self.worst)


def axis_of(cost: str) -> CostAxis:
    """Return the axis of a cost that a search went by."""
    return next(axis for axis in COST_AXES if axis.name == cost)


def point_of(record: Record, axis: CostAxis, view: RunView) -> Point | None:
    """Return a completed trial's cost and merit on validation; None where one of them is not known."""
    cost = axis.cost(record)
    whole = record.scored and record.status == "completed"
    return (cost, merit(record.val or 0.0, view.run.direction)) if whole and cost is not None else None


def cost_words(axis: CostAxis, cost: float) -> str:
    """Return a cost with its unit."""
    if axis.unit == "bytes":
        return byte_size(cost)
    return prefixed(cost, "" if axis.name == "params" else axis.unit).rstrip()


def box_of(view: RunView, axis: CostAxis) -> Box | None:
    """Return the box of a run's completed trials on an axis; None where they are no two different ones."""
    points = [point for record in view.scored if (point := point_of(record, axis, view))]
    if not points:
        return None
    costs, merits = zip(*points, strict=True)
    box = Box((max(costs), min(merits)), (min(costs), max(merits)))
    return box if box.worst[0] > box.best[0] and box.best[1] > box.worst[1] else None


@dataclass(frozen=True)
class Knee:
    """Describe the knee of a front.

    Attributes:
        contenders: The front, by rising cost.
        points: Their costs and merits, means over their trainings.
        at: Index of the knee: of the point furthest above the line from the cheapest to the best one, in units of
            their differences.

    Example:
        >>> round(Knee((), ((1.0, 0.5), (1.1, 0.69), (2.0, 0.7)), 1).bought(1), 6)
        0.019
    """

    contenders: tuple[Contender, ...]
    points: tuple[Point, ...]
    at: int

    def bought(self, i: int) -> float:
        """Return the merit that one more per cent of the cost of the point before bought on the way to a point."""
        (before, less), (cost, more) = self.points[i - 1], self.points[i]
        return (more - less) / (100 * (cost - before) / before)


def knee_of(view: RunView, axis: CostAxis) -> Knee | None:
    """Find the knee of the front of a run's contenders on an axis; None where fewer than three are on it.

    A contender counts with the means of its full trainings on validation.
    """
    found = [(c, point) for c in view.contenders if c.full and (point := _mean_point(c, axis, view))]
    front = [found[i] for i in pareto_front([point for _, point in found])]
    distinct = [entry for k, entry in enumerate(front) if k == 0 or entry[1] != front[k - 1][1]]
    if len(distinct) < 3:
        return None
    contenders, points = zip(*distinct, strict=True)
    return Knee(contenders, points, _furthest_above(points))


def _mean_point(contender: Contender, axis: CostAxis, view: RunView) -> Point | None:
    points = [point for record in contender.trained if (point := point_of(record, axis, view))]
    return (mean([cost for cost, _ in points]), mean([value for _, value in points])) if points else None


def _furthest_above(points: Sequence[Point]) -> int:
    (low, worst), (high, best) = points[0], points[-1]
    heights = [(value - worst) / (best - worst) - (cost - low) / (high - low) for cost, value in points]
    return max(range(len(points)), key=heights.__getitem__)
