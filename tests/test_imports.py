"""What importing costs: Ray only where it is needed, torch only where tensors are, and the public surface."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rfsearch

PACKAGE = Path(rfsearch.__file__).parent


def imported_by(modules: str) -> set[str]:
    code = f"import sys, {modules}; print(*sorted(name for name in sys.modules if '.' not in name))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(told.stdout.split())


@pytest.mark.parametrize(
    "modules", ["rfsearch, rfsearch.cli", "rfsearch.layers, rfsearch.receptive, rfsearch.training"]
)
def test_ray_is_not_imported(modules):
    assert "ray" not in imported_by(modules)


@pytest.mark.parametrize(
    "module",
    [
        "rfsearch",
        "rfsearch.strategies",
        "rfsearch.strategies.bayesian",
        "rfsearch.ledger",
        "rfsearch.report",
        "rfsearch.cli",
    ],
)
def test_neither_torch_nor_ray_is_imported(module):
    assert not {"torch", "ray"} & imported_by(module)


def test_a_worker_imports_no_scipy():
    """It takes a second, of which a worker that trains has no use."""
    assert "scipy" not in imported_by("rfsearch.training")


def test_only_one_package_imports_ray():
    importers = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            if any(name.split(".")[0] == "ray" for name in names):
                importers.add(path.relative_to(PACKAGE).as_posix())
    names = "callbacks deadline engine members nodes remote_files searcher session trainable ray_insides watchdog"
    orchestration = {f"orchestration/{name}.py" for name in names.split()}
    assert importers == {*orchestration, "doctor.py"}


def imported_when_imported(file: Path, modules: set[str]) -> set[str]:
    """The modules of the package that a file imports at its top, those for type checking alone left out."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & modules) or {str(node.module)}
    return found & modules


def test_no_module_imports_itself_through_others():
    parts = {file: file.relative_to(PACKAGE.parent).with_suffix("").parts for file in PACKAGE.rglob("*.py")}
    names = {file: ".".join(part for part in path if part != "__init__") for file, path in parts.items()}
    graph = {name: imported_when_imported(file, {*names.values()}) for file, name in names.items()}
    assert graph["rfsearch.planning.plan"] >= {"rfsearch.planning.request", "rfsearch.ledger"}
    graphlib.TopologicalSorter(graph).prepare()  # raises for a circle, which it names


@pytest.mark.parametrize(
    "module", ["rfsearch", "rfsearch.layers", "rfsearch.receptive", "rfsearch.ledger", "rfsearch.report"]
)
def test_everything_named_public_is_there_and_documented(module):
    found = __import__(module, fromlist=["__all__"])
    for name in found.__all__:
        value = getattr(found, name)
        assert not callable(value) or value.__doc__, name


def test_the_projects_test_command_is_the_readmes():
    root = PACKAGE.parent
    if not (root / ".ci" / "run").exists():
        pytest.skip("not a checkout")
    command = "python3 -m venv .venv && .venv/bin/pip install --quiet -e '.[dev]' && .venv/bin/pytest"
    assert command in (root / "README.md").read_text()
    assert command in (root / ".ci" / "run").read_text()


def test_every_package_that_is_imported_at_the_top_is_declared():
    """What another dependency happens to bring may be gone with its next version."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    declared, extras = project["dependencies"], set(project["optional-dependencies"])
    known = {re.split(r"[\[>=<]", requirement)[0].strip() for requirement in declared} | {"rfsearch"}
    named = {"PIL": "pillow", "pydantic_core": "pydantic-core"}
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            optional = {file.stem} & extras if file.parent.name in ("frameworks", "observers") else set()
            found |= {name.partition(".")[0] for name in names} - optional
    assert {named.get(name, name) for name in found - set(sys.stdlib_module_names)} <= known
