"""What is recommended, and what is said of it, on ledgers that are made to show one rule each."""

from __future__ import annotations

import pytest

from rfsearch.choices import Candidate, Fractional, Searched
from rfsearch.ledger import Record
from rfsearch.report import Verdict, summarise
from rfsearch.report.page import write
from tests.report.made_up import MakeRun, record
from tests.report.test_page import Page

SEARCHED = Candidate({"conv6": Searched(2)}).to_json()
NOISE = (0.0, 0.004, -0.004, 0.002, -0.002)


def trained(dilation: int, level: float, times: int = 5, test: float | None = None, **changes: object) -> list[Record]:
    """Trainings of one plain dilation under several seeds, whose scores scatter by some 0.003."""
    return [
        record(f"d{dilation}-{seed}", dilation, val=level + NOISE[seed], test=(test or level) + NOISE[seed],
               seed=seed, train_seed=1000 * seed, **changes)
        for seed in range(times)
    ]  # fmt: skip


def found(dilation: float, level: float, times: int = 5, steps: int = 125, **changes: object) -> list[Record]:
    """Trainings that found one real dilation, longer than plain ones."""
    return [
        record(f"f-{seed}", 2, val=level + NOISE[seed], test=level + NOISE[seed], seed=seed, train_seed=1000 * seed,
               candidate=SEARCHED, ends={"conv6": dilation}, strategy="fractional", steps=steps, rf_px=111,
               **changes)
        for seed in range(times)
    ]  # fmt: skip


def lead(given: Verdict) -> str:
    return " ".join((given.headline, *given.confidence))


def verdict(make_run: MakeRun, *groups: list[Record], **changes: object) -> Verdict:
    return summarise(make_run([r for group in groups for r in group], **changes))


def test_what_cannot_be_told_apart_is_said_and_what_all_of_it_beats(make_run: MakeRun) -> None:
    space = {"dilations": [1, 3, 4, 6]}
    given = verdict(
        make_run, trained(1, 0.6), trained(3, 0.700), trained(4, 0.7045, test=0.73), trained(6, 0.701), space=space
    )
    assert lead(given) == (
        "Use dilation 4 at conv6 (124 px). Dilations 3, 4 and 6 cannot be told apart on the validation images "
        "(5 trainings each). All beat the hand default by 0.10 to 0.13 on the test images."
    )
    assert "noise alone reaches" in str(given)


def test_within_noise_a_plain_convolution_goes_before_a_layer_of_another_kind(make_run: MakeRun) -> None:
    given = verdict(make_run, trained(1, 0.6), trained(4, 0.700), found(3.56, 0.702))
    assert lead(given).startswith(
        "Use dilation 4 at conv6 (124 px). Dilation 3.56, found in training; and dilation 4 at conv6 "
        "cannot be told apart on the validation images (5 trainings each, of 100 to 125 steps); this is the simplest "
        "of them."
    )
    assert given.best is not None
    assert given.best.strategy == "fractional"
    assert given.recommended is not None
    assert given.recommended.candidate == record("x", 4).candidate
    assert (
        "The best single training was of dilation 3.56, found in training, at conv6 (f-1, validation 0.706, 125 steps)"
        in str(given)
    )
    assert given.setting is not None
    assert given.setting.plain == ("conv6: dilation 4",)
    assert "rfsearch export RUN takes that of f-1" in given.setting.note


def test_outside_of_noise_the_layer_is_recommended(make_run: MakeRun) -> None:
    given = verdict(make_run, trained(1, 0.6), trained(4, 0.700), found(3.56, 0.75))
    assert lead(given).startswith("Use dilation 3.56, found in training, at conv6 (111 px). Against the hand default")
    assert "cannot be told apart" not in str(given)


def test_within_noise_of_the_hand_default_it_is_kept(make_run: MakeRun) -> None:
    given = verdict(make_run, trained(1, 0.700), trained(4, 0.702))
    assert lead(given) == (
        "Keep the hand default, dilation 1 at conv6 (76 px). Dilations 1 and 4 cannot be told apart on the validation "
        "images (5 trainings each); the hand default needs no change."
    )
    assert "None of" not in str(given)


def test_one_training_of_the_hand_default_suffices_where_noise_cannot_tell_it_apart(make_run: MakeRun) -> None:
    given = verdict(make_run, trained(1, 0.700, 1), trained(2, 0.695, 1), found(1.27, 0.702))
    assert lead(given).startswith("Keep the hand default, dilation 1 at conv6")


def test_a_single_lucky_training_does_not_replace_what_was_trained_often(make_run: MakeRun) -> None:
    lucky = record("random-0", 8, val=0.7047, test=0.69, strategy="random")
    given = verdict(make_run, trained(4, 0.700), [lucky])
    assert given.best == lucky
    assert lead(given).startswith("Use dilation 4 at conv6")


def test_without_repeats_the_best_on_validation_is_recommended(make_run: MakeRun) -> None:
    given = verdict(make_run, trained(1, 0.6, 1), trained(4, 0.7, 1), found(3.56, 0.701, 1))
    assert lead(given).startswith("Use dilation 3.56")
    assert "each was trained once, so how much of that is chance is unknown" in lead(given)


def test_the_noise_of_others_does_not_hide_a_lead(make_run: MakeRun) -> None:
    """A learned f of which one of two trainings collapses scatters by 0.3; five of five trainings of 4 lead by 0.06."""
    collapsing = [
        record(f"i{n}", 2, val=v, test=v, learned=True, strategy="inflation", ends={"conv6": 0.5}, train_seed=n)
        for n, v in enumerate((0.65, 0.2))
    ]
    given = verdict(make_run, trained(1, 0.64), trained(4, 0.70), collapsing)
    assert "Against the hand default it is 0.060 better on the test images: more than noise." in lead(given)


def test_lengths_that_differ_are_named_and_the_gain_is_split_by_a_retrained_outcome(make_run: MakeRun) -> None:
    plainly = Candidate({"conv6": Fractional(3.56)}).to_json()
    again = [record("again", candidate=plainly, val=0.72, test=0.72, rf_px=111)]
    text = str(verdict(make_run, trained(1, 0.6), found(3.56, 0.75), again))
    assert "125 steps against 100 of the hand default (+25 %)" in text
    assert "Of its gain of +0.15, the receptive field makes +0.12: trained from scratch for 100 steps" in text
    assert "The length and the way of training make +0.030." in text
    assert "fractional 0.750 (mean of 5, 95 % interval 0.746 to 0.754), 125 steps" in text


def test_the_gain_is_split_by_a_longer_training_of_the_hand_default(make_run: MakeRun) -> None:
    longer = [record("longer", 1, val=0.65, test=0.65, steps=125, strategy="longer")]
    text = str(verdict(make_run, trained(1, 0.6), found(3.56, 0.75), longer))
    assert "Of its gain of +0.15, the length makes +0.050" in text
    assert "The receptive field makes +0.10." in text


def test_a_gain_that_cannot_be_split_is_said_to_be_unknown(make_run: MakeRun) -> None:
    text = str(verdict(make_run, trained(1, 0.6), found(3.56, 0.75)))
    assert "How much of the difference is the receptive field's is unknown" in text


def test_equal_lengths_are_not_named(make_run: MakeRun) -> None:
    assert "steps" not in str(verdict(make_run, trained(1, 0.6), trained(4, 0.75)))


@pytest.mark.parametrize(("status", "said"), [("completed", True), ("cut", False)])
def test_a_trial_that_was_stopped_early_says_nothing_of_moving(make_run: MakeRun, status: str, said: bool) -> None:
    still = record("still", 2, learned=True, strategy="inflation", status=status, ends={"conv6": 1.0}, val=0.8)
    text = str(verdict(make_run, [still], trained(4, 0.7)))
    assert ("never left its start" in text) == said


def test_the_page_marks_what_the_verdict_recommends(make_run: MakeRun) -> None:
    run = make_run([*trained(1, 0.6), *trained(4, 0.700), *found(3.56, 0.702)])
    page = Page(write(run.directory))
    assert [row[0] for row in page.rows if row and "★" in row[0]] == ["d4-1 ★"]
    ring = next(t for t in page.figures["against-rf"]["data"] if t["name"] == "recommended")
    assert ring["x"] == [124]
