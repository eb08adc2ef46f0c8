"""A run goes on, and is exported, with the network that it began with or not at all."""

import json
from pathlib import Path

import pytest

from rfsearch import run
from rfsearch.errors import RunDirectoryError
from rfsearch.export import export
from rfsearch.identity import sources_of
from tests.small_run import CPU, begin, train

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
    with pytest.raises(RunDirectoryError, match=r"makes another network.*\d+ parameters then, [\d,]+ now.*new run"):
        run.reopen(run_dir, CPU)
    with pytest.raises(RunDirectoryError, match=r"makes another network.*parameters then"):
        run.trained(run_dir)
    with pytest.raises(RunDirectoryError, match=r"makes another network.*parameters then"):
        export(run_dir, tmp_path, formats=())


def test_an_edited_file_whose_weights_still_fit_is_not_resumed_and_said_in_an_export(edited, tmp_path):
    run_dir, edit = edited
    edit(more="# a remark\n")
    with pytest.raises(RunDirectoryError, match=r"net\.py has changed since this run started.*Restore the file"):
        run.reopen(run_dir, CPU)
    assert any("net.py has changed" in notice for notice in export(run_dir, tmp_path, formats=()).notices)


def test_an_unchanged_network_goes_on_and_so_does_a_run_that_never_said_which_it_was(made):
    run_dir, _ = made
    run.reopen(run_dir, CPU)
    file = run_dir / "manifest.json"
    whole = file.read_text()
    manifest = json.loads(whole)
    assert list(manifest.pop("network")["sources"]) == [str(made[1])]
    try:
        file.write_text(json.dumps(manifest))
        run.reopen(run_dir, CPU)
    finally:
        file.write_text(whole)


def test_an_old_run_whose_network_was_edited_is_told_when_its_weights_do_not_fit(edited):
    run_dir, edit = edited
    file = run_dir / "manifest.json"
    whole = file.read_text()
    edit(width=8)
    try:
        file.write_text(json.dumps({k: v for k, v in json.loads(whole).items() if k != "network"}))
        with pytest.raises(RunDirectoryError, match="weights do not fit the network that backbone"):
            run.trained(run_dir)
    finally:
        file.write_text(whole)


@pytest.mark.parametrize(
    ("spec", "file"),
    [("tests.toys:nan_net", "toys.py"), ("wei-small", ""), ("torchvision:resnet18", ""), ("nowhere.at.all:net", "")],
)
def test_only_the_users_own_code_is_known_by_its_content(spec, file):
    assert [Path(path).name for path in sources_of(spec)] == ([file] if file else [])
