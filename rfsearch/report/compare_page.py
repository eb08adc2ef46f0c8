"""The page and the sentences of a comparison of runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rfsearch.errors import RequestError
from rfsearch.ledger.files import write_whole
from rfsearch.numbers import amount, counted, number
from rfsearch.report.comparison import Comparison, Entry, Problem
from rfsearch.report.figures.registry import DrawnFigure, draw_figures
from rfsearch.report.templates import fill
from rfsearch.report.verdict import verdict_of
from rfsearch.report.verdict.phrases import split_name, spread_words
from rfsearch.report.wording import listing

_FIGURES = ("anytime", "against-rf", "pareto", "budget-use")  # those that say something of several runs together
_TITLE = re.compile(rb"<title>Comparison of \d+ runs: rfsearch</title>")
_TITLE_WITHIN = 2_000  # bytes from the beginning of a page
_STANDINGS = {"best": "", "apart": "more than noise", "alike": "within noise", "open": "too few seeds to tell"}


def write_comparison(found: Comparison, page: Path) -> None:
    """Write the page of a comparison."""
    write_whole(page, render_comparison(found))


def replaces_comparison(page: Path) -> bool:
    """Return whether a page would replace that of an earlier comparison.

    Raises:
        RequestError: It would replace something else.
    """
    if page.is_dir():
        raise RequestError(f"{page} is a folder. Name a file in it: --out {shlex.quote(str(page / 'compare.html'))}.")
    if not page.exists():
        return False
    with page.open("rb") as file:
        begins = file.read(_TITLE_WITHIN)
    if not _TITLE.search(begins):
        raise RequestError(f"{page} holds something else than a comparison. Choose another --out.")
    return True


def render_comparison(found: Comparison) -> str:
    """Return the page's HTML, which needs no other file."""
    figures, faults = _figures(found.problems)
    runs = [name for problem in found.problems for name in problem.runs]
    first = found.problems[0].view
    budget = f"a budget of {first.facts.budget_text} each"
    return fill(
        "compare.html",
        figures=figures,
        figure_faults=faults,
        run_count=len(runs),
        summary=f"{listing(runs)}; {counted(len(found.problems), 'problem')}, {budget}",
        sentences=say_comparison(found),
        ranks=rank_rows(found) if len(found.problems) > 1 else [],
        problem_names=[problem.name for problem in found.problems],
        problems=[_problem(problem) for problem in found.problems],
        commands=[command for problem in found.problems for command in problem.commands],
    )


def say_comparison(found: Comparison) -> list[str]:
    """Return what a comparison says, in sentences: the ranks over all problems, then the best of each."""
    sentences = []
    if len(found.problems) > 1 and found.mean_ranks:
        ranks = listing([f"{strategy} {number(rank, 2)}" for strategy, rank in found.mean_ranks.items()])
        sentences.append(f"Mean rank over {len(found.problems)} problems: {ranks}.")
        lone = sorted({e.strategy for p in found.problems for e in p.entries} - set(found.mean_ranks))
        if lone:
            sentences.append(f"Not ranked, since they were not scored on every problem: {listing(lone)}.")
    elif len(found.problems) > 1:
        sentences.append("No strategy was scored on every problem, so there is no ranking over all of them.")
    sentences += [_say_best(problem) for problem in found.problems]
    return sentences


def _say_best(problem: Problem) -> str:
    if not problem.entries:
        return f"On {problem.name} no trial was scored."
    best, *others = problem.entries
    text = f"On {problem.name} {best.strategy} ended best, at {spread_words(list(best.finals.values()))}"
    text += f" on the {split_name(problem.view.split)} images"
    for standing, words in (
        ("apart", "{} ended worse by more than noise"),
        ("alike", "{} cannot be told apart from it"),
        ("open", "for {} there are too few seeds to tell"),
    ):
        names = [entry.strategy for entry in others if entry.standing == standing]
        text += "; " + words.format(listing(names)) if names else ""
    return text + "."


def rank_rows(found: Comparison) -> list[list[str]]:
    """Return the rows of the ranking: strategy, mean rank, and its rank on each problem."""
    ranks = [{entry.strategy: entry.rank for entry in problem.entries} for problem in found.problems]
    return [
        [strategy, number(mean_rank, 3), *(number(own[strategy], 3) for own in ranks)]
        for strategy, mean_rank in found.mean_ranks.items()
    ]


def entry_cells(problem: Problem, entry: Entry) -> list[str]:
    """Return one strategy's row of a problem: its name, rank, scores, standing and what it spent."""
    return [
        entry.strategy,
        number(entry.rank, 3),
        spread_words(list(entry.finals.values())),
        _STANDINGS[entry.standing],
        amount(entry.spent, problem.view.facts.currency),
    ]


def _problem(problem: Problem) -> dict[str, Any]:
    view = problem.view
    verdict = verdict_of(view)
    seeds = counted(len(view.seeds), "seed")
    return {
        "name": problem.name,
        "about": f"{listing(list(problem.runs))}: {counted(len(view.records), 'trial')}, {seeds}",
        "verdict": " ".join((verdict.headline, *verdict.confidence)),
        "metric": f"{split_name(view.split)} {view.metric}",
        "rows": [entry_cells(problem, entry) for entry in problem.entries],
    }


def _figures(problems: Sequence[Problem]) -> tuple[list[DrawnFigure], list[str]]:
    """Return the figures of all problems, each named after its problem where there are several."""
    figures, faults = list[DrawnFigure](), list[str]()
    for k, problem in enumerate(problems):
        drawn, failed = draw_figures(problem.view)
        faults += failed
        for figure in drawn:
            if figure.name in _FIGURES:
                name = f"{figure.name}-{k}"
                title = f"{figure.title}: {problem.name}" if len(problems) > 1 else figure.title
                figures.append(replace(figure, name=name, title=title, spec={**figure.spec, "name": name}))
    order = {name: i for i, name in enumerate(_FIGURES)}
    return sorted(figures, key=lambda f: (order[re.sub(r"-\d+$", "", f.name)], f.name)), list(dict.fromkeys(faults))
