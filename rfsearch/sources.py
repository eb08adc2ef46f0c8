"""Import Python files that users name, with the neighbours that they import, each folder's apart from the others'.

A file is imported as a member of the package that it lies in, so that both `from .blocks import Block` and, as in a
script, `from blocks import Block` work. That package has a name of its own for each folder, so that two files of one
name do not collide. What a file imports as in a script is a top-level module, so the neighbours of a folder are hidden
while a file of another folder is imported. What a function imports later is looked for in its own folder first; there
Python prefers a package of any folder to one without an `__init__.py`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import itertools
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from rfsearch.errors import RunDirectoryError, UntrustedError

_OWN = Path(__file__).resolve().parent
_INSTALLED = {"site-packages", "dist-packages"}
_neighbours: dict[tuple[str, ...], dict[str, ModuleType]] = {}  # top-level modules, by the folders they came from
_known_before: dict[tuple[str, ...], set[str]] = {}  # modules that were there before any file of these folders
_looked_in: set[str] = set()  # folders on Python's path for files that were imported from them
_versions: dict[str, tuple[int, int]] = {}  # of imported files, by module: time and size
_sent: dict[Path, Path] = {}  # where the files of another machine lie on this one, by their paths there
_refusal: ContextVar[str] = ContextVar("refusal", default="")
_refusal_of_process: list[str] = []  # holds in every thread, which a context does not


def absolute(spec: str) -> str:
    """Spell out what the working directory adds to a SPEC, so that it means the same in every directory and process.

    A file's path becomes absolute. `module:callable` becomes the file of that module if the module is one of the
    working directory, not of an installed package. Every other SPEC stays as it is.
    """
    source, colon, attribute = spec.rpartition(":")
    if not colon:
        return spec
    if source.endswith(".py"):
        return f"{Path(source).expanduser().resolve()}:{attribute}"
    file = _file_of_working_directory(source)
    return f"{file}:{attribute}" if file else spec


def spec_of(function: Callable[..., Any]) -> str:
    """Return the SPEC by which another process finds a function; empty where there is none.

    The file of a function of the user's is named from the working directory. A script is named only where it guards
    what it does by `if __name__ == "__main__":`, since importing it would do that again.
    """
    name, module = getattr(function, "__qualname__", ""), sys.modules.get(getattr(function, "__module__", ""))
    if module is None or not name.isidentifier() or getattr(module, name, None) is not function:
        return ""
    path = Path(getattr(module, "__file__", None) or "").resolve()
    if path.suffix != ".py" or not path.is_file() or (module.__name__ == "__main__" and not _is_guarded(path)):
        return ""
    if not _is_users_own(path):
        return f"{module.__name__}:{name}"
    return f"{path.relative_to(Path.cwd()) if Path.cwd() in path.parents else path}:{name}"


def _is_guarded(script: Path) -> bool:
    """Return whether a script asks by which name it runs, on its top level."""
    with suppress(OSError, ValueError, SyntaxError, RecursionError):
        tests = [statement.test for statement in ast.parse(script.read_bytes()).body if isinstance(statement, ast.If)]
        return any(isinstance(n, ast.Name) and n.id == "__name__" for test in tests for n in ast.walk(test))
    return False


@contextmanager
def refusing(why: str) -> Iterator[None]:
    """Refuse within this context to import anything that is not installed.

    Args:
        why: What is said then, to be followed by what was to be imported.
    """
    token = _refusal.set(why)
    try:
        yield
    finally:
        _refusal.reset(token)


def refusal() -> str:
    """Return what is said here of what is not installed and so not imported; empty where it is imported."""
    return _refusal.get() or "".join(_refusal_of_process)


def refuse_from_here_on(why: str) -> None:
    """Refuse in all threads of this process what another one refuses.

    Args:
        why: Its `refusal`. Empty: refuse nothing any more.
    """
    _refusal_of_process[:] = [why]


def check_importable(source: str) -> None:
    """Check that a file or module may be imported here.

    Raises:
        UntrustedError: It is not installed, and that is refused here.
    """
    if (why := refusal()) and not _is_installed(source):
        raise UntrustedError(f"{why}{source}.")


def import_source(source: str) -> Any:
    """Import a file by its path, or a module by its name, from the working directory too.

    Raises:
        FileNotFoundError: There is no such file. Whatever importing raises is passed on.
        UntrustedError: What is not installed is refused here.
    """
    check_importable(source)
    if not source.endswith(".py"):
        _append_to_path(str(Path.cwd()))
        return importlib.import_module(source)
    path = Path(source).expanduser().resolve()
    path = _sent.get(path, path)
    if not path.is_file():
        raise FileNotFoundError(path)
    root = _root_folder(path)
    package = f"rfsearch_file_{hashlib.sha1(str(root).encode()).hexdigest()[:12]}"
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(root)]
    parent = ".".join((package, *path.parent.relative_to(root).parts))
    name = f"{parent}.{path.stem.replace('.', '_')}"
    with _neighbours_importable(*map(str, _import_folders(path))):
        importlib.import_module(parent)
        return _import_file(name, path)


def pack(files: Iterable[str]) -> dict[str, bytes]:
    """Read files, and what makes packages of their folders, for machines that may not have them.

    Args:
        files: Absolute paths. Those that are not there are left out.

    Returns:
        Contents by path.
    """
    found = {}
    for path in map(Path, files):
        packages = [folder / "__init__.py" for folder in path.parents if _root_folder(path) in folder.parents]
        for file in (path, *packages):
            with suppress(OSError):
                found[str(file)] = file.read_bytes()
    return found


def unpack(files: Mapping[str, bytes], folder: Path) -> dict[str, str]:
    """Import files as they were on the machine that packed them, unless this one has all of them at the same paths.

    Args:
        files: What `pack` returned.
        folder: Where they are written.

    Returns:
        Where they are then, by their paths there; nothing where this machine has them. Another process of this machine
        learns it by `find_at`.

    Raises:
        RunDirectoryError: A path leads upwards, and so maybe out of the folder. `pack` is given none that does.
    """
    if upwards := [path for path in files if ".." in Path(path).parts]:
        raise RunDirectoryError(f"files travel to workers by paths without '..'. Got {upwards[0]!r}.")
    if all(_holds(Path(path), content) for path, content in files.items()):
        return {}
    places = {path: folder / Path(path).relative_to(Path(path).anchor) for path in files}
    for path, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(files[path])
    found = {path: str(place) for path, place in places.items()}
    find_at(found)
    return found


def find_at(places: Mapping[str, str]) -> None:
    """Import files from other places than those that are named; see `unpack`."""
    _sent.update({Path(path): Path(place) for path, place in places.items()})


def sent() -> dict[str, str]:
    """Return where the files of another machine are; see `unpack`."""
    return {str(path): str(place) for path, place in _sent.items()}


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _is_installed(source: str) -> bool:
    """Return whether a module is one of an installed package, or of Python's own; a file is none."""
    if source.endswith(".py"):
        return False
    try:
        found = importlib.util.find_spec(source.partition(".")[0])
    except (ImportError, ValueError):
        return False
    if found is None:
        return False  # it may yet be one of the working directory
    places = [Path(place).resolve() for place in found.submodule_search_locations or [found.origin or ""]]
    own = _OWN, Path(sysconfig.get_path("stdlib")).resolve()
    return found.origin in ("built-in", "frozen") or all(
        _INSTALLED & set(place.parts) or any(base == place or base in place.parents for base in own) for place in places
    )


def strange_source(spec: str) -> str:
    """Return what a SPEC would import that the program could not import by itself; empty where there is nothing.

    A program imports what is installed, and what lies in a folder of its `sys.path`, of which those do not count that
    rfsearch has added. What has been imported runs no more.
    """
    source = absolute(spec).rpartition(":")[0]
    if source.endswith(".py"):
        path = Path(source).expanduser().resolve()
        return "" if not path.is_file() or _is_within_reach(path) or _has_been_imported(path) else str(path)
    added = [str(Path.cwd()), *_looked_in]
    with _searching(_path_of_program()):
        of_program = _places_of(source)
    with _searching([*_path_of_program(), *added]):
        places = _places_of(source)
    return next((place for place in places if place not in of_program), "")


def on_path_of_program(source: str, content: bytes) -> Path | None:
    """Return the file of a relative path that the program could import by itself, if it has that content."""
    files = [Path(folder, source) for folder in _path_of_program()] if not Path(source).is_absolute() else []
    return next((file for file in files if _is_within_reach(file) and _holds(file, content)), None)


def _path_of_program() -> list[str]:
    return [folder or str(Path.cwd()) for folder in sys.path if folder not in _looked_in]


@contextmanager
def _searching(folders: Iterable[str]) -> Iterator[None]:
    """Let modules be looked for in these folders alone."""
    before = list(sys.path)
    sys.path[:] = folders
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _places_of(module: str) -> list[str]:
    """Return where the package of a module lies: in several folders where it has no `__init__.py`. Import nothing."""
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):  # ValueError: a module that was made by hand
        return []
    return [] if found is None else [*(found.submodule_search_locations or [found.origin or ""])]


def _is_within_reach(path: Path) -> bool:
    """Return whether a file, or the package that it lies in, is in a folder that the program imports from."""
    folders = {Path(folder).resolve() for folder in _path_of_program()}
    return path.is_file() and not folders.isdisjoint(_import_folders(path.resolve()))


def _has_been_imported(path: Path) -> bool:
    status = path.stat()
    files = {getattr(sys.modules.get(name), "__file__", None): version for name, version in _versions.items()}
    return files.get(str(path)) == (status.st_mtime_ns, status.st_size)


def list_imported_files(file: Path) -> list[Path]:
    """List a file and the files that importing it runs, as far as its text says.

    These are the files that it imports and that those import, in the folders that it is imported from, without
    installed packages.
    """
    found: dict[Path, None] = {}
    left = [file.resolve()]
    while left:
        path = left.pop()
        found[path] = None
        with suppress(OSError, ValueError, SyntaxError, RecursionError):  # importing it reports what is wrong
            beside = {one.resolve() for one in _files_run_by(ast.parse(path.read_bytes()), path) if one.is_file()}
            left += sorted(one for one in beside - {*found, *left} if _is_users_own(one))
    return list(found)


def _is_users_own(path: Path) -> bool:
    installed = _INSTALLED & set(path.parts) or _OWN in path.parents
    return not installed and path.stat().st_size > 0


def _files_run_by(tree: ast.AST, path: Path) -> Iterator[Path]:
    """Yield where the files would be that the packages and the import statements of a file run."""
    yield from (folder / "__init__.py" for folder in path.parents if _root_folder(path) in folder.parents)
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            folders, names = _import_folders(path), [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            level, module = statement.level, statement.module
            folders = [path.parents[level - 1]] if level else _import_folders(path)
            names = [f"{module}.{alias.name}" if module else alias.name for alias in statement.names]
        else:
            continue
        for folder, parts in itertools.product(folders, (name.split(".") for name in names)):
            for count in range(1, len(parts) + 1):
                place = folder.joinpath(*parts[:count])
                yield from (place / "__init__.py", place.with_name(f"{place.name}.py"))


def _root_folder(path: Path) -> Path:
    """Return the folder of a file, or the one that the package of the file lies in."""
    return next(folder for folder in path.parents if not (folder / "__init__.py").is_file())


def _import_folders(path: Path) -> list[Path]:
    """Return where a file finds its neighbours."""
    return list(dict.fromkeys((path.parent, _root_folder(path))))


def _import_file(name: str, path: Path) -> ModuleType:
    """Import a file, or return the module imported before if the file has not changed since."""
    status = path.stat()
    version = status.st_mtime_ns, status.st_size
    if name in sys.modules and _versions.get(name) == version:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _versions[name] = version
    return module


@contextmanager
def _neighbours_importable(*folders: str) -> Iterator[None]:
    """Let imports within find modules of these folders before all others, and none of other files' folders."""
    # Neighbours that functions have imported since are recorded first.
    lying = _by_folder()
    for others, modules in _neighbours.items():
        modules.update(_modules_of(others, _known_before[others], lying))
        for name in modules:
            sys.modules.pop(name, None)
    before = set(sys.modules)
    _known_before.setdefault(folders, before)
    sys.modules.update(own := _neighbours.setdefault(folders, {}))
    sys.path[:0] = folders
    importlib.invalidate_caches()
    try:
        yield
    finally:
        del sys.path[: len(folders)]
        own.update(_modules_of(folders, before, _by_folder()))
        for folder in reversed(folders):  # for imports inside functions
            _append_to_path(folder)


def _modules_of(folders: tuple[str, ...], known: set[str], lying: Mapping[str, set[str]]) -> dict[str, ModuleType]:
    """Return the imported modules that lie directly in the folders, and those within them, without the known ones."""
    tops = {name for folder in folders for name in lying.get(folder, ())} - known
    if not tops:
        return {}
    imported = list(sys.modules.items())
    return {name: module for name, module in imported if name.partition(".")[0] in tops and name not in known}


def _by_folder() -> dict[str, set[str]]:
    """Return the names of all imported top-level modules by the folder that their file or folder is directly in.

    A folder without an `__init__.py` counts by its first place: Python adds others of its name to it.
    """
    found: dict[str, set[str]] = {}
    for name, module in list(sys.modules.items()):
        if "." not in name:
            place = next(iter(getattr(module, "__path__", ())), None) or getattr(module, "__file__", None)
            if place:
                found.setdefault(str(Path(str(place)).parent), set()).add(name)
    return found


def _append_to_path(folder: str) -> None:
    """Search a folder for modules behind all others, but before the folders that were added earlier."""
    if folder in _looked_in:
        with suppress(ValueError):  # somebody else removed it
            sys.path.remove(folder)
    elif folder in sys.path:
        return
    _looked_in.add(folder)
    place = next((place for place, other in enumerate(sys.path) if other in _looked_in), len(sys.path))
    sys.path.insert(place, folder)


def _file_of_working_directory(module: str) -> Path | None:
    """Return the file of a module that Python would find in the working directory, if it lies in packages only."""
    parts, here = module.split("."), Path.cwd()
    if module in sys.modules or not all(part.isidentifier() for part in parts):
        return None
    packages = [here.joinpath(*parts[:count], "__init__.py") for count in range(1, len(parts))]
    candidates = here.joinpath(*parts, "__init__.py"), here.joinpath(*parts[:-1], f"{parts[-1]}.py")
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None or not all(package.is_file() for package in packages):
        return None
    installed = importlib.util.find_spec(parts[0])
    places = [] if installed is None else [*(installed.submodule_search_locations or [installed.origin or ""])]
    return file if all(Path(place).resolve().parent == here for place in places) else None
