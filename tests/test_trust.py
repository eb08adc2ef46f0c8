"""Code that a directory names, and nobody here has named, runs only where that is said."""

import io
import json
import shutil
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

import rfsearch
from rfsearch.cli.reproduce import _train_rows
from rfsearch.effective_fields import measure_fields
from rfsearch.errors import RequestError, UntrustedError
from rfsearch.ledger import Request
from rfsearch.orchestration import Engine, Resources, engine
from rfsearch.orchestration.nodes import Machine
from rfsearch.planning.competition import contest_of
from rfsearch.planning.directory import reopen_run
from rfsearch.report.effective import FIELDS_FILE
from rfsearch.sources import _is_installed, import_source, refuse_from_here_on, refusing
from rfsearch.trust import is_trusted, opened
from tests.own_loop import loops
from tests.small_run import CPU, begin, run_in_process, train, train_in_process
from tests.toys import toy_file

NET = """
from pathlib import Path
from rfsearch.backbones.small import wei_small

Path(__file__).with_name("it ran").touch()


def make(num_classes, in_channels=3):
    return wei_small(num_classes, in_channels)
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A run that names a file."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "net.py").write_text(NET)
    words = ["--space", toy_file(folder, budget="60x", steps=2), "--strategies", "exhaustive", "--gpus-per-trial", 0]
    run_in_process("run", *words, "--backbone", f"{folder / 'net.py'}:make", "--out", folder / "run")
    return folder / "run"


@pytest.fixture
def foreign(begun, tmp_path, monkeypatch) -> Path:
    """The same directory, as another user has it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of somebody else"))
    shutil.copytree(begun, tmp_path / "run")
    _mark(begun).unlink(missing_ok=True)
    (begun.parent / "net.py").touch()  # imported anew
    return tmp_path / "run"


def _mark(begun: Path) -> Path:
    return begun.parent / "it ran"


@pytest.mark.parametrize("words", [("resume",), ("export", "--formats", "none"), ("rf", "--no-effective"), ("sites",)])
def test_a_directory_from_elsewhere_is_trusted_only_where_that_is_said(begun, foreign, call, words, monkeypatch):
    train_in_process(monkeypatch)
    command = [words[0], str(foreign), *words[1:]]
    code, _, err = call(*command)
    assert code == 2
    assert "was not begun here, and names code that is not installed, which would run" in err
    assert f"{begun.parent / 'net.py'}." in err.replace("\n", "")
    assert "--trust" in err
    assert not _mark(begun).exists()
    code, _, err = call(*command, "--trust")
    assert code == 0, err
    assert _mark(begun).exists()
    code, _, err = call(*command)  # it is remembered
    assert code == 0, err


def test_kept_objects_of_somebody_elses_loop_are_not_read(tmp_path, monkeypatch, call):
    """Whatever the directory names: what a loop has kept is read by pickle."""
    with pytest.MonkeyPatch.context() as patch:
        train_in_process(patch)
        search = {"model": loops.make_model, "input_shape": loops.INPUT, "sites": ["2"], "dilations": [1, 2]}
        rfsearch.search(
            loops.train_without_a_look, strategies=["exhaustive"], budget="2x", out=tmp_path / "run", **search
        )
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of somebody else"))
    code, _, err = call("resume", tmp_path / "run")
    assert code == 2
    assert "its checkpoints hold objects that run code as they are read" in err
    again = {"strategies": ["exhaustive"], "budget": "2x", "out": tmp_path / "run", **search}
    with pytest.raises(UntrustedError, match="hold objects that run code as they are read"):
        rfsearch.search(loops.train_without_a_look, **again)
    for trust in (True, False):  # it is remembered
        assert rfsearch.search(loops.train_without_a_look, **again, trust=trust).best is not None


@pytest.fixture
def plain(tmp_path, monkeypatch) -> Path:
    """A run of somebody else's with one trial still in training, that names nothing but what is installed."""
    run_dir, plan = begin(tmp_path)
    train(run_dir, plan, 1)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of somebody else"))
    monkeypatch.chdir(tmp_path)  # in a checkout of rfsearch its modules would be files of the working directory
    return run_dir


def test_a_trial_in_training_whose_layer_is_not_installed_is_not_handed_out(plain):
    layer = plain / "layer.py"
    layer.write_text("from pathlib import Path\nPath(__file__).with_name('it ran').touch()\nmake = None\n")
    *before, last = (plain / "ledger.jsonl").read_text().splitlines()
    event = json.loads(last)
    assert event["event"] == "start"
    event["candidate"] = json.dumps({"conv6": {"dilation": 2, "layer": f"{layer}:make"}})
    (plain / "ledger.jsonl").write_text("\n".join([*before, json.dumps(event)]) + "\n")
    with opened(plain):
        the_plan = reopen_run(plain, CPU)
        with pytest.raises(UntrustedError, match=f"The code: {layer}"):
            _hand_out(contest_of(the_plan, plain))
    assert not (plain / "it ran").exists()


def _hand_out(contest):
    contest.first_step(contest.next())


def test_workers_are_told_what_is_refused_here(tmp_path, monkeypatch):
    told = {}

    def with_parameters(trainable, **given):
        told.update(given)
        raise ValueError("that is enough")

    monkeypatch.setattr(engine.tune, "with_parameters", with_parameters)
    monkeypatch.setattr(engine, "machines", lambda: {"a": Machine("10.0.0.1", 1, 0)})
    with refusing("no: "), pytest.raises(RequestError, match="that is enough"):
        Engine(None, Resources(gpus=0)).run(None, None, tmp_path, "flop", print, print)
    assert told["refusal"] == "no: "


def test_what_a_worker_refuses_is_refused_in_all_its_threads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lying_beside.py").write_text("raise SystemExit('it ran')")
    raised = []

    def imported():
        with pytest.raises(UntrustedError, match="no: lying_beside.py") as found:
            import_source("lying_beside.py")
        raised.append(found.value)

    refuse_from_here_on("no: ")
    try:
        thread = Thread(target=imported)
        thread.start()
        thread.join()
    finally:
        refuse_from_here_on("")
    assert raised


def test_measuring_the_fields_of_a_run_does_not_make_it_ones_own(plain):
    with opened(plain):
        assert measure_fields(reopen_run(plain, CPU), plain, lambda: None) == []
    assert (plain / FIELDS_FILE).exists()
    assert not is_trusted(plain)


def test_the_cluster_of_somebody_elses_run_is_joined_only_where_that_is_said(plain, call, monkeypatch):
    manifest = json.loads((plain / "manifest.json").read_text())
    manifest["request"]["address"] = "10.0.0.9:6379"
    (plain / "manifest.json").write_text(json.dumps(manifest))
    joined = []

    def go_on(console, request, run_dir, device):
        joined.append(request.address)
        raise RequestError("that is enough")

    monkeypatch.setattr("rfsearch.cli.run.go_on", go_on)
    _, _, err = call("resume", plain)
    assert "the cluster that it names, 10.0.0.9:6379, is not joined" in " ".join(err.split())
    call("resume", plain, "--address", "10.0.0.8:6379")
    call("resume", plain, "--trust")
    call("resume", plain)  # it is remembered
    assert joined == [None, "10.0.0.8:6379", "10.0.0.9:6379", "10.0.0.9:6379"]


def test_a_table_is_reproduced_in_a_directory_from_elsewhere_only_where_that_is_said(begun, foreign, monkeypatch):
    train_in_process(monkeypatch)
    asked = Request(str(begun.parent / "toy.toml"), candidates=('{"conv6": {"dilation": 1}}',), gpus_per_trial=0)
    console = Console(file=io.StringIO())
    with pytest.raises(UntrustedError, match="was not begun here"):
        _train_rows(console, asked, foreign, CPU)
    assert not _mark(begun).exists()
    _train_rows(console, asked, foreign, CPU, trust=True)
    assert _mark(begun).exists()


def test_in_python_likewise(begun, foreign):
    with pytest.raises(RequestError, match="trust=True"):
        rfsearch.trained(foreign)
    assert not _mark(begun).exists()
    assert rfsearch.trained(foreign, trust=True) is not None


def test_a_run_of_ones_own_needs_no_word_wherever_it_is_moved_to(begun, tmp_path):
    shutil.move(shutil.copytree(begun, tmp_path / "run"), tmp_path / "moved")
    assert rfsearch.trained(tmp_path / "moved") is not None


def test_where_nothing_can_be_remembered_trust_still_counts(begun, foreign, call, monkeypatch, tmp_path):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a file"))
    code, _, err = call("export", foreign, "--formats", "none", "--trust")
    assert code == 0, err


def test_what_is_installed_runs_without_a_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lying_beside.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "a_folder_beside").mkdir()
    (tmp_path / "a_folder_beside" / "__init__.py").write_text("raise SystemExit('it ran')")
    for source in ("a_folder_beside", "a_folder_beside.inner"):  # before and after Python looks there
        assert not _is_installed(source), source
    monkeypatch.syspath_prepend(str(tmp_path))
    for source in ("json", "sys", "torch.nn", "rfsearch.backbones.small", "numpy"):
        assert _is_installed(source), source
    for source in ("a_folder_beside", "lying_beside", "lying_beside.inner", "lying_beside.py", "/elsewhere/net.py"):
        assert not _is_installed(source), source
    with refusing("no: "):
        assert import_source("json")
        for source in ("lying_beside", "lying_beside.py"):
            with pytest.raises(RequestError, match="no: lying_beside"):
                import_source(source)
