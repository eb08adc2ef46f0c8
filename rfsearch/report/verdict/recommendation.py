"""How to put the recommendation into a model: its dilations, code for PyTorch, and what is lost on the way."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rfsearch.choices import Candidate, Choice, Dilated
from rfsearch.ledger import Record
from rfsearch.ledger.record import parsed
from rfsearch.numbers import plain, score
from rfsearch.report.contenders import Contender
from rfsearch.report.facts import canonical
from rfsearch.report.statistics import mean
from rfsearch.report.verdict.phrases import split_name
from rfsearch.report.view import RunView


@dataclass(frozen=True)
class Setting:
    """Say how to put a candidate into a plain model.

    Attributes:
        plain: One line per site.
        code: The same in PyTorch, for a model called `model`.
        note: What is lost, and what to know.

    Example:
        >>> Setting(plain=("conv6: dilation 4",), code="model.conv6.dilation = (4, 4)").plain
        ('conv6: dilation 4',)
    """

    plain: tuple[str, ...]
    code: str
    note: str = ""


def recommend(view: RunView, best: Record) -> Setting | None:
    """Return how to put the recommendation into a plain model; None where its choices are unknown here."""
    known = best.ended
    if known is None:
        return None
    if any(len(paths) > 1 or paths[0].choice.plain_dilation is None for _, paths in known.sites):
        return _recommend_trained_network(view, best, known)
    nearest = {site: Dilated(path.choice.plain_dilation or 1) for site, path in known}
    lines = [f"{site}: {_setting_words(path.choice, nearest[site])}" for site, path in known]
    code = [line for site, choice in nearest.items() for line in _plain_code(site, choice.dilation)]
    notes = ["The padding keeps the map's size for odd kernels."]
    if any(path.choice != nearest[site] for site, path in known):
        given = json.loads(known.to_json())
        instead = ["# Without rfsearch, the nearest plain dilation:", *(f"# {line}" for line in code)]
        code = ["import rfsearch", "", f"model = rfsearch.apply(model, {given})", "", *instead]
        notes = [_say_what_is_lost(view, Candidate(nearest))]
        if any(_is_real(path.choice) for _, path in known):
            notes.append("A convolution at a real dilation takes about the MACs of a plain one, but can take longer.")
    notes.append(_say_what_export_takes(view, best))
    return Setting(tuple(lines), "\n".join(code), " ".join(filter(None, notes)))


def _setting_words(choice: Choice, nearest: Dilated) -> str:
    words, _ = choice.setting(choice, plain)
    return f"{words}; nearest plain dilation {nearest.dilation}" if _is_real(choice) else words


def _is_real(choice: Choice) -> bool:
    """Return whether a choice is a convolution at a dilation that is no whole number."""
    dilation = choice.numbers.get("dilation", 1)
    return dilation != round(dilation)


def _plain_code(site: str, dilation: int) -> list[str]:
    """Return the code that dilates a convolution and pads it."""
    module = _module_code(site)
    return [
        f"{module}.dilation = ({dilation}, {dilation})",
        f"{module}.padding = tuple({dilation} * (k // 2) for k in {module}.kernel_size)",
    ]


def _recommend_trained_network(view: RunView, best: Record, known: Candidate) -> Setting:
    """Recommend the run's own network, for which no plain dilations can stand in.

    That is so for parallel paths, for a block behind a site, and for a layer in place of its convolution.
    """
    lines, starts = [], dict(parsed(best.candidate) or known)
    for name, path in known:
        convolution, behind = path.choice.setting(starts.get(name, path).choice, plain)
        field = f"{best.path_rf_px[name]:,} px" if name in best.path_rf_px else ""
        guided = f"guided by {', '.join(path.labels)}" if path.labels else ""
        lines.append(f"{name}: {', '.join(filter(None, (convolution, field, behind, guided)))}")
    trial = _kept_trial(view) or best.trial
    code = f"import rfsearch\n\nmodel = rfsearch.trained({str(view.run.directory)!r}, {trial!r})"
    return Setting(tuple(lines), code, "This is the trained network of the run, its paths and blocks in place.")


def _kept_trial(view: RunView) -> str:
    """Return a training of what is recommended whose network is kept; empty where none is."""
    records = view.decision.recommended.records if view.decision else ()
    kept = (r.trial for r in records if (view.run.directory / "checkpoints" / r.trial / "model.pt").exists())
    return next(kept, "")


def _say_what_export_takes(view: RunView, best: Record) -> str:
    """Say how its trained network is exported, where `rfsearch export` would take another one by itself."""
    if view.winner is None or view.winner.trial == best.trial:
        return ""
    if trial := _kept_trial(view):
        if trial == view.winner.trial:
            return ""
        return f"Its trained network: rfsearch export RUN --trial {trial}. Without --trial it is {view.winner.trial}'s."
    return f"No trained network of it is kept; rfsearch export RUN takes that of {view.winner.trial}."


def _say_what_is_lost(view: RunView, plain_candidate: Candidate) -> str:
    """Say what is known of the plain candidate that is nearest to an inflated or fractional one."""
    text = plain_candidate.to_json()
    tried = next((c for c in view.contenders if canonical(c.best.candidate) == text), None)
    if tried is None:
        return "The nearest plain dilation is not the same; it was not trained in this run."
    assert view.decision is not None  # something is recommended
    default = view.decision.default
    beside = f"what is recommended {_level(view.decision.recommended)}"
    if default is not None and default is not tried:
        beside += f", the hand default {_level(default)}"
    values = view.scores_of(tried) if view.split == "test" else []
    tested = f", and {score(mean(values))} on the {split_name(view.split)} images" if values else ""
    which = "The nearest plain dilation, the hand default," if default is tried else "The nearest plain dilation"
    return f"{which} was trained in this run too: {_level(tried)} on the validation images ({beside}){tested}."


def _level(contender: Contender) -> str:
    return score(mean([record.val or 0.0 for record in contender.trained]))


def _module_code(site: str) -> str:
    """Return the expression for a site's module in Python."""
    parts = site.split(".")
    if all(part.isidentifier() for part in parts):
        return f"model.{site}"
    return f"model.get_submodule({site!r})"
