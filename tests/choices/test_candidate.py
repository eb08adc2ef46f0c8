"""Candidates: frozen, hashable, and unchanged by JSON."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfsearch.choices import (
    Candidate,
    Dilated,
    Fractional,
    Guest,
    Inflated,
    Moved,
    Sampled,
    Searched,
    SitePath,
    inflated,
    read_choice,
)
from rfsearch.errors import SpaceError

dilations = st.integers(1, 64)
labels = st.lists(st.text(max_size=12), max_size=3).map(tuple)
reals = st.floats(0.25, 4, allow_nan=False).map(lambda f: round(f, 6))
regions = st.integers(0, 4).map(lambda n: 2 * n + 1)
choices = (
    st.builds(inflated, dilations, reals)
    | st.builds(Inflated, dilations, reals, st.just(True))
    | st.builds(Sampled, dilations, reals, regions, st.booleans())
    | st.builds(Searched, dilations)
    | st.builds(Moved, dilations)
    | st.builds(Fractional, st.floats(0.1, 64))
    | st.builds(Guest, dilations, st.just("a.b:c"), st.none() | reals)
)
choices |= st.builds(SitePath, choices, labels)
sites = st.text(min_size=1, max_size=12)
candidates = st.dictionaries(sites, choices | st.lists(choices, min_size=1, max_size=4), min_size=1, max_size=4).map(
    Candidate
)


@given(candidates)
def test_a_candidate_survives_json_and_can_be_a_key(candidate):
    again = Candidate.from_json(candidate.to_json())
    assert again == candidate
    assert {candidate: 1}[again] == 1
    assert again.to_json() == candidate.to_json()


def test_the_order_of_sites_does_not_matter():
    a, b = Dilated(2), Inflated(3, 0.5)
    assert Candidate({"x": a, "y": b}) == Candidate({"y": b, "x": a})


def test_a_plain_dilation_is_written_as_just_that():
    assert json.loads(Candidate({"conv6": Dilated(4)}).to_json()) == {"conv6": {"dilation": 4}}


def test_a_learned_factor_that_starts_at_one_is_not_a_plain_dilation():
    assert Candidate({"c": Dilated(4)}) != Candidate({"c": Inflated(4, learned=True)})
    assert Candidate.from_json(Candidate({"c": Inflated(4, learned=True)}).to_json()).learned


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
    eyes = SitePath(Inflated(2, learned=True), ("left eye", "right eye"))
    block = Sampled(1, 2.0, 3, learned=True)
    body = json.loads(Candidate({"a": [eyes, Inflated(4, 0.5)], "b": block}).to_json())
    assert body == {
        "a": [
            {"dilation": 2, "f": 1.0, "learned": True, "labels": ["left eye", "right eye"]},
            {"dilation": 4, "f": 0.5},
        ],
        "b": {"dilation": 1, "gamma": 2.0, "s": 3, "gamma_learned": True},
    }


def test_every_path_has_a_name():
    one, two, three = Dilated(2), Inflated(3, 0.5), Dilated(4)
    named = [(name, path.choice) for name, path in Candidate({"b": [two, one], "a": three})]
    assert named == [("a", three), ("b/1", two), ("b/2", one)]
    said = str(Candidate({"b": [SitePath(Dilated(2), ("nose",)), Sampled(1, 2.5, 3)]}))
    assert said == "b/1: d=2, guided by nose; b/2: d=1, LS-DFN s=3 gamma=2.5"


def test_one_path_in_a_list_is_the_path_itself_and_two_in_another_order_are_another_candidate():
    one, two = Dilated(2), Dilated(3)
    assert Candidate({"a": [one]}) == Candidate({"a": one}) == Candidate.from_json('{"a": [{"dilation": 2}]}')
    assert Candidate({"a": [one, two]}) != Candidate({"a": [two, one]})


@pytest.mark.parametrize(
    ("choice", "learned"),
    [
        ([Dilated(2), Inflated(2, 0.5)], False),
        ([Dilated(2), Inflated(2, learned=True)], True),
        (Sampled(1, 2.0), False),
        (Sampled(1, 2.0, learned=True), True),
    ],
)
def test_a_candidate_learns_what_any_of_its_paths_learns(choice, learned):
    assert Candidate({"a": choice}).learned is learned


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_sample_stride_is_refused(gamma):
    with pytest.raises(SpaceError, match=rf"gamma is greater than 0 px. Got {gamma}"):
        Sampled(1, gamma)


@pytest.mark.parametrize(("s", "closest"), [(0, 1), (-3, 1), (2, 3), (4, 5)])
def test_an_even_number_of_regions_names_the_nearest(s, closest):
    with pytest.raises(SpaceError, match=rf"Got s={s}. Nearest: {closest}\."):
        Sampled(1, 2.0, s)


def test_a_block_and_an_inflation_factor_exclude_each_other():
    for inflation in ({"f": 0.5}, {"learned": True}):
        with pytest.raises(SpaceError, match="not both"):
            read_choice({"dilation": 1, "gamma": 2.0, "s": 5, **inflation})


def test_a_site_has_a_path():
    with pytest.raises(SpaceError, match="'conv6' has at least one path"):
        Candidate({"conv6": []})


@pytest.mark.parametrize(("dilation", "f"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -0.5), (1, float("nan"))])
def test_impossible_choices_are_refused(dilation, f):
    with pytest.raises(SpaceError, match=r"Got"):
        Inflated(dilation, f, learned=True)


def test_what_training_found_stands_in_the_place_of_where_it_started():
    searched, fixed = SitePath(Searched(4), ("eye",)), Inflated(3, 0.5)
    candidate = Candidate({"a": searched, "b": fixed, "c": [searched, fixed, searched]})
    found = candidate.ended({"a": 11, "c/1": 1, "c/3": 4, "b": 0.7, "c/2": 0.7})
    assert found == Candidate(
        {
            "a": SitePath(Dilated(11), ("eye",)),
            "b": fixed,
            "c": [SitePath(Dilated(1), ("eye",)), fixed, SitePath(Dilated(4), ("eye",))],
        }
    )
    assert candidate.learned
    assert not found.learned
    assert str(SitePath(Searched(4), ("eye",))) == "d to be found, guided by eye"


def test_a_real_dilation_that_training_found_is_kept():
    searched = SitePath(Searched(3), ("eye",))
    candidate = Candidate({"a": [searched, searched], "b": Searched(4)})
    found = candidate.ended({"a/1": 5.6, "a/2": 0.8, "b": 6 + 1e-7})
    assert [path.choice.whole_dilation for _, path in found] == [6, 1, 6]
    assert [path.choice.numbers["dilation"] for _, path in found] == [5.6, 0.8, 6]
    assert dict(found)["b"].choice == Dilated(6)  # single precision knows no difference
    assert not found.learned
    assert Candidate.from_json(found.to_json()) == found
    assert str(found) == "a/1: d=5.6, guided by eye; a/2: d=0.8, guided by eye; b: d=6"
    plain = [SitePath(Dilated(6), ("eye",)), SitePath(Dilated(1), ("eye",))]
    assert found.nearest == Candidate({"a": plain, "b": Dilated(6)})
    assert candidate.nearest == candidate


@pytest.mark.parametrize("more", [{"learned": True}, {"gamma": 1.0, "s": 5}])
def test_a_dilation_found_in_training_goes_with_no_other_way(more):
    with pytest.raises(SpaceError, match=r"a learned inflation nor an LS-DFN block|an inflation factor or an LS-DFN"):
        read_choice({"dilation": 4, "fractional": True, **more})


def test_a_layer_is_written_only_where_there_is_one():
    candidate = Candidate({"a": Guest(4, "peers.dcls:dcls"), "b": Dilated(2)})
    assert json.loads(candidate.to_json()) == {
        "a": {"dilation": 4, "layer": "peers.dcls:dcls"},
        "b": {"dilation": 2},
    }
    assert candidate.learned
    assert str(candidate) == "a: d=4, layer dcls; b: d=2"


@pytest.mark.parametrize(("real", "dilation"), [(5.4, 5), (5.6, 6), (0.04, 1)])
def test_what_a_layer_has_found_is_its_dilation_and_the_layer_stays(real, dilation):
    candidate = Candidate({"a": Guest(4, "peers/dcls.py:dcls")})
    ended = candidate.ended({"a": real})
    assert ended == Candidate({"a": Guest(4, "peers/dcls.py:dcls", found=real)})
    assert dict(ended)["a"].choice.numbers == {"dilation": dilation}
    assert Candidate.from_json(ended.to_json()) == ended
    assert candidate.ended({}) == candidate


@pytest.mark.parametrize("more", [{"f": 2.0}, {"learned": True}, {"gamma": 1.0, "s": 5}, {"fractional": True}])
def test_a_layer_goes_with_no_other_way(more):
    with pytest.raises(SpaceError, match="a site with a layer in its convolution's place gets no inflation"):
        read_choice({"dilation": 4, "layer": "a:b", **more})


@pytest.mark.parametrize("spec", ["dcls", "a.b:", ":dcls"])
def test_a_layer_is_named_in_full(spec):
    with pytest.raises(SpaceError, match=rf"a layer is a SPEC, package.module:callable or .*Got '{spec}'"):
        Guest(4, spec)


def test_a_candidate_is_made_of_a_mapping_its_pairs_or_its_own_choices():
    expected = Candidate({"a": Dilated(2), "b": (Dilated(1), Dilated(4))})
    assert Candidate({"b": [Dilated(1), Dilated(4)], "a": Dilated(2)}) == expected
    assert Candidate([("b", (Dilated(1), Dilated(4))), ("a", [Dilated(2)])]) == expected
    assert Candidate(expected.sites) == expected
    assert hash(Candidate({"a": Dilated(2), "b": [Dilated(1), Dilated(4)]})) == hash(expected)
    assert Candidate.from_json(Candidate({"b": [Dilated(1), Dilated(4)], "a": Dilated(2)}).to_json()) == expected
    assert pickle.loads(pickle.dumps(expected)) == expected
    assert repr(expected).startswith("Candidate(sites=(('a', (SitePath(choice=Dilated(dilation=2)")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"conv6": 2}, r"Got 2 at 'conv6'. Did you mean Dilated\(2\)\?"),
        ({"conv6": "2"}, "Got '2' at 'conv6'"),
        ({"conv6": None}, "Got None at 'conv6'"),
        ({"conv6": []}, "site 'conv6' has at least one path"),
        ({"conv6": [Dilated(1), 2]}, "at 'conv6'"),
        ({"conv6": {"dilation": 2}}, "at 'conv6'"),
        ({6: Dilated(2)}, "Got the site 6"),
        ([("a", Dilated(1)), ("a", Dilated(2))], "each site once. Got 'a' twice"),
        (["conv6"], r"Got \['conv6'\]"),
        ([Dilated(2)], "maps the name of each site to a choice"),
        (Dilated(2), "maps the name of each site to a choice"),
        (3, "Got 3"),
        ('{"conv6": {"dilation": 2}}', "from_json reads JSON"),
    ],
)
def test_what_is_no_candidate_is_one_message(choices, message):
    with pytest.raises(SpaceError, match=message):
        Candidate(choices)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dilated("4"), "a dilation is an integer. Got '4'"),
        (lambda: Dilated(2.5), "a dilation is an integer. Got 2.5. Nearest: 2"),
        (lambda: Dilated(True), "a dilation is an integer. Got True"),
        (lambda: Dilated(float("nan")), "a dilation is an integer. Got nan"),
        (lambda: Dilated([2]), r"Got \[2\]"),
        (lambda: Inflated(1, "1"), "an inflation factor is a number. Got '1'"),
        (lambda: Inflated(4, 1.0), r"leaves the map as it is.*Nearest: Dilated\(4\)"),
        (lambda: SitePath(Dilated(1), "hair"), "a list of texts. Got 'hair'"),
        (lambda: SitePath(Dilated(1), [1]), "a list of texts"),
        (lambda: Sampled(1, "2"), "gamma is a number. Got '2'"),
        (lambda: Fractional(0.0), "a real dilation is greater than 0 px"),
        (lambda: Guest(1, len), "named by its SPEC"),
        (lambda: Guest(1, "a:b", found=float("nan")), "found is greater than 0 px"),
        (lambda: read_choice({"kind": 3}), "the kind of a choice is a name. Got 3"),
        (lambda: read_choice({"kind": "dilate"}), "unknown kind of choice 'dilate'. Did you mean 'dilated'"),
        (lambda: read_choice({"kind": "fractional", "size": 3}), "not a choice of kind 'fractional': no 'dilation'"),
    ],
)
def test_a_choice_of_wrong_values_is_one_message(make, message):
    with pytest.raises(SpaceError, match=message):
        make()


@pytest.mark.parametrize(
    "text",
    [
        '{"conv6": {"dilation": 4, "fractional": true}}',
        '{"conv6": {"dilation": 4, "layer": "a.b:c"}}',
        '{"conv6": [{"dilation": 1, "gamma": 2.0, "gamma_learned": true, "s": 3}, {"dilation": 1}]}',
    ],
)
def test_kinds_that_ledgers_held_before_kinds_had_names_keep_their_text(text):
    assert Candidate.from_json(text).to_json() == text


def test_a_real_dilation_is_read_in_the_form_it_was_written_in_before_kinds_had_names():
    found = Candidate.from_json('{"a": {"dilation": 4, "f": 0.8, "fractional": true, "labels": ["eye"]}}')
    assert found == Candidate({"a": SitePath(Fractional(5.0), ("eye",))})
    assert json.loads(found.to_json()) == {"a": {"kind": "fractional", "dilation": 5.0, "labels": ["eye"]}}


def test_built_in_kinds_are_also_read_by_their_names():
    assert read_choice({"kind": "dilated", "dilation": 4}) == Dilated(4)
    assert read_choice({"kind": "sampled", "dilation": 1, "gamma": 2, "s": 3}) == Sampled(1, 2.0, 3)


def test_numbers_of_numpy_and_lists_of_labels_are_as_good_as_plain_ones():
    odd = SitePath(Inflated(np.int64(3), np.float32(0.5)), ["hair", "nose"])
    assert odd == SitePath(Inflated(3, 0.5), ("hair", "nose"))
    assert hash(odd) == hash(SitePath(Inflated(3, 0.5), ("hair", "nose")))
    assert Candidate.from_json(Candidate({"a": odd}).to_json()) == Candidate({"a": odd})
    with pytest.raises(SpaceError, match="s, regions an axis, is an integer. Got 2.5"):
        Sampled(1, 1.0, 2.5)
