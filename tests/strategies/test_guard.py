"""Faults of a strategy in what it is asked beside its two methods: each is one message that names it."""

import sys

import pytest

from rfsearch.errors import StrategyError
from rfsearch.strategies import guard


class Plain:
    def suggest(self, pending):
        sys.exit(3)

    def observe(self, record):
        raise SystemExit

    def prune(self, candidate, rungs):
        return True

    def allot(self, room):
        raise SystemExit("no licence")


class Relays(Plain):
    @property
    def awaited(self):
        raise KeyError("parents")


class CountsParents(Plain):
    awaited = 7


class Budgets(Plain):
    @property
    def fewest(self):
        raise ZeroDivisionError("room")


class Words(Plain):
    fewest = "many"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: guard.suggested("Mine", Plain(), []), r"Mine: suggest\(pending\) failed with SystemExit: 3\. Raised"),
        (lambda: guard.observed("Mine", Plain(), None), r"Mine: observe\(record\) failed with SystemExit\. Raised in"),
        (lambda: guard.awaited("Mine", Relays()), r"Mine: awaited failed with KeyError: 'parents'\. Raised in"),
        (lambda: guard.relays("Mine", Relays()), r"Mine: awaited failed with KeyError: 'parents'\. Raised in"),
        (lambda: guard.awaited("Mine", CountsParents()), r"Mine: awaited failed with TypeError"),
        (lambda: guard.fewest("Mine", Budgets()), r"Mine: fewest failed with ZeroDivisionError: room\. Raised in"),
        (lambda: guard.fewest("Mine", Words()), r"Mine: fewest is a number of full trainings\. Got str 'many'\."),
        (lambda: guard.made("Mine", lambda seed: sys.exit("bye"), 0), r"constructor .* failed with SystemExit: bye"),
    ],
    ids=["suggest", "observe", "awaited", "relays", "a number awaited", "fewest", "fewest in words", "constructor"],
)  # fmt: skip
def test_a_fault_of_a_strategy_is_one_message_that_names_it(call, message):
    with pytest.raises(StrategyError, match=message):
        call()


def test_a_strategy_without_these_is_asked_for_none():
    assert guard.awaited("Mine", Plain()) == []
    assert guard.fewest("Mine", Plain()) is None
