"""A space as named dimensions, and back, in every form."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfsearch import plugins
from rfsearch.space import PathSet, Sampling, SamplingSpec, read_space
from rfsearch.strategies.encoding import Encoding, Ordered, Real

HELEN = read_space(plugins.space_file("helen"), None)
FORMS = HELEN.forms
TWO_SITES = HELEN.with_(sites=("a", "b.c"), sampling=SamplingSpec(gammas=(3.0, 1.0), regions=(5, 1, 3)))


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_a_candidate_is_what_its_parameters_say(form, data):
    encoding = Encoding(TWO_SITES.with_form(form))
    drawn = {
        name: data.draw(
            st.integers(0, len(dimension.values) - 1)
            if isinstance(dimension, Ordered)
            else st.floats(dimension.low, dimension.high)
        )
        for name, dimension in encoding.dimensions.items()
    }
    candidate = encoding.candidate(drawn)
    again = encoding.parameters(candidate)
    assert encoding.candidate(again) == candidate
    assert set(again) == set(encoding.dimensions)
    for name, dimension in encoding.dimensions.items():
        if isinstance(dimension, Ordered):
            assert again[name] in range(len(dimension.values))
        else:
            assert dimension.low <= again[name] <= dimension.high


def test_the_dimensions_of_every_form():
    def named(form: str) -> list[str]:
        return list(Encoding(TWO_SITES.with_form(form)).dimensions)

    assert named("single") == ["a/dilation", "a/f", "b.c/dilation", "b.c/f"]
    assert named("bi")[:4] == ["a/1/dilation", "a/1/f", "a/2/dilation", "a/2/f"]
    assert (len(named("bi")), len(named("tri"))) == (8, 12)
    dimensions = Encoding(TWO_SITES.with_form("lsdfn")).dimensions
    assert list(dimensions) == ["a/gamma", "a/s", "b.c/gamma", "b.c/s"]
    assert (dimensions["a/gamma"], dimensions["a/s"]) == (Real(1.0, 3.0), Ordered((1, 3, 5)))


def test_values_come_out_by_hand():
    bi = Encoding(HELEN.with_form("bi"))
    found = bi.candidate({"conv6/1/dilation": 4, "conv6/1/f": 1.23456, "conv6/2/dilation": 1, "conv6/2/f": 0.8})
    assert found.to_json() == '{"conv6": [{"dilation": 2, "f": 0.8}, {"dilation": 6, "f": 1.2346}]}'
    block = Encoding(TWO_SITES.with_form("lsdfn"))
    found = block.candidate({"a/gamma": 2.00001, "a/s": 2, "b.c/gamma": 2.5, "b.c/s": 0})
    assert [c.sampling for _, c in found] == [Sampling(2.0, 5), Sampling(1.0, 1)]
    assert {c.dilation for _, c in found} == {HELEN.reference}


def test_paths_in_another_order_are_one_candidate():
    tri = Encoding(HELEN.with_form("tri"))
    rows = [(3, 0.9), (3, 0.8), (1, 1.2)]
    found = set()
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        drawn = {}
        for path, row in enumerate(order, start=1):
            drawn[f"conv6/{path}/dilation"], drawn[f"conv6/{path}/f"] = rows[row]
        found.add(tri.candidate(drawn))
    assert len(found) == 1


@pytest.mark.parametrize("form", FORMS)
def test_the_hand_default_has_parameters(form):
    space = TWO_SITES.with_form(form)
    encoding = Encoding(space)
    assert encoding.candidate(encoding.parameters(space.default_candidate)) == space.default_candidate


def test_a_manual_dilation_that_is_not_searched_stands_for_the_nearest():
    space = HELEN.with_(paths={"bi": PathSet(manual=(5, 20))}).with_form("bi")
    encoding = Encoding(space)
    found = encoding.candidate(encoding.parameters(space.default_candidate))
    assert [c.dilation for _, c in found] == [4, 11]


@pytest.mark.parametrize("form", ["single", "lsdfn"])
def test_rounding_does_not_leave_the_searched_range(form):
    """Optuna refuses a parameter outside its distribution."""
    third = 1 / 3
    spec = SamplingSpec(gammas=(third, 8 * third))
    space = HELEN.with_(f_bounds=(0.25, 4.0), f_search=(third, 1 / third), sampling=spec).with_form(form)
    encoding = Encoding(space)
    for end in ("low", "high"):
        drawn = {n: 0 if isinstance(d, Ordered) else getattr(d, end) for n, d in encoding.dimensions.items()}
        candidate = encoding.candidate(drawn)
        for _, choice in candidate:
            value = choice.sampling.gamma if choice.sampling else choice.f
            assert third <= value <= (8 * third if choice.sampling else 1 / third)
        for name, value in encoding.parameters(candidate).items():
            dimension = encoding.dimensions[name]
            if isinstance(dimension, Real):
                assert dimension.low <= value <= dimension.high
                assert math.isclose(value, getattr(dimension, end), rel_tol=1e-3)
