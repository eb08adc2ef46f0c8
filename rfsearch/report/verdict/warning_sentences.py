"""Sentences that a reader must keep in mind: what is missing, what failed, what cannot be concluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from rfsearch.ledger import Record
from rfsearch.numbers import counted
from rfsearch.report.contenders import is_searched
from rfsearch.report.facts import canonical
from rfsearch.report.provenance import resume_command
from rfsearch.report.verdict.phrases import as_sentence
from rfsearch.report.view import AT_START, RunView, factors
from rfsearch.report.wording import listing


def warn_of_unfinished_run(view: RunView) -> Iterator[str]:
    """Warn that trainings are missing: they were looked up, the run is running, was interrupted, or has idle arms."""
    if view.facts.replayed:
        yield (
            "This is a replay: its trainings were made before, for another run, and were looked up. It compares "
            "strategies and says nothing new about receptive fields."
        )
    if view.run.running:
        yield f"This run is running ({view.run.running}): this is what it has found so far."
    elif view.run.unfinished:
        yield (
            f"This run is unfinished: {counted(view.run.unfinished, 'trial')} handed out without a result yet. "
            f"Finish it with: {resume_command(view.run)}"
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
    scored = {canonical(r.candidate) for r in view.scored}
    searching = any(map(is_searched, view.scored))
    if len(scored) == 1 and not searching:
        if len(view.facts.planned) == 1 and _speaks_of_space(view):
            yield "The space holds one distinguishable candidate: there was nothing to choose from."
        else:
            yield "Only one candidate was scored, so nothing was compared."
    elif len({r.rf_px for r in view.scored}) == 1 and len(view.scored) > 1:
        text = f"All {len(scored)} scored candidates have the same receptive field of {winner.rf_px:,} px"
        yield f"{text}: the space holds no other one." if _speaks_of_space(view) else f"{text}."
    elif len(scored) > 1 and len({(r.val, view.score(r)) for r in view.scored}) == 1:
        yield f"All {len(scored)} scored candidates score the same: this data cannot tell them apart."
    else:
        tied = {canonical(r.candidate) for r in view.scored if r.val == winner.val} - {canonical(winner.candidate)}
        if tied:
            others = counted(len(tied), "other candidate")
            yield f"{others} reached the same validation score: a tie, of which the first one is shown."


def warn_of_edge(view: RunView, best: Record) -> Iterator[str]:
    """Warn that the recommended dilation is the largest or the smallest of the space."""
    dilations, known = view.facts.dilations, best.ended
    if len(dilations) < 2 or known is None or not _speaks_of_space(view):
        return
    moved = factors(best)
    for end, word, beyond in ((dilations[-1], "largest", "larger"), (dilations[0], "smallest", "smaller")):
        sites = [
            site
            for site, path in known
            if path.choice.numbers.get("dilation", path.choice.whole_dilation) == end
            and _reaches_beyond(moved, site, beyond)
        ]
        if sites and not (end == 1 and beyond == "smaller"):
            yield (
                f"The recommended dilation, {end} at {listing(sites)}, is the {word} that was searched: "
                f"the optimum may lie beyond; search {beyond} ones."
            )
        elif sites:
            yield f"The recommended dilation at {listing(sites)} is 1, the smallest there is."


def _speaks_of_space(view: RunView) -> bool:
    """Return whether a run saw enough of its space to speak of it.

    It has several arms, is finished, and one of its trials was scored for each candidate that was planned.
    """
    if len(view.arms) < 2 or view.run.running or view.run.unfinished:
        return False
    scored = {canonical(r.candidate) for r in view.scored}
    return bool(view.facts.planned) and view.facts.planned <= scored


def warn_of_weak_score(view: RunView, best: Record) -> Iterator[str]:
    """Warn of a recommended training that was cut, and of scores that are not test scores."""
    if best.status == "cut":
        yield "Its training was cut by the end of the budget: its score is that of a training not run to its end."
    if view.split == "test" and view.score(best) is None:
        yield "It has no test score; its validation score is shown instead."
    elif view.split == "val":
        yield "There are no test scores: the score that chose the winner is also the one reported, which flatters it."


def _reaches_beyond(moved: Mapping[str, float], site: str, beyond: str) -> bool:
    """Return whether a site's inflation factor leaves its receptive field at or beyond that of its dilation."""
    f = moved.get(site, 1.0)
    return f <= 1.0 + AT_START if beyond == "larger" else f >= 1.0 - AT_START
