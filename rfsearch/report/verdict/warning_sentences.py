"""Sentences that a reader must keep in mind: what is missing, what failed, what cannot be concluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from rfsearch.ledger import Record
from rfsearch.ledger.record import parsed
from rfsearch.numbers import counted
from rfsearch.report.statistics import training_of
from rfsearch.report.verdict.phrases import as_sentence
from rfsearch.report.view import AT_START, RunView, factors
from rfsearch.report.wording import listing


def warn_of_unfinished_run(view: RunView) -> Iterator[str]:
    """Warn that trials are missing: the run is running, was interrupted, or has idle arms."""
    if view.run.running:
        yield f"This run is running ({view.run.running}): this is what it has found so far."
    elif view.run.unfinished:
        yield (
            f"This run is unfinished: {counted(view.run.unfinished, 'trial')} handed out without a result yet. "
            f"Finish it with: rfsearch resume {view.run.directory}"
        )
    idle = [f"{a.strategy} (seed {a.seed})" for a in view.arms if not a.records]
    if idle and view.records:
        yield f"No trial has finished yet in: {listing(idle)}."


def warn_of_failures(view: RunView) -> Iterator[str]:
    """Warn of failed trials, with the most frequent cause."""
    failed = [r for r in view.records if r.status == "failed"]
    if failed:
        cause, times = Counter(r.cause or "no cause recorded" for r in failed).most_common(1)[0]
        often = "" if times == len(failed) else f", most often ({times} of {len(failed)})"
        yield f"{counted(len(failed), 'trial')} of {len(view.records)} failed{often}: {as_sentence(cause)}"


def warn_of_no_choice(view: RunView, winner: Record) -> Iterator[str]:
    """Warn that there was nothing to choose between: one candidate, one receptive field, or equal scores."""
    scored = {training_of(r)[0] for r in view.scored}
    searching = any(known.searched for r in view.scored if (known := parsed(r.candidate)))
    if len(view.facts.planned) == len(scored) == 1 and not searching:
        yield "The space holds one distinguishable candidate: there was nothing to choose from."
    elif len(scored) == 1:
        yield "Only one candidate was scored, so nothing was compared."
    elif len({r.rf_px for r in view.scored}) == 1:
        yield (
            f"All {len(scored)} scored candidates have the same receptive field of {winner.rf_px:,} px: "
            "the space holds one distinguishable receptive field."
        )
    elif len({(r.val, view.score(r)) for r in view.scored}) == 1:
        yield f"All {len(scored)} scored candidates score the same: this data cannot tell them apart."
    else:
        tied = {training_of(r)[0] for r in view.scored if r.val == winner.val} - {training_of(winner)[0]}
        if tied:
            others = counted(len(tied), "other candidate")
            yield f"{others} reached the same validation score: a tie, of which the first one is shown."


def warn_of_edge(view: RunView, winner: Record) -> Iterator[str]:
    """Warn that the best dilation is the largest or the smallest that was searched."""
    dilations, known = view.facts.dilations, winner.ended
    if len(dilations) < 2 or known is None:
        return
    moved = factors(winner)
    for end, word, beyond in ((dilations[-1], "largest", "larger"), (dilations[0], "smallest", "smaller")):
        sites = [
            site for site, path in known if path.choice.whole_dilation == end and _reaches_beyond(moved, site, beyond)
        ]
        if sites and not (end == 1 and beyond == "smaller"):
            yield (
                f"The best dilation, {end} at {listing(sites)}, is the {word} that was searched: "
                f"the optimum may lie beyond; search {beyond} ones."
            )
        elif sites:
            yield f"The best dilation at {listing(sites)} is 1, the smallest there is."


def warn_of_weak_score(view: RunView, winner: Record) -> Iterator[str]:
    """Warn of a winner that was cut, and of scores that are not test scores."""
    if winner.status == "cut":
        yield "The winner was cut by the end of its budget: its score is that of a training not run to its end."
    if view.split == "test" and view.score(winner) is None:
        yield "The winner has no test score; its validation score is shown instead."
    elif view.split == "val":
        yield "There are no test scores: the score that chose the winner is also the one reported, which flatters it."


def _reaches_beyond(moved: Mapping[str, float], site: str, beyond: str) -> bool:
    """Return whether a site's inflation factor leaves its receptive field at or beyond that of its dilation."""
    f = moved.get(site, 1.0)
    return f <= 1.0 + AT_START if beyond == "larger" else f >= 1.0 - AT_START
