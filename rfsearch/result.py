"""What a run has found, to hold in Python: its tables as frames, its figures as Plotly's, its verdict as text."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfsearch.errors import RequestError, RunDirectoryError, nearest
from rfsearch.ledger import Record, Run, read_run
from rfsearch.report.figures.registry import draw_figures
from rfsearch.report.front import COST_AXES, pareto_table
from rfsearch.report.page import REPORT_FILE
from rfsearch.report.rows import anytime_table, trials_table
from rfsearch.report.verdict import verdict_of
from rfsearch.report.view import RunView, build_view
from rfsearch.storage import run_directory

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, repr=False)
class Result:
    """Hold a run, finished or not, as it was when it was read.

    In a notebook it shows itself as the verdict.

    Attributes:
        run: The run as it was read.

    Example:
        >>> result = rfsearch.load_run("runs/mine")
        >>> result.best.outcome, result.best.val
        >>> result.figures["anytime"].show()
    """

    run: Run

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self.run.directory

    @property
    def report(self) -> Path:
        """The run's page."""
        return self.directory / REPORT_FILE

    @property
    def best(self) -> Record | None:
        """The best trial, chosen on validation; None where none was scored."""
        return self._view.winner

    @cached_property
    def verdict(self) -> str:
        """What was found, how sure that is, and at what price, in sentences."""
        return str(verdict_of(self._view))

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Every trial: the columns of trials.csv."""
        return trials_table(self.run.records)

    @cached_property
    def anytime(self) -> pd.DataFrame:
        """The best score of every arm so far, at each amount that it had spent: the columns of anytime.csv."""
        return anytime_table(self.run.records, self.run.direction)

    def pareto(self, cost: str = "rf_px") -> pd.DataFrame:
        """Return the trials that none is both cheaper and better than.

        Args:
            cost: What is cheap: the name of a cost axis, such as rf_px, train_flop, infer_mac or infer_latency_ms.

        Raises:
            RequestError: There is no such axis.
        """
        names = [axis.name for axis in COST_AXES]
        if cost not in names:
            raise RequestError(f"a front is over one of {', '.join(names)}. Got {cost!r}.{nearest(cost, names)}")
        table = pareto_table(self.run.records, self.run.direction)
        return table[table[table.columns[0]] == cost].reset_index(drop=True)

    @cached_property
    def figures(self) -> Mapping[str, go.Figure]:
        """The page's figures by name, those that have something to show."""
        return {drawn.name: drawn.figure for drawn in draw_figures(self._view)[0]}

    def patch(self, trial: str | None = None) -> dict[str, Any]:
        """Return what `rfsearch.apply` needs to give a network what a trial has ended with.

        Args:
            trial: Name of the trial. None: the best one.

        Returns:
            The content of a patch. A layer in a file is named by its path: where the program could not import that by
            itself, `rfsearch.apply` takes it with `trust=True`.

        Raises:
            RunDirectoryError: No such trial was scored.
        """
        from rfsearch.export.exporting import patch_of
        from rfsearch.networks import settings_of_run

        named = {record.trial: record for record in self.run.records}
        record = self.best if trial is None else named.get(trial)
        if record is None:
            raise RunDirectoryError(
                f"{self.directory}: no trial was scored."
                if trial is None
                else f"{self.directory}: no trial {trial!r} has finished.{nearest(trial, list(named))}"
            )
        backbone, settings = settings_of_run(self.run.manifest)
        return patch_of(backbone, settings, record).to_json()

    def _repr_html_(self) -> str:
        sentences = "".join(f"<li>{html.escape(line)}</li>" for line in verdict_of(self._view).sentences[1:])
        headline = html.escape(verdict_of(self._view).headline)
        return f"<p><b>{headline}</b></p><ul>{sentences}</ul><p>{html.escape(str(self.report))}</p>"

    def __str__(self) -> str:
        return self.verdict

    def __repr__(self) -> str:
        return f"<run {self.directory}: {len(self.run.records)} trials>"

    @cached_property
    def _view(self) -> RunView:
        return build_view(self.run)


def load_run(run_dir: str | Path) -> Result:
    """Read a run from its directory, or its place on object storage (a URI), finished or not.

    Raises:
        RunDirectoryError: There is no run, or it is damaged.
    """
    return Result(read_run(run_directory(run_dir)))
