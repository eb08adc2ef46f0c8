"""What every strategy keeps to: candidates of the space, no state but the records, an answer to every outcome."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import torch

from rfsearch import plugins
from rfsearch.choices import Candidate, Choice
from rfsearch.direction import Direction, merit
from rfsearch.errors import RfsearchError
from rfsearch.ledger import Cost, Record, Rung
from rfsearch.ledger.record import Status
from rfsearch.space import LSDFN, SearchSpace
from rfsearch.strategies import Describing, Description, Exhausted, Heir, Pruning, Relaying, Strategy
from rfsearch.testing.rules import hold, same

MakeStrategy = Callable[[SearchSpace, int], Strategy]

_TRIALS = 20
_STATUSES: tuple[Status, ...] = ("completed", "pruned", "cut", "failed")


def strategy_suggests_candidates_of_the_space(make: MakeStrategy, space: SearchSpace) -> None:
    """Check that a candidate names every site once, has the form's paths and the space's values, and survives JSON."""
    strategy = make(space, 0)
    hold(isinstance(strategy, Strategy), f"a strategy has suggest(pending) and observe(record). Got {strategy!r}")
    for candidate in _played(strategy, _TRIALS):
        _check_candidate(candidate, space)


def strategy_describes_what_it_tries_first(make: MakeStrategy, space: SearchSpace) -> None:
    """Check that what describes itself names candidates of the space, its first suggestion too, and keeps its state."""
    described, other = make(space, 0), make(space, 0)
    if not isinstance(described, Describing):
        return
    description = described.describe()
    hold(isinstance(description, Description), f"describe gives a Description. Got {description!r}")
    for candidate in description.candidates:
        hold(isinstance(candidate, Candidate), f"described candidates are Candidates. Got {candidate!r}")
        _check_candidate(candidate, space)
    first = _suggested(described, [])
    hold(first in description.candidates, f"the first suggestion is described. Got {first}, which is not")
    same(first, _suggested(other, []), "describe changes no state: the suggestions stay the same")
    hold(described.describe() == description, "describe gives the same description when it is asked again")


def strategy_repeats_itself(make: MakeStrategy, space: SearchSpace) -> None:
    """Check that one seed and the same observed records give one answer, whatever else draws random numbers."""
    seen = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)  # noqa: NPY002 (a strategy must not lean on the global generator)
        torch.manual_seed(other)
        seen.append(_played(make(space, 3), _TRIALS))
    same(seen[0], seen[1], "the same seed and the same records give the same suggestions")


def strategy_suggests_without_changing_its_state(make: MakeStrategy, space: SearchSpace) -> None:
    """Check that asking more often, or with other trials pending, does not change what comes later."""
    often, once = make(space, 0), make(space, 0)
    for number in range(_TRIALS):
        often.suggest([])
        often.suggest([space.default_candidate])
        same(often.suggest([]), once.suggest([]), "suggest changes no state: asking more often changes no suggestion")
        _told_next((once, often), number, _usual(once))


def strategy_resumes_by_replaying_records(make: MakeStrategy, space: SearchSpace) -> None:
    """Check that a strategy which only observes another one's records goes on as that one: nothing else is stored."""
    first, again = make(space, 0), make(space, 0)
    records = [_record(c, number, _usual(first)) for number, c in enumerate(_played(first, _TRIALS))]
    for record in records:
        again.observe(Record.from_json(record.to_json()))
    for number in range(len(records), len(records) + 3):
        answers = first.suggest([]), again.suggest([])
        same(*answers, "a strategy that observes the records of a run goes on as the run would have")
        _told_next((first, again), number, _usual(first))


def strategy_survives_every_outcome(make: MakeStrategy, space: SearchSpace) -> None:
    """Check that it takes completed, pruned, cut and failed trials in any order, diverged ones, and failures alone."""
    for order in (_STATUSES, _STATUSES[::-1], ("failed",)):
        _played(make(space, 0), _TRIALS, order)
    for status in _STATUSES[1:]:
        strategy = make(space, 0)
        _played(strategy, 3, (status,), val=math.nan)
        _suggested(strategy, [])


def strategy_takes_pending_trials_into_account(make: MakeStrategy, space: SearchSpace) -> None:
    """Check that it answers repeatably while others train, leaves the list alone, and takes results in any order."""
    strategy, pending = make(space, 0), list[Candidate]()
    for _ in range(4):
        before = list(pending)
        candidate = _suggested(strategy, pending)
        same(pending, before, "suggest leaves the list of pending candidates as it was")
        same(_suggested(strategy, tuple(pending)), candidate, "the same pending candidates give the same suggestion")
        if candidate is None:
            break
        pending.append(candidate)
    hold(bool(pending), "a strategy that has observed nothing yet has something to try. Got Exhausted")
    for number, candidate in enumerate(reversed(pending)):
        strategy.observe(_record(candidate, number))
        _suggested(strategy, pending[: len(pending) - number - 1])


def strategy_prunes_without_changing_its_state(make: MakeStrategy, space: SearchSpace) -> None:
    """Check that one that prunes answers plainly, and that no later suggestion depends on having been asked."""
    asked, unasked = make(space, 0), make(space, 0)
    if not isinstance(asked, Pruning):
        return
    for number in range(_TRIALS):
        candidate = _suggested(unasked, [])
        if candidate is None:
            return
        for rungs in ((), (_rung(0.1),), (_rung(math.nan),)):
            answer = asked.prune(candidate, rungs)
            hold(answer in (True, False), f"prune answers True or False. Got {answer!r}")
        same(_suggested(asked, []), candidate, "prune changes no state: the suggestions stay the same")
        _told_next((unasked, asked), number, _usual(asked))


def strategy_heeds_the_direction(make: MakeStrategy, space: SearchSpace) -> None:
    """Check that, where lower is better, it makes of negated scores what it makes of the scores where higher is."""
    seen = []
    for direction in get_args(Direction):
        strategy, candidates = make(space.with_(direction=direction), 0), list[Candidate]()
        while len(candidates) < _TRIALS and (candidate := _suggested(strategy, [])) is not None:
            record = _record(candidate, len(candidates), _usual(strategy))
            turned = merit(record.val or 0.0, direction)
            rungs = tuple(replace(rung, val=merit(rung.val, direction)) for rung in record.rungs)
            strategy.observe(replace(record, val=turned, rungs=rungs))
            candidates.append(candidate)
        seen.append(candidates)
    same(
        seen[1],
        seen[0],
        "space.direction says whether a higher or a lower score is better: negated where lower is, the "
        "same scores give the same suggestions",
    )


STRATEGY_CHECKS: tuple[Callable[[MakeStrategy, SearchSpace], None], ...] = (
    strategy_suggests_candidates_of_the_space,
    strategy_describes_what_it_tries_first,
    strategy_repeats_itself,
    strategy_suggests_without_changing_its_state,
    strategy_resumes_by_replaying_records,
    strategy_survives_every_outcome,
    strategy_takes_pending_trials_into_account,
    strategy_prunes_without_changing_its_state,
    strategy_heeds_the_direction,
)


def _check_candidate(candidate: Candidate, space: SearchSpace) -> None:
    hold(
        Candidate.from_json(candidate.to_json()) == candidate,
        f"a candidate survives JSON unchanged. Got {candidate}, read back as "
        f"{Candidate.from_json(candidate.to_json())}",
    )
    sites = tuple(site for site, _ in candidate.sites)
    hold(
        sites == tuple(sorted(space.sites)),
        f"a candidate names every site of the space once, {sorted(space.sites)}. Got {list(sites)}",
    )
    count = len(space.path_set.manual) if space.path_set else 1
    for site, paths in candidate.sites:
        hold(
            len(paths) == count,
            f"a site has {count} path(s) in the form {space.form!r}. {site} has {len(paths)}",
        )
        for path in paths:
            _check_choice(site, path.choice, space)


def _check_choice(site: str, choice: Choice, space: SearchSpace) -> None:
    if choice in space.choices:
        return
    for spec in choice.specs:
        try:
            plugins.named(spec, "layer")
        except RfsearchError as error:
            raise AssertionError(f"a layer is available under its SPEC. {error}") from error
    numbers = choice.numbers
    hold(
        ("gamma" in numbers) == (space.form == LSDFN),
        f"a site gets an LS-DFN block in the form {LSDFN!r} and in no other. Got {choice} at {site} in {space.form!r}",
    )
    if "gamma" not in numbers:
        allowed = sorted({*space.dilations, *(space.path_set.manual if space.path_set else ())})
        hold(
            "dilation" in numbers,
            f"a choice is one that the space lists, or has one of its dilations, {allowed}. {site} got {choice}",
        )
        dilation = numbers["dilation"]
        hold(dilation in allowed, f"a dilation is one of the space's, {allowed}. {site} got {dilation:g}")
        low, high = space.f_bounds if choice.moves == "f" else space.f_search
        f = numbers.get("f", 1.0)
        hold(
            low <= f <= high,
            f"f is within the space's {'f_bounds' if choice.moves == 'f' else 'f_search'}, [{low:g}, {high:g}]. "
            f"{site} got {f:g}",
        )
        return
    regions, gamma = space.sampling.regions, numbers["gamma"]
    hold(numbers["s"] in regions, f"s is one of the space's regions, {list(regions)}. {site} got {numbers['s']:g}")
    low, high = space.sampling.bounds
    hold(low <= gamma <= high, f"gamma is within the space's bounds, [{low:g}, {high:g}]. {site} got {gamma:g}")


def _played(strategy: Strategy, trials: int, order: Sequence[Status] = (), val: float | None = None) -> list[Candidate]:
    """Return the candidates of several trials in a row.

    Args:
        strategy: Suggests and observes them.
        trials: How many; there are fewer if the strategy ends.
        order: How they come back, in turns; without it as is usual for the strategy.
        val: Their score; without it that of a smooth landscape.
    """
    seen: list[Candidate] = []
    while len(seen) < trials:
        status = order[len(seen) % len(order)] if order else _usual(strategy)
        if (candidate := _told_next([strategy], len(seen), status, val)) is None:
            break
        seen.append(candidate)
    hold(bool(seen), "a strategy that has observed nothing yet has something to try. Got Exhausted")
    return seen


def _told_next(alike: Sequence[Strategy], number: int, status: Status, val: float | None = None) -> Candidate | None:
    """Let the first of these suggest a candidate, and all of them observe it as a finished trial."""
    candidate = _suggested(alike[0], [])
    if candidate is not None:
        for strategy in alike:
            strategy.observe(_record(candidate, number, status, val))
    return candidate


def _usual(strategy: Strategy) -> Status:
    """Return how a strategy's trials come back where nothing is wrong."""
    return "pruned" if isinstance(strategy, Relaying) else "completed"


def _suggested(strategy: Strategy, pending: Sequence[Candidate]) -> Candidate | None:
    """Return what a strategy suggests, None where it is exhausted; anything else breaks the contract."""
    answer = strategy.suggest(pending)
    if isinstance(answer, Exhausted):
        hold(bool(answer.why.strip()), "Exhausted says why in a sentence. Got an empty one")
        return None
    if isinstance(answer, Heir):
        awaited = strategy.awaited if isinstance(strategy, Relaying) else ()
        hold(answer.of in awaited, f"an heir is of a trial that the strategy awaits one of, {awaited}. Got {answer!r}")
        answer = answer.candidate
    hold(isinstance(answer, Candidate), f"suggest gives a Candidate, an Heir or Exhausted. Got {answer!r}")
    return answer


def _record(candidate: Candidate, number: int, status: Status = "completed", val: float | None = None) -> Record:
    """Return a finished trial. Without `val` its score is that of a smooth landscape, highest at a field of 5 px."""
    numbers = [path.choice.numbers for _, path in candidate]
    fields = [n["gamma"] * n["s"] if "gamma" in n else n.get("dilation", 1.0) / n.get("f", 1.0) for n in numbers]
    val = math.exp(-sum((math.log(field) - math.log(5)) ** 2 for field in fields)) if val is None else val
    return Record(
        trial=f"trial-{number:03d}",
        strategy="strategy",
        seed=0,
        status=status,
        candidate=candidate.to_json(),
        rf_px=1,
        rf_init_px=1,
        cost=Cost(1.0, 1.0, 1.0),
        val=None if status == "failed" else val,
        cause="the loss became nan" if status == "failed" else "",
        rungs=(_rung(val),),
    )


def _rung(val: float) -> Rung:
    return Rung(75, val, {}, Cost())
