"""The command `plan`: what a run would try and cost, before anything is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rfsearch.cli.options import JsonOption, make_request, with_options_of
from rfsearch.cli.run import warn_of_plugins
from rfsearch.conduct import device_for, room_of
from rfsearch.printing import out_console, print_json, progress_console, say

if TYPE_CHECKING:
    from rich.console import Console

    from rfsearch.ledger import Request
    from rfsearch.ledger.manifest import PlannedCandidate
    from rfsearch.planning.search_plan import SearchPlan


@with_options_of(make_request)
def plan(
    request: Request,
    out: Annotated[Path | None, typer.Option("--out", help="As for run; nothing is written.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a run would try, with receptive fields and a forecast of its cost, before anything is trained."""
    from rfsearch.planning.plan import forecast_rows

    with tempfile.TemporaryDirectory() as cache:
        the_plan = _planned(request, Path(cache), progress_console(as_json))
        rows = forecast_rows(the_plan)
        if as_json:
            print_json(_as_json(the_plan, rows))
        else:
            _print_plan(the_plan, rows)


def _planned(request: Request, cache: Path, console: Console) -> SearchPlan:
    from rfsearch.planning.plan import make_plan, read_data
    from rfsearch.planning.request import check_request

    if request.train is None:
        checked = check_request(request)
        warn_of_plugins()
        return make_plan(checked, read_data(checked, cache), device_for(request))
    from rfsearch.own_loop.own_search import own_request, plan_with_pilot

    code, request = own_request(request)
    return plan_with_pilot(console, code, request, device_for(request))


def _as_json(the_plan: SearchPlan, rows: Sequence[PlannedCandidate]) -> dict[str, Any]:
    return {
        "reference_flop": the_plan.reference_flop,
        "arms": len(the_plan.arms),
        "candidates": [asdict(row) for row in rows],
        "budget": {
            **asdict(the_plan.budget),
            "full_training": asdict(the_plan.full_training),
            "full_trainings": the_plan.full_trainings,
        },
        "data": the_plan.summary,
        "notices": the_plan.notices,
    }


def _print_plan(the_plan: SearchPlan, rows: Sequence[PlannedCandidate]) -> None:
    from rfsearch.display import plan_table

    out_console.print(the_plan.title)
    for notice in the_plan.notices:
        say(notice, style="yellow")
    out_console.print(plan_table(rows, the_plan.reference_flop, the_plan.noun))
    for sentence in _remarks(the_plan, rows):
        say(sentence)


def _remarks(the_plan: SearchPlan, rows: Sequence[PlannedCandidate]) -> Iterator[str]:
    """Yield what the table does not show, one sentence each."""
    from rfsearch.numbers import counted, duration, prefixed
    from rfsearch.planning.plan import drawn, guides
    from rfsearch.planning.search_plan import PLANNED_MOST

    if any(row.alike for row in rows):
        yield (
            "Alike: at this image size no unit reads another part of the image. A run tries them all the same: "
            "what they read of it is spaced differently."
        )
    for rf_px in sorted({row.rf_px for row in rows})[:: max(1, len(rows) - 1)]:
        if the_plan.sizes:
            yield str(the_plan.sizes.compare(rf_px))
    if (left_out := len(the_plan.candidates) - PLANNED_MOST) > 0:
        yield f"and {left_out} more candidates"
    yield from guides(the_plan)
    yield from drawn(the_plan)
    yield room_of(the_plan)
    if the_plan.budget.currency == "flop":
        total = the_plan.budget.limit * len(the_plan.arms)
        seconds = total / the_plan.forecaster.flop_per_s
        yield (
            f"{counted(len(the_plan.arms), 'arm')} x {the_plan.budget.text}: {prefixed(total, 'FLOP')}, "
            f"about {duration(seconds)} of one worker's time. 1x = {prefixed(the_plan.reference_flop, 'FLOP')}."
        )
