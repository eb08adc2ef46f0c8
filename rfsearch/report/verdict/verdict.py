"""The verdict as a whole: which sentences it has, and in which order."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rfsearch.ledger import Record, Run
from rfsearch.report.verdict.certainty_sentences import (
    compare_over_seeds,
    compare_with_runner_up,
    count_found_dilations,
)
from rfsearch.report.verdict.comparison_sentences import compare_latencies, compare_strategies, compare_with_default
from rfsearch.report.verdict.headline import (
    explain_no_winner,
    say_how_sure,
    say_price,
    say_what_it_scored,
    say_what_to_use,
)
from rfsearch.report.verdict.learned_sentences import warn_of_stuck_values
from rfsearch.report.verdict.recommendation import Setting, recommend
from rfsearch.report.verdict.trade_sentences import describe_trades
from rfsearch.report.verdict.warning_sentences import (
    warn_of_edge,
    warn_of_failures,
    warn_of_no_choice,
    warn_of_unfinished_run,
    warn_of_weak_score,
)
from rfsearch.report.view import RunView, build_view


@dataclass(frozen=True)
class Verdict:
    """Hold what a run's records say, as plain sentences.

    Attributes:
        headline: What to use.
        confidence: How sure that is: what cannot be told apart from it, and how it compares with the hand default.
        findings: What it scored, its price, and how it compares.
        certainty: How sure the comparison of strategies is.
        warnings: What to keep in mind.
        setting: How to put the recommendation into a model. None where no trial was scored, or its choices are unknown
            here.
        best: The best single trial, chosen on validation. None where no trial was scored.
        recommended: The best training of what is recommended: that trial, or one of a simpler candidate that noise
            cannot tell apart from it.

    Example:
        >>> verdict = Verdict("No trial has finished yet.", warnings=("This run is running.",))
        >>> str(verdict)
        'No trial has finished yet. This run is running.'
    """

    headline: str
    confidence: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    certainty: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    setting: Setting | None = None
    best: Record | None = None
    recommended: Record | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """All sentences, in their order."""
        return (self.headline, *self.confidence, *self.findings, *self.certainty, *self.warnings)

    def __str__(self) -> str:
        """Return all sentences as one text."""
        return " ".join(self.sentences)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain values for JSON."""
        return asdict(self)


def summarise(run: Run) -> Verdict:
    """Return the verdict of a run, finished or not.

    Args:
        run: A run as `rfsearch.ledger.read_run` reads it.
    """
    return verdict_of(build_view(run))


def verdict_of(view: RunView) -> Verdict:
    """Return the verdict on what a view holds."""
    winner, decision = view.winner, view.decision
    if winner is None or decision is None:
        return Verdict(explain_no_winner(view), warnings=tuple(warn_of_unfinished_run(view)))
    best = decision.recommended.best
    return Verdict(
        headline=say_what_to_use(view, decision),
        confidence=tuple(say_how_sure(view, decision)),
        findings=(
            *say_what_it_scored(view, decision),
            *say_price(view, best),
            *compare_with_default(view, decision),
            *compare_latencies(view, decision),
            *compare_strategies(view),
            *describe_trades(view),
        ),
        certainty=(
            *count_found_dilations(view),
            *compare_over_seeds(view),
            *compare_with_runner_up(view, decision),
        ),
        warnings=(
            *warn_of_unfinished_run(view),
            *warn_of_failures(view),
            *warn_of_no_choice(view, winner),
            *warn_of_edge(view, best),
            *warn_of_stuck_values(view, best),
            *warn_of_weak_score(view, best),
        ),
        setting=recommend(view, best),
        best=winner,
        recommended=best,
    )
