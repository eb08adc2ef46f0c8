"""Runs and data on object storage, tried on an S3 server of this machine."""

import os
import shutil
import signal
import subprocess
import time

import pandas as pd
import pytest

import rfsearch
from rfsearch import storage
from rfsearch.data import rendered_faces
from rfsearch.errors import DataError, RunDirectoryError
from rfsearch.ledger import Request
from rfsearch.storage import MARK, Storage, data_directory, name_of, run_directory, storage_of, uri_of
from tests.calls import wrong
from tests.orchestration.runs import command, environment
from tests.planned import planned
from tests.toys import toy_file, write_faces


@pytest.fixture(scope="module")
def server():
    """The variables that lead to an S3 server with a bucket called `bucket`."""
    import boto3
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
    yield variables
    running.stop()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path, request):
    """A place of a test's own on the server; this machine has seen nothing of it."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"s3://bucket/{request.node.name}"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Go on as on another machine."""

    def go(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    return go


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("s3://bucket/run", "s3://bucket/run"),
        ("s3:/bucket/run", "s3://bucket/run"),
        ("gs://bucket/run/", "gs://bucket/run"),
        ("runs/mine", None),
        ("/data/run", None),
        ("C:/runs/mine", None),
        ("torchvision:resnet18", None),
    ],
)
def test_a_uri_is_told_from_a_path(text, uri):
    assert uri_of(text) == uri


def test_what_is_put_there_is_found_on_another_machine(bucket, elsewhere):
    here = run_directory(bucket)
    assert (name_of(here), [path.name for path in here.iterdir()]) == (bucket, [MARK])
    (here / "ledger.jsonl").write_text("one\n")
    (here / "checkpoints" / "a").mkdir(parents=True)
    (here / "checkpoints" / "a" / "model.pt").write_bytes(b"weights")
    (here / "cache").mkdir()
    (here / "cache" / "images").write_bytes(b"of this machine")
    storage_of(here).push_all()
    storage_of(here).push("checkpoints/a")
    elsewhere("other")
    there = run_directory(bucket)
    assert there != here
    found = {path.relative_to(there).as_posix(): path.read_bytes() for path in there.rglob("*") if path.is_file()}
    assert found == {MARK: bucket.encode(), "ledger.jsonl": b"one\n", "checkpoints/a/model.pt": b"weights"}
    storage_of(there).keep_checkpoints({"b"})
    elsewhere("third")
    assert not (run_directory(bucket) / "checkpoints" / "a").exists()


def test_what_is_of_one_machine_alone_is_not_taken_from_the_storage(bucket, elsewhere):
    """Least of all the note of which storage is written to."""
    here = run_directory(bucket)
    for name in (MARK, ".lock", "cache/images", f"confirmation/{MARK}", "ledger.jsonl"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("s3://somebody/else")
        storage_of(here).push(name) if name != MARK else Storage(bucket, here).push(name)
        (here / MARK).write_text(bucket)
    elsewhere("other")
    there = run_directory(bucket)
    assert [path.name for path in there.rglob("*") if path.is_file()] == [MARK, "ledger.jsonl"]
    assert storage_of(there).uri == bucket


def test_a_directory_that_is_no_copy_names_no_storage(tmp_path, monkeypatch):
    """It may be of anybody's, and what is kept and deleted there is the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / MARK).write_text("s3://bucket/run")
    assert storage_of(tmp_path / "run") is None
    assert name_of(tmp_path / "run") == str(tmp_path / "run")


def test_of_two_ledgers_the_longer_one_is_kept(bucket, elsewhere):
    here = run_directory(bucket)
    (here / "ledger.jsonl").write_text("one\n")
    storage_of(here).push_all()
    (here / "ledger.jsonl").write_text("one\ntwo\n")  # what was not put there before this machine was lost
    assert (run_directory(bucket) / "ledger.jsonl").read_text() == "one\ntwo\n"
    elsewhere("other")
    there = run_directory(bucket)
    (there / "ledger.jsonl").write_text("one\nthree\nfour\n")
    storage_of(there).push_all()
    elsewhere("cache")
    assert (run_directory(bucket) / "ledger.jsonl").read_text() == "one\nthree\nfour\n"


def test_a_confirmation_is_on_the_storage_too_and_its_longer_ledger_is_kept(bucket, elsewhere):
    here = run_directory(bucket)
    folder = here / "confirmation"
    folder.mkdir()
    inner = storage_of(here).within("confirmation")
    assert storage_of(folder).uri == inner.uri == f"{bucket}/confirmation"
    (folder / "ledger.jsonl").write_text("one\n")
    storage_of(here).push_all()
    (folder / "ledger.jsonl").write_text("one\ntwo\n")
    assert (run_directory(bucket) / "confirmation" / "ledger.jsonl").read_text() == "one\ntwo\n"
    elsewhere("other")
    assert (run_directory(bucket) / "confirmation" / "ledger.jsonl").read_text() == "one\n"
    assert storage.Storage("s3://a/b?region=x", here).within("confirmation").uri == "s3://a/b/confirmation?region=x"


def test_two_processes_that_go_on_with_one_run_do_not_overwrite_each_other(bucket, elsewhere):
    ours = run_directory(bucket)
    (ours / "ledger.jsonl").write_text("one\n")
    mine = storage_of(ours)
    mine.push_all()
    elsewhere("other")
    theirs = run_directory(bucket)
    (theirs / "ledger.jsonl").write_text("one\ntheirs\n")
    storage_of(theirs).push_all()
    (ours / "ledger.jsonl").write_text("one\nours, and longer\n")
    with pytest.raises(RunDirectoryError, match=f"{bucket}: another process has gone on with this run"):
        mine.push_all()
    assert (ours / "ledger.jsonl").read_text() == "one\nours, and longer\n"


def test_storage_that_is_away_for_a_moment_is_tried_again(bucket, monkeypatch):
    here, faults = run_directory(bucket), iter([OSError("away"), OSError("away")])
    (here / "ledger.jsonl").write_text("one\n")
    reach = storage.Storage._system

    def shaky(self):
        for fault in faults:
            raise fault
        return reach(self)

    monkeypatch.setattr(storage.Storage, "_system", shaky)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    storage_of(here).push("ledger.jsonl")
    assert next(faults, None) is None


def test_storage_that_stays_away_is_one_message_and_a_ledger_waits(bucket, monkeypatch):
    here = run_directory(bucket)
    (here / "ledger.jsonl").write_text("one\n")
    held = storage_of(here)

    def away(self):
        raise OSError("no route to host")

    monkeypatch.setattr(storage.Storage, "_system", away)
    monkeypatch.setattr(storage, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(storage, "_EVERY_S", 0.0)
    held.push_ledger()  # later is as well
    held.keep_checkpoints(set())
    with pytest.raises(RunDirectoryError, match="cannot be reached: no route to host. Nothing is lost"):
        held.push_all()


def test_a_file_whose_name_leads_out_of_the_run_is_refused(bucket, monkeypatch):
    here = run_directory(bucket)
    with pytest.raises(RunDirectoryError, match="leads out of it"):
        storage_of(here)._fetch("../../outside")


@pytest.mark.parametrize(
    ("place", "part"),
    [("s3://no-such-bucket/run", "no-such-bucket"), ("nowhere://bucket/run", "no storage that can be opened")],
)
def test_a_place_that_cannot_be_written_is_one_message_before_anything_is_trained(call, bucket, place, part, tmp_path):
    wrong(call("run", "--space", toy_file(tmp_path), "--out", place), part)


def test_two_fetches_of_one_file_do_not_damage_it(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"whole")
    copied, written = shutil.copyfileobj, []

    def while_another_begins(source, target):
        written.append(target.name)
        if len(written) == 1:
            Storage(f"file://{tmp_path / 'there'}", tmp_path / "here").pull("")
        copied(source, target)

    monkeypatch.setattr(storage.shutil, "copyfileobj", while_another_begins)
    assert Storage(f"file://{tmp_path / 'there'}", tmp_path / "here").pull("") == 1
    assert len({*written}) == len(written) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == {"file": b"whole"}


def test_data_is_read_from_there(bucket, tmp_path):
    write_faces(tmp_path / "faces", rendered_faces(6, 4, 4, (48, 48)))
    storage.Storage(bucket, tmp_path / "faces").push("")
    changes = ("image_size=[48,48]", "dilations=[1,2,4]", "reference=1", "recipe.steps=2", "recipe.warmup=0")
    requests = [Request("folder", data=str(folder), changes=changes) for folder in (bucket, tmp_path / "faces")]
    there, here = (planned(request, tmp_path) for request in requests)
    assert there.data.fingerprint() == here.data.fingerprint()
    assert there.facts()[1].folder == bucket
    with pytest.raises(DataError, match="nothing is there"):
        data_directory("s3://bucket/empty")


@pytest.mark.slow
def test_a_machine_is_lost_and_another_one_goes_on(bucket, server, elsewhere, tmp_path, call):
    """A run is killed with all its processes, its folder is gone, and it ends as one that was never interrupted."""
    space = toy_file(tmp_path, budget="5x", steps=60)
    words = ["run", "--space", space, "--strategies", "exhaustive,fractional"]
    env = {**environment(), **server, "XDG_CACHE_HOME": str(tmp_path / "first")}
    first = subprocess.Popen(
        command(*words, "--out", bucket), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    seen = []
    for line in first.stdout:
        seen.append(line)
        if line.startswith("completed") and len([one for one in seen if one.startswith("completed")]) == 3:
            time.sleep(storage._EVERY_S)  # a ledger is put there every few seconds
        if len([one for one in seen if one.startswith("completed")]) >= 4:
            break
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    env["XDG_CACHE_HOME"] = str(tmp_path / "second")
    told = subprocess.run(command("resume", bucket), env=env, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stdout + told.stderr + "".join(seen)
    assert f"rfsearch export {bucket}" in (run_of(tmp_path / "second") / "report.html").read_text(encoding="utf-8")
    subprocess.run(command(*words, "--out", tmp_path / "whole"), env=env, check=True, capture_output=True, timeout=300)
    elsewhere("third")
    result = rfsearch.load_run(bucket)
    whole = pd.read_csv(tmp_path / "whole" / "trials.csv").set_index("trial").sort_index()
    same = ["candidate", "status", "val", "test", "train_flop", "outcome"]
    pd.testing.assert_frame_equal(result.trials.set_index("trial").sort_index()[same], whole[same], check_dtype=False)
    assert rfsearch.trained(bucket, trust=True) is not None
    wrong(call("run", "--space", space, "--out", bucket), "already holds a run", f"rfsearch resume {bucket}")


def run_of(cache):
    (found,) = (cache / "rfsearch" / "runs").iterdir()
    return found
