"""Whole numbers in the place of real ones: the nearest, what fits, and shares of channels."""

import pytest

from rfsearch.patch import ChannelSplit, Patch, PatchSettings
from rfsearch.projection import Room, fixed, project
from rfsearch.space import Candidate, Choice, Sampling

ROOM = Room(dilation=11, span=21, channels=40)


def patch(choice: Choice | list[Choice]) -> Patch:
    return Patch("net", (), Candidate.of({"a": choice}), PatchSettings())


def whole(choice: Choice | list[Choice], room: Room = ROOM) -> dict[str, tuple[dict, dict]]:
    """Candidate and splits by way."""
    found = project(patch(choice), {"a": room})
    return {name: (dict(made.candidate.choices), dict(made.splits)) for name, made in found.patches.items()}


def test_whole_values_are_left_alone():
    for choice in (Choice(3), [Choice(3), Choice(1)], Choice(1, sampling=Sampling(2.0, 5))):
        found = project(patch(choice), {"a": ROOM})
        assert (found.patches, found.notices) == ({}, [])


def test_a_real_dilation_gives_its_share_of_channels_to_the_larger_one():
    """delta = 2.3: 30 % of 40 channels."""
    found = whole(Choice(3, f=3 / 2.3))
    assert found["rounded"] == ({"a": Choice(2)}, {})
    assert found["split"] == ({"a": Choice(2)}, {"a": ChannelSplit(3, 12)})
    assert whole(Choice(1, f=1 / 2.7))["rounded"] == ({"a": Choice(3)}, {})
    assert whole(Choice(1, f=1 / 2.7))["split"] == ({"a": Choice(2)}, {"a": ChannelSplit(3, 28)})


@pytest.mark.parametrize(
    ("choice", "room", "dilation"),
    [
        (Choice(4, f=2.0), ROOM, 2),  # whole already
        (Choice(1, f=3.0), ROOM, 1),  # 1/3 px: nothing below 1
        (Choice(8, f=0.5), ROOM, 11),  # 16 px: more than fits
        (Choice(5, f=2.0), Room(11, 21, 0), 3),  # 2.5 px, rounded up, nothing to split
        (Choice(100, f=100 / 2.01), Room(11, 21, 40), 2),  # 0.4 channels
    ],
)
def test_one_dilation_where_two_make_no_sense(choice, room, dilation):
    assert whole(choice, room) == {"rounded": ({"a": Choice(dilation)}, {})}


def test_paths_are_projected_one_by_one_and_keep_their_labels():
    paths = [Choice(2, f=0.8, labels=("eye",)), Choice(3), Choice(4, f=1.25)]
    found = whole(paths)
    assert found["rounded"] == ({"a": (Choice(3, labels=("eye",)), Choice(3), Choice(3))}, {})
    splits = {"a/1": ChannelSplit(3, 20), "a/3": ChannelSplit(4, 8)}
    expected = ((Choice(2, labels=("eye",)), Choice(3), Choice(3)), splits)
    assert (found["split"][0]["a"], found["split"][1]) == expected
    notices = project(patch(paths), {"a": ROOM}).notices
    assert [notice.partition(":")[0] for notice in notices] == ["a/1", "a/3"]
    assert "2.5 px between taps. Rounded: 3. Split: 20 of 40 channels at 3, the others at 2." in notices[0]


def test_what_does_not_fit_is_said():
    (notice,) = project(patch(Choice(8, f=0.5)), {"a": ROOM}).notices
    assert "16 px between taps, above what is possible: 11. Rounded: 11." in notice
    (notice,) = project(patch(Choice(1, f=3.0)), {"a": ROOM}).notices
    assert "0.3333 px between taps, below what is possible: 1." in notice


@pytest.mark.parametrize(("gamma", "s", "span", "expected"), [(2.4, 3, 21, 2), (0.3, 5, 21, 1), (6.6, 5, 21, 5)])
def test_a_sample_stride_becomes_the_nearest_that_fits(gamma, s, span, expected):
    found = whole(Choice(1, sampling=Sampling(gamma, s)), Room(11, span, 40))
    assert found == {"rounded": ({"a": Choice(1, sampling=Sampling(float(expected), s))}, {})}


def test_a_single_place_has_no_stride_to_round():
    assert whole(Choice(1, sampling=Sampling(1.3, 1))) == {}


def test_learned_values_are_fixed_to_what_they_had_become():
    searched = Candidate.of(
        {
            "a": [Choice(1, learned=True), Choice(2, learned=True, labels=("x",))],
            "b": Choice(2, sampling=Sampling(2.0, 3, learned=True)),
            "c": Choice(3, f=0.5),
        }
    )
    assert fixed(searched, searched.ended(f={"a/1": 1.5, "a/2": 1.0, "c": 0.5}, gamma={"b": 3.25})) == Candidate.of(
        {
            "a": [Choice(1, f=1.5), Choice(2, labels=("x",))],
            "b": Choice(2, sampling=Sampling(3.25, 3)),
            "c": Choice(3, f=0.5),
        }
    )


@pytest.mark.parametrize("found", [1, 6, 7, 11])
def test_a_dilation_found_in_training_is_the_one_of_the_patch(found):
    searched = Candidate.of({"a": Choice(3, fractional=True)})
    assert fixed(searched, searched.ended({"a": found})) == Candidate.of({"a": Choice(found)})


def test_a_real_dilation_found_in_training_is_that_of_the_patch_and_rounded_or_split():
    searched = Candidate.of({"a": Choice(3, fractional=True)})
    patch = Patch("b", (), fixed(searched, searched.ended({"a": 3.75})), PatchSettings())
    ((_, choice),) = patch.candidate
    assert choice.spacing == pytest.approx(3.75)
    found = project(patch, {"a": Room(11, 0, 64)})
    assert found.patches["rounded"].candidate == Candidate.of({"a": Choice(4)})
    assert found.patches["split"].candidate == Candidate.of({"a": Choice(3)})
    assert found.patches["split"].splits == {"a": ChannelSplit(4, 48)}
    assert found.notices == [
        "a: dilation 3.75. Rounded: 4. Split: 48 of 64 channels at 4, the others at 3.",
    ]


def test_a_layer_is_fixed_where_it_started_whatever_it_found():
    started = Candidate.of({"a": [Choice(2, layer="peers.dcls:dcls"), Choice(4, fractional=True)]})
    assert fixed(started, started.ended({"a/1": 4, "a/2": 8})) == Candidate.of(
        {"a": [Choice(2, layer="peers.dcls:dcls"), Choice(8)]}
    )
