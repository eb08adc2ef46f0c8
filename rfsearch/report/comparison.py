"""Several runs side by side: which strategy ended where on each problem, and how they rank over all of them.

Runs of one problem, the same images, network and recipe, are put together as if they were one run whose arms are named
after their run where two runs have the same. Ranks of several problems are averaged. Nothing is compared that was not
given the same budget, or that is not scored on the same images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import mean

from rfsearch.errors import RequestError
from rfsearch.ledger import Run, read_run
from rfsearch.ledger.manifest import ArmName, Manifest
from rfsearch.ledger.typed_json import known
from rfsearch.report.facts import read_facts
from rfsearch.report.statistics import compare
from rfsearch.report.view import RunView, build_view
from rfsearch.report.wording import listing
from rfsearch.space import OwnSpace

_ALIKE = 0.01  # of a budget: what two of them may differ by and count as the same


@dataclass(frozen=True)
class Entry:
    """Hold how one strategy ended on one problem.

    Attributes:
        strategy: Its label.
        finals: Reported score of each seed's incumbent.
        mean: Their mean.
        rank: Its place, 1 for the best; strategies of equal means share the mean of their places.
        standing: Whether it can be told apart from the best one: `best`, `apart`, `alike` or `open`.
        spent: What its arms spent together, in the budget's currency.
    """

    strategy: str
    finals: Mapping[int, float]
    mean: float
    rank: float
    standing: str
    spent: float


@dataclass(frozen=True)
class Problem:
    """Hold what several runs have tried on the same images with the same network and recipe.

    Attributes:
        name: Its name on the page, unlike any other one's.
        runs: Names of its runs.
        commands: What started them, as far as that is known.
        view: Their records together.
    """

    name: str
    runs: tuple[str, ...]
    commands: tuple[str, ...]
    view: RunView

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Its strategies, the best first; without those that ended without a score."""
        view = self.view
        finals = {s: found for s in view.strategies if (found := view.finals(s))}
        merits = {s: view.merits(found.values()) for s, found in finals.items()}
        levels = {s: mean(values) for s, values in merits.items()}
        order = sorted(levels, key=lambda s: -levels[s])
        return tuple(
            Entry(
                strategy=s,
                finals=finals[s],
                mean=mean(finals[s].values()),
                rank=_rank(levels[s], list(levels.values())),
                standing="best" if s == order[0] else compare(merits[order[0]], merits[s]).standing,
                spent=sum(float(getattr(a.spent, view.facts.currency)) for a in view.arms if a.strategy == s),
            )
            for s in order
        )


@dataclass(frozen=True)
class Comparison:
    """Hold several runs, by problem.

    Attributes:
        problems: The problems, in the order in which the runs were named.

    Example:
        >>> Comparison(problems=()).mean_ranks
        {}
    """

    problems: tuple[Problem, ...]

    @cached_property
    def mean_ranks(self) -> dict[str, float]:
        """Mean rank over all problems, among the strategies that were scored on each of them, by rising rank."""
        everywhere = [{e.strategy for e in problem.entries} for problem in self.problems]
        shared = set.intersection(*everywhere) if everywhere else set()
        ranks: dict[str, list[float]] = {}
        for problem in self.problems:
            levels = {e.strategy: e for e in problem.entries if e.strategy in shared}
            merits = dict(zip(levels, problem.view.merits(e.mean for e in levels.values()), strict=True))
            for strategy in levels:
                ranks.setdefault(strategy, []).append(_rank(merits[strategy], list(merits.values())))
        return dict(sorted(((s, mean(values)) for s, values in ranks.items()), key=lambda pair: (pair[1], pair[0])))


def _rank(level: float, levels: Sequence[float]) -> float:
    """Return a place among merits, 1 for the highest; equals share the mean of their places."""
    above, equal = sum(other > level for other in levels), sum(other == level for other in levels)
    return above + (equal + 1) / 2


def compare_runs(run_dirs: Sequence[Path]) -> Comparison:
    """Read several runs and put them side by side.

    Raises:
        RequestError: There are fewer than two, one is named twice, or their budgets or splits differ.
        RunDirectoryError: One of them is no run, or is damaged.
    """
    if len(run_dirs) < 2:
        raise RequestError(f"a comparison is of two runs or more. Got {len(run_dirs)}. One alone: rfsearch report RUN.")
    places = [path.resolve() for path in run_dirs]
    if twice := [str(path) for path, place in zip(run_dirs, places, strict=True) if places.count(place) > 1]:
        raise RequestError(f"a comparison names each run once. Got {listing(sorted(set(twice)))} twice.")
    runs = [read_run(path) for path in run_dirs]
    names = _names(places)
    if replayed := [name for name, run in zip(names, runs, strict=True) if read_facts(run.manifest).replayed]:
        raise RequestError(
            f"a comparison is of trainings. {listing(replayed)} looked theirs up in another run: compare that one."
        )
    _require_same_budgets(runs, names)
    groups = _by_problem(runs)
    _require_same_splits(runs, names)
    problems = []
    for members in groups:
        own, named = [runs[k] for k in members], tuple(names[k] for k in members)
        merged, commands = _merged(own, named), (known(run.manifest.command, "") for run in own)
        problems.append(Problem(_title(merged), named, tuple(filter(None, commands)), build_view(merged)))
    full = [_title(runs[members[0]], in_full=True) for members in groups]
    return Comparison(tuple(_told_apart(problems, full)))


def _names(places: Sequence[Path]) -> list[str]:
    """Return a name for each directory: its own, or as much of its path as tells it apart from the others."""
    names = [place.name for place in places]
    return [place.name if names.count(place.name) == 1 else str(place) for place in places]


def _require_same_budgets(runs: Sequence[Run], names: Sequence[str]) -> None:
    """Check that all arms had the same: the same amount, or the same multiple of their own reference training.

    Raises:
        RequestError: They had not, or a manifest does not say.
    """
    first = _budget(runs[0], names[0])
    for run, name in zip(runs[1:], names[1:], strict=True):
        own = _budget(run, name)
        if own.currency != first.currency or not any(
            a is not None and b is not None and abs(a - b) <= _ALIKE * a
            for a, b in ((first.limit, own.limit), (first.trainings, own.trainings))
        ):
            raise RequestError(
                f"strategies are compared on equal budgets. Got {first.text} of each arm in {names[0]} and "
                f"{own.text} in {name}. Run one of them again with --budget {first.text}."
            )


@dataclass(frozen=True)
class _Budget:
    """Hold what each arm of a run may spend, in its currency and, of FLOP, in reference trainings."""

    text: str
    currency: str
    limit: float
    trainings: float | None


def _budget(run: Run, name: str) -> _Budget:
    budget = run.manifest.budget
    limit, reference = known(budget.limit, None), known(budget.reference_flop, None)
    if not limit:
        raise RequestError(f"{name}: its manifest does not say what its arms may spend, so it cannot be compared.")
    currency = known(budget.currency, "flop")
    trainings = limit / reference if currency == "flop" and reference else None
    return _Budget(known(budget.text, "") or f"{limit:g} {currency}", currency, limit, trainings)


def _require_same_splits(runs: Sequence[Run], names: Sequence[str]) -> None:
    """Check that runs on the same data had the same images in each split, and that all report on the same one.

    Raises:
        RequestError: They had not, or do not.
    """
    seen: dict[str, tuple[str, str, Mapping[str, int]]] = {}
    for run, name in zip(runs, names, strict=True):
        data = run.manifest.data
        called, mark, splits = known(data.name, ""), known(data.fingerprint, ""), known(data.splits, {})
        if called and called in seen:
            other, other_mark, other_splits = seen[called]
            if dict(splits) != dict(other_splits):
                raise RequestError(
                    f"{called} is split differently: {_split_words(other_splits)} in {other}, "
                    f"{_split_words(splits)} in {name}. Scores on other images cannot be compared."
                )
            if mark != other_mark:
                raise RequestError(
                    f"the images of {called} are not the same in {other} and in {name}: their fingerprints are "
                    f"{other_mark[:12]} and {mark[:12]}. Scores on other images cannot be compared."
                )
        elif called:
            seen[called] = name, mark, splits
    reported = {name: build_view(run).split for name, run in zip(names, runs, strict=True) if run.records}
    if len(set(reported.values())) > 1:
        by_split = {split: [n for n, s in reported.items() if s == split] for split in ("test", "val")}
        raise RequestError(
            f"{listing(by_split['test'])} reports on test images, {listing(by_split['val'])} on validation images, "
            "which chose the winner and flatter it. They cannot be compared."
        )


def _split_words(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in splits.items()) or "unknown"


def _by_problem(runs: Sequence[Run]) -> list[list[int]]:
    """Return the places of the runs of each problem, in the order in which they were named."""
    groups: list[list[int]] = []
    for k, run in enumerate(runs):
        alike = (
            members
            for members in groups
            if _identity(runs[members[0]]) == _identity(run) and _same_network(runs[members[0]].manifest, run.manifest)
        )
        if members := next(alike, None):
            members.append(k)
        else:
            groups.append([k])
    return groups


def _identity(run: Run) -> str:
    """Return what makes a problem beside its network: its images, its score and how trainings are done."""
    manifest = run.manifest
    space = manifest.space
    resolved = known(manifest.resolved_space, None)
    if isinstance(resolved, OwnSpace):
        length = resolved.length
        how: object = [resolved.name, (length.epochs, length.steps) if length else None]
    else:
        how = resolved.model_dump(mode="json").get("recipe") if resolved is not None else None
    parts = [known(manifest.data.fingerprint, ""), known(space.sites, ()),
             known(space.primary, "") or known(space.metric, ""), known(space.image_size, ()), how]  # fmt: skip
    return json.dumps(parts, default=str)


def _same_network(one: Manifest, other: Manifest) -> bool:
    """Return whether two runs trained the same network, however it was named.

    A function of a user's is `__main__:make` to the script that it is in, and `path/to/file.py:make` to the shell. It
    is the same where the tensors of its networks are and its file is, by its path or by what is in it.
    """
    place, other_place = _place(one), _place(other)
    network, other_network = known(one.network, None), known(other.network, None)
    if network is None or other_network is None:
        return place == other_place
    if network.tensors != other_network.tensors:
        return False
    files, other_files = set(network.users_files.values()), set(other_network.users_files.values())
    called, other_called = place.rpartition(":")[2], other_place.rpartition(":")[2]
    return place == other_place or (called == other_called and bool(files) and files == other_files)


def _place(manifest: Manifest) -> str:
    """Return where a run's network comes from: its SPEC, with the path of its file where that is the user's."""
    spec, network = known(manifest.space.backbone, ""), known(manifest.network, None)
    file = next(iter(network.users_files), "") if network and ":" in spec else ""
    return f"{file}:{spec.rpartition(':')[2]}" if file else spec


def _title(run: Run, in_full: bool = False) -> str:
    """Return a name for the problem of a run: its data and its network, whose file is named without its folder."""
    file, colon, attribute = _place(run.manifest).rpartition(":")
    if not in_full and file.endswith(".py"):
        file = Path(file).name
    return ", ".join(filter(None, (known(run.manifest.data.name, ""), f"{file}{colon}{attribute}"))) or "a problem"


def _told_apart(problems: Sequence[Problem], full: Sequence[str]) -> list[Problem]:
    """Return problems whose names differ: by their full names, or by their runs where these are the same too.

    Args:
        problems: The problems.
        full: Name of each, with the folder of its network's file.
    """
    short = [problem.name for problem in problems]
    names = [whole if short.count(name) > 1 else name for name, whole in zip(short, full, strict=True)]
    return [
        replace(p, name=f"{name} ({listing(list(p.runs))})" if names.count(name) > 1 else name)
        for p, name in zip(problems, names, strict=True)
    ]


def _merged(runs: Sequence[Run], names: Sequence[str]) -> Run:
    """Return runs of one problem as one; strategies that several of them have are named after their run."""
    if len(runs) == 1:
        return runs[0]
    owners: dict[str, set[str]] = {}
    for run, name in zip(runs, names, strict=True):
        for strategy in {arm.strategy for arm in build_view(run).arms}:
            owners.setdefault(strategy, set()).add(name)
    arms, records = [], []
    for run, name in zip(runs, names, strict=True):
        view = build_view(run)
        label = {s: s if len(owners[s]) == 1 else f"{s} ({name})" for s in view.strategies}
        arms += [ArmName(label[arm.strategy], arm.seed) for arm in view.arms]
        records += [
            replace(
                r,
                trial=f"{name}/{r.trial}",
                strategy=label[r.strategy],
                heir_of=f"{name}/{r.heir_of}" if r.heir_of else "",
            )
            for r in run.records
        ]
    manifest = replace(runs[0].manifest, arms=tuple(arms), notices=())
    unfinished = sum(run.unfinished for run in runs)
    return replace(runs[0], manifest=manifest, records=tuple(records), unfinished=unfinished, ends={})
