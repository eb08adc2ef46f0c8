"""The command `doctor`: whether this installation works."""

from __future__ import annotations

import typer
from rich.text import Text

from rfsearch.cli.options import JsonOption
from rfsearch.printing import out_console, plain_table, print_json


def doctor(as_json: JsonOption = False) -> None:
    """Check this installation: versions, devices, memory, room, and a training step."""
    from rfsearch.doctor import run_checks

    results = run_checks()
    if as_json:
        print_json([vars(check) for check in results])
    else:
        table = plain_table("", "check", "found", folding="found")
        for check in results:
            mark = Text("ok", style="green") if check.ok else Text("no", style="red")
            table.add_row(mark, check.name, check.found)
        out_console.print(table)
    raise typer.Exit(0 if all(check.ok for check in results) else 2)
