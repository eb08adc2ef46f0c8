"""A directory that nothing worth keeping came into does not stay."""

import pytest

from rfsearch.errors import RequestError, StrategyError
from rfsearch.ledger import Assignment
from rfsearch.ledger.journal import Journal
from rfsearch.ledger.manifest import MANIFEST_FILE
from rfsearch.planning.directory import new_directory


@pytest.mark.parametrize(
    ("error", "begun", "stays"),
    [(RequestError, False, False), (RequestError, True, True), (StrategyError, False, True)],
)
def test_a_request_that_only_workers_refuse_leaves_no_directory(error, begun, stays, tmp_path):
    run = tmp_path / "run"

    def fail() -> None:
        with new_directory(run):
            (run / MANIFEST_FILE).write_text("{}")
            journal = Journal(run)
            if begun:
                journal.start(Assignment("t", "s", 0, {}, 0, 1.0))
            raise error("it cannot be sent to workers")

    with pytest.raises(error):
        fail()
    assert run.exists() == stays
