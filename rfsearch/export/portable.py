"""Name what an export needs so that it means the same on another machine, and lay it beside the patch."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from rfsearch.choices import Candidate, Choice
from rfsearch.ledger.files import write_whole
from rfsearch.ledger.links import refuse_links
from rfsearch.patch import Patch, layer_files
from rfsearch.sources import check_importable, list_imported_files
from rfsearch.trust import note_own_patch


def default_folder(run_dir: Path) -> Path:
    """Return the folder of a run directory that an export is written to where none is named.

    Raises:
        RunDirectoryError: It leads out of the directory.
    """
    refuse_links(run_dir, "export")
    return run_dir / "export"


def portable_spec(spec: str) -> str:
    """Return a SPEC without the folder of its file: `net.py:make`."""
    source, colon, attribute = spec.rpartition(":")
    return f"{Path(source).name}{colon}{attribute}" if source.endswith(".py") else spec


def portable_candidate(candidate: Candidate) -> Candidate:
    """Return a candidate whose layers are named by their files' names alone."""

    def without_folder(_: str, choice: Choice) -> Choice:
        layer = getattr(choice, "layer", None)
        return replace(choice, layer=portable_spec(layer)) if isinstance(layer, str) else choice  # type: ignore[type-var]

    return candidate.changed(without_folder)


def portable_patch(patch: Patch) -> Patch:
    """Return a patch that holds no folder of this machine."""
    return replace(patch, backbone=portable_spec(patch.backbone), candidate=portable_candidate(patch.candidate))


def write_patch(patch: Patch, directory: Path) -> list[str]:
    """Write a patch as `patch.json`, and copy the files of its layers, and those that they import, to its folder.

    Returns:
        A sentence for each file that one of them imports from elsewhere.

    Raises:
        RunDirectoryError: The patch cannot be written.
        UntrustedError: A layer may not be imported here: the patch would be noted as the user's own.
    """
    for spec in (spec for _, path in patch.candidate for spec in path.choice.specs):
        check_importable(spec.rpartition(":")[0])
    file, portable = directory / "patch.json", portable_patch(patch)
    said = _lay_beside(patch, directory)
    write_whole(file, json.dumps(portable.to_json(), indent=1) + "\n")
    if layers := layer_files(portable.candidate, directory):
        note_own_patch(file, layers.values())
    return said


def runs_code(patch: Patch) -> bool:
    """Return whether files of layers lie beside a patch once it is written, which run where it is applied."""
    specs = [spec for _, path in patch.candidate for spec in path.choice.specs]
    return any(spec.rpartition(":")[0].endswith(".py") for spec in specs)


def apply_call(model: str, file: Path, trust: bool) -> str:
    """Return the call in Python that applies an exported patch.

    Args:
        model: What its network is called.
        file: That of the patch.
        trust: Whether it runs code beside it. Where it was exported that need not be said, on other machines it must.
    """
    return f"rfsearch.apply({model}, {str(file)!r}{', trust=True' if trust else ''})"


def _lay_beside(patch: Patch, directory: Path) -> list[str]:
    said = []
    for _, path in patch.candidate:
        for spec in path.choice.specs:
            file = Path(spec.rpartition(":")[0])
            if file.suffix != ".py" or not file.is_file():
                continue
            for used in list_imported_files(file):
                if used.is_relative_to(file.parent.resolve()):
                    target = directory / used.relative_to(file.parent.resolve())
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(used, target)
                else:
                    said.append(f"{file.name} imports {used.name} of another folder: take it along.")
    return said
