"""Faults of a strategy in what it is asked: each is one message that names it."""

import sys

import pytest

from rfsearch import plugins
from rfsearch.errors import StrategyError
from rfsearch.space import read_space
from rfsearch.strategies import Description, Exhausted
from rfsearch.strategies.guard import Guarded

FIRST = read_space(plugins.space_file("helen"), None).default_candidate


class Plain:
    def suggest(self, pending):
        sys.exit(3)

    def observe(self, record):
        raise SystemExit

    def prune(self, candidate, rungs):
        return True


class Relays(Plain):
    @property
    def awaited(self):
        raise KeyError("parents")


class CountsParents(Plain):
    awaited = 7


class Budgets(Plain):
    def describe(self):
        raise ZeroDivisionError("room")

    def allot(self, room):
        raise SystemExit("no licence")


class Words(Plain):
    def describe(self):
        return Description(fewest="many")


class Lists(Plain):
    def describe(self):
        return [FIRST]


class Begins(Plain):
    def suggest(self, pending):
        return FIRST


class Ends(Plain):
    def suggest(self, pending):
        return Exhausted("there is nothing to try")


def guarded(strategy):
    return Guarded("Mine", strategy())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: guarded(Plain).suggest([]), r"Mine: suggest\(pending\) failed with SystemExit: 3\. Raised"),
        (lambda: guarded(Plain).observe(None), r"Mine: observe\(record\) failed with SystemExit\. Raised in"),
        (lambda: guarded(Plain).describe(), r"Mine: suggest\(pending\) failed with SystemExit: 3\. Raised"),
        (lambda: guarded(Relays).awaited, r"Mine: awaited failed with KeyError: 'parents'\. Raised in"),
        (lambda: guarded(CountsParents).awaited, r"Mine: awaited failed with TypeError"),
        (lambda: guarded(Budgets).describe(), r"Mine: describe\(\) failed with ZeroDivisionError: room\. Raised in"),
        (lambda: guarded(Budgets).allot(None), r"Mine: allot\(room\) failed with SystemExit: no licence\. Raised in"),
        (lambda: guarded(Words).describe(), r"Mine: fewest is a number of full trainings\. Got str 'many'\."),
        (lambda: guarded(Lists).describe(), r"Mine: describe\(\) returns a Description\. Got list \["),
        (lambda: Guarded.built("Mine", lambda: sys.exit("bye")), r"constructor .* failed with SystemExit: bye"),
        (lambda: Guarded("Mine", 3), r"Mine: a strategy has the methods .* Got int 3, which has not both"),
    ],
    ids=["suggest", "observe", "first suggestion", "awaited", "a number awaited", "describe", "allot",
         "fewest in words", "a list for a description", "constructor", "no strategy"],
)  # fmt: skip
def test_a_fault_of_a_strategy_is_one_message_that_names_it(call, message):
    with pytest.raises(StrategyError, match=message):
        call()


def test_a_strategy_without_optional_methods_is_asked_for_none_of_them():
    plain = guarded(Plain)
    plain.allot(None)
    assert (plain.relays, plain.awaited) == (False, [])
    assert guarded(Begins).prunes(FIRST, ())


def test_a_strategy_that_does_not_describe_itself_is_described_by_its_first_suggestion():
    assert guarded(Begins).describe() == Description((FIRST,))
    assert guarded(Ends).describe() == Description()
