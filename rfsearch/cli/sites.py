"""The command `sites`: where a network's receptive field may be changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from rfsearch.cli.model import LoadedModel, layer_in_short, load_model
from rfsearch.cli.options import JsonOption, with_options_of
from rfsearch.printing import out_console, print_json, say

if TYPE_CHECKING:
    from rfsearch.inspection import SiteFields


@with_options_of(load_model)
def sites(
    model: LoadedModel,
    every: Annotated[bool, typer.Option("--all", help="Also convolutions whose field may not be changed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List every convolution whose receptive field may be changed, why others may not, and what each dilation gives."""
    from rfsearch import inspection

    found = inspection.list_site_fields(model.network, (1, *model.shape))
    if as_json:
        print_json([site.to_json() for site in found])
        return
    out_console.print(_sites_table([site for site in found if every or not site.row.why_not]))
    if not every:
        for reason, count in _refusals(found).items():
            say(f"{count} more may not be changed: {reason}.")
    if any(field.whole for site in found for field, _ in site.by_dilation.values()):
        say("The output also sees the whole image, through pooling or attention. The table leaves that out.")
    if model.assumed:
        say(model.assumed)


def _sites_table(shown: Sequence[SiteFields]) -> Table:
    from rfsearch.inspection import format_sizes

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("site", overflow="fold", min_width=20)
    table.add_column("convolution", no_wrap=True)
    table.add_column("map, px", no_wrap=True, justify="right")
    table.add_column("dilation: the output's field, px")
    for site in shown:
        row = site.row
        fields = "  ".join(f"{d}:\u00a0{field.local_px}" for d, (field, _) in site.by_dilation.items())
        table.add_row(
            row.path,
            layer_in_short("", row.kernel, row.stride, row.dilation, row.groups),
            format_sizes(row.map_size) if row.map_size else "-",
            fields or Text(f"no: {row.why_not}", style="yellow"),
        )
    return table


def _refusals(found: Sequence[SiteFields]) -> dict[str, int]:
    """Count the convolutions that may not be changed, by reason."""
    counts: dict[str, int] = {}
    for site in found:
        if site.row.why_not:
            reason = re.sub(r"^\S+ kernel", "1x1 kernel", site.row.why_not).partition(" (")[0]
            counts[reason] = counts.get(reason, 0) + 1
    return counts
