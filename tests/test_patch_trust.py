"""Layers that a patch names: which run unasked, and which only where that is said."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rfsearch
from rfsearch.choices import Candidate, Guest
from rfsearch.errors import ModelError, UntrustedError
from rfsearch.export.portable import write_patch
from rfsearch.patch import Patch, PatchSettings
from rfsearch.sources import import_source, refusing
from tests.surgery.test_build import Foreign

LAYER = """
from pathlib import Path
from parts_of_layers import halved

Path(__file__).with_name("it ran").touch()


def make(conv, dilations):
    return halved(conv)
"""
PARTS = """
def halved(conv):
    conv.weight.data.mul_(0.5)
    return conv
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> Path:
    """The user's working directory, and a record of what is the user's own that holds nothing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def written(folder: Path) -> Path:
    """Layers in files."""
    folder.mkdir(exist_ok=True)
    (folder / "layers_beside.py").write_text(LAYER)
    (folder / "parts_of_layers.py").write_text(PARTS)
    return folder


def naming(spec: str) -> Patch:
    return Patch("net.py:make", (), Candidate({"body.1": Guest(2, spec)}), PatchSettings(dilations=(1, 2)))


@pytest.fixture
def exported(tmp_path) -> Path:
    """A patch with its layers' files beside it, exported here."""
    (tmp_path / "export").mkdir()
    write_patch(naming(f"{written(tmp_path / 'project')}/layers_beside.py:make"), tmp_path / "export")
    return tmp_path / "export" / "patch.json"


@pytest.fixture
def foreign(exported, tmp_path, monkeypatch) -> Path:
    """The same patch, exported by somebody else."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of somebody else"))
    shutil.rmtree(tmp_path / "project")
    return exported


def test_what_is_refused_where_it_is_exported_is_not_noted_as_exported_here(tmp_path):
    source = written(tmp_path / "project") / "layers_beside.py"
    (tmp_path / "export").mkdir()
    with refusing("no: "), pytest.raises(UntrustedError, match=f"no: {source}"):
        write_patch(naming(f"{source}:make"), tmp_path / "export")
    assert not list((tmp_path / "export").iterdir())
    assert not (tmp_path / "state").exists()


def ran(patch: Path) -> bool:
    return patch.with_name("it ran").exists()


def refused(patch: object, code: Path) -> None:
    with pytest.raises(UntrustedError, match=f"not installed.*trust=True. The code: {code}"):
        rfsearch.apply(Foreign(), patch)


def test_code_beside_a_patch_runs_only_where_that_is_said(foreign):
    refused(foreign, foreign.with_name("layers_beside.py"))
    assert not ran(foreign)
    model = Foreign()
    made = rfsearch.apply(model, foreign, trust=True)
    assert ran(foreign)
    assert torch.equal(made.body[1].weight, model.body[1].weight / 2)


def test_what_was_exported_here_needs_no_word_wherever_it_is_moved_to(exported, tmp_path):
    moved = shutil.move(exported.parent, tmp_path / "moved")
    rfsearch.apply(Foreign(), Path(moved) / "patch.json")
    assert ran(Path(moved) / "patch.json")


@pytest.mark.parametrize("name", ["layers_beside.py", "parts_of_layers.py", "patch.json"])
def test_what_was_exported_here_and_has_changed_is_not_ones_own(exported, name):
    with exported.with_name(name).open("a") as file:
        file.write("\n")
    refused(exported, exported.with_name("layers_beside.py"))
    assert not ran(exported)


def test_content_is_no_file_that_was_exported_here(exported, elsewhere):
    content = exported.read_text()
    for file in exported.parent.glob("*.*"):
        shutil.copy(file, elsewhere / ("patch" if file.suffix == ".json" else file.name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [folder for folder in sys.path if folder])
        refused(content, elsewhere / "layers_beside.py")


def test_a_file_on_the_programs_path_needs_no_trust_where_it_is_the_same(foreign, tmp_path, monkeypatch):
    own = written(tmp_path / "mine")
    monkeypatch.syspath_prepend(str(own))
    rfsearch.apply(Foreign(), foreign)
    assert ran(own / "patch.json")
    assert not ran(foreign)
    (own / "layers_beside.py").write_text(LAYER + "\n")
    foreign.with_name("layers_beside.py").write_text(LAYER + "\n\n")
    refused(foreign, foreign.with_name("layers_beside.py"))


@pytest.mark.parametrize("spec", ["layers_beside:make", "layers_beside.py:make"])
def test_a_patch_without_a_folder_names_what_the_program_can_import(spec, tmp_path, monkeypatch):
    own = written(tmp_path / "mine")
    monkeypatch.syspath_prepend(str(own))
    monkeypatch.chdir(own)
    rfsearch.apply(Foreign(), naming(spec).to_json())
    assert ran(own / "patch.json")


@pytest.mark.parametrize("spec", ["layers_beside:make", "layers_beside.py:make", "no_package.layers_beside:make"])
def test_the_working_directory_is_not_the_programs_by_itself(spec, tmp_path, monkeypatch):
    """As where a script that lies elsewhere is run in a folder of somebody else's."""
    there = written(tmp_path / "there")
    written(there / "no_package")
    monkeypatch.chdir(there)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    refused(naming(spec).to_json(), there)
    assert not list(there.rglob("it ran"))


def test_what_the_program_has_imported_by_its_path_runs_no_more(tmp_path):
    """As a search in the same process has."""
    own = written(tmp_path / "mine")
    spec = f"{own}/layers_beside.py:make"
    refused(naming(spec).to_json(), own / "layers_beside.py")
    import_source(f"{own}/layers_beside.py")
    rfsearch.apply(Foreign(), naming(spec).to_json())


def test_packages_and_what_is_missing_are_no_matter_of_trust():
    assert rfsearch.apply(Foreign(), naming("tests.toys:same_layer").to_json())
    for spec in ("absent_package.layers:dcls", "/nowhere/layers.py:make", "nowhere.py:make"):
        with pytest.raises(ModelError, match="Install the package"):
            rfsearch.apply(Foreign(), naming(spec).to_json())


def test_the_scripts_own_folder_is_its_programs(foreign, tmp_path, elsewhere):
    """And the export's file beside the patch is the same one."""
    own = written(tmp_path / "mine")
    (own / "use.py").write_text(
        f"import rfsearch\nfrom tests.surgery.test_build import Foreign\nrfsearch.apply(Foreign(), {str(foreign)!r})\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, own / "use.py"], capture_output=True, text=True, cwd=elsewhere, env={"PYTHONPATH": str(root)}
    )
    assert done.returncode == 0, done.stderr
    assert ran(own / "patch.json")
    assert not ran(foreign)


def test_the_code_that_an_export_prints_says_that_code_runs(tmp_path):
    from rfsearch.export.portable import apply_call, runs_code

    assert runs_code(naming("layers_beside.py:make"))
    assert not runs_code(naming("package.layers:make"))
    assert apply_call("model", Path("patch.json"), True) == "rfsearch.apply(model, 'patch.json', trust=True)"
    assert apply_call("model", Path("patch.json"), False) == "rfsearch.apply(model, 'patch.json')"
