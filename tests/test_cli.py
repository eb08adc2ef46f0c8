"""The command line: a wrong request is one clear message on standard error, exit code 2, and no traceback."""

import io
import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rfsearch
from rfsearch import cli, doctor, plugins, terminal
from rfsearch.space import Choice, read_space
from rfsearch.strategies import Description
from tests.toys import toy_faces, toy_file

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Call the command line in this process: (exit code, standard output, standard error)."""

    def called(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rfsearch", *map(str, words)])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        told = capsys.readouterr()
        code = leave.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), told.out, told.err

    monkeypatch.chdir(tmp_path)
    return called


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


def wrong(told: tuple[int, str, str], *parts: str) -> None:
    code, _, err = told
    assert code == 2, told
    assert "Traceback" not in err
    for part in parts:
        assert part in err


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
        (["--space", "helen", "--gpus-per-trial", "1.5"], ["--gpus-per-trial", "whole number"]),
        (["--space", "camvid"], ["'camvid' has no embedded data", "--data"]),
        (["--space", "nowhere.toml"], ["nowhere.toml", "no such space file"]),
        (["--space", "helen", "--backbone", "net.py"], ["by the name of a callable: net.py:make"]),
        (["--space", "helen", "--backbone", "wei-smal"], ["unknown backbone 'wei-smal'", "'wei-small'"]),
        (["--space", "helen", "--backbone", "nothing.py:net"], ["no file", "nothing.py"]),
        (["--space", "helen", "--backbone", "json:net"], ["json has no callable 'net'"]),
        (["--space", "helen", "--colour", "red"], ["--colour"]),
        ([], ["--space"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_option_is_told(call, command, options, parts):
    wrong(call(command, *options), *parts)
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_a_site_that_matches_nothing_is_told(call, tmp_path):
    wrong(call("plan", "--space", toy_file(tmp_path), "--site", "conv9"), "'conv9' matches no convolution", "'conv6'")


def test_a_dilation_too_large_for_its_map_is_told(call, tmp_path):
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
def test_faulty_data_is_told_by_file(call, tmp_path, plain_space, make, parts):
    wrong(call("run", "--space", plain_space, "--data", make(tmp_path), "--out", tmp_path / "out"), *parts)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_holds_a_run_is_not_touched(call, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "ledger.jsonl").write_text("precious\n")
    wrong(call("run", "--space", "helen", "--out", out), "already holds a run", "rfsearch resume")
    assert (out / "ledger.jsonl").read_text() == "precious\n"


def test_a_budget_too_small_for_any_score_is_told(call, tmp_path):
    wrong(call("plan", "--space", toy_file(tmp_path), "--budget", "1e-6x"), "1e-6x is less than one step")


def test_a_fault_of_the_file_system_is_told_without_a_traceback(call, monkeypatch):
    def locked(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "exists", locked)
    wrong(call("run", "--space", "helen", "--out", "locked"), "Permission denied", "locked")


def test_no_room_is_told(call, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    wrong(call("run", "--space", "helen", "--out", tmp_path / "out"), "MiB free")


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").is_dir(), reason="needs a place no one may write")
def test_no_right_to_write_is_told(call):
    wrong(call("run", "--space", "helen", "--out", "/proc/rfsearch-run"), "cannot be written")


@pytest.mark.parametrize("command", ["resume", "report"])
def test_a_folder_that_is_no_run_is_told(call, tmp_path, command):
    wrong(call(command, tmp_path), "not a run")


def test_plan_shows_every_candidate_with_field_share_and_forecast(call, tmp_path):
    code, out, _ = call("plan", "--space", toy_file(tmp_path), "--json")
    body = json.loads(out)
    assert code == 0
    fixed = body["candidates"][:3]
    assert [row["rf_px"] for row in fixed] == [23, 31, 47]
    assert [row["share"] for row in fixed] == pytest.approx([23 / 48, 31 / 48, 47 / 48])
    for row in body["candidates"]:
        assert row["flop"] > body["reference_flop"]
        assert row["seconds"] > 0
        assert row["peak_bytes"] > 1e5
    assert body["budget"]["limit"] == pytest.approx(3 * body["reference_flop"])


def test_plan_shows_every_combination_of_two_sites(call, tmp_path):
    path = toy_file(tmp_path)
    options = ["--site", "conv6", "--site", "features.6", "--strategies", "exhaustive", "--json"]
    code, out, err = call("plan", "--space", path, *options)
    assert code == 0, err
    candidates = [json.loads(row["candidate"]) for row in json.loads(out)["candidates"]]
    assert len(candidates) == 9
    assert all(set(candidate) == {"conv6", "features.6"} for candidate in candidates)


@pytest.fixture
def paths_space(tmp_path):
    """The toy space with two and three parallel paths that fit its 12 x 12 px map."""
    sets = (
        '[paths.bi]\nmanual = [1, 4]\nlabels = [["left eye", "right eye"], []]\n\n[paths.tri]\nmanual = [1, 2, 4]\n\n'
    )
    path = toy_file(tmp_path)
    text = path.read_text().replace("[presets.mini]", sets + "[presets.mini]", 1)
    path.write_text(text.replace("reference = 1", "reference = 1\nsampling = { gammas = [1.0, 2.0], regions = [3] }"))
    return path


def planned(told: tuple[int, str, str]) -> tuple[dict, list]:
    code, out, err = told
    assert code == 0, err
    body = json.loads(out)
    return body, [json.loads(row["candidate"])["conv6"] for row in body["candidates"]]


def test_plan_of_two_paths_shows_every_pair_with_the_field_of_each_path(call, paths_space):
    body, found = planned(call("plan", "--space", paths_space, "--paths", "2", "--json"))
    pairs = [tuple(path["dilation"] for path in paths) for paths in found]
    assert {p for p in pairs if p[0] != p[1]} == {(1, 2), (1, 4), (2, 4)}
    alike = [paths for paths, p in zip(found, pairs, strict=True) if p[0] == p[1]]
    assert len(found) == 7
    assert all(paths[0]["labels"] == ["left eye", "right eye"] and "labels" not in paths[1] for paths in alike)
    assert [[path.get("learned", False) for path in paths] for paths in alike] == [[True] * 2] * 3 + [[False] * 2]
    assert all(path["fractional"] for path in alike[-1])
    for row, pair in zip(body["candidates"], pairs, strict=True):
        fields = {f"conv6/{i}": 15 + 8 * d for i, d in enumerate(pair, start=1)}
        assert row["path_rf_px"] == fields
        assert row["rf_px"] == max(fields.values())
    assert body["arms"] == 5


def test_one_plan_compares_forms(call, paths_space):
    strategies = "inflation,inflation@bi,inflation@tri,exhaustive@lsdfn,lsdfn"
    body, found = planned(call("plan", "--space", paths_space, "--strategies", strategies, "--json"))
    assert body["arms"] == 5
    assert {len(paths) for paths in found if isinstance(paths, list)} == {2, 3}
    assert {"gamma" in paths for paths in found if isinstance(paths, dict)} == {True, False}
    assert any(paths.get("gamma_learned") for paths in found if isinstance(paths, dict))


def test_a_form_says_what_it_is_in_the_name_of_its_arm(paths_space):
    from rfsearch.planning.checking import check_request
    from rfsearch.planning.request import Request

    def named(*strategies: str, paths: int | None = None) -> list[str]:
        request = Request(space=str(paths_space), strategies=strategies, paths=paths)
        return [entrant.label for entrant in check_request(request).entrants]

    assert named() == ["exhaustive", "random", "optuna", "inflation", "fractional"]
    assert named("inflation", "inflation@bi", "random@single") == ["inflation", "inflation@bi", "random"]
    assert named("inflation@single", "inflation@bi", paths=2) == ["inflation@single", "inflation"]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_learning_f_of_a_block_is_refused_before_anything_is_trained(call, paths_space, tmp_path, command):
    options = ["--strategies", "random,inflation@lsdfn", "--out", tmp_path / "out"]
    told = call(command, "--space", paths_space, *options)
    wrong(told, "inflation learns f, which an LS-DFN block does not have")
    assert not (tmp_path / "out").exists()


class _Layered:
    """A strategy that tries a layer at every dilation. Its SPEC is set by the test."""

    spec = ""

    def __init__(self, space, seed):
        self._space = space

    def suggest(self, pending):
        return self._space.uniform(Choice(1, layer=self.spec))

    def observe(self, record):
        pass


class _LayeredList(_Layered):
    """The same, its candidates known beforehand; the first of them needs no layer."""

    def describe(self):
        return Description((self._space.uniform(Choice(2)), self.suggest([])))


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("strategy", [_Layered, _LayeredList])
@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("absent_package.layers:dcls", ["conv6: layer 'absent_package.layers:dcls'", "No module named", "install"]),
        ("tests.toys:strided_layer", ["conv6: layer 'tests.toys:strided_layer' maps", "as the convolution does. Got"]),
    ],
)
def test_a_layer_that_cannot_stand_at_its_site_is_told_before_anything_is_trained(
    call, tmp_path, monkeypatch, command, strategy, spec, parts
):
    monkeypatch.setattr(strategy, "spec", spec)
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda group, name: strategy if name == "layered" else load(group, name))
    monkeypatch.setattr(cli, "_engine", lambda request: nullcontext())  # Ray would not get anything to train
    options = ["--space", toy_file(tmp_path), "--strategies", "layered", "--out", tmp_path / "out"]
    wrong(call(command, *options), *parts)
    assert not (tmp_path / "out").exists()


def test_a_manual_path_too_large_for_its_map_is_told(call, tmp_path):
    told = call("plan", "--space", toy_file(tmp_path), "--paths", "2")
    wrong(told, "dilation 6 in one of 2 paths spans 13 px", "12 x 12 px", "Largest dilation that fits: 5")


@pytest.mark.parametrize("strategies", ["lsdfn", "exhaustive@lsdfn", "random@lsdfn", "optuna@lsdfn"])
def test_a_sample_stride_too_large_for_its_map_is_told(call, tmp_path, strategies):
    """Also where it is drawn and not listed."""
    path = toy_file(tmp_path)
    path.write_text(path.read_text().replace("reference = 1", "reference = 1\nsampling = { gammas = [1.0, 3.0] }"))
    told = call("plan", "--space", path, "--strategies", strategies)
    wrong(told, "5 x 5 regions at sample stride 3 span 15 px", "12 x 12 px", "Largest sample stride that fits: 2.25")


def test_a_path_guided_by_a_class_that_the_data_lacks_is_told(call, paths_space):
    paths_space.write_text(paths_space.read_text().replace('"left eye"', '"lft eye"'))
    told = call("plan", "--space", paths_space, "--paths", "2")
    wrong(told, "conv6/1: guided by the label 'lft eye'", "Did you mean 'left eye'")


def test_plan_prints_a_table_and_says_that_the_faces_are_rendered(call, tmp_path):
    code, out, _ = call("plan", "--space", toy_file(tmp_path))
    assert code == 0
    assert "rendered" in out
    assert "conv6: d=4" in out
    assert "scratch" in out


def test_plan_takes_another_network_and_site(call, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, in_channels=3):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),\n"
        "                         nn.ReLU(), nn.Conv2d(8, num_classes, 1))\n"
    )
    backbone = f"{tmp_path / 'mine.py'}:net"
    code, out, err = call("plan", "--space", toy_file(tmp_path), "--backbone", backbone, "--site", "2", "--json")
    assert code == 0, err
    assert [row["rf_px"] for row in json.loads(out)["candidates"][:3]] == [7, 11, 19]


def test_list_names_everything_that_can_be_asked_for(call):
    code, out, _ = call("list", "--json")
    rows = {(row["kind"], row["name"]) for row in json.loads(out)}
    assert code == 0
    assert {("space", "helen"), ("space", "camvid"), ("strategy", "inflation"), ("backbone", "wei-small")} <= rows
    assert all(row["about"] for row in json.loads(out))


def test_doctor_finds_this_installation_sound(call):
    code, out, _ = call("doctor", "--json")
    assert code == 0, out
    assert {check["name"] for check in json.loads(out)} >= {"packages", "devices", "a training step"}


def test_the_version_is_printed(call):
    assert call("--version") == (0, f"rfsearch {rfsearch.__version__}\n", "")


COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_every_command_takes_the_short_and_the_long_option_for_help(call, command):
    short, long = call(*command, "-h"), call(*command, "--help")
    assert short == long
    assert short[0] == 0
    assert "Usage: rfsearch" in short[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(call, shell, monkeypatch):
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: (shell, f"/bin/{shell}"))
    code, script, _ = call("--show-completion")
    assert code == 0
    assert "_RFSEARCH_COMPLETE" in script


def test_a_shell_completes_commands_and_options(monkeypatch, tmp_path):
    def completed(words: str) -> str:
        env = {**os.environ, "_RFSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": words}
        env |= {"COMP_CWORD": str(len(words.split(" ")) - 1), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", "from rfsearch.cli import main; main()"]
        return subprocess.run(command, capture_output=True, text=True, env=env).stdout

    assert "reproduce" in completed("rfsearch repro").split()
    assert "--strategies" in completed("rfsearch run --str").split()


def test_in_a_pipe_no_table_and_no_sentence_is_folded_or_cut(call, tmp_path, monkeypatch):
    """Whatever a shell says of its terminal's width."""
    monkeypatch.setenv("COLUMNS", "40")
    long = "a_name_much_longer_than_any_terminal_is_wide_" * 4
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes, channels):\n"
        "        super().__init__()\n"
        f"        self.add_module({long!r}, nn.Conv2d(channels, classes, 3, padding=1))\n"
        "    def forward(self, x):\n"
        f"        return getattr(self, {long!r})(x)\n"
    )
    space, backbone = toy_file(tmp_path), f"{tmp_path / 'mine.py'}:Net"
    code, out, err = call(
        "plan", "--space", space, "--backbone", backbone, "--site", long, "--strategies", "exhaustive"
    )
    assert code == 0, err
    rows = [line for line in out.splitlines() if line.startswith(f"{long}: d=")]
    assert rows
    assert all("FLOP" in row and row.rstrip().endswith("B") for row in rows)
    code, out, err = call("sites", backbone, "--input", "3x32x32", "--all")
    assert code == 0, err
    assert sum(long in line and "32x32" in line for line in out.splitlines()) == 1
    code, out, err = call("rf", backbone, "--input", "3x32x32", "--no-effective", "--out", tmp_path / "rf")
    assert code == 0, err
    assert sum(long in line and "Conv2d" in line for line in out.splitlines()) == 1
    code, out, err = call("list")
    assert code == 0, err
    assert sum(line.startswith("space ") and "Presets: mini" in line for line in out.splitlines()) >= 4


def test_a_terminal_keeps_its_width(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert terminal.console().width == 80
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal.console().width > 10_000


STRATEGY = """
from rfsearch.space import Choice
from rfsearch.strategies import Description, Exhausted

class Mine:
    def __init__(self, space, seed):
        self.space, self.tried = space, 0

    def suggest(self, pending):
        return self.space.default_candidate

    def observe(self, record):
        self.tried += 1

class OtherForm(Mine):
    form = "bi"

class random(Mine):
    pass

number = 3

class NoMethods:
    def __init__(self, space, seed):
        pass

def no_seed(space):
    return Mine(space, 0)

class BadStart(Mine):
    def __init__(self, space, seed):
        raise KeyError("grid")

class BadSuggest(Mine):
    def suggest(self, pending):
        return 1 / 0

class Number(Mine):
    def suggest(self, pending):
        return 4

class Nothing(Mine):
    def suggest(self, pending):
        pass

class BadList(Mine):
    def describe(self):
        return Description(("conv6",))

class LazyList(Mine):
    def describe(self):
        return Description(tuple({}[self.space.name]))

class BadFewest(Mine):
    def describe(self):
        return Description(fewest="many")

class BadDescription(Mine):
    def describe(self):
        return [self.space.default_candidate]
"""


@pytest.fixture
def strategies_file(tmp_path):
    """A file of strategies, good and bad, in a folder whose name holds the mark of a form."""
    path = tmp_path / "me@home" / "mine.py"
    path.parent.mkdir()
    path.write_text(STRATEGY)
    return path


def test_strategies_of_files_and_modules_are_planned_and_called_by_their_class(call, tmp_path, strategies_file):
    from rfsearch.planning.checking import check_request
    from rfsearch.planning.request import Request

    def named(*strategies: str) -> list[str]:
        request = Request(space=str(tmp_path / "toy.toml"), strategies=strategies)
        return [entrant.label for entrant in check_request(request).entrants]

    toy_file(tmp_path)
    other = tmp_path / "mine.py"
    other.write_text(STRATEGY)
    assert named(f"{strategies_file}:Mine") == ["Mine"]
    assert named("random", f"{other}:random", f"{other}:Mine", f"{strategies_file}:Mine") == [
        "random", "random-2", "Mine", "Mine-2",
    ]  # fmt: skip
    assert named(f"{other}:Mine", f"{other}:Mine@bi", f"{other}:OtherForm") == ["Mine", "Mine@bi", "OtherForm"]
    assert named("rfsearch.strategies.random:RandomSearch", "random") == ["RandomSearch", "random"]
    specs = "me@home/mine.py:Mine,rfsearch.strategies.exhaustive:Exhaustive"
    code, out, err = call("plan", "--space", "toy.toml", "--strategies", specs, "--json")
    assert code == 0, err
    assert json.loads(out)["arms"] == 2


@pytest.mark.parametrize(
    ("strategies", "parts"),
    [
        ("me@home/mine.py:Mine,./me@home/mine.py:Mine", ["each strategy once"]),
        ("mine.py", ["by the name of its class: mine.py:MyStrategy"]),
        ("me@home/mine.py:Mina", ["has no callable 'Mina'", "Did you mean 'Mine'?"]),
        ("me@home/mine.py:number", ["has no callable 'number'"]),
        ("nowhere.py:Mine", ["no file", "nowhere.py"]),
        ("nowhere.at.all:Mine", ["nowhere.at.all does not import"]),
        ("me@home/mine.py:Mine@by", ["Got 'by'", "Did you mean 'bi'?"]),
        ("me@home/mine.py:OtherForm@tri", ["searches the form bi only"]),
        ("me@home/mine.py:NoMethods", ["strategy NoMethods: a strategy has the methods suggest", "has not both"]),
        ("me@home/mine.py:no_seed", ["strategy no_seed: its constructor (space, seed) failed with TypeError"]),
        ("me@home/mine.py:BadStart", ["strategy BadStart: its constructor", "KeyError: 'grid'", "mine.py, line 32"]),
        ("me@home/mine.py:BadSuggest", ["strategy BadSuggest: suggest(pending) failed with ZeroDivisionError"]),
        ("me@home/mine.py:Number", ["strategy Number: suggest(pending) returns a Candidate, an Heir", "Got int 4."]),
        ("me@home/mine.py:Nothing", ["strategy Nothing: suggest(pending) returns", "Got NoneType None."]),
        ("me@home/mine.py:BadList", ["strategy BadList: its candidates are Candidates. Got str 'conv6'."]),
        ("me@home/mine.py:LazyList", ["strategy LazyList: describe() failed with KeyError: 'toy'"]),
        ("me@home/mine.py:BadFewest", ["strategy BadFewest: fewest is a number of full trainings. Got str 'many'."]),
        ("me@home/mine.py:BadDescription", ["strategy BadDescription: describe() returns a Description. Got list"]),
        ("leaves.py:Mine", ["leaves.py does not import: SystemExit: no licence."]),
    ],
)
def test_a_faulty_strategy_of_a_file_is_one_message(call, tmp_path, strategies_file, strategies, parts):
    toy_file(tmp_path)
    (tmp_path / "leaves.py").write_text("raise SystemExit('no licence')\n")
    told = call("plan", "--space", "toy.toml", "--strategies", strategies)
    wrong(told, *parts)
    assert told[2].count("\n") == 1


@pytest.fixture
def broken_plugins(tmp_path, monkeypatch):
    """An installed package each of whose plugins fails when it is loaded, or gives what is none."""
    site = tmp_path / "site"
    (site / "broken-1.0.dist-info").mkdir(parents=True)
    (site / "broken-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (site / "broken-1.0.dist-info" / "entry_points.txt").write_text(
        "[rfsearch.spaces]\nb-space = broken_plugin:space\nlost-space = broken_paths:space\n"
        "[rfsearch.backbones]\nb-net = broken_plugin:net\n"
        "[rfsearch.strategies]\nb-strategy = broken_exit:Strategy\n[rfsearch.tasks]\nb-task = absent_module:Task\n"
    )
    (site / "broken_plugin.py").write_text("raise OSError('libfancy.so is not there')\n")
    (site / "broken_exit.py").write_text("raise SystemExit('no licence')\n")
    (site / "broken_paths.py").write_text("def space():\n    return '/nowhere/space.toml'\n")
    monkeypatch.syspath_prepend(str(site))


BROKEN = {
    "b-space": "libfancy.so is not there",
    "lost-space": "/nowhere/space.toml",
    "b-net": "libfancy.so is not there",
    "b-strategy": "no licence",
    "b-task": "absent_module",
}


def test_a_plugin_that_does_not_load_is_named_and_the_rest_is_listed(call, broken_plugins):
    code, out, err = call("list", "--json")
    assert code == 0
    names = {row["name"] for row in json.loads(out)}
    assert names >= {"helen", "inflation", "wei-small", "segmentation"}
    assert not names & set(BROKEN)
    for name, cause in BROKEN.items():
        assert any(repr(name) in line and cause in line for line in err.splitlines()), name
    assert err.count("broken 1.0") == 4
    assert "Traceback" not in err


def test_a_plugin_that_does_not_load_keeps_no_other_from_being_planned(call, tmp_path, broken_plugins):
    code, out, err = call("plan", "--space", toy_file(tmp_path), "--strategies", "random", "--json")
    assert code == 0, err
    assert json.loads(out)["arms"] == 1
    assert all(repr(name) in err and cause in err for name, cause in BROKEN.items())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--space", "b-space"], "b-space"),
        (["--space", "lost-space"], "lost-space"),
        (["--space", "helen", "--strategies", "random,b-strategy"], "b-strategy"),
        (["--space", "helen", "--backbone", "b-net"], "b-net"),
    ],
)
def test_asking_for_a_plugin_that_does_not_load_is_told(call, broken_plugins, options, name):
    wrong(call("plan", *options), repr(name), BROKEN[name])


def test_doctor_names_a_plugin_that_does_not_load(broken_plugins):
    found = {check.name: check for check in doctor.checks()}
    assert found["spaces"].ok
    assert not found["plugins"].ok
    assert all(repr(name) in found["plugins"].found for name in BROKEN)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_recipe_of_one_or_two_steps_is_planned_and_trained(call, tmp_path, steps):
    """Its costs are timed over more steps than it has."""
    from rfsearch.ledger import Assignment
    from rfsearch.trial import Training

    path = toy_file(tmp_path, budget="60x", steps=steps)
    path.write_text(path.read_text().replace("f_delay = 0.25", "f_delay = 0.9\nwarmup = 5\nlr_steps = [0.5]"))
    code, out, err = call("plan", "--space", path, "--json")
    assert code == 0, err
    space = read_space(path, None)
    for row in json.loads(out)["candidates"]:
        given = Assignment("t", "s", 0, row["candidate"], 0, math.inf)
        folder = tmp_path / str(abs(hash(row["candidate"])))
        training = Training(space, toy_faces(), given, "flop", torch.device("cpu"), folder)
        while (record := training.advance()).status == "pruned":
            pass
        assert (record.status, record.cause) == ("completed", "")


def test_plan_says_how_many_full_trainings_a_budget_has_room_for(call, tmp_path):
    space = toy_file(tmp_path, budget="5x")
    body = json.loads(call("plan", "--space", space, "--strategies", "random", "--json")[1])
    one = body["budget"]["full_training"]["flop"] / body["reference_flop"]
    assert one > 1.1
    assert body["budget"]["full_trainings"] == pytest.approx(5 / one)
    code, out, err = call("plan", "--space", space, "--strategies", "random")
    assert code == 0, err
    assert f"5x has room for {int(5 / one)} full trainings of the hand default: one costs {one:.3g}x with" in out
    out = call("plan", "--space", space, "--strategies", "random", "--budget", "1x")[1]
    assert "1x is less than a full training of the hand default takes" in out


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
