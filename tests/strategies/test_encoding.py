"""A space as named dimensions, and back, in every form."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfsearch import plugins
from rfsearch.choices import Candidate, Dilated, Fractional, Guest, Sampled
from rfsearch.space import PathSet, SamplingSpec, read_space
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


def test_a_space_with_choices_has_one_dimension_a_site():
    space = TWO_SITES.with_(dilations=(1, 2), choices=(Guest(2, "a.b:c"), Fractional(2.5)))
    encoding = Encoding(space)
    assert encoding.dimensions == {"a/choice": Ordered((0, 1, 2, 3)), "b.c/choice": Ordered((0, 1, 2, 3))}
    found = encoding.candidate({"a/choice": 3, "b.c/choice": 0})
    assert found == Candidate({"a": Fractional(2.5), "b.c": Dilated(1)})
    assert encoding.parameters(found) == {"a/choice": 3, "b.c/choice": 0}
    assert list(Encoding(space.with_form("lsdfn")).dimensions) == ["a/gamma", "a/s", "b.c/gamma", "b.c/s"]


def test_values_come_out_by_hand():
    bi = Encoding(HELEN.with_form("bi"))
    found = bi.candidate({"conv6/1/dilation": 4, "conv6/1/f": 1.23456, "conv6/2/dilation": 1, "conv6/2/f": 0.8})
    assert found.to_json() == '{"conv6": [{"dilation": 2, "f": 0.8}, {"dilation": 6, "f": 1.2346}]}'
    block = Encoding(TWO_SITES.with_form("lsdfn"))
    found = block.candidate({"a/gamma": 2.00001, "a/s": 2, "b.c/gamma": 2.5, "b.c/s": 0})
    assert [path.choice for _, path in found] == [Sampled(HELEN.reference, 2.0, 5), Sampled(HELEN.reference, 1.0, 1)]


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
    assert [path.choice.whole_dilation for _, path in found] == [4, 11]


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
        for _, path in candidate:
            numbers = path.choice.numbers
            assert third <= numbers.get("gamma", numbers.get("f")) <= (8 * third if "gamma" in numbers else 1 / third)
        for name, value in encoding.parameters(candidate).items():
            dimension = encoding.dimensions[name]
            if isinstance(dimension, Real):
                assert dimension.low <= value <= dimension.high
                assert math.isclose(value, getattr(dimension, end), rel_tol=1e-3)
