"""Where commands print, and how: text as it is, tables without lines, JSON."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from rfsearch import terminal

out_console = terminal.console()
err_console = terminal.console(stderr=True)


def progress_console(as_json: bool) -> Console:
    """Return where progress is printed: with --json standard output holds nothing but the JSON."""
    return err_console if as_json else out_console


def say(text: str, console: Console = out_console, style: str | None = None, unbroken: bool = False) -> None:
    """Print a sentence.

    Args:
        text: The sentence.
        console: Where to.
        style: Colour or weight.
        unbroken: Do not fold it at words on a terminal, so that paths in it can be copied.
    """
    console.print(text, style=style, highlight=False, soft_wrap=unbroken)


def warn(text: str, console: Console = err_console) -> None:
    """Print a sentence that should not be missed."""
    say(text, console, style="yellow", unbroken=True)


def print_json(body: object) -> None:
    """Print the answer of a command with --json."""
    print(json.dumps(body, indent=1))


def plain_table(*columns: str, folding: str = "") -> Table:
    """Return an empty table without lines.

    Args:
        columns: Headings.
        folding: The one column that may be folded on a narrow terminal.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column != folding)
    return table
