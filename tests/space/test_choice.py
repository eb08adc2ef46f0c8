"""Candidates: frozen, hashable, and unchanged by JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfsearch.errors import SpaceError
from rfsearch.space import Candidate, Choice

choices = st.builds(
    Choice, st.integers(1, 64), st.floats(0.25, 4, allow_nan=False).map(lambda f: round(f, 6)), st.booleans()
)
candidates = st.dictionaries(st.text(min_size=1, max_size=12), choices, min_size=1, max_size=4).map(Candidate.of)


@given(candidates)
def test_a_candidate_survives_json_and_can_be_a_key(candidate):
    again = Candidate.from_json(candidate.to_json())
    assert again == candidate
    assert {candidate: 1}[again] == 1
    assert again.to_json() == candidate.to_json()


def test_the_order_of_sites_does_not_matter():
    a, b = Choice(2), Choice(3, f=0.5)
    assert Candidate.of({"x": a, "y": b}) == Candidate.of({"y": b, "x": a})


def test_a_plain_dilation_is_written_as_just_that():
    assert json.loads(Candidate.of({"conv6": Choice(4)}).to_json()) == {"conv6": {"dilation": 4}}


def test_a_learned_factor_that_starts_at_one_is_not_a_plain_dilation():
    assert Candidate.of({"c": Choice(4)}) != Candidate.of({"c": Choice(4, learned=True)})
    assert Candidate.from_json(Candidate.of({"c": Choice(4, learned=True)}).to_json()).learned


@pytest.mark.parametrize(("dilation", "f"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -0.5), (1, float("nan"))])
def test_impossible_choices_are_refused(dilation, f):
    with pytest.raises(SpaceError, match=r"Got"):
        Choice(dilation, f)
