"""Whole numbers in the place of real ones: the nearest, what fits, and shares of channels."""

import pytest

from rfsearch.choices import (
    Candidate,
    ChannelSplit,
    Choice,
    Dilated,
    Fractional,
    Guest,
    Inflated,
    Room,
    Sampled,
    Searched,
    SitePath,
)
from rfsearch.patch import Patch, PatchSettings
from rfsearch.projection import project

ROOM = Room(dilation=11, span=21, channels=40)


def patch(choice: Choice | list[Choice]) -> Patch:
    return Patch("net", (), Candidate({"a": choice}), PatchSettings())


def whole(choice: Choice | list[Choice], room: Room = ROOM) -> dict[str, tuple[dict, dict]]:
    """Candidate and splits by way."""
    found = project(patch(choice), {"a": room})
    return {name: (sites(made.candidate), dict(made.splits)) for name, made in found.patches.items()}


def sites(candidate: Candidate) -> dict:
    """A choice where there is one path without labels, else the paths."""
    plain = {site: paths[0].choice if len(paths) == 1 else paths for site, paths in candidate.sites}
    return {site: tuple(map(unlabelled, given)) if isinstance(given, tuple) else given for site, given in plain.items()}


def unlabelled(path: SitePath) -> Choice | SitePath:
    return path if path.labels else path.choice


def test_whole_values_are_left_alone():
    for choice in (Dilated(3), [Dilated(3), Dilated(1)], Sampled(1, 2.0, 5)):
        found = project(patch(choice), {"a": ROOM})
        assert (found.patches, found.notices) == ({}, [])


def test_a_real_dilation_gives_its_share_of_channels_to_the_larger_one():
    """delta = 2.3: 30 % of 40 channels."""
    found = whole(Inflated(3, 3 / 2.3))
    assert found["rounded"] == ({"a": Dilated(2)}, {})
    assert found["split"] == ({"a": Dilated(2)}, {"a": ChannelSplit(3, 12)})
    assert whole(Inflated(1, 1 / 2.7))["rounded"] == ({"a": Dilated(3)}, {})
    assert whole(Inflated(1, 1 / 2.7))["split"] == ({"a": Dilated(2)}, {"a": ChannelSplit(3, 28)})


@pytest.mark.parametrize(
    ("choice", "room", "dilation"),
    [
        (Inflated(4, 2.0), ROOM, 2),  # whole already
        (Inflated(1, 3.0), ROOM, 1),  # 1/3 px: nothing below 1
        (Inflated(8, 0.5), ROOM, 11),  # 16 px: more than fits
        (Inflated(5, 2.0), Room(11, 21, 0), 3),  # 2.5 px, rounded up, nothing to split
        (Inflated(100, 100 / 2.01), Room(11, 21, 40), 2),  # 0.4 channels
    ],
)
def test_one_dilation_where_two_make_no_sense(choice, room, dilation):
    assert whole(choice, room) == {"rounded": ({"a": Dilated(dilation)}, {})}


def test_paths_are_projected_one_by_one_and_keep_their_labels():
    paths = [SitePath(Inflated(2, 0.8), ("eye",)), Dilated(3), Inflated(4, 1.25)]
    found = whole(paths)
    assert found["rounded"] == ({"a": (SitePath(Dilated(3), ("eye",)), Dilated(3), Dilated(3))}, {})
    splits = {"a/1": ChannelSplit(3, 20), "a/3": ChannelSplit(4, 8)}
    expected = ((SitePath(Dilated(2), ("eye",)), Dilated(3), Dilated(3)), splits)
    assert (found["split"][0]["a"], found["split"][1]) == expected
    notices = project(patch(paths), {"a": ROOM}).notices
    assert [notice.partition(":")[0] for notice in notices] == ["a/1", "a/3"]
    assert "2.5 px between taps. Rounded: 3. Split: 20 of 40 channels at 3, the others at 2." in notices[0]


def test_what_does_not_fit_is_reported():
    (notice,) = project(patch(Inflated(8, 0.5)), {"a": ROOM}).notices
    assert "16 px between taps, above what is possible: 11. Rounded: 11." in notice
    (notice,) = project(patch(Inflated(1, 3.0)), {"a": ROOM}).notices
    assert "0.3333 px between taps, below what is possible: 1." in notice


@pytest.mark.parametrize(("gamma", "s", "span", "expected"), [(2.4, 3, 21, 2), (0.3, 5, 21, 1), (6.6, 5, 21, 5)])
def test_a_sample_stride_becomes_the_nearest_that_fits(gamma, s, span, expected):
    found = whole(Sampled(1, gamma, s), Room(11, span, 40))
    assert found == {"rounded": ({"a": Sampled(1, float(expected), s)}, {})}


def test_a_single_place_has_no_stride_to_round():
    assert whole(Sampled(1, 1.3, 1)) == {}


def test_learned_values_are_fixed_to_what_they_had_become():
    searched = Candidate(
        {
            "a": [Inflated(1, learned=True), SitePath(Inflated(2, learned=True), ("x",))],
            "b": Sampled(2, 2.0, 3, learned=True),
            "c": Inflated(3, 0.5),
        }
    )
    assert searched.ended({"a/1": 1.5, "a/2": 1.0, "c": 0.5, "b": 3.25}) == Candidate(
        {
            "a": [Inflated(1, 1.5), SitePath(Dilated(2), ("x",))],
            "b": Sampled(2, 3.25, 3),
            "c": Inflated(3, 0.5),
        }
    )


@pytest.mark.parametrize("found", [1, 6, 7, 11])
def test_a_dilation_found_in_training_is_the_one_of_the_patch(found):
    searched = Candidate({"a": Searched(3)})
    assert searched.ended({"a": found}) == Candidate({"a": Dilated(found)})


def test_a_real_dilation_found_in_training_is_that_of_the_patch_and_rounded_or_split():
    searched = Candidate({"a": Searched(3)})
    patch = Patch("b", (), searched.ended({"a": 3.75}), PatchSettings())
    assert patch.candidate == Candidate({"a": Fractional(3.75)})
    found = project(patch, {"a": Room(11, 0, 64)})
    assert found.patches["rounded"].candidate == Candidate({"a": Dilated(4)})
    assert found.patches["split"].candidate == Candidate({"a": Dilated(3)})
    assert found.patches["split"].splits == {"a": ChannelSplit(4, 48)}
    assert found.notices == [
        "a: dilation 3.75. Rounded: 4. Split: 48 of 64 channels at 4, the others at 3.",
    ]


def test_a_layer_is_fixed_where_it_started_whatever_it_found():
    started = Candidate({"a": [Guest(2, "peers.dcls:dcls"), Searched(4)]})
    ended = started.ended({"a/1": 4, "a/2": 8})
    assert ended == Candidate({"a": [Guest(2, "peers.dcls:dcls", found=4.0), Dilated(8)]})
    assert [path.choice.dilations for _, path in ended] == [(2,), (8,)]
