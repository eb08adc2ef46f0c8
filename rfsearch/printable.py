"""Show users' text, such as class names, paths and causes, as it is: never as markup, never as terminal codes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

# Control characters except tab and newline, marks that change the direction of writing, line separators that only some
# programs know, and surrogates, which undecodable file names contain and no stream accepts.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Replace characters that a terminal or a page acts upon by escapes, such as \x1b."""
    return _HIDDEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class PlainConsole(Console):
    """Print every text literally, in tables too: [red] is no colour and ESC is no code.

    What is to be styled is given a style, or is a `Text` that has one.

    Example:
        >>> PlainConsole().print("[red] is three letters in brackets")
        [red] is three letters in brackets
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "markup": False, "emoji": False})

    def render_str(self, text: str, **settings: Any) -> Text:
        """Render a string literally."""
        return super().render_str(printable(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render anything, texts literally."""
        return super().render(_shown(renderable) if isinstance(renderable, Text) else renderable, options)

    def status(self, status: RenderableType, **settings: Any) -> Status:
        """Show a status, its string literally."""
        return super().status(Text(printable(status)) if isinstance(status, str) else status, **settings)


def _shown(text: Text) -> Text:
    """Return a text made printable, with its styles."""
    shown, start = text.blank_copy(), 0
    for found in _HIDDEN.finditer(text.plain):
        shown.append_text(text[start : found.start()]).append(_escaped(found))
        start = found.end()
    return shown.append_text(text[start:]) if start else text
