"""A run goes on, and is exported, with the network that it began with or not at all."""

import json
from pathlib import Path

import pytest

from rfsearch.errors import RunDirectoryError
from rfsearch.export import export
from rfsearch.identity import sources_of
from rfsearch.ledger import Request
from rfsearch.networks import trained
from rfsearch.planning.directory import reopen_run, start_run
from tests.planned import planned
from tests.small_run import CPU, begin, train
from tests.toys import toy_file

NET = """\
from torch import nn


def make(num_classes, in_channels=3):
    net = nn.Sequential()
    net.add_module("conv5", nn.Conv2d(in_channels, WIDTH, 3, 2, 1))
    net.add_module("relu", nn.ReLU())
    net.add_module("conv6", nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
    net.add_module("out", nn.Conv2d(WIDTH, num_classes, 1))
    return net
"""


def write_net(path: Path, width: int = 4, more: str = "") -> None:
    path.write_text(NET.replace("WIDTH", str(width)) + more)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with a trained trial, whose network is a file of the user's."""
    folder = tmp_path_factory.mktemp("identity")
    write_net(folder / "net.py")
    run_dir, plan = begin(folder, f"{folder / 'net.py'}:make")
    train(run_dir, plan, 1)
    return run_dir, folder / "net.py"


@pytest.fixture
def edited(made):
    """The run and a function that edits its network's file; it is put back afterwards."""
    run_dir, file = made
    yield run_dir, lambda **how: write_net(file, **how)
    write_net(file)


def test_a_network_with_other_weights_is_not_resumed_and_not_exported(edited, tmp_path):
    run_dir, edit = edited
    edit(width=8)
    with pytest.raises(RunDirectoryError, match=r"makes a different network.*\d+ parameters then, [\d,]+ now.*new run"):
        reopen_run(run_dir, CPU)
    with pytest.raises(RunDirectoryError, match=r"makes a different network.*parameters then"):
        trained(run_dir)
    with pytest.raises(RunDirectoryError, match=r"makes a different network.*parameters then"):
        export(run_dir, tmp_path, formats=())


def test_an_edited_file_whose_weights_still_fit_is_not_resumed_and_reported_in_an_export(edited, tmp_path):
    run_dir, edit = edited
    edit(more="# a remark\n")
    with pytest.raises(RunDirectoryError, match=r"net\.py has changed since this run started.*Restore the file"):
        reopen_run(run_dir, CPU)
    assert any("net.py has changed" in notice for notice in export(run_dir, tmp_path, formats=()).notices)


def test_an_unchanged_network_goes_on_and_so_does_a_run_that_never_said_which_it_was(made):
    run_dir, _ = made
    reopen_run(run_dir, CPU)
    file = run_dir / "manifest.json"
    whole = file.read_text()
    manifest = json.loads(whole)
    assert list(manifest.pop("network")["sources"]) == [str(made[1])]
    try:
        file.write_text(json.dumps(manifest))
        reopen_run(run_dir, CPU)
    finally:
        file.write_text(whole)


def test_an_old_run_whose_network_was_edited_is_reported_when_its_weights_do_not_fit(edited):
    run_dir, edit = edited
    file = run_dir / "manifest.json"
    whole = file.read_text()
    edit(width=8)
    try:
        file.write_text(json.dumps({k: v for k, v in json.loads(whole).items() if k != "network"}))
        with pytest.raises(RunDirectoryError, match="weights do not fit the network that backbone"):
            trained(run_dir, trust=True)
    finally:
        file.write_text(whole)


@pytest.mark.parametrize(
    ("spec", "file"),
    [("tests.toys:nan_net", "toys.py"), ("wei-small", ""), ("torchvision:resnet18", ""), ("nowhere.at.all:net", "")],
)
def test_only_the_users_own_code_is_known_by_its_content(spec, file):
    assert [Path(path).name for path in sources_of(spec)] == ([file] if file else [])


@pytest.mark.slow
def test_what_the_file_of_a_network_imports_from_its_folder_is_known_by_its_content(tmp_path):
    folder, run_dir = tmp_path / "nets", tmp_path / "run"
    (folder / "girders").mkdir(parents=True)
    write_net(folder / "bricks.py", more="import deeper\nimport torch\n")
    (folder / "net.py").write_text("def make(*words):\n    from bricks import make\n    return make(*words)\n")
    (folder / "deeper.py").write_text("import bricks\nfrom girders import widths\n")
    (folder / "girders" / "widths.py").write_text("NARROW = 1\n")
    (folder / "stranger.py").write_text("import net\n")
    run_dir, _ = begin(tmp_path, f"{folder / 'net.py'}:make")
    known = json.loads((run_dir / "manifest.json").read_text())["network"]["sources"]
    assert {Path(path).name for path in known} == {"net.py", "bricks.py", "deeper.py", "widths.py"}
    (folder / "stranger.py").write_text("")
    reopen_run(run_dir, CPU)
    (folder / "girders" / "widths.py").write_text("NARROW = 2\n")
    with pytest.raises(RunDirectoryError, match=r"widths\.py has changed since this run started"):
        reopen_run(run_dir, CPU)


def test_a_package_is_known_with_its_own_files_and_without_installed_ones(tmp_path):
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("from . import sizes\n")
    (package / "net.py").write_text("import numpy\nfrom .lost import nothing\nfrom mine.shapes import square\n")
    for name in ("sizes", "shapes", "unused"):
        (package / f"{name}.py").write_text("square = 1\n")
    found = sources_of(f"{package / 'net.py'}:make")
    assert [Path(path).name for path in found] == ["net.py", "shapes.py", "__init__.py", "sizes.py"]
    (package / "net.py").write_text("this is no Python")
    assert [Path(path).name for path in sources_of(f"{package / 'net.py'}:make")] == ["net.py"]


def test_an_edited_layer_of_the_users_is_not_resumed(tmp_path):
    layer = tmp_path / "layer.py"
    layer.write_text("def make(conv, dilations):\n    return conv\n")
    candidate = json.dumps({"conv6": {"dilation": 2, "layer": f"{layer}:make"}})
    request = Request(space=str(toy_file(tmp_path, budget="60x", steps=2)), candidates=(candidate,))
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    start_run(planned(request, tmp_path), run_dir, "rfsearch run", 1, "cpu")
    reopen_run(run_dir, CPU)
    layer.write_text("def make(conv, dilations):\n    return conv.eval()\n")
    with pytest.raises(RunDirectoryError, match=r"layer\.py has changed since this run started.*its layers"):
        reopen_run(run_dir, CPU)


TASK = "from rfsearch.tasks.segmentation import Segmentation\n\n\nclass Mine(Segmentation):\n    pass\n"
FACES = "from rfsearch.data.rendered_faces import RenderedFaces\n\n\nclass Mine(RenderedFaces):\n    pass\n"
FOLDER = "from rfsearch.data.helen import Helen\n\n\nclass Mine(Helen):\n    pass\n"
SCORE = "def Mine(prediction, target):\n    return (prediction == target).float().mean()\n"


@pytest.mark.parametrize(
    ("text", "line", "named", "what"),
    [
        (TASK, 'title = "Toy faces"', 'title = "Toy faces"\ntask = "OWN:Mine"', "its task"),
        pytest.param(SCORE, 'metric = "helen-f"', 'metric = "OWN:Mine"', "its metric", marks=pytest.mark.slow),
        pytest.param(
            FACES, 'default = "rendered-faces"', 'default = "OWN:Mine"', "its default images", marks=pytest.mark.slow
        ),
        (FOLDER, 'layout = "helen"', 'layout = "OWN:Mine"', "its layout"),
    ],
    ids=["task", "metric", "default-images", "layout"],
)
def test_an_edited_task_metric_or_layout_of_the_users_is_not_resumed(tmp_path, text, line, named, what):
    own = tmp_path / "own.py"
    own.write_text(text)
    space = toy_file(tmp_path, budget="60x", steps=2)
    space.write_text(space.read_text().replace(line, named.replace("OWN", str(own))))
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    start_run(planned(Request(space=str(space), strategies=("random",)), tmp_path), run_dir, "rfsearch run", 1, "cpu")
    reopen_run(run_dir, CPU)
    own.write_text(text + "# a remark\n")
    with pytest.raises(RunDirectoryError, match=rf"own\.py has changed since this run started.*{what}: its trials"):
        reopen_run(run_dir, CPU)
