"""Sentences that say what won, and at which price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rfsearch.ledger import Cost, Record
from rfsearch.numbers import amount, counted, multiple, prefixed, score
from rfsearch.report.verdict.phrases import as_sentence, capitalised, reported_score, split_name
from rfsearch.report.view import RunView, has_moved, setting_of
from rfsearch.report.wording import listing


def explain_no_winner(view: RunView) -> str:
    """Say why no receptive field won: no trial yet, or none that was scored."""
    if not view.records:
        return "No trial has finished yet, so there is nothing to report."
    statuses = Counter(r.status for r in view.records)
    listed = listing([f"{count} {status}" for status, count in statuses.items()])
    causes = Counter(r.cause for r in view.records if r.cause).most_common(1)
    why = f" The most frequent cause: {as_sentence(causes[0][0])}" if causes else ""
    return f"No trial was scored, so no receptive field won: {counted(len(view.records), 'trial')}, {listed}.{why}"


def say_what_won(view: RunView, winner: Record) -> str:
    """Say which setting won, with its receptive field, its score and the strategy that found it."""
    setting = setting_of(winner.candidate, winner)
    if has_moved(winner):
        field = f"a receptive field of {winner.rf_px:,} px, moved there from {winner.rf_init_px:,} px"
    else:
        field = f"a receptive field of {winner.rf_px:,} px"
    value, on = reported_score(view, winner)
    chosen = f"; chosen on validation, {score(winner.val)}" if on == "test" else ""
    return (
        f"{capitalised(setting)} won, {field}. It scored {score(value)} on the {split_name(on)} {_name_images(view)} "
        f"({view.metric}{chosen}). Found by {winner.strategy}."
    )


def say_price(view: RunView, winner: Record) -> Iterator[str]:
    """Say what the winner's training cost, what its arm had spent by then, and what all arms spent."""
    arm = next(a for a in view.arms if winner in a.records)
    until = arm.spent_until(winner)
    what = f"training, on from {winner.heir_of}," if winner.heir_of else "training"
    yield (
        f"Its {what} cost {_price_words(view, winner.cost)}. Including everything it had tried before, {arm.strategy} "
        f"had spent {_price_words(view, until)} when this training finished."
    )
    if len(view.records) > len(arm.records):
        total = sum((a.spent for a in view.arms), Cost())
        yield f"All {counted(len(view.arms), 'arm')} together spent {_price_words(view, total)}."


def _name_images(view: RunView) -> str:
    """Return what the scores were measured on, in words; drawings are called so."""
    name = view.facts.data
    if not view.facts.rendered:
        return f"images of {name}" if name else "images"
    if "rendered" in name.lower():
        return f"images of {name.replace('-', ' ')}, which are drawings and no photographs"
    return f"images of {name or 'the data set'}, which are rendered: drawings and no photographs"


def _price_words(view: RunView, cost: Cost) -> str:
    """Return a cost in words, as a multiple of one reference training where that is known."""
    flop, held = prefixed(cost.flop, "FLOP"), amount(cost.device_s, "device_s")
    if view.facts.reference_flop is None:
        return f"{flop} and {held} of device time"
    times = multiple(cost.flop / view.facts.reference_flop)
    return f"{flop} ({times} one reference training) and {held} of device time"
