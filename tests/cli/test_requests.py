"""A wrong request is one clear message on standard error, exit code 2, and no traceback."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.calls import wrong
from tests.toys import toy_file

pytestmark = pytest.mark.usefixtures("trained_here")
RNG = np.random.default_rng(0)


def folder(root: Path, size=(24, 32), splits=("train", "val", "test"), classes: int = 3, images: int = 2) -> Path:
    """A plain image folder: random pictures, random labels."""
    for split in splits:
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
        for i in range(images):
            pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / "images" / f"{i}.jpg")
            label = RNG.integers(0, classes, size, dtype=np.uint8)
            Image.fromarray(label).save(root / split / "labels" / f"{i}.png")
    return root


@pytest.fixture
def plain_space(tmp_path):
    """A space file for a plain folder of three classes."""
    text = toy_file(tmp_path).read_text()
    text = text.replace('metric = "helen-f"', 'metric = "mean-iou"').replace('default = "rendered-faces"\n', "")
    text = text.replace('layout = "helen"\nrendered = [12, 6, 6]', 'layout = "folder"\nclasses = ["a", "b", "c"]')
    path = tmp_path / "plain.toml"
    path.write_text(text.replace("image_size = [48, 48]\n", ""))
    return path


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--space", "hellen"], ["unknown space 'hellen'", "Did you mean 'helen'?"]),
        (["--space", "helen", "--preset", "papper"], ["no preset 'papper'", "Did you mean 'paper'?"]),
        (["--space", "helen", "--strategies", "exaustive"], ["unknown strategy 'exaustive'", "'exhaustive'"]),
        (["--space", "helen", "--strategies", "random,random"], ["each strategy once"]),
        (["--space", "helen", "--strategies", "inflation,inflation@single"], ["each strategy once"]),
        (["--space", "helen", "--paths", "2", "--strategies", "random@bi,random"], ["each strategy once"]),
        (["--space", "helen", "--strategies", "inflation@by"], ["Got 'by'", "Did you mean 'bi'?"]),
        (["--space", "helen", "--strategies", "@bi"], ["unknown strategy ''"]),
        (["--space", "helen", "--strategies", "lsdfn@bi"], ["searches the form lsdfn only", "Nearest legal: 'lsdfn'"]),
        (["--space", "helen", "--paths", "5"], ["--paths is one of 1, 2, 3", "Got 5. Nearest: 3", "[paths.NAME]"]),
        (["--space", "helen", "--paths", "0"], ["--paths is one of 1, 2, 3", "Got 0. Nearest: 1"]),
        (["--space", "helen", "--budget", "0x"], ["'0x'", "7x"]),
        (["--space", "helen", "--budget", "-2x"], ["'-2x'", "positive"]),
        (["--space", "helen", "--budget", "7parsec"], ["'parsec'", "2e15flop"]),
        (["--space", "helen", "--seeds", "0"], ["--seeds", "at least 1"]),
        (["--space", "helen", "--cpus-per-trial", "0"], ["--cpus-per-trial"]),
        (["--space", "helen", "--cpus-per-trial", "nan"], ["--cpus-per-trial"]),
        (["--space", "helen", "--memory-per-trial", "8"], ["--memory-per-trial", "as 8g", "Got '8'"]),
        (["--space", "helen", "--memory-per-trial", "0g"], ["--memory-per-trial", "Got '0g'"]),
        (["--space", "helen", "--memory-per-trial", "-1g"], ["--memory-per-trial", "Got '-1g'"]),
        (["--space", "helen", "--gpus-per-trial", "1.5"], ["--gpus-per-trial", "whole number"]),
        (["--space", "camvid"], ["'camvid' has no embedded data", "--data"]),
        (["--space", "nowhere.toml"], ["nowhere.toml", "no such space file"]),
        (["--space", "helen", "--backbone", "net.py"], ["by the name of a callable: net.py:make"]),
        (["--space", "helen", "--backbone", "wei-smal"], ["unknown backbone 'wei-smal'", "'wei-small'"]),
        (["--space", "helen", "--backbone", "nothing.py:net"], ["no file", "nothing.py"]),
        (["--space", "helen", "--backbone", "json:net"], ["json has no callable 'net'"]),
        (["--space", "helen", "--colour", "red"], ["--colour"]),
        (["--space", "helen", "--set", "recipe.steps"], ["--set takes KEY=VALUE", "Got 'recipe.steps'"]),
        (["--space", "helen", "--set", "recipe..steps=3"], ["--set takes KEY=VALUE"]),
        (["--space", "helen", "--set", "name.of=3"], ["--set name.of=3", "name of name.of is no table"]),
        (["--space", "helen", "--set", "recipe.steps=many"], ["recipe.steps: must be a whole number. Got 'many'"]),
        (["--space", "helen", "--set", "recipe.step=3"], ["--set recipe.step=3", "recipe.step"]),
        (["--space", "helen", "--set", "dilations=[2, 3]"], ["reference 1 is none of the dilations [2, 3]"]),
        ([], ["--space"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_option_is_reported(call, command, options, parts):
    wrong(call(command, *options), *parts)
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_a_site_that_matches_nothing_is_reported(call, tmp_path):
    wrong(call("plan", "--space", toy_file(tmp_path), "--site", "conv9"), "'conv9' matches no convolution", "'conv6'")


def test_a_dilation_too_large_for_its_map_is_reported(call, tmp_path):
    path = toy_file(tmp_path)
    path.write_text(path.read_text().replace("[1, 2, 4]", "[1, 2, 16]"))
    wrong(call("plan", "--space", path), "dilation 16 spans 33 px", "12 x 12 px", "Largest dilation that fits: 5")


def _missing(root: Path) -> Path:
    return root / "not-there"


def _empty(root: Path) -> Path:
    (root / "hollow").mkdir()
    return root / "hollow"


def _no_label(root: Path) -> Path:
    (folder(root / "d") / "val" / "labels" / "1.png").unlink()
    return root / "d"


def _other_size(root: Path) -> Path:
    Image.new("L", (9, 9)).save(folder(root / "d") / "train" / "labels" / "0.png")
    return root / "d"


def _bad_class(root: Path) -> Path:
    Image.fromarray(np.full((24, 32), 77, np.uint8)).save(folder(root / "d") / "test" / "labels" / "1.png")
    return root / "d"


def _torn_jpeg(root: Path) -> Path:
    path = folder(root / "d") / "train" / "images" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    return root / "d"


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (_missing, ["not-there"]),
        (_empty, ["hollow"]),
        (_no_label, ["1.jpg", "label"]),
        (_other_size, ["0.png", "9"]),
        (_bad_class, ["1.png", "77"]),
        (_torn_jpeg, ["1.jpg"]),
    ],
)
def test_faulty_data_is_reported_by_file(call, tmp_path, plain_space, make, parts):
    wrong(call("run", "--space", plain_space, "--data", make(tmp_path), "--out", tmp_path / "out"), *parts)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_holds_a_run_is_not_touched(call, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "ledger.jsonl").write_text("precious\n")
    wrong(call("run", "--space", "helen", "--out", out), "already holds a run", "rfsearch resume")
    assert (out / "ledger.jsonl").read_text() == "precious\n"


def test_a_budget_too_small_for_any_score_is_reported(call, tmp_path):
    wrong(call("plan", "--space", toy_file(tmp_path), "--budget", "1e-6x"), "1e-6x is less than one step")


def test_a_fault_of_the_file_system_is_reported_without_a_traceback(call, monkeypatch):
    def locked(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "exists", locked)
    wrong(call("run", "--space", "helen", "--out", "locked"), "Permission denied", "locked")


def test_no_room_is_reported(call, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    wrong(call("run", "--space", "helen", "--out", tmp_path / "out"), "1,000 bytes free", "64.0 MiB")


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").is_dir(), reason="needs a place no one may write")
def test_no_right_to_write_is_reported(call):
    wrong(call("run", "--space", "helen", "--out", "/proc/rfsearch-run"), "cannot be written")


@pytest.mark.parametrize("command", ["resume", "report"])
def test_a_folder_that_is_no_run_is_reported(call, tmp_path, command):
    wrong(call(command, tmp_path), "not a run")


IN_DOUBLE = """
import torch
from rfsearch.backbones.small import wei_small

def double(num_classes, in_channels=3):
    return wei_small(num_classes, in_channels).double()

def partly(num_classes, in_channels=3):
    net = wei_small(num_classes, in_channels)
    net.conv7.double()
    return net
"""


@pytest.mark.parametrize(("make", "held"), [("double", "features.0.weight"), ("partly", "conv7.weight")])
def test_a_network_in_double_precision_is_told_what_to_do(call, tmp_path, make, held):
    (tmp_path / "own.py").write_text(IN_DOUBLE)
    told = call("plan", "--space", toy_file(tmp_path), "--backbone", f"{tmp_path / 'own.py'}:{make}", "--site", "conv6")
    wrong(told, f"images are float32, and weights are not: {held} is float64. Build the network in single", ".float()")
    assert "RuntimeError" not in told[2]
