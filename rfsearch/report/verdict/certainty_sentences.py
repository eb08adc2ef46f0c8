"""Sentences that say how sure the verdict is: over seeds, against noise, over repeated searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rfsearch.choices import Choice
from rfsearch.ledger import Record, incumbent
from rfsearch.ledger.record import parsed
from rfsearch.numbers import counted, number, score
from rfsearch.report.statistics import (
    SEEDS_FOR_A_TEST,
    bootstrap_interval,
    holm,
    probability_of_improvement,
    wilcoxon_p,
)
from rfsearch.report.verdict.phrases import better_or_worse, gain, known_scores, mean
from rfsearch.report.view import RunView, setting_of
from rfsearch.report.wording import listing


def compare_over_seeds(view: RunView, winner: Record) -> Iterator[str]:
    """Say what the seeds tell: an interval, the probability of improvement, a test where seeds suffice."""
    finals = {strategy: view.finals(strategy) for strategy in view.strategies}
    ours = finals.get(winner.strategy, {})
    if max((len(f) for f in finals.values()), default=0) < 2:
        yield "One seed carries no interval: whether another seed would rank the strategies the same way is unknown."
        return
    others = {s: f for s, f in finals.items() if s != winner.strategy and f}
    if len(view.strategies) == 1 and len(ours) > 1:
        low, high = bootstrap_interval(list(ours.values()))
        yield (
            f"Over {len(ours)} seeds {winner.strategy} ended at {score(mean(list(ours.values())))} "
            f"(95 % bootstrap interval {score(low)} to {score(high)})."
        )
    if ours and others:
        chances = [
            f"{s} {number(probability_of_improvement(view.merits(ours.values()), view.merits(f.values())), 2)}"
            for s, f in others.items()
        ]
        side = "above" if view.run.direction == "maximize" else "below"
        yield f"Probability that {winner.strategy} ends {side}, on a random pair of seeds: {listing(chances)}."
    paired = {s: [(ours[k], f[k]) for k in ours if k in f] for s, f in others.items()}
    tested = {s: pairs for s, pairs in paired.items() if len(pairs) >= SEEDS_FOR_A_TEST}
    if tested:
        raw = [wilcoxon_p([a for a, _ in pairs], [b for _, b in pairs]) for pairs in tested.values()]
        results = listing([f"{s} p = {number(p, 2)}" for s, p in zip(tested, holm(raw), strict=True)])
        corrected = ", corrected by Holm" if len(tested) > 1 else ""
        yield f"Wilcoxon's signed-rank test of {winner.strategy} against {results} (pairs of seeds{corrected})."
    if len(tested) < len(others):
        seeds = counted(len(view.seeds), "seed")
        yield f"With fewer than {SEEDS_FOR_A_TEST} paired seeds ({seeds} here) no test was made."


def compare_with_noise(view: RunView, winner: Record) -> Iterator[str]:
    """Hold the winner's lead over its rivals against the noise between trainings of one candidate."""
    if view.noise is None:
        yield "How much a score varies from one training to the next is unknown: no candidate was trained twice."
        return
    yield (
        f"Trainings of one candidate under different seeds differ by {number(view.noise.std, 2)} "
        f"(pooled standard deviation of {view.noise.trainings} trainings of "
        f"{counted(view.noise.candidates, 'candidate')})."
    )
    ours = view.trainings(winner)
    rivals: list[tuple[str, Sequence[float]]] = []
    if view.defaults and not view.is_default(winner):
        rivals.append(("the hand default", known_scores(view, view.defaults)))
    runner_up = _runner_up(view, winner)
    if runner_up is not None and not view.is_default(runner_up):
        name = f"the runner-up ({setting_of(runner_up.candidate, runner_up)}, {runner_up.rf_px:,} px)"
        rivals.append((name, view.trainings(runner_up)))
    elif runner_up is not None and not rivals:
        rivals.append(("the runner-up, the hand default", view.trainings(runner_up)))
    for name, theirs in rivals:
        if not ours or not theirs:
            continue
        gap = gain(view, ours, theirs)
        least = view.noise.smallest_difference(len(ours), len(theirs))
        if abs(gap) <= least:
            yield (
                f"Against {name} the winner is {better_or_worse(gap)}: a difference within noise; "
                f"with so few trainings only a difference above {number(least, 2)} would mean anything."
            )
        elif gap > 0:
            yield f"Against {name} the winner is {better_or_worse(gap)}, larger than seed noise ({number(least, 2)})."
        else:
            yield (
                f"Against {name} the winner is {better_or_worse(gap)}, larger than seed noise ({number(least, 2)}): "
                "validation and test disagree."
            )


def count_found_dilations(view: RunView) -> Iterator[str]:
    """Say how often trainings that search their dilations found the same ones."""
    found: Counter[str] = Counter()
    for record in view.scored:
        known, end = parsed(record.candidate), record.ended
        if known and end and record.status == "completed" and known.searched:
            found[_whole_dilations([path.choice for _, path in end])] += 1
    if found.total() > 1:
        listed = listing([f"{times} found {dilations}" for dilations, times in found.most_common()])
        yield f"Of {found.total()} trainings that searched the dilation themselves, {listed}."


def _runner_up(view: RunView, winner: Record) -> Record | None:
    """Return the best scored trial with another receptive field than the winner's."""
    others = (r for r in view.scored if r.candidate != winner.candidate and r.rf_px != winner.rf_px)
    return incumbent(others, view.run.direction)


def _whole_dilations(choices: Sequence[Choice]) -> str:
    """Return the whole dilations next to those that a training found, in words."""
    near = any(choice.numbers.get("dilation") != choice.whole_dilation for choice in choices)
    return ("about " if near else "") + " | ".join(str(choice.whole_dilation or choice) for choice in choices)
