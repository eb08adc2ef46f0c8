"""Networks in files of a user's own: neighbours that they import, the working directory, workers, and runs resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import rfsearch
from rfsearch import plugins
from rfsearch.errors import ModelError, RunDirectoryError
from rfsearch.ledger import Request
from rfsearch.planning.request import resolve_space
from rfsearch.sources import absolute, unpack
from tests.orchestration.runs import environment
from tests.toys import toy_file

BLOCK = """
from torch import nn

def block(num_classes, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, {channels}, 3, 2, 1), nn.Conv2d({channels}, num_classes, 1))
"""


def write(folder: Path, **files: str) -> Path:
    """Files by their stems, `pkg__stem` for one in a package."""
    for stem, text in files.items():
        file = folder.joinpath(*stem.split("__", 1)).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.parent != folder:
            (file.parent / "__init__.py").touch()
        file.write_text(text)
    return folder


def width(spec: str) -> int:
    return plugins.make_backbone(spec, 5)[0].out_channels


@pytest.mark.parametrize(
    "files",
    [
        {"net": "from blocks import block as make", "blocks": BLOCK.format(channels=7)},
        {"net": "from .blocks import block as make", "blocks": BLOCK.format(channels=7)},
        {"net": "from parts.blocks import block as make", "parts__blocks": BLOCK.format(channels=7)},
        {"net": "import parts.blocks\nmake = parts.blocks.block", "parts__blocks": BLOCK.format(channels=7)},
        {"net": "def make(*a):\n    from late_blocks import block\n    return block(*a)"}
        | {"late_blocks": BLOCK.format(channels=7)},
    ],
    ids=["neighbour", "relative", "package", "module of a package", "inside a function"],
)
def test_a_file_imports_its_neighbours(files, tmp_path):
    assert width(f"{write(tmp_path, **files)}/net.py:make") == 7


@pytest.mark.parametrize("line", ["from .blocks import block", "from parts.blocks import block", "from . import block"])
def test_a_file_in_a_package_imports_from_it(line, tmp_path):
    write(tmp_path, parts__blocks=BLOCK.format(channels=7), parts__net=f"{line}\nmake = block")
    (tmp_path / "parts" / "__init__.py").write_text("from .blocks import block")
    assert width(f"{tmp_path}/parts/net.py:make") == 7


def test_neighbours_that_functions_import_stay_apart_from_those_of_other_folders(tmp_path):
    late = "def make(*a):\n    from plates.blocks import block\n    return block(*a)"
    for channels in (5, 6):
        folder = write(tmp_path / str(channels), net=late)
        (folder / "plates").mkdir()
        (folder / "plates" / "blocks.py").write_text(BLOCK.format(channels=channels))
        assert width(f"{folder}/net.py:make") == channels
    early = write(
        tmp_path / "7", net="from plates.blocks import block as make", plates__blocks=BLOCK.format(channels=7)
    )
    assert width(f"{early}/net.py:make") == 7


def test_files_of_one_name_in_two_folders_keep_their_own_neighbours(tmp_path):
    specs = []
    for channels in (5, 6):
        folder = write(
            tmp_path / str(channels),
            net="from blocks import block\nfrom parts.more import block as more\ndef make(*a):\n    return block(*a)",
            blocks=BLOCK.format(channels=channels),
            parts__more=BLOCK.format(channels=channels + 2),
        )
        specs += [(f"{folder}/net.py:make", channels), (f"{folder}/net.py:more", channels + 2)]
    for spec, channels in (*specs, *specs):
        assert width(spec) == channels


def test_a_file_that_changes_is_imported_again_and_one_that_does_not_is_the_same(tmp_path):
    write(tmp_path, net=BLOCK.format(channels=7))
    spec = f"{tmp_path}/net.py:block"
    assert plugins.named(spec, "network") is plugins.named(spec, "network")
    write(tmp_path, net=BLOCK.format(channels=11))
    assert width(spec) == 11


@pytest.mark.parametrize("path", ["/x/../../../evil.py", "../evil.py", "/x/y/../evil.py"])
def test_files_that_are_sent_stay_in_their_folder(path, tmp_path):
    folder = tmp_path / "a" / "b" / "c"
    with pytest.raises(RunDirectoryError, match=rf"without '\.\.'\. Got '{path}'"):
        unpack({"/x/net.py": b"", path: b"x = 1"}, folder)
    assert not list(tmp_path.iterdir())


def test_a_missing_neighbour_is_named(tmp_path):
    write(tmp_path, net="import no_such_blocks")
    with pytest.raises(ModelError, match="net.py does not import: ModuleNotFoundError: No module named 'no_such_block"):
        plugins.make_backbone(f"{tmp_path}/net.py:make", 5)


def test_specs_of_the_working_directory_are_spelled_out(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, users_net="", users_pkg__net="", torch="", test=""))
    assert absolute("users_net:make") == f"{tmp_path}/users_net.py:make"
    assert absolute("users_pkg.net:make") == f"{tmp_path}/users_pkg/net.py:make"
    assert absolute("users_pkg:make") == f"{tmp_path}/users_pkg/__init__.py:make"
    assert absolute("users_net.py:make") == f"{tmp_path}/users_net.py:make"
    # installed or nowhere: nothing of this directory
    for spec in ("torch:make", "torch.nn:Conv2d", "test:make", "absent:make", "wei-small", "timm:resnet18", "smp:a/b"):
        assert absolute(spec) == spec


@pytest.mark.parametrize("named", ["users_net:make", "users_net.py:make", "users_pkg.net:make"])
@pytest.mark.parametrize("where", ["request", "space"])
def test_a_space_knows_the_file_of_its_network(named, where, tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, users_net="", users_pkg__net=""))
    file = toy_file(tmp_path, backbone=named if where == "space" else "wei-small")
    request = Request(space=str(file), backbone=named if where == "request" else None)
    place = named.removesuffix(":make").removesuffix(".py").replace(".", "/")
    assert resolve_space(request).backbone == f"{tmp_path}/{place}.py:make"


@pytest.mark.slow
def test_a_run_with_a_network_of_the_working_directory_is_trained_and_resumed_elsewhere(call, tmp_path):
    """As the console script runs it, which does not look into the working directory; workers have another one."""
    home = write(tmp_path / "home", users_net="from blocks import block as make", blocks=BLOCK.format(channels=7))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    file = toy_file(home, backbone="users_net:make", budget="1.5x", steps=8)
    file.write_text(file.read_text().replace('"conv6"', '"0"'))
    checkout = str(Path(__file__).parents[1])
    program = f"import sys; sys.path[0] = {checkout!r}; from rfsearch.cli import main; main()"

    def command(folder: Path, *arguments: object) -> None:
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    out = tmp_path / "run"
    command(home, "run", "--space", file, "--strategies", "exhaustive", "--out", out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["resolved_space"]["backbone"].startswith(str(home))
    command(elsewhere, "resume", out)
    assert call("export", out, "--formats", "none")[0] == 0
    assert rfsearch.trained(str(out))[0].out_channels == 7
