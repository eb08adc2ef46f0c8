"""Plugins that do not load: each is named, and the others go on."""

import json
import sys

import pytest

from rfsearch import doctor
from tests.calls import wrong
from tests.toys import toy_file


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


class Hidden:
    """An import system that finds no such package, installed or not."""

    def __init__(self, *packages):
        self.packages = packages

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_an_extra_that_is_not_installed_is_listed_with_how_to_install_it(call, tmp_path, broken_plugins, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow" or name.endswith(".mlflow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden("mlflow"), *sys.meta_path])
    code, out, err = call("list", "--json")
    assert code == 0
    how = "mlflow is not installed: pip install 'rfsearch[mlflow]'."
    assert {"kind": "observer", "name": "mlflow", "about": how} in json.loads(out)
    assert "mlflow" not in err
    assert "absent_module" in err  # which a plugin of somebody else imports
    wrong(call("run", "--space", toy_file(tmp_path), "--track", "mlflow"), how)


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
def test_asking_for_a_plugin_that_does_not_load_is_reported(call, broken_plugins, options, name):
    wrong(call("plan", *options), repr(name), BROKEN[name])


def test_doctor_names_a_plugin_that_does_not_load(broken_plugins):
    found = {check.name: check for check in doctor.run_checks()}
    assert found["spaces"].ok
    assert not found["plugins"].ok
    assert all(repr(name) in found["plugins"].found for name in BROKEN)
