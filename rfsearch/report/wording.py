"""How texts read, in sentences and in the labels of figures."""

from __future__ import annotations

import html
from collections.abc import Sequence

from rfsearch.printable import printable


def literal(text: str) -> str:
    """Return a text that plotly, which reads its labels as HTML, shows literally."""
    # A percent sign opens plotly's own templates: %{...} in a trial's name must stay what it is.
    return html.escape(printable(text), quote=False).replace("%{", "% {")


def listing(parts: Sequence[str]) -> str:
    """Join parts as a sentence does: a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
