"""Replay a search: trainings are looked up in an earlier run instead of trained, everything else is as ever."""

from rfsearch.replay.engine import OneAtATime
from rfsearch.replay.forecasts import ReplayForecasts
from rfsearch.replay.table import ReplayTable, table_for
from rfsearch.replay.trainings import ReplayTrainings

__all__ = ["OneAtATime", "ReplayForecasts", "ReplayTable", "ReplayTrainings", "table_for"]
