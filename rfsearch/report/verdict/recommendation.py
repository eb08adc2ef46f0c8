"""How to put the winner into a model: its dilations, code for PyTorch, and what is lost on the way."""

from __future__ import annotations

from dataclasses import dataclass

from rfsearch.ledger import Record
from rfsearch.ledger.record import parsed
from rfsearch.numbers import plain, score
from rfsearch.report.facts import canonical
from rfsearch.report.verdict.phrases import reported_score, split_name
from rfsearch.report.view import RunView, factors, sampling_of
from rfsearch.space.choice import Candidate, Choice


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


def recommend(view: RunView, winner: Record) -> Setting | None:
    """Return how to put the winner into a plain model; None where its choices are unknown here."""
    known = winner.ended
    if known is None:
        return None
    if any(not isinstance(choice, Choice) or choice.sampling or choice.layer for _, choice in known.choices):
        return _recommend_trained_network(view, winner, known)
    moved = factors(winner)
    real = {site: choice.spacing for site, choice in known if choice.fractional}
    lines, code, nearest = [], ["from rfsearch.layers import FractionalConv2d", ""] * bool(real), {}
    for site, choice in known:
        f = moved.get(site, 1.0)
        dilation = max(1, round(choice.dilation / f))
        nearest[site] = Choice(dilation)
        module = _module_code(site)
        if site in real:
            lines.append(f"{site}: dilation {plain(real[site])}; nearest plain dilation {dilation}")
            layer = f"FractionalConv2d({module}, {real[site]:.4g}, learned=False)"
            code.append(f"model.set_submodule({site!r}, {layer})")
            continue
        lines.append(f"{site}: {_dilation_words(choice.dilation, f)}")
        code += [
            f"{module}.dilation = ({dilation}, {dilation})",
            f"{module}.padding = tuple({dilation} * (k // 2) for k in {module}.kernel_size)",
        ]
    notes = ["The padding keeps the map's size for odd kernels."] if len(real) < len(lines) else []
    if real:
        notes.append("A convolution at a real dilation costs little more than a plain one.")
    if moved or real:
        notes.append(_say_what_is_lost(view, Candidate.of(nearest)))
    return Setting(tuple(lines), "\n".join(code), " ".join(notes))


def _recommend_trained_network(view: RunView, winner: Record, known: Candidate) -> Setting:
    """Recommend the run's own network, for which no plain dilations can stand in.

    That is so for parallel paths, for a block behind a site, and for a layer in place of its convolution.
    """
    moved, lines, starts = factors(winner), [], dict(parsed(winner.candidate) or known)
    for path, choice in known:
        spaced = f"dilation {plain(choice.spacing)}"
        parts = [spaced if choice.fractional else _dilation_words(choice.dilation, moved.get(path, 1.0))]
        if choice.layer:
            parts.append(f"with the layer {choice.layer}")
        if path in winner.path_rf_px:
            parts.append(f"{winner.path_rf_px[path]:,} px")
        if choice.sampling:
            parts.append(sampling_of(path, starts[path], winner))
        if choice.labels:
            parts.append(f"guided by {', '.join(choice.labels)}")
        lines.append(f"{path}: {', '.join(parts)}")
    code = f"import rfsearch\n\nmodel = rfsearch.trained({str(view.run.directory)!r}, {winner.trial!r})"
    return Setting(tuple(lines), code, "This is the trained network of the run, its paths and blocks in place.")


def _dilation_words(dilation: int, f: float) -> str:
    """Return a dilation in words, with the plain one nearest to it where a map is inflated in front of it."""
    if f == 1.0:
        return f"dilation {dilation}"
    nearest = max(1, round(dilation / f))
    return (
        f"dilation {dilation} behind a map inflated by f = {plain(f)}; "
        f"nearest plain dilation {nearest} ({dilation} / {plain(f)} = {plain(dilation / f)})"
    )


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
