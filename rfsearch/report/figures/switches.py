"""Switches that change what a figure shows: menus of plotly, which the page replaces by controls of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

_MARK = "switch: "  # begins the name of a menu that `add_switch` made


@dataclass(frozen=True)
class Option:
    """Describe one position of a switch.

    Attributes:
        label: Its name beside the control.
        traces: What it changes in the traces: for each attribute one value per trace.
        layout: What it changes in the layout, by dotted path, e.g. `xaxis.title.text`.
    """

    label: str
    traces: Mapping[str, Sequence[object]] = field(default_factory=dict)
    layout: Mapping[str, object] = field(default_factory=dict)


def add_switch(figure: go.Figure, label: str, options: Sequence[Option]) -> None:
    """Add a switch to a figure, which already shows the first option. With fewer than two options there is none.

    Args:
        figure: Gets a drop-down menu to its right, below those that it has.
        label: What is switched, e.g. "cost".
        options: The positions. Two switches of a figure change different attributes.
    """
    if len(options) < 2:
        return
    menus = figure.layout.updatemenus
    buttons = [
        {"label": option.label, "method": "update", "args": [dict(option.traces), dict(option.layout)]}
        for option in options
    ]
    menu = {"name": _MARK + label, "buttons": buttons, "x": 1.02, "xanchor": "left", "y": 1 - 0.15 * len(menus)}
    figure.update_layout(updatemenus=[*menus, menu])


def take_switches(layout: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the switches out of a figure's layout, so that the page can show them as its own controls.

    Args:
        layout: A figure's layout as plain JSON. Menus that are no switches stay in it, as plotly draws them.

    Returns:
        For each switch its `label` and its `options`, each with `label`, `traces` and `layout`.
    """
    menus = layout.pop("updatemenus", [])
    if others := [menu for menu in menus if not menu.get("name", "").startswith(_MARK)]:
        layout["updatemenus"] = others
    return [
        {
            "label": menu["name"].removeprefix(_MARK),
            "options": [
                {"label": button["label"], "traces": button["args"][0], "layout": button["args"][1]}
                for button in menu["buttons"]
            ],
        }
        for menu in menus
        if menu not in others
    ]
