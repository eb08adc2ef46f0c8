"""What a training that is looked up should cost: what is forecast of the training that stands for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rfsearch.choices import Candidate
from rfsearch.replay.table import ReplayTable

if TYPE_CHECKING:
    from rfsearch.planning.forecast import Forecast
    from rfsearch.planning.search_plan import Forecasts


@dataclass(frozen=True)
class ReplayForecasts:
    """Forecast the trainings of a table, whatever real numbers a strategy draws between them.

    Attributes:
        table: The table.
        forecasts: Forecasts full trainings.

    Example:
        >>> ReplayForecasts(table, forecaster)(Candidate({"conv6": Inflated(4, 1.37)})).cost.flop
    """

    table: ReplayTable
    forecasts: Forecasts

    @property
    def flop_per_s(self) -> float:
        """FLOP per second of one worker in training."""
        return self.forecasts.flop_per_s

    def __call__(self, candidate: Candidate) -> Forecast:
        """Return the forecast of the training that stands for a candidate's; see `Forecaster`."""
        return self.forecasts(self.table.stand_in(candidate))
