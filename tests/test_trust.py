"""Code that a directory names, and nobody here has named, runs only where that is said."""

import shutil
from pathlib import Path

import pytest

import rfsearch
from rfsearch.errors import RequestError
from rfsearch.sources import _is_installed, import_source, refusing
from tests.own_loop import loops
from tests.small_run import run_in_process, train_in_process
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
