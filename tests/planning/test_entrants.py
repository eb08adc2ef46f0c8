"""The strategies that a request names."""

import pytest

from rfsearch import plugins
from rfsearch.errors import SpaceError
from rfsearch.ledger import Request
from rfsearch.planning.entrants import find_entrants
from rfsearch.space import read_space

SPACE = read_space(plugins.space_file("helen"), None)


def test_a_plugin_is_called_as_a_folder_may_be(monkeypatch):
    monkeypatch.setattr(plugins, "strategy", lambda spec: plugins.load("strategies", "random"))
    (entrant,) = find_entrants(Request("helen", strategies=("my own",)), SPACE)
    assert entrant.label == "my own"
    with pytest.raises(SpaceError, match="strategy '../mine': trials are called by it, and .*no slash"):
        find_entrants(Request("helen", strategies=("../mine",)), SPACE)
