"""The suite for strategies: each kind of broken strategy fails just the check that is meant."""

import random

import pytest

from rfsearch import plugins
from rfsearch.choices import Candidate, Dilated, Inflated
from rfsearch.space import read_space
from rfsearch.strategies import Description, Exhausted, Heir
from rfsearch.strategies.bayesian import Bayesian
from rfsearch.strategies.exhaustive import Exhaustive
from rfsearch.strategies.random import RandomSearch
from rfsearch.testing import strategies

SPACE = read_space(plugins.space_file("helen"), None)


class _Broken(RandomSearch):
    """Random search, to be broken in one place."""

    def __init__(self, space, seed):
        super().__init__(space, seed)
        self.space, self.asked, self.told = space, 0, []


class _Unseeded(_Broken):
    def suggest(self, pending):
        return self.space.uniform(Dilated(random.choice(self.space.dilations)))


class _Counting(_Broken):
    def suggest(self, pending):
        self.asked += 1
        return self.space.uniform(Dilated(self.space.dilations[self.asked % len(self.space.dilations)]))


class _OutOfSpace(_Broken):
    def suggest(self, pending):
        return self.space.uniform(Dilated(1000))


class _OutOfBounds(_Broken):
    def suggest(self, pending):
        return self.space.uniform(Inflated(self.space.reference, 3.0))


class _ForgetsASite(_Broken):
    def suggest(self, pending):
        return Candidate({self.space.sites[0]: Dilated(self.space.reference)})


class _OnePathTooMany(_Broken):
    def suggest(self, pending):
        return self.space.uniform([Dilated(self.space.reference)] * 2)


class _GivesADict(_Broken):
    def suggest(self, pending):
        return {"conv6": 2}


class _HeirOfAStranger(_Broken):
    def suggest(self, pending):
        return Heir(super().suggest(pending), "nobody")


class _NeverBegins(_Broken):
    def suggest(self, pending):
        return Exhausted("nothing to do")


class _GivesUpInSilence(_Broken):
    def suggest(self, pending):
        return super().suggest(pending) if not self.told else Exhausted("")

    def observe(self, record):
        self.told.append(record)


class _TrustsEveryScore(_Broken):
    def observe(self, record):
        super().observe(record)
        self.told.append(1 / record.val)


class _StopsAtNan(_Broken):
    def observe(self, record):
        super().observe(record)
        if record.val is not None:
            self.told.append(int(record.val))


class _EatsThePending(_Broken):
    def suggest(self, pending):
        answer = super().suggest(pending)
        if pending:
            pending.pop()
        return answer


class _RemembersItsOwnSuggestions(_Broken):
    """Keeps what it suggested rather than what it is told: a replayed ledger leaves it at the start."""

    def observe(self, record):
        if self.told and self.told[-1] == record.candidate:
            super().observe(record)

    def suggest(self, pending):
        answer = super().suggest(pending)
        self.told = [answer.to_json()]
        return answer


class _DescribesAnotherStart(_Broken):
    def describe(self):
        return Description((self.space.uniform(Dilated(self.space.dilations[-1])),))


class _DescribesAList(_Broken):
    def describe(self):
        return [self.space.default_candidate]


class _DescribesNoCandidate(_Broken):
    def describe(self):
        return Description(("conv6",))


class _DescribesWhatIsNotInTheSpace(_Broken):
    def describe(self):
        return Description((self.space.default_candidate, self.space.uniform(Dilated(1000))))


class _MovesOnByDescribing(_Broken):
    def describe(self):
        self.asked += 1
        return Description((self.space.default_candidate,), draws=f"draw {self.asked}")


class _LearnsByBeingAskedToPrune(Bayesian):
    def prune(self, candidate, rungs):
        self._seed += 1
        return False


class _PrunesMaybe(Bayesian):
    def prune(self, candidate, rungs):
        return "maybe"


class _RepeatsTheHighestScore(_Broken):
    def observe(self, record):
        super().observe(record)
        self.told.append(record)

    def suggest(self, pending):
        if len(self.told) < 5:
            return super().suggest(pending)
        return Candidate.from_json(max(self.told, key=lambda record: record.val or 0.0).candidate)


DESCRIBED = "strategy_describes_what_it_tries_first"
IN_THE_SPACE = "strategy_suggests_candidates_of_the_space"
BROKEN_STRATEGIES = [
    (_Unseeded, "strategy_repeats_itself", "same seed and the same records"),
    (_Counting, "strategy_suggests_without_changing_its_state", "suggest changes no state"),
    (_OutOfSpace, IN_THE_SPACE, r"a dilation is one of the space's, \[1, 2, 3, 4, 6, 8, 11\]. conv6 got 1000"),
    (_OutOfBounds, IN_THE_SPACE, r"f is within the space's f_search, \[0.7, 1.4\]. conv6 got 3"),
    (_OnePathTooMany, IN_THE_SPACE, r"a site has 1 path\(s\) in the form 'single'. conv6 has 2"),
    (_GivesADict, IN_THE_SPACE, r"suggest gives a Candidate, an Heir or Exhausted. Got {'conv6': 2}"),
    (_HeirOfAStranger, IN_THE_SPACE, "an heir is of a trial that the strategy awaits one of, .* Got Heir"),
    (_NeverBegins, IN_THE_SPACE, "observed nothing yet has something to try"),
    (_NeverBegins, "strategy_takes_pending_trials_into_account", "observed nothing yet has something to try"),
    (_GivesUpInSilence, "strategy_survives_every_outcome", "Exhausted says why"),
    (_EatsThePending, "strategy_takes_pending_trials_into_account", "leaves the list of pending"),
    (_RemembersItsOwnSuggestions, "strategy_resumes_by_replaying_records", "observes the records of a run"),
    (_DescribesAnotherStart, DESCRIBED, "the first suggestion is described. Got conv6: d=1, which is not"),
    (_DescribesAList, DESCRIBED, r"describe gives a Description. Got \[Candidate"),
    (_DescribesNoCandidate, DESCRIBED, "described candidates are Candidates. Got 'conv6'"),
    (_DescribesWhatIsNotInTheSpace, DESCRIBED, "a dilation is one of the space's, .* conv6 got 1000"),
    (_MovesOnByDescribing, DESCRIBED, "the same description when it is asked again"),
    (_LearnsByBeingAskedToPrune, "strategy_prunes_without_changing_its_state", "prune changes no state"),
    (_RepeatsTheHighestScore, "strategy_heeds_the_direction", "whether a higher or a lower score is better"),
    (_PrunesMaybe, "strategy_prunes_without_changing_its_state", "True or False. Got 'maybe'"),
]


@pytest.mark.parametrize(("strategy", "check", "message"), BROKEN_STRATEGIES, ids=lambda value: str(value)[:60])
def test_a_broken_strategy_fails(strategy, check, message):
    with pytest.raises(AssertionError, match=message):
        getattr(strategies, check)(strategy, SPACE)


def test_a_candidate_without_all_sites_fails():
    space = SPACE.with_(sites=("a", "b"))
    with pytest.raises(AssertionError, match=r"names every site of the space once, \['a', 'b'\]. Got \['a'\]"):
        strategies.strategy_suggests_candidates_of_the_space(_ForgetsASite, space)


def test_a_sampling_outside_the_form_or_the_bounds_fails():
    class Samples(_Broken):
        def suggest(self, pending):
            return self.space.uniform(self.space.sampled(99.0, 5))

    with pytest.raises(AssertionError, match="gets an LS-DFN block in the form 'lsdfn' and in no other"):
        strategies.strategy_suggests_candidates_of_the_space(Samples, SPACE)
    with pytest.raises(AssertionError, match=r"gamma is within the space's bounds, \[0.25, 16\]. conv6 got 99"):
        strategies.strategy_suggests_candidates_of_the_space(Samples, SPACE.with_form("lsdfn"))


@pytest.mark.parametrize(("strategy", "raised"), [(_TrustsEveryScore, TypeError), (_StopsAtNan, ValueError)])
def test_a_strategy_that_a_failed_or_diverged_trial_stops_fails(strategy, raised):
    with pytest.raises(raised):
        strategies.strategy_survives_every_outcome(strategy, SPACE)


def test_a_strategy_without_pruning_has_nothing_to_prove_there():
    strategies.strategy_prunes_without_changing_its_state(Exhaustive, SPACE)
