"""The command `list`: what can be named."""

from __future__ import annotations

import tomllib
from pathlib import Path

from rfsearch.cli.options import JsonOption
from rfsearch.errors import NotInstalledError, RequestError
from rfsearch.printing import out_console, plain_table, print_json, warn


def list_names(as_json: JsonOption = False) -> None:
    """List what can be named: spaces, strategies, backbones, tasks, layouts, kinds of choice, figures of the report."""
    from rfsearch import plugins

    rows: list[tuple[str, str, str]] = []
    for group, kind in plugins.KINDS.items():
        for name in plugins.names(group):
            try:
                about = _about_space(name) if group == "spaces" else _first_sentence(plugins.load(group, name))
                rows.append((kind, name, about))
            except NotInstalledError as error:
                rows.append((kind, name, str(error)))
            except RequestError as error:
                warn(f"Left out: {error}")
    if as_json:
        print_json([{"kind": kind, "name": name, "about": about} for kind, name, about in rows])
        return
    table = plain_table("kind", "name", "about", folding="about")
    for row in rows:
        table.add_row(*row)
    out_console.print(table)


def _about_space(name: str) -> str:
    from rfsearch import plugins
    from rfsearch.space import read_space

    file = plugins.space_file(name)
    return f"{read_space(file, None).title}. {_presets(file)}"


def _presets(path: Path) -> str:
    from rfsearch.space import SpaceFile

    file = SpaceFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    return f"Presets: {', '.join(file.presets)}; each as {', '.join(file.forms)}, like {next(iter(file.presets))}-bi."


def _first_sentence(named: object) -> str:
    doc = getattr(named, "__doc__", None) or "Not described"
    return " ".join(doc.split()).partition(". ")[0].rstrip(".") + "."
