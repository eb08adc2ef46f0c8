"""Every strategy that ships, on the contract: repeatable, stateless suggestions, and honest about what it was told."""

import math

import pytest

from rfsearch import plugins
from rfsearch.errors import SpaceError
from rfsearch.ledger import Cost, Record, Rung
from rfsearch.space import Candidate, Choice, read_space
from rfsearch.strategies import Exhausted, Pruning, Strategy
from rfsearch.strategies.bayesian import Bayesian
from rfsearch.strategies.random import RandomSearch

NAMES = plugins.names("strategies")
SPACE = read_space(plugins.space_file("helen"), None)


def score(candidate: Candidate) -> float:
    """A landscape with its top at a receptive field of 5 px of the map."""
    return math.exp(-sum((math.log(c.dilation / c.f) - math.log(5)) ** 2 for _, c in candidate))


def record(candidate: Candidate, number: int, status: str = "completed", val: float | None = None) -> Record:
    val = score(candidate) if val is None else val
    return Record(
        trial=f"t{number}",
        strategy="s",
        seed=0,
        status=status,
        candidate=candidate.to_json(),
        rf_px=1,
        rf_init_px=1,
        cost=Cost(1.0, 1.0, 1.0),
        val=None if status == "failed" else val,
        rungs=(Rung(75, val, {}, Cost()),),
    )


def made(name: str, seed: int = 0, space=SPACE) -> Strategy:
    return plugins.load("strategies", name)(space, seed)


def played(strategy: Strategy, trials: int) -> list[Candidate]:
    seen = []
    for number in range(trials):
        candidate = strategy.suggest(())
        assert isinstance(candidate, Candidate)
        strategy.observe(record(candidate, number))
        seen.append(candidate)
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_contract(name):
    assert isinstance(made(name), Strategy)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_and_records_give_the_same_suggestions(name):
    assert played(made(name, 3), 12) == played(made(name, 3), 12)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_another_order(name):
    assert len({tuple(played(made(name, seed), 6)) for seed in range(5)}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_suggesting_changes_no_state(name):
    asked_often, asked_once = made(name), made(name)
    for number in range(10):
        asked_often.suggest([SPACE.reference_candidate])
        candidate = asked_often.suggest(())
        assert asked_once.suggest(()) == candidate
        for strategy in (asked_often, asked_once):
            strategy.observe(record(candidate, number))


@pytest.mark.parametrize("name", NAMES)
def test_replaying_the_records_resumes_where_it_was(name):
    first = made(name)
    seen = played(first, 9)
    again = made(name)
    for number, candidate in enumerate(seen):
        again.observe(record(candidate, number))
    assert again.suggest(()) == first.suggest(())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("status", ["completed", "pruned", "cut", "failed"])
def test_every_status_can_be_observed(name, status):
    strategy = made(name)
    candidate = strategy.suggest(())
    strategy.observe(record(candidate, 0, status))
    assert isinstance(strategy.suggest([candidate]), Candidate)


@pytest.mark.parametrize("name", ["exhaustive", "inflation"])
def test_a_sweep_tries_every_dilation_once_then_repeats_the_leaders(name):
    strategy = made(name)
    seen = played(strategy, 2 * len(SPACE.dilations))
    first, second = seen[: len(SPACE.dilations)], seen[len(SPACE.dilations) :]
    assert sorted(c.choices[0][1].dilation for c in first) == sorted(SPACE.dilations)
    assert second == sorted(first, key=score, reverse=True)


def test_a_sweep_does_not_hand_out_twice_what_is_still_in_training():
    strategy, pending = made("exhaustive"), []
    for _ in SPACE.dilations:
        pending.append(strategy.suggest(pending))
    assert len(set(pending)) == len(SPACE.dilations)


def test_a_sweep_of_nothing_but_failures_ends():
    strategy = made("exhaustive")
    for number in range(len(SPACE.dilations)):
        strategy.observe(record(strategy.suggest(()), number, "failed"))
    assert isinstance(strategy.suggest(()), Exhausted)


def test_exhaustive_covers_every_combination_of_two_sites():
    space = SPACE.with_(sites=("a", "b"), dilations=(1, 2, 4), reference=2)
    seen = played(made("exhaustive", space=space), 9)
    assert len(set(seen)) == 9
    assert {tuple(c.dilation for _, c in candidate) for candidate in seen} == {
        (i, j) for i in (1, 2, 4) for j in (1, 2, 4)
    }


def test_exhaustive_refuses_an_endless_product():
    with pytest.raises(SpaceError, match=r"7 dilations at 9 sites.*random or optuna"):
        made("exhaustive", space=SPACE.with_(sites=tuple("abcdefghi")))


def test_inflation_learns_from_every_dilation_with_f_at_one():
    seen = played(made("inflation"), len(SPACE.dilations))
    assert {c.choices[0][1] for c in seen} == {Choice(d, 1.0, learned=True) for d in SPACE.dilations}


@pytest.mark.parametrize("name", ["random", "optuna"])
def test_free_searches_start_at_the_hand_default_and_stay_in_the_domain(name):
    seen = played(made(name), 30)
    low, high = SPACE.f_search
    assert seen[0] == SPACE.reference_candidate
    for candidate in seen:
        for _, choice in candidate:
            assert choice.dilation in SPACE.dilations
            assert low - 1e-4 <= choice.f <= high + 1e-4
    assert len({c.choices[0][1].f for c in seen}) > 20


def test_random_search_is_blind_to_scores():
    told_well, told_badly = RandomSearch(SPACE, 0), RandomSearch(SPACE, 0)
    for number in range(20):
        candidate = told_well.suggest(())
        assert told_badly.suggest(()) == candidate
        told_well.observe(record(candidate, number, val=0.9))
        told_badly.observe(record(candidate, number, val=0.1))


def test_bayesian_search_moves_towards_what_scores_well():
    late = [score(c) for seed in range(5) for c in played(Bayesian(SPACE, seed), 30)[15:]]
    blind = [score(c) for seed in range(5) for c in played(RandomSearch(SPACE, seed), 30)[15:]]
    assert sum(late) / len(late) > sum(blind) / len(blind) + 0.1


def test_a_pruned_trial_is_not_told_as_a_completed_one():
    """A pruned trial's high score at an early look must not draw the search to it."""
    good, lure = SPACE.uniform(Choice(4)), SPACE.uniform(Choice(11))

    def told(status: str) -> list[int]:
        strategy = Bayesian(SPACE, 0)
        for number in range(12):
            strategy.observe(record(good if number % 2 else lure, number, "completed" if number % 2 else status,
                                    val=0.5 if number % 2 else 0.9))  # fmt: skip
        return [c.choices[0][1].dilation for c in played(strategy, 10)]

    assert told("completed").count(11) > told("pruned").count(11)


def test_pruning_is_the_median_rule_and_waits_for_enough_trials():
    strategy = Bayesian(SPACE, 0)
    assert isinstance(strategy, Pruning)
    bad = (Rung(75, 0.1, {}, Cost()),)
    good = (Rung(75, 0.8, {}, Cost()),)
    for number in range(4):
        assert not strategy.prune(SPACE.reference_candidate, bad)
        strategy.observe(record(SPACE.uniform(Choice(4)), number, val=0.5))
    assert strategy.prune(SPACE.reference_candidate, bad)
    assert not strategy.prune(SPACE.reference_candidate, good)
