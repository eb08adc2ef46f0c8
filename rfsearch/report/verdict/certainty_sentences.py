"""Sentences that say how sure the verdict is: over seeds, against noise, over repeated searches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rfsearch.ledger import Record
from rfsearch.ledger.record import parsed
from rfsearch.numbers import counted, number, plain
from rfsearch.report.contenders import Contender, found_dilations, group_finds, is_searched
from rfsearch.report.decision import Decision
from rfsearch.report.provenance import resume_command
from rfsearch.report.statistics import (
    SEEDS_FOR_A_TEST,
    SEEDS_FOR_AN_INTERVAL,
    compare,
    holm,
    mean,
    probability_of_improvement,
    wilcoxon_p,
)
from rfsearch.report.verdict.phrases import better_or_worse, name_lengths
from rfsearch.report.view import RunView, setting_of
from rfsearch.report.wording import listing

_MOST_GROUPS = 6  # of finds in one sentence


def compare_over_seeds(view: RunView) -> Iterator[str]:
    """Say what the seeds tell of the strategies: probabilities and a test, where seeds suffice."""
    finals = {strategy: found for strategy in view.strategies if (found := view.finals(strategy))}
    most = max((len(f) for f in finals.values()), default=0)
    if most < 2:
        yield "One seed carries no interval: whether another seed would rank the strategies the same way is unknown."
        return
    if view.facts.replayed:
        yield "The seeds of a replay look up the same trainings again: they carry no interval, probability or test."
        return
    leader = max(finals, key=lambda s: mean(view.merits(finals[s].values())))
    ours = finals[leader]
    others = {s: f for s, f in finals.items() if s != leader}
    if not others:
        return
    if most < SEEDS_FOR_AN_INTERVAL:
        yield f"{counted(most, 'seed')} carry no interval and no probability: the values are given instead."
        return
    enough = {s: f for s, f in others.items() if min(len(f), len(ours)) >= SEEDS_FOR_AN_INTERVAL}
    if enough:
        chances = [
            f"{s} {number(probability_of_improvement(view.merits(ours.values()), view.merits(f.values())), 2)}"
            for s, f in enough.items()
        ]
        side = "above" if view.run.direction == "maximize" else "below"
        yield f"Probability that {leader} ends {side}, on a random pair of seeds: {listing(chances)}."
    paired = {s: [(ours[k], f[k]) for k in ours if k in f] for s, f in others.items()}
    tested = {s: pairs for s, pairs in paired.items() if len(pairs) >= SEEDS_FOR_A_TEST}
    if tested:
        raw = [wilcoxon_p([a for a, _ in pairs], [b for _, b in pairs]) for pairs in tested.values()]
        results = listing([f"{s} p = {number(p, 2)}" for s, p in zip(tested, holm(raw), strict=True)])
        corrected = ", corrected by Holm" if len(tested) > 1 else ""
        yield f"Wilcoxon's signed-rank test of {leader} against {results} (pairs of seeds{corrected})."
    if len(tested) < len(others):
        seeds = counted(len(view.seeds), "seed")
        yield f"With fewer than {SEEDS_FOR_A_TEST} paired seeds ({seeds} here) no test was made."


def compare_with_runner_up(view: RunView, decision: Decision) -> Iterator[str]:
    """Hold the recommendation against the best candidate that noise does tell apart from it, or may."""
    ours = decision.recommended
    if all(not c.repeated for c in view.contenders):
        yield "How much a score varies from one training to the next is unknown: none was repeated with another seed."
        if not (view.facts.replayed or view.run.running or view.run.unfinished):
            yield f"To know it: {resume_command(view.run, confirm=3)}."
    known = {id(c) for c in (*decision.alike, decision.default, ours)}
    rest = [c for c in view.contenders if id(c) not in known]
    rest = [c for c in rest if c.best.rf_px != ours.best.rf_px or c.complexity != ours.complexity]
    if not rest:
        return
    level = {id(c): mean(view.merits([r.val or 0.0 for r in c.trained])) for c in rest}
    second = max(rest, key=lambda c: level[id(c)])
    found = compare(*(view.merits([r.val or 0.0 for r in c.trained]) for c in (ours, second)))
    besides = " besides the hand default" if decision.default not in (None, ours) else ""
    best = second.best
    name = f"Against the next best{besides}, {setting_of(best.candidate, best)} ({best.rf_px:,} px)"
    trained = _trainings_of(ours, second)
    where = f"on the validation images{name_lengths(ours, second)}"
    if found.least is None:
        yield f"{name}, it is {better_or_worse(found.gap)} {where}, in one training each."
        return
    how = {
        "apart": f"more than noise, which alone reaches {number(found.least, 2)} in 5 % of cases ({trained})",
        "alike": f"within noise, which alone reaches {number(found.least, 2)} in 5 % of cases ({trained})",
        "open": f"{trained} are too few to tell that from noise",
    }[found.standing]
    yield f"{name}, it is {better_or_worse(found.gap)} {where}: {how}."


def _trainings_of(ours: Contender, theirs: Contender) -> str:
    return f"{counted(len(ours.trained), 'training')} against {len(theirs.trained)}"


def count_found_dilations(view: RunView) -> Iterator[str]:
    """Say how often trainings that search their dilations found about the same ones."""
    by_paths: dict[int, dict[object, Record]] = {}  # a replay looks the same training up again and again
    for record in view.scored:
        known = parsed(record.candidate)
        if record.status == "completed" and known and record.ended and is_searched(record):
            training = record.candidate, record.train_seed, record.steps, record.outcome
            by_paths.setdefault(len(tuple(known)), {}).setdefault(training, record)
    for trainings in by_paths.values():
        records = [*trainings.values()]
        if len(records) > 1:
            groups = [f"{len(group)} found {_found_words(group)}" for group in group_finds(records, view.run.direction)]
            shown = groups if len(groups) <= _MOST_GROUPS else [*groups[:_MOST_GROUPS], "the others found others"]
            yield f"Of {len(records)} trainings that searched the dilation themselves, {listing(shown)}."


def _found_words(group: Sequence[Record]) -> str:
    """Return the dilations that a group of trainings found, path by path: 3.5 to 3.52 | 4."""
    words = []
    for values in zip(*map(found_dilations, group), strict=True):
        low, high = plain(min(values)), plain(max(values))
        words.append(low if low == high else f"{low} to {high}")
    return " | ".join(words)
