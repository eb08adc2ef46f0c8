"""The verdict of a run in plain sentences: what won, at which price, how sure that is, and how to use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rfsearch.ledger import Cost, Record, Run, incumbent
from rfsearch.ledger.record import parsed
from rfsearch.report.digest import (
    NEVER_LEFT,
    Digest,
    Motion,
    digest,
    factors,
    has_moved,
    motions,
    sampling_of,
    setting_of,
)
from rfsearch.report.facts import canonical
from rfsearch.report.latency import winners_latency
from rfsearch.report.statistics import (
    SEEDS_FOR_A_TEST,
    bootstrap_interval,
    holm,
    probability_of_improvement,
    trained,
    wilcoxon_p,
)
from rfsearch.report.wording import (
    amount,
    counted,
    finite,
    listing,
    multiple,
    number,
    percent,
    plain,
    prefixed,
    score,
)
from rfsearch.space.choice import Candidate, Choice


@dataclass(frozen=True)
class Setting:
    """How to put a candidate into a plain model. plain: a line a site; code: in PyTorch; note: what is lost."""

    plain: tuple[str, ...]
    code: str
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """headline: what won. findings: price and comparisons. certainty: how sure. warnings: what to keep in mind.

    best: the winning trial, chosen on validation; None where no trial was scored, and then setting is None too.
    """

    headline: str
    findings: tuple[str, ...] = ()
    certainty: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    setting: Setting | None = None
    best: Record | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        return (self.headline, *self.findings, *self.certainty, *self.warnings)

    def __str__(self) -> str:
        return " ".join(self.sentences)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise(run: Run) -> Verdict:
    """The verdict of a run, finished or not."""
    return verdict_of(digest(run))


def verdict_of(told: Digest) -> Verdict:
    winner = told.winner
    if winner is None:
        return Verdict(_nothing_scored(told), warnings=tuple(_unfinished(told)))
    return Verdict(
        headline=_headline(told, winner),
        findings=(
            *_price(told, winner),
            *_against_default(told, winner),
            *winners_latency(told, winner),
            *_against_strategies(told, winner),
        ),
        certainty=(*_finds(told), *_seeds(told, winner), *_noise(told, winner)),
        warnings=(
            *_unfinished(told),
            *_failures(told),
            *_one_candidate(told, winner),
            *_edge(told, winner),
            *_learned(told, winner),
            *_short(told, winner),
        ),
        setting=_setting(told, winner),
        best=winner,
    )


def _nothing_scored(told: Digest) -> str:
    if not told.records:
        return "No trial has finished yet, so there is nothing to report."
    statuses = Counter(r.status for r in told.records)
    listed = listing([f"{count} {status}" for status, count in statuses.items()])
    causes = Counter(r.cause for r in told.records if r.cause).most_common(1)
    why = f" The most frequent cause: {_sentence(causes[0][0])}" if causes else ""
    return f"No trial was scored, so no receptive field won: {counted(len(told.records), 'trial')}, {listed}.{why}"


def _headline(told: Digest, winner: Record) -> str:
    setting = setting_of(winner.candidate, winner)
    if has_moved(winner):
        field = f"a receptive field of {winner.rf_px:,} px, moved there from {winner.rf_init_px:,} px"
    else:
        field = f"a receptive field of {winner.rf_px:,} px"
    value, on = _reported(told, winner)
    chosen = f"; chosen on validation, {score(winner.val)}" if on == "test" else ""
    return (
        f"{_start(setting)} won, {field}. It scored {score(value)} on the {_split(on)} {_data(told)} "
        f"({told.facts.metric}{chosen}). Found by {winner.strategy}."
    )


def _data(told: Digest) -> str:
    name = told.facts.data
    if not told.facts.rendered:
        return f"images of {name}" if name else "images"
    if "rendered" in name.lower():
        return f"images of {name.replace('-', ' ')}, which are drawings and no photographs"
    return f"images of {name or 'the data set'}, which are rendered: drawings and no photographs"


def _price(told: Digest, winner: Record) -> Iterator[str]:
    arm = next(a for a in told.arms if winner in a.records)
    until = arm.spent_until(winner)
    what = f"training, on from {winner.heir_of}," if winner.heir_of else "training"
    yield (
        f"Its {what} cost {_cost(told, winner.cost)}. With everything it had tried before, {arm.strategy} "
        f"had spent {_cost(told, until)} when it came in."
    )
    if len(told.records) > len(arm.records):
        total = sum((a.spent for a in told.arms), Cost())
        yield f"All {counted(len(told.arms), 'arm')} together spent {_cost(told, total)}."


def _cost(told: Digest, cost: Cost) -> str:
    flop, held = prefixed(cost.flop, "FLOP"), amount(cost.device_s, "device_s")
    if told.facts.reference_flop is None:
        return f"{flop} and {held} of device time"
    times = multiple(cost.flop / told.facts.reference_flop)
    return f"{flop} ({times} one reference training) and {held} of device time"


def _against_default(told: Digest, winner: Record) -> Iterator[str]:
    reference, defaults = told.facts.reference, told.defaults
    if reference is None:
        return
    if told.is_default(winner):
        others = {r.candidate for r in told.scored} - {winner.candidate}
        if others:
            yield f"This is the hand default itself: none of {counted(len(others), 'other candidate')} beat it."
        else:
            yield "This is the hand default itself."
        return
    if not defaults:
        yield (
            f"The hand default ({setting_of(reference)}) has no scored trial in this run, "
            "so what was gained over it is unknown."
        )
        return
    ours, theirs = told.trainings(winner), _scores(told, defaults)
    if not ours or not theirs:
        yield f"The hand default ({setting_of(reference)}) has no {_split(told.split)} score to compare with."
        return
    over = f" (mean of {len(theirs)} trainings)" if len(theirs) > 1 else ""
    mine = f", {score(_mean(ours))} as the mean of its {len(ours)} trainings," if len(ours) > 1 else ""
    yield (
        f"The hand default ({setting_of(reference)}, {defaults[0].rf_px:,} px) reached {score(_mean(theirs))}{over}: "
        f"the winner{mine} is {_by(_mean(ours) - _mean(theirs))}."
    )
    if defaults[0].rf_px == winner.rf_px:
        yield "Both have the same receptive field."


def _against_strategies(told: Digest, winner: Record) -> Iterator[str]:
    if len(told.strategies) < 2:
        return
    ends, silent = [], []
    for strategy in told.strategies:
        finals = list(told.finals(strategy).values())
        if not finals:
            silent.append(strategy)
            continue
        text = f"{strategy} {score(_mean(finals))}"
        if len(finals) > 1:
            low, high = bootstrap_interval(finals)
            text += f" ({score(low)} to {score(high)})"
        ends.append((_mean(finals), strategy, text))
    several = any(len(told.finals(s)) > 1 for s in told.strategies)
    what = "mean over seeds, with its 95 % bootstrap interval" if several else "one seed each"
    ends.sort(key=lambda end: -end[0])
    if ends:
        ranking = listing([text for _, _, text in ends])
        yield f"Where each strategy ended on the {_split(told.split)} images ({what}): {ranking}."
    if silent:
        yield f"{_start(listing(silent))} ended without a scored trial."
    if several and ends and ends[0][1] != winner.strategy:
        yield f"Over seeds {ends[0][1]} ends highest, though {winner.strategy} found the single best trial."


def _seeds(told: Digest, winner: Record) -> Iterator[str]:
    finals = {strategy: told.finals(strategy) for strategy in told.strategies}
    ours = finals.get(winner.strategy, {})
    if max((len(f) for f in finals.values()), default=0) < 2:
        yield "One seed carries no interval: whether another seed would rank the strategies alike is not known."
        return
    others = {s: f for s, f in finals.items() if s != winner.strategy and f}
    if len(told.strategies) == 1 and len(ours) > 1:
        low, high = bootstrap_interval(list(ours.values()))
        yield (
            f"Over {len(ours)} seeds {winner.strategy} ended at {score(_mean(list(ours.values())))} "
            f"(95 % bootstrap interval {score(low)} to {score(high)})."
        )
    if ours and others:
        chances = [
            f"{s} {number(probability_of_improvement(list(ours.values()), list(f.values())), 2)}"
            for s, f in others.items()
        ]
        yield f"Probability that {winner.strategy} ends above, on a random pair of seeds: {listing(chances)}."
    paired = {s: [(ours[k], f[k]) for k in ours if k in f] for s, f in others.items()}
    tested = {s: pairs for s, pairs in paired.items() if len(pairs) >= SEEDS_FOR_A_TEST}
    if tested:
        raw = [wilcoxon_p([a for a, _ in pairs], [b for _, b in pairs]) for pairs in tested.values()]
        results = listing([f"{s} p = {number(p, 2)}" for s, p in zip(tested, holm(raw), strict=True)])
        corrected = ", corrected by Holm" if len(tested) > 1 else ""
        yield f"Wilcoxon's signed-rank test of {winner.strategy} against {results} (pairs of seeds{corrected})."
    if len(tested) < len(others):
        seeds = counted(len(told.seeds), "seed")
        yield f"With fewer than {SEEDS_FOR_A_TEST} paired seeds ({seeds} here) no test was made."


def _noise(told: Digest, winner: Record) -> Iterator[str]:
    if told.noise is None:
        yield "How much a score varies from one training to the next is unknown: no candidate was trained twice."
        return
    yield (
        f"Trainings of one candidate under different seeds differ by {number(told.noise.std, 2)} "
        f"(pooled standard deviation of {told.noise.trainings} trainings of "
        f"{counted(told.noise.candidates, 'candidate')})."
    )
    ours = told.trainings(winner)
    rivals: list[tuple[str, Sequence[float]]] = []
    if told.defaults and not told.is_default(winner):
        rivals.append(("the hand default", _scores(told, told.defaults)))
    runner_up = _runner_up(told, winner)
    if runner_up is not None and not told.is_default(runner_up):
        name = f"the runner-up ({setting_of(runner_up.candidate, runner_up)}, {runner_up.rf_px:,} px)"
        rivals.append((name, told.trainings(runner_up)))
    elif runner_up is not None and not rivals:
        rivals.append(("the runner-up, the hand default", told.trainings(runner_up)))
    for name, theirs in rivals:
        if not ours or not theirs:
            continue
        gap = _mean(ours) - _mean(theirs)
        least = told.noise.smallest_difference(len(ours), len(theirs))
        if abs(gap) <= least:
            yield (
                f"Against {name} the winner is {_by(gap)}: a difference within noise; "
                f"with so few trainings only differences above {number(least, 2)} tell."
            )
        elif gap > 0:
            yield f"Against {name} the winner is {_by(gap)}, more than noise makes ({number(least, 2)})."
        else:
            yield (
                f"Against {name} the winner is {_by(gap)}, more than noise makes ({number(least, 2)}): "
                "validation and test disagree."
            )


def _runner_up(told: Digest, winner: Record) -> Record | None:
    """The best scored trial with another receptive field."""
    return incumbent(r for r in told.scored if r.candidate != winner.candidate and r.rf_px != winner.rf_px)


def _unfinished(told: Digest) -> Iterator[str]:
    if told.run.running:
        yield f"This run is running ({told.run.running}): this is what it has found so far."
    elif told.run.unfinished:
        yield (
            f"This run is unfinished: {counted(told.run.unfinished, 'trial')} handed out without a result yet. "
            f"Take it up again with: rfsearch resume {told.run.directory}"
        )
    idle = [f"{a.strategy} (seed {a.seed})" for a in told.arms if not a.records]
    if idle and told.records:
        yield f"No trial has finished yet in: {listing(idle)}."


def _failures(told: Digest) -> Iterator[str]:
    failed = [r for r in told.records if r.status == "failed"]
    if failed:
        cause, times = Counter(r.cause or "no cause recorded" for r in failed).most_common(1)[0]
        often = "" if times == len(failed) else f", most often ({times} of {len(failed)})"
        yield f"{counted(len(failed), 'trial')} of {len(told.records)} failed{often}: {_sentence(cause)}"


def _one_candidate(told: Digest, winner: Record) -> Iterator[str]:
    scored = {trained(r)[0] for r in told.scored}
    searching = any(choice.to_find for r in told.scored for _, choice in parsed(r.candidate) or ())
    if len(told.facts.planned) == len(scored) == 1 and not searching:
        yield "The space holds one distinguishable candidate: there was nothing to choose from."
    elif len(scored) == 1:
        yield "Only one candidate was scored, so nothing was compared."
    elif len({r.rf_px for r in told.scored}) == 1:
        yield (
            f"All {len(scored)} scored candidates have the same receptive field of {winner.rf_px:,} px: "
            "the space holds one distinguishable receptive field."
        )
    elif len({(r.val, told.score(r)) for r in told.scored}) == 1:
        yield f"All {len(scored)} scored candidates score the same: this data cannot tell them apart."
    else:
        tied = {trained(r)[0] for r in told.scored if r.val == winner.val} - {trained(winner)[0]}
        if tied:
            others = counted(len(tied), "other candidate")
            yield f"{others} reached the same validation score: a tie, of which the first one is named."


def _edge(told: Digest, winner: Record) -> Iterator[str]:
    dilations, known = told.facts.dilations, winner.ended
    if len(dilations) < 2 or known is None:
        return
    moved = factors(winner)
    for end, word, beyond in ((dilations[-1], "largest", "larger"), (dilations[0], "smallest", "smaller")):
        sites = [
            site
            for site, choice in known
            if choice.dilation == end and not choice.sampling and _outward(moved, site, beyond)
        ]
        if sites and not (end == 1 and beyond == "smaller"):
            yield (
                f"The best dilation, {end} at {listing(sites)}, is the {word} that was searched: "
                f"the optimum may lie beyond; search {beyond} ones."
            )
        elif sites:
            yield f"The best dilation at {listing(sites)} is 1, the smallest there is."


def _outward(moved: Mapping[str, float], site: str, beyond: str) -> bool:
    """Whether a site's inflation factor leaves its receptive field at or beyond that of its dilation."""
    f = moved.get(site, 1.0)
    return f <= 1.0 + NEVER_LEFT if beyond == "larger" else f >= 1.0 - NEVER_LEFT


def _finds(told: Digest) -> Iterator[str]:
    """How often trainings that search their dilations found the same ones."""
    found: Counter[str] = Counter()
    for record in told.scored:
        known, end = parsed(record.candidate), record.ended
        if known and end and record.status == "completed" and any(choice.to_find for _, choice in known):
            found[_about([choice for _, choice in end])] += 1
    if found.total() > 1:
        listed = listing([f"{times} found {dilations}" for dilations, times in found.most_common()])
        yield f"Of {found.total()} trainings that searched the dilation themselves, {listed}."


def _about(choices: Sequence[Choice]) -> str:
    """The whole dilations next to what a training found."""
    near = any(choice.spacing != choice.dilation for choice in choices)
    return ("about " if near else "") + " | ".join(str(choice.dilation) for choice in choices)


def _learned(told: Digest, winner: Record) -> Iterator[str]:
    for letter in ("f", "γ"):
        moved = {r.trial: [m for m in motions(r, told.facts) if m.letter == letter] for r in told.scored}
        yield from _of_letter(letter, {trial: ms for trial, ms in moved.items() if ms}, winner)


def _of_letter(letter: str, moved: Mapping[str, Sequence[Motion]], winner: Record) -> Iterator[str]:
    """What became of the learned factors or strides. moved: of each trial, a motion a path."""
    ours = moved.get(winner.trial, ())
    own = "its dilation was given" if letter == "f" else "its sample stride was given"
    if ours and all(m.still for m in ours):
        yield (
            f"The winner's learned {letter} never left its start (less than {percent(NEVER_LEFT, 1)} away): "
            f"{own}, not learned."
        )
    if ends := sorted({m.bound for m in ours if m.bound}):
        yield (
            f"The winner's learned {letter} ended at its bound of {listing([plain(b) for b in ends])}: "
            "it was stopped there, not by the data."
        )
    still = [trial for trial, ms in moved.items() if all(m.still for m in ms)]
    if still and len(still) == len(moved):
        where = "The" if len(moved) == 1 else f"In all {len(moved)} trials the"
        yield f"{where} learned {letter} never left its start, so it tells nothing about the receptive field."
    elif still:
        yield f"In {len(still)} of {len(moved)} learned trials {letter} never left its start: {_trials(still)}."
    held = [trial for trial, ms in moved.items() if any(m.bound for m in ms)]
    if held:
        bounds = listing([plain(b) for b in sorted({m.bound for ms in moved.values() for m in ms if m.bound})])
        yield f"In {len(held)} of {len(moved)} learned trials {letter} ended at a bound ({bounds}): {_trials(held)}."


def _trials(names: Sequence[str]) -> str:
    return listing([*names[:4], *([f"{len(names) - 4} more"] if len(names) > 4 else [])])


def _short(told: Digest, winner: Record) -> Iterator[str]:
    if winner.status == "cut":
        yield "The winner was cut by the end of its budget: its score is that of a training not run to its end."
    if told.split == "test" and told.score(winner) is None:
        yield "The winner has no test score; its validation score is shown instead."
    elif told.split == "val":
        yield "There are no test scores: the score that chose the winner is also the one reported, which flatters it."


def _setting(told: Digest, winner: Record) -> Setting | None:
    known = winner.ended
    if known is None:
        return None
    if any(not isinstance(choice, Choice) or choice.sampling or choice.layer for _, choice in known.choices):
        return _built_setting(told, winner, known)
    moved = factors(winner)
    real = {site: choice.spacing for site, choice in known if choice.fractional}
    lines, code, nearest = [], ["from rfsearch.layers import FractionalConv2d", ""] * bool(real), {}
    for site, choice in known:
        f = moved.get(site, 1.0)
        dilation = max(1, round(choice.dilation / f))
        nearest[site] = Choice(dilation)
        module = _module(site)
        if site in real:
            lines.append(f"{site}: dilation {plain(real[site])}; nearest plain dilation {dilation}")
            layer = f"FractionalConv2d({module}, {real[site]:.4g}, learned=False)"
            code.append(f"model.set_submodule({site!r}, {layer})")
            continue
        lines.append(f"{site}: {_inflated(choice.dilation, f)}")
        code += [
            f"{module}.dilation = ({dilation}, {dilation})",
            f"{module}.padding = tuple({dilation} * (k // 2) for k in {module}.kernel_size)",
        ]
    notes = ["The padding keeps the map's size for odd kernels."] if len(real) < len(lines) else []
    if real:
        notes.append("A convolution at a real dilation costs little more than a plain one.")
    if moved or real:
        notes.append(_lost(told, Candidate.of(nearest)))
    return Setting(tuple(lines), "\n".join(code), " ".join(notes))


def _built_setting(told: Digest, winner: Record, known: Candidate) -> Setting:
    """Of a winner that no plain dilation can stand in for: parallel paths, a block behind a site or a layer in it."""
    moved, lines, starts = factors(winner), [], dict(parsed(winner.candidate) or known)
    for path, choice in known:
        spaced = f"dilation {plain(choice.spacing)}"
        parts = [spaced if choice.fractional else _inflated(choice.dilation, moved.get(path, 1.0))]
        if choice.layer:
            parts.append(f"with the layer {choice.layer}")
        if path in winner.path_rf_px:
            parts.append(f"{winner.path_rf_px[path]:,} px")
        if choice.sampling:
            parts.append(sampling_of(path, starts[path], winner))
        if choice.labels:
            parts.append(f"guided by {', '.join(choice.labels)}")
        lines.append(f"{path}: {', '.join(parts)}")
    code = f"import rfsearch\n\nmodel = rfsearch.trained({str(told.run.directory)!r}, {winner.trial!r})"
    return Setting(tuple(lines), code, "This is the trained network of the run, its paths and blocks in place.")


def _inflated(dilation: int, f: float) -> str:
    if f == 1.0:
        return f"dilation {dilation}"
    nearest = max(1, round(dilation / f))
    return (
        f"dilation {dilation} behind a map inflated by f = {plain(f)}; "
        f"nearest plain dilation {nearest} ({dilation} / {plain(f)} = {plain(dilation / f)})"
    )


def _lost(told: Digest, plain_candidate: Candidate) -> str:
    """What is known of the plain candidate that stands in for an inflated one."""
    text = plain_candidate.to_json()
    for record in told.scored:
        if canonical(record.candidate) == text:
            value, on = _reported(told, record)
            return f"The plain dilation was trained in this run too: {score(value)} on the {_split(on)} images."
    return "The plain dilation is the nearest one, not the same; it was not trained in this run."


def _module(site: str) -> str:
    parts = site.split(".")
    if all(part.isidentifier() for part in parts):
        return f"model.{site}"
    return f"model.get_submodule({site!r})"


def _reported(told: Digest, record: Record) -> tuple[float | None, str]:
    value = told.score(record)
    return (value, told.split) if value is not None else (finite(record.val), "val")


def _scores(told: Digest, records: tuple[Record, ...]) -> list[float]:
    found = [told.score(r) for r in records]
    return [value for value in found if value is not None]


def _split(split: str) -> str:
    return "validation" if split == "val" else split


def _by(difference: float) -> str:
    if difference == 0:
        return "equal to it"
    return f"{number(abs(difference), 2)} {'better' if difference > 0 else 'worse'}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    text = text if len(text) <= 240 else text[:237] + "..."
    return text if text.endswith((".", "!", "?", "...")) else text + "."
