"""Name what an export needs so that it means the same on another machine, and lay it beside the patch."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from rfsearch.choices import Candidate, Choice
from rfsearch.patch import Patch
from rfsearch.sources import list_imported_files


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


def lay_beside(patch: Patch, directory: Path) -> list[str]:
    """Copy the files of a patch's layers, and those that they import from their folder, into the export's.

    Returns:
        A sentence for each file that one of them imports from elsewhere.
    """
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
