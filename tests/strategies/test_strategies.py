"""Every strategy that ships, on the contract: repeatable, stateless suggestions, and honest about what it was told."""

import itertools
import math

import numpy as np
import pytest

from rfsearch import plugins, testing
from rfsearch.choices import Candidate, Dilated, Inflated, Moved, Sampled, Searched, SitePath
from rfsearch.errors import SpaceError
from rfsearch.ledger import Cost, Record, Rung
from rfsearch.space import PathSet, SamplingSpec, read_space
from rfsearch.strategies import Exhausted, Pruning, Strategy
from rfsearch.strategies.bayesian import Bayesian
from rfsearch.strategies.random import RandomSearch

NAMES = plugins.names("strategies")
SPACE = read_space(plugins.space_file("helen"), None)
FORMS = SPACE.forms
# inflation and fractional have nothing to learn in an LS-DFN block, and lsdfn nothing anywhere else.
PAIRS = [
    (name, form)
    for name in NAMES
    for form in FORMS
    if not (name in ("inflation", "fractional") and form == "lsdfn") and (name != "lsdfn" or form == "lsdfn")
]
every_pair = pytest.mark.parametrize(("name", "form"), PAIRS)


def score(candidate: Candidate) -> float:
    """A landscape with its top at a receptive field of 5 px of the map."""
    numbers = [path.choice.numbers for _, path in candidate]
    fields = [n["gamma"] * n["s"] if "gamma" in n else n["dilation"] / n.get("f", 1.0) for n in numbers]
    return math.exp(-sum((math.log(field) - math.log(5)) ** 2 for field in fields))


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


@every_pair
@pytest.mark.parametrize("check", testing.STRATEGY_CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(check, name, form):
    check(plugins.load("strategies", name), SPACE.with_form(form))


@pytest.mark.parametrize(("name", "form"), [pair for pair in PAIRS if pair[0] != "fractional"])
def test_another_seed_gives_another_order(name, form):
    assert len({tuple(played(made(name, seed, SPACE.with_form(form)), 6)) for seed in range(5)}) > 1


@every_pair
@pytest.mark.parametrize("status", ["completed", "pruned", "cut", "failed"])
def test_every_status_can_be_observed(name, form, status):
    strategy = made(name, space=SPACE.with_form(form))
    candidate = strategy.suggest(())
    strategy.observe(record(candidate, 0, status))
    assert isinstance(strategy.suggest(()), Candidate)
    assert isinstance(strategy.suggest([candidate]), Candidate)


@every_pair
def test_what_it_suggests_is_learned_or_fixed_and_starts_within_what_is_searched(name, form):
    space = SPACE.with_form(form)
    for candidate in played(made(name, space=space), 20):
        assert tuple(site for site, _ in candidate.sites) == space.sites
        assert candidate.learned == (name in ("inflation", "lsdfn")) or name == "fractional"
        for _, path in candidate:
            numbers = path.choice.numbers
            assert numbers["dilation"] in ((space.reference,) if "gamma" in numbers else space.dilations)
            assert space.f_search[0] <= numbers.get("f", 1.0) <= space.f_search[1]
            if "gamma" in numbers:
                assert min(space.sampling.gammas) <= numbers["gamma"] <= max(space.sampling.gammas)


@pytest.mark.parametrize("form", ["single", "bi", "tri"])
def test_fractional_searches_again_whatever_came_of_the_first_and_guides_every_path(form):
    space = SPACE.with_form(form)
    first, *seen = played(made("fractional", space=space), 5)
    assert len(set(seen)) == 1
    assert seen[0].searched == [name for name, _ in seen[0]]
    labels = space.path_set.labels if space.path_set else [()]
    for candidate in (first, seen[0]):
        assert [path.labels for _, path in candidate] == [tuple(names) for names in labels]


def test_fractional_begins_with_a_dilation_that_moves_from_the_middle_or_from_those_set_by_hand():
    assert made("fractional").suggest(()) == SPACE.uniform(Moved(4))  # of 1, 2, 3, 4, 6, 8, 11
    paths = SPACE.with_form("tri")
    started = [path.choice.whole_dilation for _, path in made("fractional", space=paths).suggest(())]
    assert started == list(paths.path_set.manual)
    one = SPACE.model_copy(update={"dilations": (4,)})
    assert made("fractional", space=one).suggest(()) == one.uniform(Searched(4))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["exhaustive", "random", "optuna"])
@pytest.mark.parametrize("seed", range(3))
def test_searches_of_fixed_values_start_at_the_hand_default_of_their_form(name, form, seed):
    space = SPACE.with_form(form)
    assert made(name, seed, space).suggest(()) == space.default_candidate


@pytest.mark.parametrize("name", ["exhaustive", "inflation"])
def test_a_sweep_tries_every_dilation_once_then_repeats_the_leaders(name):
    strategy = made(name)
    seen = played(strategy, 2 * len(SPACE.dilations))
    first, second = seen[: len(SPACE.dilations)], seen[len(SPACE.dilations) :]
    assert sorted(c.sites[0][1][0].choice.whole_dilation for c in first) == sorted(SPACE.dilations)
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
    assert {tuple(path.choice.whole_dilation for _, path in candidate) for candidate in seen} == {
        (i, j) for i in (1, 2, 4) for j in (1, 2, 4)
    }


def test_exhaustive_refuses_an_endless_product():
    with pytest.raises(SpaceError, match=r"7 choices at 9 sites.*random or optuna"):
        made("exhaustive", space=SPACE.with_(sites=tuple("abcdefghi")))


@pytest.mark.parametrize(("form", "count"), [("bi", 2), ("tri", 3)])
@pytest.mark.parametrize("dilations", [SPACE.dilations, (1, 2, 3, 5)])
def test_exhaustive_tries_every_set_of_different_dilations_and_the_manual_one(form, count, dilations):
    space = SPACE.with_form(form).with_(dilations=dilations)
    manual = space.path_set.manual
    expected = {row for row in itertools.product(dilations, repeat=count) if list(row) == sorted(set(row))}
    assert len(expected) == math.comb(len(dilations), count)
    assert (manual in expected) == (dilations is SPACE.dilations)
    strategy = made("exhaustive", space=space)
    size = len(expected | {manual})
    seen = played(strategy, size)
    assert len(set(seen)) == len(strategy.describe().candidates) == size
    assert {tuple(path.choice.whole_dilation for _, path in candidate) for candidate in seen} == expected | {manual}
    assert all(path.choice == Dilated(path.choice.whole_dilation) for candidate in seen for _, path in candidate)
    assert played(strategy, size) == sorted(seen, key=score, reverse=True)


def test_manual_dilations_in_another_order_are_not_tried_twice():
    turned = SPACE.with_(paths={"bi": PathSet(manual=(6, 4))}).with_form("bi")
    strategy = made("exhaustive", space=turned)
    assert len(strategy.describe().candidates) == 21
    assert strategy.suggest(()) == turned.default_candidate


def test_exhaustive_refuses_endless_sets_of_paths():
    space = SPACE.with_(paths={"bi": PathSet(manual=(1,) * 20)}, dilations=tuple(range(1, 41))).with_form("bi")
    with pytest.raises(SpaceError, match="20 of 40 dilations are more than 10000 candidates"):
        made("exhaustive", space=space)
    with pytest.raises(SpaceError, match=r"21 choices at 4 sites.*random or optuna"):
        made("exhaustive", space=SPACE.with_form("bi").with_(sites=tuple("abcd")))


def test_exhaustive_tries_every_sample_stride_and_the_plain_dynamic_filter_once():
    spec = SamplingSpec(gammas=(2.0, 4.0), regions=(1, 3, 5))
    space = SPACE.with_(sampling=spec).with_form("lsdfn")
    strategy = made("exhaustive", space=space)
    seen = played(strategy, 5)
    assert {(path.choice.gamma, path.choice.s) for candidate in seen for _, path in candidate} == {
        (1.0, 1), (2.0, 3), (4.0, 3), (2.0, 5), (4.0, 5)
    }  # fmt: skip
    assert len(strategy.describe().candidates) == 5


@pytest.mark.parametrize("form", ["bi", "tri"])
def test_guided_paths_start_alike_from_every_dilation(form):
    space = SPACE.with_form(form)
    seen = played(made("inflation", space=space), len(SPACE.dilations))
    expected = {
        space.uniform([SitePath(Inflated(d, learned=True), labels) for labels in space.path_set.labels])
        for d in SPACE.dilations
    }
    assert set(seen) == expected


@pytest.mark.parametrize(("form", "starts"), [("bi", 6), ("tri", 5)])
def test_paths_without_label_sets_start_from_neighbouring_dilations(form, starts):
    """Alike and unguided, they would get the same gradients for ever."""
    manual = SPACE.with_form(form).path_set.manual
    space = SPACE.with_(paths={form: PathSet(manual=manual)}).with_form(form)
    strategy = made("inflation", space=space)
    assert len(strategy.describe().candidates) == starts
    for candidate in strategy.describe().candidates:
        dilations = [path.choice.whole_dilation for _, path in candidate]
        first = SPACE.dilations.index(dilations[0])
        assert dilations == list(SPACE.dilations[first : first + len(manual)])
        assert all(path.choice == Inflated(path.choice.dilation, learned=True) for _, path in candidate)
    assert len({candidate.sites[0][1][0] for candidate in strategy.describe().candidates}) == starts


def test_too_few_dilations_for_paths_without_label_sets_are_reported():
    space = SPACE.with_(paths={"tri": PathSet(manual=(4, 6, 8))}, dilations=(1, 2)).with_form("tri")
    with pytest.raises(SpaceError, match=r"3 paths without label sets.*space has 2.*\[paths.tri\]"):
        made("inflation", space=space)


def test_inflation_has_nothing_to_learn_in_a_block():
    with pytest.raises(SpaceError, match="inflation learns f, which an LS-DFN block does not have; lsdfn learns"):
        made("inflation", space=SPACE.with_form("lsdfn"))


def test_sample_strides_are_learned_from_every_start():
    spec = SamplingSpec(gammas=(2.0, 4.0), regions=(1, 3, 5))
    strategy = made("lsdfn", space=SPACE.with_(sampling=spec).with_form("lsdfn"))
    blocks = [path.choice for candidate in played(strategy, 4) for _, path in candidate]
    assert set(blocks) == {Sampled(SPACE.reference, gamma, s, learned=True) for gamma in (2.0, 4.0) for s in (3, 5)}
    assert len(strategy.describe().candidates) == 4


def test_without_neighbours_there_is_no_sample_stride_to_learn():
    with pytest.raises(SpaceError, match=r"regions = \[1\] samples no neighbour.*Nearest: 3"):
        made("lsdfn", space=SPACE.with_(sampling=SamplingSpec(regions=(1,))).with_form("lsdfn"))


@pytest.mark.parametrize("form", ["single", "bi", "tri"])
def test_only_an_ls_dfn_block_has_a_sample_stride_to_learn(form):
    with pytest.raises(SpaceError, match=f"lsdfn learns the sample stride of LS-DFN blocks. Got the form '{form}'"):
        made("lsdfn", space=SPACE.with_form(form))


def test_a_hand_default_outside_the_searched_range_can_be_observed():
    """The manual dilations of a path set need not be among those searched."""
    space = SPACE.with_(paths={"bi": PathSet(manual=(5, 20))}).with_form("bi")
    assert played(made("optuna", space=space), 8)[0] == space.default_candidate


def test_inflation_starts_where_its_space_says():
    space = SPACE.with_(f_starts={"single": SPACE.dilations[1:], "bi": SPACE.dilations[:1]})
    for form, starts in (("single", SPACE.dilations[1:]), ("bi", SPACE.dilations[:1])):
        strategy = made("inflation", space=space.with_form(form))
        listed = strategy.describe().candidates
        assert [{path.choice.dilation for _, path in candidate} for candidate in listed] == [{d} for d in starts]


def test_inflation_learns_from_every_dilation_with_f_at_one():
    seen = played(made("inflation"), len(SPACE.dilations))
    assert {c.sites[0][1][0].choice for c in seen} == {Inflated(d, learned=True) for d in SPACE.dilations}


@pytest.mark.parametrize("name", ["random", "optuna"])
def test_free_searches_start_at_the_hand_default_and_stay_in_the_domain(name):
    seen = played(made(name), 30)
    low, high = SPACE.f_search
    assert seen[0] == SPACE.reference_candidate
    for candidate in seen:
        for _, path in candidate:
            assert path.choice.dilation in SPACE.dilations
            assert low - 1e-4 <= path.choice.numbers.get("f", 1.0) <= high + 1e-4
    assert len({c.sites[0][1][0].choice.numbers.get("f", 1.0) for c in seen}) > 20


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


def test_a_suggestion_follows_from_the_records_and_what_is_pending_alone():
    """A strategy that is given the whole history at once suggests the same."""
    random, strategy, records, pending = np.random.default_rng(0), Bayesian(SPACE, 3), [], []
    for number in range(60):
        if not pending or (len(pending) < 3 and random.random() < 0.6):
            suggested = strategy.suggest(list(pending))
            fresh = Bayesian(SPACE, 3)
            for told in records:
                fresh.observe(told)
            assert fresh.suggest(list(pending)) == suggested
            pending.append(suggested)
        else:
            finished = pending.pop(random.integers(len(pending)))
            status = random.choice(["completed", "completed", "completed", "pruned", "cut", "failed"])
            records.append(record(finished, number, str(status)))
            strategy.observe(records[-1])
    assert len({r.status for r in records}) == 4


def test_a_pruned_trial_is_not_reported_as_a_completed_one():
    """A pruned trial's high score at an early look must not draw the search to it."""
    good, lure = SPACE.uniform(Dilated(4)), SPACE.uniform(Dilated(11))

    def told(status: str) -> list[int]:
        strategy = Bayesian(SPACE, 0)
        for number in range(12):
            strategy.observe(record(good if number % 2 else lure, number, "completed" if number % 2 else status,
                                    val=0.5 if number % 2 else 0.9))  # fmt: skip
        return [c.sites[0][1][0].choice.dilation for c in played(strategy, 10)]

    assert told("completed").count(11) > told("pruned").count(11)


def test_pruning_is_the_median_rule_and_waits_for_enough_trials():
    strategy = Bayesian(SPACE, 0)
    assert isinstance(strategy, Pruning)
    bad = (Rung(75, 0.1, {}, Cost()),)
    good = (Rung(75, 0.8, {}, Cost()),)
    for number in range(4):
        assert not strategy.prune(SPACE.reference_candidate, bad)
        strategy.observe(record(SPACE.uniform(Dilated(4)), number, val=0.5))
    assert strategy.prune(SPACE.reference_candidate, bad)
    assert not strategy.prune(SPACE.reference_candidate, good)
