"""A ledger and whole files on a disk without room."""

import os
from dataclasses import replace

import pytest

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import Journal, files, read_history
from rfsearch.ledger.files import write_whole
from rfsearch.ledger.journal import LEDGER_FILE
from tests.disks import files_at_most, fill, small_disk
from tests.ledger.test_journal import ASSIGNMENT, RECORD


@pytest.mark.parametrize("room", [0, 1, 20, 200])
def test_a_line_that_does_not_fit_leaves_no_part_of_itself(tmp_path, room):
    journal, path = Journal(tmp_path), tmp_path / LEDGER_FILE
    journal.start(ASSIGNMENT)
    before = path.read_bytes()
    with files_at_most(len(before) + room), pytest.raises(RunDirectoryError, match="File too large.*rfsearch resume"):
        journal.finish(RECORD)
    assert path.read_bytes() == before
    journal.finish(RECORD)
    assert read_history(tmp_path).records == {RECORD.trial: RECORD}


def test_a_part_that_cannot_be_taken_back_is_dropped_before_the_next_line(tmp_path, monkeypatch):
    journal, path = Journal(tmp_path), tmp_path / LEDGER_FILE
    journal.start(ASSIGNMENT)
    real = open

    class Stuck:
        """A file whose part of a line stays."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def truncate(self, size):
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, files_at_most(path.stat().st_size + 20):
        patch.setattr("builtins.open", lambda *args, **more: Stuck(real(*args, **more)))
        with pytest.raises(RunDirectoryError, match="File too large"):
            journal.finish(RECORD)
    assert not path.read_bytes().endswith(b"\n")
    assert len(read_history(tmp_path).unfinished) == 1
    journal.finish(RECORD)
    assert read_history(tmp_path).records == {RECORD.trial: RECORD}


def test_a_ledger_on_a_full_disk_can_be_read_and_goes_on(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        journal = Journal(disk)
        journal.start(ASSIGNMENT)
        ballast = fill(disk)
        with pytest.raises(RunDirectoryError, match="No space left on device"):
            journal.finish(replace(RECORD, cause="x" * 8192))  # the ledger's last page still has room
        assert read_history(disk).assignments == {ASSIGNMENT.trial: ASSIGNMENT}
        ballast.unlink()
        journal.finish(RECORD)
        assert read_history(disk).records == {RECORD.trial: RECORD}


def test_a_ledger_whose_first_line_did_not_fit_is_begun_again(tmp_path):
    with files_at_most(5), pytest.raises(RunDirectoryError, match="cannot be written"):
        Journal(tmp_path)
    Journal(tmp_path)
    assert b'"schema"' in (tmp_path / LEDGER_FILE).read_bytes()


def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path):
    path = tmp_path / "report.html"
    write_whole(path, "before")
    with files_at_most(100), pytest.raises(RunDirectoryError, match=r"report\.html: cannot be written: File too large"):
        write_whole(path, "x" * 200)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_file_is_on_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    done: list[str] = []
    sync, path = os.fsync, tmp_path / "model.pt"
    replace = type(path).replace
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: (done.append("sync"), sync(descriptor)))
    monkeypatch.setattr(type(path), "replace", lambda self, to: (done.append("rename"), replace(self, to)))
    with files.whole_file(path) as file:
        file.write(b"weights")
    assert done == ["sync", "rename", "sync"]
    assert path.read_bytes() == b"weights"
