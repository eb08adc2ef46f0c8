"""The strategies of the peers: what all strategies keep to, in which order they try, and a run through Ray."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest
from rfsearch_peers.arms import SearchThenTrain
from rfsearch_peers.dash import Dash
from rfsearch_peers.dcls import LearnedGaussians, LearnedSpacings
from rfsearch_peers.deformable import Deformables
from rfsearch_peers.rfnext import RFNext, RFNextBranches, RFNextNarrow, RFNextSingle

from rfsearch import testing
from rfsearch.choices import Candidate, Dilated, Guest
from rfsearch.errors import RequestError
from rfsearch.ledger import Cost, Record, read_run
from rfsearch.space import Space
from rfsearch.strategies import Exhausted, Strategy
from tests.orchestration.runs import command, environment
from tests.peers.test_layers import needs
from tests.toys import helen_space, toy_file

STRATEGIES = [
    Deformables,
    Dash,
    pytest.param(LearnedSpacings, marks=needs("DCLS", "dcls")),
    pytest.param(LearnedGaussians, marks=needs("DCLS", "dcls")),
    *(
        pytest.param(strategy, marks=needs("mmcv", "mmcv-lite"))
        for strategy in (RFNext, RFNextSingle, RFNextBranches, RFNextNarrow)
    ),
]
SPACE = helen_space()  # dilations 1, 2, 3, 4, 6, 8, 11; 1 is the hand default


@pytest.mark.parametrize("check", testing.STRATEGY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_keeps_to_what_every_strategy_does(strategy, check) -> None:
    check(strategy, SPACE)


class Searching(SearchThenTrain):
    name, layer, searches_again = "searching", "tests.toys:same_layer", True


def of(space: Space, dilation: int, layer: str = "") -> Candidate:
    return space.uniform(Guest(dilation, layer) if layer else Dilated(dilation))


def tell(strategy: Strategy, candidate: Candidate, found: float, val: float, status: str = "completed") -> None:
    """Finish a trial; of a search, one that found a dilation."""
    ((path, _),) = candidate
    score = None if status == "failed" else val
    outcome = candidate.ended({path: found}).to_json()
    strategy.observe(
        Record("t", "s", 0, status, candidate.to_json(), 1, 1, Cost(1.0), outcome=outcome, val=score)  # type: ignore[arg-type]
    )


def test_it_searches_trains_what_was_found_and_searches_on_from_there() -> None:
    strategy, search = Searching(SPACE, 0), Searching.layer
    finds = {1: 5.2, 6: 6.4, 2: 11.0, 11: 9.0}  # from each start
    seen = []
    for _ in range(6):
        candidate = strategy.suggest([])
        assert isinstance(candidate, Candidate)
        ((_, path),) = candidate
        dilation, layer = path.choice.dilations[0], "".join(path.choice.specs)
        seen.append((dilation, layer))
        tell(strategy, candidate, finds.get(dilation, 3.0), 0.5)
    # 5.2 is next to 6; from 6 it finds 6 again, which has been trained: so another start, drawn by the seed.
    assert seen[:3] == [(1, search), (6, ""), (6, search)]
    other = seen[3][0]
    assert seen[3][1] == search
    assert other not in (1, 6)
    assert seen[4] == ({2: 11, 11: 8}.get(other, 3), "")


def test_once_all_starts_are_searched_the_leaders_are_repeated() -> None:
    strategy = Searching(SPACE, 1)
    scores = {4: 0.7, 8: 0.6}
    for number in range(30):
        candidate = strategy.suggest([])
        assert isinstance(candidate, Candidate)
        ((_, path),) = candidate
        dilation = path.choice.dilations[0]
        if number >= len(SPACE.dilations) + 2:  # seven searches, two findings
            break
        tell(strategy, candidate, 4.0 if dilation < 6 else 8.0, scores.get(dilation, 0.0))
    assert candidate == of(SPACE, 4)
    tell(strategy, candidate, 4.0, 0.7)
    assert strategy.suggest([]) == of(SPACE, 8)


def test_one_search_is_all_for_dash() -> None:
    strategy = Dash(SPACE, 0)
    first = strategy.suggest([])
    assert first == of(SPACE, 1, Dash.layer)
    assert isinstance(strategy.suggest([first]), Exhausted)
    tell(strategy, first, 8.0, 0.2)
    for _ in range(3):
        assert strategy.suggest([]) == of(SPACE, 8)
        tell(strategy, of(SPACE, 8), 8.0, 0.5)


def test_a_search_that_failed_found_nothing() -> None:
    strategy = Dash(SPACE, 0)
    tell(strategy, of(SPACE, 1, Dash.layer), 8.0, 0.2, "failed")
    assert strategy.suggest([]) == Exhausted("no search found what could be scored")


def test_sweeps_begin_at_the_hand_default_and_try_every_dilation() -> None:
    strategy = Deformables(SPACE, 0)
    seen = []
    for _ in SPACE.dilations:
        candidate = strategy.suggest([])
        assert isinstance(candidate, Candidate)
        seen.append(candidate)
        tell(strategy, candidate, 1.0, 0.5)
    assert seen[0] == of(SPACE, SPACE.reference, Deformables.layer)
    assert set(seen) == {of(SPACE, d, Deformables.layer) for d in SPACE.dilations}


@needs("DCLS", "dcls")
def test_a_layer_with_one_start_is_trained_from_there_only() -> None:
    strategy = LearnedGaussians(SPACE, 0)
    for _ in range(3):
        assert strategy.suggest([]) == of(SPACE, SPACE.reference, LearnedGaussians.layer)
        tell(strategy, of(SPACE, SPACE.reference, LearnedGaussians.layer), 1.0, 0.5)


@pytest.mark.parametrize(("strategy", "module"), [(LearnedSpacings, "DCLS"), (RFNext, "mmengine")])
def test_a_missing_package_is_reported_before_anything_is_trained(strategy, module, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(RequestError, match=rf"{strategy.name} calls .*{module} is not installed. Install it with: pip"):
        strategy(SPACE, 0)


@pytest.mark.slow
def test_a_run_searches_trains_and_reports(site: Path, tmp_path: Path) -> None:
    """Through Ray, from an installed package: one search and one plain training, both charged."""
    words = [
        "run",
        "--space",
        toy_file(tmp_path, budget="6x", steps=24),
        "--strategies",
        "dash",
        "--out",
        tmp_path / "run",
    ]
    env = {**environment(), "PYTHONPATH": str(site)}
    told = subprocess.run(command(*words), capture_output=True, text=True, env=env, timeout=300, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    search, plain = read_run(tmp_path / "run").records[:2]
    ((path, searching),) = Candidate.from_json(search.candidate)
    assert searching.choice.layer == Dash.layer
    found = search.found[path].found
    assert Candidate.from_json(plain.candidate) == Candidate({path: Dilated(round(found))})
    assert search.cost.flop > 1.5 * plain.cost.flop > 0
    assert f"{path} d={round(found)}" in told.stdout
    assert "(dash)" in (tmp_path / "run" / "report.html").read_text()
