"""Strategies of a user's own files and modules."""

import json

import pytest

from tests.calls import wrong
from tests.toys import toy_file

STRATEGY = """
from rfsearch.strategies import Description, Exhausted

class Mine:
    def __init__(self, space, seed):
        self.space, self.tried = space, 0

    def suggest(self, pending):
        return self.space.default_candidate

    def observe(self, record):
        self.tried += 1

class OtherForm(Mine):
    form = "bi"

class random(Mine):
    pass

number = 3

class NoMethods:
    def __init__(self, space, seed):
        pass

def no_seed(space):
    return Mine(space, 0)

class BadStart(Mine):
    def __init__(self, space, seed):
        raise KeyError("grid")

class BadSuggest(Mine):
    def suggest(self, pending):
        return 1 / 0

class Number(Mine):
    def suggest(self, pending):
        return 4

class Nothing(Mine):
    def suggest(self, pending):
        pass

class BadList(Mine):
    def describe(self):
        return Description(("conv6",))

class LazyList(Mine):
    def describe(self):
        return Description(tuple({}[self.space.name]))

class BadFewest(Mine):
    def describe(self):
        return Description(fewest="many")

class BadDescription(Mine):
    def describe(self):
        return [self.space.default_candidate]
"""


@pytest.fixture
def strategies_file(tmp_path):
    """A file of strategies, good and bad, in a folder whose name holds the mark of a form."""
    path = tmp_path / "me@home" / "mine.py"
    path.parent.mkdir()
    path.write_text(STRATEGY)
    return path


def test_strategies_of_files_and_modules_are_planned_and_called_by_their_class(call, tmp_path, strategies_file):
    from rfsearch.ledger import Request
    from rfsearch.planning.request import check_request

    def named(*strategies: str) -> list[str]:
        request = Request(space=str(tmp_path / "toy.toml"), strategies=strategies)
        return [entrant.label for entrant in check_request(request).entrants]

    toy_file(tmp_path)
    other = tmp_path / "mine.py"
    other.write_text(STRATEGY)
    assert named(f"{strategies_file}:Mine") == ["Mine"]
    assert named("random", f"{other}:random", f"{other}:Mine", f"{strategies_file}:Mine") == [
        "random", "random-2", "Mine", "Mine-2",
    ]  # fmt: skip
    assert named(f"{other}:Mine", f"{other}:Mine@bi", f"{other}:OtherForm") == ["Mine", "Mine@bi", "OtherForm"]
    assert named("rfsearch.strategies.random:RandomSearch", "random") == ["RandomSearch", "random"]
    specs = "me@home/mine.py:Mine,rfsearch.strategies.exhaustive:Exhaustive"
    code, out, err = call("plan", "--space", "toy.toml", "--strategies", specs, "--json")
    assert code == 0, err
    assert json.loads(out)["arms"] == 2


@pytest.mark.parametrize(
    ("strategies", "parts"),
    [
        ("me@home/mine.py:Mine,./me@home/mine.py:Mine", ["each strategy once"]),
        ("mine.py", ["by the name of its class: mine.py:MyStrategy"]),
        ("me@home/mine.py:Mina", ["has no callable 'Mina'", "Did you mean 'Mine'?"]),
        ("me@home/mine.py:number", ["has no callable 'number'"]),
        ("nowhere.py:Mine", ["no file", "nowhere.py"]),
        ("nowhere.at.all:Mine", ["nowhere.at.all does not import"]),
        ("me@home/mine.py:Mine@by", ["Got 'by'", "Did you mean 'bi'?"]),
        ("me@home/mine.py:OtherForm@tri", ["searches the form bi only"]),
        ("me@home/mine.py:NoMethods", ["strategy NoMethods: a strategy has the methods suggest", "has not both"]),
        ("me@home/mine.py:no_seed", ["strategy no_seed: its constructor (space, seed) failed with TypeError"]),
        ("me@home/mine.py:BadStart", ["strategy BadStart: its constructor", "KeyError: 'grid'", "mine.py, line 31"]),
        ("me@home/mine.py:BadSuggest", ["strategy BadSuggest: suggest(pending) failed with ZeroDivisionError"]),
        ("me@home/mine.py:Number", ["strategy Number: suggest(pending) returns a Candidate, an Heir", "Got int 4."]),
        ("me@home/mine.py:Nothing", ["strategy Nothing: suggest(pending) returns", "Got NoneType None."]),
        ("me@home/mine.py:BadList", ["strategy BadList: its candidates are Candidates. Got str 'conv6'."]),
        ("me@home/mine.py:LazyList", ["strategy LazyList: describe() failed with KeyError: 'toy'"]),
        ("me@home/mine.py:BadFewest", ["strategy BadFewest: fewest is a number of full trainings. Got str 'many'."]),
        ("me@home/mine.py:BadDescription", ["strategy BadDescription: describe() returns a Description. Got list"]),
        ("leaves.py:Mine", ["leaves.py does not import: SystemExit: no licence."]),
    ],
)
def test_a_faulty_strategy_of_a_file_is_one_message(call, tmp_path, strategies_file, strategies, parts):
    toy_file(tmp_path)
    (tmp_path / "leaves.py").write_text("raise SystemExit('no licence')\n")
    told = call("plan", "--space", "toy.toml", "--strategies", strategies)
    wrong(told, *parts)
    assert told[2].count("\n") == 1
