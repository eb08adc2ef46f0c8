"""How to put the recommendation into a model: its dilations, code for PyTorch, and what is lost on the way."""

from __future__ import annotations

from dataclasses import dataclass

from rfsearch.choices import Candidate, Dilated
from rfsearch.ledger import Record
from rfsearch.ledger.record import parsed
from rfsearch.numbers import plain, score
from rfsearch.report.facts import canonical
from rfsearch.report.verdict.phrases import reported_score, split_name
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
    lines, code, nearest, kept = [], list[str](), dict[str, Dilated](), False
    for site, path in known:
        dilation = path.choice.plain_dilation
        assert dilation is not None  # asked above
        spacing = path.choice.numbers.get("dilation", dilation)
        nearest[site] = Dilated(dilation)
        line, _ = path.choice.setting(path.choice, plain)
        if spacing == round(spacing):
            lines.append(line)
            code += _plain_code(site, dilation)
            kept = True
        else:
            lines.append(f"{line}; nearest plain dilation {dilation}")
            layer = f"FractionalConv2d({_module_code(site)}, {spacing:.4g}, learned=False)"
            code.append(f"model.set_submodule({site!r}, {layer})")
    real = any("FractionalConv2d" in line for line in code)
    if real:
        code = ["from rfsearch.layers import FractionalConv2d", "", *code]
    notes = ["The padding keeps the map's size for odd kernels."] if kept else []
    if real:
        notes.append("A convolution at a real dilation takes about the MACs of a plain one, but can take longer.")
    if any(path.choice != nearest[site] for site, path in known):
        notes.append(_say_what_is_lost(view, Candidate(nearest)))
    notes.append(_say_what_export_takes(view, best))
    by_site = (f"{site}: {line}" for site, line in zip(nearest, lines, strict=True))
    return Setting(tuple(by_site), "\n".join(code), " ".join(filter(None, notes)))


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
    """Say what is known of the plain candidate that stands in for an inflated or fractional one."""
    text = plain_candidate.to_json()
    for record in view.scored:
        if canonical(record.candidate) == text:
            value, on = reported_score(view, record)
            return f"The plain dilation was trained in this run too: {score(value)} on the {split_name(on)} images."
    return "The plain dilation is the nearest one, not the same; it was not trained in this run."


def _module_code(site: str) -> str:
    """Return the expression for a site's module in Python."""
    parts = site.split(".")
    if all(part.isidentifier() for part in parts):
        return f"model.{site}"
    return f"model.get_submodule({site!r})"
