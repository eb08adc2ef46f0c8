"""Provide the console on which commands print: a terminal, at its width, or a pipe or file, in which nothing is cut."""

from __future__ import annotations

import sys

from rfsearch.printable import PlainConsole

# Wider than any line that a command prints.
_UNFOLDED = 100_000


def console(stderr: bool = False) -> PlainConsole:
    """Return a console on standard output or standard error, as wide as its terminal or, elsewhere, as any line.

    A notebook gets plain lines, though it calls itself a terminal: what rich would draw there needs widgets of another
    package, and each redrawing would stay.
    """
    stream = sys.stderr if stderr else sys.stdout
    notebook = type(stream).__module__.partition(".")[0] == "ipykernel"
    terminal = stream is not None and stream.isatty() and not notebook  # None under pythonw
    forced = {} if terminal else {"force_terminal": False, "force_jupyter": False}
    return PlainConsole(stderr=stderr, width=None if terminal else _UNFOLDED, **forced)
