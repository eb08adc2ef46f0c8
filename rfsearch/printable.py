"""Text of users, such as class names, paths and causes, shown as it is: never as markup, never as terminal codes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

# Control characters but for tab and newline, what turns the direction of writing around, line separators that only
# some programs know, and halves of characters, which undecodable file names hold and no stream takes.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with escapes, such as \\x1b, in the place of characters that a terminal or a page acts upon."""
    return _HIDDEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class PlainConsole(Console):
    """A Rich console that takes every text, in tables too, literally: [red] is no colour and ESC is no code.

    What is to be styled is given a style, or is a `Text` that has one.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "markup": False, "emoji": False})

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        return super().render(_shown(renderable) if isinstance(renderable, Text) else renderable, options)

    def status(self, status: RenderableType, **settings: Any) -> Status:
        return super().status(Text(printable(status)) if isinstance(status, str) else status, **settings)


def _shown(text: Text) -> Text:
    """The same text, printable, with its styles."""
    shown, start = text.blank_copy(), 0
    for found in _HIDDEN.finditer(text.plain):
        shown.append_text(text[start : found.start()]).append(_escaped(found))
        start = found.end()
    return shown.append_text(text[start:]) if start else text
