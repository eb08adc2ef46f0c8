"""Candidates: frozen, hashable, and unchanged by JSON."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfsearch.errors import SpaceError
from rfsearch.space import Candidate, Choice, Sampling

dilations = st.integers(1, 64)
labels = st.lists(st.text(max_size=12), max_size=3).map(tuple)
reals = st.floats(0.25, 4, allow_nan=False).map(lambda f: round(f, 6))
inflated = st.builds(Choice, dilations, reals, st.booleans(), labels)
blocks = st.builds(Sampling, reals, st.integers(0, 4).map(lambda n: 2 * n + 1), st.booleans())
sampled = st.builds(lambda d, named, block: Choice(d, labels=named, sampling=block), dilations, labels, blocks)
searched = st.builds(lambda d, named: Choice(d, labels=named, fractional=True), dilations, labels)
standing = st.builds(lambda d, named, spec: Choice(d, labels=named, layer=spec), dilations, labels, st.just("a.b:c"))
choices = inflated | sampled | searched | standing
sites = st.text(min_size=1, max_size=12)
candidates = st.dictionaries(sites, choices | st.lists(choices, min_size=1, max_size=4), min_size=1, max_size=4).map(
    Candidate.of
)


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


# As ledgers hold them since the first version: read and written to the letter.
@pytest.mark.parametrize(
    "text",
    [
        '{"conv6": {"dilation": 4}}',
        '{"conv6": {"dilation": 2, "f": 0.7}}',
        '{"conv6": {"dilation": 2, "f": 1.0, "learned": true}}',
        '{"conv6": {"dilation": 2, "f": 1.3, "learned": true}, "layer4.1.conv2": {"dilation": 8}}',
    ],
)
def test_candidates_of_old_ledgers_keep_their_text(text):
    assert Candidate.from_json(text).to_json() == text


def test_parallel_paths_and_blocks_are_written_plainly():
    eyes = Choice(2, learned=True, labels=("left eye", "right eye"))
    block = Choice(1, sampling=Sampling(2.0, 3, learned=True))
    body = json.loads(Candidate.of({"a": [eyes, Choice(4, f=0.5)], "b": block}).to_json())
    assert body == {
        "a": [
            {"dilation": 2, "f": 1.0, "learned": True, "labels": ["left eye", "right eye"]},
            {"dilation": 4, "f": 0.5},
        ],
        "b": {"dilation": 1, "gamma": 2.0, "s": 3, "gamma_learned": True},
    }


def test_every_path_has_a_name():
    one, two, three = Choice(2), Choice(3, f=0.5), Choice(4)
    assert list(Candidate.of({"b": [two, one], "a": three})) == [("a", three), ("b/1", two), ("b/2", one)]
    said = str(Candidate.of({"b": [Choice(2, labels=("nose",)), Choice(1, sampling=Sampling(2.5, 3))]}))
    assert said == "b/1: d=2, guided by nose; b/2: d=1, LS-DFN s=3 gamma=2.5"


def test_one_path_in_a_list_is_the_path_itself_and_two_in_another_order_are_another_candidate():
    one, two = Choice(2), Choice(3)
    assert Candidate.of({"a": [one]}) == Candidate.of({"a": one}) == Candidate.from_json('{"a": [{"dilation": 2}]}')
    assert Candidate.of({"a": [one, two]}) != Candidate.of({"a": [two, one]})


@pytest.mark.parametrize(
    ("choice", "learned"),
    [
        ([Choice(2), Choice(2, f=0.5)], False),
        ([Choice(2), Choice(2, learned=True)], True),
        (Choice(1, sampling=Sampling(2.0)), False),
        (Choice(1, sampling=Sampling(2.0, learned=True)), True),
    ],
)
def test_a_candidate_learns_what_any_of_its_paths_learns(choice, learned):
    assert Candidate.of({"a": choice}).learned is learned


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_sample_stride_is_refused(gamma):
    with pytest.raises(SpaceError, match=rf"gamma is greater than 0 px. Got {gamma}"):
        Sampling(gamma)


@pytest.mark.parametrize(("s", "closest"), [(0, 1), (-3, 1), (2, 3), (4, 5)])
def test_an_even_number_of_regions_names_the_nearest(s, closest):
    with pytest.raises(SpaceError, match=rf"Got s={s}. Nearest: {closest}\."):
        Sampling(2.0, s)


def test_a_block_and_an_inflation_factor_exclude_each_other():
    for inflated in ({"f": 0.5}, {"learned": True}):
        with pytest.raises(SpaceError, match="not both"):
            Choice(1, sampling=Sampling(2.0), **inflated)


def test_a_site_has_a_path():
    with pytest.raises(SpaceError, match="'conv6' has at least one path"):
        Candidate.of({"conv6": []})


@pytest.mark.parametrize(("dilation", "f"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -0.5), (1, float("nan"))])
def test_impossible_choices_are_refused(dilation, f):
    with pytest.raises(SpaceError, match=r"Got"):
        Choice(dilation, f)


def test_what_training_found_stands_in_the_place_of_where_it_started():
    searched, fixed = Choice(4, labels=("eye",), fractional=True), Choice(3, f=0.5)
    candidate = Candidate.of({"a": searched, "b": fixed, "c": [searched, fixed, searched]})
    found = candidate.ended({"a": 11, "c/1": 1, "c/3": 4, "b": 0.7, "c/2": 0.7})
    assert found == Candidate.of(
        {
            "a": Choice(11, labels=("eye",)),
            "b": fixed,
            "c": [Choice(1, labels=("eye",)), fixed, Choice(4, labels=("eye",))],
        }
    )
    assert candidate.learned
    assert not found.learned
    assert str(searched) == "d to be found, guided by eye"


def test_a_real_dilation_that_training_found_is_kept():
    searched = Choice(3, labels=("eye",), fractional=True)
    candidate = Candidate.of({"a": [searched, searched], "b": Choice(4, fractional=True)})
    found = candidate.ended({"a/1": 5.6, "a/2": 0.8, "b": 6 + 1e-7})
    assert [choice.dilation for _, choice in found] == [6, 1, 6]
    assert [choice.spacing for _, choice in found] == pytest.approx([5.6, 0.8, 6])
    assert dict(found)["b"] == Choice(6)  # single precision knows no difference
    assert not found.learned
    assert Candidate.from_json(found.to_json()) == found
    assert str(found) == "a/1: d=5.6, guided by eye; a/2: d=0.8, guided by eye; b: d=6"
    plain = [Choice(6, labels=("eye",)), Choice(1, labels=("eye",))]
    assert found.nearest == Candidate.of({"a": plain, "b": Choice(6)})
    assert candidate.nearest == candidate


@pytest.mark.parametrize("more", [{"learned": True}, {"sampling": Sampling(1.0)}])
def test_a_dilation_found_in_training_goes_with_no_other_way(more):
    with pytest.raises(SpaceError, match=r"a learned inflation nor an LS-DFN block|an inflation factor or an LS-DFN"):
        Choice(4, fractional=True, **more)


def test_a_layer_is_written_only_where_there_is_one():
    candidate = Candidate.of({"a": Choice(4, layer="peers.dcls:dcls"), "b": Choice(2)})
    assert json.loads(candidate.to_json()) == {
        "a": {"dilation": 4, "layer": "peers.dcls:dcls"},
        "b": {"dilation": 2},
    }
    assert candidate.learned
    assert str(candidate) == "a: d=4, layer dcls; b: d=2"


@pytest.mark.parametrize(("real", "dilation"), [(5.4, 5), (5.6, 6), (0.04, 1)])
def test_what_a_layer_has_found_is_its_dilation_and_the_layer_stays(real, dilation):
    candidate = Candidate.of({"a": Choice(4, layer="peers/dcls.py:dcls")})
    assert candidate.ended({"a": real}) == Candidate.of({"a": Choice(dilation, layer="peers/dcls.py:dcls")})
    assert candidate.ended() == candidate


@pytest.mark.parametrize("more", [{"f": 2.0}, {"learned": True}, {"sampling": Sampling(1.0)}, {"fractional": True}])
def test_a_layer_goes_with_no_other_way(more):
    with pytest.raises(SpaceError, match="a site with a layer in its convolution's place gets no inflation"):
        Choice(4, layer="a:b", **more)


@pytest.mark.parametrize("spec", ["dcls", "a.b:", ":dcls"])
def test_a_layer_is_named_in_full(spec):
    with pytest.raises(SpaceError, match=rf"a layer is a SPEC, package.module:callable or .*Got '{spec}'"):
        Choice(4, layer=spec)


def test_a_candidate_is_made_of_a_mapping_its_pairs_or_its_own_choices():
    expected = Candidate.of({"a": Choice(2), "b": (Choice(1), Choice(4))})
    assert Candidate({"b": [Choice(1), Choice(4)], "a": Choice(2)}) == expected
    assert Candidate([("b", (Choice(1), Choice(4))), ("a", [Choice(2)])]) == expected
    assert Candidate(expected.choices) == expected
    assert hash(Candidate({"a": Choice(2), "b": [Choice(1), Choice(4)]})) == hash(expected)
    assert Candidate.from_json(Candidate({"b": [Choice(1), Choice(4)], "a": Choice(2)}).to_json()) == expected
    assert pickle.loads(pickle.dumps(expected)) == expected
    assert repr(expected).startswith("Candidate(choices=(('a', Choice(dilation=2")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"conv6": 2}, r"Got 2 at 'conv6'. Did you mean Choice\(2\)\?"),
        ({"conv6": "2"}, "Got '2' at 'conv6'"),
        ({"conv6": None}, "Got None at 'conv6'"),
        ({"conv6": []}, "site 'conv6' has at least one path"),
        ({"conv6": [Choice(1), 2]}, "at 'conv6'"),
        ({"conv6": {"dilation": 2}}, "at 'conv6'"),
        ({6: Choice(2)}, "Got the site 6"),
        ([("a", Choice(1)), ("a", Choice(2))], "each site once. Got 'a' twice"),
        (["conv6"], r"Got \['conv6'\]"),
        ([Choice(2)], "maps the name of each site to a Choice"),
        (Choice(2), "maps the name of each site to a Choice"),
        (3, "Got 3"),
        ('{"conv6": {"dilation": 2}}', "from_json reads JSON"),
    ],
)
def test_what_is_no_candidate_is_one_message(choices, message):
    with pytest.raises(SpaceError, match=message):
        Candidate(choices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dilation": "4"}, "a dilation is an integer. Got '4'"),
        ({"dilation": 2.5}, "a dilation is an integer. Got 2.5. Nearest: 2"),
        ({"dilation": True}, "a dilation is an integer. Got True"),
        ({"dilation": float("nan")}, "a dilation is an integer. Got nan"),
        ({"dilation": [2]}, r"Got \[2\]"),
        ({"dilation": 1, "f": "1"}, "an inflation factor is a number. Got '1'"),
        ({"dilation": 1, "labels": "hair"}, "a list of texts. Got 'hair'"),
        ({"dilation": 1, "labels": [1]}, "a list of texts"),
        ({"dilation": 1, "sampling": 2.0}, "sampling is a Sampling"),
        ({"dilation": 1, "layer": len}, "named by its SPEC"),
    ],
)
def test_a_choice_of_wrong_types_is_one_message(arguments, message):
    with pytest.raises(SpaceError, match=message):
        Choice(**arguments)


def test_numbers_of_numpy_and_lists_of_labels_are_as_good_as_plain_ones():
    odd = Choice(np.int64(3), f=np.float32(0.5), labels=["hair", "nose"])
    assert odd == Choice(3, f=0.5, labels=("hair", "nose"))
    assert hash(odd) == hash(Choice(3, f=0.5, labels=("hair", "nose")))
    assert Candidate.from_json(Candidate({"a": odd}).to_json()) == Candidate({"a": odd})
    with pytest.raises(SpaceError, match="s, regions an axis, is an integer. Got 2.5"):
        Sampling(1.0, 2.5)
