"""What a budget holds, and why an arm left some of it: told by the page of a run, of an old one too."""

import pytest

from rfsearch.ledger import Journal, read_run
from rfsearch.report import left_unspent, write
from rfsearch.report.budgets import holds
from tests.report.made_up import MakeRun, record

ARMS = [{"strategy": name, "seed": seed} for name in ("exhaustive", "random") for seed in (0, 1)]


@pytest.mark.parametrize(
    ("trainings", "sentence"),
    [
        (
            6.9,
            "7x has room for 6 full trainings of the hand default: one costs 1.08x with its evaluations",
        ),
        (1.2, "7x has room for 1 full training of the hand default: one costs 1.08x"),
        (0.9, "7x is less than a full training of the hand default takes: one costs 1.08x"),
    ],
)
def test_a_budget_says_how_many_trainings_it_holds(trainings, sentence):
    assert holds("7x", trainings, 1.08).startswith(sentence)


def test_arms_that_left_budget_for_the_same_reason_share_a_sentence(make_run: MakeRun):
    trials = [record("exhaustive-0-000"), record("random-1-000", strategy="random", seed=1)]
    run = make_run(trials, arms=ARMS, budget={"full_training": {"flop": 1.1e12, "device_s": 1.0, "epochs": 1.0}})
    assert left_unspent(run) == []
    for strategy, seed, why in (
        ("exhaustive", 0, "too little"),
        ("random", 1, "too little"),
        ("random", 0, "no idea."),
    ):
        Journal(run.directory).end(strategy, seed, why)
    sentences = [
        "Left unspent: exhaustive/0 75 % and random/1 75 %, since too little.",
        "Left unspent: random/0 100 %, since no idea.",
    ]
    assert left_unspent(read_run(run.directory)) == sentences
    page = write(run.directory).read_text()
    assert all(sentence in page for sentence in sentences)
    assert "4x has room for 3 full trainings of the hand default: one costs 1.1x" in page


def test_the_page_of_an_older_run_says_neither(make_run: MakeRun):
    text = write(make_run([record("exhaustive-0-000")]).directory).read_text()
    assert "has room for" not in text
    assert "Left unspent" not in text
