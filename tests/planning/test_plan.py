"""A plan is resolved once: what strategies list and need is asked for once, and reading the plan builds nothing."""

import ast
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import rfsearch
from rfsearch import plugins
from rfsearch.choices import Dilated
from rfsearch.errors import SpaceError
from rfsearch.ledger import Request
from rfsearch.planning.competition import contest_of
from rfsearch.planning.plan import drawn, forecast_rows, guides, make_plan
from rfsearch.planning.request import check_request
from rfsearch.strategies import Description
from rfsearch.strategies.defaults import default_strategies
from tests.planned import planned
from tests.toys import toy_faces, toy_file

PACKAGE = Path(rfsearch.__file__).parent


class Counted:
    """A strategy that counts how often any of its kind is built and asked."""

    calls: ClassVar[Counter[str]] = Counter()

    def __init__(self, space, seed):
        self.calls["built"] += 1
        self._space = space

    def suggest(self, pending):
        self.calls["suggest"] += 1
        return self._space.uniform(Dilated(2))

    def observe(self, record):
        raise AssertionError("nothing was trained")


class CountedDescribing(Counted):
    def describe(self):
        self.calls["describe"] += 1
        return Description((self._space.uniform(Dilated(2)),), draws="whatever it likes")


@pytest.fixture
def request_of(tmp_path):
    def made(*strategies: str, **changes: object) -> Request:
        plugins.strategy(f"{__file__}:Counted").calls.clear()  # a SPEC imports this file as another module
        return Request(str(toy_file(tmp_path)), strategies=strategies, **changes)

    return made


def test_each_strategy_is_built_once_to_plan_and_once_for_each_arm(request_of, tmp_path):
    plan = planned(request_of(f"{__file__}:CountedDescribing", seeds=3), tmp_path)
    calls = plan.entrants[0].make.calls
    assert calls == {"built": 1, "describe": 1}
    contest_of(plan, tmp_path)
    assert calls["built"] == 1 + 3


def test_reading_a_plan_builds_and_loads_no_strategy(request_of, tmp_path, monkeypatch):
    plan = planned(request_of("exhaustive", "random", f"{__file__}:Counted", seeds=2), tmp_path)
    calls = plan.entrants[2].make.calls
    assert calls == {"built": 1, "suggest": 1}

    def load(group, name):
        assert group != "strategies"  # the first forecast of a candidate builds its network
        return loaded(group, name)

    loaded = plugins.load
    monkeypatch.setattr(plugins, "load", load)
    for _ in range(2):
        assert [candidate.to_json() for candidate in plan.candidates]
        assert len(plan.arms) == 6
        assert len(forecast_rows(plan)) == 3
        assert (guides(plan), len(drawn(plan))) == ([], 1)
    assert calls == {"built": 1, "suggest": 1}


def test_each_strategy_is_looked_up_once(request_of, tmp_path, monkeypatch):
    seen, load = [], plugins.load
    monkeypatch.setattr(plugins, "load", lambda group, name: seen.append((group, name)) or load(group, name))
    checked = check_request(request_of())
    make_plan(checked, toy_faces(), torch.device("cpu"))
    strategies = [name for group, name in seen if group == "strategies"]
    assert strategies == ["exhaustive", "random", "optuna", "inflation", "fractional"]


def test_a_strategy_that_describes_itself_is_not_asked_for_a_suggestion(request_of, tmp_path):
    plan = planned(request_of(f"{__file__}:CountedDescribing"), tmp_path)
    assert plan.candidates == (plan.space.uniform(Dilated(2)),)
    assert drawn(plan) == ["CountedDescribing: whatever it likes."]


class DescribingAlike(CountedDescribing):
    pass


def test_what_several_strategies_may_try_is_said_once_for_all(request_of, tmp_path):
    plan = planned(request_of(f"{__file__}:CountedDescribing", f"{__file__}:DescribingAlike"), tmp_path)
    assert drawn(plan) == ["CountedDescribing, DescribingAlike: whatever it likes."]


def test_a_strategy_that_does_not_describe_itself_is_planned_by_its_first_suggestion(request_of, tmp_path):
    plan = planned(request_of(f"{__file__}:Counted"), tmp_path)
    assert plan.candidates == (plan.space.uniform(Dilated(2)),)
    assert drawn(plan) == []


@pytest.mark.parametrize("form", ["single", "bi", "tri", "lsdfn"])
def test_the_strategies_that_compete_by_default_can_search_the_form(request_of, tmp_path, form):
    names = default_strategies(form)
    assert names[:3] == ("exhaustive", "random", "optuna")
    checked = check_request(request_of(preset=form))
    assert [entrant.label for entrant in checked.entrants] == list(names)
    for entrant in checked.entrants:
        assert entrant.form == form
        assert entrant.enter(checked.space, 0).describe().candidates


def test_the_strategies_that_a_preset_names_compete_unless_others_are_asked_for_or_another_form(tmp_path):
    file = tmp_path / "few.toml"
    text = (
        plugins.space_file("helen").read_text().replace('budget = "7.6x"', 'budget = "7.6x"\nstrategies = ["optuna"]')
    )
    file.write_text(text)

    def competing(*strategies: str, **asked: object) -> list[str]:
        return [one.label for one in check_request(Request(str(file), strategies=strategies, **asked)).entrants]

    assert competing() == ["optuna"]
    assert competing("random", "inflation") == ["random", "inflation"]
    assert competing(preset="bi") == competing(paths=2) == list(default_strategies("bi"))
    file.write_text(text.replace('["optuna"]', '["optuna", "optuna"]'))
    with pytest.raises(SpaceError, match="space 'helen' names each strategy once. Got 'optuna,optuna'"):
        competing()


def test_nothing_outside_the_strategies_knows_one_by_name():
    names = {point.name for point in entry_points(group="rfsearch.strategies")}
    files = [*PACKAGE.glob("*.py"), *(PACKAGE / "planning").glob("*.py"), *PACKAGE.glob("cli/*.py")]
    files += [file for folder in ("report", "orchestration", "ledger") for file in (PACKAGE / folder).glob("*.py")]
    told = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare | ast.Dict | ast.Tuple | ast.Set | ast.List):
                inside = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                told |= {(file.name, name) for name in names & {value for value in inside if isinstance(value, str)}}
    # The package of that name, among those whose versions a run notes; a key of a choice's JSON.
    assert told <= {("provenance.py", "optuna"), ("untouched.py", "optuna"), ("patch.py", "fractional")}
